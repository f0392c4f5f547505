//! The text of a machine for a terminal. It may be coloured, and does nothing else there: no movement of the cursor, no
//! title, no question that the terminal would answer with keys.

use crate::error::is_format;

/// The longest parameters of a colour.
const LONGEST: usize = 64;

/// A text that comes in pieces, made harmless. A piece may end within a control sequence.
#[derive(Debug)]
pub(crate) struct Foreign {
    /// True where colour is wanted.
    paints: bool,
    /// True since the text has coloured something.
    is_painted: bool,
    state: State,
}

#[derive(Debug, PartialEq)]
enum State {
    Text,
    /// After a carriage return, which ends a line, alone or with a line feed.
    Return,
    /// After ESC.
    Escape,
    /// In a control sequence, with its parameters.
    Control(String),
    /// In a string for the terminal, such as a title; `true` after an ESC that may end it.
    String(bool),
}

impl Foreign {
    pub(crate) fn new(paints: bool) -> Foreign {
        Foreign { paints, is_painted: false, state: State::Text }
    }

    /// The harmless form of the next piece.
    pub(crate) fn piece(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            self.take(c, &mut out);
        }
        out
    }

    /// Ends the text: its colour goes no further.
    pub(crate) fn end(&mut self) -> &'static str {
        self.state = State::Text;
        if std::mem::take(&mut self.is_painted) { "\x1b[0m" } else { "" }
    }

    fn take(&mut self, c: char, out: &mut String) {
        let state = std::mem::replace(&mut self.state, State::Text);
        if state == State::Return {
            // Some consoles write several of them.
            if c == '\r' {
                self.state = State::Return;
                return;
            }
            out.push('\n');
            if c == '\n' {
                return;
            }
        }
        // A broken sequence costs the rest of its line at most.
        if c == '\n' || state == State::Text || state == State::Return {
            return self.text(c, out);
        }
        self.state = match (state, c) {
            (State::String(true), '\\') => State::Text,
            (State::Escape | State::String(true), _) => match c {
                '[' => State::Control(String::new()),
                ']' | 'P' | 'X' | '^' | '_' => State::String(false),
                ' '..='/' | '\x1b' => State::Escape,
                _ => State::Text,
            },
            (State::Control(_), '\x1b') => State::Escape,
            (State::Control(parameters), 'm') => {
                self.paint(&parameters, out);
                State::Text
            }
            (State::Control(_), '@'..='~') => State::Text,
            (State::Control(mut parameters), _) => {
                if parameters.len() <= LONGEST {
                    parameters.push(c);
                }
                State::Control(parameters)
            }
            (State::String(false), '\x07' | '\u{9c}') => State::Text,
            (State::String(false), c) => State::String(c == '\x1b'),
            (State::Text | State::Return, _) => State::Text,
        };
    }

    fn text(&mut self, c: char, out: &mut String) {
        match c {
            '\n' | '\t' => out.push(c),
            '\r' => self.state = State::Return,
            '\x1b' => self.state = State::Escape,
            '\u{9b}' => self.state = State::Control(String::new()),
            '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}' => self.state = State::String(false),
            c if c.is_control() || is_format(c) => {}
            c => out.push(c),
        }
    }

    fn paint(&mut self, parameters: &str, out: &mut String) {
        let is_color = parameters.bytes().all(|byte| byte.is_ascii_digit() || byte == b';' || byte == b':');
        if self.paints && is_color && parameters.len() <= LONGEST {
            self.is_painted = true;
            out.push_str(&format!("\x1b[{parameters}m"));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Foreign;

    fn harmless(text: &str) -> String {
        let mut foreign = Foreign::new(true);
        foreign.piece(text) + foreign.end()
    }

    #[test]
    fn only_text_and_colour_come_through() {
        for (text, shown) in [
            ("[    0.1] Linux\r\n\tnext\n", "[    0.1] Linux\n\tnext\n"),
            ("\r\r\n12%\r34%\rdone\r\n", "\n12%\n34%\ndone\n"),
            ("[\x1b[0;32m  OK  \x1b[0m] up", "[\x1b[0;32m  OK  \x1b[0m] up\x1b[0m"),
            ("a\x1b[2J\x1b[1;1H\x1b[?25l\x1b[6nb\x1bcc", "abc"),
            ("a\x1b]0;title\x07b\x1b]52;c;ZXZpbA==\x1b\\c\x1bP+q544e\x1b\\d", "abcd"),
            ("a\u{9b}2Jb\u{9d}0;title\u{9c}c\u{202e}\u{8}\u{0}", "abc"),
            ("a\x1b]0;never ends\nb", "a\nb"),
            ("a\x1b(Bb\x1b[>0;1mc\x1b[31\nd", "abc\nd"),
            ("\x1b[38;5;9mx", "\x1b[38;5;9mx\x1b[0m"),
        ] {
            assert_eq!(harmless(text), shown, "{text:?}");
        }
        let mut plain = Foreign::new(false);
        assert_eq!(plain.piece("\x1b[31mred\x1b[0m") + plain.end(), "red");
        assert_eq!(harmless(&format!("\x1b[{}mx", "1;".repeat(100))), "x");
    }

    proptest! {
        #[test]
        fn nothing_drives_the_terminal_however_it_is_cut(
            text in "[\\x00-\\x7f]{0,40}|(\\x1b|\\[|\\]|[0-9;m]|\\u{9b}|\\u{9d}|\\x07|\\\\|\\r|\\n|[a-z]){0,40}",
            cut in 0_usize..40,
        ) {
            let shown = harmless(&text);
            let mut rest = shown.as_str();
            while let Some((before, behind)) = rest.split_once('\x1b') {
                prop_assert!(!before.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{shown:?}");
                let (parameters, text) = behind.strip_prefix('[').and_then(|behind| behind.split_once('m')).unwrap();
                prop_assert!(parameters.chars().all(|c| c.is_ascii_digit() || c == ';' || c == ':'), "{shown:?}");
                rest = text;
            }
            prop_assert!(!rest.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{shown:?}");
            let at = text.char_indices().map(|(i, _)| i).nth(cut).unwrap_or(text.len());
            let mut pieces = Foreign::new(true);
            prop_assert_eq!(pieces.piece(&text[..at]) + &pieces.piece(&text[at..]) + pieces.end(), shown);
        }
    }
}
