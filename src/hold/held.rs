//! The session as a stream.

use std::{
    future::Future,
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Relay;
use crate::{
    error::{Error, Result},
    labs::vitals::Vitals,
};

/// The way to the relay's ports, which a session uses again and again.
pub trait Reach: Send + Sync + 'static {
    /// One connection to the machine.
    type Connection: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Opens a connection to a loopback port of the machine.
    fn dial(&self, port: u16) -> impl Future<Output = Result<Self::Connection>> + Send;

    /// Says what an attempt that failed means. The platform is asked where the tunnel's host has refused it, or
    /// (`None`) where the relay's port does not answer on a machine that can be reached.
    fn verdict(&self, failed: Option<&Error>) -> impl Future<Output = Verdict> + Send;

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

/// What ends a session that its proxy could not end.
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
pub struct Held {
    vitals: Arc<Vitals>,
}

impl Held {
    /// Begins a session on a connection to the relay's port for new sessions, once the relay has answered.
    ///
    /// # Errors
    /// Fails when no relay answers in time. No byte of a client has been sent then.
    pub async fn begin<R: Reach>(
        _connection: R::Connection,
        _relay: &Relay,
        _reach: R,
        _options: Options,
    ) -> Result<Held> {
        Err(Error::new(crate::error::Kind::NotYet, "no relay answers"))
    }

    /// The figures of the session.
    pub fn vitals(&self) -> Arc<Vitals> {
        Arc::clone(&self.vitals)
    }
}

impl AsyncRead for Held {
    fn poll_read(self: Pin<&mut Self>, _cx: &mut Context<'_>, _buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Held {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, _buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
