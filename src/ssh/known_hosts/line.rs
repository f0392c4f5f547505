//! A line of a known_hosts file, read as OpenSSH reads it (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT). Pure.

use std::{borrow::Cow, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::hmac;

use super::{Whose, is_name};
use crate::ssh::host_key::HostKeyBlob;

/// The beginning of hashed names.
const HASHED: &str = "|1|";
/// Number of bytes in the salt of hashed names.
const SALT: usize = 20;
/// Longest pattern in a list of names. ssh takes a list with a longer one for no match.
const MAX_PATTERN: usize = 1023;

/// A line of the file.
pub(super) struct Line<'a> {
    /// The original line, with its line end; empty if the line is new.
    pub bytes: Cow<'a, [u8]>,
    /// The key in the line; `None` for an empty or damaged line, and for a comment.
    pub entry: Option<Entry>,
    /// True if `entry` differs from `bytes`.
    pub changed: bool,
}

/// A key and the hosts that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub marker: Marker,
    /// One name, a list of patterns, or a hashed name.
    pub names: String,
    pub key: HostKeyBlob,
    pub owner: Option<Owner>,
    /// True for a line with a comment of the user's, which a line of ours has no room for.
    pub is_commented: bool,
}

/// The use of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    None,
    /// The key signs host certificates.
    CertAuthority,
    /// The key must not be accepted.
    Revoked,
}

/// The machine that a key belongs to. Lines of other programs have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub play: String,
    pub machine: String,
    /// The number of connections that wait for their client's verdict; `None` once a client has accepted the key.
    pub waiting: Option<u32>,
}

impl Owner {
    pub(super) fn is(&self, whose: Whose<'_>) -> bool {
        self.play == whose.play && self.machine == whose.machine
    }

    fn parse(comment: &str) -> Option<Owner> {
        let (whose, waiting) = match comment.split_once('?') {
            None => (comment, None),
            Some((whose, "")) => (whose, Some(1)),
            Some((whose, count)) => (whose, Some(count.parse().ok().filter(|count| *count > 0)?)),
        };
        let (play, machine) = whose.split_once('/')?;
        (is_name(play) && is_name(machine)).then(|| Owner { play: play.into(), machine: machine.into(), waiting })
    }
}

impl Entry {
    /// Parses a line. Returns `None` if it has no key, or none that ssh would read.
    pub(super) fn parse(line: &[u8]) -> Option<Entry> {
        // A comment may have any bytes.
        let line = String::from_utf8_lossy(line);
        let mut fields = line.split_ascii_whitespace();
        let (marker, names) = match fields.next()? {
            "@revoked" => (Marker::Revoked, fields.next()?),
            "@cert-authority" => (Marker::CertAuthority, fields.next()?),
            names if names.starts_with(['@', '#']) => return None,
            names => (Marker::None, names),
        };
        let key = HostKeyBlob::from_fields(fields.next()?, fields.next()?)?;
        let (comment, more) = (fields.next(), fields.next());
        let mut entry = Entry { marker, names: names.into(), key, owner: None, is_commented: comment.is_some() };
        if marker == Marker::None && more.is_none() && entry.is_of_one_host() {
            entry.owner = comment.and_then(Owner::parse);
        }
        Some(entry)
    }

    /// Reports whether ssh would look at this line for the host `alias`.
    pub(super) fn matches(&self, alias: &str) -> bool {
        let alias = alias.to_ascii_lowercase();
        if self.names.starts_with('|') {
            return is_hash_of(&self.names, &alias);
        }
        let mut found = false;
        for pattern in self.names.split(',') {
            if pattern.len() > MAX_PATTERN {
                return false;
            }
            match pattern.strip_prefix('!') {
                Some(unwanted) if fits(unwanted, &alias) => return false,
                Some(_) => {}
                None => found |= fits(pattern, &alias),
            }
        }
        found
    }

    /// Reports whether the line names exactly one host, plainly or hashed.
    pub(super) fn is_of_one_host(&self) -> bool {
        self.names.starts_with(HASHED) || is_name(&self.names)
    }

    /// Reports whether a client has accepted the key. Another program writes its line only then.
    pub(super) fn is_proven(&self) -> bool {
        self.owner.as_ref().is_none_or(|owner| owner.waiting.is_none())
    }

    /// Reports whether the line is about this machine: it says so, or it has no owner and ssh finds it by a name of
    /// the machine.
    pub(super) fn binds(&self, whose: Whose<'_>) -> bool {
        self.marker == Marker::None
            && match &self.owner {
                Some(owner) => owner.is(whose),
                None => self.matches(whose.alias) || self.is_of_one_host() && self.matches(&whose.by_id()),
            }
    }
}

impl fmt::Display for Entry {
    /// Writes a line of ours, which has an owner and no marker.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.names, self.key.algorithm(), self.key.base64())?;
        let Some(Owner { play, machine, waiting }) = &self.owner else { return Ok(()) };
        write!(f, " {play}/{machine}")?;
        match waiting {
            None => Ok(()),
            Some(1) => f.write_str("?"),
            Some(count) => write!(f, "?{count}"),
        }
    }
}

/// Splits a file into its lines.
pub(super) fn read_lines(contents: &[u8]) -> Vec<Line<'_>> {
    let line = |bytes| Line { bytes: Cow::Borrowed(bytes), entry: Entry::parse(bytes), changed: false };
    contents.split_inclusive(|b| *b == b'\n').map(line).collect()
}

/// Joins the lines of a file.
pub(super) fn write_lines(lines: &[Line<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in lines {
        // After an edit by hand, the last line may have no line break.
        if out.last().is_some_and(|b| *b != b'\n') {
            out.push(b'\n');
        }
        match &line.entry {
            Some(entry) if line.changed => out.extend_from_slice(format!("{entry}\n").as_bytes()),
            Some(_) | None => out.extend_from_slice(&line.bytes),
        }
    }
    out
}

/// Reports whether `names` is `|1|salt|HMAC-SHA1(salt, alias)`.
fn is_hash_of(names: &str, alias: &str) -> bool {
    let parts = names.strip_prefix(HASHED).and_then(|parts| parts.split_once('|'));
    let Some((salt, hash)) = parts else { return false };
    let Some(salt) = STANDARD.decode(salt).ok().filter(|salt| salt.len() == SALT) else { return false };
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
    STANDARD.encode(hmac::sign(&key, alias.as_bytes())) == hash
}

/// Reports whether a file has a line for the host `name`, on any port. Lines for every host do not count, nor does it
/// matter that a key can be read.
pub(crate) fn names_host(contents: &[u8], name: &str) -> bool {
    contents.split(|b| *b == b'\n').any(|line| {
        let line = String::from_utf8_lossy(line);
        let mut fields = line.split_ascii_whitespace().skip_while(|field| field.starts_with('@'));
        let Some(names) = fields.next().filter(|names| !names.starts_with('#')) else { return false };
        if names.starts_with('|') {
            return is_hash_of(names, name);
        }
        let host = |pattern: &str| {
            let bare = pattern.strip_prefix('[').and_then(|rest| rest.split_once("]:"));
            bare.map_or(pattern, |(host, _)| host).to_owned()
        };
        let (denied, meant): (Vec<&str>, Vec<&str>) = names.split(',').partition(|pattern| pattern.starts_with('!'));
        let is_general = |pattern: &str| pattern.chars().all(|c| c == '*');
        meant.iter().map(|pattern| host(pattern)).any(|pattern| !is_general(&pattern) && fits(&pattern, name))
            && !denied.iter().any(|pattern| fits(&host(&pattern[1..]), name))
    })
}

/// Matches a name with a pattern of ssh: `*` is any text, `?` any character, and capitals are small letters.
pub(crate) fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // The place after the last `*`, and how much of the name that `*` covers up to.
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                star = Some((p, n));
            }
            Some(c) if *c == b'?' || c.eq_ignore_ascii_case(&name[n]) => (p, n) = (p + 1, n + 1),
            Some(_) | None => match star {
                Some((after, covered)) => {
                    (p, n) = (after, covered + 1);
                    star = Some((after, n));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// ssh-keygen is asked the same, but for lines for every host, and those for other ports.
    #[cfg(unix)]
    #[test]
    fn a_host_is_found_where_ssh_keygen_finds_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("known_hosts");
        let keygen = |args: &[&str]| {
            let output = std::process::Command::new("ssh-keygen").args(args).arg("-f").arg(&file).output().unwrap();
            output.status.success()
        };
        const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
        for (names, beside) in [
            ("my-lab", None),
            ("other,my-lab,10.0.0.1", None),
            ("my-*", None),
            ("my-*,!my-lab", None),
            ("my-lab.example,my-labs", None),
            ("@cert-authority *.example,my-lab", None),
            ("@revoked my-lab", None),
            ("# my-lab", None),
            ("[my-lab]:2222", Some(true)),
            ("@cert-authority *", Some(false)),
        ] {
            std::fs::write(&file, format!("{names} {KEY}\n")).unwrap();
            let expected = beside.unwrap_or_else(|| keygen(&["-F", "my-lab"]));
            assert_eq!(super::names_host(&std::fs::read(&file).unwrap(), "my-lab"), expected, "{names}");
        }
        std::fs::write(&file, format!("other,my-lab {KEY}\n")).unwrap();
        assert!(keygen(&["-H"]) && keygen(&["-F", "my-lab"]));
        let hashed = std::fs::read(&file).unwrap();
        assert!(hashed.starts_with(b"|1|") && super::names_host(&hashed, "my-lab"));
        assert!(!super::names_host(&hashed, "my-labs") && !super::names_host(b"", "my-lab"));
    }

    use super::{Entry, Marker, Owner, read_lines, write_lines};
    use crate::ssh::host_key::HostKeyBlob;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    /// ssh-keygen decides in which lines a name is found.
    #[cfg(unix)]
    #[test]
    fn a_line_is_found_where_ssh_keygen_finds_it() {
        use std::process::Command;
        let name = "playground-docker";
        let mut names: Vec<String> = [
            "playground-docker",
            "PLAYGROUND-Docker",
            "playground-docke?",
            "p*d*r",
            "*",
            "*x",
            "**",
            "?",
            "playground-",
            "a,playground-docker",
            "a,,playground-docker",
            "!playground-docker,*",
            "*,!play*",
            "!a,playground-docker",
            "!a",
            "[playground-docker]:22",
            "[playground-docker]:2222",
            "playground-docker.",
            "|1|AAAA|AAAA",
            "|2|a|b",
            "|1|",
            "playground-docker*",
            "play*-*-docker",
            "*docker*",
            "@revoked",
            "#playground-docker",
        ]
        .map(str::to_owned)
        .to_vec();
        names.push(format!("{},playground-docker", "x".repeat(1022)));
        names.push(format!("{},playground-docker", "x".repeat(1025)));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("known_hosts");
        let keygen = |arguments: &[&str]| Command::new("ssh-keygen").args(arguments).arg(&file).output().unwrap();
        std::fs::write(&file, format!("{name} {KEY}\n")).unwrap();
        assert!(keygen(&["-q", "-H", "-f"]).status.success());
        names.push(std::fs::read_to_string(&file).unwrap().split(' ').next().unwrap().to_owned());
        let mut found_some = 0;
        for names in names {
            let line = format!("{names} {KEY}\n");
            std::fs::write(&file, &line).unwrap();
            let found = keygen(&["-F", name, "-f"]);
            let ours = Entry::parse(line.as_bytes()).is_some_and(|entry| entry.matches(name));
            assert_eq!(ours, found.status.success(), "{names}");
            found_some += usize::from(ours);
        }
        assert!(found_some > 10);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            alias in "playground-[a-z0-9._-]{0,40}",
            play in "[0-9a-f]{24}",
            machine in "[a-zA-Z0-9][a-zA-Z0-9._-]{0,20}",
            waiting in prop::option::of(1u32..),
        ) {
            let mut fields = KEY.split(' ');
            let key = HostKeyBlob::from_fields(fields.next().unwrap(), fields.next().unwrap()).unwrap();
            let owner = Some(Owner { play, machine, waiting });
            let entry =
                Entry { marker: Marker::None, names: alias, key, owner, is_commented: true };
            prop_assert_eq!(Entry::parse(format!("{entry}\n").as_bytes()), Some(entry));
        }

        #[test]
        fn no_bytes_are_lost(contents in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(write_lines(&read_lines(&contents)), contents);
        }

        #[test]
        fn no_line_makes_it_panic(line in "[a-z@#|?/0-9]{0,9} ssh-ed25519 [A-Za-z0-9+/=]{0,90} [ -~]{0,40}") {
            if let Some(entry) = Entry::parse(line.as_bytes()) {
                prop_assert!(entry.owner.is_none_or(|owner| owner.waiting != Some(0)));
            }
        }
    }
}
