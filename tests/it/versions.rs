//! The version of this repository: all its places agree, and one command changes them.

use std::{collections::BTreeSet, process::Command};

use crate::support::{
    Said,
    tree::{ROOT, Tree},
};

#[test]
fn all_places_have_the_version_of_the_program() {
    let said = Said::of(Command::new(format!("{ROOT}/scripts/version")).output().unwrap());
    assert_eq!(said.ok().trim(), env!("CARGO_PKG_VERSION"));
}

/// A copy under git in which all is committed.
fn committed() -> Tree {
    let tree = Tree::copy();
    tree.git(&["init", "--quiet"]);
    tree.git(&["add", "--all"]);
    tree.git(&["commit", "--quiet", "--message", "all"]);
    tree
}

/// The lines that were added or removed since the commit, without the names of files.
fn changed_lines(tree: &Tree, file: &str) -> Vec<String> {
    let diff = tree.git(&["diff", "--unified=0", "--", file]);
    let lines = diff.lines().skip_while(|line| !line.starts_with("@@")).filter(|line| !line.starts_with("@@"));
    lines.map(str::to_owned).collect()
}

#[test]
fn a_new_version_changes_its_places_and_no_others() {
    let tree = committed();
    tree.write(
        "CHANGELOG.md",
        "# Changelog\n\n## Unreleased\n\n- One thing.\n- Another.\n\n## 0.0.1 - 2020-02-02\n\n- Old.\n",
    );
    tree.write("vscode-extension/CHANGELOG.md", "# Changelog\n\n## Unreleased\n\n- A view.\n");
    let err = tree.script("version", &["9.10.11"]).failed(1);
    assert!(err.contains("not committed"), "{err}");
    tree.git(&["commit", "--quiet", "--all", "--message", "changelogs"]);

    let old = env!("CARGO_PKG_VERSION");
    tree.script("version", &["9.10.11"]).ok();
    assert_eq!(tree.script::<&str>("version", &[]).ok(), "9.10.11\n");
    let changed = tree.git(&["diff", "--name-only"]);
    let changed: BTreeSet<&str> = changed.lines().collect();
    let places = [
        ("Cargo.toml", 1),
        ("helper/Cargo.toml", 1),
        ("Cargo.lock", 2),
        ("fuzz/Cargo.lock", 2),
        ("vscode-extension/package.json", 1),
        ("vscode-extension/package-lock.json", 2),
    ];
    let changelogs = ["CHANGELOG.md", "vscode-extension/CHANGELOG.md"];
    let expected: BTreeSet<&str> = places.iter().map(|(file, _)| *file).chain(changelogs).collect();
    assert_eq!(changed, expected);
    for (file, count) in places {
        let lines = changed_lines(&tree, file);
        let (before, after): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.starts_with('-'));
        assert_eq!((before.len(), after.len()), (count, count), "{file}: {lines:?}");
        let replaced = before.iter().map(|line| line.replacen('-', "+", 1).replace(old, "9.10.11"));
        assert!(replaced.eq(after.iter().map(|line| line.as_str())), "{file}: {lines:?}");
    }
    for file in changelogs {
        let lines = changed_lines(&tree, file);
        assert_eq!(lines[0], "-## Unreleased");
        let date = lines[1].strip_prefix("+## 9.10.11 - ").unwrap();
        assert!(lines.len() == 2 && date.len() == 10 && date.split('-').count() == 3, "{file}: {lines:?}");
    }
    assert_eq!(tree.script("version", &["--notes"]).ok(), "- One thing.\n- Another.\n");

    // The lock files are what cargo would write, so that `--locked` holds.
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut pkgid = Command::new(cargo);
    pkgid.args(["pkgid", "--locked", "--offline", "--manifest-path"]).arg(tree.path("Cargo.toml"));
    assert!(Said::of(pkgid.output().unwrap()).ok().trim_end().ends_with("#labctl-ssh-proxy@9.10.11"));
}

#[test]
fn what_is_no_next_version_is_refused_and_nothing_is_changed() {
    let tree = committed();
    for (version, why) in [
        ("0.0.0", "is not greater"),
        (env!("CARGO_PKG_VERSION"), "is not greater"),
        ("1.2", "three numbers"),
        ("01.2.3", "three numbers"),
        ("v9.9.9", "three numbers"),
        ("9.9.9-rc.1", "three numbers"),
    ] {
        let err = tree.script("version", &[version]).failed(1);
        assert!(err.contains(why), "{version}: {err}");
    }
    assert!(tree.script("version", &["9.9.9", "9.9.9"]).failed(2).contains("9.9.9 9.9.9"));
    assert!(tree.script("version", &["--now"]).failed(2).contains("--now"));
    assert_eq!(tree.git(&["status", "--porcelain"]), "");

    for unreleased in ["# Changelog\n", "# Changelog\n\n## Unreleased\n\n## 0.0.1\n\n- Old.\n"] {
        tree.write("CHANGELOG.md", unreleased);
        tree.git(&["commit", "--quiet", "--all", "--message", "nothing"]);
        let err = tree.script("version", &["9.9.9"]).failed(1);
        assert!(err.contains("what users will notice"), "{err}");
        assert_eq!(tree.git(&["status", "--porcelain"]), "");
    }

    tree.write("fuzz/Cargo.lock", &tree.read("fuzz/Cargo.lock").replace(env!("CARGO_PKG_VERSION"), "0.0.7"));
    let err = tree.script::<&str>("version", &[]).failed(1);
    assert!(err.contains("the files differ") && err.contains("fuzz/Cargo.lock has 0.0.7"), "{err}");
}
