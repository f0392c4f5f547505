//! The user's own kubeconfig, with a context of ours in it for a while.
//!
//! The file is replaced in one step, where it really lies, under the lock that kubectl takes for the same purpose:
//! `<file>.lock`, which is there as long as somebody writes; ours says that it is ours, so that one that a killed run left
//! is known, and kubectl is not kept out for good. What was in the file before is kept beside our own; while
//! nobody else has changed it, taking our context away restores it byte for byte.

use std::{
    env,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Kind, Result},
    files::{self, user_file::UserFile},
    settings::Folders,
};

use super::{config::Current, merge};

/// kubectl holds its lock for as long as it takes to write a file.
const LOCKED: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(20);
/// How a lock of ours begins; the process's number follows.
const OURS: &str = "labctl-ssh-proxy ";

/// The folder of our kubeconfigs, and of what is remembered of the user's.
pub fn folder(folders: &Folders) -> PathBuf {
    folders.root.join("kube")
}

/// The end of the name of a file that remembers a context.
const MERGED: &str = ".merged.json";

/// The user's kubeconfig: the first that KUBECONFIG names, else `~/.kube/config`. Absolute: what is merged into it may be
/// taken away from another folder.
pub fn path(folders: &Folders) -> PathBuf {
    let named = env::var_os("KUBECONFIG").unwrap_or_default();
    let named = env::split_paths(&named).find(|path| !path.as_os_str().is_empty());
    named.map_or_else(|| folders.home.join(".kube/config"), |path| std::path::absolute(&path).unwrap_or(path))
}

/// kubectl's lock of a file. It goes when this is dropped; the system lets go of the file when this process is killed, and
/// thereby the next of us knows.
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// The lock; `None` while another program has it.
    fn attempt(folders: &Folders, path: &Path) -> Result<Option<Lock>> {
        let lock = lock_path(path);
        let failed = |e: io::Error| Error::file("make", &lock, &e);
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        files::make_private_folder(folder).map_err(|e| Error::file("make", folder, &e))?;
        if fs::symlink_metadata(&lock).is_ok() && !clear(folders, &lock)? {
            return Ok(None);
        }
        files::sweep(folder);
        // Put there in one step, so that it says whose it is as long as it is there.
        let mut file = files::temporary(folder).map_err(failed)?;
        writeln!(file, "{OURS}{}", std::process::id()).map_err(failed)?;
        match file.persist_noclobber(&lock) {
            Ok(file) => Ok(Some(Lock { path: lock, _file: file })),
            Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(e) => Err(failed(e.error)),
        }
    }

    /// Waits for it.
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

    /// Waits for it, and nothing else can happen meanwhile.
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
        // A lock that stays is named in the error of whoever finds it.
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
    let hint = format!("if no kubectl is running, delete {}, which one left behind", lock_path(path).display());
    Error::new(Kind::File, format!("{} is in use", path.display())).with_hint(hint)
}

/// Takes away a lock that is ours and whose maker was killed; whether there is none now.
fn clear(folders: &Folders, lock: &Path) -> Result<bool> {
    // One at a time: between the look and the end of it nobody of us puts another in its place.
    let _guard = files::Lock::acquire(&folder(folders).join("merge"))?;
    // kubectl's is empty, and not even readable.
    if !fs::read_to_string(lock).is_ok_and(|text| text.starts_with(OURS)) {
        return Ok(!lock.exists());
    }
    match File::open(lock) {
        Ok(file) if file.try_lock().is_err() => Ok(false),
        Ok(_) => fs::remove_file(lock).map(|()| true).map_err(|e| Error::file("delete", lock, &e)),
        Err(_) => Ok(false),
    }
}

/// What is remembered of a context of ours.
#[derive(Serialize, Deserialize)]
struct Merged {
    /// The file it is in.
    path: PathBuf,
    /// What was in it before; `None` when there was no file.
    before: Option<String>,
    /// What was in it afterwards.
    after: String,
}

fn memory(folders: &Folders, name: &str) -> PathBuf {
    folder(folders).join(format!("{name}{MERGED}"))
}

fn text(file: &UserFile) -> Result<&str> {
    std::str::from_utf8(file.bytes())
        .map_err(|_| Error::new(Kind::File, format!("{} is not text", file.named.display())))
}

/// The contexts of ours that are in the user's kubeconfig.
pub fn merged(folders: &Folders) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder(folders)) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| Some(name.strip_suffix(MERGED)?.to_owned())).collect()
}

/// Makes a context of that name this process's own, so that no other takes it away at its end.
///
/// # Errors
/// [`Kind::File`] when another `kube` has it.
pub fn claim(folders: &Folders, name: &str) -> Result<files::Lock> {
    files::Lock::try_acquire(&memory(folders, name))?.ok_or_else(|| {
        Error::new(Kind::File, format!("another `kube` has the context {name}"))
            .with_hint("end it, or leave out --merge")
    })
}

/// Adds a context called `name` to the user's kubeconfig; gives the file.
///
/// # Errors
/// [`Kind::File`] when that cannot be read, edited or written; it is then as it was.
pub async fn add(folders: &Folders, name: &str, current: &Current) -> Result<PathBuf> {
    // One that a killed run left would be taken for the user's own.
    take_away(folders, name).await?;
    let path = path(folders);
    let _lock = Lock::acquire(folders, &path).await?;
    let file = UserFile::open(&path)?;
    let before = file.exists().then(|| text(&file).map(ToOwned::to_owned)).transpose()?;
    let after = merge::add(before.as_deref().unwrap_or_default(), name, current)?;
    let memory = memory(folders, name);
    let merged = Merged { path: path.clone(), before, after: after.clone() };
    let merged = serde_json::to_vec(&merged).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
    files::write_private(&memory, &merged)?;
    file.stage(after.as_bytes())?.commit()?;
    Ok(path)
}

/// Takes the context called `name` away; `None` when there was none, else the file it was in.
///
/// # Errors
/// As [`add`].
pub async fn take_away(folders: &Folders, name: &str) -> Result<Option<PathBuf>> {
    let place = Place::of(folders, name)?;
    let lock = if place.exists()? { Some(Lock::acquire(folders, &place.path).await?) } else { None };
    place.take_away(name, lock)
}

/// The same, for those who cannot wait otherwise.
///
/// # Errors
/// As [`add`].
pub fn remove(folders: &Folders, name: &str) -> Result<Option<PathBuf>> {
    let place = Place::of(folders, name)?;
    let lock = if place.exists()? { Some(Lock::acquire_now(folders, &place.path)?) } else { None };
    place.take_away(name, lock)
}

/// Where a context of ours is, as far as that is known.
struct Place {
    memory: PathBuf,
    merged: Option<Merged>,
    path: PathBuf,
}

impl Place {
    fn of(folders: &Folders, name: &str) -> Result<Place> {
        let memory = memory(folders, name);
        let merged: Option<Merged> = files::read_text(&memory)?.and_then(|text| serde_json::from_str(&text).ok());
        let path = merged.as_ref().map_or_else(|| path(folders), |merged| merged.path.clone());
        Ok(Place { memory, merged, path })
    }

    fn exists(&self) -> Result<bool> {
        Ok(UserFile::open(&self.path)?.exists())
    }

    /// Under the file's lock, where there is a file.
    fn take_away(self, name: &str, lock: Option<Lock>) -> Result<Option<PathBuf>> {
        let Place { memory, merged, path } = self;
        let mut removed = None;
        if lock.is_some() {
            let file = UserFile::open(&path)?;
            let now = text(&file)?;
            match merged {
                Some(Merged { before: None, after, .. }) if now == after => {
                    file.stage(b"")?.delete()?;
                    removed = Some(path);
                }
                Some(Merged { before: Some(before), after, .. }) if now == after => {
                    file.stage(before.as_bytes())?.commit()?;
                    removed = Some(path);
                }
                Some(_) | None => {
                    let after = merge::remove(now, name)?;
                    if after != now {
                        file.stage(after.as_bytes())?.commit()?;
                        removed = Some(path);
                    }
                }
            }
        }
        drop(lock);
        match fs::remove_file(&memory) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::file("delete", &memory, &e)),
            Ok(()) | Err(_) => Ok(removed),
        }
    }
}

/// Forgets a playground that is gone: its context, if a killed run left that.
///
/// # Errors
/// As [`add`].
pub(super) async fn forget(folders: &Folders, name: &str) -> Result<()> {
    let memory = memory(folders, name);
    if !memory.exists() && !files::lock_path(&memory).exists() {
        return Ok(());
    }
    // A `kube` that still runs takes its own away.
    let Some(_claim) = files::Lock::try_acquire(&memory)? else { return Ok(()) };
    if memory.exists() {
        take_away(folders, name).await?;
    }
    let _ = fs::remove_file(files::lock_path(&memory));
    Ok(())
}
