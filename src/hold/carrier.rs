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
//! Unlike the first design, the old connection is kept when a resume gets no answer. Offsets decide what is sent again,
//! so nothing can go wrong with it, and it may be the one that lives.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::{
    frames::Violation,
    greeting::{Resume, Resumed, Secret},
    held::{ANSWERED, Options, Phase, Reach, Shared, Ticket, Verdict, nonce},
    link::{Bye, Link, News, Over},
    watch::{QUIET, Watch},
};
use crate::{
    error::{Error, Kind, Result},
    labs::vitals::Vitals,
    moment::now,
    pipe::LINGER,
};

/// The time that a connection takes at most to open.
const DIALLED: Duration = Duration::from_secs(10);
/// Pauses before an attempt to dial, give or take a quarter. The last one is repeated.
const PAUSES: [Duration; 7] = [
    Duration::ZERO,
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(5),
];
/// Bytes that were read are acknowledged after this time, however few they are.
const ACK_AFTER: Duration = Duration::from_secs(1);
/// The time in which a user that shuts the stream down, and stays, gets rid of what was written.
const SHUT_DOWN: Duration = Duration::from_secs(5);

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
    /// A connection that has not been used yet.
    spare: Option<R::Connection>,
    /// The step towards another connection that is being made.
    way: Option<Way<R::Connection>>,
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
    timer: Pin<Box<Sleep>>,
    ticked: Instant,
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
            spare: None,
            way: None,
            asking: None,
            attempt: 0,
            failures: 0,
            dial_at: now,
            left: options.resume_for,
            is_away: false,
            ack_at: None,
            timer: Box::pin(sleep_until(now)),
            ticked: now,
        }
    }

    /// Carries the session to its end, from its first connection on.
    pub(super) async fn run(mut self, first: Link<R::Connection>) {
        self.link = Some(first);
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
        if news.sent {
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
        self.spare = None;
        self.way = None;
        self.back();
    }

    /// Plans the next attempt to dial.
    fn back_off(&mut self) {
        let pause = PAUSES[self.failures.min(PAUSES.len() - 1)];
        self.failures += 1;
        self.dial_at = Instant::now() + pause.mul_f64(fastrand::f64() / 2.0 + 0.75);
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
            self.vitals.note_away(now().saturating_sub(since));
        }
    }

    /// The next moment at which something has to be done though nothing happens.
    fn due(&self) -> Instant {
        let dial = (self.wants_another() && self.way.is_none() && self.spare.is_none()).then_some(self.dial_at);
        let over = self.is_away.then(|| self.ticked + self.left);
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
        [dial, over, link, ack].into_iter().flatten().min().unwrap_or(self.ticked + Duration::from_secs(5))
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
            Step::Over(Over::Broken(Violation(how))) => {
                let error = Error::new(Kind::Network, format!("the relay on the machine violates its protocol: {how}"));
                return Some(End::Failed(error.with_hint("connect again"), false));
            }
            Step::Over(Over::Impostor) => {
                let error = Error::new(Kind::Network, "another program has taken the relay's port on the machine");
                return Some(End::Failed(error.with_hint("connect again"), false));
            }
            Step::Over(Over::Lost(error)) => {
                log::info!("a connection of the session is lost: {error}");
                // One that brings nothing is as good as an attempt that fails, and is not repeated at once for ever.
                if self.link.take().is_some_and(|link| link.is_useful) || self.watch.age() > QUIET {
                    self.failures = 0;
                }
                self.back_off();
                self.away(Duration::ZERO);
            }
            Step::Way(Outcome::Dialled(connection)) => self.spare = Some(connection),
            Step::Way(Outcome::Answered(connection, Resumed::From(received))) => {
                if let Err(error) = self.resume(connection, received) {
                    return Some(End::Failed(error, false));
                }
            }
            Step::Way(Outcome::Answered(_, Resumed::Unknown)) => {
                let error = Error::new(Kind::Network, "the session has ended on the machine while that was away");
                return Some(End::Failed(error.with_hint("connect again"), true));
            }
            Step::Way(Outcome::Answered(_, Resumed::Stale)) => {
                let error = Error::new(Kind::Network, "another process has taken the session over");
                return Some(End::Failed(error.with_hint("connect again"), false));
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
                self.back_off();
            }
            Step::Event | Step::Tick => {}
        }
        self.tick()
    }

    /// Does what is due.
    fn tick(&mut self) -> Option<End> {
        let now = Instant::now();
        let passed = now - self.ticked;
        self.ticked = now;
        if self.is_away {
            self.left = self.left.saturating_sub(passed);
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
                    self.failures = 0;
                    self.back_off();
                }
                if self.watch.dead_at().is_some_and(|at| at <= now) {
                    self.away(now - self.watch.heard());
                }
            }
        }
        if self.wants_another() {
            if let Some(connection) = self.spare.take_if(|_| self.link.is_none() || self.is_away) {
                match self.ask(connection) {
                    Ok(way) => self.way = Some(way),
                    Err(error) => return Some(End::Failed(error, false)),
                }
            } else if self.spare.is_none() && self.way.is_none() && self.dial_at <= now {
                self.way = Some(self.dial());
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
        state.replay.go_back(received).map_err(|Violation(how)| {
            Error::new(Kind::Network, format!("the relay on the machine violates its protocol: {how}"))
                .with_hint("connect again")
        })?;
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
        self.away(Duration::ZERO);
        self.trust();
        Ok(())
    }

    /// Ends the session for its user and, as far as it can be reached, at the relay.
    async fn finish(mut self, end: End) {
        let told = match end {
            End::Said => {
                self.vitals.note_end();
                self.shared.lock().end(Phase::Ended);
                self.reach.over();
                self.say_bye(Bye::Now, false).await;
                false
            }
            End::Failed(error, told) => {
                log::info!("the session has ended: {error}");
                self.vitals.note_cut_off(true);
                self.vitals.note_end();
                self.shared.lock().end(Phase::Failed(error));
                self.say_bye(Bye::Now, false).await;
                told
            }
            End::Left => {
                let told = self.say_bye(Bye::Due, true).await;
                self.shared.lock().end(Phase::Ended);
                told
            }
        };
        if told {
            self.reach.over();
        }
        // Nothing waits for it any more.
        let leave = self.shared.lock().leave.take();
        drop(leave);
    }

    /// Says the last word over the connection that there is. With `waits`, what was written goes before it, and the
    /// result is true if the relay has closed the connection, as it does when it has heard it.
    async fn say_bye(&mut self, bye: Bye, waits: bool) -> bool {
        let Some(link) = &mut self.link else { return false };
        link.bye = bye;
        let began = Instant::now();
        let limit = sleep_until(began + SHUT_DOWN);
        tokio::pin!(limit);
        poll_fn(|cx| {
            let mut state = self.shared.lock();
            state.wakes(cx.waker());
            if !waits {
                let said = link.poll_farewell(cx, &mut state);
                if said.is_ready() {
                    return said.map(|()| false);
                }
            } else if link.poll(cx, &mut state, true, &mut News::default()).is_ready() {
                return Poll::Ready(link.has_said_bye());
            }
            // A user that is gone waits for nothing else.
            let until = Instant::now() + LINGER;
            if (!waits || state.leave.is_some()) && limit.deadline() > until {
                limit.as_mut().reset(until);
            }
            limit.as_mut().poll(cx).map(|()| false)
        })
        .await
    }
}

impl<R: Reach> Drop for Carrier<R> {
    /// Nothing moves without it.
    fn drop(&mut self) {
        let error = Error::new(Kind::Internal, "the session has lost its carrier");
        self.shared.lock().end(Phase::Failed(error));
    }
}

/// The end of a session.
enum End {
    /// The machine's SSH server has ended it.
    Said,
    /// Its user has left.
    Left,
    /// It cannot go on; true if the relay knows that.
    Failed(Error, bool),
}

fn next_event<R: Reach>(reach: &Arc<R>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let reach = Arc::clone(reach);
    Box::pin(async move { reach.event().await })
}

fn ended_by_relay(words: &str) -> Error {
    let words = if words.is_empty() { "it says no reason" } else { words };
    Error::new(Kind::Network, format!("the relay on the machine has ended the session: {words}"))
        .with_hint("connect again")
}

fn given_up(after: Duration) -> Error {
    let minutes = after.as_secs() / 60;
    let time = if minutes >= 2 { format!("{minutes} min") } else { format!("{} s", after.as_secs()) };
    Error::new(Kind::Network, format!("the machine could not be reached for {time}")).with_hint("connect again")
}
