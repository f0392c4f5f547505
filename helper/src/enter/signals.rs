//! The signals that ask this process to end: they end its work in order, so that nothing is left in the container.

use std::{
    io::{self, PipeReader},
    mem::MaybeUninit,
    thread,
};

/// The signals that ask a process to end.
const ASKING: [libc::c_int; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// Keeps the signals from this thread and from those that it starts. A single thread that takes them ends the process.
pub(super) fn block() {
    change_mask(libc::SIG_BLOCK, &set(&ASKING));
}

/// A pipe that ends when this process is asked to end. All threads have to block the signals.
pub(super) fn as_pipe() -> io::Result<PipeReader> {
    let (asked, not_yet) = io::pipe()?;
    block();
    let set = set(&ASKING);
    thread::spawn(move || {
        let mut signal = 0;
        // SAFETY: both point to values of this thread, and the set has been initialized.
        #[expect(unsafe_code, reason = "std has no signals")]
        let waited = unsafe { libc::sigwait(&raw const set, &raw mut signal) };
        if waited == 0 {
            drop(not_yet);
        } else {
            // Without the wait there is no signal to tell of.
            std::mem::forget(not_yet);
        }
    });
    Ok(asked)
}

/// Sets every signal to its default, and blocks none. Only system calls are made, so that it may be called between fork
/// and exec.
pub(super) fn reset() {
    for signal in 1..=libc::SIGSYS {
        // SAFETY: no handler is installed. The two signals that cannot be changed are refused.
        #[expect(unsafe_code, reason = "std has no signals")]
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
    change_mask(libc::SIG_SETMASK, &set(&[]));
}

fn set(signals: &[libc::c_int]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initializes the set, and sigaddset adds to it.
    #[expect(unsafe_code, reason = "std has no signals")]
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for &signal in signals {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

fn change_mask(how: libc::c_int, set: &libc::sigset_t) {
    // SAFETY: the set has been initialized, and the old one is not asked for.
    #[expect(unsafe_code, reason = "std has no signals")]
    unsafe {
        libc::pthread_sigmask(how, set, std::ptr::null_mut());
    }
}
