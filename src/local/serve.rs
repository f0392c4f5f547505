//! The embedded platform's process: one platform a state folder, its connections, and its end.

use std::{convert::Infallible, fs, future::Future, io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use hyper::{Method, Request, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    error::{Error, Kind, Result},
    files::{self, Lock},
    labs::net::Conn,
    os,
    settings::Folders,
};

use super::{
    access::{Names, Sessions, random},
    api::{Api, Door, Entrance},
    catalog::InitTask,
    engine,
    listeners::{Listeners, bind, check_length, listen, make_folder, same_user},
    machine::Endpoint,
    pool::Pool,
    preferences::Preferences,
    record,
    reply::{ok, text},
    world::{Rules, World},
};

/// The largest number of connections at a time. A session has two of them, one to the API and its tunnel.
const MAX_CONNECTIONS: usize = 1000;
/// The share of them that may come by the port, which every process of this computer can reach, so that strangers
/// cannot keep the user out.
const MAX_BY_PORT: usize = 500;
/// The descriptors that so many connections, and the commands that run in them, may need; the default limit is 1,024.
const DESCRIPTORS: u64 = 8 * MAX_CONNECTIONS as u64;
/// The time that a connection may take for the next request's headers.
const HEADER_TIME: Duration = Duration::from_secs(60);
/// The time that connections may take to end when the platform does.
const FAREWELL: Duration = Duration::from_secs(1);
/// The address that clients on the socket are told.
const SOCKET_BASE: &str = "http://localhost";

/// The default duration of a state: long enough to be seen, and too short to be waited for.
pub const STATE_DELAY: Duration = Duration::from_millis(20);

/// The behaviour of a platform.
#[derive(Clone, Debug)]
pub struct Options {
    /// The time that machines take from running to ready.
    pub boot_delay: Duration,
    /// The time for which a tunnel request is held while its machine boots.
    pub hold: Duration,
    /// The SSH server of machines.
    pub endpoint: Endpoint,
    /// A loopback address to listen on as well.
    pub listen: Option<SocketAddr>,
    /// The address that clients are told instead of the one listened on.
    pub public_url: Option<String>,
    /// The time for which the platform stays without any connection.
    pub idle: Duration,
    /// The duration of each state that a play or a machine passes through.
    pub state_delay: Duration,
    /// The tunnels that the account may have open at once; `None` for any number.
    pub tunnel_limit: Option<usize>,
    /// Init tasks of every new playground, besides its own.
    pub init_tasks: Vec<InitTask>,
    /// The absolute path of the container engine's socket or folder; `None` for the last one that was chosen in this
    /// platform's folder.
    pub engine: Option<String>,
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
            engine: None,
        }
    }
}

/// A running platform's report about itself.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Status {
    pub pid: u32,
    /// RFC 3339.
    pub since: String,
    pub version: String,
    pub socket: String,
    /// The address besides the socket, if there is one.
    pub listen: Option<SocketAddr>,
    /// The container engine's socket or folder, if one was chosen.
    #[serde(default)]
    pub engine: Option<String>,
    pub plays: usize,
    /// This one included.
    pub connections: usize,
}

/// Serves until `shutdown`, until a request to end, or until there has been no connection for a while; then stops all
/// playgrounds. A platform on a port prints nothing: [`super::start::status`] reports the port.
///
/// # Errors
/// [`Kind::Refused`] when another platform serves the same folder; [`Kind::File`] when the folder is not private, its
/// path is too long, or a playground's state is damaged; [`Kind::Usage`] for an address that is not a loopback one.
pub async fn serve(folders: &Folders, options: Options, shutdown: impl Future<Output = ()>) -> Result<()> {
    serve_and_tell(folders, options, |_| {}, shutdown).await
}

/// As [`serve`]; calls `tell` as soon as the platform listens, with the address besides its socket.
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
    // Held until all has ended.
    let _lock = claim(&folder, &socket)?;
    let tcp = match options.listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let idle_limit = options.idle;
    let listening = tcp.as_ref().and_then(|tcp| tcp.local_addr().ok());
    let platform = Arc::new(Running::open(folders, options, listening)?);
    let listeners = Listeners { unix: bind(&socket)?, tcp };
    log::info!("serving {} on {}", platform.api.world.base(), socket.display());
    tell(listening);

    let connections = run(&platform, &listeners, idle_limit, shutdown).await;
    // A client that comes now starts another platform, which waits for the lock.
    drop(listeners);
    if let Err(e) = fs::remove_file(&socket) {
        log::warn!("cannot remove {}: {e}", socket.display());
    }
    platform.api.world.stop_all().await;
    connections.end().await;
    log::info!("ended");
    Ok(())
}

/// Takes the lock of the state folder, and sweeps away what a killed platform has left half-written there.
fn claim(folder: &Path, socket: &Path) -> Result<Lock> {
    // Without locks, a running platform is found by its socket.
    let is_free = |lock: &Lock| lock.is_held() || std::os::unix::net::UnixStream::connect(socket).is_err();
    let Some(lock) = Lock::try_acquire(folder)?.filter(is_free) else {
        return Err(Error::new(Kind::Refused, format!("an embedded platform already serves {}", folder.display()))
            .with_hint("see it with `labctl-ssh-proxy local status`, or stop it with `labctl-ssh-proxy local stop`"));
    };
    files::sweep(folder);
    Ok(lock)
}

/// Accepts connections until `shutdown`, a request to end, or an idle time of `idle_limit`. Returns the connections
/// that are still open.
async fn run(
    platform: &Arc<Running>,
    listeners: &Listeners,
    idle_limit: Duration,
    shutdown: impl Future<Output = ()>,
) -> Connections {
    let mut connections = Connections::new(platform);
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listeners.accept() => accepted,
            () = &mut shutdown => return connections,
            () = platform.stop.notified() => return connections,
            () = idle(platform.connections.subscribe(), idle_limit) => {
                log::info!("no connections for {} s: exiting", idle_limit.as_secs());
                return connections;
            }
        };
        match accepted {
            Ok((conn, entrance)) => connections.admit(conn, entrance),
            Err(e) => cannot_accept(&e).await,
        }
    }
}

/// The connections of a platform, a task each.
struct Connections {
    platform: Arc<Running>,
    by_port: Arc<Semaphore>,
    closing: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Connections {
    fn new(platform: &Arc<Running>) -> Connections {
        Connections {
            platform: Arc::clone(platform),
            by_port: Arc::new(Semaphore::new(MAX_BY_PORT)),
            closing: watch::Sender::new(false),
            tasks: JoinSet::new(),
        }
    }

    /// Starts the conversation with a client, unless it is a stranger or there are too many.
    fn admit(&mut self, conn: Conn, entrance: Entrance) {
        while self.tasks.try_join_next().is_some() {}
        if let Conn::Unix(stream) = &conn
            && let Err(e) = same_user(stream)
        {
            log::warn!("{}", e.message());
            return;
        }
        if *self.platform.connections.borrow() >= MAX_CONNECTIONS {
            log::warn!("more than {MAX_CONNECTIONS} connections: refusing one");
            return;
        }
        let seat = match entrance {
            Entrance::Socket => None,
            Entrance::Port => match Arc::clone(&self.by_port).try_acquire_owned() {
                Ok(seat) => Some(seat),
                Err(_) => {
                    log::warn!("more than {MAX_BY_PORT} connections through the port: refusing one");
                    return;
                }
            },
        };
        let platform = Arc::clone(&self.platform);
        self.tasks.spawn(platform.converse(conn, entrance, seat, self.closing.subscribe()));
    }

    /// Asks every client to end, gives them a moment, and ends the rest.
    async fn end(mut self) {
        self.closing.send_replace(true);
        let mut connections = self.platform.connections.subscribe();
        let _ = timeout(FAREWELL, connections.wait_for(|count| *count == 0)).await;
        self.tasks.shutdown().await;
    }
}

/// A platform that runs.
struct Running {
    api: Api,
    since: String,
    socket: String,
    listening: Option<SocketAddr>,
    engine: Option<String>,
    connections: watch::Sender<usize>,
    stop: Notify,
}

/// A connection as it is counted. It lives until the connection, and its tunnel after an upgrade, have ended.
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
    /// Reads the state of the platform in `folders`, which listens on `listening` besides its socket.
    fn open(folders: &Folders, options: Options, listening: Option<SocketAddr>) -> Result<Running> {
        let folder = folders.local();
        let base = match (&options.public_url, listening) {
            (Some(url), _) => url.trim_end_matches('/').to_owned(),
            (None, Some(address)) => format!("http://{address}"),
            (None, None) => SOCKET_BASE.to_owned(),
        };
        let port = match listening {
            Some(address) => Some(Door { sessions: Sessions::open(&folder)?, names: Names::new(address.ip(), &base)? }),
            None => None,
        };
        // With fewer descriptors fewer connections are served.
        if let Err(error) = os::raise_open_files_to(DESCRIPTORS) {
            log::warn!("cannot raise the limit of open files: {error}");
        }
        let engine = engine::keep(&folder, options.engine)?;
        let rules = Rules {
            boot_delay: options.boot_delay,
            state_delay: options.state_delay,
            endpoint: options.endpoint,
            init_tasks: options.init_tasks,
            engine: engine.clone(),
        };
        let api = Api {
            world: World::open(&folder, base, rules)?,
            hold: options.hold,
            port,
            pool: Arc::new(Pool::new(options.tunnel_limit)),
            preferences: Preferences::open(&folder)?,
            streams_key: random(16),
        };
        Ok(Running {
            api,
            since: record::now(),
            socket: folders.socket().display().to_string(),
            listening,
            engine,
            connections: watch::Sender::new(0),
            stop: Notify::new(),
        })
    }

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
            engine: self.engine.clone(),
            plays: self.api.world.count(),
            connections: *self.connections.borrow(),
        }
    }
}

/// The path of a running platform's report about itself, on its socket only.
pub const STATUS_PATH: &str = "/local/status";
/// The path of a request to end, on the socket only.
pub const STOP_PATH: &str = "/local/stop";

/// Ends when there has been no connection for `time`.
async fn idle(mut connections: watch::Receiver<usize>, time: Duration) {
    loop {
        // The sender lives as long as this function runs.
        let _ = connections.wait_for(|count| *count == 0).await;
        if timeout(time, connections.wait_for(|count| *count > 0)).await.is_err() {
            return;
        }
    }
}

/// Waits a moment after a failure to accept, because it is most likely a lack of descriptors, and others will be freed.
async fn cannot_accept(error: &io::Error) {
    log::warn!("cannot accept a connection: {error}");
    sleep(Duration::from_millis(100)).await;
}
