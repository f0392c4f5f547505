//! A client of the relay for tests, with a codec of its own: what both sides say is checked against the design, and not
//! against our other side.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    ops::Deref,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use ring::hmac;
use serde_json::Value;

/// Time limit for every wait. Nothing takes that long, even on a busy computer.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const SCRIPT: &str = include_str!("../../../src/hold/relay.py");
pub const WINDOW: usize = 4 << 20;
pub const CHUNK: usize = 65_532;

pub const ACK: u8 = 1;
pub const PING: u8 = 2;
pub const PONG: u8 = 3;
pub const END: u8 = 4;
pub const BYE: u8 = 5;
pub const WELCOME: u8 = 6;

pub fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &parts.concat()).as_ref().try_into().unwrap()
}

/// The ports and the secret of a relay, which its clients know.
#[derive(Clone)]
pub struct Known {
    pub new: u16,
    pub resume: u16,
    pub key: Vec<u8>,
}

impl Known {
    /// Reads the answer of the script.
    pub fn from(answer: &str) -> Known {
        let words: Vec<&str> = answer.split_whitespace().collect();
        let ["LHR1", new, resume, key] = words[..] else { panic!("{answer}") };
        let key = (0..32).map(|i| u8::from_str_radix(&key[2 * i..2 * i + 2], 16).unwrap()).collect();
        Known { new: new.parse().unwrap(), resume: resume.parse().unwrap(), key }
    }
}

/// A relay that runs on this computer for a server of the test's.
pub struct Relay {
    home: tempfile::TempDir,
    pub server: TcpListener,
    known: Known,
    pub pid: u32,
}

impl Deref for Relay {
    type Target = Known;

    fn deref(&self) -> &Known {
        &self.known
    }
}

/// Changes constants of the script.
pub fn with(changes: &[(&str, &str)]) -> String {
    let mut script = SCRIPT.to_owned();
    for (from, to) in changes {
        assert_eq!(script.matches(from).count(), 1, "{from}");
        script = script.replace(from, to);
    }
    script
}

/// Runs the script as a placing session does, for a server at the address of this connection.
pub fn run(script: &str, home: &Path, connection: &str) -> String {
    let mut child = Command::new("python3")
        .args(["-IS", "-c", "import sys;exec(sys.stdin.read()) # labctl-ssh-proxy relay"])
        .env_clear()
        .env("HOME", home)
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("SSH_CONNECTION", connection)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

pub fn file(home: &Path) -> PathBuf {
    home.join(".cache/labctl-ssh-proxy/relay-1.json")
}

/// The words by which sshd names a connection to `server`.
pub fn named(connection: &TcpStream) -> String {
    let (from, to) = (connection.local_addr().unwrap(), connection.peer_addr().unwrap());
    format!("{} {} {} {}", from.ip(), from.port(), to.ip(), to.port())
}

impl Relay {
    pub fn start() -> Relay {
        Relay::of(SCRIPT)
    }

    pub fn of(script: &str) -> Relay {
        let home = tempfile::tempdir().unwrap();
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let placing = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        let _accepted = server.accept().unwrap();
        let answer = run(script, home.path(), &named(&placing));
        let known = Known::from(&answer);
        let record: Value = serde_json::from_slice(&fs::read(file(home.path())).unwrap()).unwrap();
        let pid = record["pid"].as_u64().unwrap().try_into().unwrap();
        Relay { home, server, known, pid }
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn address(&self) -> SocketAddr {
        self.server.local_addr().unwrap()
    }

    pub fn runs(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z")
    }

    /// The memory that it holds, in MiB.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid.try_into().unwrap()).unwrap();
        let _ = rustix::process::kill_process(pid, signal);
    }

    /// Begins a session. Returns it with the server's end.
    pub fn session(&self) -> (Session, TcpStream) {
        let session = Session::begin(self, 0);
        let (server, _) = self.server.accept().unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        (session, server)
    }

    /// Checks that a session works.
    pub fn works(&self) {
        let (mut session, mut server) = self.session();
        session.send(b"ping");
        let mut said = [0; 4];
        server.read_exact(&mut said).unwrap();
        server.write_all(b"pong").unwrap();
        assert_eq!((&said, &session.receive(4)[..]), (b"ping", &b"pong"[..]));
        session.bye();
        assert_eq!(server.read(&mut said).unwrap(), 0);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.signal(rustix::process::Signal::KILL);
    }
}

/// A frame that is no data.
pub type Control = (u8, Vec<u8>);

/// A session, with the figures of both directions.
pub struct Session {
    pub stream: TcpStream,
    pub id: [u8; 16],
    pub secret: [u8; 32],
    resume_port: u16,
    relay_key: Vec<u8>,
    pub attempt: u32,
    pub received: u64,
    pub sent: u64,
    pub hello: Vec<u8>,
    left: usize,
}

pub fn dial(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

pub fn read<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

pub fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes().to_vec();
    frame[0] = kind;
    frame.extend_from_slice(payload);
    frame
}

impl Session {
    pub fn begin(relay: &Known, flags: u8) -> Session {
        let mut stream = dial(relay.new);
        let first: [u8; 44] = read(&mut stream).unwrap();
        assert_eq!((&first[..6], &first[6..8]), (&b"LHR1\x01\x00"[..], &64_u16.to_be_bytes()[..]));
        assert_eq!(u32::from_be_bytes(first[40..].try_into().unwrap()) as usize, WINDOW);
        let (id, theirs) = (&first[8..24], &first[24..40]);
        let (nonce, head) = ([7; 16], [1, flags, 0, 64, 0, 0]);
        let port = relay.new.to_be_bytes();
        let fields: [&[u8]; 5] = [&port, id, theirs, &nonce, &head];
        let tag = mac(&relay.key, &[b"new-c", &fields.concat()]);
        let hello = [b"LHC1", &head[..], &nonce, &tag[..16]].concat();
        stream.write_all(&hello).unwrap();
        let mut session = Session {
            stream,
            id: id.try_into().unwrap(),
            secret: mac(&relay.key, &[b"session", id, theirs, &nonce]),
            resume_port: relay.resume,
            relay_key: relay.key.clone(),
            attempt: 0,
            received: 0,
            sent: 0,
            hello,
            left: 0,
        };
        let welcome = mac(&relay.key, &[b"new-r", &fields.concat()]);
        let mut early = Vec::new();
        loop {
            match session.next().unwrap() {
                Ok(data) => early.extend(data),
                Err((WELCOME, tag)) => break assert_eq!(tag, &welcome[..16]),
                Err(other) => panic!("{other:?}"),
            }
        }
        assert!(early.len() <= 8192, "a client that is not known yet gets {} bytes", early.len());
        session
    }

    /// The next bytes, or the next frame without data.
    pub fn next(&mut self) -> io::Result<Result<Vec<u8>, Control>> {
        loop {
            if self.left > 0 {
                let mut bytes = vec![0; self.left];
                let n = self.stream.read(&mut bytes)?;
                if n == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                bytes.truncate(n);
                self.left -= n;
                self.received += n as u64;
                return Ok(Ok(bytes));
            }
            let [kind, a, b, c]: [u8; 4] = read(&mut self.stream)?;
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            assert!(length <= CHUNK, "{length}");
            if kind == 0 {
                self.left = length;
            } else {
                let mut payload = vec![0; length];
                self.stream.read_exact(&mut payload)?;
                return Ok(Err((kind, payload)));
            }
        }
    }

    /// The next `n` bytes, which are acknowledged.
    pub fn receive(&mut self, n: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < n {
            if let Ok(data) = self.next().unwrap() {
                all.extend(data);
                self.acknowledge();
            }
        }
        assert_eq!(all.len(), n);
        all
    }

    /// The next frame of this type. What comes before it is dropped.
    pub fn until(&mut self, kind: u8) -> Vec<u8> {
        loop {
            match self.next().unwrap() {
                Err((found, payload)) if found == kind => return payload,
                _ => {}
            }
        }
    }

    pub fn end(&mut self) -> (u8, u64, String) {
        let end = self.until(END);
        (end[0], u64::from_be_bytes(end[1..9].try_into().unwrap()), String::from_utf8(end[9..].to_vec()).unwrap())
    }

    pub fn put(&mut self, kind: u8, payload: &[u8]) {
        self.stream.write_all(&frame(kind, payload)).unwrap();
    }

    pub fn send(&mut self, data: &[u8]) {
        for chunk in data.chunks(CHUNK) {
            self.put(0, chunk);
            self.sent += chunk.len() as u64;
        }
    }

    pub fn acknowledge(&mut self) {
        self.put(ACK, &self.received.to_be_bytes());
    }

    pub fn bye(&mut self) {
        self.put(BYE, &self.sent.to_be_bytes());
    }

    pub fn resume_words(&self, attempt: u32, received: u64, flags: u8) -> Vec<u8> {
        let fields = [&self.id[..], &attempt.to_be_bytes(), &received.to_be_bytes(), &[9; 16]].concat();
        let tag = mac(&self.secret, &[b"res-c", &self.resume_port.to_be_bytes(), &fields, &[flags]]);
        [b"LHC1", &[1, flags][..], &fields, &tag[..16]].concat()
    }

    /// Goes on over a new connection. Returns the answer's status, and the number of bytes that the relay has.
    pub fn resume(&mut self) -> (u8, u64) {
        self.attempt += 1;
        self.resume_with(self.attempt, self.received, 0)
    }

    pub fn resume_with(&mut self, attempt: u32, received: u64, flags: u8) -> (u8, u64) {
        let mut stream = dial(self.resume_port);
        stream.write_all(&self.resume_words(attempt, received, flags)).unwrap();
        let answer: [u8; 30] = read(&mut stream).unwrap();
        assert_eq!(&answer[..5], b"LHR1\x01");
        let status = answer[5];
        let key = if status == 0 { &self.secret[..] } else { &self.relay_key };
        let said: [&[u8]; 7] = [
            b"res-r",
            &self.resume_port.to_be_bytes(),
            &self.id,
            &attempt.to_be_bytes(),
            &answer[6..14],
            &[9; 16],
            &[status],
        ];
        assert_eq!(answer[14..], mac(key, &said)[..16], "status {status}");
        self.stream = stream;
        self.left = 0;
        (status, u64::from_be_bytes(answer[6..14].try_into().unwrap()))
    }
}

/// Checks that the other side closes the connection, whatever it says before.
pub fn is_closed(mut stream: &TcpStream) -> bool {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}
