//! Messages on standard error while a connection waits.
//!
//! Some clients pass a pipe and never read it, others close it. A line is therefore written only if that does not
//! block. The first line appears when a wait begins, then at most one every ten seconds, and all of them together fit
//! into any pipe. A closed standard error is no error.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    io::{IsTerminal, Write},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{error::printable, os};

/// Interval between lines. A longer silence looks like a hang, and more lines would only be noise in a log.
const EVERY: Duration = Duration::from_secs(10);
/// Number of bytes for all lines together. A pipe holds 64 KiB on most systems and 4 KiB at the least, and other
/// programs may write to ours. Some of the 8 KiB in all is reserved for the last line, which gives the reason of the
/// end.
const BUDGET: usize = 6 * 1024 - 256;

/// Writes one line to standard error if that does not block.
pub fn line(text: &str) {
    if os::stderr_takes_text() {
        // Errors are ignored, because standard error may be closed.
        let mut stderr = std::io::stderr();
        // ssh may have set the terminal to raw mode.
        let end = if stderr.is_terminal() { "\r\n" } else { "\n" };
        let _ = stderr.write_all(format!("{text}{end}").as_bytes());
    }
}

/// A receiver of progress messages.
pub trait Progress {
    /// Reports the current wait, for example "machine node-01 of playground X: starting".
    fn waiting(&self, what: &str);

    /// Reports a wait in which nothing new can be learnt, because the platform is out of reach.
    fn trouble(&self, what: &str) {
        self.waiting(what);
    }

    /// Prints a permanent line, above any part of the screen that is redrawn.
    fn above(&self, text: &str) {
        line(text);
    }
}

/// The messages of one connection.
#[derive(Debug)]
pub struct Notices {
    left: Cell<usize>,
    waiting: RefCell<Option<String>>,
    since: Cell<Option<Instant>>,
    said: Cell<Option<Instant>>,
}

impl Default for Notices {
    fn default() -> Self {
        Notices { left: Cell::new(BUDGET), waiting: RefCell::default(), since: Cell::default(), said: Cell::default() }
    }
}

impl Notices {
    /// Prints a message, unless the budget is used up.
    pub fn say(&self, text: &str) {
        let text = format!("labctl-ssh-proxy: {}", printable(text));
        log::info!("{text}");
        if let Some(left) = self.left.get().checked_sub(text.len() + 1) {
            self.left.set(left);
            self.said.set(Some(Instant::now()));
            line(&text);
        }
    }

    /// Repeats the current wait, with its duration, forever, as one arm of a `select!`.
    pub async fn repeat(&self) -> Infallible {
        loop {
            sleep(self.said.get().map_or(EVERY, |said| EVERY.saturating_sub(said.elapsed()))).await;
            let text = self.waiting.borrow().clone();
            let silent = self.said.get().is_none_or(|said| said.elapsed() >= EVERY);
            if let (Some(text), Some(since), true) = (text, self.since.get(), silent) {
                self.say(&format!("{text} ({}s)", since.elapsed().as_secs()));
                // Also when the budget is used up, so that the loop keeps its interval.
                self.said.set(Some(Instant::now()));
            } else if silent {
                sleep(EVERY).await;
            }
        }
    }
}

/// The progress of work that no terminal shows.
impl Progress for () {
    fn waiting(&self, _what: &str) {}
}

impl Progress for Notices {
    fn waiting(&self, what: &str) {
        log::info!("waiting: {what}");
        let first = self.waiting.replace(Some(what.to_owned())).is_none();
        if first {
            self.since.set(Some(Instant::now()));
            self.say(what);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::{BUDGET, EVERY, Notices, Progress};

    #[tokio::test(start_paused = true)]
    async fn lines_come_ten_seconds_apart_however_the_wait_is_cut() {
        let notices = Notices::default();
        sleep(Duration::from_secs(7)).await;
        let mut lines = Vec::new();
        for step in 0..40 {
            // Each step of the work has its own wait.
            tokio::select! { () = sleep(Duration::from_millis(1700)) => {}, _ = notices.repeat() => {} }
            if step == 1 {
                notices.waiting("machine m");
            }
            if let Some(said) = notices.said.get()
                && lines.last() != Some(&said)
            {
                lines.push(said);
            }
        }
        assert!(lines.len() >= 6, "{lines:?}");
        let gap = |pair: &[Instant]| pair[1] - pair[0];
        assert!(lines.windows(2).map(gap).all(|gap| gap >= EVERY && gap < EVERY * 2), "{lines:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_wait_stays_within_the_budget() {
        let notices = Notices::default();
        notices.waiting("machine m of playground p: starting");
        let hour = tokio::time::sleep(std::time::Duration::from_secs(7 * 3600));
        tokio::select! { () = hour => {}, _ = notices.repeat() => {} }
        assert!(notices.left.get() < 100, "{} of {BUDGET} are left", notices.left.get());
    }
}
