//! UDP forwards: `-L 5353:8.8.8.8:53/udp`.
//!
//! Each datagram travels as one frame on an SSH connection to a small relay on the machine, so its boundaries are kept.
//! The relay has a socket for each peer, so that answers reach the right one. The relay is a script for python3 or
//! perl, depending on what the machine has. It is passed on the command line, writes no file, and ends with the
//! connection.
//!
//! Datagrams are dropped, as on any network, when the queue is full and while the machine is unavailable. The one thing
//! that can delay a datagram is TCP, which delivers in order.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use russh::{Channel, ChannelMsg, client::Msg};
use socket2::{Socket, Type};
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    time::{Instant, interval, timeout},
};

use crate::{
    error::{Error, Kind, Result, printable},
    ssh::{
        client::SshClient,
        marked::{self, Marked},
    },
};

use super::{
    board::{Board, Connection, Row},
    local::bind_port,
    spec::Bind,
    way::{Pauses, Way},
};

/// Maximum number of peers. Each is a socket on the machine, where a process may have 1024 files open. A new peer
/// replaces the one that has been idle for longest.
const MAX_PEERS: usize = 512;
/// Capacity of the queue of datagrams that wait for the SSH connection.
const QUEUE: usize = 1024;
/// Number of bytes of queued frames that are combined into one SSH message.
const BATCH: usize = 32 * 1024;
/// Size of a frame's header: length and peer.
const HEADER: usize = 6;
/// The length field of a frame that forgets the peer. It exceeds any UDP payload (65,507 bytes over IPv4).
const FORGET: u16 = u16::MAX;
/// Time limit for the relay to start, which takes an interpreter and perhaps a host look-up.
const START: Duration = Duration::from_secs(20);
/// Number of bytes kept of the relay's standard error when it does not start.
const WORDS: usize = 4 * 1024;
/// Number of bytes that a login shell may print before the relay.
const MAX_GREETING: usize = 64 * 1024;
/// Size of the socket buffers, for bursts. The system's default holds only a few large datagrams.
const BUFFER: usize = 1 << 20;

const PYTHON: &str = include_str!("relay.py");
const PERL: &str = include_str!("relay.pl");

/// Binds `port` for UDP.
///
/// # Errors
/// As [`super::local::Listeners::bind`].
pub(crate) async fn bind(bind: &Bind, port: u16, board: &Board) -> Result<Vec<UdpSocket>> {
    let open = |socket: Socket| -> io::Result<(UdpSocket, SocketAddr)> {
        // If the system does not permit this size, carry on with its own.
        let _ = socket.set_recv_buffer_size(BUFFER);
        let _ = socket.set_send_buffer_size(BUFFER);
        let socket = UdpSocket::from_std(socket.into())?;
        let address = socket.local_addr()?;
        Ok((socket, address))
    };
    bind_port(bind, port, Type::DGRAM, open, board).await
}

/// The relay on the machine.
pub(crate) struct Relay {
    ssh: SshClient,
    channel: Channel<Msg>,
    /// Bytes that arrived after the relay's first frame.
    early: Vec<u8>,
}

impl Relay {
    /// Starts the relay.
    ///
    /// # Errors
    /// The errors of [`Way::ssh`], and [`Kind::Program`] when the machine has neither python3 nor perl, or the relay
    /// fails.
    pub(crate) async fn start(way: &Way, host: &str, port: u16) -> Result<Relay> {
        let ssh = way.ssh().await?;
        let marked = Marked::new();
        let mut channel = ssh.exec(&command(&marked, host, port)).await?;
        let failed = |why: String| Err(Error::new(Kind::Program, format!("machine {}: {why}", way.machine())));
        let (mut early, mut complaint, mut status) = (Vec::new(), Vec::new(), None);
        let started = async {
            while let Some(message) = channel.wait().await {
                match message {
                    ChannelMsg::Data { data } => early.extend_from_slice(&data),
                    // Bounded, because the machine may send an unlimited amount. The rest is discarded.
                    ChannelMsg::ExtendedData { data, .. } => {
                        complaint.extend(data.iter().take(WORDS.saturating_sub(complaint.len())));
                    }
                    ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
                    _ => {}
                }
                // The login shell may print before the relay runs.
                let relay = marked.after_start(&early);
                if relay.map_or(early.len() > MAX_GREETING, |relay| relay.len() >= HEADER) {
                    return true;
                }
            }
            false
        };
        let started = timeout(START, started).await;
        match (started, marked.after_start(&early)) {
            (Ok(true), Some(relay)) if relay.starts_with(&[0; HEADER]) => {
                let early = relay[HEADER..].to_vec();
                Ok(Relay { ssh, channel, early })
            }
            (Ok(true), _) => failed("something other than the UDP relay answers".into())
                .map_err(|error| error.with_hint("check what its shell's startup files print")),
            (Ok(false), None) => {
                let words = printable(&String::from_utf8_lossy(&complaint));
                Err(marked::not_run(&format!("machine {}", way.machine()), &words))
            }
            (Ok(false), _) if status == Some(MISSING) => {
                let error = Error::new(
                    Kind::Program,
                    format!("UDP forwards need python3 or perl, and machine {} has none that runs", way.machine()),
                );
                Err(error.with_hint("install one of them on the machine"))
            }
            (Ok(false), _) => {
                failed(format!("the UDP relay ended: {}", printable(&String::from_utf8_lossy(&complaint))))
            }
            (Err(_elapsed), _) => {
                failed(format!("the UDP relay did not start within {} s", START.as_secs())).map_err(|error| {
                    error.with_hint("check that its shell's startup files finish, ask nothing and print nothing")
                })
            }
        }
    }
}

/// The exit status that reports a missing interpreter.
const MISSING: u32 = 127;

/// Returns the command that starts the relay. All shells read the quoted part alike, whichever one the user has. An
/// interpreter that is there may not run: a version manager's stand-in has no version then.
fn command(marked: &Marked, host: &str, port: u16) -> String {
    let (python, perl, host, start) = (hex(PYTHON), hex(PERL), hex(host), marked.start());
    format!(
        "/bin/sh -c \"{start}; python3 -c 'import select' 2>/dev/null && \
         exec python3 -c 'import sys;exec(bytes.fromhex(sys.argv[1]))' {python} {host} {port}; \
         perl -e 'use IO::Poll' 2>/dev/null && exec perl -e 'eval pack(q(H*),shift)' {perl} {host} {port}; \
         exit {MISSING}\""
    )
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn frame(peer: u32, data: &[u8], into: &mut Vec<u8>) {
    // Always fits, because a datagram has at most 65,507 bytes.
    let Some(length) = u16::try_from(data.len()).ok().filter(|length| *length != FORGET) else { return };
    into.extend_from_slice(&length.to_be_bytes());
    into.extend_from_slice(&peer.to_be_bytes());
    into.extend_from_slice(data);
}

/// Takes the next complete frame from `bytes`, beginning at `at`.
fn next_frame<'a>(bytes: &'a [u8], at: &mut usize) -> Option<(u32, &'a [u8])> {
    let (length, rest) = bytes.get(*at..)?.split_first_chunk::<2>()?;
    let (peer, rest) = rest.split_first_chunk::<4>()?;
    let data = rest.get(..usize::from(u16::from_be_bytes(*length)))?;
    *at += HEADER + data.len();
    Some((u32::from_be_bytes(*peer), data))
}

/// One UDP forward.
pub(crate) struct Udp {
    /// The connection to the machine.
    pub way: Arc<Way>,
    /// The destination, as the machine sees it.
    pub to: (String, u16),
    /// Time after which an idle peer is forgotten.
    pub idle: Duration,
    /// The output.
    pub board: Arc<Board>,
    /// The forward's row in the output.
    pub row: Arc<Row>,
}

/// The senders of datagrams to this forward.
#[derive(Default)]
struct Peers {
    by_address: HashMap<(usize, SocketAddr), u32>,
    by_number: HashMap<u32, Peer>,
    last: u32,
    /// Peers that the relay has not been told to forget yet.
    forgotten: Vec<u32>,
}

struct Peer {
    /// Index of our socket that the peer sends to.
    socket: usize,
    address: SocketAddr,
    active: Instant,
    connection: Connection,
}

impl Peers {
    /// Returns the peer's number. A new peer replaces, if necessary, the one that has been idle for longest.
    fn number(&mut self, key: (usize, SocketAddr), open: impl FnOnce() -> Connection) -> u32 {
        if let Some(number) = self.by_address.get(&key) {
            return *number;
        }
        if self.by_number.len() >= MAX_PEERS
            && let Some(oldest) = self.by_number.iter().min_by_key(|(_, peer)| peer.active).map(|(number, _)| *number)
        {
            self.forget(oldest);
        }
        // 0 is the relay itself. Numbers wrap around after four billion peers.
        self.last = self.last.checked_add(1).unwrap_or(1);
        self.by_address.insert(key, self.last);
        let peer = Peer { socket: key.0, address: key.1, active: Instant::now(), connection: open() };
        self.by_number.insert(self.last, peer);
        self.last
    }

    fn forget(&mut self, number: u32) {
        if let Some(peer) = self.by_number.remove(&number) {
            self.by_address.remove(&(peer.socket, peer.address));
            self.forgotten.push(number);
        }
    }

    fn idle_for(&self, idle: Duration) -> Vec<u32> {
        self.by_number.iter().filter(|(_, peer)| peer.active.elapsed() > idle).map(|(number, _)| *number).collect()
    }
}

impl Udp {
    /// Forwards datagrams until the playground no longer exists. Starts a new relay after the machine was unavailable.
    ///
    /// # Errors
    /// Fails when the playground no longer exists.
    pub(crate) async fn serve(self, sockets: Vec<UdpSocket>, relay: Relay) -> Result<()> {
        let peers = Mutex::new(Peers::default());
        let (queue, mut queued) = mpsc::channel::<Vec<u8>>(QUEUE);
        let listen = async {
            let all = sockets.iter().enumerate().map(|(i, socket)| Box::pin(self.listen(i, socket, &peers, &queue)));
            futures_util::future::join_all(all).await;
        };
        let pass = async {
            let (mut relay, mut pauses) = (relay, Pauses::default());
            loop {
                let since = Instant::now();
                self.pass(relay, &sockets, &peers, &mut queued).await;
                *peers.lock().unwrap_or_else(PoisonError::into_inner) = Peers::default();
                let (host, port) = &self.to;
                let what = format!("the UDP relay on machine {} has ended", self.way.machine());
                self.board.problem(&format!("{what}; starting it again"));
                pauses.after(since).await;
                relay = self.way.insist(&what, || Relay::start(&self.way, host, *port)).await?;
                // Datagrams that arrived meanwhile are too old to be useful.
                while queued.try_recv().is_ok() {
                    self.row.dropped();
                }
            }
        };
        tokio::select! {
            ended = pass => ended,
            () = listen => Err(Error::new(Kind::Internal, "a UDP forward failed unexpectedly")),
        }
    }

    /// Receives datagrams. Only adds to the queue, so it never waits for the machine.
    async fn listen(&self, i: usize, socket: &UdpSocket, peers: &Mutex<Peers>, queue: &mpsc::Sender<Vec<u8>>) {
        let mut buffer = vec![0; 1 << 16];
        let mut tick = interval((self.idle / 4).max(Duration::from_millis(10)));
        loop {
            let received = tokio::select! {
                received = socket.recv_from(&mut buffer) => received,
                _ = tick.tick() => {
                    let mut peers = peers.lock().unwrap_or_else(PoisonError::into_inner);
                    for number in peers.idle_for(self.idle) {
                        peers.forget(number);
                    }
                    if !peers.forgotten.is_empty() {
                        // An empty entry makes `pass` send the forget frames. If the queue is full, other entries do
                        // so.
                        let _ = queue.try_send(Vec::new());
                    }
                    continue;
                }
            };
            // An error here means that an earlier answer could not be delivered because the peer is gone.
            let Ok((n, address)) = received else { continue };
            let mut peers = peers.lock().unwrap_or_else(PoisonError::into_inner);
            let open = || self.board.open(&self.row, &super::local::shown(address));
            let number = peers.number((i, address), open);
            let mut framed = Vec::with_capacity(HEADER + n);
            frame(number, &buffer[..n], &mut framed);
            match queue.try_send(framed) {
                Ok(()) => {
                    if let Some(peer) = peers.by_number.get_mut(&number) {
                        peer.active = Instant::now();
                        peer.connection.sent(n);
                    }
                }
                Err(_) => self.row.dropped(),
            }
        }
    }

    /// Passes frames between the queue and the relay until the relay ends.
    async fn pass(
        &self,
        relay: Relay,
        sockets: &[UdpSocket],
        peers: &Mutex<Peers>,
        queued: &mut mpsc::Receiver<Vec<u8>>,
    ) {
        let Relay { ssh, channel, early } = relay;
        let (mut from, to) = channel.split();
        let up = async {
            while let Some(mut batch) = queued.recv().await {
                while batch.len() < BATCH
                    && let Ok(more) = queued.try_recv()
                {
                    batch.extend_from_slice(&more);
                }
                // Only after the last queued datagram: one sent later would make the relay remember the peer again.
                if queued.is_empty() {
                    let mut peers = peers.lock().unwrap_or_else(PoisonError::into_inner);
                    batch.extend(std::mem::take(&mut peers.forgotten).into_iter().flat_map(forget));
                }
                if to.data_bytes(batch).await.is_err() {
                    return;
                }
            }
        };
        let down = async {
            let mut left = early;
            while let Some(message) = from.wait().await {
                match message {
                    ChannelMsg::Data { data } => left.extend_from_slice(&data),
                    ChannelMsg::ExtendedData { data, .. } => {
                        log::warn!("the UDP relay reports: {}", printable(&String::from_utf8_lossy(&data)));
                    }
                    _ => {}
                }
                let mut at = 0;
                while let Some((number, data)) = next_frame(&left, &mut at) {
                    let mut peers = peers.lock().unwrap_or_else(PoisonError::into_inner);
                    let Some(peer) = peers.by_number.get_mut(&number) else { continue };
                    peer.active = Instant::now();
                    // If the socket's buffer is full, drop the datagram. Waiting would hold up the other peers.
                    match sockets[peer.socket].try_send_to(data, peer.address) {
                        Ok(n) => peer.connection.received(n),
                        Err(_) => self.row.dropped(),
                    }
                }
                left.drain(..at);
            }
        };
        tokio::select! {
            () = up => {}
            () = down => {}
        }
        ssh.close().await;
    }
}

fn forget(number: u32) -> impl Iterator<Item = u8> {
    FORGET.to_be_bytes().into_iter().chain(number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Marked, command, frame, next_frame};

    #[test]
    fn the_command_is_one_that_every_shell_reads_alike() {
        let command = command(&Marked::new(), "10.0.0.1", 53);
        assert!(!command.contains(['$', '`', '!', '\\', '\n', '{', '#']), "{command}");
        assert_eq!(command.matches('"').count(), 2);
        // Linux accepts at most 128 KiB in one argument.
        assert!(command.len() < 32 * 1024);
    }

    /// Runs the command in `shell`, with only `programs` in PATH.
    #[cfg(unix)]
    fn run(shell: &str, programs: &[&str], port: u16) -> (tempfile::TempDir, Marked, std::process::Child) {
        use std::process::{Command, Stdio};
        let (bin, marked) = (tempfile::tempdir().unwrap(), Marked::new());
        for program in programs {
            // The system's own program: a version manager's may be a script that needs other programs.
            let found = which::which_in(program, Some("/usr/bin:/bin:/usr/local/bin:/opt/homebrew/bin"), "/").unwrap();
            std::os::unix::fs::symlink(found, bin.path().join(program)).unwrap();
        }
        let shell = which::which(shell).unwrap_or_else(|_| panic!("{shell} is missing: scripts/test installs it"));
        let child = Command::new(shell)
            .arg("-c")
            .arg(command(&marked, "localhost", port))
            .env_clear()
            .env("PATH", bin.path())
            .env("HOME", bin.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        (bin, marked, child)
    }

    #[cfg(unix)]
    #[test]
    fn either_interpreter_will_do_in_any_shell_and_ends_with_its_input() {
        use std::io::{Read, Write};
        let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        let port = server.local_addr().unwrap().port();
        for (shell, interpreter) in
            [("sh", "python3"), ("sh", "perl"), ("fish", "perl"), ("tcsh", "perl"), ("zsh", "python3")]
        {
            let (bin, marked, mut child) = run(shell, &[interpreter], port);
            let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
            let mut first = Vec::new();
            while marked.after_start(&first).is_none_or(|relay| relay.len() < super::HEADER) {
                let mut byte = [0];
                stdout.read_exact(&mut byte).unwrap();
                first.extend(byte);
            }
            assert_eq!(marked.after_start(&first), Some(&[0; super::HEADER][..]));
            let mut buffer = vec![0; 70_000];
            let mut sources = Vec::new();
            for (peer, size) in [(7, 3), (9, 0), (7, 61_440), (u32::MAX, 65_507)] {
                let data: Vec<u8> = (0..size).map(|i: usize| (i % 251) as u8).collect();
                let mut framed = Vec::new();
                frame(peer, &data, &mut framed);
                stdin.write_all(&framed).unwrap();
                stdin.flush().unwrap();
                let (n, from) = server.recv_from(&mut buffer).unwrap();
                assert!(buffer[..n] == data, "{shell} {interpreter}: {n} of {size}");
                server.send_to(&data, from).unwrap();
                let mut back = vec![0; framed.len()];
                stdout.read_exact(&mut back).unwrap();
                assert!(back == framed);
                sources.push(from);
            }
            assert!(sources[0] == sources[2] && sources[0] != sources[1]);
            stdin.write_all(&super::forget(7).collect::<Vec<_>>()).unwrap();
            let mut framed = Vec::new();
            frame(7, b"new", &mut framed);
            stdin.write_all(&framed).unwrap();
            assert_ne!(server.recv_from(&mut buffer).unwrap().1, sources[0], "it was forgotten");
            drop(stdin);
            assert!(child.wait().unwrap().success(), "{shell} {interpreter}");
            drop(bin);
        }
    }

    #[cfg(unix)]
    #[test]
    fn that_there_is_no_interpreter_is_told_from_other_failures() {
        let (_bin, _, mut child) = run("sh", &[], 1);
        assert_eq!(child.wait().unwrap().code(), Some(super::MISSING.cast_signed()));
    }

    /// A version manager's stand-in for python3 runs nothing as long as no version is chosen.
    #[cfg(unix)]
    #[test]
    fn an_interpreter_that_cannot_run_is_passed_over() {
        use std::{io::Read, process::Stdio};
        let bin = tempfile::tempdir().unwrap();
        crate::files::write_script(&bin.path().join("python3"), "echo no version is set >&2; exit 127");
        let perl = which::which_in("perl", Some("/usr/bin:/bin:/usr/local/bin:/opt/homebrew/bin"), "/").unwrap();
        std::os::unix::fs::symlink(perl, bin.path().join("perl")).unwrap();
        let marked = Marked::new();
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", &command(&marked, "localhost", 1)])
            .env_clear()
            .env("PATH", bin.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdin.take());
        let mut said = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut said).unwrap();
        assert_eq!(marked.after_start(&said), Some(&[0; super::HEADER][..]));
        assert!(child.wait().unwrap().success());
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(datagrams in prop::collection::vec((any::<u32>(), prop::collection::vec(any::<u8>(), 0..300)), 0..20), cut in 1usize..700) {
            let mut bytes = Vec::new();
            for (peer, data) in &datagrams {
                frame(*peer, data, &mut bytes);
            }
            let (mut left, mut back) = (Vec::new(), Vec::new());
            for piece in bytes.chunks(cut) {
                left.extend_from_slice(piece);
                let mut at = 0;
                while let Some((peer, data)) = next_frame(&left, &mut at) {
                    back.push((peer, data.to_vec()));
                }
                left.drain(..at);
            }
            prop_assert!(left.is_empty());
            prop_assert_eq!(back, datagrams);
        }
    }
}
