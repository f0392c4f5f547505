//! `uninstall`: everything that this program has written goes, and everything else stays: playgrounds, the login that
//! is shared with labctl, keys, settings.
//!
//! First the list, then the question. The embedded platform's playgrounds hold people's files, so they are asked about
//! on their own.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    app::App,
    commands::{config, kube, listen::service},
    editors::{jetbrains, zed},
    error::{Error, Result},
    files::{self, lock_path, user_file::UserFile},
    platform::Platform,
    records::{
        self,
        listeners::{self, Listener},
        live,
        relays::Relays,
    },
    settings::Folders,
    ssh_config,
    target::Target,
    ui::{notice, out},
};

/// Remove everything that this program has written. Your playgrounds, login and keys are kept.
///
/// Shows the list first, and asks. There is a separate question about the embedded platform's playgrounds.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only list what would be removed.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask. The embedded platform's playgrounds are kept.
    #[arg(long)]
    yes: bool,
    /// Also erase the embedded platform's playgrounds, without asking.
    #[arg(long)]
    local_playgrounds: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One item to take back. Every new command that writes into a file of another program adds a variant here.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    /// Our lines in a file of ssh's configuration.
    SshConfig(PathBuf),
    /// The backup of that file, which goes if the file is the same again.
    Backup { backup: PathBuf, of: PathBuf },
    /// Our hosts in a file of a JetBrains product.
    Jetbrains(PathBuf),
    /// Our hosts in Zed's settings.
    Zed,
    /// A context of ours in the user's kubeconfig.
    KubeContext(String),
    /// A service that keeps a listener.
    Service(Listener),
    /// A file or folder of our own.
    Own(PathBuf),
}

impl Item {
    fn describe(&self) -> String {
        match self {
            Item::SshConfig(file) => format!("this program's lines in {}", file.display()),
            Item::Backup { backup, of } => {
                format!("{}, if {} is then the same as this backup", backup.display(), of.display())
            }
            Item::Jetbrains(file) => format!("this program's hosts in {}", file.display()),
            Item::Zed => "this program's hosts in Zed's settings".into(),
            Item::KubeContext(name) => format!("the context {name} in your kubeconfig"),
            Item::Service(listener) => {
                let file = listener.service.as_ref().map_or_else(String::new, |file| file.display().to_string());
                format!("the service that listens for {}: {file}", listener.host)
            }
            Item::Own(path) => path.display().to_string(),
        }
    }
}

/// Shows the list, asks, and takes everything back.
///
/// # Errors
/// As [`out::agreed`], and [`crate::error::Kind::File`] when an item cannot be taken back. The items before it in the
/// list are then gone, and a second run goes on from there.
pub(crate) async fn run(app: &App, args: Args) -> Result<()> {
    let items = items(app)?;
    let disks = app.folders.local();
    let has_disks = disks.exists();
    let mut report = Report { json: args.json, ..Report::default() };
    if items.is_empty() && !has_disks {
        report.say("There is nothing to remove.")?;
        return report.done(true);
    }
    report.heading("Will be removed:")?;
    for item in &items {
        report.item(item.describe())?;
    }
    if has_disks {
        let what = if args.local_playgrounds { "" } else { " (after a separate question)" };
        report.item(format!("the embedded platform's playgrounds and their files in {}{what}", disks.display()))?;
    }
    report.say(
        "Will be kept: your playgrounds on the platform, the login shared with labctl, your keys, your settings.",
    )?;
    let open = live::all(&app.folders).len();
    if open > 0 {
        report.warn(&match open {
            1 => "1 connection is open; it ends with its session".to_owned(),
            _ => format!("{open} connections are open; they end with their sessions"),
        });
    }
    for [play, machine, user] in Relays::below(&app.folders.root).machines() {
        let host = Target::of_play(&play, Some(&machine));
        report.warn(&app.platform.commands(&format!(
            "a relay may run on machine {machine} of playground {play}, with its file in ~{user}/.cache/labctl-ssh-proxy. It \
             ends, and deletes the file, 12 hours after its last session. To have it end with its last session: \
             `labctl-ssh-proxy ssh {user}@{host} rm .cache/labctl-ssh-proxy/relay-1.json`"
        )));
    }
    if args.dry_run {
        return report.done(false);
    }
    if !args.yes {
        out::agreed("Remove all of this?", args.json, "Nothing was removed.", out::ADD_YES_OR_DRY_RUN).await?;
    }
    // A `config-ssh` that was killed before its first change has left no record of the file.
    if let Ok(file) = UserFile::open(&app.folders.home.join(".ssh/config")) {
        file.sweep();
    }
    for item in items {
        take_back(app, &item, &mut report).await?;
    }
    // The run itself has taken locks, which are files of ours, too.
    for item in self::items(app)? {
        if let Item::Own(path) = item {
            delete_own(&app.folders, &path)?;
        }
    }
    if has_disks && (args.local_playgrounds || !args.yes && may_erase(&disks).await) {
        stop_platform(app).await?;
        delete(&disks)?;
    }
    let _ = fs::remove_dir(app.folders.backups());
    // These fail, as they should, while anything is left: a playground that stays, for example, or labctl's login.
    let _ = fs::remove_dir(&app.folders.root);
    if let Some(shared) = app.folders.root.parent().filter(|folder| **folder == app.folders.home.join(".iximiuz")) {
        let _ = fs::remove_dir(shared);
    }
    report.say(&farewell(&ssh_config::program_path()?))?;
    if disks.exists() {
        report.say(&format!("The embedded platform's playgrounds are still in {}.", disks.display()))?;
    }
    report.done(true)
}

/// The report of `uninstall`: as lines at once, or as JSON at the end.
#[derive(Default, Serialize)]
struct Report {
    #[serde(skip)]
    json: bool,
    items: Vec<String>,
    done: bool,
    messages: Vec<String>,
}

impl Report {
    fn heading(&self, text: &str) -> Result<()> {
        if self.json { Ok(()) } else { out::line(text) }
    }

    fn item(&mut self, text: String) -> Result<()> {
        self.heading(&format!("  {text}"))?;
        self.items.push(text);
        Ok(())
    }

    fn say(&mut self, sentence: &str) -> Result<()> {
        self.heading(sentence)?;
        self.messages.push(sentence.to_owned());
        Ok(())
    }

    fn warn(&mut self, warning: &str) {
        if !self.json {
            notice::line(&format!("warning: {warning}"));
        }
        self.messages.push(warning.to_owned());
    }

    fn done(mut self, done: bool) -> Result<()> {
        self.done = done;
        if self.json { out::json(&self) } else { Ok(()) }
    }
}

/// Says how the program itself is removed, if the way in which it was installed has left a trace.
fn farewell(program: &Path) -> String {
    let prefix = program.parent().and_then(Path::parent).unwrap_or(program);
    let installer = prefix.join("share/labctl-ssh-proxy/remove");
    let is_debian = || Path::new("/var/lib/dpkg/info/labctl-ssh-proxy.list").exists();
    let command = if installer.exists() {
        format!("sh {}", installer.display())
    } else if program.starts_with("/usr/bin") && is_debian() {
        "sudo apt-get remove labctl-ssh-proxy".into()
    } else if prefix.join(".crates.toml").exists() {
        "cargo uninstall labctl-ssh-proxy".into()
    } else {
        return "Done. Uninstall the program itself the way you installed it, and delete its completions where you put \
                them."
            .into();
    };
    format!("Done. This removes the program itself: {command}")
}

async fn may_erase(disks: &Path) -> bool {
    let question = format!("Also erase the embedded platform's playgrounds and their files in {}?", disks.display());
    out::confirm(&question).await == Some(true)
}

/// The items, without the embedded platform's playgrounds, in the order in which they are taken back: files that lead
/// to others come first.
fn items(app: &App) -> Result<Vec<Item>> {
    let folders = &app.folders;
    // First, because they refuse while a product runs, and then nothing has been taken back yet.
    let mut items: Vec<Item> = jetbrains::written().into_iter().map(Item::Jetbrains).collect();
    if zed::is_written(folders) {
        items.push(Item::Zed);
    }
    // A damaged record names no files, but the usual one can be looked at.
    let managed = ssh_config::managed_files(folders).unwrap_or_else(|error| {
        notice::line(&format!("warning: {}", error.message()));
        vec![(folders.home.join(".ssh/config"), false)]
    });
    for (file, _) in managed {
        items.push(Item::SshConfig(file.clone()));
        let user = UserFile::open(&file)?;
        let backup = Some(user.backup_path(&folders.backups())).filter(|backup| backup.exists());
        for backup in [backup, user.earlier_backup()].into_iter().flatten() {
            items.push(Item::Backup { backup, of: file.clone() });
        }
    }
    items.extend(kube::user::merged(folders).into_iter().map(Item::KubeContext));
    let installed = listeners::all(folders).into_iter().filter(|listener| listener.service.is_some());
    items.extend(installed.map(Item::Service));
    let mut own: Vec<_> = own_paths(folders).into_iter().filter(|path| path.exists()).map(Item::Own).collect();
    own.sort_by_key(Item::describe);
    items.extend(own);
    Ok(items)
}

/// The files and folders that this program keeps in its folder, besides the embedded platform's, and the temporaries of
/// killed runs. Anything else is the user's, because the folder may be one that the user has chosen.
fn own_paths(folders: &Folders) -> Vec<PathBuf> {
    let mut files = records::files(folders);
    files.extend(ssh_config::own_files(folders));
    files.extend(Platform::ALL.map(|platform| folders.known_hosts(platform)));
    files.extend([zed::record_path(folders), jetbrains::record_path(folders)]);
    let locks: Vec<PathBuf> = files.iter().map(|file| lock_path(file)).collect();
    let temporaries = files::temporaries(&folders.root);
    let folders = own_folders(folders).into_iter().map(|(folder, _)| folder);
    files.into_iter().chain(locks).chain(temporaries).chain(folders).collect()
}

/// Our folders, each with a function that tells our files in it, by their names, from others.
fn own_folders(folders: &Folders) -> Vec<records::Kept> {
    let mut own = records::folders(folders);
    own.push((folders.kube(), kube::user::is_own));
    own.push((folders.programs(), is_copy));
    own
}

/// Reports whether the VS Code extension makes files of this name in the folder of the program that it copies.
fn is_copy(name: &str) -> bool {
    name.strip_prefix(env!("CARGO_PKG_NAME")).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

async fn take_back(app: &App, item: &Item, report: &mut Report) -> Result<()> {
    match item {
        Item::SshConfig(file) => {
            let plan = ssh_config::plan_removal(&app.folders, Some(file)).await?;
            for warning in plan.warnings() {
                notice::line(&format!("warning: {warning}"));
            }
            plan.write().await.map(drop)
        }
        // The backup is the user's last resort if the file was changed by another program since.
        Item::Backup { backup, of } => match (fs::read(backup), fs::read(of)) {
            (Ok(before), Ok(now)) if before == now => delete(backup),
            (Ok(_), _) => {
                report.say(&format!("{} is kept, because {} has changed since", backup.display(), of.display()))
            }
            (Err(_), _) => Ok(()),
        },
        // The first item has removed them all.
        Item::Jetbrains(_) if jetbrains::written().is_empty() => Ok(()),
        Item::Jetbrains(_) => {
            let request = jetbrains::Request { remove: true, ..jetbrains::Request::default() };
            let written = jetbrains::apply(&app.folders, &request, &[], async |_| Ok(true)).await?;
            written.iter().try_for_each(|file| report.say(&config::sentence(file)))
        }
        Item::Zed => {
            let request = zed::Request { remove: true, dry_run: false };
            let written = zed::apply(&app.folders, &request, &[], async |_| Ok(true)).await?;
            written.iter().try_for_each(|file| report.say(&config::sentence(file)))
        }
        Item::KubeContext(name) => kube::user::remove(&app.folders, name).map(drop),
        Item::Service(listener) => service::remove(listener).await,
        Item::Own(path) => delete_own(&app.folders, path),
    }
}

/// Deletes a file of ours, or what is ours in a folder of ours, and then the folder unless something is left in it.
fn delete_own(folders: &Folders, path: &Path) -> Result<()> {
    let Some((_, is_own)) = own_folders(folders).into_iter().find(|(folder, _)| folder == path) else {
        return delete(path);
    };
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::file("read", path, &e)),
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        // The program that runs this goes the way it came, with the extension. Windows would refuse to delete it.
        if ssh_config::program_path().is_ok_and(|program| program == entry.path()) {
            continue;
        }
        if name.to_str().is_some_and(|name| is_own(name) || name.starts_with(files::TEMPORARY_PREFIX)) {
            delete(&entry.path())?;
        }
    }
    let _ = fs::remove_dir(path);
    Ok(())
}

/// Deletes a file or a folder. A missing one is no error.
fn delete(path: &Path) -> Result<()> {
    let is_folder = fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    let deleted = if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match deleted {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::file("delete", path, &e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

async fn stop_platform(app: &App) -> Result<()> {
    #[cfg(unix)]
    crate::local::stop(&app.folders).await?;
    delete(&lock_path(&app.folders.local()))
}
