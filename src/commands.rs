//! The commands: one file each, with its arguments and its `run`.

pub mod account;
pub mod args;
pub mod candidates;
pub mod completions;
pub mod config;
#[cfg(unix)]
pub mod demo;
pub mod doctor;
pub mod forward;
pub mod kube;
#[cfg(unix)]
pub mod local;
pub mod man;
pub mod open;
pub mod playgrounds;
pub mod ssh;
pub mod uninstall;
pub mod visit;
