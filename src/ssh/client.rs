//! An SSH client, for tasks that a tunnel alone cannot do: run a program on the machine, read a file, reach a Unix
//! socket, or make the machine listen on one.
//!
//! The host key is checked against our known hosts, as `ssh` does through `connect`, and a new one is recorded. The
//! identity's private key signs, or an agent that holds it.

use std::{fmt, sync::Arc, time::Duration};

use russh::{
    Channel, ChannelMsg, ChannelStream,
    client::{self, AuthResult, ChannelOpenHandle, Handle, Msg, Session},
    keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate, agent::client::AgentClient},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    time::timeout,
};

use crate::{
    error::{Error, Kind, Result, printable},
    ssh::{
        host_key::HostKeyBlob,
        identity::Identity,
        known_hosts::{KnownHosts, Whose},
    },
};

/// Time limit for handshake and login: a few round trips, a signature, and perhaps a touch on a security key.
const LOGIN: Duration = Duration::from_secs(30);
/// Time limit for the answer to a request.
const ANSWER: Duration = Duration::from_secs(30);
/// Capacity of the queue of forwarded connections that have not been accepted yet.
const FORWARDED: usize = 64;

/// A connection to a machine's SSH server. Dropping it closes the connection.
pub struct SshClient {
    handle: Handle<Handler>,
    forwarded: mpsc::Receiver<SshStream>,
    machine: String,
    alias: String,
}

/// A byte stream through the connection. Shutting its writer down sends the end of file to the other side.
pub(crate) type SshStream = ChannelStream<Msg>;

/// The parameters of a login.
#[derive(Clone, Debug)]
pub struct Login {
    /// The record of host keys.
    pub known_hosts: KnownHosts,
    /// The host name under which ssh knows the machine.
    pub alias: String,
    /// The id of the play.
    pub play: String,
    /// The name of the machine.
    pub machine: String,
    /// The user on the machine.
    pub user: String,
    /// The key pair.
    pub identity: Identity,
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
    /// [`Kind::HostKey`] when the machine shows another key than the one on record, [`Kind::Refused`] when it does not
    /// accept ours, [`Kind::File`] when our key cannot be used, [`Kind::Network`] when the connection fails.
    pub async fn connect<S>(stream: S, login: &Login) -> Result<SshClient>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, forwarded) = mpsc::channel(FORWARDED);
        let handler = Handler { login: login.clone(), forwarded: sender };
        let config = Arc::new(client::Config::default());
        let connected = async {
            let mut handle = client::connect_stream(config, stream, handler).await?;
            authenticate(&mut handle, login).await?;
            Ok(SshClient { handle, forwarded, machine: login.machine.clone(), alias: login.alias.clone() })
        };
        timeout(LOGIN, connected).await.unwrap_or_else(|_| Err(silent(&login.machine, &login.alias)))
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
                        let why = format!("machine {} refuses to run commands", self.machine);
                        return Err(Error::new(Kind::Refused, why).with_hint(see_doctor(&self.alias)));
                    }
                    Some(_) => {}
                }
            }
        };
        self.answered(opened).await
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
                    let why = format!("machine {} answered with more than {limit} bytes", self.machine);
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
    /// Fails when the machine refuses, for example because no process listens there.
    pub async fn connect_unix(&self, path: &str) -> Result<SshStream> {
        let opened = async { Ok(self.handle.channel_open_direct_streamlocal(path).await) };
        self.opened(self.answered(opened).await?, path)
    }

    /// Connects to a host and port, as the machine sees them.
    ///
    /// # Errors
    /// As [`SshClient::connect_unix`].
    pub async fn connect_tcp(&self, host: &str, port: u16) -> Result<SshStream> {
        let opened = async { Ok(self.handle.channel_open_direct_tcpip(host, port.into(), "127.0.0.1", 0).await) };
        self.opened(self.answered(opened).await?, &crate::target::host_port(host, port))
    }

    fn opened(&self, opened: Result<Channel<Msg>, russh::Error>, to: &str) -> Result<SshStream> {
        match opened {
            Ok(channel) => Ok(channel.into_stream()),
            Err(russh::Error::ChannelOpenFailure(why)) => {
                let message = format!("machine {} cannot connect to {to}: {why:?}", self.machine);
                Err(Error::new(Kind::Refused, message))
            }
            Err(error) => Err(error.into()),
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
                Error::new(Kind::Refused, format!("machine {} cannot listen on {address}", self.machine))
                    .with_hint("something may be in its place already")
            }
            error => error.into(),
        }
    }

    /// Returns the next connection to a listener on the machine, or `None` when this SSH connection has ended.
    pub async fn next_forwarded(&mut self) -> Option<SshStream> {
        self.forwarded.recv().await
    }

    /// Disconnects, so that the machine ends our programs at once.
    pub async fn close(self) {
        let goodbye = self.handle.disconnect(russh::Disconnect::ByApplication, "", "en");
        // If this does not arrive, the machine notices the end of the tunnel.
        let _ = timeout(Duration::from_millis(500), goodbye).await;
    }

    async fn answered<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        timeout(ANSWER, work).await.unwrap_or_else(|_| Err(silent(&self.machine, &self.alias)))
    }
}

impl fmt::Debug for SshClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SshClient({})", self.machine)
    }
}

fn silent(machine: &str, alias: &str) -> Error {
    Error::new(Kind::Network, format!("the SSH server of machine {machine} does not answer"))
        .with_hint(see_doctor(alias))
}

fn see_doctor(alias: &str) -> String {
    format!("run `labctl-ssh-proxy doctor {alias}` to check the whole connection")
}

struct Handler {
    login: Login,
    forwarded: mpsc::Sender<SshStream>,
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
        let Login { known_hosts, alias, play, machine, .. } = &self.login;
        known_hosts.confirm(Whose { alias, play, machine }, &key)?;
        Ok(true)
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        _connected_address: &str,
        _connected_port: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<()> {
        self.take(channel, reply).await;
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        _socket_path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<()> {
        self.take(channel, reply).await;
        Ok(())
    }
}

impl Handler {
    async fn take(&self, channel: Channel<Msg>, reply: ChannelOpenHandle) {
        // If there is no room, dropping the reply refuses the channel.
        if let Ok(room) = self.forwarded.try_reserve() {
            reply.accept().await;
            room.send(channel.into_stream());
        }
    }
}

/// Logs in with the identity's own private key, or else with an agent that has it.
async fn authenticate(handle: &mut Handle<Handler>, login: &Login) -> Result<()> {
    let Identity { path, public } = &login.identity;
    let hash = if public.algorithm().is_rsa() { handle.best_supported_rsa_hash().await?.flatten() } else { None };
    let result = match private_key(login)? {
        Some(key) => {
            let key = PrivateKeyWithHashAlg::new(Arc::new(key), hash);
            handle.authenticate_publickey(&login.user, key).await?
        }
        None => {
            let no_agent = |why: &dyn fmt::Display| {
                Error::new(Kind::File, format!("no agent has the private half of {}: {why}", path.display()))
                    .with_hint(format!("start an agent and run `ssh-add {}`", path.display()))
            };
            let mut agent = agent().await.map_err(|e| no_agent(&e))?;
            let signed = handle.authenticate_publickey_with(&login.user, public.clone(), hash, &mut agent).await;
            signed.map_err(|e| no_agent(&e))?
        }
    };
    match result {
        AuthResult::Success => Ok(()),
        AuthResult::Failure { .. } => {
            let Login { machine, user, alias, .. } = login;
            let message = format!("machine {machine} does not let {user} log in with the key {}", path.display());
            Err(Error::new(Kind::Refused, message).with_hint(see_doctor(alias)))
        }
    }
}

/// Returns the private key in the identity's file, or `None` if only an agent can have it: the file is public or
/// encrypted.
fn private_key(login: &Login) -> Result<Option<russh::keys::PrivateKey>> {
    let path = &login.identity.path;
    if path.extension().is_some_and(|extension| extension == "pub") {
        return Ok(None);
    }
    let text = crate::files::read_text(path)?.unwrap_or_default();
    if !text.trim_start().starts_with("-----BEGIN ") {
        return Ok(None);
    }
    match russh::keys::decode_secret_key(&text, None) {
        Ok(key) => Ok(Some(key)),
        Err(russh::keys::Error::KeyIsEncrypted) => Ok(None),
        Err(e) => Err(Error::new(Kind::File, format!("cannot use the key {}: {e}", path.display()))),
    }
}

#[cfg(unix)]
async fn agent() -> Result<AgentClient<tokio::net::UnixStream>, russh::keys::Error> {
    AgentClient::connect_env().await
}

/// Connects to the agent of OpenSSH for Windows.
#[cfg(windows)]
async fn agent() -> Result<AgentClient<tokio::net::windows::named_pipe::NamedPipeClient>, russh::keys::Error> {
    AgentClient::connect_named_pipe(r"\\.\pipe\openssh-ssh-agent").await
}
