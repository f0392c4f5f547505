//! Forwards that listen on the machine (`-R`).
//!
//! For a port, the tunnel server listens (`listen:`). It announces each connection on a control channel, and we accept
//! the connection with a tunnel of its own. The tunnel server cannot report which free port it chose, and cannot listen
//! on a Unix socket. Port 0 and sockets therefore go over SSH. So does a loopback port where an SSH connection survives
//! an outage, which a control channel does not.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use futures_util::StreamExt;
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_websockets::{ClientBuilder, Limits, Message, WebSocketStream};

use crate::{
    error::{Error, Kind, Result},
    labs::{
        http::Stream,
        tunnel::{self, Pings},
    },
    ssh::client::SshClient,
    target::host_port,
};

use super::{
    board::{Board, Connection, Row},
    carry::{Ends, carry},
    entrance::{AT_ONCE, Listening, Shared},
    local::cut_off,
    spec::{Bind, Endpoint, Listen},
    way::{Pauses, Way, is_final},
};

/// Time limit for connecting to a program here.
const CONNECT: Duration = Duration::from_secs(10);
/// Time limit for a machine's SSH server to end a session.
const FREED: Duration = Duration::from_secs(2);
/// Longest accepted silence of a control channel. The tunnel server pings every 30 s, so a longer one means it is dead.
const SILENCE: Duration = Duration::from_secs(75);
/// Largest message accepted on the control channel, which sends one line of text per message.
const MAX_MESSAGE: usize = 64 * 1024;

/// The listener on the machine.
pub(crate) enum Listener {
    /// The tunnel server, with its control channel.
    Tunnel(Box<WebSocketStream<Stream>>),
    /// The SSH server.
    Ssh(Box<SshClient>),
    /// The server in a container.
    Inside(Listening),
}

/// A message on the control channel.
#[derive(Deserialize)]
struct Told {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    cid: String,
}

/// Formats the address for the machine's tunnel server, where an empty host means all addresses. Without a named
/// address, we listen on all of them, as the official client does, because exposed ports are reached at the machine's
/// main interface.
fn address(bind: &Bind, port: u16) -> String {
    match bind {
        Bind::Loopback => host_port("127.0.0.1", port),
        Bind::Unnamed | Bind::All => host_port("", port),
        Bind::Host(host) => host_port(host, port),
    }
}

/// Formats the address for people.
fn shown(bind: &Bind, port: u16) -> String {
    match bind {
        Bind::Unnamed | Bind::All => host_port("0.0.0.0", port),
        Bind::Loopback | Bind::Host(_) => address(bind, port),
    }
}

impl Listener {
    /// Listens on the machine. Also returns the address, with the actual port.
    ///
    /// # Errors
    /// The errors of [`Way::dial`], and [`Kind::Refused`] when the address cannot be bound.
    pub(crate) async fn open(way: &Way, listen: &Listen) -> Result<(Listener, String)> {
        if let Some(entrance) = way.entrance() {
            let joint = entrance.joint(way, AT_ONCE).await?;
            let (listening, address) = joint.listen(listen).await?;
            return Ok((Listener::Inside(listening), address));
        }
        match listen {
            Listen::Port(bind, 0) => {
                // Same default as ssh: most servers permit nothing but loopback addresses (GatewayPorts).
                let bind = if *bind == Bind::Unnamed { &Bind::Loopback } else { bind };
                let host = match bind {
                    Bind::Unnamed | Bind::Loopback => "localhost",
                    // RFC 4254, 7.1: all addresses of all families.
                    Bind::All => "",
                    Bind::Host(host) => host,
                };
                let ssh = way.ssh().await?;
                let port = ssh.listen_tcp(host, 0).await?;
                Ok((Listener::Ssh(Box::new(ssh)), shown(bind, port)))
            }
            Listen::Port(bind, port) => {
                if let Some(lasting) = lasting(way, bind, *port).await {
                    return Ok((Listener::Ssh(Box::new(lasting)), shown(bind, *port)));
                }
                let address = address(bind, *port);
                let control = way.listen(&address).await.map_err(|error| match error.kind() {
                    Kind::Refused => Error::new(
                        Kind::Refused,
                        format!(
                            "machine {} cannot listen on {}: {}",
                            way.machine(),
                            shown(bind, *port),
                            error.message()
                        ),
                    )
                    .with_hint("another program may listen there already; choose another port, or 0 for a free one"),
                    _ => error,
                })?;
                let limits = Limits::default().max_payload_len(Some(MAX_MESSAGE));
                let control = ClientBuilder::new().limits(limits).take_over(control);
                Ok((Listener::Tunnel(Box::new(control)), shown(bind, *port)))
            }
            Listen::Socket(path) => {
                let ssh = way.ssh().await?;
                let until = Instant::now() + FREED;
                while let Err(error) = ssh.listen_unix(path).await {
                    if !remove_stale(&ssh, path).await && !may_be_free(way, &error, until).await {
                        return Err(error);
                    }
                }
                Ok((Listener::Ssh(Box::new(ssh)), path.clone()))
            }
        }
    }
}

/// Returns true, after a pause, if what was in the way may be gone: the session of a killed process, which was ended
/// just now.
async fn may_be_free(way: &Way, error: &Error, until: Instant) -> bool {
    if error.kind() != Kind::Refused || Instant::now() > until || !way.orphans_ended().await {
        return false;
    }
    sleep(FREED / 20).await;
    true
}

/// Listens by an SSH connection that survives an outage, with the connections that it has brought. Other addresses than
/// the loopback ones are not asked for, because most servers permit no others (GatewayPorts).
async fn lasting(way: &Way, bind: &Bind, port: u16) -> Option<SshClient> {
    let host = match bind {
        Bind::Loopback => "localhost",
        Bind::Host(host) if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) => host,
        Bind::Unnamed | Bind::All | Bind::Host(_) => return None,
    };
    let ssh = way.lasting().await?;
    let until = Instant::now() + FREED;
    while let Err(error) = ssh.listen_tcp(host, port).await {
        if !may_be_free(way, &error, until).await {
            log::info!("machine {} does not listen by SSH: {}", way.machine(), error.message());
            return None;
        }
    }
    Some(ssh)
}

/// Removes a socket on the machine that no process listens on. OpenSSH's server leaves such sockets behind.
async fn remove_stale(ssh: &SshClient, path: &str) -> bool {
    // Only a path that every shell reads the same way. Any other is not touched.
    let plain = path.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'-' | b'_'));
    if !plain || path.starts_with('-') || ssh.connect_unix(path).await.is_ok() {
        return false;
    }
    let removed = ssh.output(&format!("test -S {path} && rm -f {path}"), MAX_MESSAGE).await;
    removed.is_ok_and(|output| output.status == Some(0))
}

/// One forward that listens on the machine.
#[derive(Clone)]
pub(crate) struct Remote {
    /// The connection to the machine.
    pub way: Arc<Way>,
    /// The listening address on the machine.
    pub listen: Listen,
    /// The destination here.
    pub to: Endpoint,
    /// The output.
    pub board: Arc<Board>,
    /// The forward's row in the output.
    pub row: Arc<Row>,
}

impl Remote {
    /// Accepts connections until the playground no longer exists. Listens again after the machine was unavailable.
    ///
    /// # Errors
    /// Fails when the playground no longer exists.
    pub(crate) async fn serve(self, listener: Listener) -> Result<()> {
        let (mut listener, mut pauses) = (listener, Pauses::default());
        // Connections by tunnel survive the loss of the control channel.
        let mut connections = JoinSet::new();
        loop {
            let since = Instant::now();
            match listener {
                Listener::Tunnel(control) => self.by_tunnel(*control, &mut connections).await?,
                Listener::Ssh(ssh) => self.by_ssh(*ssh).await,
                Listener::Inside(listening) => self.inside(listening).await,
            }
            let what = format!("{} no longer listens on {}", self.way.end(), self.listen);
            self.board.problem(&format!("{what}; asking it again"));
            let again = async {
                pauses.after(since).await;
                self.way.insist(&what, || Listener::open(&self.way, &self.listen)).await
            };
            tokio::pin!(again);
            (listener, _) = loop {
                tokio::select! {
                    opened = &mut again => break opened?,
                    Some(ended) = connections.join_next() => check(ended)?,
                }
            };
        }
    }

    /// Accepts connections until the control channel ends.
    async fn by_tunnel(
        &self,
        mut control: WebSocketStream<Stream>,
        connections: &mut JoinSet<Result<()>>,
    ) -> Result<()> {
        let mut pings = Pings::new();
        loop {
            let told = tokio::select! {
                told = timeout(SILENCE, control.next()) => told,
                Some(ended) = connections.join_next() => {
                    check(ended)?;
                    continue;
                }
            };
            let message: Message = match told {
                Ok(Some(Ok(message))) if !message.is_close() && !pings.end_with(&message) => message,
                Ok(Some(Ok(_) | Err(_)) | None) | Err(_) => return Ok(()),
            };
            let told = tunnel::text(&message).and_then(|text| serde_json::from_str::<Told>(&text).ok());
            if let Some(Told { cid, .. }) = told.filter(|told| told.kind == "connect" && !told.cid.is_empty()) {
                let this = self.clone();
                connections.spawn(async move { this.take_up(&cid).await });
            }
        }
    }

    /// Carries one connection to the machine's port.
    async fn take_up(&self, cid: &str) -> Result<()> {
        let mut connection = self.board.open(&self.row, "");
        let target = format!("connect:{cid}");
        // Both at the same time, because the machine waits only 15 s for the tunnel.
        let (near, tunnel) = tokio::join!(self.reach(), self.way.dial(&target));
        match (near, tunnel) {
            (Ok(near), Ok(tunnel)) => {
                let vitals = tunnel.vitals();
                let carried = match near {
                    Reached::Tcp(near) => carry(near, tunnel, Ends::Together, &connection).await,
                    #[cfg(unix)]
                    Reached::Unix(near) => carry(near, tunnel, Ends::Together, &connection).await,
                };
                let carried = carried.and_then(|()| match vitals.was_cut_off() {
                    true => Err(cut_off("the tunnel", &self.to)),
                    false => Ok(()),
                });
                ended(&mut connection, carried);
                Ok(())
            }
            (Err(e), tunnel) => {
                self.not_reached(&mut connection, &e);
                if let Ok(tunnel) = tunnel {
                    // Ends the connection at once for the program that opened it.
                    tunnel.finish().await;
                }
                Ok(())
            }
            (Ok(_), Err(error)) => {
                connection.failed(error.message());
                if is_final(&error) && error.kind() != Kind::NotFound {
                    return Err(error);
                }
                self.board.problem(&format!("a connection to {} was lost: {}", self.listen, error.message()));
                Ok(())
            }
        }
    }

    async fn by_ssh(&self, mut ssh: SshClient) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                stream = ssh.next_forwarded() => {
                    let Some(stream) = stream else { return };
                    let this = self.clone();
                    connections.spawn(async move { this.take_up_stream(stream).await });
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn inside(&self, mut listening: Listening) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                shared = listening.next() => {
                    let Some(Shared { stream, pump }) = shared else { return };
                    let this = self.clone();
                    connections.spawn(async move {
                        let _pump = pump;
                        this.take_up_stream(stream).await;
                    });
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn take_up_stream(&self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut connection = self.board.open(&self.row, "");
        match self.reach().await {
            Ok(Reached::Tcp(near)) => {
                let carried = carry(near, stream, Ends::Separately, &connection).await;
                ended(&mut connection, carried);
            }
            #[cfg(unix)]
            Ok(Reached::Unix(near)) => {
                let carried = carry(near, stream, Ends::Separately, &connection).await;
                ended(&mut connection, carried);
            }
            Err(e) => self.not_reached(&mut connection, &e),
        }
    }

    fn not_reached(&self, connection: &mut Connection, error: &io::Error) {
        let why = format!("cannot connect to {} on this computer: {error}", self.to);
        connection.failed(&why);
        self.board.problem(&why);
    }

    /// Connects to the destination here.
    async fn reach(&self) -> io::Result<Reached> {
        let connected = async {
            match &self.to {
                Endpoint::Port(host, port) => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    let _ = stream.set_nodelay(true);
                    Ok(Reached::Tcp(stream))
                }
                #[cfg(unix)]
                Endpoint::Socket(path) => Ok(Reached::Unix(tokio::net::UnixStream::connect(path).await?)),
                #[cfg(not(unix))]
                Endpoint::Socket(_) => Err(io::ErrorKind::Unsupported.into()),
            }
        };
        timeout(CONNECT, connected).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// A connection to a program here.
enum Reached {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
}

fn ended(connection: &mut Connection, carried: io::Result<()>) {
    if let Err(e) = carried {
        connection.failed(&e.to_string());
    }
}

/// Passes the connection's result on. A panicked task affects only its own connection.
fn check(ended: Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    match ended {
        Ok(ended) => ended,
        Err(_) => Ok(()),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::{Arc, Board, ClientBuilder, Duration, Endpoint, JoinSet, Remote, Stream, Way, timeout};
    use crate::{
        app::App,
        commands::forward::board::{View, What},
        labs::{
            net::Conn,
            wire::{Machine, Play},
        },
        platform::Platform,
        settings::{Folders, Settings},
    };

    #[tokio::test]
    async fn a_control_channel_that_has_ended_waits_for_no_connection() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().to_owned();
        let app = App {
            folders: Folders { home: root.clone(), settings: root.join("settings.yaml"), root: root.clone() },
            settings: Settings { identity: Some(root.join("identity")), ..Settings::default() },
            platform: Platform::Local,
        };
        let board = Board::new(View::Quiet);
        let labs = app.client().unwrap();
        let way = Way::new(&app, &labs, &Play::default(), &Machine::default(), "u", &board).unwrap();
        let [machine, address, to] = ["m", "a", "t"].map(str::to_owned);
        let row = board.listening(What { kind: "remote", protocol: "tcp", machine, address, to, ..What::default() });
        let listen = "80:localhost:80".parse::<crate::commands::forward::spec::Spec>().unwrap().listen;
        let to = Endpoint::Port("localhost".into(), 80);
        let remote = Remote { way: Arc::new(way), listen, to, board, row };
        let (near, far) = tokio::net::UnixStream::pair().unwrap();
        let control = ClientBuilder::new().take_over(Stream::new(bytes::Bytes::new(), Conn::Unix(near)));
        let mut connections = JoinSet::new();
        connections.spawn(std::future::pending());
        drop(far);
        let ended = timeout(Duration::from_secs(20), remote.by_tunnel(control, &mut connections)).await;
        ended.expect("it does not wait").unwrap();
        assert_eq!(connections.len(), 1, "the connection goes on");
    }
}
