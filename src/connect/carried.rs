//! The stream that carries a connection: to its machine, or through that into a container.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::container::{Behind, Entered};
use crate::{hold::Session, labs::vitals::Vitals};

/// A stream whose first exchange has passed.
pub(super) enum Carried {
    Machine(Session),
    Container(Box<Entered>),
}

impl Carried {
    /// The figures of the session with the machine.
    pub(super) fn vitals(&self) -> Arc<Vitals> {
        match self {
            Carried::Machine(session) => session.vitals(),
            Carried::Container(entered) => entered.vitals(),
        }
    }

    /// True if that session survives its connections.
    pub(super) fn is_held(&self) -> bool {
        match self {
            Carried::Machine(session) => session.is_held(),
            Carried::Container(entered) => entered.is_held(),
        }
    }

    /// The machine behind a container.
    pub(super) fn behind(&self) -> Option<Behind> {
        match self {
            Carried::Machine(_) => None,
            Carried::Container(entered) => Some(entered.behind()),
        }
    }
}

macro_rules! each {
    ($carried:expr, $stream:ident => $call:expr) => {
        match $carried.get_mut() {
            Carried::Machine(session) => {
                let $stream = Pin::new(session);
                $call
            }
            Carried::Container(entered) => {
                let $stream = entered.stream();
                $call
            }
        }
    };
}

impl AsyncRead for Carried {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Carried {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => stream.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_shutdown(cx))
    }
}
