//! The playgrounds that can be started, and their authors.

use crate::{
    error::{Error, Kind, Result},
    labs::{Labs, wire::CatalogEntry},
    ui::nearest::did_you_mean,
};

/// The hint for a name that leads to nothing.
const SEE: &str =
    "run `labctl-ssh-proxy catalog` to see what you can start, or `labctl-ssh-proxy list` to see what you have";

/// Adds to the error for an unknown name the name of the catalogue that was probably meant. This costs a request, so
/// only commands do it.
pub(crate) async fn with_nearest(labs: &Labs, name: &str, error: Error) -> Error {
    if error.kind() != Kind::NotFound {
        return error;
    }
    let catalog = labs.catalog().await.unwrap_or_default();
    let meant = did_you_mean(name, catalog.iter().map(|entry| entry.name.as_str()));
    error.with_hint(format!("{meant}{SEE}"))
}

/// Finds the catalogue entry of that name.
///
/// # Errors
/// [`Kind::NotFound`] when there is none.
pub(crate) async fn entry(labs: &Labs, name: &str) -> Result<CatalogEntry> {
    labs.catalog_entry(name).await.map_err(|e| match e.kind() {
        Kind::NotFound => Error::new(
            Kind::NotFound,
            format!("no playground of yours and nothing in the catalogue is called `{name}`"),
        )
        .with_hint(SEE),
        _ => e,
    })
}

/// True for an entry that starts only with the user's consent, because a stranger decides what runs in it.
///
/// # Errors
/// The platform's.
pub(crate) async fn needs_consent(labs: &Labs, entry: &CatalogEntry) -> Result<bool> {
    if entry.owner.is_empty() {
        return Ok(false);
    }
    let me = labs.me().await?;
    Ok(entry.owner != me.id && Some(&entry.owner) != me.github_profile_id.as_ref())
}

/// Checks that a connection may start this entry, because a connection cannot ask the user for consent.
///
/// # Errors
/// [`Kind::Refused`] when the user has to consent first.
pub(crate) async fn needs_no_consent(labs: &Labs, name: &str) -> Result<()> {
    let entry = entry(labs, name).await?;
    if needs_consent(labs, &entry).await? {
        return Err(Error::new(Kind::Refused, format!("playground {name} is by {}, not by the platform", entry.owner))
            .with_hint(format!("if you trust its author, start it with `labctl-ssh-proxy start {name}`")));
    }
    Ok(())
}
