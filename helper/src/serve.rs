//! `helper serve`: the SSH server in a container, on its standard input and output.

mod settings;

pub use settings::{DESCRIPTOR as SETTINGS_DESCRIPTOR, Settings};
