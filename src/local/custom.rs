//! The playgrounds that the account has made itself: a file each in the platform's folder.
//!
//! ```text
//! playgrounds/<name>.json
//! ```

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    error::{Error, Kind, Result},
    files,
    target::is_label,
};

use super::{
    access::random,
    blueprint::Blueprint,
    record,
    refusal::{Answer, Refusal},
};

/// The largest number of them.
const MAX: usize = 100;
/// The longest name that a client may choose. The suffix is added to it, and the whole is a part of host names.
const MAX_NAME: usize = 50;

/// A playground of the account's own.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Custom {
    pub name: String,
    pub base: String,
    pub created_at: String,
    #[serde(flatten)]
    pub words: Words,
    #[serde(flatten)]
    pub blueprint: Blueprint,
}

/// The part of a playground that is for people, and that has no meaning here beyond being shown.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Words {
    pub title: String,
    pub description: String,
    pub categories: Vec<String>,
    pub cover: String,
    pub markdown: String,
    pub registry_auth: String,
    pub access_control: Value,
}

/// A request to make one, or to change one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wish {
    /// Only for a new one, like the base.
    pub name: String,
    pub base: String,
    #[serde(flatten)]
    pub words: Words,
    #[serde(flatten)]
    pub blueprint: Blueprint,
}

/// All of them, with their files.
pub(super) struct Customs {
    folder: PathBuf,
    all: Mutex<BTreeMap<String, Custom>>,
}

impl Customs {
    /// Reads the files in `folder`.
    ///
    /// # Errors
    /// Fails when a file cannot be read or is damaged.
    pub(super) fn open(folder: PathBuf) -> Result<Customs> {
        files::make_private_folder(&folder).map_err(|e| Error::file("make", &folder, &e))?;
        files::sweep(&folder);
        let mut all = BTreeMap::new();
        for entry in fs::read_dir(&folder).map_err(|e| Error::file("read", &folder, &e))? {
            let path = entry.map_err(|e| Error::file("read", &folder, &e))?.path();
            let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if path.extension().is_none_or(|extension| extension != "json") || !is_label(&name) {
                continue;
            }
            let Some(text) = files::read_text(&path)? else { continue };
            let custom: Custom = serde_json::from_str(&text).map_err(|e| {
                Error::new(Kind::File, format!("{} is damaged: {e}", path.display()))
                    .with_hint("repair it, or move it away to give up that playground")
            })?;
            all.insert(name.clone(), Custom { name, ..custom });
        }
        Ok(Customs { folder, all: Mutex::new(all) })
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, Custom>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them, by name.
    pub(super) fn all(&self) -> Vec<Custom> {
        self.locked().values().cloned().collect()
    }

    /// The one of that name.
    pub(super) fn find(&self, name: &str) -> Option<Custom> {
        self.locked().get(name).cloned()
    }

    /// Makes a new one, on the machines of `base` unless the wish has its own.
    ///
    /// # Errors
    /// 400 when it cannot be made, 403 when there are too many, 507 when it cannot be kept.
    pub(super) fn create(&self, wish: Wish, base: &Blueprint) -> Answer<Custom> {
        if !is_label(&wish.name) || wish.name.len() > MAX_NAME {
            let words = format!(
                "{:?} cannot be a playground's name: up to {MAX_NAME} lower-case letters, digits, - and _ can",
                wish.name
            );
            return Err(Refusal::bad_request(words));
        }
        let mut all = self.locked();
        if all.len() >= MAX {
            let words = format!("there are {MAX} playgrounds of your own already: remove one first");
            return Err(Refusal::new(StatusCode::FORBIDDEN, words));
        }
        let custom = Custom {
            name: format!("{}-{}", wish.name, random(4)),
            base: wish.base,
            created_at: record::now(),
            words: wish.words,
            blueprint: on(base, wish.blueprint),
        };
        custom.blueprint.check()?;
        self.save(&custom)?;
        all.insert(custom.name.clone(), custom.clone());
        Ok(custom)
    }

    /// Puts `wish` in the place of an existing one, whose name and base stay.
    ///
    /// # Errors
    /// 404 when there is none, 400 when it cannot be made, 507 when it cannot be kept.
    pub(super) fn update(&self, name: &str, wish: Wish, base: &Blueprint) -> Answer<Custom> {
        let mut all = self.locked();
        let known = all.get(name).ok_or_else(|| none(name))?;
        let custom = Custom { words: wish.words, blueprint: on(base, wish.blueprint), ..known.clone() };
        custom.blueprint.check()?;
        self.save(&custom)?;
        all.insert(name.to_owned(), custom.clone());
        Ok(custom)
    }

    /// Removes one. Its plays go on.
    ///
    /// # Errors
    /// 404 when there is none, 507 when its file cannot be removed.
    pub(super) fn remove(&self, name: &str) -> Answer<()> {
        let mut all = self.locked();
        let known = all.get(name).ok_or_else(|| none(name))?;
        let path = path_in(&self.folder, &known.name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::file("remove", &path, &e).into()),
            Ok(()) | Err(_) => {}
        }
        all.remove(name);
        Ok(())
    }

    fn save(&self, custom: &Custom) -> Result<()> {
        let text = serde_json::to_vec_pretty(custom)
            .map_err(|e| Error::new(Kind::Internal, format!("cannot write a playground: {e}")))?;
        files::write_private(&path_in(&self.folder, &custom.name), &text)
    }
}

fn path_in(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.json"))
}

fn none(name: &str) -> Refusal {
    Refusal::not_found(format!("you have no playground named {name} of your own"))
}

/// A playground without machines of its own has those of its base.
fn on(base: &Blueprint, own: Blueprint) -> Blueprint {
    match own.machines.is_empty() {
        true => Blueprint { machines: base.machines.clone(), ..own },
        false => own,
    }
}

impl Custom {
    /// The playground as the API shows it: the account `owner`'s, on the platform with the address `site`.
    pub(super) fn shown(&self, owner: &str, site: &str) -> Value {
        let mut value = json!(self);
        let title = if self.words.title.is_empty() { &self.name } else { &self.words.title };
        value["id"] = json!(self.name);
        value["owner"] = json!(owner);
        value["title"] = json!(title);
        value["published"] = json!(false);
        value["pageUrl"] = json!(format!("{site}/playgrounds/{}", self.name));
        value["machines"] = json!(self.blueprint.shown_machines());
        value["userAccess"] = json!({ "canList": true, "canRead": true, "canStart": true });
        if self.words.access_control.is_null() {
            value["accessControl"] = json!({});
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::{Customs, Wish};
    use crate::local::blueprint::{Blueprint, MachinePlan};

    fn wish(name: &str) -> Wish {
        let machines = [{ json!({ "name": "web-01", "drives": [{ "size": "30GiB" }] }) }];
        serde_json::from_value(json!({ "name": name, "base": "shell", "title": "Mine", "machines": machines })).unwrap()
    }

    #[test]
    fn what_is_made_is_there_again_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Customs::open(folder.path().join("playgrounds")).unwrap();
        let base = Blueprint {
            machines: vec![MachinePlan { name: "shell-01".into(), ..MachinePlan::default() }],
            ..Blueprint::default()
        };
        let customs = open();
        let made = customs.create(wish("my-web"), &base).unwrap();
        let suffix = made.name.strip_prefix("my-web-").unwrap();
        assert!(suffix.len() == 8 && suffix.bytes().all(|b| b.is_ascii_hexdigit()), "{suffix}");
        let again = open().find(&made.name).unwrap();
        assert_eq!(again.shown("me", "http://x"), made.shown("me", "http://x"));
        assert_eq!(again.shown("me", "http://x")["machines"][0]["drives"][0]["size"], "30GiB");
        let bare = Wish { blueprint: Blueprint::default(), ..wish("") };
        let changed = customs.update(&made.name, bare, &base).unwrap();
        assert_eq!((changed.base.as_str(), changed.blueprint.machines[0].name.as_str()), ("shell", "shell-01"));
        open().remove(&made.name).unwrap();
        assert!(open().all().is_empty());
        for wrong in ["", "A", "../x", &"x".repeat(51)] {
            assert_eq!(customs.create(wish(wrong), &base).unwrap_err().status, 400, "{wrong}");
        }
        assert_eq!(customs.remove("shell").unwrap_err().status, 404);
    }

    #[test]
    fn a_damaged_file_is_named_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        fs::write(&path, "{").unwrap();
        let error = Customs::open(folder.path().into()).err().unwrap();
        assert!(error.message().contains("x.json is damaged"), "{error}");
        assert!(path.exists());
    }
}
