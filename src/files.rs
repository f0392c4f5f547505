//! Files that must never be seen half-written: locked, written beside and renamed over, private from the start.

pub(crate) mod user_file;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek, Write},
    path::{Path, PathBuf},
    sync::OnceLock,
    thread,
    time::Duration,
};

use tempfile::{NamedTempFile, PersistError};

use crate::{
    error::{Error, Result},
    os,
};

/// An exclusive lock on a file beside the one it protects. The kernel releases it when the process ends, even by a
/// kill. The lock file stays, because removing it would let two holders lock two different files of one name.
///
/// Some file systems have no locks, and some folders cannot be written to. A lock keeps apart processes that seldom
/// meet, so work goes on without one: then it is not [held](Lock::is_held), and says nothing about other processes.
#[derive(Debug)]
pub struct Lock {
    /// The locked file; `None` without a lock.
    file: Option<File>,
    path: PathBuf,
}

impl Lock {
    /// Waits for the lock of `path`, `<path>.lock`. Writers hold it for milliseconds.
    ///
    /// # Errors
    /// Fails when the folder cannot be made or the lock file cannot be opened, for a reason that passes.
    pub fn acquire(path: &Path) -> Result<Lock> {
        let path = lock_path(path);
        let Some(file) = Lock::open(&path)? else { return Ok(Lock { file: None, path }) };
        let locked = loop {
            match file.lock() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => break done,
            }
        };
        let file = locked.map(|()| file).map_err(|e| goes_without(&path, &e)).ok();
        Ok(Lock { file, path })
    }

    /// The lock of `path`, or `None` when another process holds it.
    ///
    /// # Errors
    /// As [`Lock::acquire`].
    pub fn try_acquire(path: &Path) -> Result<Option<Lock>> {
        let path = lock_path(path);
        let Some(file) = Lock::open(&path)? else { return Ok(Some(Lock { file: None, path })) };
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { file: Some(file), path })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(e)) => {
                goes_without(&path, &e);
                Ok(Some(Lock { file: None, path }))
            }
        }
    }

    /// Reports whether a process holds the lock of `path`. One that tries to take it in this moment has to try again.
    pub fn is_taken(path: &Path) -> bool {
        let file = File::open(lock_path(path));
        file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
    }

    /// Opens the lock file; `None` where nothing can be written, because the writer that wants the lock finds that out
    /// as well, and says what it means.
    fn open(path: &Path) -> Result<Option<File>> {
        match open_lock(path) {
            Ok(file) => Ok(Some(file)),
            Err(e) if cannot_write(&e) => {
                log::warn!("cannot open {}: {e}; going on without a lock", path.display());
                Ok(None)
            }
            Err(e) => Err(Error::file("open", path, &e)),
        }
    }

    /// True for a lock that keeps other processes away. Without it, nothing is known about them.
    pub fn is_held(&self) -> bool {
        self.file.is_some()
    }

    /// Reports whether the lock's file is still there. If it was deleted, another process may hold a lock on its
    /// successor.
    pub fn is_there(&self) -> bool {
        let Some(file) = &self.file else { return true };
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let id = |found: fs::Metadata| (found.dev(), found.ino());
            fs::metadata(&self.path).map(id).ok() == file.metadata().map(id).ok()
        }
        #[cfg(not(unix))]
        {
            let _ = file;
            self.path.exists()
        }
    }
}

/// True for a disk that is full, or a folder or file that this user may not write to.
pub(crate) fn cannot_write(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge
            | io::ErrorKind::PermissionDenied
    )
}

/// The first lock that the system could not give, in words.
static NO_LOCKS: OnceLock<String> = OnceLock::new();

/// Notes that the file system has no locks.
fn goes_without(path: &Path, error: &io::Error) {
    let words = format!("cannot lock {}: {error}", path.display());
    log::warn!("{words}; going on without a lock");
    // One is enough.
    let _ = NO_LOCKS.set(words);
}

/// The failure of a file system that has no locks, if this process has met one.
pub(crate) fn without_locks() -> Option<&'static str> {
    NO_LOCKS.get().map(String::as_str)
}

/// The file of the lock of `path`.
pub(crate) fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

fn open_lock(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        make_private_folder(folder)?;
    }
    open_or_make(path, OpenOptions::new().read(true).write(true))
}

/// Opens a file with `options`, or makes it, 0600.
///
/// # Errors
/// Fails when it can be neither opened nor made.
pub(crate) fn open_or_make(path: &Path, options: &OpenOptions) -> io::Result<File> {
    loop {
        match options.open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        match new_file(path) {
            // Another process may have made it, and its file may be gone again when we come to it.
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_symlink() => {
                return options.clone().create(true).open(path);
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
}

/// Makes `folder` and its missing parents, 0700 whatever the umask.
///
/// # Errors
/// Fails when one of them cannot be made.
pub(crate) fn make_private_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() || folder == Path::new("") {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        make_private_folder(parent)?;
    }
    match new_folder(folder) {
        // Another process was faster.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        made => made,
    }
}

/// The contents of `path`, or `None` when there is no such file. Anything but a file is an error, because reading a
/// pipe would wait for its writer, and a device may have no end. Only the null device counts as an empty file.
///
/// # Errors
/// Fails when the file exists and cannot be read.
pub(crate) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let read = || match fs::metadata(path)? {
        found if found.is_file() || found.is_dir() => fs::read(path),
        found if os::is_null_device(&found) => Ok(Vec::new()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
    };
    let mut attempts = 1;
    loop {
        match read() {
            Ok(bytes) => return Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            // Another process replaces it just now.
            Err(e) if os::is_in_use(&e) && attempts < ATTEMPTS => {
                attempts += 1;
                thread::sleep(PAUSE);
            }
            Err(e) => return Err(e),
        }
    }
}

/// The text in `path`, or `None` when there is no such file. An unreadable file is an error, never an empty one.
///
/// # Errors
/// As [`read`], and when the file is not UTF-8.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>> {
    let text = |bytes| String::from_utf8(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.utf8_error()));
    read(path).and_then(|bytes| bytes.map(text).transpose()).map_err(|e| Error::file("read", path, &e))
}

/// Replaces a file of ours in one step, so that a reader sees the old or the new contents and a crash leaves one of
/// them. The file is 0600 from the moment it exists. Nothing is written when the contents are already there.
///
/// # Errors
/// Fails when the folder or the file cannot be written; the old contents are then still in place.
pub(crate) fn write_private(path: &Path, contents: &[u8]) -> Result<()> {
    if read(path).is_ok_and(|old| old.as_deref() == Some(contents)) {
        return Ok(());
    }
    let failed = |e: io::Error| Error::file("write", path, &e);
    let folder = folder_of(path);
    make_private_folder(folder).map_err(failed)?;
    sweep(folder);
    let mut file = temporary(folder).map_err(failed)?;
    file.write_all(contents).map_err(failed)?;
    file.as_file().sync_data().map_err(failed)?;
    match file.persist(path) {
        Ok(_) => Ok(()),
        Err(e) if is_mount_point(&e.error) => write_within(path, contents).map_err(failed),
        Err(e) => Err(failed(e.error)),
    }
}

/// Reports whether a file cannot be replaced because it is a mount point itself, as in many containers.
pub(crate) fn is_mount_point(replacing: &io::Error) -> bool {
    replacing.kind() == io::ErrorKind::ResourceBusy
}

/// Writes new contents into the file itself, for one that must not or cannot be replaced. If that fails, as on a full
/// disk, the old contents are put back.
///
/// # Errors
/// Fails when the file cannot be written.
pub(crate) fn write_within(path: &Path, contents: &[u8]) -> io::Result<()> {
    let before = fs::read(path)?;
    let mut file = OpenOptions::new().write(true).open(path)?;
    let mut put = |contents: &[u8]| {
        file.rewind()?;
        file.write_all(contents)?;
        file.set_len(contents.len() as u64)?;
        file.sync_all()
    };
    put(contents).inspect_err(|_| {
        // If that fails as well, the first reason is the one to hear.
        let _ = put(&before);
    })
}

/// The prefix of the names of our temporaries.
pub(crate) const TEMPORARY_PREFIX: &str = ".labctl-ssh-proxy-";

/// A new temporary in `folder`, 0600, to be written and renamed. It is locked as long as its writer lives, so that
/// [`sweep`] can tell it from one that a killed writer left behind.
///
/// # Errors
/// Fails when it cannot be made.
pub(crate) fn temporary(folder: &Path) -> io::Result<Temporary> {
    loop {
        let file = Temporary(tempfile::Builder::new().prefix(TEMPORARY_PREFIX).make_in(folder, new_file)?);
        match os::mark(file.as_file()) {
            // A sweep may have taken it for a leftover before it was locked.
            Ok(()) if file.0.path().try_exists()? => return Ok(file),
            Ok(()) | Err(fs::TryLockError::WouldBlock) => {}
            // Without a lock no sweep takes it, either.
            Err(fs::TryLockError::Error(_)) => return Ok(file),
        }
    }
}

/// Makes a file that was not there, 0600 whatever the umask. What root makes in another user's folder is that user's.
///
/// # Errors
/// Fails when it is there, or cannot be made.
pub(crate) fn new_file(path: &Path) -> io::Result<File> {
    os::new_private_file(path, folder_of(path))
}

/// The folder that a path is in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
}

/// A file that is deleted when this is dropped, unless it gets its final name. Its errors are the system's own: those
/// of [`NamedTempFile`] also name the temporary's path, which says nothing to the user.
#[derive(Debug)]
pub(crate) struct Temporary(NamedTempFile);

impl Temporary {
    /// The open file.
    pub(crate) fn as_file(&self) -> &File {
        self.0.as_file()
    }

    /// Gives the file its final name, in the place of another if there is one.
    ///
    /// # Errors
    /// Fails when it cannot be renamed.
    pub(crate) fn persist(mut self, path: &Path) -> Result<File, PersistError> {
        let mut attempts = 1;
        loop {
            match self.0.persist(path) {
                Err(PersistError { error, file }) if os::is_in_use(&error) && attempts < ATTEMPTS => {
                    attempts += 1;
                    thread::sleep(PAUSE);
                    self.0 = file;
                }
                done => return done,
            }
        }
    }

    /// Gives the file its final name if no other file has it.
    ///
    /// # Errors
    /// Fails when another file has the name, or it cannot be renamed.
    pub(crate) fn persist_noclobber(self, path: &Path) -> Result<File, PersistError> {
        self.0.persist_noclobber(path)
    }
}

impl Write for Temporary {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.as_file_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.as_file_mut().flush()
    }
}

/// The attempts to open or replace a file that another process has open at the moment, with pauses: half a second in
/// all, which is longer than programs read such files.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

/// The temporaries in `folder`.
pub(crate) fn temporaries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let is_temporary = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX);
    entries.flatten().filter(is_temporary).map(|entry| entry.path()).collect()
}

/// Removes the temporaries that killed writers left in `folder`. A temporary that cannot be removed does no harm.
pub(crate) fn sweep(folder: &Path) {
    let Ok(owner) = fs::metadata(folder) else { return };
    for path in temporaries(folder) {
        // Links, pipes and other users' files are not ours; they may lie in a folder that all users share.
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        let kind = found.file_type();
        if !(kind.is_file() || kind.is_dir()) || os::is_strangers(&found, &owner) {
            continue;
        }
        // Its writer holds a lock until the rename, after which the file has another name. We hold it until the file is
        // gone: a writer that has just made it finds it locked, or gone, and makes another.
        let Some(_ours) = os::abandoned(&path) else { continue };
        let _ = if kind.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
    }
}

/// A folder that is deleted when this is dropped, or in the next [`sweep`] after its maker was killed.
#[derive(Debug)]
pub(crate) struct TemporaryFolder {
    path: PathBuf,
    lock: File,
}

impl TemporaryFolder {
    /// Makes a folder in `place`, 0700.
    ///
    /// # Errors
    /// Fails when it cannot be made.
    pub(crate) fn make(place: &Path) -> io::Result<TemporaryFolder> {
        sweep(place);
        loop {
            // Another process may sweep it as a leftover before it is locked.
            let folder = match tempfile::Builder::new().prefix(TEMPORARY_PREFIX).make_in(place, new_folder) {
                Err(e) if e.kind() == io::ErrorKind::NotFound && place.is_dir() => continue,
                made => made?,
            };
            let ((), path) = folder.keep().map_err(|e| e.error)?;
            let lock = match os::open_folder(&path) {
                Ok(lock) => lock,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            let folder = TemporaryFolder { path, lock };
            // On systems that cannot lock folders it goes without a lock.
            let is_ours = !matches!(os::mark(&folder.lock), Err(fs::TryLockError::WouldBlock));
            if is_ours && folder.path.try_exists()? {
                return Ok(folder);
            }
        }
    }

    /// The path of the folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes a folder that was not there, 0700 whatever the umask. What root makes in another user's folder is that user's.
fn new_folder(path: &Path) -> io::Result<()> {
    os::new_private_folder(path, folder_of(path))
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // The next sweep takes what is left now.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Writes a shell script for a test, by another process: a process that another test starts at this moment would inherit
/// the descriptor, and Linux refuses to run a program that is open for writing.
#[cfg(all(test, unix))]
pub(crate) fn write_script(path: &Path, script: &str) {
    let write = "install -m 755 /dev/null \"$0\" && printf '#!/bin/sh\n%s\n' \"$1\" > \"$0\"";
    let mut sh = std::process::Command::new("sh");
    assert!(sh.args(["-c", write]).arg(path).arg(script).status().unwrap().success());
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::{Lock, TEMPORARY_PREFIX, read_text, temporary, write_private};

    #[test]
    fn writes_privately_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(read_text(&path).unwrap().as_deref(), Some("two"));
        #[cfg(unix)]
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions()) & 0o777,
            0o600
        );
        assert_eq!(std::fs::read_dir(folder.path().join("a")).unwrap().count(), 1, "no temporary is left");
    }

    #[test]
    fn a_leftover_is_swept_and_a_living_writers_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join(format!("{TEMPORARY_PREFIX}left"));
        std::fs::write(&left, "half").unwrap();
        let mut alive = temporary(folder.path()).unwrap();
        write_private(&folder.path().join("other"), b"x").unwrap();
        assert!(!left.exists());
        alive.write_all(b"whole").unwrap();
        alive.persist(&folder.path().join("file")).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    /// Another user may have put it into a folder that all share, and opening it would wait for ever.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_pipe_in_the_way_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join(format!("{TEMPORARY_PREFIX}pipe"));
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        super::sweep(folder.path());
        assert!(pipe.exists());
    }

    /// Windows refuses to replace a file that another program reads, and to open one that is just being replaced.
    #[test]
    fn a_file_is_read_and_replaced_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_private(&path, b"0").unwrap();
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    let text = read_text(&path).unwrap().unwrap();
                    assert!(text.parse::<u32>().is_ok(), "{text:?}");
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
            });
            for n in 0..20 {
                write_private(&path, format!("{n}").as_bytes()).unwrap();
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let reader = std::fs::File::open(&path).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(50));
                drop(reader);
            });
            write_private(&path, b"new").unwrap();
        });
        assert_eq!(read_text(&path).unwrap().as_deref(), Some("new"));
    }

    #[test]
    fn a_folder_that_a_killed_maker_left_is_swept() {
        let place = tempfile::tempdir().unwrap();
        let alive = super::TemporaryFolder::make(place.path()).unwrap();
        let left = place.path().join(format!("{TEMPORARY_PREFIX}left"));
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join("file"), "").unwrap();
        super::sweep(place.path());
        assert!(!left.exists() && alive.path().exists());
        let path = alive.path().to_owned();
        drop(alive);
        assert!(!path.exists());
    }

    #[test]
    fn a_lock_is_exclusive_and_ends_with_its_holder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let held = Lock::acquire(&path).unwrap();
        assert!(Lock::try_acquire(&path).unwrap().is_none());
        drop(held);
        // A process that another test starts at this moment holds a copy of it until it runs its program.
        let limit = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while Lock::try_acquire(&path).unwrap().is_none() {
            assert!(std::time::Instant::now() < limit, "it is held by nothing");
            std::thread::yield_now();
        }
    }

    #[test]
    fn an_unreadable_file_is_not_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read_text(folder.path()).is_err());
        assert_eq!(read_text(&folder.path().join("none")).unwrap(), None);
    }

    /// Each of them sweeps before it writes.
    #[test]
    fn a_sweep_takes_no_file_that_is_just_being_made() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let path = folder.path().join(format!("{writer}"));
                scope.spawn(move || {
                    for n in 0..300 {
                        write_private(&path, format!("{n}").as_bytes()).unwrap();
                    }
                });
            }
        });
    }
}
