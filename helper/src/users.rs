//! Users inside a container, as Docker reads them.
//!
//! The container's own passwd and group files are read through its root, from which no link of theirs leads out. They are
//! foreign: only regular files are read, 1 MiB at most, and what is behind that does not count.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};
use serde_json::{Map, Value, json};

use crate::{
    text,
    wire::{CONTAINER_USER, Refusal, RefusalKind},
};

/// The part of a file that counts.
const MAX_FILE: u64 = 1024 * 1024;

/// The files of users and of groups.
const FILES: [&str; 2] = ["etc/passwd", "etc/group"];

/// Largest number of a user and of a group that Docker accepts.
const MAX_ID: u32 = i32::MAX as u32;

/// Makes `process`, the configuration of the container's own process, one of `user`.
///
/// # Errors
/// Fails when the container has no such user.
pub(crate) fn set(
    process: &mut Map<String, Value>,
    user: &str,
    group_add: &[String],
    init: &OwnedFd,
    container: &str,
) -> Result<(), Refusal> {
    let root = root(init);
    for path in FILES {
        let opened = root.as_ref().ok().and_then(|root| found(root, path).ok());
        if opened.is_some_and(|file| kind(&file) == Some(FileType::Fifo)) {
            return Err(holds_up(container, path));
        }
    }
    if user == CONTAINER_USER {
        return Ok(());
    }
    let file = |path| root.as_ref().map_or_else(|_| Vec::new(), |root| inside(root, path).unwrap_or_default());
    let user =
        find(user, group_add, &file("etc/passwd"), &file("etc/group")).map_err(|why| refused(container, user, &why))?;
    // podman has the file mode mask here.
    let umask = process.get("user").and_then(|own| own.get("umask")).cloned();
    let mut user = json!({ "uid": user.uid, "gid": user.gid, "additionalGids": user.groups });
    if let Some(umask) = umask {
        user["umask"] = umask;
    }
    process.insert("user".to_owned(), user);
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
struct User {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

/// The user, by Docker's rules for `docker exec --user`: a number is always a uid, and needs no entry. `root` needs none
/// either, because a container of one program has no passwd file. Since 20.10.18, Docker counts the user's group among
/// the additional ones, so that a process cannot be in fewer groups than it says.
fn find(user: &str, group_add: &[String], passwd: &[u8], group: &[u8]) -> Result<User, String> {
    let number = user.parse::<u32>().ok().filter(|_| user.bytes().all(|b| b.is_ascii_digit()));
    if number.is_some_and(|number| number > MAX_ID) || (number.is_none() && user.bytes().all(|b| b.is_ascii_digit())) {
        return Err(format!("its number is above {MAX_ID}"));
    }
    let entry = lines(passwd).filter_map(|fields| {
        let uid = id(fields.get(2)?)?;
        let fits = number.map_or(fields[0] == user.as_bytes(), |number| number == uid);
        fits.then_some((fields[0], uid, id(fields.get(3)?)?))
    });
    let entry = entry.into_iter().next();
    let (name, uid, gid) = match (entry, number) {
        (Some((name, uid, gid)), _) => (Some(name), uid, gid),
        (None, Some(number)) => (None, number, 0),
        (None, None) if user == "root" => (None, 0, 0),
        (None, None) => return Err("its `/etc/passwd` has no such line".to_owned()),
    };
    let mut groups = vec![gid];
    for fields in lines(group) {
        let Some(gid) = fields.get(2).and_then(|gid| id(gid)) else { continue };
        let members = fields.get(3).copied().unwrap_or_default();
        let has_user = name.is_some_and(|name| members.split(|&byte| byte == b',').any(|member| member == name));
        if has_user {
            groups.push(gid);
        }
    }
    for wanted in group_add {
        let by_name = lines(group).find(|fields| fields[0] == wanted.as_bytes()).and_then(|fields| id(fields.get(2)?));
        groups.extend(by_name.or_else(|| id(wanted.as_bytes())));
    }
    Ok(User { uid, gid, groups })
}

/// The fields of each line. Docker has no comments in these files, and reads a number that is none as 0, which would
/// make a user of a broken line root: here, such a line does not count.
fn lines(file: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    let lines = file.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| !line.is_empty()).map(|line| line.splitn(8, |&byte| byte == b':').collect())
}

fn id(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|&id| id <= MAX_ID)
}

/// The root folder of a container, whose first process has this folder.
pub(crate) fn root(init: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(init, "root", flags, Mode::empty())?)
}

/// The file of users in a container, or nothing.
pub(crate) fn passwd(root: &OwnedFd) -> Vec<u8> {
    inside(root, FILES[0]).unwrap_or_default()
}

/// The name and the home folder of the first user with this number.
pub(crate) fn named(passwd: &[u8], uid: u32) -> Option<(String, String)> {
    let mut lines = lines(passwd).filter(|fields| fields.get(2).and_then(|field| id(field)) == Some(uid));
    let fields = lines.next()?;
    let text = |n: usize| Some(std::str::from_utf8(fields.get(n)?).ok()?.to_owned());
    Some((text(0)?, text(5)?))
}

/// A file in a container, which is not opened yet.
pub(crate) fn found(root: &OwnedFd, path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        // Linux before 5.6: no link is followed, at any part of the path.
        Err(Errno::NOSYS) => without_links(root, path),
        found => Ok(found?),
    }
}

fn kind(file: &OwnedFd) -> Option<FileType> {
    rustix::fs::fstat(file).ok().map(|stat| FileType::from_raw_mode(stat.st_mode))
}

/// The beginning of a regular file in a container.
fn inside(root: &OwnedFd, path: &str) -> io::Result<Vec<u8>> {
    let found = found(root, path)?;
    // A device or a pipe must not be opened, so it is looked at before.
    if kind(&found) != Some(FileType::RegularFile) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))?.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn without_links(root: &OwnedFd, path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = rustix::fs::openat(root, ".", flags, Mode::empty())?;
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        if part == ".." {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        at = rustix::fs::openat(&at, part, flags, Mode::empty())?;
    }
    Ok(at)
}

/// The refusal of a container in which runc would wait for ever, because it opens these files itself.
fn holds_up(container: &str, path: &str) -> Refusal {
    let container = text::line(container);
    let message =
        format!("container {container} cannot be entered: its `/{path}` is a pipe, for which runc would wait");
    Refusal::new(RefusalKind::Impossible, message)
        .with_hint("a program in the container has put it there; a new container of the same image has none")
}

fn refused(container: &str, user: &str, why: &str) -> Refusal {
    let message = format!("container {container} has no user `{}`: {why}", text::line(user));
    Refusal::new(RefusalKind::NotFound, message).with_hint(format!(
        "log in as `{CONTAINER_USER}`, which is the container's own user, or with a number: `1000@`"
    ))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use proptest::prelude::*;

    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n# note\n\napp:x:1000:1001::/home/app:\nbad:x:y:1::/:\n \
        twin:x:7:8::/:\ntwin:x:9:9::/:\n1000:x:5:5::/:\n";
    const GROUP: &[u8] = b"root:x:0:\nwheel:x:10:app,root\nvideo:x:44:app\nbroken\nx:x:z:app\n";

    fn user(uid: u32, gid: u32, groups: &[u32]) -> Result<User, String> {
        Ok(User { uid, gid, groups: groups.to_vec() })
    }

    #[test]
    fn users_are_read_by_dockers_rules() {
        for (name, expected) in [
            ("root", user(0, 0, &[0, 10])),
            ("0", user(0, 0, &[0, 10])),
            ("app", user(1000, 1001, &[1001, 10, 44])),
            ("1000", user(1000, 1001, &[1001, 10, 44])),
            ("65532", user(65532, 0, &[0])),
            ("twin", user(7, 8, &[8])),
        ] {
            assert_eq!(find(name, &[], PASSWD, GROUP), expected, "{name}");
        }
        assert_eq!(find("root", &[], b"", b""), user(0, 0, &[0]));
        assert!(find("bad", &[], PASSWD, GROUP).unwrap_err().contains("no such line"));
        assert!(find("nemo", &[], b"", b"").is_err());
        for number in ["2147483648", "99999999999"] {
            assert!(find(number, &[], PASSWD, GROUP).unwrap_err().contains("above"), "{number}");
        }
        assert_eq!(find("2147483647", &[], b"", b"").unwrap().uid, MAX_ID);
    }

    #[test]
    fn a_number_has_a_name_and_a_home() {
        let both = |name: &str, home: &str| Some((name.to_owned(), home.to_owned()));
        assert_eq!(named(PASSWD, 1000), both("app", "/home/app"));
        assert_eq!(named(PASSWD, 5), both("1000", "/"));
        assert_eq!(named(PASSWD, 2), None);
        assert_eq!(named(b"short:x:3\n\xff:x:4:4::/:\n", 3), None);
        assert_eq!(named(b"short:x:3\n\xff:x:4:4::/:\n", 4), None);
    }

    #[test]
    fn groups_that_the_container_was_made_with_count() {
        let added = ["video".to_owned(), "77".to_owned(), "none".to_owned()];
        assert_eq!(find("5000", &added, PASSWD, GROUP), user(5000, 0, &[0, 44, 77]));
    }

    #[test]
    fn a_pipe_in_the_place_of_a_file_is_refused_for_each_user() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("root/etc")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, folder.path().join("root/pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let process = rustix::fs::open(folder.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let set = |user| set(&mut Map::new(), user, &[], &process, "web");
        assert!(set("container").is_ok() && set("root").is_ok());
        symlink("/pipe", folder.path().join("root/etc/group")).unwrap();
        for user in ["container", "root"] {
            let refusal = set(user).unwrap_err();
            assert!(refusal.message.contains("its `/etc/group` is a pipe"), "{refusal:?}");
        }
    }

    #[test]
    fn only_regular_files_inside_the_root_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir_all(folder.path().join("etc")).unwrap();
        fs::write(folder.path().join("etc/passwd"), "outside").unwrap();
        let opened = rustix::fs::open(&root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let passwd = root.join("etc/passwd");
        assert!(inside(&opened, "etc/passwd").is_err());

        fs::write(&passwd, vec![b'x'; 2 * 1024 * 1024]).unwrap();
        assert_eq!(inside(&opened, "etc/passwd").unwrap().len() as u64, MAX_FILE);
        for path in ["etc/passwd", "/etc/passwd", "/etc//./passwd"] {
            assert!(without_links(&opened, path).is_ok(), "{path}");
        }
        assert!(without_links(&opened, "/../etc/passwd").is_err());

        for link in ["../../etc/passwd", "/etc/passwd"] {
            fs::remove_file(&passwd).unwrap();
            symlink(link, &passwd).unwrap();
            assert!(inside(&opened, "etc/passwd").is_err(), "{link}");
        }
        fs::write(root.join("elsewhere"), "inside").unwrap();
        fs::remove_file(&passwd).unwrap();
        symlink("/elsewhere", &passwd).unwrap();
        assert_eq!(inside(&opened, "etc/passwd").unwrap(), b"inside");
        let unfollowed = without_links(&opened, "etc/passwd").unwrap();
        assert!(rustix::fs::fstat(&unfollowed).unwrap().st_mode & 0o170_000 == 0o120_000);

        fs::remove_file(&passwd).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &passwd, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(inside(&opened, "etc/passwd").is_err());
        fs::remove_file(&passwd).unwrap();
        fs::create_dir(&passwd).unwrap();
        assert!(inside(&opened, "etc/passwd").is_err());
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic(
            name in "[a-z0-9]{0,12}",
            passwd in proptest::collection::vec(prop_oneof![Just(b':'), Just(b'\n'), Just(b'0'), any::<u8>()], 0..200),
        ) {
            let found = find(&name, std::slice::from_ref(&name), &passwd, &passwd);
            prop_assert!(found.is_err() || found.is_ok_and(|user| user.uid <= MAX_ID && user.gid <= MAX_ID));
        }
    }
}
