//! `wait`: waits until a playground can be used.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    app::App,
    commands::{
        args::{One, duration},
        playgrounds::listed::report,
    },
    error::{Error, Kind, Result},
    labs::find,
    ui::spinner::Spinner,
    wake::preparation::{Preparation, Tasks, failure},
};

/// Wait until a playground's machines are ready and its tasks are done.
///
/// Exits with code 14 if a task has failed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    one: One,
    /// Of its tasks, wait only for the init tasks.
    #[arg(long)]
    init: bool,
    /// Give up after this long (exit code 9).
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
}

/// Waits until the machines are ready and the tasks, or with `--init` only the init tasks, are done.
///
/// # Errors
/// The platform's; [`Kind::Program`] when a task has failed; [`Kind::NotYet`] after `limit`; [`Kind::NotWoken`] when
/// the playground is stopped.
pub(crate) async fn run(app: &App, Args { one, init, timeout: limit }: Args) -> Result<()> {
    let labs = app.labs().await?;
    let deadline = limit.map(|limit| Instant::now() + limit);
    let id = find::whole(&labs, &one.playground).await?.id;
    let play = labs.play(&id).await?;
    let key = app.identity()?.authorized_key()?;
    let tasks = if init { Tasks::Init } else { Tasks::All };
    let (memory, progress) = (app.memory(), Spinner::new());
    let wait = Preparation { labs: &labs, memory: &memory, key: &key, progress: &progress, tasks, deadline };
    let play = wait.wait(play).await?;
    drop(progress);
    match failure(&play, tasks) {
        None => report(app, &play, one.json, &format!("{} is ready", play.shown())),
        Some(words) => {
            Err(Error::new(Kind::Program, words).with_hint(format!("see `labctl-ssh-proxy tasks {}`", play.id)))
        }
    }
}
