//! `extend`: lets a playground run for some minutes longer.

use std::time::Duration;

use crate::{
    app::App,
    commands::{
        args::{One, duration},
        playgrounds::listed::{report, time_left},
    },
    error::{Error, Kind, Result},
    labs::{
        Labs, find,
        wire::{Action, Play, State},
    },
    moment::{Moment, ago},
};

/// Let a playground run some minutes longer. When its time is up, it is erased unless `persist` keeps it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    one: One,
    /// The time to add: minutes, or a duration such as 1h30m.
    #[arg(value_parser = minutes)]
    minutes: u64,
}

/// The largest number of minutes to add.
const MAX_MINUTES: u64 = 100_000;

fn minutes(text: &str) -> Result<u64, String> {
    let in_units = || duration(text).ok().filter(|time| time.as_millis() % 60_000 == 0).map(|time| time.as_secs() / 60);
    let minutes = text.parse().ok().or_else(in_units).filter(|minutes| (1..=MAX_MINUTES).contains(minutes));
    minutes.ok_or_else(|| format!("write whole minutes, such as 90 or 1h30m, from 1 to {MAX_MINUTES}"))
}

/// Adds minutes to a playground's time, and never reduces it.
///
/// # Errors
/// The platform's, [`Kind::Refused`] when it grants less, and [`Kind::NotWoken`] for a stopped playground.
pub(crate) async fn run(app: &App, args: Args) -> Result<()> {
    let Args { one, minutes } = args;
    let labs = app.labs().await?;
    let play = find::whole(&labs, &one.playground).await?;
    if find::is_play_down(&play) {
        // The platform would count the minutes from the next start, and so shorten the time.
        let message = format!("playground {} is stopped, so its time does not run; nothing was changed", play.shown());
        return Err(Error::new(Kind::NotWoken, message).with_hint(format!(
            "start it with `labctl-ssh-proxy start {0}`, then run `labctl-ssh-proxy extend {0} {minutes}`",
            play.id
        )));
    }
    let left = play.expires_in;
    // The platform counts the total time from the play's start, in minutes. If the total is shorter than the remaining
    // time, it is not such a time, and we compute it.
    let whole = play.lifetime().filter(|whole| *whole >= left).unwrap_or_else(|| running_for(&labs, &play) + left);
    let total = whole.as_secs().div_ceil(60) + minutes;
    let play = labs.act_and_look(&play.id, &Action::SetMaxPlayTime { minutes: total }).await?;
    app.memory().note_acted();
    if play.expires_in < left + Duration::from_secs(minutes * 60 / 2) {
        let message = format!("the platform lets playground {} run only {} more", play.shown(), time_left(&play));
        return Err(
            Error::new(Kind::Refused, message).with_hint("check your plan, which may limit how long a playground runs")
        );
    }
    let sentence = format!("{} runs for {} more{}", play.shown(), time_left(&play), then(app, &labs, &play).await);
    report(app, &play, one.json, &sentence)
}

/// Returns the end of the sentence: the fate of the play when its time is up.
async fn then(app: &App, labs: &Labs, play: &Play) -> String {
    let text = match find::is_kept(labs, play).await {
        Some(true) => ", then it is stopped and kept".into(),
        Some(false) => format!(", then it is erased; keep it with `labctl-ssh-proxy persist {}`", play.id),
        None => format!(", then it is erased unless it is persistent (`labctl-ssh-proxy persist {}`)", play.id),
    };
    app.platform.commands(&text)
}

/// Returns the time since the play's last start, by the platform's clock.
fn running_for(labs: &Labs, play: &Play) -> Duration {
    let events = play.status.as_ref().map(|status| status.state_events.as_slice()).unwrap_or_default();
    let run = events.iter().rposition(|event| matches!(event.state, State::Stopped | State::Stopping));
    let began = events.get(run.map_or(0, |i| i + 1)).map_or(play.created_at.as_str(), |event| event.at.as_str());
    let began = began.parse::<jiff::Timestamp>().or_else(|_| play.created_at.parse());
    let began = began.ok().and_then(|began| Moment::try_from(began.as_millisecond()).ok());
    began.map(|began| ago(labs.by_our_clock(began))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::minutes;

    #[test]
    fn the_time_to_add_is_whole_minutes() {
        for (text, wanted) in
            [("90", Some(90)), ("1h30m", Some(90)), ("25m", Some(25)), ("0", None), ("90s", None), ("999999h", None)]
        {
            assert_eq!(minutes(text).ok(), wanted, "{text}");
        }
    }
}
