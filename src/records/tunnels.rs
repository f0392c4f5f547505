//! Tunnel sessions of earlier connections, so that the next connection dials at once, without a request to the
//! platform.
//!
//! # Round trips from the start of the process to the server's first byte
//!
//! | | warm: a session is kept | cold: none is |
//! | --- | --- | --- |
//! | API: TCP, TLS 1.3 | | 2 |
//! | `POST` the tunnel, and on another connection, at the same time, `GET` the play | | 1 |
//! | tunnel: TCP, TLS 1.3 | 2 | 2, or none where it is at the API's address |
//! | `GET` the login, on that connection | | 1 |
//! | WebSocket upgrade, on the same one; the server's first line comes right behind the answer | 1 | 1 |
//! | **together** | **3** | **7, or 5** |
//!
//! Each round trip needs the answer of the one before. There is one more if ssh does not pass the user name, or if the
//! playground was stopped on purpose, a session to it has just ended, or it must never be woken. Then the request for
//! the tunnel waits for the play. TLS is set up, which includes reading the trust store, while TCP connects. The count
//! is kept by `tests/it/round_trips.rs`.
//!
//! # When a session is not used, or thrown away
//!
//! A session is one file, `<root>/tunnels/<hash>.json`, 0600. The hash covers the account, API address, key, host name
//! and user. The session is deleted when the tunnel refuses it, leads nowhere, or stays silent while the platform
//! reports that the playground is not up; when this program stops, starts, restarts or destroys the playground, or logs
//! out; when the playground ended under a connection; after a failed [`Trial`]; and when a name no longer means that
//! playground alone. For a name, the platform's list is requested while the tunnel is dialled.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    files::{self, make_private_folder},
    labs::{TunnelSession, vitals::Vitals},
    moment::{self, Moment, ago, now},
    records::relays::Relays,
    secrets,
};

/// Age after which a session is not used. The lifetime of tokens is unknown; a day is common for a browser's session.
const LASTS: Duration = Duration::from_secs(24 * 60 * 60);
/// More bytes than a server sends to a client whose keys it refuses, a long banner included.
const LITTLE: u64 = 8 * 1024;
/// Maximum number of answers after the key exchange to a client of which three keys are refused: service, method
/// `none`, and a query for each key. A client that logs in sends more: signature, channel, command.
const REFUSED_TURNS: u64 = 5;

/// The facts about a playground by which the settings choose, and by which errors name it.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// The name of its entry in the catalogue.
    pub entry: String,
    /// True for the playground of a challenge, a tutorial or a lesson.
    pub is_lesson: bool,
    /// Its name for people; empty where an older version has kept it.
    #[serde(default)]
    pub shown: String,
}

/// A session, and the machine it leads to.
#[derive(Clone, Deserialize, Serialize)]
pub struct Known {
    /// The id of the play.
    pub play: String,
    /// The machine.
    pub machine: String,
    /// The user on the machine.
    pub user: String,
    /// The catalogue name in the host name, if there was one.
    pub name: Option<String>,
    /// Its playground, unless an older version has kept it.
    #[serde(default)]
    pub about: Option<About>,
    /// The id of the container on the machine that the host name has led to, where it is a pod's.
    #[serde(default)]
    pub inside: Option<String>,
    /// The time when the platform granted it.
    #[serde(deserialize_with = "moment::recorded")]
    pub since: Moment,
    url: String,
    token: String,
}

impl Known {
    /// A session that the platform has just granted.
    pub fn new(play: &str, machine: &str, user: &str, name: Option<&str>, session: &TunnelSession) -> Known {
        Known {
            play: play.into(),
            machine: machine.into(),
            user: user.into(),
            name: name.map(Into::into),
            about: None,
            inside: None,
            since: now(),
            url: session.url.clone(),
            token: session.token.clone(),
        }
    }

    /// The session, as `labs` dials with it.
    pub fn session(&self) -> TunnelSession {
        TunnelSession { url: self.url.clone(), token: self.token.clone() }
    }

    fn is_fresh(&self) -> bool {
        ago(self.since) < LASTS
    }
}

/// The sessions of every account on this computer. What forgets the sessions into a playground forgets its relays too.
#[derive(Clone, Debug)]
pub struct TunnelCache {
    folder: PathBuf,
    relays: Relays,
}

/// The place of one session: for one account, API, key, host name and user.
#[derive(Clone, Debug)]
pub struct Slot {
    path: PathBuf,
}

/// The folder of the sessions that are kept below `root`.
pub fn folder(root: &Path) -> PathBuf {
    root.join("tunnels")
}

/// Reports whether a file of the folder has a name that we give: a hash.
pub(super) fn is_own(name: &str) -> bool {
    let is_hash = |name: &str| name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    name.strip_suffix(".json").is_some_and(is_hash)
}

impl TunnelCache {
    /// The sessions kept below `root`.
    pub fn below(root: &Path) -> TunnelCache {
        TunnelCache { folder: folder(root), relays: Relays::below(root) }
    }

    /// The place of the session that `key` names, in its parts: account, API address, key's fingerprint, host, user.
    pub fn slot(&self, key: [&str; 5]) -> Slot {
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        for part in key {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let name: String = hash.finish().as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        Slot { path: self.folder.join(name + ".json") }
    }

    /// Forgets every session into a playground, by its id or the name it was asked for.
    pub fn forget(&self, label: &str) {
        self.relays.forget(label);
        sweep(&self.folder, |known| {
            let is_meant = known.play == label || known.name.as_deref() == Some(label);
            if is_meant && known.play != label {
                self.relays.forget(&known.play);
            }
            is_meant
        });
    }

    /// Forgets the sessions into a playground, and not its relays: the next connection asks the platform, and learns
    /// whether they are of the present boot.
    pub fn doubt(&self, play: &str) {
        sweep(&self.folder, |known| known.play == play);
    }

    /// Forgets all of them.
    pub fn clear(&self) {
        self.relays.clear();
        sweep(&self.folder, |_| true);
    }
}

/// Deletes the sessions for which `gone` returns true, and those that are too old or unreadable.
fn sweep(folder: &Path, gone: impl Fn(&Known) -> bool) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for slot in entries.filter_map(|entry| Some(Slot { path: entry.ok()?.path() })) {
        if slot.path.extension().is_some_and(|extension| extension == "json")
            && slot.read().is_none_or(|known| !known.is_fresh() || gone(&known))
        {
            slot.forget();
        }
    }
}

impl Slot {
    fn read(&self) -> Option<Known> {
        serde_json::from_slice(&files::read(&self.path).ok()??).ok()
    }

    /// The session, if there is one that may still be valid. A damaged file counts as none.
    pub fn known(&self) -> Option<Known> {
        self.read().filter(Known::is_fresh).inspect(|known| secrets::keep(&known.token))
    }

    /// Keeps a session. A failure is logged only, because it costs nothing but the next connection's time.
    pub fn keep(&self, known: &Known) {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let kept = make_private_folder(folder).and_then(|()| {
            // Replaced in one step, but not synced to the disk: that would hold the connection up, and what a crash
            // leaves is at worst a file that cannot be read.
            files::sweep(folder);
            let mut file = files::temporary(folder)?;
            file.write_all(&serde_json::to_vec(known)?)?;
            file.persist(&self.path).map_err(|e| e.error)
        });
        if let Err(error) = kept {
            log::warn!("cannot keep the tunnel's session: {error}");
        }
        sweep(folder, |_| false);
    }

    /// Forgets the session.
    pub fn forget(&self) {
        // The file may be gone already.
        let _ = fs::remove_file(&self.path);
    }
}

/// The trial of a kept session, from the client's NEWKEYS to the end of the connection.
///
/// The machine may no longer accept the key, and says so inside the encryption. So when little was said, and either the
/// server had the last word or the client had no occasion to log in, the session is forgotten, and the next connection
/// has the platform authorise the key again.
///
/// It ends with [`Trial::end`]. It ends when it is dropped, too, because most connections end by a signal, which drops
/// their future.
#[must_use]
pub struct Trial {
    slot: Slot,
    vitals: Arc<Vitals>,
    received: u64,
    turns: u64,
}

impl Trial {
    /// Begins the trial of the session in `slot`, whose tunnel has these vitals.
    pub fn begin(slot: Slot, vitals: Arc<Vitals>) -> Trial {
        Trial { slot, received: vitals.received(), turns: vitals.turns(), vitals }
    }

    /// Ends the trial: forgets the session if it has failed.
    pub fn end(self) {
        drop(self);
    }

    /// Returns true if the machine may have refused the key.
    fn has_failed(&self) -> bool {
        let little = self.vitals.received() - self.received < LITTLE;
        little && (self.vitals.server_spoke_last() || self.vitals.turns() - self.turns <= REFUSED_TURNS)
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if self.has_failed() {
            log::info!(
                "the connection was so short that the machine may have refused the key: forgetting the tunnel's session"
            );
            self.slot.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Known, LASTS, TunnelCache};
    use crate::{labs::TunnelSession, moment::now};

    fn known(play: &str, name: Option<&str>) -> Known {
        let session = TunnelSession { url: "https://t.example".into(), token: "secret".into() };
        Known::new(play, "m", "root", name, &session)
    }

    #[test]
    fn keeps_a_session_for_who_asked_and_what_for() {
        let root = tempfile::tempdir().unwrap();
        let cache = TunnelCache::below(root.path());
        let slot = cache.slot(["account", "api", "key", "playground-x", "root"]);
        assert!(slot.known().is_none());
        slot.keep(&known("x", None));
        let found = slot.known().unwrap();
        assert_eq!((found.play.as_str(), found.session().token.as_str()), ("x", "secret"));
        for other in [
            ["accoun", "tapi", "key", "playground-x", "root"],
            ["other", "api", "key", "playground-x", "root"],
            ["account", "api", "key2", "playground-x", "root"],
            ["account", "api", "key", "playground-x", ""],
        ] {
            assert!(cache.slot(other).known().is_none(), "{other:?}");
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&slot.path), mode(&cache.folder)), (0o600, 0o700));
        }
    }

    #[test]
    fn forgets_by_id_by_name_and_by_age() {
        let root = tempfile::tempdir().unwrap();
        let cache = TunnelCache::below(root.path());
        let slots = ["1", "2", "3"].map(|host| cache.slot(["", "", "", host, ""]));
        let keep = || {
            slots[0].keep(&known("a", None));
            slots[1].keep(&known("b", Some("docker")));
            slots[2].keep(&known("c", None));
        };
        let left = || slots.each_ref().map(|slot| slot.known().is_some());
        keep();
        cache.forget("a");
        assert_eq!(left(), [false, true, true]);
        cache.forget("docker");
        assert_eq!(left(), [false, false, true]);
        keep();
        cache.clear();
        assert_eq!(left(), [false; 3]);
        let age = u64::try_from(LASTS.as_millis()).unwrap() + 1;
        slots[0].keep(&Known { since: now() - age, ..known("a", None) });
        slots[1].keep(&known("b", Some("docker")));
        assert_eq!(left(), [false, true, false]);
        std::fs::write(&slots[1].path, "{").unwrap();
        assert_eq!(left(), [false; 3]);
        cache.forget("nothing");
        assert_eq!(std::fs::read_dir(super::folder(root.path())).unwrap().count(), 0, "what is useless is swept");
    }
}
