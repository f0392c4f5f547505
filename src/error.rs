//! Errors: a kind, a sentence and a hint, and the one place where a kind becomes an exit code.
//!
//! An error is one line that says what happened and to which playground, and at most one more line that says what to do
//! now. Exit codes are part of the interface: docs/exit-codes.md has the table, and a test compares it with this file.

use std::{fmt, io, path::Path, time::Duration};

use crate::{os, platform::Platform, secrets};

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kinds of failure, one exit code each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A defect of this program, or a failure that fits nowhere else.
    Internal,
    /// The command line, a host name or a setting is not well-formed.
    Usage,
    /// There are no credentials, or the platform does not accept them.
    NotLoggedIn,
    /// No such playground, machine, container or user.
    NotFound,
    /// Several playgrounds or containers match, and the program does not guess.
    Ambiguous,
    /// The platform understood the request and refused it (quota, consent, plan, conflict), or a container cannot be
    /// entered.
    Refused,
    /// The playground is stopped, and the wake policy keeps it stopped; or the container does not run.
    NotWoken,
    /// The playground has failed or was destroyed, or the container has ended. Waiting does not bring it back.
    Ended,
    /// The machine is not ready yet. Another attempt may succeed.
    NotYet,
    /// The network, the name service, a proxy or TLS failed.
    Network,
    /// The answer does not follow the platform's API.
    Answer,
    /// A machine's host key differs from the one on record.
    HostKey,
    /// A local file could not be read, understood or written.
    File,
    /// A required program is missing or failed, or a playground's task failed.
    Program,
    /// The user answered no to a question. Nothing was changed.
    Declined,
    /// A signal or a key press ended the command.
    Interrupted,
}

impl Kind {
    /// Every kind, for the table in docs/exit-codes.md and the test that compares it.
    pub const ALL: [Kind; 16] = [
        Kind::Internal,
        Kind::Usage,
        Kind::NotLoggedIn,
        Kind::NotFound,
        Kind::Ambiguous,
        Kind::Refused,
        Kind::NotWoken,
        Kind::Ended,
        Kind::NotYet,
        Kind::Network,
        Kind::Answer,
        Kind::HostKey,
        Kind::File,
        Kind::Program,
        Kind::Declined,
        Kind::Interrupted,
    ];

    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Internal => "internal",
            Kind::Usage => "usage",
            Kind::NotLoggedIn => "not-logged-in",
            Kind::NotFound => "not-found",
            Kind::Ambiguous => "ambiguous",
            Kind::Refused => "refused",
            Kind::NotWoken => "not-woken",
            Kind::Ended => "ended",
            Kind::NotYet => "not-yet",
            Kind::Network => "network",
            Kind::Answer => "answer",
            Kind::HostKey => "host-key",
            Kind::File => "file",
            Kind::Program => "program",
            Kind::Declined => "declined",
            Kind::Interrupted => "interrupted",
        }
    }

    /// Its meaning for users, for the manual page and the table in docs/exit-codes.md.
    pub fn meaning(self) -> &'static str {
        match self {
            Kind::Internal => "a defect of this program, or a failure that fits nowhere else",
            Kind::Usage => "the command line, a host name or a setting is not well-formed",
            Kind::NotLoggedIn => "not logged in, or the platform does not accept the credentials",
            Kind::NotFound => "no such playground, machine, container or user",
            Kind::Ambiguous => "several playgrounds or containers match",
            Kind::Refused => "the platform said no, or a container cannot be entered",
            Kind::NotWoken => {
                "the playground is stopped, and the wake policy leaves it so; or the container does not run"
            }
            Kind::Ended => "the playground has failed or was destroyed, or the container has ended",
            Kind::NotYet => "not ready in time",
            Kind::Network => "the network, a proxy or TLS failed",
            Kind::Answer => "what answered is not the platform's API",
            Kind::HostKey => "a host key is not the one on record",
            Kind::File => "a local file could not be read, understood or written",
            Kind::Program => {
                "a program that is needed is missing or failed, or a task of a playground has failed (`wait`)"
            }
            Kind::Declined => "you answered no to a question; nothing was changed",
            Kind::Interrupted => "interrupted (129 and 143 for SIGHUP and SIGTERM)",
        }
    }

    /// The process's exit code. 2 is also the argument parser's, and 130 is what a shell reports for SIGINT.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Internal => 1,
            Kind::Usage => 2,
            Kind::NotLoggedIn => 3,
            Kind::NotFound => 4,
            Kind::Ambiguous => 5,
            Kind::Refused => 6,
            Kind::NotWoken => 7,
            Kind::Ended => 8,
            Kind::NotYet => 9,
            Kind::Network => 10,
            Kind::Answer => 11,
            Kind::HostKey => 12,
            Kind::File => 13,
            Kind::Program => 14,
            Kind::Declined => 15,
            Kind::Interrupted => 130,
        }
    }
}

/// A failure as the user sees it.
#[derive(Debug, Clone)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
    retry_after: Option<Duration>,
    /// The HTTP status that the platform refused with.
    status: Option<u16>,
    /// The request did not leave this computer.
    not_sent: bool,
    lasting: bool,
    told: bool,
}

impl Error {
    /// Makes an error of `kind`. `message` is one sentence without a final full stop. Control characters are removed,
    /// because the message may quote the platform.
    pub fn new(kind: Kind, message: impl AsRef<str>) -> Self {
        Error {
            kind,
            message: printable(message.as_ref()),
            hint: None,
            retry_after: None,
            status: None,
            not_sent: false,
            lasting: false,
            told: false,
        }
    }

    /// Adds the next step for the user.
    #[must_use]
    pub fn with_hint(mut self, hint: impl AsRef<str>) -> Self {
        self.hint = Some(printable(hint.as_ref()));
        self
    }

    /// Adds the time that the platform asked for before another attempt.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Adds the HTTP status of a refusal.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// Marks a request that did not leave this computer.
    #[must_use]
    pub fn not_sent(mut self) -> Self {
        self.not_sent = true;
        self
    }

    /// Marks a network failure that another attempt would meet again, such as an untrusted certificate.
    #[must_use]
    pub fn lasting(mut self) -> Self {
        self.lasting = true;
        self
    }

    /// Rewrites the commands in the hint for `platform`.
    #[must_use]
    pub fn on(mut self, platform: Platform) -> Self {
        self.hint = self.hint.map(|hint| platform.commands(&hint));
        self
    }

    /// Marks a failure that was already reported to the user.
    #[must_use]
    pub fn told(mut self) -> Self {
        self.told = true;
        self
    }

    /// True for a failure that was already reported to the user.
    pub fn is_told(&self) -> bool {
        self.told
    }

    /// Makes an error about a local file. `doing` completes "cannot ... PATH".
    pub fn file(doing: &str, path: &Path, error: &io::Error) -> Self {
        let failed = Error::new(Kind::File, format!("cannot {doing} {}: {error}", path.display()));
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                failed.with_hint("free some space on that disk")
            }
            io::ErrorKind::PermissionDenied => match os::left_by_root(path) {
                Some(give_back) => failed.with_hint(format!(
                    "root made it in a run with your HOME: run `{give_back}`; `labctl-ssh-proxy doctor` finds the rest"
                )),
                None if cfg!(windows) => {
                    failed.with_hint("check with `icacls` who may use it, and that no program has it open")
                }
                None => failed.with_hint("check its owner and mode with `ls -ld`"),
            },
            io::ErrorKind::ReadOnlyFilesystem => failed.with_hint("use a disk that can be written to"),
            io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::InvalidInput => failed.with_hint("move away what is in its place"),
            // The system's own message is enough.
            _ => failed,
        }
    }

    /// Puts `context` in front of the sentence.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = printable(&format!("{context}: {}", self.message));
        self
    }

    /// Puts the sentence of `cause` behind this one.
    #[must_use]
    pub fn because(mut self, cause: &Error) -> Self {
        self.message = printable(&format!("{}: {}", self.message, cause.message));
        self
    }

    /// The kind of this failure.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The next step for the user, where one is known.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The HTTP status of a refusal.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// True for a rate limit (HTTP status 429).
    pub fn is_rate_limit(&self) -> bool {
        self.status == Some(429)
    }

    /// True for a failure that another attempt would meet again.
    pub fn is_lasting(&self) -> bool {
        self.lasting
    }

    /// True for a failure that may pass: the platform says "not yet", or the route to it fails.
    pub fn may_pass(&self) -> bool {
        let passes = matches!(self.kind, Kind::NotYet | Kind::Network) || self.is_of_the_route();
        passes && !self.lasting
    }

    /// True for a status that a gateway, or a server that is just being replaced, answers in the platform's place. It
    /// is a failure of the route to the platform, as a broken connection is. The official client repeats no request
    /// after it; a wait goes on.
    pub fn is_of_the_route(&self) -> bool {
        // Those from 520 on are inventions of content delivery networks.
        matches!(self.status, Some(500 | 502 | 520..=599))
    }

    /// True for a request that the platform may have carried out, because its answer was lost.
    pub fn may_have_happened(&self) -> bool {
        match self.status {
            // 501: the platform has no such thing. 503: it does nothing yet.
            Some(status) => status >= 500 && !matches!(status, 501 | 503),
            None => self.kind == Kind::Network && !self.not_sent,
        }
    }

    /// The time that the platform asked for before another attempt.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Display for Error {
    /// One line, or two when there is a hint. A no of the user's is no failure, and is only repeated.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == Kind::Declined {
            return write!(f, "{}", self.message);
        }
        write!(f, "labctl-ssh-proxy: {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// russh's handlers need an error type that can hold russh's own.
impl From<russh::Error> for Error {
    fn from(error: russh::Error) -> Self {
        Error::new(Kind::Network, format!("the SSH connection failed: {error}"))
    }
}

/// Returns `text` on one line, without secrets and control characters, and of a bounded length. The platform's text
/// goes to terminals and into SSH packets, where an escape sequence or a page of HTML would do harm.
pub fn printable(text: &str) -> String {
    /// More than any sentence of ours has. A page of HTML is cut.
    const MAX_CHARS: usize = 1000;
    let text = secrets::hidden(text);
    let mut out = String::with_capacity(text.len().min(MAX_CHARS));
    let mut space = false;
    for c in text.chars() {
        if c.is_whitespace() {
            space = !out.is_empty();
        } else if !c.is_control() && !is_format(c) {
            if std::mem::take(&mut space) {
                out.push(' ');
            }
            out.push(c);
        }
        if out.len() >= MAX_CHARS {
            out.push('…');
            break;
        }
    }
    out
}

/// Characters that are invisible or reorder the text around them (bidirectional controls, zero-width marks).
pub(crate) fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::{Error, Kind, printable};

    #[test]
    fn exit_codes_are_distinct() {
        let mut codes: Vec<u8> = Kind::ALL.iter().map(|kind| kind.exit_code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Kind::ALL.len());
    }

    #[test]
    fn words_from_outside_are_made_harmless() {
        assert_eq!(printable("\x1b[31mno\r\n  more\u{202e}\u{0}"), "[31mno more");
        assert!(printable(&"x".repeat(100_000)).chars().count() <= 1001);
    }

    #[test]
    fn shows_a_sentence_and_a_hint() {
        let error = Error::new(Kind::NotFound, "no playground x").with_hint("see `list`");
        assert_eq!(error.to_string(), "labctl-ssh-proxy: no playground x\nhint: see `list`");
    }
}
