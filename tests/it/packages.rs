//! The archives of `scripts/package`, judged by tar, gzip, sha256sum, the shells and shellcheck. The scripts that build are
//! not run here: they take minutes.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{PROGRAM, Said};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn run(program: &str, args: &[&str]) -> Said {
    let output = Command::new(program).args(args).current_dir(root()).env("LC_ALL", "C").env("TZ", "UTC").output();
    Said::of(output.unwrap_or_else(|e| panic!("{program}: {e}")))
}

/// The tested program without its debug information, which would take most of the time.
fn stripped(folder: &Path) -> PathBuf {
    let path = folder.join("labctl-ssh-proxy");
    let _ = run("strip", &["-o", path.to_str().unwrap(), PROGRAM]).ok();
    path
}

#[test]
fn an_archive_has_all_that_is_promised_and_nothing_of_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let program = stripped(folder.path());
    let (out, program) = (folder.path().join("out"), program.to_str().unwrap());
    let archive = run("scripts/package", &[program, out.to_str().unwrap(), "x86_64-unknown-linux-musl"]).ok();
    let archive = archive.trim();
    assert!(archive.ends_with("/labctl-ssh-proxy-x86_64-unknown-linux-musl.tar.gz"), "{archive}");
    let mut check = Command::new("sha256sum");
    check.args(["-c", "--strict"]).arg(format!("{archive}.sha256")).current_dir(&out);
    let _ = Said::of(check.output().unwrap()).ok();

    let listed = run("tar", &["-tvzf", archive]).ok();
    let mut times = BTreeSet::new();
    let mut names = Vec::new();
    for line in listed.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [mode, owner, _, day, time, name] = words[..] else { panic!("{line}") };
        assert_eq!(owner, "0/0", "{line}");
        assert_eq!(mode, if name == "labctl-ssh-proxy" { "-rwxr-xr-x" } else { "-rw-r--r--" }, "{line}");
        times.insert((day, time));
        names.push(name);
    }
    assert_eq!(times.len(), 1, "{listed}");
    assert!(names.is_sorted(), "{listed}");
    names.retain(|name| !name.starts_with("man/man1/labctl-ssh-proxy-"));
    assert_eq!(
        names,
        [
            "CHANGELOG.md",
            "LICENSE",
            "README.md",
            "completions/_labctl-ssh-proxy",
            "completions/_labctl-ssh-proxy.ps1",
            "completions/labctl-ssh-proxy.bash",
            "completions/labctl-ssh-proxy.elv",
            "completions/labctl-ssh-proxy.fish",
            "labctl-ssh-proxy",
            "man/man1/labctl-ssh-proxy.1",
        ]
    );
    let formula = fs::read_to_string(root().join("packaging/homebrew.rb")).unwrap();
    let installed = formula.lines().filter_map(|line| line.split_once(".install ")?.1.split('"').nth(1));
    let mut count = 0;
    for path in installed {
        // It belongs to a build, and a program that is packed by itself has none.
        let is_there = path == "labctl-ssh-proxy-helper-aarch64.gz"
            || names.iter().any(|name| path.strip_suffix("*.1").map_or(*name == path, |start| name.starts_with(start)));
        assert!(is_there, "Homebrew's formula installs {path}");
        count += 1;
    }
    assert_eq!(count, 6, "{formula}");

    let content = folder.path().join("content");
    fs::create_dir(&content).unwrap();
    let _ = run("tar", &["-xzf", archive, "-C", content.to_str().unwrap()]).ok();
    for (shell, name) in
        [("bash", "labctl-ssh-proxy.bash"), ("zsh", "_labctl-ssh-proxy"), ("fish", "labctl-ssh-proxy.fish")]
    {
        let script = content.join("completions").join(name);
        let _ = run(shell, &["-n", script.to_str().unwrap()]).ok();
        let text = fs::read_to_string(&script).unwrap();
        assert!(text.contains("labctl-ssh-proxy") && !text.contains("/labctl-ssh-proxy"), "{text}");
    }
    let page = content.join("man/man1/labctl-ssh-proxy.1");
    assert_eq!(run("groff", &["-man", "-Tutf8", "-ww", "-z", page.to_str().unwrap()]).err, "");
}

#[test]
fn what_cannot_be_built_here_is_refused_with_the_machine_that_can() {
    for (args, words) in [
        (&["aarch64-pc-windows-msvc"][..], "cannot be built on this machine; build it on Windows for ARM"),
        (&["x86_64-unknown-linux-musl", "sparc-sun-solaris"], "there is no target sparc-sun-solaris"),
        (&["./no-program", "out"], "build it first"),
    ] {
        let said = run("scripts/package", args).failed(1);
        assert!(said.contains(words), "{said}");
    }
    if cfg!(target_os = "linux") {
        let said = run("scripts/package", &["aarch64-apple-darwin"]).failed(1);
        assert!(said.contains("build it on a Mac"), "{said}");
    }
    for script in ["package", "try-aarch64", "try-reproducible"] {
        let script = format!("scripts/{script}");
        assert!(run(&script, &["--fast"]).failed(2).contains("usage: "), "{script}");
        assert!(run(&script, &["--help"]).ok().starts_with("usage: "), "{script}");
    }
}

/// The licences whose texts are packed are those that may be used.
#[test]
fn the_licences_of_packages_are_those_of_the_lock_file() {
    let list = |file: &str, name: &str| -> BTreeSet<String> {
        let text = fs::read_to_string(root().join(file)).unwrap();
        let start = format!("{name} = [");
        let lines = text.lines().skip_while(|line| *line != start).skip(1).take_while(|line| *line != "]");
        lines.filter_map(|line| line.split('"').nth(1).map(str::to_owned)).collect()
    };
    let (accepted, allowed) = (list("packaging/about.toml", "accepted"), list("deny.toml", "allow"));
    assert!(!accepted.is_empty() && accepted.is_subset(&allowed), "{accepted:?}");
}

#[test]
fn shellcheck_finds_nothing_in_our_scripts() {
    let files =
        run("git", &["ls-files", "--cached", "--others", "--exclude-standard", "scripts", "packaging", "fuzz", ".ci"]);
    let scripts: Vec<String> = files
        .ok()
        .lines()
        .filter(|name| {
            let text = fs::read(root().join(name)).unwrap_or_default();
            [&b"#!/bin/sh\n"[..], b"#!/usr/bin/env bash\n"].iter().any(|first| text.starts_with(first))
        })
        .map(str::to_owned)
        .collect();
    assert!(scripts.len() > 8, "{scripts:?}");
    let names: Vec<&str> = scripts.iter().map(String::as_str).collect();
    let said = run("shellcheck", &[&["--severity=warning"], &names[..]].concat());
    assert!(said.status.success(), "{}{}", said.out, said.err);
}
