//! A stream whose writes never wait, so that its reader goes on meanwhile.
//!
//! russh writes with its whole connection: while the other side takes nothing, nothing is read. Two such ends that send
//! much at the same time wait for each other for ever. The queue here is bounded by SSH's windows: the other side grants
//! 2 MiB a channel, and more only as it reads.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf, split},
    sync::{mpsc, oneshot},
    time::timeout,
};

/// The time for the last bytes of a connection that was dropped.
const LAST_BYTES: Duration = Duration::from_secs(2);

/// A stream with a queue in front of its writer.
pub(super) struct Outbox<S> {
    reader: ReadHalf<S>,
    queue: Option<mpsc::UnboundedSender<Bytes>>,
    _held: oneshot::Sender<()>,
}

impl<S: AsyncRead + AsyncWrite + Send + 'static> Outbox<S> {
    /// Puts a queue in front of the writer of `stream`.
    pub(super) fn new(stream: S) -> Outbox<S> {
        let (reader, writer) = split(stream);
        let (queue, queued) = mpsc::unbounded_channel();
        let (_held, dropped) = oneshot::channel();
        tokio::spawn(async move {
            let written = write(queued, writer);
            tokio::pin!(written);
            tokio::select! {
                // A failure is the next writer's to hear.
                _ = &mut written => {}
                _ = dropped => drop(timeout(LAST_BYTES, written).await),
            }
        });
        Outbox { reader, queue: Some(queue), _held }
    }
}

/// Writes what is queued, until no more comes.
async fn write<S: AsyncWrite>(mut queued: mpsc::UnboundedReceiver<Bytes>, mut writer: WriteHalf<S>) -> io::Result<()> {
    while let Some(bytes) = queued.recv().await {
        writer.write_all(&bytes).await?;
        if queued.is_empty() {
            writer.flush().await?;
        }
    }
    writer.shutdown().await
}

impl<S: AsyncRead> AsyncRead for Outbox<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buf)
    }
}

impl<S> AsyncWrite for Outbox<S> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let queued = self.queue.as_ref().is_some_and(|queue| queue.send(Bytes::copy_from_slice(buf)).is_ok());
        Poll::Ready(if queued { Ok(buf.len()) } else { Err(io::ErrorKind::BrokenPipe.into()) })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.queue = None;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::Outbox;

    #[tokio::test]
    async fn two_that_send_before_they_read_both_arrive() {
        let (near, far) = duplex(1024);
        let both = [near, far].map(|end| async move {
            let mut end = Outbox::new(end);
            end.write_all(&[7; 1 << 20]).await.unwrap();
            end.shutdown().await.unwrap();
            let mut read = Vec::new();
            end.read_to_end(&mut read).await.unwrap();
            read.len()
        });
        let [near, far] = both;
        assert_eq!(tokio::join!(near, far), (1 << 20, 1 << 20));
    }

    #[tokio::test]
    async fn the_last_words_of_a_dropped_one_arrive() {
        let (near, mut far) = duplex(16);
        let mut near = Outbox::new(near);
        near.write_all(b"last words").await.unwrap();
        drop(near);
        let mut read = String::new();
        far.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "last words");
    }
}
