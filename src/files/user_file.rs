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

    /// Writes `contents` beside the file, with its mode and owner, ready to take its place.
    ///
    /// # Errors
    /// [`Kind::File`] when the file or its folder is read-only, the disk is full and so on; then nothing is left.
    pub(crate) fn stage(&self, contents: &[u8]) -> Result<Staged> {
        let failed = |e: io::Error| {
            Error::file("write", &self.named, &e)
                .with_hint("nothing was changed; make the file and its folder writable")
        };
        if let Some((_, metadata)) = &self.contents {
            // A rename would replace a read-only file without a question, and root may write any file, but its owner
            // meant it.
            if metadata.permissions().readonly() {
                return Err(failed(io::Error::new(io::ErrorKind::PermissionDenied, "it is read-only")));
            }
            OpenOptions::new().write(true).open(&self.target).map_err(failed)?;
        } else if self.target == self.named {
            make_private_folder(self.folder()).map_err(failed)?;
        }
        let mut file = temporary(self.folder()).map_err(failed)?;
        file.write_all(contents).map_err(failed)?;
        self.keep_owner(file.as_file()).map_err(failed)?;
        if let Some((_, metadata)) = &self.contents {
            file.as_file().set_permissions(metadata.permissions()).map_err(failed)?;
        }
        file.as_file().sync_all().map_err(failed)?;
        let before = self.contents.as_ref().map(|(bytes, _)| bytes.clone());
        Ok(Staged { file, before, target: self.target.clone(), named: self.named.clone() })
    }

    /// Gives `file` the owner of the one it replaces. If root makes a new file, it gets the folder's owner.
    #[cfg(unix)]
    fn keep_owner(&self, file: &File) -> io::Result<()> {
        use std::os::unix::fs::{MetadataExt, fchown};
        let model = match &self.contents {
            Some((_, metadata)) => metadata.clone(),
            None if rustix::process::geteuid().is_root() => fs::metadata(self.folder())?,
            None => return Ok(()),
        };
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (model.uid(), model.gid()) {
            fchown(file, Some(model.uid()), Some(model.gid()))?;
        }
        Ok(())
    }

    /// Does nothing, because a new file belongs to the user who makes it.
    #[cfg(not(unix))]
    fn keep_owner(&self, _file: &File) -> io::Result<()> {
        Ok(())
    }

    /// Keeps the contents from before the first edit, beside the file as the user calls it. A backup that exists stays.
    ///
    /// # Errors
    /// [`Kind::File`] when it cannot be written.
    pub(crate) fn back_up(&self) -> Result<Option<PathBuf>> {
        let Some((bytes, metadata)) = &self.contents else { return Ok(None) };
        let backup = self.backup_path();
        let folder = backup.parent().unwrap_or(Path::new("."));
        let write = || {
            if fs::symlink_metadata(&backup).is_ok() {
                return Ok(None);
            }
            let mut file = temporary(folder)?;
            file.write_all(bytes)?;
            self.keep_owner(file.as_file())?;
            file.as_file().set_permissions(metadata.permissions())?;
            file.as_file().sync_all()?;
            file.persist_noclobber(&backup).map_err(|e| e.error)?;
            Ok(Some(backup.clone()))
        };
        write().map_err(|e| Error::file("keep a backup as", &backup, &e))
    }

    /// The path of the backup.
    pub(crate) fn backup_path(&self) -> PathBuf {
        let mut name = self.named.as_os_str().to_owned();
        name.push(".labctl-ssh-proxy.backup");
        PathBuf::from(name)
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
    file: Temporary,
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
        self.file.persist(&self.target).map_err(|e| Error::file("replace", &self.named, &e.error))?;
        Ok(())
    }

    /// Deletes the file instead.
    ///
    /// # Errors
    /// As [`Staged::commit`].
    pub(crate) fn delete(self) -> Result<()> {
        self.check_unchanged()?;
        fs::remove_file(&self.target).map_err(|e| Error::file("delete", &self.named, &e))
    }

    fn check_unchanged(&self) -> Result<()> {
        if fs::read(&self.target).ok() == self.before {
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
