//! Byte streams to the platform: TCP with TLS, through an HTTP proxy where one is set, or the embedded platform's
//! Unix socket. Nothing here knows HTTP but the `CONNECT` of a proxy, which hyper-util speaks.

use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    io::{self, IoSlice},
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper::{Uri, http::Extensions, rt};
use hyper_util::{
    client::{
        legacy::connect::{Connected, Connection, HttpConnector, proxy},
        proxy::matcher::Matcher,
    },
    rt::TokioIo,
};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OnceCell,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls};
use tower_service::Service;

use crate::{labs::gather::Socket, os, settings::Settings};

/// Longer than three lost SYN packets of a live host, and shorter than TCP's own patience with a host that is gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit for the handshakes after it: TLS, and a proxy's `CONNECT`, which may resolve and connect on its side.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);

/// A dialler: of the embedded platform's socket, or over the network.
#[derive(Clone)]
pub struct Dialer {
    route: Route,
}

#[derive(Clone)]
enum Route {
    /// Every address leads to this socket.
    #[cfg_attr(not(unix), expect(dead_code, reason = "the embedded platform runs only on Unix"))]
    Socket(PathBuf),
    Network {
        tcp: HttpConnector,
        proxies: Arc<Matcher>,
        tls: Arc<OnceCell<TlsConnector>>,
    },
}

impl Dialer {
    /// Dials the embedded platform's socket whatever the address says.
    pub fn socket(path: PathBuf) -> Dialer {
        Dialer { route: Route::Socket(path) }
    }

    /// Dials over the network, through the proxy of the settings, else the one of the environment.
    pub fn network(settings: &Settings) -> Dialer {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let mut proxies = Matcher::builder();
        match &settings.proxy {
            Some(proxy) => proxies = proxies.all(proxy.clone()),
            None => {
                for (names, scheme) in [
                    (["ALL_PROXY", "all_proxy"], proxies_all as fn(_, _) -> _),
                    (["HTTP_PROXY", "http_proxy"], proxies_http as fn(_, _) -> _),
                    (["HTTPS_PROXY", "https_proxy"], proxies_https as fn(_, _) -> _),
                ] {
                    if let Some(value) = variable(names) {
                        proxies = scheme(proxies, value);
                    }
                }
            }
        }
        if let Some(hosts) = settings.no_proxy.clone().or_else(|| variable(["NO_PROXY", "no_proxy"])) {
            proxies = proxies.no(hosts);
        }
        Dialer { route: Route::Network { tcp, proxies: Arc::new(proxies.build()), tls: Arc::default() } }
    }

    async fn dial(self, uri: Uri) -> io::Result<Conn> {
        match self.route {
            #[cfg(unix)]
            Route::Socket(path) => Ok(Conn::Unix(tokio::net::UnixStream::connect(&path).await?)),
            #[cfg(not(unix))]
            Route::Socket(_) => Err(io::ErrorKind::Unsupported.into()),
            Route::Network { mut tcp, proxies, tls } => {
                let secure = uri.scheme_str() == Some("https");
                if secure {
                    // The trust store is read on a thread while TCP connects. Its failure shows below.
                    let tls = Arc::clone(&tls);
                    tokio::spawn(async move { drop(tls.get_or_try_init(connector).await) });
                }
                let socket = match proxies.intercept(&uri) {
                    Some(by) if by.uri().scheme_str() != Some("http") => {
                        let what = "only an HTTP proxy, http://host:port, can be used; see HTTPS_PROXY or `proxy` in the settings";
                        return Err(io::Error::new(io::ErrorKind::Unsupported, what));
                    }
                    Some(by) => {
                        let mut tunnel = proxy::Tunnel::new(by.uri().clone(), tcp);
                        if let Some(credentials) = by.basic_auth() {
                            tunnel = tunnel.with_auth(credentials.clone());
                        }
                        timeout(HANDSHAKE_TIMEOUT, tunnel.call(uri.clone()))
                            .await
                            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the HTTP proxy does not answer"))?
                            .map_err(|e| io::Error::other(format!("through the HTTP proxy: {}", reason(&e))))?
                    }
                    None => tcp.call(uri.clone()).await.map_err(|e| io::Error::other(reason(&e)))?,
                };
                let socket = Socket::from(socket.into_inner());
                if !secure {
                    return Ok(Conn::Tcp(socket));
                }
                let name = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
                let name = rustls::pki_types::ServerName::try_from(name).map_err(io::Error::other)?;
                let tls = tls.get_or_try_init(connector).await?;
                let stream = timeout(HANDSHAKE_TIMEOUT, tls.connect(name, socket))
                    .await
                    .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake timed out"))?
                    .map_err(tls_failed)?;
                Ok(Conn::Tls(Box::new(stream)))
            }
        }
    }
}

type Proxies = hyper_util::client::proxy::matcher::Builder;

fn proxies_all(proxies: Proxies, value: String) -> Proxies {
    proxies.all(value)
}

fn proxies_http(proxies: Proxies, value: String) -> Proxies {
    proxies.http(value)
}

fn proxies_https(proxies: Proxies, value: String) -> Proxies {
    proxies.https(value)
}

fn variable(names: [&str; 2]) -> Option<String> {
    names.into_iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

/// TLS against the system's trust store. It is made on a thread, with the first TLS connection, because reading the
/// store takes time.
async fn connector() -> io::Result<TlsConnector> {
    tokio::task::spawn_blocking(trusting).await.map_err(io::Error::other)?
}

fn trusting() -> io::Result<TlsConnector> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(BuilderVerifierExt::with_platform_verifier)
        .map_err(|e| io::Error::other(Untrusted(format!("the system's trust store: {e}"))))?
        .with_no_client_auth();
    // A WebSocket needs HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A server's certificate that is not trusted, or a system that trusts none. Another attempt meets the same.
#[derive(Debug)]
struct Untrusted(String);

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Untrusted {}

/// True for an error that a certificate has caused.
pub(super) fn is_untrusted(error: &(dyn StdError + 'static)) -> bool {
    std::iter::successors(Some(error), |error: &&(dyn StdError + 'static)| (*error).source()).any(|error| {
        // The source of an I/O error is that of the error in it, which is skipped.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        inner.is_some_and(|inner| inner.is::<Untrusted>())
    })
}

fn tls_failed(error: io::Error) -> io::Error {
    let (kind, words) = (error.kind(), format!("TLS: {error}"));
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            io::Error::new(kind, Untrusted(words))
        }
        Some(_) | None => io::Error::new(kind, words),
    }
}

/// The words of an error and of its causes, each only once.
pub fn reason(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<Conn>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Conn>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move { dialer.dial(uri).await.map(TokioIo::new) })
    }
}

/// A connection to the platform.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Conn {
    Tcp(Socket),
    Tls(Box<TlsStream<Socket>>),
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
}

impl From<TcpStream> for Conn {
    fn from(tcp: TcpStream) -> Self {
        Conn::Tcp(tcp.into())
    }
}

impl Conn {
    /// The number of bytes that the peer has accepted so far, on the wire: a sign of life while it sends nothing.
    pub fn accepted(&self) -> u64 {
        match self {
            Conn::Tcp(socket) => socket.accepted(),
            Conn::Tls(stream) => stream.get_ref().0.accepted(),
            #[cfg(unix)]
            Conn::Unix(_) => 0,
        }
    }

    /// The program at the other end, if it runs on this computer.
    pub fn peer(&self) -> os::Peer {
        match self {
            Conn::Tcp(socket) => os::Peer::of_tcp(socket.addresses()),
            Conn::Tls(stream) => os::Peer::of_tcp(stream.get_ref().0.addresses()),
            #[cfg(unix)]
            Conn::Unix(socket) => os::Peer::of_unix(socket),
        }
    }
}

macro_rules! each {
    ($conn:expr, $stream:ident => $call:expr) => {
        match $conn.get_mut() {
            Conn::Tcp($stream) => $call,
            Conn::Tls($stream) => $call,
            #[cfg(unix)]
            Conn::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for Conn {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Conn {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

impl Connection for Conn {
    fn connected(&self) -> Connected {
        Connected::new().extra(Used::default())
    }
}

/// A note on a connection that it has brought an answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Used(Arc<AtomicBool>);

impl Used {
    /// The note that a connection has left with an answer or an error.
    pub(super) fn of(extensions: &Extensions) -> Used {
        extensions.get().cloned().unwrap_or_default()
    }

    pub(super) fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

// hyper asks for its own traits where a stream is handed back after an upgrade.
const _: () = {
    const fn is_hyper_stream<T: rt::Read + rt::Write + Connection + Unpin + Send + 'static>() {}
    is_hyper_stream::<TokioIo<Conn>>();
};
