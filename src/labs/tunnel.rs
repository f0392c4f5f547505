//! A WebSocket that behaves as a socket: one of them is one TCP connection to a machine.
//!
//! Data travels as binary messages of any size. There is no half-close: shutting the writer down closes the whole. A
//! Close message, and an end of the TCP stream without one, are both end of file, because servers do either.
//!
//! The framing is tokio-websockets', chosen by measurement (CPU seconds per GiB, in memory, figures in
//! `bench/RESULTS.md`): it takes 0.08 for a server's 1 KiB messages, where tokio-tungstenite takes 0.17 and
//! fastwebsockets 0.10; for 64 KiB 0.03 in and 0.04 out. The system calls of one connection take ten times as much, so
//! what is left to gain is in their number: large messages out, all that has come in one read and one write.
//!
//! The client's side also keeps watch: it pings, and fails when nothing at all has moved for [`SILENCE`], unless the
//! network is away (see [`super::silence`]). A pong, bytes that came, and [many](QUEUED) bytes that the peer's TCP took
//! all count, because a server that is writing to a slow machine does not read, and so does not answer pings.

use std::{
    borrow::Cow,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Sink, Stream};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Instant, Interval, MissedTickBehavior, interval_at, timeout},
};
use tokio_websockets::{
    ClientBuilder, CloseCode, Config, Error as WsError, Limits, Message, ServerBuilder, WebSocketStream,
};

use super::{
    silence::{self, Host, Silence, ended, nothing},
    vitals::Vitals,
};
use crate::error::printable;

/// The target of a tunnel to the SSH server of a machine, as it is reached from inside that machine.
pub const SSH: &str = ":22";
/// The cookie that holds a tunnel's token.
pub const COOKIE: &str = ".ixcondsess";
/// A tunnel on which nothing has moved for this long is dead or cut off: as long as VS Code takes to call a connection
/// lost.
pub const SILENCE: Duration = Duration::from_secs(20);
/// Between two pings of a server, so that no hop between it and a quiet client takes the connection for dead.
const SERVER_PINGS_EVERY: Duration = Duration::from_secs(30);
/// Several pings fit into [`SILENCE`], so one that is lost or late ends nothing.
pub const PING_EVERY: Duration = Duration::from_secs(5);
/// Fewer bytes may wait in the system of a host that passes nothing on: our pings, ssh's own questions, a line of keys.
pub const QUEUED: u64 = 4096;
/// Largest message accepted. Servers send 1 KiB; the bound keeps a hostile one from filling memory.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// Largest message sent: as much as the pipe reads at once.
const MAX_SENT: usize = 64 * 1024;
/// Most pings between two of our own looks at the clock. Each is answered, and the answers pile up if the peer does not
/// read them.
const MAX_PINGS: u32 = 100;

/// The count of a server's pings on a WebSocket that only listens.
#[derive(Debug)]
pub(crate) struct Pings {
    seen: u32,
    since: Instant,
}

impl Pings {
    pub(crate) fn new() -> Pings {
        Pings { seen: 0, since: Instant::now() }
    }

    /// Counts `message` if it is a ping. True if it is one too many.
    pub(crate) fn end_with(&mut self, message: &Message) -> bool {
        if self.since.elapsed() > PING_EVERY {
            *self = Pings::new();
        }
        self.seen += u32::from(message.is_ping());
        self.seen > MAX_PINGS
    }
}

/// The time for which the side that ends the stream waits until the other has read the rest. Closing a TCP socket that
/// has unread input resets it, and the reset would overtake the tail of what was sent.
const LINGER: Duration = Duration::from_secs(2);

/// A stream that a tunnel can run over.
pub trait Socket: AsyncRead + AsyncWrite + Unpin {
    /// The number of bytes that the peer has accepted so far; never falls.
    fn accepted(&self) -> u64 {
        0
    }

    /// The host that it leads to, where another connection to that can be tried.
    fn host(&self) -> Option<Arc<dyn Host>> {
        None
    }
}

/// A WebSocket that behaves as a socket.
pub struct Tunnel<S> {
    ws: WebSocketStream<S>,
    /// The rest of the message being read.
    unread: Bytes,
    /// Room in which outgoing messages are put together. It comes back when a message is sent.
    outgoing: BytesMut,
    /// True if something came that the keepalive has not noted.
    heard: bool,
    ended: bool,
    closing: bool,
    failure: Option<io::Error>,
    keepalive: Option<Keepalive>,
    vitals: Arc<Vitals>,
}

/// The keepalive over a tunnel's life.
struct Keepalive {
    tick: Interval,
    /// Longest time in which nothing moves; a server leaves that to its client.
    patience: Option<Duration>,
    /// The time of the last tick that was seen. A long gap means that the program did not run, as while a laptop
    /// sleeps.
    looked: Instant,
    /// The time of the last sign of life.
    alive: Instant,
    /// The number of bytes that the peer had accepted then.
    accepted: u64,
    pinged: Option<Instant>,
    /// The number of pings of the other side since then.
    pings: u32,
    silence: Option<Silence>,
}

impl Keepalive {
    fn new(every: Duration, patience: Option<Duration>) -> Self {
        let now = Instant::now();
        let mut tick = interval_at(now + every, every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Keepalive { tick, patience, looked: now, alive: now, accepted: 0, pinged: None, pings: 0, silence: None }
    }

    /// Notes a sign of life.
    fn is_alive(&mut self, vitals: &Vitals) {
        self.alive = Instant::now();
        if self.silence.take().is_some() {
            vitals.note_back();
        }
    }
}

impl<S: Socket> Tunnel<S> {
    /// The client's side of an upgraded connection.
    pub fn client(socket: S) -> Self {
        let ws = ClientBuilder::new().config(config()).limits(limits()).take_over(socket);
        Tunnel { keepalive: Some(Keepalive::new(PING_EVERY, Some(SILENCE))), ..Tunnel::over(ws) }
    }

    /// The client's side of an upgraded connection whose user keeps watch: no pings, and no patience that ends.
    pub fn unwatched(socket: S) -> Self {
        let ws = ClientBuilder::new().config(config()).limits(limits()).take_over(socket);
        Tunnel::over(ws)
    }

    /// The number of bytes that the peer has accepted so far, on the wire.
    pub fn accepted(&self) -> u64 {
        self.ws.get_ref().accepted()
    }

    /// The server's side of an upgraded connection.
    pub fn server(socket: S) -> Self {
        let ws = ServerBuilder::new().config(config()).limits(limits()).serve(socket);
        Tunnel { keepalive: Some(Keepalive::new(SERVER_PINGS_EVERY, None)), ..Tunnel::over(ws) }
    }

    fn over(ws: WebSocketStream<S>) -> Self {
        Tunnel {
            ws,
            unread: Bytes::new(),
            outgoing: BytesMut::new(),
            heard: false,
            ended: false,
            closing: false,
            failure: None,
            keepalive: None,
            vitals: Arc::new(Vitals::new()),
        }
    }

    /// The figures of this tunnel.
    pub fn vitals(&self) -> Arc<Vitals> {
        Arc::clone(&self.vitals)
    }

    /// Ends the stream from this side without losing the tail of what was sent.
    pub async fn finish(mut self) {
        let drained = async {
            self.shutdown().await?;
            let mut rest = [0; 4096];
            while self.read(&mut rest).await? > 0 {}
            Ok::<_, io::Error>(())
        };
        // The other side may be gone, which changes nothing.
        let _ = timeout(LINGER, drained).await;
    }

    /// Pings when it is time to, and fails when the tunnel is dead.
    fn poll_keepalive(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(keepalive) = &mut self.keepalive else { return Ok(()) };
        while keepalive.tick.poll_tick(cx).is_ready() {
            keepalive.pings = 0;
            let now = Instant::now();
            let accepted = self.ws.get_ref().accepted();
            if accepted >= keepalive.accepted + QUEUED {
                keepalive.accepted = accepted;
                keepalive.is_alive(&self.vitals);
            } else if keepalive.alive > keepalive.looked {
                // Bytes that were taken before the last sign of life tell nothing about later.
                keepalive.accepted = keepalive.accepted.max(accepted);
            } else if now - keepalive.looked > 2 * PING_EVERY {
                keepalive.alive = now;
            }
            keepalive.looked = now;
            let quiet = now - keepalive.alive;
            // Half a tick early rather than a whole one late.
            let is_long = keepalive.patience.is_some_and(|patience| quiet > patience - PING_EVERY / 2);
            if is_long && keepalive.silence.is_none() {
                let Some(host) = self.ws.get_ref().host() else { return Err(ended(nothing(quiet))) };
                keepalive.silence = Some(Box::pin(silence::judge(host, quiet, Arc::clone(&self.vitals))));
            }
            if keepalive.pinged.is_none() && !self.closing {
                keepalive.pinged = Some(now);
                Pin::new(&mut self.ws).start_send(Message::ping("")).map_err(as_io)?;
                // Goes out now or with the next write; the reader's next poll flushes too.
                let _ = Pin::new(&mut self.ws).poll_flush(cx).map_err(as_io)?;
            }
        }
        if let Some(Poll::Ready(error)) = keepalive.silence.as_mut().map(|silence| silence.as_mut().poll(cx)) {
            (keepalive.silence, keepalive.patience) = (None, None);
            return Err(error);
        }
        Ok(())
    }

    /// Notes that something came: once for several messages, because reading a clock takes as long as a small one.
    fn note_life(&mut self) {
        if std::mem::take(&mut self.heard) {
            self.vitals.note_heard();
            if let Some(keepalive) = &mut self.keepalive {
                keepalive.is_alive(&self.vitals);
            }
        }
    }

    /// The next piece of data; `None` at the end of the stream.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            let message = match ready!(Pin::new(&mut self.ws).poll_next(cx)) {
                Some(Ok(message)) => message,
                None => {
                    self.vitals.note_cut_off(!self.closing);
                    return Poll::Ready(Ok(None));
                }
                Some(Err(WsError::Io(e))) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    self.vitals.note_cut_off(!self.closing);
                    return Poll::Ready(Ok(None));
                }
                Some(Err(e)) => return Poll::Ready(Err(as_io(e))),
            };
            self.heard = true;
            if let Some(keepalive) = &mut self.keepalive {
                keepalive.pings += u32::from(message.is_ping());
                if keepalive.pings > MAX_PINGS {
                    return Poll::Ready(Err(broken("too many pings")));
                }
                if let Some(sent) = message.is_pong().then(|| keepalive.pinged.take()).flatten() {
                    self.vitals.note_round_trip(sent.elapsed());
                }
            }
            if message.is_binary() {
                let data = Bytes::from(message.into_payload());
                self.vitals.note_received(data.len());
                return Poll::Ready(Ok(Some(data)));
            }
            if message.is_close() {
                return Poll::Ready(match message.as_close() {
                    // The words of an ordinary end are of no use to the user.
                    None | Some((CloseCode::NORMAL_CLOSURE | CloseCode::GOING_AWAY, _)) | Some((_, "")) => Ok(None),
                    Some((_, words)) => {
                        let words = format!("the tunnel was closed: {}", printable(words));
                        Err(io::Error::new(io::ErrorKind::ConnectionAborted, words))
                    }
                });
            }
            if let Some(words) = text(&message) {
                let words = format!("the tunnel reports: {}", printable(&words));
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, words)));
            }
        }
    }
}

/// The text of a text message. Not by `Message::as_text`: tokio-websockets 0.13.3 takes a text whose last frame is
/// empty for UTF-8 without having looked at its end, so that a server's bytes could break what Rust relies on in a
/// `str`.
pub fn text(message: &Message) -> Option<Cow<'_, str>> {
    message.is_text().then(|| String::from_utf8_lossy(message.as_payload()))
}

fn config() -> Config {
    // The rest of a message is flushed before the next is queued, so that at most one waits.
    Config::default().flush_threshold(1).frame_size(MAX_SENT)
}

fn limits() -> Limits {
    Limits::default().max_payload_len(Some(MAX_MESSAGE))
}

fn as_io(error: WsError) -> io::Error {
    match error {
        WsError::Io(e) => e,
        WsError::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        other => broken(&other.to_string()),
    }
}

fn broken(how: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the tunnel violates its protocol: {how}"))
}

impl<S: Socket> AsyncRead for Tunnel<S> {
    /// Fills `buf` from as many messages as have come, so that a server's small ones become few large writes.
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(error) = this.failure.take() {
            return Poll::Ready(Err(error));
        }
        let before = buf.filled().len();
        let mut result = this.poll_keepalive(cx);
        while result.is_ok() {
            let n = this.unread.len().min(buf.remaining());
            buf.put_slice(&this.unread[..n]);
            this.unread.advance(n);
            if this.unread.is_empty() {
                // Releases the reader's buffer, so that it can be used again.
                this.unread = Bytes::new();
            }
            if buf.remaining() == 0 || this.ended {
                break;
            }
            match this.poll_data(cx) {
                Poll::Ready(Ok(Some(data))) => this.unread = data,
                Poll::Ready(Ok(None)) => {
                    this.ended = true;
                    this.vitals.note_end();
                }
                Poll::Ready(Err(e)) => result = Err(e),
                Poll::Pending if buf.filled().len() == before => {
                    this.note_life();
                    return Poll::Pending;
                }
                Poll::Pending => break,
            }
        }
        this.note_life();
        if let Err(error) = result {
            this.ended = true;
            if buf.filled().len() == before {
                return Poll::Ready(Err(error));
            }
            // The data before the failure goes first.
            this.failure = Some(error);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Socket> AsyncWrite for Tunnel<S> {
    /// Sends up to 64 KiB as one message, and at once: SSH libraries write without flushing.
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.ws).poll_ready(cx)).map_err(as_io)?;
        let n = buf.len().min(MAX_SENT);
        if n > 0 {
            this.outgoing.extend_from_slice(&buf[..n]);
            let data = this.outgoing.split();
            Pin::new(&mut this.ws).start_send(Message::binary(data)).map_err(as_io)?;
            let _ = Pin::new(&mut this.ws).poll_flush(cx).map_err(as_io)?;
            this.vitals.note_sent(n);
        }
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().ws).poll_flush(cx).map_err(as_io)
    }

    /// Sends a Close message; the other side ends the connection.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closing {
            ready!(Pin::new(&mut this.ws).poll_ready(cx)).map_err(as_io)?;
            this.closing = true;
            match Pin::new(&mut this.ws).start_send(Message::close(None, "")) {
                Ok(()) | Err(WsError::AlreadyClosed) => {}
                Err(e) => return Poll::Ready(Err(as_io(e))),
            }
        }
        Pin::new(&mut this.ws).poll_flush(cx).map_err(as_io)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        io,
        pin::Pin,
        sync::Arc,
        task::{Context, Poll},
    };

    use tokio::{
        io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex},
        time::{Instant, timeout},
    };

    use super::{Host, PING_EVERY, SILENCE, Socket, Tunnel};

    impl Socket for DuplexStream {}

    fn pair(size: usize) -> (Tunnel<DuplexStream>, Tunnel<DuplexStream>) {
        let (a, b) = duplex(size);
        (Tunnel::client(a), Tunnel::server(b))
    }

    #[tokio::test]
    async fn carries_bytes_both_ways_through_a_narrow_pipe() {
        let (mut client, mut server) = pair(64);
        let data: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
        let sent = data.clone();
        let echo = tokio::spawn(async move {
            let (mut rx, mut tx) = tokio::io::split(&mut server);
            tokio::io::copy(&mut rx, &mut tx).await.unwrap();
            server.finish().await;
        });
        let (mut rx, mut tx) = tokio::io::split(&mut client);
        let mut back = vec![0; data.len()];
        let (a, b) = tokio::join!(
            async {
                tx.write_all(&sent).await?;
                tx.flush().await
            },
            rx.read_exact(&mut back)
        );
        a.unwrap();
        b.unwrap();
        assert!(back == data);
        assert_eq!(client.vitals().sent(), data.len() as u64);
        assert_eq!(client.vitals().received(), data.len() as u64);
        client.shutdown().await.unwrap();
        echo.await.unwrap();
    }

    #[tokio::test]
    async fn a_close_and_a_bare_end_are_end_of_file_after_the_tail() {
        for politely in [true, false] {
            let (mut client, mut server) = pair(4096);
            server.write_all(b"tail").await.unwrap();
            if politely {
                server.shutdown().await.unwrap();
            }
            drop(server);
            let mut all = Vec::new();
            client.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, b"tail");
            assert_eq!(client.vitals().was_cut_off(), !politely);
        }
    }

    #[tokio::test]
    async fn an_end_after_our_own_close_is_orderly() {
        let (mut client, server) = pair(4096);
        client.shutdown().await.unwrap();
        drop(server);
        client.read_to_end(&mut Vec::new()).await.unwrap();
        assert!(!client.vitals().was_cut_off());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_tunnel_ends_and_an_answering_one_does_not() {
        let (mut client, server) = pair(4096);
        let start = Instant::now();
        let error = client.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= SILENCE - PING_EVERY && start.elapsed() <= SILENCE + PING_EVERY);
        drop(server);

        let (mut client, mut server) = pair(4096);
        let answering = tokio::spawn(async move { server.read_u8().await });
        let quiet = tokio::time::timeout(10 * SILENCE, client.read_u8()).await;
        assert!(quiet.is_err(), "pongs are life");
        assert!(client.vitals().round_trip().is_some());
        answering.abort();
    }

    /// A socket whose host cannot be reached, or can, and whose peer takes so many bytes in a second.
    struct Far(DuplexStream, bool, u64, Instant);

    fn far(socket: DuplexStream, answers: bool, rate: u64) -> Tunnel<Far> {
        Tunnel::client(Far(socket, answers, rate, Instant::now()))
    }

    impl AsyncRead for Far {
        fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Far {
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

    impl Socket for Far {
        fn accepted(&self) -> u64 {
            self.2 * self.3.elapsed().as_secs()
        }

        fn host(&self) -> Option<Arc<dyn Host>> {
            struct Answers(bool);
            impl Host for Answers {
                fn answers(&self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
                    Box::pin(std::future::ready(self.0))
                }
                fn has_another_way(&self) -> bool {
                    false
                }
            }
            Some(Arc::new(Answers(self.1)))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_outlives_a_network_that_is_away() {
        let (a, b) = duplex(4096);
        let (mut client, mut server) = (far(a, false, 0), Tunnel::server(b));
        let vitals = client.vitals();
        assert!(timeout(3 * SILENCE, client.read_u8()).await.is_err(), "it waits");
        assert!(vitals.away_since().is_some());
        server.write_all(b"b").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'b');
        assert_eq!((vitals.away_since(), vitals.resumed()), (None, 1));
        // The next silence is one of its own, and its end is final.
        let start = Instant::now();
        let error = client.read_u8().await.unwrap_err();
        assert!(start.elapsed() > 5 * SILENCE && error.to_string().contains("cannot be reached"), "{error}");
        assert!(client.read_u8().await.is_err());

        let (a, _b) = duplex(4096);
        let start = Instant::now();
        let error = far(a, true, 0).read_u8().await.unwrap_err();
        assert!(start.elapsed() <= SILENCE + PING_EVERY && error.to_string().contains("while its host answers"));
    }

    #[tokio::test(start_paused = true)]
    async fn only_much_that_is_taken_is_a_sign_of_life() {
        // Keys and questions are taken by any host on the way. A slow machine's server takes this much, and more.
        let (a, _b) = duplex(4096);
        let start = Instant::now();
        far(a, true, 50).read_u8().await.unwrap_err();
        assert!(start.elapsed() <= SILENCE + PING_EVERY);
        let (a, _b) = duplex(4096);
        assert!(timeout(10 * SILENCE, far(a, true, 500).read_u8()).await.is_err());
    }

    /// Found by fuzzing: `Message::as_text` takes the bytes of a text whose last frame is empty for UTF-8, whatever
    /// they are, and so did those who read them.
    #[tokio::test]
    async fn a_text_that_is_none_does_no_harm() {
        use tokio::io::AsyncWriteExt;
        let (a, mut b) = duplex(4096);
        let mut client = Tunnel::client(a);
        // Text, not final: `x` and the first byte of four. Continuation, final: nothing.
        b.write_all(b"\x01\x02x\xf4\x80\x00").await.unwrap();
        let error = client.read_u8().await.unwrap_err();
        assert_eq!(error.to_string(), "the tunnel reports: x\u{fffd}");
    }

    #[tokio::test]
    async fn a_text_message_ends_the_stream_with_its_words() {
        use futures_util::SinkExt;
        let (a, b) = duplex(4096);
        let mut client = Tunnel::client(a);
        let mut server = tokio_websockets::ServerBuilder::new().serve(b);
        server.send(tokio_websockets::Message::text("quota\x07 exceeded")).await.unwrap();
        let error = client.read_u8().await.unwrap_err();
        assert_eq!(error.to_string(), "the tunnel reports: quota exceeded");
    }
}
