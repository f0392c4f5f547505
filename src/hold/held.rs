//! The session as a stream.
//!
//! [`Held`] and the [carrier](super::carrier) share one [`State`]: the stream puts bytes into it and takes them out,
//! and the carrier moves them. So a reader that is slow, or a connection that is away, never keeps the other side from
//! being answered.

use std::{
    future::Future,
    io,
    net::IpAddr,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    sync::Notify,
    time::timeout,
};

use super::{
    Relay,
    carrier::Carrier,
    frames::Violation,
    greeting::{Begun, Hello, R_HELLO, Resume, Resumed},
    inbox::Inbox,
    link::Link,
    replay::Replay,
};
use crate::{
    error::{Error, Kind, Result},
    labs::vitals::Vitals,
    pipe::LINGER,
};

/// The time in which a relay speaks on its port for new sessions: it does so before it is asked.
const GREETED: Duration = Duration::from_secs(1);
/// The time in which a relay answers a wish to resume.
pub(super) const ANSWERED: Duration = Duration::from_secs(5);
/// Bytes that the relay may send before they are read here: two channel windows of OpenSSH.
pub(super) const WINDOW: u32 = 4 * 1024 * 1024;
/// Bytes that were read before the relay is told, so that it can send more.
const ACK_EVERY: u64 = 128 * 1024;

/// The way to the relay's ports, which a session uses again and again.
pub trait Reach: Send + Sync + 'static {
    /// One connection to the machine.
    type Connection: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Opens a connection to a loopback port of the machine.
    fn dial(&self, port: u16) -> impl Future<Output = Result<Self::Connection>> + Send;

    /// Says what an attempt that failed means. The platform is asked where the tunnel's host has refused it, or
    /// (`None`) where the relay's port does not answer on a machine that can be reached.
    fn verdict(&self, failed: Option<&Error>) -> impl Future<Output = Verdict> + Send;

    /// Notes that the session goes on over a new connection.
    fn resumed(&self) {}

    /// The number of bytes of this connection that the other side's system has accepted: a sign of life.
    fn accepted(connection: &Self::Connection) -> u64;

    /// The local address towards the tunnel's host, as the routes are now; `None` without a route.
    fn local_address(&self) -> Option<IpAddr>;

    /// Waits until the system reports that routes have changed or the computer has woken up.
    fn event(&self) -> impl Future<Output = ()> + Send;

    /// Notes that the relay has proven to be the one and holds a session, which this ticket ends. Called once, when
    /// WELCOME has come.
    fn begun(&self, _ticket: &Ticket) {}

    /// Notes that nothing of the session is left at the relay: BYE was written, or END has come, or the relay knows no
    /// such session. Not called for a session that could not be said farewell to: its ticket stays.
    fn over(&self) {}
}

/// The means to end a session that its process could not end.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The session's id.
    pub id: [u8; 16],
    /// The session's key.
    pub key: [u8; 32],
    /// The relay's port for resuming.
    pub resume_port: u16,
}

/// The meaning of a failed attempt to reach the relay.
#[derive(Debug)]
pub enum Verdict {
    /// Another attempt may succeed.
    Again,
    /// The session is over, for this reason.
    Over(Error),
}

/// The options of a session.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The time awake for which a session is tried to be resumed.
    pub resume_for: Duration,
}

/// A session that survives its connections, as a stream. Its end of file comes when the machine's SSH server has ended
/// the stream; an error comes only when the session cannot be resumed, and holds an [`Error`].
///
/// Shutting it down ends the session in both directions. So does dropping it; [`farewell`] waits for the relay to hear
/// of it.
pub struct Held {
    shared: Arc<Shared>,
    vitals: Arc<Vitals>,
    ticket: Ticket,
}

impl Held {
    /// Begins a session on a connection to the relay's port for new sessions, once the relay has answered.
    ///
    /// # Errors
    /// Fails when no relay answers in time. No byte of a client has been sent then.
    pub async fn begin<R: Reach>(
        mut connection: R::Connection,
        relay: &Relay,
        reach: R,
        options: Options,
    ) -> Result<Held> {
        let mut words = [0; R_HELLO];
        let read = timeout(GREETED, connection.read_exact(&mut words)).await;
        let no_relay = |why: &dyn std::fmt::Display| Error::new(Kind::NotYet, format!("no relay answers: {why}"));
        let _ = read.map_err(|_| no_relay(&"nothing has come in time"))?.map_err(|e| no_relay(&e))?;
        let hello = Hello::parse(&words).map_err(|Violation(why)| no_relay(&why))?;
        let begun = Begun::with(&relay.key, relay.new_port, &hello, nonce()?, WINDOW, cfg!(windows));
        let ticket = Ticket { id: hello.id, key: begun.secret, resume_port: relay.resume_port };
        let vitals = Arc::new(Vitals::new());
        let shared = Arc::new(Shared(Mutex::new(State::new(Replay::new(hello.window, hello.max_data)))));
        let carrier = Carrier::new(reach, Arc::clone(&shared), Arc::clone(&vitals), ticket.clone(), relay.key, options);
        let mut open = open();
        open.retain(|session| session.strong_count() > 0);
        open.push(Arc::downgrade(&shared));
        drop(open);
        tokio::spawn(carrier.run(Link::begun(connection, begun)));
        Ok(Held { shared, vitals, ticket })
    }

    /// The figures of the session.
    pub fn vitals(&self) -> Arc<Vitals> {
        Arc::clone(&self.vitals)
    }

    /// The means to end the session that remain when this process is killed.
    pub fn ticket(&self) -> Ticket {
        self.ticket.clone()
    }
}

/// Ends a session that a process which is no more has left, over a connection to the relay's port for sessions that
/// exist. A session that the relay does not know has ended.
///
/// # Errors
/// Fails when no relay answers in time.
pub(super) async fn end(mut connection: impl AsyncRead + AsyncWrite + Unpin, ticket: &Ticket) -> Result<()> {
    let wish =
        Resume { port: ticket.resume_port, id: ticket.id, attempt: u32::MAX, received: 0, nonce: nonce()?, ends: true };
    match timeout(ANSWERED, wish.ask(&mut connection, &ticket.key, None)).await {
        Ok(Ok(Resumed::From(_) | Resumed::Unknown)) => Ok(()),
        Ok(Ok(Resumed::Stale)) => Err(Error::new(Kind::NotYet, "the relay has not ended the session")),
        Ok(Err(e)) => Err(Error::new(Kind::NotYet, format!("no relay answers: {e}"))),
        Err(_) => Err(Error::new(Kind::NotYet, "no relay answers: nothing has come in time")),
    }
}

/// Leaves every session, and waits until the relays know of it, but hardly longer than a client takes to leave. The
/// process may end then.
pub async fn farewell() {
    // Those that belong to a task are not dropped before the process ends.
    let sessions: Vec<_> = open().drain(..).filter_map(|session| session.upgrade()).collect();
    sessions.iter().for_each(|session| session.leave());
    drop(sessions);
    let all_told = async {
        loop {
            let mut told = pin!(TOLD.notified());
            // From now on no word is missed.
            told.as_mut().enable();
            if LEAVING.load(Ordering::SeqCst) == 0 {
                return;
            }
            told.await;
        }
    };
    let _ = timeout(LINGER, all_told).await;
}

/// The sessions of this process.
static OPEN: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

fn open() -> MutexGuard<'static, Vec<Weak<Shared>>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number of sessions that were dropped and are not told yet.
static LEAVING: AtomicUsize = AtomicUsize::new(0);
/// Wakes [`farewell`] when that has fallen.
static TOLD: Notify = Notify::const_new();

/// A session that was dropped, until its carrier has ended.
pub(super) struct Leave(());

impl Leave {
    fn begin() -> Leave {
        LEAVING.fetch_add(1, Ordering::SeqCst);
        Leave(())
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        LEAVING.fetch_sub(1, Ordering::SeqCst);
        TOLD.notify_waiters();
    }
}

/// A number that was never used before.
pub(super) fn nonce() -> Result<[u8; 16]> {
    ring::rand::generate(&ring::rand::SystemRandom::new())
        .map(ring::rand::Random::expose)
        .map_err(|_| Error::new(Kind::Internal, "the system gives no random numbers"))
}

/// The state that the stream and its carrier share.
pub(super) struct Shared(Mutex<State>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the session, unless that was done or the session has ended.
    fn leave(&self) {
        let mut state = self.lock();
        if state.leave.is_none() && matches!(state.phase, Phase::Open) {
            state.leave = Some(Leave::begin());
        }
        state.is_leaving = true;
        state.wake_carrier();
    }
}

/// The condition of a session, for its users.
pub(super) enum Phase {
    Open,
    /// The machine's SSH server has ended the stream, or we have left.
    Ended,
    /// It cannot be resumed.
    Failed(Error),
}

pub(super) struct State {
    pub(super) replay: Replay,
    pub(super) inbox: Inbox,
    pub(super) phase: Phase,
    /// Bytes that came in the whole session.
    pub(super) received: u64,
    /// Bytes of them that were read.
    pub(super) consumed: u64,
    /// Bytes of them that the relay was told of.
    pub(super) acked: u64,
    /// The relay waits for an ACK, however small.
    pub(super) ack_is_late: bool,
    /// The user has shut the stream down, or dropped it.
    pub(super) is_leaving: bool,
    pub(super) leave: Option<Leave>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    closer: Option<Waker>,
    carrier: Option<Waker>,
}

impl State {
    fn new(replay: Replay) -> State {
        State {
            replay,
            inbox: Inbox::default(),
            phase: Phase::Open,
            received: 0,
            consumed: 0,
            acked: 0,
            ack_is_late: false,
            is_leaving: false,
            leave: None,
            reader: None,
            writer: None,
            closer: None,
            carrier: None,
        }
    }

    /// Has the carrier woken when the stream has something for it.
    pub(super) fn wakes(&mut self, carrier: &Waker) {
        note(&mut self.carrier, carrier);
    }

    fn wake_carrier(&self) {
        if let Some(carrier) = &self.carrier {
            carrier.wake_by_ref();
        }
    }

    pub(super) fn wake_reader(&mut self) {
        wake(&mut self.reader);
    }

    pub(super) fn wake_writer(&mut self) {
        wake(&mut self.writer);
    }

    /// True if the relay is to be told how much was read.
    pub(super) fn owes_an_ack(&self) -> bool {
        self.consumed - self.acked >= ACK_EVERY || (self.ack_is_late && self.consumed > self.acked)
    }

    /// Ends the stream for its user. The first reason counts.
    pub(super) fn end(&mut self, phase: Phase) {
        if matches!(self.phase, Phase::Open) {
            self.phase = phase;
        }
        self.wake_reader();
        self.wake_writer();
        wake(&mut self.closer);
    }

    fn failure(&self) -> Option<io::Error> {
        match &self.phase {
            Phase::Failed(error) => Some(io::Error::other(error.clone())),
            Phase::Open | Phase::Ended => None,
        }
    }
}

fn note(place: &mut Option<Waker>, waker: &Waker) {
    if !place.as_ref().is_some_and(|known| known.will_wake(waker)) {
        *place = Some(waker.clone());
    }
}

fn wake(place: &mut Option<Waker>) {
    if let Some(waker) = place.take() {
        waker.wake();
    }
}

impl AsyncRead for Held {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        let n = state.inbox.read(buf);
        if n > 0 || buf.remaining() == 0 {
            state.consumed += n as u64;
            if state.owes_an_ack() {
                state.wake_carrier();
            }
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = state.failure() {
            return Poll::Ready(Err(error));
        }
        if matches!(state.phase, Phase::Ended) {
            return Poll::Ready(Ok(()));
        }
        note(&mut state.reader, cx.waker());
        Poll::Pending
    }
}

impl AsyncWrite for Held {
    /// Takes as much as there is room for in the relay's window.
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.shared.lock();
        if let Some(error) = state.failure() {
            return Poll::Ready(Err(error));
        }
        if state.is_leaving || matches!(state.phase, Phase::Ended) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let n = state.replay.write(buf);
        if n == 0 && !buf.is_empty() {
            note(&mut state.writer, cx.waker());
            return Poll::Pending;
        }
        state.wake_carrier();
        drop(state);
        self.vitals.note_sent(n);
        Poll::Ready(Ok(n))
    }

    /// Has nothing to do: the carrier sends at once.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends the session, after everything that was written.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        if !matches!(state.phase, Phase::Open) {
            return Poll::Ready(Ok(()));
        }
        if !std::mem::replace(&mut state.is_leaving, true) {
            state.wake_carrier();
        }
        note(&mut state.closer, cx.waker());
        Poll::Pending
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.leave();
    }
}
