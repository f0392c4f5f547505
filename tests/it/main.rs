//! All integration tests, in one binary, so that the library is linked and the shared code compiled only once.
//!
//! They run at the same time in one process. A test therefore must not change the state of the process: environment
//! variables, the current folder, the umask, limits, signal handlers. It sets them for a child process instead. The one
//! exception is [`support::leave_terminal`].

#![allow(unreachable_pub, reason = "a test binary has no users")]
#![cfg(unix)]

mod addresses;
mod agents;
mod aliases;
mod api_shapes;
mod attack;
mod certificates;
mod client_limits;
mod clients;
mod commands;
mod completions;
mod connect;
mod consoles;
mod containers;
mod crash;
mod doctor;
mod early;
mod editor_clients;
mod editors;
mod endings;
mod errors;
mod faults;
mod files;
mod folder;
mod forward;
mod forward_auto;
mod host_keys;
mod hosted;
mod install;
mod installer;
mod intent;
mod json;
mod kept;
mod kube;
mod labctl;
mod layers;
mod learning;
mod listen;
mod logs;
mod machine;
mod manners;
mod network;
mod open;
mod packages;
mod pages;
mod parsers;
mod ping;
mod platform;
mod platform_calls;
mod platform_learning;
mod platform_tasks;
mod ports;
mod printed;
mod publisher;
#[cfg(target_os = "linux")]
mod real_cluster;
mod real_peers;
mod records;
#[cfg(target_os = "linux")]
mod relay;
mod round_trips;
mod security_page;
mod server_rows;
#[cfg(target_os = "linux")]
mod setup;
mod silence;
mod ssh_command;
mod ssh_config;
mod starting;
mod supply_chain;
mod support;
mod surviving;
mod uninstall;
mod users_ssh;
mod versions;
mod wake;
mod watch;
mod workflows;
