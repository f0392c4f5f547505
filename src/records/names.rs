//! The names of playgrounds and of the catalogue as the platform last listed them. They are for the completion of a
//! command line, which has to answer while a key is held down.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Kind, Result},
    files,
    labs::{
        find,
        wire::{CatalogEntry, Exercise, LearningKind, Play},
    },
    moment::{self, Moment, ago, now},
    platform::Platform,
    settings::Folders,
    target::{PREFIX, Target, is_label},
};

/// The names of one platform.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct Names {
    /// The playgrounds that are not gone; `None` before they have ever been listed.
    pub plays: Option<Vec<Known>>,
    /// The catalogue.
    pub catalog: Option<Vec<Entry>>,
    /// The challenges and the tutorials that were listed, by the first part of their pages' paths.
    pub exercises: BTreeMap<String, Vec<Entry>>,
    /// The containers that ran on machines, by the machine's host name.
    pub containers: BTreeMap<String, Containers>,
}

/// The containers that ran on a machine a moment ago.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct Containers {
    /// The time when the machine was asked, or could not be.
    #[serde(deserialize_with = "moment::recorded")]
    pub at: Moment,
    /// Their labels and images.
    pub all: Vec<(String, String)>,
}

/// Age from which containers are asked for again: a shell may ask at each key that is pressed.
const FRESH: Duration = Duration::from_secs(10);

/// A playground.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct Known {
    /// Its host name.
    pub host: String,
    /// Its title.
    pub title: String,
    /// The name of the challenge, tutorial or lesson that it belongs to; empty for a playground of its own.
    pub learning: String,
    /// True if it was stopped.
    pub down: bool,
    /// Its machines.
    pub machines: Vec<String>,
    /// Its readable name, which stands in a record of its own.
    #[serde(skip)]
    pub alias: Option<String>,
}

/// An entry of the catalogue.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct Entry {
    /// The name by which it is started.
    pub name: String,
    /// Its title.
    pub title: String,
    /// Its machines that allow SSH.
    pub machines: Vec<String>,
    /// The choices of its start as `KEY=VALUE`; free text has no value.
    pub choices: Vec<String>,
}

/// The file of the names of `platform`.
pub fn path(folders: &Folders, platform: Platform) -> PathBuf {
    folders.root.join(match platform {
        Platform::Labs => "names.json",
        Platform::Local => "names.local.json",
    })
}

impl Names {
    /// Reads the remembered names. A damaged file counts as none, because it is only a copy.
    pub fn load(folders: &Folders, platform: Platform) -> Names {
        let text = files::read_text(&path(folders, platform)).ok().flatten().unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn change(folders: &Folders, platform: Platform, change: impl FnOnce(&mut Names)) {
        let path = path(folders, platform);
        let changed = || -> Result<()> {
            let _lock = files::Lock::acquire(&path)?;
            let mut names = Names::load(folders, platform);
            change(&mut names);
            let text = serde_json::to_vec(&names).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
            files::write_private(&path, &text)
        };
        // A failure costs a completion, not the command.
        if let Err(error) = changed() {
            log::warn!("{}", error.message());
        }
    }
}

/// Remembers the playgrounds.
pub fn remember_plays(folders: &Folders, platform: Platform, plays: &[Play]) {
    let known = |play: &Play| Known {
        host: Target::of_play(&play.id, None).to_string(),
        title: play.title.clone(),
        learning: play.learning().map(|of| of.name).filter(|name| name.split('/').all(is_label)).unwrap_or_default(),
        down: find::is_play_down(play),
        alias: None,
        machines: play.machines.iter().map(|machine| machine.name.clone()).filter(|name| is_label(name)).collect(),
    };
    let known = plays.iter().filter(|play| !find::is_gone(play)).map(known).collect();
    Names::change(folders, platform, |names| names.plays = Some(known));
}

/// Remembers the catalogue.
pub fn remember_catalog(folders: &Folders, platform: Platform, entries: &[CatalogEntry]) {
    let entry = |entry: &CatalogEntry| {
        let machines = entry.machines.iter().filter(|machine| !machine.no_ssh);
        let machines = machines.map(|machine| machine.name.clone()).filter(|name| is_label(name)).collect();
        let conditions = entry.init_conditions.iter().flat_map(|conditions| &conditions.values);
        let choices = conditions.flat_map(|one| match one.options[..] {
            [] => vec![format!("{}=", one.key)],
            _ => one.options.iter().map(|option| format!("{}={option}", one.key)).collect(),
        });
        Entry { name: entry.name.clone(), title: entry.title.clone(), machines, choices: choices.collect() }
    };
    let entries = entries.iter().filter(|entry| is_label(&entry.name)).map(entry).collect();
    Names::change(folders, platform, |names| names.catalog = Some(entries));
}

/// Remembers the challenges or the tutorials.
pub fn remember_exercises(folders: &Folders, platform: Platform, kind: LearningKind, all: &[Exercise]) {
    let entry = |one: &Exercise| Entry { name: one.name.clone(), title: one.title.clone(), ..Entry::default() };
    let entries = all.iter().filter(|one| is_label(&one.name)).map(entry).collect();
    Names::change(folders, platform, |names| drop(names.exercises.insert(kind.plural().to_owned(), entries)));
}

/// Remembers the containers of a machine; those of others are kept no longer than they are of use.
pub fn remember_containers(folders: &Folders, platform: Platform, machine: &str, all: Vec<(String, String)>) {
    Names::change(folders, platform, |names| {
        names.containers.retain(|_, containers| containers.is_fresh());
        names.containers.insert(machine.to_owned(), Containers { at: now(), all });
    });
}

impl Containers {
    /// Returns true if the machine was asked just now.
    pub fn is_fresh(&self) -> bool {
        ago(self.at) < FRESH
    }
}

impl Known {
    /// Every name by which ssh reaches one of its machines, and may be meant by `typed`.
    pub fn hosts(&self, typed: &str) -> Vec<String> {
        self.names().flat_map(|name| with_machines(name.clone(), &self.machines, typed)).collect()
    }

    /// Its host name, and the readable one.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.host).chain(&self.alias)
    }
}

impl Entry {
    /// Every name by which ssh reaches a machine of a playground of it, and may be meant by `typed`.
    pub fn hosts(&self, typed: &str) -> Vec<String> {
        with_machines(format!("{PREFIX}{}", self.name), &self.machines, typed)
    }
}

/// The only machine of a playground is named once that is begun: it is a part of its containers' names.
fn with_machines(host: String, machines: &[String], typed: &str) -> Vec<String> {
    let are_named = machines.len() > 1 || typed.strip_prefix(&host).is_some_and(|rest| rest.starts_with('.'));
    let machines = machines.iter().filter(|_| are_named).map(|machine| format!("{host}.{machine}"));
    let machines: Vec<String> = machines.collect();
    std::iter::once(host).chain(machines).collect()
}
