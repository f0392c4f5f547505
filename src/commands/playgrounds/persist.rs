//! `persist`: a playground is stopped and kept at its end, where it would be erased.

use crate::{
    app::App,
    commands::{
        args::One,
        playgrounds::listed::{host, report},
    },
    error::Result,
    labs::{find, wire::Action},
};

/// Keep a playground at its end: it is stopped then, where it would be erased.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    one: One,
}

/// `persist`: at its end it is stopped and kept, where it would be erased.
///
/// # Errors
/// The platform's.
pub async fn run(app: &App, args: Args) -> Result<()> {
    let labs = app.labs().await?;
    let play = find::whole(&labs, &args.one.playground).await?;
    labs.act(&play.id, &Action::MakePersistent).await?;
    app.memory().note_acted();
    let sentence = format!("{} is kept: at its end it is stopped, not erased", host(&play));
    let play = if args.one.json { labs.play(&play.id).await? } else { play };
    report(app, &play, args.one.json, &sentence)
}
