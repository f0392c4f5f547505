//! An SSH server that is handed byte streams. It serves the embedded platform's machines, and containers from within.
//!
//! It isolates nothing: everything runs as the user of this process.
//!
//! # Layout
//!
//! - `connection`: one russh connection, its login and its channels.
//! - `accounts`: the names of users and groups.
//! - `channel`: a channel's two directions; a slow reader slows its sender down.
//! - `session`: shells and commands, with and without a terminal; `words`: commands where there is no shell.
//! - `sftp`: the SFTP subsystem.
//! - `forward`: TCP and Unix sockets in both directions, and the agent.
//! - `processes`: the end of everything that was started.

pub mod accounts;
mod channel;
pub mod connection;
mod forward;
pub mod processes;
pub mod session;
mod sftp;
mod words;

use std::{
    ffi::OsString,
    fmt, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use russh::keys::PublicKey;
use tokio::process::Command;

pub use crate::wire::IDENTIFICATION;
pub use accounts::Accounts;
pub use connection::{config, serve};
use processes::Processes;

/// The time that a client may take to authenticate. OpenSSH's LoginGraceTime.
pub const LOGIN_GRACE: Duration = Duration::from_secs(120);

/// The number of sessions of one connection: OpenSSH's MaxSessions. Forwarded connections are not counted, as there.
pub const MAX_SESSIONS: usize = 128;

/// The time that a server that is stopped gives connections to say goodbye.
pub const GOODBYE: Duration = Duration::from_millis(300);

/// The host that clients log in to.
pub struct Host {
    /// Its name in log lines.
    pub name: String,
    /// The login.
    pub admission: Admission,
    /// The folder of the user's own files.
    pub home: PathBuf,
    /// The folder in which sessions start, and relative paths, too.
    pub start: PathBuf,
    /// The login shell: the first of these that can be started. Without any, a command is a program with arguments.
    pub shells: Vec<PathBuf>,
    /// The folder of programs that the host is lent, or the reason why it is lent none, if there is one.
    pub tools: Result<PathBuf, String>,
    /// The names of users and groups.
    pub accounts: Accounts,
    /// The folders for the socket of a client's agent: the first of these that takes it.
    pub socket_folders: Vec<PathBuf>,
    /// The environment of everything that is started.
    pub environment: Vec<(OsString, OsString)>,
    /// Everything that was started.
    pub processes: Processes,
    /// The words to clients that are still there when the server is stopped.
    pub farewell: &'static str,
}

/// Reports whether a user of that name may log in with a key.
pub type Judge = dyn Fn(&str, &PublicKey) -> bool + Send + Sync;

/// The clients that may log in.
pub enum Admission {
    /// Those with the private half of a key for which this returns true, for the user of that name.
    Keys(Box<Judge>),
    /// All, with any key and without one, because the stream itself is the permission.
    All,
}

impl Host {
    /// A program on the host: in the folder where sessions start, or in `/` if that has gone, and with nothing of this process's environment.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(if can_enter(&self.start) { &self.start } else { Path::new("/") })
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .envs(self.processes.marker());
        command
    }
}

/// Reports whether a folder is there, and may be a program's.
pub(crate) fn can_enter(folder: &Path) -> bool {
    folder.is_dir() && rustix::fs::access(folder, rustix::fs::Access::EXEC_OK).is_ok()
}

/// The reason why a connection was not served to its end.
#[derive(Debug)]
pub enum Failure {
    /// The client did not log in in time.
    TooLate,
    /// The protocol's, or the stream's.
    Ssh(russh::Error),
}

impl From<russh::Error> for Failure {
    fn from(error: russh::Error) -> Failure {
        Failure::Ssh(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::TooLate => f.write_str("the SSH client did not log in in time"),
            Failure::Ssh(error) => error.fmt(f),
        }
    }
}

/// The lock's contents. A poisoned lock is as good as any, because a panic elsewhere leaves whole values here.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error in the C library's words alone, as sshd sends it.
fn reason(e: &io::Error) -> String {
    let text = e.to_string();
    let text = text.split_once(" (os error ").map_or(&*text, |(text, _)| text);
    text.strip_prefix("failed to lookup address information: ").unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::reason;

    #[test]
    fn reasons_are_the_systems_words() {
        assert_eq!(reason(&io::Error::from_raw_os_error(libc::ECONNREFUSED)), "Connection refused");
        let lookup = io::Error::other("failed to lookup address information: Name or service not known");
        assert_eq!(reason(&lookup), "Name or service not known");
    }
}
