//! `rename`: changes a playground's title.

use crate::{
    app::App,
    commands::{
        args::One,
        playgrounds::{
            entries::refresh_entries,
            listed::{host, report},
        },
    },
    error::{Result, printable},
    labs::{find, wire::Action},
};

/// Change a playground's title.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    one: One,
    /// The new title.
    title: String,
}

/// Changes the title, at the platform and in the ssh configuration.
///
/// # Errors
/// The platform's.
pub(crate) async fn run(app: &App, args: Args) -> Result<()> {
    let Args { one, title } = args;
    let labs = app.labs().await?;
    let play = find::whole(&labs, &one.playground).await?;
    let play = labs.act_and_look(&play.id, &Action::SetTitle { title }).await?;
    app.memory().note_acted();
    refresh_entries(app, &labs).await;
    report(app, &play, one.json, &format!("{} is now called {}", host(&play), printable(&play.title)))
}
