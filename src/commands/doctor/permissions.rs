//! Owners and modes: files of ours that others can read, that ssh refuses, or that their owner cannot use.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{Check, Fix, Verdict};
use crate::{app::App, error::Error, os, settings::Folders, ssh::identity, ssh_config::state::State};

const NAME: &str = "permissions";

/// Makes all checks of this module.
pub(super) fn all(app: &App) -> Vec<Check> {
    let folders = &app.folders;
    let mut seen = Seen::default();
    let top = folders.account().parent().and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
    seen.look(&top);
    seen.look(&folders.account());
    seen.walk(&folders.root, &folders.local());
    // These are the user's, and an administrator may provide them as root's.
    let mut users = vec![folders.home.join(".ssh"), folders.home.join(".ssh/config")];
    if let Ok(path) = app.identity_path() {
        users.extend([identity::public_path(&path), path]);
    }
    let owner = os::rightful_owner(&folders.home);
    let mut foreign = seen.found.iter().filter(|(_, found)| found.uid() != owner).cloned().collect::<Vec<_>>();
    let ours = std::mem::take(&mut seen.found);
    users.iter().for_each(|path| seen.look(path));
    let is_usable = |found: &Metadata| found.uid() == 0 && found.mode() & 0o004 != 0;
    foreign.extend(seen.found.iter().filter(|(_, found)| found.uid() != owner && !is_usable(found)).cloned());

    let mut wrong: Vec<Check> = belongs_to_others(folders, owner, &foreign).into_iter().collect();
    if foreign.is_empty() {
        wrong.extend(seen.errors.iter().map(|error| Check::failed(NAME, error)));
    }
    let is_own = |(_, found): &&(PathBuf, Metadata)| found.uid() == owner;
    let closed = [folders.root.clone(), folders.account(), folders.ssh_config(), State::path(folders)];
    wrong.extend(ours.iter().filter(is_own).filter_map(|(path, found)| mode(path, found, closed.contains(path))));
    // Those two, since ssh refuses them; it looks at keys itself.
    wrong.extend(seen.found.iter().filter(is_own).take(2).filter_map(|(path, found)| open_to_writers(path, found)));
    if wrong.is_empty() {
        return vec![Check::ok(NAME, "other users cannot read or write private files")];
    }
    wrong
}

/// The files that were looked at.
#[derive(Default)]
struct Seen {
    found: Vec<(PathBuf, Metadata)>,
    errors: Vec<Error>,
}

impl Seen {
    fn look(&mut self, path: &Path) {
        match fs::metadata(path) {
            Ok(found) => self.found.push((path.to_owned(), found)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => self.errors.push(Error::file("look at", path, &e)),
        }
    }

    /// Looks at everything below `folder`, except at what is in `closed`, which has an owner's check of its own.
    fn walk(&mut self, folder: &Path, closed: &Path) {
        self.look(folder);
        if folder == closed {
            return;
        }
        let failed = |e: &io::Error| Error::file("look into", folder, e);
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return,
            Err(e) => return self.errors.push(failed(&e)),
        };
        for entry in entries {
            match entry.and_then(|entry| Ok((entry.path(), entry.file_type()?))) {
                Ok((path, kind)) if kind.is_dir() => self.walk(&path, closed),
                // A lock or status file may be gone by now.
                Ok((path, kind)) if kind.is_file() => self.look(&path),
                Ok(_) => {}
                Err(e) => self.errors.push(failed(&e)),
            }
        }
    }
}

/// The things that another user owns, root above all: an earlier run as root with this user's HOME left them.
fn belongs_to_others(folders: &Folders, owner: u32, foreign: &[(PathBuf, Metadata)]) -> Option<Check> {
    let (path, _) = foreign.first()?;
    let tops = [folders.home.join(".iximiuz"), folders.root.clone(), folders.home.join(".ssh")];
    let top = |path: &PathBuf| tops.iter().find(|top| path.starts_with(top)).unwrap_or(path).clone();
    let mut give: Vec<PathBuf> = foreign.iter().map(|(path, _)| top(path)).collect();
    give.sort();
    give.dedup();
    let more = match foreign.len() - 1 {
        0 => String::new(),
        more => format!(", and so do {more} more"),
    };
    let found = format!("{} belongs to another user{more}", path.display());
    Some(Check::new(NAME, Verdict::Failed, found).remedy(format!("run `{}`", os::give_back(owner, &give))))
}

/// A file of ours that its owner cannot use, or that others can read though it is to be `closed` to them.
fn mode(path: &Path, found: &Metadata, closed: bool) -> Option<Check> {
    let mode = found.mode() & 0o777;
    let needed = if found.is_dir() { 0o700 } else { 0o600 };
    let taken = if closed { 0o077 } else { 0 };
    let right = mode & !taken | needed;
    let harm = if mode & needed != needed { "this program cannot use it" } else { "other users can read it" };
    let check = || {
        let found = format!("{} has mode {mode:o}: {harm}", path.display());
        let remedy = format!("run `chmod {right:o} {}`", path.display());
        Check::new(NAME, Verdict::Warning, found).remedy(remedy).fix(Fix::Mode(path.to_owned(), right))
    };
    (mode != right).then(check)
}

/// A file of the user's that ssh refuses because others can write to it.
fn open_to_writers(path: &Path, found: &Metadata) -> Option<Check> {
    let mode = found.mode() & 0o777;
    (mode & 0o022 != 0).then(|| {
        let found = format!("{} has mode {mode:o}: other users can write to it", path.display());
        Check::new(NAME, Verdict::Failed, found).remedy(format!("run `chmod {:o} {}`", mode & !0o022, path.display()))
    })
}
