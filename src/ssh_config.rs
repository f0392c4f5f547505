//! `config-ssh`: our entries in the user's ssh configuration, and out of it again.
//!
//! What is managed is on record in `hosts.json`; [`crate::ssh_config::entries`] turns it into text and edits the user's text. Here
//! the files are found, locked, checked with `ssh -G` and replaced. The order makes a kill at any moment harmless: what
//! is to be included is in place before the line that includes it, and the user's file changes in one step, last.

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
use change::{Change, own_file, write_own};
use check::Check;
use client::Ssh;
use state::{Managed, State};

pub(crate) mod change;
mod check;
pub(crate) mod client;
pub mod edit;
pub mod entries;
pub(crate) mod state;
pub mod words;

/// What `config-ssh` was asked to do.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The user's file; `~/.ssh/config` when not named.
    pub file: Option<PathBuf>,
    /// Put the entries into that file instead of one line that includes ours.
    pub inline: bool,
    /// Only say what would change. Nothing is written, and no lock is taken.
    pub dry_run: bool,
    /// This program, as [`program_path`] finds it.
    pub program: PathBuf,
    /// The private key, or the `.pub` of one in an agent.
    pub identity: Option<PathBuf>,
}

/// What was done, or would be.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The user's file.
    pub file: PathBuf,
    /// A unified diff of the user's file and of ours; empty when nothing changes.
    pub diff: String,
    /// Whether anything changes.
    pub changed: bool,
    /// What the user should know, a sentence each.
    pub warnings: Vec<String>,
    /// The backup that this run has made.
    pub backup: Option<PathBuf>,
}

/// Writes the entries of `platform` and sees to it that the user's file leads to them.
///
/// # Errors
/// [`Kind::Program`] when ssh is missing, [`Kind::Usage`] when a path cannot be written, [`Kind::File`] when a file
/// cannot be read, understood or written. Then nothing has changed.
pub async fn apply(folders: &Folders, request: &Request, platform: Platform, entries: Vec<Entry>) -> Result<Outcome> {
    let file = named_file(folders, request.file.as_deref())?;
    let locks = if request.dry_run { None } else { Some(Locks::acquire(folders, &file).await?) };
    let ssh = Ssh::system();
    let survey = ssh.survey().await?;
    let user = UserFile::open(&file)?;
    let mut warnings: Vec<String> = user.check_trusted()?.into_iter().collect();

    let old = State::load(folders)?.unwrap_or_default();
    let mut new = State { program: request.program.clone(), identity: request.identity.clone(), ..old.clone() };
    new.look(folders, &survey);
    new.set_entries(platform, entries);
    let created = !user.exists() || old.managed(&file).is_some_and(|managed| managed.created);
    new.manage(Managed { file: file.clone(), inline: request.inline, created });

    if survey.home.as_ref().is_some_and(|home| *home != folders.home) && request.file.is_none() {
        warnings.push(format!("ssh does not go by HOME and reads another file: use `ssh -F {}`", file.display()));
    }
    if new.labs && !new.safe_wildcard {
        warnings.push(
            "this ssh hands host names to a shell (CVE-2023-51385), so only existing playgrounds get entries: update it"
                .into(),
        );
    }
    let text = new.edit(folders, &user, request.inline)?;
    for (line, pattern) in edit::own_entries(&edit::remove(user.bytes(), &spellings(folders))?) {
        warnings.push(format!("line {line} of your own has `Host {pattern}`: the entries written here win over it"));
    }
    let check = Check { ssh: &ssh, folders, state: &new, inline: request.inline };
    warnings.extend(check.run(&user).await?);

    let change = Change::new(folders, &user, text, old, new)?;
    let backup = if locks.is_some() { change.commit(folders)? } else { None };
    Ok(Outcome { warnings, backup, ..change.outcome() })
}

/// Takes everything of ours out of the user's file, and the file away if it was ours alone. That there is nothing to
/// take out is no error.
///
/// # Errors
/// [`Kind::File`] when a file cannot be read, understood or written. Then nothing has changed.
pub async fn remove(folders: &Folders, file: Option<&Path>, dry_run: bool) -> Result<Outcome> {
    let file = named_file(folders, file)?;
    let user = UserFile::open(&file)?;
    let mut warnings = Vec::new();
    // A damaged record must not keep anybody from getting rid of us.
    let state = State::load(folders).unwrap_or_else(|e| {
        warnings.push(e.message().to_owned());
        None
    });
    let rest = edit::remove(user.bytes(), &spellings(folders)).map_err(|e| e.context(file.display()))?;
    if rest == user.bytes() && state.is_none() && warnings.is_empty() {
        return Ok(Outcome { file, ..Outcome::default() });
    }
    let _locks = if dry_run { None } else { Some(Locks::acquire(folders, &file).await?) };
    let user = UserFile::open(&file)?;
    let rest = edit::remove(user.bytes(), &spellings(folders)).map_err(|e| e.context(file.display()))?;
    let old = if warnings.is_empty() { State::load(folders)?.unwrap_or_default() } else { State::default() };
    let created = old.managed(&file).is_some_and(|managed| managed.created);
    let mut new = old.clone();
    new.files.retain(|managed| managed.file != file);
    for other in &new.files {
        warnings.push(format!("{} still has entries: name it with --ssh-config-file", other.file.display()));
    }
    if rest != user.bytes() {
        warnings.extend(check::removal(folders, &Ssh::system(), &user, &rest).await?);
    }
    let change = Change::new(folders, &user, rest, old, new)?;
    let outcome = Outcome { warnings, ..change.outcome() };
    if !dry_run {
        change.take_back(folders, created)?;
    }
    Ok(outcome)
}

/// Brings one platform's entries up to date where `config-ssh` was run; else does nothing. When they are already, it
/// reads a few files, runs nothing and writes none. Where the user has taken our lines out by hand they stay out.
///
/// # Errors
/// As [`apply`].
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

/// Whether `config-ssh` was run, so that [`refresh`] has something to do.
pub fn is_managed(folders: &Folders) -> bool {
    State::path(folders).exists()
}

/// The user's files that we are in, and whether each holds the entries itself.
///
/// # Errors
/// [`Kind::File`] when the record is damaged.
pub fn managed_files(folders: &Folders) -> Result<Vec<(PathBuf, bool)>> {
    let state = State::load(folders)?.unwrap_or_default();
    Ok(state.files.into_iter().map(|managed| (managed.file, managed.inline)).collect())
}

/// Whether all that is on record is in the files, too. Where our block is gone, its user has taken it out.
fn up_to_date(folders: &Folders, state: &State) -> Result<bool> {
    for managed in state.files.iter().filter(|managed| managed.inline) {
        let user = UserFile::open(&managed.file)?;
        if edit::has_block(user.bytes()) && state.edit(folders, &user, true)? != user.bytes() {
            return Ok(false);
        }
    }
    Ok(own_file(folders, state)? == files::read_text(&folders.ssh_config())?)
}

/// Where this program is, as it was called: through its link, which a package manager points to the next version. Where
/// that cannot be told, where the system says it is.
///
/// # Errors
/// [`Kind::File`] when not even the system knows.
pub fn program_path() -> Result<PathBuf> {
    let system =
        env::current_exe().map_err(|e| Error::new(Kind::File, format!("cannot tell where this program is: {e}")))?;
    let called = env::args_os().next().map(PathBuf::from).and_then(|name| called_path(&name));
    // The caller chooses the name; it must lead here.
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
    /// Takes in what is known of the installed ssh.
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

/// The ways in which our file may be named in an Include.
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
            .with_hint("name the ssh configuration by a path that is"));
    }
    Ok(file)
}

/// Holds off all other writers, and takes away what killed ones left.
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

/// Locks our own record. Another holder may be waiting for ssh, so this waits on a thread of its own.
async fn lock(folders: &Folders) -> Result<Lock> {
    let path = State::path(folders);
    let lock = blocking(move || Lock::acquire(&path)).await?;
    files::sweep(&folders.root);
    Ok(lock)
}

/// Locks the folder where `file` really lies.
async fn lock_folder(file: &Path) -> Result<Option<File>> {
    let file = file.to_owned();
    blocking(move || Ok(UserFile::open(&file)?.lock_folder())).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::new(Kind::Internal, format!("the wait for a lock failed: {e}")))?
}
