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
/// With a limited rate, this much is passed on at a time.
const DRIP: usize = 512;

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
}

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
    /// What a side says first: `R_HELLO`, `C_HELLO`, `C_RESUME`, `R_RESUME`.
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
    /// The number of frames of each type, for each direction.
    pub up: BTreeMap<u8, usize>,
    pub down: BTreeMap<u8, usize>,
}

struct Shared {
    manner: watch::Sender<Manner>,
    /// The number of connections that the last failure was for, and its manner.
    failure: watch::Sender<(usize, How)>,
    traps: Mutex<Vec<Trap>>,
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
        let count = self.shared.seen.lock().unwrap().len();
        self.shared.failure.send_replace((count, how));
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
            seen.push(Seen { kind: Kind::Other, open: true, up: BTreeMap::new(), down: BTreeMap::new() });
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

/// Waits for the failure of a connection.
async fn failed(failure: &mut watch::Receiver<(usize, How)>, number: usize) -> How {
    let failed = failure.wait_for(|(count, _)| number < *count).await.map(|failed| failed.1);
    failed.unwrap_or(How::Reset)
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
        How::Stranded => std::future::pending().await,
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
            let most = if rate.is_some() { DRIP } else { CHUNK };
            let n = match from.read(&mut buffer[..most]).await {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(_) => return Err(How::Reset),
            };
            // What has come into the hole meanwhile stays in it.
            open(&mut manner, way).await;
            let trapped = reader.read(&buffer[..n], shared);
            let passed = trapped.map_or(n, |(at, _)| at);
            if passed > 0 && queue.send((Instant::now() + delay, buffer[..passed].to_vec())).await.is_err() {
                return Ok(());
            }
            if let Some((_, how)) = trapped {
                shared.sprung.fetch_add(1, Ordering::Relaxed);
                // The bytes before the point go out first.
                sleep(delay + Duration::from_millis(20)).await;
                return Err(how);
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
    /// The last bytes of HTTP's head, until it has ended.
    head: Option<[u8; 4]>,
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
            head: Some([0; 4]),
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
            if let Some(last) = &mut self.head {
                last.rotate_left(1);
                last[3] = bytes[i];
                i += 1;
                if last == b"\r\n\r\n" {
                    self.head = None;
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
                return Some((i + byte - self.position, how));
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
