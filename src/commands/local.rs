//! The commands about the embedded platform itself.

use std::{net::SocketAddr, time::Duration};

use clap::{Subcommand, ValueEnum};

use crate::{
    app::App,
    commands::args::duration,
    error::{Error, Kind, Result},
    ui::{notice, out},
};

use crate::local::{
    InitTask, credentials, credentials_path,
    machine::Endpoint,
    serve::{self, Options, serve_and_tell},
    start,
};

/// The embedded platform: playgrounds as processes on this machine. It isolates nothing.
#[derive(Debug, Subcommand)]
pub enum Local {
    /// Run the embedded platform in the foreground. Any --local command starts one by itself when there is none.
    Serve {
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
    },
    /// Show whether the embedded platform runs, and what it serves.
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Stop the embedded platform. Its playgrounds are stopped and kept.
    Stop,
}

/// The SSH server of a local machine.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Server {
    /// The one inside this program.
    Builtin,
    /// The system's OpenSSH.
    Sshd,
}

/// `local serve`, `local status`, `local stop`.
///
/// # Errors
/// When the platform cannot run, or another one runs in the same folder.
pub async fn run(app: &App, command: Local) -> Result<()> {
    match command {
        Local::Serve { boot_delay, state_delay, endpoint, listen, public_url, hold, idle, tunnel_limit, init_task } => {
            let endpoint = match endpoint {
                Server::Builtin => Endpoint::Builtin,
                Server::Sshd => Endpoint::Sshd,
            };
            if listen.is_some() {
                credentials(&app.folders.local())?;
            }
            let tell = |listening: Option<SocketAddr>| {
                notice::line(&format!("The embedded platform is at {}.", app.folders.socket().display()));
                if let Some(address) = listening {
                    let path = credentials_path(&app.folders.local());
                    let path = path.display();
                    notice::line(&format!("It listens on {address} too; the credentials for it are in {path}."));
                }
                notice::line("Its playgrounds are processes of yours: they isolate nothing. Ctrl-C stops it.");
            };
            let options = Options {
                boot_delay,
                state_delay,
                hold,
                endpoint,
                listen,
                public_url,
                idle,
                tunnel_limit,
                init_tasks: init_task,
            };
            check_names(&options.init_tasks)?;
            serve_and_tell(&app.folders, options, tell, serve::signals()?).await
        }
        Local::Status { json } => {
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
        Local::Stop => match start::stop(&app.folders).await? {
            true => out::line("The embedded platform is stopped; its playgrounds are kept."),
            false => out::line("The embedded platform was not running."),
        },
    }
}

/// Tasks go by their names, so each has one of its own.
fn check_names(tasks: &[InitTask]) -> Result<()> {
    let twice = |(index, task): &(usize, &InitTask)| tasks[..*index].iter().any(|other| other.name == task.name);
    match tasks.iter().enumerate().find(twice) {
        None => Ok(()),
        Some((_, task)) => Err(Error::new(Kind::Usage, format!("two init tasks are called {}", task.name))),
    }
}
