//! A machine: an SSH server, with a home folder, host keys and authorized keys of its own.
//!
//! It isolates nothing. Everything runs as the user of this process; "root" is another name for that user, so that
//! clients that insist on root get in. Only OpenSSH has a port, on this computer's loopback interface.
//!
//! # Layout
//!
//! - `helper::server`: the server in this program; `sshd`: the system's OpenSSH instead.
//! - `script`: commands without a client; `scan`: the ports that programs listen on.
//! - `account`: the user's name and shell.

mod account;
mod scan;
mod script;
mod sshd;

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use helper::server::{
    self, Accounts, Admission, Host,
    processes::{self, Processes},
};
use russh::{
    keys::{Algorithm, EcdsaCurve, PrivateKey, PublicKey, key::safe_rng, ssh_key::LineEnding},
    server::Config,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};

use crate::{
    error::{Error, Kind, Result},
    files,
    labs::wire::MachineUser,
    ssh::private_key,
};

pub use scan::protocol;
pub use script::Outcome;

use super::engine;
use account::Account;

/// The SSH server that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// The server in this program.
    Builtin,
    /// The system's OpenSSH, `sshd -i`.
    Sshd,
}

/// A machine. Its folder holds `home/`, the host keys and the authorized keys, and outlives it.
pub struct Machine {
    name: String,
    /// A file for each user, in the form of authorized_keys, which both endpoints read.
    authorized_folder: PathBuf,
    authorized: Arc<Mutex<Authorized>>,
    account: Account,
    /// Further names of the account's user, and the user of logins that name none, as a manifest has them.
    names: Vec<MachineUser>,
    server: Server,
    host: Arc<Host>,
    stopped: watch::Sender<bool>,
}

/// The keys that each user may log in with.
type Authorized = BTreeMap<String, Vec<PublicKey>>;

enum Server {
    Russh(Arc<Config>),
    Sshd(sshd::Sshd),
}

/// Ends what still runs on machines below `folder` after their platform was killed: programs that were put into the
/// background, and relays of sessions.
pub(super) fn end_leftovers(folder: &Path) {
    // Without such a folder nothing has run.
    if let Ok(folder) = fs::canonicalize(folder) {
        processes::kill_below(&folder);
    }
}

/// The user of logins that name none, on every machine of this process.
pub fn default_user() -> MachineUser {
    MachineUser { name: Account::of_this_process().name, default: true }
}

impl Machine {
    /// Opens the machine whose files live in `folder`. Missing files are made, for their owner only; host keys,
    /// authorized keys and home survive a stop and a restart. Processes that an earlier life of the machine left
    /// running are ended, so one machine at a time may have the folder. Programs find the container engine `engine`,
    /// a socket or a folder.
    ///
    /// # Errors
    /// Fails when a file cannot be made or read, or (`Kind::Program`) when there is no `sshd` for [`Endpoint::Sshd`].
    pub fn open(name: &str, folder: &Path, endpoint: Endpoint, engine: Option<&str>) -> Result<Machine> {
        files::make_private_folder(folder).map_err(|e| Error::file("make", folder, &e))?;
        // An absolute path, because processes get it and have other current folders.
        let folder = fs::canonicalize(folder).map_err(|e| Error::file("find", folder, &e))?;
        let home = folder.join("home");
        let authorized_folder = folder.join("authorized");
        for sub in [&home, &authorized_folder] {
            files::make_private_folder(sub).map_err(|e| Error::file("make", sub, &e))?;
        }
        let account = Account::of_this_process();
        // Ed25519, and ECDSA for clients that lack it. No RSA, because its keys take seconds to make.
        let key_files = [
            (folder.join("ssh_host_ed25519_key"), Algorithm::Ed25519),
            (folder.join("ssh_host_ecdsa_key"), Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }),
        ];
        let mut keys = Vec::new();
        for (path, algorithm) in &key_files {
            keys.push(host_key(path, algorithm.clone())?);
        }
        let authorized = Arc::new(Mutex::new(read_authorized(&authorized_folder)?));
        let mut host = host(name, &home, &account, Processes::of(&folder), Arc::clone(&authorized));
        let engine = engine.map(engine::variable);
        let engine = engine.as_ref().map(|(name, value)| (*name, value.as_str()));
        host.environment.extend(engine.map(|(name, value)| (name.into(), value.into())));
        let server = match endpoint {
            Endpoint::Builtin => Server::Russh(Arc::new(server::config(&host, keys))),
            Endpoint::Sshd => Server::Sshd(sshd::Sshd::set_up(&sshd::Setup {
                folder: &folder,
                home: &home,
                authorized_folder: &authorized_folder,
                host_keys: key_files.iter().map(|(path, _)| path.as_path()).collect(),
                variables: host.processes.marker().into_iter().chain(engine).collect(),
            })?),
        };
        host.processes.kill_leftovers();
        Ok(Machine {
            name: name.to_owned(),
            authorized,
            authorized_folder,
            account,
            names: Vec::new(),
            server,
            host: Arc::new(host),
            stopped: watch::Sender::new(false),
        })
    }

    /// The same machine with these users: further names of its only one.
    #[must_use]
    pub fn with_users(self, names: Vec<MachineUser>) -> Machine {
        Machine { names, ..self }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its home folder.
    pub fn home(&self) -> &Path {
        &self.host.home
    }

    /// The users that can log in: the user of this process, and the same one under other names, such as root. OpenSSH
    /// does not know those, unless this process is root's.
    pub fn users(&self) -> Vec<MachineUser> {
        let mut users = vec![MachineUser { name: self.account.name.clone(), default: false }];
        if matches!(self.server, Server::Russh(_)) {
            let root = MachineUser { name: "root".to_owned(), default: false };
            for name in std::iter::once(&root).chain(&self.names) {
                match users.iter_mut().find(|known| known.name == name.name) {
                    Some(known) => known.default |= name.default,
                    None => users.push(name.clone()),
                }
            }
        }
        if !users.iter().any(|user| user.default) {
            users[0].default = true;
        }
        users
    }

    /// Lets clients with the private half of `key` log in as `user`, from now on.
    ///
    /// # Errors
    /// `Kind::NotFound` when there is no such user, `Kind::File` when the key cannot be written down.
    pub fn authorize(&self, user: &str, key: &PublicKey) -> Result<()> {
        let users = self.users();
        if !users.iter().any(|known| known.name == user) {
            let names: Vec<&str> = users.iter().map(|known| known.name.as_str()).collect();
            return Err(Error::new(Kind::NotFound, format!("machine {} has no user {user}", self.name))
                .with_hint(format!("use one of its users: {}", names.join(", "))));
        }
        let mut authorized = locked(&self.authorized);
        let keys = authorized.entry(user.to_owned()).or_default();
        if keys.iter().any(|known| known.key_data() == key.key_data()) {
            return Ok(());
        }
        let mut text = String::new();
        for key in keys.iter().chain([key]) {
            text.push_str(&key.to_openssh().map_err(|e| key_error("write a public key", &e))?);
            text.push('\n');
        }
        files::write_private(&self.authorized_folder.join(user), text.as_bytes())?;
        keys.push(key.clone());
        Ok(())
    }

    /// Serves one SSH connection over `stream`, until it ends or the machine is stopped. Dropping the future ends the
    /// connection, too.
    ///
    /// # Errors
    /// `Kind::Refused` when the machine is stopped, `Kind::Network` when the connection fails, `Kind::Program` when
    /// OpenSSH cannot be started.
    pub async fn serve<S>(self: Arc<Self>, stream: S) -> Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut stopped = self.stopped.subscribe();
        if *stopped.borrow_and_update() {
            return Err(Error::new(Kind::Refused, format!("machine {} is stopped", self.name)));
        }
        match &self.server {
            Server::Russh(config) => {
                server::serve(&self.host, Arc::clone(config), stream, stopped).await.map_err(|failure| match failure {
                    server::Failure::TooLate => Error::new(Kind::Network, failure.to_string()),
                    server::Failure::Ssh(error) => error.into(),
                })
            }
            Server::Sshd(sshd) => sshd.serve(&self, stream, stopped).await,
        }
    }

    /// Ends all connections and everything that was started in them, first with SIGHUP, soon after with SIGKILL.
    /// Afterwards [`Machine::serve`] refuses; [`Machine::open`] makes a machine of the same folder again.
    pub async fn stop(&self) {
        self.stopped.send_replace(true);
        // Every connection holds a receiver until its end.
        let _ = tokio::time::timeout(2 * server::GOODBYE, self.stopped.closed()).await;
        self.host.processes.stop().await;
    }
}

/// The machine as the host of an SSH server.
fn host(name: &str, home: &Path, account: &Account, processes: Processes, authorized: Arc<Mutex<Authorized>>) -> Host {
    let is_authorized = move |user: &str, key: &PublicKey| {
        locked(&authorized).get(user).is_some_and(|keys| keys.iter().any(|k| k.key_data() == key.key_data()))
    };
    let environment = [
        ("HOME", home.as_os_str().to_owned()),
        ("USER", account.name.clone().into()),
        ("LOGNAME", account.name.clone().into()),
        ("SHELL", account.shell.clone().into()),
        ("PATH", path().into()),
    ];
    Host {
        name: format!("machine {name}"),
        admission: Admission::Keys(Box::new(is_authorized)),
        home: home.to_owned(),
        start: home.to_owned(),
        shells: vec![account.shell.clone().into()],
        tools: Err(String::new()),
        accounts: Accounts::Computer,
        // The folder for temporary files may be too long for the address of a socket. sshd takes /tmp.
        socket_folders: vec![std::env::temp_dir(), "/tmp".into()],
        environment: environment.map(|(name, value)| (name.into(), value)).into(),
        processes,
        farewell: "the machine is being stopped",
    }
}

/// The standard folders of programs: OpenSSH's own defaults.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The standard folders, then those of this process, because Nix and Homebrew live elsewhere.
fn path() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    let more =
        own.split(':').filter(|folder| folder.starts_with('/') && !PATH.split(':').any(|known| known == *folder));
    PATH.split(':').chain(more).collect::<Vec<_>>().join(":")
}

/// The lock's contents. A poisoned lock is as good as any, because a panic elsewhere leaves whole values here.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key_error(doing: &str, error: impl fmt::Display) -> Error {
    Error::new(Kind::File, format!("cannot {doing}: {error}"))
}

/// The host key in `path`, made if there is none.
fn host_key(path: &Path, algorithm: Algorithm) -> Result<PrivateKey> {
    let doing = || format!("use the host key {}", path.display());
    if let Some(text) = files::read_text(path)? {
        return private_key::read(&text).map_err(|e| key_error(&doing(), e));
    }
    let key = PrivateKey::random(&mut safe_rng(), algorithm).map_err(|e| key_error(&doing(), &e))?;
    let text = key.to_openssh(LineEnding::LF).map_err(|e| key_error(&doing(), &e))?;
    files::write_private(path, text.as_bytes())?;
    Ok(key)
}

fn read_authorized(folder: &Path) -> Result<BTreeMap<String, Vec<PublicKey>>> {
    let failed = |e: io::Error| Error::file("read", folder, &e);
    let mut authorized = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // Our own temporaries begin with a dot, and users' names do not.
        let Some(user) = entry.file_name().to_str().filter(|name| !name.starts_with('.')).map(str::to_owned) else {
            continue;
        };
        let text = files::read_text(&entry.path())?.unwrap_or_default();
        let keys = text.lines().map(PublicKey::from_openssh).collect::<Result<Vec<_>, _>>();
        authorized.insert(user, keys.map_err(|e| key_error(&format!("use {}", entry.path().display()), &e))?);
    }
    Ok(authorized)
}
