//! A network that fails on command: a TCP proxy between the program and a server.
//!
//! It works in user space, so each side's kernel acknowledges what the proxy has not passed on. A hole is therefore one
//! behind a middlebox that still answers; `scripts/try-roaming` makes those in which packets vanish.
//!
//! It reads the WebSocket and the frames of a held session with a small codec of its own, so that a test can cut at a
//! certain byte of a certain frame ([`Trap`]) and count what has passed ([`Cut::seen`]).

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

/// Read at once.
const CHUNK: usize = 64 * 1024;
/// With a limited rate, as much is passed on at a time as fits into this time.
const DRIP: Duration = Duration::from_millis(10);

pub const END: u8 = 4;
pub const BYE: u8 = 5;
pub const WELCOME: u8 = 6;
pub const DATA: u8 = 0;

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Up,
    Down,
}

/// The manner in which a connection fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Both sides get a reset.
    Reset,
    /// Both sides get the end of the stream.
    Fin,
    /// Nothing passes any more, and no side hears of it: a NAT that has forgotten the connection.
    Stranded,
    /// The same in one direction only.
    OneWay(Way),
}

/// Every manner, of both directions.
pub const EVERY: [How; 5] = [How::Reset, How::Fin, How::Stranded, How::OneWay(Way::Up), How::OneWay(Way::Down)];

/// The state of one direction, for all connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Open,
    /// Nothing passes for now. It is late, and not lost, as TCP's retransmission makes it.
    Hole,
    /// Bytes per second of each connection.
    Rate(u32),
}

/// The kinds of connection, told apart by their first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing has come, or it is no tunnel.
    Other,
    /// SSH without a relay.
    Direct,
    /// To the relay's port for new sessions.
    New,
    /// To the relay's port for resuming.
    Resume,
}

/// A part of a connection's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The first words of a side: `R_HELLO`, `C_HELLO`, `C_RESUME`, `R_RESUME`.
    Hello,
    /// The next frame of that type, with its header.
    Frame(u8),
}

/// A point at which the next connection to come there fails.
#[derive(Clone, Copy, Debug)]
pub struct Trap {
    pub kind: Kind,
    pub way: Way,
    pub part: Part,
    /// The number of the part's bytes that still pass.
    pub byte: usize,
    pub how: How,
    /// The number of connections that fail so.
    pub times: usize,
}

#[derive(Clone, Copy, Debug)]
struct Manner {
    up: Flow,
    down: Flow,
    /// For connections that come from now on.
    delay: Duration,
    refuses: bool,
}

/// A connection that was accepted.
#[derive(Clone, Debug)]
pub struct Seen {
    pub kind: Kind,
    pub open: bool,
    /// The number of bytes, both ways.
    pub bytes: usize,
    /// The number of frames of each type, for each direction.
    pub up: BTreeMap<u8, usize>,
    pub down: BTreeMap<u8, usize>,
}

struct Shared {
    manner: watch::Sender<Manner>,
    /// The number of connections that the last failure was for, and its manner.
    failure: watch::Sender<(usize, How)>,
    traps: Mutex<Vec<Trap>>,
    released: watch::Sender<usize>,
    sprung: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
    to: Mutex<String>,
}

/// The proxy.
pub struct Cut {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Cut {
    /// Starts a proxy on a free port. It leads nowhere until [`Cut::leads_to`].
    pub fn start() -> Cut {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let manner = Manner { up: Flow::Open, down: Flow::Open, delay: Duration::ZERO, refuses: false };
        let shared = Arc::new(Shared {
            manner: watch::Sender::new(manner),
            failure: watch::Sender::new((0, How::Reset)),
            traps: Mutex::default(),
            released: watch::Sender::new(0),
            sprung: AtomicUsize::new(0),
            seen: Mutex::default(),
            to: Mutex::default(),
        });
        let address = listener.local_addr().unwrap();
        runtime.spawn(accept(listener, Arc::clone(&shared)));
        Cut { address, shared, runtime: Some(runtime) }
    }

    pub fn leads_to(&self, address: &str) {
        *self.shared.to.lock().unwrap() = address.to_owned();
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every connection that is open now fails.
    pub fn fail(&self, how: How) {
        let mut seen = self.shared.seen.lock().unwrap();
        // One that is stranded may never hear of its end.
        seen.iter_mut().for_each(|one| one.open = false);
        self.shared.failure.send_replace((seen.len(), how));
    }

    pub fn flows(&self, up: Flow, down: Flow) {
        self.shared.manner.send_modify(|manner| (manner.up, manner.down) = (up, down));
    }

    /// Connections that come from now on take this much longer, each way.
    pub fn delays(&self, delay: Duration) {
        self.shared.manner.send_modify(|manner| manner.delay = delay);
    }

    /// New connections are reset, or accepted again.
    pub fn refuses(&self, refuses: bool) {
        self.shared.manner.send_modify(|manner| manner.refuses = refuses);
    }

    /// The network is gone: what is open is stranded, and what is new is refused.
    pub fn goes_away(&self) {
        self.refuses(true);
        self.fail(How::Stranded);
    }

    /// All is well, for connections that are not stranded.
    pub fn heals(&self) {
        self.flows(Flow::Open, Flow::Open);
        self.refuses(false);
    }

    /// Bytes that a [`How::OneWay`] trap has caught in its own direction go on.
    pub fn releases(&self) {
        self.shared.released.send_modify(|count| *count += 1);
    }

    pub fn set(&self, trap: Trap) {
        self.shared.traps.lock().unwrap().push(trap);
    }

    /// The number of connections that were caught by a trap.
    pub fn sprung(&self) -> usize {
        self.shared.sprung.load(Ordering::Relaxed)
    }

    /// Removes the traps that are left. Returns their number.
    pub fn disarm(&self) -> usize {
        std::mem::take(&mut *self.shared.traps.lock().unwrap()).len()
    }

    /// The connections so far, refused ones included, in the order in which they came.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The number of open connections that have carried more than that.
    pub fn busy(&self, bytes: usize) -> usize {
        self.seen().iter().filter(|one| one.open && one.bytes > bytes).count()
    }

    /// The number of open connections of held sessions whose clients have logged in: a handshake and a login have some
    /// 9 KB, and who resumes has been in before.
    pub fn settled(&self) -> usize {
        let is_settled =
            |one: &&Seen| one.open && (one.kind == Kind::Resume || one.kind == Kind::New && one.bytes > 20_000);
        self.seen().iter().filter(is_settled).count()
    }

    pub fn count(&self, kind: Kind) -> usize {
        self.seen().iter().filter(|one| one.kind == kind).count()
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let mut manner = shared.manner.subscribe();
        let number = {
            let mut seen = shared.seen.lock().unwrap();
            seen.push(Seen { kind: Kind::Other, open: true, bytes: 0, up: BTreeMap::new(), down: BTreeMap::new() });
            seen.len() - 1
        };
        let (shared, failure) = (Arc::clone(&shared), shared.failure.subscribe());
        if manner.borrow().refuses {
            shared.seen.lock().unwrap()[number].open = false;
            reset(&client);
            continue;
        }
        tokio::spawn(async move {
            // A server that cannot be reached through the hole cannot be dialled through it either.
            open(&mut manner, Way::Up).await;
            let to = shared.to.lock().unwrap().clone();
            match TcpStream::connect(to).await {
                Ok(server) => connection(client, server, &shared, number, manner, failure).await,
                Err(_) => reset(&client),
            }
            shared.seen.lock().unwrap()[number].open = false;
        });
    }
}

fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Waits until a direction is open. Returns its rate, if that is limited.
async fn open(manner: &mut watch::Receiver<Manner>, way: Way) -> Option<u32> {
    let flow = |manner: &Manner| if way == Way::Up { manner.up } else { manner.down };
    let opened = manner.wait_for(|manner| flow(manner) != Flow::Hole).await.map(|manner| flow(&manner));
    match opened {
        Ok(Flow::Rate(rate)) => Some(rate),
        Ok(Flow::Open | Flow::Hole) => None,
        Err(_) => std::future::pending().await,
    }
}

/// Waits for the failure of both directions of a connection.
async fn failed(failure: &mut watch::Receiver<(usize, How)>, number: usize) -> How {
    let is_both = |(count, how): &(usize, How)| number < *count && !matches!(how, How::OneWay(_));
    failure.wait_for(is_both).await.map_or(How::Reset, |failed| failed.1)
}

/// Passes bytes one way until that direction is stranded.
async fn or_stuck(
    passing: impl Future<Output = Result<(), How>>,
    mut failure: watch::Receiver<(usize, How)>,
    number: usize,
    way: Way,
) -> Result<(), How> {
    let is_stuck = |(count, how): &(usize, How)| number < *count && *how == How::OneWay(way);
    tokio::select! {
        passed = passing => passed,
        Ok(()) = async { failure.wait_for(is_stuck).await.map(drop) } => std::future::pending().await,
    }
}

async fn connection(
    mut client: TcpStream,
    mut server: TcpStream,
    shared: &Shared,
    number: usize,
    manner: watch::Receiver<Manner>,
    mut failure: watch::Receiver<(usize, How)>,
) {
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let delay = manner.borrow().delay;
    let how = {
        let (client_rx, client_tx) = client.split();
        let (server_rx, server_tx) = server.split();
        let up = one_way(client_rx, server_tx, shared, Reader::new(number, Way::Up), manner.clone(), delay);
        let down = one_way(server_rx, client_tx, shared, Reader::new(number, Way::Down), manner, delay);
        let (up, down) =
            (or_stuck(up, failure.clone(), number, Way::Up), or_stuck(down, failure.clone(), number, Way::Down));
        let both = async { tokio::try_join!(up, down) };
        tokio::select! {
            ended = both => match ended {
                Ok(((), ())) => return,
                Err(how) => how,
            },
            how = failed(&mut failure, number) => how,
        }
    };
    match how {
        How::Reset => {
            reset(&client);
            reset(&server);
        }
        How::Fin => {
            let _ = client.shutdown().await;
            let _ = server.shutdown().await;
            // Closing a socket with unread input would reset it.
            let (mut one, mut other) = (tokio::io::sink(), tokio::io::sink());
            let drain = async {
                tokio::join!(tokio::io::copy(&mut client, &mut one), tokio::io::copy(&mut server, &mut other))
            };
            let _ = tokio::time::timeout(Duration::from_secs(2), drain).await;
        }
        How::Stranded | How::OneWay(_) => std::future::pending().await,
    }
}

/// Passes bytes on until they end. The error is the failure that a trap or a broken side brings.
async fn one_way(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    shared: &Shared,
    mut reader: Reader,
    mut manner: watch::Receiver<Manner>,
    delay: Duration,
) -> Result<(), How> {
    let way = reader.way;
    let (queue, mut queued) = mpsc::channel::<(Instant, Vec<u8>)>(256);
    let mut writing = manner.clone();
    let reading = async move {
        let mut buffer = vec![0; CHUNK];
        loop {
            let rate = open(&mut manner, way).await;
            let drip = |rate: u32| (f64::from(rate) * DRIP.as_secs_f64()) as usize;
            let most = rate.map_or(CHUNK, |rate| drip(rate).clamp(64, CHUNK));
            let n = match from.read(&mut buffer[..most]).await {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(_) => return Err(How::Reset),
            };
            // Bytes that have come into the hole meanwhile stay in it.
            open(&mut manner, way).await;
            let (mut passed, mut late) = (0, false);
            while passed < n {
                let trapped = reader.read(&buffer[passed..n], shared);
                let until = trapped.map_or(n, |(at, _)| passed + at);
                shared.seen.lock().unwrap()[reader.number].bytes += until - passed;
                let bytes = buffer[passed..until].to_vec();
                if !bytes.is_empty() && queue.send((Instant::now() + delay, bytes)).await.is_err() {
                    return Ok(());
                }
                passed = until;
                if let Some((_, how)) = trapped {
                    shared.sprung.fetch_add(1, Ordering::Relaxed);
                    // The bytes before the point go out first.
                    sleep(delay + Duration::from_millis(20)).await;
                    if how != How::OneWay(way) {
                        return Err(how);
                    }
                    let mut released = shared.released.subscribe();
                    let _ = released.changed().await;
                    late = true;
                }
            }
            if late {
                // Its end, which may have come long ago, stays behind it.
                sleep(Duration::from_millis(500)).await;
            }
            if let Some(rate) = rate {
                sleep(Duration::from_secs_f64(n as f64 / f64::from(rate))).await;
            }
        }
    };
    let writing = async move {
        while let Some((at, bytes)) = queued.recv().await {
            if !delay.is_zero() {
                sleep_until(at).await;
            }
            open(&mut writing, way).await;
            if to.write_all(&bytes).await.is_err() {
                return Err(How::Reset);
            }
        }
        let _ = to.shutdown().await;
        Ok(())
    };
    tokio::try_join!(reading, writing).map(|_| ())
}

/// Reads one direction of a connection: HTTP's head, WebSocket messages, and the frames in them.
struct Reader {
    number: usize,
    way: Way,
    /// HTTP's head as far as it has come, until there was one of an upgrade.
    head: Option<Vec<u8>>,
    /// The rest of the body behind a head of another request.
    body: usize,
    /// The header of a WebSocket message, while it comes.
    header: Vec<u8>,
    /// The rest of the message, its mask, and the number of its bytes that were read.
    left: u64,
    mask: [u8; 4],
    at: usize,
    is_data: bool,
    /// The part that comes, the number of its bytes that have come, and its length once that is known.
    part: Option<Part>,
    position: usize,
    length: Option<usize>,
    /// The bytes of a frame's length that have come.
    size: Vec<u8>,
    begun: bool,
}

impl Reader {
    fn new(number: usize, way: Way) -> Reader {
        Reader {
            number,
            way,
            head: Some(Vec::new()),
            body: 0,
            header: Vec::new(),
            left: 0,
            mask: [0; 4],
            at: 0,
            is_data: false,
            part: None,
            position: 0,
            length: None,
            size: Vec::new(),
            begun: false,
        }
    }

    /// Reads on. Returns the index of the byte before which the connection fails, if a trap is there.
    fn read(&mut self, bytes: &[u8], shared: &Shared) -> Option<(usize, How)> {
        let mut i = 0;
        while i < bytes.len() {
            if self.body > 0 {
                let n = self.body.min(bytes.len() - i);
                self.body -= n;
                i += n;
            } else if let Some(head) = &mut self.head {
                head.push(bytes[i]);
                i += 1;
                if head.ends_with(b"\r\n\r\n") {
                    let text = String::from_utf8_lossy(head).to_lowercase();
                    let length =
                        text.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
                    self.body = length.unwrap_or(0);
                    self.head = (!text.contains("upgrade: websocket")).then(Vec::new);
                }
            } else if self.left == 0 {
                self.header.push(bytes[i]);
                i += 1;
                self.header_ends();
            } else {
                let n = usize::try_from(self.left).unwrap().min(bytes.len() - i);
                if self.is_data
                    && let Some((at, how)) = self.payload(&bytes[i..i + n], shared)
                {
                    self.left -= at as u64;
                    return Some((i + at, how));
                }
                self.left -= n as u64;
                if !self.is_data {
                    self.at += n;
                }
                i += n;
            }
        }
        None
    }

    /// Begins the message whose header is complete.
    fn header_ends(&mut self) {
        let header = &self.header;
        let [first, second, ..] = header[..] else { return };
        let (extended, masked) = match second & 127 {
            126 => (2, second & 128 != 0),
            127 => (8, second & 128 != 0),
            _ => (0, second & 128 != 0),
        };
        if header.len() < 2 + extended + if masked { 4 } else { 0 } {
            return;
        }
        self.left = match extended {
            0 => u64::from(second & 127),
            _ => header[2..2 + extended].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        self.mask = if masked { header[2 + extended..].try_into().unwrap() } else { [0; 4] };
        self.at = 0;
        // A continuation goes on with data, because no other message is so long.
        self.is_data = matches!(first & 15, 0 | 2);
        self.header.clear();
    }

    fn payload(&mut self, bytes: &[u8], shared: &Shared) -> Option<(usize, How)> {
        let (mask, at) = (self.mask, self.at);
        let plain = |i: usize| bytes[i] ^ mask[(at + i) % 4];
        let mut i = 0;
        while i < bytes.len() {
            let mut seen = shared.seen.lock().unwrap();
            let one = &mut seen[self.number];
            if one.kind == Kind::Other {
                one.kind = match (plain(i), self.way) {
                    (b'L', Way::Down) => Kind::New,
                    (b'L', Way::Up) => Kind::Resume,
                    _ => Kind::Direct,
                };
            }
            if one.kind == Kind::Direct {
                break;
            }
            if self.part.is_none() {
                self.position = 0;
                (self.part, self.length) = if self.begun {
                    let kind = plain(i);
                    let counts = if self.way == Way::Up { &mut one.up } else { &mut one.down };
                    *counts.entry(kind).or_default() += 1;
                    (Some(Part::Frame(kind)), None)
                } else {
                    self.begun = true;
                    let length = match (one.kind, self.way) {
                        (Kind::New, Way::Down) => 44,
                        (Kind::New, Way::Up) => 42,
                        (_, Way::Up) => 66,
                        (_, Way::Down) => 30,
                    };
                    (Some(Part::Hello), Some(length))
                };
            }
            let kind = one.kind;
            drop(seen);
            let n = match self.length {
                Some(length) => (length - self.position).min(bytes.len() - i),
                None => 1,
            };
            if let Some((byte, how)) = self.trap(kind, n, shared) {
                i += byte - self.position;
                self.position = byte;
                self.at += i;
                return Some((i, how));
            }
            // The three bytes of a frame's length, behind its type.
            if let (Some(Part::Frame(_)), None, 1..=3) = (self.part, self.length, self.position) {
                self.size.push(plain(i));
                if self.position == 3 {
                    self.length = Some(4 + self.size.drain(..).fold(0, |sum, byte| sum << 8 | usize::from(byte)));
                }
            }
            self.position += n;
            i += n;
            if self.length == Some(self.position) {
                self.part = None;
            }
        }
        self.at += bytes.len();
        None
    }

    /// Returns the trap in the next `n` bytes of the current part: the byte of the part, and the failure.
    fn trap(&self, kind: Kind, n: usize, shared: &Shared) -> Option<(usize, How)> {
        let mut traps = shared.traps.lock().unwrap();
        let i = traps.iter().position(|trap| {
            (trap.kind == kind || trap.kind == Kind::Other)
                && trap.way == self.way
                && Some(trap.part) == self.part
                && (self.position..self.position + n).contains(&trap.byte)
        })?;
        let trap = &mut traps[i];
        trap.times -= 1;
        let found = (trap.byte, trap.how);
        if trap.times == 0 {
            traps.remove(i);
        }
        Some(found)
    }
}

/// A stream is read the same in whatever pieces it comes, and a trap is at its byte.
#[test]
fn what_is_read_does_not_depend_on_the_pieces() {
    let frame =
        |kind: u8, payload: usize| [&[kind, 0, 0, u8::try_from(payload).unwrap()][..], &vec![7; payload]].concat();
    let held = [vec![b'L'; 66], frame(DATA, 200), frame(2, 4), frame(DATA, 0), frame(BYE, 8)].concat();
    // HTTP's head, then masked messages of a few sizes, with a ping in between.
    let mut stream = b"POST / HTTP/1.1\r\ncontent-length: 7\r\n\r\n\r\n\r\nabc".to_vec();
    stream.extend(b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n");
    // The place in the stream of each byte of the payload.
    let mut places = Vec::new();
    let mut rest = &held[..];
    for size in [1, 64, 130, 3, 1000] {
        let (piece, after) = rest.split_at(size.min(rest.len()));
        rest = after;
        let mask = [1, 2, 3, 4];
        stream.extend([0x89, 0x82, 9, 9, 9, 9, 0, 0]);
        match u8::try_from(piece.len()) {
            Ok(small @ ..126) => stream.extend([0x82, 0x80 | small]),
            _ => stream.extend([0x82, 0x80 | 126, u8::try_from(piece.len() >> 8).unwrap(), piece.len() as u8]),
        }
        stream.extend(mask);
        for (i, byte) in piece.iter().enumerate() {
            places.push(stream.len());
            stream.push(byte ^ mask[i % 4]);
        }
    }
    for piece in [1, 2, 3, 7, 100, 10_000] {
        for (part, start, length) in
            [(Part::Hello, 0, 66), (Part::Frame(DATA), 66, 204), (Part::Frame(2), 270, 8), (Part::Frame(BYE), 282, 12)]
        {
            for byte in [0, 1, 3, length - 1] {
                let cut = Cut::start();
                let shared = &cut.shared;
                let none = Seen { kind: Kind::Other, open: true, bytes: 0, up: BTreeMap::new(), down: BTreeMap::new() };
                shared.seen.lock().unwrap().push(none);
                cut.set(Trap { kind: Kind::Resume, way: Way::Up, part, byte, how: How::Fin, times: 1 });
                let (mut reader, mut passed, mut caught) = (Reader::new(0, Way::Up), 0, None);
                for bytes in stream.chunks(piece) {
                    let mut at = 0;
                    while at < bytes.len() {
                        let Some((index, _)) = reader.read(&bytes[at..], shared) else { break };
                        at += index;
                        assert!(caught.replace(passed + at).is_none());
                    }
                    passed += bytes.len();
                }
                assert_eq!(caught, Some(places[start + byte]), "{part:?} {byte}, in pieces of {piece}");
                assert_eq!(cut.seen()[0].up, BTreeMap::from([(DATA, 2), (2, 1), (BYE, 1)]));
            }
        }
    }
}
