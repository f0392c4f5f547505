//! Ports: what labctl exposes, scans and saves is what ours lists, and the other way round.

use std::{collections::BTreeSet, fs, process::Stdio};

use serde_json::{Value, json};

use super::{Labctl, eventually};
use crate::support::free_port;

/// A row of labctl's `expose list`: id, target, address, access, and the two rewrites.
fn rows(labctl: &Labctl, id: &str) -> Vec<Vec<String>> {
    let table = labctl.run(&["expose", "list", id]);
    table.lines().skip(1).map(|row| row.split_whitespace().map(str::to_owned).collect()).collect()
}

fn port(labctl: &Labctl, id: &str, number: u64) -> Value {
    let survey = labctl.world.json(&["ports", id, "--json"]);
    survey["ports"].as_array().unwrap().iter().find(|port| port["number"] == number).cloned().unwrap_or_default()
}

#[test]
#[ignore = "needs the real labctl in PATH: scripts/test runs it"]
fn labctl_exposes_what_ours_lists_and_hides() {
    let labctl = Labctl::new(&[]);
    let (world, id) = (&labctl.world, labctl.start(&["duo"]));
    // labctl exposes, ours lists, finds it again, and hides it.
    let url = labctl.run(&["expose", "port", &id, "8080", "--host-rewrite", "a.example.org"]);
    let exposed = port(&labctl, &id, 8080)["exposed"][0].clone();
    assert_eq!((&exposed["url"], &exposed["access"]), (&json!(url.trim()), &json!("private")));
    let again = world.local(&["expose", &id, "8080", "--host-rewrite", "a.example.org"]).ok();
    assert!(again.contains("already") && again.trim_end().ends_with(url.trim()), "{again}");
    assert_eq!(rows(&labctl, &id).len(), 1);
    let _ = world.local(&["unexpose", &id, url.trim()]).ok();
    assert!(rows(&labctl, &id).is_empty());

    // Ours exposes, labctl lists all of its options, and removes it.
    let options = ["--machine", "node-02", "--tls", "--public", "--yes", "--host-rewrite", "b.example.org"];
    let line = [&["expose", &id, "9090", "--path-rewrite", "/app", "--json"], &options[..]].concat();
    let exposed = world.json(&line);
    let text = |member: &str| exposed[member].as_str().unwrap().to_owned();
    let row = [&text("id"), "https://node-02:9090", &text("url"), "public", "b.example.org", "/app"];
    assert_eq!(rows(&labctl, &id), [row]);
    // labctl exposes the same once more; then a number alone is no name.
    let theirs = ["-m", "node-02", "-s", "-p", "--host-rewrite", "b.example.org", "--path-rewrite", "/app"];
    let second = labctl.run(&[&["expose", "port", &id, "9090"], &theirs[..]].concat());
    assert_eq!((second.trim(), rows(&labctl, &id).len()), (text("url").as_str(), 2));
    let _ = world.local(&["unexpose", &id, "9090"]).failed(5);
    let _ = labctl.run(&["expose", "remove", &id, &text("id")]);
    let _ = world.local(&["unexpose", &id, "9090"]).ok();
    assert!(rows(&labctl, &id).is_empty());

    // Both are refused alike.
    let words = "no web terminals: use ssh instead";
    labctl.refused(&["expose", "shell", &id], words);
    assert!(world.local(&["expose", &id, "--shell"]).failed(6).contains(words));
    labctl.refused(&["expose", "remove", &id, "unknown"], "unknown");
    assert!(world.local(&["unexpose", &id, "unknown"]).failed(4).contains("unknown"));
    labctl.refused(&["expose", "port", &id, "80", "--machine", "node-09"], "node-09");
    assert!(world.local(&["expose", &id, "80", "--machine", "node-09"]).failed(4).contains("node-09"));
}

#[test]
#[ignore = "needs the real labctl in PATH: scripts/test runs it"]
fn labctl_scans_and_saves_what_ours_lists() {
    let labctl = Labctl::new(&["--init-task", "web=exec python3 -u -m http.server --bind 127.0.0.1 0 >web"]);
    let id = labctl.start(&["shell", "--skip-wait-init"]);
    let web = labctl.world.machine_home(&id, "shell-01").join("web");
    eventually("a server", || fs::read_to_string(&web).unwrap_or_default().contains("port "));
    let theirs: BTreeSet<(String, u64, String)> = labctl
        .run(&["expose", "scan", &id])
        .lines()
        .skip(1)
        .map(|row| row.split_whitespace().collect::<Vec<_>>())
        .map(|row| (row[0].to_owned(), row[1].parse().unwrap(), row[2].to_lowercase()))
        .collect();
    let survey = labctl.world.json(&["ports", &id, "--json"]);
    let text = |port: &Value, member: &str| port[member].as_str().unwrap_or_default().to_owned();
    let all = survey["ports"].as_array().unwrap().iter();
    let ours: BTreeSet<(String, u64, String)> = all
        .map(|port| (text(port, "machine"), port["number"].as_u64().unwrap(), text(port, "protocol")))
        .filter(|(.., protocol)| protocol.starts_with("http"))
        .collect();
    assert!(!ours.is_empty());
    assert_eq!(ours, theirs);
    // Ours lists as exposed exactly the ports that labctl exposes after a scan.
    let number = ours.first().unwrap().1;
    let url = labctl.run(&["expose", "port", &id, "--scanned"]);
    let row = port(&labctl, &id, number);
    assert_eq!((&row["exposed"][0]["url"], &row["loopbackOnly"]), (&json!(url.trim()), &json!(true)));
    // The record that labctl's port-forward saves.
    let local = format!("127.0.0.1:{}", free_port());
    let mut forward = labctl.command(&["port-forward", &id, "-L", &format!("{local}:{number}")]);
    let _forward = super::Ending(forward.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    eventually("it is saved", || port(&labctl, &id, number)["saved"][0]["local"] == local);
}
