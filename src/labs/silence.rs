//! The meaning of silence on a tunnel: its connection is dead, or the network is away.
//!
//! A connection to the same host tells them apart. If the host answers it, the silent one is dead: a balancer has
//! forgotten it, or the machine behind it is gone. If nothing answers, the network is away, and the connection may go on
//! when it comes back: TCP sends what was lost again, with pauses that double. So the network may be away for
//! [`PATIENCE`], and the connection then has as long again as it was silent. Only where this computer has another
//! address by then, no pause will bring it back.
//!
//! That is all that can be done on this side. A session that is held (`hold`) needs none of it.

use std::{future::Future, io, pin::Pin, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

use super::vitals::Vitals;
use crate::{
    moment::{Moment, now},
    os::NetworkEvents,
};

/// The time for which the network may be away: a train's tunnel, another access point, a VPN that is dialled. A person
/// who looks at a dead window for longer closes it.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two attempts to reach the host, where no event of the system comes first.
const PAUSE: Duration = Duration::from_secs(5);

/// A tunnel's host, as the side that waits for it sees it.
pub trait Host: Send + Sync + 'static {
    /// True if it answers another connection.
    fn answers(&self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>>;

    /// True if packets to it leave this computer from another address than the tunnel's.
    fn has_another_way(&self) -> bool;
}

/// A silence that is being judged. It ends with an error, once the tunnel is of no more use; a sign of life on the
/// tunnel ends it before, by dropping it.
pub(super) type Silence = Pin<Box<dyn Future<Output = io::Error> + Send>>;

/// Judges a silence that has this length by now.
pub(super) async fn judge(host: Arc<dyn Host>, quiet: Duration, vitals: Arc<Vitals>) -> io::Error {
    let began = Instant::now();
    let silent = || quiet + began.elapsed();
    if host.answers().await {
        return ended(format!("{}, while its host answers", nothing(silent())));
    }
    vitals.note_away(now().saturating_sub(Moment::try_from(silent().as_millis()).unwrap_or(Moment::MAX)));
    let events = NetworkEvents::watch();
    let back = async {
        loop {
            tokio::select! {
                () = events.next() => {}
                () = sleep(PAUSE) => {}
            }
            if host.answers().await {
                return;
            }
        }
    };
    if timeout_at(began + PATIENCE.saturating_sub(quiet), back).await.is_err() {
        return ended(format!("{}, and its host cannot be reached", nothing(silent())));
    }
    if !host.has_another_way() {
        sleep(silent()).await;
    }
    ended(format!("{}, though its host can be reached again", nothing(silent())))
}

/// The words for a silence.
pub(super) fn nothing(quiet: Duration) -> String {
    format!("nothing has come through the tunnel for {} s", quiet.as_secs())
}

/// The error for a silence.
pub(super) fn ended(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, why)
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::Pin,
        sync::{Arc, Mutex},
        time::Duration,
    };

    use tokio::time::Instant;

    use super::{Host, PATIENCE, PAUSE, judge};
    use crate::labs::vitals::Vitals;

    const QUIET: Duration = Duration::from_secs(20);

    /// A host that answers after so long, if ever.
    struct Absent {
        until: Mutex<Option<Instant>>,
        moved: bool,
    }

    impl Host for Absent {
        fn answers(&self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
            Box::pin(async { self.until.lock().unwrap().is_some_and(|until| Instant::now() >= until) })
        }

        fn has_another_way(&self) -> bool {
            self.moved
        }
    }

    /// The words of the judgement, the time that it took, and if the machine was away at its end.
    async fn judged(absent: Option<Duration>, moved: bool) -> (String, Duration, bool) {
        let began = Instant::now();
        let until = Mutex::new(absent.map(|time| began + time));
        let vitals = Arc::new(Vitals::new());
        let error = judge(Arc::new(Absent { until, moved }), QUIET, Arc::clone(&vitals)).await;
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        (error.to_string(), began.elapsed(), vitals.away_since().is_some())
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_answers_proves_the_connection_dead() {
        let (words, took, away) = judged(Some(Duration::ZERO), false).await;
        assert_eq!(words, "nothing has come through the tunnel for 20 s, while its host answers");
        assert_eq!((took, away), (Duration::ZERO, false));
    }

    #[tokio::test(start_paused = true)]
    async fn an_absent_network_has_two_minutes() {
        let (words, took, away) = judged(None, false).await;
        assert_eq!(words, "nothing has come through the tunnel for 120 s, and its host cannot be reached");
        assert_eq!((QUIET + took, away), (PATIENCE, true));
    }

    #[tokio::test(start_paused = true)]
    async fn after_it_tcp_has_as_long_again() {
        let away_for = Duration::from_secs(30);
        let (words, took, away) = judged(Some(away_for), false).await;
        assert!(words.ends_with("though its host can be reached again"), "{words}");
        let twice = 2 * (QUIET + away_for) - QUIET;
        assert!(took >= twice && took <= twice + 2 * PAUSE, "{took:?}");
        assert!(away);
        let (_, took, _) = judged(Some(away_for), true).await;
        assert!(took <= away_for + PAUSE, "an old address comes to nothing: {took:?}");
    }
}
