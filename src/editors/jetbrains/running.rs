//! The process of a product that runs.

use std::path::{Path, PathBuf};

use crate::files;

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
/// with its selector.
pub(super) fn process(folder: &Path, selector: &str) -> Option<Process> {
    let locked = files::read_text(&lock(folder)).ok().flatten().and_then(|text| text.trim().parse().ok());
    locked.and_then(|pid| Some(Process { pid, name: system::name(pid)? })).or_else(|| system::started_with(selector))
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs;

    use super::Process;

    /// The name of a process that lives.
    pub(super) fn name(pid: u32) -> Option<String> {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some(name.trim().to_owned())
    }

    /// The process whose arguments name the product's folder, which launchers pass to the virtual machine.
    pub(super) fn started_with(selector: &str) -> Option<Process> {
        let argument = format!("-Didea.paths.selector={selector}");
        fs::read_dir("/proc").ok()?.filter_map(Result::ok).find_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let command = fs::read(entry.path().join("cmdline")).ok()?;
            let is_it = command.split(|byte| *byte == 0).any(|word| word == argument.as_bytes());
            is_it.then(|| Some(Process { pid, name: name(pid)? }))?
        })
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::process::{Command, Stdio};

    use super::Process;

    /// The name of a process that lives, according to the system's own program.
    pub(super) fn name(pid: u32) -> Option<String> {
        if cfg!(windows) {
            super::task_name(&run("tasklist", &["/FI", &format!("PID eq {pid}"), "/FO", "CSV", "/NH"])?)
        } else {
            let name = run("ps", &["-p", &pid.to_string(), "-o", "comm="])?;
            Some(name.trim().to_owned()).filter(|name| !name.is_empty())
        }
    }

    /// None: on these systems only the lock is read.
    pub(super) fn started_with(_selector: &str) -> Option<Process> {
        None
    }

    fn run(program: &str, arguments: &[&str]) -> Option<String> {
        let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The program in a line of Windows' `tasklist /FO CSV`, which writes a sentence instead when there is no such process.
#[cfg(any(not(target_os = "linux"), test))]
fn task_name(line: &str) -> Option<String> {
    let (name, rest) = line.trim().strip_prefix('"')?.split_once('"')?;
    rest.starts_with(',').then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::task_name;

    #[test]
    fn reads_windows_list_of_tasks() {
        let line = "\"idea64.exe\",\"4711\",\"Console\",\"1\",\"1,234,567 K\"\r\n";
        assert_eq!(task_name(line).as_deref(), Some("idea64.exe"));
        assert_eq!(task_name("INFO: No tasks are running which match the specified criteria.\r\n"), None);
        assert_eq!(task_name(""), None);
    }

    #[cfg(target_os = "linux")]
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
