//! The files that this process was given. A descriptor too many could be the machine's: runc puts files of its own where
//! it was promised one that is missing, and `..` would lead out of the container.

use std::{
    fs::{self, File},
    io,
    os::fd::{FromRawFd, OwnedFd, RawFd},
    path::PathBuf,
};

use rustix::{
    fs::{FileType, SealFlags, fcntl_get_seals, fstat},
    io::{FdFlags, fcntl_setfd},
};

use super::settings::{DESCRIPTOR as SETTINGS, TOOLS};
use crate::tools::mount;

/// This program, as a sealed file in memory, from which it was started.
const PROGRAM: RawFd = 3;

/// The files that have been checked.
pub(super) struct Given {
    /// The pipe with the settings.
    pub(super) settings: File,
    /// This program.
    pub(super) program: OwnedFd,
    /// The tools. The settings say if there are to be any.
    pub(super) tools: Option<OwnedFd>,
}

/// Checks every descriptor, and returns those that are given. Nothing of it is inherited.
///
/// # Errors
/// Words that name the descriptor which is missing, of another kind or unknown.
pub(super) fn check() -> Result<Given, String> {
    let open = open().map_err(|e| format!("cannot list the server's open files: {e}"))?;
    let unknown = |(number, link): &(RawFd, PathBuf)| {
        let link = link.to_string_lossy();
        let link = link.escape_debug();
        format!("the server was given a file that it does not know, descriptor {number}: {link}")
    };
    if let Some(one) = open.iter().find(|(number, _)| *number > TOOLS) {
        return Err(unknown(one));
    }
    if let Some(missing) = [PROGRAM, SETTINGS].iter().find(|needed| open.iter().all(|(number, _)| number != *needed)) {
        return Err(format!("the server was not given descriptor {missing}"));
    }
    let mut tools = None;
    if let Some(one) = open.iter().find(|(number, _)| *number == TOOLS) {
        let mount = own(TOOLS)?;
        mount::check(&mount).map_err(|why| format!("{} ({why})", unknown(one)))?;
        tools = Some(mount);
    }
    let (program, pipe) = (own(PROGRAM)?, own(SETTINGS)?);
    let needed = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    if !fcntl_get_seals(&program).is_ok_and(|seals| seals.contains(needed)) {
        return Err("the server's program is not sealed".to_owned());
    }
    if !fstat(&pipe).is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Fifo) {
        return Err("the server's settings are not in a pipe".to_owned());
    }
    for (number, name) in [(0, "input"), (1, "output"), (2, "error")] {
        if fs::metadata(format!("/proc/self/fd/{number}")).is_ok_and(|found| found.is_dir()) {
            return Err(format!("the server's standard {name} is a folder"));
        }
    }
    Ok(Given { settings: File::from(pipe), program, tools })
}

/// The open descriptors and their links.
fn open() -> io::Result<Vec<(RawFd, PathBuf)>> {
    let entries =
        fs::read_dir("/proc/self/fd")?.map(|entry| Ok(entry?.file_name().to_str().and_then(|n| n.parse().ok())));
    let numbers = entries.collect::<io::Result<Vec<Option<RawFd>>>>()?;
    let link = |n: RawFd| match fs::read_link(format!("/proc/self/fd/{n}")) {
        // The one by which the list was read is closed again.
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        link => Some(link.map(|link| (n, link))),
    };
    numbers.into_iter().flatten().filter_map(link).collect()
}

/// Takes an open descriptor, which is not inherited from now on.
fn own(number: RawFd) -> Result<OwnedFd, String> {
    // SAFETY: the caller has found this descriptor open, and each is taken once.
    #[expect(unsafe_code, reason = "a descriptor by its number")]
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl_setfd(&owned, FdFlags::CLOEXEC).map_err(|e| format!("cannot keep descriptor {number}: {e}"))?;
    Ok(owned)
}
