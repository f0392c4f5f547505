//! Our own known_hosts file, with the host keys of each machine of each playground.
//!
//! Our lines have the form `<host alias> <key type> <base64> <play id>/<machine>`. For ssh, the last field is a
//! comment. For us, it names the key's owner, regardless of the alias. A line is provisional as long as no client has
//! accepted its key. It then ends with `?` and the number of connections that wait for their client's verdict:
//! `.../machine?2`. A provisional line lets ssh connect, but does not bind later connections.
//!
//! A key is compared with every proven line of its machine. We never add a second line of the same type, because ssh
//! would accept either. Other lines are kept byte for byte.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Kind, Result},
    files::{self, Lock, write_private},
    ssh::host_key::HostKeyBlob,
};

/// Our known_hosts file.
#[derive(Clone, Debug)]
pub struct KnownHosts {
    path: PathBuf,
}

/// A machine, and the name by which ssh reaches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whose<'a> {
    /// The host name for ssh: `playground-<id>`, `playground-docker`, ...
    pub alias: &'a str,
    /// The id of the play.
    pub play: &'a str,
    /// The machine's name in the play.
    pub machine: &'a str,
}

/// The result of [`KnownHosts::check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a learnt key must be confirmed or withdrawn"]
pub enum Verdict {
    /// A client has accepted this key before.
    Known,
    /// The key is new. Its line is provisional until [`KnownHosts::confirm`] or [`KnownHosts::withdraw`].
    Learnt,
}

impl KnownHosts {
    /// Uses the file at `path`, which need not exist.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        KnownHosts { path: path.into() }
    }

    /// Returns the file's path, for UserKnownHostsFile.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Compares a machine's key with the record, and makes sure that ssh finds a line for it. Lines of the alias for
    /// another play are removed. A known and proven key costs only one read of the file.
    ///
    /// # Errors
    /// [`Kind::HostKey`] when another key of this type is proven for the machine. The file is then unchanged.
    /// [`Kind::File`] when the file cannot be read or written.
    pub fn check(&self, whose: Whose<'_>, key: &HostKeyBlob) -> Result<Verdict> {
        check_names(whose)?;
        self.edit(|lines| self.record(lines, whose, key, false))
    }

    /// Marks a key as proven, after the client has accepted it (its NEWKEYS passed) or our own client has verified its
    /// signature. Applies to all lines with this key and machine, whatever their alias. Adds a line if there is none.
    ///
    /// # Errors
    /// As [`KnownHosts::check`].
    pub fn confirm(&self, whose: Whose<'_>, key: &HostKeyBlob) -> Result<()> {
        check_names(whose)?;
        self.edit(|lines| self.record(lines, whose, key, true)).map(|_| ())
    }

    /// Reverts [`Verdict::Learnt`] for a connection that ended before its client's verdict. Removes the provisional
    /// line, unless another connection waits on it or has confirmed it.
    ///
    /// # Errors
    /// [`Kind::File`] when the file cannot be read or written.
    pub fn withdraw(&self, whose: Whose<'_>, key: &HostKeyBlob) -> Result<()> {
        self.edit(|lines| {
            lines.retain_mut(|line| match &mut line.ours {
                Some(ours) if ours.is_of(whose) && ours.alias == whose.alias && ours.key == *key => {
                    line.changed |= ours.waiting.is_some();
                    ours.waiting = ours.waiting.map(|waiting| waiting - 1);
                    ours.waiting != Some(0)
                }
                Some(_) | None => true,
            });
            Ok(())
        })
    }

    /// Removes all lines of a destroyed playground, whatever their alias.
    ///
    /// # Errors
    /// [`Kind::File`] when the file cannot be read or written.
    pub fn forget_play(&self, play: &str) -> Result<()> {
        self.edit(|lines| {
            lines.retain(|line| line.ours.as_ref().is_none_or(|ours| ours.play != play));
            Ok(())
        })
    }

    /// Returns the types of the proven keys that ssh finds for this machine under this alias.
    ///
    /// # Errors
    /// [`Kind::File`] when the file cannot be read.
    pub fn knows(&self, whose: Whose<'_>) -> Result<Vec<String>> {
        let contents = self.read()?;
        Ok(read_lines(&contents)
            .into_iter()
            .filter_map(|line| line.ours)
            .filter(|ours| ours.is_of(whose) && ours.alias == whose.alias && ours.waiting.is_none())
            .map(|ours| ours.key.algorithm().to_owned())
            .collect())
    }

    /// Updates the lines for `key`, which a client has `accepted` or for which one more connection awaits a verdict.
    fn record(
        &self,
        lines: &mut Vec<Line<'_>>,
        whose: Whose<'_>,
        key: &HostKeyBlob,
        accepted: bool,
    ) -> Result<Verdict> {
        let same_type = |ours: &Ours| ours.is_of(whose) && ours.key.algorithm() == key.algorithm();
        let of_machine = || lines.iter().filter_map(|line| line.ours.as_ref()).filter(|ours| same_type(ours));
        let other: Vec<&Ours> = of_machine().filter(|ours| ours.waiting.is_none() && ours.key != *key).collect();
        if let Some(first) = other.first() {
            let aliases = other.iter().map(|ours| &*ours.alias);
            return Err(changed(&self.path, whose, &first.key, key, aliases));
        }
        let proven = accepted || of_machine().any(|ours| ours.waiting.is_none());
        // Remove lines of this alias for other machines, and unproven other keys of this type.
        lines.retain(|line| {
            line.ours.as_ref().is_none_or(|ours| {
                let stale = ours.alias == whose.alias && !ours.is_of(whose);
                !stale && (!same_type(ours) || ours.key == *key)
            })
        });
        let mut found = false;
        for line in lines.iter_mut() {
            let Some(ours) = line.ours.as_mut().filter(|ours| same_type(ours)) else { continue };
            let here = ours.alias == whose.alias;
            let now = match ours.waiting {
                None => None,
                Some(_) if proven => None,
                Some(others) if here => Some(others.saturating_add(1)),
                Some(others) => Some(others),
            };
            found |= here;
            line.changed |= now != ours.waiting;
            ours.waiting = now;
        }
        if !found {
            let ours = Ours {
                alias: whose.alias.into(),
                key: key.clone(),
                play: whose.play.into(),
                machine: whose.machine.into(),
                waiting: (!proven).then_some(1),
            };
            lines.push(Line { bytes: &[], ours: Some(ours), changed: true });
        }
        Ok(if proven { Verdict::Known } else { Verdict::Learnt })
    }

    /// Applies `change` to the lines. The first pass only checks for changes. If there are any, it is repeated under
    /// the lock.
    fn edit<T>(&self, change: impl Fn(&mut Vec<Line<'_>>) -> Result<T>) -> Result<T> {
        let attempt = || -> Result<(T, Option<Vec<u8>>)> {
            let contents = self.read()?;
            let mut lines = read_lines(&contents);
            let result = change(&mut lines)?;
            let new = write_lines(&lines);
            Ok((result, (new != contents).then_some(new)))
        };
        if let (result, None) = attempt()? {
            return Ok(result);
        }
        let _lock = Lock::acquire(&self.path)?;
        let (result, new) = attempt()?;
        if let Some(new) = new {
            write_private(&self.path, &new)?;
        }
        Ok(result)
    }

    /// Reads the file, or returns nothing if it does not exist. It need not be UTF-8, because the user may have edited
    /// it.
    fn read(&self) -> Result<Vec<u8>> {
        files::read(&self.path).map(Option::unwrap_or_default).map_err(|e| Error::file("read", &self.path, &e))
    }
}

/// Returns the error for a key that differs from the proven one.
fn changed<'a>(
    path: &Path,
    Whose { play, machine, .. }: Whose<'_>,
    old: &HostKeyBlob,
    new: &HostKeyBlob,
    aliases: impl Iterator<Item = &'a str>,
) -> Error {
    let path = path.display();
    let commands: Vec<String> = aliases.map(|alias| format!("ssh-keygen -f \"{path}\" -R {alias}")).collect();
    Error::new(
        Kind::HostKey,
        format!(
            "machine {machine} of playground {play} presents the {} host key {}, but the key on record is {} in {path}",
            new.algorithm(),
            new.fingerprint(),
            old.fingerprint(),
        ),
    )
    .with_hint(format!(
        "an attacker may be intercepting the connection, or the machine has new keys; if you know that it has, remove \
         the old ones with `{}`; otherwise `destroy` the playground and start another",
        commands.join("; ")
    ))
}

/// A line of the file.
struct Line<'a> {
    /// The original line, with its line end; empty if the line is new.
    bytes: &'a [u8],
    /// The parsed line, if it is ours.
    ours: Option<Ours>,
    /// True if `ours` differs from `bytes`.
    changed: bool,
}

/// The contents of a line of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ours {
    alias: String,
    key: HostKeyBlob,
    play: String,
    machine: String,
    /// The number of connections that wait for their client's verdict; `None` once a client has accepted the key.
    waiting: Option<u32>,
}

impl Ours {
    /// Parses a line. Returns `None` if it is not ours or is damaged.
    fn parse(line: &[u8]) -> Option<Ours> {
        let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
        let (alias, algorithm, base64, whose) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let (whose, waiting) = match whose.split_once('?') {
            None => (whose, None),
            Some((whose, "")) => (whose, Some(1)),
            Some((whose, count)) => (whose, Some(count.parse().ok().filter(|count| *count > 0)?)),
        };
        let (play, machine) = whose.split_once('/')?;
        let fits = fields.next().is_none() && [alias, play, machine].into_iter().all(is_name);
        let key = HostKeyBlob::from_fields(algorithm, base64)?;
        fits.then(|| Ours { alias: alias.into(), key, play: play.into(), machine: machine.into(), waiting })
    }

    fn is_of(&self, whose: Whose<'_>) -> bool {
        self.play == whose.play && self.machine == whose.machine
    }
}

impl fmt::Display for Ours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ours { alias, key, play, machine, waiting } = self;
        write!(f, "{alias} {} {} {play}/{machine}", key.algorithm(), key.base64())?;
        match waiting {
            None => Ok(()),
            Some(1) => f.write_str("?"),
            Some(count) => write!(f, "?{count}"),
        }
    }
}

fn read_lines(contents: &[u8]) -> Vec<Line<'_>> {
    let line = |bytes| Line { bytes, ours: Ours::parse(bytes), changed: false };
    contents.split_inclusive(|b| *b == b'\n').map(line).collect()
}

fn write_lines(lines: &[Line<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in lines {
        // After an edit by hand, the last line may have no line break.
        if out.last().is_some_and(|b| *b != b'\n') {
            out.push(b'\n');
        }
        match &line.ours {
            Some(ours) if line.changed => out.extend_from_slice(format!("{ours}\n").as_bytes()),
            Some(_) | None => out.extend_from_slice(line.bytes),
        }
    }
    out
}

/// Refuses names that cannot be part of a line. The machine's name comes from the platform, unchecked.
fn check_names(whose: Whose<'_>) -> Result<()> {
    match [whose.alias, whose.play, whose.machine].into_iter().find(|name| !is_name(name)) {
        None => Ok(()),
        Some(name) => Err(Error::new(Kind::Answer, format!("`{name}` is not allowed in known_hosts"))),
    }
}

/// Returns true if `name` is literal in known_hosts: no pattern, list, marker, comment or hash.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, process::Command};

    use proptest::prelude::*;

    use super::{KnownHosts, Ours, Verdict, Whose, read_lines, write_lines};
    use crate::{error::Kind, ssh::host_key::HostKeyBlob};

    const PLAY: &str = "0123456789abcdef01234567";
    const OTHER: &str = "fedcba9876543210fedcba98";
    const BY_ID: Whose<'_> = Whose { alias: "playground-0123456789abcdef01234567", play: PLAY, machine: "docker-01" };
    const BY_NAME: Whose<'_> = Whose { alias: "playground-docker", play: PLAY, machine: "docker-01" };

    /// Returns a key derived from `seed`.
    fn key(algorithm: &str, seed: u8) -> HostKeyBlob {
        let mut blob = Vec::new();
        for string in [algorithm.as_bytes(), &[seed; 32]] {
            blob.extend_from_slice(&u32::try_from(string.len()).unwrap().to_be_bytes());
            blob.extend_from_slice(string);
        }
        HostKeyBlob::from_wire(&blob).unwrap()
    }

    fn ed(seed: u8) -> HostKeyBlob {
        key("ssh-ed25519", seed)
    }

    fn file() -> (tempfile::TempDir, KnownHosts) {
        let folder = tempfile::tempdir().unwrap();
        let known = KnownHosts::at(folder.path().join("state/known_hosts"));
        (folder, known)
    }

    fn text(known: &KnownHosts) -> String {
        fs::read_to_string(known.path()).unwrap_or_default()
    }

    /// Returns the file with each key shown as its seed, to see which keys an alias has.
    fn shape(known: &KnownHosts) -> String {
        let mut shape = text(known);
        for seed in 0..5 {
            for algorithm in ["ssh-ed25519", "ssh-rsa"] {
                shape = shape.replace(&key(algorithm, seed).base64(), &seed.to_string());
            }
        }
        shape.replace(PLAY, "PLAY").replace(OTHER, "OTHER")
    }

    #[test]
    fn a_first_contact_is_provisional_until_the_client_accepts() {
        let (_folder, known) = file();
        assert_eq!(known.check(BY_NAME, &ed(1)).unwrap(), Verdict::Learnt);
        assert_eq!(shape(&known), "playground-docker ssh-ed25519 1 PLAY/docker-01?\n");
        assert!(known.knows(BY_NAME).unwrap().is_empty());
        known.confirm(BY_NAME, &ed(1)).unwrap();
        assert_eq!(shape(&known), "playground-docker ssh-ed25519 1 PLAY/docker-01\n");
        assert_eq!(known.knows(BY_NAME).unwrap(), ["ssh-ed25519"]);
        assert!(known.knows(BY_ID).unwrap().is_empty());
        assert_eq!(known.check(BY_NAME, &ed(1)).unwrap(), Verdict::Known);
        known.withdraw(BY_NAME, &ed(1)).unwrap();
        assert_eq!(known.check(BY_ID, &ed(1)).unwrap(), Verdict::Known, "proven under another name");
        assert_eq!(known.check(BY_ID, &key("ssh-rsa", 1)).unwrap(), Verdict::Learnt);
        assert_eq!(
            shape(&known),
            "playground-docker ssh-ed25519 1 PLAY/docker-01\nplayground-PLAY ssh-ed25519 1 PLAY/docker-01\n\
             playground-PLAY ssh-rsa 1 PLAY/docker-01?\n"
        );
    }

    #[test]
    fn a_warm_connection_writes_nothing_and_takes_no_lock() {
        let (folder, known) = file();
        known.confirm(BY_NAME, &ed(1)).unwrap();
        let lock = folder.path().join("state/known_hosts.lock");
        fs::remove_file(&lock).unwrap();
        assert_eq!(known.check(BY_NAME, &ed(1)).unwrap(), Verdict::Known);
        known.confirm(BY_NAME, &ed(1)).unwrap();
        known.withdraw(BY_NAME, &ed(1)).unwrap();
        known.forget_play(OTHER).unwrap();
        assert!(!lock.exists());
    }

    #[test]
    fn who_withdraws_leaves_the_line_to_those_who_wait() {
        let (_folder, known) = file();
        for _ in 0..3 {
            assert_eq!(known.check(BY_NAME, &ed(1)).unwrap(), Verdict::Learnt);
        }
        known.withdraw(BY_NAME, &ed(1)).unwrap();
        assert_eq!(shape(&known), "playground-docker ssh-ed25519 1 PLAY/docker-01?2\n");
        known.withdraw(BY_NAME, &ed(2)).unwrap();
        known.withdraw(BY_ID, &ed(1)).unwrap();
        known.withdraw(BY_NAME, &ed(1)).unwrap();
        assert_eq!(shape(&known), "playground-docker ssh-ed25519 1 PLAY/docker-01?\n");
        known.withdraw(BY_NAME, &ed(1)).unwrap();
        assert_eq!(text(&known), "");
    }

    #[test]
    fn a_changed_key_is_refused_under_every_alias() {
        let (_folder, known) = file();
        known.confirm(BY_NAME, &ed(1)).unwrap();
        known.confirm(BY_ID, &ed(1)).unwrap();
        let before = text(&known);
        for whose in [BY_NAME, BY_ID, Whose { alias: "playground-docker.docker-01", ..BY_ID }] {
            for error in [known.check(whose, &ed(2)).unwrap_err(), known.confirm(whose, &ed(2)).unwrap_err()] {
                assert_eq!(error.kind(), Kind::HostKey);
                for part in [&ed(1).fingerprint(), &ed(2).fingerprint(), "docker-01", PLAY, "ssh-ed25519"] {
                    assert!(error.message().contains(part), "{error}");
                }
                for part in ["-R playground-docker", &format!("-R {}", BY_ID.alias), "`destroy`", "known_hosts\""] {
                    assert!(error.hint().unwrap().contains(part), "{error}");
                }
            }
        }
        assert_eq!(text(&known), before);
        let sibling = Whose { alias: "playground-docker.node-02", machine: "node-02", ..BY_NAME };
        assert_eq!(known.check(sibling, &ed(2)).unwrap(), Verdict::Learnt, "another machine has its own keys");
    }

    #[test]
    fn a_key_that_nobody_accepted_binds_nobody() {
        let (_folder, known) = file();
        let _left_by_a_killed_proxy = known.check(BY_ID, &ed(1)).unwrap();
        assert_eq!(known.check(BY_NAME, &ed(2)).unwrap(), Verdict::Learnt);
        assert_eq!(shape(&known), "playground-docker ssh-ed25519 2 PLAY/docker-01?\n");
        known.confirm(BY_NAME, &ed(2)).unwrap();
        assert_eq!(known.confirm(BY_ID, &ed(1)).unwrap_err().kind(), Kind::HostKey);
    }

    #[test]
    fn a_name_that_means_a_new_playground_forgets_the_old_one() {
        let (_folder, known) = file();
        for key in [ed(1), key("ssh-rsa", 1)] {
            known.confirm(BY_NAME, &key).unwrap();
        }
        known.confirm(BY_ID, &ed(1)).unwrap();
        let renewed = Whose { play: OTHER, ..BY_NAME };
        assert_eq!(known.check(renewed, &ed(2)).unwrap(), Verdict::Learnt);
        assert_eq!(
            shape(&known),
            "playground-PLAY ssh-ed25519 1 PLAY/docker-01\nplayground-docker ssh-ed25519 2 OTHER/docker-01?\n"
        );
        known.forget_play(PLAY).unwrap();
        assert_eq!(shape(&known), "playground-docker ssh-ed25519 2 OTHER/docker-01?\n");
    }

    #[test]
    fn what_is_not_ours_stays_as_it_is() {
        let (folder, known) = file();
        fs::create_dir(folder.path().join("state")).unwrap();
        let user_lines = b"# mine\r\n\n  \n|1|hash=|x= ssh-rsa AAAA\n@cert-authority * ssh-rsa AAAA ca/x\n\
            playground-docker ssh-ed25519 damaged 0123/docker-01\n\xff\xfe not utf-8\nno end of line";
        fs::write(known.path(), user_lines).unwrap();
        known.confirm(BY_NAME, &ed(1)).unwrap();
        let grown = fs::read(known.path()).unwrap();
        assert!(grown.starts_with(&[&user_lines[..], b"\nplayground-docker ssh-ed25519 "].concat()));
        known.forget_play(PLAY).unwrap();
        assert_eq!(fs::read(known.path()).unwrap(), [&user_lines[..], b"\n"].concat());
    }

    #[test]
    fn names_that_a_line_cannot_hold_are_refused() {
        let (_folder, known) = file();
        for hostile in ["", "*", "a b", "a\nb", "a,b", "|1|x", "@revoked", "#x", "a?", "é", "-x", "a/b"] {
            for whose in [
                Whose { alias: hostile, ..BY_NAME },
                Whose { play: hostile, ..BY_NAME },
                Whose { machine: hostile, ..BY_NAME },
            ] {
                assert!(known.check(whose, &ed(1)).is_err() && known.confirm(whose, &ed(1)).is_err(), "{hostile:?}");
            }
        }
        assert_eq!(text(&known), "");
    }

    #[test]
    fn first_contacts_at_once_lose_nothing() {
        const MACHINES: usize = 40;
        const EACH: usize = 5;
        let (_folder, known) = file();
        std::thread::scope(|scope| {
            for i in 0..MACHINES * EACH {
                let known = &known;
                scope.spawn(move || {
                    let (alias, machine) = (format!("playground-{}", i % MACHINES), format!("m{}", i % MACHINES));
                    let whose = Whose { alias: &alias, play: PLAY, machine: &machine };
                    let verdict = known.check(whose, &ed(1)).unwrap();
                    // The first connection for each machine is killed, and the others get in.
                    if i < MACHINES && verdict == Verdict::Learnt {
                        known.withdraw(whose, &ed(1)).unwrap();
                    } else {
                        known.confirm(whose, &ed(1)).unwrap();
                    }
                });
            }
        });
        let mut lines: Vec<String> = text(&known).lines().map(Into::into).collect();
        lines.sort();
        let mut expected: Vec<String> =
            (0..MACHINES).map(|i| format!("playground-{i} ssh-ed25519 {} {PLAY}/m{i}", ed(1).base64())).collect();
        expected.sort();
        assert_eq!(lines, expected);
    }

    #[test]
    fn ssh_keygen_finds_and_removes_our_lines() {
        let (folder, known) = file();
        let real = folder.path().join("key");
        run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f"], &real);
        let public = fs::read_to_string(real.with_extension("pub")).unwrap();
        let mut fields = public.split(' ');
        let key = HostKeyBlob::from_fields(fields.next().unwrap(), fields.next().unwrap()).unwrap();
        let _learnt = known.check(BY_NAME, &key).unwrap();
        known.confirm(BY_ID, &key).unwrap();
        for alias in [BY_NAME.alias, BY_ID.alias] {
            let found = run("ssh-keygen", &["-l", "-F", alias, "-f"], known.path());
            assert!(found.contains(&key.fingerprint()), "{found}");
            // The command in the hint about a changed key.
            run("ssh-keygen", &["-R", alias, "-f"], known.path());
        }
        assert_eq!(known.check(BY_NAME, &ed(2)).unwrap(), Verdict::Learnt);
    }

    fn run(program: &str, arguments: &[&str], path: &Path) -> String {
        let out = Command::new(program).args(arguments).arg(path).output().unwrap();
        assert!(out.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            alias in "playground-[a-z0-9._-]{0,40}",
            play in "[0-9a-f]{24}",
            machine in "[a-zA-Z0-9][a-zA-Z0-9._-]{0,20}",
            seed: u8,
            waiting in prop::option::of(1u32..),
        ) {
            let ours = Ours { alias, key: ed(seed), play, machine, waiting };
            prop_assert_eq!(Ours::parse(format!("{ours}\n").as_bytes()), Some(ours));
        }

        #[test]
        fn no_bytes_are_lost(contents in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(write_lines(&read_lines(&contents)), contents);
        }

        #[test]
        fn no_line_makes_it_panic(line in "[a-z@#|?/0-9]{0,9} ssh-ed25519 [A-Za-z0-9+/=]{0,90} [ -~]{0,40}") {
            if let Some(ours) = Ours::parse(line.as_bytes()) {
                prop_assert!(ours.waiting != Some(0));
            }
        }
    }
}
