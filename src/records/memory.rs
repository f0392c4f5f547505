//! The users' wishes for a playground, to be stopped or to run, and the wake that was requested already.
//!
//! One small file per playground and per catalogue name, changed under its lock. The kernel releases a lock when its
//! holder dies, so a process that is killed leaves none behind.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Kind, Result},
    files::{self, Lock},
    moment::{self, Moment, ago, now},
    platform::Platform,
    settings::Folders,
    ui::notice,
};

/// The longest time that a stop may take. A playground that runs so long after a request to stop was started again.
const STOP_TAKES: Duration = Duration::from_secs(5 * 60);

/// The consequence of a record that cannot be kept, in words.
const WITHOUT: &str = "going on without this record";

/// The record of one playground.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Record {
    /// The moment when this tool stopped it on purpose, if nothing deliberate has happened since.
    #[serde(deserialize_with = "moment::recorded_if_any")]
    pub stopped: Option<Moment>,
    /// The moment of the user's last deliberate act with it: start, restart, open.
    #[serde(deserialize_with = "moment::recorded_if_any")]
    pub deliberate: Option<Moment>,
    /// The moment when it ended under a live session of ours, or when a connection was last refused because of that.
    #[serde(deserialize_with = "moment::recorded_if_any")]
    pub cut_off: Option<Moment>,
    /// The moment when our last session to it ended, if nothing deliberate has happened since.
    #[serde(deserialize_with = "moment::recorded_if_any")]
    pub session_ended: Option<Moment>,
    /// The playground of that session.
    pub session: Option<String>,
    /// The end that the playground had during that session, by the platform's word. It may lie ahead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due: Option<Moment>,
    /// The last request to wake it.
    pub wake: Option<WakeRequest>,
    /// The extensions of its time, and what the user has said about them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,
    /// Its machines as they were at the last connection.
    pub machines: BTreeMap<String, Machine>,
    /// The fields of a newer version, which are kept.
    #[serde(flatten)]
    pub others: BTreeMap<String, serde_json::Value>,
}

/// A playground whose time is extended while it is used. All moments are in ms since 1970, and may lie ahead.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Keep {
    /// The user's choice for this playground, which beats the settings, and its moment.
    pub choice: Option<(bool, Moment)>,
    /// The end that it would have had.
    pub first_end: Moment,
    /// The end that the last step has given it.
    pub end: Moment,
    /// The end that a step has asked for, until the platform's answer is recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Moment>,
    /// The number of steps since then.
    pub steps: u32,
    /// The end that could not be moved, because the platform has refused to or the limit was reached.
    pub stuck: Option<Moment>,
}

/// The record of a machine.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Machine {
    /// The identification line of its SSH server.
    pub identification: Option<String>,
    /// The beginning of its uptime, in the platform's words.
    pub up_since: Option<String>,
    /// True when the platform allows SSH access, once that is known.
    pub ssh: Option<bool>,
    /// True once its setup has ended, so that it is asked for none again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_set_up: bool,
    /// The moment when this tool stopped it on purpose, while its playground ran on, if nothing deliberate has happened
    /// since.
    #[serde(deserialize_with = "moment::recorded_if_any", skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Moment>,
    /// As in [`Record`].
    #[serde(flatten)]
    pub others: BTreeMap<String, serde_json::Value>,
}

impl Record {
    /// The moment when this tool stopped a machine on purpose, if nothing deliberate has happened with it since.
    pub fn machine_stopped(&self, machine: &str) -> Option<Moment> {
        self.machines.get(machine)?.stopped
    }

    /// Forgets that machines were stopped on purpose, because all of them start with their playground.
    pub fn all_machines_start(&mut self) {
        self.machines.values_mut().for_each(|machine| machine.stopped = None);
    }

    /// Forgets everything about the playground as a whole that speaks against a wake.
    fn is_wanted(&mut self) {
        self.stopped = None;
        self.cut_off = None;
        self.session_ended = None;
        self.deliberate = Some(now());
    }
}

/// A request to wake a playground, made once for all clients that want it.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub struct WakeRequest {
    /// The moment of the request.
    #[serde(deserialize_with = "moment::recorded")]
    pub at: Moment,
    /// The state for which it was made, as the platform described it, so that a later stop is another matter.
    pub upon: String,
    /// True once the platform has answered. Before that its sender is waiting under the lock, or has died.
    pub sent: bool,
    /// True once its sender has lost the answer, so that the platform may still carry it out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
    /// The id of the playground that it made, if it was a start by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<String>,
}

/// A session that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// The moment of its request, or a later one.
    pub began: Moment,
    /// The moment of its end.
    pub ended: Moment,
    /// The end that the playground had by then, if the platform has told.
    pub due: Option<Moment>,
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

/// Reports whether a file of the folder has a name that we give: a playground's record, a lock, or the last act's time.
pub(super) fn is_own(name: &str) -> bool {
    let name = name.strip_suffix(".lock").unwrap_or(name);
    [".json", ".wake", ".keep"].iter().any(|end| name.ends_with(end)) || name == "acted"
}

impl Memory {
    /// The records of `platform`.
    pub fn of(folders: &Folders, platform: Platform) -> Memory {
        Memory { folder: folder(folders, platform) }
    }

    /// The playgrounds and catalogue names that have a record.
    pub fn labels(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return Vec::new() };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut labels: Vec<_> = names.filter_map(|name| Some(name.strip_suffix(".json")?.to_owned())).collect();
        labels.sort_unstable();
        labels
    }

    /// The path of the record of a playground.
    pub fn path(&self, label: &str) -> PathBuf {
        self.folder.join(format!("{}.json", file_name(label)))
    }

    /// The record of a playground, by id or catalogue name.
    ///
    /// # Errors
    /// Fails when it cannot be read or is damaged.
    pub fn read(&self, label: &str) -> Result<Record> {
        let path = self.path(label);
        match files::read_text(&path)? {
            None => Ok(Record::default()),
            Some(text) => serde_json::from_str(&text).map_err(|_| {
                Error::new(Kind::File, format!("{} is damaged", path.display()))
                    .with_hint("delete it; it only records whether the playground was stopped on purpose")
            }),
        }
    }

    /// Changes the record of a playground. A record that cannot be written, as on a full disk, costs a warning and not
    /// the work that it is about.
    ///
    /// # Errors
    /// Fails when it cannot be read or is damaged, because what it says is not known then.
    pub fn change<T>(&self, label: &str, change: impl FnOnce(&mut Record) -> T) -> Result<T> {
        let (answer, kept) = self.attempt(label, change)?;
        if let Err(error) = kept {
            not_kept(&error, WITHOUT);
        }
        Ok(answer)
    }

    /// Changes the record of a playground, for what must not be done without it.
    ///
    /// # Errors
    /// As [`Memory::change`], and when it cannot be written.
    pub fn must_change(&self, label: &str, change: impl FnOnce(&mut Record)) -> Result<()> {
        self.attempt(label, change)?.1
    }

    /// Notes a wish of the user, who has just said it to a command. If it cannot be noted, the command goes on, and the
    /// user is told. `lost` is the consequence of a record that stays as it was.
    fn note(&self, label: &str, lost: &str, change: impl FnOnce(&mut Record)) {
        match self.attempt(label, change) {
            Ok(((), Ok(()))) => {}
            Ok(((), Err(error))) => not_kept(&error, lost),
            // One that cannot be read keeps connections from waking the playground.
            Err(error) => not_kept(&error, WITHOUT),
        }
    }

    /// Changes the record. Returns the answer of `change`, and whether the record was written.
    fn attempt<T>(&self, label: &str, change: impl FnOnce(&mut Record) -> T) -> Result<(T, Result<()>)> {
        let path = self.path(label);
        let _lock = Lock::acquire(&path)?;
        let mut record = self.read(label)?;
        let before = record.clone();
        let answer = change(&mut record);
        if record == before {
            return Ok((answer, Ok(())));
        }
        let text = serde_json::to_string(&record).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
        Ok((answer, files::write_private(&path, text.as_bytes())))
    }

    /// The lock under which a wake of the playground is requested. It is not that of the record, because it is held
    /// while the platform answers. `None` while another process holds it.
    ///
    /// # Errors
    /// Fails when the lock file cannot be opened.
    pub fn try_wake_lock(&self, label: &str) -> Result<Option<Lock>> {
        Lock::try_acquire(&self.folder.join(format!("{}.wake", file_name(label))))
    }

    /// Notes that the user wants it to run, with all of its machines: everything that speaks against a wake is
    /// forgotten.
    pub fn deliberate(&self, label: &str) {
        self.note(label, WITHOUT, |record| {
            record.is_wanted();
            record.all_machines_start();
        });
    }

    /// Notes that the user wants one machine of it to run. Others that were stopped on purpose stay so.
    pub fn machine_wanted(&self, play: &str, machine: &str) {
        self.note(play, WITHOUT, |record| {
            record.is_wanted();
            if let Some(machine) = record.machines.get_mut(machine) {
                machine.stopped = None;
            }
        });
    }

    /// Notes that the user stopped it on purpose.
    pub fn note_stopped(&self, label: &str) {
        self.note(label, "the next connection may start the playground again", |record| {
            record.stopped = Some(now());
            record.deliberate = None;
        });
    }

    /// Notes that the user stopped a machine on purpose, whose playground runs on.
    pub fn note_machine_stopped(&self, play: &str, machine: &str) {
        self.note(play, "the next connection may start the machine again", |record| {
            record.machines.entry(machine.to_owned()).or_default().stopped = Some(now());
        });
    }

    /// Notes that a machine runs, and so its playground. If they were stopped on purpose some time ago, they have been
    /// started since, perhaps elsewhere, and their next end is another matter. A stop that is just being requested
    /// still stands.
    ///
    /// # Errors
    /// As [`Memory::change`].
    pub fn note_runs(&self, play: &str, machine: &str) -> Result<()> {
        let still_stands = |stopped: Option<Moment>| stopped.filter(|at| ago(*at) < STOP_TAKES);
        self.change(play, |record| {
            record.stopped = still_stands(record.stopped);
            if let Some(machine) = record.machines.get_mut(machine) {
                machine.stopped = still_stands(machine.stopped);
            }
        })
    }

    /// Records a machine of a playground as it is at this connection. Returns the earlier record.
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

    /// Notes that a session of ours to `play` has ended, for any reason. The next request for the playground finds out
    /// whether it had ended before.
    ///
    /// # Errors
    /// As [`Memory::change`].
    pub fn session_ended(&self, label: &str, play: &str, session: &Session) -> Result<()> {
        self.change(label, |record| {
            // It ran after that, for this session.
            record.cut_off = record.cut_off.filter(|at| *at >= session.began);
            record.session_ended = Some(session.ended);
            record.session = (label != play).then(|| play.to_owned());
            // A short session is not told it. An earlier one's is over by the next end, or still true.
            record.due = session.due.or(record.due);
        })
    }

    /// Notes that it ended under a live session of ours.
    ///
    /// # Errors
    /// As [`Memory::change`].
    pub fn note_cut_off(&self, label: &str) -> Result<()> {
        self.change(label, |record| record.cut_off = Some(now()))
    }

    /// Notes that the play of a name was destroyed on purpose, beginning at `began`. Its end says nothing about the
    /// next play of that name, unless it has cut off a session, which may reconnect by itself.
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

    /// The lock under which a playground's time is extended. `None` while another process holds it.
    ///
    /// # Errors
    /// Fails when the lock file cannot be opened.
    pub fn try_keep_lock(&self, play: &str) -> Result<Option<Lock>> {
        Lock::try_acquire(&self.folder.join(format!("{}.keep", file_name(play))))
    }

    /// The playgrounds about whose end something is recorded. A record that cannot be read says nothing here.
    pub fn kept(&self) -> BTreeMap<String, Keep> {
        let kept = |label: String| Some((label.clone(), self.read(&label).ok()?.keep?));
        self.labels().into_iter().filter_map(kept).collect()
    }

    /// Notes an act at the platform, so that processes that watch look at once. See [`Memory::stamp`].
    pub fn note_acted(&self) {
        // A process that misses it looks a few seconds later.
        if let Err(error) = files::write_private(&self.folder.join("acted"), now().to_string().as_bytes()) {
            log::warn!("{}", error.message());
        }
    }

    /// A stamp that changes whenever a process of this program changes a record, or notes that it has
    /// [`acted`](Memory::note_acted). It is the time of the folder, because every change puts a file in place there.
    pub fn stamp(&self) -> Option<SystemTime> {
        std::fs::metadata(&self.folder).and_then(|found| found.modified()).ok()
    }

    /// Forgets a playground that is gone for good.
    pub fn forget(&self, label: &str) {
        // A record that stays is harmless, because its id is never used again.
        let _ = std::fs::remove_file(self.path(label));
    }
}

/// Tells the user that a record could not be kept. Once in a process, because the next one fails for the same reason.
fn not_kept(error: &Error, consequence: &str) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    log::warn!("{}", error.message());
    if !TOLD.swap(true, Ordering::Relaxed) {
        notice::line(&format!("labctl-ssh-proxy: {}; {consequence}", error.message()));
        if let Some(hint) = error.hint() {
            notice::line(&format!("hint: {hint}"));
        }
    }
}

/// A label as a file's name. A machine's name is the platform's choice, and must not lead out of the folder.
fn file_name(label: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    label.chars().take(128).map(|c| if safe(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::{Memory, Record, STOP_TAKES, WakeRequest, ago, now};
    use crate::{error::Kind, moment::LONG_AGO};

    fn memory() -> (tempfile::TempDir, Memory) {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory { folder: folder.path().join("memory") };
        (folder, memory)
    }

    #[test]
    fn a_deliberate_act_clears_what_speaks_against_a_wake() {
        let (_folder, memory) = memory();
        assert_eq!(memory.read("x").unwrap(), Record::default());
        memory.note_stopped("x");
        memory.note_cut_off("x").unwrap();
        assert!(memory.read("x").unwrap().stopped.is_some());
        memory.deliberate("x");
        let record = memory.read("x").unwrap();
        assert_eq!((record.stopped, record.cut_off), (None, None));
        assert!(ago(record.deliberate.unwrap()).as_secs() < 5);
        memory.forget("x");
        assert_eq!(memory.read("x").unwrap(), Record::default());
    }

    #[test]
    fn a_playground_that_runs_again_is_no_longer_stopped_on_purpose() {
        let (_folder, memory) = memory();
        memory.note_stopped("x");
        memory.note_machine_stopped("x", "m");
        memory.note_machine_stopped("x", "n");
        let stopped = || {
            let record = memory.read("x").unwrap();
            [record.stopped, record.machine_stopped("m"), record.machine_stopped("n")].map(|at| at.is_some())
        };
        memory.note_runs("x", "m").unwrap();
        assert_eq!(stopped(), [true; 3], "it is just about to stop");
        let long_ago = now() - u64::try_from(STOP_TAKES.as_millis()).unwrap();
        memory
            .change("x", |record| {
                record.stopped = Some(long_ago);
                record.machines.values_mut().for_each(|machine| machine.stopped = Some(long_ago));
            })
            .unwrap();
        memory.note_runs("x", "m").unwrap();
        assert_eq!(stopped(), [false, false, true]);
    }

    #[test]
    fn one_machine_is_wanted_or_all_of_them_are() {
        let (_folder, memory) = memory();
        let stopped = || ["m", "n"].map(|name| memory.read("x").unwrap().machine_stopped(name).is_some());
        memory.note_machine_stopped("x", "m");
        memory.note_machine_stopped("x", "n");
        assert!(memory.read("x").unwrap().stopped.is_none(), "its playground runs on");
        memory.machine_wanted("x", "m");
        assert_eq!(stopped(), [false, true]);
        assert!(memory.read("x").unwrap().deliberate.is_some());
        memory.note_machine_stopped("x", "m");
        memory.deliberate("x");
        assert_eq!(stopped(), [false, false]);
        memory.machine_wanted("y", "unknown");
        assert!(memory.read("y").unwrap().machines.is_empty());
    }

    #[test]
    fn a_damaged_record_is_named_and_kept() {
        let (_folder, memory) = memory();
        memory.note_stopped("x");
        std::fs::write(memory.path("x"), "{").unwrap();
        memory.deliberate("x");
        let error = memory.change("x", |_| ()).unwrap_err();
        assert_eq!(error.kind(), Kind::File);
        assert!(error.message().contains("x.json"));
        assert_eq!(std::fs::read_to_string(memory.path("x")).unwrap(), "{");
    }

    #[test]
    fn no_label_leads_out_of_the_folder() {
        let (folder, memory) = memory();
        for label in ["../../x", "/etc/x", "a/../../x", "..", "x\0y", &"y".repeat(1000)] {
            memory.note_stopped(label);
            assert!(memory.read(label).unwrap().stopped.is_some());
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_moment_to_come_is_long_ago() {
        let (_folder, memory) = memory();
        let wake = WakeRequest { at: now() + 7_200_000, upon: String::new(), sent: false, lost: false, made: None };
        memory
            .change("x", |record| {
                record.cut_off = Some(now() + 60_000);
                record.wake = Some(wake);
            })
            .unwrap();
        let record = memory.read("x").unwrap();
        assert_eq!((record.cut_off, record.wake.unwrap().at), (Some(LONG_AGO), LONG_AGO));
    }

    #[test]
    fn what_a_newer_version_has_written_stays() {
        let (_folder, memory) = memory();
        memory.note_stopped("x");
        std::fs::write(memory.path("x"), r#"{"stopped":1,"colour":"red","machines":{"m":{"speed":[2]}}}"#).unwrap();
        memory.deliberate("x");
        memory.machine("x", "m", |machine| machine.ssh = Some(true)).unwrap();
        let text = std::fs::read_to_string(memory.path("x")).unwrap();
        assert!(text.contains(r#""colour":"red""#) && text.contains(r#""speed":[2]"#), "{text}");
    }

    #[test]
    fn a_record_that_cannot_be_kept_ends_nothing() {
        let folder = tempfile::tempdir().unwrap();
        // No folder can be made below a file, not even by root.
        std::fs::write(folder.path().join("file"), "").unwrap();
        let memory = Memory { folder: folder.path().join("file/memory") };
        memory.note_stopped("x");
        memory.deliberate("x");
    }
}
