//! `open`: opens an editor on a playground. First the editor's settings are prepared and the machine is woken, and only
//! then the editor starts. It therefore never runs into its timeout, and no process of ours stays behind.

pub(crate) mod ide;
pub(crate) mod repo;

use std::{
    ffi::OsString,
    io::{Read, Seek},
    process::Stdio,
    time::Duration,
};

use clap_complete::{ArgValueCandidates, ArgValueCompleter};
use futures_util::{StreamExt, stream};
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use crate::{
    app::App,
    commands::{
        candidates,
        config::{self, ConfigSsh},
        folder::{self, Meant},
        open::{
            ide::{Ide, Link},
            repo::Repo,
        },
        playgrounds::{self, attempt::Answers},
        ssh,
        visit::{Destination, Visit, Within},
        within,
    },
    error::{Error, Kind, Result, printable},
    os::beginning,
    setup::{self, Occasion},
    ssh::{
        marked::{self, Found, Marked, quote},
        options,
    },
    ssh_config,
    target::PodName,
    ui::{
        notice::{self, Progress},
        out,
        spinner::Spinner,
    },
};

/// Time limit for an editor's starter, which ends after handing over to the editor. A process that runs for longer is
/// the editor itself.
const STARTER: Duration = Duration::from_secs(5);
/// Time limit for asking the machine for its home folder.
const ANSWER: Duration = Duration::from_secs(30);
/// Number of clones at a time. More would only share the same bandwidth.
const CLONES: usize = 4;

/// Open a playground in an editor. It is woken first, with progress, so that the editor does not time out.
///
/// Editors: code, code-insiders, codium, cursor, devin, antigravity, kiro, trae, zed, gateway, and, through Gateway,
/// idea, pycharm, goland, webstorm, clion, rider, phpstorm, rubymine, rustrover. Devin Desktop was Windsurf until June
/// 2026; `windsurf` names it, too.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// The editor.
    #[arg(add = ArgValueCandidates::new(candidates::editors))]
    pub ide: String,
    /// The playground's host name, id, title, catalogue name or page address, or the host name of a machine or a
    /// container; USER@ may stand before it. Without it, the one that .labctl-ssh-proxy.yaml names, here or in a folder
    /// above, and the folder there that it names.
    #[arg(value_name = "PLAYGROUND", add = ArgValueCompleter::new(candidates::hosts))]
    pub host: Option<String>,
    /// The folder to open, absolute or below the home folder. By default the editor decides.
    pub path: Option<String>,
    /// Open this container of the playground: its name or id, on any machine if it is the only one.
    #[arg(long = "in", value_name = "CONTAINER", add = ArgValueCompleter::new(candidates::containers))]
    pub within: Option<String>,
    /// Open this pod of the playground's cluster: POD of the namespace default, NAMESPACE/POD or
    /// NAMESPACE/POD/CONTAINER. The name of a Deployment, StatefulSet or DaemonSet stands for its one ready pod.
    #[arg(long, value_name = "POD", add = ArgValueCompleter::new(candidates::pods), conflicts_with = "within")]
    pub pod: Option<PodName>,
    /// Clone this repository there first, into DIR or a folder of its name. Can be given several times.
    #[arg(long = "repo", value_name = "URL[:DIR]")]
    pub repos: Vec<Repo>,
    /// Let git use the keys in your ssh agent for cloning.
    #[arg(long)]
    pub forward_agent: bool,
    /// Only print the command; wake and clone nothing.
    #[arg(long)]
    pub print: bool,
    /// Do not wait for the playground's init tasks.
    #[arg(long)]
    pub no_wait_init: bool,
    /// Do not ask before adding your playgrounds to the ssh configuration, if config-ssh has not been run yet, nor before
    /// beginning an attempt at a challenge, a tutorial or a lesson.
    #[arg(long)]
    pub yes: bool,
    /// Start it although it is not published by the platform: you trust its author.
    #[arg(long)]
    pub consent: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Opens an editor on a playground.
///
/// # Errors
/// [`Kind::Usage`] for an unknown editor; [`Kind::Program`] for an editor that is not installed or does not start, and
/// for a clone that fails; any error that keeps the machine from becoming ready.
pub(crate) async fn run(app: &App, mut args: Args) -> Result<()> {
    let ide = ide::by_name(&args.ide)?;
    // --print starts nothing.
    let yes = args.yes || args.print;
    let asked = folder::Asks { yes, json: args.json, has_yes: true, starts_new: true, machine: None };
    let Meant { playground: host, path } =
        folder::meant(app, args.host.take(), &format!("open {}", ide.name), asked).await?;
    args.path = args.path.or(path);
    let answers = Answers { yes: args.yes, consent: args.consent, json: args.json };
    let (consent, within) = (args.consent, Within::by(args.within.clone(), args.pod.clone()));
    let visit = Visit { host, consent, wait_init: !args.no_wait_init, begins: Some(answers), within };
    let labs = app.labs().await?;
    if args.print {
        let place = within::foresee(app, &labs, &visit).await?;
        let path = path_there(app, &place, ide, &args).await?.map(|folder| folder.path);
        let words = std::iter::once(ide.program()).chain(ide.arguments(&place, path.as_deref()));
        if args.json {
            return out::json(&serde_json::json!({ "command": words.collect::<Vec<_>>() }));
        }
        return out::line(&words.map(|word| quote(&word)).collect::<Vec<_>>().join(" "));
    }
    // Report missing programs before the playground is woken.
    let program = ide.find()?;
    ssh::program()?;
    if !ssh_config::is_managed(&app.folders) {
        config::ssh(app, ConfigSsh { yes: args.yes, ..ConfigSsh::default() }).await?;
    }
    let place = within::arrive(app, &labs, &visit).await?;
    let occasion = Occasion { again: false, waited: !args.no_wait_init };
    setup::fresh(app, &labs, &place.play, occasion, &Spinner::new()).await;
    if place.container.is_some() && args.repos.is_empty() {
        // The editor itself would only say that it cannot connect.
        in_time(&place, there(app, &place, &[], ":")).await?;
    }
    playgrounds::entries::refresh_entries(app, &labs).await;
    clone_all(app, &place, &args).await?;
    let folder = path_there(app, &place, ide, &args).await?;
    if let Some(Folder { path, is_missing: true }) = &folder {
        let host = &place.host;
        let made = format!("`labctl-ssh-proxy ssh {host} {}`", quote(&format!("mkdir -p {}", quote(path))));
        let words = format!("labctl-ssh-proxy: {path} does not exist on {host}; {made} makes it");
        notice::line(&app.platform.commands(&printable(&words)));
    }
    let path = folder.map(|folder| folder.path);
    launch(ide, &program, ide.arguments(&place, path.as_deref())).await?;
    if args.json {
        let Destination { host, container, .. } = &place;
        return out::json(&serde_json::json!({ "ide": ide.name, "host": host, "container": container, "path": path }));
    }
    let on = path.map(|path| format!(" in {path}")).unwrap_or_default();
    out::line(&format!("{} opens {}{on}", ide.title, place.host))
}

/// The folder to open.
struct Folder {
    path: String,
    /// True if the machine has said that there is none. Editors take such a path without a word, or show an empty window.
    is_missing: bool,
}

/// Returns the folder to open. A folder from the command line is absolute or relative to the home folder. Otherwise it
/// is the cloned repository, if there is exactly one. Otherwise the editor decides, or it is the home folder for
/// editors that need one.
async fn path_there(app: &App, place: &Destination, ide: &Ide, args: &Args) -> Result<Option<Folder>> {
    let path = match (&args.path, &args.repos[..]) {
        (Some(path), _) => path.clone(),
        (None, [repo]) => repo.folder.clone(),
        (None, _) if ide.link == Link::Vscode => return Ok(None),
        (None, _) => "~".into(),
    };
    if path.starts_with('/') {
        // It can be opened without this answer, and --print needs none.
        let is_missing = !args.print
            && matches!(timeout(ANSWER, there(app, place, &[], &is_there(&path))).await, Ok(Ok(said)) if said == MISSING);
        return Ok(Some(Folder { path, is_missing }));
    }
    if !place.is_ready() {
        // Only --print comes here without waking the machine.
        let message = format!("the home folder of {} is not known, because its machine is not running", place.host);
        return Err(Error::new(Kind::NotWoken, message).with_hint("use an absolute PATH, or start it first"));
    }
    let below = path.strip_prefix("~").unwrap_or(&path).trim_matches('/');
    let script = format!("cd && pwd && {}", is_there(if below.is_empty() { "." } else { below }));
    let home = in_time(place, there(app, place, &[], &script)).await?;
    let (home, is_missing) = match home.strip_suffix(MISSING) {
        Some(home) => (home, true),
        None => (home.as_str(), false),
    };
    let home = home.strip_suffix('\n').unwrap_or(home);
    if !home.starts_with('/') {
        return Err(Error::new(Kind::Answer, format!("{} did not report its home folder", place.host))
            .with_hint("use an absolute PATH, or check that its user has a home folder"));
    }
    let home = home.trim_end_matches('/');
    let path = if below.is_empty() { format!("{home}/") } else { format!("{home}/{below}") };
    Ok(Some(Folder { path, is_missing }))
}

/// Waits for a machine's answer to a script.
async fn in_time(place: &Destination, said: impl Future<Output = Result<String>>) -> Result<String> {
    timeout(ANSWER, said).await.unwrap_or_else(|_| {
        let message = format!("{} did not run a script within {} s", place.host, ANSWER.as_secs());
        Err(Error::new(Kind::Answer, message).with_hint("check that its shell's startup files finish and ask nothing"))
    })
}

/// The error for a machine or a container whose login shell has not run a script.
fn not_run(place: &Destination, said: &str) -> Error {
    if place.container.is_none() {
        return marked::not_run(&place.host, said);
    }
    // It has no startup files to be checked, but perhaps no shell at all.
    let hint = format!("an editor needs a shell in the container; without one, `sftp {}` gets its files", place.host);
    Error::new(Kind::Program, format!("no script runs in {}: {said}", place.host)).with_hint(hint)
}

/// The answer of [`is_there`] about a folder that does not exist.
const MISSING: &str = "missing\n";

/// A command that prints [`MISSING`] if there is no such folder, absolute or below the current one.
fn is_there(folder: &str) -> String {
    let folder = if folder.starts_with('/') { folder.to_owned() } else { format!("./{folder}") };
    format!("{{ [ -e {} ] || echo {}; }}", quote(&folder), MISSING.trim_end())
}

async fn clone_all(app: &App, place: &Destination, args: &Args) -> Result<()> {
    if args.repos.is_empty() {
        return Ok(());
    }
    let progress = Spinner::new();
    let urls: Vec<&str> = args.repos.iter().map(|repo| repo.url.as_str()).collect();
    progress.waiting(&format!("cloning {} on {}", urls.join(", "), place.host));
    // -a is needed, because the user's own configuration may forward the agent.
    let agent = if args.forward_agent { ["-A"] } else { ["-a"] };
    // Independent of each other: one that fails must not interrupt the others.
    let clones = stream::iter(&args.repos).map(|repo| clone_one(app, place, &agent, repo));
    let done: Vec<Result<()>> = clones.buffer_unordered(CLONES).collect().await;
    drop(progress);
    let failures: Vec<Error> = done.into_iter().filter_map(Result::err).collect();
    match &failures[..] {
        [] => Ok(()),
        failures => {
            let words: Vec<&str> = failures.iter().map(Error::message).collect();
            Err(Error::new(Kind::Program, words.join("; ")).with_hint(clone_hint(&words.join("; "))))
        }
    }
}

/// The remedies for failures of git that have one of their own. Their words are those of git and ssh in the
/// C locale, and of our script.
fn clone_hint(said: &str) -> &'static str {
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if has(&[NO_GIT]) {
        "install git on the machine, or leave out --repo"
    } else if has(&["could not read Username", "terminal prompts disabled", "Authentication failed"]) {
        "check the address; for a private repository, use its ssh address with --forward-agent"
    } else if has(&["Permission denied (", "Host key verification failed"]) {
        "--forward-agent lets git use the keys in your ssh agent; `ssh-add -l` lists them"
    } else if has(&["Directory not empty", "rmdir:"]) {
        "choose another folder: --repo URL:DIR"
    } else {
        "check the address, and that the machine reaches it; a private repository needs its ssh address and --forward-agent"
    }
}

/// The complaint of our script on a machine without git.
const NO_GIT: &str = "git is not installed there";

async fn clone_one(app: &App, place: &Destination, agent: &[&str], repo: &Repo) -> Result<()> {
    let cloned = there(app, place, agent, &script(repo)).await;
    cloned.map(drop).map_err(|e| e.context(format!("cannot clone {}", repo.url)))
}

/// Returns a script that clones a repository, unless it exists. The script clones beside the destination and renames
/// the result, so that an incomplete clone never looks complete. No user is there to answer a prompt: git does not ask
/// for passwords, and an unknown host key is accepted on first use.
fn script(repo: &Repo) -> String {
    let folder = match repo.folder.strip_prefix("~/") {
        Some(below) => below,
        None => &repo.folder,
    };
    let (url, folder) = (quote(&repo.url), quote(folder));
    format!(
        "cd || exit\n\
         if [ -e {folder}/.git ]; then exit 0; fi\n\
         command -v git >/dev/null || {{ echo '{NO_GIT}' >&2; exit 1; }}\n\
         : \"${{GIT_SSH_COMMAND:=ssh -o StrictHostKeyChecking=accept-new -o BatchMode=yes}}\"\n\
         export GIT_SSH_COMMAND GIT_TERMINAL_PROMPT=0 LC_ALL=C\n\
         if [ -e {folder} ]; then rmdir -- {folder} || exit; fi\n\
         part={folder}.part-$$\n\
         trap 'rm -rf -- \"$part\"' EXIT\n\
         trap 'exit 1' HUP INT TERM\n\
         git clone --quiet -- {url} \"$part\" </dev/null || exit\n\
         [ -e {folder} ] || mv -- \"$part\" {folder}\n"
    )
}

/// Runs a script with sh on the machine, and returns its output. The script goes over standard input, so that the login
/// shell does not interpret it.
async fn there(app: &App, place: &Destination, options: &[&str], script: &str) -> Result<String> {
    let failed = |why: String| Error::new(Kind::Program, why);
    let marked = Marked::new();
    let mut child = Command::new(ssh::program()?)
        .args(options::FOR_OUTPUT)
        .args(ssh::options(app, place, false)?)
        .args(options)
        .arg(&place.host)
        .args(["--", "sh"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| failed(format!("cannot start ssh: {e}")))?;
    if let Some(mut input) = child.stdin.take() {
        // An error here means that ssh has ended, and it reports the reason itself.
        let _ = input.write_all(marked.script(script).as_bytes()).await;
    }
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (stdout, stderr, ended) = tokio::join!(beginning(stdout), beginning(stderr), child.wait());
    let status = ended.map_err(|e| failed(format!("cannot wait for ssh: {e}")))?;
    let found = marked.find(stdout.as_bytes());
    let complaint = marked.after_start(stderr.as_bytes()).unwrap_or(stderr.as_bytes());
    let complaint = String::from_utf8_lossy(complaint);
    let words = complaint.lines().filter(|line| !line.trim().is_empty()).collect::<Vec<_>>().join("; ");
    match found {
        Some(Found { output, status: Some(0) }) => Ok(String::from_utf8_lossy(output).into_owned()),
        // ssh itself fails with 255.
        None if status.code() != Some(255) => Err(not_run(place, &printable(&words))),
        found => {
            let status =
                found.and_then(|found| found.status).map_or(status.to_string(), |n| format!("exit status: {n}"));
            Err(failed(format!("on {}: {}", place.host, if words.is_empty() { status } else { words })))
        }
    }
}

/// Starts the editor as a process independent of us and of the terminal.
async fn launch(ide: &Ide, program: &std::path::Path, arguments: Vec<String>) -> Result<()> {
    let failed = |why: String| {
        Error::new(Kind::Program, format!("{} did not start: {why}", ide.title))
            .with_hint(format!("try to start it by hand: {}", program.display()))
    };
    // A file rather than a pipe, because the editor may go on writing after we have ended.
    let mut said = tempfile::tempfile().map_err(|e| failed(e.to_string()))?;
    let stderr = said.try_clone().map_err(|e| failed(e.to_string()))?;
    let mut command = Command::new(program);
    command.args(arguments.into_iter().map(OsString::from)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
    #[cfg(unix)]
    command.process_group(0);
    let mut child = command.spawn().map_err(|e| failed(e.to_string()))?;
    match timeout(STARTER, child.wait()).await {
        Ok(Ok(status)) if !status.success() => {
            let mut words = String::new();
            let _ = said.rewind().and_then(|()| said.read_to_string(&mut words));
            let words = printable(&words);
            Err(failed(if words.is_empty() { status.to_string() } else { words }))
        }
        Ok(Err(e)) => Err(failed(e.to_string())),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}
