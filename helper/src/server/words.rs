//! A command line without a shell: its words, by the shell's rules of quoting (POSIX, 2.2). Nothing is expanded.

use std::{ffi::OsString, os::unix::ffi::OsStringExt};

/// The reason why a line is no program with arguments.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It ends within quotes.
    Unfinished,
    /// It has a character that only a shell gives its meaning.
    Shells(char),
}

/// The words of a line. What only a shell can do is refused, because a program would take it for an argument.
pub(super) fn split(line: &[u8]) -> Result<Vec<OsString>, Wrong> {
    let mut words = Vec::new();
    // Quotes make a word even of nothing.
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = line.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' => words.extend(word.take()),
            // Empty lines around a command are usual.
            b'\n' if word.is_none() && words.is_empty() => {}
            b'\n' => {
                words.extend(word.take());
                if bytes.clone().any(|byte| !byte.is_ascii_whitespace()) {
                    return Err(Wrong::Shells('\n'));
                }
            }
            b'\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match bytes.next().ok_or(Wrong::Unfinished)? {
                        b'\'' => break,
                        byte => word.push(byte),
                    }
                }
            }
            b'"' => {
                let word = word.get_or_insert_default();
                loop {
                    match bytes.next().ok_or(Wrong::Unfinished)? {
                        b'"' => break,
                        b'\\' => match bytes.next().ok_or(Wrong::Unfinished)? {
                            b'\n' => {}
                            escaped @ (b'$' | b'`' | b'"' | b'\\') => word.push(escaped),
                            other => word.extend([b'\\', other]),
                        },
                        byte @ (b'$' | b'`') => return Err(Wrong::Shells(byte.into())),
                        byte => word.push(byte),
                    }
                }
            }
            b'\\' => match bytes.next() {
                Some(b'\n') => {}
                Some(escaped) => word.get_or_insert_default().push(escaped),
                None => word.get_or_insert_default().push(b'\\'),
            },
            b';' | b'&' | b'|' | b'<' | b'>' | b'(' | b')' | b'$' | b'`' | b'*' | b'?' | b'[' => {
                return Err(Wrong::Shells(byte.into()));
            }
            b'#' | b'~' if word.is_none() => return Err(Wrong::Shells(byte.into())),
            byte => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    Ok(words.into_iter().map(OsString::from_vec).collect())
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, os::unix::ffi::OsStringExt, process::Command};

    use proptest::prelude::{ProptestConfig, prop_assert, prop_assert_eq, proptest};

    use super::{Wrong, split};

    /// The words that the computer's own shell makes of a line; `None` for a line that it does not take.
    fn by_sh(line: &str) -> Option<Vec<OsString>> {
        // A built-in command, so that no program is called by accident.
        let script = format!("printf '%s\\0' {line}");
        let output = Command::new("/bin/sh").args(["-fc", &script]).env_clear().output().unwrap();
        let words = output.stdout.strip_suffix(b"\0").unwrap_or(&output.stdout).split(|byte| *byte == 0);
        output.status.success().then(|| words.map(|word| OsString::from_vec(word.to_vec())).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn words_are_those_of_a_shell(line in r#"a[ab \t'"\\$={}é!^#~]{0,12}"#) {
            match split(line.as_bytes()) {
                Ok(words) => prop_assert_eq!(Some(words), by_sh(&line)),
                Err(Wrong::Unfinished) => {}
                Err(Wrong::Shells(c)) => prop_assert!(line.contains(c)),
            }
        }

        #[test]
        fn any_bytes_are_read(line in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)) {
            let _ = split(&line);
        }
    }

    #[test]
    fn quotes_are_a_shells() {
        let words = |line: &str| split(line.as_bytes());
        let are = |words: &[&str]| Ok(words.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(
            words(r#" app  --name 'a b' "c \"d\" \e" f\ g '' "#),
            are(&["app", "--name", "a b", "c \"d\" \\e", "f g", ""])
        );
        assert_eq!(words("\napp\n"), are(&["app"]));
        assert_eq!(words("app '$HOME' \"*\" a=b a~b a#b"), are(&["app", "$HOME", "*", "a=b", "a~b", "a#b"]));
        assert_eq!(words(""), are(&[]));
        assert_eq!(words("app 'a"), Err(Wrong::Unfinished));
        for (line, c) in [("cd /app && app", '&'), ("app *", '*'), ("app $X", '$'), ("app \"$X\"", '$'), ("a\nb", '\n')]
        {
            assert_eq!(words(line), Err(Wrong::Shells(c)), "{line}");
        }
    }
}
