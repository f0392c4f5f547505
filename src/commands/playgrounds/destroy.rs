//! `destroy`: erases a playground, and everything that we know about it.

use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    app::App,
    commands::{
        args::One,
        playgrounds::{
            entries::refresh_entries,
            forget::forget,
            listed::host,
            stop::{END_LIMIT, LOOK_EVERY},
        },
    },
    error::{Error, Kind, Result},
    labs::{
        find,
        wire::{Action, State},
    },
    moment::now,
    target::is_label,
    ui::{notice::Progress, out, spinner::Spinner},
    wake::Patience,
};

/// Erase a playground, with everything in it. Asks first.
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
    if !args.yes {
        let question = format!("Erase {} ({}) and everything in it?", play.shown(), host(&play));
        out::agreed(&question, args.one.json, "Nothing was erased.", out::ADD_YES).await?;
    }
    let progress = Spinner::new();
    progress.waiting(&format!("erasing playground {}", play.shown()));
    let began = now();
    labs.act(&play.id, &Action::Destroy).await?;
    app.memory().note_acted();
    let limit = Instant::now() + END_LIMIT;
    let mut patience = Patience::new();
    loop {
        match labs.play(&play.id).await {
            Ok(play) if matches!(play.state(), Some(State::Destroyed | State::Failed)) => break,
            Err(e) if e.kind() == Kind::NotFound => break,
            Ok(_) | Err(_) if Instant::now() > limit => {
                return Err(Error::new(Kind::NotYet, format!("playground {} has not been erased yet", play.shown()))
                    .with_hint("see `labctl-ssh-proxy list --all`"));
            }
            Ok(_) => patience.restore(),
            Err(e) => patience.note(&e)?,
        }
        sleep(LOOK_EVERY).await;
    }
    drop(progress);
    forget(app, &play.id).await?;
    let name = &play.playground.name;
    if is_label(name) {
        // It is erased. What is on record about the name of its catalogue entry concerns the next one.
        if let Err(error) = app.memory().note_over(name, &play.id, began) {
            log::warn!("{}", error.message());
        }
    }
    app.memory().note_acted();
    refresh_entries(app, &labs).await;
    if args.one.json {
        return out::json(&Erased { id: &play.id, host: host(&play), title: &play.title });
    }
    out::line(&format!("{} is erased", play.shown()))
}
