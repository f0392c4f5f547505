//! The client at the other end of standard input and output: what it has said, and when it has left.

use std::{io, time::Duration};

use bytes::BytesMut;
use tokio::io::AsyncReadExt;

use crate::ui::stdio::{self, Gone, Reader, Writer};

/// Who is asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// JetBrains' sshj, whose start screen asks every five seconds.
    Sshj,
    /// OpenSSH.
    OpenSsh,
    /// Everybody else.
    Other,
}

impl ClientKind {
    /// By the client's identification line.
    pub fn of(identification: Option<&str>) -> ClientKind {
        match identification.and_then(|line| line.strip_prefix("SSH-2.0-")) {
            Some(software) if software.starts_with("SSHJ") => ClientKind::Sshj,
            Some(software) if software.starts_with("OpenSSH") => ClientKind::OpenSsh,
            _ => ClientKind::Other,
        }
    }
}

/// The client: what it sends, and where it reads.
pub struct Client {
    input: Reader,
    output: Writer,
    /// The output once more, to be waited at while the other is written to.
    watch: Writer,
    /// What has been read from it and not yet been sent for good.
    early: BytesMut,
    /// Its first line, once that has been sent for good.
    line: Option<String>,
}

/// Kept while there is no tunnel yet. A client's first flight is its identification and key exchange, some KiB.
pub(crate) const MAX_EARLY: usize = 256 * 1024;

impl Client {
    /// A client on these streams. `watch` tells when nobody reads `output` any more.
    pub fn new(input: Reader, output: Writer, watch: Writer) -> Client {
        Client { input, output, watch, early: BytesMut::new(), line: None }
    }

    /// The client on standard input and output.
    ///
    /// # Errors
    /// When one of them is closed.
    pub fn on_stdio() -> io::Result<Client> {
        let (input, output) = stdio::open()?;
        Ok(Client::new(input, output, stdio::output()?))
    }

    /// Waits until the client has left, and keeps what it says meanwhile, in order.
    pub async fn gone(&mut self) {
        loop {
            let Client { input, output, early, .. } = self;
            let full = early.len() >= MAX_EARLY;
            let read = tokio::select! {
                read = input.read_buf(early), if !full => read,
                () = output.gone() => return,
            };
            match read {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// The client's first line, its identification, when it has come within the time that `patience` gives it.
    pub async fn identification(&mut self, patience: Duration) -> Option<String> {
        let read = async {
            while self.line().is_none() && self.early.len() < 255 {
                if self.input.read_buf(&mut self.early).await.unwrap_or(0) == 0 {
                    break;
                }
            }
        };
        // An identification that comes late is one we do without.
        let _ = tokio::time::timeout(patience, read).await;
        self.line()
    }

    /// What it has said so far has been sent for good.
    pub fn passed_on(&mut self) {
        self.line = self.line();
        self.early.clear();
    }

    /// The client's first line, if it has come.
    pub fn line(&self) -> Option<String> {
        if self.line.is_some() {
            return self.line.clone();
        }
        let end = self.early.iter().take(255).position(|b| *b == b'\n')?;
        Some(String::from_utf8_lossy(&self.early[..end]).trim_end().to_owned())
    }

    /// Waits until a client that has identified itself says something more, or leaves, or has had this time.
    pub async fn first_packet(&mut self, patience: Duration) {
        let Some(identification) = self.identification(Duration::from_secs(1)).await else { return };
        let read = async {
            // A line end is one or two bytes.
            while self.early.len() <= identification.len() + 2 {
                if self.input.read_buf(&mut self.early).await.unwrap_or(0) == 0 {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(patience, read).await;
    }

    /// Reads and forgets what the client still says, until it leaves.
    pub async fn drain(&mut self) {
        while self.input.read_buf(&mut self.early).await.is_ok_and(|n| n > 0) {
            self.early.clear();
        }
    }

    /// Where it reads.
    pub fn output(&mut self) -> &mut Writer {
        &mut self.output
    }

    /// Its streams, to read from and write to at once, and its leaving.
    pub fn streams(&mut self) -> (&mut Reader, &mut Writer, Gone<'_>) {
        (&mut self.input, &mut self.output, self.watch.gone())
    }

    /// Its streams, to read from and write to at once, and what it has said so far.
    pub fn parts(&mut self) -> (&mut Reader, &mut Writer, &mut BytesMut) {
        (&mut self.input, &mut self.output, &mut self.early)
    }
}
