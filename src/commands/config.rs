//! `config-ssh`, `config-jetbrains` and `config-zed` as people use them: show the difference, ask, write.

use std::path::PathBuf;

use serde::Serialize;

use crate::{
    app::App,
    commands::playgrounds,
    editors::{
        jetbrains,
        settings_file::{Plan, Written},
        zed,
    },
    error::Result,
    os,
    platform::is_id,
    ssh_config::{self, entries::Entry},
    target::PREFIX,
    ui::{notice, out},
};

/// Add your playgrounds to your ssh configuration, or remove them.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ConfigSsh {
    /// The ssh configuration file to edit; ~/.ssh/config by default.
    #[arg(long, value_name = "FILE")]
    pub ssh_config_file: Option<PathBuf>,
    /// Write the entries into that file itself, for programs that do not support Include.
    #[arg(long)]
    pub inline: bool,
    /// Only show what would change.
    #[arg(long)]
    pub dry_run: bool,
    /// Remove everything this command wrote.
    #[arg(long, conflicts_with = "inline")]
    pub remove: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Add your playgrounds to the ssh configurations of JetBrains products, or remove them.
#[derive(Debug, clap::Args)]
pub(crate) struct ConfigJetbrains {
    /// Only this product, such as Gateway, IntelliJIdea or IntelliJIdea2025.1; all of them by default.
    #[arg(long, value_name = "PRODUCT")]
    product: Option<String>,
    /// List the products and what their files contain.
    #[arg(long, conflicts_with_all = ["remove", "dry_run", "yes"])]
    list: bool,
    #[command(flatten)]
    edit: Edit,
}

/// Add your playgrounds to Zed's SSH servers, or remove them.
#[derive(Debug, clap::Args)]
pub(crate) struct ConfigZed {
    #[command(flatten)]
    edit: Edit,
}

// No doc comment: clap would make it the description of the commands that flatten this.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Edit {
    /// Only show what would change.
    #[arg(long)]
    pub dry_run: bool,
    /// Remove everything this command wrote.
    #[arg(long)]
    pub remove: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Writes the host entries, or takes them out.
///
/// # Errors
/// As [`ssh_config::plan()`], [`ssh_config::Plan::write`] and [`out::agreed`].
pub(crate) async fn ssh(app: &App, args: ConfigSsh) -> Result<()> {
    let mut run = Run::new(args.dry_run, args.yes, args.json);
    if !args.dry_run
        && let Some((from, to)) = ssh_config::adopt_backup(&app.folders, args.ssh_config_file.as_deref())?
    {
        run.warn(&format!("the backup {} of an earlier version is {} now", from.display(), to.display()));
    }
    let mut example = "playground-<id>".to_owned();
    let plan = if args.remove {
        ssh_config::plan_removal(&app.folders, args.ssh_config_file.as_deref()).await?
    } else {
        let entries = playgrounds::entries::entries(app, &app.labs().await?).await?;
        // One that exists, since the name of a catalogue entry may start a new one.
        let exists = |entry: &&Entry| entry.host.strip_prefix(PREFIX).is_some_and(is_id);
        if let Some(entry) = entries.iter().find(exists) {
            example.clone_from(&entry.host);
        }
        let wanted = ssh_config::Request {
            file: args.ssh_config_file,
            inline: args.inline,
            program: ssh_config::program_path()?,
            identity: Some(app.identity()?.path),
        };
        ssh_config::plan(&app.folders, wanted, app.platform, entries).await?
    };
    plan.warnings().iter().for_each(|warning| run.warn(warning));
    if !plan.is_change() && !args.dry_run {
        plan.sweep();
    }
    let file = plan.path().to_owned();
    let change = Change { file: file.clone(), diff: plan.diff().to_owned(), backup: None, is_change: plan.is_change() };
    if !run.agree(vec![change]).await? {
        return run.done(&[]);
    }
    let backup = plan.write().await?;
    if !args.json {
        out::line(&match args.remove {
            true => format!("Restored {}.", file.display()),
            false => format!("Updated {}. Try: ssh {example}", file.display()),
        })?;
        if let Some(backup) = &backup {
            out::line(&format!("Backup: {}", backup.display()))?;
        }
    }
    run.done(&[Written { file, backup }])
}

/// Writes the playgrounds into the files of JetBrains' products, takes them out, or lists the products.
///
/// # Errors
/// As [`jetbrains::apply`] and [`ssh()`].
pub(crate) async fn jetbrains(app: &App, args: ConfigJetbrains) -> Result<()> {
    if args.list {
        return list(&jetbrains::list(args.product.as_deref())?, args.edit.json);
    }
    let Edit { remove, dry_run, yes, json } = args.edit;
    let mut run = Run::new(dry_run, yes, json);
    let entries = editor_entries(app, remove, &mut run).await?;
    let request = jetbrains::Request { product: args.product, remove, dry_run };
    let written =
        jetbrains::apply(&app.folders, &request, &entries, async |plans| run.agree(changes(plans)).await).await?;
    run.report(&written)?;
    run.done(&written)
}

fn list(products: &[jetbrains::Listed], json: bool) -> Result<()> {
    if json {
        return out::json(&products);
    }
    let row = |listed: &jetbrains::Listed| {
        let hosts = listed.playgrounds.map(|n| n.to_string()).or(listed.error.clone()).unwrap_or_default();
        let process = listed.process.map_or_else(String::new, |pid| format!("process {pid}"));
        vec![listed.product.clone(), hosts, process, listed.file.display().to_string()]
    };
    out::table(&["PRODUCT", "PLAYGROUNDS", "RUNNING", "FILE"], products.iter().map(row).collect())
}

/// Writes the playgrounds into Zed's settings, or takes them out.
///
/// # Errors
/// As [`zed::apply`] and [`ssh()`].
pub(crate) async fn zed(app: &App, args: ConfigZed) -> Result<()> {
    let Edit { remove, dry_run, yes, json } = args.edit;
    let mut run = Run::new(dry_run, yes, json);
    let entries = editor_entries(app, remove, &mut run).await?;
    let request = zed::Request { remove, dry_run };
    let written = zed::apply(&app.folders, &request, &entries, async |plans| run.agree(changes(plans)).await).await?;
    run.report(&written)?;
    run.done(&written)
}

/// The sentence about an editor's file that was written.
pub(crate) fn sentence(Written { file, backup }: &Written) -> String {
    let kept = backup.as_ref().map_or_else(String::new, |backup| format!(" Backup: {}", backup.display()));
    format!("Updated {}.{kept}", file.display())
}

/// A change to a file, as it is shown before it is made.
#[derive(Serialize)]
struct Change {
    file: PathBuf,
    diff: String,
    backup: Option<PathBuf>,
    #[serde(skip)]
    is_change: bool,
}

fn changes(plans: &[&Plan]) -> Vec<Change> {
    let change = |plan: &&Plan| Change {
        file: plan.path().to_owned(),
        diff: plan.diff(),
        backup: None,
        is_change: plan.changes(),
    };
    plans.iter().map(change).collect()
}

/// One run of a command that changes the user's files: it shows the change, asks, and reports.
struct Run {
    dry_run: bool,
    yes: bool,
    json: bool,
    changes: Vec<Change>,
    messages: Vec<String>,
    /// The number of messages that were printed.
    said: usize,
}

/// The summary of a unified difference: a line for each file.
fn summary(diff: &str) -> Vec<String> {
    let mut files: Vec<(&str, usize, usize)> = Vec::new();
    for line in diff.lines() {
        if let Some(file) = line.strip_prefix("+++ ") {
            files.push((file, 0, 0));
        } else if let Some((_, added, removed)) = files.last_mut() {
            *added += usize::from(line.starts_with('+'));
            *removed += usize::from(line.starts_with('-') && !line.starts_with("--- "));
        }
    }
    let lines = |n: usize| if n == 1 { "1 line".to_owned() } else { format!("{n} lines") };
    let changed = |(file, added, removed): (&str, usize, usize)| match (added, removed) {
        (added, 0) => format!("{file}: {} added", lines(added)),
        (0, removed) => format!("{file}: {} removed", lines(removed)),
        (added, removed) => format!("{file}: {} added, {removed} removed", lines(added)),
    };
    files.into_iter().map(changed).collect()
}

impl Run {
    fn new(dry_run: bool, yes: bool, json: bool) -> Run {
        Run { dry_run, yes, json, changes: Vec::new(), messages: Vec::new(), said: 0 }
    }

    fn warn(&mut self, warning: &str) {
        self.messages.push(warning.to_owned());
    }

    /// Without `--json`, prints the warnings so far, unless they were printed.
    fn say_warnings(&mut self) {
        if !self.json {
            let unsaid = &self.messages[self.said..];
            unsaid.iter().for_each(|warning| notice::line(&format!("warning: {warning}")));
            self.said = self.messages.len();
        }
    }

    /// Shows the changes, and asks. Returns true when they are to be made. The warnings and a summary come last,
    /// because a long difference scrolls away what stands above it.
    async fn agree(&mut self, changes: Vec<Change>) -> Result<bool> {
        let is_change = changes.iter().any(|change| change.is_change);
        if !self.json {
            for Change { file, diff, is_change, .. } in &changes {
                match is_change {
                    true => out::write(diff)?,
                    false => out::line(&format!("Nothing to change in {}.", file.display()))?,
                }
            }
            for Change { diff, .. } in &changes {
                out::lines(summary(diff))?;
            }
        }
        self.say_warnings();
        self.changes = changes;
        if !is_change || self.dry_run {
            return Ok(false);
        }
        if !self.yes {
            out::agreed("Write this?", self.json, "Nothing was written.", out::ADD_YES_OR_DRY_RUN).await?;
        }
        // A signal that has come while the change was worked out ends the command before anything is written.
        os::heed_signals().await;
        Ok(true)
    }

    /// Without `--json`, a sentence for each file that was written.
    fn report(&self, written: &[Written]) -> Result<()> {
        written.iter().filter(|_| !self.json).try_for_each(|one| out::line(&sentence(one)))
    }

    /// With `--json`, the result.
    fn done(mut self, written: &[Written]) -> Result<()> {
        #[derive(Serialize)]
        struct Configured<'a> {
            files: &'a [Change],
            written: bool,
            messages: &'a [String],
        }
        if !self.json {
            self.say_warnings();
            return Ok(());
        }
        for Written { file, backup } in written {
            if let Some(change) = self.changes.iter_mut().find(|change| change.file == *file) {
                change.backup.clone_from(backup);
            }
        }
        out::json(&Configured { files: &self.changes, written: !written.is_empty(), messages: &self.messages })
    }
}

/// The entries for editors' settings. A removal needs no request to the platform.
async fn editor_entries(app: &App, remove: bool, run: &mut Run) -> Result<Vec<Entry>> {
    if remove {
        return Ok(Vec::new());
    }
    if !ssh_config::is_managed(&app.folders) {
        run.warn("run `labctl-ssh-proxy config-ssh` too, because these entries need those that it writes");
    }
    let mut entries = playgrounds::entries::entries(app, &app.labs().await?).await?;
    // An editor's list is one of machines, and has each of them once.
    entries.retain(|entry| entry.listener.is_none());
    Ok(entries)
}
