//! The client's end of the connection: standard input and output, as the program that started us made them.
//!
//! They are pipes with ssh, sockets with some clients, and files or `/dev/null` now and then. Pipes and sockets are
//! polled; the rest, which the system refuses to poll, is read on a thread.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite};

/// Where the client writes.
pub type Reader = Box<dyn AsyncRead + Unpin + Send>;
/// Where the client reads.
pub type Writer = Box<dyn Output>;

/// An output that tells when its reader has gone.
pub trait Output: AsyncWrite + Unpin + Send {
    /// Waits until nobody can read what would be written.
    fn gone(&self) -> Gone<'_>;
}

/// The wait for an output whose reader has gone.
pub type Gone<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Standard input and output.
///
/// # Errors
/// When one of them is closed.
pub fn open() -> io::Result<(Reader, Writer)> {
    sys::open()
}

/// Standard output alone.
///
/// # Errors
/// When it is closed.
pub fn output() -> io::Result<Writer> {
    sys::output()
}

/// Waits until nobody reads standard output any more, for a program that seldom writes there. Never ends where that cannot
/// be told: of a file, and on Windows.
pub async fn unread() {
    sys::unread().await;
}

/// An output that never tells: a file, a thread's pipe, a test's buffer.
pub struct Plain<W>(pub W);

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
        // Any stream socket will do: nothing here asks for its address.
        let socket = StdUnixStream::from(fd);
        socket.set_nonblocking(true)?;
        UnixStream::from_std(socket)
    }

    pub fn open() -> io::Result<(Reader, Writer)> {
        // Copies, so that closing ours leaves the numbers 0 and 1 open: a file opened later must not become stdout.
        let input = rustix::stdio::stdin().try_clone_to_owned()?;
        let reader: Reader = match kind(&input)? {
            Kind::Pipe => Box::new(Receiver::from_owned_fd(input)?),
            Kind::Socket => Box::new(socket(input)?),
            Kind::Other => Box::new(tokio::io::stdin()),
        };
        Ok((reader, output()?))
    }

    pub fn output() -> io::Result<Writer> {
        let output = rustix::stdio::stdout().try_clone_to_owned()?;
        Ok(match kind(&output)? {
            Kind::Pipe => Box::new(Sender::from_owned_fd(output)?),
            Kind::Socket => Box::new(socket(output)?),
            Kind::Other => Box::new(Plain(tokio::io::stdout())),
        })
    }

    /// On a thread, since others write to it and want no error when it is full, as one that is polled would give.
    pub async fn unread() {
        let (told, ended) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let output = rustix::stdio::stdout();
            // That it is in error or hung up is said unasked.
            let mut watched = [PollFd::new(&output, PollFlags::empty())];
            while poll(&mut watched, None) == Err(rustix::io::Errno::INTR) {}
            let _ = told.send(());
        });
        let _ = ended.await;
    }

    impl Output for Sender {
        fn gone(&self) -> Gone<'_> {
            // A pipe without a reader is in error, and says so to whoever waits.
            Box::pin(async { drop(self.ready(Interest::ERROR).await) })
        }
    }

    impl Output for UnixStream {
        fn gone(&self) -> Gone<'_> {
            Box::pin(async {
                // With data in it the socket is our input too, and its end is seen there.
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

    pub fn open() -> io::Result<(Reader, Writer)> {
        Ok((Box::new(tokio::io::stdin()), output()?))
    }

    pub fn output() -> io::Result<Writer> {
        Ok(Box::new(Plain(tokio::io::stdout())))
    }

    pub async fn unread() {
        std::future::pending().await
    }
}
