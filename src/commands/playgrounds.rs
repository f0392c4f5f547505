//! The commands about playgrounds: one file each, and the code they share.
//!
//! Each command waits until its effect is visible at the platform. Commands that add, remove or rename playgrounds also
//! update the ssh configuration, if `config-ssh` was ever run.

pub mod catalog;
pub mod destroy;
pub mod entries;
pub mod extend;
pub mod forget;
pub mod list;
pub mod listed;
pub mod persist;
pub mod rename;
pub mod restart;
pub mod start;
pub mod stop;
pub mod tasks;
pub mod wait;
pub mod watch;
