//! The greetings of the relay's protocol, version 1, and the tags in them.
//!
//! Both sides prove that they know the relay's key, each over the other's nonce. A session has a key of its own, so that
//! what is kept for its end (a ticket) opens nothing else. All numbers are big-endian, a tag is the first half of an
//! HMAC-SHA256 over a label and the fields that it names.

use std::io;

use ring::hmac::{HMAC_SHA256, Key, sign};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::frames::{HEADER, MAX_PAYLOAD, Violation};

const VERSION: u8 = 1;
const FROM_RELAY: &[u8; 4] = b"LHR1";
const FROM_CLIENT: &[u8; 4] = b"LHC1";
/// Bit 0 of a C_HELLO's flags: the client may be ended without a chance to say so.
const ENDS_UNSAID: u8 = 1;
/// Bit 1 of a C_RESUME's flags: the session is to be ended.
const ENDS: u8 = 2;
/// A window that a relay may have: less would stall every stream, more is no honest one's.
const WINDOWS: std::ops::RangeInclusive<u32> = 64 * 1024..=64 * 1024 * 1024;

/// The length of a relay's first words.
pub(super) const R_HELLO: usize = 44;
/// The length of a relay's answer to a resume.
const R_RESUME: usize = 30;

/// The secret of a relay or of a session.
pub(super) type Secret = [u8; 32];
/// Proof of a secret.
pub(super) type Tag = [u8; 16];

/// A relay's first words.
pub(super) struct Hello {
    version: u8,
    /// Most bytes of data in a frame that it takes.
    pub(super) max_data: usize,
    /// The session's name.
    pub(super) id: [u8; 16],
    nonce: [u8; 16],
    /// Bytes that it takes before it has passed them on.
    pub(super) window: u32,
}

impl Hello {
    pub(super) fn parse(bytes: &[u8; R_HELLO]) -> Result<Hello, Violation> {
        let mut fields = Fields(bytes);
        if fields.take() != *FROM_RELAY {
            return Err(Violation("the greeting is no relay's"));
        }
        let [version, _flags] = fields.take();
        let max_data = (usize::from(u16::from_be_bytes(fields.take())) * 1024).min(HEADER + MAX_PAYLOAD);
        let hello = Hello {
            version,
            max_data: max_data.saturating_sub(HEADER),
            id: fields.take(),
            nonce: fields.take(),
            window: u32::from_be_bytes(fields.take()),
        };
        if hello.version == 0 || hello.max_data == 0 || !WINDOWS.contains(&hello.window) {
            return Err(Violation("the greeting makes no sense"));
        }
        Ok(hello)
    }
}

/// A session's first words, and what the relay has to answer.
pub(super) struct Begun {
    /// The bytes to send.
    pub(super) words: Vec<u8>,
    /// The proof that only the real relay can send.
    pub(super) welcome: Tag,
    /// The session's own secret.
    pub(super) secret: Secret,
}

impl Begun {
    /// The answer to a relay's first words on its port for new sessions.
    pub(super) fn with(key: &Secret, port: u16, hello: &Hello, nonce: [u8; 16], window: u32, unsaid: bool) -> Begun {
        let flags = if unsaid { ENDS_UNSAID } else { 0 };
        let head = [hello.version.min(VERSION), flags];
        let fields: [&[u8]; 6] = [&port.to_be_bytes(), &hello.id, &hello.nonce, &nonce, &head, &window.to_be_bytes()];
        let mine = tag(key, "new-c", &fields);
        Begun {
            words: [FROM_CLIENT, &head[..], &window.to_be_bytes(), &nonce, &mine].concat(),
            welcome: tag(key, "new-r", &fields),
            secret: mac(key, "session", &[&hello.id, &hello.nonce, &nonce]),
        }
    }
}

/// The wish to go on with a session, or to end it.
#[derive(Clone, Copy)]
pub(super) struct Resume {
    pub(super) port: u16,
    pub(super) id: [u8; 16],
    /// Rises with each wish of a session, so that a late one changes nothing.
    pub(super) attempt: u32,
    /// Bytes that came in the whole session.
    pub(super) received: u64,
    pub(super) nonce: [u8; 16],
    pub(super) ends: bool,
}

/// The relay's answer to a [`Resume`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resumed {
    /// It goes on; the relay has had this number of bytes.
    From(u64),
    /// The relay has no such session.
    Unknown,
    /// A later wish has come before.
    Stale,
}

impl Resume {
    fn words(&self, secret: &Secret) -> Vec<u8> {
        let flags = [if self.ends { ENDS } else { 0 }];
        let (attempt, received) = (self.attempt.to_be_bytes(), self.received.to_be_bytes());
        let mine =
            tag(secret, "res-c", &[&self.port.to_be_bytes(), &self.id, &attempt, &received, &self.nonce, &flags]);
        [&FROM_CLIENT[..], &[VERSION], &flags, &self.id, &attempt, &received, &self.nonce, &mine].concat()
    }

    /// Sends the wish and reads the answer.
    pub(super) async fn ask(
        &self,
        connection: &mut (impl AsyncRead + AsyncWrite + Unpin),
        secret: &Secret,
        key: Option<&Secret>,
    ) -> io::Result<Resumed> {
        connection.write_all(&self.words(secret)).await?;
        connection.flush().await?;
        let mut answer = [0; R_RESUME];
        connection.read_exact(&mut answer).await?;
        self.answer(&answer, secret, key).map_err(|Violation(why)| io::Error::new(io::ErrorKind::InvalidData, why))
    }

    /// Reads the answer. `key` is the relay's, where it is known: a caller who has only the session's secret believes a
    /// relay that says that there is no such session.
    fn answer(&self, bytes: &[u8; R_RESUME], secret: &Secret, key: Option<&Secret>) -> Result<Resumed, Violation> {
        let mut fields = Fields(bytes);
        if fields.take() != *FROM_RELAY {
            return Err(Violation("the answer is no relay's"));
        }
        let [_version, status] = fields.take();
        let received: [u8; 8] = fields.take();
        let theirs: Tag = fields.take();
        let right = |key| {
            let attempt = self.attempt.to_be_bytes();
            let fields: [&[u8]; 6] = [&self.port.to_be_bytes(), &self.id, &attempt, &received, &self.nonce, &[status]];
            equal(&tag(key, "res-r", &fields), &theirs)
        };
        let (proven, answer) = match status {
            0 => (right(secret), Resumed::From(u64::from_be_bytes(received))),
            1 => (key.is_none_or(right), Resumed::Unknown),
            2 => (key.is_none_or(right), Resumed::Stale),
            _ => return Err(Violation("the answer makes no sense")),
        };
        if proven { Ok(answer) } else { Err(Violation("the answer is not proven")) }
    }
}

/// Compares two tags in a time that does not depend on them.
pub(super) fn equal(a: &Tag, b: &Tag) -> bool {
    std::hint::black_box(a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b))) == 0
}

fn mac(key: &Secret, label: &str, fields: &[&[u8]]) -> Secret {
    let said = [label.as_bytes(), &fields.concat()].concat();
    let mut mac = [0; 32];
    mac.copy_from_slice(sign(&Key::new(HMAC_SHA256, key), &said).as_ref());
    mac
}

fn tag(key: &Secret, label: &str, fields: &[&[u8]]) -> Tag {
    let [tag, _] = halves(mac(key, label, fields));
    tag
}

fn halves(whole: Secret) -> [Tag; 2] {
    let mut halves = [[0; 16]; 2];
    halves[0].copy_from_slice(&whole[..16]);
    halves[1].copy_from_slice(&whole[16..]);
    halves
}

/// The fields of a greeting, whose length has been checked by its type.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut field = [0; N];
        let (taken, rest) = self.0.split_at(N.min(self.0.len()));
        field[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        field
    }
}

/// The relay's side, for tests.
#[cfg(test)]
pub(super) mod theirs {
    use super::{Begun, FROM_RELAY, Fields, Hello, R_HELLO, Secret, Tag, VERSION, mac, tag};

    /// The relay's first words.
    pub(in crate::hold) fn hello(id: [u8; 16], nonce: [u8; 16], window: u32) -> [u8; R_HELLO] {
        let words = [&FROM_RELAY[..], &[VERSION, 0, 0, 64], &id, &nonce, &window.to_be_bytes()].concat();
        words.try_into().unwrap()
    }

    /// The client's answer, checked: the proof that it awaits, and the session's secret.
    pub(in crate::hold) fn begun(key: &Secret, port: u16, hello: &[u8; R_HELLO], words: &[u8; 42]) -> (Tag, Secret) {
        let mut fields = Fields(words);
        let ([.., flags], window): ([u8; 6], [u8; 4]) = (fields.take(), fields.take());
        let hello = Hello::parse(hello).unwrap();
        let begun = Begun::with(key, port, &hello, fields.take(), u32::from_be_bytes(window), flags == 1);
        assert_eq!(begun.words, words);
        (begun.welcome, begun.secret)
    }

    /// A client's wish to resume, checked: the attempt, its offset, and the answer with a status and an offset.
    pub(in crate::hold) fn resume(
        secret: &Secret,
        port: u16,
        words: &[u8; 66],
    ) -> (u32, u64, impl Fn(&Secret, u8, u64) -> Vec<u8> + use<>) {
        let mut fields = Fields(words);
        let [.., flags]: [u8; 6] = fields.take();
        let (id, attempt, received, nonce): ([u8; 16], [u8; 4], [u8; 8], [u8; 16]) =
            (fields.take(), fields.take(), fields.take(), fields.take());
        let right = tag(secret, "res-c", &[&port.to_be_bytes(), &id, &attempt, &received, &nonce, &[flags]]);
        assert_eq!(fields.take(), right);
        let answer = move |key: &Secret, status: u8, ours: u64| {
            let ours = ours.to_be_bytes();
            let mine = tag(key, "res-r", &[&port.to_be_bytes(), &id, &attempt, &ours, &nonce, &[status]]);
            [&FROM_RELAY[..], &[VERSION, status], &ours, &mine].concat()
        };
        (u32::from_be_bytes(attempt), u64::from_be_bytes(received), answer)
    }

    #[test]
    fn tags_are_those_of_the_wire() {
        // Computed by Python's hmac.
        assert_eq!(mac(&[7; 32], "session", &[b"a", b"bc"])[..4], TAG);
    }
    const TAG: [u8; 4] = [0x42, 0x9c, 0x3b, 0xfd];
}
