//! Makes `ssh playground-<id>` just work.
//!
//! ARCHITECTURE.md draws the floors of this crate, and `tests/layers` holds every import to them. One connection is one
//! future, from top to bottom, and [`connect`] reads as its summary: start there.

pub mod app;
pub mod cli;
pub mod cluster;
pub mod commands;
pub mod connect;
pub(crate) mod door;
pub mod editors;
pub mod error;
pub(crate) mod files;
pub mod hold;
pub mod inside;
mod keep;
pub mod labs;
#[cfg(unix)]
pub mod local;
pub mod moment;
pub mod os;
pub mod pipe;
pub mod platform;
pub mod records;
pub(crate) mod secrets;
pub mod settings;
mod setup;
pub mod ssh;
pub mod ssh_config;
pub mod target;
pub mod ui;
pub mod wake;
