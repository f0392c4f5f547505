//! Points in time by this computer's clock, as records store them.
//!
//! The clock may have been set back since a record was written, so a moment in a file may lie in the future. Such a
//! moment says nothing, and counts as long ago: otherwise a wait for it would last as long as the clock was ahead.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer};

/// Milliseconds since 1970, by this computer's clock.
pub type Moment = u64;

/// The stand-in for a moment that the clock of now rules out.
pub(crate) const LONG_AGO: Moment = 0;
/// Less than this into the future is what small corrections of a clock explain.
const SLACK: Duration = Duration::from_secs(5);

/// Returns the current time.
pub fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(Moment::MAX)
}

/// Returns the time since `moment`. A moment in the future counts as long ago, unless a small correction of the clock
/// explains it.
pub fn ago(moment: Moment) -> Duration {
    Duration::from_millis(now().saturating_sub(past(moment)))
}

/// Returns `moment`, or [`LONG_AGO`] if the clock was set back since.
fn past(moment: Moment) -> Moment {
    let latest = now().saturating_add(u64::try_from(SLACK.as_millis()).unwrap_or_default());
    if moment > latest { LONG_AGO } else { moment }
}

/// Reads a moment that a record holds.
///
/// # Errors
/// Fails when it is no moment.
pub(crate) fn recorded<'de, D: Deserializer<'de>>(record: D) -> Result<Moment, D::Error> {
    Moment::deserialize(record).map(past)
}

/// Reads a moment that a record may hold.
///
/// # Errors
/// As [`recorded`].
pub(crate) fn recorded_if_any<'de, D: Deserializer<'de>>(record: D) -> Result<Option<Moment>, D::Error> {
    Ok(Option::<Moment>::deserialize(record)?.map(past))
}

#[cfg(test)]
mod tests {
    use super::{LONG_AGO, ago, now, past};

    #[test]
    fn a_moment_to_come_is_long_ago() {
        assert_eq!(ago(now() + 2000).as_secs(), 0, "a small correction of the clock");
        assert_eq!(past(now() + 60_000), LONG_AGO);
        assert!(ago(now() + 60_000).as_secs() > 365 * 24 * 3600);
        assert!((60..65).contains(&ago(now() - 60_000).as_secs()));
    }
}
