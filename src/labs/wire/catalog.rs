//! The catalogue.

use serde::{Deserialize, Serialize};

use super::play::Machine;

/// A catalogue entry.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct CatalogEntry {
    /// The platform's id of it.
    pub id: String,
    /// Its author; empty for the platform's own.
    pub owner: String,
    /// The name that starts it.
    pub name: String,
    /// The entry that it was derived from.
    pub base: String,
    /// Its title.
    pub title: String,
    /// Its purpose.
    pub description: String,
    /// The categories that list it.
    pub categories: Vec<String>,
    /// Its page on the site.
    pub page_url: String,
    /// True for an entry that every account sees.
    pub published: bool,
    /// Its machines.
    pub machines: Vec<Machine>,
    /// The permissions of this account.
    pub user_access: UserAccess,
}

/// The permissions of an account for a catalogue entry.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct UserAccess {
    /// See it in lists.
    pub can_list: bool,
    /// Read it.
    pub can_read: bool,
    /// Start it.
    pub can_start: bool,
}
