//! Flatpaks: each keeps its configuration in a folder of its own, `~/.var/app/<application>/config`.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The configuration folders of the Flatpaks whose ids begin with one of `prefixes`, in the order of their names. There
/// is none for one that was never started.
pub(crate) fn configurations(home: &Path, prefixes: &[&str]) -> Vec<PathBuf> {
    let entries = fs::read_dir(home.join(".var/app"));
    let is_meant = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
    let mut found: Vec<PathBuf> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(is_meant))
        .map(|entry| entry.path().join("config"))
        .filter(|config| config.is_dir())
        .collect();
    found.sort();
    found
}
