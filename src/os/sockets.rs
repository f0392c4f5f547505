//! Questions to the system about sockets and pipes.

use std::{io, net::SocketAddr, path::Path, path::PathBuf};

/// The number of bytes written to a socket that the peer has not acknowledged yet; 0 on systems that do not tell, so
/// that every accepted write counts as acknowledged.
#[cfg(target_os = "linux")]
pub fn unacknowledged(socket: &impl std::os::fd::AsRawFd) -> u64 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (tcp(7); the same number as TIOCOUTQ) writes one int to the address it is given, and the
    // descriptor is open as long as `socket` is borrowed.
    #[expect(unsafe_code, reason = "no crate wraps this ioctl")]
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if answer == 0 { u64::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// The answer of systems that do not tell.
#[cfg(not(target_os = "linux"))]
pub fn unacknowledged<T>(_: &T) -> u64 {
    0
}

/// The program at the other end of a connection on this computer. TCP alone does not say whether a program that has
/// finished sending still reads.
#[derive(Debug)]
pub enum Peer {
    /// Known by its own address and ours.
    Tcp(Option<(SocketAddr, SocketAddr)>),
    /// Known by our end of the socket.
    #[cfg(unix)]
    Unix(Option<std::os::fd::OwnedFd>),
}

impl Peer {
    /// The program at the other end of a TCP connection; the addresses are the peer's and ours.
    pub fn of_tcp(addresses: Option<(SocketAddr, SocketAddr)>) -> Peer {
        Peer::Tcp(addresses.filter(|(peer, own)| peer.ip() == own.ip()))
    }

    /// The program at the other end of a Unix socket.
    #[cfg(unix)]
    pub fn of_unix(socket: &tokio::net::UnixStream) -> Peer {
        use std::os::fd::AsFd;
        Peer::Unix(socket.as_fd().try_clone_to_owned().ok())
    }

    /// Reports whether it has closed its socket altogether; `None` on systems that do not tell.
    pub fn has_gone(&self) -> Option<bool> {
        match self {
            Peer::Tcp(addresses) => {
                let (peer, own) = (*addresses)?;
                has_gone(peer, own)
            }
            #[cfg(unix)]
            Peer::Unix(socket) => {
                use rustix::event::{PollFd, PollFlags, Timespec, poll};
                let mut fds = [PollFd::new(socket.as_ref()?, PollFlags::empty())];
                poll(&mut fds, Some(&Timespec::default())).ok()?;
                // The system reports it once both directions are shut, and we have not shut ours.
                Some(fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR))
            }
        }
    }
}

/// Reports whether the socket of `peer` that is connected to `own` is held by no process: the system's table has an
/// inode for each socket that is held.
#[cfg(target_os = "linux")]
fn has_gone(peer: SocketAddr, own: SocketAddr) -> Option<bool> {
    let inode = row(peer, own)?;
    Some(inode.is_none_or(|row| row.inode == "0"))
}

/// The user whose program holds the socket of `peer` that is connected to `own`: the inner `None` is a socket that no
/// program holds any more, for which some kernels name root. The outer one is a system that does not tell.
#[cfg(target_os = "linux")]
pub(crate) fn user_of(peer: SocketAddr, own: SocketAddr) -> Option<Option<u32>> {
    Some(row(peer, own)?.filter(|row| row.inode != "0").and_then(|row| row.user.parse().ok()))
}

/// The user of this process, as the table names users.
#[cfg(unix)]
pub(crate) fn own_user() -> Option<u32> {
    Some(rustix::process::geteuid().as_raw())
}

#[cfg(not(unix))]
pub(crate) fn own_user() -> Option<u32> {
    None
}

/// The words of the system's table about a socket.
#[cfg(target_os = "linux")]
struct Row {
    user: String,
    inode: String,
}

/// The row of the socket of `peer` that is connected to `own`. The outer `None` is a table that cannot be read.
#[cfg(target_os = "linux")]
fn row(peer: SocketAddr, own: SocketAddr) -> Option<Option<Row>> {
    use std::net::IpAddr;
    // As the kernel prints them: 32-bit words in the order of this machine.
    let hex = |address: SocketAddr| {
        let words: Vec<[u8; 4]> = match address.ip() {
            IpAddr::V4(ip) => vec![ip.octets()],
            IpAddr::V6(ip) => ip.octets().as_chunks().0.to_vec(),
        };
        let words: String = words.iter().map(|word| format!("{:08X}", u32::from_ne_bytes(*word))).collect();
        format!("{words}:{:04X}", address.port())
    };
    let table = if peer.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
    let text = std::fs::read_to_string(table).ok()?;
    let (peer, own) = (hex(peer), hex(own));
    Some(text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        // proc_net_tcp: sl, local address, remote address, st, queues, timer, retransmits, uid, timeout, inode.
        let [_, from, to, _, _, _, _, user, _, inode, ..] = fields[..] else { return None };
        (from == peer && to == own).then(|| Row { user: user.to_owned(), inode: inode.to_owned() })
    }))
}

#[cfg(not(target_os = "linux"))]
fn has_gone(_peer: SocketAddr, _own: SocketAddr) -> Option<bool> {
    None
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn user_of(_peer: SocketAddr, _own: SocketAddr) -> Option<Option<u32>> {
    None
}

/// Reports whether a line on standard error would go through at once. Its pipe may be full because its reader is slow.
pub fn stderr_takes_text() -> bool {
    #[cfg(unix)]
    {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let stderr = rustix::stdio::stderr();
        let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|n| n > 0) && fds[0].revents().contains(PollFlags::OUT)
    }
    #[cfg(not(unix))]
    {
        // The pipes that editors make there hold more than all of our lines together.
        true
    }
}

/// The socket of the user's ssh agent, as the environment and the system name it.
pub fn ssh_agent() -> Option<PathBuf> {
    let named = std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).map(PathBuf::from);
    // OpenSSH for Windows has one agent, on a pipe of this name.
    named.or_else(|| cfg!(windows).then(|| PathBuf::from(r"\\.\pipe\openssh-ssh-agent")))
}

/// Connects to a program that listens on a path of this computer: a Unix socket.
///
/// # Errors
/// The system's.
#[cfg(unix)]
pub async fn connect_locally(path: &Path) -> io::Result<tokio::net::UnixStream> {
    tokio::net::UnixStream::connect(path).await
}

/// Connects to a program that listens on a path of this computer: a named pipe.
///
/// # Errors
/// The system's.
#[cfg(windows)]
pub async fn connect_locally(path: &Path) -> io::Result<tokio::net::windows::named_pipe::NamedPipeClient> {
    /// ERROR_PIPE_BUSY: each of the pipe's servers has a client at the moment.
    const BUSY: i32 = 231;
    loop {
        match tokio::net::windows::named_pipe::ClientOptions::new().open(path) {
            Err(e) if e.raw_os_error() == Some(BUSY) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            opened => return opened,
        }
    }
}
