//! `debug --ephemeral`: a real ephemeral container, as `kubectl debug` and cdebug add one. Our streams are its own.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use serde_json::Value;
use tokio::{io::AsyncWriteExt, time::timeout};

use super::Args;
use crate::{
    app::App,
    cluster::{
        amended,
        api::{Api, Failure, JSON, Lines, Refused},
        attach::{self, Attached, Ended},
        document,
        ephemeral::{self, User, Wish},
        find as in_cluster, logs,
        pods::{Container, Pod, State},
        reading,
    },
    commands::{
        api,
        visit::{self, Visit, Within},
        within,
    },
    error::{Error, Kind, Result, printable},
    labs::find,
    target::{PodName, Target},
    ui::{
        notice::{self, Progress},
        spinner::Spinner,
        stdio::{self, Writer},
    },
};

/// Time limit for the word of a node about the end of a container, whose streams have ended.
const ENDING: Duration = Duration::from_secs(30);
/// The same, where the streams were lost.
const LOST: Duration = Duration::from_secs(5);

/// The options of an ephemeral container.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Add a real ephemeral container of IMAGE to the pod, which its node pulls, and open it. It sees the processes and the
    /// network of CONTAINER, whose files are in /proc/1/root. It stays in the pod's spec until the pod is deleted.
    #[arg(long, value_name = "IMAGE", requires = "pod", conflicts_with_all = ["tools", "container"])]
    pub ephemeral: Option<String>,
    /// The ephemeral container may do all that root of the node may.
    #[arg(long, requires = "ephemeral", conflicts_with = "container")]
    pub privileged: bool,
    /// Amend the object of the ephemeral container by this patch in JSON, before it is added.
    #[arg(long = "override", value_name = "JSON", requires = "ephemeral", value_parser = json)]
    #[arg(conflicts_with = "container")]
    pub patch: Option<Value>,
    /// The form of that patch: members that take the place of others, the same with lists merged by their keys, or a list
    /// of operations.
    #[arg(
        long = "override-type",
        value_name = "merge|strategic|json",
        value_enum,
        default_value_t,
        requires = "patch"
    )]
    #[arg(hide_possible_values = true)]
    pub form: amended::Form,
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|e| format!("it is not valid JSON: {e}"))
}

/// The word about what stays, when all is over, whichever way it went.
struct Stays {
    container: String,
    pod: String,
}

impl Drop for Stays {
    fn drop(&mut self) {
        let Stays { container, pod } = self;
        notice::line(&format!(
            "labctl-ssh-proxy: the ephemeral container {container} stays in the spec of {pod} until the pod is deleted"
        ));
    }
}

/// Adds the container, opens it, and returns its exit code.
///
/// # Errors
/// [`Kind::Usage`] for a user without a number and for a patch that does not fit; [`Kind::NotWoken`] for a container that
/// does not start; the API's.
pub(super) async fn run(app: &App, args: Args, image: &str, name: &PodName) -> Result<u8> {
    let user = args.user.as_deref().map(str::parse::<User>).transpose().map_err(|why| {
        Error::new(Kind::Usage, why).with_hint("write the user of an ephemeral container as UID or UID:GID")
    })?;
    let words = args.command.iter().map(|word| word.to_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
    let command = words.ok_or_else(|| Error::new(Kind::Usage, "the command is not valid UTF-8, as JSON is"))?;
    // The keys of a terminal on Windows cannot be lent yet.
    let reads = cfg!(unix) && io::stdin().is_terminal();
    let terminal = reads && (io::stdout().is_terminal() || command.is_empty());
    let labs = app.labs().await?;
    let visit =
        Visit { host: args.host, consent: args.consent, within: Some(Within::Pod(name.clone())), ..Visit::default() };
    let play = within::arrive(app, &labs, &visit).await?.play;
    let machine = reading::usual_machine(&play).map(str::to_owned);
    if let Some(machine) = &machine {
        let host = Target::of_play(&play.id, Some(machine)).to_string();
        visit::arrive(app, &labs, &Visit { host, ..Visit::default() }).await?;
    }
    let play = find::by_id(&labs, &play.id).await?;
    let way = api::way(app, &labs, &play, machine.as_deref()).await?;
    let spinner = Spinner::new();
    spinner.waiting(&format!("adding an ephemeral container to pod {name} of {}", play.shown()));
    let wish = Wish { image, target: "", command: &command, user, privileged: args.ephemeral.privileged, terminal };
    let begin = async {
        let api = api::open(app, &labs, &play, &way, &spinner).await?;
        let (pod, container, is_terminal) = added(&api, name, wish, &args.ephemeral).await?;
        let shown = format!("pod {}", printable(&pod.metadata.name));
        let stays = Stays { container: printable(&container), pod: shown };
        let told =
            |now: &Container| spinner.waiting(&format!("the ephemeral container {}: {}", stays.container, state(now)));
        let mut first = String::new();
        let begun = ephemeral::until(
            &api,
            &pod,
            &container,
            |now| {
                if now.reason == "ErrImagePull" {
                    first = printable(&now.message);
                }
                told(now);
            },
            ephemeral::has_begun,
        );
        let begun = begun.await?;
        if begun.state == State::Waiting {
            let Stays { container, pod } = &stays;
            let message = format!("the ephemeral container {container} of {pod} does not start: {}", state(&begun));
            let error = Error::new(Kind::NotWoken, message);
            return Err(if first.is_empty() { error } else { error.with_hint(first) });
        }
        Ok((api, pod, begun, is_terminal, stays))
    };
    let (api, pod, begun, is_terminal, stays) = tokio::select! {
        begun = begin => begun.map_err(|error| error.on(app.platform))?,
        never = spinner.repeat() => match never {},
    };
    drop(spinner);
    let session = Session { api: &api, pod: &pod, container: &begun.name };
    let code = session.carried(&begun, is_terminal).await;
    api.into_ssh().close().await;
    drop(stays);
    code
}

/// Adds the container. Returns the pod, its name, and if it has a terminal.
async fn added(api: &Api, name: &PodName, wish: Wish<'_>, options: &Options) -> Result<(Pod, String, bool)> {
    let shown = &api.ssh().login().shown;
    let pod = in_cluster::pod(api, name).await?;
    let target = in_cluster::named(&pod, name.container.as_deref(), shown)?;
    if let Some(why) = pod.is_closed() {
        let message = format!("{} {why}, so nothing can be started in it", in_cluster::subject(&pod, shown));
        return Err(Error::new(Kind::NotWoken, message).with_hint("choose another pod"));
    }
    let (namespace, pod_name) = (&pod.metadata.namespace, &pod.metadata.name);
    let whole: Value = api.get(&format!("/api/v1/namespaces/{namespace}/pods/{pod_name}"), JSON).await?;
    let wish = Wish { target: &target.name, ..wish };
    let (mut object, demanded) = ephemeral::object(&whole, &ephemeral::name(), &wish);
    if let Some(patch) = &options.patch {
        let unfit = |why: String| Error::new(Kind::Usage, format!("--override cannot be applied: {}", printable(&why)));
        object = amended::by(object, patch, options.form).map_err(unfit)?;
    }
    let container = object["name"].as_str().unwrap_or_default().to_owned();
    let unfit = match &*container {
        "" => Some("--override leaves the container without a name".to_owned()),
        name if !document::of(&whole, name)["spec"].is_null() => {
            Some(format!("the pod has a container `{}` already", printable(name)))
        }
        _ => None,
    };
    if let Some(message) = unfit {
        return Err(Error::new(Kind::Usage, message).with_hint("choose another name in --override"));
    }
    if let Some(User { uid, gid }) = demanded {
        notice::line(&format!(
            "labctl-ssh-proxy: the pod forbids root, so it runs as {uid}:{gid}; --user changes that"
        ));
    }
    ephemeral::add(api, &pod, &object).await?;
    Ok((pod, container, object["tty"] == true))
}

/// A container's state in words.
fn state(container: &Container) -> String {
    let words = [&*container.title.to_lowercase(), &container.reason, &container.message];
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    printable(&words.join(", "))
}

/// An ephemeral container that has begun.
struct Session<'a> {
    api: &'a Api,
    pod: &'a Pod,
    container: &'a str,
}

impl Session<'_> {
    /// Carries its streams, and returns its exit code.
    async fn carried(&self, begun: &Container, is_terminal: bool) -> Result<u8> {
        let mut output =
            stdio::output().map_err(|e| Error::new(Kind::Usage, format!("standard output is closed: {e}")))?;
        if let Some(code) = begun.exit_code {
            self.print_log(&mut output).await?;
            return Ok(exit_code(code, begun));
        }
        let Pod { metadata, .. } = self.pod;
        let attached = attach::attach(self.api, &metadata.namespace, &metadata.name, self.container, is_terminal).await;
        let (count, carried) = match attached {
            Ok(attached) => carry(attached, &mut output, is_terminal).await?,
            Err(Failure { refused: Some(Refused::Forbidden), error }) => return Err(error),
            // It may have ended in this moment.
            Err(failure) => (0, Err(failure.into())),
        };
        // A file that is full stays so.
        if let Err(error) = &carried
            && error.kind() == Kind::File
        {
            return Err(error.clone());
        }
        if let Ok(Ended::Unread) = carried {
            return Ok(0);
        }
        let has_ended = |now: &Container| now.exit_code.is_some();
        let limit = if carried.is_ok() { ENDING } else { LOST };
        let ended = timeout(limit, ephemeral::until(self.api, self.pod, self.container, |_| {}, has_ended));
        let code = match (&ended.await, &carried) {
            (Ok(Ok(ended @ Container { exit_code: Some(code), .. })), _) => exit_code(*code, ended),
            (_, Err(error)) => return Err(error.clone()),
            (Ok(Err(error)), _) => return Err(error.clone()),
            (Ok(Ok(_)) | Err(_), _) => {
                let message =
                    format!("the streams of {} have ended, and its exit code is not known yet", self.container);
                return Err(Error::new(Kind::NotYet, message).with_hint("see its state with `labctl-ssh-proxy pods`"));
            }
        };
        // A terminal shows all that has come, so nothing is missed at the end.
        if !is_terminal || count == 0 {
            self.complete(count, &mut output).await?;
        }
        Ok(code)
    }

    /// Prints what the container has written where nothing of it has come, as from before it was attached to. Where a part
    /// has come, it says what has not.
    async fn complete(&self, count: u64, output: &mut Writer) -> Result<()> {
        if count == 0 {
            return self.print_log(output).await;
        }
        let Ok(mut log) = self.log().await else { return Ok(()) };
        let mut size = 0;
        while let Ok(Some(piece)) = log.piece().await {
            size += piece.len() as u64;
        }
        // The log ends the last line of each stream even where the program has not.
        if let Some(missing @ 3..) = size.checked_sub(count) {
            notice::line(&format!(
                "labctl-ssh-proxy: {missing} bytes of its output are not here, as those from before it was attached to: see \
                 `labctl-ssh-proxy logs PLAYGROUND --pod {}/{}/{}`",
                printable(&self.pod.metadata.namespace),
                printable(&self.pod.metadata.name),
                printable(self.container)
            ));
        }
        Ok(())
    }

    async fn print_log(&self, output: &mut Writer) -> Result<()> {
        let mut log = self.log().await?;
        while let Some(piece) = log.piece().await? {
            let written = async {
                output.write_all(&piece).await?;
                output.flush().await
            };
            match written.await {
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => break,
                written => {
                    written.map_err(|e| Error::new(Kind::File, format!("cannot write to standard output: {e}")))?
                }
            }
        }
        Ok(())
    }

    async fn log(&self) -> Result<Lines> {
        let Pod { metadata, .. } = self.pod;
        let wish = logs::Wish::default();
        Ok(logs::begin(self.api, &metadata.namespace, &metadata.name, self.container, &wish).await?)
    }
}

/// Carries our streams, with our terminal lent if the container has one.
async fn carry(attached: Attached, output: &mut Writer, is_terminal: bool) -> Result<(u64, Result<Ended>)> {
    let (input, errors) = (tokio::io::stdin(), tokio::io::stderr());
    #[cfg(unix)]
    if is_terminal && io::stdin().is_terminal() {
        notice::line("labctl-ssh-proxy: if you see no prompt, press Enter");
        let mut raw = crate::ui::raw::Raw::enter()
            .map_err(|e| Error::new(Kind::File, format!("cannot switch the terminal to raw mode: {e}")))?;
        return Ok(attached.carry(input, output, errors, async || raw.size().await).await);
    }
    if !is_terminal && !attached.ends_input() {
        notice::line(
            "labctl-ssh-proxy: this API is older than Kubernetes 1.30: it cannot tell the container that its input has ended",
        );
    }
    Ok(attached.carry(input, output, errors, std::future::pending).await)
}

/// The exit code of a container as one of ours. A program that its node has not started, or has ended, is told.
fn exit_code(code: i32, ended: &Container) -> u8 {
    if !matches!(&*ended.reason, "" | "Completed" | "Error") {
        notice::line(&format!("labctl-ssh-proxy: {}", state(ended)));
    }
    u8::try_from(code).unwrap_or(u8::MAX)
}
