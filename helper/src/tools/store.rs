//! The folders of tools on a machine: beside the helper, in a folder that only root may read.
//!
//! One is named by what it is made from. It is made beside its place and renamed, so it is complete or absent; one at a
//! time, because to unpack an image twice would be a waste. As long as a connection uses one, it holds a lock on it.

use std::{
    env,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use russh::keys::HashAlg;
use rustix::{
    fs::{AtFlags, CWD, FlockOperation, Timespec, Timestamps, UTIME_NOW, flock},
    io::Errno,
};

use super::{Lying, Waiting};

/// The beginning of a folder's name, and of one that is being made.
const NAME: &str = "tools-";
const UNFINISHED: &str = ".tools-";

/// The time without use after which a folder goes, as for an old helper.
const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// This program's own file.
pub(super) fn own() -> Result<PathBuf, String> {
    env::current_exe().map_err(|error| format!("the helper's own file is not known: {error}"))
}

/// The file whose time is that of the last pull that has failed.
///
/// # Errors
/// Words that say why there is no place for it.
pub(super) fn failure() -> Result<PathBuf, String> {
    Ok(own()?.with_file_name(format!("{UNFINISHED}failed")))
}

/// The folder of tools that is made from what `material` names. `is_whole` checks one that is there, and `make` fills a
/// new one.
///
/// # Errors
/// Words that say why there is none.
pub(super) fn tools(
    material: &str,
    is_whole: impl Fn(&Path) -> bool,
    waiting: Waiting<'_>,
    make: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<Lying, String> {
    let own = own()?;
    let place = own.parent().ok_or("the helper lies nowhere")?;
    let failed = |error: io::Error| format!("they cannot be put into {}: {error}", place.display());
    // Another version may make them in another way.
    let hash = HashAlg::Sha256.digest(format!("{}\n{material}", own.display()).as_bytes());
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let folder = place.join(format!("{NAME}{hash}"));
    let usable = || is_ours(&folder) && is_whole(&folder);
    if !usable() {
        let making = File::open(place).map_err(failed)?;
        if flock(&making, FlockOperation::NonBlockingLockExclusive).is_err() {
            waiting("waiting for other tools that are being made on the machine");
            rustix::io::retry_on_intr(|| flock(&making, FlockOperation::LockExclusive))
                .map_err(|e| failed(e.into()))?;
        }
        if !usable() {
            sweep(place);
            let unfinished = place.join(format!("{UNFINISHED}{}", std::process::id()));
            let made = fs::create_dir(&unfinished)
                .map_err(failed)
                .and_then(|()| make(&unfinished))
                .and_then(|()| fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o755)).map_err(failed))
                .and_then(|()| replace(&unfinished, &folder).map_err(failed));
            if made.is_err() {
                let _ = fs::remove_dir_all(&unfinished);
            }
            made?;
        }
    }
    let in_use = File::open(&folder).map_err(failed)?;
    flock(&in_use, FlockOperation::LockShared).map_err(|error| failed(error.into()))?;
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    // Its time tells only when it goes.
    let _ = rustix::fs::utimensat(CWD, &folder, &times, AtFlags::empty());
    Ok(Lying { folder, in_use: in_use.into() })
}

/// Puts a folder into its place, and removes one that is damaged.
fn replace(made: &Path, folder: &Path) -> io::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::rename(made, folder)
}

/// Reports whether a folder is one that only root can have made.
fn is_ours(folder: &Path) -> bool {
    let root = rustix::process::geteuid().as_raw();
    fs::symlink_metadata(folder).is_ok_and(|it| it.is_dir() && it.uid() == root && it.mode() & 0o022 == 0)
}

/// Removes what was not used for a week and is not in use, and what one that was killed has left. The caller is the only
/// one that makes any now.
fn sweep(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // The lock is held until the folder is gone.
        let old = || {
            let used = entry.metadata().and_then(|about| about.modified()).ok();
            let unused = used.and_then(|used| used.elapsed().ok()).is_some_and(|unused| unused > WEEK);
            let folder = File::open(entry.path()).ok().filter(|_| unused)?;
            flock(&folder, FlockOperation::NonBlockingLockExclusive).ok().map(|()| folder)
        };
        let lock = if name.starts_with(NAME) { old() } else { None };
        if name.starts_with(UNFINISHED) || lock.is_some() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Puts a copy of a file there, as a program or a library that all may use.
///
/// # Errors
/// Fails when it cannot be written.
pub(super) fn copy(source: &Path, to: &Path) -> io::Result<()> {
    make_parent(to)?;
    fs::copy(source, to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))
}

/// Makes a link, and replaces none.
///
/// # Errors
/// Fails when it cannot be made.
pub(super) fn link(target: impl AsRef<Path>, at: &Path) -> io::Result<()> {
    make_parent(at)?;
    match symlink(target, at) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::EXIST) => Ok(()),
        made => made,
    }
}

/// Makes the folders of a file, which all may enter.
fn make_parent(file: &Path) -> io::Result<()> {
    let Some(folder) = file.parent().filter(|folder| !folder.exists()) else { return Ok(()) };
    make_parent(folder)?;
    fs::create_dir(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
}

/// Reports whether two files have the same bytes.
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    let compare = || -> io::Result<bool> {
        let (mut one, mut other) = (File::open(one)?, File::open(other)?);
        let mut left = one.metadata()?.len();
        if left != other.metadata()?.len() {
            return Ok(false);
        }
        let (mut a, mut b) = (vec![0; 128 * 1024], vec![0; 128 * 1024]);
        while left > 0 {
            let part = left.min(a.len() as u64) as usize;
            one.read_exact(&mut a[..part])?;
            other.read_exact(&mut b[..part])?;
            if a[..part] != b[..part] {
                return Ok(false);
            }
            left -= part as u64;
        }
        Ok(true)
    };
    compare().unwrap_or(false)
}

/// The words that distinguish a file from what it was and from others, without reading it.
pub(super) fn identity(path: &Path) -> io::Result<String> {
    let about = fs::metadata(path)?;
    Ok(format!("{} {} {} {}.{}\n", path.display(), about.ino(), about.len(), about.mtime(), about.mtime_nsec()))
}
