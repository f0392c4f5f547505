//! `config-ssh`: our entries in the user's ssh configuration, and out of it again.
//!
//! The record of what is managed is `hosts.json`; [`crate::ssh_config::entries`] turns it into text and edits the
//! user's text. This module finds the files, locks them, checks the result with `ssh -G` and replaces them: a [`Plan`]
//! works all of it out, and [`Plan::write`] makes it. The order makes a kill at any moment harmless: the file to be
//! included is in place before the line that includes it, and the user's file changes in one step, last.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Kind, Result},
    files::{self, Lock, user_file::UserFile},
    platform::Platform,
    settings::Folders,
    ssh_config::entries::Entry,
};
use check::Check;
use client::Ssh;
use plan::{Before, Goal, own_file, write_own};
use state::{Managed, State};

pub use plan::Plan;

mod check;
pub(crate) mod client;
pub mod edit;
pub mod entries;
pub(crate) mod in_the_way;
mod plan;
pub(crate) mod state;
pub(crate) mod taken;
pub mod words;

/// The user's wishes for `config-ssh`.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The user's file; `~/.ssh/config` when not named.
    pub file: Option<PathBuf>,
    /// Put the entries into that file instead of one line that includes ours.
    pub inline: bool,
    /// This program, as [`program_path`] finds it.
    pub program: PathBuf,
    /// The private key, or the `.pub` of one in an agent.
    pub identity: Option<PathBuf>,
}

/// Works out how the entries of `platform` are written, and how the user's file leads to them. Nothing is written, and
/// no lock is taken.
///
/// # Errors
/// [`Kind::Program`] when ssh is missing, [`Kind::Usage`] when a path cannot be written, [`Kind::File`] when a file
/// cannot be read or understood.
pub async fn plan(folders: &Folders, request: Request, platform: Platform, entries: Vec<Entry>) -> Result<Plan<'_>> {
    let file = named_file(folders, request.file.as_deref())?;
    let ssh = Ssh::system();
    let survey = ssh.survey().await?;
    let before = Before::read(folders, &file, || Ok(State::load(folders)?.unwrap_or_default()))?;
    let Before { user, state: old, .. } = &before;
    let mut warnings: Vec<String> = user.check_trusted()?.into_iter().collect();

    let mut new = State { program: request.program.clone(), identity: request.identity.clone(), ..old.clone() };
    new.look(folders, &survey);
    new.set_entries(platform, entries.clone());
    let created = !user.exists() || old.managed(&file).is_some_and(|managed| managed.created);
    new.manage(Managed { file: file.clone(), inline: request.inline, created });

    if survey.home.as_ref().is_some_and(|home| *home != folders.home) && request.file.is_none() {
        warnings.push(format!("ssh ignores HOME and reads another file; use `ssh -F {}`", file.display()));
    }
    if new.labs && !new.safe_wildcard {
        warnings.push(
            "this ssh passes host names to a shell (CVE-2023-51385), so only existing playgrounds get entries; update \
             ssh"
            .into(),
        );
    }
    let text = new.edit(folders, user, request.inline)?;
    for (line, pattern) in edit::own_entries(&edit::remove(user.bytes(), &spellings(folders))?) {
        warnings.push(format!(
            "line {line} of your own configuration has `Host {pattern}`; the entries written here win over it"
        ));
    }
    let check = Check { ssh: &ssh, folders, state: &new, inline: request.inline };
    warnings.extend(check.run(user).await?);

    Plan::new(folders, Goal::Entries(request, platform, entries), before, text, new, warnings)
}

/// Works out how everything of ours is taken out of the user's file, and the file deleted if it was ours alone. A file
/// with nothing of ours in it is no error. Nothing is written, and no lock is taken.
///
/// # Errors
/// [`Kind::File`] when a file cannot be read or understood.
pub async fn plan_removal<'a>(folders: &'a Folders, file: Option<&Path>) -> Result<Plan<'a>> {
    let file = named_file(folders, file)?;
    let mut warnings = Vec::new();
    let mut recorded = false;
    let before = Before::read(folders, &file, || {
        // A damaged record must not keep the user from getting rid of us.
        let state = State::load(folders).unwrap_or_else(|e| {
            warnings.push(e.message().to_owned());
            Some(State::default())
        });
        recorded = state.is_some();
        Ok(state.unwrap_or_default())
    })?;
    let Before { user, state: old, .. } = &before;
    let rest = edit::remove(user.bytes(), &spellings(folders)).map_err(|e| e.context(file.display()))?;
    let mut new = old.clone();
    new.files.retain(|managed| managed.file != file);
    for other in &new.files {
        warnings.push(format!(
            "{} still has entries; to remove them, name it with --ssh-config-file",
            other.file.display()
        ));
    }
    let changes = rest != user.bytes();
    if changes {
        warnings.extend(check::removal(folders, &Ssh::system(), user, &rest).await?);
    }
    let goal = if changes || recorded { Goal::Removal } else { Goal::Nothing };
    Plan::new(folders, goal, before, rest, new, warnings)
}

/// Brings one platform's entries up to date if `config-ssh` was run. Entries that are up to date cost the reading of a
/// few files: no program runs, and nothing is written. Lines that the user has taken out by hand stay out.
///
/// # Errors
/// As [`plan()`].
pub async fn refresh(folders: &Folders, platform: Platform, entries: Vec<Entry>) -> Result<()> {
    let renewed = |old: &State| {
        let mut new = old.clone();
        new.set_entries(platform, entries.clone());
        if !new.program.exists() {
            new.program = program_path()?;
        }
        Ok::<_, Error>(new)
    };
    let Some(old) = State::load(folders)? else { return Ok(()) };
    let new = renewed(&old)?;
    if new == old && up_to_date(folders, &new)? {
        return Ok(());
    }
    let _lock = lock(folders).await?;
    let Some(old) = State::load(folders)? else { return Ok(()) };
    let mut new = renewed(&old)?;
    let ssh = Ssh::system();
    new.look(folders, &ssh.survey().await?);
    // Render before anything is written: an entry that cannot be written changes nothing.
    entries::render(&new.entries, &new.rendering(folders))?;
    for managed in old.files.iter().filter(|managed| managed.inline) {
        let _folder = lock_folder(&managed.file).await?;
        let user = UserFile::open(&managed.file)?;
        if !edit::has_block(user.bytes()) {
            new.files.retain(|other| other.file != managed.file);
            continue;
        }
        user.sweep();
        let text = new.edit(folders, &user, true)?;
        if text != user.bytes() {
            Check { ssh: &ssh, folders, state: &new, inline: true }.run(&user).await?;
            user.stage(&text)?.commit()?;
        }
    }
    write_own(folders, &new)
}

/// Moves the backup that an earlier version has kept beside the user's file into our own folder, because ssh reads it
/// where an Include of the user's matches its name. Returns the old and the new path, if there was one.
///
/// # Errors
/// [`Kind::File`] when it cannot be moved.
pub fn adopt_backup(folders: &Folders, file: Option<&Path>) -> Result<Option<(PathBuf, PathBuf)>> {
    UserFile::open(&named_file(folders, file)?)?.adopt_backup(&folders.backups())
}

/// Reports whether `config-ssh` was run, so that [`refresh`] has something to do.
pub fn is_managed(folders: &Folders) -> bool {
    State::path(folders).exists()
}

/// Returns the name by which ssh reaches a playground's host, because `config-ssh` was run: its alias, or the host name.
pub fn shortest(folders: &Folders, platform: Platform, host: &str) -> Option<String> {
    let state = State::load(folders).ok()??;
    let mut entries = state.entries.into_iter().filter(|_| !state.files.is_empty());
    let entry = entries.find(|entry| entry.host == host && entry.platform == platform)?;
    Some(entry.alias.unwrap_or(entry.host))
}

/// The files that `config-ssh` keeps in our folder, besides the host keys.
pub fn own_files(folders: &Folders) -> [PathBuf; 2] {
    [State::path(folders), folders.ssh_config()]
}

/// The user's files with something of ours in them; true for those that hold the entries themselves.
///
/// # Errors
/// [`Kind::File`] when the record is damaged.
pub fn managed_files(folders: &Folders) -> Result<Vec<(PathBuf, bool)>> {
    let state = State::load(folders)?.unwrap_or_default();
    Ok(state.files.into_iter().map(|managed| (managed.file, managed.inline)).collect())
}

/// Reports whether the files hold all that is on record. A block that is gone was taken out by the user, and is not
/// missed.
fn up_to_date(folders: &Folders, state: &State) -> Result<bool> {
    let wanted = own_file(folders, state)?;
    for managed in state.files.iter().filter(|managed| managed.inline) {
        let user = UserFile::open(&managed.file)?;
        if edit::has_block(user.bytes()) && state.edit(folders, &user, true)? != user.bytes() {
            return Ok(false);
        }
    }
    // One that cannot be read is written anew.
    Ok(files::read_text(&folders.ssh_config()).is_ok_and(|own| own == wanted))
}

/// The path of this program as it was called: through its link, because a package manager points that to the next
/// version. The system's own answer when the caller's path does not lead here.
///
/// # Errors
/// [`Kind::File`] when the system does not know either.
pub fn program_path() -> Result<PathBuf> {
    let system =
        env::current_exe().map_err(|e| Error::new(Kind::File, format!("cannot find the path of this program: {e}")))?;
    let called = env::args_os().next().map(PathBuf::from).and_then(|name| called_path(&name));
    // The caller chooses the name, so check that it leads here.
    let same = |path: &PathBuf| matches!((fs::canonicalize(path), fs::canonicalize(&system)), (Ok(a), Ok(b)) if a == b);
    Ok(called.filter(same).unwrap_or(system))
}

/// The absolute path behind the name by which a program was called.
fn called_path(name: &Path) -> Option<PathBuf> {
    if name.components().count() == 1 && !name.is_absolute() {
        which::which(name).ok().and_then(|path| std::path::absolute(path).ok())
    } else {
        std::path::absolute(name).ok()
    }
}

impl State {
    /// Takes over the findings about the installed ssh.
    fn look(&mut self, folders: &Folders, survey: &client::Survey) {
        self.literal_user = !survey.refuses_users;
        self.safe_wildcard = survey.refuses_hosts;
        self.home = survey.home.clone().filter(|home| *home == folders.home);
    }

    /// The user's text as it is to be.
    fn edit(&self, folders: &Folders, user: &UserFile, inline: bool) -> Result<Vec<u8>> {
        let entries = entries::render(&self.entries, &self.rendering(folders))?;
        let edited = if inline {
            entries::check_inline(&entries)?;
            edit::insert_block(user.bytes(), &entries, &spellings(folders))
        } else {
            let argument = entries::spell(&folders.ssh_config(), self.home.as_deref(), "configuration")?;
            edit::insert_include(user.bytes(), &argument, &spellings(folders))
        };
        edited.map_err(|e| e.context(user.named.display()))
    }
}

/// The forms in which an Include may name our file.
fn spellings(folders: &Folders) -> Vec<String> {
    let ours = folders.ssh_config();
    let below_home = ours.strip_prefix(&folders.home).ok().map(|below| format!("~/{}", below.display()));
    let spellings = [Some(ours.display().to_string()), below_home].into_iter().flatten();
    spellings.map(|path| entries::forward_slashes(&path)).collect()
}

/// The user's file as an absolute path; links are not resolved.
fn named_file(folders: &Folders, file: Option<&Path>) -> Result<PathBuf> {
    let file = file.map_or_else(|| folders.home.join(".ssh/config"), Path::to_owned);
    let file = std::path::absolute(&file).map_err(|e| Error::file("find", &file, &e))?;
    if file.to_str().is_none() {
        return Err(Error::new(Kind::Usage, format!("the path {} is not UTF-8", file.display()))
            .with_hint("use a path that is UTF-8 for the ssh configuration"));
    }
    Ok(file)
}

/// Locks that hold off all other writers. Taking them also sweeps away the temporaries of killed ones.
struct Locks {
    _own: Lock,
    _folder: Option<File>,
}

impl Locks {
    async fn acquire(folders: &Folders, file: &Path) -> Result<Locks> {
        let own = lock(folders).await?;
        let folder = lock_folder(file).await?;
        UserFile::open(file)?.sweep();
        Ok(Locks { _own: own, _folder: folder })
    }
}

/// Locks our own record, on a thread of its own because another holder may be waiting for ssh.
async fn lock(folders: &Folders) -> Result<Lock> {
    let path = State::path(folders);
    let lock = blocking(move || Lock::acquire(&path)).await?;
    files::sweep(&folders.root);
    files::sweep(&folders.backups());
    Ok(lock)
}

/// Locks the folder in which `file` lies once its links are followed.
async fn lock_folder(file: &Path) -> Result<Option<File>> {
    let file = file.to_owned();
    blocking(move || Ok(UserFile::open(&file)?.lock_folder())).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::new(Kind::Internal, format!("the wait for a lock failed: {e}")))?
}
