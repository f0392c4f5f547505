//! The log: one file per connection, bounded in size and in number. It never writes to standard output, and to standard
//! error only with `-v`. Each line names its connection, because several may share a file of the user's, and `logs` prints
//! them all.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use log::{LevelFilter, Log, Metadata, Record};

use crate::{
    error::{Error, Result},
    files, os, secrets,
    settings::{Folders, LogLevel},
    ui::notice,
};

/// The largest log. A longer one is cut off, because something repeats itself.
const MAX_BYTES: usize = 256 * 1024;
/// The largest number of logs; older ones are removed. An editor opens several connections for one window.
const MAX_FILES: usize = 40;

/// The folder of the logs.
pub fn folder(folders: &Folders) -> PathBuf {
    folders.root.join("logs")
}

struct Journal {
    file: Option<Mutex<(File, usize)>>,
    /// The connection, as each line of the file names it: `HOST[PID]: `; empty for another command.
    of: String,
    verbose: bool,
}

/// The user's wishes for the log.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The number of times that `-v` was given.
    pub verbose: u8,
    /// The file to write instead of the connection's own.
    pub file: Option<PathBuf>,
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Off => LevelFilter::Off,
            LogLevel::Error => LevelFilter::Error,
            LogLevel::Warn => LevelFilter::Warn,
            LogLevel::Info => LevelFilter::Info,
            LogLevel::Debug => LevelFilter::Debug,
            LogLevel::Trace => LevelFilter::Trace,
        }
    }
}

/// Begins the log of this process. `connection` is the name of the connection that it is for, if any.
///
/// # Errors
/// Fails when the file that the user named cannot be opened. A failure with a file of our own costs only the log.
pub fn begin(folders: &Folders, level: LogLevel, options: &Options, connection: Option<&str>) -> Result<()> {
    let level = match options.verbose {
        0 => level.into(),
        1 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    let file = match (&options.file, connection) {
        (Some(path), _) => Some(open(path).map_err(|e| Error::file("open the log", path, &e))?),
        (None, Some(host)) if level > LevelFilter::Off => {
            let folder = folder(folders);
            prune(&folder);
            let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S");
            open(&folder.join(format!("{now}-{host}-{}.log", std::process::id()))).ok()
        }
        (None, _) => None,
    };
    let verbose = options.verbose > 0;
    if file.is_some() || verbose {
        let of = connection.map(|host| format!("{host}[{}]: ", std::process::id())).unwrap_or_default();
        let journal = Journal { file: file.map(|file| Mutex::new((file, MAX_BYTES))), of, verbose };
        // A process that has a log already keeps it.
        if log::set_boxed_logger(Box::new(journal)).is_ok() {
            log::set_max_level(level);
        }
    }
    Ok(())
}

/// A host name as part of a file's name, because ssh may pass anything.
pub fn name(host: &str) -> String {
    host.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')).take(128).collect()
}

fn open(path: &Path) -> std::io::Result<File> {
    if let Some(folder) = path.parent() {
        files::make_private_folder(folder)?;
    }
    // A pipe that the user named must not hold up the connection, neither here nor while its reader rests.
    files::open_or_make(path, os::without_waiting(OpenOptions::new().append(true)))
}

/// Returns the logs of connections, the oldest first, each with the host name that its client called.
pub(crate) fn all(folders: &Folders) -> Vec<(PathBuf, String)> {
    let mut logs = own(&folder(folders));
    // Their names begin with the time.
    logs.sort_unstable();
    logs.into_iter().filter_map(|path| Some((path.clone(), host_of(path.file_name()?.to_str()?)?.to_owned()))).collect()
}

/// The host in the name of a log.
fn host_of(name: &str) -> Option<&str> {
    name.strip_suffix(".log")?.get(16..)?.rsplit_once('-').map(|(host, _)| host)
}

fn own(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let entries = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_own));
    entries.map(|entry| entry.path()).collect()
}

/// Reports whether a file of the folder has a name that we give: the time, the host and the process.
pub(super) fn is_own(name: &str) -> bool {
    let time = name.as_bytes().iter().take(16).enumerate();
    let is_time = |(at, byte): (usize, &u8)| match at {
        8 => *byte == b'T',
        15 => *byte == b'-',
        _ => byte.is_ascii_digit(),
    };
    name.len() > 16 && time.into_iter().all(is_time) && name.ends_with(".log")
}

/// Makes room for one more log.
fn prune(folder: &Path) {
    let mut logs = own(folder);
    // Their names begin with the time.
    logs.sort_unstable();
    for old in logs.iter().take((logs.len() + 1).saturating_sub(MAX_FILES)) {
        // Another connection may have removed it already.
        let _ = fs::remove_file(old);
    }
}

impl Log for Journal {
    /// Libraries log warnings and errors only, because their other messages may hold anything.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with(env!("CARGO_CRATE_NAME")) || metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
        let (level, words) = (record.level(), record.args().to_string());
        let words = secrets::hidden(&words);
        if let Some(file) = &self.file {
            let text = format!("{now} {level:5} {}{words}\n", self.of);
            let (file, left) = &mut *file.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(rest) = left.checked_sub(text.len()) {
                *left = rest;
                // A full disk must not end a connection.
                let _ = file.write_all(text.as_bytes());
            }
        }
        if self.verbose {
            notice::line(format!("{now} {level:5} {words}").trim_end());
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::{MAX_FILES, host_of, prune};

    #[test]
    fn only_so_many_logs_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let name = |i: usize| format!("20250101T{i:06}-playground-x-17.log");
        for i in 0..MAX_FILES + 5 {
            std::fs::write(folder.path().join(name(i)), "").unwrap();
        }
        std::fs::write(folder.path().join("0-mine.log"), "").unwrap();
        prune(folder.path());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), MAX_FILES);
        assert!(!folder.path().join(name(0)).exists() && folder.path().join("0-mine.log").exists());
        assert_eq!(host_of(&name(3)), Some("playground-x"));
    }
}
