//! The tasks of a play.

use serde::{Deserialize, Serialize};

/// A task of a play.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// True for an init task: one that prepares the playground.
    pub init: bool,
    /// True for a task that only helps another one.
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

/// A task as `GET /plays/{id}/tasks` describes it. Only its author sees most of it.
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
    /// A command that fails the task for good when it fails.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub failcheck: String,
    /// Set where the machine was not asked, as while it boots: the row is what the platform last knew.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub control_plane_only: bool,
}

#[cfg(test)]
mod tests {
    use super::TaskStatus;

    #[test]
    fn a_task_has_a_status_in_words() {
        let status = |value: &str| serde_json::from_str::<TaskStatus>(value).unwrap();
        assert_eq!((status("40"), status("35").word()), (TaskStatus::COMPLETED, "failed"));
        assert_eq!((status("null").word(), status("{}").word(), status("41").word()), ("none", "none", "unknown"));
    }
}
