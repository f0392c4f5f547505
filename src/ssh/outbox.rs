//! A stream whose writes do not wait, so that its reader goes on meanwhile.
//!
//! russh writes with its whole connection: while the other side takes nothing, nothing is read. Two such ends that send
//! much at the same time wait for each other for ever. The queue here is bounded, because the other side need not read at
//! all: one that is full holds the connection up, as without it.

use std::{
    io,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{
        AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf, duplex, split,
    },
    sync::oneshot,
    time::timeout,
};

/// The bytes from which on a write waits: more than the windows of many channels, which are 2 MiB each.
const MOST: usize = 64 * 1024 * 1024;
/// The size of one write.
const BLOCK: usize = 64 * 1024;
/// The time in which a connection that was dropped has to take some of its last bytes.
const LAST_BYTES: Duration = Duration::from_secs(2);

/// A stream with a queue in front of its writer.
pub(super) struct Outbox<S> {
    reader: ReadHalf<S>,
    queue: DuplexStream,
    _held: oneshot::Sender<()>,
}

impl<S: AsyncRead + AsyncWrite + Send + 'static> Outbox<S> {
    /// Puts a queue in front of the writer of `stream`.
    pub(super) fn new(stream: S) -> Outbox<S> {
        let (reader, writer) = split(stream);
        let (queue, queued) = duplex(MOST);
        let (_held, dropped) = oneshot::channel();
        tokio::spawn(async move {
            let count = AtomicUsize::new(0);
            let written = write(queued, writer, &count);
            tokio::pin!(written);
            tokio::select! {
                // A failure is the next writer's to hear.
                _ = &mut written => return,
                _ = dropped => {}
            }
            loop {
                let before = count.load(Ordering::Relaxed);
                // A line that is slow is not one that has ended.
                if timeout(LAST_BYTES, &mut written).await.is_ok() || count.load(Ordering::Relaxed) == before {
                    return;
                }
            }
        });
        Outbox { reader, queue, _held }
    }
}

/// Writes what is queued, until no more comes. Counts what was taken.
async fn write<S: AsyncWrite>(
    mut queued: DuplexStream,
    mut writer: WriteHalf<S>,
    count: &AtomicUsize,
) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        let read = queued.read(&mut block).await?;
        if read == 0 {
            return writer.shutdown().await;
        }
        let mut rest = &block[..read];
        while !rest.is_empty() {
            let written = writer.write(rest).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            rest = &rest[written..];
            count.fetch_add(written, Ordering::Relaxed);
        }
        writer.flush().await?;
    }
}

impl<S: AsyncRead> AsyncRead for Outbox<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buf)
    }
}

impl<S> AsyncWrite for Outbox<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.queue).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.queue).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::{sleep, timeout},
    };

    use super::{LAST_BYTES, MOST, Outbox};

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
        let (near, mut far) = duplex(4);
        let mut near = Outbox::new(near);
        near.write_all(b"last words").await.unwrap();
        drop(near);
        let mut read = String::new();
        far.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "last words");
    }

    /// One byte at a time, with a pause that is shorter than the limit, takes many times as long as that.
    #[tokio::test(start_paused = true)]
    async fn a_slow_line_gets_all_of_it() {
        let (near, mut far) = duplex(1);
        let mut near = Outbox::new(near);
        near.write_all(b"last words").await.unwrap();
        drop(near);
        let mut read = Vec::new();
        while let Ok(byte) = far.read_u8().await {
            read.push(byte);
            sleep(LAST_BYTES - Duration::from_millis(500)).await;
        }
        assert_eq!(read, b"last words");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_takes_nothing_is_no_reason_to_keep_all() {
        let (near, far) = duplex(16);
        let mut near = Outbox::new(near);
        let wrote = timeout(Duration::from_secs(60), near.write_all(&vec![7; 2 * MOST])).await;
        assert!(wrote.is_err(), "the queue has no bound");
        drop(near);
        sleep(3 * LAST_BYTES).await;
        drop(far);
    }
}
