//! Foreign text as one harmless line.

/// Longest line, in characters.
const MAX_LINE: usize = 400;

/// The text in one line: control characters become spaces, marks that turn its direction go, and too long an end is cut.
pub(crate) fn line(text: &str) -> String {
    let turns = |one: char| matches!(one, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let kept = text.trim().chars().filter(|&one| !turns(one));
    let cleaned: String = kept.map(|one| if one.is_control() { ' ' } else { one }).collect();
    match cleaned.char_indices().nth(MAX_LINE) {
        Some((end, _)) => format!("{}...", &cleaned[..end]),
        None => cleaned,
    }
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn no_line_moves_a_cursor_or_turns_its_text() {
        assert_eq!(line(" a\x1b[2J\nb\u{9b}\u{202e}c\t"), "a [2J b c");
        assert_eq!(line(&"é".repeat(500)), format!("{}...", "é".repeat(400)));
    }
}
