//! One russh connection: its login and its channels.

use std::{
    borrow::Cow,
    collections::HashMap,
    ffi::OsString,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::ffi::OsStringExt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use russh::{
    Channel, ChannelId, ChannelOpenFailure, Disconnect, MethodKind, MethodSet, Pty, Sig, SshId,
    keys::{Algorithm, PrivateKey, ssh_key::encoding::text::to_bytes},
    server::{self, Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey},
};
use rustix::process::kill_process_group;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    sync::{Semaphore, oneshot, watch},
};

use super::{
    Admission, Failure, GOODBYE, Host, IDENTIFICATION, LOGIN_GRACE, MAX_SESSIONS,
    channel::{Channels, WINDOW, Wire},
    forward::{Agent, Forwards},
    reason,
    session::{self, Start, Terminal},
    sftp,
};

/// The refused keys that one connection may offer. An agent offers all it has, so this is above OpenSSH's 6.
const MAX_AUTH_ATTEMPTS: usize = 20;

/// Reports whether a client may set that variable for its sessions. OpenSSH's AcceptEnv on most systems.
fn is_accepted(name: &str) -> bool {
    name == "LANG" || name.starts_with("LC_")
}

/// The number of variables that a client may set for a session, as in OpenSSH.
const MAX_ENVIRONMENT: usize = 129;

/// russh's settings for `host` with these host keys.
pub fn config(host: &Host, keys: Vec<PrivateKey>) -> server::Config {
    server::Config {
        server_id: SshId::Standard(Cow::Borrowed(IDENTIFICATION)),
        methods: match host.admission {
            Admission::Keys(_) => MethodSet::from(&[MethodKind::PublicKey][..]),
            Admission::All => MethodSet::from(&[MethodKind::None, MethodKind::PublicKey][..]),
        },
        // A delay would protect nothing, because a key cannot be guessed.
        auth_rejection_time: Duration::ZERO,
        max_auth_attempts: MAX_AUTH_ATTEMPTS,
        keys,
        window_size: WINDOW,
        // Messages from sessions to the connection, up to 32 KiB each: enough to go on while a probe pauses.
        event_buffer_size: 64,
        // An idle session is fine; the client's keepalives report when it has gone.
        inactivity_timeout: None,
        ..server::Config::default()
    }
}

/// Serves one connection until it ends, the host is stopped, or the client has not logged in within [`LOGIN_GRACE`].
///
/// # Errors
/// The reason why the connection did not come about, or did not end in order.
pub async fn serve<S>(
    host: &Arc<Host>,
    config: Arc<server::Config>,
    stream: S,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // russh runs a connection in a task of its own, which ends with its stream. Dropping `alive` ends the stream.
    let (alive, cut) = oneshot::channel();
    let (logged_in, login) = oneshot::channel();
    let connection = Connection::new(Arc::clone(host), logged_in);
    let starting = server::run_stream(config, Cuttable { stream, cut }, connection);
    let mut running = tokio::select! {
        started = tokio::time::timeout(LOGIN_GRACE, starting) => started.map_err(|_| Failure::TooLate)??,
        _ = stopped.changed() => return Ok(()),
    };
    let handle = running.handle();
    let in_time = async {
        match tokio::time::timeout(LOGIN_GRACE, login).await {
            // The client has logged in, or the connection has ended without, which the connection itself reports.
            Ok(_) => std::future::pending().await,
            Err(_) => Failure::TooLate,
        }
    };
    let ended = tokio::select! {
        ended = &mut running => end_of(ended),
        late = in_time => Err(late),
        _ = stopped.changed() => {
            let goodbye = async {
                let _ = handle.disconnect(Disconnect::ByApplication, host.farewell.into(), String::new()).await;
                let _ = running.await;
            };
            let _ = tokio::time::timeout(GOODBYE, goodbye).await;
            Ok(())
        }
    };
    drop(alive);
    ended
}

/// The result of a connection. A stream that breaks off is a normal end, because clients often close it with something
/// still under way.
fn end_of(result: Result<(), russh::Error>) -> Result<(), Failure> {
    match result {
        Err(russh::Error::IO(e))
            if matches!(
                e.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            ) =>
        {
            Ok(())
        }
        result => Ok(result?),
    }
}

/// A stream that its owner can end.
struct Cuttable<S> {
    stream: S,
    /// Ready when the other half is dropped; nothing is ever sent.
    cut: oneshot::Receiver<std::convert::Infallible>,
}

impl<S> Cuttable<S> {
    fn is_cut(&mut self, cx: &mut Context<'_>) -> bool {
        Pin::new(&mut self.cut).poll(cx).is_ready()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cuttable<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_pending() && self.is_cut(cx) { Poll::Ready(Ok(())) } else { read }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cuttable<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if written.is_pending() && self.is_cut(cx) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_pending() && self.is_cut(cx) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A session channel on which nothing was started yet.
struct Prepared {
    wire: Wire,
    environment: Vec<(OsString, OsString)>,
    terminal: Option<Terminal>,
}

/// russh calls these methods one after another, from the task that moves the connection's bytes, so none of them may
/// wait for a channel, a process or a peer.
struct Connection {
    host: Arc<Host>,
    sessions: Arc<Semaphore>,
    logged_in: Option<oneshot::Sender<()>>,
    channels: Arc<Channels>,
    prepared: HashMap<ChannelId, Prepared>,
    forwards: Forwards,
    agent: Option<Agent>,
}

impl Drop for Connection {
    /// Ends the sessions, which see their channels close.
    fn drop(&mut self) {
        self.prepared.clear();
        self.channels.close_all();
    }
}

impl Connection {
    fn new(host: Arc<Host>, logged_in: oneshot::Sender<()>) -> Connection {
        Connection {
            host,
            sessions: Arc::new(Semaphore::new(MAX_SESSIONS)),
            logged_in: Some(logged_in),
            channels: Arc::default(),
            prepared: HashMap::new(),
            forwards: Forwards::default(),
            agent: None,
        }
    }

    /// Reports whether a key may log in. SHA-1 signatures may not, with any key.
    fn judge(&self, user: &str, key: &russh::keys::PublicKey, algorithm: &Algorithm) -> Auth {
        let admitted = match &self.host.admission {
            Admission::Keys(may_log_in) => may_log_in(user, key),
            Admission::All => true,
        };
        if admitted && *algorithm != (Algorithm::Rsa { hash: None }) { Auth::Accept } else { Auth::reject() }
    }

    /// Starts a shell, or `command`, on a channel that has nothing running yet. A client that cannot have it is told so
    /// on the channel.
    fn start(&mut self, id: ChannelId, command: Option<&[u8]>, session: &mut Session) -> Result<(), russh::Error> {
        let Some(prepared) = self.prepared.remove(&id) else {
            return session.channel_failure(id);
        };
        session.channel_success(id)?;
        let agent = self.agent.as_ref().map(Agent::path);
        let (environment, terminal) = (prepared.environment, prepared.terminal);
        session::start(&self.host, &self.channels, prepared.wire, Start { command, environment, terminal, agent });
        Ok(())
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, russh::Error> {
        Ok(match self.host.admission {
            Admission::Keys(_) => Auth::reject(),
            Admission::All => Auth::Accept,
        })
    }

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, russh::Error> {
        Ok(self.judge(user, offer.public_key, offer.algorithm))
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        Ok(self.judge(user, key.public_key, key.algorithm))
    }

    async fn auth_succeeded(&mut self, _: &mut Session) -> Result<(), russh::Error> {
        if let Some(logged_in) = self.logged_in.take() {
            // The receiver is gone when the machine is just being stopped.
            let _ = logged_in.send(());
        }
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let Ok(permit) = Arc::clone(&self.sessions).try_acquire_owned() else {
            reply.reject(refusal("open failed".to_owned())).await;
            return Ok(());
        };
        let wire = self.channels.take(channel, session.handle()).holding(permit);
        let prepared = Prepared { environment: Vec::new(), terminal: None, wire };
        self.prepared.insert(prepared.wire.id(), prepared);
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let Ok(port) = u16::try_from(port) else {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        };
        let host = String::from_utf8_lossy(&to_bytes(host)).into_owned();
        let dial = async move {
            let stream = connect(&host, port).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        open_forwarding(self.channels.take(channel, session.handle()), reply, dial);
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let dial = UnixStream::connect(self.host.start.join(os_string(path)));
        open_forwarding(self.channels.take(channel, session.handle()), reply, dial);
        Ok(())
    }

    async fn channel_open_confirmation(
        &mut self,
        id: ChannelId,
        _: u32,
        _: u32,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.channels.opened(id);
        Ok(())
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], _: &mut Session) -> Result<(), russh::Error> {
        self.channels.data(id, data).await;
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Session) -> Result<(), russh::Error> {
        self.channels.eof(id);
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), russh::Error> {
        self.prepared.remove(&id);
        self.channels.close(id);
        Ok(())
    }

    fn adjust_window(&mut self, _: ChannelId, _: u32) -> u32 {
        self.channels.window()
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        // As under sshd, a terminal that cannot be had is refused, as in a container without /dev/ptmx. Later the error
        // would look like that of a missing program.
        let can_be_had =
            pty_process::open().inspect_err(|e| log::warn!("{}: no terminal: {e}", self.host.name)).is_ok();
        match self.prepared.get_mut(&id) {
            Some(prepared) if can_be_had => {
                let size = session::size(columns, rows, width, height);
                prepared.terminal = Some(Terminal { term: os_string(term), size, modes: modes.to_vec() });
                session.channel_success(id)?;
            }
            Some(_) | None => session.channel_failure(id)?,
        }
        Ok(())
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_failure(id)
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let size = session::size(columns, rows, width, height);
        if let Some(terminal) = self.prepared.get_mut(&id).and_then(|prepared| prepared.terminal.as_mut()) {
            terminal.size = size;
        }
        self.channels.with_control(id, |control| {
            if let Some(terminal) = &control.terminal {
                session::resize(terminal, size);
            }
        });
        session.channel_success(id)?;
        Ok(())
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let accepted = is_accepted(name) && !name.contains(['=', '\0']) && !value.contains('\0');
        match self.prepared.get_mut(&id) {
            Some(prepared) if accepted && prepared.environment.len() < MAX_ENVIRONMENT => {
                prepared.environment.push((os_string(name), os_string(value)));
                session.channel_success(id)?;
            }
            Some(_) | None => session.channel_failure(id)?,
        }
        Ok(())
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        self.start(id, None, session)
    }

    async fn exec_request(&mut self, id: ChannelId, command: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        self.start(id, Some(command), session)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        // A channel on which nothing could be started waits for another request.
        match if name == "sftp" { self.prepared.remove(&id) } else { None } {
            Some(prepared) => {
                tokio::spawn(sftp::serve(prepared.wire, Arc::clone(&self.host)));
                session.channel_success(id)
            }
            None => session.channel_failure(id),
        }
    }

    async fn signal(&mut self, id: ChannelId, signal: Sig, session: &mut Session) -> Result<(), russh::Error> {
        let sent = session::signal(&signal).and_then(|signal| {
            // The group may be gone already.
            self.channels.with_control(id, |control| kill_process_group(control.group, signal).is_ok())
        });
        if sent == Some(true) { session.channel_success(id) } else { session.channel_failure(id) }
    }

    async fn agent_request(&mut self, id: ChannelId, session: &mut Session) -> Result<bool, russh::Error> {
        if !self.prepared.contains_key(&id) {
            return Ok(false);
        }
        if self.agent.is_none() {
            match Agent::listen(&self.host.socket_folders, session.handle(), Arc::clone(&self.channels)) {
                Ok(agent) => self.agent = Some(agent),
                Err(e) => log::warn!("{}: cannot forward the agent: {e}", self.host.name),
            }
        }
        Ok(self.agent.is_some())
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        session: &mut Session,
    ) -> Result<bool, russh::Error> {
        let channels = Arc::clone(&self.channels);
        match self.forwards.listen_tcp(address, *port, session.handle(), channels).await {
            Ok(bound) => {
                *port = bound.into();
                Ok(true)
            }
            Err(e) => {
                log::info!("{}: cannot listen on {address} port {port}: {e}", self.host.name);
                Ok(false)
            }
        }
    }

    async fn cancel_tcpip_forward(&mut self, address: &str, port: u32, _: &mut Session) -> Result<bool, russh::Error> {
        Ok(self.forwards.cancel_tcp(address, port))
    }

    async fn streamlocal_forward(&mut self, path: &str, session: &mut Session) -> Result<bool, russh::Error> {
        let channels = Arc::clone(&self.channels);
        match self.forwards.listen_unix(path, &self.host.start.join(os_string(path)), session.handle(), channels) {
            Ok(()) => Ok(true),
            Err(e) => {
                log::info!("{}: cannot listen on {path}: {e}", self.host.name);
                Ok(false)
            }
        }
    }

    async fn cancel_streamlocal_forward(&mut self, path: &str, _: &mut Session) -> Result<bool, russh::Error> {
        Ok(self.forwards.cancel_unix(path))
    }
}

/// Connects to a host by its name. `localhost` needs no name service (RFC 6761, 6.3), which a container may lack.
async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    match TcpStream::connect((host, port)).await {
        // An error without a number is one of the name.
        Err(e) if e.raw_os_error().is_none() && host == "localhost" => {
            let loopback = [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), (Ipv6Addr::LOCALHOST, port).into()];
            TcpStream::connect(&loopback[..]).await
        }
        result => result,
    }
}

/// Dials in a task of its own, then accepts the channel and copies, or refuses it.
fn open_forwarding<S>(wire: Wire, reply: ChannelOpenHandle, dial: impl Future<Output = io::Result<S>> + Send + 'static)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    tokio::spawn(async move {
        match dial.await {
            Err(e) => reply.reject(refusal(reason(&e))).await,
            Ok(stream) => {
                reply.accept().await;
                wire.pump(stream).await;
            }
        }
    });
}

/// A refused channel, with words for the person behind the client. OpenSSH refuses all with this code.
fn refusal(reason: String) -> ChannelOpenFailure {
    ChannelOpenFailure::Other { code: ChannelOpenFailure::ConnectFailed.code(), reason }
}

/// A name of the client's as the system takes it: any bytes. russh has text; see patches/ssh-encoding.
fn os_string(text: &str) -> OsString {
    OsString::from_vec(to_bytes(text).into_owned())
}
