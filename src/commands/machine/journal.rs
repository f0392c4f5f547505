//! `machine journal`: the journal of a machine's systemd, through the platform.

use std::time::Duration;

use serde::Serialize;
use tokio::time::timeout;

use crate::{
    app::App,
    commands::machine::{
        Which,
        words::{Stop, Words, ended},
    },
    error::{Error, Kind, Result, printable},
    labs::{
        feed::{End, Feed},
        messages::journal_chunk,
        wire::{JournalChunk, ReadJournal},
    },
    ui::notice,
};

/// The platform's stream has no end of its own. Without --follow, past lines are complete when none has come for this
/// long.
const PAST_IS_OVER: Duration = Duration::from_secs(2);
/// Limit for the first of them.
const PAST_BEGINS: Duration = Duration::from_secs(10);

/// Print the journal of a machine, as journalctl does there.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    which: Which,
    /// Go on with new entries, until the machine ends or Ctrl-C.
    #[arg(short, long)]
    follow: bool,
    /// Only the entries of this systemd unit.
    #[arg(short, long)]
    unit: Option<String>,
    /// Begin with this many past lines instead of the platform's usual number.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    lines: Option<u64>,
    /// Only entries that are not older, such as -1h or "2026-01-01 12:00".
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Only entries that are not newer.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
}

/// A line of `machine journal --json`.
#[derive(Serialize)]
struct Line<'a> {
    /// `stdout`, or `stderr` for a complaint of journalctl.
    stream: &'a str,
    line: &'a str,
}

/// Prints a machine's journal.
///
/// # Errors
/// The platform's; [`Kind::Network`] when the stream is cut off; [`Kind::Program`] when journalctl fails there.
pub(super) async fn run(app: &App, args: Args) -> Result<()> {
    let labs = app.labs().await?;
    let (play, machine) = args.which.find(&labs).await?;
    let wish = ReadJournal {
        machine: machine.clone(),
        unit: args.unit.unwrap_or_default(),
        lines: args.lines.unwrap_or_default(),
        since: args.since.unwrap_or_default(),
        until: args.until.unwrap_or_default(),
        cursor: String::new(),
    };
    let mut feed = labs.journal(&play.id, &wish).await?;
    let mut lines = Lines { words: Words::new()?, json: args.which.json, rest: String::new() };
    let what = format!("the journal of machine {machine} of playground {}", play.shown());
    ended(print(&mut feed, &mut lines, args.follow, &what).await)
}

async fn print(feed: &mut Feed, lines: &mut Lines, follow: bool, what: &str) -> Result<(), Stop> {
    let mut limit = PAST_BEGINS;
    loop {
        let next = async { if follow { Ok(feed.next().await) } else { timeout(limit, feed.next()).await } };
        let next = tokio::select! {
            next = next => next,
            gone = lines.words.unread() => return Err(gone),
        };
        let frame = match next {
            Err(_) => return lines.end().await,
            Ok(Ok(frame)) => frame,
            Ok(Err(End::Orderly)) => return lines.end().await,
            Ok(Err(End::CutOff(why))) => {
                lines.end().await?;
                return Err(Error::new(Kind::Network, format!("{what} was cut off: {}", printable(&why)))
                    .with_hint("run the command again; --since leaves out what was printed")
                    .into());
            }
        };
        // Other messages are none of ours.
        let Some(chunk) = journal_chunk(&frame) else { continue };
        limit = PAST_IS_OVER;
        lines.print(&chunk).await?;
        if chunk.eof {
            lines.end().await?;
            return match chunk.exit_code {
                0 => Ok(()),
                code => Err(Error::new(Kind::Program, format!("{what}: journalctl ended with {code}")).into()),
            };
        }
    }
}

/// The output, which has whole lines in JSON.
struct Lines {
    words: Words,
    json: bool,
    /// The beginning of a line whose end has not come yet.
    rest: String,
}

impl Lines {
    async fn print(&mut self, chunk: &JournalChunk) -> Result<(), Stop> {
        if self.json {
            let text = std::mem::take(&mut self.rest) + &chunk.stdout;
            let (whole, rest) = text.rsplit_once('\n').map_or(("", &*text), |(whole, rest)| (whole, rest));
            rest.clone_into(&mut self.rest);
            for line in whole.lines() {
                self.words.json(&Line { stream: "stdout", line }).await?;
            }
            for line in chunk.stderr.lines() {
                self.words.json(&Line { stream: "stderr", line }).await?;
            }
            return Ok(());
        }
        self.words.say(&chunk.stdout).await?;
        chunk.stderr.lines().for_each(|line| notice::line(&printable(line)));
        Ok(())
    }

    /// Prints what has no end of line.
    async fn end(&mut self) -> Result<(), Stop> {
        match std::mem::take(&mut self.rest) {
            rest if rest.is_empty() => Ok(()),
            rest => self.words.json(&Line { stream: "stdout", line: &rest }).await,
        }
    }
}
