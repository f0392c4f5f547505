//! The task that carries a session: over one connection after the other.
//!
//! It is in one of these conditions:
//!
//! - *attached*: `link` carries the session.
//! - *suspect*: the same, but nothing comes back. A spare connection is dialled, and dropped if anything comes.
//! - *away*: there is no link. Dialled at once, and again and again with pauses.
//! - *resuming*: the relay has been asked to go on over a new connection. The old one, if there is one, is read on but
//!   no longer written to. The relay closes it before it counts its bytes, so nothing comes twice.
//!
//! A connection becomes suspect by its silence (`watch`), by an address that has changed, and by a sleep of more than a
//! moment. A change and a sleep are only reasons to look: the old connection is asked, and a spare is dialled beside it.
//! An answer takes one round trip and a dial three or more, so a connection that lives keeps the session.
//!
//! The old connection is kept even when a resume gets no answer. Offsets decide what is sent again, so nothing can go
//! wrong with it, and it may be the one that lives.
//!
//! A connection that brings the session no byte further counts as an attempt that has failed. Otherwise a relay, or
//! something on the way to it, that ends each connection at once would be dialled without a pause.

use std::{
    future::{Future, poll_fn},
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::{
    greeting::{Resume, Resumed, Secret},
    held::{ANSWERED, Options, Phase, Reach, Shared, Ticket, Verdict, nonce},
    link::{Link, News, Over},
    watch::{QUIET, Watch},
};
use crate::{
    error::{Error, Kind, Result},
    labs::vitals::Vitals,
    moment::{self, Moment},
};

mod ending;

use ending::{End, broken, ended_by_relay, given_up, over};

/// The time that a connection takes at most to open.
const DIALLED: Duration = Duration::from_secs(10);
/// From one attempt to dial to the next, give or take a quarter. The last one is repeated: with it, a network that comes
/// back unreported is met within five seconds.
const PAUSES: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];
/// The longest pause while there is no route to the tunnel's host.
const NO_ROUTE: Duration = Duration::from_secs(2);
/// A spare connection that has waited for longer may have been closed by the relay.
const FRESH: Duration = Duration::from_secs(8);
/// An attempt that has not succeeded by then is given up when the network changes.
const STUCK: Duration = Duration::from_secs(1);
/// Between two looks at the clocks.
const TICK: Duration = Duration::from_secs(5);
/// The clock is ahead of the timer by more than this, or the timer is late by more: the program did not run.
const JUMP: Duration = Duration::from_secs(3);
/// After a shorter sleep the connection is only asked: a laptop wakes up for moments while it sleeps. A longer one has
/// hardly left it alive. It is short of a minute, because up to [`TICK`] of a sleep is not noticed.
const NAP: Duration = Duration::from_secs(30);
/// Bytes that were read are acknowledged after this time, however few they are.
const ACK_AFTER: Duration = Duration::from_secs(1);

/// The outcome of a step towards another connection.
enum Outcome<C> {
    Dialled(C),
    Answered(C, Resumed),
    Failed(Verdict),
}

type Way<C> = Pin<Box<dyn Future<Output = Outcome<C>> + Send>>;

enum Step<C> {
    Over(Over),
    Way(Outcome<C>),
    Event,
    Tick,
    Leave,
}

/// The carrier of one session.
pub(super) struct Carrier<R: Reach> {
    reach: Arc<R>,
    shared: Arc<Shared>,
    vitals: Arc<Vitals>,
    ticket: Ticket,
    key: Secret,
    options: Options,
    link: Option<Link<R::Connection>>,
    watch: Watch,
    /// The link is in doubt, so that a spare connection is wanted.
    suspect: bool,
    /// It is in so much doubt that the spare takes over as soon as it is there.
    urgent: bool,
    /// A connection that has not been used yet, and the time of its dial.
    spare: Option<(R::Connection, Instant)>,
    /// The step towards another connection that is being made.
    way: Option<Way<R::Connection>>,
    way_began: Instant,
    /// The bytes that had come when the relay was asked to resume, while it has not answered.
    asking: Option<u64>,
    attempt: u32,
    /// Attempts to dial that have failed in a row.
    failures: usize,
    dial_at: Instant,
    /// The time for which a machine that is away is waited for, less what has passed.
    left: Duration,
    is_away: bool,
    /// Something came that was not acknowledged.
    ack_at: Option<Instant>,
    event: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// The local address towards the tunnel's host when the link began.
    address: Option<IpAddr>,
    timer: Pin<Box<Sleep>>,
    ticked: Instant,
    /// The same by the clock that goes on while the computer sleeps.
    ticked_at: Moment,
}

impl<R: Reach> Carrier<R> {
    pub(super) fn new(
        reach: R,
        shared: Arc<Shared>,
        vitals: Arc<Vitals>,
        ticket: Ticket,
        key: Secret,
        options: Options,
    ) -> Self {
        let (reach, now) = (Arc::new(reach), Instant::now());
        Carrier {
            event: next_event(&reach),
            reach,
            shared,
            vitals,
            ticket,
            key,
            options,
            link: None,
            watch: Watch::new(now),
            suspect: false,
            urgent: false,
            spare: None,
            way: None,
            way_began: now,
            asking: None,
            attempt: 0,
            failures: 0,
            dial_at: now,
            left: options.resume_for,
            is_away: false,
            ack_at: None,
            address: None,
            timer: Box::pin(sleep_until(now)),
            ticked: now,
            ticked_at: moment::now(),
        }
    }

    /// Carries the session to its end, from its first connection on.
    pub(super) async fn run(mut self, first: Link<R::Connection>) {
        self.link = Some(first);
        self.address = self.reach.local_address();
        let end = loop {
            let step = poll_fn(|cx| self.poll(cx)).await;
            if let Some(end) = self.take(step) {
                break end;
            }
        };
        self.finish(end).await;
    }

    /// Does one step: moves bytes for as long as there is nothing to decide.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Step<R::Connection>> {
        let now = Instant::now();
        {
            let mut state = self.shared.lock();
            state.wakes(cx.waker());
            if let Some(link) = &mut self.link {
                let mut news = News::default();
                let over = link.poll(cx, &mut state, self.asking.is_none(), &mut news);
                news.unanswered = !state.replay.is_answered();
                drop(state);
                self.note(&news, now);
                if let Poll::Ready(over) = over {
                    return Poll::Ready(Step::Over(over));
                }
                state = self.shared.lock();
            }
            if state.is_leaving {
                return Poll::Ready(Step::Leave);
            }
        }
        if let Some(way) = &mut self.way
            && let Poll::Ready(outcome) = way.as_mut().poll(cx)
        {
            self.way = None;
            return Poll::Ready(Step::Way(outcome));
        }
        if self.event.as_mut().poll(cx).is_ready() {
            self.event = next_event(&self.reach);
            return Poll::Ready(Step::Event);
        }
        let due = self.due();
        // Reset only when it is due sooner: each byte that comes puts the next question off.
        if due < self.timer.deadline() || self.timer.is_elapsed() {
            self.timer.as_mut().reset(due);
        }
        self.timer.as_mut().poll(cx).map(|()| Step::Tick)
    }

    fn note(&mut self, news: &News, now: Instant) {
        if news.welcome {
            self.reach.begun(&self.ticket);
        }
        if news.heard {
            self.vitals.note_heard();
            self.watch.hear(now);
            if let Some(time) = news.pong.and_then(|n| self.watch.answer(n, now)) {
                self.vitals.note_round_trip(time);
            }
            // Once the relay was asked to resume, only its answer decides.
            if self.asking.is_none() {
                self.trust();
            }
        }
        // Bytes that come need not answer those that were sent: a host may pass one direction on, and not the other.
        if news.sent || news.heard && news.unanswered && news.pong.is_none() {
            self.watch.send(now);
        }
        if news.data > 0 {
            self.vitals.note_received(news.data);
        }
        if news.data > 0 || news.unread {
            self.ack_at.get_or_insert(now + ACK_AFTER);
        }
    }

    /// The link lives: no other is needed.
    fn trust(&mut self) {
        self.suspect = false;
        self.urgent = false;
        self.spare = None;
        self.way = None;
        self.back();
    }

    /// Plans the next attempt to dial, a pause after `began`, the beginning of one that has failed: it may itself have
    /// waited for its whole time.
    fn back_off(&mut self, began: Instant) {
        let mut pause = PAUSES[self.failures.min(PAUSES.len() - 1)];
        // A network that comes back without an event is noticed by its route.
        if pause > NO_ROUTE && self.reach.local_address().is_none() {
            pause = NO_ROUTE;
        }
        self.failures += 1;
        self.dial_at = (began + pause.mul_f64(fastrand::f64() / 2.0 + 0.75)).max(Instant::now());
    }

    fn back(&mut self) {
        if std::mem::take(&mut self.is_away) {
            self.left = self.options.resume_for;
            self.vitals.note_back();
        }
    }

    fn away(&mut self, since: Duration) {
        if !std::mem::replace(&mut self.is_away, true) {
            let since = u64::try_from(since.as_millis()).unwrap_or_default();
            self.vitals.note_away(moment::now().saturating_sub(since));
        }
    }

    /// The next moment at which something has to be done though nothing happens.
    fn due(&self) -> Instant {
        let dial = (self.wants_another() && self.way.is_none() && self.spare.is_none()).then_some(self.dial_at);
        let over = self.is_away.then(|| self.ticked + self.left.min(TICK));
        let link = self.link.as_ref().filter(|_| self.asking.is_none()).and_then(|_| {
            let watch = &self.watch;
            let next = match (self.suspect, self.is_away) {
                (false, _) => watch.suspect_at(),
                (true, false) => watch.dead_at(),
                (true, true) => None,
            };
            [watch.ask_at(), next].into_iter().flatten().min()
        });
        let ack = self.link.as_ref().and(self.ack_at);
        [dial, over, link, ack].into_iter().flatten().min().unwrap_or(self.ticked + TICK)
    }

    fn wants_another(&self) -> bool {
        self.asking.is_none() && (self.link.is_none() || self.suspect)
    }

    /// Acts on a step. Returns the end of the session when it has come.
    fn take(&mut self, step: Step<R::Connection>) -> Option<End> {
        match step {
            Step::Leave => return Some(End::Left),
            Step::Over(Over::Ended(0, _)) => return Some(End::Said),
            Step::Over(Over::Ended(_, words)) => return Some(End::Failed(ended_by_relay(&words), true)),
            Step::Over(Over::Broken(violation)) => return Some(End::Failed(broken(violation), false)),
            Step::Over(Over::Impostor) => {
                let error = over("another program has taken the relay's port on the machine");
                return Some(End::Failed(error, false));
            }
            Step::Over(Over::Lost(error)) => {
                log::info!("a connection of the session is lost: {error}");
                // One that brings nothing is as good as an attempt that fails, and is not repeated at once for ever.
                if self.link.take().is_some_and(|link| link.is_useful) || self.watch.age() > QUIET {
                    self.failures = 0;
                }
                self.back_off(Instant::now());
                self.away(Duration::ZERO);
            }
            Step::Way(Outcome::Dialled(connection)) => {
                self.watch.dialled(self.way_began.elapsed());
                self.spare = Some((connection, Instant::now()));
            }
            Step::Way(Outcome::Answered(connection, Resumed::From(received))) => {
                if let Err(error) = self.resume(connection, received) {
                    return Some(End::Failed(error, false));
                }
            }
            Step::Way(Outcome::Answered(_, Resumed::Unknown)) => {
                return Some(End::Failed(over("the relay there no longer knows it"), true));
            }
            Step::Way(Outcome::Answered(_, Resumed::Stale)) => {
                return Some(End::Failed(over("another process has taken the session over"), false));
            }
            Step::Way(Outcome::Failed(verdict)) => {
                if self.asking.take().is_some() && self.link.is_some() && self.watch.is_at_ease() {
                    self.trust();
                }
                if let Verdict::Over(error) = verdict
                    && (self.link.is_none() || self.is_away)
                {
                    return Some(End::Failed(error, false));
                }
                self.back_off(self.way_began);
            }
            Step::Event => self.look(),
            Step::Tick => {}
        }
        self.tick()
    }

    /// Looks after the network has changed, or the computer has woken up.
    fn look(&mut self) {
        let address = self.reach.local_address();
        let has_moved = address.is_some() && address != self.address;
        self.address = address.or(self.address);
        if self.asking.is_some() {
            return;
        }
        if self.link.is_some() && !self.suspect {
            self.ask_now();
            if has_moved {
                log::info!("the network has changed: another connection is dialled");
                self.doubt();
            }
        } else if self.spare.is_none() && address.is_some() {
            // An attempt that has begun may wait for a network that is gone.
            let is_stuck = self.way_began.elapsed() > STUCK;
            if has_moved || is_stuck || self.way.is_none() {
                self.way = None;
                self.failures = 0;
                self.back_off(Instant::now());
            }
            self.urgent |= has_moved;
        }
    }

    /// Asks the relay for a sign of life.
    fn ask_now(&mut self) {
        if let Some(link) = &mut self.link
            && self.watch.ask_at().is_some()
        {
            self.watch.had_accepted(R::accepted(&link.connection));
            link.ping = Some(self.watch.ask(Instant::now()));
        }
    }

    /// Dials a connection that takes over at once, unless the link gives a sign of life before.
    fn doubt(&mut self) {
        self.suspect = true;
        self.urgent = true;
        self.failures = 0;
        self.back_off(Instant::now());
    }

    /// Goes on after a time in which the program did not run: the computer slept, or the process was halted.
    fn wake(&mut self, slept: Duration) {
        log::info!("the program did not run for {} s", slept.as_secs());
        let is_long = slept > NAP;
        if is_long && self.asking.take().is_some() {
            // Of a connection from before, which has hardly survived.
            self.way = None;
        }
        if is_long {
            self.spare = None;
        }
        if self.asking.is_some() {
            return;
        }
        if self.link.is_some() {
            self.watch.wake();
            self.ask_now();
        }
        if is_long || self.link.is_none() {
            self.way = None;
            self.doubt();
        }
    }

    /// Does what is due.
    fn tick(&mut self) -> Option<End> {
        let now = Instant::now();
        let passed = now - self.ticked;
        let by_clock = Duration::from_millis(moment::now().saturating_sub(self.ticked_at));
        (self.ticked, self.ticked_at) = (now, moment::now());
        let late = now.saturating_duration_since(self.timer.deadline());
        let ahead = by_clock.saturating_sub(passed);
        if ahead > JUMP || late > JUMP {
            self.wake(if ahead > JUMP { ahead } else { passed });
        }
        if self.is_away {
            // On some systems the timer goes on while the computer sleeps.
            self.left = self.left.saturating_sub(passed.min(2 * TICK));
            if self.left.is_zero() {
                return Some(End::Failed(given_up(self.options.resume_for), false));
            }
        }
        if let Some(link) = &mut self.link {
            if self.ack_at.is_some_and(|at| at <= now) {
                self.ack_at = None;
                let mut state = self.shared.lock();
                state.ack_is_late = state.received > state.acked;
            }
            if self.asking.is_none() {
                if self.watch.ask_at().is_some_and(|at| at <= now) {
                    self.watch.had_accepted(R::accepted(&link.connection));
                    link.ping = Some(self.watch.ask(now));
                }
                if self.watch.suspect_at().is_some_and(|at| at <= now) {
                    self.watch.accept(R::accepted(&link.connection), now);
                }
                if !self.suspect && self.watch.suspect_at().is_some_and(|at| at <= now) {
                    log::info!("nothing comes from the machine: another connection is dialled");
                    self.suspect = true;
                    self.urgent |= self.watch.is_woken();
                    self.failures = 0;
                    self.back_off(Instant::now());
                }
                if self.watch.dead_at().is_some_and(|at| at <= now) {
                    self.away(now - self.watch.heard());
                }
            }
        }
        if self.wants_another() {
            self.spare.take_if(|(_, dialled)| now - *dialled > FRESH);
            let is_due = self.link.is_none() || self.is_away || self.urgent;
            if let Some((connection, _)) = self.spare.take_if(|_| is_due) {
                match self.ask(connection) {
                    Ok(way) => self.way = Some(way),
                    Err(error) => return Some(End::Failed(error, false)),
                }
            } else if self.spare.is_none() && self.way.is_none() && self.dial_at <= now {
                self.way = Some(self.dial());
                self.way_began = now;
            }
        }
        None
    }

    fn dial(&self) -> Way<R::Connection> {
        let (reach, port) = (Arc::clone(&self.reach), self.ticket.resume_port);
        Box::pin(async move {
            let error = match timeout(DIALLED, reach.dial(port)).await {
                Ok(Ok(connection)) => return Outcome::Dialled(connection),
                Ok(Err(error)) => error,
                Err(_) => Error::new(Kind::Network, "no connection has opened in time"),
            };
            log::info!("the machine is not reached: {error}");
            Outcome::Failed(reach.verdict(Some(&error)).await)
        })
    }

    /// Asks the relay to go on over `connection`.
    fn ask(&mut self, mut connection: R::Connection) -> Result<Way<R::Connection>> {
        let received = self.shared.lock().received;
        self.attempt += 1;
        let wish = Resume {
            port: self.ticket.resume_port,
            id: self.ticket.id,
            attempt: self.attempt,
            received,
            nonce: nonce()?,
            ends: false,
        };
        self.asking = Some(received);
        let (reach, secret, key) = (Arc::clone(&self.reach), self.ticket.key, self.key);
        Ok(Box::pin(async move {
            let error = match timeout(ANSWERED, wish.ask(&mut connection, &secret, Some(&key))).await {
                Ok(Ok(answer)) => return Outcome::Answered(connection, answer),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it does not answer".to_owned(),
            };
            log::info!("the relay does not resume the session: {error}");
            Outcome::Failed(reach.verdict(None).await)
        }))
    }

    /// Goes on over `connection`, on which the relay begins where it was asked to.
    fn resume(&mut self, connection: R::Connection, received: u64) -> Result<()> {
        let mut state = self.shared.lock();
        state.replay.go_back(received).map_err(broken)?;
        // Its answer is proven by the session's secret.
        let is_news = state.inbox.open();
        state.wake_reader();
        let known = state.received - self.asking.take().unwrap_or(state.received);
        drop(state);
        if is_news {
            self.reach.begun(&self.ticket);
        }
        log::info!("the session goes on over a new connection");
        self.reach.resumed();
        self.link = Some(Link::resumed(connection, known));
        self.watch = Watch::new(Instant::now());
        self.address = self.reach.local_address();
        self.away(Duration::ZERO);
        self.trust();
        Ok(())
    }
}

impl<R: Reach> Drop for Carrier<R> {
    /// Nothing moves without it.
    fn drop(&mut self) {
        let error = Error::new(Kind::Internal, "the session has lost its carrier");
        self.shared.lock().end(Phase::Failed(error));
    }
}

fn next_event<R: Reach>(reach: &Arc<R>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let reach = Arc::clone(reach);
    Box::pin(async move { reach.event().await })
}
