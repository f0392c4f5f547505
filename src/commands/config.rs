//! `config-ssh`, `config-jetbrains` and `config-zed` as people use them: show the difference, ask, write.

use crate::{
    app::App,
    cli::{ConfigJetbrains, ConfigSsh, ConfigZed},
    commands::playgrounds,
    editors::{jetbrains, zed},
    error::Result,
    ssh_config::{self, entries::Entry},
    ui::{notice, out},
};

/// Shows the difference, asks, writes.
///
/// # Errors
/// As [`ssh_config::apply`]; [`crate::error::Kind::Interrupted`] when the person at the terminal says no, [`crate::error::Kind::Usage`] when there
/// is nobody to ask.
pub async fn config(app: &App, request: &ConfigSsh) -> Result<()> {
    let named = request.ssh_config_file.as_deref();
    let ask = !request.yes && !request.dry_run;
    if request.remove {
        let planned = ssh_config::remove(&app.folders, named, true).await?;
        if show(&planned, request.dry_run, ask).await? {
            ssh_config::remove(&app.folders, named, false).await?;
            out::line(&format!("{} is as it was without labctl-ssh-proxy.", planned.file.display()))?;
        }
        return Ok(());
    }
    let entries = playgrounds::entries(app, &app.labs().await?).await?;
    let plan = ssh_config::Request {
        file: request.ssh_config_file.clone(),
        inline: request.inline,
        dry_run: true,
        program: ssh_config::program_path()?,
        identity: Some(app.identity()?.path),
    };
    let planned = ssh_config::apply(&app.folders, &plan, app.platform, entries.clone()).await?;
    if show(&planned, request.dry_run, ask).await? {
        let done =
            ssh_config::apply(&app.folders, &ssh_config::Request { dry_run: false, ..plan }, app.platform, entries)
                .await?;
        out::line(&format!("{} leads to your playgrounds now: ssh playground-<id>", done.file.display()))?;
        if let Some(backup) = done.backup {
            out::line(&format!("The file as it was is kept as {}.", backup.display()))?;
        }
    }
    Ok(())
}

/// Shows what would change. Whether it is to be done.
async fn show(planned: &ssh_config::Outcome, dry_run: bool, ask: bool) -> Result<bool> {
    for warning in &planned.warnings {
        notice::line(&format!("warning: {warning}"));
    }
    if !planned.changed {
        out::line(&format!("Nothing to change in {}.", planned.file.display()))?;
        return Ok(false);
    }
    out::write(&planned.diff)?;
    if dry_run {
        return Ok(false);
    }
    Ok(!ask || out::agreed().await?)
}

/// `config-jetbrains`.
///
/// # Errors
/// As [`config()`].
pub async fn jetbrains(app: &App, request: ConfigJetbrains) -> Result<()> {
    if request.list {
        return jetbrains::list(request.product.as_deref(), request.json);
    }
    let entries = editor_entries(app, request.edit.remove).await?;
    let ConfigZed { remove, dry_run, yes } = request.edit;
    jetbrains::apply(&jetbrains::Request { product: request.product, remove, dry_run, yes }, &entries).await
}

/// `config-zed`.
///
/// # Errors
/// As [`config()`].
pub async fn zed(app: &App, request: ConfigZed) -> Result<()> {
    let entries = editor_entries(app, request.remove).await?;
    let ConfigZed { remove, dry_run, yes } = request;
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
    playgrounds::entries(app, &app.labs().await?).await
}
