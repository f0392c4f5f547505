//! The process of a product that runs.

use std::path::{Path, PathBuf};

use crate::{files, os};

/// A process that keeps us from editing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    /// Its number.
    pub pid: u32,
    /// The system's name for it.
    pub name: String,
}

/// The file in which a running product writes its process number.
pub(super) fn lock(folder: &Path) -> PathBuf {
    folder.join(".lock")
}

/// The process of the product with this folder: the one that its lock names, if it lives, else one that was started
/// with its selector, which launchers pass to the virtual machine.
pub(super) fn process(folder: &Path, selector: &str) -> Option<Process> {
    let locked = files::read_text(&lock(folder)).ok().flatten().and_then(|text| text.trim().parse().ok());
    let by_lock = || locked.and_then(|pid| Some((pid, os::process_name(pid)?)));
    let by_selector = || os::process_with_argument(&format!("-Didea.paths.selector={selector}"));
    let (pid, name) = by_lock().or_else(by_selector)?;
    Some(Process { pid, name })
}

#[cfg(all(test, unix))]
mod tests {
    #[test]
    fn a_product_that_runs_is_found_by_its_lock_and_by_its_command_line() {
        use std::{fs, process::Command};

        use super::{lock, process};

        let folder = tempfile::tempdir().unwrap();
        let selector = format!("Test{}", std::process::id());
        assert_eq!(process(folder.path(), &selector), None);
        // As a Java launcher's: the argument stands among others.
        let argument = format!("-Didea.paths.selector={selector}");
        let mut child = Command::new("sh")
            .args(["-c", "read x", "sh", &argument])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        while process(folder.path(), &selector).is_none_or(|found| found.name != "sh") {
            std::thread::yield_now();
        }
        assert_eq!(process(folder.path(), &selector).unwrap().pid, child.id());
        fs::write(lock(folder.path()), format!("{}\n", child.id())).unwrap();
        assert_eq!(process(folder.path(), "another").unwrap().pid, child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(process(folder.path(), &selector), None, "a lock that was left behind does no harm");
    }
}
