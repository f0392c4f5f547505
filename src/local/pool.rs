//! The tunnels that the account may have open at once. The platform has a small pool of them; here there is no limit
//! unless a test or a trial sets one.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hyper::StatusCode;
use jiff::Timestamp;

use super::{
    access::random,
    refusal::{Answer, Refusal},
};

/// The time after which a tunnel without any connection loses its slot.
const UNUSED: Duration = Duration::from_secs(60);
/// The milliseconds from a refusal to the moment that it names.
const COME_BACK: i64 = 3000;

/// The account's tunnels.
pub(super) struct Pool {
    limit: Option<usize>,
    slots: Mutex<BTreeMap<String, Slot>>,
}

struct Slot {
    since: Instant,
    connections: usize,
}

/// A slot that is given back unless its tunnel is made.
pub(super) struct Seat<'a> {
    pool: &'a Pool,
    session: Option<String>,
}

impl Seat<'_> {
    /// Notes that the tunnel is made: its slot is held until its connections end. Returns the name that they go by.
    pub(super) fn keep(mut self) -> String {
        self.session.take().unwrap_or_default()
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.pool.locked().remove(&session);
        }
    }
}

/// A connection through a tunnel. The end of the last one frees the slot.
pub(super) struct Connected {
    pool: Arc<Pool>,
    session: String,
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut slots = self.pool.locked();
        if let Some(slot) = slots.get_mut(&self.session) {
            slot.connections = slot.connections.saturating_sub(1);
            if slot.connections == 0 {
                slots.remove(&self.session);
            }
        }
    }
}

impl Pool {
    /// A pool of that many tunnels; of any number without a limit.
    pub(super) fn new(limit: Option<usize>) -> Pool {
        Pool { limit, slots: Mutex::default() }
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, Slot>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| slot.connections > 0 || slot.since.elapsed() < UNUSED);
        slots
    }

    /// A slot for another tunnel.
    ///
    /// # Errors
    /// 429 when all are taken.
    pub(super) fn take(&self) -> Answer<Seat<'_>> {
        let session = random(8);
        let Some(limit) = self.limit else { return Ok(Seat { pool: self, session: Some(session) }) };
        let mut slots = self.locked();
        if slots.len() >= limit {
            let words = format!("too many tunnels: this account may have {limit} open at once");
            let reset = Some(Timestamp::now().as_millisecond() + COME_BACK);
            return Err(Refusal { reset, ..Refusal::new(StatusCode::TOO_MANY_REQUESTS, words) });
        }
        slots.insert(session.clone(), Slot { since: Instant::now(), connections: 0 });
        drop(slots);
        Ok(Seat { pool: self, session: Some(session) })
    }

    /// Counts a connection through the tunnel of that name. A tunnel can be dialled again after its connections have
    /// ended, and then has a slot again.
    pub(super) fn connect(self: &Arc<Self>, session: &str) -> Option<Connected> {
        self.limit?;
        let fresh = || Slot { since: Instant::now(), connections: 0 };
        self.locked().entry(session.to_owned()).or_insert_with(fresh).connections += 1;
        Some(Connected { pool: Arc::clone(self), session: session.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Pool;

    #[test]
    fn a_slot_is_held_from_the_request_to_the_end_of_the_last_connection() {
        let pool = Arc::new(Pool::new(Some(1)));
        drop(pool.take().unwrap());
        let session = pool.take().unwrap().keep();
        let refusal = pool.take().err().unwrap();
        assert_eq!(refusal.status, 429);
        let ahead = refusal.reset.unwrap() - jiff::Timestamp::now().as_millisecond();
        assert!((1..=5000).contains(&ahead), "{ahead}");
        let (first, second) = (pool.connect(&session), pool.connect(&session));
        drop(first);
        assert!(pool.take().is_err(), "another connection of it goes on");
        drop(second);
        let next = pool.take().unwrap().keep();
        let again = pool.connect(&session);
        drop(pool.connect(&next));
        assert!(pool.take().is_err(), "dialled again, it has a slot again");
        drop(again);
        assert!(pool.take().is_ok());
    }

    #[test]
    fn without_a_limit_nothing_is_counted_and_with_none_everything_refused() {
        let pool = Arc::new(Pool::new(None));
        for _ in 0..1000 {
            pool.take().unwrap().keep();
        }
        assert!(pool.locked().is_empty() && pool.connect("x").is_none());
        assert!(Pool::new(Some(0)).take().is_err());
    }
}
