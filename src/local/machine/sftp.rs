//! The SFTP subsystem, version 3 as OpenSSH speaks it (draft-ietf-secsh-filexfer-02 and OpenSSH's PROTOCOL).
//!
//! russh-sftp has the packets. Its server loop is not used, because it goes on after a packet that it could not read,
//! and does not report its end, which `scp` needs. Names that are not UTF-8 do not survive its strings.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::{self, File, Metadata},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};
use russh_sftp::{
    extensions::{EXPAND_PATH, FSYNC, HARDLINK, LIMITS},
    protocol::{
        Attrs, Data, ExtendedReply, File as Entry, FileAttributes, Handle, Name, OpenFlags, Packet, StatusCode, Version,
    },
};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chmodat, chownat, utimensat};

use super::channel::{Input, Wire};

/// The longest packet in either direction, in bytes: OpenSSH's SFTP_MAX_MSG_LENGTH.
const MAX_PACKET: usize = 256 * 1024;

/// The longest read or write. OpenSSH leaves 1 KiB for the rest of the packet.
const MAX_DATA: usize = MAX_PACKET - 1024;

/// The largest number of open files and folders of one session.
const MAX_HANDLES: usize = 256;

/// The number of entries in one answer to READDIR, as in OpenSSH.
const ENTRIES_AT_ONCE: usize = 100;

/// Extensions that have no name in russh-sftp.
const POSIX_RENAME: &str = "posix-rename@openssh.com";
const LSETSTAT: &str = "lsetstat@openssh.com";

/// Serves SFTP until the client ends it. Relative paths start at `home`.
pub(super) async fn serve(mut wire: Wire, home: PathBuf) {
    let mut server = Server { home, handles: HashMap::new(), last_handle: 0 };
    let mut received = BytesMut::new();
    let id = wire.id();
    let (input, out) = wire.split();
    let status = 'session: loop {
        while let Some(packet) = next_packet(&mut received) {
            let Ok(packet) = packet else { break 'session 1 };
            // On a thread of their own, because files block; in order, as the protocol wants it.
            let answered = tokio::task::spawn_blocking(move || {
                let answer = server.answer(packet);
                (server, answer)
            });
            let Ok((same, answer)) = answered.await else { break 'session 1 };
            server = same;
            let Some(answer) = answer else { break 'session 1 };
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

/// Takes a whole packet, without its length, from the received bytes. An error for a length that no packet has.
fn next_packet(received: &mut BytesMut) -> Option<Result<Bytes, ()>> {
    let length = u32::from_be_bytes(*received.first_chunk::<4>()?) as usize;
    if length > MAX_PACKET {
        return Some(Err(()));
    }
    if received.len() < 4 + length {
        return None;
    }
    let mut packet = received.split_to(4 + length);
    Some(Ok(packet.split_off(4).freeze()))
}

enum Open {
    File(File),
    Folder { path: PathBuf, entries: Box<dyn Iterator<Item = io::Result<OsString>> + Send> },
}

struct Server {
    home: PathBuf,
    handles: HashMap<String, Open>,
    last_handle: u64,
}

/// An answer other than success, with the request's number left out.
struct Refusal(StatusCode, String);

impl From<StatusCode> for Refusal {
    fn from(code: StatusCode) -> Refusal {
        Refusal(code, code.to_string())
    }
}

impl From<io::Error> for Refusal {
    fn from(e: io::Error) -> Refusal {
        let code = match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => StatusCode::NoSuchFile,
            io::ErrorKind::PermissionDenied => StatusCode::PermissionDenied,
            io::ErrorKind::UnexpectedEof => StatusCode::Eof,
            _ => StatusCode::Failure,
        };
        Refusal(code, e.to_string())
    }
}

impl From<rustix::io::Errno> for Refusal {
    fn from(e: rustix::io::Errno) -> Refusal {
        io::Error::from(e).into()
    }
}

type Answer = Result<Packet, Refusal>;

impl Server {
    /// The whole answer to a packet, ready to send; `None` when it does not fit into one.
    fn answer(&mut self, mut packet: Bytes) -> Option<Bytes> {
        let Ok(request) = Packet::try_from(&mut packet) else {
            return Bytes::try_from(Packet::error(0, StatusCode::BadMessage)).ok();
        };
        let id = request.get_request_id();
        let answer = self.act(id, request);
        Bytes::try_from(answer.unwrap_or_else(|Refusal(code, message)| Packet::status(id, code, &message, "en"))).ok()
    }

    fn act(&mut self, id: u32, request: Packet) -> Answer {
        match request {
            Packet::Init(_) => Ok(version().into()),
            Packet::Open(r) => self.open(id, &r.filename, r.pflags, &r.attrs),
            Packet::Close(r) => {
                self.handles.remove(&r.handle).ok_or(StatusCode::Failure)?;
                done(id)
            }
            Packet::Read(r) => read(id, self.file(&r.handle)?, r.offset, r.len),
            Packet::Write(r) => {
                self.file(&r.handle)?.write_all_at(&r.data, r.offset)?;
                done(id)
            }
            Packet::Lstat(r) => stat(id, &fs::symlink_metadata(self.path(&r.path))?),
            Packet::Stat(r) => stat(id, &fs::metadata(self.path(&r.path))?),
            Packet::Fstat(r) => stat(id, &self.file(&r.handle)?.metadata()?),
            Packet::SetStat(r) => self.set(id, &r.path, &r.attrs, AtFlags::empty()),
            Packet::FSetStat(r) => {
                set_file(self.file(&r.handle)?, &r.attrs)?;
                done(id)
            }
            Packet::OpenDir(r) => self.open_folder(id, &r.path),
            Packet::ReadDir(r) => self.read_folder(id, &r.handle),
            Packet::Remove(r) => {
                fs::remove_file(self.path(&r.filename))?;
                done(id)
            }
            Packet::MkDir(r) => {
                let mode = r.attrs.permissions.unwrap_or(0o777) & 0o7777;
                rustix::fs::mkdir(self.path(&r.path), Mode::from_raw_mode(mode as rustix::fs::RawMode))?;
                done(id)
            }
            Packet::RmDir(r) => {
                fs::remove_dir(self.path(&r.path))?;
                done(id)
            }
            Packet::RealPath(r) => {
                let path = if r.path.is_empty() { "." } else { &r.path };
                name(id, &real_path(&self.path(path))?)
            }
            Packet::Rename(r) => {
                let (old, new) = (self.path(&r.oldpath), self.path(&r.newpath));
                // Version 3 never replaces a file; clients that want that use posix-rename.
                if fs::symlink_metadata(&new).is_ok() {
                    return Err(Refusal(StatusCode::Failure, format!("{} exists", new.display())));
                }
                fs::rename(old, new)?;
                done(id)
            }
            Packet::ReadLink(r) => name(id, &fs::read_link(self.path(&r.path))?),
            Packet::Symlink(r) => {
                // All clients use OpenSSH's order, which is the draft's reversed: target first.
                std::os::unix::fs::symlink(r.linkpath, self.path(&r.targetpath))?;
                done(id)
            }
            Packet::Extended(r) => self.extended(id, &r.request, &r.data),
            // These are answers, and no request.
            Packet::Version(_)
            | Packet::Status(_)
            | Packet::Handle(_)
            | Packet::Data(_)
            | Packet::Name(_)
            | Packet::Attrs(_)
            | Packet::ExtendedReply(_) => Err(StatusCode::BadMessage.into()),
        }
    }

    fn extended(&mut self, id: u32, request: &str, mut data: &[u8]) -> Answer {
        match request {
            POSIX_RENAME => fs::rename(self.path(&string(&mut data)?), self.path(&string(&mut data)?))?,
            HARDLINK => fs::hard_link(self.path(&string(&mut data)?), self.path(&string(&mut data)?))?,
            FSYNC => self.file(&string(&mut data)?)?.sync_all()?,
            LSETSTAT => {
                let path = string(&mut data)?;
                let attributes = russh_sftp::de::from_bytes(&mut Bytes::copy_from_slice(data));
                let attributes = attributes.map_err(|_| StatusCode::BadMessage)?;
                return self.set(id, &path, &attributes, AtFlags::SYMLINK_NOFOLLOW);
            }
            EXPAND_PATH => {
                let path = string(&mut data)?;
                let relative = match path.strip_prefix('~') {
                    None => path.as_str(),
                    Some("") => ".",
                    Some(rest) => rest.strip_prefix('/').ok_or_else(|| {
                        Refusal(StatusCode::Failure, "only the machine's own home can be expanded".to_owned())
                    })?,
                };
                return name(id, &real_path(&self.path(relative))?);
            }
            LIMITS => {
                let limits = [MAX_PACKET, MAX_DATA, MAX_DATA, MAX_HANDLES];
                let data = limits.iter().flat_map(|limit| (*limit as u64).to_be_bytes()).collect();
                return Ok(ExtendedReply { id, data }.into());
            }
            _ => return Err(StatusCode::OpUnsupported.into()),
        }
        done(id)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.home.join(path)
    }

    fn file(&self, handle: &str) -> Result<&File, Refusal> {
        match self.handles.get(handle) {
            Some(Open::File(file)) => Ok(file),
            Some(Open::Folder { .. }) | None => Err(Refusal(StatusCode::Failure, "no such open file".to_owned())),
        }
    }

    fn keep(&mut self, id: u32, open: Open) -> Answer {
        if self.handles.len() >= MAX_HANDLES {
            return Err(Refusal(StatusCode::Failure, "too many open files".to_owned()));
        }
        self.last_handle += 1;
        let handle = self.last_handle.to_string();
        self.handles.insert(handle.clone(), open);
        Ok(Handle { id, handle }.into())
    }

    fn open(&mut self, id: u32, path: &str, flags: OpenFlags, attributes: &FileAttributes) -> Answer {
        let mut how = match (flags.contains(OpenFlags::READ), flags.contains(OpenFlags::WRITE)) {
            (true, true) => OFlags::RDWR,
            (false, true) => OFlags::WRONLY,
            (true | false, false) => OFlags::RDONLY,
        };
        for (flag, meaning) in [
            (OpenFlags::APPEND, OFlags::APPEND),
            (OpenFlags::CREATE, OFlags::CREATE),
            (OpenFlags::TRUNCATE, OFlags::TRUNC),
            (OpenFlags::EXCLUDE, OFlags::EXCL),
        ] {
            how.set(meaning, flags.contains(flag));
        }
        // Without NONBLOCK a named pipe would hold the thread until another program opens it.
        how |= OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let mode = attributes.permissions.unwrap_or(0o666) & 0o7777;
        let file = rustix::fs::open(self.path(path), how, Mode::from_raw_mode(mode as rustix::fs::RawMode))?;
        self.keep(id, Open::File(File::from(file)))
    }

    fn open_folder(&mut self, id: u32, path: &str) -> Answer {
        let path = self.path(path);
        let dots = [".", ".."].map(|name| Ok(OsString::from(name)));
        let rest = fs::read_dir(&path)?.map(|entry| entry.map(|entry| entry.file_name()));
        self.keep(id, Open::Folder { path, entries: Box::new(dots.into_iter().chain(rest)) })
    }

    fn read_folder(&mut self, id: u32, handle: &str) -> Answer {
        let Some(Open::Folder { path, entries }) = self.handles.get_mut(handle) else {
            return Err(Refusal(StatusCode::Failure, "no such open folder".to_owned()));
        };
        let mut files = Vec::new();
        for entry in entries.take(ENTRIES_AT_ONCE) {
            let name = entry?;
            // It may have gone since the folder was read.
            let Ok(metadata) = fs::symlink_metadata(path.join(&name)) else { continue };
            let name = name.to_string_lossy().into_owned();
            files.push(Entry { longname: long_name(&name, &metadata), filename: name, attrs: attributes(&metadata) });
        }
        if files.is_empty() { Err(StatusCode::Eof.into()) } else { Ok(Name { id, files }.into()) }
    }

    /// Sets the attributes that `new` has; `how` decides about a symbolic link itself or its target.
    fn set(&self, id: u32, path: &str, new: &FileAttributes, how: AtFlags) -> Answer {
        let path = self.path(path);
        if let Some(size) = new.size {
            File::options().write(true).open(&path)?.set_len(size)?;
        }
        if let Some(mode) = new.permissions {
            chmodat(CWD, &path, Mode::from_raw_mode((mode & 0o7777) as rustix::fs::RawMode), how)?;
        }
        if let Some(times) = times(new) {
            utimensat(CWD, &path, &times, how)?;
        }
        if new.uid.is_some() || new.gid.is_some() {
            chownat(CWD, &path, new.uid.map(Uid::from_raw), new.gid.map(Gid::from_raw), how)?;
        }
        done(id)
    }
}

fn set_file(file: &File, new: &FileAttributes) -> Result<(), Refusal> {
    if let Some(size) = new.size {
        file.set_len(size)?;
    }
    if let Some(mode) = new.permissions {
        rustix::fs::fchmod(file, Mode::from_raw_mode((mode & 0o7777) as rustix::fs::RawMode))?;
    }
    if let Some(times) = times(new) {
        rustix::fs::futimens(file, &times)?;
    }
    if new.uid.is_some() || new.gid.is_some() {
        rustix::fs::fchown(file, new.uid.map(Uid::from_raw), new.gid.map(Gid::from_raw))?;
    }
    Ok(())
}

fn times(new: &FileAttributes) -> Option<Timestamps> {
    let time = |seconds: u32| Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
    Some(Timestamps { last_access: time(new.atime?), last_modification: time(new.mtime?) })
}

fn version() -> Version {
    let mut version = Version::new();
    for name in [POSIX_RENAME, HARDLINK, FSYNC, LSETSTAT, LIMITS, EXPAND_PATH] {
        version.extensions.insert(name.to_owned(), "1".to_owned());
    }
    version
}

fn done(id: u32) -> Answer {
    Ok(Packet::status(id, StatusCode::Ok, "", "en"))
}

fn read(id: u32, file: &File, offset: u64, length: u32) -> Answer {
    let mut data = vec![0; (length as usize).min(MAX_DATA)];
    let mut filled = 0;
    while filled < data.len() {
        match file.read_at(&mut data[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    data.truncate(filled);
    if data.is_empty() && length > 0 { Err(StatusCode::Eof.into()) } else { Ok(Data { id, data }.into()) }
}

fn stat(id: u32, metadata: &Metadata) -> Answer {
    Ok(Attrs { id, attrs: attributes(metadata) }.into())
}

/// russh-sftp's own conversion takes every special file for a regular one.
fn attributes(metadata: &Metadata) -> FileAttributes {
    // Version 3 has 32 bits for a time.
    let time = |seconds: i64| Some(u32::try_from(seconds.max(0)).unwrap_or(u32::MAX));
    FileAttributes {
        size: Some(metadata.len()),
        uid: Some(metadata.uid()),
        gid: Some(metadata.gid()),
        permissions: Some(metadata.mode()),
        atime: time(metadata.atime()),
        mtime: time(metadata.mtime()),
        ..FileAttributes::default()
    }
}

/// The canonical form of a path whose last part may be missing, like that of a file to be made.
fn real_path(path: &Path) -> io::Result<PathBuf> {
    match (fs::canonicalize(path), path.parent(), path.file_name()) {
        (Err(e), Some(folder), Some(name)) if e.kind() == io::ErrorKind::NotFound => {
            Ok(fs::canonicalize(folder)?.join(name))
        }
        (result, _, _) => result,
    }
}

fn name(id: u32, path: &Path) -> Answer {
    let path = String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned();
    let attrs = FileAttributes::empty();
    Ok(Name { id, files: vec![Entry { longname: path.clone(), filename: path, attrs }] }.into())
}

/// A line of `ls -l`, which clients show.
fn long_name(name: &str, metadata: &Metadata) -> String {
    let kind = metadata.file_type();
    let kind = match () {
        () if kind.is_dir() => 'd',
        () if kind.is_symlink() => 'l',
        () if kind.is_fifo() => 'p',
        () if kind.is_socket() => 's',
        () if kind.is_char_device() => 'c',
        () if kind.is_block_device() => 'b',
        () => '-',
    };
    let bits = ['r', 'w', 'x'].into_iter().cycle().zip((0..9).rev());
    let mode: String = bits.map(|(letter, bit)| if metadata.mode() >> bit & 1 == 1 { letter } else { '-' }).collect();
    let time = jiff::Timestamp::from_second(metadata.mtime()).unwrap_or_default().strftime("%b %e %Y").to_string();
    format!(
        "{kind}{mode} {:>4} {:<8} {:<8} {:>8} {time} {name}",
        metadata.nlink(),
        metadata.uid(),
        metadata.gid(),
        metadata.len()
    )
}

/// Takes a string (RFC 4251, 5) from the front of `data`.
fn string(data: &mut &[u8]) -> Result<String, Refusal> {
    let taken = data.split_first_chunk::<4>().and_then(|(length, rest)| {
        let (text, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        *data = rest;
        String::from_utf8(text.to_vec()).ok()
    });
    taken.ok_or_else(|| StatusCode::BadMessage.into())
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::{MAX_PACKET, next_packet, string};

    proptest! {
        #[test]
        fn packets_are_the_same_however_they_arrive(
            packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..5),
            piece in 1..50_usize,
        ) {
            let mut stream = BytesMut::new();
            for packet in &packets {
                stream.put_u32(packet.len() as u32);
                stream.put_slice(packet);
            }
            let (mut received, mut seen) = (BytesMut::new(), Vec::new());
            for piece in stream.chunks(piece) {
                received.put_slice(piece);
                while let Some(packet) = next_packet(&mut received) {
                    seen.push(packet.unwrap().to_vec());
                }
            }
            prop_assert_eq!(seen, packets);
        }

        #[test]
        fn no_string_reaches_beyond_its_packet(data in proptest::collection::vec(any::<u8>(), 0..20)) {
            let mut rest = &data[..];
            if let Ok(text) = string(&mut rest) {
                prop_assert!(4 + text.len() + rest.len() == data.len());
            }
        }
    }

    #[test]
    fn a_packet_that_is_too_long_is_not_waited_for() {
        let mut received = BytesMut::new();
        received.put_u32(MAX_PACKET as u32 + 1);
        assert_eq!(next_packet(&mut received), Some(Err(())));
    }
}
