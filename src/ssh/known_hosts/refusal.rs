//! The errors for host keys that are refused.

use std::path::Path;

use super::{Whose, is_name, line::Entry};
use crate::{
    error::{Error, Kind},
    ssh::host_key::HostKeyBlob,
    target::POD,
};

impl Whose<'_> {
    /// The words for it in an error.
    pub(crate) fn subject(&self) -> String {
        let Whose { machine, shown, .. } = self;
        match machine.split_once('.') {
            Some((POD, name)) if name.contains('.') => format!("pod {name} of playground {shown}"),
            Some((machine, container)) => format!("container {container} of machine {machine} of playground {shown}"),
            None => format!("machine {machine} of playground {shown}"),
        }
    }
}

/// Returns the error for a key that differs from the `proven` ones, which are given with the numbers of their lines.
pub(super) fn changed(path: &Path, whose: Whose<'_>, proven: &[(usize, &Entry)], new: &HostKeyBlob) -> Error {
    let old = proven.first().map(|(_, entry)| entry.key.fingerprint()).unwrap_or_default();
    let (subject, algorithm, shown) = (whose.subject(), new.algorithm(), new.fingerprint());
    let message = format!(
        "{subject} presents the {algorithm} host key {shown}, but the key on record is {old} in {}",
        path.display()
    );
    Error::new(Kind::HostKey, message).with_hint(format!(
        "an attacker may be intercepting the connection, or the machine has new keys; if you know that it has, remove \
         the old ones with {}; otherwise `destroy` the playground and start another",
        remedies(path, whose, proven)
    ))
}

/// Returns the error for lines of another program with other keys than the one that this computer has made.
pub(super) fn in_the_way(path: &Path, whose: Whose<'_>, others: &[(usize, &Entry)]) -> Error {
    let (subject, file) = (whose.subject(), path.display());
    let message =
        format!("{file} has a host key for {subject} that another program has written, and that is not its key");
    Error::new(Kind::HostKey, message).with_hint(format!("remove it with {}", remedies(path, whose, others)))
}

/// The ways to remove these lines.
fn remedies(path: &Path, whose: Whose<'_>, lines: &[(usize, &Entry)]) -> String {
    let file = path.display();
    let mut remedies: Vec<String> = Vec::new();
    for (number, entry) in lines {
        let name = match is_name(&entry.names) {
            true => Some(entry.names.as_str()),
            // The lines that `ssh-keygen -R` finds by a name, and deletes.
            false if !entry.names.contains(['*', '?', '!']) && entry.matches(whose.alias) => Some(whose.alias),
            false => None,
        };
        let remedy = match name {
            Some(name) => format!("`ssh-keygen -f \"{file}\" -R {name}`"),
            None => format!("an editor (line {number} of {file})"),
        };
        if !remedies.contains(&remedy) {
            remedies.push(remedy);
        }
    }
    remedies.join("; ")
}

/// Returns the error for a key with `@revoked`, in line `number`.
pub(super) fn revoked(path: &Path, number: usize, whose: Whose<'_>, key: &HostKeyBlob) -> Error {
    let (subject, algorithm, shown, path) = (whose.subject(), key.algorithm(), key.fingerprint(), path.display());
    let why =
        format!("{subject} presents the {algorithm} host key {shown}, which line {number} of {path} marks as revoked");
    Error::new(Kind::HostKey, why).with_hint("`destroy` the playground and start another, or delete that line")
}
