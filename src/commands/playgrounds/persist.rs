//! `persist`: makes a playground be stopped and kept when its time is up, instead of erased.

use crate::{
    app::App,
    commands::{args::One, playgrounds::listed::report},
    error::Result,
    labs::{find, wire::Action},
};

/// Keep a playground when its time is up: it is stopped instead of erased.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    one: One,
}

/// Makes a playground be stopped and kept when its time is up, instead of erased.
///
/// # Errors
/// The platform's.
pub(crate) async fn run(app: &App, args: Args) -> Result<()> {
    let labs = app.labs().await?;
    let play = find::whole(&labs, &args.one.playground).await?;
    labs.act(&play.id, &Action::MakePersistent).await?;
    app.memory().note_acted();
    let sentence = format!("{} will be kept: when its time is up, it is stopped, not erased", play.shown());
    let play = if args.one.json { labs.play(&play.id).await? } else { play };
    report(app, &play, args.one.json, &sentence)
}
