//! The differences between operating systems, in one place.
//!
//! # Layout
//!
//! - `process`: this process, its parent and its children.
//! - `others`: other processes, by name and argument.
//! - `roots`: the authorities that the system trusts.
//! - `signals`: the signals that ask a process to end.
//! - `sockets`: questions to the system about sockets and pipes.
//! - `files`: owners, modes and attributes of files.
//! - here: the terminal.

mod files;
mod others;
mod process;
mod roots;
mod signals;
mod sockets;

#[cfg(unix)]
pub(crate) use files::{give_back, open_new_folder, rightful_owner};
pub(crate) use files::{is_null_device, left_by_root, links, make_alike, settle, without_waiting};
pub use files::{is_strangers, owner};
pub(crate) use others::{process_name, process_with_argument};
#[cfg(unix)]
pub use process::in_its_own_session;
pub use process::{
    GroupOnDrop, beginning, end_if_open, exit_code, forget_code, has_lost_its_client, has_open, has_room_for_files,
    is_running, leave_no_core_dump, process_age, raise_open_files, raise_open_files_to, ssh_arguments,
};
pub(crate) use roots::trusted_authorities;
pub(crate) use signals::heed_signals;
pub use signals::{INTERRUPT, Signals, TERMINATE, ended_by_signal, pass_on, survive_file_size_limit};
pub use sockets::{Peer, connect_locally, ssh_agent, stderr_takes_text, unacknowledged};

/// Reports whether the terminal takes control sequences. TERM names its kind; consoles of Windows need none.
pub fn terminal_takes_controls() -> bool {
    let named = std::env::var_os("TERM").filter(|name| !name.is_empty());
    named.map_or(cfg!(windows), |name| name != "dumb")
}
