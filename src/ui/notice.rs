//! What is said on standard error while a connection waits.
//!
//! Nobody may be reading: some clients give a pipe and never look at it, others close it. So a line is written only when
//! it would not block, one at once when there is a wait and then at most one each ten seconds, and all of them together
//! stay within what any pipe holds. A closed standard error is no error.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    io::{IsTerminal, Write},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{error::printable, os};

/// Silence longer than this is indistinguishable from a hang; more lines than that are noise in a log.
const EVERY: Duration = Duration::from_secs(10);
/// For all lines together. A pipe holds 64 KiB on most systems and 4 KiB at the least, and ours may not be its only text.
/// Some of the 8 KiB in all is left for the last line, which says why it ended.
const BUDGET: usize = 6 * 1024 - 256;

/// Writes one line to standard error if that does not block.
pub fn line(text: &str) {
    if os::stderr_takes_text() {
        // Whoever closed standard error does not want to hear of it.
        let mut stderr = std::io::stderr();
        // ssh may have put its terminal into raw mode.
        let end = if stderr.is_terminal() { "\r\n" } else { "\n" };
        let _ = stderr.write_all(format!("{text}{end}").as_bytes());
    }
}

/// Where a wait is told.
pub trait Progress {
    /// What is being waited for, for example "machine node-01 of playground X: starting".
    fn waiting(&self, what: &str);

    /// Says something that stays, above what is drawn anew.
    fn above(&self, text: &str) {
        line(text);
    }
}

/// The lines of one connection.
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
    /// Says one thing, if there is room for it.
    pub fn say(&self, text: &str) {
        let text = format!("labctl-ssh-proxy: {}", printable(text));
        log::info!("{text}");
        if let Some(left) = self.left.get().checked_sub(text.len() + 1) {
            self.left.set(left);
            self.said.set(Some(Instant::now()));
            line(&text);
        }
    }

    /// Repeats what is being waited for, and for how long by now. Never returns: it is one arm of a `select!`.
    pub async fn repeat(&self) -> Infallible {
        loop {
            sleep(self.said.get().map_or(EVERY, |said| EVERY.saturating_sub(said.elapsed()))).await;
            let text = self.waiting.borrow().clone();
            let silent = self.said.get().is_none_or(|said| said.elapsed() >= EVERY);
            if let (Some(text), Some(since), true) = (text, self.since.get(), silent) {
                self.say(&format!("{text} ({}s)", since.elapsed().as_secs()));
                // Where there is no room left, nothing was said.
                self.said.set(Some(Instant::now()));
            } else if silent {
                sleep(EVERY).await;
            }
        }
    }
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
            // Each piece of work has its own wait.
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
