//! The playgrounds that can be started on the embedded platform.

use std::str::FromStr;

use serde_json::{Value, json};

use crate::labs::wire::{CatalogEntry, InitCondition, InitConditions, Machine, MachineUser, UserAccess};

use super::blueprint::{Blueprint, Choice, MachinePlan, TaskPlan};

/// A catalogue entry.
pub(super) struct Entry {
    /// The name by which it is started.
    pub name: &'static str,
    title: &'static str,
    description: &'static str,
    /// Its machines; the first is the default one.
    pub machines: &'static [MachineEntry],
    tasks: &'static [TaskEntry],
    conditions: &'static [ConditionEntry],
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
    /// The choice with which it exists.
    only_with: Option<(&'static str, &'static str)>,
}

/// A choice of the start of a catalogue entry.
struct ConditionEntry {
    key: &'static str,
    default: &'static str,
    nullable: bool,
    options: &'static [&'static str],
    placeholder: &'static str,
    pattern: &'static str,
}

const fn task(
    name: &'static str,
    machine: &'static str,
    needs: &'static [&'static str],
    run: &'static str,
) -> TaskEntry {
    TaskEntry { name, machine, needs, run, only_with: None }
}

const fn runtime_task(name: &'static str, runtime: &'static str, run: &'static str) -> TaskEntry {
    TaskEntry { only_with: Some((RUNTIME, runtime)), ..task(name, "work-01", &["inspect"], run) }
}

const fn machine_entry(name: &'static str) -> MachineEntry {
    MachineEntry { name, no_ssh: false }
}

/// Prints the parts of a machine, and changes nothing there.
const INSPECT: &str = "uname -sr && cd && pwd && df -P . | tail -n 1";

/// The whole catalogue.
pub(super) const CATALOG: [Entry; 6] = [
    Entry {
        name: "shell",
        title: "A shell",
        description: "One machine on this computer: your shell, in a home folder of its own.",
        machines: &[machine_entry("shell-01")],
        tasks: &[task("inspect", "shell-01", &[], INSPECT)],
        conditions: &[],
    },
    Entry {
        name: "duo",
        title: "Two machines",
        description: "Two machines on this computer, for everything that needs more than one.",
        machines: &[machine_entry("node-01"), machine_entry("node-02")],
        tasks: &[task("inspect_01", "node-01", &[], INSPECT), task("inspect_02", "node-02", &["inspect_01"], INSPECT)],
        conditions: &[],
    },
    Entry {
        name: "alpine",
        title: "Alpine, in name only",
        description: "A shell on this computer, with this computer's system, under the name that `labctl expose local` \
                      looks for.",
        machines: &[machine_entry("alpine-01")],
        tasks: &[task("inspect", "alpine-01", &[], INSPECT)],
        conditions: &[],
    },
    Entry {
        name: "broken",
        title: "Init tasks that fail",
        description: "One machine on this computer. Of its init tasks, one completes, one fails, and one waits for the \
                      failed one, so that it is never initialised.",
        machines: &[machine_entry("broken-01")],
        tasks: &[
            task("inspect", "broken-01", &[], INSPECT),
            task(
                "fetch",
                "broken-01",
                &["inspect"],
                "echo 'fetching what does not exist'; echo 'there is nothing to fetch: this task always fails' >&2; exit 3",
            ),
            task("unpack", "broken-01", &["fetch"], "true"),
        ],
        conditions: &[],
    },
    Entry {
        name: "verified",
        title: "A machine and its verifier",
        description: "A machine on this computer to work on, and a hidden helper machine without SSH access.",
        machines: &[machine_entry("work-01"), MachineEntry { name: "verifier", no_ssh: true }],
        tasks: &[task("inspect", "work-01", &[], INSPECT), task("inspect_verifier", "verifier", &[], INSPECT)],
        conditions: &[],
    },
    Entry {
        name: "choices",
        title: "A start with choices",
        description: "One machine on this computer. A start chooses what its init tasks prepare, and must name a team.",
        machines: &[machine_entry("work-01")],
        tasks: &[
            task("inspect", "work-01", &[], INSPECT),
            runtime_task("containerd", "containerd", "echo containerd >runtime"),
            runtime_task("docker", "docker", "echo docker >runtime"),
            runtime_task("cri_o", "CRI-O", "echo cri-o >runtime"),
            task("welcome", "work-01", &["containerd", "docker", "cri_o"], "echo \"This machine has $(cat runtime).\""),
        ],
        conditions: &[
            ConditionEntry {
                key: RUNTIME,
                default: "containerd",
                nullable: false,
                options: &["containerd", "docker", "CRI-O"],
                placeholder: "",
                pattern: "",
            },
            ConditionEntry {
                key: "Team",
                default: "",
                nullable: false,
                options: &[],
                placeholder: "blue",
                pattern: "^[a-z][a-z0-9-]{1,19}$",
            },
            ConditionEntry {
                key: "Note",
                default: "",
                nullable: true,
                options: &[],
                placeholder: "a line about this playground",
                pattern: "^.{1,80}$",
            },
        ],
    },
];

/// The key of the choice between container runtimes.
const RUNTIME: &str = "Container runtime";

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

/// A machine as the API shows it.
pub(super) fn machine(name: &str, users: Vec<MachineUser>, no_ssh: bool) -> Machine {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Machine { name: name.into(), users, resources: json!({ "cpuCount": processors }), no_ssh }
}

impl Entry {
    /// The makings of a playground of it.
    pub(super) fn blueprint(&self) -> Blueprint {
        let words = |all: &[&str]| all.iter().map(|word| (*word).to_owned()).collect();
        let machine =
            |m: &MachineEntry| MachinePlan { name: m.name.into(), no_ssh: m.no_ssh, ..MachinePlan::default() };
        let task = |t: &TaskEntry| TaskPlan {
            name: t.name.into(),
            machine: t.machine.into(),
            init: true,
            user: super::machine::default_user().name,
            needs: words(t.needs),
            run: t.run.into(),
            conditions: t
                .only_with
                .iter()
                .map(|(key, value)| Choice { key: (*key).into(), value: (*value).into() })
                .collect(),
            ..TaskPlan::default()
        };
        let condition = |c: &ConditionEntry| InitCondition {
            key: c.key.into(),
            default: c.default.into(),
            nullable: c.nullable,
            options: words(c.options),
            placeholder: c.placeholder.into(),
            validation_regex: c.pattern.into(),
        };
        Blueprint {
            machines: self.machines.iter().map(machine).collect(),
            init_tasks: self.tasks.iter().map(task).collect(),
            init_conditions: InitConditions { values: self.conditions.iter().map(condition).collect() },
            ..Blueprint::default()
        }
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
            user_access: UserAccess { can_list: true, can_read: true, can_start: true },
            ..CatalogEntry::default()
        };
        let (mut value, blueprint) = (json!(entry), self.blueprint());
        value["cover"] = json!("");
        value["accessControl"] = json!({ "canList": [], "canRead": [], "canStart": [] });
        if let (Some(members), Value::Object(manifest)) = (value.as_object_mut(), json!(blueprint)) {
            members.extend(manifest);
        }
        value["machines"] = json!(blueprint.shown_machines());
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
            entry.blueprint().check().unwrap();
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
