//! Secrets that must not be shown: credentials and tokens that this process has learnt. Every error and every line of a
//! log passes through [`hidden`], so that not even a platform that repeats a token in its own words gets it shown.

use std::{
    borrow::Cow,
    sync::{PoisonError, RwLock},
};

/// Shorter ones are words that occur by chance, such as the embedded platform's `local`.
const MIN: usize = 8;
/// The word that is shown instead.
const MASK: &str = "[hidden]";

static KNOWN: RwLock<Vec<String>> = RwLock::new(Vec::new());

/// Keeps `secret` from being shown from now on.
pub(crate) fn keep(secret: &str) {
    if secret.len() < MIN {
        return;
    }
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    if !known.iter().any(|other| other == secret) {
        known.push(secret.to_owned());
        // One may be part of another, such as a token in a login page's address.
        known.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    }
}

/// `text` without any secret.
pub(crate) fn hidden(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    for secret in &*KNOWN.read().unwrap_or_else(PoisonError::into_inner) {
        if text.contains(secret) {
            text = Cow::Owned(text.replace(secret, MASK));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{hidden, keep};

    #[test]
    fn what_is_known_is_hidden_and_words_are_not() {
        keep("planted-token");
        keep("https://a.example/login/planted-token");
        keep("local");
        assert_eq!(hidden("see https://a.example/login/planted-token"), "see [hidden]");
        assert_eq!(hidden("planted-token, planted-token"), "[hidden], [hidden]");
        assert_eq!(hidden("a local thing"), "a local thing");
    }
}
