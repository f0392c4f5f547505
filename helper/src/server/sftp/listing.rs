//! Files as a client sees them: their long names, the names of their owners, and the whole path of a name.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, Metadata},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
    process::Command,
};

use rustix::io::Errno;

use super::wire::Refusal;

/// The number of symbolic links in one path, as in OpenSSH.
const MAX_LINKS: usize = 33;

/// The length of a path, the NUL at its end included: PATH_MAX.
const MAX_PATH: usize = 4096;

/// A list of users or of groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum List {
    Users,
    Groups,
}

/// The names of users and groups, as far as they were needed.
#[derive(Default)]
pub(super) struct Names(HashMap<(List, u32), Option<String>>);

impl Names {
    /// A user's or a group's name, if it has one.
    pub(super) fn get(&mut self, list: List, id: u32) -> Option<&str> {
        self.0.entry((list, id)).or_insert_with(|| field(list, 2, &id.to_string(), 0)).as_deref()
    }
}

/// The home folder of a user that the system knows.
pub(super) fn home_of(user: &str) -> Option<PathBuf> {
    field(List::Users, 0, user, 5).map(PathBuf::from)
}

/// A field of the entry with that key: in the file, or else by the name service, where it has a program.
fn field(list: List, key: usize, value: &str, wanted: usize) -> Option<String> {
    let name = match list {
        List::Users => "passwd",
        List::Groups => "group",
    };
    let find = |text: &str| {
        let mut entries = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let entry = entries.find(|entry| entry.get(key) == Some(&value))?;
        entry.get(wanted).map(|found| (*found).to_owned())
    };
    let from_file = fs::read(format!("/etc/{name}")).ok().and_then(|text| find(&String::from_utf8_lossy(&text)));
    from_file.or_else(|| {
        let output = Command::new("getent").args([name, "--", value]).output().ok()?;
        find(&String::from_utf8_lossy(&output.stdout))
    })
}

/// A line of `ls -l`, which older clients show.
pub(super) fn long_name(name: &OsStr, metadata: &Metadata, names: &mut Names) -> Vec<u8> {
    let kind = metadata.file_type();
    let kind = match () {
        () if kind.is_dir() => 'd',
        () if kind.is_symlink() => 'l',
        () if kind.is_fifo() => 'p',
        () if kind.is_socket() => 's',
        () if kind.is_char_device() => 'c',
        () if kind.is_block_device() => 'b',
        () => '-',
    };
    let mode = metadata.mode();
    let mut letters: Vec<u8> =
        b"rwxrwxrwx".iter().zip((0..9).rev()).map(|(c, bit)| if mode >> bit & 1 == 1 { *c } else { b'-' }).collect();
    for (bit, place, letter) in [(0o4000, 2, b's'), (0o2000, 5, b's'), (0o1000, 8, b't')] {
        if mode & bit != 0 {
            letters[place] = if letters[place] == b'x' { letter } else { letter.to_ascii_uppercase() };
        }
    }
    let mut owner = |list, id| names.get(list, id).map_or_else(|| id.to_string(), str::to_owned);
    let (user, group) = (owner(List::Users, metadata.uid()), owner(List::Groups, metadata.gid()));
    /// Half a year: for a change that is older, the year is worth more than the time.
    const RECENT: i64 = 365 * 24 * 60 * 60 / 2;
    let age = jiff::Timestamp::now().as_second() - metadata.mtime();
    let form = if (0..RECENT).contains(&age) { "%b %e %H:%M" } else { "%b %e  %Y" };
    let time = jiff::Timestamp::from_second(metadata.mtime()).unwrap_or_default().strftime(form).to_string();
    let mode = String::from_utf8_lossy(&letters);
    let (links, size) = (metadata.nlink(), metadata.len());
    let mut line = format!("{kind}{mode} {links:>4} {user:<8} {group:<8} {size:>8} {time} ").into_bytes();
    line.extend_from_slice(name.as_bytes());
    line
}

/// The absolute path without `.`, `..` and symbolic links. Its last part may be missing, like that of a file to be
/// made: OpenSSH's sftp_realpath.
pub(super) fn real_path(home: &Path, path: &[u8]) -> Result<PathBuf, Refusal> {
    let mut resolved = if path.starts_with(b"/") { PathBuf::from("/") } else { home.to_owned() };
    if path.len() >= MAX_PATH {
        return Err(Errno::NAMETOOLONG.into());
    }
    let mut left = path.to_vec();
    let mut links = 0;
    while !left.is_empty() {
        let slash = left.iter().position(|byte| *byte == b'/');
        let rest = slash.map(|at| left.split_off(at));
        let part = std::mem::replace(&mut left, rest.iter().flat_map(|rest| &rest[1..]).copied().collect());
        match &part[..] {
            b"" | b"." => continue,
            b".." => {
                resolved.pop();
                continue;
            }
            name => resolved.push(OsStr::from_bytes(name)),
        }
        match fs::symlink_metadata(&resolved) {
            Err(e) if e.raw_os_error() == Some(Errno::NOENT.raw_os_error()) && rest.is_none() => return Ok(resolved),
            Err(e) => return Err(e.into()),
            Ok(found) if found.is_symlink() => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let mut target = fs::read_link(&resolved)?.into_os_string().into_vec();
                if target.starts_with(b"/") {
                    resolved = PathBuf::from("/");
                } else {
                    resolved.pop();
                }
                if rest.is_some() {
                    target.push(b'/');
                    target.append(&mut left);
                }
                left = target;
            }
            Ok(_) => {}
        }
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::{super::wire::Status, List, Names, home_of, real_path};

    #[test]
    fn paths_are_resolved_as_openssh_does() {
        let folder = tempfile::tempdir().unwrap();
        let home = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir_all(home.join("a/b")).unwrap();
        fs::write(home.join("file"), "").unwrap();
        symlink("a/b", home.join("link")).unwrap();
        symlink("none", home.join("dangling")).unwrap();
        symlink("loop", home.join("loop")).unwrap();
        let resolve = |path: &str| real_path(&home, path.as_bytes());
        for (path, is) in [
            (".", ""),
            ("a/./b/../", "a"),
            ("link", "a/b"),
            ("link/..", "a"),
            ("link/new", "a/b/new"),
            ("dangling", "none"),
            ("file/..", ""),
            ("a//b///", "a/b"),
        ] {
            assert_eq!(resolve(path), Ok(home.join(is).components().collect()), "{path}");
        }
        assert_eq!(resolve("/.."), Ok("/".into()));
        for path in ["none/x", "none/", "dangling/x", "loop", "file/x"] {
            assert_eq!(resolve(path), Err(Status::NoSuchFile.into()), "{path}");
        }
        assert_eq!(resolve(&"x".repeat(300)), Err(Status::BadMessage.into()));
        assert_eq!(resolve("nul\0"), Err(Status::BadMessage.into()));
    }

    #[test]
    fn root_has_a_name_and_a_home() {
        assert_eq!(Names::default().get(List::Users, 0), Some("root"));
        assert_eq!(Names::default().get(List::Users, u32::MAX - 7), None);
        assert!(home_of("root").is_some());
        assert_eq!(home_of("no-such-user"), None);
    }
}
