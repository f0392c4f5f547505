//! The first exchange on a new tunnel, up to the client's NEWKEYS: the part of an SSH connection that is readable.
//!
//! Two things happen here and nowhere else. The client's words are kept until the server has answered, so that a tunnel
//! that leads nowhere yet can be replaced by another. And the host key is read as it passes: it is compared with the
//! one on record, or written into known hosts just before the client looks there.

use std::{io, pin::Pin, time::Duration};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Sleep, sleep},
};

use crate::{
    connect::{
        client::{Client, MAX_KEPT},
        early::{Early, Passed, Swallow, Swallowed},
    },
    error::{Error, Kind, Result},
    pipe::End,
    ssh::{
        handshake::Handshake,
        host_key::HostKeyBlob,
        identification::to_remember,
        known_hosts::{KnownHosts, Verdict, Whose},
    },
};

/// An SSH server speaks first and at once. A tunnel that stays silent for longer leads to a port where no server
/// listens yet: the platform does not say so.
const FIRST_WORD: Duration = Duration::from_secs(10);
/// Read at once.
const CHUNK: usize = 32 * 1024;

/// The outcome of a first exchange.
#[derive(Debug)]
pub(crate) enum Greeted {
    /// The client has accepted the host key (or this is not SSH, and none of our business): the rest is bytes. With the
    /// server's identification line, if it is one to remember.
    Through(Option<String>),
    /// The client was sent a remembered identification line, and the server's is another.
    AnotherLine(Option<String>),
    /// The tunnel ended or stayed silent before the server said anything. Nothing is lost.
    Unanswered(Error),
    /// The connection is over.
    Over(End),
}

/// The check of the host key that passes. It keeps known hosts true even if the exchange does not get through.
pub(crate) struct KeyCheck<'a> {
    known_hosts: &'a KnownHosts,
    whose: Whose<'a>,
    /// The only key that the server can have, because it was given that.
    given: Option<&'a HostKeyBlob>,
    seen: Option<HostKeyBlob>,
    /// The key was written into known hosts, and the client has not accepted it yet.
    learnt: bool,
}

impl<'a> KeyCheck<'a> {
    /// A check of one machine's key.
    pub(crate) fn new(known_hosts: &'a KnownHosts, whose: Whose<'a>) -> Self {
        KeyCheck { known_hosts, whose, given: None, seen: None, learnt: false }
    }

    /// A check of a server that was given this key.
    pub(crate) fn given(mut self, key: &'a HostKeyBlob) -> Self {
        self.given = Some(key);
        self
    }

    /// Compares the key with the one on record, or learns it. `offered` are the algorithms of the server's host keys.
    fn see(&mut self, key: &HostKeyBlob, offered: Option<&str>) -> Result<()> {
        if self.given.is_some_and(|given| given != key) {
            let (subject, shown) = (self.whose.subject(), key.fingerprint());
            let message =
                format!("the SSH server in {subject} shows the host key {shown}, and not the one that it was given");
            return Err(Error::new(Kind::HostKey, message)
                .with_hint("a process in the container may have taken its place, so give it no password or agent"));
        }
        if self.seen.is_none() {
            self.learnt = self.known_hosts.check_among(self.whose, key, offered)? == Verdict::Learnt;
            self.seen = Some(key.clone());
        }
        Ok(())
    }

    /// Confirms the key, because the client's NEWKEYS passed: it has checked the signature.
    fn accept(&mut self) -> Result<()> {
        match &self.seen {
            Some(key) if std::mem::take(&mut self.learnt) => self.known_hosts.confirm(self.whose, key),
            _ => Ok(()),
        }
    }
}

impl Drop for KeyCheck<'_> {
    /// Withdraws a key that was learnt and never accepted.
    fn drop(&mut self) {
        if let (Some(key), true) = (&self.seen, self.learnt)
            && let Err(error) = self.known_hosts.withdraw(self.whose, key)
        {
            log::warn!("{}", error.message());
        }
    }
}

/// Passes the first exchange on. `early` knows the server's words that the client has had before, and learns when bytes
/// of the server are passed on.
///
/// # Errors
/// Fails when the host key is not the one on record, or known hosts cannot be written.
pub(crate) async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut Client,
    tunnel: &mut S,
    check: KeyCheck<'_>,
    early: &Early,
) -> Result<Greeted> {
    let mut exchange = Exchange {
        client,
        tunnel,
        check,
        early,
        handshake: Handshake::new(),
        swallow: early.swallow(),
        from_server: BytesMut::with_capacity(CHUNK),
        sent: 0,
    };
    let first_word = sleep(FIRST_WORD);
    tokio::pin!(first_word);
    loop {
        if let Some(end) = exchange.send_the_clients_words().await? {
            return Ok(end);
        }
        if exchange.is_answered() {
            exchange.let_go_of_the_clients_words();
            if exchange.is_through() {
                return Ok(Greeted::Through(exchange.line_to_remember()));
            }
        }
        match exchange.next(first_word.as_mut()).await {
            Event::Client(Ok(1..)) => {}
            Event::Client(Ok(0) | Err(_)) => return Ok(Greeted::Over(End::Input)),
            Event::Server(Ok(1..)) => {
                if let Some(end) = exchange.take_the_servers_words().await? {
                    return Ok(end);
                }
            }
            Event::Server(Ok(0)) if exchange.is_answered() => return Ok(Greeted::Over(End::Remote)),
            Event::Server(Ok(0)) => return Ok(unanswered("the tunnel was closed immediately")),
            Event::Server(Err(lost)) => return Ok(broken(exchange.is_answered(), lost)),
            Event::Silence => return Ok(unanswered("there is no answer through the tunnel")),
            Event::ClientLeft => return Ok(Greeted::Over(End::Output)),
            Event::EarlyLineDue => exchange.send_the_early_line().await,
        }
    }
}

/// The next thing that happens in an exchange.
enum Event {
    /// So many bytes have come from the client, none at its end.
    Client(io::Result<usize>),
    /// So many bytes have come from the server, none at its end.
    Server(io::Result<usize>),
    /// The server has not spoken in time.
    Silence,
    /// The client does not read any more.
    ClientLeft,
    /// The client will not wait for the server's own line.
    EarlyLineDue,
}

/// A first exchange on its way.
struct Exchange<'a, S> {
    client: &'a mut Client,
    tunnel: &'a mut S,
    check: KeyCheck<'a>,
    early: &'a Early,
    handshake: Handshake,
    /// The server's own line, to be taken out, because the client was sent the remembered one.
    swallow: Option<Swallow>,
    /// The server's latest words.
    from_server: BytesMut,
    /// The part of the client's kept words that was sent into this tunnel, in bytes.
    sent: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Exchange<'_, S> {
    /// Returns true once bytes of the server have been passed on.
    fn is_answered(&self) -> bool {
        self.early.passed() == Passed::Bytes
    }

    /// Returns true if there is nothing more to read or to check.
    fn is_through(&self) -> bool {
        self.handshake.client_newkeys() || self.handshake.is_over()
    }

    fn line_to_remember(&self) -> Option<String> {
        self.handshake.server_identification().and_then(to_remember)
    }

    /// Sends the part of the client's words that this tunnel has not had yet. Returns the outcome if it ends the
    /// exchange.
    async fn send_the_clients_words(&mut self) -> Result<Option<Greeted>> {
        let (_, output, kept) = self.client.parts();
        let words = &kept[self.sent..];
        if words.is_empty() {
            return Ok(None);
        }
        self.handshake.client(words);
        if self.handshake.client_newkeys() {
            self.check.accept()?;
        }
        let sending = tokio::select! {
            sending = send(self.tunnel, words) => sending,
            () = output.gone() => return Ok(Some(Greeted::Over(End::Output))),
        };
        self.sent = kept.len();
        Ok(sending.err().map(|lost| broken(self.is_answered(), lost)))
    }

    /// Lets go of the client's words: the server that has answered them is the one that they are for.
    fn let_go_of_the_clients_words(&mut self) {
        self.client.passed_on();
        self.sent = 0;
    }

    /// Waits for the next event.
    async fn next(&mut self, first_word: Pin<&mut Sleep>) -> Event {
        let is_answered = self.is_answered();
        self.from_server.clear();
        let (input, output, kept) = self.client.parts();
        tokio::select! {
            read = input.read_buf(kept), if kept.len() < MAX_KEPT => Event::Client(read),
            read = self.tunnel.read_buf(&mut self.from_server) => Event::Server(read),
            () = first_word, if !is_answered => Event::Silence,
            () = output.gone() => Event::ClientLeft,
            () = self.early.due() => Event::EarlyLineDue,
        }
    }

    /// Takes the server's latest words: reads them, checks the host key, and passes them on. Returns the outcome if it
    /// ends the exchange.
    async fn take_the_servers_words(&mut self) -> Result<Option<Greeted>> {
        self.handshake.server(&self.from_server);
        if let Some(swallow) = &mut self.swallow {
            match swallow.take(&self.from_server) {
                Swallowed::More => return Ok(None),
                Swallowed::Other(line) => return Ok(Some(Greeted::AnotherLine(line))),
                Swallowed::Same(length) => {
                    self.from_server.advance(length);
                    self.swallow = None;
                }
            }
        }
        if self.from_server.is_empty() {
            return Ok(None);
        }
        if let Some(key) = self.handshake.host_key() {
            self.check.see(key, self.handshake.offered_host_keys())?;
        }
        self.early.bytes_pass();
        let output = self.client.output();
        if output.write_all(&self.from_server).await.is_err() || output.flush().await.is_err() {
            return Ok(Some(Greeted::Over(End::Output)));
        }
        Ok(None)
    }

    /// Sends the remembered line, and will swallow the server's own.
    async fn send_the_early_line(&mut self) {
        self.early.say(self.client).await;
        self.swallow = self.early.swallow();
    }
}

async fn send(tunnel: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    tunnel.write_all(bytes).await?;
    tunnel.flush().await
}

/// The outcome of a tunnel that has broken.
fn broken(answered: bool, lost: io::Error) -> Greeted {
    match lost.kind() {
        _ if answered => Greeted::Over(End::Lost(lost)),
        // It does not speak as a tunnel does, and waiting would not teach it.
        io::ErrorKind::InvalidData => Greeted::Unanswered(Error::new(Kind::Answer, lost.to_string())),
        _ => unanswered(&lost.to_string()),
    }
}

/// The outcome of a tunnel that leads nowhere yet.
fn unanswered(why: &str) -> Greeted {
    Greeted::Unanswered(Error::new(Kind::NotYet, why))
}

#[cfg(test)]
mod tests {
    use super::{HostKeyBlob, KeyCheck, Kind, KnownHosts, Whose};

    /// Of any type: a type that is not on record would be learnt of another server.
    #[test]
    fn a_server_that_was_given_a_key_can_show_no_other() {
        let key = |algorithm: &str, seed: u8| {
            let length = u8::try_from(algorithm.len()).unwrap();
            let blob = [&[0, 0, 0, length][..], algorithm.as_bytes(), &[0, 0, 0, 32], &[seed; 32]].concat();
            HostKeyBlob::from_wire(&blob).unwrap()
        };
        let folder = tempfile::tempdir().unwrap();
        let known_hosts = KnownHosts::at(folder.path().join("known_hosts"));
        let whose = Whose { alias: "playground-docker.docker-01.web", play: "p", machine: "docker-01.web", shown: "" };
        let given = key("ssh-ed25519", 1);
        known_hosts.vouch(whose, &given).unwrap();
        let check = || KeyCheck::new(&known_hosts, whose).given(&given);
        let offered = Some("ssh-ed25519,ecdsa-sha2-nistp256");
        check().see(&given, offered).unwrap();
        for other in [key("ssh-ed25519", 2), key("ecdsa-sha2-nistp256", 1)] {
            let error = check().see(&other, offered).unwrap_err();
            assert!(error.kind() == Kind::HostKey && error.message().contains(&other.fingerprint()), "{error}");
        }
        assert_eq!(known_hosts.knows(whose).unwrap(), ["ssh-ed25519"]);
    }
}
