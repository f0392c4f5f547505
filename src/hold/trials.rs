//! Trials of a session against the real relay, over connections that break.

use std::{
    future::{Future, pending},
    io,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, split},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{Mutex, Notify, mpsc},
    time::{sleep, timeout},
};

use super::{Held, Options, Reach, Relay, Ticket, Verdict, held::end};
use crate::{
    error::{Error, Kind, Result},
    pipe::LINGER,
};

const OPTIONS: Options = Options { resume_for: Duration::from_secs(60) };
const BANNER: &[u8] = b"SSH-2.0-trial\r\n";

/// A machine with a relay. Its SSH server is the test.
struct Machine {
    relay: Relay,
    sshd: Mutex<mpsc::UnboundedReceiver<TcpStream>>,
    home: tempfile::TempDir,
}

impl Machine {
    async fn start() -> Machine {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // The connection over which the relay seems to be placed.
        let placing = TcpStream::connect(address).await.unwrap();
        let _placed = listener.accept().await.unwrap();
        let home = tempfile::tempdir().unwrap();
        let mut python = Command::new("python3")
            .arg("-")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", home.path())
            .env(
                "SSH_CONNECTION",
                format!("127.0.0.1 {} 127.0.0.1 {}", placing.local_addr().unwrap().port(), address.port()),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        python.stdin.take().unwrap().write_all(include_bytes!("relay.py")).await.unwrap();
        let said = python.wait_with_output().await.unwrap().stdout;
        let said = String::from_utf8(said).unwrap();
        let words: Vec<&str> = said.split_whitespace().collect();
        let ["LHR1", new, resume, key] = words[..] else { panic!("the relay says {said:?}") };
        let mut secret = [0; 32];
        for (byte, hex) in secret.iter_mut().zip(key.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap();
        }
        let relay = Relay { new_port: new.parse().unwrap(), resume_port: resume.parse().unwrap(), key: secret };
        let (accepted, sshd) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let _placing = placing;
            while let Ok((stream, _)) = listener.accept().await {
                let _ = accepted.send(stream);
            }
        });
        Machine { relay, sshd: Mutex::new(sshd), home }
    }

    /// Begins a session over `network`, and returns it with sshd's end of it.
    async fn session(&self, network: &Network) -> (Held, TcpStream) {
        let first = network.connect(self.relay.new_port).await.unwrap();
        let held = Held::begin(first, &self.relay, network.clone(), OPTIONS).await.unwrap();
        (held, self.sshd.lock().await.recv().await.unwrap())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let about = std::fs::read_to_string(self.home.path().join(".cache/labctl-ssh-proxy/relay-1.json")).unwrap();
        let about: serde_json::Value = serde_json::from_str(&about).unwrap();
        let pid = i32::try_from(about["pid"].as_i64().unwrap()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
}

/// A network whose connections break after a number of bytes in either direction.
#[derive(Clone, Default)]
struct Network(Arc<Line>);

#[derive(Default)]
struct Line {
    /// Most bytes of a connection, each way; 0 for a network that holds.
    most: AtomicU32,
    is_down: AtomicBool,
    /// The relay's end of a connection is not passed on, as by a real tunnel.
    hides_ends: AtomicBool,
    cuts: AtomicU32,
    /// Cuts of all connections that there are.
    cut: Notify,
    /// The session's ticket, while it is of use.
    ticket: std::sync::Mutex<Option<Ticket>>,
}

impl Network {
    fn breaking_after(most: u32) -> Network {
        let network = Network::default();
        network.0.most.store(most, Ordering::Relaxed);
        network
    }

    async fn connect(&self, port: u16) -> io::Result<Fragile> {
        if self.0.is_down.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::NetworkUnreachable.into());
        }
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let most = self.0.most.load(Ordering::Relaxed);
        // The greetings of a new session pass.
        let left = || if most == 0 { usize::MAX } else { 44 + usize::try_from(fastrand::u32(..most)).unwrap() };
        let cut = Arc::clone(&self.0);
        Ok(Fragile {
            stream,
            reads: left(),
            writes: left(),
            cut: Box::pin(async move { cut.cut.notified().await }),
            line: Arc::clone(&self.0),
        })
    }

    /// Cuts all connections.
    fn cut(&self) {
        self.0.cut.notify_waiters();
    }

    fn ticket(&self) -> Option<Ticket> {
        self.0.ticket.lock().unwrap().clone()
    }

    /// Waits until the session's end is known. Not by `farewell`, which leaves the sessions of other trials, too.
    async fn ticket_gone(&self) {
        while self.ticket().is_some() {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Reach for Network {
    type Connection = Fragile;

    async fn dial(&self, port: u16) -> Result<Fragile> {
        self.connect(port).await.map_err(|e| Error::new(Kind::Network, e.to_string()))
    }

    async fn verdict(&self, _failed: Option<&Error>) -> Verdict {
        Verdict::Again
    }

    fn accepted(_connection: &Fragile) -> u64 {
        0
    }

    fn local_address(&self) -> Option<IpAddr> {
        Some(Ipv4Addr::LOCALHOST.into())
    }

    async fn event(&self) {
        pending().await
    }

    fn begun(&self, ticket: &Ticket) {
        *self.0.ticket.lock().unwrap() = Some(ticket.clone());
    }

    fn over(&self) {
        *self.0.ticket.lock().unwrap() = None;
    }
}

struct Fragile {
    stream: TcpStream,
    reads: usize,
    writes: usize,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
    line: Arc<Line>,
}

impl Fragile {
    fn broken<T>(&self) -> Poll<io::Result<T>> {
        self.line.cuts.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }
}

impl AsyncRead for Fragile {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.reads == 0 || this.cut.as_mut().poll(cx).is_ready() {
            return this.broken();
        }
        let room = buf.remaining().min(this.reads);
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        let read = Pin::new(&mut this.stream).poll_read(cx, &mut part);
        let n = part.filled().len();
        if n == 0 && room > 0 && read.is_ready() && this.line.hides_ends.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        buf.advance(n);
        this.reads -= n;
        read
    }
}

impl AsyncWrite for Fragile {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.writes == 0 {
            return this.broken();
        }
        let written = Pin::new(&mut this.stream).poll_write(cx, &buf[..buf.len().min(this.writes)]);
        if let Poll::Ready(Ok(n)) = written {
            this.writes -= n;
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// Bytes that differ at every offset near each other.
fn noise(from: u64, length: usize) -> Vec<u8> {
    (from..).take(length).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

async fn send(to: &mut (impl AsyncWrite + Unpin), total: u64) {
    let mut at = 0;
    while at < total {
        let length = usize::try_from(total - at).unwrap().min(1 + fastrand::usize(..100_000));
        to.write_all(&noise(at, length)).await.unwrap();
        at += length as u64;
    }
}

async fn receive(from: &mut (impl AsyncRead + Unpin), total: u64) {
    let (mut at, mut room) = (0, vec![0; 70_000]);
    while at < total {
        let n = from.read(&mut room).await.unwrap();
        assert_ne!(n, 0, "the end came after {at} of {total} bytes");
        assert!(room[..n] == noise(at, n), "other bytes came within {n} from {at}");
        at += n as u64;
    }
    assert_eq!(at, total);
}

/// Noise both ways at once, and compared.
async fn exchange(held: Held, sshd: TcpStream, up: u64, down: u64) -> (Held, TcpStream) {
    let (mut held_rx, mut held_tx) = split(held);
    let (mut sshd_rx, mut sshd_tx) = split(sshd);
    tokio::join!(
        send(&mut held_tx, up),
        receive(&mut sshd_rx, up),
        send(&mut sshd_tx, down),
        receive(&mut held_rx, down)
    );
    (held_rx.unsplit(held_tx), sshd_rx.unsplit(sshd_tx))
}

/// The banner at sshd's end, which only then lets a session pass more.
async fn open(mut held: Held, mut sshd: TcpStream) -> (Held, TcpStream) {
    sshd.write_all(BANNER).await.unwrap();
    let mut banner = vec![0; BANNER.len()];
    held.read_exact(&mut banner).await.unwrap();
    assert_eq!(banner, BANNER);
    (held, sshd)
}

#[tokio::test]
async fn a_session_goes_both_ways_and_ends_by_either_side() {
    let machine = Machine::start().await;
    for is_server in [true, false] {
        let network = Network::default();
        network.0.hides_ends.store(true, Ordering::Relaxed);
        let (held, sshd) = machine.session(&network).await;
        let (held, sshd) = open(held, sshd).await;
        let (mut held, mut sshd) = exchange(held, sshd, 3_000_000, 3_000_000).await;
        assert!(network.ticket() == Some(held.ticket()));
        if is_server {
            sshd.write_all(b"last words").await.unwrap();
            drop(sshd);
            let mut last = Vec::new();
            held.read_to_end(&mut last).await.unwrap();
            assert_eq!(last, b"last words");
            assert!(held.vitals().has_ended() && !held.vitals().was_cut_off());
        } else {
            held.write_all(b"last words").await.unwrap();
            drop(held);
            let mut last = Vec::new();
            timeout(Duration::from_secs(2), sshd.read_to_end(&mut last)).await.unwrap().unwrap();
            assert_eq!(last, b"last words");
        }
        let told = timeout(Duration::from_secs(2), network.ticket_gone()).await;
        told.expect("the relay knows that it is over");
        assert_eq!(network.0.cuts.load(Ordering::Relaxed), 0);
    }
}

#[tokio::test]
async fn a_session_survives_a_cut_and_an_outage() {
    let machine = Machine::start().await;
    let network = Network::default();
    let (held, sshd) = machine.session(&network).await;
    let (held, sshd) = open(held, sshd).await;
    let (mut held, mut sshd) = exchange(held, sshd, 1000, 1000).await;
    for round in 1..=3 {
        network.0.is_down.store(round == 2, Ordering::Relaxed);
        network.cut();
        while round == 2 && held.vitals().away_since().is_none() {
            sleep(Duration::from_millis(1)).await;
        }
        sshd.write_all(b"down").await.unwrap();
        held.write_all(b"up").await.unwrap();
        let (mut down, mut up) = ([0; 4], [0; 2]);
        if round == 2 {
            let nothing = timeout(Duration::from_millis(300), held.read(&mut down)).await;
            assert!(nothing.is_err());
            assert!(held.vitals().away_since().is_some());
            network.0.is_down.store(false, Ordering::Relaxed);
        }
        held.read_exact(&mut down).await.unwrap();
        sshd.read_exact(&mut up).await.unwrap();
        assert_eq!((&down, &up), (b"down", b"up"));
        assert_eq!((held.vitals().resumed(), held.vitals().away_since()), (round, None));
    }
    assert!(machine.sshd.lock().await.try_recv().is_err(), "one connection to sshd");
}

#[tokio::test]
async fn a_session_that_was_left_is_ended_by_its_ticket() {
    let machine = Machine::start().await;
    let network = Network::default();
    let (held, sshd) = machine.session(&network).await;
    let (held, sshd) = open(held, sshd).await;
    let (held, mut sshd) = exchange(held, sshd, 1000, 1000).await;
    network.0.is_down.store(true, Ordering::Relaxed);
    network.cut();
    drop(held);
    sleep(2 * LINGER).await;
    let ticket = network.ticket().expect("the ticket stays");
    network.0.is_down.store(false, Ordering::Relaxed);
    for _ in 0..2 {
        let connection = network.connect(machine.relay.resume_port).await.unwrap();
        end(connection, &ticket).await.unwrap();
    }
    let ended = timeout(Duration::from_secs(2), sshd.read(&mut [0; 16])).await.unwrap();
    assert_eq!(ended.unwrap(), 0);
}

#[tokio::test]
async fn sessions_lose_no_byte_in_many_cuts() {
    cuts(4, 300).await;
}

/// Takes a minute or so: `scripts/soak` and people call it.
#[tokio::test]
#[ignore = "a minute of cuts"]
async fn sessions_lose_no_byte_in_ten_thousand_cuts() {
    cuts(32, 10_000).await;
}

async fn cuts(sessions: usize, cuts: u32) {
    let machine = Machine::start().await;
    let network = Network::breaking_after(300_000);
    let mut all = Vec::new();
    for _ in 0..sessions {
        let (held, sshd) = machine.session(&network).await;
        all.push(open(held, sshd).await);
    }
    let network = &network;
    let trials = all.into_iter().map(|(mut held, mut sshd)| async move {
        while network.0.cuts.load(Ordering::Relaxed) < cuts {
            (held, sshd) = exchange(held, sshd, 1_000_000, 1_000_000).await;
        }
        network.0.most.store(0, Ordering::Relaxed);
        drop(sshd);
        let mut rest = Vec::new();
        held.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
        held.vitals().resumed()
    });
    let resumed: u32 = futures_util::future::join_all(trials).await.into_iter().sum();
    assert!(resumed > 0);
    log::info!("{} cuts, {resumed} resumes", network.0.cuts.load(Ordering::Relaxed));
}
