//! The mounts of a view, made by a process that has joined the container's namespaces, and is in none of its lists yet.
//!
//! Its root is a file system in memory that lies on the container's own root, until all is in its place: paths from `/` are
//! the container's, and paths from here the view's.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, StatVfsMountFlags},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
        fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, open_tree, unmount,
    },
    process::{Gid, Uid, chdir, fchdir, pivot_root},
    thread::{UnshareFlags, move_into_link_name_space, unshare_unsafe},
};
use serde_json::Value;

use super::Order;
use crate::{
    process::{self, Process},
    users,
};

/// The folders of programs and libraries. The machine has some of them as links to others.
const BORROWED: [&str; 6] = ["usr", "bin", "sbin", "lib", "lib32", "lib64"];

/// The files in `/etc` that those need. Of the machine's are taken which everyone may read.
const ETC: [&str; 6] = ["alternatives", "ssl", "pki", "crypto-policies", "ld.so.cache", "os-release"];

/// The most files that are taken from there, the longest of them, and the most that a folder of the container may have.
const MAX_TAKEN: usize = 4000;
const MAX_FILE: u64 = 4 * 1024 * 1024;
const MAX_ENTRIES: usize = 1000;

/// The namespaces, the user's last: it decides what this process may do with the others.
const NAMESPACES: [&str; 8] = ["ipc", "uts", "net", "cgroup", "time", "pid", "mnt", "user"];

/// The place of the machine's folders while the view is made, and a folder there without files: an overlay needs two.
const MACHINE: &str = ".machine";
const EMPTY: &str = "empty";

/// A folder of the machine's: the text of the link that it is, and a mount that is in no namespace.
struct Borrowed {
    name: &'static str,
    link: Option<PathBuf>,
    tree: OwnedFd,
}

/// A file of the machine's `/etc`.
enum Taken {
    Folder(Vec<(OsString, Taken)>),
    Link(PathBuf),
    File(Vec<u8>),
}

/// Makes the view, which is this process's mount namespace from then on.
///
/// # Errors
/// Words that say what cannot be done.
pub(super) fn make(order: &Order, init: &Process, state: &Value) -> io::Result<()> {
    rustix::process::umask(Mode::empty());
    let machine = machine().map_err(doing("the machine's folders cannot be lent"))?;
    let mut left = MAX_TAKEN;
    let etc: Vec<_> =
        ETC.iter().filter_map(|name| Some((*name, taken(&Path::new("/etc").join(name), &mut left)?))).collect();
    let root = users::root(&init.folder)?;
    let passwd = users::passwd(&root);
    join_cgroups(init, state).map_err(doing("its cgroup cannot be joined"))?;
    join_namespaces(init).map_err(doing("its namespaces cannot be joined"))?;

    let (its, ours) = (rustix::fs::fstat(&root)?, rustix::fs::stat("/")?);
    if (its.st_dev, its.st_ino) != (ours.st_dev, ours.st_ino) {
        return Err(io::Error::other("its root is a folder of another file system"));
    }
    let top = in_memory().map_err(doing("its root cannot be mounted"))?;
    fchdir(&top)?;
    lend(&machine).map_err(doing("the machine's folders cannot be mounted"))?;
    bind_all(Path::new("/")).map_err(doing("the container's files cannot be mounted"))?;
    if fs::symlink_metadata("etc").is_err() {
        folder("etc", 0o755)?;
    }
    for (name, taken) in &etc {
        let path = Path::new("etc").join(name);
        // A file of the container's own keeps its place.
        if is_ours("etc") && fs::symlink_metadata(&path).is_err() {
            put(&path, taken)?;
        }
    }
    temporary()?;
    home(order, &passwd).map_err(doing("a home folder cannot be made"))?;
    become_root().map_err(doing("its root cannot be changed"))
}

fn doing(what: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::other(format!("{what}: {error}"))
}

fn machine() -> io::Result<Vec<Borrowed>> {
    let mut found = Vec::new();
    for name in BORROWED {
        let path = Path::new("/").join(name);
        if path.is_dir() {
            let tree = open_tree(CWD, &path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
            found.push(Borrowed { name, link: fs::read_link(&path).ok(), tree });
        }
    }
    Ok(found)
}

/// The folder that would be hidden with what is mounted below it: an overlay shows no mounts.
pub(super) fn mounted_below(init: &Process) -> Option<&'static str> {
    let mounts = process::read(&init.folder, "mountinfo").unwrap_or_default();
    let mounts = String::from_utf8_lossy(&mounts);
    let places = || mounts.lines().filter_map(|line| line.split(' ').nth(4)?.strip_prefix('/'));
    BORROWED.into_iter().find(|name| places().any(|place| place.split('/').next() == Some(name)))
}

/// A file that everyone may read, with all below it.
fn taken(path: &Path, left: &mut usize) -> Option<Taken> {
    *left = left.checked_sub(1)?;
    let about = fs::symlink_metadata(path).ok()?;
    if about.is_symlink() {
        return fs::read_link(path).ok().map(Taken::Link);
    }
    if about.is_dir() && about.mode() & 0o005 == 0o005 {
        let entries = fs::read_dir(path).ok()?.flatten();
        return Some(Taken::Folder(
            entries.filter_map(|one| Some((one.file_name(), taken(&one.path(), left)?))).collect(),
        ));
    }
    let is_fit = about.is_file() && about.mode() & 0o004 != 0 && about.len() <= MAX_FILE;
    is_fit.then(|| fs::read(path).ok().map(Taken::File)).flatten()
}

fn put(path: &Path, taken: &Taken) -> io::Result<()> {
    match taken {
        Taken::Link(target) => symlink(target, path),
        Taken::File(contents) => fs::write(path, contents).and_then(|()| permit(path, 0o644)),
        Taken::Folder(entries) => {
            folder(path, 0o755)?;
            entries.iter().try_for_each(|(name, taken)| put(&path.join(name), taken))
        }
    }
}

/// Joins the container's cgroups, so that the holder is stopped, counted and killed with it.
fn join_cgroups(init: &Process, state: &Value) -> io::Result<()> {
    let paths =
        state["cgroup_paths"].as_object().into_iter().flat_map(|paths| paths.values()).filter_map(Value::as_str);
    for path in paths.filter(|path| !path.is_empty()) {
        let join = |folder: &Path| fs::write(folder.join("cgroup.procs"), "0");
        join(Path::new(path)).or_else(|error| {
            // A container with cgroups of its own below: its first process is in one of those.
            let all = String::from_utf8_lossy(&process::read(&init.folder, "cgroup")?).into_owned();
            let own = all.lines().find_map(|line| line.strip_prefix("0::/")).ok_or(error)?;
            join(&Path::new("/sys/fs/cgroup").join(own))
        })?;
    }
    Ok(())
}

/// Joins the container's namespaces, and makes a mount namespace that begins as its copy, and belongs to the same users.
fn join_namespaces(init: &Process) -> io::Result<()> {
    let mut others = Vec::new();
    for name in NAMESPACES {
        let path = format!("ns/{name}");
        // An old kernel does not have all of them.
        let Ok(theirs) = rustix::fs::openat(&init.folder, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        else {
            continue;
        };
        let (ours, about) = (rustix::fs::stat(format!("/proc/self/{path}"))?, rustix::fs::fstat(&theirs)?);
        if (ours.st_dev, ours.st_ino) != (about.st_dev, about.st_ino) {
            others.push((name, theirs));
        }
    }
    for (name, theirs) in &others {
        move_into_link_name_space(theirs.as_fd(), None)?;
        if *name == "user" {
            rustix::thread::set_thread_groups(&[])?;
            let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
            rustix::thread::set_thread_res_gid(gid, gid, gid)?;
            rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        }
    }
    // SAFETY: the process has a single thread.
    #[expect(unsafe_code, reason = "a mount namespace of its own")]
    unsafe {
        unshare_unsafe(UnshareFlags::NEWNS)?;
    }
    Ok(mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?)
}

/// Mounts a file system that has been described.
fn mounted(described: &OwnedFd, how: MountAttrFlags, at: &str) -> io::Result<OwnedFd> {
    fsconfig_create(described)?;
    let how = how | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = fsmount(described, FsMountFlags::FSMOUNT_CLOEXEC, how)?;
    attach(&mount, at)?;
    Ok(mount)
}

fn attach(mount: &OwnedFd, at: impl AsRef<Path>) -> io::Result<()> {
    Ok(move_mount(mount, "", CWD, at.as_ref(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// The view's root, on the container's.
fn in_memory() -> io::Result<OwnedFd> {
    let described = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&described, "mode", "755")?;
    mounted(&described, MountAttrFlags::empty(), "/")
}

/// Puts the machine's folders behind the container's.
fn lend(machine: &[Borrowed]) -> io::Result<()> {
    folder(MACHINE, 0o700)?;
    folder(Path::new(MACHINE).join(EMPTY), 0o755)?;
    for Borrowed { name, link, tree } in machine {
        let behind = format!("{MACHINE}/{name}");
        folder(&behind, 0o755)?;
        attach(tree, &behind)?;
        let own = fs::symlink_metadata(Path::new("/").join(name));
        let layers = match (own, link) {
            (Err(_), Some(link)) => {
                symlink(link, name)?;
                continue;
            }
            (Err(_), None) => format!("{behind}:{MACHINE}/{EMPTY}"),
            (Ok(own), _) if own.is_dir() => format!("/{name}:{behind}"),
            // A link into another one, or a file.
            (Ok(_), _) => continue,
        };
        folder(name, 0o755)?;
        let described = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&described, "lowerdir", &*layers)?;
        // The container's files have no say in what is seen of the machine's.
        fsconfig_set_string(&described, "redirect_dir", "nofollow")?;
        mounted(&described, MountAttrFlags::MOUNT_ATTR_RDONLY, name)?;
    }
    // Each removes an empty folder, and can remove nothing of the machine's.
    for Borrowed { name, .. } in machine {
        let behind = format!("{MACHINE}/{name}");
        unmount(&*behind, UnmountFlags::DETACH)?;
        fs::remove_dir(behind)?;
    }
    fs::remove_dir(Path::new(MACHINE).join(EMPTY))?;
    fs::remove_dir(MACHINE)
}

/// Binds what a folder of the container has and the view has not. The top folder's `etc` is the view's own.
fn bind_all(from: &Path) -> io::Result<()> {
    let to = from.strip_prefix("/").unwrap_or(from);
    for (number, entry) in fs::read_dir(from)?.enumerate() {
        let entry = entry?;
        if number == MAX_ENTRIES {
            return Err(io::Error::other(format!("{} has more than {MAX_ENTRIES} entries", from.display())));
        }
        let (there, here) = (entry.path(), to.join(entry.file_name()));
        if fs::symlink_metadata(&here).is_ok() {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            symlink(fs::read_link(there)?, here)?;
        } else if kind.is_dir() && there == Path::new("/etc") {
            folder(&here, 0o755)?;
            bind_all(&there)?;
        } else {
            if kind.is_dir() {
                folder(&here, 0o755)?
            } else {
                drop(File::create(&here)?)
            }
            let flags = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_RECURSIVE
                | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
            attach(&open_tree(CWD, &there, flags)?, &here)?;
        }
    }
    Ok(())
}

/// A folder for temporary files, where the container has none that can be written.
fn temporary() -> io::Result<()> {
    match fs::symlink_metadata("tmp") {
        Err(_) => folder("tmp", 0o1777).map_err(doing("/tmp cannot be made")),
        // A link leads where the container wants, so it is left alone.
        Ok(about) if about.is_dir() && can_only_be_read("tmp") && taken_off("tmp") && is_ours("tmp") => {
            permit("tmp", 0o1777).map_err(doing("/tmp cannot be made"))
        }
        Ok(_) => Ok(()),
    }
}

/// A home folder, and the line about it, for a user who has none that can be written.
fn home(order: &Order, passwd: &[u8]) -> io::Result<()> {
    let named = users::named(passwd, order.uid);
    let of_container = |home: &Path| {
        let place = home.strip_prefix("/").ok()?.components().next()?.as_os_str();
        let about = fs::metadata(home).ok().filter(|_| BORROWED.iter().all(|name| place != *name) && place != "etc")?;
        let (uid, gid) = (about.uid() == order.uid, about.gid() == order.gid);
        let is_writable = order.uid == 0 || uid || gid && about.mode() & 0o020 != 0 || about.mode() & 0o002 != 0;
        Some(about.is_dir() && is_writable && !can_only_be_read(home))
    };
    if named.as_ref().is_some_and(|(_, home)| of_container(Path::new(home)) == Some(true)) {
        return Ok(());
    }
    let name = named.map(|(name, _)| name).filter(|name| !name.is_empty() && !name.contains(['/', ':', '.']));
    let name = name.unwrap_or_else(|| if order.uid == 0 { "root" } else { "container" }.to_owned());
    let (above, mut home) = if name == "root" { ("", "root".to_owned()) } else { ("home", format!("home/{name}")) };
    if fs::symlink_metadata(if above.is_empty() { &home } else { above }).is_ok() {
        home = format!("home-of-{name}");
    } else if !above.is_empty() {
        folder(above, 0o755)?;
    }
    folder(&home, 0o700)?;
    chown(&home, Some(order.uid), Some(order.gid))?;
    if is_ours("etc") {
        let file = "etc/passwd";
        // The container's own has been bound there. It is not written, so its place has to be free.
        taken_off(file);
        if fs::symlink_metadata(file).is_ok() {
            fs::remove_file(file)?;
        }
        let line = format!("{name}:x:{}:{}::/{home}:/bin/bash\n", order.uid, order.gid);
        let is_root_named = order.uid == 0 || users::named(passwd, 0).is_some();
        let root = if is_root_named { "" } else { "root:x:0:0::/root:/bin/bash\n" };
        File::create_new(file)?.write_all(&[line.as_bytes(), passwd, root.as_bytes()].concat())?;
        permit(file, 0o644)?;
    }
    Ok(())
}

/// Takes off what is mounted there, and follows no link.
fn taken_off(path: &str) -> bool {
    unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok()
}

/// Reports whether a folder lies in the view's own file system.
fn is_ours(path: &str) -> bool {
    let device = |path| fs::symlink_metadata(path).ok().filter(fs::Metadata::is_dir).map(|about| about.dev());
    device(path).is_some_and(|own| Some(own) == device("."))
}

fn can_only_be_read(path: impl AsRef<Path>) -> bool {
    rustix::fs::statvfs(path.as_ref()).is_ok_and(|about| about.f_flag.contains(StatVfsMountFlags::RDONLY))
}

fn folder(path: impl AsRef<Path>, mode: u32) -> io::Result<()> {
    fs::create_dir(&path).and_then(|()| permit(path, mode))
}

fn permit(path: impl AsRef<Path>, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Makes the view's file system the root of everything, and lets go of the container's.
fn become_root() -> io::Result<()> {
    let old = process::folder(CWD, "/")?;
    pivot_root(".", ".")?;
    fchdir(&old)?;
    unmount(".", UnmountFlags::DETACH)?;
    Ok(chdir("/")?)
}
