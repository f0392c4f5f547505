//! The packets of SFTP (draft-ietf-secsh-filexfer-02, 3 to 7). Names are bytes: a file's name need not be UTF-8.

use std::{io, os::unix::fs::MetadataExt};

use bytes::{BufMut, Bytes, BytesMut};

/// The longest packet in either direction, in bytes: OpenSSH's SFTP_MAX_MSG_LENGTH.
pub(super) const MAX_PACKET: usize = 256 * 1024;

/// Types of requests.
pub(super) mod request {
    pub(crate) const INIT: u8 = 1;
    pub(crate) const OPEN: u8 = 3;
    pub(crate) const CLOSE: u8 = 4;
    pub(crate) const READ: u8 = 5;
    pub(crate) const WRITE: u8 = 6;
    pub(crate) const LSTAT: u8 = 7;
    pub(crate) const FSTAT: u8 = 8;
    pub(crate) const SETSTAT: u8 = 9;
    pub(crate) const FSETSTAT: u8 = 10;
    pub(crate) const OPENDIR: u8 = 11;
    pub(crate) const READDIR: u8 = 12;
    pub(crate) const REMOVE: u8 = 13;
    pub(crate) const MKDIR: u8 = 14;
    pub(crate) const RMDIR: u8 = 15;
    pub(crate) const REALPATH: u8 = 16;
    pub(crate) const STAT: u8 = 17;
    pub(crate) const RENAME: u8 = 18;
    pub(crate) const READLINK: u8 = 19;
    pub(crate) const SYMLINK: u8 = 20;
    pub(crate) const EXTENDED: u8 = 200;
}

/// Types of answers.
pub(super) mod answer {
    pub(crate) const VERSION: u8 = 2;
    pub(crate) const STATUS: u8 = 101;
    pub(crate) const HANDLE: u8 = 102;
    pub(crate) const DATA: u8 = 103;
    pub(crate) const NAME: u8 = 104;
    pub(crate) const ATTRS: u8 = 105;
    pub(crate) const EXTENDED_REPLY: u8 = 201;
}

/// The status codes that we send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok = 0,
    Eof = 1,
    NoSuchFile = 2,
    PermissionDenied = 3,
    Failure = 4,
    BadMessage = 5,
    Unsupported = 8,
}

impl Status {
    /// OpenSSH's words for it.
    pub(super) fn message(self) -> &'static str {
        match self {
            Status::Ok => "Success",
            Status::Eof => "End of file",
            Status::NoSuchFile => "No such file",
            Status::PermissionDenied => "Permission denied",
            Status::Failure => "Failure",
            Status::BadMessage => "Bad message",
            Status::Unsupported => "Operation unsupported",
        }
    }
}

/// The reason that a request is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The answer.
    Status(Status),
    /// The request cannot be read. OpenSSH ends the session.
    Malformed,
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Refusal {
        Refusal::Status(status)
    }
}

impl From<rustix::io::Errno> for Refusal {
    /// OpenSSH's errno_to_portable.
    fn from(e: rustix::io::Errno) -> Refusal {
        use rustix::io::Errno;
        Refusal::Status(match e {
            Errno::NOENT | Errno::NOTDIR | Errno::BADF | Errno::LOOP => Status::NoSuchFile,
            Errno::PERM | Errno::ACCESS | Errno::FAULT => Status::PermissionDenied,
            Errno::NAMETOOLONG | Errno::INVAL => Status::BadMessage,
            Errno::NOSYS => Status::Unsupported,
            _ => Status::Failure,
        })
    }
}

impl From<io::Error> for Refusal {
    fn from(e: io::Error) -> Refusal {
        // An error without a number is one of a name with a NUL, which no call takes.
        rustix::io::Errno::from_io_error(&e).unwrap_or(rustix::io::Errno::INVAL).into()
    }
}

/// The rest of a request.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Refusal::Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Refusal> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Refusal> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Refusal> {
        self.array().map(u64::from_be_bytes)
    }

    /// A string (RFC 4251, 5): any bytes.
    pub(super) fn string(&mut self) -> Result<&'a [u8], Refusal> {
        let length = self.u32()? as usize;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Refusal::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn attributes(&mut self) -> Result<Attributes, Refusal> {
        let flags = self.u32()?;
        let has = |flag| flags & flag != 0;
        let attributes = Attributes {
            size: if has(SIZE) { Some(self.u64()?) } else { None },
            owner: if has(OWNER) { Some((self.u32()?, self.u32()?)) } else { None },
            mode: if has(MODE) { Some(self.u32()?) } else { None },
            times: if has(TIMES) { Some((self.u32()?, self.u32()?)) } else { None },
        };
        if has(EXTENSIONS) {
            for _ in 0..self.u32()? {
                self.string()?;
                self.string()?;
            }
        }
        Ok(attributes)
    }
}

const SIZE: u32 = 1;
const OWNER: u32 = 2;
const MODE: u32 = 4;
const TIMES: u32 = 8;
const EXTENSIONS: u32 = 1 << 31;

/// A file's attributes, as far as they are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub size: Option<u64>,
    /// User and group.
    pub owner: Option<(u32, u32)>,
    /// Kind and permissions.
    pub mode: Option<u32>,
    /// The last access and the last change, in seconds since 1970.
    pub times: Option<(u32, u32)>,
}

impl From<&std::fs::Metadata> for Attributes {
    fn from(metadata: &std::fs::Metadata) -> Attributes {
        // Version 3 has 32 bits for a time.
        let time = |seconds: i64| u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
        Attributes {
            size: Some(metadata.len()),
            owner: Some((metadata.uid(), metadata.gid())),
            mode: Some(metadata.mode()),
            times: Some((time(metadata.atime()), time(metadata.mtime()))),
        }
    }
}

/// An answer that is being written.
pub(super) struct Writer(BytesMut);

impl Writer {
    /// An answer of that type. All but VERSION go on with the number of their request.
    pub(super) fn new(kind: u8, id: u32) -> Writer {
        let mut bytes = BytesMut::new();
        // The length, for `finish`.
        bytes.put_u32(0);
        bytes.put_u8(kind);
        bytes.put_u32(id);
        Writer(bytes)
    }

    pub(super) fn u32(mut self, number: u32) -> Writer {
        self.0.put_u32(number);
        self
    }

    pub(super) fn u64(mut self, number: u64) -> Writer {
        self.0.put_u64(number);
        self
    }

    pub(super) fn string(mut self, text: &[u8]) -> Writer {
        // A string is part of a packet, so its length fits.
        self.0.put_u32(text.len() as u32);
        self.0.put_slice(text);
        self
    }

    pub(super) fn attributes(self, attributes: &Attributes) -> Writer {
        let &Attributes { size, owner, mode, times } = attributes;
        let flags =
            [(size.is_some(), SIZE), (owner.is_some(), OWNER), (mode.is_some(), MODE), (times.is_some(), TIMES)];
        let flags = flags.iter().filter(|(is_there, _)| *is_there).map(|(_, flag)| flag).sum();
        let mut writer = self.u32(flags);
        if let Some(size) = size {
            writer = writer.u64(size);
        }
        if let Some((user, group)) = owner {
            writer = writer.u32(user).u32(group);
        }
        if let Some(mode) = mode {
            writer = writer.u32(mode);
        }
        if let Some((access, change)) = times {
            writer = writer.u32(access).u32(change);
        }
        writer
    }

    /// The whole packet.
    pub(super) fn finish(mut self) -> Bytes {
        let length = (self.0.len() - 4) as u32;
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0.freeze()
    }
}

/// Takes a whole packet, without its length, from the received bytes. An error for a length that no packet has.
pub(super) fn next_packet(received: &mut BytesMut) -> Option<Result<Bytes, ()>> {
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

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
    use rustix::io::Errno;

    use super::{Attributes, MAX_PACKET, Reader, Refusal, Status, Writer, next_packet};

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
        fn no_field_reaches_beyond_its_packet(data in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut reader = Reader::new(&data);
            if let Ok(text) = reader.string() {
                prop_assert!(4 + text.len() + reader.0.len() == data.len());
            }
            let _ = Reader::new(&data).attributes();
        }

        #[test]
        fn attributes_come_back_as_they_were(
            size: Option<u64>, owner: Option<(u32, u32)>, mode: Option<u32>, times: Option<(u32, u32)>,
        ) {
            let attributes = Attributes { size, owner, mode, times };
            let written = Writer::new(0, 0).attributes(&attributes).finish();
            let mut reader = Reader::new(&written[9..]);
            prop_assert_eq!(reader.attributes(), Ok(attributes));
            prop_assert!(reader.is_empty());
        }
    }

    #[test]
    fn a_packet_that_is_too_long_is_not_waited_for() {
        let mut received = BytesMut::new();
        received.put_u32(MAX_PACKET as u32 + 1);
        assert_eq!(next_packet(&mut received), Some(Err(())));
    }

    #[test]
    fn extended_attributes_are_skipped() {
        let written = Writer::new(0, 0).u32(1 << 31).u32(1).string(b"a@b").string(b"\xff").u32(7).finish();
        let mut reader = Reader::new(&written[9..]);
        assert_eq!(reader.attributes(), Ok(Attributes::default()));
        assert_eq!(reader.u32(), Ok(7));
        assert_eq!(Reader::new(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]).attributes(), Err(Refusal::Malformed));
    }

    #[test]
    fn errors_are_what_openssh_makes_of_them() {
        for (errno, status) in [
            (Errno::LOOP, Status::NoSuchFile),
            (Errno::NOTDIR, Status::NoSuchFile),
            (Errno::ACCESS, Status::PermissionDenied),
            (Errno::NAMETOOLONG, Status::BadMessage),
            (Errno::INVAL, Status::BadMessage),
            (Errno::NOSYS, Status::Unsupported),
            (Errno::NOTEMPTY, Status::Failure),
            (Errno::EXIST, Status::Failure),
        ] {
            assert_eq!(Refusal::from(errno), Refusal::Status(status), "{errno:?}");
        }
    }
}
