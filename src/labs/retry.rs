//! Repetition: the pauses between attempts, and the official client's retry rule.
//!
//! By that rule a request is attempted up to 5 times within 10 s while the platform says "not yet" (503, 504, 429) or
//! the network fails. A request that must not be carried out twice is repeated only while it is certain that it has not
//! been carried out; after an unknown outcome its caller looks first.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep};

use crate::error::{Error, Result};

/// Attempts at one request, the first included.
const ATTEMPTS: usize = 5;
/// No attempt begins later than this after the first.
const WITHIN: Duration = Duration::from_secs(10);

/// The pauses between attempts. Each is longer than the one before, up to a limit, and differs by up to a quarter from
/// its due length, so that many clients do not return at once.
#[derive(Clone, Debug)]
pub(crate) struct Pauses {
    due: Duration,
    growth: f64,
    longest: Duration,
}

impl Pauses {
    /// The first pause.
    const FIRST: Duration = Duration::from_millis(500);

    /// The official client's pauses: each is half as long again as the one before, up to 5 s.
    pub(crate) fn new() -> Pauses {
        Pauses { due: Pauses::FIRST, growth: 1.5, longest: Duration::from_secs(5) }
    }

    /// Pauses that double up to `longest`.
    pub(crate) fn doubling(longest: Duration) -> Pauses {
        Pauses { due: Pauses::FIRST, growth: 2.0, longest }
    }

    /// The next pause.
    pub(crate) fn next_pause(&mut self) -> Duration {
        let due = self.due;
        self.due = due.mul_f64(self.growth).min(self.longest);
        due.mul_f64(0.75 + fastrand::f64() / 2.0)
    }

    /// The next pause, or the one that the platform asked for with `error` if that is longer.
    pub(crate) fn after(&mut self, error: &Error) -> Duration {
        self.next_pause().max(error.retry_after().unwrap_or_default())
    }
}

impl Default for Pauses {
    fn default() -> Pauses {
        Pauses::new()
    }
}

/// The effect of a second attempt at a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// None, and the request itself changes nothing: the last answer is the true one.
    Read,
    /// The same as that of the first alone.
    Harmless,
    /// Another one, which is not wanted.
    Once,
    /// Its caller repeats it by a rule of its own.
    Never,
}

impl Repeat {
    fn allows_another(self, error: &Error) -> bool {
        // Only a caller with a rule of its own repeats a request after a gateway's failure.
        let passes = error.may_pass() && !error.is_of_the_route();
        match self {
            Repeat::Read | Repeat::Harmless => passes,
            Repeat::Once => passes && !error.may_have_happened(),
            Repeat::Never => false,
        }
    }
}

/// Attempts a request by the official client's rule. `None` means that an earlier attempt succeeded though its answer
/// was lost, because a later one met 404, 409 or 410.
///
/// # Errors
/// The last attempt's.
pub(super) async fn attempt<T, F>(repeat: Repeat, request: impl Fn() -> F) -> Result<Option<T>>
where
    F: Future<Output = Result<T>>,
{
    let began = Instant::now();
    let (mut pauses, mut may_be_done) = (Pauses::new(), false);
    for left in (0..ATTEMPTS).rev() {
        let error = match request().await {
            Ok(done) => return Ok(Some(done)),
            Err(error) if may_be_done && matches!(error.status(), Some(404 | 409 | 410)) => return Ok(None),
            Err(error) => error,
        };
        let wait = pauses.after(&error);
        if left == 0 || !repeat.allows_another(&error) || began.elapsed() + wait > WITHIN {
            return Err(error);
        }
        log::info!("retrying in {} ms: {}", wait.as_millis(), error.message());
        may_be_done |= repeat != Repeat::Read && error.may_have_happened();
        sleep(wait).await;
    }
    unreachable!("the last attempt returns")
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, time::Duration};

    use super::{Pauses, Repeat, attempt};
    use crate::error::{Error, Kind, Result};

    #[test]
    fn pauses_grow_up_to_the_longest() {
        let lengths = |mut pauses: Pauses| [0; 9].map(|_| pauses.next_pause().as_secs_f64());
        for (pauses, growth, longest) in
            [(Pauses::new(), 1.5_f64, 5.0), (Pauses::doubling(Duration::from_secs(10)), 2.0, 10.0)]
        {
            for (turn, length) in (0..).zip(lengths(pauses)) {
                let due = (0.5 * growth.powi(turn)).min(longest);
                assert!((0.75 * due..=1.25 * due).contains(&length), "{turn}: {length} s");
            }
        }
        let busy = refused(429).with_retry_after(Duration::from_secs(7));
        assert_eq!(Pauses::new().after(&busy), Duration::from_secs(7));
    }

    fn refused(status: u16) -> Error {
        let kind = if matches!(status, 429 | 503 | 504) { Kind::NotYet } else { Kind::Refused };
        Error::new(kind, status.to_string()).with_status(status)
    }

    /// The outcome of a request that fails in these ways and then succeeds, and the number of attempts.
    async fn tried(repeat: Repeat, failures: &[Error]) -> (Result<Option<()>>, usize) {
        let made = Cell::new(0);
        let outcome = attempt(repeat, || {
            let failure = failures.get(made.replace(made.get() + 1)).cloned();
            async move { failure.map_or(Ok(()), Err) }
        })
        .await;
        (outcome, made.get())
    }

    #[tokio::test(start_paused = true)]
    async fn as_often_as_the_official_client() {
        for status in [429, 503, 504] {
            let (outcome, made) = tried(Repeat::Harmless, &vec![refused(status); 9]).await;
            assert_eq!((outcome.unwrap_err().status(), made), (Some(status), 5));
        }
        let broken = Error::new(Kind::Network, "it broke");
        assert_eq!(tried(Repeat::Harmless, &[broken.clone(), broken.clone()]).await.1, 3);
        assert_eq!(tried(Repeat::Harmless, &[broken.lasting()]).await.1, 1);
        for status in [400, 401, 404, 409, 410, 500, 502] {
            assert_eq!(tried(Repeat::Harmless, &[refused(status)]).await.1, 1, "{status}");
        }
        let limited = |seconds| refused(429).with_retry_after(Duration::from_secs(seconds));
        assert_eq!(tried(Repeat::Harmless, &[limited(4)]).await.1, 2);
        assert_eq!(tried(Repeat::Harmless, &[limited(11)]).await.1, 1, "it would take too long");
        assert_eq!(tried(Repeat::Never, &[refused(503)]).await.1, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_happens_twice_that_must_not() {
        let unsent = Error::new(Kind::Network, "connection refused").not_sent();
        let broken = Error::new(Kind::Network, "it broke");
        for (failure, attempts) in [(refused(503), 2), (refused(429), 2), (unsent, 2), (refused(504), 1), (broken, 1)] {
            assert_eq!(tried(Repeat::Once, std::slice::from_ref(&failure)).await.1, attempts, "{failure}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_repetition_that_comes_too_late_has_been_done() {
        for status in [404, 409, 410] {
            let (outcome, _) = tried(Repeat::Harmless, &[refused(504), refused(status)]).await;
            assert_eq!(outcome.unwrap(), None);
            let (outcome, _) = tried(Repeat::Read, &[refused(504), refused(status)]).await;
            assert_eq!(outcome.unwrap_err().status(), Some(status), "what is looked for is gone");
            let (outcome, _) = tried(Repeat::Harmless, &[refused(503), refused(status)]).await;
            assert_eq!(outcome.unwrap_err().status(), Some(status), "the first attempt did nothing");
        }
    }
}
