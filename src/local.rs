//! The embedded platform: the platform's API and tunnels over a world of local playgrounds, for trying things out and
//! for tests. Unix only.
//!
//! It runs as the user who starts it and **isolates nothing**: a machine is a home folder with an SSH server, not a
//! virtual machine.
//!
//! # Layout
//!
//! - `start`: from outside: asks for its status, starts it, ends it.
//! - `serve`: the process: one platform a folder, its connections, idle end; `listeners`: its sockets.
//! - `api`: the calls; `access`: the right to make them; `preferences`: the account's; `reply`, `refusal`: the answers.
//! - `world`: playgrounds, their states and their tasks; `record`: their part on disk; `catalog`: the playgrounds to
//!   start, `blueprint`: their machines, tasks and choices, `custom`: those that the account made; `learning`:
//!   challenges, tutorials and courses, and the progress in them; `live`: streams of messages.
//! - `tunnels`: WebSockets into machines; `pool`: their number; `machine`: the machines; `engine`: the container engine
//!   that is found on them.

mod access;
mod api;
mod blueprint;
mod catalog;
mod custom;
mod engine;
mod learning;
mod listeners;
mod live;
pub mod machine;
mod pool;
mod preferences;
mod record;
mod refusal;
mod reply;
pub mod serve;
pub mod start;
mod tunnels;
mod world;

pub use access::{Credentials, credentials, path_in as credentials_path};
pub use catalog::InitTask;
pub use engine::chosen as chosen_engine;

pub use start::{ensure, stop};
