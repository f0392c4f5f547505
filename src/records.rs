//! The records that are kept between runs. Each knows the names of its own files.

use std::path::PathBuf;

use crate::{platform::Platform, settings::Folders};

pub mod aliases;
pub mod forwards;
pub mod journal;
pub mod listeners;
pub mod live;
pub mod memory;
pub mod names;
mod presence;
pub mod relays;
pub mod seeds;
pub mod setups;
pub mod tickets;
pub mod tunnels;

/// A folder of records, and a function that tells our files in it, by their names, from others.
pub(crate) type Kept = (PathBuf, fn(&str) -> bool);

/// The files of the records that are one file each.
pub(crate) fn files(folders: &Folders) -> Vec<PathBuf> {
    Platform::ALL
        .iter()
        .flat_map(|&platform| [names::path(folders, platform), aliases::path(folders, platform)])
        .collect()
}

/// The folders of the others.
pub(crate) fn folders(folders: &Folders) -> Vec<Kept> {
    let mut kept: Vec<Kept> = vec![
        (journal::folder(folders), journal::is_own),
        (listeners::folder(folders), listeners::is_own),
        (live::folder(folders), presence::is_own),
        (forwards::folder(folders), presence::is_own),
        (relays::folder(&folders.root), relays::is_own),
        (seeds::folder(&folders.root), seeds::is_own),
        (setups::folder(folders), setups::is_own),
        (tickets::folder(&folders.root), tickets::is_own),
        (tunnels::folder(&folders.root), tunnels::is_own),
    ];
    kept.extend(Platform::ALL.map(|platform| (memory::folder(folders, platform), memory::is_own as fn(&str) -> bool)));
    kept
}
