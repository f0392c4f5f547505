//! The blueprint of a playground: its machines, its init tasks and the choices of its start. The catalogue has some,
//! clients send their own, and a start may change one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    labs::wire::{InitConditions, MachineUser, Misfit, Task, TaskDetails, TaskStatus},
    target::is_label,
    ui::nearest::did_you_mean,
};

use super::{
    catalog::InitTask,
    machine,
    record::PortForward,
    refusal::{Answer, Refusal},
};

/// The largest number of machines of a playground.
const MAX_MACHINES: usize = 5;
/// The largest number of init tasks of a playground.
const MAX_TASKS: usize = 100;

/// A playground as a manifest describes it. What has no meaning on this computer, such as drives, is kept as it came.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Blueprint {
    pub networks: Vec<Value>,
    pub machines: Vec<MachinePlan>,
    pub tabs: Vec<Value>,
    #[serde(with = "by_name")]
    pub init_tasks: Vec<TaskPlan>,
    pub init_conditions: InitConditions,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub port_forwards: Vec<PortForward>,
}

/// A machine of a blueprint.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct MachinePlan {
    pub name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<MachineUser>,
    #[serde(rename = "noSSH", skip_serializing_if = "std::ops::Not::not")]
    pub no_ssh: bool,
    /// Its drives, its kernel and the like.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// An init task of a blueprint.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct TaskPlan {
    pub name: String,
    /// Empty for the first machine.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub machine: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub init: bool,
    pub user: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    pub run: String,
    /// The choices with which it exists: all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Choice>,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A key and the value that is chosen for it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Choice {
    pub key: String,
    pub value: String,
}

/// The choices of a start, by key.
pub(super) type Choices = BTreeMap<String, String>;

/// Tasks as the API has them: an object, by name.
mod by_name {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::TaskPlan;

    pub(super) fn serialize<S: Serializer>(tasks: &[TaskPlan], serializer: S) -> Result<S::Ok, S::Error> {
        tasks.iter().map(|task| (&task.name, task)).collect::<BTreeMap<_, _>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<TaskPlan>, D::Error> {
        let tasks = BTreeMap::<String, TaskPlan>::deserialize(deserializer)?;
        Ok(tasks.into_iter().map(|(name, task)| TaskPlan { name, ..task }).collect())
    }
}

impl Blueprint {
    /// Takes over what a start brings along. Init tasks for machines that it leaves out are left out, too, unless it
    /// brings the tasks as well.
    pub(super) fn changed(mut self, start: Blueprint) -> Blueprint {
        if !start.machines.is_empty() {
            self.machines = start.machines;
        }
        if !start.networks.is_empty() {
            self.networks = start.networks;
        }
        if !start.tabs.is_empty() {
            self.tabs = start.tabs;
        }
        match start.init_tasks.is_empty() {
            true => {
                let is_there = |name: &str| self.machines.iter().any(|machine| machine.name == name);
                self.init_tasks.retain(|task| task.machine.is_empty() || is_there(&task.machine));
            }
            false => self.init_tasks = start.init_tasks,
        }
        self
    }

    /// Checks that a playground can be made of it.
    ///
    /// # Errors
    /// 400 with the fault, and 501 with the part that machines here cannot have.
    pub(super) fn check(&self) -> Answer<()> {
        let wrong = |words: String| Err(Refusal::bad_request(words));
        if self.machines.is_empty() || self.machines.len() > MAX_MACHINES {
            return wrong(format!("a playground has 1 to {MAX_MACHINES} machines, and not {}", self.machines.len()));
        }
        for (index, MachinePlan { name, users, rest, .. }) in self.machines.iter().enumerate() {
            if !is_label(name) {
                return wrong(format!("{name:?} cannot be a machine's name: letters, digits, - and _ can"));
            }
            if self.machines[..index].iter().any(|other| other.name == *name) {
                return wrong(format!("two machines are called {name}"));
            }
            if let Some(user) = users.iter().find(|user| !is_label(&user.name)) {
                return wrong(format!("{:?} cannot be a user's name: letters, digits, - and _ can", user.name));
            }
            if rest.get("startupFiles").is_some_and(|files| files.as_array().is_none_or(|files| !files.is_empty())) {
                let words = format!(
                    "machine {name} has startupFiles, which would be files of this computer: write them by an init task"
                );
                return Err(Refusal::not_here(words));
            }
        }
        if self.init_tasks.len() > MAX_TASKS {
            return wrong(format!("a playground has at most {MAX_TASKS} init tasks"));
        }
        for TaskPlan { name, machine, needs, conditions, run, .. } in &self.init_tasks {
            if !machine.is_empty() && !self.machines.iter().any(|known| known.name == *machine) {
                return wrong(format!("init task {name} is for machine {machine}, which the playground does not have"));
            }
            if run.trim().is_empty() {
                return wrong(format!("init task {name} has no command (run)"));
            }
            if let Some(need) = needs.iter().find(|need| !self.init_tasks.iter().any(|task| task.name == **need)) {
                return wrong(format!("init task {name} needs {need}, which does not exist"));
            }
            let known = |choice: &&Choice| !self.init_conditions.values.iter().any(|value| value.key == choice.key);
            if let Some(Choice { key, .. }) = conditions.iter().find(known) {
                return wrong(format!("init task {name} has a condition for {key:?}, which is no init condition"));
            }
        }
        for value in &self.init_conditions.values {
            let (key, pattern) = (&value.key, &value.validation_regex);
            if key.is_empty() {
                return wrong("an init condition has no key".into());
            }
            if let Err(e) = regex_lite::Regex::new(pattern) {
                return wrong(format!("the validationRegex of init condition {key:?} cannot be read: {e}"));
            }
            if !value.default.is_empty() && value.check(&value.default).is_err() {
                return wrong(format!("the default {:?} of init condition {key:?} is no value of it", value.default));
            }
        }
        Ok(())
    }

    /// The choices of a start: those that were made, and the defaults of the others.
    ///
    /// # Errors
    /// 400 for a choice that there is not, for a value that does not fit, and for a value that is missing.
    pub(super) fn choose(&self, playground: &str, mut made: Choices) -> Answer<Choices> {
        let all = &self.init_conditions.values;
        if let Some(key) = made.keys().find(|key| !all.iter().any(|value| value.key == **key)) {
            let keys: Vec<&str> = all.iter().map(|value| value.key.as_str()).collect();
            let there = match keys[..] {
                [] => "it has none at all".to_owned(),
                _ => format!("{}it has {}", did_you_mean(key, keys.iter().copied()), keys.join(", ")),
            };
            return Err(Refusal::bad_request(format!(
                "playground {playground} has no init condition {key:?}: {there}"
            )));
        }
        let mut choices = Choices::new();
        for value in all {
            let key = &value.key;
            let chosen = made.remove(key).filter(|text| !text.is_empty()).unwrap_or_else(|| value.default.clone());
            let words = match value.check(&chosen) {
                Ok(()) if chosen.is_empty() => continue,
                Ok(()) => {
                    choices.insert(key.clone(), chosen);
                    continue;
                }
                Err(Misfit::Missing) => format!("playground {playground} needs a value for init condition {key:?}"),
                Err(Misfit::NotAmong(options)) => {
                    format!("{chosen:?} is no value of init condition {key:?}: there are {}", options.join(", "))
                }
                Err(Misfit::Unlike(pattern)) => {
                    format!("{chosen:?} is no value of init condition {key:?}: it must match {pattern}")
                }
            };
            return Err(Refusal::bad_request(words));
        }
        Ok(choices)
    }

    /// The tasks of a new play: those of the blueprint that the choices let exist, then `more` on the first machine.
    pub(super) fn new_tasks(&self, choices: &Choices, more: &[InitTask]) -> Vec<TaskDetails> {
        let user = machine::default_user().name;
        let first = self.machines.first().map_or("", |machine| &machine.name);
        let holds = |choice: &Choice| choices.get(&choice.key).map_or("", String::as_str) == choice.value;
        let own: Vec<&TaskPlan> = self.init_tasks.iter().filter(|task| task.conditions.iter().all(holds)).collect();
        // A task that does not exist is not waited for.
        let exists = |need: &&String| own.iter().any(|task| task.name == **need);
        let details = |name: &str, init: bool, machine: &str, run: &str| TaskDetails {
            task: Task { name: name.into(), init, helper: false, status: TaskStatus::CREATED, version: 1 },
            machine: if machine.is_empty() { first.into() } else { machine.into() },
            run: run.into(),
            user: user.clone(),
            ..TaskDetails::default()
        };
        let planned = own.iter().map(|task| TaskDetails {
            needs: task.needs.iter().filter(exists).cloned().collect(),
            ..details(&task.name, task.init, &task.machine, &task.run)
        });
        planned.chain(more.iter().map(|one| details(&one.name, true, "", &one.run))).collect()
    }

    /// The machines as the API shows them.
    pub(super) fn shown_machines(&self) -> Vec<Value> {
        let shown = |plan: &MachinePlan| {
            let mut value = json!(plan);
            if plan.users.is_empty() {
                value["users"] = json!([machine::default_user()]);
            }
            if !plan.rest.contains_key("resources") {
                let processors = std::thread::available_parallelism().map_or(1, usize::from);
                value["resources"] = json!({ "cpuCount": processors });
            }
            value
        };
        self.machines.iter().map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Blueprint, Choices};

    fn blueprint() -> Blueprint {
        serde_json::from_value(json!({
            "machines": [{ "name": "a", "kernel": { "source": "x" } }, { "name": "b", "noSSH": true }],
            "initTasks": {
                "docker": { "run": "true", "init": true, "conditions": [{ "key": "Runtime", "value": "docker" }] },
                "none": { "run": "true", "init": true, "conditions": [{ "key": "Team", "value": "" }] },
                "last": { "run": "true", "init": true, "needs": ["docker", "none"], "machine": "b" }
            },
            "initConditions": { "values": [
                { "key": "Runtime", "default": "containerd", "options": ["containerd", "docker"] },
                { "key": "Team", "nullable": true, "validationRegex": "^[a-z]+$" }
            ] }
        }))
        .unwrap()
    }

    fn choices(pairs: &[(&str, &str)]) -> Choices {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_task_exists_only_with_the_choices_that_it_names() {
        let blueprint = blueprint();
        blueprint.check().unwrap();
        let tasks = |pairs: &[(&str, &str)]| {
            let chosen = blueprint.choose("x", choices(pairs)).unwrap();
            let tasks = blueprint.new_tasks(&chosen, &[]);
            tasks.into_iter().map(|task| (task.task.name, task.machine, task.needs.join(" "))).collect::<Vec<_>>()
        };
        let row = |name: &str, machine: &str, needs: &str| (name.to_owned(), machine.to_owned(), needs.to_owned());
        assert_eq!(tasks(&[]), [row("last", "b", "none"), row("none", "a", "")]);
        assert_eq!(
            tasks(&[("Runtime", "docker"), ("Team", "red")]),
            [row("docker", "a", ""), row("last", "b", "docker")]
        );
    }

    #[test]
    fn a_choice_that_does_not_fit_is_refused_in_words() {
        let refused = |pairs: &[(&str, &str)]| blueprint().choose("x", choices(pairs)).unwrap_err().words;
        let unknown = r#"playground x has no init condition "runtime": did you mean `Runtime`? it has Runtime, Team"#;
        assert_eq!(refused(&[("runtime", "docker")]), unknown);
        let podman = r#""podman" is no value of init condition "Runtime": there are containerd, docker"#;
        assert_eq!(refused(&[("Runtime", "podman")]), podman);
        assert_eq!(refused(&[("Team", "R2")]), r#""R2" is no value of init condition "Team": it must match ^[a-z]+$"#);
        let mut needed = blueprint();
        needed.init_conditions.values[1].nullable = false;
        let words = needed.choose("x", choices(&[("Team", "")])).unwrap_err().words;
        assert_eq!(words, r#"playground x needs a value for init condition "Team""#);
    }

    #[test]
    fn a_start_changes_what_it_names() {
        let start = |value| serde_json::from_value::<Blueprint>(value).unwrap();
        let same = blueprint().changed(Blueprint::default());
        assert_eq!((same.machines.len(), same.init_tasks.len()), (2, 3));
        let other = blueprint().changed(start(json!({ "machines": [{ "name": "c" }, { "name": "a" }] })));
        let tasks: Vec<&str> = other.init_tasks.iter().map(|task| task.name.as_str()).collect();
        assert_eq!(tasks, ["docker", "none"], "machine b is gone, and its task with it");
        assert_eq!(json!(blueprint())["machines"][0]["kernel"]["source"], "x", "what has no meaning here is kept");
        for (wrong, words) in [
            (json!({ "machines": [{ "name": "../x" }] }), "machine's name"),
            (json!({ "machines": [{ "name": "a", "users": [{ "name": "../x" }] }] }), "user's name"),
            (json!({ "machines": [{ "name": "a" }, { "name": "a" }] }), "two machines"),
            (json!({ "machines": (0..6).map(|i| json!({ "name": format!("m{i}") })).collect::<Vec<_>>() }), "1 to 5"),
            (json!({ "machines": [{ "name": "a", "startupFiles": [{ "path": "/etc/x" }] }] }), "startupFiles"),
            (json!({ "initTasks": { "t": { "run": "x", "machine": "z" } } }), "machine z"),
            (json!({ "initTasks": { "t": { "run": "x", "needs": ["z"] } } }), "needs z"),
            (json!({ "initTasks": { "t": { "run": " " } } }), "no command"),
            (json!({ "initTasks": { "t": { "run": "x", "conditions": [{ "key": "z" }] } } }), "no init condition"),
        ] {
            let refusal = blueprint().changed(start(wrong)).check().unwrap_err();
            assert!(refusal.words.contains(words), "{}", refusal.words);
        }
    }
}
