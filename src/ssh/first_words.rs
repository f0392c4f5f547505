//! The first words of a machine's SSH server. A server that refuses a connection may say why in a line of text, in place
//! of its identification, and close.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    time::timeout,
};

use crate::error::{Error, Kind, Result, printable};

/// Time for the first words. A server that waits for the client's gets them then.
const PATIENCE: Duration = Duration::from_secs(2);
/// Number of bytes to look at.
const MAX: usize = 8 * 1024;

/// A stream whose first bytes were read ahead.
pub(crate) struct Heard<S> {
    early: BytesMut,
    stream: S,
}

/// Waits for the first bytes on `stream`, whatever they are.
///
/// # Errors
/// Fails when the stream ends before.
pub(crate) async fn first_word<S: AsyncRead + Unpin>(mut stream: S) -> io::Result<Heard<S>> {
    let mut early = BytesMut::with_capacity(MAX);
    match stream.read_buf(&mut early).await? {
        1.. => Ok(Heard { early, stream }),
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the tunnel was closed immediately")),
    }
}

/// Listens for the first words on `stream`.
///
/// # Errors
/// [`Kind::NotYet`] when the server of `machine` refuses all connections for a moment, and [`Kind::Network`] when it
/// says something else and closes.
pub(crate) async fn hear<S: AsyncRead + Unpin>(mut stream: S, machine: &str) -> Result<Heard<S>> {
    let mut early = BytesMut::with_capacity(MAX);
    let listen = async {
        while early.len() < MAX && !is_identified(&early) {
            match stream.read_buf(&mut early).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return true,
            }
        }
        false
    };
    let has_ended = timeout(PATIENCE, listen).await.unwrap_or(false);
    let line = early[..].split(|b| *b == b'\n').next().unwrap_or_default();
    let line = printable(&String::from_utf8_lossy(line));
    if !has_ended || line.is_empty() || is_identified(&early) {
        return Ok(Heard { early, stream });
    }
    let message = format!("the SSH server of machine {machine} refuses the connection: {line}");
    Err(match &line[..] {
        // sshd_config(5), PerSourcePenalties: all that comes by a tunnel has the same source.
        "Not allowed at this time" => Error::new(Kind::NotYet, message).with_hint(
            "it holds off all connections through the tunnel for some seconds, because several have ended without a \
             login; wait a minute",
        ),
        "Exceeded MaxStartups" => Error::new(Kind::NotYet, message)
            .with_hint("too many connections are logging in to it at the same time; try again in a moment"),
        _ => Error::new(Kind::Network, message).with_hint("check that an SSH server listens on the machine's port 22"),
    })
}

/// Reports whether one of the lines begins an identification. Lines of text may come before it.
fn is_identified(text: &[u8]) -> bool {
    text.split(|b| *b == b'\n').any(|line| line.starts_with(b"SSH-"))
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let n = self.early.len().min(buf.remaining());
        buf.put_slice(&self.early[..n]);
        self.early.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
