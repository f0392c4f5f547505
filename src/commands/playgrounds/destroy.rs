//! `destroy`: erases a playground, and everything that we know about it.

use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    app::App,
    commands::{
        args::One,
        playgrounds::{
            attempt,
            entries::refresh_entries,
            forget::forget,
            listed::host,
            stop::{END_LIMIT, LOOK_EVERY},
        },
    },
    error::{Error, Kind, Result},
    labs::{
        Labs, find,
        wire::{Action, Play, State},
    },
    moment::now,
    target::is_label,
    ui::{notice::Progress, out, spinner::Spinner},
    wake::{Patience, TAKES_EFFECT},
};

/// Erase a playground, with everything in it. Asks first.
///
/// If it belongs to a challenge, a tutorial or a lesson, that attempt ends.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    one: One,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// The playground that was erased, as `destroy --json` prints it.
#[derive(Serialize)]
struct Erased<'a> {
    id: &'a str,
    host: String,
    title: &'a str,
}

/// Erases a playground, and everything that we know about it.
///
/// # Errors
/// The platform's, and those of [`out::agreed`].
pub(crate) async fn run(app: &App, args: Args) -> Result<()> {
    let labs = app.labs().await?;
    let play = find::whole(&labs, &args.one.playground).await?;
    erase(app, &labs, &play, args.yes, args.one.json).await
}

/// Erases a playground after a question, unless its answer is a yes already. If it belongs to a challenge, a tutorial or
/// a lesson, that attempt is ended, and its end erases it.
///
/// # Errors
/// As [`run`].
pub(super) async fn erase(app: &App, labs: &Labs, play: &Play, yes: bool, json: bool) -> Result<()> {
    let learning = play.learning();
    if !yes {
        let (shown, host) = (play.shown(), host(play));
        let question = match &learning {
            None => format!("Erase {shown} ({host}) and everything in it?"),
            Some(of) => format!("End {of}, and erase {shown} ({host}) and everything in it?"),
        };
        out::agreed(&question, json, "Nothing was erased.", out::ADD_YES).await?;
    }
    let progress = Spinner::new();
    progress.waiting(&format!("erasing playground {}", play.shown()));
    let began = now();
    match &learning {
        None => drop(labs.act(&play.id, &Action::Destroy).await?),
        Some(_) => attempt::end(labs, play).await?,
    }
    app.memory().note_acted();
    gone(labs, play, learning.is_some()).await?;
    drop(progress);
    forget(app, &play.id).await?;
    let name = attempt::label(play);
    if is_label(&name) {
        // It is erased. What is on record about the name of its catalogue entry, or of its content, concerns the next.
        if let Err(error) = app.memory().note_over(&name, &play.id, began) {
            log::warn!("{}", error.message());
        }
    }
    app.memory().note_acted();
    refresh_entries(app, labs).await;
    if json {
        return out::json(&Erased { id: &play.id, host: host(play), title: &play.title });
    }
    match learning {
        None => out::line(&format!("{} is erased", play.shown())),
        Some(of) => out::line(&format!("{of} has ended, and {} is erased", play.shown())),
    }
}

/// Waits until a playground is gone. With `ended`, the end of an attempt may only have stopped it: then it is erased.
async fn gone(labs: &Labs, play: &Play, mut ended: bool) -> Result<()> {
    let limit = Instant::now() + END_LIMIT;
    let mut patience = Patience::new();
    // A play that was stopped before is so until its end has begun.
    let was_down = find::is_play_down(play);
    let began = Instant::now();
    loop {
        match labs.play(&play.id).await {
            Ok(play) if matches!(play.state(), Some(State::Destroyed | State::Failed)) => return Ok(()),
            Err(e) if e.kind() == Kind::NotFound => return Ok(()),
            Ok(play)
                if ended && play.state() == Some(&State::Stopped) && (!was_down || began.elapsed() > TAKES_EFFECT) =>
            {
                ended = false;
                match labs.act(&play.id, &Action::Destroy).await {
                    // It is being erased already.
                    Err(e) if matches!(e.status(), Some(404 | 409 | 410)) => {}
                    done => drop(done?),
                }
            }
            Ok(_) | Err(_) if Instant::now() > limit => {
                return Err(Error::new(Kind::NotYet, format!("playground {} has not been erased yet", play.shown()))
                    .with_hint("see `labctl-ssh-proxy list --all`"));
            }
            Ok(_) => patience.restore(),
            Err(e) => patience.note(&e)?,
        }
        sleep(LOOK_EVERY).await;
    }
}
