//! Requests that start and change plays.

use serde::{Deserialize, Serialize};

/// `POST /plays`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct CreatePlay {
    /// The catalogue name.
    pub playground: String,
    /// True for official playgrounds, for one's own, and after the user has consented to a stranger's: a connection
    /// that cannot ask starts no others.
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
