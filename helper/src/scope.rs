//! The containers that count beside those of Docker's engine.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::server::processes::MARKER;

/// The variable that names a folder outside of which no bundle counts. The embedded platform sets it.
const BUNDLES: &str = "LABCTL_SSH_PROXY_BUNDLES";

/// The containers that count beside Docker's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All of the machine.
    All,
    /// Those whose bundles lie in this folder.
    Below(PathBuf),
    /// None.
    Nothing,
}

impl Scope {
    /// The scope that the environment names. A machine of the embedded platform is a computer that has containers of its
    /// own, too: there, an engine that was chosen is the only one.
    pub(crate) fn of_environment(has_chosen_engine: bool) -> Scope {
        match env::var_os(BUNDLES) {
            Some(folder) => Scope::Below(folder.into()),
            None if has_chosen_engine && env::var_os(MARKER).is_some() => Scope::Nothing,
            None => Scope::All,
        }
    }

    /// Reports whether a bundle counts.
    pub(crate) fn has(&self, path: &Path) -> bool {
        match self {
            Scope::All => true,
            Scope::Below(folder) => path.starts_with(folder),
            Scope::Nothing => false,
        }
    }
}
