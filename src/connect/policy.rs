//! The decision if a connection may wake a stopped playground.
//!
//! A reconnect of an editor and a poll of a start screen are no wish to wake, and neither a terminal nor a foreground
//! process proves that a person is there. So the default policy wakes unless something speaks against it: a stop on
//! purpose; an end under a live session, as long as attempts keep coming in the rhythm of a reconnecting program; a
//! client that polls. A person at a terminal is asked.
//!
//! That rhythm is not known: agent programs back off for minutes, and go on after the computer has slept. So a client
//! that shows that a program runs it has to be silent for long, and where the playground was stopped before its time
//! under a session, silence never counts as a wish.

use std::time::Duration;

use crate::{
    connect::{client::ClientKind, early::connect_timeout},
    error::{Error, Kind, Result},
    moment::{Moment, ago, now},
    os,
    records::memory::{Memory, Record},
    settings::WakePolicy,
    ssh::options::{self, SshOptions},
    ui::input,
};

/// A client that polls may wake a playground for this long after a deliberate act.
const DELIBERATE_LASTS: Duration = Duration::from_secs(10 * 60);

/// A client that a program runs has connected again by itself if it comes within this time of its last attempt. No
/// program documents its back-off; this holds against one of half an hour.
pub(super) const RECONNECTS_WITHIN: Duration = Duration::from_secs(60 * 60);

/// A playground whose end came earlier than its time by more than this was stopped. Clocks and answers take their time.
const EARLY: Duration = Duration::from_secs(30);

/// The reason why a playground is not woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Stopped,
    MachineStopped,
    CutOff,
    Polling,
    Never,
}

/// Applies a policy to the record of a playground that is down, or runs while the machine is down that is connected to.
fn decide(
    policy: WakePolicy,
    record: &Record,
    machine: Option<&str>,
    client: ClientKind,
    pause: Duration,
) -> Result<(), Refusal> {
    match policy {
        WakePolicy::Always => Ok(()),
        WakePolicy::Never => Err(Refusal::Never),
        WakePolicy::UnlessStopped => {
            if record.stopped.is_some() {
                Err(Refusal::Stopped)
            } else if machine.is_some_and(|machine| record.machine_stopped(machine).is_some()) {
                Err(Refusal::MachineStopped)
            } else if record.cut_off.is_some_and(|at| ago(at) < pause) {
                Err(Refusal::CutOff)
            } else if client == ClientKind::Sshj && record.deliberate.is_none_or(|at| ago(at) >= DELIBERATE_LASTS) {
                Err(Refusal::Polling)
            } else {
                Ok(())
            }
        }
    }
}

/// Returns true if the decision depends on the client. Then the identification of one that has not sent any is waited
/// for: JetBrains' may be late.
///
/// # Errors
/// Fails when the memory cannot be read.
pub(crate) fn depends_on_client(
    memory: &Memory,
    label: &str,
    machine: Option<&str>,
    policy: WakePolicy,
    pause: Duration,
) -> Result<bool> {
    if policy != WakePolicy::UnlessStopped {
        return Ok(false);
    }
    let record = memory.read(label)?;
    let refused = |client| decide(policy, &record, machine, client, pause).is_err();
    // A program's attempt is judged otherwise after a session's end.
    let has_ended = [record.cut_off, record.session_ended].into_iter().flatten().any(|at| ago(at) < RECONNECTS_WITHIN);
    Ok(has_ended || (refused(ClientKind::Sshj) && !refused(ClientKind::Other)))
}

/// The question that one connection puts to the policy.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    /// The wishes of people for the playground.
    pub memory: &'a Memory,
    /// The playground: its id, or the catalogue name of one that is to be started.
    pub label: &'a str,
    /// The playground's name for people.
    pub shown: &'a str,
    /// The machine; `None` of a playground that is to be started.
    pub machine: Option<&'a str>,
    /// True while the playground itself runs, so that only the machine is down.
    pub runs: bool,
    /// True while another session has not noticed its end yet.
    pub in_session: bool,
    /// The time since which it has been down; `None` where the platform no longer says.
    pub down_since: Option<Moment>,
    /// The policy in force for it.
    pub policy: WakePolicy,
    /// The client that connects.
    pub client: ClientKind,
    /// True for a client that a program runs, which may connect again by itself.
    pub reconnects: bool,
    /// The pause between attempts that tells a person's from those of a cut-off editor.
    pub pause: Duration,
}

impl Question<'_> {
    /// The silence before an attempt that counts as a wish, although the playground ended under a session.
    fn silence(&self, record: &Record) -> Duration {
        if !self.reconnects {
            return self.pause;
        }
        let early = u64::try_from(EARLY.as_millis()).unwrap_or_default();
        let was_stopped = self.down_since.is_some_and(|since| {
            record.cut_off.is_some_and(|at| since <= at) && record.due.is_some_and(|due| since + early < due)
        });
        // A machine that is down alone may have crashed, and a name may mean a new playground.
        let is_at_rest = self.machine.is_some() && !self.runs;
        if was_stopped && is_at_rest { Duration::MAX } else { self.pause.max(RECONNECTS_WITHIN) }
    }

    /// Decides, and keeps what that depends on.
    fn decide(&self) -> Result<Result<(), Refusal>> {
        self.memory.change(self.label, |record| {
            let was_live = |ended: &Moment| self.down_since.is_none_or(|since| since <= *ended);
            record.cut_off = match self.in_session {
                // A session whose end goes unnoticed must not keep it down for ever: attempts that pause are a
                // person's.
                true => {
                    record.cut_off.filter(|at| self.down_since.is_none_or(|since| since <= *at)).or_else(|| Some(now()))
                }
                false => record.cut_off.max(record.session_ended.filter(was_live)),
            };
            let decision = decide(self.policy, record, self.machine, self.client, self.silence(record));
            match decision {
                Ok(()) => {
                    record.cut_off = None;
                    record.session_ended = None;
                }
                // The pause begins anew with every attempt.
                Err(Refusal::CutOff) => record.cut_off = Some(now()),
                Err(Refusal::Stopped | Refusal::MachineStopped | Refusal::Polling | Refusal::Never) => {}
            }
            decision
        })
    }

    /// Answers. A person who says yes on the terminal has done something deliberate.
    ///
    /// # Errors
    /// [`Kind::NotWoken`] with the command that helps; or when the memory cannot be read.
    pub(crate) async fn answer(&self) -> Result<()> {
        let (label, name) = (self.label, self.shown);
        let decision = match self.decide() {
            // This policy does not ask what is on record.
            Err(error) if self.policy == WakePolicy::Always => {
                log::warn!("{}", error.message());
                Ok(())
            }
            decision => decision?,
        };
        let Err(refusal) = decision else { return Ok(()) };
        let machine = self.machine.unwrap_or_default();
        let why = match refusal {
            Refusal::Stopped => format!("playground {name} was stopped on purpose"),
            Refusal::MachineStopped => format!("machine {machine} of playground {name} was stopped on purpose"),
            Refusal::CutOff if self.reconnects => format!(
                "playground {name} has ended while a session was open, and this client may be connecting by itself"
            ),
            Refusal::CutOff => format!("playground {name} has ended while a session was open"),
            Refusal::Polling => {
                format!("playground {name} is not running, and this client keeps connecting by itself")
            }
            Refusal::Never => format!("playground {name} is not running, and the wake policy is `never`"),
        };
        if may_ask() && terminal::says_yes(&format!("{why}. Start it again? [y/N] ")).await {
            match self.machine {
                Some(machine) => self.memory.machine_wanted(label, machine),
                None => self.memory.deliberate(label),
            }
            return Ok(());
        }
        let hint = match self.runs {
            true => format!("start it with `labctl-ssh-proxy machine restart {label} {machine}`"),
            false => format!("start it with `labctl-ssh-proxy start {label}`"),
        };
        Err(Error::new(Kind::NotWoken, why).with_hint(hint))
    }
}

/// Returns true if the user may be asked: neither we nor ssh were told to ask nothing.
pub(super) fn may_ask() -> bool {
    // `-o BatchMode=yes` forbids questions.
    input::is_allowed() && !os::ssh_arguments().is_some_and(|arguments| is_on(&arguments, "BatchMode"))
}

/// Returns true for a client that a program runs, which may connect again by itself: any but OpenSSH, and an ssh with
/// options on its command line that people hardly type. Codex Desktop's has all of them, VS Code's and cmux' the time
/// limit (docs/clients/agents.md). An ssh whose command line cannot be read counts as one.
pub(super) fn may_reconnect(client: ClientKind) -> bool {
    client != ClientKind::OpenSsh || os::ssh_arguments().is_none_or(|arguments| is_of_a_program(&arguments))
}

fn is_of_a_program(arguments: &[String]) -> bool {
    connect_timeout(arguments).is_some()
        || ["BatchMode", "ExitOnForwardFailure"].iter().any(|name| is_on(arguments, name))
}

/// Returns true for an ssh whose command line switches an option on with `-o`.
fn is_on(arguments: &[String], name: &str) -> bool {
    let mut options = SshOptions::new(arguments.iter().skip(1).map(String::as_str));
    while let Some((flag, value)) = options.next() {
        let Some(value) = options::value(value, name).filter(|_| flag == 'o') else { continue };
        // Arguments joined with spaces, as ps shows them. ssh uses the first value.
        let value = if value.is_empty() { options.word().unwrap_or_default() } else { value };
        return matches!(value, "yes" | "true");
    }
    false
}

#[cfg(unix)]
mod terminal {
    use std::{
        fs::{File, OpenOptions},
        io::{Read, Write},
    };

    use rustix::{
        event::{PollFd, PollFlags, Timespec, poll},
        process::getpgrp,
        termios::{QueueSelector, tcflush, tcgetpgrp},
    };

    /// A person who wants in does not look elsewhere for longer.
    const PATIENCE: Timespec = Timespec { tv_sec: 15, tv_nsec: 0 };

    /// Puts a question to the person at the controlling terminal, if we are in its foreground. No answer is a no.
    pub(super) async fn says_yes(question: &str) -> bool {
        let Some(tty) = foreground_terminal() else { return false };
        let question = question.to_owned();
        // On a thread, because a terminal's open file is shared with ssh and must not be made non-blocking. When our
        // future is dropped, the program ends without waiting for the thread.
        tokio::task::spawn_blocking(move || ask(tty, &question).unwrap_or(false)).await.unwrap_or(false)
    }

    fn foreground_terminal() -> Option<File> {
        let tty = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
        (tcgetpgrp(&tty).ok()? == getpgrp()).then_some(tty)
    }

    fn ask(mut tty: File, question: &str) -> std::io::Result<bool> {
        // Input typed before the question is no answer.
        tcflush(&tty, QueueSelector::IFlush)?;
        tty.write_all(question.as_bytes())?;
        let answered = poll(&mut [PollFd::new(&tty, PollFlags::IN)], Some(&PATIENCE))? > 0;
        if !answered {
            // The cursor stands behind the question. The refusal that follows says what to do.
            let end = format!("\r\nlabctl-ssh-proxy: nobody answered within {} s\r\n", PATIENCE.tv_sec);
            tty.write_all(end.as_bytes())?;
            return Ok(false);
        }
        // A terminal in its usual mode is readable when it has a whole line.
        let mut line = [0; 64];
        let n = tty.read(&mut line)?;
        Ok(matches!(&line[..n].trim_ascii().to_ascii_lowercase()[..], b"y" | b"yes"))
    }
}

#[cfg(not(unix))]
mod terminal {
    /// Returns false, because there is no controlling terminal to ask on: the console belongs to the program that
    /// started ssh.
    pub(super) async fn says_yes(_question: &str) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::{ClientKind, DELIBERATE_LASTS, Question, Refusal, decide, is_of_a_program, is_on};
    use crate::{
        moment::{Moment, now},
        platform::Platform,
        records::memory::{Machine, Memory, Record, Session},
        settings::{
            Folders,
            WakePolicy::{Always, Never, UnlessStopped},
        },
    };

    const PAUSE: std::time::Duration = std::time::Duration::from_secs(120);

    fn before(duration: std::time::Duration) -> Option<u64> {
        Some(now() - u64::try_from(duration.as_millis()).unwrap() - 1)
    }

    #[test]
    fn an_ssh_of_a_program_and_one_without_questions_are_known_by_their_command_lines() {
        let batch = |line: &str| is_on(&line.split('|').map(str::to_owned).collect::<Vec<_>>(), "BatchMode");
        for yes in
            ["ssh|-oBatchMode=yes|h", "ssh|-T|-o|batchmode yes|h", "ssh|h|-o|BatchMode=yes", "ssh|-o|BatchMode|yes|h"]
        {
            assert!(batch(yes), "{yes}");
        }
        for no in ["ssh|h", "ssh|-oBatchMode=no|-oBatchMode=yes|h", "ssh|h|echo|-oBatchMode=yes", "ssh|-oPort=1|h"] {
            assert!(!batch(no), "{no}");
        }
        let program = |line: &str| is_of_a_program(&line.split('|').map(str::to_owned).collect::<Vec<_>>());
        for yes in ["ssh|-oBatchMode=yes|h", "ssh|-T|-o|ConnectTimeout=10|h", "ssh|h|-oexitonforwardfailure=yes"] {
            assert!(program(yes), "{yes}");
        }
        for no in ["ssh|h", "ssh|-N|-L|1:h:2|h", "ssh|-oConnectTimeout=0|h", "ssh|h|ls|-oBatchMode=yes", "ssh|-J|j|h"] {
            assert!(!program(no), "{no}");
        }
    }

    #[test]
    fn the_default_policy_row_by_row() {
        let stopped = Record { stopped: before(PAUSE * 1000), ..Record::default() };
        let stopped_machine = |name: &str| {
            let machine = Machine { stopped: before(PAUSE * 1000), ..Machine::default() };
            Record { machines: [(name.to_owned(), machine)].into(), ..Record::default() }
        };
        let just_cut_off = Record { cut_off: Some(now()), ..Record::default() };
        let cut_off_long_ago = Record { cut_off: before(PAUSE), ..Record::default() };
        let just_started = Record { deliberate: Some(now()), ..Record::default() };
        let started_long_ago = Record { deliberate: before(DELIBERATE_LASTS), ..Record::default() };
        for (record, client, expected) in [
            (Record::default(), ClientKind::OpenSsh, Ok(())),
            (Record::default(), ClientKind::Other, Ok(())),
            (Record::default(), ClientKind::Sshj, Err(Refusal::Polling)),
            (stopped.clone(), ClientKind::OpenSsh, Err(Refusal::Stopped)),
            (stopped_machine("m"), ClientKind::OpenSsh, Err(Refusal::MachineStopped)),
            (stopped_machine("another"), ClientKind::OpenSsh, Ok(())),
            (just_cut_off, ClientKind::OpenSsh, Err(Refusal::CutOff)),
            (cut_off_long_ago, ClientKind::OpenSsh, Ok(())),
            (just_started, ClientKind::Sshj, Ok(())),
            (started_long_ago, ClientKind::Sshj, Err(Refusal::Polling)),
        ] {
            assert_eq!(decide(UnlessStopped, &record, Some("m"), client, PAUSE), expected, "{record:?} {client:?}");
        }
        for record in [stopped, stopped_machine("m")] {
            assert_eq!(decide(Always, &record, Some("m"), ClientKind::Sshj, PAUSE), Ok(()));
        }
        assert_eq!(decide(Never, &Record::default(), None, ClientKind::OpenSsh, PAUSE), Err(Refusal::Never));
    }

    const SECOND: u64 = 1000;
    const MINUTE: u64 = 60 * SECOND;
    const HOUR: u64 = 60 * MINUTE;

    /// A playground that ended under a session a moment ago, with this much of its time left.
    fn ended_under_a_session(folder: &std::path::Path, left: Option<u64>) -> (Memory, Moment) {
        let folders = Folders { home: folder.into(), root: folder.into(), settings: folder.join("settings.yaml") };
        let (memory, ended) = (Memory::of(&folders, Platform::Local), now() - SECOND);
        let session = Session { began: ended - HOUR, ended, due: left.map(|left| ended + left) };
        memory.note_cut_off("x").unwrap();
        memory.session_ended("x", "x", &session).unwrap();
        (memory, ended - SECOND)
    }

    /// Attempts after these times. Returns true for each that may wake the playground.
    fn attempts(memory: &Memory, mut down_since: Moment, reconnects: bool, gaps: &[u64]) -> Vec<bool> {
        let attempt = |gap: &u64| {
            let move_back = |record: &mut Record| {
                for moment in [&mut record.cut_off, &mut record.session_ended, &mut record.due] {
                    *moment = moment.map(|at| at - gap);
                }
            };
            memory.change("x", move_back).unwrap();
            down_since -= gap;
            let (down_since, policy, client) = (Some(down_since), UnlessStopped, ClientKind::OpenSsh);
            let (machine, runs, in_session, pause) = (Some("m"), false, false, PAUSE);
            let (label, shown) = ("x", "x");
            Question { memory, label, shown, machine, runs, in_session, down_since, policy, client, reconnects, pause }
                .decide()
                .unwrap()
                .is_ok()
        };
        gaps.iter().map(attempt).collect()
    }

    #[test]
    fn a_program_that_reconnects_wakes_nothing_whatever_its_rhythm() {
        let backs_off = [&[SECOND; 30][..], &[30 * SECOND; 30], &[5 * MINUTE; 60], &[30 * MINUTE; 10]].concat();
        let slept = [9 * HOUR, SECOND, 30 * SECOND, 5 * MINUTE, 60 * HOUR];
        let folder = tempfile::tempdir().unwrap();
        // Stopped in the browser, before its time.
        for first in [&backs_off[..], &[5 * MINUTE], &[30 * MINUTE], &slept] {
            let (memory, down) = ended_under_a_session(folder.path(), Some(HOUR));
            let all = [first, &backs_off, &slept].concat();
            assert!(!attempts(&memory, down, true, &all).contains(&true), "{first:?}");
        }
        // It may be expected to end at its time: then a long silence is a wish, and so is any of a person's.
        for left in [None, Some(SECOND)] {
            let (memory, down) = ended_under_a_session(folder.path(), left);
            assert!(!attempts(&memory, down, true, &backs_off).contains(&true), "{left:?}");
            assert_eq!(attempts(&memory, down, true, &[30 * MINUTE, 61 * MINUTE]), [false, true], "{left:?}");
        }
        let (memory, down) = ended_under_a_session(folder.path(), Some(HOUR));
        assert_eq!(attempts(&memory, down, false, &[SECOND, 119 * SECOND, 121 * SECOND]), [false, false, true]);
        // The command that the refusal names.
        let (memory, down) = ended_under_a_session(folder.path(), Some(HOUR));
        assert_eq!(attempts(&memory, down, true, &[SECOND]), [false]);
        memory.deliberate("x");
        assert_eq!(attempts(&memory, down, true, &[SECOND]), [true]);
        // A session that was cut off by the network says nothing once another one has ended in peace, and long before.
        let (memory, down) = ended_under_a_session(folder.path(), Some(HOUR));
        let later = Session { began: now() + 1, ended: down - 1, due: Some(now() + HOUR) };
        memory.session_ended("x", "x", &later).unwrap();
        assert_eq!(attempts(&memory, down, true, &[SECOND]), [true]);
    }
}
