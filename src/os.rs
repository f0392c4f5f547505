//! The differences between operating systems, in one place.
//!
//! # Layout
//!
//! - `process`: this process, its parent and its children.
//! - `signals`: the signals that ask a process to end.
//! - `sockets`: questions to the system about sockets and pipes.
//! - here: files.

mod process;
mod signals;
mod sockets;

#[cfg(unix)]
pub use process::in_its_own_session;
pub use process::{
    beginning, exit_code, forget_code, has_lost_its_client, leave_no_core_dump, process_age, raise_open_files,
    raise_open_files_to, ssh_arguments,
};
pub use signals::{INTERRUPT, Signals, TERMINATE, ended_by_signal, pass_on};
pub use sockets::{Peer, stderr_takes_text, unacknowledged};

/// Reports whether a file belongs to a stranger: neither the user of this process nor the owner of the folder that the
/// file is in.
pub fn is_strangers(found: &std::fs::Metadata, folder: &std::fs::Metadata) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        ![rustix::process::geteuid().as_raw(), folder.uid()].contains(&found.uid())
    }
    #[cfg(not(unix))]
    {
        let _ = (found, folder);
        false
    }
}

/// The user and the group that own a file.
#[cfg(unix)]
pub fn owner(found: &std::fs::Metadata) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt;
    (found.uid(), found.gid())
}

/// Nothing: these systems have no such owners.
#[cfg(not(unix))]
pub fn owner(_found: &std::fs::Metadata) {}
