//! The end: of everything that the connection has started, and of this process.
//!
//! The groups that were started get SIGHUP when the client goes, and [`GRACE`] later SIGKILL, but for the processes that
//! ignore SIGHUP: what was started with `nohup`, and what has left its group (`setsid`, tmux), lives on, as it does under
//! OpenSSH. So does what a command that has ended has left running.

use std::{collections::HashSet, fs, io, sync::Arc, time::Duration};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, waitpid};
use tokio::{
    signal::unix::{Signal as Caught, SignalKind, signal},
    task::JoinHandle,
};

use crate::{
    server::{Host, processes::Processes},
    stat::{self, Stat},
};

/// The time from the end of the connection to the end of this process, whatever hangs.
pub(super) const DEADLINE: Duration = Duration::from_millis(950);

/// The time between SIGHUP and SIGKILL.
const GRACE: Duration = Duration::from_millis(300);

/// The interval at which the processes are looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The number of rounds of SIGKILL. A fork bomb may outrun it, and is not chased for ever.
const KILL_ROUNDS: usize = 10;

/// The time for which ended processes wait to be collected together.
const COLLECT: Duration = Duration::from_millis(50);

/// The stack of the thread that watches the client.
const WATCH_STACK: usize = 64 * 1024;

/// The signals that end this process.
pub(super) struct Signals([Caught; 3]);

impl Signals {
    /// Catches them from now on.
    ///
    /// # Errors
    /// Fails when they cannot be.
    pub(super) fn catch() -> io::Result<Signals> {
        let of = |kind| signal(kind);
        Ok(Signals([of(SignalKind::hangup())?, of(SignalKind::terminate())?, of(SignalKind::interrupt())?]))
    }

    /// Waits for one of them.
    pub(super) async fn any(mut self) {
        let [hangup, terminate, interrupt] = &mut self.0;
        tokio::select! {
            _ = hangup.recv() => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

/// Has the kernel end this process after that time. Nothing of it needs to run for that.
pub(super) fn must_end_within(time: Duration) {
    let timer = libc::itimerval {
        it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
        it_value: libc::timeval { tv_sec: 0, tv_usec: time.as_micros() as _ },
    };
    // SAFETY: the pointer is to a value that lives here, and the old value is not asked for. SIGALRM has no handler.
    #[expect(unsafe_code, reason = "std has no timer that ends a process")]
    let _ = unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
}

/// Has the kernel end this process once its client has gone, even if by then everything else of it hangs: to start a
/// program from a file system that does not answer waits for ever.
///
/// # Errors
/// Fails when there is no room for a thread.
pub(super) fn watch_client() -> io::Result<()> {
    std::thread::Builder::new().stack_size(WATCH_STACK).spawn(|| {
        loop {
            let input = rustix::stdio::stdin();
            // Without any events but this one a pipe still reports that its other end is closed.
            let mut ends = [PollFd::new(&input, PollFlags::RDHUP)];
            match poll(&mut ends, None) {
                Err(rustix::io::Errno::INTR) => {}
                _ => return must_end_within(DEADLINE),
            }
        }
    })?;
    Ok(())
}

/// Collects the processes that lose their parents, until it is dropped. Many containers have a first process that
/// collects none, where they would stay for ever.
pub(super) struct Orphans(JoinHandle<()>);

impl Drop for Orphans {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Becomes the parent of the processes whose own parents end before them.
///
/// # Errors
/// Fails when the signal of ended children cannot be caught.
pub(super) fn adopt_orphans(host: &Arc<Host>) -> io::Result<Orphans> {
    // Without it they go to the container's first process, as under `docker exec`.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let mut ended = signal(SignalKind::child())?;
    let host = Arc::clone(host);
    Ok(Orphans(tokio::spawn(async move {
        while ended.recv().await.is_some() {
            // The sessions' own processes are collected by those who wait for them.
            while collect(|pid| host.processes.leads(pid)) {
                tokio::time::sleep(COLLECT).await;
            }
        }
    })))
}

/// Collects the ended children, up to one that is another's to collect. Returns true when there is such a one.
fn collect(is_anothers: impl Fn(Pid) -> bool) -> bool {
    while let Some(pid) = ended_child() {
        if is_anothers(pid) {
            return true;
        }
        let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    }
    false
}

/// A child that has ended, and stays to be collected.
fn ended_child() -> Option<Pid> {
    // SAFETY: zeros are a value of this struct, which the kernel fills in; the pointer is to a value that lives here.
    #[expect(unsafe_code, reason = "rustix does not say which child it is")]
    unsafe {
        let mut child: libc::siginfo_t = std::mem::zeroed();
        let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        if libc::waitid(libc::P_ALL, 0, &mut child, how) != 0 {
            return None;
        }
        Pid::from_raw(child.si_pid())
    }
}

/// Ends the groups that were started.
pub(super) async fn hang_up(processes: &Processes) {
    let groups = processes.close();
    let mut left = members(&groups);
    // A whole group at once, because its members may be starting others just now.
    for group in left.iter().filter_map(|one| Pid::from_raw(one.group)).collect::<HashSet<_>>() {
        let _ = kill_process_group(group, Signal::HUP);
    }
    let begun = tokio::time::Instant::now();
    while !left.is_empty() && begun.elapsed() < GRACE {
        tokio::time::sleep(LOOK_AGAIN).await;
        left = members(&groups);
    }
    for _ in 0..KILL_ROUNDS {
        if left.is_empty() {
            return;
        }
        for one in &left {
            let _ = kill_process(one.pid, Signal::KILL);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        left = members(&groups);
    }
}

/// The living members of these groups that do not ignore SIGHUP. A group's number may have been given to others after
/// its end, so only those that descend from this process count.
fn members(groups: &HashSet<Pid>) -> Vec<Stat> {
    let all = stat::all();
    let mut ours = HashSet::from([rustix::process::getpid().as_raw_nonzero().get()]);
    // A child's number may be below its parent's, so it takes as many rounds as there are generations.
    loop {
        let before = ours.len();
        ours.extend(
            all.iter()
                .filter(|process| ours.contains(&process.parent))
                .map(|p| p.pid.as_raw_nonzero().get())
                .collect::<Vec<_>>(),
        );
        if ours.len() == before {
            break;
        }
    }
    let is_meant = |process: &Stat| {
        process.is_alive
            && ours.contains(&process.pid.as_raw_nonzero().get())
            && Pid::from_raw(process.group).is_some_and(|group| groups.contains(&group))
            && !ignores_hangup(process.pid)
    };
    all.into_iter().filter(is_meant).collect()
}

fn ignores_hangup(pid: Pid) -> bool {
    // The name in it need not be text.
    let status = fs::read(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // The first signal is the lowest bit.
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command, time::Duration};

    use rustix::process::{Pid, Signal, kill_process};

    use super::hang_up;
    use crate::server::processes::Processes;

    /// Its number stands on the list as one that was started here and is another's by now.
    #[tokio::test]
    async fn a_group_that_is_anothers_by_now_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
        let script = "trap 'echo >hung' HUP; trap 'echo >ended; exit' TERM; echo $$ >pid; while :; do sleep 0.01; done";
        let mut shell = Command::new("sh");
        shell.args(["-c", "setsid sh -c \"$1\" >/dev/null 2>&1 &", "sh", script]).current_dir(folder.path());
        assert!(shell.status().unwrap().success());
        while !file("pid").ends_with('\n') {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let pid = Pid::from_raw(file("pid").trim().parse().unwrap()).unwrap();
        let processes = Processes::unmarked();
        processes.start(|| Ok(((), pid))).unwrap();
        hang_up(&processes).await;
        kill_process(pid, Signal::TERM).unwrap();
        while !file("ended").ends_with('\n') {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(file("hung"), "");
    }
}
