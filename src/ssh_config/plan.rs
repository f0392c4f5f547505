//! A change of the user's file and of ours as a value: worked out and checked first, then made whole or not at all.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Locks, Request, check::Trial, plan, plan_removal, state::State};
use crate::{
    error::{Error, Result},
    files::{
        self,
        user_file::{self, UserFile, unified},
    },
    platform::Platform,
    settings::Folders,
    ssh_config::{
        edit,
        entries::{self, Entry},
    },
};

/// The contents of our own file; `None` when no file includes it.
///
/// # Errors
/// As [`entries::render`].
pub(super) fn own_file(folders: &Folders, state: &State) -> Result<Option<String>> {
    if state.files.iter().all(|managed| managed.inline) {
        return Ok(None);
    }
    entries::render(&state.entries, &state.rendering(folders)).map(Some)
}

/// Writes our own files: the record last, since it says that the rest is there. When no file of the user's is managed,
/// all of them are deleted but the host keys.
///
/// # Errors
/// [`crate::error::Kind::File`] when something cannot be written.
pub(super) fn write_own(folders: &Folders, state: &State) -> Result<()> {
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

/// A change that is worked out and checked with ssh, but not made. It knows its goal, so that it can be worked out anew
/// when the files have changed since.
pub struct Plan<'a> {
    pub(super) folders: &'a Folders,
    pub(super) goal: Goal,
    pub(super) before: Before,
    /// The user's text as it is to be.
    pub(super) text: Vec<u8>,
    /// Our record as it is to be.
    pub(super) new: State,
    pub(super) diff: String,
    pub(super) warnings: Vec<String>,
}

/// The purpose of a plan.
pub(super) enum Goal {
    /// The user's file leads to these entries.
    Entries(Request, Platform, Vec<Entry>),
    /// Nothing of ours is left in the user's file.
    Removal,
    /// A removal that finds nothing of ours and no record.
    Nothing,
}

/// The files as a plan has found them.
pub(super) struct Before {
    pub user: UserFile,
    /// Our record; the default one when there is none, or when it is damaged and only a removal is wanted.
    pub state: State,
    /// The bytes of that record.
    record: Option<Vec<u8>>,
}

impl Before {
    /// Reads the user's file, and our record by `load`.
    pub(super) fn read(folders: &Folders, file: &Path, load: impl FnOnce() -> Result<State>) -> Result<Before> {
        let user = UserFile::open(file)?;
        // Before it is loaded, so that a change between the two reads is noticed when the plan is carried out.
        let record = files::read(&State::path(folders)).ok().flatten();
        Ok(Before { user, state: load()?, record })
    }

    fn is_current(&self, folders: &Folders) -> Result<bool> {
        Ok(self.record == files::read(&State::path(folders)).ok().flatten() && self.user.is_unchanged()?)
    }
}

impl<'a> Plan<'a> {
    /// A plan with the difference that it makes.
    ///
    /// # Errors
    /// [`crate::error::Kind::File`] when our own file cannot be read.
    pub(super) fn new(
        folders: &'a Folders,
        goal: Goal,
        before: Before,
        text: Vec<u8>,
        new: State,
        warnings: Vec<String>,
    ) -> Result<Plan<'a>> {
        let diff = match goal {
            Goal::Nothing => String::new(),
            Goal::Entries(..) | Goal::Removal => {
                let own = folders.ssh_config();
                // It is replaced or deleted, so it need not be readable.
                let own_before = files::read_text(&own)
                    .map_or_else(|e| format!("({})\n", e.message()), |text| text.unwrap_or_default());
                let own_after = own_file(folders, &new)?.unwrap_or_default();
                unified(&before.user.named, before.user.bytes(), &text)
                    + &unified(&own, own_before.as_bytes(), own_after.as_bytes())
            }
        };
        Ok(Plan { folders, goal, before, text, new, diff, warnings })
    }

    /// The user's file, as an absolute path.
    pub fn path(&self) -> &Path {
        &self.before.user.named
    }

    /// A unified diff of the user's file and of ours; empty when nothing changes.
    pub fn diff(&self) -> &str {
        &self.diff
    }

    /// Reports whether anything changes.
    pub fn is_change(&self) -> bool {
        !self.diff.is_empty()
    }

    /// Deletes temporary files that a killed run has left beside the user's file.
    pub fn sweep(&self) {
        self.before.user.sweep();
    }

    /// Facts that the user should know, a sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Makes the change, whole or not at all, and returns the backup if this was the first edit of the file. When the
    /// user's file or our record has changed since the plan was made, the plan is worked out anew under the lock, so
    /// that nothing that was written in between is lost.
    ///
    /// # Errors
    /// [`crate::error::Kind::File`] when a file cannot be written, and the errors of [`plan()`] when the plan is made
    /// anew.
    pub async fn write(self) -> Result<Option<PathBuf>> {
        if matches!(self.goal, Goal::Nothing) {
            // Not even a lock is left behind.
            return Ok(None);
        }
        let _locks = Locks::acquire(self.folders, self.path()).await?;
        let current = if self.before.is_current(self.folders)? { self } else { self.anew().await? };
        match current.goal {
            Goal::Entries(..) => {
                // The last trial is that of the files themselves, because an Include of the user's may match what the
                // one before has not seen.
                let trial = Trial::begin(&current.before.user).await;
                let backup = current.put_in()?;
                match trial.check().await {
                    Ok(()) => Ok(backup),
                    Err(error) => {
                        current.undo(backup);
                        Err(error)
                    }
                }
            }
            Goal::Removal => current.take_out().map(|()| None),
            Goal::Nothing => Ok(None),
        }
    }

    async fn anew(self) -> Result<Plan<'a>> {
        match self.goal {
            Goal::Entries(request, platform, entries) => plan(self.folders, request, platform, entries).await,
            Goal::Removal | Goal::Nothing => plan_removal(self.folders, Some(&self.before.user.named)).await,
        }
    }

    /// Puts our entries in. Our own files come first, because the user's file leads to them.
    fn put_in(&self) -> Result<Option<PathBuf>> {
        let user = &self.before.user;
        if self.text == user.bytes() && user.exists() {
            write_own(self.folders, &self.new)?;
            return Ok(None);
        }
        let staged = user.stage(&self.text).map_err(|e| match user.check_writable() {
            Err(_) => e.with_hint(
                "nothing was changed; if another program makes this file, add there what the difference adds at its \
                 top, and try again; otherwise make it writable",
            ),
            Ok(()) => e,
        })?;
        let backup = if edit::is_untouched(user.bytes()) { user.back_up(&self.folders.backups())? } else { None };
        if let Err(e) = write_own(self.folders, &self.new).and_then(|()| staged.commit()) {
            // As it was. If that fails as well, the first reason is the one to hear.
            let _ = write_own(self.folders, &self.before.state);
            UserFile::discard_backup(backup);
            return Err(e);
        }
        Ok(backup)
    }

    /// Takes a change back that was just made, as far as that is possible.
    fn undo(&self, backup: Option<PathBuf>) {
        let before = &self.before.user;
        let undone = UserFile::open(&before.named).and_then(|now| {
            let ours = now.bytes() == self.text;
            match now.stage(before.bytes()) {
                Ok(staged) if ours && before.exists() => staged.commit(),
                Ok(staged) if ours => staged.delete(),
                Ok(_) => Ok(()),
                Err(e) => Err(e),
            }
        });
        if let Err(error) = undone.and_then(|()| write_own(self.folders, &self.before.state)) {
            log::warn!("{}", error.message());
        }
        UserFile::discard_backup(backup);
    }

    /// Takes our entries out. The user's file comes first, because nothing that it names may be missing.
    fn take_out(&self) -> Result<()> {
        let user = &self.before.user;
        let created = self.before.state.managed(&user.named).is_some_and(|managed| managed.created);
        let goes = created && self.text.is_empty();
        if self.text != user.bytes() || goes && user.exists() {
            // Staged even if it is to be deleted, since it finds out whether the file may be written.
            let staged = user.stage(&self.text)?;
            if goes { staged.delete()? } else { staged.commit()? }
        }
        user.drop_backups(&self.folders.backups(), &self.text);
        write_own(self.folders, &self.new)
    }
}
