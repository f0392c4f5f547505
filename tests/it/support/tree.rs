//! A copy of the repository, for scripts that change it.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::Said;

/// The repository.
pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A copy of the repository, without what is built and downloaded.
pub struct Tree {
    folder: tempfile::TempDir,
}

impl Tree {
    pub fn copy() -> Tree {
        let folder = tempfile::tempdir().unwrap();
        copy(Path::new(ROOT), folder.path());
        Tree { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Runs one of the copy's scripts.
    pub fn script<S: AsRef<OsStr>>(&self, name: &str, args: &[S]) -> Said {
        Said::of(Command::new(self.path("scripts").join(name)).args(args).output().unwrap())
    }

    /// Runs git in the copy, with a name for commits and without the user's configuration.
    pub fn git(&self, args: &[&str]) -> String {
        let mut git = Command::new("git");
        git.current_dir(self.folder.path()).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        git.args(["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]);
        Said::of(git.args(args).output().unwrap()).ok()
    }
}

fn copy(from: &Path, to: &Path) {
    const LEFT_OUT: [&str; 7] = [".git", "target", "node_modules", "dist", "corpus", "artifacts", "__pycache__"];
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        if LEFT_OUT.iter().any(|left_out| name == *left_out) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(to.join(&name)).unwrap();
            copy(&path, &to.join(&name));
        } else {
            fs::copy(&path, to.join(&name)).unwrap();
        }
    }
}
