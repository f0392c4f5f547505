//! Moments by this machine's clock, as records keep them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, by this machine's clock.
pub type Moment = u64;

/// The time now.
pub fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(Moment::MAX)
}

/// How long ago a moment was. One in the future, which a clock that was set back leaves, is as good as now.
pub fn ago(moment: Moment) -> Duration {
    Duration::from_millis(now().saturating_sub(moment))
}
