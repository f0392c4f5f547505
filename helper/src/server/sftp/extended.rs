//! The extensions of OpenSSH's sftp-server (its PROTOCOL, 4, and draft-ietf-secsh-filexfer-extensions-00).

use std::{
    fs,
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::PathBuf,
};

use rustix::{
    fs::{AtFlags, StatVfs, StatVfsMountFlags},
    process::{Resource, getrlimit},
};

use super::{
    Answer, Server, done, interrupted,
    listing::real_path,
    name, set,
    wire::{MAX_PACKET, Reader, Refusal, Status, Writer, answer},
};
use crate::server::accounts::{Accounts, List};

/// The extensions and their versions, as OpenSSH lists them.
pub(super) const EXTENSIONS: [(&str, &str); 11] = [
    ("posix-rename@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("fstatvfs@openssh.com", "2"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("lsetstat@openssh.com", "1"),
    ("limits@openssh.com", "1"),
    ("expand-path@openssh.com", "1"),
    ("copy-data", "1"),
    ("home-directory", "1"),
    ("users-groups-by-id@openssh.com", "1"),
];

/// The longest read or write. OpenSSH leaves 1 KiB for the rest of the packet.
pub(super) const MAX_DATA: usize = MAX_PACKET - 1024;

/// The descriptors that OpenSSH keeps for itself.
const SPARE: u64 = 5;

/// The size of one step of `copy-data`.
const COPY_SIZE: usize = 64 * 1024;

impl Server {
    pub(super) fn extended(&mut self, id: u32, request: &mut Reader<'_>) -> Answer {
        match request.string()? {
            b"posix-rename@openssh.com" => fs::rename(self.next_path(request)?, self.next_path(request)?)?,
            b"hardlink@openssh.com" => fs::hard_link(self.next_path(request)?, self.next_path(request)?)?,
            b"statvfs@openssh.com" => return Ok(statvfs(id, &rustix::fs::statvfs(self.next_path(request)?)?)),
            b"fstatvfs@openssh.com" => return Ok(statvfs(id, &rustix::fs::fstatvfs(self.file(request.string()?)?)?)),
            b"fsync@openssh.com" => {
                // OpenSSH's answer for no file.
                self.file(request.string()?).map_err(|_| Status::NoSuchFile)?.sync_all()?;
            }
            b"lsetstat@openssh.com" => {
                let (path, new) = (self.next_path(request)?, request.attributes()?);
                if new.size.is_some() {
                    return Err(Status::BadMessage.into());
                }
                set(&path, &new, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            b"limits@openssh.com" => {
                let handles = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX).saturating_sub(SPARE);
                let writer = Writer::new(answer::EXTENDED_REPLY, id);
                let writer = writer.u64(MAX_PACKET as u64).u64(MAX_DATA as u64).u64(MAX_DATA as u64);
                return Ok(writer.u64(handles).finish());
            }
            b"expand-path@openssh.com" => {
                let path = self.expanded(request.string()?)?;
                return Ok(name(id, &real_path(&self.host.start, path.as_os_str().as_bytes())?));
            }
            b"copy-data" => self.copy_data(request)?,
            b"home-directory" => {
                let user = request.string()?;
                let home = std::str::from_utf8(user).ok().and_then(|user| self.host.accounts.home_of(user));
                return match (home, self.host.accounts) {
                    (None, _) if !user.is_empty() => Err(Status::Failure.into()),
                    // An embedded machine has one home for all names.
                    (None, _) | (Some(_), Accounts::Computer) => Ok(name(id, &self.host.home)),
                    (Some(home), Accounts::Container) => Ok(name(id, &home)),
                };
            }
            b"users-groups-by-id@openssh.com" => {
                let users = self.names_of(List::Users, request.string()?)?;
                let groups = self.names_of(List::Groups, request.string()?)?;
                return Ok(Writer::new(answer::EXTENDED_REPLY, id).string(&users).string(&groups).finish());
            }
            _ => return Err(Status::Unsupported.into()),
        }
        Ok(done(id))
    }

    /// A path with the shell's tilde.
    fn expanded(&self, path: &[u8]) -> Result<PathBuf, Status> {
        let Some(rest) = path.strip_prefix(b"~") else { return Ok(self.path(path)) };
        let (user, rest) = rest.split_at(rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len()));
        let home = match user {
            b"" => Some(self.host.home.clone()),
            user => std::str::from_utf8(user).ok().and_then(|user| self.host.accounts.home_of(user)),
        };
        let mut path = home.ok_or(Status::NoSuchFile)?.into_os_string();
        path.push(std::ffi::OsStr::from_bytes(rest));
        Ok(path.into())
    }

    /// The names of these users or groups, one string each; an empty one for who has none.
    fn names_of(&mut self, list: List, ids: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut ids = Reader::new(ids);
        let mut names = Vec::new();
        // A packet has room for thousands, and to look one up may need a program.
        while !ids.is_empty() && !self.is_over() {
            let name = self.names.get(list, ids.u32()?).unwrap_or_default();
            names.extend_from_slice(&(name.len() as u32).to_be_bytes());
            names.extend_from_slice(name.as_bytes());
        }
        Ok(names)
    }

    fn copy_data(&self, request: &mut Reader<'_>) -> Result<(), Refusal> {
        let (from, mut read_at, length) = (request.string()?, request.u64()?, request.u64()?);
        let (to, mut write_at) = (request.string()?, request.u64()?);
        if from == to || self.path_of(from) == self.path_of(to) {
            return Err(Status::Failure.into());
        }
        let (from, to) = (self.file(from)?, self.file(to)?);
        // 0 means to the end.
        let mut left = if length == 0 { u64::MAX } else { length };
        let mut buffer = vec![0; COPY_SIZE];
        while left > 0 {
            // The client may leave in the middle, and some files have no end.
            if self.is_over() {
                return Err(Status::Failure.into());
            }
            let step = usize::try_from(left).unwrap_or(COPY_SIZE).min(COPY_SIZE);
            left -= step as u64;
            let n = interrupted(|| from.read_at(&mut buffer[..step], read_at))?;
            if n == 0 {
                // OpenSSH complains of a whole step that is missing.
                return if length == 0 || left == 0 { Ok(()) } else { Err(Status::Eof.into()) };
            }
            to.write_all_at(&buffer[..n], write_at)?;
            (read_at, write_at) = (read_at + n as u64, write_at + n as u64);
        }
        Ok(())
    }
}

fn statvfs(id: u32, found: &StatVfs) -> bytes::Bytes {
    let flags = [(StatVfsMountFlags::RDONLY, 1), (StatVfsMountFlags::NOSUID, 2)];
    let flags = flags.iter().filter(|(flag, _)| found.f_flag.contains(*flag)).map(|(_, number)| number).sum();
    [
        found.f_bsize,
        found.f_frsize,
        found.f_blocks,
        found.f_bfree,
        found.f_bavail,
        found.f_files,
        found.f_ffree,
        found.f_favail,
        found.f_fsid,
        flags,
        found.f_namemax,
    ]
    .into_iter()
    .fold(Writer::new(answer::EXTENDED_REPLY, id), Writer::u64)
    .finish()
}
