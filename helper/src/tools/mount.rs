//! A folder as a mount of its own, which can only be read, and which is in no mount namespace.
//!
//! A thread with a namespace of its own mounts it there and takes it out again while it is open. What is in no namespace
//! has no parent, so `..` ends at its top. The kernel lets no one change its flags, clone it or mount it anywhere, be it
//! with all capabilities: a mount that `open_tree` has made could be made writable again by a container's CAP_SYS_ADMIN
//! (`mount_setattr`). This needs no newer kernel than containers do.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    thread,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, StatVfsMountFlags},
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount_bind, mount_change, mount_remount, unmount},
    thread::{UnshareFlags, unshare_unsafe},
};

/// Opens the folder as such a mount. Mounts below it are not in it.
///
/// # Errors
/// Fails when the kernel refuses, or when the mount is not what it has to be.
pub(super) fn detached(folder: &Path) -> io::Result<OwnedFd> {
    let folder = folder.to_owned();
    let mounted = thread::spawn(move || apart(&folder)).join();
    let mount = mounted.unwrap_or_else(|_| Err(io::Error::other("the thread has ended")))?;
    check(&mount)?;
    Ok(mount)
}

fn apart(folder: &PathBuf) -> io::Result<OwnedFd> {
    // SAFETY: the thread shares its open files as before, and has nothing else that it would lose.
    #[expect(unsafe_code, reason = "a thread's own namespace")]
    unsafe {
        unshare_unsafe(UnshareFlags::NEWNS)?;
    }
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount_bind(folder, folder)?;
    mount_remount(folder, MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV, "")?;
    let mount = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    unmount(folder, UnmountFlags::DETACH)?;
    Ok(mount)
}

/// Fails if a folder is not the top of a mount that can only be read. The server checks it again, inside.
///
/// # Errors
/// The first thing that is wrong with it.
pub(crate) fn check(mount: &OwnedFd) -> io::Result<()> {
    let needed = StatVfsMountFlags::RDONLY | StatVfsMountFlags::NOSUID | StatVfsMountFlags::NODEV;
    if !rustix::fs::fstatvfs(mount)?.f_flag.contains(needed) {
        return Err(io::Error::other("it could be written"));
    }
    let (top, above) = (rustix::fs::fstat(mount)?, rustix::fs::statat(mount, "..", AtFlags::empty())?);
    if (top.st_dev, top.st_ino) != (above.st_dev, above.st_ino) {
        return Err(io::Error::other("it has a folder above it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::fd::AsFd};

    use rustix::io::Errno;

    use super::*;

    #[test]
    fn what_is_mounted_can_only_be_read_and_has_nothing_above() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("tools")).unwrap();
        fs::write(folder.path().join("tools/file"), "x").unwrap();
        fs::write(folder.path().join("secret"), "x").unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = detached(&folder.path().join("tools")).unwrap();
        let open = |path: &str, how| rustix::fs::openat(&mount, path, how, Mode::empty());
        assert!(open("file", OFlags::RDONLY).is_ok() && open("../../file", OFlags::RDONLY).is_ok());
        assert_eq!(open("../secret", OFlags::RDONLY).unwrap_err(), Errno::NOENT);
        assert_eq!(open("file", OFlags::WRONLY).unwrap_err(), Errno::ROFS);
        let made = rustix::fs::mkdirat(mount.as_fd(), "new", Mode::RWXU);
        assert_eq!(made.unwrap_err(), Errno::ROFS);
        // This process's own mounts are as before, and the folder is as writable as ever.
        assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
        fs::write(folder.path().join("tools/file"), "y").unwrap();
        let ordinary = rustix::fs::open(folder.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        assert!(check(&ordinary).is_err());
    }
}
