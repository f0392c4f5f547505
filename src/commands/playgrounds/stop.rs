//! `stop`: stops a playground, and waits until no wake of it is in progress.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    app::App,
    commands::{
        args::One,
        playgrounds::{destroy::erase, listed::report},
    },
    error::{Error, Kind, Result},
    labs::{
        Labs, find,
        wire::{Action, Play, State},
    },
    records::memory::Memory,
    ui::{notice::Progress, spinner::Spinner},
    wake::{LOCK_RETRY, Patience},
};

/// Interval between two checks of a state that the command waits for.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Time limit for a wake in progress. It exceeds the longest request, so by then the wake was answered or given up.
const WAKE_IS_SENT: Duration = Duration::from_secs(40);
/// Time limit for a stop or an erasure. Same as the official client's, because large disks are uploaded.
pub(in crate::commands) const END_LIMIT: Duration = Duration::from_secs(5 * 60);

/// Stop a playground. It keeps its disks, and stays stopped until you start it.
///
/// The playground of a challenge, a tutorial or a lesson is erased instead, after a question, because its stop ends the
/// attempt.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    one: One,
    /// Do not ask before ending an attempt at a challenge, a tutorial or a lesson.
    #[arg(long)]
    yes: bool,
}

/// Stops a playground. It keeps its disks, and stays stopped until the user wants it back. The stop of one that belongs
/// to a challenge, a tutorial or a lesson ends the attempt, as the official client does, which erases it.
///
/// # Errors
/// The platform's, and for an attempt those of [`erase`].
pub(crate) async fn run(app: &App, args: Args) -> Result<()> {
    let labs = app.labs().await?;
    let play = find::whole(&labs, &args.one.playground).await?;
    if play.belongs_to_a_lesson() {
        return erase(app, &labs, &play, args.yes, args.one.json).await;
    }
    let memory = app.memory();
    // Before the stop itself, because an editor that reconnects immediately must find this record.
    memory.note_stopped(&play.id);
    app.tunnels().forget(&play.id);
    let progress = Spinner::new();
    // An earlier wake may be on its way to the platform. Wait for it, so that its result is stopped as well.
    let machines = play.machines.iter().map(|machine| format!("{}.{}", play.id, machine.name));
    for label in machines.chain([play.id.clone()]) {
        // A record that cannot be read may tell of a wake.
        if memory.read(&label).map_or(true, |record| record.wake.is_some()) {
            no_wake_on_its_way(&memory, &label, &play, &progress).await?;
        }
    }
    let mut play = labs.play(&play.id).await?;
    if play.state() != Some(&State::Stopped) {
        play = stop_and_wait(&labs, &play, &progress).await?;
        memory.note_acted();
    }
    drop(progress);
    report(app, &play, args.one.json, &format!("{} is stopped", play.shown()))
}

/// Waits until no process is asking the platform for a restart of what goes by `label`.
///
/// # Errors
/// [`Kind::NotYet`] when one goes on for too long.
pub(in crate::commands) async fn no_wake_on_its_way(
    memory: &Memory,
    label: &str,
    play: &Play,
    progress: &Spinner,
) -> Result<()> {
    let limit = Instant::now() + WAKE_IS_SENT;
    let shown = play.shown();
    while memory.try_wake_lock(label)?.is_none() {
        if Instant::now() > limit {
            return Err(Error::new(Kind::NotYet, format!("another connection is waking playground {shown}"))
                .with_hint("stop it again; first resume or end any connection that you suspended with Ctrl-Z"));
        }
        progress.waiting(&format!("waiting for another connection that is waking playground {shown}"));
        sleep(LOCK_RETRY).await;
    }
    Ok(())
}

/// Stops a playground, unless it is already down, and waits until it is stopped.
///
/// # Errors
/// The platform's; [`Kind::Ended`] when the playground ends instead; [`Kind::NotYet`] after [`END_LIMIT`].
pub(super) async fn stop_and_wait(labs: &Labs, play: &Play, progress: &Spinner) -> Result<Play> {
    progress.waiting(&format!("stopping playground {}", play.shown()));
    let mut play =
        if find::is_play_down(play) { play.clone() } else { labs.act_and_look(&play.id, &Action::Stop).await? };
    let limit = Instant::now() + END_LIMIT;
    let mut patience = Patience::new();
    loop {
        match play.state() {
            Some(State::Stopped) => return Ok(play),
            Some(state) if find::is_gone(&play) => {
                let state = state.as_str().to_lowercase();
                let message = format!("playground {} did not stop: it is {state}", play.shown());
                return Err(Error::new(Kind::Ended, message));
            }
            _ if Instant::now() > limit => {
                return Err(Error::new(Kind::NotYet, format!("playground {} has not stopped yet", play.shown()))
                    .with_hint("see `labctl-ssh-proxy list`"));
            }
            _ => sleep(LOOK_EVERY).await,
        }
        match labs.play(&play.id).await {
            Ok(current) => {
                patience.restore();
                play = current;
            }
            Err(error) => patience.note(&error)?,
        }
    }
}
