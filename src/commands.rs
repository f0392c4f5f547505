//! The commands: one file each, with its arguments and its `run`.

pub(crate) mod account;
mod api;
pub(crate) mod args;
pub(crate) mod candidates;
pub mod completions;
pub(crate) mod config;
pub(crate) mod containers;
pub(crate) mod debug;
#[cfg(unix)]
pub(crate) mod demo;
pub(crate) mod doctor;
mod folder;
pub mod forward;
pub mod kube;
pub(crate) mod listen;
#[cfg(unix)]
pub(crate) mod local;
pub(crate) mod logs;
pub(crate) mod machine;
pub(crate) mod man;
pub(crate) mod open;
pub(crate) mod ping;
pub(crate) mod playgrounds;
pub(crate) mod pods;
pub(crate) mod ports;
pub(crate) mod region;
mod running;
pub(crate) mod ssh;
mod unasked;
pub(crate) mod underway;
pub(crate) mod uninstall;
pub(crate) mod visit;
pub(crate) mod within;
