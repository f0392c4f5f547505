//! The output of commands as one text, with all variable parts masked, for the files under tests/golden.

use expect_test::ExpectFile;

use super::{PROGRAM, Said, World, labs::user};

/// A sequence of commands, each with its standard output, standard error and exit status.
pub struct Transcript<'a> {
    world: &'a World,
    text: String,
}

impl<'a> Transcript<'a> {
    pub fn new(world: &'a World) -> Transcript<'a> {
        Transcript { world, text: String::new() }
    }

    /// Runs the program in this world, and records its output.
    pub fn run(&mut self, args: &[&str]) {
        self.note(args, &self.world.run(args));
    }

    pub fn note(&mut self, args: &[&str], said: &Said) {
        self.text += &format!("$ labctl-ssh-proxy {}\n{}", args.join(" "), said.out);
        if !said.err.is_empty() {
            self.text += &format!("------- stderr -------\n{}", said.err);
        }
        self.text += &format!("[exit status: {}]\n\n", said.code());
    }

    #[track_caller]
    pub fn is(&self, expected: ExpectFile) {
        assert!(!self.text.contains("panicked") && !self.text.contains('\x1b'), "{}", self.text);
        expected.assert_eq(&numbered(&masked(self.world, &self.text)));
    }
}

/// Replaces everything in `text` that differs between computers or runs with placeholders: paths, addresses, versions,
/// keys, times, speeds, the user.
pub fn masked(world: &World, text: &str) -> String {
    let mut text = text.replace(&world.home().display().to_string(), "HOME").replace(PROGRAM, "PROGRAM");
    text = text.replace(&format!("\"name\": \"{}\"", user()), "\"name\": \"USER\"");
    let digit = |c: char| c.is_ascii_digit();
    let letter = |c: char| c.is_ascii_alphanumeric();
    let line = |c: char| !matches!(c, '\n' | '"');
    let key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/');
    for (start, rest, placeholder) in [
        ("127.0.0.1:", &digit as &dyn Fn(char) -> bool, "ADDRESS"),
        // The C library's text depends on whether there is a network.
        ("dns error: ", &line, "dns error: WHY"),
        ("/tmp/.labctl-ssh-proxy-", &letter, "/tmp/.labctl-ssh-proxy-XXXXXX"),
        ("OpenSSH_", &line, "OpenSSH_VERSION"),
        ("SHA256:", &key, "SHA256:KEY"),
        ("\"createdAt\": \"", &line, "\"createdAt\": \"TIME"),
        ("\"expiresIn\": ", &digit, "\"expiresIn\": SECONDS"),
    ] {
        let mut parts = text.split(start);
        let mut replaced = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            replaced += placeholder;
            replaced += part.trim_start_matches(rest);
        }
        text = replaced;
    }
    for unit in [" ms", " MiB/s"] {
        let mut parts = text.split(unit).collect::<Vec<_>>();
        let last = parts.pop().unwrap_or_default();
        let number = |c: char| c.is_ascii_digit() || c == '.';
        text =
            parts.iter().map(|part| part.trim_end_matches(number).to_owned() + "N" + unit).collect::<String>() + last;
    }
    text.replace(concat!(env!("CARGO_PKG_VERSION"), ", PROGRAM"), "VERSION, PROGRAM")
}

/// Numbers the ids of playgrounds in `text`, and the titles derived from them, in order of appearance. All keep their
/// length, so that the columns of tables do not move.
fn numbered(text: &str) -> String {
    let mut numbered = text.to_owned();
    let mut ids: Vec<&str> = Vec::new();
    for word in text.split(|c: char| !c.is_ascii_alphanumeric()) {
        if word.len() == 24 && word.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) && !ids.contains(&word) {
            ids.push(word);
        }
    }
    let number = |n: usize, len: usize| (n + 1).to_string().repeat(len);
    assert!(ids.len() < 10);
    for (n, id) in ids.iter().enumerate() {
        numbered = numbered.replace(id, &number(n, 24));
    }
    for (n, id) in ids.iter().enumerate() {
        numbered = numbered.replace(&format!("-{}", &id[..4]), &format!("-{}", number(n, 4)));
    }
    numbered
}
