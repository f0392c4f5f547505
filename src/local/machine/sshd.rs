//! The system's OpenSSH as a machine's endpoint: `sshd -i` for each connection to a loopback port of the machine's own.
//! So it can tell the addresses of a connection truly (`SSH_CONNECTION`), and a relay (`hold/relay.py`) reaches it as on
//! any machine. What else runs on this computer reaches it as well, and needs a key.
//!
//! It knows only the users of the system, so unless this process is root's, its only user is that of this process.

use std::{
    env,
    ffi::OsString,
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::{OnceCell, watch},
    time::{sleep, timeout},
};

use helper::server::{
    LOGIN_GRACE, MAX_SESSIONS,
    processes::{Processes, pid_of},
};

use crate::{
    error::{Error, Kind, Result},
    files,
};

use super::{Machine, Server};

/// The places of sshd when it is not in PATH, which has no `sbin` for most users.
const FOLDERS: &str = "/usr/sbin:/usr/local/sbin:/sbin:/usr/bin:/opt/homebrew/sbin";

/// The places of sftp-server on Debian, Red Hat, Alpine, Arch, macOS and BSD. sshd's internal-sftp cannot be used,
/// because it starts in the home folder of the passwd entry.
const SFTP_SERVERS: [&str; 5] = [
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/sftp-server",
    "/usr/libexec/ssh/sftp-server",
];

/// The empty folder that sshd's privilege separation wants when it runs as root; packages have it made at boot.
const PRIVILEGE_SEPARATION: &str = "/run/sshd";

/// The beginning of every session, because sshd takes `HOME` from us (SetEnv) but changes to the home folder of the
/// passwd entry. The user's shell runs it, of any kind, so it holds no single quote and names no path.
const SESSION: &str = r#"exec /bin/sh -c 'cd "$HOME" || exit; if [ -n "${SSH_ORIGINAL_COMMAND+x}" ]; then c=$SSH_ORIGINAL_COMMAND; unset SSH_ORIGINAL_COMMAND; exec "$SHELL" -c "$c"; fi; exec "$SHELL" -l'"#;

/// The time that sshd may take to notice that its client has gone.
const LINGER: Duration = Duration::from_secs(2);

/// The number of bytes moved at once between the client and sshd.
const BUFFER: usize = 64 * 1024;

/// An sshd that is ready to be started.
pub(super) struct Sshd {
    program: PathBuf,
    config: PathBuf,
    log: PathBuf,
    /// The address at which connections are taken, from the first one on.
    address: OnceCell<SocketAddr>,
}

/// The values in its configuration.
pub(super) struct Setup<'a> {
    /// The path of the configuration.
    pub folder: &'a Path,
    /// The machine's home.
    pub home: &'a Path,
    /// The folder with a file of authorized keys for each user.
    pub authorized_folder: &'a Path,
    /// The host keys.
    pub host_keys: Vec<&'a Path>,
    /// Variables for everything that is started.
    pub variables: Vec<(&'a str, &'a str)>,
}

/// Removes a group from the list of those that run, even when the connection's future is dropped.
struct Ended<'a>(&'a Processes, Pid);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.ended(self.1);
    }
}

impl Sshd {
    /// Finds the programs and writes the configuration.
    ///
    /// # Errors
    /// `Kind::Program` when a program is missing, `Kind::File` when a file cannot be written, `Kind::Usage` when a path
    /// cannot be written in a configuration file.
    pub(super) fn set_up(setup: &Setup<'_>) -> Result<Sshd> {
        let folders: OsString = env::var_os("PATH").map_or_else(
            || FOLDERS.into(),
            |mut path| {
                path.push(":");
                path.push(FOLDERS);
                path
            },
        );
        // Absolute, because sshd starts itself again.
        let program = which::which_in("sshd", Some(folders), "/").map_err(|_| {
            Error::new(Kind::Program, "no sshd was found, which machines with OpenSSH need")
                .with_hint("install openssh-server (Debian, Red Hat, Alpine) or openssh (Arch, Homebrew)")
        })?;
        let sftp_server = SFTP_SERVERS.iter().map(Path::new).find(|path| path.exists()).ok_or_else(|| {
            Error::new(Kind::Program, "no sftp-server was found, which machines with OpenSSH need")
                .with_hint("install openssh-sftp-server (Debian, Alpine) or openssh-server")
        })?;
        if rustix::process::geteuid().is_root() && cfg!(target_os = "linux") {
            let folder = Path::new(PRIVILEGE_SEPARATION);
            std::fs::create_dir_all(folder).map_err(|e| Error::file("make", folder, &e))?;
        }
        let config = setup.folder.join("sshd_config");
        files::write_private(&config, render(setup, sftp_server)?.as_bytes())?;
        Ok(Sshd { program, config, log: setup.folder.join("sshd.log"), address: OnceCell::new() })
    }

    /// Passes one connection on, until it ends or the machine, whose server this is, is stopped.
    pub(super) async fn serve(
        &self,
        machine: &Arc<Machine>,
        stream: impl AsyncRead + AsyncWrite,
        mut stopped: watch::Receiver<bool>,
    ) -> Result<()> {
        let failed = |e: io::Error| Error::new(Kind::Network, format!("cannot reach {}: {e}", self.program.display()));
        let address = self.address.get_or_try_init(|| listen(Arc::clone(machine))).await.map_err(failed)?;
        let socket = TcpStream::connect(address).await.map_err(failed)?;
        // Latency matters more than the number of packets.
        let _ = socket.set_nodelay(true);
        tokio::select! {
            () = relay(stream, socket) => {}
            _ = stopped.changed() => {}
        }
        Ok(())
    }

    /// Serves one connection until it ends. When the machine is stopped, it has a moment left.
    async fn run(
        &self,
        processes: &Processes,
        socket: TcpStream,
        mut stopped: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let (mut child, group) = processes.start(|| self.start(processes.marker(), socket))?;
        let _ended = Ended(processes, group);
        tokio::select! {
            _ = child.wait() => return Ok(()),
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
        if timeout(LINGER, child.wait()).await.is_err() {
            // Its sessions are in groups of their own, and end as sshd ends them.
            let _ = kill_process_group(group, Signal::TERM);
        }
        Ok(())
    }

    fn start(&self, marker: Option<(&str, &str)>, socket: TcpStream) -> io::Result<(Child, Pid)> {
        let socket = socket.into_std()?;
        socket.set_nonblocking(false)?;
        let theirs = OwnedFd::from(socket);
        let child = Command::new(&self.program)
            .arg("-i")
            .arg("-f")
            .arg(&self.config)
            .arg("-E")
            .arg(&self.log)
            .stdin(Stdio::from(theirs.try_clone()?))
            .stdout(Stdio::from(theirs))
            .stderr(Stdio::null())
            .envs(marker)
            .process_group(0)
            .spawn()?;
        let pid = pid_of(&child)?;
        Ok((child, pid))
    }
}

/// Takes connections for the machine's SSH server until the machine is stopped.
async fn listen(machine: Arc<Machine>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let mut stopped = machine.stopped.subscribe();
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stopped.wait_for(|stopped| *stopped) => return,
            };
            let Ok((socket, _)) = accepted else {
                // Most likely a lack of descriptors; others will be freed.
                sleep(LINGER).await;
                continue;
            };
            let machine = Arc::clone(&machine);
            tokio::spawn(async move {
                let Server::Sshd(sshd) = &machine.server else { return };
                if let Err(e) = sshd.run(&machine.host.processes, socket, machine.stopped.subscribe()).await {
                    log::warn!("cannot start {}: {e}", sshd.program.display());
                }
            });
        }
    });
    Ok(address)
}

/// Copies both ways until sshd has ended its side, or until the client has ended its own and sshd has sent its last
/// words.
async fn relay(client: impl AsyncRead + AsyncWrite, mut sshd: TcpStream) {
    let (reader, mut to_client) = tokio::io::split(client);
    let (sshd_reader, mut to_sshd) = sshd.split();
    let mut from_client = BufReader::with_capacity(BUFFER, reader);
    let mut from_sshd = BufReader::with_capacity(BUFFER, sshd_reader);
    // After each end of a copy, the other side is to see the end of its input.
    let up = async {
        let _ = tokio::io::copy_buf(&mut from_client, &mut to_sshd).await;
        let _ = to_sshd.shutdown().await;
    };
    let down = async {
        let _ = tokio::io::copy_buf(&mut from_sshd, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    tokio::pin!(down);
    tokio::select! {
        () = &mut down => {}
        () = up => drop(timeout(LINGER, &mut down).await),
    }
}

fn render(setup: &Setup<'_>, sftp_server: &Path) -> Result<String> {
    let mut config = String::from("# Written by labctl-ssh-proxy whenever the machine is opened.\n");
    for key in &setup.host_keys {
        config.push_str(&format!("HostKey {}\n", quoted(key)?));
    }
    // A percent sign begins a token, and %u is the user.
    let authorized = setup.authorized_folder.join("%u");
    let authorized = quoted(&authorized)?.replace('%', "%%").replace("/%%u\"", "/%u\"");
    let mut variables = String::new();
    for (name, value) in &setup.variables {
        variables.push_str(&format!(" {name}={}", quoted(Path::new(value))?));
    }
    config.push_str(&format!(
        "AuthorizedKeysFile {authorized}
AuthenticationMethods publickey
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
StrictModes no
PidFile none
LogLevel ERROR
PrintMotd no
PrintLastLog no
PermitUserRC no
LoginGraceTime {grace}
MaxAuthTries 20
MaxSessions {MAX_SESSIONS}
AllowAgentForwarding yes
AllowTcpForwarding yes
AllowStreamLocalForwarding yes
X11Forwarding no
AcceptEnv LANG LC_*
SetEnv HOME={home}{variables}
ForceCommand {SESSION}
Subsystem sftp {sftp}
",
        grace = LOGIN_GRACE.as_secs(),
        home = quoted(setup.home)?,
        sftp = quoted(sftp_server)?,
    ));
    Ok(config)
}

/// A path as a word of sshd_config. The file format has no way to write a line feed, and this program none to write
/// text that is not UTF-8.
fn quoted(path: &Path) -> Result<String> {
    match path.to_str() {
        Some(text) if !text.contains(['\n', '\r']) => {
            Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
        }
        Some(_) | None => Err(Error::new(Kind::Usage, format!("OpenSSH cannot use the path {}", path.display()))),
    }
}
