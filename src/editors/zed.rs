//! `config-zed`: playgrounds in Zed's list of SSH servers, and out of it again.
//!
//! The list is `ssh_connections` in Zed's settings, which are JSON with comments and belong to the user. Zed itself
//! adds projects to entries, so an entry of ours is known by its host, which is on record in a file of our own, and
//! stays as it is. Zed may run: it reads its settings again when they change.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use jsonc_parser::{
    ParseOptions,
    cst::{CstArray, CstNode, CstRootNode},
    json,
};
use serde::{Deserialize, Serialize};

use crate::{
    editors::settings_file::{Format, Plan, Written},
    error::{Error, Kind, Result},
    files,
    settings::Folders,
    ssh_config::entries::Entry,
};

/// The setting.
const CONNECTIONS: &str = "ssh_connections";

/// The user's wishes for `config-zed`.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Take everything of ours out.
    pub remove: bool,
    /// Only show what would change.
    pub dry_run: bool,
}

/// An operating system, as far as Zed's folders differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// Linux and macOS.
    Unix,
    /// Windows.
    Windows,
}

/// The path of Zed's settings. `config` is `$XDG_CONFIG_HOME`, on Windows `%APPDATA%`. It is to be `None` on macOS,
/// where Zed knows neither `XDG_CONFIG_HOME` nor `~/Library`.
pub fn settings_path(system: System, home: &Path, config: Option<&Path>) -> PathBuf {
    let config = config.map_or_else(|| home.join(".config"), Path::to_owned);
    config.join(if system == System::Windows { "Zed" } else { "zed" }).join("settings.json")
}

fn path(folders: &Folders) -> PathBuf {
    let system = if cfg!(windows) { System::Windows } else { System::Unix };
    let config = match system {
        System::Windows => dirs::config_dir(),
        System::Unix if cfg!(target_os = "macos") => None,
        System::Unix => env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute()),
    };
    settings_path(system, &folders.home, config.as_deref())
}

/// The hosts whose entries are ours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Record {
    hosts: Vec<String>,
}

/// The file of the record of our hosts.
pub fn record_path(folders: &Folders) -> PathBuf {
    folders.root.join("zed.json")
}

impl Record {
    fn load(folders: &Folders) -> Result<Record> {
        let path = record_path(folders);
        let Some(text) = files::read_text(&path)? else { return Ok(Record::default()) };
        serde_json::from_str(&text).map_err(|e| {
            Error::new(Kind::File, format!("{} is damaged: {e}", path.display()))
                .with_hint("delete it; the entries for playgrounds in Zed's settings then count as your own")
        })
    }

    fn save(&self, folders: &Folders) -> Result<()> {
        let path = record_path(folders);
        if self.hosts.is_empty() {
            return match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::file("delete", &path, &e)),
                Ok(()) | Err(_) => Ok(()),
            };
        }
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
        files::write_private(&path, format!("{text}\n").as_bytes())
    }
}

/// Reports whether there are hosts of ours in the settings.
pub fn is_written(folders: &Folders) -> bool {
    record_path(folders).exists()
}

/// Changes the settings, if `agree` returns true for the plan. Returns the file, if it was written.
///
/// # Errors
/// [`Kind::File`] when the settings are damaged or cannot be written; then they are as they were. As `agree`.
pub async fn apply(
    folders: &Folders,
    request: &Request,
    entries: &[Entry],
    agree: impl AsyncFnOnce(&[&Plan]) -> Result<bool>,
) -> Result<Option<Written>> {
    let record = Record::load(folders)?;
    let path = path(folders);
    let format = Connections { ours: record.hosts.clone() };
    let plan = if request.remove { Plan::remove(&path, &format)? } else { Plan::set(&path, &format, entries)? };
    if !plan.changes() && !request.dry_run {
        plan.sweep();
    }
    if !agree(&[&plan]).await? {
        // The user may have removed our entries by hand. The next entry of that name is the user's.
        if request.remove && !plan.changes() && !request.dry_run {
            Record::default().save(folders)?;
        }
        return Ok(None);
    }
    let mut after = Record::default();
    if !request.remove {
        let before = files::read_text(&path)?.unwrap_or_default();
        after.hosts = format.ours_among(&before, entries)?;
        // The record names both the old and the new hosts until the settings are written, so that a run that is killed
        // in between leaves no entry of ours that passes for the user's.
        let mut both = record;
        both.hosts.extend(after.hosts.iter().filter(|host| !format.ours.contains(host)).cloned());
        both.save(folders)?;
    }
    let backup = plan.commit(request.remove)?;
    after.save(folders)?;
    Ok(Some(Written { file: plan.path().to_owned(), backup }))
}

/// The form of our entries in Zed's settings.
pub struct Connections {
    /// Hosts whose entries are ours.
    pub ours: Vec<String>,
}

impl Connections {
    /// The hosts of `entries` that are or become ours, because the user has no entry for them.
    fn ours_among(&self, text: &str, entries: &[Entry]) -> Result<Vec<String>> {
        let root = parse(text)?;
        let found = array(&root)?.map_or_else(Vec::new, |array| hosts(&array));
        let theirs = |host: &String| found.contains(host) && !self.ours.contains(host);
        Ok(entries.iter().map(|entry| entry.host.clone()).filter(|host| !theirs(host)).collect())
    }

    fn is_ours(&self, node: &CstNode) -> bool {
        host(node).is_some_and(|host| self.ours.contains(&host))
    }
}

impl Format for Connections {
    fn set(&self, text: &str, entries: &[Entry]) -> Result<String> {
        let root = parse(text)?;
        if let Some(array) = array(&root)? {
            for node in array.elements() {
                let stays = |entry: &Entry| Some(&entry.host) == host(&node).as_ref();
                if self.is_ours(&node) && !entries.iter().any(stays) {
                    node.remove();
                }
            }
        }
        for entry in entries {
            let there = array(&root)?.map_or_else(Vec::new, |array| hosts(&array));
            if !there.contains(&entry.host) {
                append(&root, &entry.host, &entry.user)?;
            }
        }
        Ok(root.to_string())
    }

    fn repeat(&self, text: &str, current: &str) -> Result<String> {
        let (root, current) = (parse(text)?, parse(current)?);
        for node in array(&current)?.map_or_else(Vec::new, |array| array.elements()) {
            let (Some(host), Some(user)) = (host(&node), string(&node, "username")) else { continue };
            if self.is_ours(&node) {
                append(&root, &host, &user)?;
            }
        }
        Ok(root.to_string())
    }
}

fn parse(text: &str) -> Result<CstRootNode> {
    // As Zed reads them.
    let options = ParseOptions {
        allow_comments: true,
        allow_trailing_commas: true,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    let root = CstRootNode::parse(text, &options).map_err(|e| damaged(&e.to_string()))?;
    match root.value() {
        Some(value) if value.as_object().is_none() => Err(damaged("it is not an object")),
        Some(_) | None => Ok(root),
    }
}

/// The list, where there is one.
fn array(root: &CstRootNode) -> Result<Option<CstArray>> {
    let Some(setting) = root.object_value().and_then(|object| object.get(CONNECTIONS)) else { return Ok(None) };
    setting.array_value().map(Some).ok_or_else(|| damaged(&format!("`{CONNECTIONS}` is not a list")))
}

fn append(root: &CstRootNode, host: &str, user: &str) -> Result<()> {
    let array = match array(root)? {
        Some(array) => array,
        None => root.object_value_or_set().array_value_or_set(CONNECTIONS),
    };
    array.ensure_multiline();
    array.append(json!({ "host": host, "username": user, "projects": [] }));
    Ok(())
}

fn hosts(array: &CstArray) -> Vec<String> {
    array.elements().iter().filter_map(host).collect()
}

fn host(node: &CstNode) -> Option<String> {
    string(node, "host")
}

fn string(node: &CstNode, name: &str) -> Option<String> {
    node.as_object()?.get(name)?.value()?.as_string_lit()?.decoded_value().ok()
}

fn damaged(why: &str) -> Error {
    Error::new(Kind::File, format!("the JSON is damaged: {why}"))
        .with_hint("nothing was changed; repair it in Zed, which shows where the mistake is")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use expect_test::expect_file;
    use proptest::prelude::*;

    use super::{Connections, System, settings_path};
    use crate::{editors::settings_file::Format, platform::Platform, ssh_config::entries::Entry};

    fn entry(host: &str, user: &str) -> Entry {
        Entry { host: host.into(), user: user.into(), platform: Platform::Labs, title: String::new() }
    }

    fn two() -> Vec<Entry> {
        vec![entry("playground-0123456789abcdef01234567", "laborant"), entry("playground-shell", "root")]
    }

    fn ours() -> Connections {
        Connections { ours: two().into_iter().map(|entry| entry.host).collect() }
    }

    /// As people have it.
    const THEIRS: &str = r#"// Zed settings
{
  "theme": "One Dark", // at night
  /* servers */
  "ssh_connections": [
    {
      "host": "build.example",
      "projects": [{ "paths": ["~/work"] }],
    },
  ],
  "vim_mode": true,
}
"#;

    #[test]
    fn what_it_looks_like() {
        let set = |text| ours().set(text, &two()).unwrap();
        expect_file!["../../tests/golden/zed/new.json"].assert_eq(&set(""));
        expect_file!["../../tests/golden/zed/beside-theirs.json"].assert_eq(&set(THEIRS));
        expect_file!["../../tests/golden/zed/no-list.json"]
            .assert_eq(&set("{\n  // none yet\n  \"vim_mode\": true\n}\n"));
    }

    #[test]
    fn where_the_settings_are() {
        let path = |system, config: Option<&str>| settings_path(system, Path::new("/home/ada"), config.map(Path::new));
        assert_eq!(path(System::Unix, None), Path::new("/home/ada/.config/zed/settings.json"));
        assert_eq!(path(System::Unix, Some("/xdg")), Path::new("/xdg/zed/settings.json"));
        assert_eq!(path(System::Windows, Some("/roaming")), Path::new("/roaming/Zed/settings.json"));
    }

    const SHAPES: [&str; 9] = [
        THEIRS,
        "",
        "{}",
        "{\n}\n",
        "// nothing but a comment\n",
        "{\n  \"ssh_connections\": []\n}",
        "{\"ssh_connections\":[{\"host\":\"a\"}],\"x\":1}",
        "{\r\n  \"vim_mode\": true\r\n}\r\n",
        "{ \"ssh_connections\": [ /* none */ ] } // end",
    ];

    #[test]
    fn a_second_run_changes_nothing_and_repeating_leads_back() {
        for text in SHAPES {
            let once = ours().set(text, &two()).unwrap();
            assert_eq!(once.matches("\"playground-").count(), 2, "{once}");
            assert_eq!(ours().set(&once, &two()).unwrap(), once, "{text}");
            assert_eq!(ours().repeat(text, &once).unwrap(), once, "{text}");
            let none = ours().set(&once, &[]).unwrap();
            assert!(!none.contains("playground-"));
            for comment in ["// Zed settings", "// at night", "/* servers */", "/* none */", "// end", "// nothing"] {
                assert_eq!(text.contains(comment), none.contains(comment), "{none}");
            }
        }
        let once = ours().set(THEIRS, &two()).unwrap();
        assert_eq!(ours().set(&once, &[]).unwrap(), THEIRS, "without any backup");
    }

    #[test]
    fn what_zed_adds_to_ours_stays_and_theirs_is_theirs() {
        let once = ours().set(THEIRS, &two()).unwrap();
        let opened = once.replacen("\"projects\": []", "\"projects\": [{ \"paths\": [\"/root\"] }]", 1);
        assert_eq!(ours().set(&opened, &two()).unwrap(), opened);
        assert_ne!(ours().repeat(THEIRS, &opened).unwrap(), opened, "so a removal is no restoration");
        let theirs = THEIRS.replace("build.example", "playground-shell");
        let own = Connections { ours: vec![two()[0].host.clone()] };
        assert_eq!(own.ours_among(&theirs, &two()).unwrap(), [two()[0].host.clone()]);
        let set = own.set(&theirs, &two()).unwrap();
        assert_eq!(set.matches("playground-shell").count(), 1);
        assert_eq!(own.set(&set, &[]).unwrap(), theirs);
    }

    #[test]
    fn damaged_settings_are_left_alone() {
        for text in ["{", "[]", "{\"ssh_connections\": {}}", "{\"a\": 1 \"b\": 2}", "{'a': 1}", "{} {}", "nonsense"] {
            let error = ours().set(text, &two()).unwrap_err();
            assert!(error.message().contains("damaged"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_cut_file_is_refused_or_edited_so_that_a_second_run_changes_nothing(
            at in 0..THEIRS.len(), cut in 0..20_usize
        ) {
            let end = (at + cut).min(THEIRS.len());
            let text = format!("{}{}", &THEIRS[..at], &THEIRS[end..]);
            if let Ok(once) = ours().set(&text, &two()) {
                prop_assert_eq!(ours().set(&once, &two()).unwrap(), once);
            }
        }
    }
}
