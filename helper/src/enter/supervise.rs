//! The server in the container, from its start to its end.
//!
//! Each direction has a thread that moves bytes inside the kernel (`splice`). The first bytes of the server are the sign
//! that it runs: the reply is written before them. This process is the subreaper of what runc starts, so it sees the
//! server's end although runc is gone by then.

use std::{
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Command, ExitCode},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags},
    io::Errno,
    pipe::SpliceFlags,
    process::{Pid, Rlimit, Signal, WaitOptions, getrlimit, kill_process, setrlimit, wait},
};

use super::{Answer, Prepared, signals};
use crate::{
    resolve,
    stat::{self, Stat},
    text,
    wire::{Container, Refusal, RefusalKind, Reply},
};

/// The time that runc and the server may take to begin. On a machine with one slow core, runc takes two seconds.
const START: Duration = Duration::from_secs(15);

/// The time that the server may take to end after the end of its input. It needs about 300 ms itself.
const END: Duration = Duration::from_secs(2);

/// The same while it has not begun, because runc is at work.
const END_OF_START: Duration = Duration::from_secs(5);

/// The time after the server's end for bytes of it that are still on their way out, and after the client's for those of
/// which the server takes none.
const DRAIN: Duration = Duration::from_secs(1);

/// The time after an end for words that are still to be read. A process of the container may keep their pipe for ever.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Most bytes that one system call moves.
const PIECE: usize = 256 * 1024;

/// The part of the standard error of runc and of the server that is kept.
const MAX_WORDS: usize = 16 * 1024;

/// Something that has happened.
enum Event {
    /// runc has ended, well or not.
    Runtime(bool),
    /// The server has ended, with this exit code.
    Server(u8),
    /// The client has ended its side, or this process was told to end.
    Input,
    /// The server's first bytes are here, and the reply is written.
    Answered,
    /// The server has ended its side, or the client takes nothing any more.
    Output,
}

/// A pipe that holds `contents` and ends there.
pub(super) fn pipe_with(contents: &[u8]) -> io::Result<OwnedFd> {
    let (reader, mut writer) = io::pipe()?;
    // A pipe takes 64 KiB without a reader. Were it less, this would wait for ever.
    if contents.len() > 32 * 1024 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    writer.write_all(contents)?;
    Ok(reader.into())
}

/// Starts the server, replies, and moves bytes until it ends.
pub(super) fn run(prepared: &Prepared, answer: &Answer) -> ExitCode {
    match begin(prepared, answer) {
        Ok(session) => session.attend(prepared, answer),
        Err(error) => {
            let message = format!("runc cannot be started on the machine: {error}");
            answer.refuse(Refusal::new(RefusalKind::Program, message))
        }
    }
}

/// A server that is being started, or runs.
struct Session {
    events: Receiver<Event>,
    words: Words,
    /// True while the output's thread waits for the client, and not for the server.
    writing: Arc<AtomicBool>,
    /// The server's process, once runc has left it to us.
    server: Arc<OnceLock<Pid>>,
    /// The processes that the login shell has left to us, which are none of ours.
    inherited: Vec<Pid>,
}

fn begin(prepared: &Prepared, answer: &Answer) -> io::Result<Session> {
    let inherited = below(rustix::process::getpid(), &[]);
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let (input_reader, input) = io::pipe()?;
    let (output, output_writer) = io::pipe()?;
    let (errors, errors_writer) = io::pipe()?;
    let told_to_end = signals::as_pipe()?;
    // The command owns the server's ends of the pipes. They are closed here as soon as runc has them.
    let mut runc = command(prepared, input_reader, output_writer, errors_writer).spawn()?;

    let (happened, events) = channel();
    let words = Words::of(errors);
    let writing = Arc::new(AtomicBool::new(false));
    let server = Arc::new(OnceLock::new());
    thread::spawn({
        let (happened, server, inherited) = (happened.clone(), Arc::clone(&server), inherited.clone());
        move || {
            let succeeded = runc.wait().is_ok_and(|status| status.success());
            let _ = happened.send(Event::Runtime(succeeded));
            let Some(&started) = below(rustix::process::getpid(), &inherited).first() else { return };
            let _ = server.set(started);
            let _ = happened.send(Event::Server(end_of(started)));
        }
    });
    thread::spawn({
        let happened = happened.clone();
        move || {
            let _ = take_in(rustix::stdio::stdin(), &input, &told_to_end);
            drop(input);
            let _ = happened.send(Event::Input);
        }
    });
    thread::spawn({
        let (answer, writing) = (answer.clone(), Arc::clone(&writing));
        let reply = Reply::Entered(prepared.container.clone());
        move || {
            let _ = pass_on(output, &reply, &answer, &happened, &writing);
            let _ = happened.send(Event::Output);
        }
    });
    Ok(Session { events, words, writing, server, inherited })
}

fn command(prepared: &Prepared, input: PipeReader, output: PipeWriter, errors: PipeWriter) -> Command {
    let runtime = &prepared.runtime;
    let mut command = Command::new(&runtime.program);
    command.arg("--root").arg(&runtime.root);
    if runtime.by_systemd {
        command.arg("--systemd-cgroup");
    }
    command
        .args(["exec", "--detach", "--preserve-fds", &prepared.files.preserved().to_string()])
        .args(["--process", &format!("/proc/self/fd/{}", prepared.files.process()), &prepared.container.id])
        .env_clear()
        .env("PATH", &runtime.path)
        .current_dir("/")
        .stdin(input)
        .stdout(output)
        .stderr(errors);
    if let Some(marker) = std::env::var_os(crate::server::processes::MARKER) {
        command.env(crate::server::processes::MARKER, marker);
    }
    let files = prepared.files.clone();
    let (limits, umask) = (runtime.limits.clone(), runtime.umask);
    let oom_score = runtime.oom_score.map(|score| score.to_string());
    // SAFETY: between fork and exec only system calls are made, which are async-signal-safe, and nothing is allocated.
    #[expect(unsafe_code, reason = "std has no safe way to set limits, mask and signals of a child")]
    unsafe {
        command.pre_exec(move || {
            for &(resource, limit) in &limits {
                // A hard limit that cannot be raised stays as it is.
                if setrlimit(resource, limit).is_err() {
                    let maximum = getrlimit(resource).maximum;
                    let _ = setrlimit(resource, Rlimit { current: lower(limit.current, maximum), maximum });
                }
            }
            if let Some(umask) = umask {
                rustix::process::umask(umask);
            }
            // A score that is lower than the session's needs a capability.
            if let Some(score) = &oom_score
                && let Ok(file) = rustix::fs::open(c"/proc/self/oom_score_adj", OFlags::WRONLY, Mode::empty())
            {
                let _ = rustix::io::write(file, score.as_bytes());
            }
            signals::reset();
            // runc takes no notice of the signals that would end it, and waits for a frozen container for ever.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            files.pass()
        });
    }
    command
}

/// The lower one of two limits, of which None is none.
fn lower(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.map_or(other, |one| Some(other.map_or(one, |other| one.min(other))))
}

/// Waits for the end of a child. Returns its exit code, as a shell would tell it. In a container that shares the machine's
/// process numbers, the server's orphans become children of this process, too.
fn end_of(child: Pid) -> u8 {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == child => {
                let code = status.exit_status().or_else(|| Some(128 + status.terminating_signal()?));
                return code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return 1,
        }
    }
}

/// Moves the client's bytes to the server, until they end or `told_to_end` does. A server that takes nothing, because it
/// is frozen, keeps neither from being seen.
fn take_in(client: BorrowedFd<'_>, input: &PipeWriter, told_to_end: &PipeReader) -> io::Result<()> {
    loop {
        let mut both = [PollFd::new(told_to_end, PollFlags::IN), PollFd::new(&client, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut both, None))?;
        if !both[0].revents().is_empty() {
            return Ok(());
        }
        match splice(client, input.as_fd(), SpliceFlags::NONBLOCK) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let end = PollFd::new(&client, PollFlags::RDHUP);
                let mut all = [both[0].clone(), PollFd::new(input, PollFlags::OUT), end];
                rustix::io::retry_on_intr(|| poll(&mut all, None))?;
                let [room @ .., _] = &mut all;
                let time = Timespec::try_from(DRAIN).map_err(io::Error::other)?;
                // Bytes that a client has sent before its end are kept as long as the server takes some of them.
                if room.iter().all(|one| one.revents().is_empty())
                    && rustix::io::retry_on_intr(|| poll(room, Some(&time)))? == 0
                {
                    return Ok(());
                }
            }
            moved => drop(moved?),
        }
    }
}

/// Moves the server's bytes to the client, after the reply.
fn pass_on(
    mut output: PipeReader,
    reply: &Reply,
    answer: &Answer,
    happened: &Sender<Event>,
    writing: &AtomicBool,
) -> io::Result<()> {
    let mut first = [0; 4096];
    let read = output.read(&mut first)?;
    // No bytes, or a reply that says why they are too late: the server is not needed any more.
    if read == 0 || !answer.give(reply)? {
        return Ok(());
    }
    let _ = happened.send(Event::Answered);
    let stdout = rustix::stdio::stdout();
    let mut rest = &first[..read];
    writing.store(true, Ordering::Relaxed);
    while !rest.is_empty() {
        let written = rustix::io::write(stdout, rest)?;
        rest = &rest[written..];
    }
    loop {
        writing.store(false, Ordering::Relaxed);
        rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(&output, PollFlags::IN)], None))?;
        writing.store(true, Ordering::Relaxed);
        if splice(output.as_fd(), stdout, SpliceFlags::empty())? == 0 {
            return Ok(());
        }
    }
}

/// Moves what is there, inside the kernel where that is possible. Returns 0 at the end.
fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, flags: SpliceFlags) -> io::Result<usize> {
    loop {
        match rustix::pipe::splice(from, None, to, None, PIECE, SpliceFlags::MOVE | flags) {
            Err(Errno::INTR) => {}
            // One of the two is a file or a terminal that cannot be spliced.
            Err(Errno::INVAL) => return copy(from, to),
            done => return Ok(done?),
        }
    }
}

fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<usize> {
    let mut buffer = [0; 16 * 1024];
    let read = rustix::io::retry_on_intr(|| rustix::io::read(from, &mut buffer))?;
    let mut rest = &buffer[..read];
    while !rest.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(to, rest))?;
        rest = &rest[written..];
    }
    Ok(read)
}

impl Session {
    fn attend(self, prepared: &Prepared, answer: &Answer) -> ExitCode {
        let mut deadline = Some(Instant::now() + START);
        let (mut answered, mut output_ended, mut ending) = (false, false, false);
        let mut server = None;
        loop {
            let event = match deadline {
                Some(deadline) => self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())),
                None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match event {
                Ok(Event::Runtime(true)) => {}
                Ok(Event::Runtime(false)) => return answer.refuse(self.not_entered(prepared)),
                Ok(Event::Answered) => {
                    answered = true;
                    deadline = ending.then(|| Instant::now() + END);
                }
                Ok(Event::Server(code)) => {
                    server = Some(code);
                    // The output's end follows at once, unless a process of the container has taken hold of the pipe.
                    deadline = Some(Instant::now() + DRAIN);
                }
                Ok(Event::Output) => {
                    output_ended = true;
                    if server.is_none() && answered {
                        ending = true;
                        deadline = Some(Instant::now() + END);
                    }
                }
                Ok(Event::Input) => {
                    ending = true;
                    if server.is_none() {
                        // runc takes a moment itself, and must not be interrupted without need.
                        let time = if answered { END } else { END_OF_START };
                        deadline = Some(Instant::now() + time);
                    }
                }
                // A client that reads slowly still gets all.
                Err(RecvTimeoutError::Timeout) if server.is_some() && self.writing.load(Ordering::Relaxed) => {
                    deadline = Some(Instant::now() + DRAIN);
                }
                Err(_) if server.is_some() => output_ended = true,
                Err(_) => {
                    self.kill();
                    if !answered {
                        return answer.refuse(late(prepared, if ending { END_OF_START } else { START }));
                    }
                    // Its end comes now, except in a frozen container, where it comes when that goes on.
                    server = Some(137);
                    deadline = Some(Instant::now() + DRAIN);
                }
            }
            if let (Some(code), true) = (server, output_ended) {
                return if answered { self.ended(code) } else { answer.refuse(self.not_entered(prepared)) };
            }
        }
    }

    /// Kills the server and all that descends from it. Before it runs, runc is in its place.
    fn kill(&self) {
        let server = self.server.get().copied();
        let all = below(server.unwrap_or_else(rustix::process::getpid), &self.inherited);
        for pid in server.into_iter().chain(all) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// The exit code, and the server's last words where it did not end well.
    fn ended(&self, code: u8) -> ExitCode {
        let words = if code == 0 { String::new() } else { self.words.last_line() };
        if !words.is_empty() {
            let _ = writeln!(io::stderr(), "{words}");
        }
        ExitCode::from(code)
    }

    /// The sentence for a server that did not begin.
    fn not_entered(&self, prepared: &Prepared) -> Refusal {
        let container = &prepared.container;
        if !prepared.runtime.init.lives() {
            return resolve::ended(&prepared.engine, container);
        }
        let name = text::line(&container.name);
        let words = self.words.last_line();
        let refusal = |message| Refusal::new(RefusalKind::Impossible, message);
        match words.as_str() {
            it if it.contains("flag provided but not defined") => {
                refusal(format!("the machine's runc is too old to enter container {name}: {it}"))
                    .with_hint("upgrade it to 1.0 or later")
            }
            it if it.contains("paused container") || it.contains("is paused") => {
                resolve::not_running(&Container { state: "paused".to_owned(), ..container.clone() })
            }
            "" => refusal(format!("the server in container {name} has ended before it began")),
            it => refusal(format!("container {name} could not be entered: {it}")),
        }
    }
}

/// The sentence for a server that has not begun in time.
fn late(prepared: &Prepared, time: Duration) -> Refusal {
    // A container that was paused in between is frozen, and with it what runc starts there.
    resolve::changed(&prepared.engine, &prepared.container).unwrap_or_else(|| {
        let name = text::line(&prepared.container.name);
        let message = format!("the server in container {name} has not begun within {} seconds", time.as_secs());
        let hint = "see what keeps the machine busy with `labctl-ssh-proxy ssh {machine} -t top`";
        Refusal::new(RefusalKind::Program, message).with_hint(hint)
    })
}

/// The processes that descend from one, its children first, without the `spared` ones and what descends from them.
fn below(ancestor: Pid, spared: &[Pid]) -> Vec<Pid> {
    let mut all = stat::all();
    all.retain(|one| !spared.contains(&one.pid));
    let mut found = vec![ancestor];
    let mut looked_at = 0;
    while let Some(&parent) = found.get(looked_at) {
        looked_at += 1;
        let is_child = |one: &&Stat| Pid::from_raw(one.parent) == Some(parent) && !found.contains(&one.pid);
        let children: Vec<Pid> = all.iter().filter(is_child).map(|one| one.pid).collect();
        found.extend(children);
    }
    found.split_off(1)
}

/// The last words of runc and of the server.
struct Words {
    kept: Arc<Mutex<Vec<u8>>>,
    /// Nothing is ever sent. The sender goes when all has been read.
    ended: Receiver<()>,
}

impl Words {
    /// Keeps the last of what comes from now on.
    fn of(mut errors: PipeReader) -> Words {
        let (reading, ended) = channel();
        let kept = Arc::<Mutex<Vec<u8>>>::default();
        let words = Words { kept: Arc::clone(&kept), ended };
        thread::spawn(move || {
            let _reading: Sender<()> = reading;
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = errors.read(&mut buffer) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(&buffer[..read]);
                let too_many = kept.len().saturating_sub(MAX_WORDS);
                kept.drain(..too_many);
            }
        });
        words
    }

    /// The last line of a process that has ended. What it wrote just before may still have to be read.
    fn last_line(&self) -> String {
        let _ = self.ended.recv_timeout(LAST_WORDS);
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = String::from_utf8_lossy(&kept);
        text::line(&message(kept.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default()))
    }
}

/// The message in a line of runc's log: `time="..." level=error msg="exec failed: ..."`.
fn message(line: &str) -> String {
    let Some((_, quoted)) = line.split_once(" msg=\"") else { return line.to_owned() };
    let mut message = String::new();
    let mut characters = quoted.chars();
    while let Some(one) = characters.next() {
        match one {
            '"' => break,
            '\\' => message.extend(characters.next().map(|escaped| if escaped == 'n' { ' ' } else { escaped })),
            other => message.push(other),
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::net::UnixStream, thread::JoinHandle};

    use super::*;

    #[test]
    fn no_limit_is_the_highest() {
        assert_eq!(lower(None, Some(3)), Some(3));
        assert_eq!(lower(Some(2), None), Some(2));
        assert_eq!(lower(Some(2), Some(3)), Some(2));
        assert_eq!(lower(None, None), None);
    }

    #[test]
    fn the_message_of_a_log_line_is_taken_out() {
        let line = r#"time="2026-11-29T20:00:00Z" level=error msg="exec failed: exec: \"/x\": stat /x: no such file""#;
        assert_eq!(message(line), r#"exec failed: exec: "/x": stat /x: no such file"#);
        assert_eq!(message("plain words"), "plain words");
    }

    #[test]
    fn words_are_bounded_and_the_last_line_counts() {
        let (reader, mut writer) = io::pipe().unwrap();
        let words = Words::of(reader);
        for _ in 0..MAX_WORDS {
            writer.write_all(b"first\n").unwrap();
        }
        writer.write_all(b"last\x1b[2J\n\n").unwrap();
        drop(writer);
        assert_eq!(words.last_line(), "last [2J");
        assert!(words.kept.lock().unwrap().len() <= MAX_WORDS);
    }

    #[test]
    fn words_that_come_late_are_waited_for_and_a_pipe_that_stays_open_is_not() {
        let (reader, mut writer) = io::pipe().unwrap();
        let kept_open = writer.try_clone().unwrap();
        let words = Words::of(reader);
        let writing = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            writer.write_all(b"late\n").unwrap();
        });
        assert_eq!(words.last_line(), "late");
        writing.join().unwrap();
        drop(kept_open);
        let begun = Instant::now();
        assert_eq!(words.last_line(), "late");
        assert!(begun.elapsed() < LAST_WORDS);
    }

    /// A client whose bytes have filled the pipe to the server, their number, the server's end of the pipe, the request to
    /// end, and what takes the bytes in.
    fn filled() -> (UnixStream, usize, PipeReader, PipeWriter, JoinHandle<io::Result<()>>) {
        let (near, mut client) = UnixStream::pair().unwrap();
        let (server, input) = io::pipe().unwrap();
        let (told_to_end, not_yet) = io::pipe().unwrap();
        let taking = thread::spawn(move || take_in(near.as_fd(), &input, &told_to_end));
        client.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        let sent = std::iter::from_fn(|| client.write(&[7; 16 * 1024]).ok()).sum();
        assert!(!taking.is_finished());
        (client, sent, server, not_yet, taking)
    }

    #[track_caller]
    fn ends_soon(taking: JoinHandle<io::Result<()>>) {
        let begun = Instant::now();
        while !taking.is_finished() {
            assert!(begun.elapsed() < START, "it does not end");
            thread::sleep(Duration::from_millis(1));
        }
        taking.join().unwrap().unwrap();
    }

    #[test]
    fn a_server_that_takes_nothing_hides_no_end() {
        let (client, _, _server, _not_yet, taking) = filled();
        drop(client);
        ends_soon(taking);
        let (_client, _, _server, not_yet, taking) = filled();
        drop(not_yet);
        ends_soon(taking);
    }

    #[test]
    fn a_server_that_takes_its_time_gets_all() {
        let (client, sent, mut server, _not_yet, taking) = filled();
        drop(client);
        let mut read = Vec::new();
        // In all it takes longer than one that takes nothing may.
        for _ in 0..6 {
            thread::sleep(DRAIN / 5);
            server.by_ref().take(sent as u64 / 8).read_to_end(&mut read).unwrap();
        }
        server.read_to_end(&mut read).unwrap();
        assert_eq!(read.len(), sent);
        ends_soon(taking);
    }

    #[test]
    fn what_the_login_shell_has_left_is_not_below() {
        let own = rustix::process::getpid();
        let mut shell = Command::new("sh").args(["-c", "sleep 100 & wait"]).spawn().unwrap();
        let pid = Pid::from_child(&shell);
        while below(pid, &[]).is_empty() {
            thread::sleep(Duration::from_millis(1));
        }
        let sleep = below(pid, &[])[0];
        let all = below(own, &[]);
        assert!(all.contains(&pid) && all.contains(&sleep));
        let others = below(own, &[pid]);
        assert!(!others.contains(&pid) && !others.contains(&sleep));
        let _ = kill_process(sleep, Signal::KILL);
        shell.wait().unwrap();
    }

    #[test]
    fn a_pipe_with_contents_ends_after_them() {
        let mut read = String::new();
        File::from(pipe_with(b"hello").unwrap()).read_to_string(&mut read).unwrap();
        assert_eq!(read, "hello");
        assert!(pipe_with(&vec![0; 100_000]).is_err());
    }
}
