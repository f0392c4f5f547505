//! The terminal as a screen: whether it can be drawn on.

use std::io::IsTerminal;

use crate::os;

/// Returns true for a terminal that takes control sequences, such as those that move the cursor. Everything that draws
/// asks here. Without a screen it prints lines.
pub fn is_screen(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && os::terminal_takes_controls()
}
