//! The figures of the stream to a machine, and whether the machine can be reached.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use tokio::sync::Notify;

use crate::moment::{Moment, now};

/// The figures of a stream, readable while it runs.
#[derive(Debug, Default)]
pub struct Vitals {
    sent: AtomicU64,
    received: AtomicU64,
    /// The number of times that the client has spoken after the server.
    turns: AtomicU64,
    server_spoke_last: AtomicBool,
    round_trip_us: AtomicU64,
    heard_at: AtomicU64,
    ended: AtomicBool,
    cut_off: AtomicBool,
    /// In ms since 1970; 0 while the machine can be reached.
    away_since: AtomicU64,
    resumed: AtomicU32,
    changed: Notify,
}

impl Vitals {
    /// The figures of a stream that begins now.
    pub fn new() -> Vitals {
        Vitals { heard_at: now().into(), ..Vitals::default() }
    }

    /// Bytes sent to the machine.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes received from the machine.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// The time since anything came, a pong included; by the clock, which goes on while a laptop sleeps.
    pub fn silent_for(&self) -> Duration {
        Duration::from_millis(now().saturating_sub(self.heard_at.load(Ordering::Relaxed)))
    }

    /// True once the machine's side has ended the stream.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// True once the stream has ended without a Close message of either side. After a failed dial it ends so at once.
    pub fn was_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Relaxed)
    }

    /// The number of times that the client has spoken after the server.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// True if the last data came from the server.
    pub fn server_spoke_last(&self) -> bool {
        self.server_spoke_last.load(Ordering::Relaxed)
    }

    /// The last ping's round trip, once there was one.
    pub fn round_trip(&self) -> Option<Duration> {
        match self.round_trip_us.load(Ordering::Relaxed) {
            0 => None,
            us => Some(Duration::from_micros(us)),
        }
    }

    /// The moment since which the machine cannot be reached, while the session waits for it.
    pub fn away_since(&self) -> Option<Moment> {
        Some(self.away_since.load(Ordering::Relaxed)).filter(|since| *since > 0)
    }

    /// The number of times that the machine was reached again.
    pub fn resumed(&self) -> u32 {
        self.resumed.load(Ordering::Relaxed)
    }

    /// Waits until [`Vitals::away_since`] has changed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Notes bytes that were sent to the machine.
    pub(crate) fn note_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        if self.server_spoke_last.swap(false, Ordering::Relaxed) {
            self.turns.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes bytes that came from the machine.
    pub(crate) fn note_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
        self.server_spoke_last.store(true, Ordering::Relaxed);
    }

    /// Notes that something came.
    pub(crate) fn note_heard(&self) {
        self.heard_at.store(now(), Ordering::Relaxed);
    }

    /// Notes the round trip of a ping.
    pub(crate) fn note_round_trip(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        self.round_trip_us.store(us, Ordering::Relaxed);
    }

    /// Notes that the machine's side has ended the stream.
    pub(crate) fn note_end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Notes whether the stream has ended without a word of either side.
    pub(crate) fn note_cut_off(&self, cut_off: bool) {
        self.cut_off.store(cut_off, Ordering::Relaxed);
    }

    /// Notes that the machine cannot be reached since then.
    pub(crate) fn note_away(&self, since: Moment) {
        self.away_since.store(since.max(1), Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Notes that the machine has been reached again.
    pub(crate) fn note_back(&self) {
        if self.away_since.swap(0, Ordering::Relaxed) > 0 {
            self.resumed.fetch_add(1, Ordering::Relaxed);
            self.changed.notify_one();
        }
    }
}
