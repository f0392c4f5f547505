//! The playgrounds that can be started on the embedded platform.

use std::{collections::BTreeMap, str::FromStr};

use serde_json::{Value, json};

use crate::labs::wire::{CatalogEntry, Machine, MachineUser, PlaygroundRef, Task, TaskDetails, TaskStatus, UserAccess};

/// A catalogue entry.
pub(super) struct Entry {
    /// The name by which it is started.
    pub name: &'static str,
    title: &'static str,
    description: &'static str,
    /// Its machines; the first is the default one.
    pub machines: &'static [MachineEntry],
    tasks: &'static [TaskEntry],
}

/// A machine of a catalogue entry.
pub(super) struct MachineEntry {
    /// Its name.
    pub name: &'static str,
    /// The manifest's `noSSH`: the platform allows no SSH access.
    pub no_ssh: bool,
}

/// An init task of a catalogue entry.
struct TaskEntry {
    name: &'static str,
    machine: &'static str,
    needs: &'static [&'static str],
    run: &'static str,
}

const fn machine_entry(name: &'static str) -> MachineEntry {
    MachineEntry { name, no_ssh: false }
}

/// Prints the parts of a machine, and changes nothing there.
const INSPECT: &str = "uname -sr && cd && pwd && df -P . | tail -n 1";

/// The whole catalogue.
pub(super) const CATALOG: [Entry; 5] = [
    Entry {
        name: "shell",
        title: "A shell",
        description: "One machine on this computer: your shell, in a home folder of its own.",
        machines: &[machine_entry("shell-01")],
        tasks: &[TaskEntry { name: "inspect", machine: "shell-01", needs: &[], run: INSPECT }],
    },
    Entry {
        name: "duo",
        title: "Two machines",
        description: "Two machines on this computer, for everything that needs more than one.",
        machines: &[machine_entry("node-01"), machine_entry("node-02")],
        tasks: &[
            TaskEntry { name: "inspect_01", machine: "node-01", needs: &[], run: INSPECT },
            TaskEntry { name: "inspect_02", machine: "node-02", needs: &["inspect_01"], run: INSPECT },
        ],
    },
    Entry {
        name: "alpine",
        title: "Alpine, in name only",
        description: "A shell on this computer, with this computer's system, under the name that `labctl expose local` \
                      looks for.",
        machines: &[machine_entry("alpine-01")],
        tasks: &[TaskEntry { name: "inspect", machine: "alpine-01", needs: &[], run: INSPECT }],
    },
    Entry {
        name: "broken",
        title: "Init tasks that fail",
        description: "One machine on this computer. Of its init tasks, one completes, one fails, and one waits for the \
                      failed one, so that it is never initialised.",
        machines: &[machine_entry("broken-01")],
        tasks: &[
            TaskEntry { name: "inspect", machine: "broken-01", needs: &[], run: INSPECT },
            TaskEntry {
                name: "fetch",
                machine: "broken-01",
                needs: &["inspect"],
                run: "echo 'fetching what does not exist'; echo 'there is nothing to fetch: this task always fails' >&2; exit 3",
            },
            TaskEntry { name: "unpack", machine: "broken-01", needs: &["fetch"], run: "true" },
        ],
    },
    Entry {
        name: "verified",
        title: "A machine and its verifier",
        description: "A machine on this computer to work on, and a hidden helper machine without SSH access.",
        machines: &[machine_entry("work-01"), MachineEntry { name: "verifier", no_ssh: true }],
        tasks: &[
            TaskEntry { name: "inspect", machine: "work-01", needs: &[], run: INSPECT },
            TaskEntry { name: "inspect_verifier", machine: "verifier", needs: &[], run: INSPECT },
        ],
    },
];

/// An init task that every playground gets besides those of its catalogue entry: `local serve --init-task`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitTask {
    /// Its name: letters, digits, `-` and `_`.
    pub name: String,
    /// Its command, for `sh -c`.
    pub run: String,
}

impl FromStr for InitTask {
    type Err = String;

    fn from_str(text: &str) -> Result<InitTask, String> {
        let (name, run) = text.split_once('=').ok_or("write NAME=COMMAND, such as wait='sleep 10'")?;
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name.is_empty() || !name.chars().all(fits) {
            return Err(format!("a task's name can have only letters, digits, - and _, unlike {name:?}"));
        }
        if CATALOG.iter().flat_map(|entry| entry.tasks).any(|task| task.name == name) {
            return Err(format!("the catalogue already has a task called {name}"));
        }
        if run.trim().is_empty() {
            return Err(format!("task {name} has no command"));
        }
        Ok(InitTask { name: name.into(), run: run.into() })
    }
}

/// The entry of that name.
pub(super) fn find(name: &str) -> Option<&'static Entry> {
    CATALOG.iter().find(|entry| entry.name == name)
}

/// The reference of a play to its catalogue entry. An entry that this version no longer has still has its name.
pub(super) fn reference(name: &str) -> PlaygroundRef {
    let entry = find(name);
    PlaygroundRef {
        name: name.into(),
        title: entry.map_or(name, |entry| entry.title).into(),
        machines: entry.map(Entry::shown_machines).unwrap_or_default(),
        ..PlaygroundRef::default()
    }
}

/// A machine as the API shows it.
pub(super) fn machine(name: &str, users: Vec<MachineUser>, no_ssh: bool) -> Machine {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Machine { name: name.into(), users, resources: json!({ "cpuCount": processors }), no_ssh }
}

impl Entry {
    fn shown_machines(&self) -> Vec<Machine> {
        let users = vec![super::machine::default_user()];
        self.machines.iter().map(|one| machine(one.name, users.clone(), one.no_ssh)).collect()
    }

    /// The init tasks of a new play: the entry's own, then `more` on the first machine.
    pub(super) fn new_tasks(&self, more: &[InitTask]) -> Vec<TaskDetails> {
        let user = super::machine::default_user().name;
        let task = |name: &str, machine: &str, needs: &[&str], run: &str| TaskDetails {
            task: Task { name: name.into(), init: true, helper: false, status: TaskStatus::CREATED, version: 1 },
            machine: machine.into(),
            needs: needs.iter().map(|need| (*need).into()).collect(),
            run: run.into(),
            user: user.clone(),
            ..TaskDetails::default()
        };
        let first = self.machines.first().map_or("", |machine| machine.name);
        let own = self.tasks.iter().map(|own| task(own.name, own.machine, own.needs, own.run));
        own.chain(more.iter().map(|one| task(&one.name, first, &[], &one.run))).collect()
    }

    /// The entry as the API shows it; `base` is the platform's address.
    pub(super) fn shown(&self, base: &str) -> Value {
        let entry = CatalogEntry {
            id: self.name.into(),
            name: self.name.into(),
            title: self.title.into(),
            description: self.description.into(),
            categories: vec!["linux".into()],
            page_url: format!("{base}/playgrounds/{}", self.name),
            published: true,
            machines: self.shown_machines(),
            user_access: UserAccess { can_list: true, can_read: true, can_start: true },
            ..CatalogEntry::default()
        };
        let manifest = |task: TaskDetails| {
            let shown = json!({ "name": task.task.name, "machine": task.machine, "init": true, "user": task.user,
                                "needs": task.needs, "run": task.run });
            (task.task.name, shown)
        };
        let mut value = json!(entry);
        value["cover"] = json!("");
        value["networks"] = json!([]);
        value["tabs"] = json!([]);
        value["initTasks"] = json!(self.new_tasks(&[]).into_iter().map(manifest).collect::<BTreeMap<_, _>>());
        value["initConditions"] = json!({ "values": [] });
        value["accessControl"] = json!({ "canList": [], "canRead": [], "canStart": [] });
        value
    }
}

#[cfg(test)]
mod tests {
    use super::{CATALOG, InitTask};

    #[test]
    fn tasks_are_on_machines_that_exist_and_need_tasks_that_exist() {
        for entry in CATALOG {
            assert!(!entry.tasks.is_empty(), "{}", entry.name);
            for task in entry.tasks {
                assert!(entry.machines.iter().any(|machine| machine.name == task.machine), "{}", task.name);
                for need in task.needs {
                    assert!(entry.tasks.iter().any(|other| other.name == *need), "{need}");
                }
            }
        }
    }

    #[test]
    fn a_task_of_the_command_line_has_a_name_and_a_command() {
        let parse = str::parse::<InitTask>;
        let task = parse("cluster=a=b sleep 1").unwrap();
        assert_eq!((task.name.as_str(), task.run.as_str()), ("cluster", "a=b sleep 1"));
        for wrong in ["", "cluster", "=x", "a b=x", "a=", "a= ", "inspect=x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
