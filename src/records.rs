//! The records that are kept between runs. Each knows the names of its own files.

use std::path::PathBuf;

use crate::{platform::Platform, settings::Folders};

pub mod journal;
pub mod live;
pub mod memory;
pub mod names;
pub mod tunnels;

/// The files and folders of all records.
pub fn files(folders: &Folders) -> Vec<PathBuf> {
    let names = Platform::ALL.map(|platform| names::path(folders, platform));
    [journal::folder(folders), live::folder(folders)].into_iter().chain(names).chain(replaced_in(folders)).collect()
}

/// The folders in which records are written beside and renamed over, so that a killed run may leave temporaries there.
pub fn replaced_in(folders: &Folders) -> Vec<PathBuf> {
    let memories = Platform::ALL.map(|platform| memory::folder(folders, platform));
    memories.into_iter().chain([tunnels::folder(&folders.root)]).collect()
}
