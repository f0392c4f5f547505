//! The helper: a small static program that runs on a machine, and in its containers.
//!
//! ```text
//! connect  ->  SSH, as root, to the machine  ->  helper enter  ->  runc exec  ->  helper serve, in the container
//! ```
//!
//! - [`wire`]: the words between `connect` and the helper.
//! - [`server`]: the SSH server. The embedded platform's machines use it as well.
//! - `serve`: the server in a container.
//!
//! The program itself is `main.rs`: `resolve` finds the container and its runtime, `enter` starts the server in it, and
//! `serve` is that server.

#[cfg(target_os = "linux")]
pub mod serve;
#[cfg(unix)]
pub mod server;
pub mod wire;
