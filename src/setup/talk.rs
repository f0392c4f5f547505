//! The conversation with a machine about its setup: the scripts go there, and the files if they are wanted, and lines come
//! back.

use std::time::Duration;

use russh::{ChannelMsg, ChannelReadHalf};
use tokio::time::timeout;

use super::archive::Archive;
use crate::{
    error::{Error, Kind, Result, printable},
    ssh::{
        client::SshClient,
        marked::{self, Marked, quote},
    },
};

/// The machine's side, which begins a run or waits for one.
const BEGIN: &str = include_str!("begin.sh");
/// The run.
const PROGRAM: &str = include_str!("program.sh");
/// The folder of the runs, below the home there.
pub(super) const FOLDER: &str = ".local/state/labctl-ssh-proxy/setup";
/// A machine whose setup runs says so every second.
const SILENCE: Duration = Duration::from_secs(60);
/// Bytes that are kept of what a machine says: the output's last 256 KiB, and lines.
const MOST: usize = 512 * 1024;

/// The files for a machine.
pub(super) struct Job<'a> {
    /// The folder that is sent, or else `address` is cloned.
    pub archive: Option<&'a Archive>,
    pub address: &'a str,
    /// Repeat a run that has ended.
    pub again: bool,
    pub limit: Duration,
}

impl Job<'_> {
    /// The text that the machine's shell reads first.
    pub(super) fn script(&self) -> String {
        let again = if self.again { "yes" } else { "" };
        let (limit, address) = (self.limit.as_secs(), quote(self.address));
        format!("limit={limit}; again={again}; address={address}; program={}\n{BEGIN}", quote(PROGRAM))
    }
}

/// Returns a command for a login shell that runs a script of this length, which is sent on its standard input before
/// anything else. Only `dd` is sure to leave the rest of it to others.
pub(super) fn command(marked: &Marked, length: usize) -> String {
    marked.command(&format!("s=$(dd bs=1 count={length} 2>/dev/null) && eval \"$s\""))
}

/// The end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// It has ended, with this exit status.
    Exit(u32),
    /// It took too long, and was ended.
    Late,
    /// It was cut off.
    Lost,
}

/// Characters of its last line that are shown.
const LAST_LINE: usize = 120;

/// The report about a run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub status: Status,
    /// The step that ran last, for messages.
    doing: String,
    /// Its own words for its failure.
    said: String,
    /// Dotfiles that were not linked, because there is a file of that name.
    pub kept: Vec<String>,
    /// Its output.
    pub log: Vec<u8>,
}

impl Ended {
    /// Reads what a machine has said.
    pub(super) fn read(output: &[u8]) -> Option<Ended> {
        const LOG: &[u8] = b"\nlog\n";
        let at = output.windows(LOG.len()).position(|part| part == LOG)?;
        let log = output[at + LOG.len()..].to_vec();
        let lines = String::from_utf8_lossy(&output[..at]);
        let all = |word: &'static str| lines.lines().filter_map(move |line| line.strip_prefix(word)?.strip_prefix(' '));
        let status = match all("ended").next()? {
            "late" => Status::Late,
            "lost" => Status::Lost,
            status => Status::Exit(status.parse().ok()?),
        };
        let last = |word| all(word).next_back().map(printable).unwrap_or_default();
        Some(Ended { status, doing: last("doing"), said: last("why"), kept: all("kept").map(printable).collect(), log })
    }

    /// The last line of its output, if there is one.
    pub(super) fn last_line(&self) -> Option<String> {
        let log = String::from_utf8_lossy(&self.log);
        let last = log.lines().map(str::trim).rfind(|line| !line.is_empty())?;
        Some(printable(&last.chars().take(LAST_LINE).collect::<String>()))
    }

    /// The reason of its failure; `None` for a good end.
    pub(super) fn why(&self, limit: Duration) -> Option<String> {
        let doing = if self.doing.is_empty() { "it" } else { &self.doing };
        match self.status {
            Status::Exit(0) => None,
            Status::Exit(_) if !self.said.is_empty() => Some(self.said.clone()),
            Status::Exit(status) => Some(format!("{doing} ended with exit status {status}")),
            Status::Late => Some(format!("{doing} took more than {} minutes and was ended", limit.as_secs() / 60)),
            Status::Lost => Some(format!("{doing} was cut off")),
        }
    }
}

/// Has the machine set up, unless that was done, and waits for the end. Calls `begun` when that needs no connection any
/// more.
///
/// # Errors
/// [`Kind::Program`] when the machine cannot begin it, [`Kind::Network`] when the connection is lost.
pub(super) async fn hold(client: &SshClient, job: &Job<'_>, begun: impl Fn()) -> Result<Ended> {
    let script = job.script();
    let marked = Marked::new();
    let (reader, writer) = client.exec(&command(&marked, script.len())).await?.split();
    writer.data_bytes(script.into_bytes()).await?;
    let mut said = Said { client, marked, reader, output: Vec::new(), complaint: Vec::new(), read: 0 };
    let mut line = said.line(Some(SILENCE)).await?;
    if line == "send" {
        let send = async {
            let mut archive = job.archive.map(Archive::sending);
            while let Some(chunk) = archive.as_mut().map_or(Ok(None), |archive| archive.next())? {
                writer.data_bytes(chunk).await?;
            }
            writer.eof().await?;
            std::future::pending().await
        };
        line = tokio::select! {
            // A machine that takes no more says why.
            biased;
            line = said.line(None) => line?,
            failed = send => return failed,
        };
    }
    if line == "began" {
        begun();
    }
    while line != "log" {
        line = said.line(Some(SILENCE)).await?;
    }
    said.rest().await
}

/// All that the machine has said.
struct Said<'a> {
    client: &'a SshClient,
    marked: Marked,
    reader: ChannelReadHalf,
    output: Vec<u8>,
    complaint: Vec<u8>,
    /// Length of the lines that were read.
    read: usize,
}

impl Said<'_> {
    /// Waits for the next line. May be cancelled.
    async fn line(&mut self, limit: Option<Duration>) -> Result<String> {
        loop {
            let lines = self.marked.after_start(&self.output).unwrap_or_default();
            let rest = lines.get(self.read..).unwrap_or_default();
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(&rest[..end]).into_owned();
                self.read += end + 1;
                return Ok(line);
            }
            if !self.more(limit).await? {
                return Err(self.failure());
            }
        }
    }

    /// Reads to the end.
    async fn rest(mut self) -> Result<Ended> {
        while self.more(Some(SILENCE)).await? {}
        let found = self.marked.find(&self.output);
        found.and_then(|found| Ended::read(found.output)).ok_or_else(|| self.failure())
    }

    /// Waits for more. Returns false at the end.
    async fn more(&mut self, limit: Option<Duration>) -> Result<bool> {
        let next = self.reader.wait();
        let message = match limit {
            Some(limit) => timeout(limit, next).await.map_err(|_| self.silent())?,
            None => next.await,
        };
        let (kept, data) = match message {
            None => return Ok(false),
            Some(ChannelMsg::Data { data }) => (&mut self.output, data),
            Some(ChannelMsg::ExtendedData { data, .. }) => (&mut self.complaint, data),
            Some(_) => return Ok(true),
        };
        kept.extend(data.iter().take(MOST.saturating_sub(kept.len())));
        Ok(true)
    }

    fn silent(&self) -> Error {
        let subject = self.client.login().whose().subject();
        Error::new(Kind::Network, format!("{subject} has fallen silent"))
    }

    /// The error of a shell that has ended too early.
    fn failure(&self) -> Error {
        let login = self.client.login();
        let complaint = self.marked.after_start(&self.complaint).unwrap_or(&self.complaint);
        let complaint = String::from_utf8_lossy(complaint);
        let complaint = printable(complaint.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default());
        match self.marked.find(&self.output) {
            None if self.client.has_ended() => {
                Error::new(Kind::Network, format!("the connection to {} was lost", login.whose().subject()))
            }
            None => marked::not_run(&format!("{} on {}", login.user, login.whose().subject()), &complaint),
            Some(found) if found.status.is_some() && !complaint.is_empty() => Error::new(Kind::Program, complaint),
            Some(found) => {
                let status = found.status.map_or_else(|| "no status".to_owned(), |status| format!("status {status}"));
                Error::new(Kind::Program, format!("its shell ended with {status}"))
            }
        }
    }
}
