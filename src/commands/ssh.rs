//! `ssh`: wakes the machine, with progress, and then becomes the system's ssh. It passes the options that `config-ssh`
//! would write on the command line, so it works even if `config-ssh` was never run. Options that the user has set for
//! the host (agent, forwards, ...) still apply, except those that we set.

use std::{ffi::OsString, path::PathBuf, process::Command};

use clap_complete::ArgValueCompleter;

use crate::{
    app::App,
    commands::{
        candidates,
        folder::{self, Asks},
        visit::{Destination, Visit, Within},
        within,
    },
    error::{Error, Kind, Result},
    labs::Labs,
    os,
    platform::Platform,
    settings::KEEP_VARIABLE,
    ssh::options::{self, SshOptions},
    ssh_config::{
        self,
        entries::{self, Rendering},
    },
    target::PodName,
    ui::input,
};

/// ssh into a playground. It is woken first, with progress; then the system's ssh takes over.
///
/// Works without config-ssh. Everything after PLAYGROUND is passed to ssh: options, such as `-L 8080:localhost:80 -N` or
/// `-A`, and a command. Everything after `--` is a command, even if it begins with a hyphen.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Start it although it is not published by the platform: you trust its author.
    #[arg(long)]
    pub consent: bool,
    /// Extend the playground's time while this runs, even if it moves no data: for a long COMMAND. See `keep`.
    #[arg(long)]
    pub keep: bool,
    /// ssh into this container of the playground: its name or id, on any machine if it is the only one. Stands before
    /// PLAYGROUND.
    #[arg(long = "in", value_name = "CONTAINER", add = ArgValueCompleter::new(candidates::containers))]
    pub within: Option<String>,
    /// ssh into this pod of the playground's cluster: POD of the namespace default, NAMESPACE/POD or
    /// NAMESPACE/POD/CONTAINER. The name of a Deployment, StatefulSet or DaemonSet stands for its one ready pod. Stands
    /// before PLAYGROUND.
    #[arg(long, value_name = "POD", add = ArgValueCompleter::new(candidates::pods), conflicts_with = "within")]
    pub pod: Option<PodName>,
    /// The playground's host name, id, title, catalogue name or page address, or the host name of a machine or a
    /// container; USER@ may stand before it. Without it and without options for ssh, the one that
    /// .labctl-ssh-proxy.yaml names, here or in a folder above.
    #[arg(value_name = "PLAYGROUND", add = ArgValueCompleter::new(candidates::hosts))]
    pub host: Option<String>,
    /// Options for ssh, or a command.
    #[arg(allow_hyphen_values = true)]
    pub arguments: Vec<OsString>,
    /// The command to run in the playground.
    #[arg(last = true)]
    pub command: Vec<OsString>,
}

/// Wakes the machine, then becomes ssh. On systems without exec, waits for ssh and returns its exit code.
///
/// # Errors
/// Any error that keeps the machine from becoming ready, and [`Kind::Program`] when there is no ssh.
pub(crate) async fn run(app: &App, args: Args) -> Result<u8> {
    let asks = Asks { starts_new: true, ..Asks::default() };
    let host = folder::meant(app, args.host, "ssh", asks).await?.playground;
    let labs = app.labs().await?;
    let within = Within::by(args.within, args.pod);
    let visit = Visit { host, consent: args.consent, within, ..Visit::default() };
    let mut command = begin(app, &labs, &visit, names_a_user(&args.arguments)).await?;
    if args.keep {
        // A connection that ssh shares would know nothing of it.
        command.env(KEEP_VARIABLE, "1").args(["-o", "ControlPath=none"]);
    }
    command.args(&args.arguments);
    if !args.command.is_empty() {
        command.arg("--").args(&args.command);
    }
    become_it(command)
}

/// Makes the machine of a visit ready, and returns ssh's command line up to its host name.
///
/// # Errors
/// As [`run`].
pub(crate) async fn begin(app: &App, labs: &Labs, visit: &Visit, user_is_named: bool) -> Result<Command> {
    // Before the machine is woken, so that a missing ssh is reported at once.
    let mut command = Command::new(program()?);
    let place = within::arrive(app, labs, visit).await?;
    if !input::is_allowed() {
        command.args(["-o", "BatchMode=yes"]);
    }
    command.args(options(app, &place, user_is_named)?).arg(&place.host);
    Ok(command)
}

/// Finds the system's ssh.
///
/// # Errors
/// [`Kind::Program`] when it is not installed.
pub(crate) fn program() -> Result<PathBuf> {
    which::which("ssh").map_err(|_| Error::new(Kind::Program, "there is no ssh in PATH").with_hint(os::INSTALL_SSH))
}

/// Returns the ssh arguments for a destination: the same options that `config-ssh` would write.
///
/// # Errors
/// Fails when there is no usable identity, or a path cannot be written in ssh's configuration.
pub(crate) fn options(app: &App, place: &Destination, user_is_named: bool) -> Result<Vec<OsString>> {
    let rendering = Rendering {
        program: ssh_config::program_path()?,
        identity: Some(app.identity()?.path),
        known_hosts: app.folders.known_hosts(Platform::Labs),
        known_hosts_local: app.folders.known_hosts(Platform::Local),
        home: None,
        moved_root: app.folders.moved_root(),
        literal_user: false,
        wildcard: false,
        containers: false,
    };
    let lines = entries::options(&place.user, app.platform, &place.host, &rendering)?;
    let host_name = format!("HostName {}", place.host);
    let lines = lines.lines().map(str::trim).filter(|line| !(user_is_named && line.starts_with("User ")));
    Ok(lines.chain([host_name.as_str()]).flat_map(|line| ["-o".into(), line.into()]).collect())
}

/// Returns true if ssh's own arguments name a user. Ours must then be left out, because ssh uses the first value.
fn names_a_user(arguments: &[OsString]) -> bool {
    let words: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    SshOptions::after_host(words.iter().map(AsRef::as_ref))
        .any(|(flag, value)| flag == 'l' || flag == 'o' && options::value(value, "User").is_some())
}

/// Becomes ssh, or on systems without exec waits for it and returns its exit code.
///
/// # Errors
/// [`Kind::Program`] when it cannot be started.
#[cfg(unix)]
pub(crate) fn become_it(mut command: Command) -> Result<u8> {
    use std::os::unix::process::CommandExt;
    Err(Error::new(Kind::Program, format!("cannot start ssh: {}", command.exec())))
}

/// Runs ssh as a child process. The console sends Ctrl-C to both.
#[cfg(not(unix))]
pub(crate) fn become_it(mut command: Command) -> Result<u8> {
    let status = command.status().map_err(|e| Error::new(Kind::Program, format!("cannot start ssh: {e}")))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::names_a_user;

    #[test]
    fn a_user_among_sshs_arguments_is_seen() {
        let named = |text: &str| names_a_user(&text.split_whitespace().map(Into::into).collect::<Vec<_>>());
        for yes in ["-l ada", "-lada", "-vl ada", "-o User=ada", "-oUser=ada", "-N -o user=ada"] {
            assert!(named(yes), "{yes}");
        }
        for no in
            ["-L 1:a:2", "-o UserKnownHostsFile=x", "uptime", "-N", "ls -la", "ls -l x", "-- -l", "-N ps -o user=x"]
        {
            assert!(!named(no), "{no}");
        }
    }
}
