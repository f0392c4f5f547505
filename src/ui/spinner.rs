//! The progress display of commands.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    error::printable,
    ui::notice::{self, Notices, Progress},
};

/// A progress display: a spinner on a terminal, occasional lines elsewhere.
pub(crate) struct Spinner {
    bar: ProgressBar,
    notices: Notices,
}

impl Spinner {
    /// Creates a display that shows nothing yet.
    #[must_use]
    pub(crate) fn new() -> Spinner {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
            bar.set_style(style);
        }
        Spinner { bar, notices: Notices::default() }
    }

    /// Returns true if there is a terminal to show it on.
    pub(crate) fn is_seen(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// Without a terminal, repeats the current wait now and then. Runs forever, as one arm of a `select!`.
    pub(crate) async fn repeat(&self) -> std::convert::Infallible {
        if self.bar.is_hidden() { self.notices.repeat().await } else { std::future::pending().await }
    }
}

impl Default for Spinner {
    fn default() -> Self {
        Spinner::new()
    }
}

impl Progress for Spinner {
    fn waiting(&self, what: &str) {
        if self.bar.is_hidden() {
            self.notices.waiting(what);
        } else {
            self.bar.set_message(printable(what));
            self.bar.enable_steady_tick(Duration::from_millis(100));
        }
    }

    fn above(&self, text: &str) {
        self.bar.suspend(|| notice::line(text));
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
