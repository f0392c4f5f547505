//! The commands about playgrounds: a file each, beside what they share.
//!
//! Each waits until it is so. Those that change which playgrounds there are also bring the ssh configuration up to date,
//! where `config-ssh` was ever run.

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
