//! The platform's JSON, as it travels. Decoding is lenient: unknown fields are skipped and unknown states survive,
//! because the platform may grow faster than we do. The embedded platform serialises the same types.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::printable;

/// A playground session ("play").
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Play {
    /// 24 lower-case hexadecimal digits.
    pub id: String,
    /// What its owner calls it.
    pub title: String,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub updated_at: String,
    /// RFC 3339.
    pub last_state_at: String,
    /// Time until its end; zero when that has come, and when it does not run. The wire has milliseconds (the official
    /// client's `list` and `lifetime` show them so), which become a [`Duration`] here and nowhere else.
    #[serde(with = "milliseconds")]
    pub expires_in: Duration,
    /// Its whole time from its start, as Go writes durations: `8h0m0s`. See [`Play::lifetime`].
    #[serde(deserialize_with = "text_or_nothing", skip_serializing_if = "String::is_empty")]
    pub max_play_time: String,
    /// True for one that is kept (stopped) at its end; the platform destroys any other then. No single answer says so:
    /// [`crate::labs::find::all`] tells it from the list of kept ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent: Option<bool>,
    /// What is going on; old plays have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// What it was started from.
    pub playground: PlaygroundRef,
    /// Its page on the site.
    pub page_url: String,
    /// Its machines; the first is the default one.
    pub machines: Vec<Machine>,
    /// Tasks by name, among them the ones that prepare the playground.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tasks: BTreeMap<String, Task>,
    /// The tutorial it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tutorial_name: Option<String>,
    /// The challenge it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub challenge_name: Option<String>,
    /// The course it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub course_name: Option<String>,
    /// The lesson it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lesson_path: Option<String>,
}

/// The catalogue entry that a play was started from.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct PlaygroundRef {
    /// Its name in the catalogue.
    pub name: String,
    /// Its title.
    pub title: String,
    /// Its author; empty for the platform's own.
    pub owner: String,
    /// The entry's machines, where the platform tells them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<Machine>,
}

/// A play's status.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// The platform's own bookkeeping.
    pub factory_id: String,
    /// What happened to the play; the last one is its state.
    pub state_events: Vec<StateEvent>,
    /// Its machines' states.
    pub machines: Vec<MachineStatus>,
}

/// One change of a play's state.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub struct StateEvent {
    /// The state that began.
    #[serde(default)]
    pub state: State,
    /// Whether something went wrong.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub error: serde_json::Value,
    /// When, RFC 3339.
    #[serde(default)]
    pub at: String,
}

/// One machine's status.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct MachineStatus {
    /// The machine.
    pub name: String,
    /// Its state. `RUNNING` alone does not mean that its sshd answers.
    pub state: State,
    /// What is true of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Something that is or is not true of a machine.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// `Ready` is the one that counts: its sshd answers.
    pub name: String,
    /// `"True"` or `"False"`.
    pub status: String,
    /// When it became so, RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_transition_at: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

macro_rules! states {
    ($($(#[$doc:meta])* $name:ident = $text:literal),* $(,)?) => {
        /// The state of a play or a machine.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum State {
            $($(#[$doc])* $name,)*
            /// One that this program does not know, in the platform's word for it.
            Other(String),
        }

        impl State {
            /// The platform's word for it.
            pub fn as_str(&self) -> &str {
                match self {
                    $(State::$name => $text,)*
                    State::Other(text) => text,
                }
            }
        }

        impl From<String> for State {
            fn from(text: String) -> Self {
                match text.as_str() {
                    $($text => State::$name,)*
                    _ => State::Other(text),
                }
            }
        }
    };
}

states! {
    /// It exists.
    Created = "CREATED",
    /// It is being prepared.
    WarmingUp = "WARMING_UP",
    /// It is prepared.
    WarmedUp = "WARMED_UP",
    /// It is starting.
    Starting = "STARTING",
    /// It runs.
    Running = "RUNNING",
    /// A machine restarts its system.
    Rebooting = "REBOOTING",
    /// It is about to be stopped.
    Stopping = "STOPPING",
    /// It is stopped; its disks are kept.
    Stopped = "STOPPED",
    /// It is being erased.
    Destroying = "DESTROYING",
    /// It is gone.
    Destroyed = "DESTROYED",
    /// It could not be started.
    Failed = "FAILED",
}

impl Default for State {
    fn default() -> Self {
        State::Other(String::new())
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl<'de> Deserialize<'de> for State {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(State::from)
    }
}

impl Serialize for State {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A machine of a play.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct Machine {
    /// Its name, unique in the play.
    pub name: String,
    /// Who can log in; root can everywhere.
    pub users: Vec<MachineUser>,
    /// What it has: processors, memory. Passed on as it is.
    pub resources: serde_json::Value,
    /// The manifest's `noSSH`: the platform refuses tunnels to its SSH server. Usual for hidden helpers.
    #[serde(rename = "noSSH", skip_serializing_if = "std::ops::Not::not")]
    pub no_ssh: bool,
}

/// A user of a machine.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct MachineUser {
    /// The login name.
    pub name: String,
    /// Whether it is the one to take when nobody says which.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
}

/// A task of a play.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// Whether it prepares the playground.
    pub init: bool,
    /// Whether it only helps another task.
    pub helper: bool,
    /// Its progress.
    pub status: TaskStatus,
    /// Counts the task's changes.
    pub version: u64,
}

/// A task's progress: a number that only rises.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(from = "serde_json::Value")]
pub struct TaskStatus(pub u64);

impl TaskStatus {
    /// It exists.
    pub const CREATED: TaskStatus = TaskStatus(10);
    /// It waits for another task.
    pub const BLOCKED: TaskStatus = TaskStatus(20);
    /// It runs.
    pub const RUNNING: TaskStatus = TaskStatus(30);
    /// It has failed, and stays so.
    pub const FAILED: TaskStatus = TaskStatus(35);
    /// It is done.
    pub const COMPLETED: TaskStatus = TaskStatus(40);

    /// The official client's word for it.
    pub fn word(self) -> &'static str {
        match self {
            TaskStatus(0) => "none",
            TaskStatus::CREATED => "created",
            TaskStatus::BLOCKED => "blocked",
            TaskStatus::RUNNING => "running",
            TaskStatus::FAILED => "failed",
            TaskStatus::COMPLETED => "completed",
            TaskStatus(_) => "unknown",
        }
    }

    /// True for a status that changes no more.
    pub fn is_final(self) -> bool {
        matches!(self, TaskStatus::FAILED | TaskStatus::COMPLETED)
    }
}

impl From<serde_json::Value> for TaskStatus {
    /// Anything but a number is as good as none.
    fn from(value: serde_json::Value) -> Self {
        TaskStatus(value.as_u64().unwrap_or_default())
    }
}

/// A task as `GET /plays/{id}/tasks` describes it. Most of it is there for its author only.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskDetails {
    /// The part that every answer has.
    #[serde(flatten)]
    pub task: Task,
    /// The machine it runs on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub machine: String,
    /// The tasks it waits for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// Its shell command.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub run: String,
    /// The user it runs as.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// The exit code of its last run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// The standard output of that run.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stdout: String,
    /// The standard error of that run.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stderr: String,
    /// The start of that run, RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_run_at: String,
    /// The duration of that run, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_duration_ms: Option<u64>,
    /// Set where the machine was not asked, as while it boots: the row is what the platform last knew.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub control_plane_only: bool,
}

/// A catalogue entry.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct CatalogEntry {
    /// The platform's id of it.
    pub id: String,
    /// Its author; empty for the platform's own.
    pub owner: String,
    /// What it is started by.
    pub name: String,
    /// What it was derived from.
    pub base: String,
    /// Its title.
    pub title: String,
    /// What it is for.
    pub description: String,
    /// Where it stands in the catalogue.
    pub categories: Vec<String>,
    /// Its page on the site.
    pub page_url: String,
    /// Whether everybody sees it.
    pub published: bool,
    /// Its machines.
    pub machines: Vec<Machine>,
    /// What this account may do with it.
    pub user_access: UserAccess,
}

/// What an account may do with a catalogue entry.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct UserAccess {
    /// See it in lists.
    pub can_list: bool,
    /// Read it.
    pub can_read: bool,
    /// Start it.
    pub can_start: bool,
}

/// `POST /plays`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct CreatePlay {
    /// The catalogue name.
    pub playground: String,
    /// True for official playgrounds, for one's own, and after the user has consented to a stranger's: a connection that
    /// cannot ask starts no others.
    pub safety_disclaimer_consent: bool,
}

/// `POST /plays/{id}/actions`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(tag = "action")]
#[expect(missing_docs, reason = "the platform's own names")]
pub enum Action {
    #[serde(rename = "stop")]
    Stop,
    #[serde(rename = "restart")]
    Restart,
    #[serde(rename = "destroy")]
    Destroy,
    #[serde(rename = "make_persistent")]
    MakePersistent,
    #[serde(rename = "set_title")]
    SetTitle { title: String },
    #[serde(rename = "set_max_play_time")]
    SetMaxPlayTime {
        #[serde(rename = "maxPlayTimeMinutes")]
        minutes: u64,
    },
    #[serde(rename = "machine.reboot")]
    RebootMachine { machine: String },
    #[serde(rename = "machine.stop")]
    StopMachine { machine: String },
    #[serde(rename = "machine.restart")]
    RestartMachine { machine: String },
    #[serde(rename = "machine.console.list")]
    ListConsoles { machine: String },
    #[serde(rename = "machine.console.read")]
    ReadConsole { machine: String, console: String },
}

impl Action {
    /// True for an action that comes to the same when it is done twice.
    pub fn is_repeatable(&self) -> bool {
        match self {
            Action::Stop
            | Action::Destroy
            | Action::MakePersistent
            | Action::SetTitle { .. }
            | Action::SetMaxPlayTime { .. }
            | Action::ListConsoles { .. }
            | Action::ReadConsole { .. } => true,
            Action::Restart
            | Action::RebootMachine { .. }
            | Action::StopMachine { .. }
            | Action::RestartMachine { .. } => false,
        }
    }
}

/// `POST /plays/{id}/tunnels`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct StartTunnel {
    /// Empty means the first one.
    pub machine: String,
    /// Always 0: the port is named when a connection is dialled.
    pub port: u16,
    /// Always `private`.
    pub access: String,
    /// Always true.
    pub generate_login_url: bool,
    /// Whose authorized keys get the key.
    pub ssh_user: String,
    /// The key, in the form of an authorized_keys line.
    pub ssh_pub_key: String,
}

/// The answer to [`StartTunnel`].
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TunnelOffer {
    /// The address below whose `/tunnels/` WebSockets are opened.
    pub url: String,
    /// Where to get the token; whoever has this URL has the tunnel.
    pub login_url: String,
}

/// A port forward that its owner wants remembered: `/plays/{id}/port-forwards`. The platform does nothing with it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct PortForward {
    /// `remote`: the machine listens and this side dials. Anything else is `local`, the other way round.
    pub kind: String,
    /// The machine; empty for the first one.
    pub machine: String,
    /// This side's address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub local_host: String,
    /// This side's port; 0 means any.
    #[serde(skip_serializing_if = "is_zero")]
    pub local_port: u16,
    /// The address as the machine sees it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remote_host: String,
    /// The port there.
    #[serde(skip_serializing_if = "is_zero")]
    pub remote_port: u16,
}

fn is_zero(port: &u16) -> bool {
    *port == 0
}

/// An entry of `/plays/{id}/port-forwards`. Its place in the list is its index, so none is left out.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(from = "serde_json::Value", untagged)]
pub enum SavedForward {
    /// One that can be read.
    Known(PortForward),
    /// Any other, as it came.
    Odd(serde_json::Value),
}

impl From<serde_json::Value> for SavedForward {
    fn from(value: serde_json::Value) -> Self {
        match value.is_object().then(|| PortForward::deserialize(&value)) {
            Some(Ok(forward)) => SavedForward::Known(forward),
            Some(Err(_)) | None => SavedForward::Odd(value),
        }
    }
}

/// The answer to [`Action::ListConsoles`].
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct Consoles {
    /// A name for each boot.
    pub consoles: Vec<String>,
}

/// The answer to [`Action::ReadConsole`].
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct Console {
    /// Everything that the machine has written to its console in that boot.
    pub content: String,
}

/// `POST /plays/{id}/journals`; the answer is a [`Conn`].
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct ReadJournal {
    /// The machine; empty for the first one.
    pub machine: String,
    /// Only this systemd unit's lines; empty for all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// Number of past lines to begin with; zero for the platform's default.
    #[serde(skip_serializing_if = "is_zero_lines")]
    pub lines: u64,
    /// Only lines that are not older than this, as journalctl takes it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub since: String,
    /// Only lines that are not newer than this.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub until: String,
    /// Only lines after this journal cursor.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cursor: String,
}

fn is_zero_lines(lines: &u64) -> bool {
    *lines == 0
}

/// A message of a journal's stream.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct JournalChunk {
    /// Lines of the journal.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stdout: String,
    /// Complaints of journalctl.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stderr: String,
    /// Set in the last message.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub eof: bool,
}

/// A port that something on a machine listens on: `POST /plays/{id}/ports/scan`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(default)]
pub struct ScannedPort {
    /// The machine.
    pub machine: String,
    /// The port.
    pub number: u16,
    /// `HTTP`, `HTTPS`, or another.
    pub protocol: String,
}

/// The answer to `POST /plays/{id}/conns`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub struct Conn {
    /// Where live messages come from.
    pub url: String,
}

/// A live message.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Message {
    /// The play's status has changed.
    Status {
        /// The whole new status.
        status: Status,
    },
    /// A task has moved on.
    Task {
        /// Where it runs.
        #[serde(default)]
        machine: String,
        /// The task.
        task: Task,
    },
    /// Something that this program does not know.
    #[serde(other)]
    Other,
}

/// A platform session ("login").
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Login {
    /// Half of the credentials.
    pub id: String,
    /// Whose it is.
    pub user_id: String,
    /// Whether the user has confirmed it in the browser.
    pub authenticated: bool,
    /// The other half.
    pub access_token: String,
    /// Where the user confirms it.
    pub auth_url: String,
}

/// `GET /auth/me`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Me {
    /// The account's id.
    pub id: String,
    /// The account's GitHub profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub github_profile_id: Option<String>,
    /// Where its playgrounds run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferred_region: Option<String>,
    /// The plan that the account has, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub premium_access: Option<PremiumAccess>,
}

/// A paid plan.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct PremiumAccess {
    /// Its end, RFC 3339.
    #[serde(deserialize_with = "text_or_nothing", skip_serializing_if = "String::is_empty")]
    pub until: String,
    /// True for one without an end.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lifetime: bool,
    /// True for a trial.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub trial: bool,
}

/// `expiresIn`: milliseconds on the wire; what is negative is over.
mod milliseconds {
    use super::{Deserialize, Deserializer, Duration, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let whole = value.as_u64().or_else(|| value.as_f64().map(|number| number as u64));
        Ok(Duration::from_millis(whole.unwrap_or_default()))
    }
}

/// A string; anything else counts as none.
fn text_or_nothing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::String(text) => text,
        _ => String::new(),
    })
}

/// Reads a Go duration: `8h0m0s`, `1.5h`, `90m`. `None` for anything else, negative ones included.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (value, behind) = rest.split_at(number);
        let unit = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(value.parse::<f64>().ok()? * seconds).ok()?;
        total = total.checked_add(part)?;
        rest = behind;
    }
    (!text.is_empty()).then_some(total)
}

impl Play {
    /// Notes how far a task is. A bound on their number keeps a hostile platform from filling the memory.
    pub fn note(&mut self, task: Task) {
        const MOST: usize = 1000;
        const LONG: usize = 256;
        // A message may be older than an answer that came in between.
        let has_room = match self.tasks.get(&task.name) {
            Some(known) => known.version <= task.version,
            None => self.tasks.len() < MOST,
        };
        if has_room && task.name.len() <= LONG {
            self.tasks.insert(task.name.clone(), task);
        }
    }

    /// Its whole time from its start, where the platform tells it in a way that can be read.
    pub fn lifetime(&self) -> Option<Duration> {
        go_duration(&self.max_play_time)
    }

    /// Its name for people: its title, else its catalogue name, else its id.
    pub fn shown(&self) -> String {
        let names = [&self.title, &self.playground.name, &self.id];
        names.into_iter().map(|name| printable(name)).find(|name| !name.is_empty()).unwrap_or_default()
    }

    /// Its state: the last state event's. `None` for old plays without a status.
    pub fn state(&self) -> Option<&State> {
        Some(&self.status.as_ref()?.state_events.last()?.state)
    }

    /// A machine's status.
    pub fn machine_status(&self, name: &str) -> Option<&MachineStatus> {
        self.status.as_ref()?.machines.iter().find(|machine| machine.name == name)
    }

    /// The tasks that prepare it.
    pub fn init_tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values().filter(|task| task.init)
    }

    /// How many of the tasks that prepare it are done, and how many there are; `None` when it has none.
    pub fn init_progress(&self) -> Option<(usize, usize)> {
        let done = self.init_tasks().filter(|task| task.status == TaskStatus::COMPLETED).count();
        Some((done, self.init_tasks().count())).filter(|(_, all)| *all > 0)
    }

    /// True for a machine that the platform allows no SSH access to, as far as this answer tells.
    pub fn has_no_ssh(&self, machine: &str) -> bool {
        self.machines.iter().chain(&self.playground.machines).any(|one| one.name == machine && one.no_ssh)
    }

    /// Whether it belongs to a tutorial, a challenge or a course, and so is no candidate for a catalogue name.
    pub fn belongs_to_a_lesson(&self) -> bool {
        [&self.tutorial_name, &self.challenge_name, &self.course_name, &self.lesson_path]
            .into_iter()
            .any(|name| name.as_deref().is_some_and(|name| !name.is_empty()))
    }
}

impl MachineStatus {
    /// Whether its sshd answers.
    pub fn is_ready(&self) -> bool {
        self.conditions.iter().any(|condition| condition.name == "Ready" && condition.status == "True")
    }
}

impl Machine {
    /// Who to be on it when nobody says: the user marked as default, else root.
    pub fn default_user(&self) -> &str {
        self.users.iter().find(|user| user.default).map_or("root", |user| &user.name)
    }

    /// Whether somebody of that name can log in. Root exists everywhere.
    pub fn has_user(&self, name: &str) -> bool {
        name == "root" || self.users.iter().any(|user| user.name == name)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Message, Play, SavedForward, State, TaskStatus, go_duration};

    #[test]
    fn what_is_left_is_in_milliseconds() {
        let left =
            |value: &str| serde_json::from_str::<Play>(&format!(r#"{{"expiresIn":{value}}}"#)).unwrap().expires_in;
        assert_eq!(left("28530000"), Duration::from_secs(7 * 3600 + 55 * 60 + 30));
        assert_eq!(left("1500.9"), Duration::from_millis(1500));
        for over in ["0", "-1", "-28530000", "-0.5", "null", "\"soon\""] {
            assert_eq!(left(over), Duration::ZERO, "{over}");
        }
        let play = Play { expires_in: Duration::from_secs(2), ..Play::default() };
        assert_eq!(serde_json::to_value(play).unwrap()["expiresIn"], 2000);
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, seconds) in
            [("8h0m0s", 28800.0), ("90m", 5400.0), ("1.5h", 5400.0), ("1m30.5s", 90.5), ("500ms", 0.5), ("0s", 0.0)]
        {
            assert_eq!(go_duration(text).map(|time| time.as_secs_f64()), Some(seconds), "{text}");
        }
        for text in ["", "8", "-1h", "eight hours", "1d", "h", ".h", "1e400h", "99999999999999999999h", "1.1.1s"] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_task_has_a_status_in_words() {
        let status = |value: &str| serde_json::from_str::<TaskStatus>(value).unwrap();
        assert_eq!((status("40"), status("35").word()), (TaskStatus::COMPLETED, "failed"));
        assert_eq!((status("null").word(), status("{}").word(), status("41").word()), ("none", "none", "unknown"));
    }

    #[test]
    fn an_odd_forward_keeps_its_place() {
        let all: Vec<SavedForward> = serde_json::from_str(
            r#"[{"kind":"","remotePort":80},{"localPort":70000},"x",{"kind":"remote","localPort":80}]"#,
        )
        .unwrap();
        let known: Vec<bool> = all.iter().map(|one| matches!(one, SavedForward::Known(_))).collect();
        assert_eq!(known, [true, false, false, true]);
    }

    #[test]
    fn a_playground_without_a_title_has_a_name() {
        let mut play = Play { id: "0".repeat(24), ..Play::default() };
        assert_eq!(play.shown(), "0".repeat(24));
        play.playground.name = "docker".into();
        assert_eq!(play.shown(), "docker");
        play.title = " Mine\n".into();
        assert_eq!(play.shown(), "Mine");
    }

    #[test]
    fn decodes_leniently() {
        let play: Play = serde_json::from_str(
            r#"{"id":"0123456789abcdef01234567","new":{"field":1},"maxPlayTime":{"a":1},
                "status":{"stateEvents":[{"state":"RUNNING","at":"x","error":false},{"state":"NAPPING"}],
                          "machines":[{"name":"m","state":"RUNNING","conditions":[{"name":"Ready","status":"True"}]}]}}"#,
        )
        .unwrap();
        assert_eq!(play.state(), Some(&State::Other("NAPPING".into())));
        assert!(play.machine_status("m").unwrap().is_ready());
        assert_eq!(serde_json::from_str::<Play>("{}").unwrap().state(), None);
        assert_eq!(serde_json::from_str::<Message>(r#"{"kind":"news","x":1}"#).unwrap(), Message::Other);
    }

    #[test]
    fn null_is_as_good_as_missing_where_go_encodes_empty_lists() {
        let play: Play = serde_json::from_str(r#"{"id":"a","status":null}"#).unwrap();
        assert_eq!(play.status, None);
    }
}
