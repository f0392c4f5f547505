//! The output of a program on a machine, between marks. A login shell's startup files may print before it runs, and may
//! end the shell before it does.

use std::fmt::Write as _;

use crate::error::{Error, Kind};

/// The marks of one program's output.
pub(crate) struct Marked {
    mark: String,
}

/// The output of a program, and its exit status.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found<'a> {
    pub output: &'a [u8],
    /// `None` if the end of the output is missing.
    pub status: Option<u32>,
}

impl Marked {
    /// Chooses marks that appear nowhere else.
    pub(crate) fn new() -> Marked {
        Marked { mark: format!("labctl-{:032x}", fastrand::u128(..)) }
    }

    /// Returns a script for sh that runs `script` between the marks. Its complaints follow a mark of their own.
    pub(crate) fn script(&self, script: &str) -> String {
        let (start, end) = (self.start(), self.end());
        format!("{start}; {start} >&2\n(\n{script}\n)\n{end}\n")
    }

    /// Returns a command that runs `script` with sh between the marks. Every login shell reads it alike, because the
    /// script has no single quote, backslash, exclamation mark or line break.
    pub(crate) fn command(&self, script: &str) -> String {
        debug_assert!(!script.contains(['\'', '\\', '!', '\n']), "{script}");
        format!("/bin/sh -c '{}; ({script}); {}'", self.start(), self.end())
    }

    /// Returns a command that prints the first mark and becomes `program`.
    pub(crate) fn becoming(&self, program: &str) -> String {
        self.ending_in(&format!("exec {program}"))
    }

    /// Returns a command that prints the first mark and does what `script` does.
    pub(crate) fn ending_in(&self, script: &str) -> String {
        debug_assert!(!script.contains(['\'', '\\', '!', '\n']), "{script}");
        format!("/bin/sh -c '{}; {script}'", self.start())
    }

    /// Returns the statement that prints the first mark, without quotes. The mark itself stands nowhere in it, because a
    /// shell may print what it runs.
    pub(crate) fn start(&self) -> String {
        let (head, tail) = self.mark.split_at(self.mark.len() / 2);
        format!("printf %s%s. {head} {tail}")
    }

    fn end(&self) -> String {
        let (head, tail) = self.mark.split_at(self.mark.len() / 2);
        format!("printf %s%s=%s. {head} {tail} $?")
    }

    /// Returns true if `text` ends with the first mark.
    pub(crate) fn is_started(&self, text: &[u8]) -> bool {
        text.strip_suffix(b".").is_some_and(|text| text.ends_with(self.mark.as_bytes()))
    }

    /// Returns the part of `text` after the first mark; `None` if there is none.
    pub(crate) fn after_start<'a>(&self, text: &'a [u8]) -> Option<&'a [u8]> {
        let start = format!("{}.", self.mark);
        find(text, start.as_bytes()).map(|at| &text[at + start.len()..])
    }

    /// Finds the output in all that came.
    pub(crate) fn find<'a>(&self, text: &'a [u8]) -> Option<Found<'a>> {
        let rest = self.after_start(text)?;
        let end = format!("{}=", self.mark);
        let Some(at) = find(rest, end.as_bytes()) else { return Some(Found { output: rest, status: None }) };
        let digits = rest[at + end.len()..].split(|b| *b == b'.').next().unwrap_or_default();
        let status = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        Some(Found { output: &rest[..at], status })
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// Returns the error for a login shell that ended without running the command. `said` is its output, if it had any.
pub(crate) fn not_run(whose: &str, said: &str) -> Error {
    let said = if said.is_empty() { String::new() } else { format!("; it says: {said}") };
    Error::new(Kind::Program, format!("the login shell of {whose} ended before it ran the command{said}"))
        .with_hint("check its startup files, such as ~/.bashrc: one of them may exit or fail")
}

/// Quotes a word for sh.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@+%,~".contains(c);
    if !word.is_empty() && word.chars().all(plain) && !word.starts_with('~') {
        return word.to_owned();
    }
    let mut quoted = String::from("'");
    for c in word.chars() {
        match c {
            '\'' => quoted.push_str("'\\''"),
            // Cannot fail, because it writes to memory.
            c => drop(write!(quoted, "{c}")),
        }
    }
    quoted + "'"
}

#[cfg(all(test, unix))]
mod tests {
    use std::{io::Write, process::Command};

    use proptest::prelude::*;

    use super::{Found, Marked, quote};

    /// Each shell that a user may have here runs the command.
    #[test]
    fn the_output_is_found_behind_every_login_shell() {
        for shell in ["sh", "bash", "dash", "zsh", "fish", "tcsh", "busybox sh"] {
            let words: Vec<&str> = shell.split(' ').collect();
            if which::which(words[0]).is_err() {
                continue;
            }
            let marked = Marked::new();
            let command = marked.command("printf \"a b\"; printf complaint >&2; exit 7");
            let noisy = format!("echo Welcome; {command}; echo Goodbye");
            let out = Command::new(words[0]).args(&words[1..]).args(["-c", &noisy]).output().unwrap();
            assert_eq!(marked.find(&out.stdout), Some(Found { output: b"a b", status: Some(7) }), "{shell}: {out:?}");
            let out =
                Command::new(words[0]).args(&words[1..]).args(["-c", &marked.becoming("echo x")]).output().unwrap();
            assert_eq!(marked.after_start(&out.stdout), Some(&b"x\n"[..]), "{shell}: {out:?}");
        }
    }

    #[test]
    fn a_script_has_its_own_status_and_complaints() {
        let marked = Marked::new();
        let mut sh = Command::new("sh")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let script = format!("echo noise; echo noise >&2\n{}", marked.script("echo 'it is'\necho why >&2\nexit 3"));
        sh.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let out = sh.wait_with_output().unwrap();
        assert_eq!(marked.find(&out.stdout), Some(Found { output: b"it is\n", status: Some(3) }));
        assert_eq!(marked.after_start(&out.stderr), Some(&b"why\n"[..]));
        assert_eq!(marked.find(b"Welcome"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_quoted_word_is_one_word(word in "[ -~é\n]{0,20}") {
            let script = format!("printf '%s' {}", quote(&word));
            let said = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            prop_assert_eq!(String::from_utf8(said.stdout).unwrap(), word);
        }
    }
}
