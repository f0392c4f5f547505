//! The container engine that programs on the machines find, which is one of this computer.
//!
//! A machine is this computer, so the containers of its engine are the containers of every machine. Without a choice
//! the sessions have no `DOCKER_HOST`, and docker and the helper look where they always do. The choice is kept in the
//! platform's folder, because a platform that starts on demand is given no options.

use std::{
    fs, io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Kind, Result},
    files,
};

/// The variable by which docker's client and the helper find an engine.
pub(super) const VARIABLE: &str = "DOCKER_HOST";

/// The scheme of a Unix socket in [`VARIABLE`].
const SCHEME: &str = "unix://";

/// The file of the choice, in the platform's folder.
const FILE: &str = "engine";

/// The value of [`VARIABLE`] for the engine at `socket`.
pub(super) fn value(socket: &str) -> String {
    format!("{SCHEME}{socket}")
}

/// Checks the socket that a user names, as a path or in the words of [`VARIABLE`], and returns its absolute path.
///
/// # Errors
/// [`Kind::Usage`] when it is no path that docker can use, or another file has that path; [`Kind::NotFound`] when
/// there is no such file.
pub fn socket(text: &str) -> Result<String> {
    let path = text.strip_prefix(SCHEME).unwrap_or(text);
    let usage = |message: String| Err(Error::new(Kind::Usage, message));
    if path.contains("://") {
        return usage(format!("the engine {text} has no Unix socket; name the socket of one on this computer"));
    }
    let absolute = std::path::absolute(path).ok().filter(|_| !path.contains(char::is_control));
    let Some(absolute) = absolute.as_deref().and_then(Path::to_str) else {
        return usage(format!("the engine's socket {text:?} is not a path"));
    };
    match fs::metadata(absolute) {
        Ok(data) if data.file_type().is_socket() => Ok(absolute.to_owned()),
        Ok(_) => usage(format!("{absolute} is not a socket, so no engine listens there")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err(Error::new(Kind::NotFound, format!("there is no engine's socket {absolute}"))
                .with_hint("start the engine first; Docker's is /var/run/docker.sock by default"))
        }
        Err(e) => Err(Error::file("find", Path::new(absolute), &e)),
    }
}

/// The engine of the platform in `folder`: `chosen` now, which is kept, or an earlier choice.
///
/// # Errors
/// Fails when the file of the choice cannot be read or written.
pub(super) fn keep(folder: &Path, chosen: Option<String>) -> Result<Option<String>> {
    let path: PathBuf = folder.join(FILE);
    let kept = files::read_text(&path)?.map(|text| text.trim_end().to_owned()).filter(|text| !text.is_empty());
    match chosen {
        None => Ok(kept),
        Some(socket) => {
            if kept.as_deref() != Some(&socket) {
                files::write_private(&path, format!("{socket}\n").as_bytes())?;
            }
            Ok(Some(socket))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use tempfile::tempdir;

    use super::*;

    #[test]
    fn an_engine_is_a_socket_of_this_computer() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("docker.sock");
        let text = path.to_str().unwrap();
        assert_eq!(socket(text).unwrap_err().kind(), Kind::NotFound);
        let _listener = UnixListener::bind(&path).unwrap();
        assert_eq!(socket(text).unwrap(), text);
        assert_eq!(socket(&value(text)).unwrap(), text);
        fs::write(folder.path().join("file"), "").unwrap();
        let file = folder.path().join("file");
        for wrong in ["tcp://127.0.0.1:2375", "ssh://example.org", "", "a\nb", file.to_str().unwrap()] {
            assert_eq!(socket(wrong).unwrap_err().kind(), Kind::Usage, "{wrong:?}");
        }
    }

    #[test]
    fn a_choice_is_kept_until_the_next() {
        let folder = tempdir().unwrap();
        assert_eq!(keep(folder.path(), None).unwrap(), None);
        assert_eq!(keep(folder.path(), Some("/a".to_owned())).unwrap().as_deref(), Some("/a"));
        assert_eq!(keep(folder.path(), None).unwrap().as_deref(), Some("/a"));
        assert_eq!(keep(folder.path(), Some("/b".to_owned())).unwrap().as_deref(), Some("/b"));
        assert_eq!(keep(folder.path(), None).unwrap().as_deref(), Some("/b"));
    }
}
