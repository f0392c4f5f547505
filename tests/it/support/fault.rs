//! A faulty platform: healthy in every phase of a connection except one. It shares no code with the program.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use socket2::{Domain, Socket, Type};
use tokio_rustls::rustls::{self, pki_types::PrivateKeyDer};

pub const PLAY: &str = "0123456789abcdef01234567";
/// Secrets that must never appear anywhere.
pub const SESSION: &str = "planted-session-id";
pub const ACCESS: &str = "planted-access-token";
pub const LOGIN: &str = "planted-login-address";
pub const TOKEN: &str = "planted-tunnel-token";

/// The phases of a connection, each with its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// `GET /plays/{id}`
    Find,
    /// `POST /plays/{id}/tunnels`
    Session,
    /// `GET` of the login URL
    Login,
    /// The WebSocket's upgrade
    Upgrade,
    /// The data in the WebSocket
    Data,
}

/// The fault of a platform.
#[derive(Clone, Debug)]
pub enum Fault {
    Nothing,
    /// No process listens.
    Refused,
    /// The connection is reset.
    Reset,
    /// The connection is closed without an answer.
    Closed,
    /// No answer ever comes.
    BlackHole,
    /// A healthy answer, one byte each second.
    Drip,
    /// Half of a healthy answer, then the end of the stream.
    HalfClosed,
    /// An answer with this status, these headers and this body.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// An answer with this status and these headers for that long, then health. [`ITS_END`] in a header is the Unix time
    /// of the first second after it.
    Storm(u16, Vec<(&'static str, String)>, Duration),
    /// An answer whose announced length is that many bytes.
    Huge(u64),
    /// An endless answer.
    Endless,
    /// Endless headers.
    EndlessHeaders,
    /// Endless 100 Continue.
    EndlessContinue,
    /// These bytes instead of HTTP.
    Bytes(Vec<u8>),
    /// An upgrade whose accept key is wrong.
    WrongAccept,
    /// After the upgrade: these bytes, then the end that `After` describes.
    Frames(Vec<u8>, After),
}

/// The behaviour of a server after its last bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Goes on reading, and sends nothing.
    Silence,
    /// Ends the TCP connection.
    End,
    /// Resets the connection.
    Reset,
    /// Repeats its last bytes forever, and reads nothing.
    Repeat,
    /// Sends its bytes one each second, and ends.
    Drip,
}

#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The TLS configuration of a server, if it uses TLS.
pub type Tls = Option<Arc<rustls::ServerConfig>>;

pub struct Fake {
    pub address: SocketAddr,
    pub base: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
}

struct Server {
    base: String,
    tunnel_base: String,
    phase: Phase,
    fault: Fault,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
    since: Instant,
    hits: AtomicUsize,
}

impl Fake {
    pub fn start(phase: Phase, fault: Fault) -> Fake {
        Fake::with(phase, fault, None, None, "127.0.0.1")
    }

    /// Starts a platform. `tunnels` is the base address of logins and tunnels, if it is another one. `name` is the
    /// platform's own host name.
    pub fn with(phase: Phase, fault: Fault, tls: Tls, tunnels: Option<String>, name: &str) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let base = format!("{}://{name}:{}", if tls.is_some() { "https" } else { "http" }, address.port());
        let (seen, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let server = Arc::new(Server {
            tunnel_base: tunnels.unwrap_or_else(|| base.clone()),
            base: base.clone(),
            phase,
            fault,
            seen: Arc::clone(&seen),
            stop: Arc::clone(&stop),
            since: Instant::now(),
            hits: AtomicUsize::new(0),
        });
        thread::spawn(move || {
            // The listener is dropped with this thread. From then on, connections are refused.
            while !server.stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((tcp, _)) => {
                        let (server, tls) = (Arc::clone(&server), tls.clone());
                        thread::spawn(move || {
                            let _ = server.serve(tcp, tls);
                        });
                    }
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Fake { address, base, seen, stop }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Stands in a header of a [`Fault::Storm`].
pub const ITS_END: &str = "(its end)";

/// A port without a listener. It stays bound, so that no other test is given it.
pub fn closed_port() -> u16 {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket_ipv4().unwrap().port();
    std::mem::forget(socket);
    port
}

trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

impl Server {
    fn serve(&self, tcp: TcpStream, tls: Tls) -> io::Result<()> {
        tcp.set_nonblocking(false)?;
        let raw = tcp.try_clone()?;
        match tls {
            None => self.talk(&mut { tcp }, &raw),
            Some(config) => {
                let connection = rustls::ServerConnection::new(config).map_err(io::Error::other)?;
                self.talk(&mut rustls::StreamOwned::new(connection, tcp), &raw)
            }
        }
    }

    fn talk(&self, wire: &mut dyn Wire, raw: &TcpStream) -> io::Result<()> {
        while let Some(request) = read_request(wire)? {
            self.seen.lock().unwrap().push(request.clone());
            let phase = phase_of(&request);
            if phase == Some(self.phase) && !matches!(self.fault, Fault::Nothing) {
                self.hits.fetch_add(1, Ordering::Relaxed);
                match self.fail(wire, raw, &request)? {
                    Failed::No => {}
                    Failed::Answered => continue,
                    Failed::Ended => return Ok(()),
                }
            }
            match self.healthy(&request) {
                Some(answer) => wire.write_all(&answer)?,
                None => return self.tunnel(wire, raw, &request),
            }
            wire.flush()?;
            if self.phase == Phase::Session && matches!(self.fault, Fault::Refused) {
                self.stop.store(true, Ordering::Relaxed);
                return raw.shutdown(Shutdown::Both);
            }
        }
        Ok(())
    }

    /// Returns a healthy answer, or `None` for an upgrade.
    fn healthy(&self, request: &Seen) -> Option<Vec<u8>> {
        let (base, here) = (&self.tunnel_base, &self.base);
        let body = match phase_of(request) {
            Some(Phase::Find) => format!(
                r#"{{"id":"{PLAY}","title":"t","playground":{{"name":"docker"}},"pageUrl":"{here}","expiresIn":3600000,
                "machines":[{{"name":"m","users":[{{"name":"root"}}]}}],"status":{{"stateEvents":[{{"state":"RUNNING"}}],
                "machines":[{{"name":"m","state":"RUNNING","conditions":[{{"name":"Ready","status":"True"}}]}}]}}}}"#
            ),
            Some(Phase::Session) => format!(r#"{{"url":"{base}","loginUrl":"{base}/login/{LOGIN}"}}"#),
            Some(Phase::Login) => {
                return Some(answer(200, &[("Set-Cookie", format!(".ixcondsess={TOKEN}; Path=/; Secure"))], "welcome"));
            }
            Some(Phase::Upgrade | Phase::Data) => return None,
            None if request.path.starts_with("/api/auth/me") => r#"{"id":"somebody"}"#.to_owned(),
            None if request.path.starts_with("/api/plays") && request.method == "GET" => "[]".to_owned(),
            None => return Some(answer(404, &[], "no such thing")),
        };
        Some(answer(200, &[], &body))
    }

    fn tunnel(&self, wire: &mut dyn Wire, raw: &TcpStream, request: &Seen) -> io::Result<()> {
        let key = request.header("sec-websocket-key").unwrap_or_default();
        let accept = if matches!(self.fault, Fault::WrongAccept) {
            "x".to_owned()
        } else {
            let mut hash = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
            hash.update(key.as_bytes());
            hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
            BASE64_STANDARD.encode(hash.finish())
        };
        let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
        wire.write_all(format!("{head}Sec-WebSocket-Accept: {accept}\r\n\r\n").as_bytes())?;
        wire.flush()?;
        let (words, after) = match &self.fault {
            Fault::Frames(words, after) if self.phase == Phase::Data => (words.clone(), *after),
            _ => (frame(0x82, b"SSH-2.0-fake\r\n"), After::End),
        };
        for part in words.chunks(if after == After::Drip { 1 } else { usize::MAX }) {
            wire.write_all(part)?;
            wire.flush()?;
            if after == After::Drip {
                thread::sleep(Duration::from_secs(1));
            }
        }
        match after {
            After::End | After::Drip => {
                raw.shutdown(Shutdown::Write)?;
                hold(wire)
            }
            After::Reset => {
                // Wait until the client has read everything, because a reset discards unread data.
                thread::sleep(Duration::from_millis(300));
                reset(raw)
            }
            After::Repeat => loop {
                wire.write_all(&words)?;
            },
            After::Silence => hold(wire),
        }
    }

    /// Performs the fault on a request.
    fn fail(&self, wire: &mut dyn Wire, raw: &TcpStream, request: &Seen) -> io::Result<Failed> {
        match &self.fault {
            Fault::Nothing | Fault::Refused | Fault::WrongAccept | Fault::Frames(..) => return Ok(Failed::No),
            Fault::Reset => reset(raw)?,
            Fault::Closed => raw.shutdown(Shutdown::Both)?,
            Fault::BlackHole => hold(wire)?,
            Fault::Drip => {
                let whole = self.healthy(request).unwrap_or_else(|| b"HTTP/1.1 101 Switching Protocols\r\n".to_vec());
                for byte in whole {
                    wire.write_all(&[byte])?;
                    wire.flush()?;
                    thread::sleep(Duration::from_secs(1));
                }
            }
            Fault::HalfClosed => {
                let whole = self.healthy(request).unwrap_or_else(|| b"HTTP/1.1 101 Switching Protocols\r\n".to_vec());
                wire.write_all(&whole[..whole.len() - 5])?;
                wire.flush()?;
                raw.shutdown(Shutdown::Write)?;
                hold(wire)?;
            }
            Fault::Answer(status, headers, body) => {
                wire.write_all(&answer(*status, headers, body))?;
                wire.flush()?;
                return Ok(Failed::Answered);
            }
            Fault::Storm(status, headers, time) => {
                if self.since.elapsed() > *time {
                    return Ok(Failed::No);
                }
                let end = SystemTime::now() + time.saturating_sub(self.since.elapsed()) + Duration::from_secs(1);
                let end = end.duration_since(UNIX_EPOCH).unwrap().as_secs().to_string();
                let headers: Vec<_> = headers.iter().map(|(name, is)| (*name, is.replace(ITS_END, &end))).collect();
                wire.write_all(&answer(*status, &headers, "storm"))?;
                wire.flush()?;
                return Ok(Failed::Answered);
            }
            Fault::Huge(size) => {
                write!(wire, "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")?;
                let chunk = [b' '; 65536];
                for _ in 0..size / 65536 {
                    wire.write_all(&chunk)?;
                }
            }
            Fault::Endless => {
                wire.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                repeat(wire, format!("1000\r\n{}\r\n", "[".repeat(0x1000)).as_bytes())?;
            }
            Fault::EndlessHeaders => {
                wire.write_all(b"HTTP/1.1 200 OK\r\n")?;
                repeat(wire, b"X-Header: value\r\n")?;
            }
            Fault::EndlessContinue => repeat(wire, b"HTTP/1.1 100 Continue\r\n\r\n")?,
            Fault::Bytes(bytes) => {
                wire.write_all(bytes)?;
                wire.flush()?;
                raw.shutdown(Shutdown::Both)?;
            }
        }
        Ok(Failed::Ended)
    }
}

/// The fate of a request.
enum Failed {
    /// The request must be answered as if nothing were wrong.
    No,
    /// The request has its answer, and the connection goes on.
    Answered,
    /// The connection has ended.
    Ended,
}

fn repeat(wire: &mut dyn Wire, bytes: &[u8]) -> io::Result<()> {
    let many = bytes.repeat(100);
    loop {
        wire.write_all(&many)?;
        // Leave some processor time to the tests that run at the same time.
        thread::sleep(Duration::from_millis(1));
    }
}

/// Reads until the other side ends, and sends nothing.
fn hold(wire: &mut dyn Wire) -> io::Result<()> {
    let mut rest = [0; 4096];
    while wire.read(&mut rest)? > 0 {}
    Ok(())
}

fn reset(raw: &TcpStream) -> io::Result<()> {
    // Closing without lingering sends a reset. Both of our handles of the socket are dropped soon.
    socket2::SockRef::from(raw).set_linger(Some(Duration::ZERO))
}

fn phase_of(request: &Seen) -> Option<Phase> {
    let path = request.path.strip_prefix("/api").unwrap_or(&request.path);
    match (request.method.as_str(), path) {
        ("GET", path) if path == format!("/plays/{PLAY}") => Some(Phase::Find),
        ("POST", path) if path == format!("/plays/{PLAY}/tunnels") => Some(Phase::Session),
        ("GET", path) if path.starts_with("/login/") => Some(Phase::Login),
        ("GET", path) if path.starts_with("/tunnels/") => Some(Phase::Upgrade),
        _ => None,
    }
}

pub fn answer(status: u16, headers: &[(&'static str, String)], body: &str) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    (text + "\r\n" + body).into_bytes()
}

/// Builds a server's frame, which has no mask.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame_head(first, payload.len() as u64);
    bytes.extend_from_slice(payload);
    bytes
}

pub fn frame_head(first: u8, length: u64) -> Vec<u8> {
    let mut head = vec![first];
    match length {
        0..=125 => head.push(length as u8),
        126..=0xffff => {
            head.push(126);
            head.extend((length as u16).to_be_bytes());
        }
        _ => {
            head.push(127);
            head.extend(length.to_be_bytes());
        }
    }
    head
}

fn read_request(wire: &mut dyn Wire) -> io::Result<Option<Seen>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > 65536 || wire.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut lines = text.lines();
    let mut first = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let seen = Seen { method, path, headers };
    let length = seen.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    wire.read_exact(&mut vec![0; length])?;
    Ok(Some(seen))
}

/// A certificate authority of our own.
pub struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pub pem: String,
}

impl Authority {
    pub fn new() -> Authority {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: rcgen::Issuer::new(params, key), pem }
    }

    /// Returns a server configuration with a certificate for `name`, valid until 1 January of `year`.
    pub fn server(&self, name: &str, year: i32) -> Tls {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Some(config(certificate.der().clone(), &key, rustls::ALL_VERSIONS))
    }
}

fn config(
    certificate: rustls::pki_types::CertificateDer<'static>,
    key: &rcgen::KeyPair,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    Arc::new(config)
}
