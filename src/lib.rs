//! Makes `ssh playground-<id>` simply work.
//!
//! # Layout
//!
//! One connection is one future, from top to bottom, and [`connect`] reads as its summary:
//!
//! - [`target`]: what ssh calls a machine; pure. [`find`]: which playground that is.
//! - [`policy`]: whether it may be woken. [`wake`]: until it is ready. [`memory`]: what people wanted of it.
//! - [`labs`]: the platform's API, one method a call. [`net`]: the sockets below it,
//!   which [`gather`] spares wake-ups.
//! - [`tunnel`]: a WebSocket that behaves as a socket. [`greet`]: the first exchange on it, where [`handshake`] reads
//!   the host key for [`known_hosts`]. [`pipe`]: bytes both ways, and when it is over. [`stdio`]: the client's end.
//!   [`tunnel_cache`] spares most connections the way there, and [`early`] keeps an impatient client.
//!
//! Beside it: [`settings`], [`identity`], [`learn`] (host keys ahead of time), [`live`] (status of running proxies),
//! [`journal`] (logs), [`notice`] and [`spinner`] (standard error), [`out`] (standard output of commands),
//! [`ssh_options`] (ssh's own command line), [`platform`] (what differs between systems), [`files`] (locks, whole
//! writes), [`secrets`] (what is masked everywhere), [`error`] (kinds, sentences, exit codes).
//!
//! Commands: [`playgrounds`], [`session`], [`watch`] (`list --watch`); [`visit`] (find and wake, with progress) and
//! [`preparation`] (until a playground can be used) under
//! [`ssh`], [`open`] (with [`ide`], the table of editors), [`forward`] and [`kube`]; [`configure`] over [`ssh_config`]
//! (pure) and [`config_ssh`] (files), [`config_jetbrains`] and [`config_zed`]; [`doctor`], [`completions`] (from
//! [`names`]), [`man`], [`uninstall`].
//!
//! `local` is the embedded platform: the same API over a world of local playgrounds.

pub mod app;
pub mod catalog;
pub mod cli;
pub mod completions;
pub mod config_jetbrains;
pub mod config_ssh;
pub mod config_zed;
pub mod configure;
pub mod connect;
#[cfg(unix)]
pub mod demo;
pub mod doctor;
pub mod early;
pub mod editor_file;
pub mod error;
pub mod files;
pub mod find;
pub mod forward;
pub mod gather;
pub mod greet;
pub mod handshake;
pub mod host_key;
pub mod ide;
pub mod identity;
pub mod journal;
pub mod known_hosts;
pub mod kube;
pub mod labs;
pub mod learn;
pub mod live;
#[cfg(unix)]
pub mod local;
pub mod man;
pub mod memory;
pub mod names;
pub mod net;
pub mod notice;
pub mod open;
pub mod out;
pub mod pipe;
pub mod platform;
pub mod playgrounds;
pub mod policy;
pub mod preparation;
pub mod secrets;
pub mod session;
pub mod settings;
pub mod spinner;
pub mod ssh;
pub mod ssh_client;
pub mod ssh_config;
pub mod ssh_options;
pub mod stdio;
pub mod target;
pub mod tunnel;
pub mod tunnel_cache;
pub mod uninstall;
pub mod visit;
pub mod wake;
pub mod watch;
