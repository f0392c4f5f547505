//! The patience of a wake: growing pauses, and an end to a network that fails for too long.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    error::{Error, Kind, Result},
    labs::retry::Pauses,
};

/// The time for which the network may fail, as when a laptop changes networks.
const NETWORK_PATIENCE: Duration = Duration::from_secs(30);

/// The attempts so far, as far as they decide about the next.
pub(crate) struct Patience {
    pauses: Pauses,
    network_failing_since: Option<Instant>,
}

impl Patience {
    /// The patience before the first attempt.
    pub(crate) fn new() -> Patience {
        Patience { pauses: Pauses::new(), network_failing_since: None }
    }

    /// Notes a failure. "Not yet" is waited out without end.
    ///
    /// # Errors
    /// The failure itself, if it does not pass, or if the network has failed for too long.
    pub(crate) fn note(&mut self, error: &Error) -> Result<()> {
        if error.kind() == Kind::NotYet && error.may_pass() {
            self.network_failing_since = None;
            return Ok(());
        }
        let since = *self.network_failing_since.get_or_insert_with(Instant::now);
        if !error.may_pass() || since.elapsed() > NETWORK_PATIENCE {
            return Err(error.clone());
        }
        log::warn!("{}", error.message());
        Ok(())
    }

    /// Notes a success: the patience with the network is whole again.
    pub(crate) fn restore(&mut self) {
        self.network_failing_since = None;
    }

    /// The pause before the next attempt.
    pub(crate) fn pause(&mut self) -> Duration {
        self.pauses.next_pause()
    }

    /// Notes a failure, and returns the pause before the next attempt.
    ///
    /// # Errors
    /// As [`Patience::note`].
    pub(crate) fn pause_after(&mut self, error: &Error) -> Result<Duration> {
        self.note(error)?;
        Ok(self.pauses.after(error))
    }
}
