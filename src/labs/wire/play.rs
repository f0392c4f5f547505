//! Plays and their machines.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    learning::Named,
    state::{MachineStatus, State, Status},
    task::{Task, TaskStatus},
    units::{go_duration, milliseconds, text_or_nothing},
};
use crate::error::printable;

/// A playground session ("play").
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Play {
    /// 24 lower-case hexadecimal digits.
    pub id: String,
    /// The name that its owner gave it.
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
    /// Its states and those of its machines; old plays have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// The catalogue entry that it was started from.
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
    /// The tutorial's name and title.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tutorial: Option<Named>,
    /// The challenge's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub challenge: Option<Named>,
    /// The course's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub course: Option<Named>,
    /// The lesson's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lesson: Option<Named>,
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

/// A machine of a play.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct Machine {
    /// Its name, unique in the play.
    pub name: String,
    /// The users that can log in; root can on every machine.
    pub users: Vec<MachineUser>,
    /// Its processors and its memory, passed on as they came.
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
    /// True for the user to log in as when no other is named.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
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

    /// The time since which a machine has been up, in the platform's words: another one after a restart.
    pub fn up_since(&self, machine: &str) -> Option<&str> {
        let ready = self.machine_status(machine)?.conditions.iter().find(|condition| condition.name == "Ready")?;
        (ready.status == "True" && !ready.last_transition_at.is_empty()).then_some(ready.last_transition_at.as_str())
    }

    /// The tasks that prepare it.
    pub fn init_tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values().filter(|task| task.init)
    }

    /// The number of init tasks that are done, and of all; `None` for a play without any.
    pub fn init_progress(&self) -> Option<(usize, usize)> {
        let done = self.init_tasks().filter(|task| task.status == TaskStatus::COMPLETED).count();
        Some((done, self.init_tasks().count())).filter(|(_, all)| *all > 0)
    }

    /// True for a machine that the platform allows no SSH access to, as far as this answer tells.
    pub fn has_no_ssh(&self, machine: &str) -> bool {
        self.machines.iter().chain(&self.playground.machines).any(|one| one.name == machine && one.no_ssh)
    }

    /// True for a play of a tutorial, a challenge or a course, which is no candidate for a catalogue name.
    pub fn belongs_to_a_lesson(&self) -> bool {
        self.learning().is_some()
    }
}

impl Machine {
    /// The user to log in as when no other is named: the one marked as default, else root.
    pub fn default_user(&self) -> &str {
        self.users.iter().find(|user| user.default).map_or("root", |user| &user.name)
    }

    /// True for the name of a user that can log in. Root exists on every machine.
    pub fn has_user(&self, name: &str) -> bool {
        name == "root" || self.users.iter().any(|user| user.name == name)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Play;
    use crate::labs::wire::state::State;

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
    }

    #[test]
    fn null_is_as_good_as_missing_where_go_encodes_empty_lists() {
        let play: Play = serde_json::from_str(r#"{"id":"a","status":null}"#).unwrap();
        assert_eq!(play.status, None);
    }
}
