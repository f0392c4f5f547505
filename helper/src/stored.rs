//! Containers that do not run, as podman and nerdctl keep them in files.
//!
//! podman has a list in each of its storages. The storage of each container that runs is known by its bundle, and the one
//! that podman is configured with is looked at, too. containerd has no such file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{process, scope::Scope, wire::Container};

/// The files that configure podman's storage. The first that is there counts.
const CONFIGURATIONS: [&str; 2] = ["/etc/containers/storage.conf", "/usr/share/containers/storage.conf"];

/// podman's storage where nothing else is configured.
const USUAL_STORAGE: &str = "/var/lib/containers/storage";

/// The folder of nerdctl's own files.
const NERDCTL: &str = "/var/lib/nerdctl";

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Stored {
    id: String,
    names: Option<Vec<String>>,
    metadata: String,
}

/// The words of podman about its own containers. CRI-O's have a pod besides, and those of other programs have no such text.
#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default, rename = "image-name")]
    image: String,
    #[serde(default, rename = "pod-id")]
    pod: String,
}

/// podman's containers, those that run, too. `bundles` are those of the latter.
pub(crate) fn of_podman(scope: &Scope, bundles: &[PathBuf]) -> Vec<Container> {
    let configured = match scope {
        Scope::All => Some(configured_storage()),
        Scope::Below(folder) => Some(folder.clone()),
        Scope::Nothing => None,
    };
    let entries = configured.and_then(|storage| fs::read_dir(storage).ok()).into_iter().flatten().flatten();
    let lists = entries.map(|entry| entry.path()).filter(|path| path.to_string_lossy().ends_with("-containers"));
    let mut lists: Vec<PathBuf> =
        lists.chain(bundles.iter().filter_map(|bundle| Some(bundle.parent()?.parent()?.to_owned()))).collect();
    lists.sort();
    lists.dedup();
    lists.iter().flat_map(|list| listed(list)).collect()
}

fn listed(folder: &Path) -> Vec<Container> {
    let files = ["containers.json", "volatile-containers.json"];
    let all = files.iter().filter_map(|file| process::json::<Vec<Stored>>(rustix::fs::CWD, folder.join(file)).ok());
    let one = |stored: Stored| {
        let metadata: Metadata = serde_json::from_str(&stored.metadata).ok()?;
        let is_podmans = metadata.pod.is_empty() && stored.names.unwrap_or_default().contains(&metadata.name);
        is_podmans.then(|| Container {
            id: stored.id,
            name: metadata.name,
            image: metadata.image,
            state: "stopped".to_owned(),
            engine: "podman".to_owned(),
            ..Container::default()
        })
    };
    all.flatten().filter_map(one).collect()
}

/// The folder of podman's storage, by its own configuration.
fn configured_storage() -> PathBuf {
    let text = CONFIGURATIONS.iter().find_map(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    graph_root(&text).unwrap_or_else(|| USUAL_STORAGE.into())
}

fn graph_root(configuration: &str) -> Option<PathBuf> {
    let value =
        configuration.lines().find_map(|line| line.trim().strip_prefix("graphroot")?.trim().strip_prefix('='))?;
    let value = value.trim().strip_prefix(['"', '\''])?.split(['"', '\'']).next()?;
    Some(value.into()).filter(|path: &PathBuf| path.is_absolute())
}

/// nerdctl's containers, by its store of names: `<data>/<engine>/names/<namespace>/<name>`, which holds the id.
pub(crate) fn of_nerdctl(scope: &Scope) -> Vec<Container> {
    match scope {
        Scope::All => named(Path::new(NERDCTL)),
        Scope::Below(folder) => named(folder),
        Scope::Nothing => Vec::new(),
    }
}

fn named(data: &Path) -> Vec<Container> {
    let below = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let names = below(data.to_owned()).flat_map(|engine| below(engine.join("names"))).flat_map(below);
    let one = |path: PathBuf| {
        let id = process::read(rustix::fs::CWD, &path).ok()?;
        let id = std::str::from_utf8(&id).ok()?.trim().to_owned();
        let is_id = id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
        is_id.then(|| Container {
            id,
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            state: "stopped".to_owned(),
            engine: "containerd".to_owned(),
            ..Container::default()
        })
    };
    names.filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn podmans_list_has_podmans_containers_only() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("overlay-containers");
        fs::create_dir(&list).unwrap();
        let containers = r#"[
            {"id":"aa","names":["web"],"metadata":"{\"image-name\":\"i\",\"name\":\"web\",\"created-at\":1}"},
            {"id":"bb","names":["k8s_x"],"metadata":"{\"pod-id\":\"p\",\"name\":\"k8s_x\"}"},
            {"id":"cc","names":["working"],"metadata":""},
            {"id":"dd","names":null,"metadata":"{\"name\":\"other\"}"},
            {"id":"ee"}
        ]"#;
        fs::write(list.join("containers.json"), containers).unwrap();
        for scope in [Scope::Below(folder.path().to_owned()), Scope::Nothing] {
            let bundles = [list.join("aa/userdata")];
            let found = of_podman(&scope, &bundles);
            assert_eq!(found.len(), 1);
            let web = &found[0];
            let words = [&web.id, &web.name, &web.image, &web.state, &web.engine].map(String::as_str);
            assert_eq!(words, ["aa", "web", "i", "stopped", "podman"]);
        }
        assert!(of_podman(&Scope::Nothing, &[]).is_empty());
    }

    #[test]
    fn the_storage_is_podmans_own_choice() {
        let text = "[storage]\n# graphroot = \"/no\"\nrunroot = \"/r\"\n graphroot = \"/data/storage\" # here\n";
        assert_eq!(graph_root(text), Some("/data/storage".into()));
        for none in ["", "graphroot = \"x\"", "graphroot_quota=\"/x\"", "# graphroot=\"/x\"", "graphroot ="] {
            assert_eq!(graph_root(none), None, "{none}");
        }
    }

    #[test]
    fn nerdctls_names_hold_ids() {
        let folder = tempfile::tempdir().unwrap();
        let names = folder.path().join("1935db59/names/default");
        fs::create_dir_all(&names).unwrap();
        fs::write(names.join("web"), "ab".repeat(32)).unwrap();
        fs::write(names.join("broken"), "ab").unwrap();
        let found = named(folder.path());
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name.as_str(), found[0].id.len(), found[0].client()), ("web", 64, "nerdctl"));
        assert!(named(&names).is_empty());
    }
}
