//! The descriptors that go into a container, and no others.
//!
//! A descriptor that points to something of the machine is a way out of the container: runc itself once let one slip in
//! (CVE-2024-21626), and it does so again when it is asked to preserve more than are open. Therefore:
//!
//! 1. all descriptors that were inherited are closed first, and the places 3 to 6 are kept by placeholders;
//! 2. the files move into their places only when all else is ready, and each place is checked;
//! 3. between fork and exec, everything above the last is marked to be closed.
//!
//! | place | file | in the container |
//! | --- | --- | --- |
//! | 3 | this program, sealed: no one can write to it, root included (CVE-2019-5736) | yes |
//! | 4 | the pipe with the settings | yes |
//! | 5 | the tools, a mount that can only be read, if there are any | yes |
//! | 5 or 6 | the process's configuration for runc, sealed | no: it comes after those that runc preserves |

use std::{
    fs::File,
    io::{self, Seek},
    os::fd::{AsRawFd, OwnedFd, RawFd},
    sync::Arc,
};

use rustix::{
    fs::{MemfdFlags, Mode, SealFlags},
    io::{Errno, FdFlags},
};

use crate::wire::{Refusal, RefusalKind};

/// The place of this program.
pub(crate) const PROGRAM: RawFd = 3;

/// Most files: [`PROGRAM`], the settings, the tools, the process's configuration.
const MOST: usize = 4;

/// Places that are kept free for files that come later.
pub(crate) struct Places(Vec<OwnedFd>);

/// The files in their places. All are closed on exec until the child says otherwise.
#[derive(Clone)]
pub(crate) struct Placed(Arc<Vec<OwnedFd>>);

/// The files that go into a container, in the order of their places.
pub(crate) struct Files {
    /// This program.
    pub(crate) program: OwnedFd,
    /// The pipe with the settings.
    pub(crate) settings: OwnedFd,
    /// The tools.
    pub(crate) tools: Option<OwnedFd>,
    /// The process's configuration.
    pub(crate) process: OwnedFd,
}

impl Places {
    /// Closes every descriptor above standard error, and keeps the places. To be called before any file is opened.
    ///
    /// # Errors
    /// Fails when a place is taken all the same.
    pub(crate) fn keep() -> io::Result<Places> {
        close_inherited()?;
        let keep = |place: RawFd| {
            let kept = OwnedFd::from(File::open("/dev/null")?);
            if kept.as_raw_fd() == place { Ok(kept) } else { Err(taken(place)) }
        };
        (PROGRAM..).take(MOST).map(keep).collect::<io::Result<_>>().map(Places)
    }

    /// Puts the files into their places.
    ///
    /// # Errors
    /// Fails when a place is taken.
    pub(crate) fn fill(self, files: Files) -> io::Result<Placed> {
        let Files { program, settings, tools, process } = files;
        let files = [program, settings].into_iter().chain(tools).chain([process]);
        let mut placed = Vec::new();
        for ((place, kept), file) in (PROGRAM..).zip(self.0).zip(files) {
            drop(kept);
            let there = rustix::io::fcntl_dupfd_cloexec(&file, place)?;
            if there.as_raw_fd() != place {
                return Err(taken(place));
            }
            placed.push(there);
        }
        Ok(Placed(Arc::new(placed)))
    }
}

impl Placed {
    /// The number of descriptors above standard error that runc hands on: all but the last.
    pub(crate) fn preserved(&self) -> usize {
        self.0.len() - 1
    }

    /// The place of the process's configuration, which is the last one.
    pub(crate) fn process(&self) -> RawFd {
        PROGRAM + self.preserved() as RawFd
    }

    /// Lets the files through the next exec, and nothing else but the standard streams. Only system calls are made, so
    /// that it may be called between fork and exec.
    ///
    /// # Errors
    /// Fails when a descriptor cannot be set.
    pub(crate) fn pass(&self) -> io::Result<()> {
        mark_all_above(self.process())?;
        for file in self.0.iter() {
            rustix::io::fcntl_setfd(file, FdFlags::empty())?;
            if !rustix::io::fcntl_getfd(file)?.is_empty() {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        }
        Ok(())
    }
}

fn taken(place: RawFd) -> io::Error {
    io::Error::other(format!("descriptor {place} is in use"))
}

/// This program as a file without a path, which no process can change.
///
/// # Errors
/// Fails when the machine's kernel cannot make one.
pub(crate) fn sealed_program() -> Result<OwnedFd, Refusal> {
    let seal = || {
        let mut program = File::open("/proc/self/exe")?;
        let memory = memory("labctl-ssh-proxy-helper", MemfdFlags::EXEC)?;
        io::copy(&mut program, &mut &memory)?;
        // A user who cannot read it starts it undumpable. The server's own first act would be a moment too late.
        rustix::fs::fchmod(&memory, Mode::from_raw_mode(0o111))?;
        sealed(memory)
    };
    seal().map_err(|error| refused(&error))
}

/// A text as a file without a path, which no process can change.
///
/// # Errors
/// Fails when the machine's kernel cannot make one.
pub(crate) fn sealed_text(name: &str, text: &[u8]) -> Result<OwnedFd, Refusal> {
    let seal = || {
        let memory = memory(name, MemfdFlags::NOEXEC_SEAL)?;
        io::copy(&mut &text[..], &mut &memory)?;
        (&memory).rewind()?;
        sealed(memory)
    };
    seal().map_err(|error: io::Error| refused(&error))
}

fn memory(name: &str, execution: MemfdFlags) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let made = match rustix::fs::memfd_create(name, flags | execution) {
        // Linux before 6.3 does not know the flag, and makes each one executable.
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags),
        made => made,
    };
    Ok(File::from(made?))
}

fn sealed(memory: File) -> io::Result<OwnedFd> {
    rustix::fs::fcntl_add_seals(&memory, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(memory.into())
}

fn refused(error: &io::Error) -> Refusal {
    match Errno::from_io_error(error) {
        Some(Errno::NOSYS | Errno::INVAL) => Refusal::new(
            RefusalKind::Impossible,
            "the machine's kernel is too old: it has no sealed files in memory, which Linux has since 3.17",
        ),
        Some(Errno::ACCESS) => Refusal::new(
            RefusalKind::Impossible,
            "the machine does not permit programs in memory (vm.memfd_noexec is 2)",
        )
        .with_hint(
            "permit them until its next restart with `labctl-ssh-proxy ssh root@{machine} sysctl vm.memfd_noexec=1`",
        ),
        Some(Errno::NOMEM | Errno::NOSPC) => {
            Refusal::new(RefusalKind::Impossible, "the machine has no memory left for the helper (some 2 MiB)")
        }
        _ => Refusal::new(RefusalKind::Impossible, format!("the helper cannot be put into memory: {error}")),
    }
}

/// Closes everything that this process was started with besides its standard streams.
fn close_inherited() -> io::Result<()> {
    close_range(PROGRAM, 0).or_else(|_| {
        // Linux before 5.9. The folder's own descriptor is among them, and gone already when its turn comes.
        let open: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|&descriptor| descriptor >= PROGRAM)
            .collect();
        for descriptor in open {
            // SAFETY: this runs before this process has opened a file, so no owner is deprived.
            #[expect(unsafe_code, reason = "std closes only descriptors that it owns")]
            unsafe {
                libc::close(descriptor);
            }
        }
        Ok(())
    })
}

/// Closes every descriptor from this one on. The caller uses none of them afterwards, and ends without its own clean-up.
///
/// # Errors
/// Fails on Linux before 5.9.
pub(crate) fn close_from(first: libc::c_int) -> io::Result<()> {
    close_range(first, 0)
}

/// Marks everything above `last` to be closed on exec. Linux before 5.11 cannot; there it rests on each file having been
/// opened so, as Rust's library does.
fn mark_all_above(last: RawFd) -> io::Result<()> {
    match close_range(last + 1, libc::CLOSE_RANGE_CLOEXEC) {
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOSYS | Errno::INVAL)) => Ok(()),
        done => done,
    }
}

fn close_range(first: RawFd, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: the call takes numbers only. With CLOSE_RANGE_CLOEXEC it closes nothing; without, see `close_inherited`.
    #[expect(unsafe_code, reason = "rustix has no close_range")]
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Write,
        os::{
            fd::AsFd,
            unix::{fs::MetadataExt, process::CommandExt},
        },
        process::Command,
    };

    use super::*;

    #[test]
    fn what_is_sealed_cannot_be_changed() {
        let text = sealed_text("test", b"hello").unwrap();
        let again = format!("/proc/self/fd/{}", text.as_raw_fd());
        assert_eq!(fs::read(&again).unwrap(), b"hello");
        let mut file = File::from(text);
        let error = file.write(b"x").unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::PERM));
        for refused in [file.set_len(1), file.set_len(100), fs::write(&again, "x")] {
            assert_eq!(Errno::from_io_error(&refused.unwrap_err()), Some(Errno::PERM));
        }
        let seals = rustix::fs::fcntl_get_seals(file.as_fd()).unwrap();
        assert!(seals.contains(SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE));
    }

    #[test]
    fn the_program_in_memory_is_this_one() {
        let program = sealed_program().unwrap();
        // Its owner may read it again.
        rustix::fs::fchmod(&program, Mode::from_raw_mode(0o755)).unwrap();
        let path = format!("/proc/self/fd/{}", program.as_raw_fd());
        assert!(fs::read(&path).unwrap() == fs::read("/proc/self/exe").unwrap());
        let error = fs::OpenOptions::new().append(true).open(&path).and_then(|mut file| file.write(b"x")).unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::PERM));
    }

    /// The kernel gives the folder of an undumpable process to root.
    #[test]
    fn the_program_in_memory_is_undumpable_from_its_first_moment_on() {
        let program = sealed_program().unwrap();
        assert_eq!(rustix::fs::fstat(&program).unwrap().st_mode & 0o777, 0o111);
        if !rustix::process::geteuid().is_root() {
            return;
        }
        // A pipe without room holds up the program's first words, which is this test's own list of tests.
        let (_reader, mut writer) = io::pipe().unwrap();
        writer.write_all(&[0; 64 * 1024]).unwrap();
        let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
        let mut started = command.arg("--list").uid(65534).stdout(writer).spawn().unwrap();
        let folder = format!("/proc/{}", started.id());
        let owner = fs::metadata(format!("{folder}/mem")).unwrap().uid();
        let status = fs::read_to_string(format!("{folder}/status")).unwrap();
        started.kill().unwrap();
        started.wait().unwrap();
        assert!(status.contains("Uid:\t65534\t65534"), "{status}");
        assert_eq!(owner, 0);
    }

    #[test]
    fn each_failure_has_its_sentence() {
        for (errno, words) in
            [(Errno::NOSYS, "too old"), (Errno::ACCESS, "vm.memfd_noexec"), (Errno::NOMEM, "no memory")]
        {
            assert!(refused(&errno.into()).message.contains(words));
        }
    }
}
