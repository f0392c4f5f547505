//! The signals that ask this process to end: they end its work in order, so that nothing is left in the container.

use std::{
    io::{self, PipeReader},
    mem::MaybeUninit,
    thread,
};

/// The signals that ask a process to end.
const ASKING: [libc::c_int; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// The highest signal of Linux.
const MAX_SIGNAL: libc::c_int = 64;

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
/// and exec. The C library keeps three signals to itself, which glibc has its children ignore: the kernel is asked.
pub(super) fn reset() {
    // The kernel's own struct: a handler, flags, a restorer and a mask. Zeros are the default.
    let default = [0_u64; 4];
    for signal in 1..=MAX_SIGNAL {
        // SAFETY: no handler is installed. The two signals that cannot be changed are refused.
        #[expect(unsafe_code, reason = "std has no signals")]
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null::<u64>(), size_of::<u64>());
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

#[cfg(test)]
mod tests {
    use std::{os::unix::process::CommandExt, process::Command};

    #[test]
    fn a_child_ignores_no_signal() {
        let mut child = Command::new("grep");
        child.args(["-E", "^Sig(Blk|Ign)", "/proc/self/status"]);
        // SAFETY: only system calls are made.
        #[expect(unsafe_code, reason = "the way in which runc is started")]
        unsafe {
            child.pre_exec(|| {
                libc::signal(libc::SIGUSR1, libc::SIG_IGN);
                super::block();
                super::reset();
                Ok(())
            });
        }
        let said = String::from_utf8(child.output().unwrap().stdout).unwrap();
        assert_eq!(said, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    }
}
