//! The status of each running proxy, for programs that cannot see its standard error: a small file that exists as long
//! as the proxy does, without secrets. `list --json` and the editors' extension show it.

use std::{
    cell::RefCell,
    fs::File,
    io::{Seek, Write},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    error::Result,
    files,
    labs::vitals::Vitals,
    moment::{Moment, now},
    os,
    settings::Folders,
};

use super::presence::{self, Presence};

/// The interval at which the figures of a connection are brought up to date.
pub const UPDATE: Duration = Duration::from_secs(5);
/// The room for one status, which is written in one piece, so that a reader sees it whole.
const SIZE: usize = 1024;

/// The phases of a proxy's work.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The proxy looks for the playground.
    Finding,
    /// The proxy waits for the machine.
    Waking,
    /// The proxy opens the tunnel.
    Opening,
    /// Bytes flow.
    Connected,
    /// The machine cannot be reached, and the session waits for it.
    Away,
}

/// The status of one proxy.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The number of its process.
    pub pid: u32,
    /// The phase of its work.
    pub phase: Phase,
    /// The beginning of that phase, in ms since 1970.
    pub since: Moment,
    /// The host name by which ssh called the machine.
    pub host: String,
    /// The id of the playground, once it is known.
    pub playground: String,
    /// The machine, once it is known.
    pub machine: String,
    /// The label of the container that the host name asks for; `None` for a machine.
    #[serde(default)]
    pub container: Option<String>,
    /// The user on the machine or in the container, once it is known.
    pub user: String,
    /// The client's identification line, once it has come.
    pub client: String,
    /// Bytes sent to the machine.
    pub sent: u64,
    /// Bytes received from the machine.
    pub received: u64,
    /// The last ping's round trip, in ms.
    pub round_trip_ms: Option<f64>,
    /// True if the session survives its connection.
    #[serde(default)]
    pub held: bool,
    /// The number of times that the machine could not be reached, and then could again.
    #[serde(default)]
    pub resumed: u32,
    /// The playground's end, in ms since 1970: the platform erases it then, or stops it if it is persistent.
    pub expires_at: Option<Moment>,
    /// The thing that is being waited for, or a warning.
    pub message: String,
}

/// The status of this proxy, whose file is removed when it is dropped.
pub struct Live {
    status: RefCell<Status>,
    vitals: RefCell<Option<Arc<Vitals>>>,
    file: Option<(RefCell<File>, Presence)>,
}

/// The folder of the status files.
pub fn folder(folders: &Folders) -> PathBuf {
    folders.root.join("live")
}

impl Live {
    /// The status of a connection to `host` that begins now. A folder that cannot be written costs the status, not the
    /// connection.
    pub fn begin(folders: &Folders, host: &str) -> Live {
        let status = Status {
            pid: std::process::id(),
            phase: Phase::Finding,
            since: now(),
            host: host.to_owned(),
            playground: String::new(),
            machine: String::new(),
            container: None,
            user: String::new(),
            client: String::new(),
            sent: 0,
            received: 0,
            round_trip_ms: None,
            held: false,
            resumed: 0,
            expires_at: None,
            message: String::new(),
        };
        let file = match create(folders) {
            Ok((file, presence)) => Some((RefCell::new(file), presence)),
            Err(error) => {
                log::warn!("cannot keep a status file: {}", error.message());
                None
            }
        };
        let live = Live { status: RefCell::new(status), vitals: RefCell::default(), file };
        live.write();
        live
    }

    /// Changes the status.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        let phase = self.status.borrow().phase;
        let mut status = self.status.borrow_mut();
        change(&mut status);
        if status.phase != phase {
            status.since = now();
            status.message.clear();
        }
        drop(status);
        self.write();
    }

    /// Notes that bytes flow, in a session that may survive its connection. From now on the figures are the session's.
    pub fn connected(&self, vitals: Arc<Vitals>, held: bool) {
        *self.vitals.borrow_mut() = Some(vitals);
        self.update(|status| (status.phase, status.held) = (Phase::Connected, held));
    }

    /// A copy of the status, with its current figures.
    pub fn status(&self) -> Status {
        if let Some(vitals) = &*self.vitals.borrow() {
            let mut status = self.status.borrow_mut();
            (status.sent, status.received) = (vitals.sent(), vitals.received());
            status.round_trip_ms = vitals.round_trip().map(|time| time.as_secs_f64() * 1e3);
            status.resumed = vitals.resumed();
            match (vitals.away_since(), status.phase) {
                (Some(since), Phase::Connected) => (status.phase, status.since) = (Phase::Away, since),
                (None, Phase::Away) => (status.phase, status.since) = (Phase::Connected, now()),
                _ => {}
            }
        }
        self.status.borrow().clone()
    }

    /// Brings the file up to date.
    pub fn write(&self) {
        let Some((file, presence)) = &self.file else { return };
        let Ok(mut text) = serde_json::to_vec(&self.status()) else { return };
        text.resize(text.len().max(SIZE - 1), b' ');
        text.push(b'\n');
        let mut file = file.borrow_mut();
        let length = text.len() as u64;
        // Cut a longer text that was there before.
        if let Err(error) = file.rewind().and_then(|()| file.write_all(&text)).and_then(|()| file.set_len(length)) {
            log::warn!("cannot write {}: {error}", presence.path().display());
        }
    }
}

fn create(folders: &Folders) -> Result<(File, Presence)> {
    let presence = Presence::begin(&folder(folders))?;
    let path = presence.path();
    let file = files::new_file(path).map_err(|e| crate::error::Error::file("create", path, &e))?;
    Ok((file, presence))
}

/// The status files of the proxies that have lost their client, each with the number of a process that was seen to have
/// the file open.
pub fn left_over(folders: &Folders) -> Vec<(u32, PathBuf)> {
    let process = |path: PathBuf| Some((presence::pid_of(&path)?, path));
    let mut found: Vec<_> = presence::all(&folder(folders)).into_iter().filter_map(process).collect();
    found.retain(|(pid, path)| os::has_open(*pid, path) && os::has_lost_its_client(*pid));
    found
}

/// The status of every running proxy. Files of killed proxies are swept.
pub fn all(folders: &Folders) -> Vec<Status> {
    let read = |path: PathBuf| serde_json::from_slice(&files::read(&path).ok()??).ok();
    let mut found: Vec<Status> = presence::all(&folder(folders)).into_iter().filter_map(read).collect();
    found.sort_by_key(|status| (status.host.clone(), status.pid));
    found
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Live, Phase, all, folder};
    use crate::{labs::vitals::Vitals, settings::Folders};

    fn folders(root: &std::path::Path) -> Folders {
        Folders { home: root.into(), root: root.into(), settings: root.join("settings.yaml") }
    }

    #[test]
    fn is_there_as_long_as_its_proxy_is() {
        let root = tempfile::tempdir().unwrap();
        let folders = folders(root.path());
        let live = Live::begin(&folders, "playground-x");
        live.update(|status| {
            status.phase = Phase::Waking;
            status.machine = "m".into();
        });
        let seen = all(&folders);
        assert_eq!(seen.len(), 1);
        assert_eq!((seen[0].phase, seen[0].machine.as_str()), (Phase::Waking, "m"));
        drop(live);
        assert_eq!(all(&folders), []);
        assert_eq!(std::fs::read_dir(folder(&folders)).unwrap().count(), 0);
    }

    #[test]
    fn a_machine_out_of_reach_is_seen() {
        let root = tempfile::tempdir().unwrap();
        let folders = folders(root.path());
        let live = Live::begin(&folders, "playground-x");
        let vitals = Arc::new(Vitals::new());
        live.connected(Arc::clone(&vitals), true);
        let seen = || {
            live.write();
            let status = all(&folders).remove(0);
            (status.phase, status.held, status.resumed)
        };
        assert_eq!(seen(), (Phase::Connected, true, 0));
        vitals.note_away(5);
        assert_eq!(seen(), (Phase::Away, true, 0));
        assert_eq!(all(&folders)[0].since, 5);
        vitals.note_back();
        assert_eq!(seen(), (Phase::Connected, true, 1));
        assert!(all(&folders)[0].since > 5);
    }

    #[test]
    fn what_a_killed_proxy_left_is_swept() {
        let root = tempfile::tempdir().unwrap();
        let folders = folders(root.path());
        std::mem::forget(Live::begin(&folders, "playground-x"));
        // Still held by this process.
        assert_eq!(all(&folders).len(), 1);
        let left = folder(&folders).join("1-2.json");
        std::fs::write(&left, "{}").unwrap();
        let lock = folder(&folders).join("3-4.json.lock");
        std::fs::write(&lock, "").unwrap();
        all(&folders);
        assert!(!left.exists() && !lock.exists());
    }
}
