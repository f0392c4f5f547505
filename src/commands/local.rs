//! The commands about the embedded platform itself.

use std::{net::SocketAddr, time::Duration};

use clap::{Subcommand, ValueEnum};
use serde_json::json;

use crate::{
    app::App,
    commands::args::duration,
    error::{Error, Kind, Result},
    os::Signals,
    ui::{notice, out},
};

use crate::local::{
    InitTask, chosen_engine, credentials, credentials_path,
    machine::Endpoint,
    serve::{Options, serve_and_tell},
    start,
};

/// Manage the embedded platform: playgrounds as processes on this computer, without isolation.
#[derive(Debug, Subcommand)]
pub(crate) enum Local {
    Serve(Serve),
    /// Show whether the embedded platform is running, and what it serves.
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Stop the embedded platform. Its playgrounds are stopped and kept.
    Stop {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Run the embedded platform in the foreground. Any --local command starts one if none is running.
#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    /// Time that a machine takes to boot.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "0s")]
    boot_delay: Duration,
    /// Time that each passing state of a playground or a machine takes, such as STARTING and STOPPING.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "20ms")]
    state_delay: Duration,
    /// The SSH server of the machines.
    #[arg(long, value_enum, default_value_t = Server::Builtin)]
    endpoint: Server,
    /// Also listen on this loopback address, with credentials.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// The URL of that address for clients, if a TLS proxy is in front of it.
    #[arg(long, value_name = "URL", requires = "listen")]
    public_url: Option<String>,
    /// Time to hold a tunnel request while a machine boots.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "55s")]
    hold: Duration,
    /// Exit after this long without a connection.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10m")]
    idle: Duration,
    /// Allow the account at most this many open tunnels at once, as the real platform does. Requests for more get 429
    /// (rate limited) until the connections of one tunnel have ended; 0 refuses all.
    #[arg(long, value_name = "N")]
    tunnel_limit: Option<usize>,
    /// Add an init task to every new playground: on its first machine, run COMMAND with `sh -c` once, after the first
    /// boot. Can be given several times.
    #[arg(long, value_name = "NAME=COMMAND")]
    init_task: Vec<InitTask>,
    /// Container engine that machines use: Docker's socket, or the folder in which containerd, podman or CRI-O keeps what
    /// runs. Platforms that start by themselves use it, too, until another is named [default: all of this computer].
    #[arg(long, value_name = "SOCKET|FOLDER")]
    engine: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The SSH server of a local machine.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Server {
    /// The one built into this program.
    Builtin,
    /// The system's OpenSSH.
    Sshd,
}

/// Runs one of the three.
///
/// # Errors
/// Fails when the platform cannot run, or another one runs in the same folder.
pub(crate) async fn run(app: &App, command: Local) -> Result<()> {
    match command {
        Local::Serve(args) => run_platform(app, args).await,
        Local::Status { json } => status(app, json).await,
        Local::Stop { json } => stop(app, json).await,
    }
}

async fn run_platform(app: &App, args: Serve) -> Result<()> {
    check_names(&args.init_task)?;
    let credentials_file = credentials_path(&app.folders.local());
    if args.listen.is_some() {
        credentials(&app.folders.local())?;
    }
    let options = Options {
        boot_delay: args.boot_delay,
        state_delay: args.state_delay,
        hold: args.hold,
        endpoint: match args.endpoint {
            Server::Builtin => Endpoint::Builtin,
            Server::Sshd => Endpoint::Sshd,
        },
        listen: args.listen,
        public_url: args.public_url,
        idle: args.idle,
        tunnel_limit: args.tunnel_limit,
        init_tasks: args.init_task,
        engine: args.engine.as_deref().map(chosen_engine).transpose()?,
    };
    let tell = |listening: Option<SocketAddr>| {
        let socket = app.folders.socket();
        if args.json {
            let credentials = listening.map(|_| &credentials_file);
            let line =
                json!({ "event": "listening", "socket": socket, "listen": listening, "credentials": credentials });
            // The platform serves whether or not this is read.
            let _ = out::line(&line.to_string());
            return;
        }
        notice::line(&format!("The embedded platform listens on {}.", socket.display()));
        if let Some(address) = listening {
            let path = credentials_file.display();
            notice::line(&format!("It also listens on {address}; the credentials for that are in {path}."));
        }
        notice::line("Its playgrounds are your own processes and isolate nothing. Press Ctrl-C to stop it.");
    };
    let mut signals = Signals::listen();
    let shutdown = async move {
        signals.next().await;
    };
    serve_and_tell(&app.folders, options, tell, shutdown).await
}

async fn status(app: &App, json: bool) -> Result<()> {
    let status = start::status(&app.folders).await?;
    if json {
        return out::json(&status);
    }
    match status {
        None => out::line("The embedded platform is not running; any --local command starts it."),
        Some(status) => out::line(&format!(
            "The embedded platform is running (process {}, version {}). Playgrounds: {}. Connections: {}, this one \
             included.{}",
            status.pid,
            status.version,
            status.plays,
            status.connections,
            status.engine.map_or_else(String::new, |engine| format!(" Containers: those of the engine at {engine}."))
        )),
    }
}

async fn stop(app: &App, json: bool) -> Result<()> {
    let stopped = start::stop(&app.folders).await?;
    if json {
        return out::json(&json!({ "stopped": stopped }));
    }
    out::line(match stopped {
        true => "The embedded platform is stopped; its playgrounds are kept.",
        false => "The embedded platform was not running.",
    })
}

/// Tasks go by their names, so each has one of its own.
fn check_names(tasks: &[InitTask]) -> Result<()> {
    let twice = |(index, task): &(usize, &InitTask)| tasks[..*index].iter().any(|other| other.name == task.name);
    match tasks.iter().enumerate().find(twice) {
        None => Ok(()),
        Some((_, task)) => Err(Error::new(Kind::Usage, format!("two init tasks have the name {}", task.name))),
    }
}
