//! `wait`: waits until a playground can be used.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::{
    app::App,
    commands::{
        args::{One, duration},
        playgrounds::{listed::report, stop::LOOK_EVERY},
    },
    error::{Error, Kind, Result},
    labs::{
        Labs, find,
        wire::{Learning, LearningKind},
    },
    ui::{notice::Progress, spinner::Spinner},
    wake::{
        Patience,
        preparation::{Preparation, Tasks, failure},
    },
};

/// Wait until a playground's machines are ready and its tasks are done.
///
/// Exits with code 14 if a task has failed. The tasks of a challenge are done when you have solved it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    one: One,
    /// Of its tasks, wait only for the init tasks.
    #[arg(long)]
    init: bool,
    /// Wait until the platform has marked the challenge that it belongs to as solved.
    #[arg(long, conflicts_with = "init")]
    solved: bool,
    /// Give up after this long (exit code 9).
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
}

/// Waits until the machines are ready and the tasks, or with `--init` only the init tasks, are done.
///
/// # Errors
/// The platform's; [`Kind::Program`] when a task has failed; [`Kind::NotYet`] after `limit`; [`Kind::NotWoken`] when
/// the playground is stopped.
pub(crate) async fn run(app: &App, Args { one, init, solved, timeout: limit }: Args) -> Result<()> {
    let labs = app.labs().await?;
    let deadline = limit.map(|limit| Instant::now() + limit);
    let id = find::whole(&labs, &one.playground).await?.id;
    let play = labs.play(&id).await?;
    let challenge = match (solved, play.learning()) {
        (false, _) => None,
        (true, Some(of)) if of.kind == LearningKind::Challenge => Some(of),
        (true, _) => {
            return Err(Error::new(Kind::Usage, format!("{} belongs to no challenge", play.shown()))
                .with_hint("leave out --solved"));
        }
    };
    let key = app.identity()?.authorized_key()?;
    let tasks = if init { Tasks::Init } else { Tasks::All };
    let (memory, progress) = (app.memory(), Spinner::new());
    let wait = Preparation { labs: &labs, memory: &memory, key: &key, progress: &progress, tasks, deadline };
    let play = wait.wait(play).await?;
    let failure = failure(&play, tasks);
    if let (Some(of), None) = (&challenge, &failure) {
        is_recorded(&labs, of, &progress, deadline).await?;
    }
    drop(progress);
    match failure {
        None => {
            let sentence =
                challenge.map_or_else(|| format!("{} is ready", play.shown()), |of| format!("{of} is solved"));
            report(app, &play, one.json, &sentence)
        }
        Some(words) => {
            Err(Error::new(Kind::Program, words).with_hint(format!("see `labctl-ssh-proxy tasks {}`", play.id)))
        }
    }
}

/// Waits until the platform has recorded that a challenge is solved, which it does by itself once all tasks are done.
async fn is_recorded(labs: &Labs, of: &Learning, progress: &Spinner, deadline: Option<Instant>) -> Result<()> {
    progress.waiting(&format!("waiting for the platform to mark {of} as solved"));
    let mut patience = Patience::new();
    loop {
        match labs.exercise(of.kind, &of.name).await {
            Ok(one) if !one.completed_at.is_empty() => return Ok(()),
            Ok(_) => patience.restore(),
            Err(error) => patience.note(&error)?,
        }
        let next = Instant::now() + LOOK_EVERY;
        if deadline.is_some_and(|deadline| next > deadline) {
            return Err(Error::new(Kind::NotYet, format!("all tasks are done, but {of} is not marked as solved yet"))
                .with_hint("see its page"));
        }
        sleep_until(next).await;
    }
}
