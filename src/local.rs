//! The embedded platform: the platform's API and tunnels over a world of local playgrounds, for trying things out and
//! for tests. Unix only.
//!
//! It runs as the user who starts it and **isolates nothing**: a machine is a home folder with an SSH server, not a
//! virtual machine.
//!
//! # Layout
//!
//! - `start`: from outside: is it there, start it, end it.
//! - `serve`: the process: sockets, one platform a folder, idle end.
//! - `api`: the calls; `access`: who may call.
//! - `world`: playgrounds and their states; `record`: what of it is on disk; `catalog`: what can be started;
//!   `refusal`: what cannot be.
//! - `tunnels`: WebSockets into machines; `machine`: the machines.

mod access;
mod api;
mod catalog;
mod command;
pub mod machine;
mod record;
mod refusal;
pub mod serve;
pub mod start;
mod tunnels;
mod world;

pub use access::{Credentials, credentials, path_in as credentials_path};
pub use command::command;
pub use start::{ensure, stop};
