//! The commands about the embedded platform itself.

use std::net::SocketAddr;

use crate::{
    app::App,
    cli::{self, Local},
    error::{Error, Kind, Result},
    ui::{notice, out},
};

use crate::local::{
    InitTask, credentials, credentials_path,
    machine::Endpoint,
    serve::{self, Options, serve_and_tell},
    start,
};

/// `local serve`, `local status`, `local stop`.
///
/// # Errors
/// When the platform cannot run, or another one runs in the same folder.
pub async fn command(app: &App, command: Local) -> Result<()> {
    match command {
        Local::Serve { boot_delay, state_delay, endpoint, listen, public_url, hold, idle, tunnel_limit, init_task } => {
            let endpoint = match endpoint {
                cli::Endpoint::Builtin => Endpoint::Builtin,
                cli::Endpoint::Sshd => Endpoint::Sshd,
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
