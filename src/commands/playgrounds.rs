//! The commands about playgrounds: one file each, and the code they share.
//!
//! Each command waits until its effect is visible at the platform. Commands that add, remove or rename playgrounds also
//! update the ssh configuration, if `config-ssh` was ever run.

mod alias;
pub(crate) mod attempt;
pub(crate) mod catalog;
pub(crate) mod choice;
mod conditions;
pub(crate) mod destroy;
pub(crate) mod entries;
pub(crate) mod exercises;
pub(crate) mod extend;
pub(crate) mod forget;
pub(crate) mod keep;
pub(crate) mod lifetime;
pub(crate) mod list;
pub(crate) mod listed;
mod manifest;
pub(crate) mod persist;
mod playtime;
pub(crate) mod rename;
pub(crate) mod restart;
pub(crate) mod start;
pub(crate) mod stop;
pub(crate) mod tasks;
pub(crate) mod wait;
pub(crate) mod watch;
