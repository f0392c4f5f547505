//! An SSH client, for tasks that a tunnel alone cannot do: run a program on the machine, read a file, reach a Unix
//! socket, or make the machine listen on one.
//!
//! The host key is checked against our known hosts, as `ssh` does through `connect`, and a new one is recorded. The
//! keys are those that ssh would use: see [`crate::ssh::credentials`].

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use russh::{
    AgentAuthError, Channel, ChannelMsg, ChannelOpenFailure, ChannelStream, Preferred,
    client::{self, AuthResult, ChannelOpenHandle, Handle, Msg, Session},
    keys::{
        PrivateKeyWithHashAlg, PublicKeyOrCertificate,
        ssh_key::{Algorithm, HashAlg},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    time::timeout,
};

use crate::{
    error::{Error, Kind, Result, printable},
    ssh::{
        agent,
        credentials::{Credentials, LoginKey, Signer},
        first_words::hear,
        host_key::HostKeyBlob,
        known_hosts::{KnownHosts, Whose},
        outbox::Outbox,
    },
    target::POD,
};

/// Time limit for the handshake: a few round trips and a signature of the machine.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// Time limit for an agent to sign. It may ask its user, or for a touch on a security key.
const SIGNATURE: Duration = Duration::from_secs(60);
/// Time limit for the answer to a ping: the default of `coder ping --timeout`.
const PONG: Duration = Duration::from_secs(5);
/// Time limit for the answer to a request.
const ANSWER: Duration = Duration::from_secs(30);
/// Capacity of the queue of forwarded connections that have not been accepted yet.
const FORWARDED: usize = 64;

/// A connection to a machine's SSH server. Dropping it closes the connection.
pub struct SshClient {
    handle: Handle<Handler>,
    forwarded: mpsc::Receiver<Forwarded>,
    login: Login,
    host_key: Arc<OnceLock<HostKeyBlob>>,
}

/// A byte stream through the connection. Shutting its writer down sends the end of file to the other side.
pub(crate) type SshStream = ChannelStream<Msg>;

/// A connection to a listener on the machine.
pub(crate) struct Forwarded {
    /// The listener, as it was asked for: `ADDRESS:PORT`, or the path of a socket.
    pub listener: String,
    /// The connection.
    pub stream: SshStream,
}

/// The parameters of a login.
#[derive(Clone, Debug)]
pub struct Login {
    /// The host name under which ssh knows the machine.
    pub alias: String,
    /// The id of the play.
    pub play: String,
    /// The playground in the words of people, for errors.
    pub shown: String,
    /// The name of the machine.
    pub machine: String,
    /// The user on the machine.
    pub user: String,
}

impl Login {
    /// The words for the machine, or for the container on it, where the playground is clear.
    fn place(&self) -> String {
        match self.machine.split_once('.') {
            Some((POD, name)) if name.contains('.') => format!("pod {name}"),
            Some((_, container)) => format!("container {container}"),
            None => format!("machine {}", self.machine),
        }
    }

    /// The machine, as known hosts knows it.
    pub(crate) fn whose(&self) -> Whose<'_> {
        Whose { alias: &self.alias, play: &self.play, machine: &self.machine, shown: &self.shown }
    }
}

/// The result of a program on the machine.
#[derive(Debug)]
pub struct Output {
    /// The exit status; `None` if a signal ended the program or the server did not report a status.
    pub status: Option<u32>,
    /// The standard output.
    pub stdout: Vec<u8>,
    /// The standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Returns the last words on standard error, on one line.
    pub fn complaint(&self) -> String {
        printable(&String::from_utf8_lossy(&self.stderr))
    }
}

impl SshClient {
    /// Performs the handshake over `stream` and logs in.
    ///
    /// # Errors
    /// [`Kind::HostKey`] when the machine shows another key than the one on record, [`Kind::Refused`] when it accepts
    /// none of ours, [`Kind::File`] when our key cannot be used, [`Kind::Network`] when the connection fails.
    pub async fn connect<S>(
        stream: S,
        known_hosts: &KnownHosts,
        login: &Login,
        credentials: &Credentials,
    ) -> Result<SshClient>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut client = SshClient::greet(stream, known_hosts, login).await?;
        authenticate(&mut client.handle, login, credentials).await?;
        Ok(client)
    }

    /// The same without a key, for a server that only this connection reaches.
    ///
    /// # Errors
    /// As [`SshClient::connect`].
    pub(crate) async fn enter<S>(stream: S, known_hosts: &KnownHosts, login: &Login) -> Result<SshClient>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut client = SshClient::greet(stream, known_hosts, login).await?;
        let asked = timeout(ANSWER, client.handle.authenticate_none(&login.user)).await;
        match asked.map_err(|_| silent(login))?? {
            AuthResult::Success => Ok(client),
            AuthResult::Failure { .. } => {
                let message = format!("{} does not let {} log in", login.whose().subject(), login.user);
                Err(Error::new(Kind::Refused, message).with_hint(see_doctor(&login.alias)))
            }
        }
    }

    /// Performs the handshake.
    async fn greet<S>(stream: S, known_hosts: &KnownHosts, login: &Login) -> Result<SshClient>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, forwarded) = mpsc::channel(FORWARDED);
        let host_key = Arc::default();
        let handler = Handler {
            known_hosts: known_hosts.clone(),
            login: login.clone(),
            forwarded: sender,
            host_key: Arc::clone(&host_key),
        };
        let config = Arc::new(client::Config { preferred: preferred(known_hosts, login), ..client::Config::default() });
        let handshake = async {
            let stream = hear(stream, &login.machine).await?;
            client::connect_stream(config, Outbox::new(stream), handler).await
        };
        let connected = timeout(HANDSHAKE, handshake).await;
        let handle = connected.unwrap_or_else(|_| Err(silent(login)))?;
        Ok(SshClient { handle, forwarded, login: login.clone(), host_key })
    }

    /// Returns the parameters of its login.
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// Returns the host key that the machine has shown and proven.
    pub fn host_key(&self) -> Option<&HostKeyBlob> {
        self.host_key.get()
    }

    /// Runs `command` in the user's shell on the machine. The channel's data are its standard input and output.
    ///
    /// # Errors
    /// Fails when the machine refuses.
    pub async fn exec(&self, command: &str) -> Result<Channel<Msg>> {
        let opened = async {
            let mut channel = self.handle.channel_open_session().await?;
            channel.exec(true, command).await?;
            loop {
                match channel.wait().await {
                    Some(ChannelMsg::Success) => return Ok(channel),
                    Some(ChannelMsg::Failure) | None => {
                        let why = format!("{} refuses to run commands", self.login.whose().subject());
                        return Err(Error::new(Kind::Refused, why).with_hint(see_doctor(&self.login.alias)));
                    }
                    Some(_) => {}
                }
            }
        };
        self.answered(opened).await
    }

    /// Begins to run `command` in the user's shell on the machine, with `input`, which more may follow. The machine's
    /// answer is not waited for: a refusal is the channel's first message.
    ///
    /// # Errors
    /// Fails when the machine opens no channel.
    pub(crate) async fn begin(&self, command: &str, input: &[u8]) -> Result<Channel<Msg>> {
        let begun = async {
            let channel = self.handle.channel_open_session().await?;
            channel.exec(true, command).await?;
            channel.data_bytes(input.to_vec()).await?;
            Ok(channel)
        };
        self.answered(begun).await
    }

    /// Runs `command` without input, and waits for its end.
    ///
    /// # Errors
    /// As [`SshClient::exec`], and when the output exceeds `limit` bytes.
    pub async fn output(&self, command: &str, limit: usize) -> Result<Output> {
        let run = async {
            let mut channel = self.exec(command).await?;
            channel.eof().await?;
            let mut output = Output { status: None, stdout: Vec::new(), stderr: Vec::new() };
            while let Some(message) = channel.wait().await {
                match message {
                    ChannelMsg::Data { data } => output.stdout.extend_from_slice(&data),
                    ChannelMsg::ExtendedData { data, .. } => output.stderr.extend_from_slice(&data),
                    ChannelMsg::ExitStatus { exit_status } => output.status = Some(exit_status),
                    _ => {}
                }
                if output.stdout.len() + output.stderr.len() > limit {
                    let why = format!("{} answered with more than {limit} bytes", self.login.whose().subject());
                    return Err(Error::new(Kind::Answer, why));
                }
            }
            Ok(output)
        };
        self.answered(run).await
    }

    /// Connects to the Unix socket `path` on the machine.
    ///
    /// # Errors
    /// [`Kind::Refused`] when the machine refuses, for example because no process listens there; [`Kind::Network`] when
    /// it does not say in time whether it is connected.
    pub async fn connect_unix(&self, path: &str) -> Result<SshStream> {
        self.opened(self.handle.channel_open_direct_streamlocal(path), path).await
    }

    /// Connects to a host and port, as the machine sees them.
    ///
    /// # Errors
    /// As [`SshClient::connect_unix`].
    pub async fn connect_tcp(&self, host: &str, port: u16) -> Result<SshStream> {
        let to = crate::target::host_port(host, port);
        self.opened(self.handle.channel_open_direct_tcpip(host, port.into(), "127.0.0.1", 0), &to).await
    }

    async fn opened(
        &self,
        opening: impl Future<Output = Result<Channel<Msg>, russh::Error>>,
        to: &str,
    ) -> Result<SshStream> {
        match timeout(ANSWER, opening).await {
            Ok(Ok(channel)) => Ok(channel.into_stream()),
            Ok(Err(russh::Error::ChannelOpenFailure(reason))) => {
                let message = format!("{} cannot connect to {to}: {}", self.login.place(), words(&reason));
                Err(Error::new(Kind::Refused, message))
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_elapsed) => {
                let message =
                    format!("{to} does not answer: {} has tried for {} s", self.login.place(), ANSWER.as_secs());
                Err(Error::new(Kind::Network, message)
                    .with_hint("check the address, and whether a firewall on the way drops the connection"))
            }
        }
    }

    /// Makes the machine listen on a port. Returns the port, which the machine chooses if `port` is 0.
    /// [`SshClient::next_forwarded`] returns the connections.
    ///
    /// # Errors
    /// [`Kind::Refused`] when the machine refuses.
    pub async fn listen_tcp(&self, address: &str, port: u16) -> Result<u16> {
        let asked = async { Ok(self.handle.tcpip_forward(address, port.into()).await) };
        match self.answered(asked).await? {
            Ok(0) => Ok(port),
            Ok(chosen) => {
                u16::try_from(chosen).map_err(|_| Error::new(Kind::Answer, "the machine chose an invalid port"))
            }
            Err(error) => Err(self.not_listening(error, &format!("{address}:{port}"))),
        }
    }

    /// Makes the machine listen on the Unix socket `path`.
    ///
    /// # Errors
    /// [`Kind::Refused`] when the machine refuses, because the file exists or its folder cannot be written.
    pub async fn listen_unix(&self, path: &str) -> Result<()> {
        let asked = async { Ok(self.handle.streamlocal_forward(path).await) };
        self.answered(asked).await?.map_err(|error| self.not_listening(error, path))
    }

    fn not_listening(&self, error: russh::Error, address: &str) -> Error {
        match error {
            russh::Error::RequestDenied => {
                Error::new(Kind::Refused, format!("{} cannot listen on {address}", self.login.place()))
                    .with_hint("something may be in its place already")
            }
            error => error.into(),
        }
    }

    /// Returns the next connection to a listener on the machine, or `None` when this SSH connection has ended.
    pub async fn next_forwarded(&mut self) -> Option<SshStream> {
        Some(self.forwarded.recv().await?.stream)
    }

    /// Takes the queue of the connections to its listeners. It ends with this SSH connection.
    pub(crate) fn take_forwarded(&mut self) -> mpsc::Receiver<Forwarded> {
        std::mem::replace(&mut self.forwarded, mpsc::channel(1).1)
    }

    /// Waits for the machine's answer to the request by which ssh looks for life. The machine only has to answer, and may
    /// refuse (RFC 4254, 4).
    ///
    /// # Errors
    /// [`Kind::Network`] without an answer in time, and when the connection ends.
    pub(crate) async fn ping(&self) -> Result<()> {
        timeout(PONG, self.handle.send_ping()).await.map_err(|_| silent(&self.login))??;
        // The end of the connection ends the wait, too.
        if self.has_ended() { Err(silent(&self.login)) } else { Ok(()) }
    }

    /// Waits until the connection has ended.
    pub async fn over(&mut self) {
        while self.forwarded.recv().await.is_some() {}
    }

    /// True if the connection has ended without us.
    pub fn has_ended(&self) -> bool {
        self.handle.is_closed()
    }

    /// Disconnects, so that the machine ends our programs at once.
    pub async fn close(self) {
        let goodbye = self.handle.disconnect(russh::Disconnect::ByApplication, "", "en");
        // If this does not arrive, the machine notices the end of the tunnel.
        let _ = timeout(Duration::from_millis(500), goodbye).await;
    }

    async fn answered<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        timeout(ANSWER, work).await.unwrap_or_else(|_| Err(silent(&self.login)))
    }
}

impl fmt::Debug for SshClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SshClient({})", self.login.machine)
    }
}

/// Returns the reason of an SSH server that refuses a channel, in words.
fn words(reason: &ChannelOpenFailure) -> &'static str {
    match reason {
        ChannelOpenFailure::ConnectFailed => "nothing listens there, or it cannot be reached",
        ChannelOpenFailure::AdministrativelyProhibited => "its SSH server does not permit that",
        ChannelOpenFailure::ResourceShortage => "its SSH server has too many connections",
        ChannelOpenFailure::UnknownChannelType => "its SSH server does not know this kind of connection",
        ChannelOpenFailure::Other { .. } => "its SSH server refuses",
    }
}

fn silent(login: &Login) -> Error {
    Error::new(Kind::Network, format!("the SSH server of {} does not answer", login.whose().subject()))
        .with_hint(see_doctor(&login.alias))
}

fn see_doctor(alias: &str) -> String {
    format!("run `labctl-ssh-proxy doctor {alias}` to check the whole connection")
}

struct Handler {
    known_hosts: KnownHosts,
    login: Login,
    forwarded: mpsc::Sender<Forwarded>,
    host_key: Arc<OnceLock<HostKeyBlob>>,
}

impl client::Handler for Handler {
    type Error = Error;

    /// Checks the host key against our known hosts. russh calls this once it has verified the key's signature.
    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool> {
        let key = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => HostKeyBlob::of_key(key.key_data()),
            // Never happens, because we do not offer certificates.
            PublicKeyOrCertificate::Certificate(certificate) => HostKeyBlob::of_key(certificate.public_key()),
        };
        let key = key.ok_or_else(|| Error::new(Kind::HostKey, "the machine's host key cannot be read"))?;
        self.known_hosts.confirm_preferred(self.login.whose(), &key)?;
        // A key that comes later, in another key exchange, is the same one.
        let _ = self.host_key.set(key);
        Ok(true)
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        connected_address: &str,
        connected_port: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<()> {
        self.take(format!("{connected_address}:{connected_port}"), channel, reply).await;
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        socket_path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<()> {
        self.take(socket_path.to_owned(), channel, reply).await;
        Ok(())
    }
}

impl Handler {
    async fn take(&self, listener: String, channel: Channel<Msg>, reply: ChannelOpenHandle) {
        // If there is no room, dropping the reply refuses the channel.
        if let Ok(room) = self.forwarded.try_reserve() {
            reply.accept().await;
            room.send(Forwarded { listener, stream: channel.into_stream() });
        }
    }
}

/// Returns the algorithms to negotiate. As with ssh, the types of host keys on record come first.
fn preferred(known_hosts: &KnownHosts, login: &Login) -> Preferred {
    // An error will come again when the key is checked.
    let known = known_hosts.knows(login.whose()).unwrap_or_default();
    let is_known = |algorithm: &Algorithm| match algorithm {
        Algorithm::Rsa { .. } => known.iter().any(|name| name == "ssh-rsa"),
        other => known.iter().any(|name| name == other.as_str()),
    };
    let mut key = Preferred::DEFAULT.key.into_owned();
    key.sort_by_key(|algorithm| !is_known(algorithm));
    Preferred { key: Cow::Owned(key), ..Preferred::DEFAULT }
}

/// Logs in with the first key that the machine accepts.
///
/// # Errors
/// As [`SshClient::connect`].
pub(crate) async fn authenticate<H: client::Handler>(
    handle: &mut Handle<H>,
    login: &Login,
    credentials: &Credentials,
) -> Result<()> {
    let any_rsa = credentials.keys.iter().any(|key| key.public.algorithm().is_rsa());
    let rsa_hash = if any_rsa { handle.best_supported_rsa_hash().await?.flatten() } else { None };
    let mut unsigned = None;
    for key in &credentials.keys {
        let hash = rsa_hash.filter(|_| key.public.algorithm().is_rsa());
        match try_key(handle, login, key, hash).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            // The connection may live on, so the next key may do.
            Err(error) if error.kind() == Kind::File => unsigned = unsigned.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    let Login { user, alias, .. } = login;
    let paths: Vec<String> = credentials.keys.iter().map(|key| key.path.display().to_string()).collect();
    let subject = login.whose().subject();
    let message = format!("{subject} does not let {user} log in with the key {}", paths.join(" or "));
    Err(unsigned.unwrap_or_else(|| {
        let ignored = match &credentials.ignored[..] {
            [] => String::new(),
            ignored => format!("; this command does not use your {}", ignored.join(", ")),
        };
        Error::new(Kind::Refused, message).with_hint(see_doctor(alias) + &ignored)
    }))
}

/// Returns true if the machine accepts the key or one of its certificates.
async fn try_key<H: client::Handler>(
    handle: &mut Handle<H>,
    login: &Login,
    key: &LoginKey,
    hash: Option<HashAlg>,
) -> Result<bool> {
    let user = &login.user;
    // As ssh, the certificates come before the bare key.
    for certificate in key.certificates.iter().map(Some).chain([None]) {
        let result = match (&key.signer, certificate) {
            (Signer::Here(private), Some(certificate)) => {
                let asked = handle.authenticate_openssh_cert(user, Arc::clone(private), certificate.clone());
                timeout(ANSWER, asked).await.map_err(|_| silent(login))??
            }
            (Signer::Here(private), None) => {
                let private = PrivateKeyWithHashAlg::new(Arc::clone(private), hash);
                let asked = handle.authenticate_publickey(user, private);
                timeout(ANSWER, asked).await.map_err(|_| silent(login))??
            }
            (Signer::Agent(socket), certificate) => {
                let unsigned = |why: String| {
                    let path = key.path.display();
                    Error::new(Kind::File, format!("the agent did not sign with the key {path}: {why}"))
                        .with_hint("check whether the agent asks you something, or wants a touch on a security key")
                };
                let mut agent = agent::connect(socket).await.map_err(unsigned)?;
                let signed = async {
                    match certificate {
                        Some(certificate) => {
                            handle.authenticate_certificate_with(user, certificate.clone(), hash, &mut agent).await
                        }
                        None => handle.authenticate_publickey_with(user, key.public.clone(), hash, &mut agent).await,
                    }
                };
                match timeout(SIGNATURE, signed).await {
                    Ok(Ok(result)) => result,
                    Ok(Err(AgentAuthError::Key(e))) => return Err(unsigned(e.to_string())),
                    Ok(Err(AgentAuthError::Send(_))) => return Err(russh::Error::SendError.into()),
                    Err(_elapsed) => return Err(unsigned(format!("no answer within {} s", SIGNATURE.as_secs()))),
                }
            }
        };
        if result == AuthResult::Success {
            return Ok(true);
        }
    }
    Ok(false)
}
