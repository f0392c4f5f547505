//! The plaintext part of an SSH handshake, read as it passes through us (RFC 4253, 4.2, 6 and 7; RFC 4419): both
//! identification lines, the host key that the machine shows, and the client's acceptance of it. And the one packet
//! that we may send ourselves, a disconnect. Pure: bytes in, facts out.
//!
//! It watches and never judges: bytes that it cannot make sense of end the watching, and ssh itself says what is wrong.
//! It holds at most one packet for each direction.

use crate::{
    error::printable,
    ssh::{
        host_key::HostKeyBlob,
        identification::{Read, Reader, Side},
    },
};

/// The largest packet that OpenSSH accepts (its PACKET_MAX_SIZE), in bytes.
const MAX_PACKET: usize = 256 * 1024;

/// Message numbers (RFC 4250, 4.1.2).
mod message {
    pub(super) const DISCONNECT: u8 = 1;
    pub(super) const KEXINIT: u8 = 20;
    pub(super) const NEWKEYS: u8 = 21;
    /// The numbers from here to 49 belong to the key exchange method.
    pub(super) const METHOD: std::ops::RangeInclusive<u8> = 30..=49;
}

/// An observer of one connection.
#[derive(Debug)]
pub struct Handshake {
    client: Direction,
    server: Direction,
    host_key: Option<HostKeyBlob>,
    gave_up: bool,
}

impl Default for Handshake {
    fn default() -> Self {
        Handshake {
            client: Direction::of(Side::Client),
            server: Direction::of(Side::Server),
            host_key: None,
            gave_up: false,
        }
    }
}

impl Handshake {
    /// An observer that has seen nothing yet.
    pub fn new() -> Self {
        Handshake::default()
    }

    /// Bytes from the client, in order and in chunks of any size.
    pub fn client(&mut self, bytes: &[u8]) {
        self.feed(Side::Client, bytes);
    }

    /// Bytes from the server, in order and in chunks of any size. The bytes that complete the host key must not reach
    /// the client before known_hosts has a line for it.
    pub fn server(&mut self, bytes: &[u8]) {
        self.feed(Side::Server, bytes);
    }

    /// The client's identification line without its end, once it is complete. It tells OpenSSH, SSHJ, paramiko, ssh2js
    /// and AsyncSSH apart.
    pub fn client_identification(&self) -> Option<&[u8]> {
        self.client.identification.as_deref()
    }

    /// The server's identification line without its end, once it is complete; text lines before it are skipped.
    pub fn server_identification(&self) -> Option<&[u8]> {
        self.server.identification.as_deref()
    }

    /// The host key of the key exchange reply, as soon as its last byte is here.
    pub fn host_key(&self) -> Option<&HostKeyBlob> {
        self.host_key.as_ref()
    }

    /// The algorithms of the host keys that the server has, separated by commas, until its NEWKEYS.
    pub fn offered_host_keys(&self) -> Option<&str> {
        self.server.proposal.as_ref().map(|proposal| proposal.host_keys.as_str())
    }

    /// Returns true once the client has answered the reply with NEWKEYS: it has checked the signature and accepted the
    /// host key.
    pub fn client_newkeys(&self) -> bool {
        self.client.newkeys
    }

    /// Returns true once there is nothing more to learn: both sides have sent NEWKEYS, or one has disconnected or said
    /// something that is not SSH.
    pub fn is_over(&self) -> bool {
        self.gave_up || (self.client.newkeys && self.server.newkeys)
    }

    fn feed(&mut self, side: Side, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.gave_up {
            let direction = self.direction(side);
            if direction.newkeys {
                return;
            }
            let read = match direction.identification {
                None => direction.identify(&mut bytes),
                Some(_) => self.packet(side, &mut bytes),
            };
            if read.is_none() {
                self.give_up();
            }
        }
    }

    fn direction(&mut self, side: Side) -> &mut Direction {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    fn give_up(&mut self) {
        self.gave_up = true;
        // Nothing is read any more; what was held is not kept for the life of the connection.
        self.client.forget();
        self.server.forget();
    }

    /// Takes as much of a packet from `bytes` as there is. A packet that lies in `bytes` whole is read where it is; of
    /// one in pieces only the part that tells something is copied. `None` gives up.
    fn packet(&mut self, side: Side, bytes: &mut &[u8]) -> Option<()> {
        let direction = self.direction(side);
        let skipped = direction.skip.min(bytes.len());
        direction.skip -= skipped;
        *bytes = &bytes[skipped..];
        if bytes.is_empty() {
            return Some(());
        }
        if direction.held.is_empty() {
            match self.examine(side, bytes)? {
                Step::Need(need) => self.direction(side).need = need,
                Step::Done { length } => {
                    let here = length.min(bytes.len());
                    *bytes = &bytes[here..];
                    self.direction(side).skip = length - here;
                    return Some(());
                }
            }
        }
        let direction = self.direction(side);
        let more = direction.need.saturating_sub(direction.held.len()).min(bytes.len());
        direction.held.extend_from_slice(&bytes[..more]);
        *bytes = &bytes[more..];
        if direction.held.len() < direction.need {
            return Some(());
        }
        let held = std::mem::take(&mut direction.held);
        match self.examine(side, &held)? {
            Step::Need(need) => {
                let direction = self.direction(side);
                direction.need = need;
                direction.held = held;
            }
            Step::Done { length } => self.direction(side).skip = length.saturating_sub(held.len()),
        }
        Some(())
    }

    /// Looks at the beginning of a packet: either more of it is needed to tell, or what it tells is noted. `None` when
    /// it is not a packet or ends the handshake.
    fn examine(&mut self, side: Side, head: &[u8]) -> Option<Step> {
        /// Length, padding length and message number (RFC 4253, 6): what is needed to tell packets apart.
        const HEAD: usize = 6;
        let Some(&[a, b, c, d, padding, number]) = head.first_chunk::<HEAD>() else {
            return Some(Step::Need(HEAD));
        };
        let packet = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
        // The padding length, a payload of at least its message number, and the padding.
        if packet > MAX_PACKET || packet < 2 + usize::from(padding) {
            return None;
        }
        let length = 4 + packet;
        let end = length - usize::from(padding);
        let done = Step::Done { length };
        match number {
            message::DISCONNECT => return None,
            // Without a host key that it could have accepted.
            message::NEWKEYS if side == Side::Client && self.host_key.is_none() => return None,
            message::NEWKEYS => {
                let direction = self.direction(side);
                direction.newkeys = true;
                direction.proposal = None;
            }
            message::KEXINIT if self.direction(side).proposal.is_some() => return None,
            message::KEXINIT => {
                let Some(payload) = head.get(HEAD..end) else {
                    return Some(Step::Need(end));
                };
                self.direction(side).proposal = Some(Proposal::read(payload)?);
                self.compare_proposals()?;
            }
            number if side == Side::Server && message::METHOD.contains(&number) => {
                let passed_over = std::mem::take(&mut self.server.wrong_guess);
                if self.server.reply? != number || passed_over || self.host_key.is_some() {
                    return Some(done);
                }
                match string(head.get(HEAD..)?.get(..(end - HEAD).min(head.len() - HEAD))?) {
                    Ok(blob) => self.host_key = Some(HostKeyBlob::from_wire(blob)?),
                    Err(missing) if head.len() + missing <= end => return Some(Step::Need(head.len() + missing)),
                    Err(_) => return None,
                }
            }
            // Ignore, debug and other messages of the transport, and what the client sends for its method.
            0..=u8::MAX => {}
        }
        Some(done)
    }

    /// Once both proposals are here: which message of the server's has the host key, and whether the server's guess, if
    /// it made one, is to be passed over (RFC 4253, 7). `None` when they have no method in common.
    fn compare_proposals(&mut self) -> Option<()> {
        let (Some(client), Some(server)) = (&self.client.proposal, &self.server.proposal) else {
            return Some(());
        };
        let method = client.methods.split(',').find(|name| server.methods.split(',').any(|other| other == *name))?;
        self.server.reply = Some(reply_number(method)?);
        self.server.wrong_guess = server.guesses && server.guess() != client.guess();
        Some(())
    }
}

/// The outcome of looking at the beginning of a packet.
enum Step {
    /// So many bytes of it must be held to tell more.
    Need(usize),
    /// It has told what it can; it is `length` bytes long in all.
    Done { length: usize },
}

/// One direction, as far as it has been seen.
#[derive(Debug)]
struct Direction {
    side: Side,
    first_lines: Reader,
    identification: Option<Vec<u8>>,
    /// The beginning of a packet that is not complete.
    held: Vec<u8>,
    /// The number of bytes of the packet that must be held before it is looked at again.
    need: usize,
    /// The number of bytes of a packet that are still to come and tell nothing.
    skip: usize,
    proposal: Option<Proposal>,
    /// The number of the message that has the host key (the server's direction only).
    reply: Option<u8>,
    /// The next message of the method is a guess that does not count (the server's direction only).
    wrong_guess: bool,
    newkeys: bool,
}

impl Direction {
    /// A direction of which nothing has been seen yet.
    fn of(side: Side) -> Direction {
        Direction {
            side,
            first_lines: Reader::of(side),
            identification: None,
            held: Vec::new(),
            need: 0,
            skip: 0,
            proposal: None,
            reply: None,
            wrong_guess: false,
            newkeys: false,
        }
    }

    /// Takes the lines up to the identification line from `bytes`, as far as they are there. `None` gives up.
    fn identify(&mut self, bytes: &mut &[u8]) -> Option<()> {
        match self.first_lines.read(bytes) {
            Read::Incomplete => {}
            Read::Line(line) => self.identification = Some(line),
            Read::NotSsh(_) => return None,
        }
        Some(())
    }

    /// Frees the memory of all that is held for reading on.
    fn forget(&mut self) {
        self.first_lines = Reader::of(self.side);
        self.held = Vec::new();
        self.proposal = None;
    }
}

/// The part of a KEXINIT that matters here (RFC 4253, 7.1).
#[derive(Debug)]
struct Proposal {
    /// The key exchange methods, best first, separated by commas.
    methods: String,
    /// The algorithms of host keys, best first, separated by commas.
    host_keys: String,
    /// `first_kex_packet_follows`.
    guesses: bool,
}

impl Proposal {
    /// Reads the payload after its message number.
    fn read(payload: &[u8]) -> Option<Proposal> {
        const COOKIE: usize = 16;
        let mut rest = payload.get(COOKIE..)?;
        let mut list = || {
            let name_list = string(rest).ok()?;
            rest = &rest[4 + name_list.len()..];
            std::str::from_utf8(name_list).ok()
        };
        let methods = list()?.to_owned();
        let host_keys = list()?.to_owned();
        // Ciphers, MACs, compression methods and languages, two lists of each.
        for _ in 0..8 {
            list()?;
        }
        Some(Proposal { methods, host_keys, guesses: *rest.first()? != 0 })
    }

    /// The preferences that a guess rests on: a guess is right when both sides have the same.
    fn guess(&self) -> (Option<&str>, Option<&str>) {
        (self.methods.split(',').next(), self.host_keys.split(',').next())
    }
}

/// The number of the server's message that begins with the host key in a key exchange method; `None` when it shows
/// none.
fn reply_number(method: &str) -> Option<u8> {
    if method.starts_with("diffie-hellman-group-exchange-") {
        // RFC 4419, 5: 31 is the group.
        Some(33)
    } else if method.starts_with("rsa") {
        // RFC 4432, 4: the server speaks first.
        Some(30)
    } else if method.starts_with("gss-") {
        // RFC 4462, 2.1: the ticket proves the server.
        None
    } else {
        // RFC 4253, 8; RFC 5656, 7.1; RFC 8731 and the hybrids after it.
        Some(31)
    }
}

/// The string at the beginning of `bytes` (RFC 4251, 5), or at least how many bytes are missing for it.
fn string(bytes: &[u8]) -> Result<&[u8], usize> {
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return Err(4 - bytes.len());
    };
    // On a machine where this does not fit, no packet has so many bytes either.
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    rest.get(..length).ok_or(length.saturating_sub(rest.len()).min(MAX_PACKET))
}

/// The identification line that goes before [`disconnect_packet`] when no server has sent one.
pub const IDENTIFICATION: &[u8] = b"SSH-2.0-labctl-ssh-proxy\r\n";

/// SSH_DISCONNECT_BY_APPLICATION (RFC 4253, 11.1).
pub const BY_APPLICATION: u32 = 11;

/// A plain SSH_MSG_DISCONNECT packet (RFC 4253, 6 and 11.1), for when an identification line has been sent and no key
/// exchange has begun. OpenSSH shows the first 400 bytes of `text`. The client's bytes must be read on until it leaves:
/// a client that finds the pipe broken while it sends its own proposal reports that instead.
pub fn disconnect_packet(reason: u32, text: &str) -> Vec<u8> {
    /// Without a cipher packets are a multiple of this, in bytes.
    const BLOCK: usize = 8;
    const MIN_PADDING: usize = 4;
    let text = printable(text);
    let mut payload = vec![message::DISCONNECT];
    payload.extend_from_slice(&reason.to_be_bytes());
    for string in [text.as_bytes(), b"en"] {
        payload.extend_from_slice(&(string.len() as u32).to_be_bytes());
        payload.extend_from_slice(string);
    }
    let padding = BLOCK - (5 + payload.len() + MIN_PADDING) % BLOCK + MIN_PADDING;
    let mut packet = ((1 + payload.len() + padding) as u32).to_be_bytes().to_vec();
    packet.push(padding as u8);
    packet.append(&mut payload);
    packet.resize(packet.len() + padding, 0);
    packet
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        BY_APPLICATION, Handshake,
        Side::{self, Client, Server},
        disconnect_packet,
    };

    const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    fn key() -> Vec<u8> {
        crate::ssh::host_key::HostKeyBlob::from_fields("ssh-ed25519", KEY).unwrap().blob().to_vec()
    }

    fn string(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }

    fn packet(number: u8, payload: &[u8]) -> Vec<u8> {
        let padding = 4 + (8 - (6 + payload.len() + 4) % 8) % 8;
        let length = u32::try_from(2 + payload.len() + padding).unwrap();
        [&length.to_be_bytes()[..], &[u8::try_from(padding).unwrap(), number], payload, &vec![7; padding]].concat()
    }

    fn kexinit(methods: &str, host_keys: &str, guesses: bool) -> Vec<u8> {
        let mut payload = vec![9; 16];
        for list in [methods, host_keys, "c", "c", "m", "m", "none", "none", "", ""] {
            payload.extend(string(list.as_bytes()));
        }
        payload.push(u8::from(guesses));
        payload.extend([0; 4]);
        packet(20, &payload)
    }

    fn reply(number: u8) -> Vec<u8> {
        packet(number, &[string(&key()), string(&[4; 1500]), string(b"signature")].concat())
    }

    /// A handshake with `method`, from the identification lines to both NEWKEYS.
    fn transcript(method: &str) -> Vec<(Side, Vec<u8>)> {
        let mut said = vec![
            (Client, b"SSH-2.0-OpenSSH_9.2 x\r\n".to_vec()),
            (Client, kexinit(&format!("unknown,{method},ext-info-c"), "ssh-ed25519", false)),
            (Server, b"Welcome\r\nto the machine\nSSH-2.0-OpenSSH_9.9\r\n".to_vec()),
            (Server, kexinit(&format!("curve25519-sha256@libssh.org,{method}"), "ssh-ed25519,ssh-rsa", false)),
            (Client, packet(30, &string(&[1; 32]))),
            (Server, packet(2, &string(b"ignore me"))),
        ];
        if method.starts_with("diffie-hellman-group-exchange") {
            said.push((Server, packet(31, &[string(&[1; 257]), string(&[2])].concat())));
            said.push((Client, packet(32, &string(&[1; 256]))));
            said.push((Server, reply(33)));
        } else {
            said.push((Server, reply(31)));
        }
        said.push((Server, packet(21, &[])));
        said.push((Client, packet(21, &[])));
        said.push((Client, vec![0xff; 100]));
        said.push((Server, vec![0xee; 100]));
        said
    }

    fn feed(handshake: &mut Handshake, from: Side, bytes: &[u8]) {
        match from {
            Client => handshake.client(bytes),
            Server => handshake.server(bytes),
        }
    }

    /// All that an observer tells.
    fn told(handshake: &Handshake) -> impl PartialEq + std::fmt::Debug + use<> {
        (
            handshake.client_identification().map(<[u8]>::to_vec),
            handshake.server_identification().map(<[u8]>::to_vec),
            handshake.host_key().cloned(),
            handshake.client_newkeys(),
            handshake.is_over(),
        )
    }

    #[test]
    fn reads_a_handshake_of_each_shape() {
        for method in ["curve25519-sha256", "mlkem768x25519-sha256", "diffie-hellman-group-exchange-sha256"] {
            let mut handshake = Handshake::new();
            for (from, bytes) in transcript(method) {
                assert!(!handshake.is_over() || bytes.len() == 100, "{method}");
                feed(&mut handshake, from, &bytes);
            }
            assert_eq!(handshake.client_identification(), Some(&b"SSH-2.0-OpenSSH_9.2 x"[..]));
            assert_eq!(handshake.server_identification(), Some(&b"SSH-2.0-OpenSSH_9.9"[..]));
            assert_eq!(handshake.host_key().unwrap().base64(), KEY, "{method}");
            assert!(handshake.client_newkeys() && handshake.is_over());
        }
    }

    #[test]
    fn the_host_key_is_there_with_its_last_byte_and_not_before() {
        let mut handshake = Handshake::new();
        let mut said = transcript("curve25519-sha256");
        let at = said.iter().position(|(_, bytes)| bytes.len() > 1500).unwrap();
        for (from, bytes) in said.drain(..at) {
            feed(&mut handshake, from, &bytes);
        }
        let (head, rest) = said[0].1.split_at(6 + 4 + key().len() - 1);
        handshake.server(head);
        assert!(handshake.host_key().is_none());
        handshake.server(&rest[..1]);
        assert!(handshake.host_key().is_some() && !handshake.client_newkeys());
        handshake.server(&rest[1..]);
        handshake.client(&packet(21, &[]));
        assert!(handshake.client_newkeys() && !handshake.is_over(), "the server's NEWKEYS is still to come");
    }

    /// Found by fuzzing: a damaged proposal was refused with the last byte of its padding, or before it, depending on
    /// how the bytes were cut.
    #[test]
    fn a_damaged_proposal_is_refused_with_its_last_byte() {
        let damaged = packet(20, &[3; 40]);
        let end = damaged.len() - usize::from(damaged[4]);
        for piece in [1, end] {
            let mut handshake = Handshake::new();
            handshake.server(b"SSH-2.0-x\r\n");
            damaged[..end].chunks(piece).for_each(|bytes| handshake.server(bytes));
            assert!(handshake.is_over(), "{piece}");
        }
    }

    #[test]
    fn a_wrong_guess_of_the_server_does_not_count() {
        let shown = |guess_is_right: bool| {
            let mut handshake = Handshake::new();
            handshake.client(b"SSH-2.0-x\n");
            handshake.server(b"SSH-2.0-y\n");
            handshake.client(&kexinit("a,b", "ssh-ed25519", false));
            handshake.server(&kexinit(if guess_is_right { "a,b" } else { "b,a" }, "ssh-ed25519", true));
            let guess = [string(&string(b"ssh-guess")), string(b"")].concat();
            handshake.server(&packet(31, &guess));
            handshake.server(&reply(31));
            handshake.host_key().map(|key| key.algorithm().to_owned())
        };
        assert_eq!(shown(false).as_deref(), Some("ssh-ed25519"));
        assert_eq!(shown(true).as_deref(), Some("ssh-guess"));
    }

    #[test]
    fn a_wrong_guess_of_the_client_changes_nothing() {
        let mut handshake = Handshake::new();
        handshake.client(b"SSH-2.0-x\n");
        handshake.client(&kexinit("a,b", "ssh-ed25519", true));
        handshake.client(&packet(30, &string(b"guess")));
        handshake.server(b"SSH-2.0-y\n");
        handshake.server(&kexinit("b", "ssh-ed25519", false));
        handshake.client(&packet(30, &string(b"right")));
        handshake.server(&reply(31));
        assert!(handshake.host_key().is_some());
    }

    #[test]
    fn gives_up_on_what_is_not_a_handshake() {
        let begun = |server: &[u8]| {
            let mut handshake = Handshake::new();
            handshake.client(b"SSH-2.0-x\n");
            handshake.client(&kexinit("a,b", "ssh-ed25519", false));
            handshake.server(server);
            handshake
        };
        let greeting = b"SSH-2.0-y\r\n";
        let after = |packets: &[&[u8]]| [&greeting[..], &packets.concat()].concat();
        for (what, server) in [
            ("another version", b"SSH-1.5-y\n".to_vec()),
            ("a page of HTML", "<p>no such machine</p>\n".repeat(1100).into_bytes()),
            ("an endless line", vec![b'x'; 10_000]),
            ("a packet too long", after(&[&u32::MAX.to_be_bytes(), &[4, 20]])),
            ("a packet without a message", after(&[&5u32.to_be_bytes(), &[4, 20]])),
            ("no common method", after(&[&kexinit("c", "ssh-ed25519", false)])),
            ("no host key in this method", after(&[&kexinit("gss-x", "null", false)])),
            ("a reply before the proposal", after(&[&reply(31)])),
            ("a key longer than its packet", after(&[&kexinit("a", "k", false), &packet(31, &[0, 0, 1, 0, 0])])),
            ("two proposals", after(&[&kexinit("a", "k", false), &kexinit("a", "k", false)])),
            ("an end", after(&[&disconnect_packet(BY_APPLICATION, "bye")])),
        ] {
            let handshake = begun(&server);
            assert!(handshake.is_over() && handshake.host_key().is_none(), "{what}");
        }
        assert!(!begun(greeting).is_over());
        let mut handshake = begun(greeting);
        handshake.client(&packet(21, &[]));
        assert!(handshake.is_over() && !handshake.client_newkeys(), "NEWKEYS proves nothing before the reply");
        let mut handshake = Handshake::new();
        handshake.client(b"GET / HTTP/1.1\r\n");
        assert!(handshake.is_over());
    }

    #[cfg(unix)]
    #[test]
    fn openssh_shows_what_a_disconnect_says() {
        use super::IDENTIFICATION;
        use std::process::{Command, Stdio};
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("said");
        let say = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            // It reads on until ssh leaves: else ssh may find the pipe broken before it reads what was said.
            let proxy = format!("ProxyCommand=sh -c 'cat {}; cat >/dev/null'", file.display());
            let out = Command::new("ssh")
                .args(["-F", "/dev/null", "-o", &proxy, "-o", "BatchMode=yes", "host"])
                .stdin(Stdio::null())
                .output()
                .unwrap();
            assert_eq!(out.status.code(), Some(255));
            String::from_utf8(out.stderr).unwrap()
        };
        for text in ["a", "playground x was destroyed; start another with `start`", &"12345678".repeat(20)] {
            let shown =
                say(&[IDENTIFICATION, &disconnect_packet(BY_APPLICATION, &format!("{text}\u{1b}\r\n"))].concat());
            assert!(shown.contains(&format!("Received disconnect from UNKNOWN port 65535:11: {text}")), "{shown}");
        }
        // Every length of padding; reason 2 is PROTOCOL_ERROR.
        for length in 1..=8 {
            let text = "x".repeat(length);
            let shown = say(&[IDENTIFICATION, &disconnect_packet(2, &text)].concat());
            assert!(shown.contains(&format!(":2: {text}")), "{shown}");
        }
    }

    /// Chunk lengths that cut at every kind of place.
    fn lengths() -> impl Strategy<Value = Vec<usize>> {
        prop::collection::vec(prop_oneof![Just(1usize), 1..20usize, 1..3000usize], 1..60)
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            said in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)), 0..20),
            greeted: bool,
        ) {
            let mut handshake = Handshake::new();
            if greeted {
                handshake.client(b"SSH-2.0-x\n");
                handshake.server(b"SSH-2.0-y\n");
            }
            for (from_client, bytes) in said {
                feed(&mut handshake, if from_client { Client } else { Server }, &bytes);
            }
        }

        #[test]
        fn chunks_change_nothing(
            exchange: bool,
            lengths in lengths(),
            // The position of the damaged byte, and its new value.
            damage in prop::option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let mut said =
                transcript(if exchange { "diffie-hellman-group-exchange-sha1" } else { "ecdh-sha2-nistp256" });
            if let Some((which, at, to)) = damage {
                let bytes = &mut which.get_mut(&mut said).1;
                *at.get_mut(bytes) = to;
            }
            let mut whole = Handshake::new();
            let mut cut = Handshake::new();
            let mut lengths = lengths.iter().cycle();
            // Consecutive messages of one side may come in one read.
            for turn in said.chunk_by(|(a, _), (b, _)| a == b) {
                let bytes = turn.iter().flat_map(|(_, bytes)| bytes).copied().collect::<Vec<u8>>();
                feed(&mut whole, turn[0].0, &bytes);
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let (chunk, after) = rest.split_at((*lengths.next().unwrap()).min(rest.len()));
                    feed(&mut cut, turn[0].0, chunk);
                    rest = after;
                }
                prop_assert_eq!(told(&whole), told(&cut));
            }
        }

        #[test]
        fn what_is_held_is_bounded(length in 0..300_000u32, number: u8) {
            let mut handshake = Handshake::new();
            for _ in 0..2 {
                handshake.client(b"SSH-2.0-x\n");
                handshake.client(&[&length.to_be_bytes()[..], &[4, number]].concat());
                for _ in 0..60 {
                    handshake.client(&[0; 10_000]);
                    prop_assert!(handshake.client.held.len() <= super::MAX_PACKET + 4);
                }
            }
        }

        #[test]
        fn a_disconnect_is_a_packet(text in ".*", reason: u32) {
            let packet = disconnect_packet(reason, &text);
            prop_assert_eq!(packet.len() % 8, 0);
            prop_assert!(packet.len() < 5000);
            let mut handshake = Handshake::new();
            handshake.server(b"SSH-2.0-x\r\n");
            prop_assert!(!handshake.is_over());
            handshake.server(&packet);
            prop_assert!(handshake.is_over());
        }
    }
}
