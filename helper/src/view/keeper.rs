//! The process on the machine that keeps a view: it has it made, and ends it.
//!
//! It is in no container, and none sees it. A child of it goes into the container and makes the mounts (`making`), gives
//! up all that it may, and leaves the holder there (`holder`), which ends when this process does.

use std::{
    fs::{self, File},
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, Mode, OFlags},
    process::{
        DumpableBehavior, Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process, pidfd_open,
        pidfd_send_signal, waitid, waitpid,
    },
};
use serde_json::Value;

use super::{MADE, Order, USE, holder, locked, making, state_with};
use crate::{
    process::{self, Process},
    stat,
};

/// The time in which a view has to be made. A file system of the container's own may never answer.
const MAKING: Duration = Duration::from_secs(5);

/// Keeps the view that standard input orders, until it ends. What has come of it is said on standard output.
pub fn run() -> ExitCode {
    // The starter waits for this process, and not for its child, which has another parent then.
    match fork() {
        Ok(None) => {}
        Ok(Some(_)) => return ExitCode::SUCCESS,
        Err(_) => return ExitCode::FAILURE,
    }
    let view = Keeper::of(io::stdin().lock());
    let said = view.as_ref().map_or_else(ToString::to_string, |_| MADE.to_owned());
    let said = io::stdout().write_all(said.as_bytes()).and_then(|()| io::stdout().flush());
    let Ok(view) = view else { return ExitCode::FAILURE };
    if said.and_then(|()| let_go_of_streams()).is_ok() {
        view.keep();
    }
    view.end();
    ExitCode::SUCCESS
}

/// A second process that goes on from here. `None`: this is it.
fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: this process has a single thread, so its child has all that it needs.
    #[expect(unsafe_code, reason = "std has no fork")]
    let pid = unsafe { libc::fork() };
    if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(Pid::from_raw(pid)) }
}

/// Nothing waits for the end of its streams any more.
fn let_go_of_streams() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(rustix::stdio::dup2_stderr(&null)?)
}

struct Keeper {
    order: Order,
    /// The container's first process, and the holder. Each becomes readable with its end.
    processes: [OwnedFd; 2],
    /// The pipe that each connection has open.
    in_use: File,
    /// The holder ends with it.
    _holding: PipeWriter,
}

impl Keeper {
    fn of(order: impl Read) -> io::Result<Keeper> {
        let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
        let _ = rustix::thread::set_name(c"labctl-ssh-prox");
        rustix::process::setsid()?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let order: Order = serde_json::from_reader(order)?;
        let init = Process::find(Path::new("/proc"), order.pid)?;
        let init_ends = end_of(init.pid)?;
        let state: Value = process::json(rustix::fs::CWD, order.root.join(&order.id).join("state.json"))?;
        if state["init_process_start"].as_u64() != Some(init.started) {
            return Err(io::Error::other("the container has ended"));
        }
        let (held, holding) = io::pipe()?;
        let holder = made(&order, &init, &state, held)?;
        let processes = [init_ends, end_of(holder.pid)?];
        let own = order.folder.join(&order.id);
        fs::create_dir_all(&own)?;
        fs::write(own.join("state.json"), state_with(state, &holder).to_string())?;
        let in_use = order.folder.join(USE);
        rustix::fs::mknodat(rustix::fs::CWD, &in_use, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let in_use = rustix::fs::open(&in_use, flags, Mode::empty())?.into();
        Ok(Keeper { order, processes, in_use, _holding: holding })
    }

    /// Waits until the view is not needed any more: its container or its holder has ended, or it was not used for long.
    fn keep(&self) {
        let idle =
            Timespec { tv_sec: (self.order.idle / 1000) as _, tv_nsec: (self.order.idle % 1000 * 1_000_000) as _ };
        let [init, holder] = &self.processes;
        // A pipe that no connection has opened yet tells no end.
        let mut limit = Some(&idle);
        loop {
            // Without any event but its end: the last connection has closed it.
            let mut all = [
                PollFd::new(init, PollFlags::IN),
                PollFd::new(holder, PollFlags::IN),
                PollFd::new(&self.in_use, PollFlags::empty()),
            ];
            let waited = rustix::io::retry_on_intr(|| poll(&mut all, limit.take()));
            if waited.is_err() || all[..2].iter().any(|end| !end.revents().is_empty()) {
                return;
            }
            self.was_used();
            let ended = rustix::io::retry_on_intr(|| poll(&mut all[..2], Some(&idle)));
            if !matches!(ended, Ok(0)) {
                return;
            }
            // None comes while this has the lock.
            let Ok(lock) = locked(self.order.folder.parent().unwrap_or(&self.order.folder)) else { continue };
            if !self.was_used() && !self.is_used() {
                self.remove();
                drop(lock);
                return;
            }
        }
    }

    /// Returns true if a connection has come since the last time.
    fn was_used(&self) -> bool {
        let mut words = [0; 4096];
        let mut was_used = false;
        while (&self.in_use).read(&mut words).is_ok_and(|read| read > 0) {
            was_used = true;
        }
        was_used
    }

    fn is_used(&self) -> bool {
        let mut end = [PollFd::new(&self.in_use, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        !matches!(poll(&mut end, Some(&now)), Ok(1..))
    }

    /// Ends the holder, and removes the folder.
    fn end(&self) {
        let holder = &self.processes[1];
        let _ = pidfd_send_signal(holder, Signal::KILL);
        // The container's first process cannot end before its holder is collected.
        let _ = waitid(WaitId::PidFd(holder.as_fd()), WaitIdOptions::EXITED);
        if let Ok(_lock) = locked(self.order.folder.parent().unwrap_or(&self.order.folder)) {
            self.remove();
        }
    }

    /// Removes the folder, unless another view has its place by now. The lock has to be held.
    fn remove(&self) {
        let own = rustix::fs::fstat(&self.in_use).map(|about| about.st_ino);
        let there = rustix::fs::stat(self.order.folder.join(USE)).map(|about| about.st_ino);
        if own.is_ok() && own == there {
            let _ = fs::remove_dir_all(&self.order.folder);
        }
    }
}

/// A descriptor that becomes readable with the end of a process.
fn end_of(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Has a child make the view, and returns the holder that it leaves.
fn made(order: &Order, init: &Process, state: &Value, held: PipeReader) -> io::Result<Process> {
    let (mut report, mut reporting) = io::pipe()?;
    let Some(child) = fork()? else {
        let made = making::make(order, init, state).and_then(|()| holder::leave(order, &held));
        if let Err(error) = made {
            let _ = write!(reporting, "{error}");
        }
        std::process::exit(1);
    };
    drop((held, reporting));
    let mut words = String::new();
    let read = read_within(MAKING, &mut report, &mut words);
    if read.is_err() {
        let _ = kill_process(child, Signal::KILL);
    }
    let ended = waitpid(Some(child), WaitOptions::empty())?;
    read?;
    if !words.is_empty() {
        return Err(io::Error::other(words));
    }
    // An orphan of this process's child is its own. The container has no say in which it is.
    let own = rustix::process::getpid();
    let orphan = stat::all().into_iter().find(|one| Pid::from_raw(one.parent) == Some(own) && one.is_alive);
    match orphan.filter(|_| ended.is_some_and(|(_, status)| status.exit_status() == Some(0))) {
        Some(holder) => Process::find(Path::new("/proc"), holder.pid.as_raw_nonzero().get()),
        None => Err(io::Error::other("no process can be started in the container")),
    }
}

fn read_within(time: Duration, from: &mut PipeReader, words: &mut String) -> io::Result<()> {
    let time = Timespec::try_from(time).map_err(io::Error::other)?;
    loop {
        // Its words and its end are soon one after the other.
        if rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(&from.as_fd(), PollFlags::IN)], Some(&time)))? == 0 {
            return Err(io::Error::other("the container's files do not answer"));
        }
        let mut part = [0; 512];
        let read = from.read(&mut part)?;
        if read == 0 {
            return Ok(());
        }
        words.push_str(&String::from_utf8_lossy(&part[..read]));
    }
}
