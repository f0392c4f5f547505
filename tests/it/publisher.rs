//! The publisher file, and what is generated from it.

use std::{fs, process::Command};

use serde_json::{Value, json};

use crate::support::{
    Said, needs,
    tree::{ROOT, Tree},
};

const FILE: &str = "packaging/publisher.toml";

const FILLED: [(&str, &str); 4] = [
    ("repository", "https://example.org/ada/labctl-ssh-proxy"),
    ("homepage", "https://ssh.example.org/?a&b"),
    ("marketplace", "ada-example"),
    ("maintainer", "Ada Example <ada@example.org>"),
];

/// Gives a key of the publisher file this value.
fn set(tree: &Tree, key: &str, value: &str) {
    let line =
        |line: &str| if line.starts_with(&format!("{key} = ")) { format!("{key} = \"{value}\"") } else { line.into() };
    let lines: Vec<String> = tree.read(FILE).lines().map(line).collect();
    tree.write(FILE, &(lines.join("\n") + "\n"));
}

fn filled() -> Tree {
    let tree = Tree::copy();
    for (key, value) in FILLED {
        set(&tree, key, value);
    }
    tree
}

fn without(value: &mut Value, keys: &[&str]) -> Value {
    for key in keys {
        value.as_object_mut().unwrap().remove(*key);
    }
    value.take()
}

#[test]
fn the_repository_agrees_with_its_publisher_file() {
    let script = format!("{ROOT}/scripts/publisher");
    Said::of(Command::new(script).arg("check").output().unwrap()).ok();
}

#[test]
fn a_filled_file_is_read_back_from_what_is_generated() {
    let tree = filled();
    let names = ["Cargo.toml", "vscode-extension/package.json", "scripts/install"];
    let before = names.map(|name| tree.read(name));
    let err = tree.script("publisher", &["check", "--release"]).failed(1);
    for name in names {
        assert!(err.contains(name), "{err}");
    }
    tree.script("publisher", &["write"]).ok();
    tree.script("publisher", &["check", "--release"]).ok();
    for (key, value) in FILLED {
        assert_eq!(tree.script("publisher", &["get", key]).ok(), format!("{value}\n"));
    }

    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut metadata = Command::new(cargo);
    metadata.args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"]);
    let metadata = Said::of(metadata.arg(tree.path("Cargo.toml")).output().unwrap()).ok();
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == "labctl-ssh-proxy").unwrap();
    assert_eq!((&package["repository"], &package["homepage"]), (&json!(FILLED[0].1), &json!(FILLED[1].1)));

    let mut manifest: Value = serde_json::from_str(&tree.read(names[1])).unwrap();
    assert_eq!(manifest["publisher"], "ada-example");
    assert_eq!(manifest["repository"]["url"], "https://example.org/ada/labctl-ssh-proxy.git");
    assert_eq!(manifest["bugs"]["url"], "https://example.org/ada/labctl-ssh-proxy/issues");
    assert_eq!(manifest["homepage"], FILLED[1].1);
    assert!(manifest.get("private").is_none());
    let keys = ["publisher", "repository", "bugs", "homepage", "private"];
    let mut earlier: Value = serde_json::from_str(&before[1]).unwrap();
    assert_eq!(without(&mut manifest, &keys), without(&mut earlier, &keys), "nothing else is touched");

    let line = "\naddress='https://example.org/ada/labctl-ssh-proxy' # ";
    assert!(tree.read(names[2]).contains(line));

    // The way back: an empty file takes out what was generated.
    for (key, _) in FILLED {
        set(&tree, key, "");
    }
    tree.script("publisher", &["write"]).ok();
    assert_eq!(names.map(|name| tree.read(name)), before);
    // Without a homepage, the repository takes its place.
    set(&tree, "repository", FILLED[0].1);
    tree.script("publisher", &["write"]).ok();
    let manifest: Value = serde_json::from_str(&tree.read(names[1])).unwrap();
    assert_eq!((&manifest["homepage"], &manifest["private"]), (&json!(FILLED[0].1), &json!(true)));
}

#[test]
fn what_a_release_needs_and_has_not_is_said() {
    for key in ["repository", "marketplace", "maintainer"] {
        let tree = filled();
        set(&tree, key, "");
        tree.script("publisher", &["write"]).ok();
        tree.script("publisher", &["check"]).ok();
        for args in [&["check", "--release"][..], &["get", key]] {
            let err = tree.script("publisher", args).failed(1);
            assert!(err.starts_with(&format!("publisher: {key} in {FILE} is empty")), "{args:?}: {err}");
            assert_eq!(err.lines().count(), 1, "{err}");
        }
    }
    let tree = filled();
    set(&tree, "homepage", "");
    tree.script("publisher", &["write"]).ok();
    tree.script("publisher", &["check", "--release"]).ok();
}

#[test]
fn what_is_no_value_of_its_key_is_refused() {
    let tree = filled();
    for (key, value) in [
        ("repository", "example.org/ada/x"),
        ("repository", "http://example.org/ada/x"),
        ("repository", "https://example.org/ada/x.git"),
        ("repository", "https://example.org/ada/x/"),
        ("repository", "https://example.org/ada/x' y"),
        ("homepage", "example.org"),
        ("marketplace", "ada.example"),
        ("marketplace", "undefined_publisher"),
        ("maintainer", "Ada"),
        ("maintainer", "<ada@example.org>"),
    ] {
        let before = tree.read(FILE);
        set(&tree, key, value);
        let err = tree.script("publisher", &["write"]).failed(1);
        assert!(err.contains(&format!("{key} in ")) && err.contains(FILE), "{key} {value}: {err}");
        tree.write(FILE, &before);
    }
    let before = tree.read(FILE);
    tree.write(FILE, &before.replace("marketplace = ", "market = "));
    assert!(tree.script("publisher", &["check"]).failed(1).contains("has no marketplace"));
    tree.write(FILE, &(before + "other = \"\"\n"));
    assert!(tree.script("publisher", &["check"]).failed(1).contains("the unknown key other"));
    assert!(tree.script("publisher", &["write", "--force"]).failed(2).contains("--force"));
}

#[test]
fn the_formula_names_each_archive_with_its_checksum() {
    let (tree, folder) = (filled(), tempfile::tempdir().unwrap());
    let formula = |tree: &Tree| tree.script("publisher", &["formula".as_ref(), folder.path()]);
    let targets =
        ["aarch64-apple-darwin", "x86_64-apple-darwin", "aarch64-unknown-linux-musl", "x86_64-unknown-linux-musl"];
    for (n, target) in targets.into_iter().enumerate() {
        let err = formula(&tree).failed(1);
        assert!(err.contains(&format!("scripts/package {target}")), "{err}");
        let archive = format!("labctl-ssh-proxy-{target}.tar.gz");
        let sum = format!("{:064x}  {archive}\n", n + 10);
        fs::write(folder.path().join(format!("{archive}.sha256")), sum).unwrap();
    }
    let path = formula(&tree).ok();
    let text = fs::read_to_string(path.trim()).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    for (n, target) in targets.into_iter().enumerate() {
        let url = format!("{}/releases/download/v{version}/labctl-ssh-proxy-{target}.tar.gz", FILLED[0].1);
        assert!(text.contains(&format!("      url \"{url}\"\n      sha256 \"{:064x}\"\n", n + 10)), "{text}");
    }
    assert!(text.contains(&format!("  homepage \"{}\"\n  version \"{version}\"\n", FILLED[1].1)), "{text}");
    assert!(text.starts_with("class ") && !text.contains("@"), "{text}");
    Said::of(Command::new(needs("ruby")).arg("-c").arg(path.trim()).output().unwrap()).ok();

    fs::write(folder.path().join("labctl-ssh-proxy-x86_64-apple-darwin.tar.gz.sha256"), "0  other\n").unwrap();
    assert!(formula(&tree).failed(1).contains("is not the checksum of"));
    set(&tree, "repository", "");
    assert!(formula(&tree).failed(1).starts_with("publisher: repository in "));
}
