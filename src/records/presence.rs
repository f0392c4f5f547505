//! Files that exist as long as their process does. Each is named after its process, and held by a lock, which the kernel
//! releases even when the process is killed; what such a process leaves is swept.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    error::Result,
    files::{Lock, lock_path},
    os,
};

/// The file of this process, removed when it is dropped. Its owner writes it.
pub(super) struct Presence {
    path: PathBuf,
    _lock: Lock,
}

impl Presence {
    /// Chooses a name in `folder` that was never used, and holds it.
    ///
    /// # Errors
    /// Fails when the folder cannot be made or the lock file cannot be opened.
    pub(super) fn begin(folder: &Path) -> Result<Presence> {
        all(folder);
        let path = folder.join(format!("{}-{:x}.json", std::process::id(), fastrand::u32(..)));
        let lock = loop {
            let lock = Lock::acquire(&path)?;
            // Another process may have swept it as a leftover before it was locked.
            if lock.is_there() {
                break lock;
            }
        };
        Ok(Presence { path, _lock: lock })
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Removes a file and its lock. The lock's file may go, too, because its name is never used again.
fn remove(path: &Path) {
    for path in [path.to_owned(), lock_path(path)] {
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            log::warn!("cannot remove {}: {error}", path.display());
        }
    }
}

/// The number of the process in the name of its file.
pub(super) fn pid_of(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.split_once('-')?.0.parse().ok()
}

/// Reports whether a file of the folder has a name that we give: the process and a number.
pub(super) fn is_own(name: &str) -> bool {
    let name = name.strip_suffix(".lock").unwrap_or(name).strip_suffix(".json").unwrap_or_default();
    let number = |text: &str, radix| !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
    name.split_once('-').is_some_and(|(process, random)| number(process, 10) && number(random, 16))
}

/// The files of the running processes. Those of killed ones are removed.
pub(super) fn all(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    // A killed process may have left nothing but a lock.
    let file = |path: PathBuf| match path.extension()?.to_str()? {
        "json" => Some(path),
        "lock" => Some(path.with_extension("")),
        _ => None,
    };
    let entries = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_own));
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| file(entry.path())).collect();
    paths.sort_unstable();
    paths.dedup();
    paths.retain(|path| match Lock::try_acquire(path) {
        // Without locks, a process counts as running for as long as there is one of its number.
        Ok(Some(free)) if !free.is_held() && pid_of(path).is_some_and(os::is_running) => true,
        Ok(Some(_free)) => {
            remove(path);
            false
        }
        Ok(None) | Err(_) => true,
    });
    paths
}
