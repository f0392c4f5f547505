//! The client at the other end of standard input and output: its words so far, and its leaving.

use std::{io, time::Duration};

use bytes::BytesMut;
use tokio::{io::AsyncReadExt, time::timeout};

use crate::{
    ssh::identification::{self, Read, Side},
    ui::stdio::{self, Gone, Reader, Writer},
};

/// The kinds of client that are treated differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// JetBrains' sshj, whose start screen connects every five seconds.
    Sshj,
    /// OpenSSH.
    OpenSsh,
    /// Every other client.
    Other,
}

impl ClientKind {
    /// Tells the kind by the client's identification line.
    pub fn of(identification: Option<&str>) -> ClientKind {
        match identification.and_then(|line| line.strip_prefix("SSH-2.0-")) {
            Some(software) if software.starts_with("SSHJ") => ClientKind::Sshj,
            Some(software) if software.starts_with("OpenSSH") => ClientKind::OpenSsh,
            _ => ClientKind::Other,
        }
    }
}

/// The client's end of the connection.
pub struct Client {
    input: Reader,
    output: Writer,
    /// A second handle on the output, so that its closing can be awaited while the first is written to.
    watch: Writer,
    /// Bytes that were read from the client and are kept, because the tunnel that they were sent into may be replaced.
    kept: BytesMut,
    /// The client's first line, once its bytes are no longer kept.
    line: Option<String>,
}

/// The bound on the bytes that are kept while there is no tunnel yet. A client's first flight is its identification and
/// key exchange, some KiB.
pub(crate) const MAX_KEPT: usize = 256 * 1024;
/// Patience with the identification line of a client that is about to be turned away.
const LATE_IDENTIFICATION: Duration = Duration::from_secs(1);

impl Client {
    /// A client on these streams. `watch` is a second handle on the same output.
    pub fn new(input: Reader, output: Writer, watch: Writer) -> Client {
        Client { input, output, watch, kept: BytesMut::new(), line: None }
    }

    /// The client on standard input and output.
    ///
    /// # Errors
    /// Fails when one of them is closed.
    pub fn on_stdio() -> io::Result<Client> {
        let (input, output) = stdio::open()?;
        Ok(Client::new(input, output, stdio::output()?))
    }

    /// Waits until the client has left, and keeps its words of the meantime.
    pub async fn gone(&mut self) {
        loop {
            let Client { input, output, kept, .. } = self;
            let is_full = kept.len() >= MAX_KEPT;
            let read = tokio::select! {
                read = input.read_buf(kept), if !is_full => read,
                () = output.gone() => return,
            };
            match read {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// Reads until the client's first line, its identification, has come, or for as long as `patience` says.
    pub async fn identification(&mut self, patience: Duration) -> Option<String> {
        let reading = async {
            while self.line().is_none() && self.kept.len() < identification::MAX_LENGTH && self.read_more().await {}
        };
        // We do without an identification that comes late.
        let _ = timeout(patience, reading).await;
        self.line()
    }

    /// Lets go of the kept bytes, because the server has answered them.
    pub fn passed_on(&mut self) {
        self.line = self.line();
        self.kept.clear();
    }

    /// The client's first line without its end, if it has come.
    pub fn line(&self) -> Option<String> {
        if self.line.is_some() {
            return self.line.clone();
        }
        let mut beginning = &self.kept[..self.kept.len().min(identification::MAX_LENGTH)];
        match identification::Reader::of(Side::Client).read(&mut beginning) {
            Read::Incomplete => None,
            Read::Line(line) | Read::NotSsh(line) => Some(String::from_utf8_lossy(&line).trim_end().to_owned()),
        }
    }

    /// Waits until a client that has identified itself sends something more, leaves, or has had this time.
    pub async fn first_packet(&mut self, patience: Duration) {
        let Some(identification) = self.identification(LATE_IDENTIFICATION).await else { return };
        let reading = async {
            // A line end is one or two bytes.
            while self.kept.len() <= identification.len() + 2 && self.read_more().await {}
        };
        let _ = timeout(patience, reading).await;
    }

    /// Reads and drops the client's words until it leaves.
    pub async fn drain(&mut self) {
        while self.read_more().await {
            self.kept.clear();
        }
    }

    /// Reads and keeps some bytes. Returns false once the input has ended.
    async fn read_more(&mut self) -> bool {
        self.input.read_buf(&mut self.kept).await.is_ok_and(|read| read > 0)
    }

    /// The stream to the client.
    pub fn output(&mut self) -> &mut Writer {
        &mut self.output
    }

    /// Both streams, to be used at once, and the wait for the client's leaving.
    pub fn streams(&mut self) -> (&mut Reader, &mut Writer, Gone<'_>) {
        (&mut self.input, &mut self.output, self.watch.gone())
    }

    /// Both streams, to be used at once, and the kept bytes.
    pub fn parts(&mut self) -> (&mut Reader, &mut Writer, &mut BytesMut) {
        (&mut self.input, &mut self.output, &mut self.kept)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Client, ClientKind};
    use crate::ui::stdio::Plain;

    /// A client that sends `bytes` and then the end.
    fn client(bytes: &'static [u8]) -> Client {
        let sink = || Box::new(Plain(tokio::io::sink()));
        Client::new(Box::new(bytes), sink(), sink())
    }

    #[test]
    fn kinds_are_told_by_the_first_line() {
        assert_eq!(ClientKind::of(Some("SSH-2.0-SSHJ_0.38.0")), ClientKind::Sshj);
        assert_eq!(ClientKind::of(Some("SSH-2.0-OpenSSH_9.2p1 Debian-2")), ClientKind::OpenSsh);
        assert_eq!(ClientKind::of(Some("SSH-2.0-paramiko_3.4.0")), ClientKind::Other);
        assert_eq!(ClientKind::of(None), ClientKind::Other);
    }

    #[tokio::test]
    async fn the_first_line_identifies_a_client() {
        for (bytes, line) in [
            (&b"SSH-2.0-OpenSSH_9.2 x\r\nrest"[..], Some("SSH-2.0-OpenSSH_9.2 x")),
            (b"SSH-2.0-x \n", Some("SSH-2.0-x")),
            (b"GET / HTTP/1.1\r\n", Some("GET / HTTP/1.1")),
            (b"SSH-2.0-x", None),
            (b"", None),
            (&[b'x'; 300], None),
        ] {
            let mut client = client(bytes);
            assert_eq!(client.identification(Duration::from_secs(1)).await.as_deref(), line, "{bytes:?}");
            client.passed_on();
            assert_eq!(client.line().as_deref(), line, "{bytes:?}");
        }
    }
}
