//! The judgement whether a connection still carries anything. Pure: it is told of what happens, and of the time.
//!
//! Whatever comes is a sign of life. When nothing comes, the relay is asked by a ping: after [`QUIET`], or soon after
//! something was sent. A ping that is not answered makes the connection suspect, and then dead.
//!
//! On a slow line answers take long because data is queued before them. The times grow with the round trips that were
//! seen, and bytes that the peer's system takes count too: a queue that shrinks is alive.

use std::time::Duration;

use tokio::time::Instant;

use crate::labs::tunnel::QUEUED;

/// Nothing came for this long: the relay is asked. It is shorter than any idle timeout that was found on the way.
pub(super) const QUIET: Duration = Duration::from_secs(5);
/// Nothing came for this long after something was sent: the relay is asked. It acknowledges after a second.
const PROBE: Duration = Duration::from_millis(1250);
/// Nothing came for this long after something was sent: another connection is opened, for all cases.
pub(super) const SUSPECT: Duration = Duration::from_millis(2500);
/// Nothing came for this long after something was sent: the other connection takes over.
pub(super) const DEAD: Duration = Duration::from_secs(5);
/// As [`SUSPECT`], after a time in which the program did not run: a path that forgets a sleeping computer is the rule. At
/// 100 ms it leaves room for the four round trips of a resume within a second.
const WOKEN: Duration = Duration::from_millis(500);

/// The signs of life of one connection.
pub(super) struct Watch {
    began: Instant,
    /// The time of the last sign of life.
    heard: Instant,
    /// The time since which something that was sent is unanswered.
    unanswered: Option<Instant>,
    /// The relay was asked since the last sign of life.
    asked: bool,
    /// The program did not run for a while, and nothing has come since.
    is_woken: bool,
    /// The last ping and its time.
    ping: (u32, Instant),
    round_trip: Duration,
    accepted: u64,
}

impl Watch {
    pub(super) fn new(now: Instant) -> Watch {
        Watch {
            began: now,
            heard: now,
            unanswered: None,
            asked: false,
            is_woken: false,
            ping: (0, now),
            round_trip: Duration::ZERO,
            accepted: 0,
        }
    }

    /// Something came.
    pub(super) fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.unanswered = None;
        self.asked = false;
        self.is_woken = false;
    }

    /// Something was sent that the relay answers.
    pub(super) fn send(&mut self, now: Instant) {
        self.unanswered.get_or_insert(now);
    }

    /// The relay is asked. Returns the ping's number.
    pub(super) fn ask(&mut self, now: Instant) -> u32 {
        self.send(now);
        self.asked = true;
        self.ping = (self.ping.0.wrapping_add(1), now);
        self.ping.0
    }

    /// The program has not run for a while: what was unanswered before says nothing.
    pub(super) fn wake(&mut self) {
        self.unanswered = None;
        self.asked = false;
        self.is_woken = true;
    }

    /// True if nothing has come since the program did not run.
    pub(super) fn is_woken(&self) -> bool {
        self.is_woken
    }

    /// A ping was answered. Returns its round trip, if it was the last one.
    pub(super) fn answer(&mut self, n: u32, now: Instant) -> Option<Duration> {
        if n != self.ping.0 {
            return None;
        }
        let round_trip = now - self.ping.1;
        // A slow one is remembered for a while.
        self.round_trip = round_trip.max(self.round_trip * 3 / 4);
        Some(round_trip)
    }

    /// A spare connection has opened in this time. On a line that is full that takes long, and so does an answer. A ping
    /// does not tell it, because none is sent while bytes come.
    pub(super) fn dialled(&mut self, took: Duration) {
        self.round_trip = self.round_trip.max(took);
    }

    /// The peer's system had taken this number of bytes when the relay was asked: they tell nothing about later.
    pub(super) fn had_accepted(&mut self, accepted: u64) {
        self.accepted = accepted;
    }

    /// The peer's system has taken this number of bytes by now.
    pub(super) fn accept(&mut self, accepted: u64, now: Instant) {
        if accepted >= self.accepted + QUEUED {
            self.accepted = accepted;
            self.unanswered = self.unanswered.map(|_| now);
        }
    }

    /// The time for which the connection has carried the session.
    pub(super) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// True if nothing that was sent is unanswered.
    pub(super) fn is_at_ease(&self) -> bool {
        self.unanswered.is_none()
    }

    /// The time of the last sign of life.
    pub(super) fn heard(&self) -> Instant {
        self.heard
    }

    /// The time at which the relay is to be asked.
    pub(super) fn ask_at(&self) -> Option<Instant> {
        let quiet = self.heard + QUIET;
        let probe = self.unanswered.map(|since| since + PROBE);
        (!self.asked).then(|| probe.map_or(quiet, |probe| probe.min(quiet)))
    }

    /// The time at which the connection becomes suspect.
    pub(super) fn suspect_at(&self) -> Option<Instant> {
        let least = if self.is_woken { WOKEN } else { SUSPECT };
        Some(self.unanswered? + (2 * self.round_trip).clamp(least, 3 * SUSPECT))
    }

    /// The time at which it is dead.
    pub(super) fn dead_at(&self) -> Option<Instant> {
        Some(self.unanswered? + (4 * self.round_trip).clamp(DEAD, 3 * DEAD))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{DEAD, PROBE, QUIET, SUSPECT, WOKEN, Watch};

    #[test]
    fn a_quiet_connection_is_asked_and_its_silence_counts_from_then() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        assert_eq!(watch.ask_at(), Some(start + QUIET));
        assert_eq!(watch.suspect_at(), None);
        let asked = start + QUIET;
        let n = watch.ask(asked);
        assert_eq!(watch.ask_at(), None);
        assert_eq!(watch.suspect_at(), Some(asked + SUSPECT));
        assert_eq!(watch.dead_at(), Some(asked + DEAD));
        let answered = asked + Duration::from_millis(80);
        watch.hear(answered);
        assert_eq!(watch.answer(n, answered), Some(Duration::from_millis(80)));
        assert_eq!(watch.answer(n.wrapping_sub(1), answered), None);
        assert_eq!(watch.suspect_at(), None);
        assert_eq!(watch.ask_at(), Some(answered + QUIET));
    }

    #[test]
    fn a_key_without_an_echo_is_noticed_sooner() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        let key = start + Duration::from_secs(3);
        watch.send(key);
        watch.send(key + Duration::from_secs(1));
        assert_eq!(watch.ask_at(), Some(key + PROBE));
        watch.ask(key + PROBE);
        assert_eq!((watch.suspect_at(), watch.dead_at()), (Some(key + SUSPECT), Some(key + DEAD)));
    }

    #[test]
    fn a_woken_connection_is_doubted_soon_but_not_on_a_slow_line() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        let n = watch.ask(start);
        watch.wake();
        watch.ask(start);
        assert_eq!(watch.suspect_at(), Some(start + WOKEN));
        watch.hear(start);
        watch.answer(n.wrapping_add(1), start + Duration::from_secs(1));
        assert!(!watch.is_woken());
        watch.wake();
        watch.ask(start);
        assert_eq!(watch.suspect_at(), Some(start + Duration::from_secs(2)));
    }

    #[test]
    fn a_dial_that_takes_long_gives_the_connection_more_time() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        watch.send(start);
        watch.dialled(Duration::from_millis(200));
        assert_eq!(watch.dead_at(), Some(start + DEAD), "a quick one says nothing");
        watch.dialled(Duration::from_secs(3));
        assert_eq!(watch.dead_at(), Some(start + Duration::from_secs(12)));
    }

    #[test]
    fn a_slow_line_gets_more_time_and_a_queue_that_shrinks_is_alive() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        let n = watch.ask(start);
        let answered = start + Duration::from_secs(4);
        watch.hear(answered);
        watch.answer(n, answered);
        watch.send(answered);
        assert_eq!(watch.suspect_at(), Some(answered + 3 * SUSPECT), "bounded");
        watch.had_accepted(40_000);
        watch.accept(40_100, answered + Duration::from_secs(1));
        assert_eq!(watch.suspect_at(), Some(answered + 3 * SUSPECT), "a few bytes say nothing");
        watch.accept(50_000, answered + Duration::from_secs(2));
        assert_eq!(watch.suspect_at(), Some(answered + Duration::from_secs(2) + 3 * SUSPECT));
    }
}
