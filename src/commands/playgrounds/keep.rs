//! `keep`: says for one playground if its time is extended while it is used.

use clap_complete::ArgValueCompleter;

use crate::{
    app::App,
    commands::{
        candidates,
        playgrounds::listed::{in_words, report},
    },
    error::Result,
    keep::{LEAST, STEP},
    labs::find,
    moment::now,
};

/// Extend a playground's time while it is used, or stop doing so.
///
/// `on` and `off` beat the setting `keep` for this playground. While a connection or a port-forward moves data, the
/// playground gets half an hour more, 12 minutes before its end, and again, up to 4 hours beyond its own end; the setting
/// `keep_limit` changes that. A playground may cost money for as long as it runs.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// on or off.
    #[arg(value_enum, hide_possible_values = true)]
    choice: Choice,
    /// The playground's id, host name, alias, title, catalogue name or page address.
    #[arg(add = ArgValueCompleter::new(candidates::playgrounds))]
    playground: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Choice {
    On,
    Off,
}

/// Records the choice. The processes that use the playground read it before they ask for more time.
///
/// # Errors
/// As [`find::whole`], and when the choice cannot be recorded.
pub(crate) async fn run(app: &App, args: Args) -> Result<()> {
    let Args { choice, playground, json } = args;
    let labs = app.labs().await?;
    let play = find::whole(&labs, &playground).await?;
    let is_on = choice == Choice::On;
    app.memory().must_change(&play.id, |record| {
        let keep = record.keep.get_or_insert_default();
        keep.choice = Some((is_on, now()));
        if is_on {
            keep.stuck = None;
        }
    })?;
    let (shown, limit) = (play.shown(), app.settings.keep_limit());
    let sentence = match choice {
        Choice::On if limit < LEAST => format!("{shown} gets no more time: `keep_limit` in the settings leaves none"),
        Choice::On => format!(
            "while {shown} is used, it gets {} more before its end, up to {} beyond its own end",
            in_words(STEP.min(limit)),
            in_words(limit)
        ),
        Choice::Off => format!("the time of {shown} is not extended any more; `extend` gives it more"),
    };
    report(app, &play, json, &sentence)
}
