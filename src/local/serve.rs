//! The embedded platform's process: its sockets, one platform a state folder, and its end.

use std::{
    convert::Infallible,
    fs,
    future::Future,
    io,
    net::SocketAddr,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

use hyper::{Method, Request, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, UnixListener, UnixStream},
    signal::unix::{SignalKind, signal},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    error::{Error, Kind, Result},
    files::{self, Lock},
    labs::net::Conn,
    settings::{Folders, HOME_VARIABLE},
};

use super::{
    access::{Names, Sessions, random},
    api::{Api, Door, Entrance},
    catalog::InitTask,
    machine::Endpoint,
    pool::Pool,
    preferences::Preferences,
    record,
    reply::{ok, text},
    world::{Rules, World},
};

/// Longest path of a Unix socket: `sun_path` less its final zero.
const MAX_SOCKET_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };
/// Connections at a time. A session has two of them, one to the API and its tunnel.
const MAX_CONNECTIONS: usize = 1000;
/// Of them, those that come by the port, where anybody on this computer can knock: so that strangers cannot keep the
/// user out.
const MAX_BY_PORT: usize = 500;
/// Descriptors that so many connections, and the commands that run in them, may need; a process has 1,024 by default.
const DESCRIPTORS: u64 = 8 * MAX_CONNECTIONS as u64;
/// How long a connection may take for the next request's headers.
const HEADER_TIME: Duration = Duration::from_secs(60);
/// How long connections may take to end when the platform does.
const FAREWELL: Duration = Duration::from_secs(1);
/// The address that clients on the socket are told.
const SOCKET_BASE: &str = "http://localhost";

/// Default duration of a state: long enough to be seen, and too short to be waited for.
pub const STATE_DELAY: Duration = Duration::from_millis(20);

/// How the platform behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long machines take from running to ready.
    pub boot_delay: Duration,
    /// How long a tunnel request is held while its machine boots.
    pub hold: Duration,
    /// The SSH server of machines.
    pub endpoint: Endpoint,
    /// A loopback address to listen on as well.
    pub listen: Option<SocketAddr>,
    /// The address that clients are told instead of the one listened on.
    pub public_url: Option<String>,
    /// How long the platform stays without any connection.
    pub idle: Duration,
    /// Duration of each state that a play or a machine passes through.
    pub state_delay: Duration,
    /// Tunnels that the account may have open at once; any number without a limit.
    pub tunnel_limit: Option<usize>,
    /// Init tasks of every new playground, besides its own.
    pub init_tasks: Vec<InitTask>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            boot_delay: Duration::ZERO,
            hold: Duration::from_secs(55),
            endpoint: Endpoint::Builtin,
            listen: None,
            public_url: None,
            idle: Duration::from_secs(10 * 60),
            state_delay: STATE_DELAY,
            tunnel_limit: None,
            init_tasks: Vec::new(),
        }
    }
}

/// What a running platform says of itself.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Status {
    pub pid: u32,
    /// RFC 3339.
    pub since: String,
    pub version: String,
    pub socket: String,
    /// Where it listens besides, if it does.
    pub listen: Option<SocketAddr>,
    pub plays: usize,
    /// This one included.
    pub connections: usize,
}

/// Serves until `shutdown`, until it is asked to end, or until nobody has been connected for a while; then stops all
/// playgrounds. A platform on a port prints nothing: [`super::start::status`] tells the port.
///
/// # Errors
/// [`Kind::Refused`] when another platform serves the same folder; [`Kind::File`] when the folder is not private, its
/// path is too long, or a playground's state is damaged; [`Kind::Usage`] for an address that is not a loopback one.
pub async fn serve(folders: &Folders, options: Options, shutdown: impl Future<Output = ()>) -> Result<()> {
    serve_and_tell(folders, options, |_| {}, shutdown).await
}

/// As [`serve`]; tells where it listens besides its socket, as soon as it does.
///
/// # Errors
/// As [`serve`].
pub async fn serve_and_tell(
    folders: &Folders,
    options: Options,
    tell: impl FnOnce(Option<SocketAddr>),
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let (folder, socket) = (folders.local(), folders.socket());
    check_length(&socket)?;
    make_folder(&folder)?;
    let Some(lock) = Lock::try_acquire(&folder)? else {
        return Err(Error::new(Kind::Refused, format!("an embedded platform already serves {}", folder.display()))
            .with_hint("`labctl-ssh-proxy local status` shows it, `local stop` ends it"));
    };
    files::sweep(&folder);
    let tcp = match options.listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let listening = tcp.as_ref().and_then(|tcp| tcp.local_addr().ok());
    let base = match (&options.public_url, listening) {
        (Some(url), _) => url.trim_end_matches('/').to_owned(),
        (None, Some(address)) => format!("http://{address}"),
        (None, None) => SOCKET_BASE.to_owned(),
    };
    let door = match listening {
        Some(address) => Some(Door { sessions: Sessions::open(&folder)?, names: Names::new(address.ip(), &base)? }),
        None => None,
    };
    raise_descriptor_limit();
    let rules = Rules {
        boot_delay: options.boot_delay,
        state_delay: options.state_delay,
        endpoint: options.endpoint,
        init_tasks: options.init_tasks,
    };
    let world = World::open(folder.join("plays"), base, rules)?;
    let api = Api {
        world: Arc::clone(&world),
        hold: options.hold,
        port: door,
        pool: Arc::new(Pool::new(options.tunnel_limit)),
        preferences: Preferences::open(&folder)?,
        streams_key: random(16),
    };
    let unix = bind(&socket)?;

    let platform = Arc::new(Running {
        api,
        since: record::now(),
        socket: socket.display().to_string(),
        listening,
        connections: watch::Sender::new(0),
        stop: Notify::new(),
    });
    log::info!("serving {} on {}", world.base(), socket.display());
    tell(listening);
    let closing = watch::Sender::new(false);
    let by_port = Arc::new(Semaphore::new(MAX_BY_PORT));
    let mut tasks = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        while tasks.try_join_next().is_some() {}
        let (conn, entrance) = tokio::select! {
            accepted = unix.accept() => match accepted {
                Ok((stream, _)) => match same_user(&stream) {
                    Ok(()) => (Conn::Unix(stream), Entrance::Socket),
                    Err(e) => {
                        log::warn!("{}", e.message());
                        continue;
                    }
                },
                Err(e) => {
                    cannot_accept(&e).await;
                    continue;
                }
            },
            accepted = accept(tcp.as_ref()) => match accepted {
                Ok(stream) => (Conn::from(stream), Entrance::Port),
                Err(e) => {
                    cannot_accept(&e).await;
                    continue;
                }
            },
            () = &mut shutdown => break,
            () = platform.stop.notified() => break,
            () = idle(platform.connections.subscribe(), options.idle) => {
                log::info!("nobody has been here for {} s", options.idle.as_secs());
                break;
            }
        };
        if *platform.connections.borrow() >= MAX_CONNECTIONS {
            log::warn!("more than {MAX_CONNECTIONS} connections: one is refused");
            continue;
        }
        let seat = match entrance {
            Entrance::Socket => None,
            Entrance::Port => match Arc::clone(&by_port).try_acquire_owned() {
                Ok(seat) => Some(seat),
                Err(_) => {
                    log::warn!("more than {MAX_BY_PORT} connections by the port: one is refused");
                    continue;
                }
            },
        };
        tasks.spawn(Arc::clone(&platform).converse(conn, entrance, seat, closing.subscribe()));
    }

    // Whoever comes now starts another platform, which waits for the lock.
    drop((unix, tcp));
    if let Err(e) = fs::remove_file(&socket) {
        log::warn!("cannot remove {}: {e}", socket.display());
    }
    world.stop_all().await;
    closing.send_replace(true);
    let mut connections = platform.connections.subscribe();
    let _ = timeout(FAREWELL, connections.wait_for(|count| *count == 0)).await;
    tasks.shutdown().await;
    log::info!("ended");
    drop(lock);
    Ok(())
}

/// As far as the system lets us; with fewer descriptors fewer connections are served.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < DESCRIPTORS) {
        limit.current = Some(limit.maximum.map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS)));
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            log::warn!("no more descriptors: {error}");
        }
    }
}

/// Ends when one of the signals that end a process comes: SIGTERM, SIGINT or SIGHUP.
///
/// # Errors
/// When they cannot be caught.
pub fn signals() -> Result<impl Future<Output = ()>> {
    let catch = |kind| signal(kind).map_err(|e| Error::new(Kind::Internal, format!("cannot catch signals: {e}")));
    let (mut term, mut int, mut hup) =
        (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?, catch(SignalKind::hangup())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            _ = hup.recv() => {}
        }
    })
}

struct Running {
    api: Api,
    since: String,
    socket: String,
    listening: Option<SocketAddr>,
    connections: watch::Sender<usize>,
    stop: Notify,
}

/// Counts a connection, and whatever goes on after its upgrade, as long as it is there.
struct Guard {
    platform: Arc<Running>,
    _seat: Option<OwnedSemaphorePermit>,
}

impl Guard {
    fn new(platform: &Arc<Running>, seat: Option<OwnedSemaphorePermit>) -> Guard {
        platform.connections.send_modify(|count| *count += 1);
        Guard { platform: Arc::clone(platform), _seat: seat }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.platform.connections.send_modify(|count| *count -= 1);
    }
}

impl Running {
    async fn converse(
        self: Arc<Self>,
        conn: Conn,
        entrance: Entrance,
        seat: Option<OwnedSemaphorePermit>,
        mut closing: watch::Receiver<bool>,
    ) {
        let guard = Arc::new(Guard::new(&self, seat));
        let service = service_fn(move |request: Request<Incoming>| {
            let (platform, guard) = (Arc::clone(&self), Arc::clone(&guard));
            async move { Ok::<_, Infallible>(platform.answer(entrance, request, guard).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME)
            .serve_connection(TokioIo::new(conn), service)
            .with_upgrades();
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = async { drop(closing.wait_for(|closing| *closing).await) } => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(e) = ended {
            log::debug!("a connection broke: {e}");
        }
    }

    async fn answer(
        &self,
        entrance: Entrance,
        request: Request<Incoming>,
        guard: Arc<Guard>,
    ) -> hyper::Response<http_body_util::Full<bytes::Bytes>> {
        match (entrance, request.method(), request.uri().path()) {
            (Entrance::Socket, &Method::GET, STATUS_PATH) => ok(&self.status()),
            (Entrance::Socket, &Method::POST, STOP_PATH) => {
                self.stop.notify_one();
                text(StatusCode::ACCEPTED, "ending")
            }
            _ => self.api.answer(entrance, request, guard).await,
        }
    }

    fn status(&self) -> Status {
        Status {
            pid: std::process::id(),
            since: self.since.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            socket: self.socket.clone(),
            listen: self.listening,
            plays: self.api.world.count(),
            connections: *self.connections.borrow(),
        }
    }
}

/// Where a running platform tells about itself, on its socket only.
pub const STATUS_PATH: &str = "/local/status";
/// Where it is asked to end, on its socket only.
pub const STOP_PATH: &str = "/local/stop";

/// Ends when there has been no connection for `time`.
async fn idle(mut connections: watch::Receiver<usize>, time: Duration) {
    loop {
        // The sender is there as long as anybody waits here.
        let _ = connections.wait_for(|count| *count == 0).await;
        if timeout(time, connections.wait_for(|count| *count > 0)).await.is_err() {
            return;
        }
    }
}

async fn accept(tcp: Option<&TcpListener>) -> io::Result<tokio::net::TcpStream> {
    match tcp {
        Some(tcp) => {
            let (stream, _) = tcp.accept().await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        }
        None => std::future::pending().await,
    }
}

async fn cannot_accept(error: &io::Error) {
    // Out of descriptors, most likely; others will be freed.
    log::warn!("cannot accept a connection: {error}");
    sleep(Duration::from_millis(100)).await;
}

/// The kernel says whose process is at the other end. The folder keeps others out already.
fn same_user(stream: &UnixStream) -> Result<()> {
    let own = rustix::process::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == own => Ok(()),
        Ok(peer) => Err(Error::new(Kind::Refused, format!("a process of user {} is refused", peer.uid()))),
        Err(e) => Err(Error::new(Kind::Refused, format!("a process that cannot be identified is refused: {e}"))),
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    if !address.ip().is_loopback() {
        return Err(Error::new(Kind::Usage, format!("{address} is not a loopback address")).with_hint(
            "machines are shells of yours: put something with TLS in front, and name it with --public-url",
        ));
    }
    TcpListener::bind(address).await.map_err(|e| Error::new(Kind::Network, format!("cannot listen on {address}: {e}")))
}

/// Refuses a path that no socket can have.
pub fn check_length(socket: &Path) -> Result<()> {
    let length = socket.as_os_str().len();
    if length <= MAX_SOCKET_PATH {
        return Ok(());
    }
    let words =
        format!("{} is too long for a socket: {length} bytes, {MAX_SOCKET_PATH} are possible", socket.display());
    Err(Error::new(Kind::File, words).with_hint(format!("set {HOME_VARIABLE} to a shorter folder")))
}

/// Makes the state folder, or sees that nobody else can get into it.
pub fn make_folder(folder: &Path) -> Result<()> {
    files::make_private_folder(folder).map_err(|e| Error::file("make", folder, &e))?;
    let found = fs::symlink_metadata(folder).map_err(|e| Error::file("look at", folder, &e))?;
    let refuse = |why: &str, remedy: String| {
        Err(Error::new(Kind::File, format!("{} {why}, so others could get into your machines", folder.display()))
            .with_hint(remedy))
    };
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return refuse("is not a folder of yours", format!("remove it, or set {HOME_VARIABLE} to another folder"));
    }
    if found.permissions().mode() & 0o077 != 0 {
        return refuse("is open to others", format!("chmod 700 {}", folder.display()));
    }
    Ok(())
}

/// Listens on the socket, in place of one that a killed platform left behind: the lock says that nobody uses it.
fn bind(socket: &Path) -> Result<UnixListener> {
    let failed = |e: io::Error| Error::file("listen on", socket, &e);
    match fs::remove_file(socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(socket).map_err(failed)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(files::PRIVATE)).map_err(failed)?;
    Ok(listener)
}
