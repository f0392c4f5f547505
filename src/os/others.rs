//! Other processes of this computer, on every system. Asking for them takes milliseconds, so `connect` does it only where
//! a container is meant.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
};

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};

/// The most shells between ssh and a program that it starts. Most become that program, and Windows' does not.
const SHELLS: usize = 2;

/// The name of a process that lives.
pub(crate) fn process_name(process: u32) -> Option<String> {
    let (mut system, process) = (System::new(), Pid::from_u32(process));
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[process]), true, ProcessRefreshKind::nothing());
    Some(system.process(process)?.name().to_string_lossy().into_owned())
}

/// The arguments of the ssh that has started this process, itself or by a shell.
pub(crate) fn arguments_of_ssh() -> Option<Vec<OsString>> {
    let mut system = System::new();
    let arguments = ProcessRefreshKind::nothing().without_tasks().with_cmd(UpdateKind::Always);
    let mut one = Pid::from_u32(std::process::id());
    for _ in 0..=SHELLS {
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[one]), false, arguments);
        let process = system.process(one)?;
        if Path::new(process.name()).file_stem().is_some_and(|name| name == "ssh") {
            return Some(process.cmd().to_vec());
        }
        one = process.parent()?;
    }
    None
}

/// The number and the name of a process that was started with this argument.
pub(crate) fn process_with_argument(argument: &str) -> Option<(u32, String)> {
    let mut system = System::new();
    let arguments = ProcessRefreshKind::nothing().without_tasks().with_cmd(UpdateKind::Always);
    system.refresh_processes_specifics(ProcessesToUpdate::All, true, arguments);
    let found =
        system.processes().values().find(|process| process.cmd().iter().any(|one| one == OsStr::new(argument)))?;
    Some((found.pid().as_u32(), found.name().to_string_lossy().into_owned()))
}

#[cfg(test)]
mod tests {
    use super::{process_name, process_with_argument};

    #[test]
    fn processes_are_found_by_number_and_by_argument() {
        let (number, name) = process_with_argument(&std::env::args().next().unwrap()).unwrap();
        assert_eq!(process_name(number), Some(name));
        assert!(process_name(std::process::id()).unwrap().starts_with("labctl"));
        // Above the largest number of Linux and macOS, and no multiple of four, which Windows' numbers are.
        assert_eq!(process_name(i32::MAX.unsigned_abs()), None);
        assert_eq!(process_with_argument("an argument of no process"), None);
    }
}
