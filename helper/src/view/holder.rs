//! The process in a container by which runc finds the view: it has the mount namespace, and nothing else.
//!
//! The container sees it, and one with CAP_SYS_PTRACE can take it over. So it can do no more than wait, from its first
//! moment on: it has no capability and cannot get one, its only file is a pipe on which nothing ever comes, and a seccomp
//! filter, which a tracer cannot change either, lets it read that and end. Its program is a sealed file in memory.

use std::{
    io::{self, PipeReader},
    os::fd::AsFd,
};

use rustix::{
    process::{DumpableBehavior, Gid, Uid},
    thread::{CapabilitySet, CapabilitySets},
};

use super::Order;
use crate::descriptors;

/// The kernel's name for this processor.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;

/// Places in what a filter sees: the number of the system call, the processor, and the first argument.
const NUMBER: u32 = 0;
const PROCESSOR: u32 = 4;
const ARGUMENT: u32 = 16;

/// Leaves the holder in the namespaces that this process has joined. It ends when `held` does.
///
/// # Errors
/// Fails when something cannot be given up. What comes after that is told by the exit code.
pub(super) fn leave(order: &Order, held: &PipeReader) -> io::Result<()> {
    give_up(order)?;
    rustix::stdio::dup2_stdin(held)?;
    descriptors::close_from(1)?;
    limit()?;
    // SAFETY: the process has a single thread, and neither of the two does anything afterwards but read and end.
    #[expect(unsafe_code, reason = "the filter permits no fork by the C library")]
    let forked = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if forked == 0 {
        while rustix::io::read(rustix::stdio::stdin().as_fd(), &mut [0; 1]).is_ok_and(|read| read > 0) {}
    }
    // SAFETY: there is nothing to clean up.
    #[expect(unsafe_code, reason = "the end of the standard library does more than the filter permits")]
    unsafe {
        libc::_exit(i32::from(forked < 0))
    }
}

/// Gives up everything, before the container can see a process of ours.
fn give_up(order: &Order) -> io::Result<()> {
    for capability in CapabilitySet::all().iter() {
        // The kernel may not know the last ones.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    rustix::thread::clear_ambient_capability_set()?;
    rustix::thread::set_thread_groups(&[])?;
    let (uid, gid) = (Uid::from_raw(order.uid), Gid::from_raw(order.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    rustix::thread::set_no_new_privs(true)?;
    // A change of the user has set it anew.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Permits this process and its children to read, to end, and to fork. All else fails.
fn limit() -> io::Result<()> {
    // Each is looked at by its place: a jump of `yes` or `no` instructions.
    let load = |at| libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: at };
    let is = |value, yes, no| libc::sock_filter { code: 0x15, jt: yes, jf: no, k: value };
    let end = |with| libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: with };
    let [read, exit, exit_group, clone] =
        [libc::SYS_read, libc::SYS_exit, libc::SYS_exit_group, libc::SYS_clone].map(|number| number as u32);
    let mut filter = [
        load(PROCESSOR),
        is(ARCHITECTURE, 0, 7),
        load(NUMBER),
        is(read, 6, 0),
        is(exit, 5, 0),
        is(exit_group, 4, 0),
        is(clone, 0, 2),
        load(ARGUMENT),
        is(libc::SIGCHLD as u32, 1, 0),
        end(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        end(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: both live until the kernel has copied them.
    #[expect(unsafe_code, reason = "rustix has no filters")]
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
