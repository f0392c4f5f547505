//! The stream to the SSH server in a container: a channel of the SSH connection to its machine, behind the helper's
//! answer. Its end of file comes when the server has ended.

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use helper::wire::Container;
use russh::{Channel, ChannelMsg, ChannelReadHalf, client::Msg};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::last_line;
use crate::ssh::client::SshClient;

/// Number of bytes kept of the complaints of the server and its runtime.
const MAX_WORDS: usize = 4 * 1024;

/// The end of a channel that no one has announced.
const CUT_OFF: &str = "the connection to the machine has ended";

/// The stream to the SSH server in a container. Dropping it closes the connection to the machine, unless
/// [`Inside::outside`] is held, and so ends the server.
pub struct Inside {
    reader: Reader,
    writer: Writer,
    container: Container,
    outside: Outside,
}

/// The machine that a stream leads through, which may be asked about the container while the stream lasts and after.
#[derive(Clone)]
pub struct Outside {
    client: Arc<SshClient>,
    complaint: Arc<Mutex<Vec<u8>>>,
}

impl Outside {
    /// The SSH connection to the machine.
    pub fn client(&self) -> &SshClient {
        &self.client
    }

    /// The last line of standard error: the reason why the server or its runtime ended, where one was said.
    pub fn complaint(&self) -> String {
        last_line(&self.complaint.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Inside {
    pub(super) fn new(reader: Reader, writer: Writer, client: SshClient, container: Container) -> Inside {
        let outside = Outside { client: Arc::new(client), complaint: Arc::clone(&reader.complaint) };
        Inside { reader, writer, container, outside }
    }

    /// The container, as its engine described it.
    pub fn container(&self) -> &Container {
        &self.container
    }

    /// The machine behind the stream.
    pub fn outside(&self) -> Outside {
        self.outside.clone()
    }
}

/// The readable half of a channel. Complaints are kept apart from data.
pub(super) struct Reader {
    half: ChannelReadHalf,
    rest: Bytes,
    complaint: Arc<Mutex<Vec<u8>>>,
    /// The exit status, once it has come.
    status: Option<u32>,
    /// The other side has said that no more data come.
    is_over: bool,
    is_refused: bool,
}

/// The writable half.
pub(super) type Writer = Pin<Box<dyn AsyncWrite + Send>>;

/// Splits a channel whose request has been sent.
pub(super) fn split(channel: Channel<Msg>) -> (Reader, Writer) {
    let (half, writer) = channel.split();
    let (rest, complaint) = (Bytes::new(), Arc::default());
    let reader = Reader { half, rest, complaint, status: None, is_over: false, is_refused: false };
    (reader, Box::pin(writer.make_writer()))
}

impl Reader {
    /// True if the server has refused the channel's request.
    pub(super) fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// The last line of the complaints.
    pub(super) fn complaint(&self) -> String {
        last_line(&self.complaint.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&mut self, message: ChannelMsg) {
        match message {
            ChannelMsg::Data { data } => self.rest = data,
            ChannelMsg::ExtendedData { data, .. } => {
                let mut kept = self.complaint.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(&data);
                let surplus = kept.len().saturating_sub(MAX_WORDS);
                kept.drain(..surplus);
            }
            ChannelMsg::ExitStatus { exit_status } => self.status = Some(exit_status),
            ChannelMsg::Failure => (self.is_refused, self.is_over) = (true, true),
            ChannelMsg::Eof | ChannelMsg::Close => self.is_over = true,
            _ => {}
        }
    }

    /// Waits for the end of the channel, and returns the exit status.
    pub(super) async fn end(&mut self) -> Option<u32> {
        while let Some(message) = self.half.wait().await {
            self.take(message);
        }
        self.status
    }
}

impl AsyncRead for Reader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            if self.is_over {
                return Poll::Ready(Ok(()));
            }
            // The queue keeps the waker when this future is dropped, and loses no message.
            let next = ready!(pin!(self.half.wait()).poll(cx));
            match next {
                Some(message) => self.take(message),
                None => return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, CUT_OFF))),
            }
        }
        let length = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..length]);
        self.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Inside {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buf)
    }
}

impl AsyncWrite for Inside {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.writer.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.as_mut().poll_shutdown(cx)
    }
}
