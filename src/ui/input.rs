//! Permission to ask. With --no-input, a question is answered as if there were no terminal.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static FORBIDDEN: AtomicBool = AtomicBool::new(false);

/// Forbids questions for the rest of this process.
pub fn forbid() {
    FORBIDDEN.store(true, Relaxed);
}

/// Returns true if the user may be asked.
pub(crate) fn is_allowed() -> bool {
    !FORBIDDEN.load(Relaxed)
}
