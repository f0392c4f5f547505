//! `config-ssh`, `config-jetbrains` and `config-zed` as people use them: show the difference, ask, write.

use std::path::PathBuf;

use crate::{
    app::App,
    commands::playgrounds,
    editors::{jetbrains, zed},
    error::Result,
    ssh_config::{self, entries::Entry},
    ui::{notice, out},
};

/// Write the playgrounds into your ssh configuration, or take them out again.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ConfigSsh {
    /// Your ssh configuration file; ~/.ssh/config when not given.
    #[arg(long, value_name = "FILE")]
    pub ssh_config_file: Option<PathBuf>,
    /// Write the entries into that file itself, for programs that follow no Include.
    #[arg(long)]
    pub inline: bool,
    /// Only show what would change.
    #[arg(long)]
    pub dry_run: bool,
    /// Take everything back.
    #[arg(long, conflicts_with = "inline")]
    pub remove: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
}

/// Add the playgrounds to the ssh configurations of JetBrains' products, or take them out again.
#[derive(Debug, clap::Args)]
pub struct ConfigJetbrains {
    /// Only this product: Gateway, IntelliJIdea, IntelliJIdea2025.1 and so on; all when not given.
    #[arg(long, value_name = "PRODUCT")]
    product: Option<String>,
    /// List the products and what is in their files.
    #[arg(long, conflicts_with_all = ["remove", "dry_run", "yes"])]
    list: bool,
    /// With --list: print JSON.
    #[arg(long, requires = "list")]
    json: bool,
    #[command(flatten)]
    edit: Edit,
}

/// Add the playgrounds to Zed's SSH servers, or take them out again.
#[derive(Debug, clap::Args)]
pub struct ConfigZed {
    #[command(flatten)]
    edit: Edit,
}

// No doc comment: clap would make it the description of the commands that flatten this.
#[derive(Clone, Copy, Debug, clap::Args)]
#[expect(missing_docs, reason = "see above")]
pub struct Edit {
    /// Only show what would change.
    #[arg(long)]
    pub dry_run: bool,
    /// Take everything back.
    #[arg(long)]
    pub remove: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
}

/// Shows the difference, asks, writes.
///
/// # Errors
/// As [`ssh_config::plan()`] and [`ssh_config::Plan::write`]; [`crate::error::Kind::Interrupted`] when the person at the terminal says no, [`crate::error::Kind::Usage`] when there
/// is nobody to ask.
pub async fn ssh(app: &App, request: ConfigSsh) -> Result<()> {
    let ask = !request.yes && !request.dry_run;
    if request.remove {
        let plan = ssh_config::plan_removal(&app.folders, request.ssh_config_file.as_deref()).await?;
        let file = plan.path().to_owned();
        if show(&plan, request.dry_run, ask).await? {
            plan.write().await?;
            out::line(&format!("{} is as it was without labctl-ssh-proxy.", file.display()))?;
        }
        return Ok(());
    }
    let entries = playgrounds::entries::entries(app, &app.labs().await?).await?;
    let wanted = ssh_config::Request {
        file: request.ssh_config_file.clone(),
        inline: request.inline,
        program: ssh_config::program_path()?,
        identity: Some(app.identity()?.path),
    };
    let plan = ssh_config::plan(&app.folders, wanted, app.platform, entries).await?;
    let file = plan.path().to_owned();
    if show(&plan, request.dry_run, ask).await? {
        let backup = plan.write().await?;
        out::line(&format!("{} leads to your playgrounds now: ssh playground-<id>", file.display()))?;
        if let Some(backup) = backup {
            out::line(&format!("The file as it was is kept as {}.", backup.display()))?;
        }
    }
    Ok(())
}

/// Shows what would change, and asks. Returns true when the plan is to be carried out.
async fn show(plan: &ssh_config::Plan<'_>, dry_run: bool, ask: bool) -> Result<bool> {
    for warning in plan.warnings() {
        notice::line(&format!("warning: {warning}"));
    }
    if !plan.is_change() {
        out::line(&format!("Nothing to change in {}.", plan.path().display()))?;
        return Ok(false);
    }
    out::write(plan.diff())?;
    if ask {
        out::agreed_to_write().await?;
    }
    Ok(!dry_run)
}

/// `config-jetbrains`.
///
/// # Errors
/// As [`ssh()`].
pub async fn jetbrains(app: &App, request: ConfigJetbrains) -> Result<()> {
    if request.list {
        return jetbrains::list(request.product.as_deref(), request.json);
    }
    let entries = editor_entries(app, request.edit.remove).await?;
    let Edit { remove, dry_run, yes } = request.edit;
    jetbrains::apply(&jetbrains::Request { product: request.product, remove, dry_run, yes }, &entries).await
}

/// `config-zed`.
///
/// # Errors
/// As [`ssh()`].
pub async fn zed(app: &App, request: ConfigZed) -> Result<()> {
    let entries = editor_entries(app, request.edit.remove).await?;
    let Edit { remove, dry_run, yes } = request.edit;
    zed::apply(&app.folders, &zed::Request { remove, dry_run, yes }, &entries).await
}

/// What to write into editors' settings. Nothing is asked of the platform to take it out.
async fn editor_entries(app: &App, remove: bool) -> Result<Vec<Entry>> {
    if remove {
        return Ok(Vec::new());
    }
    if !ssh_config::is_managed(&app.folders) {
        notice::line("warning: run `labctl-ssh-proxy config-ssh`, too: these entries rely on those that it writes");
    }
    playgrounds::entries::entries(app, &app.labs().await?).await
}
