//! The time of a play: all of it, what is left, and the request that changes it.

use std::time::Duration;

use super::{
    Labs,
    wire::{Action, Play, State},
};
use crate::{
    error::Result,
    moment::{Moment, ago},
};

/// An answer that is so much beside the time that was asked for has granted it: requests take their time.
const TOLERANCE: Duration = Duration::from_secs(30);

/// The time of a playground that runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// From its start until its end.
    pub(crate) whole: Duration,
    /// From now until its end.
    pub(crate) left: Duration,
}

impl Span {
    /// The platform counts the whole time from the play's start. If it is shorter than the remaining time, it is not
    /// such a time, and we compute it.
    pub(crate) fn of(labs: &Labs, play: &Play) -> Span {
        let left = play.expires_in;
        let whole = play.lifetime().filter(|whole| *whole >= left).unwrap_or_else(|| running_for(labs, play) + left);
        Span { whole, left }
    }

    /// From its start until now.
    pub(crate) fn elapsed(self) -> Duration {
        self.whole.saturating_sub(self.left)
    }

    /// Asks that `wanted` is left of the play's time, in whole minutes from its start. Returns the play as it is then, and
    /// true if the platform has granted it.
    ///
    /// # Errors
    /// As every call.
    pub(crate) async fn set(self, labs: &Labs, play: &str, wanted: Duration) -> Result<(Play, bool)> {
        let minutes = (self.elapsed() + wanted).as_secs().div_ceil(60).max(1);
        let play = labs.act_and_look(play, &Action::SetMaxPlayTime { minutes }).await?;
        let is_granted = is_granted(self.left, wanted, play.expires_in);
        Ok((play, is_granted))
    }
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

/// True if the platform has come at least half of the way from the time that was left to the time that was wanted.
fn is_granted(left: Duration, wanted: Duration, granted: Duration) -> bool {
    let near = (wanted.abs_diff(left) / 2).max(TOLERANCE);
    if wanted < left { granted <= wanted + near } else { granted + near >= wanted }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::is_granted;

    #[test]
    fn what_is_granted_is_about_what_was_asked_for() {
        let granted = |left, wanted, granted| is_granted(minutes(left), minutes(wanted), minutes(granted));
        assert!(granted(60.0, 120.0, 119.9) && granted(60.0, 120.0, 180.0) && !granted(60.0, 120.0, 60.0));
        assert!(granted(60.0, 60.0, 59.9) && !granted(60.0, 60.0, 50.0));
        assert!(granted(60.0, 10.0, 10.0) && granted(60.0, 0.0, 0.0) && !granted(60.0, 10.0, 60.0));
    }

    fn minutes(number: f64) -> Duration {
        Duration::from_secs_f64(number * 60.0)
    }
}
