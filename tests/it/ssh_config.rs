//! `ssh_config` with real files and the real `ssh -G`: the edge cases of editing the user's configuration.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use labctl_ssh_proxy::{
    error::{Kind, Result},
    platform::Platform,
    settings::Folders,
    ssh_config::{self, Plan, Request, entries::Entry},
};
use proptest::prelude::*;

use crate::support::{needs, not_run, write_program};

const ID: &str = "0123456789abcdef01234567";

/// A home folder for one test, with a program for the entries to call.
struct World {
    temporary: tempfile::TempDir,
    folders: Folders,
}

/// A file at one point in time.
#[derive(Debug, PartialEq)]
struct Seen {
    contents: Option<Vec<u8>>,
    inode: u64,
    changed: (i64, i64),
    mode: u32,
}

/// A plan that was carried out.
#[derive(Debug)]
struct Outcome {
    file: PathBuf,
    diff: String,
    changed: bool,
    warnings: Vec<String>,
    backup: Option<PathBuf>,
}

async fn carry_out(plan: Plan<'_>) -> Result<Outcome> {
    let (file, diff, changed) = (plan.path().to_owned(), plan.diff().to_owned(), plan.is_change());
    let warnings = plan.warnings().to_vec();
    Ok(Outcome { file, diff, changed, warnings, backup: plan.write().await? })
}

async fn apply(folders: &Folders, request: &Request, platform: Platform, entries: Vec<Entry>) -> Result<Outcome> {
    carry_out(ssh_config::plan(folders, request.clone(), platform, entries).await?).await
}

async fn remove(folders: &Folders, file: Option<&Path>) -> Result<Outcome> {
    carry_out(ssh_config::plan_removal(folders, file).await?).await
}

impl World {
    fn new() -> World {
        World::at("home")
    }

    /// Creates a world whose home folder has this name.
    fn at(name: &str) -> World {
        let temporary = tempfile::tempdir().unwrap();
        // Processes of other users work in it as well.
        fs::set_permissions(temporary.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let home = temporary.path().join(name);
        fs::create_dir(&home).unwrap();
        World { folders: folders(&home), temporary }
    }

    /// Creates a world with `text` as the user's configuration.
    fn with(text: impl AsRef<[u8]>) -> World {
        let world = World::new();
        world.write(text);
        world
    }

    fn write(&self, text: impl AsRef<[u8]>) {
        fs::create_dir_all(self.folders.home.join(".ssh")).unwrap();
        fs::write(self.config(), text).unwrap();
        fs::set_permissions(self.config(), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.folders.home.join(".ssh/config")
    }

    fn read(&self) -> Vec<u8> {
        fs::read(self.config()).unwrap()
    }

    fn text(&self) -> String {
        String::from_utf8(self.read()).unwrap()
    }

    async fn apply(&self, change: impl FnOnce(&mut Request)) -> Result<Outcome> {
        let mut request = request(&self.folders);
        change(&mut request);
        apply(&self.folders, &request, Platform::Labs, entries()).await
    }

    async fn remove(&self) -> Result<Outcome> {
        remove(&self.folders, None).await
    }

    /// Returns every file below the home, except locks, which are empty and permanent.
    fn snapshot(&self) -> BTreeMap<PathBuf, Seen> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.folders.home.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let metadata = fs::symlink_metadata(&path).unwrap();
                if metadata.is_dir() {
                    folders.push(path.clone());
                } else if path.extension().is_none_or(|extension| extension != "lock") {
                    let changed = (metadata.ctime(), metadata.ctime_nsec());
                    let contents = fs::read(&path).ok();
                    found.insert(path, Seen { contents, inode: metadata.ino(), changed, mode: metadata.mode() });
                }
            }
        }
        found
    }

    fn assert_no_temporaries(&self) {
        let left: Vec<_> =
            self.snapshot().into_keys().filter(|path| path.to_string_lossy().contains("/.labctl-ssh-proxy-")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

fn folders(home: &Path) -> Folders {
    let root = home.join(".iximiuz/labctl-ssh-proxy");
    Folders { home: home.to_owned(), settings: root.join("settings.yaml"), root }
}

fn request(folders: &Folders) -> Request {
    Request {
        program: "/usr/local/bin/labctl-ssh-proxy".into(),
        identity: Some(folders.home.join(".ssh/id")),
        ..Request::default()
    }
}

fn entry(host: &str, platform: Platform) -> Entry {
    Entry { host: host.into(), user: "laborant".into(), platform, title: "A box".into(), alias: None, listener: None }
}

fn entries() -> Vec<Entry> {
    vec![entry(&format!("playground-{ID}"), Platform::Labs), entry(&format!("playground-{ID}.node-02"), Platform::Labs)]
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Returns the output of `ssh -G` under a file, without the parts that depend on its folder.
fn in_force(config: &Path, host: &str) -> String {
    let output = Command::new("ssh").args(["-G", "-T", "-F"]).arg(config).arg(host).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn option(config: &Path, host: &str, name: &str) -> String {
    let options = in_force(config, host);
    let value = options.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{name} in {options}")).to_owned()
}

/// Typical files of users.
const TEXTS: &[&str] = &[
    "",
    " \n\t\n",
    "\n",
    "Host work",
    "Host work\n  User ada\n",
    "Host work\r\n  User ada\r\n",
    "Port 2200\nForwardAgent yes\n\nHost work\n  User ada",
    "# \"quotes' and comments\n\nUser=\"ada l\"\n\nHost  work *.work\n\tHostName 10.0.0.1\nMatch host \"a,b\"\n  Port 2222\nHost *\n  Compression yes",
    "Match exec \"true\"\n  User matched\nInclude conf.d/*\nHost *\n User last\n",
];

#[tokio::test]
async fn every_file_gets_our_entries_and_loses_them_again_byte_for_byte() {
    for text in TEXTS {
        for inline in [false, true] {
            let world = World::with(text);
            let before = in_force(&world.config(), "example.com");
            let outcome = world.apply(|request| request.inline = inline).await.unwrap();
            assert!(outcome.changed && world.read().ends_with(text.as_bytes()), "{text:?}");
            assert_eq!(in_force(&world.config(), "example.com"), before, "{text:?}");

            let host = format!("playground-{ID}.node-02");
            let (config, root) = (world.config(), &world.folders.root);
            let command = format!("/usr/local/bin/labctl-ssh-proxy connect --user %r {host}");
            assert_eq!(option(&config, &host, "proxycommand"), command);
            assert_eq!(option(&config, &host, "hostname"), host);
            assert_eq!(option(&config, &host, "user"), "laborant");
            assert_eq!(option(&config, &host, "userknownhostsfile"), root.join("known_hosts").to_str().unwrap());
            assert_eq!(option(&config, &host, "stricthostkeychecking"), "true");
            assert_eq!(option(&config, &host, "connecttimeout"), "0");
            let other = "/usr/local/bin/labctl-ssh-proxy connect --user %r %h";
            assert_eq!(option(&config, "playground-docker", "proxycommand"), other);
            assert_eq!(option(&config, "Playground-Docker", "hostname"), "playground-docker");
            assert_eq!(option(&config, "playground-docker", "user"), "root");

            let settled = world.snapshot();
            let again = world.apply(|request| request.inline = inline).await.unwrap();
            assert!(!again.changed && again.diff.is_empty());
            assert_eq!(world.snapshot(), settled, "a second run writes nothing");

            assert!(world.remove().await.unwrap().changed);
            assert_eq!(world.read(), text.as_bytes());
            assert!(!root.join("hosts.json").exists() && !root.join("ssh_config").exists());
            let settled = world.snapshot();
            assert!(!world.remove().await.unwrap().changed);
            assert_eq!(world.snapshot(), settled);
            world.assert_no_temporaries();
        }
    }
}

#[tokio::test]
async fn without_a_file_one_is_made_and_taken_away() {
    let world = World::new();
    let outcome = world.apply(|_| ()).await.unwrap();
    assert_eq!((mode(&world.config()), mode(&world.folders.home.join(".ssh"))), (0o600, 0o700));
    assert_eq!(mode(&world.folders.known_hosts(Platform::Labs)), 0o600);
    assert_eq!(mode(&world.folders.ssh_config()), 0o600);
    assert!(outcome.backup.is_none() && outcome.file == world.config());
    assert!(outcome.diff.contains("+Include ") && outcome.diff.contains(&format!("+Host playground-{ID}\n")));
    world.remove().await.unwrap();
    assert!(!world.config().exists());

    // A file that was empty before is kept, and so are the user's own lines.
    world.write("");
    world.apply(|_| ()).await.unwrap();
    world.remove().await.unwrap();
    assert_eq!(world.read(), b"");
    fs::remove_file(world.config()).unwrap();
    world.apply(|_| ()).await.unwrap();
    fs::write(world.config(), world.text() + "Host mine\n").unwrap();
    world.remove().await.unwrap();
    assert_eq!(world.text(), "Host mine\n");
}

#[tokio::test]
async fn with_nothing_to_remove_removal_succeeds_and_leaves_no_trace() {
    let world = World::new();
    assert!(!world.remove().await.unwrap().changed);
    assert_eq!(fs::read_dir(&world.folders.home).unwrap().count(), 0);
}

#[tokio::test]
async fn a_plan_shows_all_and_writes_nothing() {
    for inline in [false, true] {
        let world = World::with("Host mine\n");
        let before = world.snapshot();
        let wanted = Request { inline, ..request(&world.folders) };
        let plan = ssh_config::plan(&world.folders, wanted, Platform::Labs, entries()).await.unwrap();
        assert!(plan.is_change() && plan.diff().contains("+  HostName playground-"));
        assert_eq!(world.snapshot(), before);
        assert!(!world.folders.root.exists());
        let done = world.apply(|request| request.inline = inline).await.unwrap();
        assert_eq!(done.diff, plan.diff());

        let before = world.snapshot();
        let plan = ssh_config::plan_removal(&world.folders, None).await.unwrap();
        assert_eq!(world.snapshot(), before);
        assert_eq!(world.remove().await.unwrap().diff, plan.diff());
    }
}

/// The user may take an hour to agree.
#[tokio::test]
async fn what_was_written_after_the_plan_is_not_lost() {
    let world = World::with("Host mine\n");
    let folders = &world.folders;
    let other = world.temporary.path().join("other");
    let plan = async || ssh_config::plan(folders, request(folders), Platform::Labs, entries()).await.unwrap();
    let record = || fs::read_to_string(folders.root.join("hosts.json")).unwrap();

    let late = plan().await;
    let mode_was_changed = plan().await;
    world.write("Host mine\nHost new\n");
    world.apply(|request| request.file = Some(other.clone())).await.unwrap();
    late.write().await.unwrap();
    assert!(world.text().starts_with("# ---") && world.text().ends_with("Host mine\nHost new\n"));
    assert!(record().contains(other.to_str().unwrap()) && record().contains(world.config().to_str().unwrap()));

    fs::set_permissions(world.config(), fs::Permissions::from_mode(0o640)).unwrap();
    mode_was_changed.write().await.unwrap();
    assert_eq!(mode(&world.config()), 0o640);

    let removal = ssh_config::plan_removal(folders, None).await.unwrap();
    fs::write(world.config(), world.text() + "Host newer\n").unwrap();
    remove(folders, Some(&other)).await.unwrap();
    removal.write().await.unwrap();
    assert_eq!(world.text(), "Host mine\nHost new\nHost newer\n");
    assert!(!folders.root.join("hosts.json").exists());

    // If the plan cannot be made again, nothing changes.
    let late = plan().await;
    world.write("Host mine\n# --- BEGIN labctl-ssh-proxy ---\n");
    let before = world.snapshot();
    assert!(late.write().await.unwrap_err().message().contains("does not end"));
    assert_eq!(world.snapshot(), before);
}

#[tokio::test]
async fn it_writes_through_links() {
    for (inline, target) in [(false, "dotfiles/config"), (true, "dotfiles/config"), (false, "new")] {
        for form in ["absolute", "relative", "chained"] {
            let world = World::new();
            let home = &world.folders.home;
            fs::create_dir_all(home.join("dotfiles")).unwrap();
            fs::create_dir_all(home.join(".ssh")).unwrap();
            fs::write(home.join("dotfiles/config"), "Host mine\n").unwrap();
            let link = match form {
                "absolute" => home.join(target),
                "relative" => Path::new("..").join(target),
                _ => {
                    symlink(Path::new("..").join(target), home.join("dotfiles/link")).unwrap();
                    home.join("dotfiles/link")
                }
            };
            symlink(&link, world.config()).unwrap();
            world.apply(|request| request.inline = inline).await.unwrap();
            assert_eq!(fs::read_link(world.config()).unwrap(), link, "{form}");
            assert!(fs::symlink_metadata(home.join(target)).unwrap().is_file(), "{form}");
            assert!(option(&world.config(), "playground-x", "proxycommand").ends_with("%h"));
            world.remove().await.unwrap();
            assert_eq!(fs::read_link(world.config()).unwrap(), link);
            match target {
                "new" => assert!(!home.join("new").exists()),
                _ => assert_eq!(fs::read_to_string(home.join(target)).unwrap(), "Host mine\n"),
            }
            world.assert_no_temporaries();
        }
    }
}

#[tokio::test]
async fn links_that_lead_nowhere_are_errors() {
    let world = World::new();
    fs::create_dir(world.folders.home.join(".ssh")).unwrap();
    symlink("loop", world.config()).unwrap();
    symlink("config", world.folders.home.join(".ssh/loop")).unwrap();
    let error = world.apply(|_| ()).await.unwrap_err();
    assert!(error.kind() == Kind::File && error.message().contains("leads back to itself"), "{error}");
    assert!(world.remove().await.is_err());

    fs::remove_file(world.config()).unwrap();
    symlink("/nonexistent/folder/config", world.config()).unwrap();
    assert_eq!(world.apply(|_| ()).await.unwrap_err().kind(), Kind::File);
    assert!(!world.folders.ssh_config().exists());

    fs::remove_file(world.config()).unwrap();
    fs::create_dir(world.config()).unwrap();
    assert!(world.apply(|_| ()).await.unwrap_err().message().contains("not a regular file"));
}

#[tokio::test]
async fn mode_and_owner_are_kept_and_the_first_text_too() {
    let world = World::with("Host mine\n");
    fs::set_permissions(world.config(), fs::Permissions::from_mode(0o644)).unwrap();
    let root = rustix::process::geteuid().is_root();
    if root {
        std::os::unix::fs::chown(world.config(), Some(12345), Some(23456)).unwrap();
    } else {
        not_run("only root can give a file to another user");
    }
    let owner = |path: &Path| fs::metadata(path).map(|m| (m.uid(), m.gid())).unwrap();
    let before = owner(&world.config());
    let backup = world.apply(|_| ()).await.unwrap().backup.unwrap();
    assert!(backup.starts_with(world.folders.root.join("backups")), "{}", backup.display());
    assert_eq!((mode(&world.config()), owner(&world.config())), (0o644, before));
    assert_eq!(mode(&backup), 0o600);
    assert_eq!(fs::read_to_string(&backup).unwrap(), "Host mine\n");

    let with_ours = world.text();
    world.write(format!("{with_ours}Host other\n"));
    world.remove().await.unwrap();
    fs::write(world.config(), "Host other\n").unwrap();
    assert_eq!(world.apply(|_| ()).await.unwrap().backup, None);
    assert_eq!(fs::read_to_string(&backup).unwrap(), "Host mine\n", "never overwritten");

    world.write("Host mine\n");
    world.apply(|_| ()).await.unwrap();
    world.remove().await.unwrap();
    assert!(!world.folders.root.join("backups").exists(), "the file is as it was");
}

/// ssh reads whatever an Include matches, and stops for every host if that leads in a circle.
#[tokio::test]
async fn a_backup_is_where_no_pattern_of_the_users_finds_it() {
    for inline in [false, true] {
        let world = World::new();
        let pattern = world.folders.home.join(".ssh/config.*");
        let text = format!("Include {}\nHost mine\n Port 2222\n", pattern.display());
        world.write(&text);
        for _ in 0..2 {
            world.apply(|request| request.inline = inline).await.unwrap();
            assert_eq!(option(&world.config(), "mine", "port"), "2222");
        }
        world.remove().await.unwrap();
        assert_eq!((world.text(), option(&world.config(), "mine", "port")), (text.clone(), "2222".into()));
        assert_eq!(fs::read_dir(world.folders.home.join(".ssh")).unwrap().count(), 1);

        // An earlier version has left one.
        let backup = world.folders.home.join(".ssh/config.labctl-ssh-proxy.backup");
        fs::write(&backup, &text).unwrap();
        let error = world.apply(|request| request.inline = inline).await.unwrap_err();
        assert!(error.message().contains("Too many recursive"), "{error}");
        let (from, to) = ssh_config::adopt_backup(&world.folders, None).unwrap().unwrap();
        assert!(from == backup && !backup.exists() && fs::read_to_string(to).unwrap() == text);
        world.apply(|request| request.inline = inline).await.unwrap();
        world.remove().await.unwrap();
        assert!(!world.folders.root.join("backups").exists());
    }
}

/// The trial beside the files does not see what an Include of the user's makes of the real ones.
#[tokio::test]
async fn a_change_that_does_harm_in_its_place_is_taken_back() {
    let world = World::new();
    let text = format!("Include {}/hosts*\nHost mine\n", world.folders.root.display());
    world.write(&text);
    let error = world.apply(|_| ()).await.unwrap_err();
    assert!(error.message().contains("has changed ssh for other hosts"), "{error}");
    assert_eq!(world.text(), text);
    assert!(!world.folders.root.join("hosts.json").exists());
    assert!(!world.folders.root.join("backups").exists());
}

/// A file with several names stays one, and what the system keeps beside the contents stays there.
#[tokio::test]
async fn links_lists_and_attributes_are_kept() {
    use rustix::fs::{XattrFlags, getxattr, setxattr};
    // Version 2: the owner and `backup` (34) may read, by a mask that allows it, and no other user.
    const LIST: &[u8] = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\x22\0\0\0\x04\0\0\0\xff\xff\xff\xff\x10\0\x04\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";
    let world = World::with("Host mine\n");
    let set = |name: &str, value: &[u8]| setxattr(world.config(), name, value, XattrFlags::empty());
    let attributes: Vec<(&str, Vec<u8>)> = [("user.x", b"1".as_slice()), ("system.posix_acl_access", LIST)]
        .into_iter()
        .filter(|(name, value)| set(name, value).is_ok())
        .map(|(name, value)| (name, value.to_owned()))
        .collect();
    if attributes.len() < 2 {
        not_run("the file system for temporary files keeps no such attributes");
    }
    let kept = || {
        attributes.iter().all(|(name, value)| {
            let mut room = [0; 100];
            getxattr(world.config(), *name, &mut room[..]).is_ok_and(|size| room[..size] == value[..])
        })
    };
    world.apply(|_| ()).await.unwrap();
    assert!(kept() && world.text().contains("labctl-ssh-proxy"));
    world.remove().await.unwrap();
    assert!(kept());

    let other = world.folders.home.join("dotfiles");
    fs::hard_link(world.config(), &other).unwrap();
    for _ in 0..2 {
        world.apply(|_| ()).await.unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), world.text());
        assert!(kept() && world.text().contains("labctl-ssh-proxy"));
    }
    world.remove().await.unwrap();
    assert_eq!((world.text(), fs::read_to_string(&other).unwrap()), ("Host mine\n".into(), "Host mine\n".into()));
    assert_eq!(fs::metadata(&other).unwrap().nlink(), 2);
    world.assert_no_temporaries();
}

/// As `sed -i` and editors do it: the owner is kept, and the group where that is allowed.
#[test]
fn a_group_that_is_not_the_users_is_no_obstacle() {
    if !rustix::process::geteuid().is_root() {
        return not_run("only root can give a file to another group");
    }
    for (before, after) in [(0o600, 0o600), (0o644, 0o644), (0o640, 0o600)] {
        let world = World::with("Host mine\n");
        let mut child = Child::new(&world.folders.home, "include").unprivileged(&world);
        std::os::unix::fs::chown(world.config(), Some(65534), Some(0)).unwrap();
        fs::set_permissions(world.config(), fs::Permissions::from_mode(before)).unwrap();
        let said = child.run();
        assert!(said.contains("CHILD OK"), "{said}");
        let found = fs::metadata(world.config()).unwrap();
        assert_eq!((found.uid(), mode(&world.config())), (65534, after));
    }
}

#[tokio::test]
async fn what_cannot_be_edited_safely_is_refused_and_left_alone() {
    let begin = "# --- BEGIN labctl-ssh-proxy ---\n";
    let end = "# --- END labctl-ssh-proxy ---\n";
    for (text, why) in [
        ("NoSuchOption yes\n".to_owned(), "ssh cannot read"),
        ("Host a\n  ProxyCommand x %!\nHost b\n  Port none\n".to_owned(), "ssh cannot read"),
        ("\u{feff}Host a\n".to_owned(), "byte order mark"),
        (format!("Host a\n{begin}Host b\n"), "begins but does not end"),
        (format!("{end}Host a\n"), "ends but does not begin"),
        (format!("{end}{begin}"), "ends but does not begin"),
        (format!("{begin}{begin}{end}{end}"), "begins inside another"),
    ] {
        for inline in [false, true] {
            let world = World::with(&text);
            let before = world.snapshot();
            let error = world.apply(|request| request.inline = inline).await.unwrap_err();
            assert!(error.kind() == Kind::File && error.message().contains(why), "{error}");
            assert!(error.hint().is_some(), "{error}");
            assert_eq!(world.snapshot(), before, "{text:?}");
        }
    }
}

#[tokio::test]
async fn a_file_that_broke_afterwards_can_still_be_cleaned() {
    let world = World::with("Host a\n");
    world.apply(|_| ()).await.unwrap();
    fs::write(world.config(), world.text() + "NoSuchOption yes\n").unwrap();
    world.remove().await.unwrap();
    assert_eq!(world.text(), "Host a\nNoSuchOption yes\n");
}

#[tokio::test]
async fn the_users_own_words_about_our_hosts_are_pointed_out() {
    let world = World::with(
        "Host *\n  User me\n  ProxyCommand nc %h %p\n  ControlMaster auto\n  Port 2222\n  ConnectTimeout 3\n\
         Host playground-mine\n  Port 22\n",
    );
    let outcome = world.apply(|_| ()).await.unwrap();
    let warnings = outcome.warnings.join("\n");
    for expected in ["`Host playground-mine`", "ControlMaster auto", "Port 2222", "another file"] {
        assert!(warnings.contains(expected), "{expected} in {warnings}");
    }
    assert!(warnings.contains("line 7"), "{warnings}");
    assert_eq!(option(&world.config(), "playground-mine", "user"), "root");
    assert_eq!(option(&world.config(), "example.com", "proxycommand"), "nc %h %p");
    let quiet = World::with("Host work\n  ControlMaster auto\n").apply(|_| ()).await.unwrap();
    assert_eq!(quiet.warnings.len(), 1, "only that this is not ssh's home: {:?}", quiet.warnings);
}

#[tokio::test]
async fn from_one_form_to_the_other_and_from_anywhere_to_the_top() {
    let world = World::with("Host a\n  User x\n");
    world.apply(|_| ()).await.unwrap();
    let include = world.text();
    world.apply(|request| request.inline = true).await.unwrap();
    assert!(world.text().contains("Host playground-*") && !world.text().contains("Include"));
    assert!(!world.folders.ssh_config().exists());
    world.apply(|_| ()).await.unwrap();
    assert_eq!(world.text(), include);

    let ours = include.strip_suffix("Host a\n  User x\n").unwrap();
    let bare = ours.lines().nth(1).unwrap();
    for moved in
        [format!("Host a\n  User x\n{ours}"), format!("Host a\n  {bare}\n  User x\n"), format!("{ours}{include}")]
    {
        fs::write(world.config(), moved).unwrap();
        world.apply(|_| ()).await.unwrap();
        assert_eq!(world.text(), include);
    }
}

#[tokio::test]
async fn homes_and_files_of_any_name() {
    for name in ["a b", "é", "Ada L (é)", "a&b;c"] {
        // Readers that do not follow Include cannot parse quotes either.
        let needs_quotes = !name.chars().all(char::is_alphanumeric);
        for inline in [false, true] {
            let world = World::at(name);
            if inline && needs_quotes {
                let error = world.apply(|request| request.inline = true).await.unwrap_err();
                assert!(error.message().contains("cannot be written with --inline"), "{error}");
                continue;
            }
            world.apply(|request| request.inline = inline).await.unwrap_or_else(|e| panic!("{name}: {e}"));
            let known = option(&world.config(), "playground-x", "userknownhostsfile");
            assert_eq!(Path::new(&known), world.folders.known_hosts(Platform::Labs), "{name}");
            let identity = option(&world.config(), "playground-x", "identityfile");
            assert_eq!(Path::new(&identity), world.folders.home.join(".ssh/id"));
            world.remove().await.unwrap();
        }
    }
    for name in ["a%b", "a#b", "a'b", "a\"b", "a=b", "a\\b", "a\nb", "a$b", "a*b"] {
        let world = World::at(name);
        world.write("Host mine\n");
        let before = world.snapshot();
        let error = world.apply(|_| ()).await.unwrap_err();
        assert!(error.message().contains("cannot be named") && error.hint().is_some(), "{error}");
        assert_eq!(world.snapshot(), before, "{name:?}");

        // Only names inside the file are restricted. The file itself may be anywhere.
        let other = World::new();
        let file = world.config();
        other.apply(|request| request.file = Some(file.clone())).await.unwrap_or_else(|e| panic!("{name:?}: {e}"));
        assert!(option(&file, "playground-x", "proxycommand").ends_with("%h"));
        let outcome = remove(&other.folders, Some(&file)).await.unwrap();
        assert!(outcome.changed && world.read() == b"Host mine\n");
    }
    let world = World::new();
    for program in ["/opt/100%/x", "/opt/it's/x", "bin/x"] {
        let error = world.apply(|request| request.program = program.into()).await.unwrap_err();
        assert!(error.kind() == Kind::Usage && error.hint().unwrap().contains("/usr/local/bin"), "{error}");
    }
    assert!(!world.config().exists());
}

/// Many entries contain only what is specific to each, with the same options in force.
#[tokio::test]
async fn many_entries_are_short_and_mean_the_same() {
    let world = World::new();
    let folders = world.folders.clone();
    let request = request(&folders);
    let local = vec![entry("playground-shell", Platform::Local)];
    let hosts = [
        format!("playground-{ID}"),
        format!("playground-{ID}.node-02"),
        "playground-shell".into(),
        "playground-x".into(),
        format!("playground-{ID}.node-02.web"),
        "playground-shell.machine.web".into(),
    ];
    let say = || hosts.iter().map(|host| in_force(&world.config(), host).replace("%h", host)).collect::<Vec<_>>();
    apply(&folders, &request, Platform::Local, local.clone()).await.unwrap();
    apply(&folders, &request, Platform::Labs, entries()).await.unwrap();
    let few = say();
    let mut many = entries();
    many.extend((0..300).map(|n| entry(&format!("playground-{n:024x}"), Platform::Labs)));
    apply(&folders, &request, Platform::Labs, many).await.unwrap();
    for (now, before) in say().iter().zip(&few) {
        assert_eq!(now, before);
    }
    let written = fs::read_to_string(folders.root.join("ssh_config")).unwrap();
    assert_eq!((written.matches("\nHost ").count(), written.matches("ConnectTimeout").count()), (306, 1));
    assert_eq!(written.matches("ProxyCommand").count(), 3, "the wildcard's, and those of what is local");
}

/// The same without a wildcard entry, because all entries are the embedded platform's.
#[tokio::test]
async fn many_local_entries_mean_the_same() {
    let world = World::new();
    let (folders, request) = (&world.folders, request(&world.folders));
    let of =
        |n: usize| -> Vec<Entry> { (0..n).map(|n| entry(&format!("playground-{n:024x}"), Platform::Local)).collect() };
    let host = format!("playground-{:024x}", 0);
    apply(folders, &request, Platform::Local, of(1)).await.unwrap();
    let hosts = [host.clone(), format!("{host}.machine.web")];
    let say = || hosts.each_ref().map(|host| in_force(&world.config(), host));
    let few = say();
    apply(folders, &request, Platform::Local, of(300)).await.unwrap();
    assert_eq!(say(), few);
    assert!(few[1].contains("user container\n"), "{}", few[1]);
    assert!(!in_force(&world.config(), "playground-other").contains("proxycommand"));
}

/// ssh runs the command in the entries with the right arguments, whatever the user's shell and the path.
#[tokio::test]
async fn ssh_calls_the_program_that_is_written() {
    let mut shells = vec![PathBuf::from("/bin/sh")];
    shells.extend(["bash", "dash", "zsh", "fish", "tcsh"].map(needs));
    for name in ["plain", "with space (é) & more"] {
        let world = World::at(name);
        let program = world.folders.home.join("proxy");
        let heard = world.temporary.path().join("heard");
        let script = format!("#!/bin/sh\nprintf '[%s]' \"$@\" > '{}'\n", heard.display());
        write_program(&program, &script);
        let local = vec![entry("playground-shell", Platform::Local)];
        let mut request = request(&world.folders);
        request.program = program;
        request.identity = None;
        apply(&world.folders, &request, Platform::Labs, entries()).await.unwrap();
        apply(&world.folders, &request, Platform::Local, local).await.unwrap();
        for shell in &shells {
            let ssh = |arguments: &[&str]| {
                let _ = fs::remove_file(&heard);
                let mut command = Command::new("ssh");
                command.arg("-F").arg(world.config()).args(arguments).env("SHELL", shell).stderr(Stdio::null());
                command.stdin(Stdio::null()).status().unwrap();
                fs::read_to_string(&heard).unwrap_or_default()
            };
            let id = format!("playground-{ID}");
            assert_eq!(ssh(&[&id]), format!("[connect][--user][laborant][{id}]"), "{}", shell.display());
            assert_eq!(ssh(&["playground-Docker"]), "[connect][--user][root][playground-docker]");
            assert_eq!(ssh(&["ada@playground-shell"]), "[--local][connect][--user][ada][playground-shell]");
            let inside = "playground-shell.machine.web";
            assert_eq!(ssh(&[inside]), format!("[--local][connect][--user][container][{inside}]"));
            let inside = "playground-docker.docker-01.web";
            assert_eq!(ssh(&[inside]), format!("[connect][--user][container][{inside}]"));
            assert_eq!(ssh(&[&format!("1000@{inside}")]), format!("[connect][--user][1000][{inside}]"));
            let marker = world.temporary.path().join("marker");
            assert_eq!(ssh(&["-l", &format!("x$(touch {})", marker.display()), &id]), "");
            assert!(!marker.exists());
        }
    }
}

#[tokio::test]
async fn refresh_follows_the_platform_and_nothing_else() {
    let world = World::with("Host mine\n");
    let folders = &world.folders;
    ssh_config::refresh(folders, Platform::Labs, entries()).await.unwrap();
    assert!(!folders.root.exists(), "config-ssh was never run");

    let program = std::env::current_exe().unwrap();
    world.apply(|request| request.program = program.clone()).await.unwrap();
    let inline = world.temporary.path().join("inline");
    let both = |request: &mut Request| {
        (request.program, request.file, request.inline) = (program.clone(), Some(inline.clone()), true);
    };
    world.apply(both).await.unwrap();
    let settled = world.snapshot();
    ssh_config::refresh(folders, Platform::Labs, entries()).await.unwrap();
    assert_eq!(world.snapshot(), settled, "nothing new, nothing written");

    let user_text = world.text();
    ssh_config::refresh(folders, Platform::Labs, vec![entry("playground-new", Platform::Labs)]).await.unwrap();
    ssh_config::refresh(folders, Platform::Local, vec![entry("playground-near", Platform::Local)]).await.unwrap();
    assert_eq!(world.text(), user_text);
    for text in [fs::read_to_string(folders.ssh_config()).unwrap(), fs::read_to_string(&inline).unwrap()] {
        assert!(text.contains("Host playground-new\n") && !text.contains(ID), "{text}");
        assert!(text.contains("--local connect --user %r playground-near\n"), "{text}");
    }
    assert!(option(&world.config(), "playground-near", "userknownhostsfile").ends_with("known_hosts.local"));

    // An invalid entry changes nothing, and our own file is repaired.
    let settled = world.snapshot();
    let hostile = vec![entry("playground-x\nHost *", Platform::Labs)];
    ssh_config::refresh(folders, Platform::Labs, hostile).await.unwrap_err();
    assert_eq!(world.snapshot(), settled);
    fs::remove_file(folders.ssh_config()).unwrap();
    ssh_config::refresh(folders, Platform::Labs, vec![entry("playground-new", Platform::Labs)]).await.unwrap();
    assert!(folders.ssh_config().exists());

    // An outdated block is updated, even if there are no new entries.
    let current = fs::read_to_string(&inline).unwrap();
    fs::write(&inline, current.replace("Host playground-near", "Host playground-gone")).unwrap();
    ssh_config::refresh(folders, Platform::Labs, vec![entry("playground-new", Platform::Labs)]).await.unwrap();
    assert_eq!(fs::read_to_string(&inline).unwrap(), current);

    // Text that the user has removed is not added again.
    fs::write(&inline, "Host mine\n").unwrap();
    ssh_config::refresh(folders, Platform::Labs, entries()).await.unwrap();
    assert_eq!(fs::read_to_string(&inline).unwrap(), "Host mine\n");
    world.remove().await.unwrap();
    assert_eq!(world.text(), "Host mine\n");
    assert!(!folders.root.join("hosts.json").exists());
}

#[tokio::test]
async fn a_program_that_has_moved_is_found_by_refresh() {
    let world = World::new();
    world.apply(|request| request.program = "/nonexistent/labctl-ssh-proxy".into()).await.unwrap();
    ssh_config::refresh(&world.folders, Platform::Labs, entries()).await.unwrap();
    let command = option(&world.config(), "playground-x", "proxycommand");
    assert!(Path::new(command.split(' ').next().unwrap()).exists(), "{command}");
    assert_eq!(fs::canonicalize(ssh_config::program_path().unwrap()).unwrap(), std::env::current_exe().unwrap());
}

#[tokio::test]
async fn a_damaged_record_is_said_and_can_be_got_rid_of() {
    let world = World::with("Host mine\n");
    world.apply(|_| ()).await.unwrap();
    let record = world.folders.root.join("hosts.json");
    fs::write(&record, "{\"entries\": [").unwrap();
    let before = world.snapshot();
    for error in [
        world.apply(|_| ()).await.unwrap_err(),
        ssh_config::refresh(&world.folders, Platform::Labs, entries()).await.unwrap_err(),
    ] {
        assert!(error.kind() == Kind::File && error.message().contains("is damaged"), "{error}");
    }
    assert_eq!(world.snapshot(), before);
    let outcome = world.remove().await.unwrap();
    assert!(outcome.warnings[0].contains("is damaged"));
    assert!(world.text() == "Host mine\n" && !record.exists());
}

#[tokio::test]
async fn what_a_killed_run_left_is_swept() {
    let world = World::with("Host mine\n");
    let ssh = world.folders.home.join(".ssh");
    fs::create_dir_all(world.folders.root.join(".labctl-ssh-proxy-config-abc")).unwrap();
    fs::write(world.folders.root.join(".labctl-ssh-proxy-config-abc/x"), "half").unwrap();
    fs::write(ssh.join(".labctl-ssh-proxy-config-abc"), "half").unwrap();
    let alive = fs::File::create(ssh.join(".labctl-ssh-proxy-alive")).unwrap();
    alive.lock().unwrap();
    world.apply(|_| ()).await.unwrap();
    fs::remove_file(ssh.join(".labctl-ssh-proxy-alive")).unwrap();
    world.assert_no_temporaries();
}

#[tokio::test]
async fn writers_at_once_lose_nothing() {
    let world = World::with("Host mine\n");
    let mut request = request(&world.folders);
    request.program = std::env::current_exe().unwrap();
    let mut writers = Vec::new();
    for n in 0..4 {
        let child = |action: &str, file: &str| {
            let file = world.temporary.path().join(file).join("config");
            Child::new(&world.folders.home, action).env("CHILD_FILE", file).start()
        };
        writers.push(child("inline", "shared"));
        writers.push(child("include", &format!("file-{n}")));
        writers.push(child("local", "shared"));
    }
    // Also within this process, because a lock must not depend on the caller.
    let (one, two) = tokio::join!(
        apply(&world.folders, &request, Platform::Labs, entries()),
        apply(&world.folders, &request, Platform::Local, vec![entry("playground-child", Platform::Local)]),
    );
    one.unwrap();
    two.unwrap();
    for writer in writers {
        let said = finish(writer);
        assert!(said.contains("CHILD OK"), "{said}");
    }
    let shared = fs::read_to_string(world.temporary.path().join("shared/config")).unwrap();
    assert_eq!(shared.matches("BEGIN labctl-ssh-proxy").count(), 1, "{shared}");
    let record = fs::read_to_string(world.folders.root.join("hosts.json")).unwrap();
    for n in 0..4 {
        assert!(record.contains(&format!("file-{n}")), "{record}");
    }
    let config = fs::read_to_string(world.folders.ssh_config()).unwrap();
    assert!(config.contains(ID) && config.contains("Host playground-child\n"), "{config}");
    world.assert_no_temporaries();
}

/// Two homes of this program (a trial and the real one) write to the same file.
#[tokio::test]
async fn writers_with_different_homes_keep_each_others_text_whole() {
    let (one, two) = (World::new(), World::new());
    let file = one.temporary.path().join("shared");
    fs::write(&file, "Host mine\n").unwrap();
    let writers = [&one, &two]
        .repeat(3)
        .into_iter()
        .map(|world| Child::new(&world.folders.home, "inline").env("CHILD_FILE", &file).start());
    for writer in writers.collect::<Vec<_>>() {
        let said = finish(writer);
        assert!(said.contains("CHILD OK"), "{said}");
    }
    let text = fs::read_to_string(&file).unwrap();
    assert!(
        text.ends_with("# --- END labctl-ssh-proxy ---\nHost mine\n") && text.matches("BEGIN").count() == 1,
        "{text}"
    );
}

/// An editor saves the file while ssh runs. Here, ssh itself runs the editor.
#[tokio::test]
async fn what_others_write_meanwhile_is_not_lost() {
    for inline in [false, true] {
        let world = World::new();
        let config = world.config();
        let text = format!("Match exec \"echo '# more' >> {}\"\n  Port 22\n", config.display());
        world.write(&text);
        let error = world.apply(|request| request.inline = inline).await.unwrap_err();
        assert!(error.message().contains("changed in the meantime"), "{error}");
        assert!(world.text().starts_with(&format!("{text}# more\n")), "{}", world.text());
        assert!(!world.folders.root.join("backups").exists());
        assert!(!world.folders.ssh_config().exists() && !world.folders.root.join("hosts.json").exists());
        world.assert_no_temporaries();
    }
}

#[tokio::test]
async fn killed_at_any_moment_it_leaves_the_old_or_the_new() {
    let world = World::with("Host mine\n");
    world.apply(|request| request.inline = true).await.unwrap();
    let with = world.text();
    world.remove().await.unwrap();
    for round in 0..24 {
        let mut child = Child::new(&world.folders.home, "to and fro").start();
        // Any moment will do. The first ones come before the child has started.
        std::thread::sleep(Duration::from_millis(10 + 7 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let text = world.text();
        assert!(text == "Host mine\n" || text == with, "{text}");
    }
    world.apply(|request| request.inline = true).await.unwrap();
    assert_eq!(world.text(), with);
    world.assert_no_temporaries();
    world.remove().await.unwrap();
    assert_eq!(world.text(), "Host mine\n");
}

#[tokio::test]
async fn a_block_that_was_moved_between_the_users_lines_is_not_torn_out_silently() {
    let world = World::with("");
    world.apply(|request| request.inline = true).await.unwrap();
    let moved = format!("Host a\n{}Port 2222\n", world.text());
    fs::write(world.config(), &moved).unwrap();
    let error = world.apply(|request| request.inline = true).await.unwrap_err();
    assert!(error.message().contains("-port 2222") && error.hint().unwrap().contains("by hand"), "{error}");
    assert_eq!(world.text(), moved);
    let outcome = world.remove().await.unwrap();
    assert!(outcome.warnings[0].contains("-port 2222"), "{:?}", outcome.warnings);
    assert_eq!(world.text(), "Host a\nPort 2222\n");
}

#[test]
fn the_program_is_found_as_it_was_called() {
    let world = World::new();
    let link = world.temporary.path().join("labctl-link");
    symlink(std::env::current_exe().unwrap(), &link).unwrap();
    let found = |name: &Path, path: &Path| {
        let mut child = Child::new(&world.folders.home, "program").env("PATH", path);
        child.prepare().arg0(name);
        finish(child.command.spawn().unwrap())
    };
    let folder = world.temporary.path();
    let through_link = format!("CHILD PROGRAM {}\n", link.display());
    assert!(found(Path::new("labctl-link"), folder).contains(&through_link), "by PATH");
    assert!(found(&link, Path::new("/")).contains(&through_link), "by its path");
    let system = format!("CHILD PROGRAM {}\n", std::env::current_exe().unwrap().display());
    for liar in ["/bin/sh", "sh", "nonexistent", ""] {
        assert!(found(Path::new(liar), Path::new("/usr/bin:/bin")).contains(&system), "{liar}");
    }
}

#[test]
fn as_a_user_who_is_not_root() {
    let try_with = |prepare: &dyn Fn(&World), action: &str| {
        let world = World::with("Host mine\n");
        let mut child = Child::new(&world.folders.home, action).unprivileged(&world);
        prepare(&world);
        let before = world.snapshot();
        let said = child.run();
        let unchanged = world.snapshot() == before;
        (said, unchanged, world)
    };
    let chmod = |path: PathBuf, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();

    let (said, _, world) = try_with(&|_| (), "include");
    assert!(said.contains("CHILD OK"), "{said}");
    assert!(world.text().starts_with("# --- labctl-ssh-proxy") && mode(&world.config()) == 0o600);

    for action in ["include", "inline"] {
        for (prepare, why) in [
            (&(|world: &World| chmod(world.config(), 0o400)) as &dyn Fn(&World), "read-only"),
            (&|world: &World| chmod(world.folders.home.join(".ssh"), 0o500), "Permission denied"),
            (&|world: &World| chmod(world.config(), 0o000), "Permission denied"),
            (&|world: &World| chmod(world.config(), 0o606), "every user can write to it"),
        ] {
            let (said, unchanged, world) = try_with(prepare, action);
            assert!(said.contains("CHILD ERROR") && said.contains(why) && said.contains("hint: "), "{why}: {said}");
            assert!(why != "read-only" || said.contains("if another program makes this file"), "{said}");
            // Our own folder with its lock may be new, but nothing else.
            assert!(unchanged, "{why}: {:?}", world.snapshot().keys());
            assert!(!world.folders.ssh_config().exists());
        }
    }
    let (said, ..) = try_with(&|world| chmod(world.config(), 0o660), "include");
    assert!(said.contains("CHILD OK") && said.contains("a group can write"), "{said}");
}

#[test]
fn a_file_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return not_run("only root can give a file to another user");
    }
    let world = World::with("Host mine\n");
    let mut child = Child::new(&world.folders.home, "include").unprivileged(&world);
    std::os::unix::fs::chown(world.config(), Some(12345), None).unwrap();
    fs::set_permissions(world.config(), fs::Permissions::from_mode(0o644)).unwrap();
    let said = child.run();
    assert!(said.contains("another user owns it"), "{said}");
    assert_eq!(world.text(), "Host mine\n");
}

#[test]
fn a_full_disk_leaves_all_as_it_was() {
    let world = World::with("Host mine\n");
    let before = world.snapshot();
    // The file size limit is 0, so that writes fail as on a full disk.
    let said = Child::new(&world.folders.home, "include")
        .under(&["sh", "-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh"])
        .run();
    assert!(said.contains("CHILD ERROR") && said.contains("too large"), "{said}");
    assert_eq!(world.snapshot(), before);
}

#[test]
fn without_ssh_or_with_an_old_one() {
    let world = World::with("Host mine\n");
    let empty = world.temporary.path().join("bin");
    fs::create_dir(&empty).unwrap();
    let said = Child::new(&world.folders.home, "include").env("PATH", &empty).run();
    assert!(said.contains("CHILD ERROR") && said.contains("install openssh-client"), "{said}");
    assert_eq!(world.text(), "Host mine\n");

    // One that lets hostile names through, as OpenSSH did before 9.6.
    let real = needs("ssh");
    let script = format!("#!/bin/sh\ncase \"$*\" in *'x$(y)'*) exit 0;; esac\nexec '{}' \"$@\"\n", real.display());
    write_program(&empty.join("ssh"), &script);
    let path = format!("{}:/usr/bin:/bin", empty.display());
    let said = Child::new(&world.folders.home, "include").env("PATH", path).run();
    assert!(said.contains("CHILD OK") && said.contains("CVE-2023-51385"), "{said}");
    let config = fs::read_to_string(world.folders.ssh_config()).unwrap();
    assert!(config.contains(&format!("connect --user laborant playground-{ID}\n")), "{config}");
    assert!(!config.contains("%r") && !config.contains('*'), "{config}");

    // Removal does not need ssh.
    let nothing = world.temporary.path().join("nothing");
    let said = Child::new(&world.folders.home, "remove").env("PATH", nothing).run();
    assert!(said.contains("CHILD OK"), "{said}");
    assert_eq!(world.text(), "Host mine\n");
}

/// Generates valid lines of ssh's configuration, in any order.
fn valid_lines() -> impl Strategy<Value = String> {
    let line = prop::sample::select(vec![
        "Host *",
        "Host work *.example",
        "Host !work *",
        "Host example.com",
        "Match all",
        "Match host example.*",
        "  User ada",
        "  Port 2222",
        "\tCompression yes",
        "  ForwardAgent=yes",
        "  ProxyJump bastion",
        "  SendEnv A B",
        "  LocalForward 8080 localhost:80",
        "  IdentityFile \"~/my key\"",
        "# comment",
        "",
        "  ServerAliveInterval 7",
        "  UserKnownHostsFile ~/.ssh/other",
        "Include nothing/*",
        "  StrictHostKeyChecking no",
        "  ProxyCommand nc %h %p",
    ]);
    let ending = prop::sample::select(vec!["\n", "\r\n"]);
    (prop::collection::vec(line, 0..14), ending, any::<bool>())
        .prop_map(|(lines, ending, last)| lines.join(ending) + if last { ending } else { "" })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn for_other_hosts_nothing_changes(text in valid_lines(), inline: bool) {
        let world = World::with(&text);
        let hosts = ["example.com", "work", "a.example", "localhost"];
        let before = hosts.map(|host| in_force(&world.config(), host));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(world.apply(|request| request.inline = inline)).unwrap();
        prop_assert_eq!(hosts.map(|host| in_force(&world.config(), host)), before);
        let command = option(&world.config(), &format!("playground-{ID}"), "proxycommand");
        let wanted = format!("/usr/local/bin/labctl-ssh-proxy connect --user %r playground-{ID}");
        prop_assert_eq!(command, wanted);
        prop_assert_eq!(option(&world.config(), "playground-x", "stricthostkeychecking"), "true");
        runtime.block_on(world.remove()).unwrap();
        prop_assert_eq!(world.read(), text.as_bytes());
    }
}

/// A child process of this test program that performs one operation and reports the result.
struct Child {
    command: Command,
    program: PathBuf,
    prefix: Vec<String>,
    home: PathBuf,
    action: String,
    environment: Vec<(String, std::ffi::OsString)>,
}

impl Child {
    fn new(home: &Path, action: &str) -> Child {
        Child {
            command: Command::new("true"),
            program: std::env::current_exe().unwrap(),
            prefix: Vec::new(),
            home: home.to_owned(),
            action: action.to_owned(),
            environment: Vec::new(),
        }
    }

    fn env(mut self, name: &str, value: impl Into<std::ffi::OsString>) -> Child {
        self.environment.push((name.into(), value.into()));
        self
    }

    fn under(mut self, words: &[&str]) -> Child {
        self.prefix.extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    /// Runs the child as a user without special permissions: `nobody`, who becomes the owner of the world, if this is
    /// root.
    fn unprivileged(mut self, world: &World) -> Child {
        const NOBODY: u32 = 65534;
        if !rustix::process::geteuid().is_root() {
            return self;
        }
        // Other users may have no access to the folder of test programs.
        let copy = world.temporary.path().join("program");
        let status = Command::new("cp").arg(&self.program).arg(&copy).status().unwrap();
        assert!(status.success());
        self.program = copy;
        let status = Command::new("chown").args(["-R", "65534:65534"]).arg(world.temporary.path()).status().unwrap();
        assert!(status.success());
        let id = NOBODY.to_string();
        self.under(&["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"])
    }

    fn start(mut self) -> std::process::Child {
        self.prepare().spawn().unwrap()
    }

    fn run(&mut self) -> String {
        finish(self.prepare().spawn().unwrap())
    }

    fn prepare(&mut self) -> &mut Command {
        let mut words = self.prefix.iter().map(std::ffi::OsString::from).chain([self.program.clone().into()]);
        // By its absolute path, because the child's PATH is different.
        self.command = Command::new(which::which(words.next().unwrap()).unwrap());
        self.command.args(words).args(["--exact", "ssh_config::child", "--ignored", "--nocapture"]).current_dir("/");
        self.command.env("CHILD_HOME", &self.home).env("CHILD_ACTION", &self.action).envs(self.environment.clone());
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped())
    }
}

fn finish(child: std::process::Child) -> String {
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The operation of a [`Child`].
#[tokio::test]
#[ignore = "other tests start it"]
#[expect(clippy::print_stdout, reason = "this is how it speaks to the test that started it")]
async fn child() {
    let home = std::env::var_os("CHILD_HOME").expect("another test starts this one");
    let action = std::env::var("CHILD_ACTION").unwrap();
    let folders = folders(Path::new(&home));
    let file = std::env::var_os("CHILD_FILE").map(PathBuf::from);
    let mut request = Request { file: file.clone(), ..request(&folders) };
    let local = vec![entry("playground-child", Platform::Local)];
    let result = match action.as_str() {
        "include" => apply(&folders, &request, Platform::Labs, entries()).await,
        "inline" => {
            request.inline = true;
            apply(&folders, &request, Platform::Labs, entries()).await
        }
        "local" => {
            request.inline = true;
            apply(&folders, &request, Platform::Local, local).await
        }
        "remove" => remove(&folders, file.as_deref()).await,
        "program" => {
            println!("CHILD PROGRAM {}", ssh_config::program_path().unwrap().display());
            return;
        }
        "to and fro" => loop {
            request.inline = true;
            apply(&folders, &request, Platform::Labs, entries()).await.unwrap();
            remove(&folders, None).await.unwrap();
        },
        other => panic!("{other}"),
    };
    match result {
        Ok(outcome) => println!("CHILD OK {:?}", outcome.warnings),
        Err(error) => println!("CHILD ERROR {error}"),
    }
}
