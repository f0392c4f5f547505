//! Byte streams to the platform: TCP with TLS, through a proxy where one is set, or the embedded platform's Unix socket.
//! `proxy` knows the proxies, and `trust` knows TLS.

use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    io::{self, IoSlice},
    net::SocketAddr,
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
    client::legacy::connect::{
        Connected, Connection, HttpConnector,
        dns::{GaiAddrs, GaiFuture, GaiResolver, Name},
    },
    rt::TokioIo,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OnceCell,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls};
use tower_service::Service;

use super::{
    address::peer,
    gather::Socket,
    last_address::LastAddresses,
    proxy::{Proxies, Proxy, Speaks},
    trust,
};
use crate::{os, settings::Settings};

/// Longer than three lost SYN packets of a live host, and shorter than TCP's own patience with a host that is gone.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit for the handshakes after it: TLS, and a proxy's `CONNECT`, which may resolve and connect on its side.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);

/// A dialler: of the embedded platform's socket, or over the network.
#[derive(Clone)]
pub struct Dialer {
    route: Route,
}

impl fmt::Debug for Dialer {
    /// Leaves out what it was made of: a proxy's password is part of that.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer")
    }
}

#[derive(Clone)]
enum Route {
    /// Every address leads to this socket.
    #[cfg_attr(not(unix), expect(dead_code, reason = "the embedded platform runs only on Unix"))]
    Socket(PathBuf),
    Network {
        tcp: Tcp,
        proxies: Arc<Proxies>,
        tls: Tls,
        last: LastAddresses,
    },
}

impl Dialer {
    /// Dials the embedded platform's socket whatever the address says.
    pub fn socket(path: PathBuf) -> Dialer {
        Dialer { route: Route::Socket(path) }
    }

    /// Dials over the network, through the proxy of the settings, else the one of the environment.
    pub fn network(settings: &Settings) -> Dialer {
        let mut tcp = HttpConnector::new_with_resolver(Resolver(GaiResolver::new()));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let proxies = Arc::new(Proxies::new(settings));
        Dialer { route: Route::Network { tcp, proxies, tls: Arc::default(), last: LastAddresses::default() } }
    }

    /// A dialler that tries the address at which it has last reached a host before the host's name.
    pub(super) fn by_address_first(self) -> Dialer {
        match self.route {
            Route::Network { tcp, proxies, tls, last } => {
                Dialer { route: Route::Network { tcp, proxies, tls, last: last.first() } }
            }
            route @ Route::Socket(_) => Dialer { route },
        }
    }

    /// The way to an address in words: its host and port, and the proxy before it.
    pub(super) fn way(&self, uri: &Uri) -> String {
        match &self.route {
            Route::Socket(_) => "the embedded platform".to_owned(),
            Route::Network { proxies, .. } => match proxies.proxy_for(uri) {
                Ok(Some(proxy)) => format!("{} by {proxy}", peer(uri)),
                Ok(None) | Err(_) => peer(uri),
            },
        }
    }

    /// Connects to the host of an address.
    pub(super) async fn dial(self, uri: Uri) -> io::Result<Conn> {
        match self.route {
            #[cfg(unix)]
            Route::Socket(path) => Ok(Conn::Unix(tokio::net::UnixStream::connect(&path).await?)),
            #[cfg(not(unix))]
            Route::Socket(_) => Err(io::ErrorKind::Unsupported.into()),
            Route::Network { tcp, proxies, tls, last } => {
                let secure = uri.scheme_str() == Some("https");
                if secure {
                    // The trust store is read on a thread while TCP connects. Its failure shows below.
                    let tls = Arc::clone(&tls);
                    tokio::spawn(async move { drop(tls.get_or_try_init(connector).await) });
                }
                let conn = match proxies.proxy_for(&uri)? {
                    Some(proxy) => through(proxy, tcp, &tls, &uri).await?,
                    None if secure => return proven(&last, &tcp, &tls, &uri).await,
                    None => Conn::Tcp(connect(tcp, uri.clone()).await?),
                };
                if !secure {
                    return Ok(conn);
                }
                let host = uri.host().unwrap_or_default();
                match conn {
                    Conn::Tls(stream) => Ok(Conn::TlsInTls(Box::new(handshake(&tls, host, *stream).await?))),
                    Conn::Tcp(socket) => Ok(Conn::Tls(Box::new(handshake(&tls, host, socket).await?))),
                    other => Ok(other),
                }
            }
        }
    }
}

type Tcp = HttpConnector<Resolver>;
type Tls = Arc<OnceCell<TlsConnector>>;

async fn connect(mut tcp: Tcp, uri: Uri) -> io::Result<Socket> {
    let socket = tcp.call(uri).await.map_err(|e| io::Error::other(reason(&e)))?;
    Ok(Socket::from(socket.into_inner()))
}

/// Connects to the host of `uri` by TLS, where its name leads or where it was last.
async fn proven(last: &LastAddresses, tcp: &Tcp, tls: &Tls, uri: &Uri) -> io::Result<Conn> {
    let host = uri.host().unwrap_or_default();
    let by_name = || connect(tcp.clone(), uri.clone());
    let by_address = async |address| {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Socket::from(socket))
    };
    let (socket, by_memory) = last.connect(uri, by_name(), by_address).await?;
    let mut stream = handshake(tls, host, socket).await;
    if by_memory && let Err(e) = &stream {
        log::info!("{host} is no longer where it was: {e}");
        last.forget(uri);
        stream = handshake(tls, host, by_name().await?).await;
    }
    let conn = Conn::Tls(Box::new(stream?));
    last.keep(uri, conn.remote());
    Ok(conn)
}

/// Connects to the host of `uri` through `proxy`.
async fn through(proxy: &Proxy, tcp: Tcp, tls: &Tls, uri: &Uri) -> io::Result<Conn> {
    let mut socket = connect(tcp, proxy.uri()?).await.map_err(|e| by(proxy, &e))?;
    let connected = async {
        if proxy.speaks == Speaks::Https {
            let mut stream = handshake(tls, proxy.host(), socket).await.map_err(|e| by(proxy, &e))?;
            proxy.connect(&mut stream, uri).await?;
            return Ok(Conn::Tls(Box::new(stream)));
        }
        proxy.connect(&mut socket, uri).await?;
        Ok(Conn::Tcp(socket))
    };
    timeout(HANDSHAKE_TIMEOUT, connected)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("{proxy} does not answer")))?
}

/// The error on the way to a proxy.
fn by(proxy: &Proxy, error: &io::Error) -> io::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Fault>()) {
        Some(fault) => Fault { what: format!("{proxy}: {}", fault.what), ..fault.clone() }.into(),
        None => io::Error::new(error.kind(), format!("{proxy}: {error}")),
    }
}

/// Makes TLS over `stream` with the host of an address, which may be in brackets and have a zone.
async fn handshake<S>(tls: &Tls, host: &str, stream: S) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = host.split('%').next().unwrap_or(host);
    let name = rustls::pki_types::ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let tls = tls.get_or_try_init(connector).await?;
    timeout(HANDSHAKE_TIMEOUT, tls.connect(name, stream))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake timed out"))?
        .map_err(|e| trust::handshake_failed(e, host))
}

/// TLS by the system's trust store. It is made on a thread, with the first TLS connection, because reading the store
/// takes time.
async fn connector() -> io::Result<TlsConnector> {
    tokio::task::spawn_blocking(trust::connector).await.map_err(io::Error::other)?
}

/// The system's resolver, to which an IPv6 zone is said as it knows it: in an address `%` is written `%25` (RFC 6874).
#[derive(Clone)]
struct Resolver(GaiResolver);

impl Service<Name> for Resolver {
    type Response = GaiAddrs;
    type Error = io::Error;
    type Future = GaiFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> GaiFuture {
        let zoned = name.as_str().contains("%25").then(|| name.as_str().replacen("%25", "%", 1).parse().ok()).flatten();
        self.0.call(zoned.unwrap_or(name))
    }
}

/// A failure on the way to a host whose cause is known, with the next step for the user.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    what: String,
    /// The next step.
    pub(super) hint: String,
    /// True if another attempt meets the same.
    pub(super) is_lasting: bool,
}

impl Fault {
    pub(super) fn lasting(what: impl Into<String>, hint: impl Into<String>) -> Fault {
        Fault { what: what.into(), hint: hint.into(), is_lasting: true }
    }

    pub(super) fn passing(what: impl Into<String>, hint: impl Into<String>) -> Fault {
        Fault { is_lasting: false, ..Fault::lasting(what, hint) }
    }

    /// The fault that `error` comes from.
    pub(super) fn of<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Fault> {
        std::iter::successors(Some(error), |error: &&(dyn StdError + 'static)| (*error).source()).find_map(|error| {
            // The source of an I/O error is that of the error in it, which is skipped.
            error.downcast_ref::<io::Error>().and_then(io::Error::get_ref)?.downcast_ref()
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl StdError for Fault {}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> io::Error {
        io::Error::other(fault)
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
    TlsInTls(Box<TlsStream<TlsStream<Socket>>>),
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
            Conn::TlsInTls(stream) => stream.get_ref().0.get_ref().0.accepted(),
            #[cfg(unix)]
            Conn::Unix(_) => 0,
        }
    }

    /// The address of the other end, which is a proxy's where one is used; `None` for a Unix socket.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.addresses().map(|(peer, _)| peer)
    }

    /// The program at the other end, if it runs on this computer.
    pub fn peer(&self) -> os::Peer {
        match self {
            #[cfg(unix)]
            Conn::Unix(socket) => os::Peer::of_unix(socket),
            _ => os::Peer::of_tcp(self.addresses()),
        }
    }

    /// The addresses of the peer, which may be a proxy, and of this side.
    pub fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        match self {
            Conn::Tcp(socket) => socket.addresses(),
            Conn::Tls(stream) => stream.get_ref().0.addresses(),
            Conn::TlsInTls(stream) => stream.get_ref().0.get_ref().0.addresses(),
            #[cfg(unix)]
            Conn::Unix(_) => None,
        }
    }
}

macro_rules! each {
    ($conn:expr, $stream:ident => $call:expr) => {
        match $conn.get_mut() {
            Conn::Tcp($stream) => $call,
            Conn::Tls($stream) => $call,
            Conn::TlsInTls($stream) => $call,
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
