//! A TCP socket that counts the bytes written to it, and lets small pieces pile up when many of them come.
//!
//! A server that sends 1 KiB at a time wakes a quick client for each piece, and its `send` pays for the wake-up and for
//! an acknowledgement of every second piece. The quicker the client, the slower the server. So while a stream flows
//! like that, a client that has read everything rests for [`REST`], and the bytes of that time come in few large
//! segments. A write of the client ends the rest. Figures are in `bench/RESULTS.md`.

use std::{
    future::Future,
    io::{self, IoSlice},
    net::{SocketAddr, TcpStream as StdTcpStream},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

use crate::os;

/// Too short for a person to notice, and long enough for half a MiB to come.
const REST: Duration = Duration::from_millis(2);
/// A stream flows when this many bytes have taken no longer than [`FAST`] and came in pieces smaller than [`SMALL`] on
/// the average. No shell's or editor's traffic does.
const JUDGED: usize = 256 * 1024;
const FAST: Duration = Duration::from_millis(20);
const SMALL: usize = 16 * 1024;
/// So many times [`JUDGED`] are taken on trust, because after a rest no piece is small.
const TRUSTED: u32 = 64;

/// A TCP socket that is either registered with the reactor (`polled`) or detached from it for a moment (`resting`).
#[derive(Debug)]
pub struct Socket {
    polled: Option<TcpStream>,
    resting: Option<Rest>,
    judge: Judge,
    written: u64,
    /// True while a write waits for room, which a rest would keep from it.
    stuck: bool,
}

#[derive(Debug)]
struct Rest {
    socket: StdTcpStream,
    until: Pin<Box<Sleep>>,
    reader: Waker,
}

impl From<TcpStream> for Socket {
    fn from(tcp: TcpStream) -> Socket {
        Socket { polled: Some(tcp), resting: None, judge: Judge::default(), written: 0, stuck: false }
    }
}

impl Socket {
    /// The addresses of the peer and of this side.
    pub fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        match (&self.polled, &self.resting) {
            (Some(tcp), _) => tcp.peer_addr().ok().zip(tcp.local_addr().ok()),
            (_, Some(Rest { socket, .. })) => socket.peer_addr().ok().zip(socket.local_addr().ok()),
            (None, None) => None,
        }
    }

    /// The number of bytes that the peer has accepted: written, and acknowledged by its TCP where the system tells.
    pub fn accepted(&self) -> u64 {
        let unacknowledged = match (&self.polled, &self.resting) {
            (Some(tcp), _) => os::unacknowledged(tcp),
            (_, Some(Rest { socket, .. })) => os::unacknowledged(socket),
            (None, None) => 0,
        };
        self.written.saturating_sub(unacknowledged)
    }

    fn wrote(&mut self, written: &Poll<io::Result<usize>>) {
        self.stuck = written.is_pending();
        if let Poll::Ready(Ok(n)) = written {
            self.written += *n as u64;
        }
    }

    /// Detaches the socket from the reactor, so that no event wakes a task.
    fn rest(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(tcp) = self.polled.take() else { return Ok(()) };
        let mut until = Box::pin(sleep(REST));
        let _ = until.as_mut().poll(cx);
        self.resting = Some(Rest { socket: tcp.into_std()?, until, reader: cx.waker().clone() });
        Ok(())
    }

    fn awake(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        if let Some(rest) = self.resting.take() {
            self.polled = Some(TcpStream::from_std(rest.socket)?);
            // The reader waits for the end of the rest.
            rest.reader.wake();
        }
        self.polled.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(rest) = &mut this.resting {
            rest.reader.clone_from(cx.waker());
            ready!(rest.until.as_mut().poll(cx));
        }
        let before = buf.filled().len();
        let read = this.awake()?.poll_read(cx, buf);
        if read.is_ready() {
            this.judge.read(buf.filled().len() - before);
        } else if this.judge.wants_rest() && !this.stuck {
            this.rest(cx)?;
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.awake()?.poll_write(cx, buf);
        this.wrote(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.awake()?.poll_write_vectored(cx, bufs);
        this.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// A socket has nothing to flush.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().awake()?.poll_shutdown(cx)
    }
}

/// The judge of whether a stream flows.
#[derive(Debug, Default)]
struct Judge {
    /// The beginning of this judgement, and since then the bytes that came and the times that none were left.
    since: Option<Instant>,
    bytes: usize,
    waits: usize,
    /// True if something was read after the last wait.
    read: bool,
    /// The number of further judgements for which the stream is taken to flow.
    flows: u32,
}

impl Judge {
    fn read(&mut self, bytes: usize) {
        self.read = true;
        self.bytes += bytes;
        if self.bytes < JUDGED {
            return;
        }
        let now = Instant::now();
        let fast = self.since.replace(now).is_some_and(|since| now - since <= FAST);
        let small = self.bytes < SMALL * self.waits;
        (self.bytes, self.waits) = (0, 0);
        self.flows = match (fast, small) {
            (false, _) => 0,
            (true, true) => TRUSTED,
            (true, false) => self.flows.saturating_sub(1),
        };
    }

    /// Notes that everything has been read. Returns true if the next bytes may pile up; that was measured on Linux
    /// alone.
    fn wants_rest(&mut self) -> bool {
        let first = std::mem::take(&mut self.read);
        self.waits += usize::from(first);
        cfg!(target_os = "linux") && first && self.flows > 0
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        thread,
        time::Duration,
    };

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, split},
        net::{TcpListener, TcpStream},
        time::timeout,
    };

    use super::Socket;

    const LONG: Duration = Duration::from_secs(60);

    /// A socket, and a server that sends it small pieces until it is enough, then `the last`. It gives what it has
    /// sent, and its end.
    async fn flowing(enough: &Arc<AtomicBool>) -> (Socket, thread::JoinHandle<(usize, std::net::TcpStream)>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut server = listener.accept().await.unwrap().0.into_std().unwrap();
        server.set_nonblocking(false).unwrap();
        server.set_nodelay(true).unwrap();
        let enough = Arc::clone(enough);
        let sender = thread::spawn(move || {
            let mut sent = 0;
            while !enough.load(Ordering::Relaxed) {
                sent += server.write(&[0; 1024]).unwrap();
            }
            server.write_all(b"the last").unwrap();
            (sent + 8, server)
        });
        (Socket::from(dialled), sender)
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_last_bytes_of_a_stream_that_flows_come_too() {
        let enough = Arc::default();
        let (mut socket, sender) = flowing(&enough).await;
        let mut buffer = vec![0; 64 * 1024];
        let mut read = 0;
        while socket.judge.flows == 0 {
            read += timeout(LONG, socket.read(&mut buffer)).await.expect("it never flows").unwrap();
        }
        enough.store(true, Ordering::Relaxed);
        // Without a reader the sender would not come to its end.
        let mut sender = tokio::task::spawn_blocking(|| sender.join().unwrap());
        let (sent, _open) = loop {
            tokio::select! {
                ended = &mut sender => break ended.unwrap(),
                n = socket.read(&mut buffer) => read += n.unwrap(),
            }
        };
        while read < sent {
            read += timeout(LONG, socket.read(&mut buffer)).await.expect("they never come").unwrap();
        }
        assert!(timeout(Duration::from_millis(50), socket.read(&mut buffer)).await.is_err());
        assert!(socket.resting.is_none(), "it rests at the end of the stream");
    }

    #[tokio::test]
    async fn nobody_is_forgotten_in_a_rest() {
        const SAID: usize = 3000;
        let enough = Arc::default();
        let (socket, sender) = flowing(&enough).await;
        let (mut rx, mut tx) = split(socket);
        let talker = tokio::spawn(async move {
            for _ in 0..SAID {
                tx.write_all(&[1; 100]).await.unwrap();
                tokio::task::yield_now().await;
            }
            tx
        });
        let reader = tokio::spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            let mut read = 0;
            loop {
                match rx.read(&mut buffer).await.unwrap() {
                    0 => return read,
                    n => read += n,
                }
            }
        });
        let _tx = timeout(LONG, talker).await.expect("who writes is forgotten").unwrap();
        enough.store(true, Ordering::Relaxed);
        let (sent, heard) = tokio::task::spawn_blocking(|| {
            let (sent, mut server) = sender.join().unwrap();
            let mut heard = vec![0; SAID * 100];
            server.read_exact(&mut heard).unwrap();
            (sent, heard)
        })
        .await
        .unwrap();
        assert!(heard.iter().all(|&byte| byte == 1));
        assert_eq!(timeout(LONG, reader).await.expect("who reads is forgotten").unwrap(), sent);
    }
}
