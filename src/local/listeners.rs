//! The sockets of the embedded platform, and the folder they are in.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use tokio::net::{TcpListener, UnixListener, UnixStream};

use crate::{
    error::{Error, Kind, Result},
    files,
    labs::net::Conn,
    os,
    settings::HOME_VARIABLE,
};

use super::api::Entrance;

/// The longest path of a Unix socket: `sun_path` less its final zero.
const MAX_SOCKET_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// The sockets on which a platform listens.
pub(super) struct Listeners {
    /// The Unix socket in the state folder.
    pub unix: UnixListener,
    /// The port, if there is one.
    pub tcp: Option<TcpListener>,
}

impl Listeners {
    /// Accepts the next connection.
    ///
    /// # Errors
    /// Fails when the system has no room for it.
    pub(super) async fn accept(&self) -> io::Result<(Conn, Entrance)> {
        tokio::select! {
            accepted = self.unix.accept() => Ok((Conn::Unix(accepted?.0), Entrance::Socket)),
            accepted = accept_tcp(self.tcp.as_ref()) => Ok((Conn::from(accepted?), Entrance::Port)),
        }
    }
}

/// The next connection to the port; waits for ever where there is no port.
async fn accept_tcp(tcp: Option<&TcpListener>) -> io::Result<tokio::net::TcpStream> {
    match tcp {
        Some(tcp) => {
            let (stream, _) = tcp.accept().await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        }
        None => std::future::pending().await,
    }
}

/// Refuses a process of another user, which the kernel tells. The mode of the folder keeps others out already.
///
/// # Errors
/// [`Kind::Refused`] for such a process.
pub(super) fn same_user(stream: &UnixStream) -> Result<()> {
    let own = rustix::process::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == own => Ok(()),
        Ok(peer) => Err(Error::new(Kind::Refused, format!("refused a process of user {}", peer.uid()))),
        Err(e) => Err(Error::new(Kind::Refused, format!("refused a process that cannot be identified: {e}"))),
    }
}

/// Listens on a loopback address.
///
/// # Errors
/// [`Kind::Usage`] for another address, [`Kind::Network`] when it is taken.
pub(super) async fn listen(address: SocketAddr) -> Result<TcpListener> {
    if !address.ip().is_loopback() {
        return Err(Error::new(Kind::Usage, format!("{address} is not a loopback address")).with_hint(
            "put a TLS proxy in front, and name it with --public-url; machines are shells on your account",
        ));
    }
    TcpListener::bind(address).await.map_err(|e| Error::new(Kind::Network, format!("cannot listen on {address}: {e}")))
}

/// Refuses a path that is too long for a socket.
///
/// # Errors
/// [`Kind::File`] for such a path.
pub(super) fn check_length(socket: &Path) -> Result<()> {
    let length = socket.as_os_str().len();
    if length <= MAX_SOCKET_PATH {
        return Ok(());
    }
    let words = format!("{} is too long for a socket: {length} bytes, of at most {MAX_SOCKET_PATH}", socket.display());
    Err(Error::new(Kind::File, words).with_hint(format!("set {HOME_VARIABLE} to a folder with a shorter path")))
}

/// Makes the state folder, or checks that other users cannot get into it.
///
/// # Errors
/// [`Kind::File`] when they can, or when the folder cannot be made.
pub(super) fn make_folder(folder: &Path) -> Result<()> {
    files::make_private_folder(folder).map_err(|e| Error::file("make", folder, &e))?;
    let found = fs::symlink_metadata(folder).map_err(|e| Error::file("look at", folder, &e))?;
    let refuse = |why: &str, remedy: String| {
        Err(Error::new(Kind::File, format!("{} {why}, so others could get into your machines", folder.display()))
            .with_hint(remedy))
    };
    let user = rustix::process::geteuid();
    if !found.is_dir() || found.uid() != user.as_raw() {
        // It may hold the playgrounds of the user who ran this by sudo.
        let remedy = if user.is_root() { "run this without sudo" } else { "delete it" };
        return refuse(
            "is not a folder that belongs to you",
            format!("{remedy}, or set {HOME_VARIABLE} to another folder"),
        );
    }
    if found.permissions().mode() & 0o077 != 0 {
        return refuse("is open to others", format!("run `chmod 700 {}`", folder.display()));
    }
    Ok(())
}

/// Listens on the socket, in place of one that a killed platform has left behind. The caller holds the folder's lock,
/// so the old socket is not in use.
///
/// # Errors
/// [`Kind::File`] when the system refuses.
pub(super) fn bind(socket: &Path) -> Result<UnixListener> {
    let failed = |e: io::Error| Error::file("listen on", socket, &e);
    match fs::remove_file(socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(socket).map_err(failed)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(os::PRIVATE_FILE)).map_err(failed)?;
    Ok(listener)
}
