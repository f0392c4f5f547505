//! Tunnels into machines: one WebSocket is one TCP connection, as in wsmux.
//!
//! | target | means |
//! | --- | --- |
//! | `HOST:PORT`, `dial:HOST:PORT` | a connection from the machine; its port 22 is its own SSH server |
//! | `listen:HOST:PORT` | the machine listens; this WebSocket tells of each connection as `{"type":"connect","cid":C}` |
//! | `connect:CID` | takes such a connection up, within 15 s |

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::Ipv4Addr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::Full;
use hyper::{HeaderMap, Request, Response, StatusCode, body::Incoming, header, upgrade};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{interval, sleep, timeout},
};
use tokio_websockets::{Limits, Message, ServerBuilder, WebSocketStream};

use crate::{
    labs::{
        http::{Stream, accept_key},
        net::Conn,
        tunnel::{COOKIE, Tunnel},
    },
    os::Peer,
};

use super::{
    access::{random, same},
    machine::Machine,
    refusal::{Answer, Refusal},
};

/// The time for which a login URL works: long enough for a client that tries again.
const LOGIN_TIME: Duration = Duration::from_secs(10 * 60);
/// The largest number of login URLs of one machine that work at a time; the oldest makes room for another.
const MAX_LOGINS: usize = 256;
/// The largest number of tunnels into one machine at a time.
const MAX_TUNNELS: usize = 512;
/// The largest number of connections to a machine's listening ports that wait for a client.
const MAX_PENDING: usize = 64;
/// The time for which they wait.
const PENDING_TIME: Duration = Duration::from_secs(15);
/// The limit of a machine's dial, whose targets are on this computer or near it.
const DIAL_TIME: Duration = Duration::from_secs(10);
/// The interval of pings on a control channel, as in wsmux.
const PING_EVERY: Duration = Duration::from_secs(30);
/// The interval of checks that the client of a blocked connection is still there.
const LOOK: Duration = Duration::from_secs(1);
/// The time that a program may then take to read the client's remaining data, [`COPY_SIZE`] bytes at a time.
const LAST_READ: Duration = Duration::from_secs(10);
/// The size of one copy: that of a tunnel's largest message.
const COPY_SIZE: usize = 64 * 1024;
/// The number of the next control channel.
static CHANNELS: AtomicU64 = AtomicU64::new(0);

/// The way into a machine while it is up: its token, its tunnels, and their end with it.
pub(super) struct Gate {
    machine: Arc<Machine>,
    no_ssh: bool,
    token: String,
    state: Mutex<State>,
    tunnels: Arc<Semaphore>,
    ended: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    logins: VecDeque<Login>,
    pending: BTreeMap<String, Parked>,
}

/// A login URL.
struct Login {
    secret: String,
    /// The tunnel for which it was made.
    session: String,
    since: Instant,
}

/// A connection that no client has taken up yet.
struct Parked {
    tcp: TcpStream,
    /// The control channel by which it came.
    channel: u64,
}

impl Gate {
    /// The way into a machine that has just come up, with or without SSH access.
    pub(super) fn new(machine: Machine, no_ssh: bool) -> Gate {
        Gate {
            machine: Arc::new(machine),
            no_ssh,
            token: random(32),
            state: Mutex::default(),
            tunnels: Arc::new(Semaphore::new(MAX_TUNNELS)),
            ended: watch::Sender::new(false),
        }
    }

    /// The machine.
    pub(super) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The tunnel of a token, if it is one of the machine's.
    pub(super) fn session_of_token<'a>(&self, token: &'a str) -> Option<&'a str> {
        let (own, session) = token.split_once('.')?;
        same(&self.token, own).then_some(session)
    }

    /// The token behind a login URL, the value of the cookie, if it is one of the machine's that still work.
    pub(super) fn token_of_login(&self, secret: &str) -> Option<String> {
        let state = self.locked();
        let login = state.logins.iter().find(|login| same(&login.secret, secret))?;
        Some(format!("{}.{}", self.token, login.session))
    }

    /// The secret of a new login URL for the tunnel of that name.
    pub(super) fn new_login(&self, session: String) -> String {
        let secret = random(32);
        let mut state = self.locked();
        if state.logins.len() >= MAX_LOGINS {
            state.logins.pop_front();
        }
        state.logins.push_back(Login { secret: secret.clone(), session, since: Instant::now() });
        secret
    }

    /// Ends all tunnels, connections and processes of the machine.
    pub(super) async fn end(&self) {
        self.ended.send_replace(true);
        self.locked().pending.clear();
        self.machine.stop().await;
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.logins.front().is_some_and(|login| login.since.elapsed() > LOGIN_TIME) {
            state.logins.pop_front();
        }
        state
    }
}

/// The target of a tunnel.
#[derive(Debug, PartialEq)]
enum Target {
    Dial { host: String, port: u16 },
    Listen { host: String, port: u16 },
    Connect { cid: String },
}

impl Target {
    /// Reads the path after `/tunnels/`.
    fn parse(encoded: &str) -> Answer<Target> {
        let wrong = |why: &str| Refusal::new(StatusCode::BAD_REQUEST, format!("invalid destination address: {why}"));
        // Clients differ in whether they escape the characters of base64 that mean something in a path.
        let encoded = encoded.replace("%2F", "/").replace("%2f", "/").replace("%2B", "+").replace("%2b", "+");
        let encoded = encoded.replace("%3D", "=").replace("%3d", "=");
        let decoded = BASE64_STANDARD.decode(encoded).map_err(|_| wrong("not base64"))?;
        let text = String::from_utf8(decoded).map_err(|_| wrong("not text"))?;
        let text = text.trim();
        if let Some(cid) = text.strip_prefix("connect:") {
            return Ok(Target::Connect { cid: cid.into() });
        }
        let (listen, address) = match text.strip_prefix("listen:") {
            Some(address) => (true, address),
            None => (false, text.strip_prefix("dial:").unwrap_or(text)),
        };
        let (host, port) = address.rsplit_once(':').ok_or_else(|| wrong("no port"))?;
        let port = port.parse().map_err(|_| wrong("not a port"))?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
        if host.contains(char::is_whitespace) {
            return Err(wrong("not a host"));
        }
        Ok(if listen { Target::Listen { host, port } } else { Target::Dial { host, port } })
    }
}

/// Reports whether a host means the machine itself. That is this computer, because machines share its network.
fn own_address(host: &str, machine: &str) -> bool {
    matches!(host, "" | "localhost" | "127.0.0.1" | "::1") || host == machine
}

/// The address on which a machine listens. It is the loopback interface even for all addresses, because a listener for
/// all of a real machine's network would here be one for all of this computer's.
fn listen_address(host: &str, machine: &str) -> String {
    if own_address(host, machine) && host != "::1" || matches!(host, "0.0.0.0" | "::" | "*") {
        Ipv4Addr::LOCALHOST.to_string()
    } else {
        host.to_owned()
    }
}

/// Answers `GET /tunnels/...` for a client with the machine's token. `guard` is held as long as the tunnel lives.
///
/// # Errors
/// 400 for a target that cannot be read or a request that is no upgrade, 404 for an unknown connection id, 409 for an
/// address that cannot be bound, 429 for too many tunnels.
pub(super) async fn open<G: Send + 'static>(
    gate: &Arc<Gate>,
    encoded: &str,
    request: &mut Request<Incoming>,
    guard: G,
) -> Answer<Response<Full<Bytes>>> {
    let target = Target::parse(encoded)?;
    let permit = Arc::clone(&gate.tunnels).try_acquire_owned().map_err(|_| {
        let words = format!("machine {} has {MAX_TUNNELS} tunnels already", gate.machine.name());
        Refusal::new(StatusCode::TOO_MANY_REQUESTS, words)
    })?;
    let hold = (permit, guard);
    let (answer, upgraded) = upgrade(request)?;
    match target {
        Target::Dial { host, port } => {
            let (machine, no_ssh, mut ended) = (Arc::clone(&gate.machine), gate.no_ssh, gate.ended.subscribe());
            tokio::spawn(async move {
                let Some(socket) = upgraded.await else { return };
                let is_ssh = port == 22 && own_address(&host, machine.name());
                if is_ssh && no_ssh {
                    // The answer of any port without a listener.
                    drop(socket);
                } else if is_ssh {
                    // The machine ends it when it stops.
                    if let Err(e) = machine.serve(FinishOnDrop(Some(Tunnel::server(socket)))).await {
                        log::debug!("ssh: {}", e.message());
                    }
                } else {
                    let host = if host.is_empty() || host == machine.name() { "localhost" } else { &host };
                    dial(socket, host, port, &mut ended).await;
                }
                drop(hold);
            });
        }
        Target::Connect { cid } => {
            let unknown = || Refusal::new(StatusCode::NOT_FOUND, "no connection with that id is waiting");
            let Parked { tcp, .. } = gate.locked().pending.remove(&cid).ok_or_else(unknown)?;
            let mut ended = gate.ended.subscribe();
            tokio::spawn(async move {
                let Some(socket) = upgraded.await else { return };
                join(socket, tcp, &mut ended).await;
                drop(hold);
            });
        }
        Target::Listen { host, port } => {
            let address = listen_address(&host, gate.machine.name());
            let listener = TcpListener::bind((address.as_str(), port))
                .await
                .map_err(|e| Refusal::new(StatusCode::CONFLICT, format!("cannot listen on {address}:{port}: {e}")))?;
            let gate = Arc::clone(gate);
            tokio::spawn(async move {
                let Some(socket) = upgraded.await else { return };
                listen(&gate, listener, socket).await;
                drop(hold);
            });
        }
    }
    Ok(answer)
}

async fn dial(socket: Stream, host: &str, port: u16, ended: &mut watch::Receiver<bool>) {
    match timeout(DIAL_TIME, TcpStream::connect((host, port))).await {
        Ok(Ok(tcp)) => join(socket, tcp, ended).await,
        // As wsmux, which says nothing of a failed dial.
        Ok(Err(_)) | Err(_) => drop(socket),
    }
}

/// Copies both ways until one side ends. There is no half-close: the end of one side ends the whole, once everything
/// that it had sent is delivered.
async fn join(socket: Stream, tcp: TcpStream, ended: &mut watch::Receiver<bool>) {
    let client = socket.peer();
    // Latency matters more than the number of packets, and each write is a whole message.
    let _ = tcp.set_nodelay(true);
    let (mut from_tunnel, mut to_tunnel) = tokio::io::split(Tunnel::server(socket));
    let (mut from_tcp, mut to_tcp) = tcp.into_split();
    {
        let up = async {
            let mut buffer = vec![0; COPY_SIZE];
            loop {
                let n = match from_tunnel.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(n) => n,
                };
                tokio::select! {
                    written = to_tcp.write_all(&buffer[..n]) => if written.is_err() {
                        // The other end reads no more, but its data still goes through.
                        return std::future::pending().await;
                    },
                    // The client's Close is queued behind unread data, so we would not see it; poll for the process
                    // instead.
                    () = abandoned(&client) => return,
                }
            }
        };
        let down = async {
            let mut buffer = vec![0; COPY_SIZE];
            while let Ok(n @ 1..) = from_tcp.read(&mut buffer).await {
                if to_tunnel.write_all(&buffer[..n]).await.is_err() {
                    break;
                }
            }
            let _ = to_tunnel.flush().await;
        };
        tokio::select! {
            () = up => {}
            () = down => {}
            () = over(ended) => {}
        }
    }
    drop((from_tcp, to_tcp));
    from_tunnel.unsplit(to_tunnel).finish().await;
}

/// Waits until the client's program has gone, and then for as long as its remaining data may take to be read. Waits for
/// ever on systems that do not report such programs.
async fn abandoned(client: &Peer) {
    loop {
        sleep(LOOK).await;
        if client.has_gone() == Some(true) {
            return sleep(LAST_READ).await;
        }
    }
}

async fn over(ended: &mut watch::Receiver<bool>) {
    // An error means that the machine is gone, too.
    let _ = ended.wait_for(|ended| *ended).await;
}

/// A control channel: reports each connection until the client leaves or the machine ends. The connections that no
/// client has taken up by then end with it.
async fn listen(gate: &Arc<Gate>, listener: TcpListener, socket: Stream) {
    // The limit of the client's messages, because it has nothing to say here.
    let limits = Limits::default().max_payload_len(Some(4096));
    let mut control: WebSocketStream<Stream> = ServerBuilder::new().limits(limits).serve(socket);
    let mut ended = gate.ended.subscribe();
    let mut ping = interval(PING_EVERY);
    ping.tick().await;
    let channel = CHANNELS.fetch_add(1, Ordering::Relaxed);
    loop {
        let message = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, _)) => match wait_for_client(gate, Parked { tcp, channel }) {
                    Some(cid) => Message::text(serde_json::json!({ "type": "connect", "cid": cid }).to_string()),
                    None => continue,
                },
                Err(e) => {
                    // Most likely a lack of descriptors; others will be freed.
                    log::warn!("cannot accept a connection: {e}");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            said = control.next() => match said {
                Some(Ok(message)) if !message.is_close() => continue,
                Some(Ok(_) | Err(_)) | None => break,
            },
            _ = ping.tick() => Message::ping(""),
            () = over(&mut ended) => break,
        };
        if control.send(message).await.is_err() {
            break;
        }
    }
    drop(listener);
    gate.locked().pending.retain(|_, parked| parked.channel != channel);
    let _ = timeout(Duration::from_secs(1), control.close()).await;
}

/// Keeps a connection until a client takes it up, and closes it if none does.
fn wait_for_client(gate: &Arc<Gate>, parked: Parked) -> Option<String> {
    let cid = random(16);
    let mut state = gate.locked();
    if state.pending.len() >= MAX_PENDING {
        return None;
    }
    state.pending.insert(cid.clone(), parked);
    let (gate, own) = (Arc::downgrade(gate), cid.clone());
    tokio::spawn(async move {
        sleep(PENDING_TIME).await;
        if let Some(gate) = gate.upgrade() {
            gate.locked().pending.remove(&own);
        }
    });
    Some(cid)
}

/// Prepares the WebSocket. Returns the answer to send, and the future of the stream after it is sent.
///
/// # Errors
/// 400 when the request does not ask for a WebSocket.
pub(super) fn upgrade(
    request: &mut Request<Incoming>,
) -> Answer<(Response<Full<Bytes>>, impl Future<Output = Option<Stream>> + Send + use<>)> {
    let headers = request.headers();
    let has = |name, token: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| {
        has(header::CONNECTION, "upgrade")
            && has(header::UPGRADE, "websocket")
            && has(header::SEC_WEBSOCKET_VERSION, "13")
    });
    let refused = || Refusal::new(StatusCode::BAD_REQUEST, "this is for WebSockets (version 13) only");
    let accept = accept_key(key.ok_or_else(refused)?.as_bytes());
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let fields = answer.headers_mut();
    fields.insert(header::CONNECTION, header::HeaderValue::from_static("Upgrade"));
    fields.insert(header::UPGRADE, header::HeaderValue::from_static("websocket"));
    // Base64 is always a valid header value.
    fields.insert(header::SEC_WEBSOCKET_ACCEPT, accept.parse().map_err(|_| refused())?);
    let upgraded = upgrade::on(request);
    let becomes = async move {
        let upgraded = upgraded.await.ok()?;
        let parts = upgraded.downcast::<TokioIo<Conn>>().ok()?;
        Some(Stream::new(parts.read_buf, parts.io.into_inner()))
    };
    Ok((answer, becomes))
}

/// The token in a request's cookies.
pub(super) fn token(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    cookies.flat_map(|value| value.split(';')).find_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

/// A tunnel that sends its Close when it is dropped. An SSH server drops its stream right after its last words, and a
/// socket that is closed with unread input is reset, which would overtake them.
struct FinishOnDrop(Option<Tunnel<Stream>>);

impl FinishOnDrop {
    fn tunnel(self: Pin<&mut Self>) -> io::Result<Pin<&mut Tunnel<Stream>>> {
        self.get_mut().0.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl Drop for FinishOnDrop {
    fn drop(&mut self) {
        if let (Some(tunnel), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(tunnel.finish());
        }
    }
}

impl AsyncRead for FinishOnDrop {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.tunnel()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for FinishOnDrop {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.tunnel()?.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tunnel()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tunnel()?.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, prelude::BASE64_STANDARD};
    use hyper::{HeaderMap, StatusCode, header};
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::{Target, listen_address, token};

    fn parse(text: &str) -> Result<Target, StatusCode> {
        Target::parse(&BASE64_STANDARD.encode(text)).map_err(|refusal| refusal.status)
    }

    #[test]
    fn reads_targets_as_wsmux_does() {
        let dial = |host: &str, port| Ok(Target::Dial { host: host.into(), port });
        assert_eq!(parse(":22"), dial("", 22));
        assert_eq!(parse("dial::22\n"), dial("", 22));
        assert_eq!(parse("dial:[::1]:80"), dial("::1", 80));
        assert_eq!(parse("node-02:8080"), dial("node-02", 8080));
        assert_eq!(parse("listen::0"), Ok(Target::Listen { host: String::new(), port: 0 }));
        assert_eq!(parse("connect:abc"), Ok(Target::Connect { cid: "abc".into() }));
        for wrong in ["", "22", "host", "host:", "host:x", "host:65536", "a b:22", "dial:"] {
            assert_eq!(parse(wrong), Err(StatusCode::BAD_REQUEST), "{wrong}");
        }
        for wrong in ["OjIy*", "OjIyMg", "%", "OjIy/../"] {
            assert_eq!(Target::parse(wrong).unwrap_err().status, StatusCode::BAD_REQUEST, "{wrong}");
        }
        let escaped = BASE64_STANDARD.encode("localhost:1").replace('=', "%3D");
        assert_eq!(Target::parse(&escaped).unwrap(), dial("localhost", 1).unwrap());
    }

    #[test]
    fn listens_on_loopback_only_unless_told_an_address() {
        for host in ["", "localhost", "0.0.0.0", "::", "*", "node-01"] {
            assert_eq!(listen_address(host, "node-01"), "127.0.0.1", "{host}");
        }
        assert_eq!(listen_address("::1", "node-01"), "::1");
        assert_eq!(listen_address("192.0.2.1", "node-01"), "192.0.2.1");
    }

    #[test]
    fn finds_the_token_among_other_cookies() {
        let mut headers = HeaderMap::new();
        assert_eq!(token(&headers), None);
        headers.insert(header::COOKIE, "a=b; .ixcondsessX=no; .ixcondsess=yes".parse().unwrap());
        assert_eq!(token(&headers), Some("yes"));
    }

    proptest! {
        #[test]
        fn no_path_makes_it_panic(path in ".{0,80}", bytes in proptest::collection::vec(0u8..255, 0..60)) {
            let _ = Target::parse(&path);
            let _ = Target::parse(&BASE64_STANDARD.encode(bytes));
        }

        #[test]
        fn every_host_and_port_is_read_back(host in "[a-z0-9.-]{0,30}", port in 0u16..) {
            prop_assert_eq!(parse(&format!("dial:{host}:{port}")), Ok(Target::Dial { host, port }));
        }
    }
}
