//! A folder as a tar archive, in the form that every tar reads: ustar, with GNU's long names.
//!
//! Symbolic links stay what they are. Sockets, pipes and devices are left out, and so is `.git`, whose configuration may
//! hold the password of a remote. The last file is [`COMPLETE`], because tar takes an archive that is cut off between two
//! files for a whole one.

use std::{
    ffi::OsStr,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Kind, Result},
    os,
};

/// The largest size. Dotfiles have a few megabytes, and machines may be far away.
const LARGEST: u64 = 100 * MIB;
const MIB: u64 = 1024 * 1024;
/// The largest number of files.
const MOST: usize = 100_000;
/// The last file of an archive, beside the folder `source`.
const COMPLETE: &[u8] = b"complete";
/// The unit of tar.
const BLOCK: usize = 512;
/// Bytes that are read at a time.
const CHUNK: usize = 64 * 1024;
/// Folders of a home that hold secrets.
const SECRET: [&str; 3] = [".ssh", ".iximiuz", ".gnupg"];

/// The contents of a folder.
#[derive(Debug)]
pub(super) struct Archive {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    path: PathBuf,
    name: Vec<u8>,
    mode: u32,
    modified: u64,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Folder,
    File(u64),
    Link(Vec<u8>),
}

impl Archive {
    /// Looks at all of a folder, and reads none of its files yet.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a folder that is not there, too large, or the user's home or one that holds it or secrets;
    /// [`Kind::File`] when it cannot be read.
    pub(super) fn of(folder: &Path, home: &Path) -> Result<Archive> {
        let refused =
            |why: String| Error::new(Kind::Usage, format!("`setup` in the settings names {}, {why}", folder.display()));
        let real = match fs::canonicalize(folder) {
            Ok(real) => real,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(refused("which does not exist".to_owned())),
            Err(e) => return Err(Error::file("read", folder, &e)),
        };
        let home = fs::canonicalize(home).unwrap_or_else(|_| home.to_owned());
        if !real.is_dir() {
            return Err(refused("which is not a folder".to_owned()));
        }
        if home.starts_with(&real) || SECRET.iter().any(|name| real.starts_with(home.join(name))) {
            return Err(refused("which would send private files to machines; name a folder of dotfiles".to_owned()));
        }
        let mut archive = Archive { entries: Vec::new() };
        let mut size = 0;
        archive.add(&real, b"source".to_vec(), &mut size)?;
        if archive.entries.len() > MOST {
            return Err(refused(format!("which has more than {MOST} files")));
        }
        if size > LARGEST {
            return Err(refused(format!("which has {} MiB; 100 MiB may be sent", size.div_ceil(MIB))));
        }
        Ok(archive)
    }

    /// The archive from its beginning.
    pub(super) fn sending(&self) -> Sending<'_> {
        Sending { entries: &self.entries, sent: 0, open: None }
    }

    fn add(&mut self, path: &Path, name: Vec<u8>, size: &mut u64) -> Result<()> {
        let failed = |e: io::Error| Error::file("read", path, &e);
        let found = fs::symlink_metadata(path).map_err(failed)?;
        let form = if found.is_dir() {
            Form::Folder
        } else if found.is_file() {
            *size += found.len();
            Form::File(found.len())
        } else if found.is_symlink() {
            Form::Link(bytes(fs::read_link(path).map_err(failed)?.as_os_str()))
        } else {
            return Ok(());
        };
        let is_folder = found.is_dir();
        let modified = found.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        let modified = modified.map_or(0, |since| since.as_secs());
        self.entries.push(Entry { path: path.to_owned(), name: name.clone(), mode: mode(&found), modified, form });
        if is_folder {
            let mut within = fs::read_dir(path).map_err(failed)?.collect::<io::Result<Vec<_>>>().map_err(failed)?;
            within.sort_unstable_by_key(fs::DirEntry::file_name);
            for entry in within.iter().filter(|entry| entry.file_name() != ".git") {
                if self.entries.len() > MOST {
                    break;
                }
                self.add(&entry.path(), [&name, &b"/"[..], &bytes(&entry.file_name())].concat(), size)?;
            }
        }
        Ok(())
    }
}

/// An archive that is being sent.
pub(super) struct Sending<'a> {
    entries: &'a [Entry],
    /// The number of entries that were sent.
    sent: usize,
    /// The file that is being sent, and the number of its bytes that are missing.
    open: Option<(File, u64)>,
}

impl Sending<'_> {
    /// Returns the next bytes, or `None` at the end.
    ///
    /// # Errors
    /// Fails when a file cannot be read any more.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>> {
        if let Some((file, missing)) = self.open.take() {
            let path = &self.entries[self.sent - 1].path;
            let wanted = usize::try_from(missing).unwrap_or(CHUNK).min(CHUNK);
            let mut chunk = Vec::with_capacity(wanted + BLOCK);
            (&file).take(wanted as u64).read_to_end(&mut chunk).map_err(|e| Error::file("read", path, &e))?;
            // The length stands in the header, so a file that has become shorter is filled up.
            chunk.resize(wanted, 0);
            match missing - wanted as u64 {
                0 => pad(&mut chunk),
                missing => self.open = Some((file, missing)),
            }
            return Ok(Some(chunk));
        }
        let Some(entry) = self.entries.get(self.sent) else {
            // Behind the last entry come two empty blocks.
            let is_over = self.sent > self.entries.len();
            self.sent = self.entries.len() + 1;
            let end = || [header(COMPLETE, 0o600, 0, 0, b'0', b""), vec![0; 2 * BLOCK]].concat();
            return Ok((!is_over).then(end));
        };
        self.sent += 1;
        let mut chunk = Vec::new();
        let (kind, size, target) = match &entry.form {
            Form::Folder => (b'5', 0, &b""[..]),
            Form::File(size) => (b'0', *size, &b""[..]),
            Form::Link(target) => (b'2', 0, &target[..]),
        };
        for (text, kind) in [(&entry.name[..], b'L'), (target, b'K')] {
            if text.len() > NAME {
                chunk.extend(header(b"././@LongLink", 0, text.len() as u64 + 1, 0, kind, b""));
                chunk.extend(text);
                chunk.push(0);
                pad(&mut chunk);
            }
        }
        chunk.extend(header(&entry.name, entry.mode, size, entry.modified, kind, target));
        if size > 0 {
            // One that has become a pipe meanwhile must not hold this up.
            let opened = os::without_waiting(OpenOptions::new().read(true)).open(&entry.path);
            let file = opened.map_err(|e| Error::file("read", &entry.path, &e))?;
            self.open = Some((file, size));
        }
        Ok(Some(chunk))
    }
}

/// The longest name, or target of a link, that a header holds.
const NAME: usize = 100;

fn header(name: &[u8], mode: u32, size: u64, modified: u64, kind: u8, target: &[u8]) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, &name[..name.len().min(NAME)]);
    put(100, format!("{mode:07o}").as_bytes());
    put(108, b"0000000");
    put(116, b"0000000");
    put(124, format!("{size:011o}").as_bytes());
    put(136, format!("{:011o}", modified.min(0o77777777777)).as_bytes());
    put(148, b"        ");
    put(156, &[kind]);
    put(157, &target[..target.len().min(NAME)]);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Fills up to a whole number of blocks.
fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
}

/// A name as Unix has it.
fn bytes(name: &OsStr) -> Vec<u8> {
    let bytes = name.as_encoded_bytes();
    if cfg!(windows) { bytes.iter().map(|b| if *b == b'\\' { b'/' } else { *b }).collect() } else { bytes.to_vec() }
}

/// The permissions. Windows knows none, and a script that is not executable is made so.
#[cfg(unix)]
fn mode(found: &Metadata) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    found.permissions().mode() & 0o777
}

#[cfg(not(unix))]
fn mode(_found: &Metadata) -> u32 {
    0o755
}
