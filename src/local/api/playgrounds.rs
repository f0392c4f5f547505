//! The calls about the catalogue and the account's own playgrounds, and what a start of one brings along.

use hyper::{Request, StatusCode, body::Incoming};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::{
    access::USER,
    blueprint::{Blueprint, Choices},
    catalog,
    custom::Wish,
    refusal::{Answer, Refusal},
    reply::{read_present, unreadable},
    world::{Wishes, World},
};

/// The playgrounds that a client asks for; without a filter the official ones.
///
/// # Errors
/// 400 for a filter that there is not.
pub(super) fn list(world: &World, filter: &[&str]) -> Answer<Vec<Value>> {
    let official = || catalog::CATALOG.iter().map(|entry| entry.shown(world.base()));
    match filter {
        // The entries that a playground of one's own can be made from.
        [] | ["base"] => Ok(official().collect()),
        ["my-custom"] => Ok(world.customs().all().iter().map(|custom| custom.shown(USER, world.base())).collect()),
        ["recent"] => Ok(world.started_last().iter().filter_map(|name| world.entry(name)).collect()),
        ["popular"] => {
            let official = |name: &&String| catalog::find(name).is_some();
            Ok(world.started_most().iter().filter(official).filter_map(|name| world.entry(name)).collect())
        }
        // This platform has one account.
        ["community"] => Ok(Vec::new()),
        kinds => Err(Refusal::bad_request(format!(
            "there is no filter {}; there are my-custom, recent, popular, community, base",
            kinds.join(" or ")
        ))),
    }
}

/// One playground.
///
/// # Errors
/// 404 when there is none of that name.
pub(super) fn get(world: &World, name: &str) -> Answer<Value> {
    world.entry(name).ok_or_else(|| world.no_entry(name))
}

/// Makes a playground of the account's own.
///
/// # Errors
/// 404 when there is no such base; as [`Customs::create`](super::super::custom::Customs::create).
pub(super) async fn create(world: &World, request: Request<Incoming>) -> Answer<Value> {
    let wish: Wish = read_present(request).await?;
    let base = catalog::find(&wish.base).ok_or_else(|| {
        let names: Vec<&str> = catalog::CATALOG.iter().map(|entry| entry.name).collect();
        Refusal::bad_request(format!("no playground can be made from {:?}: {} can", wish.base, names.join(", ")))
    })?;
    Ok(world.customs().create(wish, &base.blueprint())?.shown(USER, world.base()))
}

/// Changes a playground of the account's own.
///
/// # Errors
/// 403 for an official one; as [`Customs::update`](super::super::custom::Customs::update).
pub(super) async fn update(world: &World, name: &str, request: Request<Incoming>) -> Answer<Value> {
    is_own(name)?;
    let wish = read_present(request).await?;
    let known = world.customs().find(name).ok_or_else(|| world.no_entry(name))?;
    // The base of one that an older version has made may be gone.
    let base = catalog::find(&known.base).map_or(known.blueprint, catalog::Entry::blueprint);
    Ok(world.customs().update(name, wish, &base)?.shown(USER, world.base()))
}

/// Removes a playground of the account's own.
///
/// # Errors
/// 403 for an official one; as [`Customs::remove`](super::super::custom::Customs::remove).
pub(super) fn remove(world: &World, name: &str) -> Answer<()> {
    is_own(name)?;
    world.customs().remove(name)
}

fn is_own(name: &str) -> Answer<()> {
    match catalog::find(name) {
        None => Ok(()),
        Some(_) => {
            Err(Refusal::new(StatusCode::FORBIDDEN, format!("playground {name} is the platform's own, and not yours")))
        }
    }
}

/// `POST /plays`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NewPlay {
    playground: String,
    init_conditions: Choices,
    safety_disclaimer_consent: bool,
}

/// The wishes for a new play.
///
/// # Errors
/// 400 when the request does not fit the call.
pub(super) async fn new_play(request: Request<Incoming>) -> Answer<Wishes> {
    let mut body: Map<String, Value> = read_present(request).await?;
    let wish = NewPlay::deserialize(Value::Object(body.clone())).map_err(|e| unreadable(&e))?;
    // These are choices here, and not the conditions of a blueprint.
    body.remove("initConditions");
    Ok(Wishes {
        playground: wish.playground,
        choices: wish.init_conditions,
        safety_disclaimer_consent: wish.safety_disclaimer_consent,
        belongs: None,
        changes: Blueprint::deserialize(Value::Object(body)).map_err(|e| unreadable(&e))?,
    })
}
