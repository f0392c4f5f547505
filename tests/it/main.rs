//! All integration tests, in one binary: the library is linked once, and what tests share is compiled once.
//!
//! They run beside one another in one process, so a test changes nothing that the process has only once: environment
//! variables, the current folder, the umask, limits, signal handlers. A child process gets those instead.

#![cfg(unix)]

mod api_shapes;
mod attack;
mod clients;
mod commands;
mod completions;
mod connect;
mod crash;
mod doctor;
mod early;
mod editor_clients;
mod editors;
mod endings;
mod errors;
mod faults;
mod forward;
mod host_keys;
mod hosted;
mod install;
mod intent;
mod json;
mod kube;
mod labctl;
mod machine;
mod network;
mod open;
mod pages;
mod parsers;
mod platform;
mod platform_calls;
mod platform_tasks;
mod printed;
mod real_peers;
mod round_trips;
mod security_page;
mod ssh_command;
mod ssh_config;
mod supply_chain;
mod support;
mod uninstall;
mod wake;
mod watch;
