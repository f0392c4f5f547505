//! The signals that ask a process to end.

/// SIGHUP.
const HANGUP: u8 = 1;
/// SIGINT.
pub const INTERRUPT: u8 = 2;
/// SIGTERM.
pub const TERMINATE: u8 = 15;

/// The signals that ask this process to end. From the moment of listening on, none is lost between two calls of `next`.
/// A signal that this process was started to ignore stays ignored, because `nohup ssh ...` is to outlive its terminal.
pub struct Signals {
    /// Hangup, interrupt and terminate. A signal without a handler ends the process, which is as good.
    #[cfg(unix)]
    handlers: [(Option<tokio::signal::unix::Signal>, u8); 3],
    /// The events of the console.
    #[cfg(windows)]
    events: Option<Events>,
}

/// The events of Windows' console: Ctrl-C, Ctrl-Break, its window is closed, the user logs off, the system ends. After
/// each of the last three, the system ends the process a few seconds later.
#[cfg(windows)]
struct Events(
    tokio::signal::windows::CtrlC,
    tokio::signal::windows::CtrlBreak,
    tokio::signal::windows::CtrlClose,
    tokio::signal::windows::CtrlLogoff,
    tokio::signal::windows::CtrlShutdown,
);

#[cfg(windows)]
impl Events {
    fn listen() -> std::io::Result<Events> {
        use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close, ctrl_logoff, ctrl_shutdown};
        Ok(Events(ctrl_c()?, ctrl_break()?, ctrl_close()?, ctrl_logoff()?, ctrl_shutdown()?))
    }
}

/// Reports whether this process ignores a signal.
#[cfg(unix)]
fn ignores(signal: libc::c_int) -> bool {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: sigaction(2) without a new action only writes the present one to the address that it is given, and a
    // `struct sigaction` of zeros is one.
    #[expect(unsafe_code, reason = "no crate that is here reports the action of a signal")]
    let action = unsafe {
        libc::sigaction(signal, std::ptr::null(), now.as_mut_ptr());
        now.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN
}

/// Makes a write beyond the limit for the size of files fail, as on a full disk, instead of ending this process. Children
/// are not affected, because a handler ends with exec, other than a signal that is ignored.
pub fn survive_file_size_limit() {
    #[cfg(unix)]
    {
        extern "C" fn nothing(_signal: libc::c_int) {}
        if ignores(libc::SIGXFSZ) {
            return;
        }
        let handler: extern "C" fn(libc::c_int) = nothing;
        // SAFETY: the handler does nothing, which is safe at any moment.
        #[expect(unsafe_code, reason = "std has no safe way to handle a signal")]
        unsafe {
            libc::signal(libc::SIGXFSZ, handler as libc::sighandler_t);
        }
    }
}

impl Signals {
    /// Begins to listen.
    pub fn listen() -> Signals {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let one = |kind: SignalKind, number| {
                let handler = if ignores(kind.as_raw_value()) { None } else { signal(kind).ok() };
                (handler, number)
            };
            Signals {
                handlers: [
                    one(SignalKind::hangup(), HANGUP),
                    one(SignalKind::interrupt(), INTERRUPT),
                    one(SignalKind::terminate(), TERMINATE),
                ],
            }
        }
        #[cfg(windows)]
        Signals { events: Events::listen().ok() }
    }

    /// Waits for the next signal and returns its number.
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
        #[cfg(windows)]
        {
            let Some(Events(c, r#break, close, logoff, shutdown)) = &mut self.events else {
                return std::future::pending().await;
            };
            tokio::select! {
                _ = c.recv() => INTERRUPT,
                _ = r#break.recv() => INTERRUPT,
                _ = close.recv() => HANGUP,
                _ = logoff.recv() => TERMINATE,
                _ = shutdown.recv() => TERMINATE,
            }
        }
    }
}

/// Waits for a signal that asks this process to end, and returns its number.
pub async fn ended_by_signal() -> u8 {
    Signals::listen().next().await
}

/// Lets a signal that came while this thread was busy end the command: [`ended_by_signal`], which the command is raced
/// against, only hears of it once the runtime has had a turn, and is asked once more.
pub(crate) async fn heed_signals() {
    for _ in 0..2 {
        tokio::task::yield_now().await;
    }
}

/// Passes a signal on to a child. An interrupt from the keyboard is left out, because it has reached the child already,
/// which is in the terminal's foreground with us.
pub fn pass_on(signal: u8, child: &tokio::process::Child) {
    #[cfg(unix)]
    {
        use std::io::IsTerminal;
        let pid = child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
        let signal = match signal {
            HANGUP => rustix::process::Signal::HUP,
            INTERRUPT if std::io::stdin().is_terminal() => return,
            INTERRUPT => rustix::process::Signal::INT,
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
