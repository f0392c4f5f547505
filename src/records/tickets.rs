//! The tickets of sessions that survive their connections: each lets a later connection end a session whose proxy was
//! killed before it could say farewell to the machine.
//!
//! A ticket is one file, `<root>/held/<id>.json`, 0600, held under a lock for as long as its proxy runs. The kernel
//! releases the lock even when the process is killed, so that a ticket whose lock is free belongs to an orphan: a
//! session that the machine keeps for hours, and no process comes back to. The next connection to that machine ends it
//! (`hold/orphans`). A proxy that ends in order removes its own.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Kind, Result},
    files::{self, Lock, lock_path, write_private},
    moment::{self, Moment, ago, now},
    records::relays::{bytes, hex},
    secrets,
};

/// The age after which the machine has long ended what a ticket is for, even if its proxy ran for days.
const LASTS: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A session, and the words that end it.
#[derive(Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ticket {
    /// The id of the play.
    pub play: String,
    /// The machine.
    pub machine: String,
    /// The session's id, in hexadecimal digits.
    pub id: String,
    /// The session's key, in hexadecimal digits.
    key: String,
    /// The port of the machine at which the session is resumed or ended.
    pub resume_port: u16,
    /// The beginning of the session.
    #[serde(deserialize_with = "moment::recorded")]
    since: Moment,
}

impl Ticket {
    /// The ticket of a session that begins now.
    pub fn new(play: &str, machine: &str, id: &[u8; 16], key: &[u8; 32], resume_port: u16) -> Ticket {
        let key = hex(key);
        secrets::keep(&key);
        Ticket { play: play.into(), machine: machine.into(), id: hex(id), key, resume_port, since: now() }
    }

    /// The session's id and key.
    pub fn id_and_key(&self) -> Option<([u8; 16], [u8; 32])> {
        Some((bytes(&self.id)?, bytes(&self.key)?))
    }
}

/// The tickets on this computer.
#[derive(Clone, Debug)]
pub struct Tickets {
    folder: PathBuf,
}

/// A ticket's file, held by this process. It stays when this is dropped.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    _lock: Lock,
}

impl Kept {
    /// Removes the ticket, because nothing is left to be ended.
    pub fn discard(self) {
        // The lock's file may go, too, because its name is never used again.
        for path in [self.path.clone(), lock_path(&self.path)] {
            // It may be gone already.
            let _ = fs::remove_file(path);
        }
    }
}

/// The folder of the tickets that are kept below `root`.
pub fn folder(root: &Path) -> PathBuf {
    root.join("held")
}

/// Reports whether a file of the folder has a name that we give: a session's id.
pub(super) fn is_own(name: &str) -> bool {
    let name = name.strip_suffix(".lock").unwrap_or(name);
    name.strip_suffix(".json").is_some_and(|id| bytes::<16>(id).is_some())
}

impl Tickets {
    /// The tickets kept below `root`.
    pub fn below(root: &Path) -> Tickets {
        Tickets { folder: folder(root) }
    }

    /// Keeps a ticket while this process runs and after it was killed.
    ///
    /// # Errors
    /// Fails when the file cannot be written.
    pub fn keep(&self, ticket: &Ticket) -> Result<Kept> {
        let path = self.folder.join(format!("{}.json", ticket.id));
        let lock = Lock::acquire(&path)?;
        let text = serde_json::to_vec(ticket).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
        write_private(&path, &text)?;
        Ok(Kept { path, _lock: lock })
    }

    /// The tickets of orphans on a machine. Those of other machines are left for the next connection to them, and
    /// removed once they are good for nothing.
    pub fn orphans(&self, play: &str, machine: &str) -> Vec<(Ticket, Kept)> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let orphan = |name: String| {
            let path = self.folder.join(&name);
            // Without locks, it cannot be told from a session that lives.
            let lock = Lock::try_acquire(&path).ok()?.filter(Lock::is_held)?;
            let kept = Kept { path, _lock: lock };
            let ticket: Option<Ticket> =
                files::read(&kept.path).ok()?.and_then(|text| serde_json::from_slice(&text).ok());
            match ticket.filter(|ticket| ago(ticket.since) < LASTS) {
                Some(ticket) if ticket.play == play && ticket.machine == machine => {
                    secrets::keep(&ticket.key);
                    Some((ticket, kept))
                }
                Some(_) => None,
                None => {
                    kept.discard();
                    None
                }
            }
        };
        names.filter(|name| is_own(name) && name.ends_with(".json")).filter_map(orphan).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{LASTS, Ticket, Tickets, bytes, folder, hex, is_own};
    use crate::{files::write_private, moment::now};

    #[test]
    fn a_ticket_is_an_orphans_once_its_process_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let tickets = Tickets::below(root.path());
        assert!(tickets.orphans("p", "m").is_empty());
        let ticket = Ticket::new("p", "m", &[7; 16], &[9; 32], 40000);
        let kept = tickets.keep(&ticket).unwrap();
        assert!(tickets.orphans("p", "m").is_empty(), "it is held");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&kept.path), mode(&folder(root.path()))), (0o600, 0o700));
        }
        drop(kept);
        assert!(tickets.orphans("p", "other").is_empty() && tickets.orphans("q", "m").is_empty());
        let (found, kept) = tickets.orphans("p", "m").remove(0);
        assert_eq!((found.id_and_key(), found.resume_port), (Some(([7; 16], [9; 32])), 40000));
        assert!(tickets.orphans("p", "m").is_empty(), "one process ends it");
        kept.discard();
        assert_eq!(std::fs::read_dir(folder(root.path())).unwrap().count(), 0);
    }

    #[test]
    fn what_is_damaged_or_old_is_swept_and_what_is_not_ours_stays() {
        let root = tempfile::tempdir().unwrap();
        let tickets = Tickets::below(root.path());
        let age = u64::try_from(LASTS.as_millis()).unwrap() + 1;
        let old = Ticket { since: now() - age, ..Ticket::new("p", "m", &[1; 16], &[9; 32], 1) };
        drop(tickets.keep(&old).unwrap());
        let place = |name: &str| folder(root.path()).join(name);
        write_private(&place(&format!("{}.json", hex(&[2; 16]))), b"{").unwrap();
        write_private(&place("notes.json"), b"{").unwrap();
        assert!(tickets.orphans("p", "m").is_empty());
        let left: Vec<_> = std::fs::read_dir(folder(root.path())).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["notes.json"]);
    }

    #[test]
    fn digits_are_read_as_they_are_written() {
        assert_eq!(bytes::<3>(&hex(&[0, 0x7f, 0xff])), Some([0, 0x7f, 0xff]));
        for wrong in ["", "00", "00000g", "+1+1+1", "é0000"] {
            assert_eq!(bytes::<3>(wrong), None, "{wrong}");
        }
        assert!(is_own(&format!("{}.json", hex(&[1; 16]))) && is_own(&format!("{}.json.lock", hex(&[1; 16]))));
        assert!(!is_own("1.json") && !is_own("notes.json.lock"));
    }
}
