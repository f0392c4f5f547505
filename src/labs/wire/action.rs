//! Requests that start and change plays.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `POST /plays`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct CreatePlay {
    /// The catalogue name.
    pub playground: String,
    /// True for official playgrounds, for one's own, and after the user has consented to a stranger's: a connection
    /// that cannot ask starts no others.
    pub safety_disclaimer_consent: bool,
    /// The choices, by the keys of the entry's conditions.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub init_conditions: BTreeMap<String, String>,
    /// Machines in place of the entry's own, as a manifest has them; likewise the next three.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<Value>,
    /// Tabs of its page.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tabs: Vec<Value>,
    /// Networks of its machines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Value>,
    /// Init tasks by name.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub init_tasks: Map<String, Value>,
}

impl CreatePlay {
    /// A start of a playground as it is. The caller knows that it needs no consent, or has it.
    pub fn of(playground: &str) -> CreatePlay {
        CreatePlay { playground: playground.into(), safety_disclaimer_consent: true, ..CreatePlay::default() }
    }
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
