//! `list`: prints the playgrounds, once or continuously.

use clap_complete::ArgValueCompleter;

use crate::{
    app::App,
    commands::{
        candidates,
        playgrounds::{
            choice::{Choice, Filter},
            entries::refresh_with,
            listed::{Known, Listed, table},
            watch,
        },
    },
    error::Result,
    labs::{find, wire::Play},
    ui::{notice, out},
    wake::preparation::learn_ssh,
};

/// List your playgrounds.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also list those that have failed or were destroyed.
    #[arg(short, long)]
    all: bool,
    /// Only those of one playground of the catalogue, challenge, tutorial or course.
    #[arg(short, long, value_name = "KIND=NAME", add = ArgValueCompleter::new(candidates::filters))]
    filter: Option<Filter>,
    /// Print ids only, one a line.
    #[arg(short, long, conflicts_with_all = ["json", "watch"])]
    quiet: bool,
    /// Keep showing them as they change: redraw the table, or with --json print a line for each change.
    #[arg(long)]
    watch: bool,
    /// With --watch --json: also print a line when only the figures of connections have changed.
    #[arg(long, requires = "watch", requires = "json")]
    figures: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Prints the playgrounds that can be connected to, running ones first, or all of them with `all`; only those that fit
/// the filter.
///
/// # Errors
/// The platform's.
pub(crate) async fn run(app: &App, args: Args) -> Result<()> {
    let Args { all, filter, quiet, watch, figures, json } = args;
    let choice = Choice { all, filter };
    if watch {
        return watch::watch(app, choice, json, figures).await;
    }
    let labs = app.labs().await?;
    let mut plays = find::all(&labs).await?;
    let memory = app.memory();
    for play in &mut plays {
        learn_ssh(&labs, &memory, play).await;
    }
    refresh_with(app, &labs, &plays).await;
    choice.apply(&mut plays);
    if quiet {
        return out::lines(plays.into_iter().map(|play| play.id).collect());
    }
    let known = Known::now(app);
    if json {
        let listed = |play: &Play| {
            let stopped = find::is_play_down(play).then(|| memory.read(&play.id)).transpose()?;
            let stopped_on_purpose = stopped.map(|record| record.stopped.is_some());
            let mut listed = Listed::new(play, &known);
            listed.stopped_on_purpose = stopped_on_purpose;
            Ok(listed)
        };
        return out::json(&plays.iter().map(listed).collect::<Result<Vec<_>>>()?);
    }
    if plays.is_empty() {
        notice::line(&app.platform.commands(choice.none()));
        return Ok(());
    }
    out::lines(table(&plays, &known))
}
