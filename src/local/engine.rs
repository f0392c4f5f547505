//! The container engine that programs on the machines find, which is one of this computer.
//!
//! A machine is this computer, so the containers of its engine are the containers of every machine. Without a choice
//! the sessions have no variable for it, and docker and the helper look where they always do. The choice is Docker's
//! socket, or a folder of bundles for the engines that have no socket to ask. It is kept in the platform's folder, because
//! a platform that starts on demand is given no options.

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
const SOCKET: &str = "DOCKER_HOST";

/// The variable by which the helper knows a folder, outside of which no container counts.
const FOLDER: &str = "LABCTL_SSH_PROXY_BUNDLES";

/// The scheme of a Unix socket in [`SOCKET`].
const SCHEME: &str = "unix://";

/// The file of the choice, in the platform's folder.
const FILE: &str = "engine";

/// The variable, and its value, by which programs on a machine find the `chosen` engine.
pub(super) fn variable(chosen: &str) -> (&'static str, String) {
    if Path::new(chosen).is_dir() { (FOLDER, chosen.to_owned()) } else { (SOCKET, format!("{SCHEME}{chosen}")) }
}

/// Checks the engine that a user names: a folder of bundles, or a socket, as a path or in the words of [`SOCKET`]. Returns
/// its absolute path.
///
/// # Errors
/// [`Kind::Usage`] when it is no path that docker can use, or another file has that path; [`Kind::NotFound`] when
/// there is no such file.
pub fn chosen(text: &str) -> Result<String> {
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
        Ok(data) if data.file_type().is_socket() || data.is_dir() => Ok(absolute.to_owned()),
        Ok(_) => usage(format!("{absolute} is neither a socket nor a folder, so no engine has it")),
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
    fn an_engine_is_a_socket_or_a_folder_of_this_computer() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("docker.sock");
        let text = path.to_str().unwrap();
        assert_eq!(chosen(text).unwrap_err().kind(), Kind::NotFound);
        let _listener = UnixListener::bind(&path).unwrap();
        assert_eq!(chosen(text).unwrap(), text);
        let (name, value) = variable(text);
        assert_eq!((name, chosen(&value).unwrap().as_str()), (SOCKET, text));
        let all = folder.path().to_str().unwrap();
        assert_eq!(variable(&chosen(all).unwrap()), (FOLDER, all.to_owned()));
        fs::write(folder.path().join("file"), "").unwrap();
        let file = folder.path().join("file");
        for wrong in ["tcp://127.0.0.1:2375", "ssh://example.org", "", "a\nb", file.to_str().unwrap()] {
            assert_eq!(chosen(wrong).unwrap_err().kind(), Kind::Usage, "{wrong:?}");
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
