//! The names of users and groups, for the host's clients.
//!
//! A container's lists are foreign: they may be of any size, and anything but files. So a list is looked at before it is
//! opened, and read up to a bound.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::File,
    io::{self, Read},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::fs::{Mode, OFlags};

/// The bytes of a list that are read. A list of a thousand users has about 60 KiB.
const MAX_LIST: u64 = 1024 * 1024;

/// The place where the names of users and groups are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accounts {
    /// This computer: `/etc/passwd`, `/etc/group` and the programs of its name service.
    Computer,
    /// A container: its files alone, because nothing of it is run unasked.
    Container,
}

/// A list of users or of groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum List {
    Users,
    Groups,
}

impl List {
    fn name(self) -> &'static str {
        match self {
            List::Users => "passwd",
            List::Groups => "group",
        }
    }
}

/// A user, as passwd(5) has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The login name.
    pub name: String,
    /// The number.
    pub id: u32,
    /// The home folder, if it is an absolute path.
    pub home: Option<PathBuf>,
    /// The login shell, if it is an absolute path.
    pub shell: Option<PathBuf>,
}

/// The users of a passwd file, in its order. What cannot be read has none.
pub fn users(passwd: &Path) -> Vec<User> {
    let text = read(passwd).unwrap_or_default();
    lines(&text).filter_map(user).collect()
}

fn user(line: &[u8]) -> Option<User> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
    let path = |at: usize| {
        let field = fields.get(at).filter(|field| field.starts_with(b"/"))?;
        Some(PathBuf::from(OsString::from_vec(field.to_vec())))
    };
    let name = std::str::from_utf8(fields[0]).ok().filter(|name| !name.is_empty())?;
    Some(User { name: name.to_owned(), id: number(fields.get(2)?)?, home: path(5), shell: path(6) })
}

/// The lines that have no NUL, which no name and no path has.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.contains(&0))
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// The beginning of a list, up to its last whole line within [`MAX_LIST`].
fn read(path: &Path) -> io::Result<Vec<u8>> {
    // This opens nothing yet: to open a pipe or a device may wait for ever, or do something.
    #[cfg(target_os = "linux")]
    {
        let found = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        if !File::from(found).metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
    }
    // It may have been replaced in between.
    let how = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, how, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = Vec::new();
    file.take(MAX_LIST).read_to_end(&mut text)?;
    if text.len() as u64 == MAX_LIST {
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        text.truncate(whole);
    }
    Ok(text)
}

/// Names by number, as far as they were needed.
pub(super) struct Names {
    accounts: Accounts,
    /// The first name of each number in the files.
    files: HashMap<List, HashMap<u32, String>>,
    /// The answers of the name service.
    service: HashMap<(List, u32), Option<String>>,
}

impl Names {
    pub(super) fn of(accounts: Accounts) -> Names {
        Names { accounts, files: HashMap::new(), service: HashMap::new() }
    }

    /// A user's or a group's name, if it has one.
    pub(super) fn get(&mut self, list: List, id: u32) -> Option<&str> {
        let file = self.files.entry(list).or_insert_with(|| {
            let text = read(&Path::new("/etc").join(list.name())).unwrap_or_default();
            let mut names = HashMap::new();
            for line in lines(&text) {
                let mut fields = line.split(|byte| *byte == b':');
                let name = fields.next().and_then(|name| std::str::from_utf8(name).ok());
                if let (Some(name), Some(id)) = (name, fields.nth(1).and_then(number)) {
                    names.entry(id).or_insert_with(|| name.to_owned());
                }
            }
            names
        });
        if let Some(name) = file.get(&id) {
            return Some(name);
        }
        match self.accounts {
            Accounts::Container => None,
            Accounts::Computer => {
                let ask = || getent(list, &id.to_string())?.split(':').next().map(str::to_owned);
                self.service.entry((list, id)).or_insert_with(ask).as_deref()
            }
        }
    }
}

impl Accounts {
    /// The home folder of a user of that name.
    pub(super) fn home_of(self, name: &str) -> Option<PathBuf> {
        let found = users(Path::new("/etc/passwd")).into_iter().find(|user| user.name == name);
        match (found, self) {
            (Some(user), _) => user.home,
            (None, Accounts::Computer) => user(getent(List::Users, name)?.as_bytes())?.home,
            (None, Accounts::Container) => None,
        }
    }
}

/// The entry that the name service has for a name or a number, where there is a program to ask it.
fn getent(list: List, key: &str) -> Option<String> {
    let output = Command::new("getent").args([list.name(), "--", key]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.lines().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write, os::unix::fs::symlink, path::Path};

    use super::{Accounts, List, MAX_LIST, Names, User, read, users};

    #[test]
    fn root_has_a_name_and_a_home() {
        let mut names = Names::of(Accounts::Computer);
        assert_eq!(names.get(List::Users, 0), Some("root"));
        assert_eq!(names.get(List::Users, u32::MAX - 7), None);
        assert!(Accounts::Computer.home_of("root").is_some());
        assert_eq!(Accounts::Computer.home_of("no-such-user"), None);
        assert_eq!(Accounts::Container.home_of("no-such-user"), None);
    }

    #[test]
    fn a_list_is_read_leniently() {
        let folder = tempfile::tempdir().unwrap();
        let passwd = folder.path().join("passwd");
        let lines = "root:x:0:0:root:/root:/bin/bash\n# x\n\nann:x:1000:1000::home:\nnul\0:x:7:7::/:/bin/sh\nb:x:9";
        fs::write(&passwd, lines).unwrap();
        let user = |name: &str, id, home: Option<&str>, shell: Option<&str>| User {
            name: name.to_owned(),
            id,
            home: home.map(Into::into),
            shell: shell.map(Into::into),
        };
        let root = user("root", 0, Some("/root"), Some("/bin/bash"));
        assert_eq!(users(&passwd), [root, user("ann", 1000, None, None), user("b", 9, None, None)]);
    }

    #[test]
    fn a_list_without_an_end_and_one_that_is_no_file_cost_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        let mut long = fs::File::create(place("long")).unwrap();
        long.write_all(&b"ann:x:1:1::/:\n".repeat(1000)).unwrap();
        // A hole, as large as the disk would have it.
        long.set_len(1 << 30).unwrap();
        assert!(read(&place("long")).unwrap().len() < MAX_LIST as usize);
        assert_eq!(users(&place("long")).len(), 1000);
        fs::write(place("many"), b"ann:x:1:1::/:\n".repeat(1_000_000)).unwrap();
        assert_eq!(users(&place("many")).len(), MAX_LIST as usize / 14);
        symlink("itself", place("itself")).unwrap();
        #[cfg(target_os = "linux")]
        rustix::fs::mknodat(rustix::fs::CWD, place("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        for none in [&place("itself"), &place("pipe"), &place("none"), folder.path(), Path::new("/dev/zero")] {
            assert!(read(none).is_err(), "{}", none.display());
        }
    }
}
