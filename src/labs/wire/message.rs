//! Live messages of a play.

use serde::{Deserialize, Serialize};

use super::{state::Status, task::Task};

/// The answer to `POST /plays/{id}/conns`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub struct Conn {
    /// The address of the WebSocket that sends live messages.
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
        /// The machine on which it runs.
        #[serde(default)]
        machine: String,
        /// The task.
        task: Task,
    },
    /// A kind of message that this program does not know.
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use super::Message;

    #[test]
    fn an_unknown_kind_is_no_error() {
        assert_eq!(serde_json::from_str::<Message>(r#"{"kind":"news","x":1}"#).unwrap(), Message::Other);
    }
}
