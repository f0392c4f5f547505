//! The settings of editors that keep their own lists of SSH hosts.

pub(crate) mod flatpak;
pub mod jetbrains;
pub mod settings_file;
pub mod zed;
