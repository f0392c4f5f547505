//! A trial of each edit with `ssh -G`, before it is made: other hosts keep their options, and ours get what they need.

use std::env;

use helper::wire::CONTAINER_USER;
use similar::TextDiff;

use super::{
    client::{self, Ssh},
    in_the_way::{in_the_way, spared},
    spellings,
    state::State,
};
use crate::{
    error::{Error, Kind, Result},
    files::{self, user_file::UserFile},
    platform::Platform,
    settings::Folders,
    ssh::identity,
    ssh_config::{edit, entries},
};

/// A host that no entry of ours matches, so that its options must not change.
const OTHER_HOST: &str = "example.invalid";
/// A host that only the wildcard matches.
const WILDCARD_HOST: &str = "playground-probe";
/// Number of aliases that are probed, because each costs a run of ssh.
const ALIASES: usize = 16;
/// A machine and a container behind a playground's host name.
const CONTAINER: &str = ".probe.probe";

/// A trial of an edit with `ssh -G`, before it is made.
pub(super) struct Check<'a> {
    /// The client to ask.
    pub ssh: &'a Ssh,
    /// The folders of our files.
    pub folders: &'a Folders,
    /// The record as it is to be.
    pub state: &'a State,
    /// True for a block of entries in the user's file, false for an Include.
    pub inline: bool,
}

impl Check<'_> {
    /// Compares the user's file with the edited one. Returns warnings.
    ///
    /// # Errors
    /// [`Kind::File`] when ssh cannot read the file as it is, or would change its options for other hosts;
    /// [`Kind::Program`] when it would not do as our entries say.
    pub(super) async fn run(&self, user: &UserFile) -> Result<Vec<String>> {
        let scratch = scratch(self.folders)?;
        let empty = scratch.path().join("empty");
        files::write_private(&empty, b"")?;
        let before = if user.exists() { &user.named } else { &empty };
        let before = self.ssh.options(before, OTHER_HOST).await.map_err(|e| {
            if e.kind() != Kind::File {
                return e;
            }
            e.context(format!("ssh cannot read {} as it is", user.named.display()))
                .with_hint("repair it first; nothing was changed")
        })?;

        // The same edit, but the included file lies in the scratch folder, because the real one must not change yet.
        let there = Folders { root: scratch.path().to_owned(), ..self.folders.clone() };
        let rendering = self.state.rendering(self.folders);
        let entries = entries::render(&self.state.entries, &rendering)?;
        files::write_private(&there.ssh_config(), entries.as_bytes())?;
        let rest = edit::remove(user.bytes(), &spellings(self.folders))?;
        let candidate = if self.inline {
            edit::insert_block(&rest, &entries, &[])?
        } else {
            let argument = entries::spell(&there.ssh_config(), self.state.home.as_deref(), "configuration")?;
            edit::insert_include(&rest, &argument, &[])?
        };
        let after = scratch.path().join("candidate");
        files::write_private(&after, &candidate)?;
        let other = self.ssh.options(&after, OTHER_HOST).await.map_err(misread)?;
        if let Some(changed) = difference(&before, &other) {
            let file = user.named.display();
            return Err(Error::new(Kind::File, format!("editing {file} would change ssh for other hosts: {changed}"))
                .with_hint(
                    "nothing was changed; move the lines of labctl-ssh-proxy to its top by hand, or remove them",
                ));
        }

        // The name to ask for, the host name that stands in the command, the user and the platform.
        let mut probes: Vec<(String, String, &str, Platform)> = Vec::new();
        let mut probe = |name: String, user, platform| probes.push((name.clone(), name, user, platform));
        for platform in Platform::ALL {
            let Some(first) = self.state.machines().find(|entry| entry.platform == platform) else { continue };
            probe(first.host.clone(), &first.user, platform);
            if rendering.containers && (rendering.wildcard || platform == Platform::Local) {
                let playground = first.host.split('.').next().unwrap_or_default();
                probe(format!("{playground}{CONTAINER}"), CONTAINER_USER, platform);
            }
        }
        if rendering.wildcard {
            probe(WILDCARD_HOST.into(), "root", Platform::Labs);
            probe(format!("{WILDCARD_HOST}{CONTAINER}"), CONTAINER_USER, Platform::Labs);
        }
        let aliased = self.state.entries.iter().filter_map(|entry| Some((entry.alias.clone()?, entry)));
        let aliased = aliased.map(|(alias, entry)| (alias, entry.host.clone(), entry.user.as_str(), entry.platform));
        probes.extend(aliased.take(ALIASES));
        let spared = spared(&self.state.entries);
        let mut warnings = Vec::new();
        let key = self.state.identity.as_deref().and_then(|path| identity::load(path).ok().flatten());
        let key = key.map(|identity| identity.public);
        for (name, host, user, platform) in &probes {
            let options = self.ssh.options(&after, name).await.map_err(misread)?;
            let command = entries::proxy_command(user, *platform, host, &rendering)?;
            for (option, wanted) in [("proxycommand", command.as_str()), ("user", *user)] {
                // The wildcard's command, which is also that of many entries, has `%h` in place of the name.
                let found = client::value(&options, option).unwrap_or("nothing").replace("%h", host);
                if found != wanted {
                    let what = format!("ssh would use `{found}` and not `{wanted}` as the {option} of {name}");
                    return Err(Error::new(Kind::Program, what).with_hint("nothing was changed; please report this"));
                }
            }
            if let Some(other) = client::value(&options, "hostname").filter(|name| *name != host) {
                warnings.push(format!(
                    "your own options make ssh use the host name `{other}` for {name}, so its host key \
                     will not be found"
                ));
            }
            warnings.extend(in_the_way(&options, *platform, key.as_ref(), &spared));
        }
        warnings.sort();
        warnings.dedup();
        Ok(warnings)
    }
}

/// A trial of a change as it is made: ssh does the same for other hosts before and after.
pub(super) struct Trial<'a> {
    user: &'a UserFile,
    /// The options for another host; `None` where there was no file yet.
    before: Option<Result<String>>,
}

impl Trial<'_> {
    /// Asks before the change.
    pub(super) async fn begin(user: &UserFile) -> Trial<'_> {
        let before = match user.exists() {
            true => Some(Ssh::system().options(&user.named, OTHER_HOST).await),
            false => None,
        };
        Trial { user, before }
    }

    /// Asks after it.
    ///
    /// # Errors
    /// [`Kind::File`] when ssh would do something else now.
    pub(super) async fn check(self) -> Result<()> {
        let file = self.user.named.display();
        // If ssh does not understand the file as it was, there is nothing to compare with.
        let Some(Ok(before)) = self.before else { return Ok(()) };
        let changed = match Ssh::system().options(&self.user.named, OTHER_HOST).await {
            Ok(after) => difference(&before, &after),
            Err(error) => Some(error.message().to_owned()),
        };
        changed.map_or(Ok(()), |changed| {
            Err(Error::new(Kind::File, format!("editing {file} has changed ssh for other hosts: {changed}"))
                .with_hint("the edit was taken back; check what the Include lines of your ssh configuration match"))
        })
    }
}

/// A warning if the removal that leaves `rest` would change ssh for other hosts, because the user's own lines may stand
/// in the middle of ours. None when ssh cannot read the file as it is, or is missing: a removal must work then, too.
pub(super) async fn removal(folders: &Folders, ssh: &Ssh, user: &UserFile, rest: &[u8]) -> Result<Option<String>> {
    let Ok(before) = ssh.options(&user.named, OTHER_HOST).await else { return Ok(None) };
    let scratch = scratch(folders)?;
    let candidate = scratch.path().join("candidate");
    files::write_private(&candidate, rest)?;
    let after = match ssh.options(&candidate, OTHER_HOST).await {
        Ok(after) => after,
        Err(e) => {
            return Ok(Some(format!("ssh cannot read what remains of {}: {}", user.named.display(), e.message())));
        }
    };
    Ok(difference(&before, &after).map(|changed| format!("this changes what ssh does for other hosts: {changed}")))
}

/// The difference between two answers of `ssh -G`; `None` when they are equal.
fn difference(before: &str, after: &str) -> Option<String> {
    let differ = || TextDiff::from_lines(before, after).unified_diff().context_radius(0).to_string();
    (before != after).then(differ)
}

fn misread(error: Error) -> Error {
    error.context("ssh could not read the result, so nothing was changed")
}

/// A temporary folder, outside of ours unless its path cannot be written in an ssh configuration.
fn scratch(folders: &Folders) -> Result<files::TemporaryFolder> {
    let place = Some(env::temp_dir()).filter(|place| entries::spell(place, None, "temporary folder").is_ok());
    let place = place.unwrap_or_else(|| folders.root.clone());
    files::TemporaryFolder::make(&place).map_err(|e| Error::file("make a temporary folder in", &place, &e))
}
