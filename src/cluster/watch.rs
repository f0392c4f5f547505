//! A list of objects that stays true: it is read once, in parts, and then changes as the API tells of changes.
//!
//! A list that is too old for the API to go on from (410), or that was lost with the connection, is read again: a list of then
//! takes the place of the one before.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    api::{Api, Failure, JSON, Lines, METADATA, METADATA_OF_ONE, Refused, Status, query_text},
    pods::{List, Metadata, Node, Object, Pod},
};
use crate::error::{Error, Kind, Result};

/// Objects in a part of a list.
const PART: usize = 500;
/// The time for which a watch is asked for, in seconds. The API ends one by itself after 30 to 60 minutes.
const LASTING: u64 = 1800;
/// Longest silence: the API sends a bookmark each minute or so, and none to one that it does not keep any more.
const SILENCE: Duration = Duration::from_secs(180);
/// Shortest time from the beginning of a watch to that of the next: an API that is being stopped may end each at once.
const PAUSE: Duration = Duration::from_secs(1);

/// A kind of object that is listed.
pub(crate) trait Kept: DeserializeOwned {
    /// The API that has them, and their name there.
    const PLACE: (&'static str, &'static str);
    /// The form in which a list of them is asked for, and one of them.
    const ACCEPT: (&'static str, &'static str) = (JSON, JSON);
    /// The metadata of one.
    fn metadata(&self) -> &Metadata;
}

impl Kept for Pod {
    const PLACE: (&'static str, &'static str) = ("/api/v1", "pods");
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

impl Kept for Node {
    const PLACE: (&'static str, &'static str) = ("/api/v1", "nodes");
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

/// A ReplicaSet, of which one wants to know to which Deployment it belongs.
impl Kept for Object {
    const PLACE: (&'static str, &'static str) = ("/apis/apps/v1", "replicasets");
    const ACCEPT: (&'static str, &'static str) = (METADATA, METADATA_OF_ONE);
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

/// All objects of a kind, by namespace and name.
pub(crate) type All<T> = BTreeMap<Key, T>;

/// A change of the list.
#[derive(Debug)]
pub(crate) enum Change<T> {
    /// All objects, which take the place of those before.
    All(All<T>),
    /// One has come, or is another now.
    Is(Box<T>),
    /// One has gone.
    Gone(Key),
}

impl<T: Kept> Change<T> {
    /// The object that is another now, where it is one.
    pub(crate) fn key(&self) -> Option<Key> {
        match self {
            Change::All(_) => None,
            Change::Is(one) => Some(key(&**one)),
            Change::Gone(key) => Some(key.clone()),
        }
    }

    /// Makes the change in what was known.
    pub(crate) fn make(self, all: &mut All<T>) {
        match self {
            Change::All(new) => *all = new,
            Change::Is(one) => drop(all.insert(key(&*one), *one)),
            Change::Gone(key) => drop(all.remove(&key)),
        }
    }
}

/// The namespace and the name of an object.
pub(crate) type Key = (String, String);

/// Objects as they change.
pub(crate) struct Watch<'a, T> {
    api: &'a Api,
    path: String,
    /// A selector, with a `&` in front, or nothing.
    selected: String,
    /// The version from which it goes on; `None` before there is a list that is true.
    version: Option<String>,
    lines: Option<Lines>,
    /// The time before which no other watch begins.
    not_before: Instant,
    of: std::marker::PhantomData<T>,
}

/// The kind of a line of a watch.
#[derive(Deserialize)]
struct Head {
    r#type: String,
}

/// The object that the line is about.
#[derive(Deserialize)]
struct Body<T> {
    object: T,
}

/// Reads the objects of a namespace, or of all.
///
/// # Errors
/// As [`Api::get`].
pub(crate) async fn list<T: Kept>(api: &Api, namespace: Option<&str>) -> Result<All<T>> {
    Ok(listed(api, &path::<T>(namespace), "").await?.0)
}

impl<'a, T: Kept> Watch<'a, T> {
    /// The objects of a namespace, or of all. Nothing is asked before [`Watch::next`].
    pub(crate) fn new(api: &'a Api, namespace: Option<&str>) -> Watch<'a, T> {
        let path = path::<T>(namespace);
        let (version, lines, of) = (None, None, std::marker::PhantomData);
        Watch { api, path, selected: String::new(), version, lines, not_before: Instant::now(), of }
    }

    /// The one object of that name.
    pub(crate) fn of_one(api: &'a Api, namespace: &str, name: &str) -> Watch<'a, T> {
        let selected = format!("&fieldSelector={}", query_text(&format!("metadata.name={name}")));
        Watch { selected, ..Watch::new(api, Some(namespace)) }
    }

    /// Waits for the next change, the first of which is the whole list.
    ///
    /// # Errors
    /// As [`Api::get`], when the connection is lost, too. It can be asked for again, over another connection as well.
    pub(crate) async fn next(&mut self) -> Result<Change<T>> {
        loop {
            let Some(version) = self.version.clone() else {
                let (all, version) = listed(self.api, &self.path, &self.selected).await?;
                self.version = Some(version);
                return Ok(Change::All(all));
            };
            let lines = match &mut self.lines {
                Some(lines) => lines,
                None => {
                    sleep_until(self.not_before).await;
                    self.not_before = Instant::now() + PAUSE;
                    match self.api.lines(&self.query(&version), T::ACCEPT.1).await {
                        Ok(lines) => self.lines.insert(lines),
                        Err(Failure { refused: Some(Refused::Gone), .. }) => {
                            self.version = None;
                            continue;
                        }
                        Err(failure) => return Err(failure.into()),
                    }
                }
            };
            match timeout(SILENCE, lines.next()).await {
                Ok(Ok(Some(line))) => {
                    if let Some(change) = self.understood(&line)? {
                        return Ok(change);
                    }
                }
                // It has lasted long enough for the API.
                Ok(Ok(None)) => self.lines = None,
                Ok(Err(error)) => {
                    self.lines = None;
                    return Err(error);
                }
                Err(_elapsed) => {
                    self.lines = None;
                    return Err(Error::new(Kind::Network, "the Kubernetes API has gone silent"));
                }
            }
        }
    }

    fn query(&self, version: &str) -> String {
        format!(
            "{}?watch=1&allowWatchBookmarks=true&timeoutSeconds={LASTING}&resourceVersion={version}{}",
            self.path, self.selected
        )
    }

    /// The change of a line, where it brings one.
    fn understood(&mut self, line: &[u8]) -> Result<Option<Change<T>>> {
        let damaged = |e: serde_json::Error| self.api.in_other_words(&e);
        let Head { r#type } = serde_json::from_slice(line).map_err(damaged)?;
        if r#type == "ERROR" {
            let Body::<Status> { object: status } = serde_json::from_slice(line).map_err(damaged)?;
            self.lines = None;
            if status.code == 410 {
                self.version = None;
                return Ok(None);
            }
            let code = hyper::StatusCode::from_u16(status.code).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
            let words = serde_json::json!({ "message": status.message }).to_string();
            return Err(self.api.refused(code, words.as_bytes()).into());
        }
        let Body::<T> { object } = serde_json::from_slice(line).map_err(damaged)?;
        self.version = Some(object.metadata().resource_version.clone());
        Ok(match &*r#type {
            "ADDED" | "MODIFIED" => Some(Change::Is(Box::new(object))),
            "DELETED" => Some(Change::Gone(key(&object))),
            // BOOKMARK: only the version.
            _ => None,
        })
    }
}

fn path<T: Kept>(namespace: Option<&str>) -> String {
    let (api, kind) = T::PLACE;
    match namespace {
        Some(namespace) => format!("{api}/namespaces/{namespace}/{kind}"),
        None => format!("{api}/{kind}"),
    }
}

/// The namespace and the name of an object.
pub(crate) fn key<T: Kept>(object: &T) -> Key {
    (object.metadata().namespace.clone(), object.metadata().name.clone())
}

async fn listed<T: Kept>(api: &Api, path: &str, selected: &str) -> Result<(All<T>, String)> {
    let mut all = BTreeMap::new();
    let mut next = String::new();
    loop {
        let query = match &*next {
            "" => format!("{path}?limit={PART}{selected}"),
            next => format!("{path}?limit={PART}{selected}&continue={}", query_text(next)),
        };
        let part: List<T> = match api.get(&query, T::ACCEPT.0).await {
            // The list has changed too much since its first part.
            Err(Failure { refused: Some(Refused::Gone), .. }) if !next.is_empty() => {
                all.clear();
                next.clear();
                continue;
            }
            part => part?,
        };
        all.extend(part.items.into_iter().map(|one| (key(&one), one)));
        if part.metadata.next.is_empty() {
            return Ok((all, part.metadata.resource_version));
        }
        next = part.metadata.next;
    }
}
