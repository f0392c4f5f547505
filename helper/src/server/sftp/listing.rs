//! Files as a client sees them: their long names, and the whole path of a name.

use std::{
    ffi::OsStr,
    fs::{self, Metadata},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::io::Errno;

use super::wire::Refusal;
use crate::server::accounts::{List, Names};

/// The number of symbolic links in one path, as in OpenSSH.
const MAX_LINKS: usize = 33;

/// The length of a path, the NUL at its end included: PATH_MAX.
const MAX_PATH: usize = 4096;

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
    let time = time(metadata.mtime());
    let mode = String::from_utf8_lossy(&letters);
    let (links, size) = (metadata.nlink(), metadata.len());
    let mut line = format!("{kind}{mode} {links:>4} {user:<8} {group:<8} {size:>8} {time} ").into_bytes();
    line.extend_from_slice(name.as_bytes());
    line
}

/// The time of a change, as `ls` shows it: by the clock on the host's wall.
fn time(seconds: i64) -> String {
    /// Half a year: for a change that is older, the year is worth more than the time.
    const RECENT: i64 = 365 * 24 * 60 * 60 / 2;
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    let moment = broken_down(seconds);
    let month = usize::try_from(moment.tm_mon).ok().and_then(|month| MONTHS.get(month)).unwrap_or(&MONTHS[0]);
    let day = moment.tm_mday;
    if (0..RECENT).contains(&(now - seconds)) {
        format!("{month} {day:>2} {:02}:{:02}", moment.tm_hour, moment.tm_min)
    } else {
        format!("{month} {day:>2}  {}", i64::from(moment.tm_year) + 1900)
    }
}

/// The parts of a local time. A crate that knows time zones would be a tenth of the helper.
fn broken_down(seconds: i64) -> libc::tm {
    // SAFETY: all of this struct's fields are numbers or a pointer, for which zeros are a value.
    #[expect(unsafe_code, reason = "std knows no local time")]
    let mut moment: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to values that live here. This program does not change its environment, which the
    // function reads.
    #[expect(unsafe_code, reason = "std knows no local time")]
    let _ = unsafe { libc::localtime_r(&seconds, &mut moment) };
    moment
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

    use super::{super::wire::Status, real_path};

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
}
