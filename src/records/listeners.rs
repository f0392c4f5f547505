//! The listeners of `listen`: for each host its port, which stays the same from one run to the next, so that what
//! programs have saved goes on to work.

use std::{fs, io, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::{
    error::{Error, Kind, Result, printable},
    files::{self, Lock, write_private},
    settings::Folders,
    target::{self, Target},
};

/// A listener: its file is named by its host.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// The host name of the machine or container that it leads to.
    pub host: String,
    /// The user on it.
    pub user: String,
    /// The playground's title, for people.
    pub title: String,
    /// The port of this computer's loopback interface.
    pub port: u16,
    /// The file by which a service manager keeps it, if it is installed.
    pub service: Option<PathBuf>,
    /// True for a playground of the embedded platform.
    pub local: bool,
}

/// Attempts to get a lock at which others only look, and the time that a look takes at most.
const LOOKS: usize = 3;
const A_LOOK: Duration = Duration::from_millis(20);

impl Listener {
    /// The playground or machine, for people.
    pub fn shown(&self) -> String {
        let title = printable(&self.title);
        match Target::parse(&self.host).ok().and_then(|target| target.machine) {
            _ if title.is_empty() => self.host.clone(),
            Some(machine) => format!("machine {machine} of {title}"),
            None => title,
        }
    }

    /// The host name of its entry in the ssh configuration: one label, which no pattern of containers matches.
    pub fn name(&self) -> String {
        target::of_listener(&self.host)
    }
}

/// The folder of the files.
pub fn folder(folders: &Folders) -> PathBuf {
    folders.root.join("listeners")
}

/// Reports whether a file of the folder has a name that we give.
pub(super) fn is_own(name: &str) -> bool {
    let host = name.strip_suffix(".lock").unwrap_or(name).strip_suffix(".json").unwrap_or_default();
    Target::parse(host).is_ok()
}

fn path(folders: &Folders, host: &str) -> PathBuf {
    folder(folders).join(format!("{host}.json"))
}

/// The lock that the process of a listener holds. `None` while another one does.
///
/// # Errors
/// Fails when the lock file cannot be opened.
pub async fn try_lock(folders: &Folders, host: &str) -> Result<Option<Lock>> {
    for _ in 0..LOOKS {
        if let Some(lock) = Lock::try_acquire(&path(folders, host))? {
            return Ok(Some(lock));
        }
        sleep(A_LOOK).await;
    }
    Ok(None)
}

/// Reports whether a process listens, or a service is to.
pub fn is_active(folders: &Folders, listener: &Listener) -> bool {
    listener.service.is_some() || Lock::is_taken(&path(folders, &listener.host))
}

/// Keeps a listener.
///
/// # Errors
/// Fails when it cannot be written.
pub fn keep(folders: &Folders, listener: &Listener) -> Result<()> {
    let text = serde_json::to_vec(listener).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
    write_private(&path(folders, &listener.host), &text)
}

/// The listener of a host name, if there was one.
pub fn of(folders: &Folders, host: &str) -> Option<Listener> {
    // It becomes a part of a path.
    Target::parse(host).ok()?;
    let listener: Listener = serde_json::from_slice(&files::read(&path(folders, host)).ok()??).ok()?;
    (listener.host == host).then_some(listener)
}

/// Reports whether a listener was forgotten. A record that cannot be read was not: the process may be out of descriptors.
pub fn is_forgotten(folders: &Folders, host: &str) -> bool {
    fs::symlink_metadata(path(folders, host)).is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
}

/// All listeners, those among them that do not run now.
pub fn all(folders: &Folders) -> Vec<Listener> {
    let Ok(entries) = fs::read_dir(folder(folders)) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut all: Vec<_> = names.filter_map(|name| of(folders, name.strip_suffix(".json")?)).collect();
    all.sort_by(|a, b| a.host.cmp(&b.host));
    all
}

/// Forgets the listeners of a play that is gone. Returns those that a service keeps, which stay.
pub fn forget(folders: &Folders, play: &str) -> Vec<Listener> {
    let of_play = |host: &str| {
        Target::parse(host).is_ok_and(|target| target.playground == target::Playground::Id(play.to_owned()))
    };
    let (installed, others): (Vec<_>, Vec<_>) =
        all(folders).into_iter().filter(|one| of_play(&one.host)).partition(|one| one.service.is_some());
    for listener in others {
        // Its process goes on, and tells each program that the play is gone.
        let path = path(folders, &listener.host);
        let _ = fs::remove_file(&path);
        let _ = fs::remove_file(files::lock_path(&path));
    }
    installed
}

/// The error for a connection to the name of a listener, which has come to the pattern for playgrounds in place of an
/// entry of its own.
pub fn missed(folders: &Folders, host: &str) -> Option<Error> {
    if !host.ends_with(target::LISTENER) {
        return None;
    }
    let listener = all(folders).into_iter().find(|one| one.name() == host)?;
    let (shown, to) = (listener.shown(), listener.host);
    let message = format!("the listener for {shown} does not run, or your ssh configuration does not have it");
    let hint = format!("start it with `labctl-ssh-proxy listen {to}`, or connect to {to}");
    Some(Error::new(Kind::NotFound, message).with_hint(hint))
}
