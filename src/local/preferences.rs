//! The account's preferences, which live in a file of the platform's folder.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Kind, Result},
    files,
};

use super::refusal::{Answer, Refusal};

/// The platform's regions.
const REGIONS: [&str; 2] = ["eu", "ap"];

/// The preferences as the file has them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Chosen {
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
}

/// The preferences and their file.
pub(super) struct Preferences {
    path: PathBuf,
    chosen: Mutex<Chosen>,
}

impl Preferences {
    /// Reads the preferences in `folder`.
    ///
    /// # Errors
    /// Fails when the file cannot be read or understood.
    pub(super) fn open(folder: &Path) -> Result<Preferences> {
        let path = folder.join("preferences.json");
        let chosen = match files::read_text(&path)? {
            None => Chosen::default(),
            Some(text) => serde_json::from_str(&text).map_err(|e| {
                Error::new(Kind::File, format!("{} is damaged: {e}", path.display()))
                    .with_hint("delete it to start without preferences")
            })?,
        };
        Ok(Preferences { path, chosen: Mutex::new(chosen) })
    }

    /// The region for new playgrounds, if the account has chosen one. Here all of them run on this computer.
    pub(super) fn region(&self) -> Option<String> {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner).region.clone()
    }

    /// Chooses the region of new playgrounds.
    ///
    /// # Errors
    /// 400 when there is no such region, 507 when the choice cannot be kept.
    pub(super) fn choose_region(&self, region: &str) -> Answer<()> {
        if !REGIONS.contains(&region) {
            let words = format!("there is no region {region:?}; there are {}", REGIONS.join(", "));
            return Err(Refusal::bad_request(words));
        }
        let next = Chosen { region: Some(region.to_owned()) };
        let text = serde_json::to_vec_pretty(&next)
            .map_err(|e| Error::new(Kind::Internal, format!("cannot write preferences: {e}")))?;
        let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        files::write_private(&self.path, &text)?;
        *chosen = next;
        Ok(())
    }
}
