//! Our standard input and output, as the program that started us created them.
//!
//! ssh uses pipes, some clients use sockets, and now and then it is a file or `/dev/null`. Pipes and sockets are
//! polled. The system refuses to poll the others, so they are read on a thread.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::error::{Error, Kind, Result};

/// Our input from the client.
pub(crate) type Reader = Box<dyn AsyncRead + Unpin + Send>;
/// Our output to the client.
pub(crate) type Writer = Box<dyn Output>;

/// An output that reports when its reader is gone.
pub trait Output: AsyncWrite + Unpin + Send {
    /// Waits until no process can read the output any more.
    fn gone(&self) -> Gone<'_>;
}

/// The future returned by [`Output::gone`].
pub(crate) type Gone<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Opens standard input and output.
///
/// # Errors
/// Fails when one of them is closed.
pub(crate) fn open() -> io::Result<(Reader, Writer)> {
    sys::open()
}

/// Opens standard output alone.
///
/// # Errors
/// Fails when it is closed.
pub(crate) fn output() -> io::Result<Writer> {
    sys::output()
}

/// Writes text for a reader that may leave. Returns false if it has.
///
/// # Errors
/// [`Kind::File`] when it cannot be written.
pub(crate) async fn pass_on(output: &mut Writer, text: &str) -> Result<bool> {
    let written = async {
        output.write_all(text.as_bytes()).await?;
        output.flush().await
    };
    match written.await {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(Error::new(Kind::File, format!("cannot write to standard output: {e}"))),
    }
}

/// Waits until standard output has no reader any more, for a program that rarely writes there. Never ends for a file
/// and on Windows, where this cannot be detected.
pub(crate) async fn unread() {
    sys::unread().await;
}

/// An output that cannot report the loss of its reader: a file, a thread's pipe, a test's buffer.
pub(crate) struct Plain<W>(pub W);

impl<W: AsyncWrite + Unpin + Send + Sync> Output for Plain<W> {
    fn gone(&self) -> Gone<'_> {
        Box::pin(std::future::pending())
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Plain<W> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

#[cfg(unix)]
mod sys {
    use std::{
        future::pending,
        io,
        os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    };

    use rustix::{
        event::{PollFd, PollFlags, poll},
        fs::{FileType, fstat},
        net::sockopt,
    };
    use tokio::{
        io::Interest,
        net::{
            UnixStream,
            unix::pipe::{Receiver, Sender},
        },
    };

    use super::{Gone, Output, Plain, Reader, Writer};

    enum Kind {
        Pipe,
        Socket,
        Other,
    }

    fn kind(fd: &OwnedFd) -> io::Result<Kind> {
        Ok(match FileType::from_raw_mode(fstat(fd)?.st_mode) {
            FileType::Fifo => Kind::Pipe,
            FileType::Socket if sockopt::socket_type(fd)? == rustix::net::SocketType::STREAM => Kind::Socket,
            _ => Kind::Other,
        })
    }

    fn socket(fd: OwnedFd) -> io::Result<UnixStream> {
        // Any stream socket works as a Unix stream, because its address is never used.
        let socket = StdUnixStream::from(fd);
        socket.set_nonblocking(true)?;
        UnixStream::from_std(socket)
    }

    pub(super) fn open() -> io::Result<(Reader, Writer)> {
        // Copies, so that closing ours keeps the numbers 0 and 1 open. Otherwise, a file opened later could become
        // stdout.
        let input = rustix::stdio::stdin().try_clone_to_owned()?;
        let reader: Reader = match kind(&input)? {
            Kind::Pipe => Box::new(Receiver::from_owned_fd(input)?),
            Kind::Socket => Box::new(socket(input)?),
            Kind::Other => Box::new(tokio::io::stdin()),
        };
        Ok((reader, output()?))
    }

    pub(super) fn output() -> io::Result<Writer> {
        let output = rustix::stdio::stdout().try_clone_to_owned()?;
        Ok(match kind(&output)? {
            Kind::Pipe => Box::new(Sender::from_owned_fd(output)?),
            Kind::Socket => Box::new(socket(output)?),
            Kind::Other => Box::new(Plain(tokio::io::stdout())),
        })
    }

    /// Waits on a thread. tokio would make the descriptor non-blocking, and other writers to it would get errors when
    /// it is full.
    pub(super) async fn unread() {
        let (told, ended) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let output = rustix::stdio::stdout();
            // No event is requested, because errors and hang-ups are always reported.
            let mut watched = [PollFd::new(&output, PollFlags::empty())];
            while poll(&mut watched, None) == Err(rustix::io::Errno::INTR) {}
            let _ = told.send(());
        });
        let _ = ended.await;
    }

    impl Output for Sender {
        fn gone(&self) -> Gone<'_> {
            // A pipe without a reader reports an error.
            Box::pin(async { drop(self.ready(Interest::ERROR).await) })
        }
    }

    impl Output for UnixStream {
        fn gone(&self) -> Gone<'_> {
            Box::pin(async {
                // A socket with unread data is our input as well, and its end is noticed there.
                if !self.ready(Interest::READABLE).await.is_ok_and(|ready| ready.is_read_closed()) {
                    pending().await
                }
            })
        }
    }
}

#[cfg(not(unix))]
mod sys {
    use std::io;

    use super::{Plain, Reader, Writer};

    pub(super) fn open() -> io::Result<(Reader, Writer)> {
        Ok((Box::new(tokio::io::stdin()), output()?))
    }

    pub(super) fn output() -> io::Result<Writer> {
        Ok(Box::new(Plain(tokio::io::stdout())))
    }

    pub(super) async fn unread() {
        std::future::pending().await
    }
}
