//! `kube`: access to the playground's Kubernetes API with the kubectl of this computer.
//!
//! The machine's kubeconfig is copied into a private file of ours, with the server's address replaced by a forward.
//! kubectl still verifies the certificate, against the server's original name. The file exists as long as the command
//! runs.
//!
//! With `--json`, one line on standard output reports that all is ready: `event` (`ready`), `kubeconfig` (our file),
//! `context` (the merged one, or null), `merged` (the file that has it, or null) and `servers` (`address` here, `to`
//! there). It appears among the events of [`crate::commands::forward::board`].

pub mod merge;
pub(crate) mod user;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap_complete::{ArgValueCandidates, ArgValueCompleter};
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    app::App,
    cluster::{
        kubeconfig::{self, Server},
        reading,
    },
    commands::{
        candidates,
        folder::{self, Asks},
        forward::{
            self,
            board::{Board, View, What},
            local::{Listeners, Local},
            spec::{Bind, Endpoint, Listen},
            way::{Opens, Way},
        },
    },
    error::{Error, Kind, Result, printable},
    files::{self, Lock},
    keep,
    labs::{Labs, find, wire::Play},
    os::{self, Signals, ended_by_signal},
    platform::is_id,
    records::forwards::Forwards,
    settings::Folders,
    target::{Playground, Target, host_port},
    ui::{
        notice::{self, Progress},
        out,
    },
};

/// Time for a kubeconfig to come into being, because a machine is up before its cluster is.
const PATIENCE: Duration = Duration::from_secs(10);

/// Use this computer's kubectl with a playground's Kubernetes API.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The playground's id, host name, alias, title, catalogue name or page address. It is woken if it is stopped. Without it,
    /// the one that .labctl-ssh-proxy.yaml names, here or in a folder above.
    #[arg(add = ArgValueCompleter::new(candidates::playgrounds))]
    playground: Option<String>,
    /// The machine with the kubeconfig; cplane-01 by default, or the first machine if there is none.
    #[arg(short, long, add = ArgValueCandidates::new(candidates::machines))]
    machine: Option<String>,
    /// Add a context named after the playground to your kubeconfig, and remove it at the end.
    #[arg(long)]
    merge: bool,
    /// Only remove that context.
    #[arg(long, requires = "playground", conflicts_with_all = ["merge", "command"])]
    remove: bool,
    /// Print JSON, one line per event.
    #[arg(long, conflicts_with = "command")]
    json: bool,
    /// The command to run with KUBECONFIG set; its exit code is returned. Without it, run until Ctrl-C (exit code 130).
    #[arg(last = true)]
    command: Vec<OsString>,
}

/// Runs until a signal arrives or the given command ends. Returns the command's exit code, or 128 plus the signal's
/// number.
///
/// # Errors
/// Fails when there is no usable kubeconfig, or the playground no longer exists.
pub async fn run(app: &App, mut args: Args) -> Result<u8> {
    if args.remove {
        return tokio::select! {
            removed = remove(app, &args) => removed.map(|()| 0),
            signal = ended_by_signal() => Ok(128 + signal),
        };
    }
    let machine = args.machine.clone().unwrap_or_else(|| reading::CONTROL_PLANE.to_owned());
    let asks = Asks { json: args.json, machine: Some(machine), ..Asks::default() };
    let meant = tokio::select! {
        meant = folder::meant(app, args.playground, "kube", asks) => meant?,
        signal = ended_by_signal() => return Ok(128 + signal),
    };
    args.playground = Some(meant.playground);
    let quiet = if args.command.is_empty() { View::new(args.json) } else { View::Quiet };
    let board = Board::new(quiet);
    let ended = tokio::select! {
        ended = serve(app, &args, &board) => ended,
        never = board.show() => match never {},
    };
    board.end();
    ended
}

impl Args {
    /// The playground, once it is known.
    fn playground(&self) -> &str {
        self.playground.as_deref().unwrap_or_default()
    }
}

async fn remove(app: &App, args: &Args) -> Result<()> {
    let argument = args.playground();
    find::no_container(argument)?;
    // If the id is known, neither a login nor the playground itself is needed.
    let id = match Target::parse(argument) {
        _ if is_id(argument) => argument.to_owned(),
        Ok(Target { playground: Playground::Id(id), .. }) => id,
        Ok(_) | Err(_) => {
            let labs = app.labs().await?;
            forward::find_play(&labs, argument, args.machine.as_deref()).await?.0.id
        }
    };
    let name = Target::of_play(&id, None).to_string();
    let file = user::take_away(&app.folders, &name).await?;
    if args.json {
        return out::json(&json!({ "context": name, "file": file }));
    }
    out::line(&match file.ok_or_else(|| user::of_the_users(&app.folders, &name)) {
        Ok(path) => format!("The context {name} is no longer in {}.", path.display()),
        Err(Some(path)) => format!(
            "The context {name} in {} is your own: `kubectl config delete-context {name}` removes it.",
            path.display()
        ),
        Err(None) => format!("There is no context {name} to remove."),
    })
}

async fn serve(app: &App, args: &Args, board: &Arc<Board>) -> Result<u8> {
    let mut signals = Signals::listen();
    let mut ready = tokio::select! {
        ready = Ready::make(app, args, board) => ready?,
        signal = signals.next() => return Ok(128 + signal),
    };
    let (labs, play) = (ready.labs.clone(), ready.play.clone());
    let kept = keep::look_after(app, &labs, &play, || board.moved());
    tokio::pin!(kept);
    let Some((program, arguments)) = args.command.split_first() else {
        ready.announce(args, board)?;
        return tokio::select! {
            broken = ready.broken() => Err(broken),
            () = board.unread() => Ok(0),
            signal = signals.next() => Ok(128 + signal),
            never = kept => match never {},
        };
    };
    let shown = printable(&Path::new(program).display().to_string());
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).env("KUBECONFIG", &ready.own.path).kill_on_drop(true);
    let mut child = command.spawn().map_err(|e| {
        Error::new(Kind::Program, format!("cannot start {shown}: {e}"))
            .with_hint("check that it is installed and in PATH")
    })?;
    loop {
        tokio::select! {
            status = child.wait() => {
                let status = status.map_err(|e| Error::new(Kind::Internal, format!("cannot wait for {shown}: {e}")))?;
                return Ok(os::exit_code(status));
            }
            // The terminal sends its signals to the command as well. Requests to end are passed on to it.
            signal = signals.next() => os::pass_on(signal, &child),
            // Report the failure but let the command end by itself: its connections are refused from now on.
            broken = ready.broken() => board.problem(broken.message()),
            never = &mut kept => match never {},
        }
    }
}

/// Everything that kubectl needs, for as long as this value lives.
struct Ready<'a> {
    labs: Labs,
    play: String,
    ports: BTreeMap<(String, u16), u16>,
    tasks: JoinSet<Result<()>>,
    merged: Option<Merged<'a>>,
    own: Own,
}

impl Ready<'_> {
    async fn make<'a>(app: &'a App, args: &Args, board: &Arc<Board>) -> Result<Ready<'a>> {
        let labs = app.labs().await?;
        let (play, machine) = forward::find_play(&labs, args.playground(), args.machine.as_deref()).await?;
        let name = Target::of_play(&play.id, None).to_string();
        let claim = args.merge.then(|| user::claim(&app.folders, &name)).transpose()?;
        if claim.is_some() {
            user::check(&app.folders, &name)?;
        }
        os::raise_open_files();
        let (way, text) = prepare(app, &labs, &play, machine.as_deref(), board).await?;
        kubeconfig::check(&text, &play.shown())?;
        board.record(Forwards::begin(&app.folders, &play.id));
        let mut tasks = JoinSet::new();
        let ports = listen(&mut tasks, &way, &kubeconfig::servers(&text)?, board).await?;
        let port = |server: &Server| ports.get(&(server.host.clone(), server.port)).copied().unwrap_or(0);
        let text = kubeconfig::redirect(&text, port)?;
        let own = Own::write(&app.folders, &play.id, &text)?;
        let merged = match claim {
            Some(claim) => Some(Merged::add(&app.folders, name, claim, &kubeconfig::current(&text)?).await?),
            None => None,
        };
        Ok(Ready { labs, play: play.id, ports, tasks, merged, own })
    }

    fn announce(&self, args: &Args, board: &Board) -> Result<()> {
        let file = self.merged.as_ref().map(|merged| &merged.path);
        board.ready_with(&json!({
            "event": "ready", "kubeconfig": self.own.path, "context": self.merged.as_ref().map(|merged| &merged.name),
            "merged": file,
            "servers": self.ports.iter().map(|((host, port), here)| json!({
                "address": host_port("127.0.0.1", *here), "to": host_port(host, *port),
            })).collect::<Vec<_>>(),
        }));
        if args.json {
            return Ok(());
        }
        let line = match &self.merged {
            Some(merged) => format!("kubectl --context {} get nodes", merged.name),
            None => format!("export KUBECONFIG={}", self.own.path.display()),
        };
        board.above(|| out::line(&line))
    }

    /// Waits until a forward fails. Each failure is returned once.
    async fn broken(&mut self) -> Error {
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error,
                Err(e) => return Error::new(Kind::Internal, format!("a port forward failed unexpectedly: {e}")),
            }
        }
        std::future::pending().await
    }
}

/// Deletes whatever killed runs have left of a playground that no longer exists. Running ones clean up by themselves.
pub async fn forget(folders: &Folders, play: &str) {
    let name = Target::of_play(play, None).to_string();
    if let Err(error) = user::forget(folders, &name).await {
        notice::line(&format!("labctl-ssh-proxy: the context {name} was not removed: {}", error.message()));
    }
    Own::sweep(&folders.kube(), Some(play));
}

/// Wakes the playground and reads its kubeconfig, as the default user or else as root.
async fn prepare(
    app: &App,
    labs: &Labs,
    play: &Play,
    machine: Option<&str>,
    board: &Arc<Board>,
) -> Result<(Arc<Way>, String)> {
    let machine = find::machine(play, machine.or(reading::usual_machine(play)))?;
    let user = machine.default_user();
    let way = Arc::new(Way::new(app, labs, play, machine, user, board)?);
    app.memory().machine_wanted(&play.id, &machine.name);
    forward::begin(app, play, &way, Opens::Ssh, board).await?;
    let root = async || {
        let root = Arc::new(Way::new(app, labs, play, machine, "root", board)?);
        forward::begin(app, play, &root, Opens::Ssh, board).await?;
        root.ssh().await
    };
    let mut readers = vec![way.ssh().await?];
    let mut root_may_have_it = user != "root";
    let mut missing = None;
    let deadline = Instant::now() + PATIENCE;
    let text = loop {
        let mut found = None;
        for ssh in &readers {
            match reading::read(ssh, way.machine()).await? {
                Ok(text) => found = Some(text),
                Err(why) => missing = missing.or(why),
            }
            if found.is_some() {
                break;
            }
        }
        if found.is_some() || Instant::now() > deadline {
            break found;
        }
        if std::mem::take(&mut root_may_have_it) {
            match root().await {
                Ok(ssh) => {
                    readers.push(ssh);
                    continue;
                }
                Err(error) => log::info!("root cannot look for a kubeconfig: {}", error.message()),
            }
        }
        // A cluster that is coming up writes it last.
        board.waiting(&format!("waiting for the kubeconfig of machine {}", machine.name));
        sleep(Duration::from_secs(1)).await;
    };
    for ssh in readers {
        ssh.close().await;
    }
    if let Some(text) = text {
        return Ok((way, text));
    }
    let why = missing.unwrap_or_else(|| "has no ~/.kube/config, and KUBECONFIG names no file there".into());
    let message = format!("machine {} of playground {} {why}", machine.name, play.shown());
    if let Ok(now) = labs.play(&play.id).await
        && let Some((done, all)) = now.init_progress().filter(|(done, all)| done < all)
    {
        return Err(Error::new(Kind::NotYet, format!("{message} yet: {done} of {all} init tasks are done"))
            .with_hint(format!("wait for them with `labctl-ssh-proxy wait {} --init`", play.id)));
    }
    Err(Error::new(Kind::NotFound, message).with_hint(
        "check that it is a Kubernetes playground and its cluster is ready, or name another machine with -m",
    ))
}

/// Opens a forward to each server. Returns the local ports.
async fn listen(
    tasks: &mut JoinSet<Result<()>>,
    way: &Arc<Way>,
    servers: &[Server],
    board: &Arc<Board>,
) -> Result<BTreeMap<(String, u16), u16>> {
    let mut ports = BTreeMap::new();
    for Server { host, port } in servers {
        if ports.contains_key(&(host.clone(), *port)) {
            continue;
        }
        let listeners = Listeners::bind(&Listen::Port(Bind::Host("127.0.0.1".into()), 0), board).await?;
        let to = Endpoint::Port(host.clone(), *port);
        let what = What {
            kind: "local",
            protocol: "tcp",
            machine: way.machine().to_owned(),
            container: None,
            address: listeners.address(),
            to: to.to_string(),
        };
        ports.insert((host.clone(), *port), listeners.port());
        let row = board.listening(what);
        let local = Local { way: Arc::clone(way), to, over_ssh: false, board: Arc::clone(board), row };
        tasks.spawn(local.serve(listeners));
    }
    Ok(ports)
}

/// Our copy of the kubeconfig. Dropping it deletes the file.
struct Own {
    path: PathBuf,
    /// Held as long as the file exists. A file without a lock was left by a killed run.
    _lock: Lock,
}

impl Own {
    fn write(folders: &Folders, play: &str, text: &str) -> Result<Own> {
        let folder = folders.kube();
        Own::sweep(&folder, None);
        // Concurrent runs for the same playground use separate files.
        let mut n = 1;
        let (path, lock) = loop {
            let name = if n == 1 { format!("{play}.yaml") } else { format!("{play}-{n}.yaml") };
            let path = folder.join(name);
            // Without locks, the other run's file tells that it runs.
            if let Some(lock) = Lock::try_acquire(&path)?.filter(|lock| lock.is_held() || !path.exists()) {
                break (path, lock);
            }
            n += 1;
        };
        files::write_private(&path, text.as_bytes())?;
        Ok(Own { path, _lock: lock })
    }

    /// Deletes the files of killed runs: they lead nowhere, and contain the cluster's keys. With `gone`, only that
    /// playground's, together with their locks.
    fn sweep(folder: &Path, gone: Option<&str>) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(name) = name.strip_suffix(".lock").filter(|_| gone.is_some()).or(Some(&name)) else { continue };
            if !name.ends_with(".yaml") || gone.is_some_and(|play| !name.starts_with(play)) {
                continue;
            }
            let path = folder.join(name);
            let Ok(Some(lock)) = Lock::try_acquire(&path) else { continue };
            if !lock.is_held() && gone.is_none() {
                continue;
            }
            let _ = std::fs::remove_file(&path);
            if gone.is_some() {
                let _ = std::fs::remove_file(folder.join(format!("{name}.lock")));
            }
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // If this fails, the file leads nowhere, and the next run deletes it.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Our context in the user's kubeconfig. Dropping it removes the context.
struct Merged<'a> {
    folders: &'a Folders,
    name: String,
    path: PathBuf,
    _claim: Lock,
}

impl<'a> Merged<'a> {
    async fn add(folders: &'a Folders, name: String, claim: Lock, current: &kubeconfig::Current) -> Result<Merged<'a>> {
        let path = user::add(folders, &name, current).await?;
        Ok(Merged { folders, name, path, _claim: claim })
    }
}

impl Drop for Merged<'_> {
    fn drop(&mut self) {
        if let Err(error) = user::remove(self.folders, &self.name) {
            notice::line(&format!("labctl-ssh-proxy: the context {} was not removed: {}", self.name, error.message()));
        }
    }
}
