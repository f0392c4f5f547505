//! The output of setups, a file for each machine: the last one's.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    error::Result,
    files,
    settings::Folders,
    target::{Target, is_label},
};

/// The largest number of files; older ones are removed.
const MAX_FILES: usize = 40;

/// The folder of the files.
pub fn folder(folders: &Folders) -> PathBuf {
    folders.root.join("setup")
}

/// Reports whether a file of the folder has a name that we give.
pub(super) fn is_own(name: &str) -> bool {
    name.strip_suffix(".log").is_some_and(|name| name.split('.').all(is_label))
}

/// Keeps the output of the setup of a machine. Returns the path of its file.
///
/// # Errors
/// Fails when it cannot be written.
pub(crate) fn keep(folders: &Folders, play: &str, machine: &str, output: &[u8]) -> Result<PathBuf> {
    let folder = folder(folders);
    let path = folder.join(format!("{}.log", Target::of_play(play, Some(machine))));
    prune(&folder, &path);
    files::write_private(&path, output)?;
    Ok(path)
}

/// Makes room for one more file.
fn prune(folder: &Path, new: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut own: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.path() != new && entry.file_name().to_str().is_some_and(is_own))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    own.sort_unstable();
    for (_, old) in own.iter().take((own.len() + 1).saturating_sub(MAX_FILES)) {
        // Another process may have removed it already.
        let _ = fs::remove_file(old);
    }
}
