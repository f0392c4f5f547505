//! The terminal as a screen: whether it can be drawn on, and pages that take the place of each other there.

use std::io::{self, IsTerminal};

use crate::{os, ui::out};

/// Returns true for a terminal that takes control sequences, such as those that move the cursor. Everything that draws
/// asks here. Without a screen it prints lines.
pub fn is_screen(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && os::terminal_takes_controls()
}

/// Pages of text on standard output: on a screen each takes the place of the one before, elsewhere it stands below it.
pub(crate) struct Pages {
    terminal: bool,
    last: String,
}

impl Pages {
    /// Takes the screen, if there is one.
    pub(crate) fn new() -> Pages {
        let terminal = is_screen(&io::stdout());
        if terminal {
            // The alternate screen, so that the user's returns as it was; and no cursor.
            control("\x1b[?1049h\x1b[?25l");
        }
        Pages { terminal, last: String::new() }
    }

    /// The text to write for a page with these lines, which is empty if it is the last one.
    pub(crate) fn show(&mut self, lines: Vec<String>) -> String {
        let text = if self.terminal { page(lines) } else { lines.join("\n") + "\n\n" };
        if text == self.last {
            return String::new();
        }
        self.last.clone_from(&text);
        text
    }
}

/// The lines on a screen of their own, cut to what fits: a line that wraps or scrolls would spoil the next drawing.
fn page(mut lines: Vec<String>) -> String {
    let (rows, columns) = console::Term::stdout().size();
    let (rows, columns) = (usize::from(rows).max(2), usize::from(columns));
    if lines.len() > rows {
        let hidden = lines.len() - (rows - 1);
        lines.truncate(rows - 1);
        lines.push(format!("... {hidden} more lines"));
    }
    let lines: Vec<String> =
        lines.iter().map(|line| format!("{}\x1b[K", console::truncate_str(line, columns, "…"))).collect();
    format!("\x1b[H{}\x1b[J", lines.join("\r\n"))
}

fn control(sequence: &str) {
    // A terminal that is gone needs no repair.
    let _ = out::write(sequence);
}

impl Drop for Pages {
    fn drop(&mut self) {
        if self.terminal {
            control("\x1b[?25h\x1b[?1049l");
        }
    }
}
