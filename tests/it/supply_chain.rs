//! The origin, licences and number of our dependencies, and the use of `unsafe` in our own code. The lists are in
//! deny.toml.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use serde_json::Value;

/// The packages of this repository.
const OWN: [&str; 2] = [env!("CARGO_PKG_NAME"), concat!(env!("CARGO_PKG_NAME"), "-helper")];

fn packages() -> Vec<Value> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    // Without the sources of crates for other systems, cargo needs the network.
    let output = if output.status.success() {
        output
    } else {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--locked"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap()
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn list(name: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml")).unwrap();
    let lines = text.lines().skip_while(|line| *line != format!("{name} = [")).skip(1);
    lines.take_while(|line| *line != "]").filter_map(|line| line.split('"').nth(1).map(str::to_owned)).collect()
}

/// Returns true if every part of the expression has a permitted alternative.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let expression = expression.replace(['(', ')'], " ").replace('/', " OR ");
    expression.split(" AND ").all(|part| part.split(" OR ").any(|licence| allowed.contains(licence.trim())))
}

/// Returns true for a copy of a crate in `patches`, whose README says of which version it is, why, and for how long.
fn is_explained_copy(package: &Value) -> bool {
    let (name, version) = (package["name"].as_str().unwrap(), package["version"].as_str().unwrap());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("patches").join(name);
    let readme = fs::read_to_string(folder.join("README.md")).unwrap_or_default();
    let says = ["**Why.**", "**What.**", "**When it can go.**"];
    readme.starts_with(&format!("# A patched copy of {name} {version}\n"))
        && says.iter().all(|part| readme.contains(part))
}

#[test]
fn licences_sources_and_duplicates() {
    let packages = packages();
    assert!(packages.len() > 100);
    let (allowed, skipped) = (list("allow"), list("skip"));
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut registry = None;
    for package in &packages {
        let name = package["name"].as_str().unwrap();
        let licence = package["license"].as_str().unwrap_or("none");
        assert!(is_allowed(licence, &allowed), "{name} is under {licence}");
        match package["source"].as_str() {
            None => assert!(OWN.contains(&name) || is_explained_copy(package), "{name}"),
            // All dependencies come from one registry.
            Some(source) => {
                assert!(source.starts_with("registry+https://"), "{name}: {source}");
                assert_eq!(source, *registry.get_or_insert(source), "{name}");
            }
        }
        versions.entry(name).or_default().insert(package["version"].as_str().unwrap());
    }
    for (name, versions) in versions.into_iter().filter(|(_, versions)| versions.len() > 1) {
        let unexplained: Vec<_> = versions
            .iter()
            .filter(|version| !skipped.iter().any(|skip| format!("{name}@{version}.").starts_with(&format!("{skip}."))))
            .collect();
        assert_eq!(unexplained.len(), 1, "{name} is there in {versions:?}");
    }
}

/// `unsafe` is denied. Each use explains why it is needed and why it is sound.
#[test]
fn each_unsafe_block_is_explained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src"), root.join("helper/src")];
    let mut uses = Vec::new();
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            for (n, line) in lines.iter().enumerate().filter(|(_, line)| line.contains("unsafe {")) {
                let before = lines[n.saturating_sub(5)..n].join("\n");
                // A file about a system's calls has one reason for all of them.
                let is_of_calls = lines.iter().any(|line| line.starts_with("#![expect(unsafe_code, reason = "));
                let has_reason = is_of_calls || before.contains("reason = ");
                assert!(before.contains("// SAFETY: ") && has_reason, "{}: {line}", path.display());
                if !is_of_calls {
                    uses.push(path.clone());
                }
            }
        }
    }
    let (helpers, programs): (Vec<_>, Vec<_>) = uses.iter().partition(|path| path.starts_with(root.join("helper")));
    assert!(programs.len() <= 4, "{programs:?}");
    // It is close to the kernel: descriptors by their numbers, what happens between fork and exec, and a view's forks,
    // mount namespace and filter.
    assert!(helpers.len() <= 20, "{helpers:?}");
}

/// The lock file is under version control, and builds use it.
#[test]
fn builds_go_by_the_lock_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert!(root.join("Cargo.lock").exists());
    for line in fs::read_to_string(root.join("scripts/test")).unwrap().lines().filter(|line| line.starts_with("cargo "))
    {
        assert!(line.contains("--locked") || line.contains("cargo fmt"), "{line}");
    }
}

/// Each advisory that is ignored begins with the crate that it is for, which is still there, and SECURITY.md says why it
/// does not concern us.
#[test]
fn each_ignored_advisory_is_explained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("deny.toml")).unwrap();
    let security = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let packages = packages();
    let ignored = list("ignore");
    assert!(!ignored.is_empty());
    for id in ignored {
        let line = text.lines().find(|line| line.contains(&format!("id = \"{id}\""))).unwrap();
        let reason = line.split_once("reason = \"").unwrap().1;
        let name = reason.split_once(": ").unwrap().0;
        assert!(packages.iter().any(|package| package["name"] == name), "{name} is gone, and {id} can go, too");
        assert!(security.contains(&format!("{id} ({name}")), "SECURITY.md does not explain {id}");
    }
}

/// docs/dependencies.md has a row for each direct dependency, in its version, and no other.
#[test]
fn each_dependency_has_its_row() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let packages = packages();
    let own: Vec<&Value> = OWN.iter().filter_map(|own| packages.iter().find(|one| one["name"] == *own)).collect();
    assert_eq!(own.len(), OWN.len());
    let dependencies = own.iter().flat_map(|own| own["dependencies"].as_array().unwrap());
    let dependencies = dependencies.filter(|one| one["path"].is_null());
    let named = dependencies.map(|one| {
        let wanted = one["req"].as_str().unwrap().trim_start_matches('^');
        (one["kind"] == "dev", one["name"].as_str().unwrap().to_owned(), wanted.to_owned())
    });
    let named: BTreeSet<_> = named.collect();
    let page = fs::read_to_string(root.join("docs/dependencies.md")).unwrap();
    let (program, tests) = page.split_once("\nTests alone").unwrap();
    let rows = |text: &str, is_dev| -> Vec<(bool, String, String)> {
        let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
        rows.map(|(name, rest)| (is_dev, name.to_owned(), rest.split(" | ").next().unwrap().to_owned())).collect()
    };
    let shown = [rows(program, false), rows(tests, true)].concat();
    assert_eq!(shown.iter().cloned().collect::<BTreeSet<_>>(), named);
    assert_eq!(shown.len(), named.len(), "a crate has two rows");
    // The one that russh brings, and no other with other types.
    assert!(named.iter().all(|(_, name, _)| !["rsa", "ssh-key"].contains(&name.as_str())));
}
