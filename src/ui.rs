//! The terminal: output of commands, messages on standard error, progress, and the standard streams themselves.

pub mod notice;
pub mod out;
pub(crate) mod spinner;
pub(crate) mod stdio;
