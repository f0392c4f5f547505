//! The patience of a connection with a tunnel that leads nowhere yet: for how long it is attempted, at which pace, and
//! in which session. Pure: it is told the time, and `opening::open` does the work.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Kind, Result};

/// Between two attempts to open a tunnel that leads nowhere yet.
const PAUSE: Duration = Duration::from_secs(1);
/// The time for which a tunnel may be out of reach.
const UNREACHABLE: Duration = Duration::from_secs(30);
/// The time for which one session is dialled while the machine does not answer in it, as the official client does,
/// because another one comes out of a small pool.
const SAME_SESSION: Duration = Duration::from_secs(60);

/// The attempts of one connection so far, as far as they decide about the next.
pub(super) struct Patience {
    deadline: Instant,
    /// The first failure.
    failing_since: Option<Instant>,
    /// The arrival of the session that is dialled at present.
    session_since: Instant,
    /// The pause that the platform asked for when it was too busy to answer.
    asked_pause: Option<Duration>,
}

impl Patience {
    /// The patience at the first attempt. It ends with the `deadline` at the latest.
    pub(super) fn until(deadline: Instant, now: Instant) -> Patience {
        Patience { deadline, failing_since: None, session_since: now, asked_pause: None }
    }

    /// Returns the time of the next attempt after one that came to `problem`, or `None` to give up.
    pub(super) fn next_attempt(&mut self, problem: &Error, now: Instant) -> Option<Instant> {
        let is_exhausted = match self.failing_since {
            Some(since) => limit(problem).is_some_and(|limit| now - since > limit),
            None => false,
        };
        if is_exhausted || now > self.deadline {
            return None;
        }
        self.failing_since.get_or_insert(now);
        let pause = problem.retry_after().max(self.asked_pause.take()).unwrap_or_default().max(PAUSE);
        Some((now + pause).min(self.deadline))
    }

    /// Returns true if the next attempt is for the present session, as long as the machine is up.
    pub(super) fn keeps_session(&self, problem: &Error, now: Instant) -> bool {
        !is_refusal(problem) && now - self.session_since < SAME_SESSION
    }

    /// Notes that another session is dialled from now on.
    pub(super) fn begin_session(&mut self, now: Instant) {
        self.session_since = now;
    }

    /// Decides if the present session is dialled again, although the platform gave `answer` where another session might
    /// have been needed.
    ///
    /// # Errors
    /// The answer where it is final. At the deadline the `problem` of the last attempt: there was a session, so the
    /// answer is not the obstacle.
    pub(super) fn go_on_after(&mut self, answer: Error, problem: Error, now: Instant) -> Result<()> {
        match answer.kind() {
            Kind::NotYet if now >= self.deadline => Err(problem),
            // The platform is busy or out of reach.
            Kind::NotYet | Kind::Network => {
                self.asked_pause = answer.retry_after();
                Ok(())
            }
            _ if answer.may_pass() => Ok(()),
            _ => Err(answer),
        }
    }
}

/// The time after the first failure for which attempts may still come to `problem`; `None` is as long as the deadline
/// allows.
fn limit(problem: &Error) -> Option<Duration> {
    match problem.kind() {
        Kind::NotYet => None,
        _ if problem.may_pass() => Some(UNREACHABLE),
        // Another session may be accepted, or answered better.
        _ => Some(Duration::ZERO),
    }
}

/// Returns true if the session itself is not accepted.
fn is_refusal(problem: &Error) -> bool {
    problem.kind() != Kind::NotYet && !problem.may_pass()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{PAUSE, Patience, SAME_SESSION, UNREACHABLE};
    use crate::error::{Error, Kind};

    const LIMIT: Duration = Duration::from_secs(600);
    const MOMENT: Duration = Duration::from_millis(1);

    fn problem(kind: Kind) -> Error {
        Error::new(kind, "a problem")
    }

    fn patience() -> (Patience, Instant) {
        let began = Instant::now();
        (Patience::until(began + LIMIT, began), began)
    }

    #[test]
    fn not_yet_is_attempted_until_the_deadline_and_not_after_it() {
        let (mut patience, began) = patience();
        let not_yet = problem(Kind::NotYet);
        assert_eq!(patience.next_attempt(&not_yet, began), Some(began + PAUSE));
        assert_eq!(patience.next_attempt(&not_yet, began + LIMIT - MOMENT), Some(began + LIMIT));
        assert_eq!(
            patience.next_attempt(&not_yet, began + LIMIT),
            Some(began + LIMIT),
            "the last one is at the deadline"
        );
        assert_eq!(patience.next_attempt(&not_yet, began + LIMIT + MOMENT), None);
    }

    #[test]
    fn a_network_that_fails_has_half_a_minute() {
        let (mut patience, began) = patience();
        let network = problem(Kind::Network);
        // Counted from the first failure, however late that is.
        let failed = began + LIMIT / 2;
        assert!(patience.next_attempt(&network, failed).is_some());
        assert!(patience.next_attempt(&network, failed + UNREACHABLE).is_some());
        assert!(patience.next_attempt(&network, failed + UNREACHABLE + MOMENT).is_none());
        assert!(patience.next_attempt(&problem(Kind::NotYet), failed + UNREACHABLE + MOMENT).is_some());
    }

    /// As while the server of the tunnels is being replaced.
    #[test]
    fn so_has_a_gateway_that_answers_in_its_place() {
        for status in [500, 502, 520] {
            let (mut patience, began) = patience();
            let gateway = problem(Kind::Answer).with_status(status);
            assert!(patience.next_attempt(&gateway, began).is_some());
            assert!(patience.next_attempt(&gateway, began + UNREACHABLE).is_some(), "{status}");
            assert!(patience.keeps_session(&gateway, began + PAUSE), "another one comes out of a small pool");
            assert!(patience.next_attempt(&gateway, began + UNREACHABLE + MOMENT).is_none());
            assert!(patience.go_on_after(gateway, problem(Kind::Network), began).is_ok());
        }
    }

    #[test]
    fn a_refused_session_is_replaced_once() {
        let (mut patience, began) = patience();
        let refused = problem(Kind::Refused);
        assert!(patience.next_attempt(&refused, began).is_some());
        assert!(!patience.keeps_session(&refused, began + PAUSE));
        assert!(patience.next_attempt(&refused, began + PAUSE).is_none());
    }

    #[test]
    fn a_session_that_is_not_answered_is_dialled_for_a_minute() {
        let (mut patience, began) = patience();
        for kind in [Kind::NotYet, Kind::Network] {
            assert!(patience.keeps_session(&problem(kind), began + SAME_SESSION - MOMENT));
            assert!(!patience.keeps_session(&problem(kind), began + SAME_SESSION));
        }
        patience.begin_session(began + SAME_SESSION);
        assert!(patience.keeps_session(&problem(Kind::NotYet), began + SAME_SESSION));
    }

    #[test]
    fn the_longest_pause_that_is_asked_for_counts_once() {
        let (mut patience, began) = patience();
        let asked = |seconds| problem(Kind::NotYet).with_retry_after(Duration::from_secs(seconds));
        assert_eq!(patience.next_attempt(&asked(5), began), Some(began + Duration::from_secs(5)));
        assert!(patience.go_on_after(asked(9), problem(Kind::NotYet), began).is_ok());
        assert_eq!(patience.next_attempt(&asked(5), began), Some(began + Duration::from_secs(9)));
        assert_eq!(patience.next_attempt(&asked(0), began), Some(began + PAUSE));
    }

    #[test]
    fn a_platform_that_is_busy_or_away_does_not_end_it() {
        let (mut patience, began) = patience();
        let mut after = |answer, now| {
            patience.go_on_after(problem(answer), problem(Kind::Refused), now).map_err(|error| error.kind())
        };
        for busy in [Kind::NotYet, Kind::Network] {
            assert_eq!(after(busy, began), Ok(()));
        }
        assert_eq!(after(Kind::NotFound, began), Err(Kind::NotFound));
        assert_eq!(after(Kind::NotYet, began + LIMIT), Err(Kind::Refused), "the obstacle was another");
        assert_eq!(after(Kind::Network, began + LIMIT), Ok(()));
    }
}
