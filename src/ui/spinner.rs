//! The progress display of commands.

use std::{
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use console::{Term, measure_text_width, truncate_str};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::{
    error::printable,
    ui::{
        notice::{self, Notices, Progress},
        screen::is_screen,
    },
};

/// A progress display: a spinner on a terminal, occasional lines elsewhere.
pub(crate) struct Spinner {
    bar: ProgressBar,
    what: Arc<Mutex<String>>,
    notices: Notices,
}

/// Columns for the animation before the text, and for the time behind it.
const AROUND: usize = 2 + 9;

impl Spinner {
    /// Creates a display that shows nothing yet.
    #[must_use]
    pub(crate) fn new() -> Spinner {
        let bar = if is_screen(&std::io::stderr()) { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        let what = Arc::new(Mutex::new(String::new()));
        if let Ok(style) = ProgressStyle::with_template("{spinner} {what} {elapsed}") {
            let shown = Arc::clone(&what);
            // At each drawing, because the terminal may have another size by then.
            let key = move |_: &ProgressState, line: &mut dyn Write| {
                let room = usize::from(Term::stderr().size().1).saturating_sub(AROUND);
                let _ = line.write_str(&fitted(&shown.lock().unwrap_or_else(PoisonError::into_inner), room));
            };
            bar.set_style(style.with_key("what", key));
        }
        Spinner { bar, what, notices: Notices::default() }
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
            *self.what.lock().unwrap_or_else(PoisonError::into_inner) = printable(what);
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

/// Cuts a text to `room` columns. The end, behind the last colon, is what changes, so the beginning is cut first.
fn fitted(text: &str, room: usize) -> String {
    match text.rsplit_once(": ") {
        Some((beginning, end)) if measure_text_width(text) > room && measure_text_width(end) + 10 < room => {
            let left = room - measure_text_width(end) - ": ".len();
            format!("{}: {end}", truncate_str(beginning, left, "…"))
        }
        _ => truncate_str(text, room, "…").into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::fitted;

    #[test]
    fn the_end_of_a_wait_is_seen_on_a_narrow_terminal() {
        let text = "waiting for machine node-01 of My first Kubernetes cluster: restarting";
        assert_eq!(fitted(text, 100), text);
        assert_eq!(fitted(text, 49), "waiting for machine node-01 of My fi…: restarting");
        assert_eq!(fitted(text, 12), "waiting for…");
        assert_eq!(fitted("restarting", 4), "res…");
    }
}
