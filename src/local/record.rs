//! The embedded platform's files: a folder for each play with its record and its machines' own folders.
//!
//! ```text
//! plays/<id>/play.json           the record, replaced in one step
//! plays/<id>/<machine>/          the machine's home, host keys and authorized keys
//! plays/.erased-<id>/            a destroyed play on its way out
//! ```

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Kind, Result},
    files,
    labs::wire::{Condition, MachineStatus, MachineUser, State, StateEvent, Status, TaskDetails, TaskStatus},
    platform::is_id,
};

use super::learning::Belonging;

/// The longest history of states that is kept: ten times a whole life.
const MAX_EVENTS: usize = 100;
/// The prefix of the folder of a destroyed play until it is gone.
const ERASED: &str = ".erased-";

/// A play as it is kept on disk, where it outlives the platform's process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    /// 24 hexadecimal digits.
    pub id: String,
    /// The catalogue entry it was started from.
    pub playground: String,
    /// The owner's title for it.
    pub title: String,
    /// RFC 3339, like the next two.
    pub created_at: String,
    /// The last change of anything about it.
    pub updated_at: String,
    /// The last change of its state.
    pub last_state_at: String,
    /// The moment of its last start, in seconds since 1970; its time runs from there.
    pub started_at: i64,
    /// The time for which it may run.
    pub max_play_minutes: u64,
    /// True after its owner has asked for it to be kept at its end.
    pub persistent: bool,
    /// True when it is erased at its end unless it is persistent. Records of older versions lack this, because those
    /// versions promised that every playground would merely be stopped.
    #[serde(default)]
    pub erased_at_end: bool,
    /// The choices of its start, if the playground has any.
    #[serde(default)]
    pub init_conditions: BTreeMap<String, String>,
    /// Consent to the safety disclaimer, as its start sent it.
    #[serde(default)]
    pub safety_disclaimer_consent: bool,
    /// The challenge, tutorial or lesson that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub belongs: Option<Belonging>,
    /// The states of the play and of its machines.
    pub status: Status,
    /// Its machines and their users.
    pub machines: Vec<MachineRecord>,
    /// The tasks that prepare it, with their results.
    #[serde(default)]
    pub tasks: Vec<TaskDetails>,
    /// The tabs of its page, and the networks of its machines: kept for clients, without meaning here.
    #[serde(default)]
    pub tabs: Vec<serde_json::Value>,
    #[serde(default)]
    pub networks: Vec<serde_json::Value>,
    /// Saved port forwards.
    pub port_forwards: Vec<PortForward>,
    /// Exposed ports.
    pub ports: Vec<Port>,
}

/// A machine of a play.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct MachineRecord {
    /// Its name.
    pub name: String,
    /// The users that can log in.
    pub users: Vec<MachineUser>,
    /// True when it has no SSH server.
    #[serde(default)]
    pub no_ssh: bool,
}

/// A port forward that its owner has saved. The platform does nothing with it.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(super) struct PortForward {
    pub kind: Direction,
    pub machine: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub local_host: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub local_port: u16,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remote_host: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub remote_port: u16,
}

/// The side of a port forward that listens.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Direction {
    Local,
    Remote,
}

/// An exposed port. It is reached where it listens, because machines share this computer's network.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Port {
    pub id: String,
    pub play_id: String,
    pub machine: String,
    pub number: u16,
    pub hostname: String,
    pub access: String,
    pub tls: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host_rewrite: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path_rewrite: String,
    pub url: String,
}

fn is_zero(port: &u16) -> bool {
    *port == 0
}

/// The current time as the API writes it.
pub(super) fn now() -> String {
    written(Timestamp::now())
}

/// Always with three digits of a second, so that the texts sort as the times do.
fn written(time: Timestamp) -> String {
    format!("{time:.3}")
}

impl Record {
    /// Its state: the last event's.
    pub(super) fn state(&self) -> &State {
        // Every record is made with an event, and loading refuses one without.
        self.status.state_events.last().map_or(&State::Created, |event| &event.state)
    }

    /// Notes that `state` begins now.
    pub(super) fn enter(&mut self, state: State, error: bool) {
        self.last_state_at = now();
        self.updated_at = self.last_state_at.clone();
        let error = if error { true.into() } else { serde_json::Value::Null };
        self.status.state_events.push(StateEvent { state, error, at: self.last_state_at.clone() });
        let surplus = self.status.state_events.len().saturating_sub(MAX_EVENTS);
        self.status.state_events.drain(..surplus);
    }

    /// Notes the state of a machine, and whether its sshd answers.
    pub(super) fn enter_machine(&mut self, name: &str, state: State, ready: bool, message: Option<String>) {
        let Some(machine) = self.status.machines.iter_mut().find(|machine| machine.name == name) else { return };
        machine.state = state;
        let status = if ready { "True" } else { "False" };
        let changed = machine.conditions.iter().all(|old| old.status != status);
        let since = machine.conditions.first().filter(|_| !changed).map(|old| old.last_transition_at.clone());
        machine.conditions = vec![Condition {
            name: "Ready".into(),
            status: status.into(),
            last_transition_at: since.unwrap_or_else(now),
            message,
        }];
        self.updated_at = now();
    }

    /// Notes that all machines are in that state, and none is ready.
    pub(super) fn enter_machines(&mut self, state: &State) {
        for name in self.machines.iter().map(|machine| machine.name.clone()).collect::<Vec<_>>() {
            self.enter_machine(&name, state.clone(), false, None);
        }
    }

    /// The status of a new play's machines.
    pub(super) fn new_machines(machines: &[MachineRecord]) -> Vec<MachineStatus> {
        let status = |machine: &MachineRecord| MachineStatus {
            name: machine.name.clone(),
            state: State::Created,
            conditions: vec![],
        };
        machines.iter().map(status).collect()
    }

    /// The record of a machine.
    pub(super) fn machine(&self, name: &str) -> Option<&MachineRecord> {
        self.machines.iter().find(|machine| machine.name == name)
    }

    /// Resets the running tasks of `machine`, or of all machines, to their state before they began, because they had no
    /// result and run again at the next boot. Returns them.
    pub(super) fn reset_tasks(&mut self, machine: Option<&str>) -> Vec<TaskDetails> {
        let running = |task: &&mut TaskDetails| {
            task.task.status == TaskStatus::RUNNING && machine.is_none_or(|machine| task.machine == machine)
        };
        let reset = |task: &mut TaskDetails| {
            task.task.status = TaskStatus::CREATED;
            task.task.version += 1;
            task.clone()
        };
        self.tasks.iter_mut().filter(running).map(reset).collect()
    }

    /// The time until its end, while it runs.
    pub(super) fn time_left(&self) -> Duration {
        let minutes = i64::try_from(self.max_play_minutes).unwrap_or(i64::MAX);
        let end = self.started_at.saturating_add(minutes.saturating_mul(60)).saturating_mul(1000);
        let left = end.saturating_sub(Timestamp::now().as_millisecond());
        Duration::from_millis(u64::try_from(left).unwrap_or_default())
    }

    /// Writes the record into its folder below `plays`.
    ///
    /// # Errors
    /// Fails when it cannot be written; the old one is then still in place.
    pub(super) fn save(&self, plays: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::new(Kind::Internal, format!("cannot write a playground's state: {e}")))?;
        files::write_private(&file_of(plays, &self.id), &text)
    }
}

fn file_of(plays: &Path, id: &str) -> PathBuf {
    plays.join(id).join("play.json")
}

/// Reads every play below `plays`. A play that was running when the platform ended is stopped now, and one that was
/// being erased is gone.
///
/// # Errors
/// Fails when a record cannot be read or is damaged. The platform does not start then, because it could only harm a
/// play that it does not understand.
pub(super) fn load(plays: &Path) -> Result<Vec<Record>> {
    files::make_private_folder(plays).map_err(|e| Error::file("make", plays, &e))?;
    let mut records = Vec::new();
    for entry in fs::read_dir(plays).map_err(|e| Error::file("read", plays, &e))? {
        let entry = entry.map_err(|e| Error::file("read", plays, &e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(ERASED) {
            remove(&entry.path());
        } else if is_id(&name) {
            let path = file_of(plays, &name);
            files::sweep(&entry.path());
            // A folder without a record is left by a start that was killed before there was a play.
            let Some(text) = files::read_text(&path)? else {
                erase(plays, &name)?;
                continue;
            };
            let damaged = |why: &str| {
                Error::new(Kind::File, format!("{} is damaged: {why}", path.display()))
                    .with_hint("repair it, or move its folder away to give up that playground")
            };
            let mut record: Record = serde_json::from_str(&text).map_err(|e| damaged(&e.to_string()))?;
            if record.id != name || record.status.state_events.is_empty() || record.machines.is_empty() {
                return Err(damaged("it is not the record of this playground"));
            }
            match record.state() {
                State::Stopped | State::Failed => {}
                State::Destroying | State::Destroyed => {
                    erase(plays, &name)?;
                    continue;
                }
                _ => {
                    record.enter(State::Stopped, false);
                    record.enter_machines(&State::Stopped);
                    record.reset_tasks(None);
                    record.save(plays)?;
                }
            }
            records.push(record);
        }
    }
    Ok(records)
}

/// Erases a play's folder in two steps. After the first there is no such play, even if the second fails.
///
/// # Errors
/// Fails when the first step fails.
pub(super) fn erase(plays: &Path, id: &str) -> Result<()> {
    let (folder, erased) = (plays.join(id), plays.join(format!("{ERASED}{id}")));
    match fs::rename(&folder, &erased) {
        Ok(()) => remove(&erased),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::file("erase", &folder, &e)),
    }
    Ok(())
}

/// Removes a folder with everything in it. If that fails, the platform tries again when it next starts.
fn remove(folder: &Path) {
    // Read-only folders, as some package caches are, can be emptied only after their modes have been changed.
    let removed = fs::remove_dir_all(folder).or_else(|_| {
        let _ = unlock(folder);
        fs::remove_dir_all(folder)
    });
    if let Err(e) = removed {
        log::warn!("cannot remove all of {}: {e}", folder.display());
    }
}

fn unlock(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            unlock(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::{Direction, MachineRecord, PortForward, Record, erase, load, now, written};
    use crate::labs::wire::{State, Status, Task, TaskDetails, TaskStatus};

    pub(super) fn record(id: &str) -> Record {
        let machines = vec![MachineRecord { name: "shell-01".into(), users: vec![], no_ssh: false }];
        let task = |name: &str, status| TaskDetails {
            task: Task { name: name.into(), init: true, status, version: 3, ..Task::default() },
            machine: "shell-01".into(),
            ..TaskDetails::default()
        };
        let mut record = Record {
            id: id.into(),
            playground: "shell".into(),
            title: "mine".into(),
            created_at: now(),
            updated_at: now(),
            last_state_at: String::new(),
            started_at: 0,
            max_play_minutes: 5,
            persistent: true,
            erased_at_end: true,
            init_conditions: Default::default(),
            safety_disclaimer_consent: true,
            belongs: None,
            status: Status { machines: Record::new_machines(&machines), ..Status::default() },
            machines,
            tabs: vec![],
            networks: vec![],
            tasks: vec![task("done", TaskStatus::COMPLETED), task("begun", TaskStatus::RUNNING)],
            port_forwards: vec![PortForward {
                kind: Direction::Local,
                machine: "shell-01".into(),
                local_host: String::new(),
                local_port: 8080,
                remote_host: String::new(),
                remote_port: 80,
            }],
            ports: vec![],
        };
        record.enter(State::Running, false);
        record.enter_machine("shell-01", State::Running, true, None);
        record
    }

    const ID: &str = "0123456789abcdef01234567";

    #[test]
    fn times_sort_as_their_texts() {
        let text = |ms| written(jiff::Timestamp::from_millisecond(ms).unwrap());
        assert_eq!((text(5120), text(5125)), ("1970-01-01T00:00:05.120Z".into(), "1970-01-01T00:00:05.125Z".into()));
        assert_eq!(text(6000), "1970-01-01T00:00:06.000Z");
    }

    #[test]
    fn what_ran_comes_back_as_stopped_with_everything_else_kept() {
        let folder = tempfile::tempdir().unwrap();
        record(ID).save(folder.path()).unwrap();
        let back = load(folder.path()).unwrap().remove(0);
        assert_eq!(*back.state(), State::Stopped);
        assert_eq!((back.title.as_str(), back.persistent, back.port_forwards.len()), ("mine", true, 1));
        assert!(!back.status.machines[0].is_ready());
        let tasks: Vec<_> = back.tasks.iter().map(|task| (task.task.status, task.task.version)).collect();
        assert_eq!(tasks, [(TaskStatus::COMPLETED, 3), (TaskStatus::CREATED, 4)], "what was cut off runs again");
        assert_eq!(load(folder.path()).unwrap().remove(0).status.state_events.len(), 2, "once");
    }

    #[test]
    fn a_record_of_an_older_version_is_stopped_at_its_end() {
        let folder = tempfile::tempdir().unwrap();
        record(ID).save(folder.path()).unwrap();
        let path = super::file_of(folder.path(), ID);
        let mut old: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for key in ["erasedAtEnd", "tasks", "initConditions", "safetyDisclaimerConsent", "tabs", "networks"] {
            assert!(old.as_object_mut().unwrap().remove(key).is_some(), "{key}");
        }
        fs::write(&path, old.to_string()).unwrap();
        let back = load(folder.path()).unwrap().remove(0);
        assert!(!back.erased_at_end && back.tasks.is_empty());
    }

    #[test]
    fn a_damaged_record_is_named_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        record(ID).save(folder.path()).unwrap();
        let path = super::file_of(folder.path(), ID);
        for text in ["", "{", "[]", r#"{"id": 1}"#, &fs::read_to_string(&path).unwrap().replace(ID, "ff")] {
            fs::write(&path, text).unwrap();
            let error = load(folder.path()).unwrap_err();
            assert!(error.message().contains("play.json"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn erases_read_only_folders_and_what_an_earlier_run_left() {
        let folder = tempfile::tempdir().unwrap();
        record(ID).save(folder.path()).unwrap();
        let inside = folder.path().join(ID).join("shell-01/cache");
        fs::create_dir_all(&inside).unwrap();
        fs::write(inside.join("file"), "x").unwrap();
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o500)).unwrap();
        fs::create_dir_all(folder.path().join(".erased-ff")).unwrap();
        erase(folder.path(), ID).unwrap();
        erase(folder.path(), ID).unwrap();
        assert!(load(folder.path()).unwrap().is_empty());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn history_is_bounded() {
        let mut record = record(ID);
        for _ in 0..1000 {
            record.enter(State::Running, false);
        }
        assert_eq!(record.status.state_events.len(), super::MAX_EVENTS);
    }
}
