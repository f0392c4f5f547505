//! `catalog`: the playgrounds that can be started.

use crate::{
    app::App,
    error::{Result, printable},
    labs::wire::CatalogEntry,
    records::names,
    ui::out,
};

/// List the playgrounds that you can start.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Prints the catalogue.
///
/// # Errors
/// The platform's.
pub(crate) async fn run(app: &App, Args { json }: Args) -> Result<()> {
    let mut entries: Vec<CatalogEntry> = app.labs().await?.catalog().await?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    names::remember_catalog(&app.folders, app.platform, &entries);
    if json {
        return out::json(&entries);
    }
    let rows = entries.iter().map(|entry| {
        let by = if entry.owner.is_empty() { "the platform" } else { &entry.owner };
        vec![printable(&entry.name), printable(&entry.title), printable(by), printable(&entry.description)]
    });
    out::table(&["NAME", "TITLE", "BY", "DESCRIPTION"], rows.collect())
}
