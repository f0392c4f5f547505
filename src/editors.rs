//! The settings of editors that keep their own lists of SSH hosts.

pub mod jetbrains;
pub mod settings_file;
pub mod zed;
