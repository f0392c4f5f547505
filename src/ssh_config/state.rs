//! What is managed: `hosts.json` in our folder, from which every entry is rendered.

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
pub struct State {
    /// The program that entries name.
    pub program: PathBuf,
    /// The identity that entries name.
    pub identity: Option<PathBuf>,
    /// The home folder, where ssh and everybody else agree on it.
    pub home: Option<PathBuf>,
    /// What [`Rendering::literal_user`] was at the last look at ssh.
    pub literal_user: bool,
    /// Whether this ssh can be trusted with a wildcard: it lets no hostile host name through to a shell.
    pub safe_wildcard: bool,
    /// Whether entries of the real platform were ever asked for: a wildcard goes with them.
    pub labs: bool,
    /// The users' files that we are in.
    pub files: Vec<Managed>,
    /// All entries.
    pub entries: Vec<Entry>,
}

/// A file that we are in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Managed {
    /// As the user calls it, absolute.
    pub file: PathBuf,
    /// It holds the entries themselves.
    pub inline: bool,
    /// We made it, so it goes when nothing else is in it.
    pub created: bool,
}

impl State {
    /// Where it lies.
    pub fn path(folders: &Folders) -> PathBuf {
        folders.root.join("hosts.json")
    }

    /// Reads it; `None` when `config-ssh` was never run.
    ///
    /// # Errors
    /// [`Kind::File`] when it is damaged.
    pub fn load(folders: &Folders) -> Result<Option<State>> {
        let path = State::path(folders);
        let Some(text) = files::read_text(&path)? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|e| {
            Error::new(Kind::File, format!("{} is damaged: {e}", path.display()))
                .with_hint("delete it and run `config-ssh` again; your own ssh configuration is not touched by that")
        })
    }

    /// Writes it.
    ///
    /// # Errors
    /// [`Kind::File`] when it cannot be written.
    pub fn save(&self, folders: &Folders) -> Result<()> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| Error::new(Kind::Internal, format!("cannot record the ssh entries: {e}")))?;
        files::write_private(&State::path(folders), format!("{text}\n").as_bytes())
    }

    /// Replaces the entries of one platform. Those of the real one come first.
    pub fn set_entries(&mut self, platform: Platform, entries: Vec<Entry>) {
        self.entries.retain(|entry| entry.platform != platform);
        self.entries.extend(entries);
        self.entries.sort_by_key(|entry| entry.platform);
        self.labs |= platform == Platform::Labs;
    }

    /// Puts a file on record.
    pub fn manage(&mut self, managed: Managed) {
        match self.files.iter_mut().find(|other| other.file == managed.file) {
            Some(other) => *other = managed,
            None => self.files.push(managed),
        }
    }

    /// The record of a file.
    pub fn managed(&self, file: &Path) -> Option<&Managed> {
        self.files.iter().find(|managed| managed.file == file)
    }

    /// How the entries are to be rendered.
    pub fn rendering(&self, folders: &Folders) -> Rendering {
        Rendering {
            program: self.program.clone(),
            identity: self.identity.clone(),
            known_hosts: folders.known_hosts(Platform::Labs),
            known_hosts_local: folders.known_hosts(Platform::Local),
            home: self.home.clone(),
            moved_root: folders.moved_root(),
            literal_user: self.literal_user,
            wildcard: self.labs && self.safe_wildcard,
        }
    }
}
