//! The states of plays and machines, and what led to them.

use serde::{Deserialize, Serialize};

/// A play's status.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// The platform's own bookkeeping.
    pub factory_id: String,
    /// The states that the play went through; the last one is its state.
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
    /// True, or some words, after a failure.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub error: serde_json::Value,
    /// The moment at which it began, RFC 3339.
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
    /// Its conditions, `Ready` among them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A property of a machine that is or is not there.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// `Ready` is the one that counts: its sshd answers.
    pub name: String,
    /// `"True"` or `"False"`.
    pub status: String,
    /// The moment of its last change, RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_transition_at: String,
    /// The reason, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

macro_rules! states {
    ($($(#[$doc:meta])* $name:ident = $text:literal),* $(,)?) => {
        /// The state of a play or a machine.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum State {
            $($(#[$doc])* $name,)*
            /// A state that this program does not know, in the platform's word for it.
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

impl MachineStatus {
    /// True once its sshd answers.
    pub fn is_ready(&self) -> bool {
        self.conditions.iter().any(|condition| condition.name == "Ready" && condition.status == "True")
    }
}
