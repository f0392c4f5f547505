//! Keys that need no check, because this computer has made them.

use super::{Entry, KnownHosts, Whose, check_names, refusal::in_the_way};
use crate::{error::Result, ssh::host_key::HostKeyBlob};

impl KnownHosts {
    /// Records a key that this computer has made itself, for a server that is given it. Lines of ours with another key
    /// of that server go: what they were made of is gone.
    ///
    /// # Errors
    /// [`Kind::HostKey`] when another program has recorded another key, and as [`KnownHosts::check`].
    pub(crate) fn vouch(&self, whose: Whose<'_>, key: &HostKeyBlob) -> Result<()> {
        check_names(whose)?;
        let is_gone = |entry: &Entry| entry.key != *key && entry.owner.as_ref().is_some_and(|owner| owner.is(whose));
        let is_of_it =
            |entry: &Entry| entry.is_proven() && entry.key.algorithm() == key.algorithm() && entry.binds(whose);
        self.edit(|lines| {
            lines.retain(|line| !line.entry.as_ref().is_some_and(is_gone));
            let numbered = (1..).zip(&*lines).filter_map(|(number, line)| Some((number, line.entry.as_ref()?)));
            let proven: Vec<_> = numbered.filter(|(_, entry)| is_of_it(entry)).collect();
            if !proven.is_empty() && proven.iter().all(|(_, entry)| entry.key != *key) {
                return Err(in_the_way(self.path(), whose, &proven));
            }
            self.record(lines, whose, key, true, None).map(|_| ())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{KnownHosts, Whose};
    use crate::{
        error::Kind,
        ssh::{host_key::HostKeyBlob, known_hosts::Verdict},
    };

    const PLAY: &str = "0123456789abcdef01234567";
    const BY_NAME: Whose<'_> = Whose { alias: "playground-docker", play: PLAY, machine: "docker-01", shown: "Docker" };

    /// Returns an ed25519 key derived from `seed`.
    fn ed(seed: u8) -> HostKeyBlob {
        let blob = [&[0, 0, 0, 11][..], b"ssh-ed25519", &[0, 0, 0, 32], &[seed; 32]].concat();
        HostKeyBlob::from_wire(&blob).unwrap()
    }

    fn file(text: &str) -> (tempfile::TempDir, KnownHosts) {
        let folder = tempfile::tempdir().unwrap();
        let known = KnownHosts::at(folder.path().join("known_hosts"));
        fs::write(known.path(), text).unwrap();
        (folder, known)
    }

    fn text(known: &KnownHosts) -> String {
        fs::read_to_string(known.path()).unwrap()
    }

    /// A key of our own making replaces the one before it, and none that another program has recorded.
    #[test]
    fn a_key_that_we_vouch_for_replaces_ours_alone() {
        let inside = Whose { alias: "playground-docker.docker-01.web", machine: "docker-01.web", ..BY_NAME };
        let by_id = Whose { alias: "playground-0123456789abcdef01234567.docker-01.web", ..inside };
        let (_folder, known) = file("");
        known.confirm(BY_NAME, &ed(1)).unwrap();
        for whose in [inside, by_id] {
            known.vouch(whose, &ed(2)).unwrap();
            assert_eq!(known.check(whose, &ed(2)).unwrap(), Verdict::Known);
            assert_eq!(known.check(whose, &ed(3)).unwrap_err().kind(), Kind::HostKey);
        }
        known.vouch(inside, &ed(3)).unwrap();
        assert_eq!(known.check(by_id, &ed(3)).unwrap(), Verdict::Known);
        assert_eq!(known.knows(BY_NAME).unwrap(), ["ssh-ed25519"], "the machine has its own");
        assert_eq!(known.check(BY_NAME, &ed(1)).unwrap(), Verdict::Known);
        known.forget_play(PLAY).unwrap();
        assert_eq!(text(&known), "");
        let foreign = format!("{} ssh-ed25519 {}\n", inside.alias, ed(1).base64());
        let (_folder, known) = file(&foreign);
        let error = known.vouch(inside, &ed(2)).unwrap_err();
        assert_eq!(error.kind(), Kind::HostKey);
        // It was shown to no one, so there is no talk of an attacker.
        assert!(error.message().contains("container web of machine docker-01 of playground Docker"), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.starts_with("remove it with `ssh-keygen")), "{error:?}");
        assert_eq!(text(&known), foreign);
    }
}
