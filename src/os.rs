//! What differs between operating systems, in one place.

use std::net::SocketAddr;

/// Bytes written to a socket that the peer has not acknowledged yet; 0 where the system does not tell, so that every
/// accepted write counts.
#[cfg(target_os = "linux")]
pub fn unacknowledged(socket: &impl std::os::fd::AsRawFd) -> u64 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (tcp(7); the same number as TIOCOUTQ) writes one int to the address it is given, and the
    // descriptor is open as long as `socket` is borrowed.
    #[expect(unsafe_code, reason = "no crate wraps this ioctl")]
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if answer == 0 { u64::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// The same where the system does not tell.
#[cfg(not(target_os = "linux"))]
pub fn unacknowledged<T>(_: &T) -> u64 {
    0
}

/// The command line of the ssh that runs this process: its parent, or one a little further up where a shell stands
/// between. The first argument is the program. `None` where it cannot be told.
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

/// How long ago this process was made: ssh's limits run since then, and a busy machine starts programs slowly. Zero where
/// the system does not tell.
pub fn process_age() -> std::time::Duration {
    #[cfg(target_os = "linux")]
    {
        /// What /proc counts in on every system that matters (proc(5), sysconf(_SC_CLK_TCK)).
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
    #[cfg(not(target_os = "linux"))]
    {
        std::time::Duration::ZERO
    }
}

/// Whether nobody can write to a process's standard input any more: it is a pipe, and no other process has it open.
/// `false` where the system does not tell.
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

/// The program at the other end of a connection on this computer. When it has finished sending, TCP alone does not say
/// whether it still reads.
#[derive(Debug)]
pub enum Peer {
    /// By its own address and ours.
    Tcp(Option<(SocketAddr, SocketAddr)>),
    /// By the other end of the socket.
    #[cfg(unix)]
    Unix(Option<std::os::fd::OwnedFd>),
}

impl Peer {
    /// The one at the other end of a TCP connection; the addresses are the peer's and ours.
    pub fn of_tcp(addresses: Option<(SocketAddr, SocketAddr)>) -> Peer {
        Peer::Tcp(addresses.filter(|(peer, own)| peer.ip() == own.ip()))
    }

    /// The one at the other end of a Unix socket.
    #[cfg(unix)]
    pub fn of_unix(socket: &tokio::net::UnixStream) -> Peer {
        use std::os::fd::AsFd;
        Peer::Unix(socket.as_fd().try_clone_to_owned().ok())
    }

    /// Whether it has closed its socket altogether; `None` where the system does not tell.
    pub fn has_gone(&self) -> Option<bool> {
        match self {
            Peer::Tcp(addresses) => {
                let (peer, own) = (*addresses)?;
                has_gone(peer, own)
            }
            #[cfg(unix)]
            Peer::Unix(socket) => {
                use rustix::event::{PollFd, PollFlags, Timespec, poll};
                let mut fds = [PollFd::new(socket.as_ref()?, PollFlags::empty())];
                poll(&mut fds, Some(&Timespec::default())).ok()?;
                // It says so once both directions are shut, and ours is not by us.
                Some(fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR))
            }
        }
    }
}

/// Whether no process holds the socket of `peer` that is connected to `own`: the system's table of sockets has an inode
/// for those that are held.
#[cfg(target_os = "linux")]
fn has_gone(peer: SocketAddr, own: SocketAddr) -> Option<bool> {
    use std::net::IpAddr;
    // As the kernel prints them: 32-bit words in the order of this machine.
    let hex = |address: SocketAddr| {
        let words: Vec<[u8; 4]> = match address.ip() {
            IpAddr::V4(ip) => vec![ip.octets()],
            IpAddr::V6(ip) => ip.octets().as_chunks().0.to_vec(),
        };
        let words: String = words.iter().map(|word| format!("{:08X}", u32::from_ne_bytes(*word))).collect();
        format!("{words}:{:04X}", address.port())
    };
    let table = if peer.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
    let text = std::fs::read_to_string(table).ok()?;
    let (peer, own) = (hex(peer), hex(own));
    let inode = text.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        (fields.next() == Some(&peer) && fields.next() == Some(&own)).then(|| fields.nth(6) != Some("0"))
    });
    Some(inode != Some(true))
}

#[cfg(not(target_os = "linux"))]
fn has_gone(_peer: std::net::SocketAddr, _own: std::net::SocketAddr) -> Option<bool> {
    None
}

/// Lets this process have as many files and connections open as the system allows: some begin with 256.
pub fn raise_open_files() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        // What there is must do then.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

/// Lets `command` begin a session, without the terminal and the open files of this process.
#[cfg(unix)]
pub fn in_its_own_session(command: &mut tokio::process::Command) {
    // SAFETY: between fork and exec only these two system calls are made, which are async-signal-safe.
    #[expect(unsafe_code, reason = "std has no safe way to begin a session")]
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            // Somebody may wait for the end of a pipe that was handed to us without close-on-exec. Where there is no
            // such call, nothing else is to be done.
            #[cfg(target_os = "linux")]
            libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
            Ok(())
        });
    }
}

/// Gives back the memory of code, of which an idle connection needs little: what is needed again is mapped from the
/// system's cache. Linux maps 64 KiB around each page that a start touches; bench/RESULTS.md has what this saves.
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
            // SAFETY: the range is one mapping of a file's code, which nobody can write to, so that its pages are what
            // the file says and are read from there again when they are touched.
            #[expect(unsafe_code, reason = "the kernel's advice on a range of addresses")]
            let advised = unsafe { madvise(code, end - start, Advice::LinuxDontNeed) };
            if let Err(error) = advised {
                log::debug!("the memory of {path} stays: {error}");
            }
        }
    }
}

/// Whether a line on standard error would go through at once: its pipe may be full because nobody reads it.
pub fn stderr_takes_text() -> bool {
    #[cfg(unix)]
    {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let stderr = rustix::stdio::stderr();
        let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|n| n > 0) && fds[0].revents().contains(PollFlags::OUT)
    }
    #[cfg(not(unix))]
    {
        // The pipes that editors make there hold more than all of our lines together.
        true
    }
}

/// A child's exit status as a shell tells it: 128 and the number of the signal that ended it.
pub fn exit_code(status: std::process::ExitStatus) -> u8 {
    #[cfg(unix)]
    let signal = std::os::unix::process::ExitStatusExt::signal(&status).map(|signal| 128 + signal);
    #[cfg(not(unix))]
    let signal = None;
    status.code().or(signal).and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// Passes a signal on to a child. The keyboard's has reached it already, when it is in the terminal's foreground with us.
pub fn pass_on(signal: u8, child: &tokio::process::Child) {
    #[cfg(unix)]
    {
        use std::io::IsTerminal;
        let pid = child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
        let signal = match signal {
            1 => rustix::process::Signal::HUP,
            2 if std::io::stdin().is_terminal() => return,
            2 => rustix::process::Signal::INT,
            _ => rustix::process::Signal::TERM,
        };
        if let Some(pid) = pid {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
    #[cfg(not(unix))]
    let _ = (signal, child);
}

/// A core dump of this process would hold the credentials: there shall be none. The limit is inherited, so this is not
/// for processes that run programs of the user's.
pub fn leave_no_core_dump() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let maximum = getrlimit(Resource::Core).maximum;
        // Lowering one's own limit is always allowed.
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum });
    }
}

/// Whether a file belongs neither to the user of this process nor to the owner of the folder that it is in.
pub fn is_strangers(found: &std::fs::Metadata, folder: &std::fs::Metadata) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        ![rustix::process::geteuid().as_raw(), folder.uid()].contains(&found.uid())
    }
    #[cfg(not(unix))]
    {
        let _ = (found, folder);
        false
    }
}

/// The owner of a file, user and group; nothing to compare where the system has none.
#[cfg(unix)]
pub fn owner(found: &std::fs::Metadata) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt;
    (found.uid(), found.gid())
}

/// See above.
#[cfg(not(unix))]
pub fn owner(_found: &std::fs::Metadata) {}

/// The signals that ask this process to end. None is lost between two looks, from the first one on. What whoever started
/// us has us ignore stays ignored: `nohup ssh ...` is to outlive its terminal.
pub struct Signals {
    /// Hangup, interrupt and terminate. Without a handler the system ends the process, which is as good.
    #[cfg(unix)]
    handlers: [(Option<tokio::signal::unix::Signal>, u8); 3],
}

/// Whether this process ignores a signal.
#[cfg(unix)]
fn ignores(signal: libc::c_int) -> bool {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: sigaction(2) without a new action only writes the present one to the address that it is given, and a
    // `struct sigaction` of zeros is one.
    #[expect(unsafe_code, reason = "no crate that is here tells what a signal does")]
    let action = unsafe {
        libc::sigaction(signal, std::ptr::null(), now.as_mut_ptr());
        now.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN
}

impl Signals {
    /// Listens from now on.
    pub fn listen() -> Signals {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let one = |kind: SignalKind, number| {
                let handler = if ignores(kind.as_raw_value()) { None } else { signal(kind).ok() };
                (handler, number)
            };
            let handlers =
                [one(SignalKind::hangup(), 1), one(SignalKind::interrupt(), 2), one(SignalKind::terminate(), 15)];
            Signals { handlers }
        }
        #[cfg(not(unix))]
        Signals {}
    }

    /// Waits for the next one, and gives its number.
    pub async fn next(&mut self) -> u8 {
        #[cfg(unix)]
        {
            async fn one((handler, number): &mut (Option<tokio::signal::unix::Signal>, u8)) -> u8 {
                match handler {
                    Some(handler) => handler.recv().await,
                    None => std::future::pending().await,
                };
                *number
            }
            let [hangup, interrupt, terminate] = &mut self.handlers;
            tokio::select! {
                number = one(hangup) => number,
                number = one(interrupt) => number,
                number = one(terminate) => number,
            }
        }
        #[cfg(not(unix))]
        {
            if tokio::signal::ctrl_c().await.is_err() {
                return std::future::pending().await;
            }
            2
        }
    }
}

/// Waits for a signal that asks this process to end, and gives its number.
pub async fn ended_by_signal() -> u8 {
    Signals::listen().next().await
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::time::Duration;

    use super::process_age;

    #[test]
    fn a_process_knows_its_age() {
        let before = process_age();
        std::thread::sleep(Duration::from_millis(50));
        let passed = process_age().saturating_sub(before);
        assert!(passed >= Duration::from_millis(30) && before < Duration::from_secs(3600), "{before:?} {passed:?}");
    }
}
