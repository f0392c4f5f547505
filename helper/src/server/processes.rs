//! Everything that was started on a machine, so that all of it can be ended.
//!
//! Processes leave their group and session (`setsid`, tmux, daemons), so groups alone do not find them. Each process is
//! started with a variable in its environment that names the machine's folder, which its children inherit: on Linux
//! `/proc` finds all of them by it, also those of an earlier life of this program. A process that is started with an
//! empty environment *and* leaves its group escapes. Elsewhere than on Linux only groups are ended.

use std::{collections::HashSet, io, path::Path, sync::Mutex, time::Duration};

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};

use super::locked;

/// The variable that names the machine's folder to everything that is started on it.
pub const MARKER: &str = "LABCTL_SSH_PROXY_MACHINE";

/// The time between SIGHUP and SIGKILL.
const GRACE: Duration = Duration::from_millis(500);

/// The interval at which [`Processes::stop`] checks that all are gone.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The number of rounds of SIGKILL. A fork bomb may outrun it, and is not chased for ever.
const KILL_ROUNDS: usize = 50;

/// The number of a process that has just been started.
///
/// # Errors
/// Fails when it has none, because it has been waited for already.
pub fn pid_of(child: &tokio::process::Child) -> io::Result<Pid> {
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
    pid.ok_or_else(|| io::Error::other("the process has no number"))
}

/// Makes `command` begin a session of its own, without the terminal and the open files of this process.
#[cfg(unix)]
pub fn in_its_own_session(command: &mut tokio::process::Command) {
    // SAFETY: between fork and exec only these two system calls are made, which are async-signal-safe.
    #[expect(unsafe_code, reason = "std has no safe way to begin a session")]
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            // Another process may wait for the end of a pipe that we inherited without close-on-exec. Systems without
            // this call have no other.
            #[cfg(target_os = "linux")]
            libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
            Ok(())
        });
    }
}

/// The processes of one host.
pub struct Processes {
    /// The value of [`MARKER`].
    marker: Option<String>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stopped: bool,
    groups: HashSet<Pid>,
    /// The groups that went on without their client and their leader. Each number may be another group's by now.
    abandoned: HashSet<Pid>,
}

impl Processes {
    /// The processes of the machine in `folder`.
    pub fn of(folder: &Path) -> Processes {
        Processes { marker: Some(folder.to_string_lossy().into_owned()), state: Mutex::default() }
    }

    /// The processes of a host that marks none: it ends the groups that it has started.
    pub fn unmarked() -> Processes {
        Processes { marker: None, state: Mutex::default() }
    }

    /// The variable that every process must be started with, where there is one.
    pub fn marker(&self) -> Option<(&'static str, &str)> {
        Some((MARKER, self.marker.as_deref()?))
    }

    /// Starts a process that leads a group of its own, unless the machine is being stopped.
    ///
    /// # Errors
    /// Fails when it cannot be started.
    pub fn start<T>(&self, spawn: impl FnOnce() -> io::Result<(T, Pid)>) -> io::Result<(T, Pid)> {
        // Held across the start, so that a process is either here for `stop` to see, or is not started.
        let mut state = locked(&self.state);
        if state.stopped {
            return Err(io::Error::other("the machine is being stopped"));
        }
        let (child, pid) = spawn()?;
        state.groups.insert(pid);
        Ok((child, pid))
    }

    /// Notes that the leader of a group has ended, by itself. On Linux the rest of the group is found by its environment from now
    /// on. On other systems the group stays on the list while it has members, so that its number cannot be another
    /// group's.
    pub fn ended(&self, group: Pid) {
        if cfg!(target_os = "linux") || test_kill_process_group(group).is_err() {
            locked(&self.state).groups.remove(&group);
        }
    }

    /// Notes that the leader of a group has ended after its client had gone. Its members are still ended with the host.
    pub fn abandoned(&self, group: Pid) {
        if self.marker.is_none() && test_kill_process_group(group).is_ok() {
            locked(&self.state).abandoned.insert(group);
        }
        self.ended(group);
    }

    /// Starts nothing any more, and returns the groups that were started. Some numbers may be other groups' by now.
    pub fn close(&self) -> HashSet<Pid> {
        let mut state = locked(&self.state);
        state.stopped = true;
        &state.groups | &state.abandoned
    }

    /// Reports whether a process leads a group that was started here, and is waited for.
    pub fn leads(&self, pid: Pid) -> bool {
        locked(&self.state).groups.contains(&pid)
    }

    /// Ends all processes. Returns when they are gone, or when [`KILL_ROUNDS`] have not helped.
    pub async fn stop(&self) {
        locked(&self.state).stopped = true;
        let mut met = HashSet::new();
        self.signal(Signal::HUP, &mut met);
        let started = tokio::time::Instant::now();
        while started.elapsed() < GRACE {
            if !self.any_left(&met) {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        for _ in 0..KILL_ROUNDS {
            self.signal(Signal::KILL, &mut met);
            tokio::time::sleep(LOOK_AGAIN).await;
            if !self.any_left(&met) {
                return;
            }
        }
    }

    /// Ends the processes that an earlier life of the machine left running.
    pub fn kill_leftovers(&self) {
        for pid in self.marked() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Reports whether any process is there still: one that ends loses its environment before it closes its files.
    fn any_left(&self, met: &HashSet<Pid>) -> bool {
        !self.marked().is_empty()
            || locked(&self.state).groups.iter().any(|group| test_kill_process_group(*group).is_ok())
            || met.iter().any(|pid| is_alive(*pid))
    }

    /// Sends a signal to all processes, and notes in `met` those that were found by their environment. Those that are
    /// gone already are no failure.
    fn signal(&self, signal: Signal, met: &mut HashSet<Pid>) {
        for group in &locked(&self.state).groups {
            let _ = kill_process_group(*group, signal);
        }
        for pid in self.marked() {
            let _ = kill_process(pid, signal);
            met.insert(pid);
        }
    }

    /// All processes with our variable but this one, which may itself have been started on another machine.
    pub fn marked(&self) -> Vec<Pid> {
        let Some(marker) = &self.marker else { return Vec::new() };
        with_marker(|folder| folder == marker.as_bytes())
    }
}

/// Ends the processes that were started on machines whose folders lie below `folder`.
pub fn kill_below(folder: &Path) {
    let below = format!("{}/", folder.to_string_lossy());
    for pid in with_marker(|folder| folder.starts_with(below.as_bytes())) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// The processes but this one that were started on a machine for whose folder `is_meant` returns true.
#[cfg(target_os = "linux")]
fn with_marker(is_meant: impl Fn(&[u8]) -> bool) -> Vec<Pid> {
    let marker = format!("{MARKER}=");
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    pids.filter(|pid| *pid != rustix::process::getpid())
        .filter(|pid| {
            // Other users' processes cannot be read, and those that end meanwhile are gone.
            let environ = std::fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).unwrap_or_default();
            environ.split(|byte| *byte == 0).filter_map(|one| one.strip_prefix(marker.as_bytes())).any(&is_meant)
        })
        .collect()
}

#[cfg(not(target_os = "linux"))]
fn with_marker(_is_meant: impl Fn(&[u8]) -> bool) -> Vec<Pid> {
    Vec::new()
}

/// Reports whether the process has not ended.
#[cfg(target_os = "linux")]
fn is_alive(pid: Pid) -> bool {
    let line = std::fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    line.is_ok_and(|line| crate::stat::Stat::of(&line).is_some_and(|stat| stat.is_alive))
}

#[cfg(not(target_os = "linux"))]
fn is_alive(_pid: Pid) -> bool {
    false
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{os::unix::process::CommandExt, process::Command};

    use super::{Pid, Processes, Signal, kill_process_group};

    #[test]
    fn a_number_is_a_leaders_until_it_is_collected() {
        let processes = Processes::unmarked();
        let start = |command: &str| {
            let mut shell = Command::new("sh");
            let start = || {
                let child = shell.args(["-c", command]).process_group(0).spawn()?;
                let pid = Pid::from_child(&child);
                Ok((child, pid))
            };
            processes.start(start).unwrap()
        };
        let (mut alone, pid) = start("exit");
        assert!(processes.leads(pid));
        alone.wait().unwrap();
        processes.abandoned(pid);
        let (mut leader, group) = start("sleep 1000 & exit");
        leader.wait().unwrap();
        processes.abandoned(group);
        kill_process_group(group, Signal::KILL).unwrap();
        assert!(!processes.leads(pid) && !processes.leads(group));
        assert_eq!(processes.close(), [group].into(), "what still has members is ended with the host");
    }
}
