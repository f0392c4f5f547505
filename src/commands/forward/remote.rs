//! Forwards that listen on the machine.
//!
//! A port is the tunnel's own `listen:`: a control channel tells of each connection, which is then taken up by a tunnel of
//! its own. That cannot tell which port was chosen, nor listen on a Unix socket, so port 0 and sockets go by SSH.

use std::{io, sync::Arc, time::Duration};

use futures_util::StreamExt;
use serde::Deserialize;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_websockets::{ClientBuilder, Limits, Message, WebSocketStream};

use crate::{
    error::{Error, Kind, Result},
    labs::{
        http::Stream,
        tunnel::{self, Pings},
    },
    ssh::client::{SshClient, SshStream},
    target::host_port,
};

use super::{
    board::{Board, Connection, Row},
    carry::{Ends, carry},
    spec::{Bind, Endpoint, Listen},
    way::{Pauses, Way, is_final},
};

/// For a connection to a program here.
const CONNECT: Duration = Duration::from_secs(10);
/// The tunnel's server pings every 30 s; a control channel that is silent for longer than this is dead.
const SILENCE: Duration = Duration::from_secs(75);
/// The control channel's messages are a line each.
const MAX_MESSAGE: usize = 64 * 1024;

/// What listens on the machine.
pub enum Listener {
    /// The tunnel's server, and its control channel.
    Tunnel(Box<WebSocketStream<Stream>>),
    /// The SSH server.
    Ssh(Box<SshClient>),
}

/// What a control channel says.
#[derive(Deserialize)]
struct Told {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    cid: String,
}

/// The address as the machine's tunnel server is told it: an empty host means all. The official client listens on all,
/// too, where none is named: exposed ports are reached by the machine's main interface.
fn address(bind: &Bind, port: u16) -> String {
    match bind {
        Bind::Loopback => host_port("127.0.0.1", port),
        Bind::Unnamed | Bind::All => host_port("", port),
        Bind::Host(host) => host_port(host, port),
    }
}

/// The same for people.
fn shown(bind: &Bind, port: u16) -> String {
    match bind {
        Bind::Unnamed | Bind::All => host_port("0.0.0.0", port),
        Bind::Loopback | Bind::Host(_) => address(bind, port),
    }
}

impl Listener {
    /// Listens on the machine; also gives the address, with the port that was chosen.
    ///
    /// # Errors
    /// [`Kind::Refused`] when it cannot be bound there; as [`Way::dial`].
    pub async fn open(way: &Way, listen: &Listen) -> Result<(Listener, String)> {
        match listen {
            Listen::Port(bind, 0) => {
                // As ssh does where no address is named: its servers allow little else (GatewayPorts).
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
                    .with_hint("something may listen there already; port 0 takes a free one"),
                    _ => error,
                })?;
                let limits = Limits::default().max_payload_len(Some(MAX_MESSAGE));
                let control = ClientBuilder::new().limits(limits).take_over(control);
                Ok((Listener::Tunnel(Box::new(control)), shown(bind, *port)))
            }
            Listen::Socket(path) => {
                let ssh = way.ssh().await?;
                if let Err(error) = ssh.listen_unix(path).await {
                    if !remove_stale(&ssh, path).await {
                        return Err(error);
                    }
                    ssh.listen_unix(path).await?;
                }
                Ok((Listener::Ssh(Box::new(ssh)), path.clone()))
            }
        }
    }
}

/// Removes a socket on the machine that nobody listens on: OpenSSH's server leaves those of ended connections behind.
async fn remove_stale(ssh: &SshClient, path: &str) -> bool {
    // What means the same to every shell; a path with more in it is left to its owner.
    let plain = path.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'-' | b'_'));
    if !plain || path.starts_with('-') || ssh.connect_unix(path).await.is_ok() {
        return false;
    }
    let removed = ssh.output(&format!("test -S {path} && rm -f {path}"), MAX_MESSAGE).await;
    removed.is_ok_and(|output| output.status == Some(0))
}

/// One forward that listens on the machine.
#[derive(Clone)]
pub struct Remote {
    /// The way to the machine.
    pub way: Arc<Way>,
    /// Where it listens.
    pub listen: Listen,
    /// Where it leads to, here.
    pub to: Endpoint,
    /// Where it is shown.
    pub board: Arc<Board>,
    /// Its line there.
    pub row: Arc<Row>,
}

impl Remote {
    /// Takes connections up until the playground is gone for good, and listens anew after the machine was away.
    ///
    /// # Errors
    /// When it is gone.
    pub async fn serve(self, listener: Listener) -> Result<()> {
        let (mut listener, mut pauses) = (listener, Pauses::default());
        // Those that came by a tunnel do not depend on the control channel.
        let mut connections = JoinSet::new();
        loop {
            let since = Instant::now();
            match listener {
                Listener::Tunnel(control) => self.by_tunnel(*control, &mut connections).await?,
                Listener::Ssh(ssh) => self.by_ssh(*ssh).await,
            }
            let what = format!("machine {} no longer listens on {}", self.way.machine(), self.listen);
            self.board.problem(&format!("{what}: it is asked again"));
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

    /// Takes connections up until the control channel ends.
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

    /// One connection to the machine's port.
    async fn take_up(&self, cid: &str) -> Result<()> {
        let mut connection = self.board.open(&self.row, "");
        let target = format!("connect:{cid}");
        // At the same time: the machine waits 15 s for the tunnel.
        let (near, tunnel) = tokio::join!(self.reach(), self.way.dial(&target));
        match (near, tunnel) {
            (Ok(near), Ok(tunnel)) => {
                let carried = match near {
                    Reached::Tcp(near) => carry(near, tunnel, Ends::Together, &connection).await,
                    #[cfg(unix)]
                    Reached::Unix(near) => carry(near, tunnel, Ends::Together, &connection).await,
                };
                ended(&mut connection, carried);
                Ok(())
            }
            (Err(e), tunnel) => {
                self.not_reached(&mut connection, &e);
                if let Ok(tunnel) = tunnel {
                    // Whoever connected hears of it at once.
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

    async fn take_up_stream(&self, stream: SshStream) {
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
        let why = format!("cannot connect to {} here: {error}", self.to);
        connection.failed(&why);
        self.board.problem(&why);
    }

    /// Connects to what the forward leads to.
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

/// A program here.
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

/// A connection's task that broke is that connection's end.
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
        let row = board.listening(What { kind: "remote", protocol: "tcp", machine, address, to });
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
