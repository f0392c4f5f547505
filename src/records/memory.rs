//! What people wanted of a playground: that it be stopped, that it run; and which wake has been asked for already.
//!
//! One small file per playground (and per catalogue name), changed under its lock. The kernel lets go of a lock when its
//! holder dies, so a process that is killed anywhere leaves none that lasts.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Kind, Result},
    files::{self, Lock},
    moment::{Moment, ago, now},
    platform::Platform,
    settings::Folders,
};

/// A playground that runs so long after it was asked to stop was started again.
const STOP_TAKES: Duration = Duration::from_secs(5 * 60);

/// What is remembered of one playground.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Record {
    /// When it was stopped on purpose with this tool, if nothing deliberate has happened since.
    pub stopped: Option<Moment>,
    /// When somebody last did something deliberate with it: start, restart, open.
    pub deliberate: Option<Moment>,
    /// When it ended under a live session of ours, or a connection was last refused because of that.
    pub cut_off: Option<Moment>,
    /// When the last session of ours to it ended, if nothing deliberate has happened since.
    pub session_ended: Option<Moment>,
    /// The playground that this session was to.
    pub session: Option<String>,
    /// The last request to wake it.
    pub wake: Option<WakeRequest>,
    /// What its machines were like at the last connection.
    pub machines: BTreeMap<String, Machine>,
}

/// What is remembered of a machine.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Machine {
    /// The identification line of its SSH server.
    pub identification: Option<String>,
    /// Since when it had been up, in the platform's words.
    pub up_since: Option<String>,
    /// True where the platform allows SSH access, once that is known.
    pub ssh: Option<bool>,
}

/// A request that is made once for all who want it.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub struct WakeRequest {
    /// When it was made.
    pub at: Moment,
    /// What it was made upon: the state as the platform described it, so that a later stop is another matter.
    pub upon: String,
    /// Whether the platform has answered. If not, its sender died, or is still at it under the lock.
    pub sent: bool,
    /// What it made: the id of a playground that was started by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<String>,
}

/// The records of one platform.
#[derive(Clone, Debug)]
pub struct Memory {
    folder: PathBuf,
}

/// The folder of the records of `platform`.
pub fn folder(folders: &Folders, platform: Platform) -> PathBuf {
    folders.root.join(match platform {
        Platform::Labs => "memory",
        Platform::Local => "memory.local",
    })
}

impl Memory {
    /// The records of `platform`.
    pub fn of(folders: &Folders, platform: Platform) -> Memory {
        Memory { folder: folder(folders, platform) }
    }

    /// The playgrounds and catalogue names of which something is remembered.
    pub fn labels(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return Vec::new() };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut labels: Vec<_> = names.filter_map(|name| Some(name.strip_suffix(".json")?.to_owned())).collect();
        labels.sort_unstable();
        labels
    }

    /// Where the record of a playground lies.
    pub fn path(&self, label: &str) -> PathBuf {
        self.folder.join(format!("{}.json", file_name(label)))
    }

    /// The record of a playground, by id or catalogue name.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub fn read(&self, label: &str) -> Result<Record> {
        let path = self.path(label);
        match files::read_text(&path)? {
            None => Ok(Record::default()),
            Some(text) => serde_json::from_str(&text).map_err(|_| {
                Error::new(Kind::File, format!("{} is damaged", path.display()))
                    .with_hint("delete it: it only remembers whether the playground was stopped on purpose")
            }),
        }
    }

    /// Changes the record of a playground.
    ///
    /// # Errors
    /// When it cannot be read or written, or is damaged.
    pub fn change<T>(&self, label: &str, change: impl FnOnce(&mut Record) -> T) -> Result<T> {
        let path = self.path(label);
        let _lock = Lock::acquire(&path)?;
        let mut record = self.read(label)?;
        let before = record.clone();
        let answer = change(&mut record);
        if record != before {
            let text = serde_json::to_string(&record).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
            files::write_private(&path, text.as_bytes())?;
        }
        Ok(answer)
    }

    /// The lock under which a wake of the playground is asked for; another one than that of its record, because it is
    /// held while the platform answers. `None` while another process holds it.
    ///
    /// # Errors
    /// When the lock file cannot be opened.
    pub fn try_wake_lock(&self, label: &str) -> Result<Option<Lock>> {
        Lock::try_acquire(&self.folder.join(format!("{}.wake", file_name(label))))
    }

    /// Somebody wants it to run: everything that speaks against a wake is forgotten.
    ///
    /// # Errors
    /// As [`Memory::change`].
    pub fn deliberate(&self, label: &str) -> Result<()> {
        self.change(label, |record| {
            record.stopped = None;
            record.cut_off = None;
            record.session_ended = None;
            record.deliberate = Some(now());
        })
    }

    /// Somebody stopped it on purpose.
    ///
    /// # Errors
    /// As [`Memory::change`].
    pub fn note_stopped(&self, label: &str) -> Result<()> {
        self.change(label, |record| {
            record.stopped = Some(now());
            record.deliberate = None;
        })
    }

    /// It runs. What was stopped on purpose some time ago has been started since, elsewhere perhaps: the next end of it
    /// is another matter. A stop that is just being asked for still stands.
    ///
    /// # Errors
    /// As [`Memory::change`].
    pub fn note_runs(&self, label: &str) -> Result<()> {
        self.change(label, |record| record.stopped = record.stopped.filter(|at| ago(*at) < STOP_TAKES))
    }

    /// Remembers a machine of a playground as it is at this connection. Gives what was remembered before.
    ///
    /// # Errors
    /// As [`Memory::change`].
    pub fn machine(&self, play: &str, name: &str, change: impl FnOnce(&mut Machine)) -> Result<Machine> {
        self.change(play, |record| {
            let machine = record.machines.entry(name.to_owned()).or_default();
            let before = machine.clone();
            change(machine);
            before
        })
    }

    /// A session of ours to `play` has ended at `moment`, for whatever reason. Whether the playground had ended before can
    /// be told when it is wanted again.
    ///
    /// # Errors
    /// As [`Memory::change`].
    pub fn session_ended(&self, label: &str, play: &str, moment: Moment) -> Result<()> {
        self.change(label, |record| {
            record.session_ended = Some(moment);
            record.session = (label != play).then(|| play.to_owned());
        })
    }

    /// It ended under a live session of ours.
    ///
    /// # Errors
    /// As [`Memory::change`].
    pub fn note_cut_off(&self, label: &str) -> Result<()> {
        self.change(label, |record| record.cut_off = Some(now()))
    }

    /// The play that a name meant was destroyed on purpose, which began at `began`: its end says nothing about the next of
    /// that name, unless it has cut a session off, which may come back by itself.
    ///
    /// # Errors
    /// As [`Memory::change`].
    pub fn note_over(&self, name: &str, play: &str, began: Moment) -> Result<()> {
        self.change(name, |record| {
            if record.session.as_deref() == Some(play) {
                let ended = record.session_ended.max(record.cut_off);
                record.cut_off = ended.is_some_and(|at| at >= began).then(now);
                (record.session, record.session_ended) = (None, None);
            }
        })
    }

    /// Something was done at the platform: those who watch look at once. See [`Memory::stamp`].
    pub fn note_acted(&self) {
        // Whoever misses it looks a few seconds later.
        if let Err(error) = files::write_private(&self.folder.join("acted"), now().to_string().as_bytes()) {
            log::warn!("{}", error.message());
        }
    }

    /// Changes whenever a process of this program changes a record, or says that it has [`acted`](Memory::note_acted):
    /// every change puts a file in place in the folder, which the folder's own time tells.
    pub fn stamp(&self) -> Option<SystemTime> {
        std::fs::metadata(&self.folder).and_then(|found| found.modified()).ok()
    }

    /// It is gone for good, and so is what is remembered of it.
    pub fn forget(&self, label: &str) {
        // Nobody asks again for the record of an id that no longer exists; a leftover is harmless.
        let _ = std::fs::remove_file(self.path(label));
    }
}

/// A label as a file's name: a machine's name is the platform's, and must not lead out of the folder.
fn file_name(label: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    label.chars().take(128).map(|c| if safe(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::{Memory, Record, STOP_TAKES, ago, now};
    use crate::error::Kind;

    fn memory() -> (tempfile::TempDir, Memory) {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory { folder: folder.path().join("memory") };
        (folder, memory)
    }

    #[test]
    fn a_deliberate_act_clears_what_speaks_against_a_wake() {
        let (_folder, memory) = memory();
        assert_eq!(memory.read("x").unwrap(), Record::default());
        memory.note_stopped("x").unwrap();
        memory.note_cut_off("x").unwrap();
        assert!(memory.read("x").unwrap().stopped.is_some());
        memory.deliberate("x").unwrap();
        let record = memory.read("x").unwrap();
        assert_eq!((record.stopped, record.cut_off), (None, None));
        assert!(ago(record.deliberate.unwrap()).as_secs() < 5);
        memory.forget("x");
        assert_eq!(memory.read("x").unwrap(), Record::default());
    }

    #[test]
    fn a_playground_that_runs_again_is_no_longer_stopped_on_purpose() {
        let (_folder, memory) = memory();
        memory.note_stopped("x").unwrap();
        memory.note_runs("x").unwrap();
        assert!(memory.read("x").unwrap().stopped.is_some(), "it is just about to stop");
        let long_ago = now() - u64::try_from(STOP_TAKES.as_millis()).unwrap();
        memory.change("x", |record| record.stopped = Some(long_ago)).unwrap();
        memory.note_runs("x").unwrap();
        assert_eq!(memory.read("x").unwrap().stopped, None);
    }

    #[test]
    fn a_damaged_record_is_named_and_kept() {
        let (_folder, memory) = memory();
        memory.note_stopped("x").unwrap();
        std::fs::write(memory.path("x"), "{").unwrap();
        let error = memory.deliberate("x").unwrap_err();
        assert_eq!(error.kind(), Kind::File);
        assert!(error.message().contains("x.json"));
        assert_eq!(std::fs::read_to_string(memory.path("x")).unwrap(), "{");
    }

    #[test]
    fn no_label_leads_out_of_the_folder() {
        let (folder, memory) = memory();
        for label in ["../../x", "/etc/x", "a/../../x", "..", "x\0y", &"y".repeat(1000)] {
            memory.note_stopped(label).unwrap();
            assert!(memory.read(label).unwrap().stopped.is_some());
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_moment_to_come_is_as_good_as_now() {
        assert_eq!(ago(now() + 60_000).as_secs(), 0);
    }
}
