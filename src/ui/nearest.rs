//! "Did you mean ...?": the known name that a mistyped one is nearest to.

/// The shortest name that is looked for within a longer word, as `code` in `vscode`.
const PART: usize = 4;

/// Returns the candidate that `word` is probably meant for. Upper and lower case count as the same.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = word.to_lowercase();
    let length = typed.chars().count();
    let near = |candidate: &'a str| {
        let name = candidate.to_lowercase();
        let mistakes = strsim::osa_distance(&typed, &name);
        let contained = name.len() >= PART && typed.contains(&name) || typed.len() >= PART && name.contains(&typed);
        // A word may have one mistake for each three letters.
        (mistakes <= (length / 3).max(1) && mistakes < length || contained).then_some((mistakes, candidate))
    };
    candidates.into_iter().filter_map(near).min_by_key(|(mistakes, _)| *mistakes).map(|(_, candidate)| candidate)
}

/// Returns the beginning of a hint: the question if the nearest candidate was meant, or nothing.
pub(crate) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, candidates).map(|name| format!("did you mean `{name}`? ")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let names = ["shell", "duo", "k3s", "docker", "code", "code-insiders", "goland", "My Shell Box"];
        for (word, meant) in [
            ("dou", "duo"),
            ("Duo", "duo"),
            ("dokcer", "docker"),
            ("vscode", "code"),
            ("golang", "goland"),
            ("k3", "k3s"),
            ("my shel box", "My Shell Box"),
        ] {
            assert_eq!(nearest(word, names), Some(meant), "{word}");
        }
        for word in ["", "x", "kubernetes", "emacs"] {
            assert_eq!(nearest(word, names), None, "{word}");
        }
    }
}
