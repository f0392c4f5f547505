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
    InitTask, credentials, credentials_path,
    machine::Endpoint,
    serve::{Options, serve_and_tell},
    start,
};

/// The embedded platform: playgrounds as processes on this machine. It isolates nothing.
#[derive(Debug, Subcommand)]
pub(crate) enum Local {
    Serve(Serve),
    /// Show whether the embedded platform runs, and what it serves.
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

/// Run the embedded platform in the foreground. Any --local command starts one by itself when there is none.
#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    /// How long machines take to boot.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "0s")]
    boot_delay: Duration,
    /// Duration of each state that a playground or a machine passes through, such as STARTING and STOPPING.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "20ms")]
    state_delay: Duration,
    /// The SSH server of its machines.
    #[arg(long, value_enum, default_value_t = Server::Builtin)]
    endpoint: Server,
    /// Also listen on this loopback address, with credentials.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// What clients of that address call it, where TLS stands in front of it.
    #[arg(long, value_name = "URL", requires = "listen")]
    public_url: Option<String>,
    /// How long to hold a tunnel request while a machine boots.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "55s")]
    hold: Duration,
    /// End after this long without a connection.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10m")]
    idle: Duration,
    /// Let the account have at most this many tunnels open at once, as the real platform does. Requests for more are
    /// answered with 429 (rate limited) until the connections of one have ended; 0 refuses all.
    #[arg(long, value_name = "N")]
    tunnel_limit: Option<usize>,
    /// Give every new playground another init task on its first machine, which runs COMMAND by `sh -c` once, after
    /// the first boot. May be repeated.
    #[arg(long, value_name = "NAME=COMMAND")]
    init_task: Vec<InitTask>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The SSH server of a local machine.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Server {
    /// The one inside this program.
    Builtin,
    /// The system's OpenSSH.
    Sshd,
}

/// Runs one of the three.
///
/// # Errors
/// When the platform cannot run, or another one runs in the same folder.
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
        notice::line(&format!("The embedded platform is at {}.", socket.display()));
        if let Some(address) = listening {
            let path = credentials_file.display();
            notice::line(&format!("It listens on {address} too; the credentials for it are in {path}."));
        }
        notice::line("Its playgrounds are processes of yours: they isolate nothing. Ctrl-C stops it.");
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
        None => out::line("The embedded platform does not run; any --local command starts it."),
        Some(status) => out::line(&format!(
            "The embedded platform runs (process {}, version {}). Playgrounds: {}. Connections: {}, this one included.",
            status.pid, status.version, status.plays, status.connections
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
        Some((_, task)) => Err(Error::new(Kind::Usage, format!("two init tasks are called {}", task.name))),
    }
}
