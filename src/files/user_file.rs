//! The user's own file: found through links, checked, and replaced in one step where it really lies.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Kind, Result},
    files::{self, Temporary, make_private_folder, temporary},
    os,
};
use similar::TextDiff;

/// A configuration file as it was found.
pub(crate) struct UserFile {
    /// The path by which the user calls it.
    pub named: PathBuf,
    /// The place where it really lies: at the end of the links, even if there is no file yet.
    target: PathBuf,
    contents: Option<(Vec<u8>, Metadata)>,
}

impl UserFile {
    /// Reads the file. A missing file is no error; an unreadable one is.
    ///
    /// # Errors
    /// [`Kind::File`] for a link that leads nowhere near an end, something other than a file, and an unreadable one.
    pub(crate) fn open(named: &Path) -> Result<UserFile> {
        let target = follow(named)?;
        let failed =
            |e: io::Error| Error::file("read", named, &e).with_hint("nothing was changed; check its owner and mode");
        let contents = match fs::metadata(&target) {
            Ok(metadata) if !metadata.is_file() => {
                return Err(Error::new(Kind::File, format!("{} is not a regular file", named.display())));
            }
            Ok(metadata) => Some((fs::read(&target).map_err(failed)?, metadata)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(failed(e)),
        };
        Ok(UserFile { named: named.to_owned(), target, contents })
    }

    /// Reports whether there is such a file.
    pub(crate) fn exists(&self) -> bool {
        self.contents.is_some()
    }

    /// The contents; empty when there is no such file.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.contents.as_ref().map_or(&[], |(bytes, _)| bytes)
    }

    /// Reports whether the file is still as it was read: in the same place, with the same contents, mode and owner.
    ///
    /// # Errors
    /// As [`UserFile::open`].
    pub(crate) fn is_unchanged(&self) -> Result<bool> {
        let now = UserFile::open(&self.named)?;
        let seen = |file: &UserFile| {
            file.contents.as_ref().map(|(bytes, found)| (bytes.clone(), found.permissions(), os::owner(found)))
        };
        Ok(self.target == now.target && seen(self) == seen(&now))
    }

    /// Checks that ssh itself would take the file, by its mode and owner, because it stops at every call when others
    /// can write it. Returns a warning where that depends on the build: some allow a group's write access.
    ///
    /// # Errors
    /// [`Kind::File`] with a remedy.
    #[cfg(unix)]
    pub(crate) fn check_trusted(&self) -> Result<Option<String>> {
        use std::os::unix::fs::MetadataExt;
        let Some((_, metadata)) = &self.contents else { return Ok(None) };
        let refuse = |why: &str, hint: &str| {
            Err(Error::new(Kind::File, format!("ssh refuses {}: {why}", self.named.display())).with_hint(hint))
        };
        let user = rustix::process::geteuid();
        if !user.is_root() && metadata.uid() != 0 && metadata.uid() != user.as_raw() {
            return refuse("another user owns it", "make yourself its owner with chown");
        }
        if metadata.mode() & 0o002 != 0 {
            return refuse("every user can write to it", &format!("run `chmod go-w {}`", self.named.display()));
        }
        let group = metadata.mode() & 0o020 != 0;
        Ok(group.then(|| format!("a group can write to {}, which many builds of ssh refuse", self.named.display())))
    }

    /// Checks nothing, because ssh for Windows does not go by modes and owners here.
    #[cfg(not(unix))]
    pub(crate) fn check_trusted(&self) -> Result<Option<String>> {
        Ok(None)
    }

    /// Locks the folder of the file against other writers, even those whose own folder is another one. Best effort:
    /// some file systems have no such locks, and then only writers that share our folder wait for each other.
    pub(crate) fn lock_folder(&self) -> Option<File> {
        let folder = File::open(self.folder()).ok()?;
        folder.lock().ok()?;
        Some(folder)
    }

    /// Removes the temporaries that a killed run left beside the file.
    pub(crate) fn sweep(&self) {
        files::sweep(self.folder());
    }

    /// Writes `contents` beside the file, as a file like it, ready to take its place. A file that cannot be replaced by
    /// one like it is written itself later: one with several names, one of whose owner or attributes we cannot make
    /// another, and one in a folder that cannot be written.
    ///
    /// # Errors
    /// [`Kind::File`] when the file or its folder is read-only, the disk is full and so on; then nothing is left.
    pub(crate) fn stage(&self, contents: &[u8]) -> Result<Staged> {
        let failed = |e: io::Error| {
            Error::file("write", &self.named, &e)
                .with_hint("nothing was changed; make the file and its folder writable")
        };
        self.check_writable()?;
        if self.contents.is_none() && self.target == self.named {
            make_private_folder(self.folder()).map_err(failed)?;
        }
        let file = match &self.contents {
            Some((_, found)) if os::links(found) > 1 => None,
            _ => match temporary(self.folder()) {
                Ok(file) => Some(file),
                Err(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem && self.exists() => None,
                Err(e) => return Err(failed(e)),
            },
        };
        let file = match file {
            Some(mut file) => {
                file.write_all(contents).map_err(failed)?;
                let alike = |(_, found): &(_, Metadata)| os::make_alike(file.as_file(), &self.target, found).is_ok();
                let is_alike = self.contents.as_ref().is_none_or(alike);
                file.as_file().sync_all().map_err(failed)?;
                Some(file).filter(|_| is_alike)
            }
            None => None,
        };
        let before = self.contents.as_ref().map(|(bytes, _)| bytes.clone());
        let contents = contents.to_owned();
        Ok(Staged { file, contents, before, target: self.target.clone(), named: self.named.clone() })
    }

    /// Checks that the file, if there is one, may be written.
    ///
    /// # Errors
    /// [`Kind::File`] when it is read-only.
    pub(crate) fn check_writable(&self) -> Result<()> {
        let Some((_, found)) = &self.contents else { return Ok(()) };
        // A rename would replace a read-only file without a question, and root may write any file, but its owner meant
        // it.
        let writable = match found.permissions().readonly() {
            true => Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is read-only")),
            false => OpenOptions::new().write(true).open(&self.target).map(drop),
        };
        writable.map_err(|e| {
            Error::file("write", &self.named, &e)
                .with_hint("nothing was changed; make the file and its folder writable")
        })
    }

    /// Keeps the contents from before the first edit in `folder`, one of our own, where no pattern of the user's finds
    /// them: ssh reads whatever an Include matches. A backup that exists stays.
    ///
    /// # Errors
    /// [`Kind::File`] when it cannot be written.
    pub(crate) fn back_up(&self, folder: &Path) -> Result<Option<PathBuf>> {
        let Some((bytes, _)) = &self.contents else { return Ok(None) };
        let backup = self.backup_path(folder);
        let write = || {
            if fs::symlink_metadata(&backup).is_ok() {
                return Ok(None);
            }
            make_private_folder(folder)?;
            let mut file = temporary(folder)?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist_noclobber(&backup).map_err(|e| e.error)?;
            Ok(Some(backup.clone()))
        };
        write().map_err(|e| Error::file("keep a backup as", &backup, &e))
    }

    /// The path of the backup in `folder`: that of the file, in one name.
    pub(crate) fn backup_path(&self, folder: &Path) -> PathBuf {
        /// Of the 255 bytes that a name may have.
        const LONGEST: usize = 200;
        let path = self.named.display().to_string().replace('%', "%%").replace(['/', '\\', ':'], "%");
        if path.len() <= LONGEST {
            return folder.join(path);
        }
        let hash = ring::digest::digest(&ring::digest::SHA256, path.as_bytes());
        let hash: String = hash.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let end = path.char_indices().map(|(at, _)| at).find(|at| path.len() - at <= LONGEST / 2).unwrap_or(0);
        folder.join(format!("{hash}{}", &path[end..]))
    }

    /// The backup that an earlier version has kept beside the file, if there is one.
    pub(crate) fn earlier_backup(&self) -> Option<PathBuf> {
        let mut name = self.named.as_os_str().to_owned();
        name.push(".labctl-ssh-proxy.backup");
        Some(PathBuf::from(name)).filter(|path| fs::symlink_metadata(path).is_ok())
    }

    /// Moves the backup of an earlier version to its place in `folder`. Returns both paths, if there was one.
    ///
    /// # Errors
    /// [`Kind::File`] when it cannot be moved.
    pub(crate) fn adopt_backup(&self, folder: &Path) -> Result<Option<(PathBuf, PathBuf)>> {
        let Some(from) = self.earlier_backup() else { return Ok(None) };
        let to = self.backup_path(folder);
        let moved = || {
            if let Some(bytes) = files::read(&from)? {
                make_private_folder(folder)?;
                let mut file = temporary(folder)?;
                file.write_all(&bytes)?;
                file.as_file().sync_all()?;
                match file.persist_noclobber(&to) {
                    Err(e) if e.error.kind() != io::ErrorKind::AlreadyExists => return Err(e.error),
                    // The newer one may be of a text that this one already preceded, so it gives way.
                    Err(e) => drop(e.file.persist(&to).map_err(|e| e.error)?),
                    Ok(_) => {}
                }
            }
            fs::remove_file(&from)
        };
        moved().map_err(|e| Error::file("move the backup", &from, &e))?;
        Ok(Some((from, to)))
    }

    /// Deletes a backup that was made for an edit that failed.
    pub(crate) fn discard_backup(backup: Option<PathBuf>) {
        let Some(backup) = backup else { return };
        // One that cannot be deleted does no harm.
        let _ = fs::remove_file(&backup);
        let _ = backup.parent().map(fs::remove_dir);
    }

    /// Deletes the backups of which the file has the `contents` again.
    pub(crate) fn drop_backups(&self, folder: &Path, contents: &[u8]) {
        for backup in [Some(self.backup_path(folder)), self.earlier_backup()].into_iter().flatten() {
            if files::read(&backup).is_ok_and(|bytes| bytes.as_deref() == Some(contents)) {
                // One that cannot be deleted does no harm.
                let _ = fs::remove_file(backup);
            }
        }
        let _ = fs::remove_dir(folder);
    }

    fn folder(&self) -> &Path {
        match self.target.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        }
    }
}

/// New contents, written but not in place. Dropping them leaves nothing behind.
pub(crate) struct Staged {
    /// The file that replaces the old one; `None` to write the old one itself.
    file: Option<Temporary>,
    contents: Vec<u8>,
    before: Option<Vec<u8>>,
    target: PathBuf,
    named: PathBuf,
}

impl Staged {
    /// Puts the new contents in place.
    ///
    /// # Errors
    /// [`Kind::File`] when that fails, or when a program that knows nothing of our locks, perhaps an editor, has
    /// changed the file since it was read. The earlier contents are then still there.
    pub(crate) fn commit(self) -> Result<()> {
        self.check_unchanged()?;
        let replaced = self.file.map(|file| file.persist(&self.target).map(drop).map_err(|e| e.error));
        let put = match replaced {
            None => files::write_within(&self.target, &self.contents),
            Some(Err(e)) if files::is_mount_point(&e) => files::write_within(&self.target, &self.contents),
            Some(done) => done,
        };
        put.map_err(|e| Error::file("replace", &self.named, &e))
    }

    /// Deletes the file instead. One that cannot be deleted because it is a mount point is left empty.
    ///
    /// # Errors
    /// As [`Staged::commit`].
    pub(crate) fn delete(self) -> Result<()> {
        self.check_unchanged()?;
        let deleted = match fs::remove_file(&self.target) {
            Err(e) if files::is_mount_point(&e) => files::write_within(&self.target, b""),
            deleted => deleted,
        };
        deleted.map_err(|e| Error::file("delete", &self.named, &e))
    }

    fn check_unchanged(&self) -> Result<()> {
        if files::read(&self.target).ok().flatten() == self.before {
            return Ok(());
        }
        Err(Error::new(Kind::File, format!("{} has changed in the meantime", self.named.display()))
            .with_hint("nothing was written; try again"))
    }
}

/// The path at the end of the links.
fn follow(path: &Path) -> Result<PathBuf> {
    /// The number of links that Linux follows.
    const MAX_LINKS: usize = 40;
    let mut target = path.to_owned();
    for _ in 0..MAX_LINKS {
        if !fs::symlink_metadata(&target).is_ok_and(|metadata| metadata.is_symlink()) {
            return Ok(target);
        }
        let next = fs::read_link(&target).map_err(|e| Error::file("follow", path, &e))?;
        // Joining an absolute path replaces all.
        target = target.parent().unwrap_or(Path::new("/")).join(next);
    }
    Err(Error::new(Kind::File, format!("{} is a link that leads back to itself", path.display()))
        .with_hint("replace it with a file or a link to one"))
}

/// Makes an empty private file if there is none.
///
/// # Errors
/// Fails when it cannot be made.
pub(crate) fn make_empty(path: &Path) -> Result<()> {
    match files::new_file(path) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(Error::file("make", path, &e)),
    }
}

/// A unified diff for people to read; empty when nothing changes.
pub(crate) fn unified(path: &Path, before: &[u8], after: &[u8]) -> String {
    if before == after {
        return String::new();
    }
    let name = path.display().to_string();
    let (before, after) = (String::from_utf8_lossy(before), String::from_utf8_lossy(after));
    TextDiff::from_lines(before.as_ref(), after.as_ref()).unified_diff().header(&name, &name).to_string()
}
