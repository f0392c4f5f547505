//! Our own known_hosts file, with the host keys of each machine of each playground.
//!
//! Our lines have the form `<host alias> <key type> <base64> <play id>/<machine>`. For ssh, the last field is a
//! comment. For us, it names the key's owner, regardless of the alias. A line is provisional as long as no client has
//! accepted its key. It then ends with `?` and the number of connections that wait for their client's verdict:
//! `.../machine?2`. A provisional line lets ssh connect, but does not bind later connections.
//!
//! The user and other programs may write the file, too: `ssh-keygen -H` hashes the aliases, and another client adds
//! lines without an owner. Every line in which ssh finds a machine's alias is a record of that machine's key.
//!
//! A key is compared with every proven line of its machine. We never add a second line of the same type, because ssh
//! would accept either. Other lines are kept byte for byte.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Kind, Result},
    files::{self, Lock, write_private},
    ssh::host_key::HostKeyBlob,
    target::Target,
};

use line::{Entry, Line, Marker, Owner, read_lines, write_lines};
use refusal::{changed, revoked};

pub(crate) mod line;
mod refusal;
mod vouched;

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
    /// The machine's name in the play, or `<machine>.<container>`.
    pub machine: &'a str,
    /// The play in the words of people.
    pub shown: &'a str,
}

impl Whose<'_> {
    /// The host name that means this machine alone.
    fn by_id(&self) -> String {
        Target::of_play(self.play, Some(self.machine)).to_string()
    }
}

/// The contents of the file, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Lines with a host key.
    pub keys: usize,
    /// The numbers of lines that ssh cannot read.
    pub damaged: Vec<usize>,
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
        self.check_among(whose, key, None)
    }

    /// Same as [`KnownHosts::check`], for a server whose host keys have the algorithms `offered`, separated by commas. A
    /// server that has no key of a type on record any more has changed, as for ssh.
    ///
    /// # Errors
    /// As [`KnownHosts::check`].
    pub fn check_among(&self, whose: Whose<'_>, key: &HostKeyBlob, offered: Option<&str>) -> Result<Verdict> {
        check_names(whose)?;
        self.edit(|lines| self.record(lines, whose, key, false, offered))
    }

    /// Same as [`KnownHosts::confirm`], for a client that asked for the types on record first. So another type is a
    /// change.
    ///
    /// # Errors
    /// As [`KnownHosts::check`].
    pub(crate) fn confirm_preferred(&self, whose: Whose<'_>, key: &HostKeyBlob) -> Result<()> {
        check_names(whose)?;
        self.edit(|lines| self.record(lines, whose, key, true, Some(key.algorithm()))).map(|_| ())
    }

    /// Marks a key as proven, after the client has accepted it (its NEWKEYS passed) or our own client has verified its
    /// signature. Applies to all lines with this key and machine, whatever their alias. Adds a line if there is none.
    ///
    /// # Errors
    /// As [`KnownHosts::check`].
    pub fn confirm(&self, whose: Whose<'_>, key: &HostKeyBlob) -> Result<()> {
        check_names(whose)?;
        self.edit(|lines| self.record(lines, whose, key, true, None)).map(|_| ())
    }

    /// Reverts [`Verdict::Learnt`] for a connection that ended before its client's verdict. Removes the provisional
    /// line, unless another connection waits on it or has confirmed it.
    ///
    /// # Errors
    /// [`Kind::File`] when the file cannot be read or written.
    pub fn withdraw(&self, whose: Whose<'_>, key: &HostKeyBlob) -> Result<()> {
        self.edit(|lines| {
            lines.retain_mut(|line| {
                let here = |entry: &&mut Entry| entry.key == *key && entry.matches(whose.alias);
                let owner = line.entry.as_mut().filter(here).and_then(|entry| entry.owner.as_mut());
                let Some(owner) = owner.filter(|owner| owner.is(whose)) else { return true };
                line.changed |= owner.waiting.is_some();
                owner.waiting = owner.waiting.map(|waiting| waiting - 1);
                owner.waiting != Some(0)
            });
            Ok(())
        })
    }

    /// Removes all lines of a destroyed playground, whatever their alias, and its names from lines of other programs.
    ///
    /// # Errors
    /// [`Kind::File`] when the file cannot be read or written.
    pub fn forget_play(&self, play: &str) -> Result<()> {
        self.edit(|lines| {
            let is_of_play = |owner: &Owner| owner.play == play;
            let owned: Vec<Entry> = lines
                .iter()
                .filter_map(|line| line.entry.clone())
                .filter(|entry| entry.owner.as_ref().is_some_and(is_of_play))
                .collect();
            // The names that only this play has, as far as the file tells its machines.
            let by_id = Target::of_play(play, None).to_string();
            let machines = owned.iter().filter_map(|entry| entry.owner.as_ref());
            let hosts: Vec<String> = std::iter::once(by_id.clone())
                .chain(machines.map(|owner| Target::of_play(play, Some(&owner.machine)).to_string()))
                .collect();
            lines.retain_mut(|line| match &line.entry {
                Some(Entry { marker: Marker::None, owner: Some(owner), .. }) => !is_of_play(owner),
                Some(entry @ Entry { marker: Marker::None, owner: None, .. }) if entry.is_of_one_host() => {
                    let is_copy = |ours: &Entry| ours.key == entry.key && entry.matches(&ours.names);
                    !is_below(&entry.names, &by_id)
                        && !hosts.iter().any(|host| entry.matches(host))
                        && !owned.iter().any(is_copy)
                }
                Some(entry @ Entry { marker: Marker::None, .. }) => match without(&entry.names, &by_id) {
                    Some(rest) if rest.is_empty() => false,
                    Some(rest) => {
                        let text = String::from_utf8_lossy(&line.bytes).replacen(&entry.names, &rest, 1);
                        line.bytes = Cow::Owned(text.into_bytes());
                        true
                    }
                    None => true,
                },
                Some(_) | None => true,
            });
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
            .filter_map(|line| line.entry)
            .filter(|entry| entry.is_proven() && entry.binds(whose) && entry.matches(whose.alias))
            .map(|entry| entry.key.algorithm().to_owned())
            .collect())
    }

    /// Counts the keys in the file.
    ///
    /// # Errors
    /// [`Kind::File`] when the file cannot be read.
    pub(crate) fn counts(&self) -> Result<Counts> {
        let contents = self.read()?;
        let mut counts = Counts::default();
        for (number, line) in (1..).zip(read_lines(&contents)) {
            let text = line.bytes.trim_ascii();
            match line.entry {
                Some(entry) => counts.keys += usize::from(entry.marker == Marker::None),
                None if text.is_empty() || text.starts_with(b"#") => {}
                None => counts.damaged.push(number),
            }
        }
        Ok(counts)
    }

    /// Updates the lines for `key`, which a client has `accepted` or for which one more connection awaits a verdict.
    fn record(
        &self,
        lines: &mut Vec<Line<'_>>,
        whose: Whose<'_>,
        key: &HostKeyBlob,
        accepted: bool,
        offered: Option<&str>,
    ) -> Result<Verdict> {
        let numbered = || (1..).zip(&*lines).filter_map(|(number, line)| Some((number, line.entry.as_ref()?)));
        let is_revoked = |entry: &Entry| entry.marker == Marker::Revoked && entry.key == *key;
        if let Some((number, _)) = numbered().find(|(_, entry)| is_revoked(entry) && entry.matches(whose.alias)) {
            return Err(revoked(&self.path, number, whose, key));
        }
        let same_type = |entry: &Entry| entry.key.algorithm() == key.algorithm() && entry.binds(whose);
        let proven: Vec<_> = numbered().filter(|(_, entry)| entry.is_proven() && same_type(entry)).collect();
        let is_known = proven.iter().any(|(_, entry)| entry.key == *key);
        if !is_known && !proven.is_empty() {
            return Err(changed(&self.path, whose, &proven, key));
        }
        let is_found = |entry: &Entry| entry.is_proven() && entry.binds(whose) && entry.matches(whose.alias);
        let others: Vec<_> = numbered().filter(|(_, entry)| is_found(entry)).collect();
        let is_offered = |(_, entry): &(usize, &Entry)| offered.is_none_or(|all| entry.key.is_among(all));
        if !is_known && !others.is_empty() && !others.iter().any(is_offered) {
            return Err(changed(&self.path, whose, &others, key));
        }
        let is_proven = accepted || is_known;
        // Remove lines of this alias for other machines, and unproven other keys of this type.
        lines.retain(|line| {
            let Some(entry) = &line.entry else { return true };
            let Some(owner) = &entry.owner else { return true };
            let stale = !owner.is(whose) && entry.matches(whose.alias);
            let replaced = !entry.is_proven() && entry.key != *key && same_type(entry);
            !stale && !replaced
        });
        let mut found = false;
        for line in lines.iter_mut() {
            let Some(entry) = line.entry.as_mut().filter(|entry| entry.key == *key && entry.binds(whose)) else {
                continue;
            };
            let here = entry.matches(whose.alias);
            found |= here;
            if here && !entry.is_commented && entry.is_of_one_host() {
                // Another program wrote it. With its owner, it goes when the playground does.
                entry.owner = Some(Owner { play: whose.play.into(), machine: whose.machine.into(), waiting: None });
                entry.is_commented = true;
                line.changed = true;
            }
            let Some(owner) = &mut entry.owner else { continue };
            let now = match owner.waiting {
                None => None,
                Some(_) if is_proven => None,
                Some(others) if here => Some(others.saturating_add(1)),
                Some(others) => Some(others),
            };
            line.changed |= now != owner.waiting;
            owner.waiting = now;
        }
        if !found {
            let waiting = (!is_proven).then_some(1);
            let entry = Entry {
                marker: Marker::None,
                names: whose.alias.into(),
                key: key.clone(),
                owner: Some(Owner { play: whose.play.into(), machine: whose.machine.into(), waiting }),
                is_commented: true,
            };
            lines.push(Line { bytes: Cow::Borrowed(&[]), entry: Some(entry), changed: true });
        }
        Ok(if is_proven { Verdict::Known } else { Verdict::Learnt })
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

/// Reports whether a plain name, perhaps with a port, means the host `by_id` or a machine below it.
fn is_below(name: &str, by_id: &str) -> bool {
    let name = name.strip_prefix('[').and_then(|rest| rest.rsplit_once("]:")).map_or(name, |(name, _port)| name);
    let name = name.to_ascii_lowercase();
    name.strip_prefix(by_id).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Returns the list `names` without the host `by_id` and its machines. `None` if it has none of these, or patterns.
fn without(names: &str, by_id: &str) -> Option<String> {
    if names.contains(['*', '?', '!', '|']) {
        return None;
    }
    let rest: Vec<&str> = names.split(',').filter(|name| !is_below(name, by_id)).collect();
    let rest = rest.join(",");
    (rest != names).then_some(rest)
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
    use std::fs;

    use super::{Counts, KnownHosts, Verdict, Whose};
    use crate::{error::Kind, ssh::host_key::HostKeyBlob};

    const PLAY: &str = "0123456789abcdef01234567";
    const OTHER: &str = "fedcba9876543210fedcba98";
    const BY_ID: Whose<'_> =
        Whose { alias: "playground-0123456789abcdef01234567", play: PLAY, machine: "docker-01", shown: "Docker" };
    const BY_NAME: Whose<'_> = Whose { alias: "playground-docker", play: PLAY, machine: "docker-01", shown: "Docker" };

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
                for part in
                    [&ed(1).fingerprint(), &ed(2).fingerprint(), "docker-01 of playground Docker", "ssh-ed25519"]
                {
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
                    let whose = Whose { alias: &alias, play: PLAY, machine: &machine, shown: "" };
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

    /// ssh asks for the types on record first. So a server that shows another type has changed, unless the client has
    /// preferences of its own.
    #[test]
    fn a_server_without_a_key_of_a_type_on_record_has_changed() {
        let (_folder, known) = file();
        known.confirm(BY_ID, &ed(1)).unwrap();
        known.confirm(BY_ID, &key("ssh-rsa", 1)).unwrap();
        let before = text(&known);
        let new = key("ecdsa-sha2-nistp256", 2);
        for offered in ["ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256,ecdsa-sha2-nistp384", ""] {
            assert_eq!(known.check_among(BY_ID, &new, Some(offered)).unwrap_err().kind(), Kind::HostKey, "{offered}");
        }
        assert_eq!(known.confirm_preferred(BY_ID, &new).unwrap_err().kind(), Kind::HostKey);
        assert_eq!(text(&known), before);
        for offered in ["ecdsa-sha2-nistp256,ssh-ed25519", "rsa-sha2-256,ecdsa-sha2-nistp256", "ssh-rsa"] {
            assert_eq!(known.check_among(BY_ID, &new, Some(offered)).unwrap(), Verdict::Learnt, "{offered}");
            known.withdraw(BY_ID, &new).unwrap();
        }
        assert_eq!(known.check_among(BY_ID, &ed(1), Some("ssh-ed25519")).unwrap(), Verdict::Known);
        assert_eq!(known.check_among(BY_NAME, &new, Some("ecdsa-sha2-nistp256")).unwrap(), Verdict::Learnt);
    }

    fn with_text(text: &str) -> (tempfile::TempDir, KnownHosts) {
        let (folder, known) = file();
        fs::create_dir(folder.path().join("state")).unwrap();
        fs::write(known.path(), text).unwrap();
        (folder, known)
    }

    /// Each line in which ssh finds the alias, our own or another program's, is a record of the machine's key.
    #[test]
    fn every_line_that_ssh_finds_is_a_record() {
        let (id, old) = (BY_ID.alias, format!("ssh-ed25519 {}", ed(1).base64()));
        for line in [
            format!("{id} {old}"),
            format!("{id} {old} somebody@laptop"),
            format!("{id} {old} two words"),
            format!("  {id}\t{old}\r"),
            format!("{} {old}", id.to_uppercase()),
            format!("10.0.0.1,{id},[{id}]:2222 {old}"),
            format!("{id}.docker-01 {old}"),
            format!("playground-* {old} {PLAY}/docker-01"),
            format!("!github.com,*0123456789abcdef0123456? {old}"),
        ] {
            let text = format!("{line}\n");
            let (_folder, known) = with_text(&text);
            for error in [known.check(BY_ID, &ed(2)).unwrap_err(), known.confirm(BY_ID, &ed(2)).unwrap_err()] {
                assert_eq!(error.kind(), Kind::HostKey, "{line}");
                assert!(error.message().contains(&ed(1).fingerprint()), "{error}");
                let remedy = if line.contains(['*', '?']) { "line 1 of" } else { "ssh-keygen -f" };
                assert!(error.hint().unwrap().contains(remedy), "{error}");
            }
            assert_eq!(text, self::text(&known), "nothing is changed");
            assert_eq!(known.check(BY_ID, &ed(1)).unwrap(), Verdict::Known, "{line}");
            assert_eq!(known.check(BY_ID, &key("ssh-rsa", 1)).unwrap(), Verdict::Learnt, "{line}");
        }
        for line in [
            format!("{id}.node-02 {old}"),
            format!("*,!{id} {old}"),
            format!("@cert-authority {id} {old}"),
            format!("#{id} {old}"),
            format!("[{id}]:2222 {old}"),
            format!("{id} ssh-rsa {}", ed(1).base64()),
        ] {
            let (_folder, known) = with_text(&format!("{line}\n"));
            assert_eq!(known.check(BY_ID, &ed(2)).unwrap(), Verdict::Learnt, "{line}");
        }
        let (_folder, known) = with_text(&format!("@revoked * {old}\n"));
        let error = known.confirm(BY_ID, &ed(1)).unwrap_err();
        assert!(error.kind() == Kind::HostKey && error.message().contains("line 1 of"), "{error}");
        assert_eq!(known.check(BY_ID, &ed(2)).unwrap(), Verdict::Learnt);
    }

    #[cfg(unix)]
    #[test]
    fn hashed_lines_of_ours_bind_and_go_with_their_playground() {
        for cut in [false, true] {
            let (_folder, known) = file();
            known.confirm(BY_NAME, &ed(1)).unwrap();
            known.confirm(BY_ID, &ed(1)).unwrap();
            let sibling = Whose { alias: "playground-other", play: OTHER, machine: "m", shown: "" };
            known.confirm(sibling, &ed(1)).unwrap();
            run("ssh-keygen", &["-q", "-H", "-f"], known.path());
            if cut {
                // As another client writes it: without the owner.
                let lines: Vec<String> =
                    text(&known).lines().map(|line| line.rsplit_once(' ').unwrap().0.to_owned() + "\n").collect();
                fs::write(known.path(), lines.concat()).unwrap();
            }
            assert_eq!(known.counts().unwrap(), Counts { keys: 3, damaged: Vec::new() });
            for whose in [BY_NAME, BY_ID] {
                assert_eq!(known.check(whose, &ed(2)).unwrap_err().kind(), Kind::HostKey);
                assert_eq!(known.check(whose, &ed(1)).unwrap(), Verdict::Known);
                assert_eq!(known.knows(whose).unwrap(), ["ssh-ed25519"]);
            }
            assert_eq!(text(&known).lines().count(), 3, "no line is added");
            known.forget_play(PLAY).unwrap();
            assert_eq!(text(&known).lines().count(), 1, "{}", text(&known));
            assert_eq!(known.knows(sibling).unwrap(), ["ssh-ed25519"]);
        }
    }

    #[test]
    fn a_destroyed_playground_leaves_no_name_behind() {
        let (id, old) = (BY_ID.alias, format!("ssh-ed25519 {}", ed(1).base64()));
        let (_folder, known) = with_text(&format!(
            "{id} {old}\n[{id}]:2222 {old} mine\n{id},10.0.0.1,{id}.docker-01 {old} lab\n{id},{id}.x {old}\n\
             *,{id} {old}\n{id}0 {old}\nnot a key\n# {id}\n"
        ));
        assert_eq!(known.counts().unwrap(), Counts { keys: 6, damaged: vec![7] });
        known.forget_play(PLAY).unwrap();
        let kept = format!("10.0.0.1 {old} lab\n*,{id} {old}\n{id}0 {old}\nnot a key\n# {id}\n");
        assert_eq!(text(&known), kept);
    }

    #[cfg(unix)]
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

    #[cfg(unix)]
    fn run(program: &str, arguments: &[&str], path: &std::path::Path) -> String {
        let out = std::process::Command::new(program).args(arguments).arg(path).output().unwrap();
        assert!(out.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }
}
