//! The user's own kubeconfig, which contains our context for a while.
//!
//! The file is replaced atomically, behind symbolic links, under the lock that kubectl uses: `<file>.lock`, which
//! exists while a program writes. Our lock file contains our name, so that we recognize one that a killed run left
//! behind and can delete it. Otherwise it would lock kubectl out forever. We remember the file's earlier content. If no
//! other program has changed the file, removing our context restores that content byte for byte.

use std::{
    env,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    cluster::kubeconfig::Current,
    error::{Error, Kind, Result},
    files::{
        self,
        user_file::{Staged, UserFile},
    },
    os,
    settings::Folders,
};

use super::merge;

/// Time limit for kubectl's lock, which kubectl holds only while it writes a file.
const LOCKED: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(20);
/// The beginning of our lock files. The process id follows.
const OURS: &str = "labctl-ssh-proxy ";

/// Reports whether a file of our folder has a name that we give.
pub(crate) fn is_own(name: &str) -> bool {
    let name = name.strip_suffix(".lock").unwrap_or(name);
    name.ends_with(".yaml") || name.ends_with(MERGED) || name == GUARD
}

/// The name of the lock under which a lock that a killed run has left is deleted.
const GUARD: &str = "merge";

/// The end of the name of a context's record.
const MERGED: &str = ".merged.json";

/// Returns the files of the user's kubeconfig, which kubectl reads as one: those in KUBECONFIG, or else
/// `~/.kube/config`. The paths are absolute, because the context may be removed from another working directory.
fn chain(folders: &Folders) -> Vec<PathBuf> {
    let mut chain: Vec<PathBuf> = Vec::new();
    for named in env::split_paths(&env::var_os("KUBECONFIG").unwrap_or_default()) {
        let named = std::path::absolute(&named).unwrap_or(named);
        if !named.as_os_str().is_empty() && !chain.contains(&named) {
            chain.push(named);
        }
    }
    if chain.is_empty() { vec![folders.home.join(".kube/config")] } else { chain }
}

/// Returns the file of `chain` into which kubectl writes what is new: the first that exists, or else the last.
fn path(chain: &[PathBuf]) -> PathBuf {
    chain.iter().find(|path| path.exists()).or(chain.last()).cloned().unwrap_or_default()
}

/// kubectl's lock of a file. Dropping it deletes the lock file. We also lock the lock file itself, which the system
/// undoes if this process is killed, so that the next run recognizes the leftover.
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Takes the lock. Returns `None` while another program holds it.
    fn attempt(folders: &Folders, path: &Path) -> Result<Option<Lock>> {
        let lock = lock_path(path);
        let failed = |e: io::Error| Error::file("make", &lock, &e);
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        files::make_private_folder(folder).map_err(|e| Error::file("make", folder, &e))?;
        if fs::symlink_metadata(&lock).is_ok() && !clear(folders, &lock)? {
            return Ok(None);
        }
        files::sweep(folder);
        // Created atomically, so that the lock file always contains its owner.
        let mut file = files::temporary(folder).map_err(failed)?;
        writeln!(file, "{OURS}{}", std::process::id()).map_err(failed)?;
        match file.persist_noclobber(&lock) {
            Ok(file) => Ok(Some(Lock { path: lock, _file: file })),
            Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(e) => Err(failed(e.error)),
        }
    }

    /// Waits for the lock.
    async fn acquire(folders: &Folders, path: &Path) -> Result<Lock> {
        let limit = Instant::now() + LOCKED;
        loop {
            match Lock::attempt(folders, path)? {
                Some(lock) => return Ok(lock),
                None if Instant::now() < limit => tokio::time::sleep(RETRY).await,
                None => return Err(in_use(path)),
            }
        }
    }

    /// Waits for the lock, and blocks the thread meanwhile.
    fn acquire_now(folders: &Folders, path: &Path) -> Result<Lock> {
        let limit = Instant::now() + LOCKED;
        loop {
            match Lock::attempt(folders, path)? {
                Some(lock) => return Ok(lock),
                None if Instant::now() < limit => thread::sleep(RETRY),
                None => return Err(in_use(path)),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // If this fails, the next error about the lock names the file.
        let _ = fs::remove_file(&self.path);
    }
}

/// kubectl's lock of a file.
fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

fn in_use(path: &Path) -> Error {
    let hint =
        format!("if no kubectl is running, delete {}, which an earlier one left behind", lock_path(path).display());
    Error::new(Kind::File, format!("{} is in use", path.display())).with_hint(hint)
}

/// Deletes a lock of ours whose process was killed. Returns true if there is no lock now.
fn clear(folders: &Folders, lock: &Path) -> Result<bool> {
    // One process at a time, so that no other run replaces the lock between the check and the deletion.
    let _guard = files::Lock::acquire(&folders.kube().join(GUARD))?;
    // kubectl's lock file is empty, and not even readable.
    let text = files::read_text(lock).ok().flatten().unwrap_or_default();
    let Some(process) = text.strip_prefix(OURS) else { return Ok(!lock.exists()) };
    let runs = |file: &File| match file.try_lock() {
        Ok(()) => false,
        Err(fs::TryLockError::WouldBlock) => true,
        // There are no locks here.
        Err(fs::TryLockError::Error(_)) => process.trim().parse().is_ok_and(os::is_running),
    };
    match File::open(lock) {
        Ok(file) if runs(&file) => Ok(false),
        Ok(_) => fs::remove_file(lock).map(|()| true).map_err(|e| Error::file("delete", lock, &e)),
        Err(_) => Ok(false),
    }
}

/// The record of a context that we added.
#[derive(Serialize, Deserialize)]
struct Merged {
    /// The kubeconfig that has the context.
    path: PathBuf,
    /// The content before; `None` if the file did not exist.
    before: Option<String>,
    /// The content afterwards.
    after: String,
}

fn memory(folders: &Folders, name: &str) -> PathBuf {
    folders.kube().join(format!("{name}{MERGED}"))
}

fn text(file: &UserFile) -> Result<&str> {
    std::str::from_utf8(file.bytes())
        .map_err(|_| Error::new(Kind::File, format!("{} is not text", file.named.display())))
}

/// Returns the names of our contexts in the user's kubeconfig.
pub(crate) fn merged(folders: &Folders) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folders.kube()) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| Some(name.strip_suffix(MERGED)?.to_owned())).collect()
}

/// Reserves the context of that name for this process, so that no other run removes it.
///
/// # Errors
/// [`Kind::File`] when another `kube` has reserved it.
pub(crate) fn claim(folders: &Folders, name: &str) -> Result<files::Lock> {
    files::Lock::try_acquire(&memory(folders, name))?.ok_or_else(|| {
        Error::new(Kind::File, format!("another `kube` is using the context {name}"))
            .with_hint("stop it, or leave out --merge")
    })
}

/// Checks that a context called `name` can be added, before anything is woken for it.
///
/// # Errors
/// [`Kind::File`] when the user has something of that name, or the file cannot be edited.
pub(crate) fn check(folders: &Folders, name: &str) -> Result<()> {
    let chain = chain(folders);
    let leftover = Place::of(folders, name)?;
    for path in &chain {
        // One that cannot be read is kubectl's to complain about.
        let Ok(file) = UserFile::open(path) else { continue };
        if leftover.as_ref().is_none_or(|place| place.merged.path != *path) && has(&file, name) {
            return Err(Error::new(Kind::File, format!("{} has a context {name} of your own", path.display()))
                .with_hint(format!(
                    "rename it with `kubectl config rename-context {name} NEW`, or leave out --merge"
                )));
        }
    }
    let path = path(&chain);
    let file = UserFile::open(&path)?;
    file.check_writable()?;
    let text = match leftover {
        Some(place) if place.merged.path == path => merge::remove(text(&file)?, name)?,
        Some(_) | None => text(&file)?.to_owned(),
    };
    let any = Current { cluster: json!({}), user: json!({}), namespace: None };
    merge::add(&text, name, &any, chain.len() == 1).map(drop)
}

fn has(file: &UserFile, name: &str) -> bool {
    text(file).is_ok_and(|text| merge::has(text, name))
}

/// Adds a context called `name` to the user's kubeconfig. Returns the file's path.
///
/// # Errors
/// [`Kind::File`] when the file cannot be read, edited or written. It is then unchanged.
pub(crate) async fn add(folders: &Folders, name: &str, current: &Current) -> Result<PathBuf> {
    // Otherwise the leftover of a killed run would be remembered as the user's own content.
    take_away(folders, name).await?;
    let chain = chain(folders);
    let path = path(&chain);
    let _lock = Lock::acquire(folders, &path).await?;
    let file = UserFile::open(&path)?;
    let before = file.exists().then(|| text(&file).map(ToOwned::to_owned)).transpose()?;
    let after = merge::add(before.as_deref().unwrap_or_default(), name, current, chain.len() == 1)?;
    let memory = memory(folders, name);
    let merged = Merged { path: path.clone(), before, after: after.clone() };
    let merged = serde_json::to_vec(&merged).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
    files::write_private(&memory, &merged)?;
    if let Err(error) = file.stage(after.as_bytes()).and_then(Staged::commit) {
        // Nothing of ours is there, and what comes there later under that name is the user's.
        let _ = fs::remove_file(&memory);
        return Err(error);
    }
    Ok(path)
}

/// Returns the file in which the user has something called `name`, if it is not ours.
pub(crate) fn of_the_users(folders: &Folders, name: &str) -> Option<PathBuf> {
    chain(folders).into_iter().find(|path| UserFile::open(path).is_ok_and(|file| has(&file, name)))
}

/// Removes the context called `name`. Returns the file that had it, or `None` if there was none.
///
/// # Errors
/// As [`add`].
pub(crate) async fn take_away(folders: &Folders, name: &str) -> Result<Option<PathBuf>> {
    let Some(place) = Place::of(folders, name)? else { return Ok(None) };
    let lock = if place.exists()? { Some(Lock::acquire(folders, &place.merged.path).await?) } else { None };
    place.take_away(name, lock)
}

/// Same as [`take_away`], for callers that are not async.
///
/// # Errors
/// As [`add`].
pub(crate) fn remove(folders: &Folders, name: &str) -> Result<Option<PathBuf>> {
    let Some(place) = Place::of(folders, name)? else { return Ok(None) };
    let lock = if place.exists()? { Some(Lock::acquire_now(folders, &place.merged.path)?) } else { None };
    place.take_away(name, lock)
}

/// The location of a context of ours. Without a record there is none: what has its name is the user's.
struct Place {
    memory: PathBuf,
    merged: Merged,
}

impl Place {
    fn of(folders: &Folders, name: &str) -> Result<Option<Place>> {
        let memory = memory(folders, name);
        let Some(text) = files::read_text(&memory)? else { return Ok(None) };
        let merged = serde_json::from_str(&text).map_err(|_| {
            let hint =
                format!("delete it, and a context {name} that is not yours with `kubectl config delete-context`");
            Error::new(Kind::File, format!("{} is damaged", memory.display())).with_hint(hint)
        })?;
        Ok(Some(Place { memory, merged }))
    }

    fn exists(&self) -> Result<bool> {
        Ok(UserFile::open(&self.merged.path)?.exists())
    }

    /// Removes the context. `lock` is the file's lock, or `None` if there is no file.
    fn take_away(self, name: &str, lock: Option<Lock>) -> Result<Option<PathBuf>> {
        let Place { memory, merged: Merged { path, before, after } } = self;
        let mut removed = None;
        if lock.is_some() {
            let file = UserFile::open(&path)?;
            let now = text(&file)?;
            // As it was, if no other program has changed it since.
            let rest = if now == after { before } else { Some(merge::remove(now, name)?) };
            match &rest {
                None => file.stage(b"")?.delete()?,
                Some(rest) if rest != now => file.stage(rest.as_bytes())?.commit()?,
                Some(_) => {}
            }
            removed = Some(path).filter(|_| rest.as_deref() != Some(now));
        }
        drop(lock);
        match fs::remove_file(&memory) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::file("delete", &memory, &e)),
            Ok(()) | Err(_) => Ok(removed),
        }
    }
}

/// Removes the context of a playground that no longer exists, if a killed run left it behind.
///
/// # Errors
/// As [`add`].
pub(super) async fn forget(folders: &Folders, name: &str) -> Result<()> {
    let memory = memory(folders, name);
    if !memory.exists() && !files::lock_path(&memory).exists() {
        return Ok(());
    }
    // A `kube` that is still running removes its own context.
    let Some(_claim) = files::Lock::try_acquire(&memory)? else { return Ok(()) };
    if memory.exists() {
        take_away(folders, name).await?;
    }
    let _ = fs::remove_file(files::lock_path(&memory));
    Ok(())
}
