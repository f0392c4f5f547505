//! The terminal of ours, lent to a program elsewhere: each key goes there as it is, and its size with it.

use std::io;

use rustix::{
    stdio::{stdin, stdout},
    termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr},
};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A terminal that is lent, as long as this lives.
pub(crate) struct Raw {
    before: Termios,
    changes: Signal,
    /// True until the first size was asked for.
    is_new: bool,
}

impl Raw {
    /// Lends standard input's terminal.
    ///
    /// # Errors
    /// Fails when it is none.
    pub(crate) fn enter() -> io::Result<Raw> {
        let before = tcgetattr(stdin())?;
        let changes = signal(SignalKind::window_change())?;
        let mut raw = before.clone();
        raw.make_raw();
        // Keys that were typed ahead are for the program.
        tcsetattr(stdin(), OptionalActions::Drain, &raw)?;
        Ok(Raw { before, changes, is_new: true })
    }

    /// The rows and columns: at first those of now, then those after each change. May be cancelled.
    pub(crate) async fn size(&mut self) -> (u16, u16) {
        if !std::mem::take(&mut self.is_new) && self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        let size = tcgetwinsize(stdout()).or_else(|_| tcgetwinsize(stdin()));
        size.map_or((24, 80), |size| (size.ws_row, size.ws_col))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that takes nothing must not hold up the end.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}
