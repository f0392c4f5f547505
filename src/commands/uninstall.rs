//! `uninstall`: everything that this program has written goes, and everything else stays: playgrounds, the login that is
//! shared with labctl, keys, settings.
//!
//! First the list, then the question. The embedded platform's playgrounds hold people's files, so they are asked about
//! on their own.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    app::App,
    commands::kube,
    editors::{jetbrains, zed},
    error::{Error, Result},
    files::{self, user_file::UserFile},
    records::live,
    ssh_config,
    ui::{notice, out},
};

/// Take back everything that this program has written. Your playgrounds, login and keys stay.
///
/// Shows the list first. The embedded platform's playgrounds are asked about on their own.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only list what would go.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask. The embedded platform's playgrounds stay.
    #[arg(long)]
    yes: bool,
    /// Erase those too, without asking.
    #[arg(long)]
    local_playgrounds: bool,
}

/// One thing that goes. What later commands write into others' files belongs here.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    /// Our lines in a file of ssh's configuration.
    SshConfig(PathBuf),
    /// What that file was before the first edit, where it is that again.
    Backup { backup: PathBuf, of: PathBuf },
    /// Our hosts in a file of a JetBrains product.
    Jetbrains(PathBuf),
    /// Our hosts in Zed's settings.
    Zed,
    /// A context of ours in the user's kubeconfig.
    KubeContext(String),
    /// A file or folder of our own.
    Own(PathBuf),
}

impl Item {
    fn describe(&self) -> String {
        match self {
            Item::SshConfig(file) => format!("our lines in {}", file.display()),
            Item::Backup { backup, of } => format!("{}, if {} is as it was before", backup.display(), of.display()),
            Item::Jetbrains(file) => format!("our hosts in {}", file.display()),
            Item::Zed => "our hosts in Zed's settings".into(),
            Item::KubeContext(name) => format!("the context {name} in your kubeconfig"),
            Item::Own(path) => path.display().to_string(),
        }
    }
}

/// Shows the list, asks, and does it.
///
/// # Errors
/// As [`out::agreed`], and [`crate::error::Kind::File`] when an item cannot be taken back. The items before it in the list
/// are then gone, and a second run goes on from there.
pub async fn run(app: &App, args: Args) -> Result<()> {
    let items = items(app)?;
    let disks = app.folders.local();
    let has_disks = disks.exists();
    if items.is_empty() && !has_disks {
        return out::line("There is nothing to take back.");
    }
    out::line("This goes:")?;
    for item in &items {
        out::line(&format!("  {}", item.describe()))?;
    }
    if has_disks {
        let what = if args.local_playgrounds { "" } else { " (you are asked about them on their own)" };
        out::line(&format!("  the embedded platform's playgrounds and their files in {}{what}", disks.display()))?;
    }
    out::line("This stays: your playgrounds on the platform, the login shared with labctl, your keys, your settings.")?;
    let open = live::all(&app.folders).len();
    if open > 0 {
        notice::line(&format!("warning: {open} connections are open; they stay until they end by themselves"));
    }
    if args.dry_run {
        return Ok(());
    }
    if !args.yes {
        out::agreed("Take all of this back?", "nothing was taken back").await?;
    }
    for item in items {
        take_back(app, &item).await?;
    }
    // Locks that this itself has made.
    for item in self::items(app)? {
        if let Item::Own(path) = item {
            delete(&path)?;
        }
    }
    if has_disks && (args.local_playgrounds || !args.yes && may_erase(&disks).await) {
        stop_platform(app).await?;
        delete(&disks)?;
    }
    // Where nothing is left in it. A playground that stays is there.
    let _ = fs::remove_dir(&app.folders.root);
    out::line("Done. Delete the program itself the way you installed it, and its completions where you put them.")?;
    if disks.exists() {
        out::line(&format!("The embedded platform's playgrounds are still in {}.", disks.display()))?;
    }
    Ok(())
}

async fn may_erase(disks: &Path) -> bool {
    let question = format!("Erase the embedded platform's playgrounds and their files in {}, too?", disks.display());
    out::confirm(&question).await == Some(true)
}

/// Everything but the embedded platform's playgrounds, in the order in which it is to go: what leads to other things
/// first.
fn items(app: &App) -> Result<Vec<Item>> {
    let folders = &app.folders;
    // First, since they refuse while a product runs: then nothing has been taken back.
    let mut items: Vec<Item> = jetbrains::written().into_iter().map(Item::Jetbrains).collect();
    if zed::is_written(folders) {
        items.push(Item::Zed);
    }
    // A damaged record names no files any more, but the usual one can be looked at.
    let managed = ssh_config::managed_files(folders).unwrap_or_else(|error| {
        notice::line(&format!("warning: {}", error.message()));
        vec![(folders.home.join(".ssh/config"), false)]
    });
    for (file, _) in managed {
        items.push(Item::SshConfig(file.clone()));
        let backup = UserFile::open(&file)?.backup_path();
        if backup.exists() {
            items.push(Item::Backup { backup, of: file });
        }
    }
    items.extend(kube::user::merged(folders).into_iter().map(Item::KubeContext));
    let entries = match fs::read_dir(&folders.root) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(items),
        Err(e) => return Err(Error::file("read", &folders.root, &e)),
    };
    // The identity may have been put there; it is the user's. The embedded platform has a question of its own, and its
    // lock lies beside its folder.
    let identity = app.identity_path().unwrap_or_default();
    let public = with_ending(&identity, ".pub");
    let kept = [folders.local(), with_ending(&folders.local(), ".lock"), folders.settings.clone(), identity, public];
    let own = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| is_named_by_us(path) && !kept.iter().any(|kept| kept.starts_with(path)));
    let mut own: Vec<_> = own.map(Item::Own).collect();
    own.sort_by_key(Item::describe);
    items.extend(own);
    Ok(items)
}

/// Whether a file in our folder has a name that this program gives. The folder may be one that the user has named, with
/// other things in it.
fn is_named_by_us(path: &Path) -> bool {
    const NAMES: [&str; 10] =
        ["hosts", "known_hosts", "kube", "live", "logs", "memory", "names", "ssh_config", "tunnels", "zed"];
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    name.starts_with(files::TEMPORARY_PREFIX) || NAMES.contains(&name.split('.').next().unwrap_or_default())
}

async fn take_back(app: &App, item: &Item) -> Result<()> {
    match item {
        Item::SshConfig(file) => {
            let plan = ssh_config::plan_removal(&app.folders, Some(file)).await?;
            for warning in plan.warnings() {
                notice::line(&format!("warning: {warning}"));
            }
            plan.write().await.map(drop)
        }
        // It is the user's last resort where somebody has changed the file since.
        Item::Backup { backup, of } => match (fs::read(backup), fs::read(of)) {
            (Ok(before), Ok(now)) if before == now => delete(backup),
            (Ok(_), _) => out::line(&format!("{} stays: {} has changed since", backup.display(), of.display())),
            (Err(_), _) => Ok(()),
        },
        // All at once, at the first of them.
        Item::Jetbrains(_) if jetbrains::written().is_empty() => Ok(()),
        Item::Jetbrains(_) => {
            let request = jetbrains::Request { remove: true, yes: true, ..jetbrains::Request::default() };
            jetbrains::apply(&request, &[]).await
        }
        Item::Zed => {
            let request = zed::Request { remove: true, yes: true, dry_run: false };
            zed::apply(&app.folders, &request, &[]).await
        }
        Item::KubeContext(name) => kube::user::remove(&app.folders, name).map(drop),
        Item::Own(path) => delete(path),
    }
}

/// Deletes a file or a folder. One that is not there any more is what was wanted.
fn delete(path: &Path) -> Result<()> {
    let is_folder = fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    let deleted = if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match deleted {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::file("delete", path, &e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

async fn stop_platform(app: &App) -> Result<()> {
    #[cfg(unix)]
    crate::local::stop(&app.folders).await?;
    delete(&with_ending(&app.folders.local(), ".lock"))
}
