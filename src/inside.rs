//! Containers of a machine: the helper is put there, asked, and started in one of them.
//!
//! # Layout
//!
//! - [`program`]: the helper's program, as this computer has it.

pub mod program;
