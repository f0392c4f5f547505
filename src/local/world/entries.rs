//! The playgrounds that plays are made of: those of the catalogue, and the account's own.

use std::collections::{BTreeSet, HashSet};

use serde_json::{Value, json};

use super::{
    super::{
        access::USER,
        blueprint::Blueprint,
        catalog,
        custom::Customs,
        record::{MachineRecord, Record},
        refusal::Refusal,
    },
    World,
};

impl World {
    /// The playground of a play, as far as the play itself does not tell it. One that is there no more still has its
    /// name.
    pub(super) fn reference(&self, record: &Record) -> Value {
        let entry = self.entry(&record.playground).unwrap_or_else(|| json!({ "title": record.playground }));
        let machine = |m: &MachineRecord| catalog::machine(&m.name, m.users.clone(), m.no_ssh);
        json!({
            "name": record.playground,
            "title": entry["title"],
            "owner": entry["owner"].as_str().unwrap_or_default(),
            "machines": record.machines.iter().map(machine).collect::<Vec<_>>(),
            "tabs": record.tabs,
            "networks": record.networks,
        })
    }

    /// The account's own playgrounds.
    pub(crate) fn customs(&self) -> &Customs {
        &self.customs
    }

    /// A playground of the catalogue or of the account's own, as the API shows it.
    pub(crate) fn entry(&self, name: &str) -> Option<Value> {
        let own = || self.customs.find(name).map(|custom| custom.shown(USER, &self.base));
        catalog::find(name).map(|entry| entry.shown(&self.base)).or_else(own)
    }

    pub(super) fn blueprint(&self, name: &str) -> Option<Blueprint> {
        let own = || self.customs.find(name).map(|custom| custom.blueprint);
        catalog::find(name).map(catalog::Entry::blueprint).or_else(own)
    }

    /// 404 for a name that no playground has.
    pub(crate) fn no_entry(&self, name: &str) -> Refusal {
        let own = self.customs.all().into_iter().map(|custom| custom.name);
        let names: Vec<String> = catalog::CATALOG.iter().map(|entry| entry.name.into()).chain(own).collect();
        Refusal::not_found(format!("no playground named {name}; there are {}", names.join(", ")))
    }

    /// The names of the playgrounds that were started, the last one first.
    pub(crate) fn started_last(&self) -> Vec<String> {
        let plays = self.locked();
        let mut records: Vec<&Record> = plays.values().map(|play| &play.record).collect();
        records.sort_by(|a, b| b.created_at.cmp(&a.created_at));
        let mut seen = HashSet::new();
        records.iter().map(|record| record.playground.clone()).filter(|name| seen.insert(name.clone())).collect()
    }

    /// The names of the playgrounds that were started, the most used one first.
    pub(crate) fn started_most(&self) -> Vec<String> {
        let plays = self.locked();
        let count = |name: &String| plays.values().filter(|play| play.record.playground == *name).count();
        let names: BTreeSet<String> = plays.values().map(|play| play.record.playground.clone()).collect();
        let mut names: Vec<String> = names.into_iter().collect();
        names.sort_by_key(|name| std::cmp::Reverse(count(name)));
        names
    }
}
