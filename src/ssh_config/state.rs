//! The record of what is managed: `hosts.json` in our folder, from which every entry is rendered.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Kind, Result},
    files,
    platform::Platform,
    settings::Folders,
    ssh_config::entries::{Entry, Rendering},
};

/// The record. It exists from the first `config-ssh` to the last `config-ssh --remove`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// The program that entries name.
    pub program: PathBuf,
    /// The identity that entries name.
    pub identity: Option<PathBuf>,
    /// The home folder, when ssh and all other readers agree on it.
    pub home: Option<PathBuf>,
    /// [`Rendering::literal_user`] at the last look at ssh.
    pub literal_user: bool,
    /// True when this ssh can be trusted with a wildcard, because it lets no hostile host name through to a shell.
    pub safe_wildcard: bool,
    /// True once entries of the real platform were asked for, because a wildcard goes with them.
    pub labs: bool,
    /// The user's files with something of ours in them.
    pub files: Vec<Managed>,
    /// All entries.
    pub entries: Vec<Entry>,
}

/// A file of the user's with something of ours in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Managed {
    /// The absolute path by which the user calls it.
    pub file: PathBuf,
    /// True for a file that holds the entries themselves.
    pub inline: bool,
    /// True for a file that we made, which is deleted when nothing else is in it.
    pub created: bool,
}

impl State {
    /// The path of the record.
    pub(crate) fn path(folders: &Folders) -> PathBuf {
        folders.root.join("hosts.json")
    }

    /// Reads the record; `None` when `config-ssh` was never run.
    ///
    /// # Errors
    /// [`Kind::File`] when it is damaged.
    pub(crate) fn load(folders: &Folders) -> Result<Option<State>> {
        let path = State::path(folders);
        let Some(text) = files::read_text(&path)? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|e| {
            Error::new(Kind::File, format!("{} is damaged: {e}", path.display())).with_hint(
                "delete it and run `config-ssh` again; deleting it does not change your own ssh configuration",
            )
        })
    }

    /// Writes the record.
    ///
    /// # Errors
    /// [`Kind::File`] when it cannot be written.
    pub(crate) fn save(&self, folders: &Folders) -> Result<()> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| Error::new(Kind::Internal, format!("cannot record the ssh entries: {e}")))?;
        files::write_private(&State::path(folders), format!("{text}\n").as_bytes())
    }

    /// Replaces the entries of one platform. The entries of the real one come first.
    pub(crate) fn set_entries(&mut self, platform: Platform, entries: Vec<Entry>) {
        self.entries.retain(|entry| entry.platform != platform);
        self.entries.extend(entries);
        self.entries.sort_by_key(|entry| entry.platform);
        self.labs |= platform == Platform::Labs;
    }

    /// The entries that lead to machines by our ProxyCommand.
    pub(crate) fn machines(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.listener.is_none())
    }

    /// Adds a file to the record, or replaces its entry.
    pub(crate) fn manage(&mut self, managed: Managed) {
        match self.files.iter_mut().find(|other| other.file == managed.file) {
            Some(other) => *other = managed,
            None => self.files.push(managed),
        }
    }

    /// The record of a file.
    pub(crate) fn managed(&self, file: &Path) -> Option<&Managed> {
        self.files.iter().find(|managed| managed.file == file)
    }

    /// The values for rendering the entries.
    pub(crate) fn rendering(&self, folders: &Folders) -> Rendering {
        Rendering {
            program: self.program.clone(),
            identity: self.identity.clone(),
            known_hosts: folders.known_hosts(Platform::Labs),
            known_hosts_local: folders.known_hosts(Platform::Local),
            home: self.home.clone(),
            moved_root: folders.moved_root(),
            literal_user: self.literal_user,
            wildcard: self.labs && self.safe_wildcard,
            containers: self.safe_wildcard,
        }
    }
}
