//! Colour: what the user wants, and whether a stream gets it. Only colour: a screen may be drawn on without it, which is
//! [`crate::ui::screen`]'s question.

use std::{env, io::IsTerminal, sync::OnceLock};

use crate::ui::screen::is_screen;

/// The wish for colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

/// The wish of this run's command line.
static CHOSEN: OnceLock<Color> = OnceLock::new();

/// Notes the wish of the command line, for commands that print what may be coloured.
pub fn choose(color: Color) {
    // It is noted once, at the start.
    let _ = CHOSEN.set(color);
}

/// The wish of the command line.
pub(crate) fn chosen() -> Color {
    CHOSEN.get().copied().unwrap_or_default()
}

impl Color {
    /// Returns true if a stream gets colour. An option outranks the environment, in which NO_COLOR (no-color.org) and
    /// CLICOLOR_FORCE (bixense.com/clicolors) count if they are not empty.
    pub fn shows(self, stream: &impl IsTerminal) -> bool {
        let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_forced = || is_set("CLICOLOR_FORCE") && env::var_os("CLICOLOR_FORCE").is_some_and(|value| value != "0");
        match self {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => !is_set("NO_COLOR") && (is_forced() || is_screen(stream)),
        }
    }
}

/// Returns the text of an error as standard error gets it. On Windows only if it was asked for, because an older console
/// shows the sequences as they are; clap writes to it in another way.
#[must_use]
pub fn error(text: &str, color: Color) -> String {
    let shows = color.shows(&std::io::stderr()) && (cfg!(unix) || color == Color::Always);
    if shows { painted(text) } else { text.to_owned() }
}

/// Returns the text of an error with its first words, up to the colon, and its hint's in colour, as clap has them.
fn painted(text: &str) -> String {
    let paint = |line: &str, first: &str, style: &str| match line.strip_prefix(first) {
        Some(rest) => format!("\x1b[{style}m{first}\x1b[0m{rest}"),
        None => line.to_owned(),
    };
    let line = |line: &str| paint(&paint(line, "labctl-ssh-proxy:", "1;31"), "hint:", "32");
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::painted;

    #[test]
    fn the_first_words_of_an_error_are_painted() {
        let error = painted("labctl-ssh-proxy: no\nhint: do it");
        assert_eq!(error, "\x1b[1;31mlabctl-ssh-proxy:\x1b[0m no\n\x1b[32mhint:\x1b[0m do it");
        assert_eq!(painted("Nothing was erased."), "Nothing was erased.");
    }
}
