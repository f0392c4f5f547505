//! `demo`: an embedded platform of its own and a playground in it, ssh into that, and nothing left behind.

use std::{ffi::OsString, path::Path, process::Stdio, time::Duration};

use tokio::{
    process::{Child, Command},
    time::sleep,
};

use crate::{
    app::App,
    commands::{playgrounds, ssh},
    error::{Error, Kind, Result},
    files,
    labs::wire::CreatePlay,
    local,
    os::{self, INTERRUPT, Signals, TERMINATE},
    platform::Platform,
    settings::{Folders, HOME_VARIABLE, LOCAL_VARIABLE, SETTINGS_VARIABLE, Settings},
    ssh::marked::quote,
    ssh_config::{self, program_path},
    target::Target,
    ui::notice,
};

/// The interval of attempts to connect, because no event reports that a socket begins to answer.
const AGAIN: Duration = Duration::from_millis(10);

/// Start an embedded platform and a playground, and ssh into it, as a demonstration. Leaves nothing behind.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The command to run in the playground instead of a shell.
    #[arg(last = true)]
    command: Vec<OsString>,
}

/// Runs the demonstration: a shell in the playground, or `command`. Returns the exit code of ssh.
///
/// # Errors
/// Fails when ssh is missing, or the platform or the playground does not start.
pub(crate) async fn run(Args { command }: Args) -> Result<u8> {
    let ssh = ssh::program()?;
    // From the beginning, because there is always something to clean up.
    let mut signals = Signals::listen();
    // A short path, because a socket's path has a limit, and the temporary folders of some systems are long.
    let folder = tempfile::Builder::new()
        .prefix("lsp-")
        .tempdir_in(if cfg!(target_os = "macos") { "/tmp".into() } else { std::env::temp_dir() })
        .map_err(|e| Error::new(Kind::File, format!("cannot make a temporary folder: {e}")))?;
    let root = folder.path();
    let app = App {
        folders: Folders { home: root.to_owned(), root: root.to_owned(), settings: root.join("settings.yaml") },
        settings: Settings { identity: Some(root.join("identity")), ..Settings::default() },
        platform: Platform::Local,
    };
    let settings = format!("identity: {}\n", serde_json::json!(root.join("identity")));
    std::fs::write(&app.folders.settings, settings).map_err(|e| Error::file("write", &app.folders.settings, &e))?;
    notice::line("Starting a playground on this computer: no account, no network, only processes.");
    let program = program_path()?;
    let mut platform = in_world(&app, Command::new(&program))
        .args(["local", "serve"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .process_group(0)
        .spawn()
        .map_err(|e| Error::new(Kind::Program, format!("cannot start {}: {e}", program.display())))?;
    let code = async {
        let begun = async {
            answers(&app, &mut platform).await?;
            visit(&app, &ssh, command).await
        };
        let mut child = tokio::select! {
            child = begun => child?,
            signal = signals.next() => return Ok(128 + signal),
        };
        wait(&mut child, &mut signals).await
    };
    let code = code.await;
    if local::stop(&app.folders).await.is_ok() {
        // A platform that does not answer yet cannot be asked.
        os::pass_on(TERMINATE, &platform);
        let _ = platform.wait().await;
    }
    notice::line("\nYou are back. The playground and its platform are gone. What comes next:");
    if which::which(env!("CARGO_PKG_NAME")).is_err() {
        notice::line(&format!("  {}\n      puts labctl-ssh-proxy into PATH", installing(&program)));
    }
    for line in NEXT {
        notice::line(line);
    }
    code
}

/// The commands that come after the demonstration.
const NEXT: [&str; 4] = [
    "  labctl-ssh-proxy login                 log in to iximiuz Labs",
    "  labctl-ssh-proxy config-ssh            then ssh and editors reach them",
    "  labctl-ssh-proxy start docker --ssh    start a playground there, and go inside",
    "  labctl-ssh-proxy --local start shell   or one on this computer that stays",
];

/// Returns the command that puts a program into PATH which is not there: cargo's for one that was built in its source
/// folder.
fn installing(program: &Path) -> String {
    let source = program.ancestors().find(|folder| folder.join("Cargo.toml").is_file());
    match source {
        Some(folder) => format!("cargo install --locked --path {}", quote(&folder.to_string_lossy())),
        None => format!("sudo install {} /usr/local/bin", quote(&program.to_string_lossy())),
    }
}

fn in_world(app: &App, mut command: Command) -> Command {
    command
        .env(HOME_VARIABLE, &app.folders.root)
        .env(SETTINGS_VARIABLE, &app.folders.settings)
        .env(LOCAL_VARIABLE, "1");
    command
}

/// Waits until our platform answers. A command that needs a platform before that would start another one, which this
/// demonstration would not end.
async fn answers(app: &App, platform: &mut Child) -> Result<()> {
    while !matches!(local::start::status(&app.folders).await, Ok(Some(_))) {
        let ended = platform.try_wait().map_err(|e| Error::new(Kind::Program, e.to_string()))?;
        if let Some(status) = ended {
            return Err(Error::new(
                Kind::Program,
                format!("the embedded platform did not start: it ended with {status}"),
            )
            .with_hint("run `labctl-ssh-proxy local serve` to see why"));
        }
        sleep(AGAIN).await;
    }
    Ok(())
}

/// Starts a playground, and ssh to it.
async fn visit(app: &App, ssh: &Path, command: Vec<OsString>) -> Result<Child> {
    let labs = app.labs().await?;
    let request = CreatePlay { playground: "shell".into(), ..CreatePlay::default() };
    let play = labs.create_play(&request).await?;
    let machine = play.machines.first().map_or("", |machine| &machine.name);
    if let Err(error) = set_prompt(&app.folders.root.join("local/plays").join(&play.id).join(machine).join("home")) {
        log::warn!("the prompt of the machine is the shell's own: {error}");
    }
    let file = app.folders.root.join("config");
    let request = ssh_config::Request {
        file: Some(file.clone()),
        program: program_path()?,
        identity: Some(app.identity()?.path),
        ..ssh_config::Request::default()
    };
    let entries = playgrounds::entries::entries(app, &labs).await?;
    ssh_config::plan(&app.folders, request, Platform::Local, entries).await?.write().await?;
    keep_settings(app)?;
    let host = Target::of_play(&play.id, None).to_string();
    // As it is run, so that it works in another terminal, too.
    let words = ["ssh".into(), "-F".into(), file.clone().into(), OsString::from(&host)];
    let words = words.iter().chain(&command).map(|word| quote(&word.to_string_lossy()));
    notice::line(&format!("$ {}", words.collect::<Vec<_>>().join(" ")));
    if command.is_empty() {
        let (file, host) = (quote(&file.to_string_lossy()), quote(&host));
        notice::line(&format!(
            "\nYou are inside playground {} now: a machine that is only processes\non this computer. Try:\n\n  \
             ls -la; uname -a           any command\n  exit                       leave, and remove it\n\nFrom another \
             terminal, copy a file into it, for as long as you are inside:\n\n  scp -F {file} FILE {host}:\n",
            play.shown()
        ));
    }
    in_world(app, Command::new(ssh))
        .arg("-F")
        .arg(&file)
        .arg(&host)
        .args(command)
        .spawn()
        .map_err(|e| Error::new(Kind::Program, format!("cannot start ssh: {e}")))
}

/// Lets the entries name the settings of the demonstration. In another terminal, a connection would use the user's own,
/// and make the user's key, which stays.
fn keep_settings(app: &App) -> Result<()> {
    let entries = app.folders.root.join("ssh_config");
    let settings = quote(&app.folders.settings.to_string_lossy()).replace('%', "%%");
    let text = files::read_text(&entries)?.unwrap_or_default();
    let text = text.replace("ProxyCommand ", &format!("ProxyCommand env {SETTINGS_VARIABLE}={settings} "));
    files::write_private(&entries, text.as_bytes())
}

/// Gives the home folder of a machine a prompt that says where one is, for the usual shells: the user's own prompt may
/// look the same inside.
fn set_prompt(home: &Path) -> std::io::Result<()> {
    const SH: &str =
        "if [ \"$BASH\" ]; then PS1='[inside the playground] \\w \\$ '; else PS1='[inside the playground] $ '; fi\n";
    files::make_private_folder(home)?;
    std::fs::write(home.join(".profile"), SH)?;
    std::fs::write(home.join(".zshrc"), "PS1='[inside the playground] %~ %# '\n")
}

/// Waits for ssh and returns its exit code. An interrupt from the keyboard is for ssh alone; the other signals end it,
/// too.
async fn wait(child: &mut Child, signals: &mut Signals) -> Result<u8> {
    let failed = |e: std::io::Error| Error::new(Kind::Internal, format!("cannot wait for ssh: {e}"));
    loop {
        tokio::select! {
            status = child.wait() => return Ok(os::exit_code(status.map_err(failed)?)),
            signal = signals.next() => if signal != INTERRUPT {
                child.kill().await.map_err(failed)?;
                return Ok(128 + signal);
            },
        }
    }
}
