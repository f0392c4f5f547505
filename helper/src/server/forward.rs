//! Sockets that listen on the machine for the client: TCP (RFC 4254, 7.1), Unix sockets and the agent (OpenSSH's
//! PROTOCOL and PROTOCOL.agent). They live as long as the connection.

use std::{
    collections::HashMap,
    fs, io,
    net::{Ipv4Addr, Ipv6Addr},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use russh::{
    Channel,
    server::{Handle, Msg},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    task::JoinHandle,
};

use super::channel::Channels;

/// The time for which a listener rests when the process has no file descriptors left.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);

/// A task that ends with its owner.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A Unix socket that is removed with its owner, unless another one has taken its place.
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl SocketFile {
    fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
        let listener = UnixListener::bind(path)?;
        // OpenSSH's StreamLocalBindMask 0177.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok((listener, SocketFile { path: path.to_owned(), inode: fs::symlink_metadata(path)?.ino() }))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|now| now.ino() == self.inode) {
            // A failure leaves a dead socket, and there is no client left to report it to.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A folder that only its owner may look into (0700). It is removed with its owner, once it is empty.
struct PrivateFolder(PathBuf);

impl PrivateFolder {
    /// Makes one in `place`. Its name is one that no other program has taken.
    fn make(place: &Path) -> io::Result<PrivateFolder> {
        /// The number of names to try.
        const NAMES: u32 = 100;
        let mut now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
        let mut made = Ok(());
        for _ in 0..NAMES {
            now = now.wrapping_add(1);
            let path = place.join(format!("ssh-{:x}-{now:x}", std::process::id()));
            made = fs::DirBuilder::new().mode(0o700).create(&path);
            match &made {
                Ok(()) => return Ok(PrivateFolder(path)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(_) => break,
            }
        }
        made.and(Err(io::ErrorKind::AlreadyExists.into()))
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        // A failure leaves an empty folder, and there is no client left to report it to.
        let _ = fs::remove_dir(&self.0);
    }
}

/// The listeners of a client.
#[derive(Default)]
pub(super) struct Forwards {
    /// The TCP listeners, by the client's address and port for them.
    tcp: HashMap<(String, u32), Vec<Task>>,
    /// The Unix sockets, by the client's path for them.
    unix: HashMap<String, (Task, SocketFile)>,
}

impl Forwards {
    /// Listens on `port`, or on a free one if that is 0, and returns it. It listens only on loopback, for every address
    /// that was asked for: that is OpenSSH's GatewayPorts no, and here the machine's loopback is the user's own.
    ///
    /// # Errors
    /// Fails when the port cannot be bound.
    pub(super) async fn listen_tcp(
        &mut self,
        address: &str,
        port: u32,
        handle: Handle,
        channels: Arc<Channels>,
    ) -> io::Result<u16> {
        let port = u16::try_from(port).map_err(io::Error::other)?;
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let port = first.local_addr()?.port();
        // Some systems have no IPv6.
        let second = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await.ok();
        let tasks = [Some(first), second].into_iter().flatten().map(|listener| {
            let (address, handle, channels) = (address.to_owned(), handle.clone(), Arc::clone(&channels));
            Task(tokio::spawn(async move {
                loop {
                    let Some((stream, peer)) = accepted(listener.accept().await).await else { continue };
                    let (address, handle) = (address.clone(), handle.clone());
                    let channels = Arc::clone(&channels);
                    tokio::spawn(async move {
                        // Without it keystrokes wait for one another; with it nothing breaks.
                        let _ = stream.set_nodelay(true);
                        let opened = handle
                            .channel_open_forwarded_tcpip(
                                address,
                                port.into(),
                                peer.ip().to_string(),
                                peer.port().into(),
                            )
                            .await;
                        pump(opened, stream, handle, channels).await;
                    });
                }
            }))
        });
        self.tcp.insert((address.to_owned(), port.into()), tasks.collect());
        Ok(port)
    }

    /// Stops listening; `false` when there was nothing to stop.
    pub(super) fn cancel_tcp(&mut self, address: &str, port: u32) -> bool {
        self.tcp.remove(&(address.to_owned(), port)).is_some()
    }

    /// Listens on the socket `path`, which the client calls `name`.
    ///
    /// # Errors
    /// Fails when it cannot be bound; an existing file is not replaced.
    pub(super) fn listen_unix(
        &mut self,
        name: &str,
        path: &Path,
        handle: Handle,
        channels: Arc<Channels>,
    ) -> io::Result<()> {
        let (listener, file) = SocketFile::bind(path)?;
        let for_client = name.to_owned();
        let task = Task(tokio::spawn(async move {
            loop {
                let Some((stream, _)) = accepted(listener.accept().await).await else { continue };
                let (name, handle, channels) = (for_client.clone(), handle.clone(), Arc::clone(&channels));
                tokio::spawn(async move {
                    let opened = handle.channel_open_forwarded_streamlocal(name).await;
                    pump(opened, stream, handle, channels).await;
                });
            }
        }));
        self.unix.insert(name.to_owned(), (task, file));
        Ok(())
    }

    /// Stops listening and removes the socket; `false` when there was nothing to stop.
    pub(super) fn cancel_unix(&mut self, name: &str) -> bool {
        self.unix.remove(name).is_some()
    }
}

/// The client's agent, as a socket on the machine.
pub(super) struct Agent {
    _task: Task,
    file: SocketFile,
    /// The folder of the socket, which only its owner may look into (0700).
    _folder: PrivateFolder,
}

impl Agent {
    /// Makes the socket in the first of the folders that takes it. Each connection to it becomes a channel to the
    /// client's agent.
    ///
    /// # Errors
    /// Fails when the socket cannot be made.
    pub(super) fn listen(places: &[PathBuf], handle: Handle, channels: Arc<Channels>) -> io::Result<Agent> {
        let made = |place: &Path| {
            let folder = PrivateFolder::make(place)?;
            let (listener, file) = SocketFile::bind(&folder.0.join("agent"))?;
            Ok::<_, io::Error>((folder, listener, file))
        };
        // A folder may be missing, read-only, or too long for the address of a socket.
        let mut result = Err(io::Error::other("there is no folder for its socket"));
        for place in places {
            result = made(place);
            if result.is_ok() {
                break;
            }
        }
        let (folder, listener, file) = result?;
        let task = Task(tokio::spawn(async move {
            loop {
                let Some((stream, _)) = accepted(listener.accept().await).await else { continue };
                // A process of another container, which shares the folder, has no number here.
                if stream.peer_cred().is_ok_and(|peer| peer.pid() == Some(0)) {
                    continue;
                }
                let (handle, channels) = (handle.clone(), Arc::clone(&channels));
                tokio::spawn(async move {
                    let opened = handle.channel_open_agent().await;
                    pump(opened, stream, handle, channels).await;
                });
            }
        }));
        Ok(Agent { _task: task, file, _folder: folder })
    }

    /// The value of `SSH_AUTH_SOCK`.
    pub(super) fn path(&self) -> &Path {
        &self.file.path
    }
}

/// The connection, if it was accepted. After a failure it waits a moment, because a failure is about that connection,
/// or about descriptors, which come back with time.
async fn accepted<T>(result: io::Result<T>) -> Option<T> {
    if let Err(e) = &result {
        log::warn!("cannot accept a forwarded connection: {e}");
        tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
    }
    result.ok()
}

/// Copies between the socket and the channel that was opened for it, if the client took it.
async fn pump<S: AsyncRead + AsyncWrite>(
    opened: Result<Channel<Msg>, russh::Error>,
    stream: S,
    handle: Handle,
    channels: Arc<Channels>,
) {
    match opened {
        Ok(channel) => channels.take(channel, handle).pump(stream).await,
        Err(e) => log::info!("the client did not take a forwarded connection: {e}"),
    }
}
