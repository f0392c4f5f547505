//! Forwards that listen here (`-L`).
//!
//! Each connection to a port gets a tunnel of its own. A tunnel cannot reach a Unix socket of the machine, so those
//! connections go over SSH, each over its own SSH connection so that a slow one does not hold up the others.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::future::select_all;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream, lookup_host},
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};

use crate::{
    error::{Error, Kind, Result},
    labs::vitals::Vitals,
    ssh::client::SshStream,
    target::host_port,
};

use super::{
    board::{Board, Row},
    carry::{Ends, Near, carry},
    entrance::Shared,
    spec::{Bind, Endpoint, Listen},
    way::{Way, is_final},
};

/// Length of the listener's accept queue.
const BACKLOG: i32 = 1024;
/// Pause before the next accept when the process has no file descriptors left.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);
/// Time in which the data of a lost SSH connection is delivered.
const REST: Duration = Duration::from_secs(2);
/// Number of free ports to attempt until one is free on every loopback address.
const TRIES: usize = 16;

/// The listening sockets of one forward.
pub(crate) enum Listeners {
    /// One listener for each address.
    Tcp(Vec<TcpListener>),
    /// A Unix socket.
    #[cfg(unix)]
    Unix(tokio::net::UnixListener, SocketFile),
}

/// An accepted connection.
enum Accepted {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
}

impl Listeners {
    /// Listens at `listen`. The board is told of its addresses that are taken while others are free.
    ///
    /// # Errors
    /// [`Kind::Network`] when each address is in use or not permitted.
    pub(crate) async fn bind(listen: &Listen, board: &Board) -> Result<Listeners> {
        match listen {
            Listen::Port(bind, port) => Ok(Listeners::Tcp(bind_port(bind, *port, Type::STREAM, tcp, board).await?)),
            #[cfg(unix)]
            Listen::Socket(path) => {
                let path = std::path::Path::new(path);
                let (listener, file) =
                    SocketFile::bind(path).map_err(|e| not_bound(&path.display().to_string(), &e))?;
                Ok(Listeners::Unix(listener, file))
            }
            #[cfg(not(unix))]
            Listen::Socket(path) => Err(not_bound(path, &io::ErrorKind::Unsupported.into())),
        }
    }

    async fn accept(&self) -> io::Result<(Accepted, String)> {
        match self {
            Listeners::Tcp(all) => {
                // The first one that is ready. Connections to the other listeners stay in their queues.
                let (accepted, ..) = select_all(all.iter().map(|listener| Box::pin(listener.accept()))).await;
                let (stream, peer) = accepted?;
                // Latency matters more than the number of packets.
                let _ = stream.set_nodelay(true);
                Ok((Accepted::Tcp(stream), shown(peer)))
            }
            #[cfg(unix)]
            Listeners::Unix(listener, _) => Ok((Accepted::Unix(listener.accept().await?.0), "unix".to_owned())),
        }
    }

    /// Returns the bound port, or 0 for a Unix socket.
    pub(crate) fn port(&self) -> u16 {
        match self {
            Listeners::Tcp(all) => all.first().and_then(|l| l.local_addr().ok()).map_or(0, |address| address.port()),
            #[cfg(unix)]
            Listeners::Unix(..) => 0,
        }
    }

    /// Returns `tcp` or `unix`.
    pub(crate) fn protocol(&self) -> &'static str {
        match self {
            Listeners::Tcp(_) => "tcp",
            #[cfg(unix)]
            Listeners::Unix(..) => "unix",
        }
    }

    /// Returns the first bound address, with the actual port, or the socket's path.
    pub(crate) fn address(&self) -> String {
        match self {
            Listeners::Tcp(all) => all.first().and_then(|l| l.local_addr().ok()).map(shown).unwrap_or_default(),
            #[cfg(unix)]
            Listeners::Unix(_, file) => file.path.display().to_string(),
        }
    }
}

/// Formats an address for the table.
pub(crate) fn shown(address: SocketAddr) -> String {
    host_port(&address.ip().to_string(), address.port())
}

/// Returns the error for an address that cannot be bound, with a hint.
pub(crate) fn not_bound(address: &str, error: &io::Error) -> Error {
    let failed = Error::new(Kind::Network, format!("cannot listen on {address}: {error}"));
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            failed.with_hint("another program listens there already; choose another port, or 0 for a free one")
        }
        io::ErrorKind::PermissionDenied => {
            failed.with_hint("ports below 1024 are reserved for the administrator; choose a higher one")
        }
        _ => failed,
    }
}

/// Binds `port` on every address of `bind` that is free, as ssh does, and opens each socket with `open`. Port 0 selects
/// one free port for all.
///
/// # Errors
/// As [`Listeners::bind`].
pub(crate) async fn bind_port<L>(
    bind: &Bind,
    port: u16,
    kind: Type,
    open: impl Fn(Socket) -> io::Result<(L, SocketAddr)>,
    board: &Board,
) -> Result<Vec<L>> {
    let addresses: Vec<SocketAddr> = match bind {
        Bind::Unnamed | Bind::Loopback => vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()],
        Bind::All => vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()],
        Bind::Host(host) => match lookup_host((host.as_str(), port)).await {
            // Never empty: the lookup of a name without addresses fails.
            Ok(found) => found.collect(),
            Err(e) => {
                let hint = "before the port stands an address of this computer to listen on; -m names a machine";
                return Err(not_bound(&host_port(host, port), &e).with_hint(hint));
            }
        },
    };
    for left in (0..TRIES).rev() {
        let (bound, taken) = bind_all(&addresses, kind, &open);
        // The port is free on the first address but taken on another: attempt a different one.
        if port == 0 && left > 0 && taken.iter().any(|(_, e)| e.kind() == io::ErrorKind::AddrInUse) {
            continue;
        }
        match taken.first() {
            Some((address, e)) if bound.is_empty() => return Err(not_bound(&shown(*address), e)),
            _ => {}
        }
        for (address, e) in &taken {
            let what = format!("cannot listen on {}: {e}", shown(*address));
            board.problem(&format!("{what}; the forward listens on the other address alone, so name that one"));
        }
        return Ok(bound);
    }
    Ok(Vec::new())
}

/// Binds the addresses that are free. Also returns those that are not.
fn bind_all<L>(
    addresses: &[SocketAddr],
    kind: Type,
    open: &impl Fn(Socket) -> io::Result<(L, SocketAddr)>,
) -> (Vec<L>, Vec<(SocketAddr, io::Error)>) {
    let (mut bound, mut taken) = (Vec::new(), Vec::new());
    let mut chosen = None;
    for address in addresses {
        let mut address = *address;
        if let Some(port) = chosen {
            address.set_port(port);
        }
        match bind_one(address, kind).and_then(open) {
            Ok((listener, at)) => {
                chosen = Some(at.port());
                bound.push(listener);
            }
            // A system without IPv6 has no such address to bind.
            Err(_) if address.is_ipv6() && !bound.is_empty() && !has_address(address) => {}
            Err(e) => taken.push((address, e)),
        }
    }
    (bound, taken)
}

fn has_address(address: SocketAddr) -> bool {
    std::net::UdpSocket::bind((address.ip(), 0)).is_ok()
}

fn bind_one(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let protocol = if kind == Type::STREAM { Protocol::TCP } else { Protocol::UDP };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        // The IPv4 address has its own socket.
        socket.set_only_v6(true)?;
    }
    #[cfg(unix)]
    if kind == Type::STREAM {
        // Lingering connections of an earlier run (TIME_WAIT) must not block the port.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn tcp(socket: Socket) -> io::Result<(TcpListener, SocketAddr)> {
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from_std(socket.into())?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// A Unix socket in the file system. Dropping it deletes the file, unless another process has replaced it.
#[cfg(unix)]
pub(crate) struct SocketFile {
    path: std::path::PathBuf,
    inode: u64,
}

#[cfg(unix)]
impl SocketFile {
    /// Listens on `path`, accessible to this user only. Replaces a socket whose process no longer exists.
    fn bind(path: &std::path::Path) -> io::Result<(tokio::net::UnixListener, SocketFile)> {
        use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
        let stale = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
            && std::os::unix::net::UnixStream::connect(path)
                .is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
        if stale {
            std::fs::remove_file(path)?;
        }
        let listener = tokio::net::UnixListener::bind(path)?;
        // As OpenSSH with StreamLocalBindMask 0177.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let inode = std::fs::symlink_metadata(path)?.ino();
        Ok((listener, SocketFile { path: path.to_owned(), inode }))
    }
}

#[cfg(unix)]
impl Drop for SocketFile {
    fn drop(&mut self) {
        use std::os::unix::fs::MetadataExt;
        if std::fs::symlink_metadata(&self.path).is_ok_and(|now| now.ino() == self.inode) {
            // There is no caller left that could report an error.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// One forward that listens here.
#[derive(Clone)]
pub(crate) struct Local {
    /// The connection to the machine.
    pub way: Arc<Way>,
    /// The destination, as the machine sees it.
    pub to: Endpoint,
    /// Carry TCP over SSH, which has a half-close.
    pub over_ssh: bool,
    /// The output.
    pub board: Arc<Board>,
    /// The forward's row in the output.
    pub row: Arc<Row>,
}

impl Local {
    /// Accepts connections until the playground no longer exists. Dropping the future ends them all.
    ///
    /// # Errors
    /// Fails when the playground no longer exists.
    pub(crate) async fn serve(self, listeners: Listeners) -> Result<()> {
        self.serve_until(listeners, std::future::pending()).await
    }

    /// The same, until `stop` is done: then it listens no longer, and waits for the open connections to end.
    ///
    /// # Errors
    /// As [`Local::serve`].
    pub(crate) async fn serve_until(self, listeners: Listeners, stop: impl Future<Output = ()>) -> Result<()> {
        let mut connections = JoinSet::new();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                accepted = listeners.accept() => match accepted {
                    Ok((near, peer)) => {
                        let this = self.clone();
                        connections.spawn(async move {
                            match near {
                                Accepted::Tcp(near) => this.connect(near, &peer).await,
                                #[cfg(unix)]
                                Accepted::Unix(near) => this.connect(near, &peer).await,
                            }
                        });
                    }
                    Err(e) => {
                        self.board.problem(&format!("cannot accept a connection: {e}"));
                        sleep(OUT_OF_DESCRIPTORS).await;
                    }
                },
                Some(ended) = connections.join_next() => is_it_over(ended)?,
            }
        }
        drop(listeners);
        while let Some(ended) = connections.join_next().await {
            is_it_over(ended)?;
        }
        Ok(())
    }

    /// The end of a connection over SSH, which ends after its streams, unless it is lost.
    fn kept(&self, carried: io::Result<()>, has_ended: bool, carrier: &str) -> io::Result<()> {
        carried.and_then(|()| if has_ended { Err(cut_off(carrier, &self.to)) } else { Ok(()) })
    }

    /// Carries one connection until it ends.
    ///
    /// # Errors
    /// Fails when the playground no longer exists. Every other failure affects this connection only and is reported.
    async fn connect<N: Near>(&self, near: N, peer: &str) -> Result<()> {
        let mut connection = self.board.open(&self.row, peer);
        let carried: Result<io::Result<()>> = async {
            if let Some(entrance) = self.way.entrance() {
                let (joint, Shared { stream, pump: _pump }) = entrance.connect(&self.way, &self.to).await?;
                let carried = until(carry(near, stream, Ends::Separately, &connection), joint.over()).await;
                return Ok(self.kept(carried, joint.has_ended(), "the connection into the container"));
            }
            match (&self.to, self.over_ssh) {
                (Endpoint::Port(host, port), false) => {
                    let tunnel = self.way.dial(&host_port(host, *port)).await?;
                    let vitals = tunnel.vitals();
                    let carried = carry(near, tunnel, Ends::Together, &connection).await;
                    Ok(judged(carried, &vitals, &self.to))
                }
                (to, _) => {
                    let mut ssh = self.way.ssh().await?;
                    let stream: SshStream = match to {
                        Endpoint::Port(host, port) => ssh.connect_tcp(host, *port).await?,
                        Endpoint::Socket(path) => ssh.connect_unix(path).await?,
                    };
                    let carried = until(carry(near, stream, Ends::Separately, &connection), ssh.over()).await;
                    let carried = self.kept(carried, ssh.has_ended(), "the SSH connection");
                    ssh.close().await;
                    Ok(carried)
                }
            }
        }
        .await;
        match carried {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => {
                connection.failed(&e.to_string());
                self.board.problem(&format!("a connection to {} was lost: {e}", self.to));
                Ok(())
            }
            Err(error) => {
                connection.failed(error.message());
                if is_final(&error) {
                    return Err(error);
                }
                let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
                self.board.problem(&format!("a connection to {} failed: {}{hint}", self.to, error.message()));
                Ok(())
            }
        }
    }
}

/// Carries until the SSH connection is over. Then the bytes that have come are delivered, and a near program that waits
/// is let go.
async fn until(carrying: impl Future<Output = io::Result<()>>, over: impl Future<Output = ()>) -> io::Result<()> {
    tokio::pin!(carrying);
    tokio::select! {
        carried = &mut carrying => carried,
        () = over => timeout(REST, carrying).await.unwrap_or(Ok(())),
    }
}

/// The end of one connection, which is that of all when the playground no longer exists. A panicked task affects only
/// its own connection.
fn is_it_over(ended: Result<Result<()>, JoinError>) -> Result<()> {
    ended.unwrap_or(Ok(()))
}

/// Tells a tunnel that one side has closed from one that just ended, as it does after a failed dial.
fn judged(carried: io::Result<()>, vitals: &Vitals, to: &Endpoint) -> io::Result<()> {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    let just_ended = match &carried {
        Ok(()) => vitals.was_cut_off(),
        // It ended so fast that what was sent met nothing.
        Err(e) => matches!(e.kind(), BrokenPipe | ConnectionReset | UnexpectedEof),
    };
    match vitals.received() {
        _ if !just_ended => carried,
        0 => Err(io::Error::new(io::ErrorKind::ConnectionRefused, format!("nothing answered on {to} there"))),
        _ => Err(cut_off("the tunnel", to)),
    }
}

/// The error for a connection whose carrier ended in its middle.
pub(super) fn cut_off(carrier: &str, to: &Endpoint) -> io::Error {
    let what = format!("{carrier} ended in the middle of the connection to {to}");
    io::Error::new(io::ErrorKind::ConnectionAborted, what)
}
