//! A change of the user's file and of ours: worked out first, then made whole or not at all.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Outcome, state::State};
use crate::{
    error::{Error, Result},
    files::{
        self,
        user_file::{self, UserFile, unified},
    },
    platform::Platform,
    settings::Folders,
    ssh_config::{edit, entries},
};

/// What our own file is to hold; nothing when no file includes it.
///
/// # Errors
/// As [`entries::render`].
pub fn own_file(folders: &Folders, state: &State) -> Result<Option<String>> {
    if state.files.iter().all(|managed| managed.inline) {
        return Ok(None);
    }
    entries::render(&state.entries, &state.rendering(folders)).map(Some)
}

/// Writes what is ours: the record last, since it says that the rest is there. Without any file to be in, all goes but
/// the host keys.
///
/// # Errors
/// [`crate::error::Kind::File`] when something cannot be written.
pub fn write_own(folders: &Folders, state: &State) -> Result<()> {
    match own_file(folders, state)? {
        Some(text) => files::write_private(&folders.ssh_config(), text.as_bytes())?,
        None => delete(&folders.ssh_config())?,
    }
    if state.files.is_empty() {
        return delete(&State::path(folders));
    }
    // Real files, since several clients fail on a missing one.
    user_file::make_empty(&folders.known_hosts(Platform::Labs))?;
    user_file::make_empty(&folders.known_hosts(Platform::Local))?;
    state.save(folders)
}

fn delete(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::file("delete", path, &e)),
    }
}

/// A change that is worked out and checked, but not made.
pub struct Change<'a> {
    user: &'a UserFile,
    text: Vec<u8>,
    old: State,
    new: State,
    diff: String,
}

impl<'a> Change<'a> {
    /// Works out what differs.
    ///
    /// # Errors
    /// [`crate::error::Kind::File`] when our own file cannot be read.
    pub fn new(folders: &Folders, user: &'a UserFile, text: Vec<u8>, old: State, new: State) -> Result<Change<'a>> {
        let mut diff = unified(&user.named, user.bytes(), &text);
        let own = folders.ssh_config();
        let before = files::read_text(&own)?.unwrap_or_default();
        diff += &unified(&own, before.as_bytes(), own_file(folders, &new)?.unwrap_or_default().as_bytes());
        Ok(Change { user, text, old, new, diff })
    }

    /// What is to be said about it.
    pub fn outcome(&self) -> Outcome {
        let changed = !self.diff.is_empty();
        Outcome { file: self.user.named.clone(), diff: self.diff.clone(), changed, ..Outcome::default() }
    }

    /// Makes it, whole or not at all; writes nothing that is there already. Returns the backup, if this was the first
    /// edit.
    ///
    /// # Errors
    /// [`crate::error::Kind::File`]; then all is as it was.
    pub fn commit(&self, folders: &Folders) -> Result<Option<PathBuf>> {
        if self.text == self.user.bytes() && self.user.exists() {
            write_own(folders, &self.new)?;
            return Ok(None);
        }
        let staged = self.user.stage(&self.text)?;
        let backup = if edit::is_untouched(self.user.bytes()) { self.user.back_up()? } else { None };
        if let Err(e) = write_own(folders, &self.new).and_then(|()| staged.commit()) {
            // As it was. If that fails as well, the first reason is the one to hear.
            let _ = write_own(folders, &self.old);
            let _ = backup.map(fs::remove_file);
            return Err(e);
        }
        Ok(backup)
    }

    /// Makes it when it takes back an earlier one. The user's file comes first: nothing must be missed that it names.
    ///
    /// # Errors
    /// [`crate::error::Kind::File`] when a file cannot be written.
    pub fn take_back(&self, folders: &Folders, created: bool) -> Result<()> {
        if self.text != self.user.bytes() || created && self.user.exists() && self.text.is_empty() {
            // Staged even if it is to be deleted, since it finds out whether the file may be written.
            let staged = self.user.stage(&self.text)?;
            if created && self.text.is_empty() { staged.delete()? } else { staged.commit()? }
        }
        write_own(folders, &self.new)
    }
}
