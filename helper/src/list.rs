//! `helper list`: the containers of the machine, as JSON on standard output.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use serde::Serialize;

use crate::{engine::Engine, resolve};

/// Writes a `wire::Listing`, or a `wire::Refusal` and exits with 1.
pub fn run() -> ExitCode {
    let (written, code) = match resolve::list(&Engine::of_environment()) {
        Ok(listing) => (write(&listing), ExitCode::SUCCESS),
        Err(refusal) => (write(&refusal), ExitCode::FAILURE),
    };
    if written.is_ok() { code } else { ExitCode::FAILURE }
}

/// Writes a message as one line.
pub(crate) fn write(message: &impl Serialize) -> io::Result<()> {
    let mut json = serde_json::to_vec(message)?;
    json.push(b'\n');
    io::stdout().write_all(&json)
}
