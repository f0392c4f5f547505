//! Points in time by this computer's clock, as records store them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, by this computer's clock.
pub type Moment = u64;

/// Returns the current time.
pub fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(Moment::MAX)
}

/// Returns the time since `moment`. A moment in the future, after the clock was set back, counts as now.
pub fn ago(moment: Moment) -> Duration {
    Duration::from_millis(now().saturating_sub(moment))
}
