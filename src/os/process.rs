//! This process, its parent and its children.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// The command line of the ssh that runs this process: its parent, or an ancestor a little further up when a shell
/// stands in between. The first argument is the program. `None` when the ssh cannot be found.
pub fn ssh_arguments() -> Option<Vec<String>> {
    /// ssh runs `$SHELL -c "exec ..."`, and a wrapper or two may be in between.
    const NEAR: usize = 3;
    #[cfg(unix)]
    {
        let mut process = rustix::process::getppid()?.as_raw_nonzero().get();
        for _ in 0..NEAR {
            let (parent, arguments) = process_arguments(process)?;
            let program = arguments.first().map(|path| path.rsplit('/').next().unwrap_or_default());
            if program == Some("ssh") {
                return Some(arguments);
            }
            process = parent;
        }
    }
    #[cfg(not(unix))]
    let _ = NEAR;
    None
}

/// A process's parent and its arguments.
#[cfg(target_os = "linux")]
fn process_arguments(process: i32) -> Option<(i32, Vec<String>)> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name before it may hold anything.
    let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
    let line = std::fs::read(format!("/proc/{process}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(line.strip_suffix(b"\0").unwrap_or(&line)).into_owned();
    Some((parent, line.split('\0').map(str::to_owned).collect()))
}

/// A process's parent and its arguments, split at spaces because ps(1) joins them so.
#[cfg(all(unix, not(target_os = "linux")))]
fn process_arguments(process: i32) -> Option<(i32, Vec<String>)> {
    let ps = std::process::Command::new("/bin/ps")
        .args(["-ww", "-o", "ppid=", "-o", "args=", "-p", &process.to_string()])
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .output()
        .ok()?;
    let line = String::from_utf8_lossy(&ps.stdout).into_owned();
    let mut words = line.split_whitespace();
    let parent = words.next()?.parse().ok()?;
    Some((parent, words.map(str::to_owned).collect()))
}

/// The time since this process was created, because ssh's limits run from then on and a busy machine starts programs
/// slowly. Zero on systems that do not tell.
pub fn process_age() -> std::time::Duration {
    #[cfg(target_os = "linux")]
    {
        /// The unit of /proc on every system that matters (proc(5), sysconf(_SC_CLK_TCK)).
        const TICKS_PER_SECOND: f64 = 100.0;
        let age = || {
            let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
            let started: f64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
            let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
            let up: f64 = uptime.split_whitespace().next()?.parse().ok()?;
            std::time::Duration::try_from_secs_f64(up - started / TICKS_PER_SECOND).ok()
        };
        age().unwrap_or_default()
    }
    #[cfg(windows)]
    {
        super::windows::process_age().unwrap_or_default()
    }
    #[cfg(not(any(target_os = "linux", windows)))]
    {
        std::time::Duration::ZERO
    }
}

/// Reports whether a process's standard input is a pipe that no other process has open, so that no more input can come.
/// False on systems that do not tell.
pub fn has_lost_its_client(process: u32) -> bool {
    #[cfg(target_os = "linux")]
    {
        let Ok(input) = std::fs::read_link(format!("/proc/{process}/fd/0")) else { return false };
        let is_pipe = input.to_str().is_some_and(|input| input.starts_with("pipe:"));
        let own = std::ffi::OsString::from(process.to_string());
        let Ok(processes) = std::fs::read_dir("/proc") else { return false };
        let others = processes.flatten().filter(|entry| entry.file_name() != own);
        let files = others.filter_map(|entry| std::fs::read_dir(entry.path().join("fd")).ok()).flatten().flatten();
        is_pipe && !files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|file| file == input)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = process;
        false
    }
}

/// Reports whether a process has the file `path` open. A number alone proves nothing: the process that wrote it down may
/// have ended, or have run in another container, and its number may be another program's. False on systems that do not
/// tell.
pub fn has_open(process: u32, path: &std::path::Path) -> bool {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::MetadataExt;
        let id = |found: std::fs::Metadata| (found.dev(), found.ino());
        let Ok(wanted) = std::fs::metadata(path).map(id) else { return false };
        let Ok(files) = std::fs::read_dir(format!("/proc/{process}/fd")) else { return false };
        files.flatten().any(|file| std::fs::metadata(file.path()).is_ok_and(|found| id(found) == wanted))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (process, path);
        false
    }
}

/// Asks a process to end, even one that is stopped (SIGSTOP), if it has the file `path` open. Returns false if it has
/// not, because then it is not the process that is meant.
///
/// # Errors
/// Fails when the system refuses.
pub fn end_if_open(process: u32, path: &std::path::Path) -> io::Result<bool> {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
        let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) else { return Ok(false) };
        // Held from before the check, so that the signal reaches the process that was checked and no successor of its
        // number. Kernels before 5.3 have no such handle.
        let handle = pidfd_open(pid, PidfdFlags::empty()).ok();
        if !has_open(process, path) {
            return Ok(false);
        }
        for signal in [Signal::TERM, Signal::CONT] {
            match &handle {
                Some(handle) => pidfd_send_signal(handle, signal)?,
                None => kill_process(pid, signal)?,
            }
        }
        Ok(true)
    }
    #[cfg(not(target_os = "linux"))]
    {
        Ok(has_open(process, path))
    }
}

/// Reports whether there is a process of this number.
pub fn is_running(process: u32) -> bool {
    #[cfg(unix)]
    {
        let pid = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
        pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
    }
    #[cfg(windows)]
    {
        super::process_name(process).is_some()
    }
}

/// Does the program's work on a stack of 8 MiB, which is what Linux and macOS give a program's first thread. Windows gives
/// it 1 MiB, and the futures of a connection overflow that in a debug build.
pub fn on_a_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    #[cfg(windows)]
    {
        const SIZE: usize = 8 << 20;
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(SIZE).name("main".to_owned());
            let done = thread.spawn_scoped(scope, work).map(std::thread::ScopedJoinHandle::join);
            match done {
                Ok(Ok(done)) => done,
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                Err(error) => panic!("cannot start a thread: {error}"),
            }
        })
    }
    #[cfg(not(windows))]
    {
        work()
    }
}

/// Raises the limit of open files and connections as far as the system allows, because some systems begin with 256. If
/// the limit cannot be raised, the process carries on with the current one.
pub fn raise_open_files() {
    let _ = raise_open_files_to(u64::MAX);
}

/// Raises the limit of open files and connections to `wanted`, or as far towards it as the system allows. A limit that
/// is higher already stays. Children inherit the limit.
///
/// # Errors
/// Fails when the system refuses.
#[cfg_attr(not(unix), expect(unused_variables, reason = "only Unix has the limit"))]
pub fn raise_open_files_to(wanted: u64) -> io::Result<()> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        if limit.current.is_some_and(|current| current < wanted) {
            limit.current = Some(limit.maximum.map_or(wanted, |maximum| maximum.min(wanted)));
            setrlimit(Resource::Nofile, limit)?;
        }
    }
    Ok(())
}

/// Checks that a few more files may be opened.
///
/// # Errors
/// Fails when the limit of open files is reached.
pub fn has_room_for_files() -> io::Result<()> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit};
        /// The runtime's own, and a connection or two.
        const NEEDED: usize = 10;
        /// Only so low a limit is worth the attempt.
        const LOW: u64 = 64;
        if getrlimit(Resource::Nofile).current.is_some_and(|limit| limit < LOW) {
            (0..NEEDED).map(|_| std::fs::File::open("/dev/null")).collect::<io::Result<Vec<_>>>()?;
        }
    }
    Ok(())
}

/// Forbids core dumps of this process, because they would hold the credentials. Children inherit the limit, so a
/// process that runs programs of the user's must not call this.
pub fn leave_no_core_dump() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let maximum = getrlimit(Resource::Core).maximum;
        // Lowering one's own limit is always allowed.
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum });
    }
}

/// Gives the memory of code back to the system, because an idle connection needs little code. Pages that are needed
/// again are mapped from the system's cache. Linux maps 64 KiB around each page that a start touches; bench/RESULTS.md
/// has the savings.
pub fn forget_code() {
    #[cfg(target_os = "linux")]
    {
        use rustix::mm::{Advice, madvise};
        let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
        for line in maps.lines() {
            // proc_pid_maps(5): `start-end perms offset device inode path`.
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [range, "r-xp", _, _, _, path] = fields[..] else { continue };
            let number = |text| usize::from_str_radix(text, 16).ok();
            let range = range.split_once('-').and_then(|(start, end)| Some((number(start)?, number(end)?)));
            let Some((start, end)) = range.filter(|_| path.starts_with('/')) else { continue };
            let code = std::ptr::with_exposed_provenance_mut(start);
            // SAFETY: the range is one mapping of a file's code, which cannot be written to, so its pages are those of
            // the file and are read from there again when they are touched.
            #[expect(unsafe_code, reason = "the kernel's advice on a range of addresses")]
            let advised = unsafe { madvise(code, end - start, Advice::LinuxDontNeed) };
            if let Err(error) = advised {
                log::debug!("the memory of {path} stays: {error}");
            }
        }
    }
}

/// The process group that a child leads, which is killed when this is dropped. Must be dropped before the child has been
/// waited for, because its number is free from then on.
#[must_use]
pub struct GroupOnDrop(Option<u32>);

impl GroupOnDrop {
    /// The group of `child`, which was started as its leader.
    pub fn of(child: &tokio::process::Child) -> GroupOnDrop {
        GroupOnDrop(child.id())
    }

    /// Leaves the group alone, because its leader has ended.
    pub fn leave(mut self) {
        self.0 = None;
    }
}

impl Drop for GroupOnDrop {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(group) = self.0.and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?)) {
            // It may have ended by itself.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// A child's exit status as a shell reports it: its code, or 128 and the number of the signal that ended it.
pub fn exit_code(status: std::process::ExitStatus) -> u8 {
    #[cfg(unix)]
    let signal = std::os::unix::process::ExitStatusExt::signal(&status).map(|signal| 128 + signal);
    #[cfg(not(unix))]
    let signal = None;
    status.code().or(signal).and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// The first 64 KiB of a child's output, more than any message has. The output is read to its end, so that the child
/// does not wait for us, and the rest is dropped, because a program may write without end.
pub async fn beginning(output: Option<impl AsyncRead + Unpin>) -> String {
    let (mut kept, mut block) = (Vec::new(), [0; 4096]);
    if let Some(mut output) = output {
        while let Ok(n @ 1..) = output.read(&mut block).await {
            kept.extend(block[..n].iter().take(BEGINNING.saturating_sub(kept.len())));
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// See [`beginning`].
const BEGINNING: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::{BEGINNING, beginning};

    #[tokio::test]
    async fn of_words_without_end_the_first_are_kept() {
        use tokio::io::{AsyncReadExt, repeat};
        let said = beginning(Some(repeat(b'y').take(100 << 20))).await;
        assert!(said.len() == BEGINNING && said.bytes().all(|b| b == b'y'), "{} bytes", said.len());
        assert_eq!(beginning(Some(&b"few"[..])).await, "few");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_that_does_not_hold_the_file_is_not_ended() {
        use std::process::{Command, Stdio};

        use super::{end_if_open, has_open, is_running};

        let folder = tempfile::tempdir().unwrap();
        let (ours, other) = (folder.path().join("ours"), folder.path().join("other"));
        std::fs::write(&ours, "").unwrap();
        std::fs::write(&other, "").unwrap();
        let held = std::fs::File::open(&ours).unwrap();
        let mut child = Command::new("sleep").arg("60").stdin(held).stdout(Stdio::null()).spawn().unwrap();
        assert!(has_open(child.id(), &ours) && !has_open(child.id(), &other));
        assert!(
            !end_if_open(child.id(), &other).unwrap() && !end_if_open(child.id(), &folder.path().join("no")).unwrap()
        );
        assert!(child.try_wait().unwrap().is_none() && is_running(child.id()));
        assert!(end_if_open(child.id(), &ours).unwrap());
        assert!(!child.wait().unwrap().success());
        assert!(!is_running(child.id()));
    }

    #[cfg(windows)]
    #[test]
    fn a_process_that_has_ended_is_not_running() {
        use super::is_running;
        let waits = ["/c", "pause"];
        let mut child =
            std::process::Command::new("cmd").args(waits).stdin(std::process::Stdio::piped()).spawn().unwrap();
        assert!(is_running(std::process::id()) && is_running(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_running(child.id()), "although its handle is still open");
        let id = child.id();
        drop(child);
        assert!(!is_running(id));
    }

    #[cfg(any(target_os = "linux", windows))]
    #[test]
    fn a_process_knows_its_age() {
        use std::time::Duration;

        use super::process_age;

        let before = process_age();
        std::thread::sleep(Duration::from_millis(50));
        let passed = process_age().saturating_sub(before);
        assert!(passed >= Duration::from_millis(30) && before < Duration::from_secs(3600), "{before:?} {passed:?}");
    }
}
