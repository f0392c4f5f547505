//! The words of machines: their consoles and journals.

use serde::{Deserialize, Serialize};

/// The answer to [`Action::ListConsoles`](crate::labs::wire::Action::ListConsoles).
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct Consoles {
    /// A name for each boot.
    pub consoles: Vec<String>,
}

/// The answer to [`Action::ReadConsole`](crate::labs::wire::Action::ReadConsole).
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct Console {
    /// Everything that the machine has written to its console in that boot.
    pub content: String,
}

/// `POST /plays/{id}/journals`; the answer is a [`Conn`](crate::labs::wire::Conn).
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

fn is_success(exit_code: &i64) -> bool {
    *exit_code == 0
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
    /// The exit code of journalctl, with the last message.
    #[serde(skip_serializing_if = "is_success")]
    pub exit_code: i64,
    /// Set in the last message.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub eof: bool,
}
