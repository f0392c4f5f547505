//! The readable names of playgrounds, which ssh's configuration has beside `playground-<id>`. They are kept as long as
//! the playground lives. Unlike other names they are no copy of what the platform knows, so a damaged file is not
//! replaced.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Kind, Result},
    files,
    platform::{Platform, is_id},
    settings::Folders,
    target::alias,
};

/// The aliases of one platform's playgrounds, by their ids.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(transparent)]
pub struct Aliases(BTreeMap<String, Alias>);

/// The alias of a playground.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub struct Alias {
    /// The label.
    pub label: String,
    /// The label that a title has made, before a number was added; `None` for an alias that the user gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<String>,
}

/// The file of the aliases of `platform`.
pub fn path(folders: &Folders, platform: Platform) -> PathBuf {
    folders.root.join(match platform {
        Platform::Labs => "aliases.json",
        Platform::Local => "aliases.local.json",
    })
}

impl Aliases {
    /// Reads the record.
    ///
    /// # Errors
    /// [`Kind::File`] when it cannot be read or is damaged.
    pub fn load(folders: &Folders, platform: Platform) -> Result<Aliases> {
        let path = path(folders, platform);
        let Some(text) = files::read_text(&path)? else { return Ok(Aliases::default()) };
        let damaged = |why: &str| {
            Error::new(Kind::File, format!("{} is damaged: {why}", path.display()))
                .with_hint("repair or delete it; deleting it takes the aliases from your playgrounds")
        };
        let aliases: Aliases = serde_json::from_str(&text).map_err(|e| damaged(&e.to_string()))?;
        for (play, Alias { label, .. }) in &aliases.0 {
            if !is_id(play) || alias::check(label).is_err() {
                return Err(damaged(&format!("{play} cannot be called {label}")));
            }
        }
        Ok(aliases)
    }

    /// Keeps those that satisfy `is_wanted`.
    pub fn retain(&mut self, mut is_wanted: impl FnMut(&Alias) -> bool) {
        self.0.retain(|_, alias| is_wanted(alias));
    }

    /// Returns the alias of a playground.
    pub fn of(&self, play: &str) -> Option<&Alias> {
        self.0.get(play)
    }

    /// Returns the label of a playground, by its id.
    pub fn label(&self, play: &str) -> Option<&str> {
        self.of(play).map(|alias| alias.label.as_str())
    }

    /// Returns the id of the playground that has this label.
    pub fn play(&self, label: &str) -> Option<&str> {
        self.0.iter().find(|(_, alias)| alias.label == label).map(|(play, _)| play.as_str())
    }

    /// Returns the ids of the playgrounds that have aliases.
    pub fn plays(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Returns the labels.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.0.values().map(|alias| alias.label.as_str())
    }
}

/// Returns the playground other than `play` that has this label, on either platform: both stand in one configuration.
///
/// # Errors
/// As [`Aliases::load`].
pub fn owner(folders: &Folders, play: &str, label: &str) -> Result<Option<(Platform, String)>> {
    for platform in Platform::ALL {
        if let Some(other) = Aliases::load(folders, platform)?.play(label).filter(|other| *other != play) {
            return Ok(Some((platform, other.to_owned())));
        }
    }
    Ok(None)
}

/// Gives a playground this alias, or none. Returns false if another one has got it in the meantime.
///
/// # Errors
/// As [`Aliases::load`], [`Kind::File`] when it cannot be written, and [`Kind::Internal`] for what is no label.
pub fn set(folders: &Folders, platform: Platform, play: &str, alias: Option<Alias>) -> Result<bool> {
    // One lock for both platforms, because no label may be in both.
    let _lock = files::Lock::acquire(&path(folders, Platform::Labs))?;
    if let Some(Alias { label, .. }) = &alias {
        alias::check(label).map_err(|why| Error::new(Kind::Internal, format!("{label} {why}")))?;
        if owner(folders, play, label)?.is_some() {
            return Ok(false);
        }
    }
    let mut aliases = Aliases::load(folders, platform)?;
    let before = aliases.clone();
    match alias {
        Some(alias) => drop(aliases.0.insert(play.to_owned(), alias)),
        None => drop(aliases.0.remove(play)),
    }
    if aliases != before {
        let text = serde_json::to_vec(&aliases).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
        files::write_private(&path(folders, platform), &text)?;
    }
    Ok(true)
}

/// Forgets the alias of a playground that no longer exists.
pub fn forget(folders: &Folders, platform: Platform, play: &str) {
    // Without a record there is nothing to lock.
    if !path(folders, platform).exists() {
        return;
    }
    if let Err(error) = set(folders, platform, play, None) {
        log::warn!("{}", error.message());
    }
}

#[cfg(test)]
mod tests {
    use super::{Alias, Aliases, forget, owner, path, set};
    use crate::{platform::Platform, settings::Folders};

    #[test]
    fn a_label_belongs_to_one_playground_of_both_platforms_and_damage_is_kept() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("root");
        let folders = Folders { home: home.path().into(), settings: root.join("settings.yaml"), root };
        let (one, two) = ("0".repeat(24), "1".repeat(24));
        let alias = |label: &str| Some(Alias { label: label.into(), made: None });
        let load = |platform| Aliases::load(&folders, platform);
        assert!(set(&folders, Platform::Local, &one, alias("my-lab")).unwrap());
        assert!(!set(&folders, Platform::Labs, &two, alias("my-lab")).unwrap());
        assert!(!path(&folders, Platform::Labs).exists());
        assert!(set(&folders, Platform::Local, &one, alias("my-lab")).unwrap(), "its own");
        assert_eq!(owner(&folders, &two, "my-lab").unwrap(), Some((Platform::Local, one.clone())));
        assert_eq!(owner(&folders, &one, "my-lab").unwrap(), None);
        assert!(set(&folders, Platform::Local, &one, alias("playground-2")).is_err(), "it would be damage");
        assert_eq!(load(Platform::Local).unwrap().play("my-lab"), Some(one.as_str()));
        forget(&folders, Platform::Local, &one);
        assert_eq!(load(Platform::Local).unwrap(), Aliases::default());
        assert!(set(&folders, Platform::Labs, &two, alias("my-lab")).unwrap());

        for damaged in ["", "{", "[]", r#"{"x": {"label": "a"}}"#, &format!(r#"{{"{one}": {{"label": "a b"}}}}"#)] {
            std::fs::write(path(&folders, Platform::Labs), damaged).unwrap();
            assert!(load(Platform::Labs).unwrap_err().message().contains("is damaged"), "{damaged}");
            assert!(set(&folders, Platform::Local, &one, alias("other")).is_err());
            forget(&folders, Platform::Labs, &two);
            assert_eq!(std::fs::read_to_string(path(&folders, Platform::Labs)).unwrap(), damaged);
        }
    }
}
