//! Processes of the machine, each held by a descriptor of its folder in `/proc`, which dies with it: their numbers are
//! used again.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use serde::de::DeserializeOwned;

use crate::stat::Stat;

/// Longest file that is read. An OCI configuration has about 10 KiB.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// A process, by a descriptor that dies with it.
pub(crate) struct Process {
    /// Its folder in `/proc`.
    pub(crate) folder: OwnedFd,
    /// Its number.
    pub(crate) pid: i32,
    /// Its parent's number.
    pub(crate) parent: i32,
    /// Its start, in clock ticks since the machine's.
    pub(crate) started: u64,
}

impl Process {
    /// The process with this number in the folder `proc`.
    ///
    /// # Errors
    /// Fails when there is none.
    pub(crate) fn find(proc: &Path, pid: i32) -> io::Result<Process> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(CWD, proc.join(pid.to_string()), flags, Mode::empty())?;
        let Stat { parent, started, .. } = Stat::of(&read(&folder, "stat")?).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Process { folder, pid, parent, started })
    }

    /// Returns true as long as the process exists.
    pub(crate) fn lives(&self) -> bool {
        read(&self.folder, "stat").is_ok_and(|line| Stat::of(&line).is_some_and(|stat| stat.started == self.started))
    }

    /// The file name of its program.
    pub(crate) fn program(&self) -> io::Result<String> {
        let link = self.link("exe")?;
        let link = link.to_string_lossy();
        // The engine may have been upgraded since the process was started.
        let link = link.strip_suffix(" (deleted)").unwrap_or(&link);
        Ok(link.rsplit('/').next().unwrap_or_default().to_owned())
    }

    /// A variable of the environment that it was started with.
    pub(crate) fn variable(&self, name: &str) -> Option<OsString> {
        let all = read(&self.folder, "environ").ok()?;
        let mut variables = all.split(|&byte| byte == 0);
        let value = variables.find_map(|one| one.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
        Some(OsStr::from_bytes(value).to_owned()).filter(|value| !value.is_empty())
    }

    /// The text of a link in its folder.
    pub(crate) fn link(&self, name: &str) -> io::Result<PathBuf> {
        let link = rustix::fs::readlinkat(&self.folder, name, Vec::new())?.into_bytes();
        Ok(OsString::from_vec(link).into())
    }

    /// The number of its user.
    pub(crate) fn owner(&self) -> u32 {
        rustix::fs::fstat(&self.folder).map(|stat| stat.st_uid).unwrap_or_default()
    }

    /// Returns false if the process is known to have another namespace of this kind than this one.
    pub(crate) fn shares(&self, namespace: &str) -> bool {
        let path = Path::new("ns").join(namespace);
        match (Path::new("/proc/self").join(&path).read_link(), self.link(path.to_str().unwrap_or_default())) {
            (Ok(ours), Ok(theirs)) => ours == theirs,
            _ => true,
        }
    }

    /// Returns true for a process of the machine's root, as this one is, and false for any in a container.
    ///
    /// It may have mounts of its own, as podman's conmon has, but it has this one's root folder. A container that was given
    /// that folder can go there, but has not the capabilities of the machine's root, unless it may do everything anyway.
    pub(crate) fn is_machines_own(&self) -> bool {
        let is_roots = self.owner() == rustix::process::geteuid().as_raw();
        is_roots && self.shares("pid") && self.shares("user") && self.has_our_root() && self.may_what_we_may()
    }

    fn has_our_root(&self) -> bool {
        let theirs = rustix::fs::statat(&self.folder, "root", AtFlags::empty());
        theirs.is_ok_and(|theirs| {
            rustix::fs::stat("/").is_ok_and(|ours| (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino))
        })
    }

    fn may_what_we_may(&self) -> bool {
        // A set-user-ID program has root's capabilities, and its starter's number.
        let theirs = read(&self.folder, "status").ok().filter(|status| has_one_user(status));
        let theirs = theirs.and_then(|status| capabilities_in(&status));
        let ours = read(CWD, "/proc/self/status").ok().and_then(|status| capabilities_in(&status));
        matches!((theirs, ours), (Some(theirs), Some(ours)) if theirs & ours == ours)
    }
}

/// Reports whether the real, effective, saved and file system's users are the same.
fn has_one_user(status: &[u8]) -> bool {
    let status = String::from_utf8_lossy(status);
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:")).map(str::split_whitespace);
    users.is_some_and(|mut users| users.next().is_some_and(|first| users.all(|other| other == first)))
}

fn capabilities_in(status: &[u8]) -> Option<u64> {
    let status = String::from_utf8_lossy(status);
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
}

/// Opens a folder, as a place for paths.
pub(crate) fn folder(at: impl AsFd, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(at, path.as_ref(), flags, Mode::empty())?)
}

/// Reads a file of our own kernel's or of the engine's: no container can put another in its place.
pub(crate) fn read(folder: impl AsFd, name: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, name.as_ref(), flags, Mode::empty())?;
    let mut bytes = Vec::new();
    File::from(file).take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads such a file as JSON.
pub(crate) fn json<T: DeserializeOwned>(folder: impl AsFd, name: impl AsRef<Path>) -> io::Result<T> {
    Ok(serde_json::from_slice(&read(folder, name)?)?)
}

/// Reads such a file as the number of a process.
pub(crate) fn number(folder: impl AsFd, name: impl AsRef<Path>) -> io::Result<i32> {
    let text = read(folder, name)?;
    std::str::from_utf8(&text)
        .ok()
        .and_then(|pid| pid.trim().parse().ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_its_own_root_and_capabilities() {
        let own = Process::find(Path::new("/proc"), rustix::process::getpid().as_raw_nonzero().get()).unwrap();
        assert!(own.is_machines_own() && own.lives());
        let status = b"Name:\tCapEff:\nCapPrm:\t0000000000000003\nCapEff:\t0000000000000001\n";
        assert_eq!(capabilities_in(status), Some(1));
        assert_eq!(capabilities_in(b"CapEff:\tx\n"), None);
    }
}
