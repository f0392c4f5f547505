//! A settings file of an editor with entries of ours in it: the manners that [`crate::editors::jetbrains`] and
//! [`crate::editors::zed`] share. The form of the entries is theirs.
//!
//! The file is changed in one step where it really lies, keeps its mode and owner, and is kept as a backup in our own
//! folder before the first change. As long as no other program has changed it since, removal brings the backup back, byte for byte.

use std::path::{Path, PathBuf};

use crate::{
    error::{Error, Kind, Result},
    files::{
        self,
        user_file::{UserFile, unified},
    },
    ssh_config::entries::Entry,
};

/// The form of our entries in one kind of file. Pure.
pub trait Format {
    /// `text` with exactly these entries of ours. Entries that are there already stay as they are, and none is added
    /// for a host of which the user has an entry.
    ///
    /// # Errors
    /// [`Kind::File`] when `text` is damaged.
    fn set(&self, text: &str, entries: &[Entry]) -> Result<String>;

    /// `text` with the entries of ours that are in `current`, added anew.
    ///
    /// # Errors
    /// As [`Format::set`].
    fn repeat(&self, text: &str, current: &str) -> Result<String>;
}

/// A change of a file that is worked out, but not made.
pub struct Plan {
    file: UserFile,
    /// `None` to delete the file, because it is ours alone.
    text: Option<String>,
}

impl Plan {
    /// Plans the file with these entries of ours.
    ///
    /// # Errors
    /// [`Kind::File`] when the file cannot be read or is damaged.
    pub fn set(path: &Path, format: &impl Format, entries: &[Entry]) -> Result<Plan> {
        let file = UserFile::open(path)?;
        let text = format.set(text(&file)?, entries).map_err(|e| e.context(path.display()))?;
        // No entries are no reason for a new file.
        let text = (file.exists() || !entries.is_empty()).then_some(text);
        Ok(Plan { file, text })
    }

    /// Plans the file without anything of ours: as it was before, if no other program has changed it since.
    ///
    /// # Errors
    /// As [`Plan::set`].
    pub fn remove(path: &Path, format: &impl Format, backups: &Path) -> Result<Plan> {
        let file = UserFile::open(path)?;
        let current = text(&file)?;
        let rest = format.set(current, &[]).map_err(|e| e.context(path.display()))?;
        if rest == current {
            let text = file.exists().then_some(rest);
            return Ok(Plan { file, text });
        }
        let backup = [Some(file.backup_path(backups)), file.earlier_backup()].into_iter().flatten();
        let backup = backup.filter_map(|path| files::read_text(&path).ok()?).next();
        let before = backup.as_deref().unwrap_or_default();
        let restored = format.repeat(before, current).is_ok_and(|again| again == current);
        let text = if restored { backup } else { Some(rest) };
        Ok(Plan { file, text })
    }

    /// The file as the user calls it.
    pub fn path(&self) -> &Path {
        &self.file.named
    }

    /// Reports whether anything changes.
    pub fn changes(&self) -> bool {
        self.file.exists() != self.text.is_some() || self.bytes() != self.file.bytes()
    }

    /// A unified diff; empty when nothing changes.
    pub fn diff(&self) -> String {
        unified(&self.file.named, self.file.bytes(), self.bytes())
    }

    fn bytes(&self) -> &[u8] {
        self.text.as_deref().unwrap_or_default().as_bytes()
    }

    /// Deletes temporary files that a run killed after its change has left beside the file.
    pub fn sweep(&self) {
        self.file.sweep();
    }

    /// Makes the change. Returns the backup in the folder `backups` if this was the first one.
    ///
    /// # Errors
    /// [`Kind::File`] when the file cannot be written, or has changed since it was read; nothing has changed then.
    pub fn commit(&self, removal: bool, backups: &Path) -> Result<Option<PathBuf>> {
        if !self.changes() {
            return Ok(None);
        }
        let _lock = self.file.lock_folder();
        self.file.sweep();
        let staged = self.file.stage(self.bytes())?;
        let backup = if removal { None } else { self.file.back_up(backups)? };
        let done = if self.text.is_some() { staged.commit() } else { staged.delete() };
        match done {
            Ok(()) if removal => self.file.drop_backups(backups, self.bytes()),
            Ok(()) => {}
            Err(error) => {
                UserFile::discard_backup(backup);
                return Err(error);
            }
        }
        Ok(backup)
    }
}

/// A file that was written.
#[derive(Debug)]
pub struct Written {
    /// The file.
    pub file: PathBuf,
    /// The file as it was before the first change, where this one has kept it.
    pub backup: Option<PathBuf>,
}

fn text(file: &UserFile) -> Result<&str> {
    std::str::from_utf8(file.bytes()).map_err(|e| {
        Error::new(Kind::File, format!("{} is not UTF-8: {e}", file.named.display()))
            .with_hint("nothing was changed; check which program wrote it")
    })
}
