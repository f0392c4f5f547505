//! The needs of a program that is to be started, as its first bytes say.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// The kind of a program file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// It needs nothing.
    Static,
    /// It needs this loader.
    Loaded(String),
    /// A script for this program, with this argument where there is one.
    Script(String, Option<String>),
    /// No program of Linux.
    None,
}

/// Longest path of a loader, and longest first line of a script, which is the kernel's own bound.
const MAX_LINE: u64 = 256;

/// Most program headers that are read.
const MAX_HEADERS: u64 = 128;

/// Reads the kind of a file.
///
/// # Errors
/// Fails when it cannot be read.
pub(super) fn program(path: &Path) -> io::Result<Program> {
    let mut file = File::open(path)?;
    let mut header = [0; 64];
    let read = file.by_ref().take(64).read(&mut header)?;
    if header[..read].starts_with(b"#!") {
        file.rewind()?;
        return script(&file);
    }
    // All that this program is built for is of 64 bits, and little-endian.
    if read < 64 || !header.starts_with(b"\x7fELF\x02\x01") {
        return Ok(Program::None);
    }
    let (offset, size, count) = (number(&header[32..40]), number(&header[54..56]), number(&header[56..58]));
    for index in 0..count.min(MAX_HEADERS) {
        let mut entry = [0; 56];
        file.seek(SeekFrom::Start(offset.saturating_add(index * size)))?;
        file.read_exact(&mut entry)?;
        const INTERPRETER: u64 = 3;
        if number(&entry[..4]) == INTERPRETER {
            file.seek(SeekFrom::Start(number(&entry[8..16])))?;
            let mut path = String::new();
            file.take(number(&entry[32..40]).min(MAX_LINE)).read_to_string(&mut path)?;
            return Ok(Program::Loaded(path.trim_end_matches('\0').to_owned()));
        }
    }
    Ok(Program::Static)
}

fn script(file: &File) -> io::Result<Program> {
    let mut line = Vec::new();
    file.take(MAX_LINE).read_to_end(&mut line)?;
    let line = String::from_utf8_lossy(&line[2..]);
    let line = line.lines().next().unwrap_or_default().trim();
    let (program, argument) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let argument = Some(argument.trim().to_owned()).filter(|argument| !argument.is_empty());
    Ok(Program::Script(program.to_owned(), argument))
}

/// A little-endian number.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_kind_of_a_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let of = |bytes: &[u8]| {
            let path = folder.path().join("file");
            fs::write(&path, bytes).unwrap();
            program(&path)
        };
        assert_eq!(of(b"").unwrap(), Program::None);
        assert_eq!(of(b"text").unwrap(), Program::None);
        let script =
            |program: &str, argument: Option<&str>| Program::Script(program.to_owned(), argument.map(str::to_owned));
        assert_eq!(of(b"#!/bin/sh\necho").unwrap(), script("/bin/sh", None));
        assert_eq!(of(b"#! /usr/bin/env  -S a b \n").unwrap(), script("/usr/bin/env", Some("-S a b")));
        assert!(of(&[b"\x7fELF\x02\x01", &[255; 58][..]].concat()).is_err());
        // `file` is the judge of what this computer has.
        for (path, words) in [("/bin/sh", "interpreter"), ("/bin/busybox", "statically")] {
            let Ok(found) = program(Path::new(path)) else { continue };
            let said = std::process::Command::new("file").args(["-L", path]).output();
            let Ok(said) = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()) else { continue };
            assert_eq!(matches!(found, Program::Loaded(_)), said.contains("interpreter"), "{words}: {said}");
        }
    }
}
