//! The terminal: standard output of commands, short lines on standard error, progress, and the streams themselves.

pub mod notice;
pub mod out;
pub mod spinner;
pub mod stdio;
