//! HTTP as the platform wants it: requests with a bound on time and size, the login of a tunnel, and the upgrade to a
//! WebSocket on a connection that is already open where there is one.

use std::{
    future::Future,
    io::{self, IoSlice},
    net::SocketAddr,
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode, Uri,
    body::Incoming,
    header::{self, HeaderName, HeaderValue},
};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::timeout,
};

use crate::{
    error::{Error, Kind, Result},
    labs::{
        address::{peer, redirected},
        answer::{Reply, refusal},
        net::{Conn, Dialer, Fault, Used, reason},
        silence::Host,
        tunnel::Socket,
    },
    os::{Peer, local_address},
    platform::is_id,
    secrets,
};

/// Largest answer accepted; none of the API's is larger.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// The hint when the platform does not answer.
const AGAIN: &str = "check the network, and try again";
/// The time in which a host answers another connection: TCP's and TLS' handshakes, or one question without TLS. A
/// network that is slower is as good as away.
const PROBE: Duration = Duration::from_secs(5);
/// As many as browsers follow, and then some.
const MAX_REDIRECTS: usize = 10;

/// An HTTP client with a small pool of connections.
#[derive(Clone)]
pub struct Http {
    client: Client<Dialer, Full<Bytes>>,
    dialer: Dialer,
}

impl Http {
    /// A client that dials by `dialer`.
    pub fn new(dialer: Dialer) -> Http {
        Http { client: Client::builder(TokioExecutor::new()).build(dialer.clone()), dialer }
    }

    /// The way to an address in words.
    pub(super) fn way(&self, uri: &Uri) -> String {
        self.dialer.way(uri)
    }

    /// A client that dials anew for each request: after a sleep, or a change of the network, no open connection can be
    /// trusted, and one that is dead without a word costs the time of a whole request.
    #[must_use]
    pub fn dialling_anew(&self) -> Http {
        let dialer = self.dialer.clone().by_address_first();
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(dialer.clone());
        Http { client, dialer }
    }

    /// Sends a request and waits for the whole answer, `limit` at most.
    ///
    /// # Errors
    /// [`Kind::Network`] when no answer comes, [`Kind::Answer`] when it is too large.
    pub async fn send(&self, request: Request<Full<Bytes>>, limit: Duration) -> Result<Reply> {
        let host = peer(request.uri());
        let answer = async {
            let response = self.request(request).await?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|e| {
                if e.is::<http_body_util::LengthLimitError>() {
                    Error::new(Kind::Answer, format!("{host} answered with more than {} MiB", MAX_ANSWER >> 20))
                } else {
                    Error::new(Kind::Network, format!("the answer from {host} was cut off: {e}")).with_hint(AGAIN)
                }
            })?;
            Ok(Reply { status: parts.status, headers: parts.headers, body: body.to_bytes() })
        };
        timeout(limit, answer).await.unwrap_or_else(|_| {
            Err(Error::new(Kind::Network, format!("{host} did not answer within {} s", limit.as_secs()))
                .with_hint(AGAIN))
        })
    }

    async fn request(&self, mut request: Request<Full<Bytes>>) -> Result<hyper::Response<Incoming>> {
        let host = peer(request.uri());
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some((name, _)) = host.split_once('%') {
            // A zone is this computer's word, and no part of the name (RFC 6874, 4).
            let port = request.uri().port_u16().map(|port| format!(":{port}")).unwrap_or_default();
            let name = HeaderValue::from_str(&format!("{name}]{port}")).map_err(internal)?;
            request.headers_mut().insert(header::HOST, name);
        }
        let is_plain = request.uri().scheme_str() == Some("http");
        self.sent(request).await.map_err(|e| {
            // hyper's own words in front say only that it was connecting.
            let cause = std::error::Error::source(&e).map_or_else(|| e.to_string(), reason);
            let error = Error::new(Kind::Network, format!("cannot reach {host}: {cause}"));
            let error = if e.is_connect() { error.not_sent() } else { error };
            match Fault::of(&e) {
                Some(fault) if fault.is_lasting => error.lasting().with_hint(&fault.hint),
                Some(fault) => error.with_hint(&fault.hint),
                None if is_no_http(&e) && is_plain => error.lasting().with_hint(
                    "check the address: one with TLS begins with https://, and here something else than HTTP answers",
                ),
                None => error.with_hint("check the network, and the proxy setting if there is one"),
            }
        })
    }

    /// Sends a request, and a GET once more for each kept connection that ended under it: a server closes one that has
    /// been idle whenever it likes, also when the request is on its way.
    async fn sent(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<hyper::Response<Incoming>, hyper_util::client::legacy::Error> {
        loop {
            let sent = self.client.request(request.clone()).await;
            match &sent {
                Ok(response) => Used::of(response.extensions()).note(),
                Err(e) if request.method() == Method::GET && was_kept(e) => {
                    log::info!("a kept connection has ended: {}", reason(e));
                    continue;
                }
                Err(_) => {}
            }
            return sent;
        }
    }

    /// Follows `uri` and its redirects without credentials, and returns the last value of the cookie `name`. Values and
    /// addresses on the way are secrets.
    ///
    /// # Errors
    /// As [`Http::send`]; also when the final answer is no success, or set no such cookie.
    pub async fn cookie(&self, uri: Uri, name: &str, limit: Duration) -> Result<String> {
        let host = peer(&uri);
        timeout(limit, self.follow(uri, name, limit)).await.unwrap_or_else(|_| {
            Err(Error::new(Kind::Network, format!("{host} did not answer within {} s", limit.as_secs()))
                .with_hint(AGAIN))
        })
    }

    async fn follow(&self, mut uri: Uri, name: &str, limit: Duration) -> Result<String> {
        let mut found: Option<String> = None;
        let mut given_by = None;
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::new(Full::default());
            *request.uri_mut() = uri.clone();
            // A cookie goes back only to the host that set it.
            if let Some(value) = found.as_ref().filter(|_| given_by == uri.authority().cloned()) {
                request.headers_mut().insert(header::COOKIE, secret(&format!("{name}={value}"))?);
            }
            let reply = self.send(request, limit).await?;
            for cookie in reply.headers.get_all(header::SET_COOKIE) {
                let pair = cookie.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
                if let Some((key, value)) = pair.split_once('=')
                    && key.trim() == name
                {
                    secrets::keep(value.trim());
                    found = Some(value.trim().to_owned());
                    given_by = uri.authority().cloned();
                }
            }
            match reply.headers.get(header::LOCATION).filter(|_| reply.status.is_redirection()) {
                Some(location) => {
                    uri = redirected(&uri, location.to_str().unwrap_or_default())?;
                    keep_address(&uri.to_string());
                }
                None if reply.status.is_success() => {
                    let host = uri.host().unwrap_or_default();
                    return found.filter(|value| !value.is_empty()).ok_or_else(|| {
                        Error::new(Kind::Answer, format!("{host} answered the tunnel's login without a token"))
                    });
                }
                None => return Err(tunnel_refusal(&reply, "the tunnel's login")),
            }
        }
        Err(Error::new(Kind::Answer, "the tunnel's login is redirected in circles"))
    }

    /// Opens a WebSocket at `uri` (`http` or `https`).
    ///
    /// # Errors
    /// [`Kind::Network`] when the host cannot be reached, else what the answer's status means.
    pub async fn websocket(&self, uri: Uri, headers: &[(HeaderName, HeaderValue)], limit: Duration) -> Result<Stream> {
        let host = peer(&uri);
        let key = BASE64_STANDARD.encode(fastrand::u128(..).to_le_bytes());
        let mut request = Request::new(Full::default());
        *request.uri_mut() = uri.clone();
        let all = request.headers_mut();
        all.extend(headers.iter().cloned());
        all.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        all.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        all.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        all.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_str(&key).map_err(internal)?);
        let upgraded = async {
            let response = self.request(request).await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                let (parts, body) = response.into_parts();
                let body = Limited::new(body, MAX_ANSWER).collect().await.map(|b| b.to_bytes()).unwrap_or_default();
                let reply = Reply { status: parts.status, headers: parts.headers, body };
                return Err(tunnel_refusal(&reply, "the tunnel"));
            }
            let accept = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
            if accept.is_none_or(|value| value != accept_key(key.as_bytes()).as_str()) {
                return Err(Error::new(Kind::Answer, format!("{host} is not a WebSocket server")));
            }
            hyper::upgrade::on(response)
                .await
                .map_err(|e| Error::new(Kind::Network, format!("the connection to {host} was lost: {}", reason(&e))))
        };
        let upgraded = timeout(limit, upgraded).await.unwrap_or_else(|_| {
            Err(Error::new(Kind::Network, format!("{host} did not open a tunnel within {} s", limit.as_secs()))
                .with_hint(AGAIN))
        })?;
        let parts = upgraded
            .downcast::<TokioIo<Conn>>()
            .map_err(|_| Error::new(Kind::Internal, "the upgraded connection is not the dialled one"))?;
        let origin = Some(Box::new((self.dialer.clone(), uri)));
        Ok(Stream { origin, ..Stream::new(parts.read_buf, parts.io.into_inner()) })
    }
}

/// True for an answer that is not HTTP.
fn is_no_http(error: &hyper_util::client::legacy::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<hyper::Error>());
    cause.is_some_and(hyper::Error::is_parse)
}

/// True for an error on a connection that has brought an answer before.
fn was_kept(error: &hyper_util::client::legacy::Error) -> bool {
    let mut extras = hyper::http::Extensions::new();
    error.connect_info().inspect(|info| info.get_extras(&mut extras));
    Used::of(&extras).is_so()
}

/// A refusal by a tunnel's server. It knows nothing of the account, so that another login would not help.
fn tunnel_refusal(reply: &Reply, about: &str) -> Error {
    match reply.status {
        StatusCode::UNAUTHORIZED => Error::new(Kind::Refused, format!("{about} does not accept its token")),
        _ => refusal(reply, about),
    }
}

/// The name that this program gives itself.
const USER_AGENT: &str = concat!("labctl-ssh-proxy/", env!("CARGO_PKG_VERSION"));

/// Computes the answer to a WebSocket key (RFC 6455, 4.2.2).
pub fn accept_key(key: &[u8]) -> String {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64_STANDARD.encode(hash.finish())
}

/// Makes a header value that no log shows.
///
/// # Errors
/// Fails when `value` cannot be in a header.
pub fn secret(value: &str) -> Result<HeaderValue> {
    let mut header = HeaderValue::from_str(value).map_err(|_| {
        Error::new(Kind::NotLoggedIn, "the credentials have characters that are not allowed in an HTTP header")
    })?;
    header.set_sensitive(true);
    Ok(header)
}

/// Makes a request, with a JSON body or none.
pub fn request(method: Method, uri: Uri, body: Option<Bytes>) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    if let Some(body) = body {
        *request.body_mut() = Full::from(body);
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    request
}

fn internal(error: impl std::fmt::Display) -> Error {
    Error::new(Kind::Internal, error.to_string())
}

/// Size of a read while much comes. A WebSocket's reader takes 8 KiB at a time. With a server's 1 KiB messages over
/// plain TCP, on loopback, this size needs 28 receive calls for a MiB instead of 159, and makes 456 MiB/s of 287
/// (medians of three). It changes nothing over TLS, which has a buffer of its own, or for the large messages of the
/// embedded platform.
const READ_AHEAD: usize = 64 * 1024;

/// An upgraded connection, and the bytes that followed the upgrade's answer.
#[derive(Debug)]
pub struct Stream {
    early: Bytes,
    conn: Conn,
    /// The way to another connection to the same host.
    origin: Option<Box<(Dialer, Uri)>>,
    /// Room to read ahead, made when a read has been filled for the first time; idle connections need none.
    ahead: Vec<u8>,
    /// The bytes in it that have been read and not yet been taken.
    held: Range<usize>,
    much: bool,
}

impl Stream {
    /// The connection `conn` after its upgrade; `early` was read from it together with the upgrade's headers.
    pub fn new(early: Bytes, conn: Conn) -> Stream {
        Stream { early, conn, origin: None, ahead: Vec::new(), held: 0..0, much: false }
    }

    /// The address of the other end, which is a proxy's where one is used; `None` for a Unix socket.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.conn.remote()
    }

    /// The program at the other end, if it runs on this computer.
    pub fn peer(&self) -> Peer {
        self.conn.peer()
    }
}

impl Socket for Stream {
    fn accepted(&self) -> u64 {
        self.conn.accepted()
    }

    fn host(&self) -> Option<Arc<dyn Host>> {
        let (dialer, uri) = *self.origin.clone()?;
        Some(Arc::new(Away { dialer, uri, addresses: self.conn.addresses() }))
    }
}

/// The host of a stream, which may be away.
struct Away {
    dialer: Dialer,
    uri: Uri,
    /// The host's address, or its proxy's, and our own.
    addresses: Option<(SocketAddr, SocketAddr)>,
}

impl Host for Away {
    fn answers(&self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        let answer = async {
            let mut conn = self.dialer.clone().dial(self.uri.clone()).await?;
            if self.uri.scheme_str() != Some("https") {
                // Without TLS, only words prove that it is more than a hop on the way which has taken the connection.
                let words = format!("HEAD / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", peer(&self.uri));
                conn.write_all(words.as_bytes()).await?;
                conn.read_u8().await?;
            }
            Ok::<_, io::Error>(())
        };
        Box::pin(async { timeout(PROBE, answer).await.is_ok_and(|answer| answer.is_ok()) })
    }

    fn has_another_way(&self) -> bool {
        self.addresses.is_some_and(|(host, own)| local_address(host).is_some_and(|now| now != own.ip()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.early.is_empty() {
            let n = this.early.len().min(buf.remaining());
            buf.put_slice(&this.early[..n]);
            this.early.advance(n);
            return Poll::Ready(Ok(()));
        }
        if this.held.is_empty() {
            let room = buf.remaining();
            if !this.much || room >= READ_AHEAD / 2 {
                ready!(Pin::new(&mut this.conn).poll_read(cx, buf))?;
                this.much |= buf.remaining() == 0 && room >= 4096;
                return Poll::Ready(Ok(()));
            }
            this.ahead.resize(READ_AHEAD, 0);
            let mut ahead = ReadBuf::new(&mut this.ahead);
            ready!(Pin::new(&mut this.conn).poll_read(cx, &mut ahead))?;
            this.held = 0..ahead.filled().len();
            // While little comes, the next read goes straight to its place again.
            this.much = this.held.len() > room;
        }
        let n = this.held.len().min(buf.remaining());
        buf.put_slice(&this.ahead[this.held.start..][..n]);
        this.held.start += n;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().conn).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().conn).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.conn.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().conn).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().conn).poll_shutdown(cx)
    }
}

/// Keeps this address from being shown, and those parts of its path and query that may be secret: the long ones that
/// are no playground's id.
pub(super) fn keep_address(address: &str) {
    const LONG: usize = 12;
    secrets::keep(address);
    let path = address.split_once("://").map_or(address, |(_, rest)| rest);
    for part in path.split(['/', '?', '&', '=', '#']).skip(1) {
        if part.len() >= LONG && !is_id(part) {
            secrets::keep(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{accept_key, keep_address};
    use crate::secrets::hidden;

    #[test]
    fn secret_parts_of_an_address_are_hidden() {
        keep_address("https://login.example/0123456789abcdef01234567/playgrounds/once-abcdefgh?key=once-12345678");
        let said = "login.example: playgrounds 0123456789abcdef01234567, once-abcdefgh, once-12345678";
        assert_eq!(hidden(said), "login.example: playgrounds 0123456789abcdef01234567, [hidden], [hidden]");
    }

    #[test]
    fn answers_the_key_of_the_specification() {
        assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
