//! Foreign text as one harmless line.

/// Longest line, in characters.
const MAX_LINE: usize = 400;

/// The text in one line: control characters become spaces, and what is too long is cut.
pub(crate) fn line(text: &str) -> String {
    let cleaned: String = text.trim().chars().map(|one| if one.is_control() { ' ' } else { one }).collect();
    match cleaned.char_indices().nth(MAX_LINE) {
        Some((end, _)) => format!("{}...", &cleaned[..end]),
        None => cleaned,
    }
}
