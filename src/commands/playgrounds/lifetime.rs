//! `lifetime`: shows or sets the whole time of a playground.

use std::time::Duration;

use jiff::ZonedDateTime;

use crate::{
    app::App,
    commands::{
        args::One,
        playgrounds::{
            listed::{in_words, report, time_left},
            playtime::{self, Time},
        },
    },
    error::{Result, printable},
    keep,
    labs::{Labs, find, span::Span, wire::Play},
    moment::now,
    ui::out,
    wake,
};

/// A playground that would end sooner than this is asked about.
const SOON: Duration = Duration::from_secs(5 * 60);

/// Show a playground's whole time, or set it, counted from its start. `extend` adds to what is left.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    one: One,
    /// The whole time. Without it, the command shows the time.
    #[arg(value_name = "TIME", help = format!("The whole time: {}", playtime::HELP))]
    time: Vec<String>,
    /// Do not ask, even if the playground would end within 5 minutes.
    #[arg(long)]
    yes: bool,
}

/// Shows the whole time, or sets it. Asks before it ends the playground at once or soon.
///
/// # Errors
/// As [`playtime::set`] and [`out::agreed`]; [`Kind::NotWoken`](crate::error::Kind::NotWoken) to set that of a stopped
/// playground.
pub(crate) async fn run(app: &App, args: Args) -> Result<()> {
    let Args { one, time, yes } = args;
    let wish = if time.is_empty() { None } else { Some(Time::read(&time)?) };
    let labs = app.labs().await?;
    let mut play = find::whole(&labs, &one.playground).await?;
    let Some(wish) = wish else {
        let words = shown(app, &labs, &play).await?;
        return report(app, &play, one.json, &words);
    };
    playtime::check_running(&play, &format!("lifetime {} {}", play.id, time.join(" ")))?;
    let span = Span::of(&labs, &play);
    let wanted = wish.remaining(span.elapsed(), &ZonedDateTime::now())?;
    if wanted < SOON && wanted < span.left && !yes {
        let end = if wanted.is_zero() { "at once".into() } else { format!("in {}", in_words(wanted)) };
        let fate = match find::is_kept(&labs, &play).await {
            Some(true) => "be stopped",
            Some(false) | None => "be erased, with everything in it",
        };
        let question = format!("{} would end {end} and {fate}. Shorten its time?", play.shown());
        out::agreed(&question, one.json, "Nothing was changed.", out::ADD_YES).await?;
    }
    let is_kept = wanted < span.left && keep::is_wanted(app, &play);
    let memory = app.memory();
    let before = memory.read(&play.id)?.keep.and_then(|keep| keep.choice);
    if is_kept {
        // Else one that is used would get half an hour more.
        memory.must_change(&play.id, |record| record.keep.get_or_insert_default().choice = Some((false, now())))?;
    }
    let set = playtime::set(app, &labs, &play, span, wanted).await;
    if set.is_err() && is_kept {
        memory.change(&play.id, |record| record.keep.get_or_insert_default().choice = before)?;
    }
    play = set?;
    let sentence = match play.expires_in.is_zero() {
        true => format!("the time of {} is up", play.shown()),
        false => {
            let kept = if is_kept {
                format!("; use no longer extends it: `labctl-ssh-proxy keep on {}` turns that on again", play.id)
            } else {
                String::new()
            };
            format!("{} has {}{}", play.shown(), shown(app, &labs, &play).await?, app.platform.commands(&kept))
        }
    };
    report(app, &play, one.json, &sentence)
}

/// The time of a playground, and what comes after it.
async fn shown(app: &App, labs: &Labs, play: &Play) -> Result<String> {
    let whole = play.lifetime().map_or_else(|| printable(&play.max_play_time), in_words);
    let whole = if whole.is_empty() { String::new() } else { format!("{whole} in all, ") };
    if find::is_play_down(play) {
        return Ok(format!("{whole}and it does not run, because the playground is stopped"));
    }
    wake::check_running(play)?;
    let left = if play.expires_in.is_zero() { "nothing".into() } else { time_left(play) };
    Ok(format!("{whole}{left} left; then {}", playtime::fate(app, labs, play).await))
}
