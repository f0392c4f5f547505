//! The first exchange on a new tunnel, up to the client's NEWKEYS: the part of an SSH connection that is readable.
//!
//! Two things happen here and nowhere else. What the client has said is kept until the server has answered, so that a
//! tunnel that leads nowhere yet can be replaced by another. And the host key is read as it passes: it is compared with
//! the one on record, or written into known hosts just before the client looks there.

use std::{io, time::Duration};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::sleep,
};

use crate::{
    connect::{
        client::{Client, MAX_KEPT},
        early::{Early, Passed, Swallowed},
    },
    error::{Error, Kind, Result},
    labs::tunnel::{Socket, Tunnel},
    pipe::End,
    ssh::{
        handshake::Handshake,
        host_key::HostKeyBlob,
        identification::to_remember,
        known_hosts::{KnownHosts, Verdict, Whose},
    },
};

/// An SSH server speaks first and at once. A tunnel that stays silent for longer leads to a port where nobody listens
/// yet: the platform does not say so.
const FIRST_WORD: Duration = Duration::from_secs(10);
/// Read at once.
const CHUNK: usize = 32 * 1024;

/// How the first exchange went.
#[derive(Debug)]
pub enum Greeted {
    /// The client has accepted the host key (or this is not SSH, and nothing of ours): the rest is bytes. With the
    /// server's identification line, if it is one to remember.
    Through(Option<String>),
    /// The client was sent a remembered identification line, and the server's is another.
    AnotherLine(Option<String>),
    /// The tunnel ended or stayed silent before the server said anything. Nothing is lost.
    Unanswered(Error),
    /// It is over.
    Over(End),
}

/// Checks the host key that passes, and keeps known hosts true whatever becomes of the connection.
pub struct KeyCheck<'a> {
    known_hosts: &'a KnownHosts,
    whose: Whose<'a>,
    seen: Option<HostKeyBlob>,
    learnt: bool,
}

impl<'a> KeyCheck<'a> {
    /// A check of one machine's key.
    pub fn new(known_hosts: &'a KnownHosts, whose: Whose<'a>) -> Self {
        KeyCheck { known_hosts, whose, seen: None, learnt: false }
    }

    fn see(&mut self, key: &HostKeyBlob) -> Result<()> {
        if self.seen.is_none() {
            self.learnt = self.known_hosts.check(self.whose, key)? == Verdict::Learnt;
            self.seen = Some(key.clone());
        }
        Ok(())
    }

    /// The client's NEWKEYS passed, so it has checked the signature.
    fn accept(&mut self) -> Result<()> {
        match &self.seen {
            Some(key) if std::mem::take(&mut self.learnt) => self.known_hosts.confirm(self.whose, key),
            _ => Ok(()),
        }
    }
}

impl Drop for KeyCheck<'_> {
    fn drop(&mut self) {
        if let (Some(key), true) = (&self.seen, self.learnt)
            && let Err(error) = self.known_hosts.withdraw(self.whose, key)
        {
            log::warn!("{}", error.message());
        }
    }
}

/// Passes the first exchange on. `early` knows what of the server's words the client has had before, and learns whether
/// bytes of the server have been passed on.
///
/// # Errors
/// When the host key is not the one on record, or known hosts cannot be written.
pub async fn greet<S: Socket>(
    client: &mut Client,
    tunnel: &mut Tunnel<S>,
    mut check: KeyCheck<'_>,
    words: &Early,
) -> Result<Greeted> {
    let answered = || words.passed() == Passed::Bytes;
    let mut handshake = Handshake::new();
    let mut swallow = words.swallow();
    let mut from_server = BytesMut::with_capacity(CHUNK);
    let mut sent = 0;
    let first_word = sleep(FIRST_WORD);
    tokio::pin!(first_word);
    loop {
        let (_, output, early) = client.parts();
        if sent < early.len() {
            handshake.client(&early[sent..]);
            if handshake.client_newkeys() {
                check.accept()?;
            }
            let sending = tokio::select! {
                sending = send(tunnel, &early[sent..]) => sending,
                () = output.gone() => return Ok(Greeted::Over(End::Output)),
            };
            if let Err(lost) = sending {
                return Ok(broken(answered(), lost));
            }
            sent = early.len();
        }
        if answered() {
            client.passed_on();
            sent = 0;
        }
        if answered() && (handshake.client_newkeys() || handshake.is_over()) {
            return Ok(Greeted::Through(handshake.server_identification().and_then(to_remember)));
        }
        from_server.clear();
        let (input, output, early) = client.parts();
        tokio::select! {
            read = input.read_buf(early), if early.len() < MAX_KEPT => {
                if !matches!(read, Ok(1..)) {
                    return Ok(Greeted::Over(End::Input));
                }
            }
            read = tunnel.read_buf(&mut from_server) => match read {
                Ok(0) if answered() => return Ok(Greeted::Over(End::Remote)),
                Ok(0) => return Ok(unanswered("the tunnel was closed at once")),
                Err(lost) => return Ok(broken(answered(), lost)),
                Ok(_) => {}
            },
            () = &mut first_word, if !answered() => {
                return Ok(unanswered("nobody answers in the tunnel"));
            }
            () = output.gone() => return Ok(Greeted::Over(End::Output)),
            () = words.due() => {
                words.say(client).await;
                swallow = words.swallow();
                continue;
            }
        }
        if !from_server.is_empty() {
            handshake.server(&from_server);
        }
        if let Some(expected) = &mut swallow {
            match expected.take(&from_server) {
                Swallowed::More => continue,
                Swallowed::Other(line) => return Ok(Greeted::AnotherLine(line)),
                Swallowed::Same(line) => {
                    from_server.advance(line);
                    swallow = None;
                }
            }
        }
        if !from_server.is_empty() {
            if let Some(key) = handshake.host_key() {
                check.see(key)?;
            }
            words.bytes_pass();
            if output.write_all(&from_server).await.is_err() || output.flush().await.is_err() {
                return Ok(Greeted::Over(End::Output));
            }
        }
    }
}

async fn send<S: Socket>(tunnel: &mut Tunnel<S>, bytes: &[u8]) -> io::Result<()> {
    tunnel.write_all(bytes).await?;
    tunnel.flush().await
}

fn broken(answered: bool, lost: io::Error) -> Greeted {
    match lost.kind() {
        _ if answered => Greeted::Over(End::Lost(lost)),
        // It does not speak as a tunnel does, and waiting would not teach it.
        io::ErrorKind::InvalidData => Greeted::Unanswered(Error::new(Kind::Answer, lost.to_string())),
        _ => unanswered(&lost.to_string()),
    }
}

fn unanswered(why: &str) -> Greeted {
    Greeted::Unanswered(Error::new(Kind::NotYet, why))
}
