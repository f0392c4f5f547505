//! Starts with choices and manifests, and playgrounds of one's own.

use std::{
    collections::BTreeSet,
    fs,
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use super::Labctl;
use crate::support::{Ending, eventually, free_port};

/// A manifest in the form of today, and one machine in the old form, where `kernel` is a string.
const MANIFEST: &str = "\
kind: playground
name: mine
base: duo
title: My own
playground:
  networks:
  - name: lan
    subnet: 172.16.0.0/24
  machines:
  - name: web-01
    kernel: old-kernel
    drives:
    - source: oci://example
      size: 30GiB
  - name: judge
    noSSH: true
  tabs:
  - kind: terminal
    name: web
    machine: web-01
  initTasks:
    hello:
      init: true
      machine: web-01
      user: root
      run: touch hello
    large:
      init: true
      machine: web-01
      user: root
      run: touch large
      conditions:
      - key: Size
        value: large
  initConditions:
    values:
    - key: Size
      default: small
      options: [small, large]
  accessControl:
    canStart: [owner]
";

#[test]
#[ignore = "needs the real labctl in PATH: scripts/test runs it"]
fn labctl_chooses_at_the_start() {
    let labctl = Labctl::new(&[]);
    let id = labctl.start(&["choices", "-i", "Container runtime=docker", "-i", "Team=blue"]);
    let tasks = labctl.run(&["playground", "tasks", &id]);
    assert!(tasks.contains("docker") && !tasks.contains("containerd"), "{tasks}");
    let runtime = labctl.world.machine_home(&id, "work-01").join("runtime");
    assert_eq!(fs::read_to_string(runtime).unwrap(), "docker\n");
    let start = ["playground", "start", "choices"];
    for (choices, words) in [
        (&[][..], "needs a value for init condition \"Team\""),
        (&["-i", "Team=B"], "it must match"),
        (&["-i", "Team=blue", "-i", "runtime=x"], "no init condition \"runtime\""),
    ] {
        labctl.refused(&[&start[..], choices].concat(), words);
    }
}

#[test]
#[ignore = "needs the real labctl in PATH: scripts/test runs it"]
fn labctl_starts_by_a_manifest() {
    let labctl = Labctl::new(&[]);
    let file = labctl.world.path("manifest.yaml");
    fs::write(&file, MANIFEST.replace("      conditions:\n      - key: Size\n        value: large\n", "")).unwrap();
    let id = labctl.start(&["shell", "-f", file.to_str().unwrap()]);
    let status: Value = labctl.json(&["api", &format!("/plays/{id}")]);
    let names: Vec<&str> =
        status["machines"].as_array().unwrap().iter().map(|machine| machine["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["web-01", "judge"]);
    assert_eq!(status["playground"]["tabs"][0]["name"], "web");
    assert_eq!(status["playground"]["networks"][0]["subnet"], "172.16.0.0/24");
    assert!(labctl.world.machine_home(&id, "web-01").join("large").exists());
    assert_eq!(labctl.start(&["duo", "--backend", "cloud-hypervisor"]).len(), 24);
}

#[test]
#[ignore = "needs the real labctl in PATH: scripts/test runs it"]
fn labctl_makes_changes_and_removes_a_playground() {
    let labctl = Labctl::new(&[]);
    let file = labctl.world.path("manifest.yaml");
    fs::write(&file, MANIFEST).unwrap();
    let file = file.to_str().unwrap();
    let create = ["playground", "create", "--quiet", "mine", "--base", "duo", "--file", file];
    let name = labctl.run(&create).trim().to_owned();
    assert!(name.starts_with("mine-") && name.len() == 13, "{name}");
    let own = || labctl.run(&["playground", "catalog", "--quiet", "--filter", "my-custom"]);
    assert_eq!(own().trim(), name);
    assert!(!labctl.run(&["playground", "catalog", "--quiet"]).contains(&name));
    let manifest = labctl.run(&["playground", "manifest", &name]);
    for part in ["title: My own", "base: duo", "source: old-kernel", "size: 30GiB", "noSSH: true", "key: Size"] {
        assert!(manifest.contains(part), "{part}: {manifest}");
    }
    // One's own needs no consent.
    let id = labctl.start(&[&name, "-i", "Size=large"]);
    let home = labctl.world.machine_home(&id, "web-01");
    assert!(home.join("hello").exists() && home.join("large").exists());

    let other = labctl.world.path("other.yaml");
    fs::write(&other, manifest.replace("title: My own", "title: Another")).unwrap();
    let _ = labctl.run(&["playground", "update", &name, "--file", other.to_str().unwrap()]);
    assert!(labctl.run(&["playground", "manifest", &name]).contains("title: Another"));
    // A manifest that labctl has printed makes a copy.
    let copy = labctl.run(&["playground", "create", "--quiet", "copy", "--base", "duo"]).trim().to_owned();
    assert!(labctl.run(&["playground", "manifest", &copy]).contains("node-02"));
    for name in [&name, &copy] {
        let _ = labctl.run(&["playground", "remove", "--force", name]);
    }
    assert_eq!(own().trim(), "");
    labctl.refused(&["playground", "manifest", &name], "not found");
    labctl.refused(&["playground", "remove", "--force", "shell"], "not yours");
}

/// The parts of a play that its start decides.
fn made(labctl: &Labctl, id: &str) -> Value {
    let play = labctl.world.play(id);
    let machines: Vec<Value> = play["machines"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    let tasks: Vec<&String> = play["tasks"].as_object().unwrap().keys().collect();
    let entry = &play["playground"];
    json!({ "choices": play["initConditions"], "machines": machines, "tasks": tasks, "playground": entry["name"],
            "tabs": entry["tabs"], "networks": entry["networks"] })
}

#[test]
#[ignore = "needs the real labctl in PATH: scripts/test runs it"]
fn ours_starts_what_labctl_starts() {
    let labctl = Labctl::new(&[]);
    let file = labctl.world.path("manifest.yaml");
    fs::write(&file, MANIFEST.replace("      conditions:\n      - key: Size\n        value: large\n", "")).unwrap();
    let file = file.to_str().unwrap();
    let conditional = labctl.world.path("conditional.yaml");
    fs::write(&conditional, MANIFEST).unwrap();
    let create = ["playground", "create", "--quiet", "mine", "--base", "duo", "-f", conditional.to_str().unwrap()];
    let own = labctl.run(&create).trim().to_owned();
    for line in [
        &["choices", "-i", "Container runtime=CRI-O", "-i", "Team=blue"][..],
        &["choices", "-i", "Team=blue", "-i", "Note=a line, with a comma"],
        &["shell", "-f", file],
        &[&own],
        &[&own, "-i", "Size=large"],
    ] {
        let theirs = labctl.start(line);
        let play = labctl.world.json(&[&["start", "--json"], line].concat());
        let ours = play["id"].as_str().unwrap();
        assert_eq!(made(&labctl, ours), made(&labctl, &theirs), "{line:?}");
    }
    for filter in ["my-custom", "recent", "popular", "community", "base"] {
        let theirs = labctl.run(&["playground", "catalog", "--quiet", "--filter", filter]);
        let ours = labctl.world.local(&["catalog", "--quiet", "--filter", filter]).ok();
        let sorted = |names: &str| names.lines().map(str::to_owned).collect::<BTreeSet<_>>();
        assert_eq!(sorted(&ours), sorted(&theirs), "{filter}");
    }
}

#[test]
#[ignore = "needs the real labctl in PATH: scripts/test runs it"]
fn ours_carries_the_forwards_that_labctl_saves() {
    let labctl = Labctl::new(&[]);
    let id = labctl.start(&["shell"]);
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = free_port();
    let spec = format!("{free}:localhost:{}", server.local_addr().unwrap().port());
    let reaches = |mut command: Command| {
        let running = Ending(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        eventually("the forward listens", || TcpStream::connect(("127.0.0.1", free)).is_ok());
        let _ = server.accept().unwrap();
        drop(running);
        eventually("it is closed", || TcpStream::connect(("127.0.0.1", free)).is_err());
    };
    // labctl saves each that it forwards.
    reaches(labctl.command(&["port-forward", &id, "-L", &spec]));
    let stop = || {
        let _ = labctl.run(&["playground", "stop", &id]);
    };
    stop();
    reaches(labctl.command(&["playground", "restart", &id, "--with-port-forwards"]));
    stop();
    reaches(labctl.world.command(&["--local", "restart", &id, "--with-port-forwards"]));
}
