//! The SFTP subsystem, version 3 as OpenSSH speaks it (draft-ietf-secsh-filexfer-02 and OpenSSH's PROTOCOL).
//!
//! It answers as OpenSSH's sftp-server does, with the same status for the same error. Names are bytes everywhere, as
//! they are to the kernel; russh-sftp, whose names are text, would read and write other files than those that were meant.
//!
//! - `wire`: the packets.
//! - `listing`: long names and whole paths.
//! - `extended`: OpenSSH's extensions.

mod extended;
mod listing;
mod wire;

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use rustix::{
    fs::{AtFlags, CWD, Gid, Mode, OFlags, RawMode, Timespec, Timestamps, Uid, chmodat, chownat, utimensat},
    io::Errno,
};
use tokio::sync::watch;

use super::{
    Host,
    accounts::Names,
    channel::{Input, Wire},
};

use extended::{EXTENSIONS, MAX_DATA};
use listing::{long_name, real_path};
use wire::{Attributes, Reader, Refusal, Status, Writer, answer, next_packet, request};

/// The version that we speak.
const VERSION: u32 = 3;

/// The number of entries in one answer to READDIR, as in OpenSSH.
const ENTRIES_AT_ONCE: usize = 100;

/// The permissions in a mode.
const PERMISSIONS: u32 = 0o7777;

/// OpenSSH's exit codes after a packet that cannot be read, and after one that is too long.
const MALFORMED: u32 = 255;
const TOO_LONG: u32 = 11;

/// Serves SFTP until the client ends it.
pub(super) async fn serve(mut wire: Wire, host: Arc<Host>) {
    let mut received = BytesMut::new();
    let id = wire.id();
    let (input, out) = wire.split();
    let mut server = Server {
        names: Names::of(host.accounts),
        host,
        has_begun: false,
        handles: HashMap::new(),
        last_handle: 0,
        over: input.closed(),
    };
    let status = 'session: loop {
        while let Some(packet) = next_packet(&mut received) {
            let Ok(packet) = packet else { break 'session TOO_LONG };
            // On a thread of their own, because files block; in order, as the protocol wants it.
            let answered = tokio::task::spawn_blocking(move || {
                let answer = server.answer(&packet);
                (server, answer)
            });
            let Ok((same, answer)) = answered.await else { break 'session MALFORMED };
            server = same;
            let Some(answer) = answer else { break 'session MALFORMED };
            if !out.send(answer).await {
                return;
            }
        }
        match input.next().await {
            Some(Input::Data(data)) => received.extend_from_slice(&data),
            Some(Input::Eof) => break 0,
            None => return,
        }
    };
    // An error means that the connection is gone.
    let _ = out.handle().exit_status_request(id, status).await;
    wire.close().await;
}

enum Open {
    File { file: File, path: PathBuf },
    Folder { path: PathBuf, entries: Box<dyn Iterator<Item = io::Result<OsString>> + Send> },
}

struct Server {
    host: Arc<Host>,
    has_begun: bool,
    /// Their number is bounded by that of the process's descriptors, as in OpenSSH.
    handles: HashMap<u32, Open>,
    last_handle: u32,
    names: Names,
    /// Fails when the client has left.
    over: watch::Receiver<()>,
}

type Answer = Result<Bytes, Refusal>;

impl Server {
    /// The whole answer to a packet, ready to send; `None` when the packet cannot be read.
    fn answer(&mut self, packet: &[u8]) -> Option<Bytes> {
        let mut request = Reader::new(packet);
        let (kind, id) = (request.u8().ok()?, request.u32().ok()?);
        if kind == request::INIT {
            // The number is the client's version.
            self.has_begun = true;
            let version = Writer::new(answer::VERSION, VERSION);
            let all = EXTENSIONS.iter();
            return Some(
                all.fold(version, |out, (name, of)| out.string(name.as_bytes()).string(of.as_bytes())).finish(),
            );
        }
        if !self.has_begun {
            return None;
        }
        match self.act(kind, id, &mut request) {
            Ok(answer) => Some(answer),
            Err(Refusal::Status(code)) => Some(status(id, code)),
            Err(Refusal::Malformed) => None,
        }
    }

    fn act(&mut self, kind: u8, id: u32, request: &mut Reader<'_>) -> Answer {
        match kind {
            request::OPEN => return self.open(id, request),
            request::CLOSE => {
                self.handles.remove(&handle(request.string()?)).ok_or(Status::NoSuchFile)?;
            }
            request::READ => return self.read(id, request),
            request::WRITE => {
                let (file, offset) = (self.file(request.string()?), request.u64()?);
                let data = request.string()?;
                file?.write_all_at(data, offset)?;
            }
            request::LSTAT => return Ok(stat(id, &fs::symlink_metadata(self.next_path(request)?)?)),
            request::STAT => return Ok(stat(id, &fs::metadata(self.next_path(request)?)?)),
            request::FSTAT => return Ok(stat(id, &self.file(request.string()?)?.metadata()?)),
            request::SETSTAT => set(&self.next_path(request)?, &request.attributes()?, AtFlags::empty())?,
            request::FSETSTAT => set_file(self.file(request.string()?)?, &request.attributes()?)?,
            request::OPENDIR => {
                let path = self.next_path(request)?;
                let dots = [".", ".."].map(|name| Ok(OsString::from(name)));
                let rest = fs::read_dir(&path)?.map(|entry| entry.map(|entry| entry.file_name()));
                return Ok(self.keep(id, Open::Folder { path, entries: Box::new(dots.into_iter().chain(rest)) }));
            }
            request::READDIR => return self.read_folder(id, request.string()?),
            request::REMOVE => fs::remove_file(self.next_path(request)?)?,
            request::MKDIR => {
                let (path, new) = (self.next_path(request)?, request.attributes()?);
                rustix::fs::mkdir(path, permissions(new.mode.unwrap_or(0o777)))?;
            }
            request::RMDIR => fs::remove_dir(self.next_path(request)?)?,
            request::REALPATH => return Ok(name(id, &real_path(&self.host.start, request.string()?)?)),
            request::RENAME => rename(&self.next_path(request)?, &self.next_path(request)?)?,
            request::READLINK => return Ok(name(id, &fs::read_link(self.next_path(request)?)?)),
            request::SYMLINK => {
                // All clients use OpenSSH's order, which is the draft's reversed: target first.
                let target = OsStr::from_bytes(request.string()?);
                std::os::unix::fs::symlink(target, self.next_path(request)?)?;
            }
            request::EXTENDED => return self.extended(id, request),
            _ => return Err(Status::Unsupported.into()),
        }
        Ok(done(id))
    }

    /// An empty path names nothing, and not the folder where paths start.
    fn path(&self, path: &[u8]) -> PathBuf {
        if path.is_empty() { PathBuf::new() } else { self.host.start.join(OsStr::from_bytes(path)) }
    }

    fn next_path(&self, request: &mut Reader<'_>) -> Result<PathBuf, Refusal> {
        Ok(self.path(request.string()?))
    }

    fn file(&self, of: &[u8]) -> Result<&File, Refusal> {
        match self.handles.get(&handle(of)) {
            Some(Open::File { file, .. }) => Ok(file),
            Some(Open::Folder { .. }) | None => Err(Status::Failure.into()),
        }
    }

    /// The path by which a file was opened.
    fn path_of(&self, of: &[u8]) -> Option<&Path> {
        match self.handles.get(&handle(of))? {
            Open::File { path, .. } | Open::Folder { path, .. } => Some(path),
        }
    }

    /// Reports whether the client has left.
    fn is_over(&self) -> bool {
        self.over.has_changed().is_err()
    }

    fn keep(&mut self, id: u32, open: Open) -> Bytes {
        self.last_handle += 1;
        self.handles.insert(self.last_handle, open);
        Writer::new(answer::HANDLE, id).string(&self.last_handle.to_be_bytes()).finish()
    }

    fn open(&mut self, id: u32, request: &mut Reader<'_>) -> Answer {
        const READ: u32 = 1;
        const WRITE: u32 = 2;
        let (path, flags, new) = (self.next_path(request)?, request.u32()?, request.attributes()?);
        let mut how = match (flags & READ != 0, flags & WRITE != 0) {
            (true, true) => OFlags::RDWR,
            (false, true) => OFlags::WRONLY,
            (true | false, false) => OFlags::RDONLY,
        };
        for (flag, meaning) in [(4, OFlags::APPEND), (8, OFlags::CREATE), (16, OFlags::TRUNC), (32, OFlags::EXCL)] {
            how.set(meaning, flags & flag != 0);
        }
        // Without NONBLOCK a named pipe would hold the thread until another program opens it.
        how |= OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let file = rustix::fs::open(&path, how, permissions(new.mode.unwrap_or(0o666)))?;
        Ok(self.keep(id, Open::File { file: File::from(file), path }))
    }

    fn read(&self, id: u32, request: &mut Reader<'_>) -> Answer {
        let (file, offset, length) = (self.file(request.string()?), request.u64()?, request.u32()?);
        let (file, mut data) = (file?, vec![0; (length as usize).min(MAX_DATA)]);
        let n = interrupted(|| file.read_at(&mut data, offset))?;
        if n == 0 && length > 0 {
            return Err(Status::Eof.into());
        }
        Ok(Writer::new(answer::DATA, id).string(&data[..n]).finish())
    }

    fn read_folder(&mut self, id: u32, of: &[u8]) -> Answer {
        let Some(Open::Folder { path, entries }) = self.handles.get_mut(&handle(of)) else {
            return Err(Status::Failure.into());
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry?;
            // It may have gone since the folder was read.
            let Ok(metadata) = fs::symlink_metadata(path.join(&name)) else { continue };
            found.push((name, metadata));
            if found.len() == ENTRIES_AT_ONCE {
                break;
            }
        }
        if found.is_empty() {
            return Err(Status::Eof.into());
        }
        let mut writer = Writer::new(answer::NAME, id).u32(found.len() as u32);
        for (name, metadata) in found {
            let long = long_name(&name, &metadata, &mut self.names);
            writer = writer.string(name.as_bytes()).string(&long).attributes(&Attributes::from(&metadata));
        }
        Ok(writer.finish())
    }
}

/// The number of a handle; 0, which is none, for one that we did not give out.
fn handle(text: &[u8]) -> u32 {
    text.try_into().map_or(0, u32::from_be_bytes)
}

fn permissions(mode: u32) -> Mode {
    Mode::from_raw_mode((mode & PERMISSIONS) as RawMode)
}

/// Repeats a call that a signal has interrupted.
fn interrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Version 3 never replaces a file; clients that want that use posix-rename.
fn rename(old: &Path, new: &Path) -> Result<(), Refusal> {
    let moved = || fs::rename(old, new).map_err(Refusal::from);
    if !fs::symlink_metadata(old)?.is_file() {
        return if fs::metadata(new).is_ok() { Err(Status::Failure.into()) } else { moved() };
    }
    match rustix::fs::link(old, new) {
        // The file system has no links.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::XDEV | Errno::PERM) if fs::metadata(new).is_err() => moved(),
        Err(e) => Err(e.into()),
        Ok(()) => fs::remove_file(old).map_err(|e| {
            let _ = fs::remove_file(new);
            e.into()
        }),
    }
}

/// The last error of some steps, all of which are tried, as OpenSSH does.
fn all(steps: impl IntoIterator<Item = Result<(), Refusal>>) -> Result<(), Refusal> {
    let mut last = Ok(());
    for step in steps {
        if step.is_err() {
            last = step;
        }
    }
    last
}

/// Sets the attributes that `new` has; `how` decides about a symbolic link itself or its target.
fn set(path: &Path, new: &Attributes, how: AtFlags) -> Result<(), Refusal> {
    let size = new.size.map(|size| {
        let file = File::options().write(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
        Ok(file.set_len(size)?)
    });
    let mode = new.mode.map(|mode| {
        // Linux cannot set a link's permissions, and rustix does not try.
        if how == AtFlags::SYMLINK_NOFOLLOW && fs::symlink_metadata(path)?.is_symlink() {
            return Err(Errno::OPNOTSUPP.into());
        }
        Ok(chmodat(CWD, path, permissions(mode), AtFlags::empty())?)
    });
    let times = new.times.map(|times| Ok(utimensat(CWD, path, &timestamps(times), how)?));
    let owner = new
        .owner
        .map(|(user, group)| Ok(chownat(CWD, path, owner(user, Uid::from_raw), owner(group, Gid::from_raw), how)?));
    all([size, mode, times, owner].into_iter().flatten())
}

fn set_file(file: &File, new: &Attributes) -> Result<(), Refusal> {
    let size = new.size.map(|size| Ok(file.set_len(size)?));
    let mode = new.mode.map(|mode| Ok(rustix::fs::fchmod(file, permissions(mode))?));
    let times = new.times.map(|times| Ok(rustix::fs::futimens(file, &timestamps(times))?));
    let owner = new
        .owner
        .map(|(user, group)| Ok(rustix::fs::fchown(file, owner(user, Uid::from_raw), owner(group, Gid::from_raw))?));
    all([size, mode, times, owner].into_iter().flatten())
}

/// An owner to set; -1 leaves it.
fn owner<T>(id: u32, of: impl FnOnce(u32) -> T) -> Option<T> {
    (id != u32::MAX).then(|| of(id))
}

fn timestamps((access, change): (u32, u32)) -> Timestamps {
    let time = |seconds: u32| Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
    Timestamps { last_access: time(access), last_modification: time(change) }
}

fn status(id: u32, code: Status) -> Bytes {
    Writer::new(answer::STATUS, id).u32(code as u32).string(code.message().as_bytes()).string(b"").finish()
}

fn done(id: u32) -> Bytes {
    status(id, Status::Ok)
}

fn stat(id: u32, metadata: &fs::Metadata) -> Bytes {
    Writer::new(answer::ATTRS, id).attributes(&Attributes::from(metadata)).finish()
}

/// One name, without attributes.
fn name(id: u32, path: &Path) -> Bytes {
    let path = path.as_os_str().as_bytes();
    Writer::new(answer::NAME, id).u32(1).string(path).string(path).attributes(&Attributes::default()).finish()
}
