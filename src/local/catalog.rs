//! What can be started on the embedded platform.

use serde_json::{Value, json};

use crate::labs::wire::{CatalogEntry, Machine, MachineUser, PlaygroundRef, UserAccess};

/// A catalogue entry.
pub struct Entry {
    /// What it is started by.
    pub name: &'static str,
    title: &'static str,
    description: &'static str,
    /// Its machines' names; the first is the default one.
    pub machines: &'static [&'static str],
}

/// The whole catalogue.
pub const CATALOG: [Entry; 2] = [
    Entry {
        name: "shell",
        title: "A shell",
        description: "One machine on this computer: your shell, in a home folder of its own.",
        machines: &["shell-01"],
    },
    Entry {
        name: "duo",
        title: "Two machines",
        description: "Two machines on this computer, for everything that needs another one.",
        machines: &["node-01", "node-02"],
    },
];

/// The entry of that name.
pub fn find(name: &str) -> Option<&'static Entry> {
    CATALOG.iter().find(|entry| entry.name == name)
}

/// How a play refers to what it was started from. An entry that this version no longer has still has its name.
pub fn reference(name: &str) -> PlaygroundRef {
    let title = find(name).map_or(name, |entry| entry.title);
    PlaygroundRef { name: name.into(), title: title.into(), ..PlaygroundRef::default() }
}

/// A machine as the API shows it.
pub fn machine(name: &str, users: Vec<MachineUser>) -> Machine {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Machine { name: name.into(), users, resources: json!({ "cpuCount": processors }), no_ssh: false }
}

impl Entry {
    /// The entry as the API shows it; `base` is the platform's address.
    pub fn shown(&self, base: &str) -> Value {
        let users = vec![super::machine::default_user()];
        let entry = CatalogEntry {
            id: self.name.into(),
            name: self.name.into(),
            title: self.title.into(),
            description: self.description.into(),
            categories: vec!["linux".into()],
            page_url: format!("{base}/playgrounds/{}", self.name),
            published: true,
            machines: self.machines.iter().map(|name| machine(name, users.clone())).collect(),
            user_access: UserAccess { can_list: true, can_read: true, can_start: true },
            ..CatalogEntry::default()
        };
        let mut value = json!(entry);
        value["cover"] = json!("");
        value["networks"] = json!([]);
        value["tabs"] = json!([]);
        value["initTasks"] = json!({});
        value["accessControl"] = json!({ "canList": [], "canRead": [], "canStart": [] });
        value
    }
}
