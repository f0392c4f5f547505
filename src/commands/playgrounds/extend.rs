//! `extend`: lets a playground run longer.

use jiff::ZonedDateTime;

use crate::{
    app::App,
    commands::{
        args::One,
        playgrounds::{
            listed::{report, time_left},
            playtime::{self, Time},
        },
    },
    error::Result,
    labs::{find, span::Span},
};

/// Let a playground run longer. When its time is up, it is erased unless `persist` keeps it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    one: One,
    /// The time to add, or the end. See `lifetime`, which also shortens it.
    #[arg(value_name = "TIME", num_args = 1.., required = true, help = format!("The time to add: {}", playtime::HELP))]
    time: Vec<String>,
}

/// Adds to a playground's time, and never reduces it.
///
/// # Errors
/// The platform's, [`Kind::Refused`](crate::error::Kind::Refused) when it grants less, and
/// [`Kind::NotWoken`](crate::error::Kind::NotWoken) for a stopped playground.
pub(crate) async fn run(app: &App, args: Args) -> Result<()> {
    let Args { one, time } = args;
    let wish = Time::read(&time)?;
    let labs = app.labs().await?;
    let mut play = find::whole(&labs, &one.playground).await?;
    playtime::check_running(&play, &format!("extend {} {}", play.id, time.join(" ")))?;
    let span = Span::of(&labs, &play);
    let wanted = match wish {
        Time::Minutes(_) => span.left + wish.remaining(std::time::Duration::ZERO, &ZonedDateTime::now())?,
        Time::Until(_) => wish.remaining(span.elapsed(), &ZonedDateTime::now())?,
    };
    let runs = if wanted > span.left {
        play = playtime::set(app, &labs, &play, span, wanted).await?;
        "runs"
    } else {
        "already runs"
    };
    let fate = playtime::fate(app, &labs, &play).await;
    let sentence = format!("{} {runs} for {} more, then {fate}", play.shown(), time_left(&play));
    report(app, &play, one.json, &sentence)
}
