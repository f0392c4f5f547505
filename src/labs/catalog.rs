//! The playgrounds that can be started, and their authors.

use std::collections::BTreeMap;

use crate::{
    error::{Error, Kind, Result, printable},
    labs::{
        Labs, learning,
        wire::{CatalogEntry, InitCondition},
    },
    target::reference::Reference,
    ui::nearest::{did_you_mean, nearest},
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
    let (official, own) = tokio::join!(labs.catalog(), labs.own_playgrounds());
    let catalog: Vec<CatalogEntry> = official.into_iter().chain(own).flatten().collect();
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

/// The choices that a start of an entry has.
#[derive(Debug)]
pub(crate) enum Conditions {
    /// These.
    Known(Vec<InitCondition>),
    /// The platform does not tell them.
    Unknown,
}

/// Finds the choices of an entry, where its short form lacks them in the long one.
///
/// # Errors
/// The platform's, except for a refusal to show the long form.
pub(crate) async fn conditions(labs: &Labs, entry: &CatalogEntry) -> Result<Conditions> {
    if let Some(known) = &entry.init_conditions {
        return Ok(Conditions::Known(known.values.clone()));
    }
    match labs.whole_catalog_entry(&entry.name).await {
        Ok(whole) => Ok(whole.init_conditions.map_or(Conditions::Unknown, |known| Conditions::Known(known.values))),
        Err(error) if matches!(error.kind(), Kind::Refused | Kind::NotFound) => {
            log::info!("the choices of {} are not known: {}", entry.name, error.message());
            Ok(Conditions::Unknown)
        }
        Err(error) => Err(error),
    }
}

/// The choices of a start that cannot ask: the defaults, as far as the platform tells them.
///
/// # Errors
/// [`Kind::Refused`] when one has no default and needs a value.
pub(crate) fn defaults(entry: &CatalogEntry) -> Result<BTreeMap<String, String>> {
    let all: &[InitCondition] = entry.init_conditions.as_ref().map_or(&[], |known| &known.values);
    let needed: Vec<&InitCondition> = all.iter().filter(|one| one.is_needed()).collect();
    if !needed.is_empty() {
        let options: Vec<String> = needed.iter().map(|one| option(one)).collect();
        let hint = format!("start it with `labctl-ssh-proxy start {} {}`", entry.name, options.join(" "));
        return Err(named(&entry.name, &needed, Kind::Refused).with_hint(hint));
    }
    let with_default = all.iter().filter(|one| !one.default.is_empty());
    Ok(with_default.map(|one| (one.key.clone(), one.default.clone())).collect())
}

/// The error for choices of a start that have no value.
pub(crate) fn named(playground: &str, needed: &[&InitCondition], kind: Kind) -> Error {
    let keys: Vec<String> = needed.iter().map(|one| format!("`{}`", printable(&one.key))).collect();
    Error::new(kind, format!("playground {playground} needs a value for {}", keys.join(" and ")))
}

/// The option of the command line that makes a choice, with a value that fits where one is known.
pub(crate) fn option(one: &InitCondition) -> String {
    option_near(one, "")
}

/// As [`option`], with the value that `typed` is probably meant for, if there is one.
pub(crate) fn option_near(one: &InitCondition, typed: &str) -> String {
    let meant = nearest(typed, one.options.iter().map(String::as_str));
    let example = [meant, one.options.first().map(String::as_str), Some(&one.placeholder)].into_iter().flatten();
    let value = example.map(printable).find(|text| !text.is_empty() && one.check(text).is_ok());
    let text = format!("{}={}", printable(&one.key), value.unwrap_or_else(|| "VALUE".to_owned()));
    let is_plain = text.chars().all(|c| c.is_alphanumeric() || "=-_./:".contains(c));
    if is_plain { format!("-i {text}") } else { format!("-i \"{text}\"") }
}

/// Checks that a connection may start this entry, because a connection cannot ask the user for consent. Returns the
/// entry.
///
/// # Errors
/// [`Kind::Refused`] when the user has to consent first.
pub(crate) async fn needs_no_consent(labs: &Labs, name: &str) -> Result<CatalogEntry> {
    let entry = match entry(labs, name).await {
        Ok(entry) => entry,
        Err(e) if e.kind() == Kind::NotFound => {
            return Err(learning::explained(labs, &Reference::Name(name.to_owned())).await.unwrap_or(e));
        }
        Err(e) => return Err(e),
    };
    if needs_consent(labs, &entry).await? {
        return Err(Error::new(Kind::Refused, format!("playground {name} is by {}, not by the platform", entry.owner))
            .with_hint(format!("if you trust its author, start it with `labctl-ssh-proxy start {name}`")));
    }
    Ok(entry)
}
