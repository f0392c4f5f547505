//! The relays on machines: the ports and the secret of each that runs, and why others have none.
//!
//! A relay is one file, `<root>/relays/<hash>.json`, 0600. The hash covers the play, the machine and the user. A relay
//! ends with the machine's boot, so its record names the boot, in the platform's words. It is forgotten together with
//! the tunnel's sessions (`records/tunnels`): when this program stops, restarts or destroys the playground, or logs out.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    files::{self, write_private},
    moment::{self, Moment, ago, now},
    secrets,
};

/// Age after which a record is of no use: a relay ends 12 hours after its last session, and a playground before.
const LASTS: Duration = Duration::from_secs(24 * 60 * 60);
/// The time for which a machine that can have no relay is not asked again.
const REFUSED: Duration = Duration::from_secs(10 * 60);

/// A relay, and the boot of its machine.
#[derive(Clone, PartialEq, Eq)]
pub struct Known {
    /// The loopback port that begins sessions.
    pub new_port: u16,
    /// The loopback port that resumes them.
    pub resume_port: u16,
    /// The relay's secret.
    pub key: [u8; 32],
    /// The time since which the machine is up, in the platform's words, if they were read.
    pub up_since: Option<String>,
}

/// The user of a machine whose relay is meant. Each has its own.
#[derive(Clone, Copy, Debug)]
pub struct Whose<'a> {
    /// The id of the play.
    pub play: &'a str,
    /// The machine.
    pub machine: &'a str,
    /// The user on it.
    pub user: &'a str,
}

/// The relays of every account on this computer.
#[derive(Clone, Debug)]
pub struct Relays {
    folder: PathBuf,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    play: String,
    machine: String,
    user: String,
    #[serde(deserialize_with = "moment::recorded")]
    since: Moment,
    relay: Option<Ports>,
    /// The reason why it has none.
    refused: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Ports {
    new: u16,
    resume: u16,
    key: String,
    up_since: Option<String>,
}

impl Record {
    fn is_fresh(&self) -> bool {
        ago(self.since) < if self.relay.is_some() { LASTS } else { REFUSED }
    }
}

/// The folder of the relays that are kept below `root`.
pub fn folder(root: &Path) -> PathBuf {
    root.join("relays")
}

/// Reports whether a file of the folder has a name that we give: a hash.
pub(super) fn is_own(name: &str) -> bool {
    name.strip_suffix(".json").is_some_and(|hash| bytes::<16>(hash).is_some())
}

impl Relays {
    /// The relays kept below `root`.
    pub fn below(root: &Path) -> Relays {
        Relays { folder: folder(root) }
    }

    /// The relay, if one is known to run.
    pub fn known(&self, whose: Whose<'_>) -> Option<Known> {
        let Ports { new, resume, key, up_since } = self.record(whose)?.relay?;
        secrets::keep(&key);
        Some(Known { new_port: new, resume_port: resume, key: bytes(&key)?, up_since })
    }

    /// The reason why there is none, if the machine has given one lately.
    pub fn refused(&self, whose: Whose<'_>) -> Option<String> {
        self.record(whose)?.refused
    }

    /// The ports on which relays listen, of those playgrounds and machines for which `is_meant` returns true.
    pub fn ports(&self, is_meant: impl Fn(&str, &str) -> bool) -> BTreeSet<u16> {
        let meant = |record: &Record| record.is_fresh() && is_meant(&record.play, &record.machine);
        let relays =
            records(&self.folder).filter_map(|path| read(&path)).filter(meant).filter_map(|record| record.relay);
        relays.flat_map(|ports| [ports.new, ports.resume]).collect()
    }

    /// Keeps a relay. A failure is logged only, because it costs nothing but another placing.
    pub fn keep(&self, whose: Whose<'_>, known: &Known) {
        let (new, resume, up_since) = (known.new_port, known.resume_port, known.up_since.clone());
        self.write(whose, Some(Ports { new, resume, key: hex(&known.key), up_since }), None);
    }

    /// Records why the machine can have no relay, so that it is left alone for a while.
    pub fn note_refused(&self, whose: Whose<'_>, why: &str) {
        self.write(whose, None, Some(why.to_owned()));
    }

    /// Forgets one relay, because it has ended.
    pub fn drop(&self, whose: Whose<'_>) {
        // The file may be gone already.
        let _ = fs::remove_file(self.path(whose));
    }

    /// Forgets every relay of a playground.
    pub fn forget(&self, play: &str) {
        self.sweep(|record| record.play == play);
    }

    /// Forgets all of them.
    pub fn clear(&self) {
        self.sweep(|_| true);
    }

    /// The machines that may have a relay of ours, each with its play and its user.
    pub fn machines(&self) -> Vec<[String; 3]> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let own = entries.filter_map(Result::ok).filter(|entry| entry.file_name().to_str().is_some_and(is_own));
        let records = own.filter_map(|entry| read(&entry.path()));
        let running = records.filter(|record| record.is_fresh() && record.relay.is_some());
        let mut machines: Vec<_> = running.map(|record| [record.play, record.machine, record.user]).collect();
        machines.sort();
        machines
    }

    fn path(&self, Whose { play, machine, user }: Whose<'_>) -> PathBuf {
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        for part in [play, machine, user] {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        self.folder.join(hex(&hash.finish().as_ref()[..16]) + ".json")
    }

    fn record(&self, whose: Whose<'_>) -> Option<Record> {
        read(&self.path(whose)).filter(Record::is_fresh)
    }

    fn write(&self, whose: Whose<'_>, relay: Option<Ports>, refused: Option<String>) {
        let Whose { play, machine, user } = whose;
        let record =
            Record { play: play.into(), machine: machine.into(), user: user.into(), since: now(), relay, refused };
        let text = serde_json::json!(record).to_string();
        if let Err(error) = write_private(&self.path(whose), text.as_bytes()) {
            log::warn!("cannot keep the machine's relay: {}", error.message());
        }
        self.sweep(|_| false);
    }

    /// Deletes the records for which `gone` returns true, and those that are too old or unreadable.
    fn sweep(&self, gone: impl Fn(&Record) -> bool) {
        for path in records(&self.folder) {
            if read(&path).is_none_or(|record| !record.is_fresh() || gone(&record)) {
                // Another process may have been faster.
                let _ = fs::remove_file(path);
            }
        }
    }
}

fn records(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.filter(|entry| entry.file_name().to_str().is_some_and(is_own)).map(|entry| entry.path())
}

fn read(path: &Path) -> Option<Record> {
    serde_json::from_slice(&files::read(path).ok()??).ok()
}

/// The hexadecimal digits of some bytes.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of a text of hexadecimal digits, if they are so many.
pub(crate) fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::{Known, LASTS, REFUSED, Record, Relays, Whose, bytes, hex};
    use crate::moment::now;

    const WHOSE: Whose<'_> = Whose { play: "p", machine: "m", user: "u" };

    fn known() -> Known {
        Known { new_port: 1, resume_port: 2, key: [171; 32], up_since: Some("noon".into()) }
    }

    fn age(relays: &Relays, by: std::time::Duration) {
        let path = relays.path(WHOSE);
        let mut record: Record = super::read(&path).unwrap();
        record.since = now() - u64::try_from(by.as_millis()).unwrap() - 1;
        std::fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
    }

    #[test]
    fn each_user_of_a_machine_has_a_relay() {
        let root = tempfile::tempdir().unwrap();
        let relays = Relays::below(root.path());
        relays.keep(WHOSE, &known());
        assert!(relays.known(WHOSE) == Some(known()));
        assert_eq!(relays.ports(|play, machine| (play, machine) == ("p", "m")), [1, 2].into());
        assert_eq!(relays.ports(|play, _| play == "other"), [].into());
        for other in [Whose { play: "pm", machine: "", ..WHOSE }, Whose { user: "root", ..WHOSE }] {
            assert!(relays.known(other).is_none(), "{other:?}");
        }
        let file = std::fs::read_dir(super::folder(root.path())).unwrap().next().unwrap().unwrap();
        assert!(super::is_own(file.file_name().to_str().unwrap()));
        #[cfg(unix)]
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions()) & 0o777, 0o600);
        assert_eq!(crate::secrets::hidden(&format!("key {}", hex(&[171; 32]))), "key [hidden]");
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let relays = Relays::below(root.path());
        relays.keep(WHOSE, &known());
        relays.forget("other");
        assert!(relays.known(WHOSE).is_some());
        relays.forget("p");
        assert!(relays.known(WHOSE).is_none());
        relays.keep(WHOSE, &known());
        relays.clear();
        assert!(relays.known(WHOSE).is_none());
        relays.keep(WHOSE, &known());
        age(&relays, LASTS);
        assert!(relays.known(WHOSE).is_none());
        relays.note_refused(WHOSE, "it has no python3");
        assert_eq!(relays.refused(WHOSE).unwrap(), "it has no python3");
        assert!(relays.known(WHOSE).is_none());
        age(&relays, REFUSED);
        assert!(relays.refused(WHOSE).is_none());
        std::fs::write(relays.path(WHOSE), "{").unwrap();
        relays.forget("nothing");
        assert_eq!(std::fs::read_dir(super::folder(root.path())).unwrap().count(), 0, "what is useless is swept");
    }

    #[test]
    fn digits_become_the_same_bytes() {
        assert_eq!(bytes(&hex(&[0, 255, 16])), Some([0, 255, 16]));
        for wrong in ["0", "00112", "001g", "00é", "+011"] {
            assert_eq!(bytes::<2>(wrong), None, "{wrong}");
        }
    }
}
