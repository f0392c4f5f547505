//! `config-zed`: playgrounds in Zed's list of SSH servers, and out of it again.
//!
//! The list is `ssh_connections` in Zed's settings, which are JSON with comments and belong to the user. Zed itself
//! adds projects to entries, so an entry of ours is known by its host, which is on record in a file of our own. It stays
//! as it is, except for members of ours that it lacks, and a nickname of ours that has changed. Zed may run: it reads
//! its settings again when they change.
//!
//! The members are those of `SshConnection` in Zed's crates/settings_content/src/settings_content.rs. An older Zed skips
//! those that it does not know, because that struct (until 2025 in crates/recent_projects/src/remote_connections.rs) has
//! never denied unknown fields; it drops them when it saves a project, and the next `config-zed` adds them again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    env, fs, io,
    ops::Range,
    path::{Path, PathBuf},
};

use jsonc_parser::{
    CollectOptions, CommentCollectionStrategy, ParseOptions,
    ast::Value,
    common::Ranged,
    cst::{CstArray, CstInputValue, CstNode, CstObject, CstRootNode},
    json, parse_to_ast,
};
use serde::{Deserialize, Serialize};

use crate::{
    editors::{
        flatpak,
        settings_file::{Format, Plan, Written},
    },
    error::{Error, Kind, Result, printable},
    files,
    settings::Folders,
    ssh_config::entries::Entry,
};

/// The setting.
const CONNECTIONS: &str = "ssh_connections";
/// The member with the seconds that Zed waits for a connection of ssh, and for its server's download
/// (<https://github.com/zed-industries/zed/pull/44823>).
const TIMEOUT: &str = "connection_timeout";
/// Our value of [`TIMEOUT`]. A cold boot can take 20 minutes.
const SECONDS: u32 = 1800;
/// The member with the name that Zed shows instead of the host.
const NICKNAME: &str = "nickname";

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

fn native_path(folders: &Folders) -> PathBuf {
    let system = if cfg!(windows) { System::Windows } else { System::Unix };
    let config = match system {
        System::Windows => dirs::config_dir(),
        System::Unix if cfg!(target_os = "macos") => None,
        System::Unix => env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute()),
    };
    settings_path(system, &folders.home, config.as_deref())
}

/// The settings of each Zed that is here. That of a Flatpak reads its own alone, so the usual ones are only written
/// beside it if a Zed has been there, too.
fn paths(folders: &Folders, record: &Record) -> Vec<PathBuf> {
    let native = native_path(folders);
    let flatpaks =
        flatpak::configurations(&folders.home, &["dev.zed.Zed"]).into_iter().map(|config| config.join("zed"));
    let mut paths: Vec<PathBuf> =
        flatpaks.filter(|folder| folder.is_dir()).map(|folder| folder.join("settings.json")).collect();
    paths.extend(record.others.keys().filter(|path| !paths.contains(path)).cloned().collect::<Vec<_>>());
    if paths.is_empty() || !record.hosts.is_empty() || native.parent().is_some_and(Path::is_dir) {
        paths.insert(0, native);
    }
    paths
}

/// The hosts whose entries are ours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Record {
    /// Those in the usual settings.
    hosts: Vec<String>,
    /// Those in other settings, which are a Flatpak's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    others: BTreeMap<PathBuf, Vec<String>>,
    /// The nicknames that we have given to hosts. Any other is the user's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    nicknames: BTreeMap<String, BTreeSet<String>>,
}

/// The file of the record of our hosts.
pub fn record_path(folders: &Folders) -> PathBuf {
    folders.root.join("zed.json")
}

impl Record {
    fn hosts(&self, path: &Path, folders: &Folders) -> Vec<String> {
        if path == native_path(folders) {
            self.hosts.clone()
        } else {
            self.others.get(path).cloned().unwrap_or_default()
        }
    }

    fn add(&mut self, path: &Path, folders: &Folders, new: Vec<String>) {
        let hosts = match path == native_path(folders) {
            true => &mut self.hosts,
            false => self.others.entry(path.to_owned()).or_default(),
        };
        let there: HashSet<String> = hosts.iter().cloned().collect();
        hosts.extend(new.into_iter().filter(|host| !there.contains(host)));
    }

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
        if self.hosts.is_empty() && self.others.is_empty() {
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

/// Changes the settings, if `agree` returns true for the plans. Returns the files that were written.
///
/// # Errors
/// [`Kind::File`] when the settings are damaged or cannot be written; then they are as they were. As `agree`.
pub async fn apply(
    folders: &Folders,
    request: &Request,
    entries: &[Entry],
    agree: impl AsyncFnOnce(&[&Plan]) -> Result<bool>,
) -> Result<Vec<Written>> {
    let record = Record::load(folders)?;
    let backups = folders.backups();
    let mut plans = Vec::new();
    for path in paths(folders, &record) {
        let format = Connections { ours: record.hosts(&path, folders), nicknames: record.nicknames.clone() };
        let plan = match request.remove {
            true => Plan::remove(&path, &format, &backups)?,
            false => Plan::set(&path, &format, entries)?,
        };
        if !plan.changes() && !request.dry_run {
            plan.sweep();
        }
        plans.push((path, format, plan));
    }
    if !agree(&plans.iter().map(|(.., plan)| plan).collect::<Vec<_>>()).await? {
        // The user may have removed our entries by hand. The next entry of that name is the user's.
        if request.remove && !request.dry_run && plans.iter().all(|(.., plan)| !plan.changes()) {
            Record::default().save(folders)?;
        }
        return Ok(Vec::new());
    }
    let mut after = Record::default();
    if !request.remove {
        // The record names both the old and the new hosts until the settings are written, so that a run that is killed
        // in between leaves no entry of ours that passes for the user's.
        let mut both = record;
        for (host, nickname) in entries.iter().filter_map(|entry| Some((&entry.host, nickname(entry)?))) {
            for record in [&mut after, &mut both] {
                record.nicknames.entry(host.clone()).or_default().insert(nickname.clone());
            }
        }
        for (path, format, _) in &plans {
            let before = files::read_text(path)?.unwrap_or_default();
            let ours = format.ours_among(&before, entries)?;
            after.add(path, folders, ours.clone());
            both.add(path, folders, ours);
        }
        both.save(folders)?;
    }
    let mut written = Vec::new();
    for (.., plan) in plans.iter().filter(|(.., plan)| plan.changes()) {
        let backup = plan.commit(request.remove, &backups)?;
        written.push(Written { file: plan.path().to_owned(), backup });
    }
    after.save(folders)?;
    Ok(written)
}

/// The name for people that Zed shows instead of the host, beside which the host stands in parentheses: the alias, which
/// `ssh` takes as well, else the title.
fn nickname(entry: &Entry) -> Option<String> {
    let title = || Some(printable(&entry.title)).filter(|title| !title.is_empty());
    entry.alias.clone().or_else(title)
}

/// The form of our entries in Zed's settings.
#[derive(Debug, Default)]
pub struct Connections {
    /// Hosts whose entries are ours.
    pub ours: Vec<String>,
    /// The nicknames that we have given to hosts.
    pub nicknames: BTreeMap<String, BTreeSet<String>>,
}

/// An entry to be added.
struct New<'a> {
    host: &'a str,
    user: &'a str,
    nickname: Option<String>,
}

impl<'a> New<'a> {
    fn of(entry: &'a Entry) -> New<'a> {
        New { host: &entry.host, user: &entry.user, nickname: nickname(entry) }
    }
}

impl Connections {
    /// The hosts of `entries` that are or become ours, because the user has no entry for them.
    fn ours_among(&self, text: &str, entries: &[Entry]) -> Result<Vec<String>> {
        let root = parse(text)?;
        let ours = self.hosts();
        let mut theirs = array(&root)?.map_or_else(HashSet::new, |array| hosts(&array));
        theirs.retain(|host| !ours.contains(host.as_str()));
        Ok(entries.iter().map(|entry| entry.host.clone()).filter(|host| !theirs.contains(host)).collect())
    }

    fn hosts(&self) -> HashSet<&str> {
        self.ours.iter().map(String::as_str).collect()
    }

    /// Adds our members to an entry of ours, and brings our nickname up to date. A value of the user's stays, `null`
    /// included.
    fn complete(&self, object: &CstObject, entry: &Entry) {
        if object.get(TIMEOUT).is_none() {
            object.append(TIMEOUT, json!(SECONDS));
        }
        let wanted = nickname(entry);
        let given = self.nicknames.get(&entry.host);
        match (object.get(NICKNAME), wanted) {
            (None, Some(wanted)) => drop(object.append(NICKNAME, json!(wanted))),
            (Some(member), wanted) => {
                let current = member.value().and_then(|value| value.as_string_lit()?.decoded_value().ok());
                let is_ours = current.as_ref().is_some_and(|name| given.is_some_and(|given| given.contains(name)));
                match wanted {
                    _ if !is_ours || current == wanted => {}
                    Some(wanted) => member.set_value(json!(wanted)),
                    None => member.remove(),
                }
            }
            (None, None) => {}
        }
    }
}

impl Format for Connections {
    fn set(&self, text: &str, entries: &[Entry]) -> Result<String> {
        let wanted: HashSet<&str> = entries.iter().map(|entry| entry.host.as_str()).collect();
        let gone: HashSet<&str> = self.hosts().difference(&wanted).copied().collect();
        let root = parse(&thinned(text, &gone)?)?;
        let (ours, mut there) = (self.hosts(), HashSet::new());
        let wanted: HashMap<&str, &Entry> = entries.iter().map(|entry| (entry.host.as_str(), entry)).collect();
        if let Some(array) = array(&root)? {
            for node in array.elements() {
                let Some(host) = host(&node) else { continue };
                if gone.contains(host.as_str()) {
                    node.remove();
                    continue;
                }
                let entry = wanted.get(host.as_str()).filter(|_| ours.contains(host.as_str()));
                if let (Some(object), Some(entry)) = (node.as_object(), entry) {
                    self.complete(&object, entry);
                }
                there.insert(host);
            }
        }
        let new = entries.iter().filter(|entry| there.insert(entry.host.clone()));
        append(root, &new.map(New::of).collect::<Vec<_>>())
    }

    fn repeat(&self, text: &str, current: &str) -> Result<String> {
        let (root, current) = (parse(text)?, parse(current)?);
        let ours = self.hosts();
        let nodes = array(&current)?.map_or_else(Vec::new, |array| array.elements());
        let found =
            nodes.iter().filter_map(|node| Some((host(node)?, string(node, "username")?, string(node, NICKNAME))));
        let found: Vec<_> = found.filter(|(host, ..)| ours.contains(host.as_str())).collect();
        let new = found.iter().map(|(host, user, nickname)| New { host, user, nickname: nickname.clone() });
        append(root, &new.collect::<Vec<_>>())
    }
}

/// The options by which Zed reads its settings.
const AS_ZED: ParseOptions = ParseOptions {
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

fn parse(text: &str) -> Result<CstRootNode> {
    let root = CstRootNode::parse(text, &AS_ZED).map_err(|e| damaged(&e.to_string()))?;
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

/// The place of each element of the list in `text`, with its host.
fn places(text: &str) -> Result<Vec<(Range<usize>, Option<String>)>> {
    let collected = CollectOptions { comments: CommentCollectionStrategy::Off, tokens: false };
    let root = parse_to_ast(text, &collected, &AS_ZED).map_err(|e| damaged(&e.to_string()))?;
    let Some(Value::Object(root)) = root.value else { return Ok(Vec::new()) };
    let elements = root.get_array(CONNECTIONS).map_or(&[][..], |array| &array.elements);
    let host = |element: &Value<'_>| Some(element.as_object()?.get_string("host")?.value.to_string());
    Ok(elements.iter().map(|element| (element.start()..element.end(), host(element))).collect())
}

/// `text` without most of the elements that are to go: of a row with nothing but commas in between, those that stay are
/// kept, or the first if none does. The tree takes so long to remove one that thousands would never end.
fn thinned(text: &str, gone: &HashSet<&str>) -> Result<String> {
    let mut rows: Vec<Vec<(Range<usize>, bool)>> = Vec::new();
    for (place, host) in places(text)? {
        let goes = host.is_some_and(|host| gone.contains(host.as_str()));
        let is_near = |row: &&mut Vec<(Range<usize>, bool)>| {
            let before = row.last().map_or(0, |(before, _)| before.end);
            text[before..place.start].chars().all(|c| c == ',' || c.is_whitespace())
        };
        match rows.last_mut().filter(is_near) {
            Some(row) => row.push((place, goes)),
            None => rows.push(vec![(place, goes)]),
        }
    }
    let mut thin = String::with_capacity(text.len());
    let mut at = 0;
    for row in rows {
        let (Some((first, _)), Some((last, _))) = (row.first(), row.last()) else { continue };
        thin.push_str(&text[at..first.start]);
        at = last.end;
        let stays = |(_, (_, goes)): &(usize, &(Range<usize>, bool))| !goes;
        let (mut kept, start) = (row.iter().enumerate().filter(stays), thin.len());
        if let Some((_, (place, _))) = kept.next() {
            thin.push_str(&text[place.clone()]);
            kept.for_each(|(i, (place, _))| thin.push_str(&text[row[i - 1].0.end..place.end]));
        }
        if thin.len() == start {
            thin.push_str(&text[first.clone()]);
        }
    }
    thin.push_str(&text[at..]);
    Ok(thin)
}

/// The text of `root` with these entries at the end of the list. The tree takes long to add one, so it adds a pattern
/// with a nickname and one without, of which the entries are copies.
fn append(root: CstRootNode, new: &[New<'_>]) -> Result<String> {
    const NAMES: [&str; 3] = ["@host@", "@user@", "@nickname@"];
    if new.is_empty() {
        return Ok(root.to_string());
    }
    let array = match array(&root)? {
        Some(array) => array,
        None => root.object_value_or_set().array_value_or_set(CONNECTIONS),
    };
    array.ensure_multiline();
    let pattern = || {
        let members = [("host", json!(NAMES[0])), ("username", json!(NAMES[1])), ("projects", json!([]))];
        members.into_iter().chain([(TIMEOUT, json!(SECONDS))])
    };
    let object = |members: Vec<(&str, CstInputValue)>| {
        CstInputValue::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    };
    array.append(object(pattern().chain([(NICKNAME, json!(NAMES[2]))]).collect()));
    array.append(object(pattern().collect()));
    let text = root.to_string();
    let places = places(&text)?;
    let [.., (named, _), (plain, _)] = &places[..] else { return Err(damaged("its list cannot be found again")) };
    let between = &text[named.end..plain.start];
    let copy = |New { host, user, nickname }: &New<'_>| {
        let pattern = &text[if nickname.is_some() { named.clone() } else { plain.clone() }];
        // A host and a user have no character that JSON would write otherwise. The nickname comes last, because it may
        // be one of the other names.
        let copy = pattern.replace(NAMES[0], host).replace(NAMES[1], user);
        match nickname {
            Some(nickname) => copy.replace(&quoted(NAMES[2]), &quoted(nickname)),
            None => copy,
        }
    };
    let copies: Vec<String> = new.iter().map(copy).collect();
    Ok(format!("{}{}{}", &text[..named.start], copies.join(between), &text[plain.end..]))
}

/// The text as a string of JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn hosts(array: &CstArray) -> HashSet<String> {
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
    use std::{collections::BTreeSet, path::Path};

    use expect_test::expect_file;
    use proptest::prelude::*;

    use super::{AS_ZED, Connections, System, nickname, settings_path};
    use crate::{editors::settings_file::Format, platform::Platform, ssh_config::entries::Entry};

    fn entry(host: &str, user: &str) -> Entry {
        Entry {
            host: host.into(),
            user: user.into(),
            platform: Platform::Labs,
            title: String::new(),
            alias: None,
            listener: None,
        }
    }

    fn two() -> Vec<Entry> {
        vec![entry("playground-0123456789abcdef01234567", "laborant"), entry("playground-shell", "root")]
    }

    fn titled(title: &str) -> Vec<Entry> {
        two().into_iter().map(|entry| Entry { title: title.into(), ..entry }).collect()
    }

    fn connections(entries: &[Entry]) -> Connections {
        let nicknames =
            entries.iter().filter_map(|entry| Some((entry.host.clone(), BTreeSet::from([nickname(entry)?]))));
        Connections { ours: entries.iter().map(|entry| entry.host.clone()).collect(), nicknames: nicknames.collect() }
    }

    fn ours() -> Connections {
        connections(&two())
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
        let entries = [titled("My \"k3s\" lab").remove(0), two().remove(1)];
        let set = |text| connections(&entries).set(text, &entries).unwrap();
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
        let own = connections(&two()[..1]);
        assert_eq!(own.ours_among(&theirs, &two()).unwrap(), [two()[0].host.clone()]);
        let set = own.set(&theirs, &two()).unwrap();
        assert_eq!(set.matches("playground-shell").count(), 1);
        assert_eq!(own.set(&set, &[]).unwrap(), theirs);
    }

    /// As an entry of an earlier version lacks it.
    const MEMBER: &str = "\n      \"connection_timeout\": 1800,";

    #[test]
    fn members_of_ours_are_added_and_values_of_the_users_stay() {
        let old = ours().set(THEIRS, &two()).unwrap().replace(MEMBER, "");
        assert!(!old.contains("connection_timeout"));
        let named = titled("My lab");
        let new = connections(&named).set(&old, &named).unwrap();
        assert_eq!(new, connections(&named).set(THEIRS, &named).unwrap(), "as if it had just been written");
        assert_eq!(connections(&named).repeat(THEIRS, &new).unwrap(), new);
        let aliased = [Entry { alias: Some("my-lab".into()), ..named[0].clone() }];
        let by_alias = connections(&aliased).set("", &aliased).unwrap();
        assert!(by_alias.contains("\"nickname\": \"my-lab\""), "{by_alias}");
        // The playgrounds are renamed, and lose their names.
        let renamed = titled("Another");
        let again = connections(&named).set(&new, &renamed).unwrap();
        assert_eq!(again, new.replace("My lab", "Another"));
        assert_eq!(connections(&renamed).set(&again, &two()).unwrap(), ours().set(THEIRS, &two()).unwrap());
        for (ours, theirs) in [
            ("\"connection_timeout\": 1800", "\"connection_timeout\": 60"),
            ("\"connection_timeout\": 1800", "\"connection_timeout\": null"),
            ("\"nickname\": \"My lab\"", "\"nickname\": \"mine\""),
            ("\"nickname\": \"My lab\"", "\"nickname\": null"),
            ("\"nickname\": \"My lab\",", "// kept\n      \"nickname\": \"\", // kept, too"),
        ] {
            let own = new.replace(ours, theirs);
            assert_ne!(own, new);
            assert_eq!(connections(&named).set(&own, &named).unwrap(), own);
            let moved = connections(&named).set(&own, &renamed).unwrap();
            assert!(moved.contains(theirs), "{moved}");
            assert_eq!(connections(&named).set(&own, &[]).unwrap(), THEIRS);
        }
    }

    /// The members that Zed knows, as its settings declare them: a host is a string, the rest is optional.
    #[test]
    fn zed_reads_what_is_written() {
        #[derive(serde::Deserialize, Debug, PartialEq)]
        struct SshConnection {
            host: String,
            username: Option<String>,
            nickname: Option<String>,
            connection_timeout: Option<u16>,
        }
        let named = titled("quote \" backslash \\ \u{1F980}");
        let text = connections(&named).set(THEIRS, &named).unwrap();
        let value: serde_json::Value = jsonc_parser::parse_to_serde_value(&text, &AS_ZED).unwrap();
        let read: Vec<SshConnection> = serde_json::from_value(value["ssh_connections"].clone()).unwrap();
        let expected = named.iter().map(|entry| SshConnection {
            host: entry.host.clone(),
            username: Some(entry.user.clone()),
            nickname: Some(entry.title.clone()),
            connection_timeout: Some(1800),
        });
        assert_eq!(read[1..], expected.collect::<Vec<_>>());
    }

    #[test]
    fn many_are_as_if_they_had_come_one_by_one() {
        let title = |n: usize| if n.is_multiple_of(2) { String::new() } else { format!("\\ \"@user@\" é {n}") };
        let many = (0..5).map(|n| entry(&format!("playground-{n}"), &format!("user{n}"))).enumerate();
        let many: Vec<Entry> = many.map(|(n, entry)| Entry { title: title(n), ..entry }).collect();
        let ours = connections(&many);
        for text in SHAPES {
            let mut by_one = text.to_owned();
            for n in 1..=many.len() {
                by_one = ours.set(&by_one, &many[..n]).unwrap();
                assert_eq!(ours.set(text, &many[..n]).unwrap(), by_one);
            }
            // Some go, and it is as if they had never been there.
            let odd: Vec<Entry> = many.iter().skip(1).step_by(2).cloned().collect();
            assert_eq!(ours.set(&by_one, &odd).unwrap(), ours.set(text, &odd).unwrap());
            // A comment between two of them is not ours.
            let noted = by_one.replacen(
                "    {\n      \"host\": \"playground-3\"",
                "    // kept\n    {\n      \"host\": \"playground-3\"",
                1,
            );
            assert_eq!(ours.set(&noted, &odd).unwrap().matches("// kept").count(), noted.matches("// kept").count());
        }
    }

    /// One at a time, these would take an hour.
    #[test]
    fn an_account_of_any_size_is_written_and_removed() {
        let many: Vec<Entry> = (0..15_000).map(|n| entry(&format!("playground-{n}"), "root")).collect();
        let ours = connections(&many);
        let all = ours.set(THEIRS, &many).unwrap();
        assert_eq!(ours.repeat(THEIRS, &all).unwrap(), all);
        let before = all.replace(MEMBER, "");
        assert_eq!(ours.set(&before, &many).unwrap(), all, "those of an earlier version are completed");
        let half: Vec<Entry> = many.into_iter().step_by(2).collect();
        assert_eq!(ours.set(&all, &half).unwrap(), ours.set(THEIRS, &half).unwrap());
        assert_eq!(ours.set(&all, &[]).unwrap(), THEIRS);
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
