//! Shells and commands on a session channel (RFC 4254, 6), with and without a terminal.

use std::{
    borrow::Cow,
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            ffi::{OsStrExt, OsStringExt},
            process::ExitStatusExt,
        },
    },
    path::Path,
    process::{ExitStatus, Stdio},
    sync::Arc,
};

use pty_process::{OwnedReadPty, OwnedWritePty};
use russh::{Pty, Sig};
use rustix::{
    process::{Pid, Signal, kill_process_group},
    termios::{self, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Winsize},
};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use super::{
    Host,
    channel::{Channels, Control, STDERR, Wire},
    processes::{in_its_own_session, pid_of},
    reason,
    words::{self, Wrong},
};

/// A terminal as the client has requested it.
pub(super) struct Terminal {
    /// Its type, for `TERM`.
    pub term: OsString,
    /// Its size.
    pub size: Winsize,
    /// Encoded terminal modes (RFC 4254, 8).
    pub modes: Vec<(Pty, u32)>,
}

/// A shell or a command to start.
pub(super) struct Start<'a> {
    /// The command for the shell's `-c`; a login shell without one.
    pub command: Option<&'a [u8]>,
    /// The variables that the client set.
    pub environment: Vec<(OsString, OsString)>,
    /// The terminal; pipes without one.
    pub terminal: Option<Terminal>,
    /// The socket of the client's agent.
    pub agent: Option<&'a Path>,
}

/// Starts a shell or a command and, in a task of its own, connects it with its channel until both are done. The client
/// reads on the channel why something cannot be started.
pub(super) fn start(host: &Arc<Host>, channels: &Channels, wire: Wire, start: Start<'_>) {
    let has_terminal = start.terminal.is_some();
    match begin(host, &start) {
        Err(unable) => {
            log::info!("a session was not started: {}", unable.words);
            tokio::spawn(explain(wire, unable, has_terminal));
        }
        Ok(((child, io, terminal), group)) => {
            channels.control(wire.id(), Control { group, terminal });
            let host = Arc::clone(host);
            tokio::spawn(async move {
                match run(wire, child, io, group).await {
                    Left::Ended => host.processes.ended(group),
                    Left::Abandoned => host.processes.abandoned(group),
                }
            });
        }
    }
}

type Started = (Child, Io, Option<OwnedFd>);

/// Starts the first shell that can be, or the program itself where there is none.
fn begin(host: &Host, start: &Start<'_>) -> Result<(Started, Pid), Unable> {
    for shell in &host.shells {
        let mut command = host.command(shell);
        command.env("SHELL", shell);
        match start.command {
            Some(text) => drop(command.arg("-c").arg(lent_bash(host, text))),
            None => {
                // The leading hyphen tells a shell that it is a login shell.
                let mut name = OsString::from("-");
                name.push(shell.file_name().unwrap_or_default());
                command.arg0(name);
            }
        }
        match spawn(host, command, start) {
            Err(e) if is_no_program(&e) => {}
            started => return started.map_err(|e| Unable::start(host, &e)),
        }
    }
    let words = start.command.map(words::split).transpose().map_err(|wrong| Unable::understand(host, &wrong))?;
    let Some([program, arguments @ ..]) = words.as_deref() else { return Err(Unable::without_shell(host)) };
    let mut command = host.command(Path::new(program));
    command.args(arguments);
    spawn(host, command, start).map_err(|e| Unable::run(host, program, &e))
}

/// A command that asks for a bash by its path, where the host has none there and is lent one: with the path of that. A
/// bash without a path is found in PATH.
fn lent_bash<'a>(host: &Host, text: &'a [u8]) -> Cow<'a, OsStr> {
    let exec = if text.starts_with(b"exec ") { 5 } else { 0 };
    let words = BASHES.iter().find(|words| {
        let rest = text[exec..].strip_prefix(words.as_bytes());
        rest.is_some_and(|rest| rest.first().is_none_or(u8::is_ascii_whitespace))
    });
    let is_missing = |words: &str| !words.split(' ').next().is_some_and(|path| Path::new(path).exists());
    let lent = host.tools.as_ref().ok().map(|tools| tools.join("bash"));
    match (words, lent) {
        (Some(words), Some(lent)) if is_missing(words) && lent.exists() => {
            let text = [&text[..exec], lent.as_os_str().as_bytes(), &text[exec + words.len()..]].concat();
            Cow::Owned(OsString::from_vec(text))
        }
        _ => Cow::Borrowed(OsStr::from_bytes(text)),
    }
}

fn spawn(host: &Host, mut command: Command, start: &Start<'_>) -> io::Result<(Started, Pid)> {
    command
        // Shells and prompts recognise by them that they are remote. The words are OpenSSH's own for a connection
        // without addresses.
        .env("SSH_CONNECTION", "UNKNOWN 65535 UNKNOWN 65535")
        .env("SSH_CLIENT", "UNKNOWN 65535 65535")
        .envs(start.environment.iter().map(|(name, value)| (name, value)))
        .envs(start.agent.map(|socket| ("SSH_AUTH_SOCK", socket)))
        // Last, so that no client can override it.
        .envs(host.processes.marker());
    host.processes.start(|| {
        let started = match &start.terminal {
            Some(terminal) => spawn_on_terminal(command, terminal)?,
            None => spawn_on_pipes(command)?,
        };
        let pid = pid_of(&started.0)?;
        Ok((started, pid))
    })
}

/// Reports whether an error means that a file is missing, or is no program of this system.
fn is_no_program(e: &io::Error) -> bool {
    use rustix::io::Errno;
    let kinds = [Errno::NOENT, Errno::NOTDIR, Errno::ACCESS, Errno::LOOP, Errno::NOEXEC, Errno::ISDIR, Errno::INVAL];
    Errno::from_io_error(e).is_some_and(|errno| kinds.contains(&errno))
}

/// The exit codes of shells for a program that is missing, for one that cannot be run, and for a line that they do not
/// understand.
const MISSING: u32 = 127;
const CANNOT_RUN: u32 = 126;
const NOT_UNDERSTOOD: u32 = 2;

/// The names of shells, which clients ask for.
const SHELLS: [&[u8]; 6] = [b"sh", b"bash", b"ash", b"dash", b"zsh", b"fish"];

/// The words by which clients expect a bash, each beginning with a path.
const BASHES: [&str; 3] = ["/bin/bash", "/usr/bin/bash", "/usr/bin/env bash"];

/// The reason why a session cannot be started, for its client.
struct Unable {
    code: u32,
    words: String,
}

impl Unable {
    fn new(code: u32, words: String) -> Unable {
        Unable { code, words }
    }

    /// The host has no room for another process, say.
    fn start(host: &Host, e: &io::Error) -> Unable {
        Unable::new(CANNOT_RUN, format!("{} cannot start a program: {}", host.name, reason(e)))
    }

    fn without_shell(host: &Host) -> Unable {
        let name = &host.name;
        let lacking = match &host.tools {
            Err(why) if !why.is_empty() => format!(" (tools: {why})"),
            _ => String::new(),
        };
        let words = format!("{name} has no shell{lacking}; its programs, SFTP and forwards work");
        Unable::new(MISSING, words)
    }

    fn understand(host: &Host, wrong: &Wrong) -> Unable {
        let name = &host.name;
        Unable::new(
            NOT_UNDERSTOOD,
            match wrong {
                Wrong::Unfinished => format!("a quote in the command for {name} has no end"),
                Wrong::Shells('\n') => format!("{name} has no shell, so it runs one program at a time"),
                Wrong::Shells(c) => format!("{name} has no shell for {c}; run one program, or quote {c}"),
            },
        )
    }

    fn run(host: &Host, program: &OsStr, e: &io::Error) -> Unable {
        let (name, shown) = (&host.name, program.to_string_lossy());
        let file = program.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        match e.kind() {
            io::ErrorKind::NotFound if SHELLS.contains(&file) => Unable::without_shell(host),
            io::ErrorKind::NotFound => {
                Unable::new(MISSING, format!("{name} has no program {}, and no shell", shown.escape_debug()))
            }
            _ => Unable::new(CANNOT_RUN, format!("{name} cannot run {}: {}", shown.escape_debug(), reason(e))),
        }
    }
}

/// Ends a session that could not be started, with the reason on its standard error.
async fn explain(mut wire: Wire, unable: Unable, has_terminal: bool) {
    let id = wire.id();
    let (_, out) = wire.split();
    // A client with a terminal has set its own to raw.
    let text = unable.words + if has_terminal { "\r\n" } else { "\n" };
    out.send_error(text.into()).await;
    // An error means that the connection is gone.
    let _ = out.handle().exit_status_request(id, unable.code).await;
    wire.close().await;
}

/// The inner ends of a process's standard streams.
enum Io {
    Terminal { reader: OwnedReadPty, writer: OwnedWritePty },
    Pipes { stdin: ChildStdin, stdout: ChildStdout, stderr: ChildStderr },
}

fn spawn_on_terminal(mut command: Command, terminal: &Terminal) -> io::Result<Started> {
    let failed = |e: pty_process::Error| match e {
        pty_process::Error::Io(e) => e,
        pty_process::Error::Rustix(e) => e.into(),
        pty_process::Error::TokioAsyncFd(e) => io::Error::other(e),
        pty_process::Error::Unsplit(..) => io::Error::other("two halves of different terminals"),
    };
    let (outer, inner) = pty_process::open().map_err(failed)?;
    resize(&outer, terminal.size);
    if let Err(e) = set_modes(&inner, &terminal.modes) {
        log::info!("cannot set the terminal's modes: {e}");
    }
    command.env("TERM", &terminal.term);
    if let Ok(name) = termios::ttyname(&inner, Vec::new()) {
        command.env("SSH_TTY", OsStr::from_bytes(name.as_bytes()));
    }
    let control = outer.as_fd().try_clone_to_owned()?;
    let child = pty_process::Command::from(command).spawn(inner).map_err(failed)?;
    let (reader, writer) = outer.into_split();
    Ok((child, Io::Terminal { reader, writer }, Some(control)))
}

fn spawn_on_pipes(mut command: Command) -> io::Result<Started> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A session, not only a group, because it could talk to the terminal of this process otherwise.
    in_its_own_session(&mut command);
    let mut child = command.spawn()?;
    let gone = || io::Error::other("a standard stream is missing");
    let stdin = child.stdin.take().ok_or_else(gone)?;
    let stdout = child.stdout.take().ok_or_else(gone)?;
    let stderr = child.stderr.take().ok_or_else(gone)?;
    Ok((child, Io::Pipes { stdin, stdout, stderr }, None))
}

/// The end of a session.
enum Left {
    /// The process has ended.
    Ended,
    /// The client has gone before the process has ended. Others of its group may go on.
    Abandoned,
}

/// Connects a process with its channel, until both its output and the process have ended, or the client has gone.
async fn run(mut wire: Wire, mut child: Child, io: Io, group: Pid) -> Left {
    let id = wire.id();
    let (input, out) = wire.split();
    let ended = match io {
        Io::Terminal { mut reader, mut writer } => {
            // A terminal has no end of input of its own: a client that wants one types Ctrl-D.
            let input = async {
                input.write_to(&mut writer).await;
                input.until_closed().await;
            };
            let output = async { tokio::join!(out.copy_from(&mut reader, None), child.wait()).1 };
            tokio::select! { ended = output => Some(ended), () = input => None }
        }
        Io::Pipes { mut stdin, mut stdout, mut stderr } => {
            let input = async {
                input.write_to(&mut stdin).await;
                drop(stdin);
                input.until_closed().await;
            };
            let output = async {
                let stdout = out.copy_from(&mut stdout, None);
                let stderr = out.copy_from(&mut stderr, Some(STDERR));
                tokio::join!(stdout, stderr, child.wait()).2
            };
            tokio::select! { ended = output => Some(ended), () = input => None }
        }
    };
    match ended {
        // The client has gone. A program that wants to live on ignores this, as nohup and tmux do.
        None => {
            let _ = kill_process_group(group, Signal::HUP);
            // The channel's place is free at once. The group's number is, once its leader has been collected.
            drop(wire);
            let _ = child.wait().await;
            Left::Abandoned
        }
        Some(ended) => {
            // An error means that the connection is gone, and the client with it.
            let handle = out.handle();
            let _ = match ended.map(How::from) {
                Ok(How::Exited(code)) => handle.exit_status_request(id, code).await,
                Ok(How::Killed { signal, core_dumped }) => {
                    handle.exit_signal_request(id, signal, core_dumped, String::new(), String::new()).await
                }
                Err(e) => {
                    log::warn!("cannot learn how a process ended: {e}");
                    Ok(())
                }
            };
            wire.close().await;
            Left::Ended
        }
    }
}

/// The end of a process.
enum How {
    Exited(u32),
    Killed { signal: Sig, core_dumped: bool },
}

impl From<ExitStatus> for How {
    fn from(status: ExitStatus) -> How {
        match (status.code(), status.signal()) {
            (Some(code), _) => How::Exited(code.unsigned_abs()),
            (None, number) => {
                let known = SIGNALS.iter().find(|(_, signal)| Some(signal.as_raw()) == number);
                // OpenSSH's name for a signal that RFC 4254 does not list.
                let name = known.map_or("SIG@openssh.com", |(name, _)| name);
                How::Killed { signal: Sig::Custom(name.to_owned()), core_dumped: status.core_dumped() }
            }
        }
    }
}

/// The names of RFC 4254, 6.10.
const SIGNALS: [(&str, Signal); 13] = [
    ("ABRT", Signal::ABORT),
    ("ALRM", Signal::ALARM),
    ("FPE", Signal::FPE),
    ("HUP", Signal::HUP),
    ("ILL", Signal::ILL),
    ("INT", Signal::INT),
    ("KILL", Signal::KILL),
    ("PIPE", Signal::PIPE),
    ("QUIT", Signal::QUIT),
    ("SEGV", Signal::SEGV),
    ("TERM", Signal::TERM),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
];

/// The signal that a client names; `None` when this system does not have it.
pub(super) fn signal(name: &Sig) -> Option<Signal> {
    let name = match name {
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        Sig::Custom(name) => name,
    };
    SIGNALS.iter().find_map(|(known, signal)| (*known == name).then_some(*signal))
}

/// A size in characters and in pixels, as far as the kernel can count, which is where OpenSSH cuts it off, too.
pub(super) fn size(columns: u32, rows: u32, width: u32, height: u32) -> Winsize {
    Winsize { ws_row: rows as u16, ws_col: columns as u16, ws_xpixel: width as u16, ws_ypixel: height as u16 }
}

/// Sets the size of a terminal. The kernel reports it to the programs there.
pub(super) fn resize(terminal: impl AsFd, size: Winsize) {
    // It fails when the terminal has just been closed.
    let _ = termios::tcsetwinsize(terminal, size);
}

/// Sets up a terminal like the client's own (RFC 4254, 8). Modes without a meaning here are skipped.
fn set_modes(terminal: impl AsFd, modes: &[(Pty, u32)]) -> rustix::io::Result<()> {
    /// The value that clients send for a character that is switched off.
    const DISABLED: u32 = 255;
    let mut attributes = termios::tcgetattr(&terminal)?;
    for &(mode, value) in modes {
        let on = value != 0;
        if let Some(index) = control_character(mode) {
            // 0 is the kernel's _POSIX_VDISABLE on Linux.
            let character = if value == DISABLED { 0 } else { u8::try_from(value).unwrap_or(0) };
            attributes.special_codes[index] = character;
        } else if let Some(flag) = input_mode(mode) {
            attributes.input_modes.set(flag, on);
        } else if let Some(flag) = local_mode(mode) {
            attributes.local_modes.set(flag, on);
        } else if let Some(flag) = output_mode(mode) {
            attributes.output_modes.set(flag, on);
        }
    }
    termios::tcsetattr(&terminal, OptionalActions::Now, &attributes)
}

fn control_character(mode: Pty) -> Option<SpecialCodeIndex> {
    Some(match mode {
        Pty::VINTR => SpecialCodeIndex::VINTR,
        Pty::VQUIT => SpecialCodeIndex::VQUIT,
        Pty::VERASE => SpecialCodeIndex::VERASE,
        Pty::VKILL => SpecialCodeIndex::VKILL,
        Pty::VEOF => SpecialCodeIndex::VEOF,
        Pty::VEOL => SpecialCodeIndex::VEOL,
        Pty::VEOL2 => SpecialCodeIndex::VEOL2,
        Pty::VSTART => SpecialCodeIndex::VSTART,
        Pty::VSTOP => SpecialCodeIndex::VSTOP,
        Pty::VSUSP => SpecialCodeIndex::VSUSP,
        Pty::VREPRINT => SpecialCodeIndex::VREPRINT,
        Pty::VWERASE => SpecialCodeIndex::VWERASE,
        Pty::VLNEXT => SpecialCodeIndex::VLNEXT,
        _ => return None,
    })
}

fn input_mode(mode: Pty) -> Option<InputModes> {
    Some(match mode {
        Pty::IGNPAR => InputModes::IGNPAR,
        Pty::PARMRK => InputModes::PARMRK,
        Pty::INPCK => InputModes::INPCK,
        Pty::ISTRIP => InputModes::ISTRIP,
        Pty::INLCR => InputModes::INLCR,
        Pty::IGNCR => InputModes::IGNCR,
        Pty::ICRNL => InputModes::ICRNL,
        Pty::IXON => InputModes::IXON,
        Pty::IXANY => InputModes::IXANY,
        Pty::IXOFF => InputModes::IXOFF,
        Pty::IMAXBEL => InputModes::IMAXBEL,
        #[cfg(any(target_os = "linux", target_os = "macos"))]
        Pty::IUTF8 => InputModes::IUTF8,
        _ => return None,
    })
}

fn local_mode(mode: Pty) -> Option<LocalModes> {
    Some(match mode {
        Pty::ISIG => LocalModes::ISIG,
        Pty::ICANON => LocalModes::ICANON,
        Pty::ECHO => LocalModes::ECHO,
        Pty::ECHOE => LocalModes::ECHOE,
        Pty::ECHOK => LocalModes::ECHOK,
        Pty::ECHONL => LocalModes::ECHONL,
        Pty::NOFLSH => LocalModes::NOFLSH,
        Pty::TOSTOP => LocalModes::TOSTOP,
        Pty::IEXTEN => LocalModes::IEXTEN,
        Pty::ECHOCTL => LocalModes::ECHOCTL,
        Pty::ECHOKE => LocalModes::ECHOKE,
        Pty::PENDIN => LocalModes::PENDIN,
        _ => return None,
    })
}

fn output_mode(mode: Pty) -> Option<OutputModes> {
    Some(match mode {
        Pty::OPOST => OutputModes::OPOST,
        Pty::ONLCR => OutputModes::ONLCR,
        Pty::OCRNL => OutputModes::OCRNL,
        Pty::ONOCR => OutputModes::ONOCR,
        Pty::ONLRET => OutputModes::ONLRET,
        _ => return None,
    })
}
