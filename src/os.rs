//! The differences between operating systems, in one place.
//!
//! # Layout
//!
//! - `process`: this process, its parent and its children.
//! - `others`: other processes, by name and argument.
//! - `roots`: the authorities that the system trusts.
//! - `signals`: the signals that ask a process to end.
//! - `network`: changes of the network, and the local address.
//! - `sockets`: questions to the system about sockets and pipes.
//! - `tcp_table`: the kernel's table of TCP sockets.
//! - `files`: owners, modes and attributes of files.
//! - `windows`: calls of that system.
//! - here: the user's folders, words, and the terminal.

use std::path::PathBuf;

mod files;
mod network;
mod others;
mod process;
mod roots;
mod signals;
mod sockets;
mod tcp_table;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use files::{PRIVATE_FILE, give_back, rightful_owner};
pub(crate) use files::{
    abandoned, is_in_use, is_null_device, left_by_root, links, make_alike, mark, new_private_file, new_private_folder,
    open_folder, without_waiting,
};
pub use files::{is_strangers, owner};
pub use network::{NetworkEvents, local_address};
pub(crate) use others::{arguments_of_ssh, process_name, process_with_argument};
pub use process::{
    GroupOnDrop, beginning, end_if_open, exit_code, forget_code, has_lost_its_client, has_open, has_room_for_files,
    is_running, leave_no_core_dump, on_a_large_stack, process_age, raise_open_files, raise_open_files_to,
    ssh_arguments,
};
pub(crate) use roots::{FILES_COUNT, trusted_authorities};
pub(crate) use signals::heed_signals;
pub use signals::{INTERRUPT, Signals, TERMINATE, ended_by_signal, pass_on, survive_file_size_limit};
pub use sockets::{Peer, connect_locally, ssh_agent, stderr_takes_text, unacknowledged};
pub(crate) use sockets::{own_user, user_of};
pub(crate) use tcp_table::listening_sockets;

/// The way to get an ssh.
pub(crate) const INSTALL_SSH: &str = match cfg!(windows) {
    true => "install Windows' OpenSSH client: Settings, System, Optional features",
    false => "install openssh-client",
};

/// A folder of plain letters that is made for programs.
pub(crate) const PROGRAMS: &str = if cfg!(windows) { r"C:\Tools" } else { "/usr/local/bin" };

/// The variable that names the user's home folder.
pub(crate) const HOME: &str = if cfg!(windows) { "USERPROFILE" } else { "HOME" };

/// The system's hosts file.
pub(crate) fn hosts_file() -> PathBuf {
    match cfg!(windows) {
        true => below_variable("SystemRoot", r"C:\Windows").join("System32").join("drivers").join("etc").join("hosts"),
        false => "/etc/hosts".into(),
    }
}

/// The folder of the system's ssh configuration.
pub(crate) fn ssh_folder() -> PathBuf {
    match cfg!(windows) {
        true => below_variable("ProgramData", r"C:\ProgramData").join("ssh"),
        false => "/etc/ssh".into(),
    }
}

/// The folder that a variable of Windows names.
fn below_variable(variable: &str, usual: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| usual.into(), PathBuf::from)
}

/// The user's home folder. On Windows, the official client goes by the variable, and ssh.exe by the system's answer.
pub(crate) fn home_folder() -> Option<PathBuf> {
    if cfg!(windows) { std::env::home_dir() } else { dirs::home_dir() }
}

/// The user's folder for settings.
pub(crate) fn settings_folder() -> Option<PathBuf> {
    let named = std::env::var_os("APPDATA").map(PathBuf::from).filter(|path| cfg!(windows) && path.is_absolute());
    named.or_else(dirs::config_dir)
}

/// Reports whether the terminal takes control sequences. TERM names its kind; consoles of Windows need none.
pub fn terminal_takes_controls() -> bool {
    let named = std::env::var_os("TERM").filter(|name| !name.is_empty());
    named.map_or(cfg!(windows), |name| name != "dumb")
}
