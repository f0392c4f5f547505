//! The helper: a small static program that runs on a machine, and in its containers.
//!
//! ```text
//! connect  ->  SSH, as root, to the machine  ->  helper enter  ->  runc exec  ->  helper serve, in the container
//! ```
//!
//! - [`wire`]: the words between `connect` and the helper.
//! - `enter`: the way into a container; `list`: the containers of a machine, and `watch`: as they change. `engine` asks
//!   Docker, `scan` finds what runs without it, `stored` what does not run, `labels` and `resolve` the container that is
//!   meant, `runtime` its runtime, `users` the user inside, and `descriptors` holds what goes in.
//! - `tools`: the programs that a container without a shell is lent.
//! - `view`: a container's files together with the machine's programs, for editors.
//! - `serve`: the server in a container.
//! - [`server`]: the SSH server. The embedded platform's machines use it as well.
//!
//! The program itself is `main.rs`.

#[cfg(target_os = "linux")]
mod conmon;
#[cfg(target_os = "linux")]
mod descriptors;
#[cfg(target_os = "linux")]
mod engine;
#[cfg(target_os = "linux")]
pub mod enter;
#[cfg(target_os = "linux")]
mod labels;
#[cfg(target_os = "linux")]
pub mod list;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod resolve;
#[cfg(target_os = "linux")]
mod runtime;
#[cfg(target_os = "linux")]
mod scan;
#[cfg(target_os = "linux")]
mod scope;
#[cfg(target_os = "linux")]
pub mod serve;
#[cfg(unix)]
pub mod server;
#[cfg(target_os = "linux")]
mod stat;
#[cfg(target_os = "linux")]
mod stored;
#[cfg(target_os = "linux")]
mod text;
#[cfg(target_os = "linux")]
mod tools;
#[cfg(target_os = "linux")]
mod users;
#[cfg(target_os = "linux")]
pub mod view;
#[cfg(target_os = "linux")]
pub mod watch;
pub mod wire;

#[cfg(target_os = "linux")]
pub use tools::launch;
