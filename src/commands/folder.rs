//! A folder's playground: `.labctl-ssh-proxy.yaml` in the current folder or above it says which playground `ssh`, `open`,
//! `start`, `kube` and `port-forward` mean when none is named.
//!
//! The file may have come with a repository that someone else has written. It therefore can only name a playground and a
//! path; commands that stop, erase or expose something do not read it; a start is asked about; and a file that others can
//! write is refused, as git refuses repositories of others (`safe.directory`, since git 2.35.2).

use std::{
    env,
    fs::{File, Metadata, OpenOptions},
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    app::App,
    error::{Error, Kind, Result, printable},
    labs::find::{self, Found},
    os,
    platform::is_id,
    target::{Target, is_label},
    ui::{notice, out},
    wake,
};

/// The file's name.
const NAME: &str = ".labctl-ssh-proxy.yaml";
/// The largest file that is read. Two lines are enough.
const MAX_BYTES: u64 = 4096;

/// The playground that a command means.
#[derive(Clone, Debug, Default)]
pub(super) struct Meant {
    /// As the command line names it, or as the host name that the file stands for.
    pub(super) playground: String,
    /// The file's path on the machine.
    pub(super) path: Option<String>,
}

/// The command that asks: its answers to the question before a start, and what it would start.
#[derive(Clone, Debug, Default)]
pub(super) struct Asks {
    pub(super) yes: bool,
    pub(super) json: bool,
    /// True for a command with an option that answers.
    pub(super) has_yes: bool,
    /// True for a command that starts a new playground of that name, where there is none.
    pub(super) starts_new: bool,
    /// The machine that it restarts. It is the default one if there is none of that name.
    pub(super) machine: Option<String>,
}

/// Returns the playground that was named, or else the folder's. `command` is the command up to its PLAYGROUND. What the
/// folder's would start is asked about.
///
/// # Errors
/// [`Kind::Usage`] when none is named here, and for a question that cannot be asked; [`Kind::File`] for a file that is
/// refused; [`Kind::Declined`] for a no; those of finding the playground.
pub(super) async fn meant(app: &App, named: Option<String>, command: &str, asks: Asks) -> Result<Meant> {
    if let Some(playground) = named {
        return Ok(Meant { playground, path: None });
    }
    let here =
        env::current_dir().map_err(|e| Error::new(Kind::File, format!("cannot find the current folder: {e}")))?;
    let typed = format!("`labctl-ssh-proxy {command} PLAYGROUND`");
    let Some((file, folders)) = look(&here, &app.folders.home)? else {
        let message = format!("no PLAYGROUND was given, and there is no {NAME} in this folder or above it");
        return Err(Error::new(Kind::Usage, message)
            .with_hint(format!("name one: {typed}; or write `playground: NAME` into {NAME} here")));
    };
    let shown = printable(&file.display().to_string());
    notice::line(&format!("labctl-ssh-proxy: {shown} says {}", folders.playground));
    let host = folders.host();
    if let Some(start) = start_of(app, &host, &asks).await?.filter(|_| !asks.yes) {
        let question = format!("Start {start}, as {shown} says?");
        let add = if asks.has_yes { "add --yes, or " } else { "" };
        let hint = format!("{add}name it: `labctl-ssh-proxy {command} {host}`");
        out::agreed(&question, asks.json, "Nothing was started.", &hint).await?;
    }
    Ok(Meant { playground: host, path: folders.path })
}

/// The thing that the command would start, in words; `None` if all that it needs runs. The playground is found as the
/// command itself finds it.
async fn start_of(app: &App, host: &str, asks: &Asks) -> Result<Option<String>> {
    let labs = app.labs().await?;
    let play = match asks.starts_new {
        true => match find::by_target(&labs, &Target::parse(host)?).await? {
            Found::Play(play) => *play,
            Found::Startable(_) => return Ok(Some(format!("a new {host}"))),
        },
        false => find::by_argument(&labs, host).await?,
    };
    if find::is_play_down(&play) {
        return Ok(Some(format!("{}, which is stopped", play.shown())));
    }
    let named = asks.machine.as_deref().filter(|name| play.machines.iter().any(|machine| machine.name == *name));
    let machine = find::machine(&play, named).ok().map(|machine| machine.name.as_str());
    let down = machine.filter(|name| wake::is_down(&play, name));
    Ok(down.map(|name| format!("machine {name} of {}, which is stopped", play.shown())))
}

/// The contents of a file.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Folder {
    /// A catalogue name, or the id of a playground. A title may be another playground's tomorrow.
    playground: String,
    /// The folder that `open` opens: absolute, or below the home folder.
    path: Option<String>,
}

impl Folder {
    /// Reads the contents of a file.
    fn parse(text: &str) -> Result<Folder, String> {
        let folder: Folder = serde_saphyr::from_str(text).map_err(|e| {
            let words = e.to_string();
            words.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
        })?;
        if !is_label(&folder.playground) {
            return Err("`playground` is not a name in the catalogue and not an id".to_owned());
        }
        match folder.path.as_deref().map(fault_of) {
            Some(Some(why)) => Err(format!("`path` {why}")),
            Some(None) | None => Ok(folder),
        }
    }

    /// The host name, which no title can be.
    fn host(&self) -> String {
        match is_id(&self.playground) {
            true => Target::of_play(&self.playground, None).to_string(),
            false => Target::of_name(&self.playground).to_string(),
        }
    }
}

/// The reason why a path is refused. Editors get it as a part of an address or as a word of their own.
fn fault_of(path: &str) -> Option<&'static str> {
    match path {
        "" => Some("is empty"),
        path if path.starts_with('-') => Some("begins with a hyphen"),
        path if path.chars().any(char::is_control) => Some("has a control character"),
        path if path.split(['/', '\\']).any(|part| part == "..") => Some("has a `..` in it"),
        path if path.starts_with('~') && path != "~" && !path.starts_with("~/") => Some("begins with another user's ~"),
        _ => None,
    }
}

/// Looks in a folder and in those above it, up to the home folder where it is below that, and else within its file system.
fn look(from: &Path, home: &Path) -> Result<Option<(PathBuf, Folder)>> {
    // The current folder comes without links.
    let home = &home.canonicalize().unwrap_or_else(|_| home.to_owned());
    let is_below_home = from.starts_with(home);
    for folder in from.ancestors() {
        let file = folder.join(NAME);
        let refused = |why: &str| {
            Error::new(Kind::File, format!("{} is not used: {why}", printable(&file.display().to_string())))
                .with_hint("name the playground on the command line, or put the file right")
        };
        match read(&file, folder, home, is_below_home) {
            Ok(Some(text)) => {
                let found = Folder::parse(&text).map_err(|why| refused(&printable(&why)))?;
                return Ok(Some((file, found)));
            }
            Ok(None) => {}
            Err(why) => return Err(refused(&why)),
        }
        let is_last = folder == home || !is_below_home && is_a_boundary(folder);
        if is_last {
            break;
        }
    }
    Ok(None)
}

/// Reads a file that only the user or root can have written. `None` when there is none.
fn read(file: &Path, folder: &Path, home: &Path, is_below_home: bool) -> Result<Option<String>, String> {
    let words = |e: io::Error| e.to_string();
    let found = match file.symlink_metadata() {
        Ok(found) => found,
        // A folder above that cannot be searched has none for this user.
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => return Ok(None),
        Err(e) => return Err(words(e)),
    };
    if !found.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let opened = os::without_waiting(OpenOptions::new().read(true)).open(file).map_err(words)?;
    // Of the open file, because another may be in its place by now.
    check(&opened.metadata().map_err(words)?, &folder.metadata().map_err(words)?, &found, home, is_below_home)?;
    text(opened)
}

fn text(file: File) -> Result<Option<String>, String> {
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("it is larger than {MAX_BYTES} bytes"));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| "it is not UTF-8".to_owned())
}

/// Refuses what others may have written: by owner and mode of the file and of its folder.
#[cfg(unix)]
fn check(
    opened: &Metadata,
    folder: &Metadata,
    seen: &Metadata,
    home: &Path,
    _is_below_home: bool,
) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt;
    if !opened.is_file() || (opened.dev(), opened.ino()) != (seen.dev(), seen.ino()) {
        return Err("it is being replaced".to_owned());
    }
    let own = [0, os::rightful_owner(home)];
    for (what, found) in [("it", opened), ("its folder", folder)] {
        if !own.contains(&found.uid()) {
            return Err(format!("{what} belongs to another user"));
        }
        // A group with the number of its user is that user's alone, by the custom of user private groups.
        let others = if found.gid() == found.uid() { 0o002 } else { 0o022 };
        if found.mode() & others != 0 {
            return Err(format!("{what} can be written by other users"));
        }
    }
    Ok(())
}

/// These systems have no such owners. What is in the home folder is the user's.
#[cfg(not(unix))]
fn check(_: &Metadata, _: &Metadata, _: &Metadata, _: &Path, is_below_home: bool) -> Result<(), String> {
    if is_below_home { Ok(()) } else { Err("it is not below your home folder".to_owned()) }
}

/// True if the folder above is on another file system, as for git.
#[cfg(unix)]
fn is_a_boundary(folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| path.metadata().ok().map(|found| found.dev());
    folder.parent().is_some_and(|above| device(above) != device(folder))
}

#[cfg(not(unix))]
fn is_a_boundary(_: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Folder, MAX_BYTES, NAME, look};

    #[test]
    fn a_file_names_a_playground_and_a_path_and_nothing_else() {
        let read = |text: &str| Folder::parse(text).map(|folder| (folder.host(), folder.path.unwrap_or_default()));
        let id = "000000000000000000000017";
        assert_eq!(read("playground: k3s\npath: src/app\n"), Ok(("playground-k3s".into(), "src/app".into())));
        for written in [format!("playground: {id}"), format!("# ours\nplayground: '{id}'")] {
            assert_eq!(read(&written), Ok((format!("playground-{id}"), String::new())), "{written}");
        }
        for path in ["/srv/a b", "~", "~/src", "a..b"] {
            assert_eq!(read(&format!("{{playground: a, path: '{path}'}}")).unwrap().1, path);
        }
        for (text, why) in [
            ("", ""),
            ("path: a", "playground"),
            ("playground: My lab", "not a name"),
            ("playground: -oProxyCommand=x", "not a name"),
            ("playground: root@k3s", "not a name"),
            ("playground: [a]", ""),
            ("{playground: a, run: b}", "run"),
            ("{playground: a, playground: b}", ""),
            ("{playground: a, path: ''}", "is empty"),
            ("{playground: a, path: ../b}", "`..`"),
            ("{playground: a, path: b/..}", "`..`"),
            ("{playground: a, path: -b}", "hyphen"),
            ("{playground: a, path: ~ada/b}", "another user's"),
            ("{playground: a, path: \"b\\nc\"}", "control"),
        ] {
            let found = read(text).unwrap_err();
            assert!(found.contains(why), "{text}: {found}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_others_may_have_written_is_refused() {
        use std::{
            fs::{self, Permissions, create_dir_all, set_permissions, write},
            os::unix::fs::{PermissionsExt, symlink},
        };
        let home = tempfile::tempdir().unwrap();
        let home = home.path().canonicalize().unwrap().join("home");
        let (deep, file) = (home.join("a/b"), home.join("a").join(NAME));
        create_dir_all(&deep).unwrap();
        let found = || look(&deep, &home).map(|found| found.map(|(path, folder)| (path, folder.playground)));
        let refused = |why: &str| {
            let error = found().unwrap_err();
            assert!(error.message().contains(why) && error.message().contains(NAME), "{why}: {error}");
        };
        let mode = |path: &std::path::Path, mode| set_permissions(path, Permissions::from_mode(mode)).unwrap();
        assert_eq!(found().unwrap(), None);
        // Above the home folder nothing is looked for.
        write(home.parent().unwrap().join(NAME), "playground: above").unwrap();
        assert_eq!(found().unwrap(), None);
        write(home.join(NAME), "playground: far").unwrap();
        assert_eq!(found().unwrap(), Some((home.join(NAME), "far".into())));
        write(&file, "playground: near").unwrap();
        assert_eq!(found().unwrap(), Some((file.clone(), "near".into())));
        for bits in [0o666, 0o602] {
            mode(&file, bits);
            refused("it can be written by other users");
        }
        mode(&file, 0o644);
        for bits in [0o777, 0o1777] {
            mode(file.parent().unwrap(), bits);
            refused("its folder can be written by other users");
        }
        mode(file.parent().unwrap(), 0o755);
        if rustix::process::geteuid().is_root() {
            for path in [&file, file.parent().unwrap()] {
                std::os::unix::fs::chown(path, Some(12345), None).unwrap();
                refused("belongs to another user");
                std::os::unix::fs::chown(path, Some(0), None).unwrap();
            }
        }
        write(&file, "x".repeat(usize::try_from(MAX_BYTES).unwrap() + 1)).unwrap();
        refused("larger than");
        write(&file, [0xff]).unwrap();
        refused("UTF-8");
        fs::remove_file(&file).unwrap();
        symlink(home.join(NAME), &file).unwrap();
        refused("not a regular file");
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        refused("not a regular file");
    }

    proptest! {
        #[test]
        fn what_is_taken_is_a_host_name_and_a_harmless_path(text in "(playground: )?[a-z0-9{}\\[\\]&*!|> :'\"~./@\n-]{0,60}(\npath: .{0,20})?") {
            if let Ok(folder) = Folder::parse(&text) {
                prop_assert!(crate::target::Target::parse(&folder.host()).is_ok_and(|target| target.machine.is_none()));
                let path = folder.path.unwrap_or_else(|| "a".into());
                prop_assert!(!path.starts_with('-') && !path.is_empty() && !path.split('/').any(|part| part == ".."));
            }
        }
    }
}
