//! `debug`: a shell, or a command, that sees a container's files, with tools that the container lacks. It becomes the
//! system's ssh as `ssh` does, and leads into the container as `ssh --in` does.
//!
//! - `ephemeral`: a container that is added to a pod instead.

mod ephemeral;

use std::{
    ffi::{OsStr, OsString},
    io::{self, IsTerminal},
};

use clap_complete::ArgValueCompleter;
use helper::wire::Tools;

use crate::{
    app::App,
    commands::{
        candidates,
        ssh::{become_it, begin},
        visit::{Visit, Within},
    },
    error::{Error, Kind, Result},
    settings::TOOLS_VARIABLE,
    target::{self, PodName},
};

/// The options for a connection of its own, because another one has other tools; and the command of this line, no other.
const OF_ITS_OWN: [&str; 6] = ["-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", "RemoteCommand=none"];

/// Open a shell in a container, or run a command there, with tools that it may lack.
///
/// Its files, processes and network are the container's, and so is what the shell may do there. Nothing is restarted,
/// written into the container or left there. The exit code is the command's.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// The playground's host name, id, title, catalogue name or page address, or the host name of a machine. It is woken
    /// if it is stopped.
    #[arg(value_name = "PLAYGROUND", add = ArgValueCompleter::new(candidates::hosts))]
    pub host: String,
    /// The container: its name or id, on any machine if it is the only one.
    #[arg(required_unless_present = "pod", add = ArgValueCompleter::new(candidates::containers))]
    pub container: Option<String>,
    /// Go into this pod of the playground's cluster: POD of the namespace default, NAMESPACE/POD or
    /// NAMESPACE/POD/CONTAINER. The name of a Deployment, StatefulSet or DaemonSet stands for its one ready pod.
    #[arg(long, value_name = "POD", add = ArgValueCompleter::new(candidates::pods), conflicts_with = "container")]
    pub pod: Option<PodName>,
    /// The tools to bring along: those of the machine, in each container (always) or where it lacks a shell (auto); none;
    /// the folder PATH of the machine, whose bin comes into PATH; or those of IMAGE, which the machine's engine pulls
    /// where it has none.
    #[arg(long, value_name = "auto|always|none|PATH|IMAGE", default_value = "always", value_parser = tools)]
    pub tools: Tools,
    /// The user inside: a name or a number. By default the one that the container runs as. With --ephemeral, UID or
    /// UID:GID; by default that of the image, or the pod's container's where the pod forbids root.
    #[arg(long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    #[command(flatten)]
    pub ephemeral: ephemeral::Options,
    /// Start the playground although it is not published by the platform: you trust its author.
    #[arg(long)]
    pub consent: bool,
    /// The command to run in the container. Its words get there as they are.
    #[arg(last = true)]
    pub command: Vec<OsString>,
}

/// Reads the value of `--tools`.
fn tools(text: &str) -> Result<Tools, String> {
    match text.parse()? {
        Tools::Image(name) if name.starts_with(['.', '~']) => {
            Err("a folder of the machine begins with /, and an image's name with a letter or a digit".to_owned())
        }
        tools => Ok(tools),
    }
}

/// Makes the machine ready, then becomes ssh in the container.
///
/// # Errors
/// As `ssh`; [`Kind::Usage`] for two users.
pub(crate) async fn run(app: &App, args: Args) -> Result<u8> {
    if let (Some(image), Some(pod)) = (args.ephemeral.ephemeral.clone(), args.pod.clone()) {
        return ephemeral::run(app, args, &image, &pod).await;
    }
    let user = target::user(args.user.as_deref())?;
    let host = match (user, args.host.rsplit_once('@').filter(|(name, _)| !name.contains('/'))) {
        (Some(user), Some((other, _))) => {
            let message = format!("two users are named: {other} and {user}");
            return Err(Error::new(Kind::Usage, message).with_hint("leave out one of them"));
        }
        (Some(user), None) => format!("{user}@{}", args.host),
        (None, _) => args.host,
    };
    let visit = Visit { host, consent: args.consent, within: Within::by(args.container, args.pod), ..Visit::default() };
    let labs = app.labs().await?;
    let mut command = begin(app, &labs, &visit, false).await?;
    let (reads, writes) = (io::stdin().is_terminal(), io::stdout().is_terminal());
    // A command's output into a file stays as it is, which a terminal would change.
    let terminal = if reads && (writes || args.command.is_empty()) { "-t" } else { "-T" };
    // ssh hands it on to `connect`.
    command.args(OF_ITS_OWN).arg(terminal).env(TOOLS_VARIABLE, args.tools.to_string());
    if !args.command.is_empty() {
        command.arg("--").arg(line(&args.command));
    }
    become_it(command)
}

/// A program and its arguments as one line, of which a shell, and a server without one, makes the same words again.
fn line(words: &[OsString]) -> OsString {
    let words: Vec<OsString> = words.iter().map(|word| quoted(word)).collect();
    words.join(OsStr::new(" "))
}

/// Quotes a word of any bytes. Quoted, the name of a program is no keyword of the shell and no assignment.
fn quoted(word: &OsStr) -> OsString {
    let parts: Vec<&[u8]> = word.as_encoded_bytes().split(|byte| *byte == b'\'').collect();
    let bytes = [b"'", &parts.join(&b"'\\''"[..])[..], b"'"].concat();
    #[cfg(unix)]
    {
        std::os::unix::ffi::OsStringExt::from_vec(bytes)
    }
    #[cfg(not(unix))]
    {
        String::from_utf8_lossy(&bytes).into_owned().into()
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::{ffi::OsString, os::unix::ffi::OsStringExt, process::Command};

    use clap::Parser;
    use helper::wire::Tools;
    use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

    use super::{Args, line};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_shell_reads_the_words_again(
            words in proptest::collection::vec(proptest::collection::vec(1..=u8::MAX, 0..8), 1..4),
        ) {
            let words: Vec<OsString> = words.into_iter().map(OsString::from_vec).collect();
            let mut script = OsString::from("printf '%s\\0' ");
            script.push(line(&words));
            let said = Command::new("sh").env("LC_ALL", "C").arg("-c").arg(script).output().unwrap().stdout;
            let read: Vec<Vec<u8>> = said.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
            let sent = words.into_iter().map(OsString::into_vec).chain([Vec::new()]);
            prop_assert_eq!(read, sent.collect::<Vec<_>>());
        }

        #[test]
        fn no_word_makes_it_panic(word in any::<Vec<u8>>()) {
            let _ = line(&[OsString::from_vec(word)]);
        }
    }

    #[test]
    fn tools_are_a_word_a_folder_or_an_image() {
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        let tools = |text: &str| Line::try_parse_from(["debug", "p", "c", "--tools", text]).map(|line| line.args.tools);
        assert_eq!(tools("none").unwrap(), Tools::None);
        assert_eq!(tools("/opt/tools").unwrap(), Tools::Folder("/opt/tools".into()));
        assert_eq!(tools("busybox:musl").unwrap(), Tools::Image("busybox:musl".into()));
        for wrong in ["", "./tools", "~/tools", "-x", "a\nb"] {
            assert!(tools(wrong).is_err(), "{wrong}");
        }
    }
}
