//! A session that survives the connections that carry it.
//!
//! ```text
//! ssh <-stdio-> connect: pipe <-> Held <=> WebSocket <=> wsmux <-loopback-> relay <-loopback-> sshd
//!                         replay, offsets                              replay, offsets
//! ```
//!
//! A relay on the machine keeps the TCP connection to its sshd while the WebSocket is away. Both sides keep what the
//! other has not consumed yet, count its bytes, and send it again over the next connection. SSH runs through all that
//! end to end; the relay's protocol needs to protect nothing but the session's life.
//!
//! - `frames` and `greeting`: the wire format (pure). `replay`: the bytes that may have to be sent again (pure).
//! - `held`: the session as a stream; `inbox`: what waits for its reader (pure). `carrier`: the task that moves its
//!   bytes and resumes. `link`: one connection. `watch`: whether that still lives (pure).
//! - `reach`: dialling, and the platform's word on why a machine cannot be reached.
//! - `place`: finds or starts the relay, `relay.py`, by our own SSH client. `placing`: with a connection of its own, and
//!   the record of the outcome. `orphans`: the sessions of killed processes.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::labs::{http::Stream, tunnel::Tunnel, vitals::Vitals};

mod carrier;
pub mod frames;
mod greeting;
mod held;
mod inbox;
mod link;
pub mod orphans;
pub mod place;
pub mod placing;
pub mod reach;
mod replay;
#[cfg(test)]
mod states;
#[cfg(test)]
mod trials;
mod watch;

pub use held::{Held, Options, Reach, Ticket, Verdict, farewell};

/// A running relay: what a client must know to use it.
#[derive(Clone, PartialEq, Eq)]
pub struct Relay {
    /// The loopback port that begins sessions.
    pub new_port: u16,
    /// The loopback port that resumes them.
    pub resume_port: u16,
    /// The secret that the relay has made.
    pub key: [u8; 32],
}

/// The stream to a machine's SSH server: over one tunnel, or held over many.
pub enum Session {
    /// It ends with its tunnel.
    Direct(Box<Tunnel<Stream>>),
    /// It survives.
    Held(Held),
}

impl Session {
    /// True if the session survives its connections.
    pub fn is_held(&self) -> bool {
        matches!(self, Session::Held(_))
    }

    /// The figures of the session.
    pub fn vitals(&self) -> Arc<Vitals> {
        match self {
            Session::Direct(tunnel) => tunnel.vitals(),
            Session::Held(held) => held.vitals(),
        }
    }
}

macro_rules! each {
    ($session:expr, $stream:ident => $call:expr) => {
        match $session.get_mut() {
            Session::Direct($stream) => $call,
            Session::Held($stream) => $call,
        }
    };
}

impl AsyncRead for Session {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Session {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
