//! The terminal: output of commands, messages on standard error, progress, and the standard streams themselves.

pub mod color;
pub(crate) mod foreign;
pub mod input;
pub(crate) mod nearest;
pub mod notice;
pub mod out;
#[cfg(unix)]
pub(crate) mod raw;
pub mod screen;
pub(crate) mod spinner;
pub(crate) mod stdio;
