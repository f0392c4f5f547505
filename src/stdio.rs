//! The client's end of the connection: standard input and output, as the program that started us made them.
//!
//! They are pipes with ssh, sockets with some clients, and files or `/dev/null` now and then. Pipes and sockets are
//! polled; the rest, which the system refuses to poll, is read on a thread.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

type Reader = Box<dyn AsyncRead + Unpin + Send>;
/// Where the client reads.
pub type Writer = Box<dyn Output>;

/// An output that tells when its reader has gone.
pub trait Output: AsyncWrite + Unpin + Send {
    /// Waits until nobody can read what would be written.
    fn gone(&self) -> Gone<'_>;
}

type Gone<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// The client: what it sends, and where it reads.
pub struct Client {
    input: Reader,
    output: Writer,
    /// The output once more, to be waited at while the other is written to.
    watch: Writer,
    /// What has been read from it and not yet been sent for good.
    early: BytesMut,
    /// Its first line, once that has been sent for good.
    line: Option<String>,
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

/// Kept while there is no tunnel yet. A client's first flight is its identification and key exchange, some KiB.
pub(crate) const MAX_EARLY: usize = 256 * 1024;

impl Client {
    /// A client on these streams. `watch` tells when nobody reads `output` any more.
    pub fn new(input: Reader, output: Writer, watch: Writer) -> Client {
        Client { input, output, watch, early: BytesMut::new(), line: None }
    }

    /// The client on standard input and output.
    ///
    /// # Errors
    /// When one of them is closed.
    pub fn on_stdio() -> io::Result<Client> {
        let (input, output) = sys::open()?;
        Ok(Client::new(input, output, sys::output()?))
    }

    /// Waits until the client has left, and keeps what it says meanwhile, in order.
    pub async fn gone(&mut self) {
        loop {
            let Client { input, output, early, .. } = self;
            let full = early.len() >= MAX_EARLY;
            let read = tokio::select! {
                read = input.read_buf(early), if !full => read,
                () = output.gone() => return,
            };
            match read {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// The client's first line, its identification, when it has come within the time that `patience` gives it.
    pub async fn identification(&mut self, patience: std::time::Duration) -> Option<String> {
        let read = async {
            while self.line().is_none() && self.early.len() < 255 {
                if self.input.read_buf(&mut self.early).await.unwrap_or(0) == 0 {
                    break;
                }
            }
        };
        // An identification that comes late is one we do without.
        let _ = tokio::time::timeout(patience, read).await;
        self.line()
    }

    /// What it has said so far has been sent for good.
    pub fn passed_on(&mut self) {
        self.line = self.line();
        self.early.clear();
    }

    /// The client's first line, if it has come.
    pub fn line(&self) -> Option<String> {
        if self.line.is_some() {
            return self.line.clone();
        }
        let end = self.early.iter().take(255).position(|b| *b == b'\n')?;
        Some(String::from_utf8_lossy(&self.early[..end]).trim_end().to_owned())
    }

    /// Waits until a client that has identified itself says something more, or leaves, or has had this time.
    pub async fn first_packet(&mut self, patience: std::time::Duration) {
        let Some(identification) = self.identification(std::time::Duration::from_secs(1)).await else { return };
        let read = async {
            // A line end is one or two bytes.
            while self.early.len() <= identification.len() + 2 {
                if self.input.read_buf(&mut self.early).await.unwrap_or(0) == 0 {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(patience, read).await;
    }

    /// Reads and forgets what the client still says, until it leaves.
    pub async fn drain(&mut self) {
        while self.input.read_buf(&mut self.early).await.is_ok_and(|n| n > 0) {
            self.early.clear();
        }
    }

    /// Where it reads.
    pub fn output(&mut self) -> &mut Writer {
        &mut self.output
    }

    /// Its streams, to read from and write to at once, and its leaving.
    pub fn streams(&mut self) -> (&mut Reader, &mut Writer, Gone<'_>) {
        (&mut self.input, &mut self.output, self.watch.gone())
    }

    /// Its streams, to read from and write to at once, and what it has said so far.
    pub fn parts(&mut self) -> (&mut Reader, &mut Writer, &mut BytesMut) {
        (&mut self.input, &mut self.output, &mut self.early)
    }
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
