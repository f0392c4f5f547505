//! The official client's retry rule: a request is tried up to 5 times within 10 s while the platform says "not yet"
//! (503, 504, 429) or the network fails. What must not happen twice is repeated only while it is certain that it has not
//! happened once; after an unknown outcome its caller looks first.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep};

use crate::error::{Error, Result};

/// Attempts at one request, the first included.
const ATTEMPTS: usize = 5;
/// No attempt begins later than this after the first.
const WITHIN: Duration = Duration::from_secs(10);
/// The first pause; each further one is half as long again.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The effect of a second attempt at a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It only looks: the last answer is the true one.
    Read,
    /// Doing it twice comes to the same as doing it once.
    Harmless,
    /// It must not be done twice.
    Once,
    /// The caller has a patience of its own.
    Never,
}

impl Repeat {
    fn allows_another(self, error: &Error) -> bool {
        // A 502 is final, unless its caller waits for something.
        let passes = error.may_pass() && error.status() != Some(502);
        match self {
            Repeat::Read | Repeat::Harmless => passes,
            Repeat::Once => passes && !error.may_have_happened(),
            Repeat::Never => false,
        }
    }
}

/// Attempts a request by this rule. `None` means that an earlier attempt has done it though its answer did not arrive: a
/// later one met 404, 409 or 410.
///
/// # Errors
/// The last attempt's.
pub(super) async fn attempt<T, F>(repeat: Repeat, request: impl Fn() -> F) -> Result<Option<T>>
where
    F: Future<Output = Result<T>>,
{
    let began = Instant::now();
    let (mut pause, mut may_be_done) = (FIRST_PAUSE, false);
    for left in (0..ATTEMPTS).rev() {
        let error = match request().await {
            Ok(done) => return Ok(Some(done)),
            Err(error) if may_be_done && matches!(error.status(), Some(404 | 409 | 410)) => return Ok(None),
            Err(error) => error,
        };
        // The platform's word counts; else a jitter keeps many clients from coming back at once.
        let wait = error.retry_after().unwrap_or_else(|| pause.mul_f64(0.5 + fastrand::f64()));
        if left == 0 || !repeat.allows_another(&error) || began.elapsed() + wait > WITHIN {
            return Err(error);
        }
        log::info!("another attempt in {} ms: {}", wait.as_millis(), error.message());
        may_be_done |= repeat != Repeat::Read && error.may_have_happened();
        sleep(wait).await;
        pause = pause * 3 / 2;
    }
    unreachable!("the last attempt returns")
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, time::Duration};

    use super::{Repeat, attempt};
    use crate::error::{Error, Kind, Result};

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
        let unsent = Error::new(Kind::Network, "nobody listens").not_sent();
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
