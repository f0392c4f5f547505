//! The platform's JSON, as it travels. Decoding is lenient: unknown fields are skipped and unknown states survive,
//! because the platform may grow faster than we do. The embedded platform serialises the same types.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
    /// Seconds until the platform stops it.
    pub expires_in: i64,
    /// Whether it outlives its stop. Not every answer says so.
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
    /// How far it is. The platform's official client treats it as a number; it is passed on as it is.
    pub status: serde_json::Value,
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
    /// That the user knows it is a stranger's.
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
pub struct Tunnel {
    /// Where to open WebSockets.
    pub url: String,
    /// Where to get the token; whoever has this URL has the tunnel.
    pub login_url: String,
}

/// A port forward that its owner wants remembered: `/plays/{id}/port-forwards`. The platform does nothing with it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct PortForward {
    /// `local`: this side listens and the machine dials; `remote`: the other way round.
    pub kind: String,
    /// The machine.
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
pub struct Session {
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
}

impl Play {
    /// Notes how far a task is. What no playground has, thousands of tasks or tasks of any size, is not kept.
    pub fn note(&mut self, task: Task) {
        const MOST: usize = 1000;
        const LONG: usize = 256;
        let is_short = match &task.status {
            serde_json::Value::String(text) => text.len() <= LONG,
            serde_json::Value::Array(_) | serde_json::Value::Object(_) => false,
            serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => true,
        };
        if is_short && task.name.len() <= LONG && (self.tasks.contains_key(&task.name) || self.tasks.len() < MOST) {
            self.tasks.insert(task.name.clone(), task);
        }
    }

    /// Its state: the last state event's. `None` for old plays without a status.
    pub fn state(&self) -> Option<&State> {
        Some(&self.status.as_ref()?.state_events.last()?.state)
    }

    /// A machine's status.
    pub fn machine_status(&self, name: &str) -> Option<&MachineStatus> {
        self.status.as_ref()?.machines.iter().find(|machine| machine.name == name)
    }

    /// How many of the tasks that prepare it are done, and how many there are; `None` when it has none.
    pub fn init_tasks(&self) -> Option<(usize, usize)> {
        /// What the official client takes for "completed".
        const COMPLETED: u64 = 40;
        let init = || self.tasks.values().filter(|task| task.init);
        let done = init().filter(|task| task.status.as_u64() == Some(COMPLETED)).count();
        Some((done, init().count())).filter(|(_, all)| *all > 0)
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
    use super::{Message, Play, State};

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
