//! The process that has the tools, so that what the server starts finds them: `/proc/<holder>/fd/5`.
//!
//! The server itself is undumpable, and its descriptors are closed to all others. The holder is another process, started
//! out of the same sealed file, which has the tools and nothing else: no secret, no stream of the connection. It ends
//! with the server, whatever ends that.

use std::{
    io::{self, Read, Write},
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
};

use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{DumpableBehavior, Pid, Signal, WaitOptions, kill_process, waitpid},
};

use super::settings::TOOLS;

/// The process, from the server's side.
pub(super) struct Holder {
    child: Child,
    /// The folder of programs.
    pub(super) programs: PathBuf,
}

impl Holder {
    /// Starts it with the tools, and waits until it can be used. `folder` is that of the programs in them.
    ///
    /// # Errors
    /// Fails when it cannot be started.
    pub(super) fn start(program: &OwnedFd, tools: OwnedFd, folder: &str) -> io::Result<Holder> {
        let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
        // Pipes, because nothing of the container is opened for it, and no stream of the connection is its own.
        let (mut ready, output) = io::pipe()?;
        command.arg("hold").env_clear().stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
        fcntl_setfd(&tools, FdFlags::empty())?;
        let child = command.spawn();
        drop(tools);
        let child = child?;
        let programs = PathBuf::from(format!("/proc/{}/fd/{TOOLS}", child.id())).join(folder);
        let holder = Holder { child, programs };
        // The command has the pipe's other end as well.
        drop(command);
        ready.read_exact(&mut [0])?;
        if !holder.programs.is_dir() {
            return Err(io::Error::other("they cannot be reached"));
        }
        Ok(holder)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else { return };
        // Collected already, as an orphan is, its number may be another's.
        if let Ok(None) = waitpid(Some(pid), WaitOptions::NOHANG) {
            let _ = kill_process(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::empty());
        }
    }
}

/// Keeps the tools until the server ends.
pub fn hold() -> ExitCode {
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let _ = rustix::thread::set_name(c"labctl-ssh-prox");
    // Its folder in /proc is its user's own from now on.
    let dumpable = rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable);
    // The server goes on.
    if dumpable.is_err() || io::stdout().write_all(b"\n").and_then(|()| io::stdout().flush()).is_err() {
        return ExitCode::FAILURE;
    }
    // It has no other end than the server's own. Another process of the user may write to it.
    let mut input = io::stdin().lock();
    while input.read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
    ExitCode::SUCCESS
}
