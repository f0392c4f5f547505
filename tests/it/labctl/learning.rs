//! Challenges, tutorials and courses, with labctl as the judge.

use std::fs;

use serde_json::Value;

use super::Labctl;
use crate::support::eventually;

/// The play that our `list` shows for this content, if there is one.
fn play(labctl: &Labctl, name: &str) -> Option<Value> {
    let plays = labctl.world.json(&["list", "--json"]);
    plays.as_array().unwrap().iter().find(|play| play["learning"]["name"] == name).cloned()
}

#[test]
#[ignore = "needs the real labctl in PATH: scripts/test runs it"]
fn labctl_solves_a_challenge_of_the_embedded_platform() {
    let labctl = Labctl::new(&[]);
    let catalog = |filters: &[&str]| labctl.run(&[&["challenge", "catalog"], filters].concat());
    assert!(catalog(&[]).contains("write-a-file") && catalog(&["--category", "security"]).contains("keep-the-egg"));
    assert!(!catalog(&["--category", "security"]).contains("write-a-file"));
    assert!(catalog(&["--status", "todo"]).contains("write-a-file"));
    assert_eq!(catalog(&["--status", "solved"]).trim(), "[]");

    let _ = labctl.run(&["challenge", "start", "write-a-file", "--no-open", "--no-ssh"]);
    assert_eq!(labctl.run(&["challenge", "list", "-q"]).trim(), "write-a-file");
    let id = play(&labctl, "write-a-file").unwrap()["id"].as_str().unwrap().to_owned();
    assert!(labctl.run(&["challenge", "list"]).contains("Write a File"));
    // It is idempotent: the same play goes on.
    let _ = labctl.run(&["challenge", "start", "write-a-file", "--no-open", "--no-ssh"]);
    assert_eq!(play(&labctl, "write-a-file").unwrap()["id"], id.as_str());
    labctl.refused(&["challenge", "wait", "write-a-file", "--timeout", "1s"], "hasn't been marked as solved");
    let tasks = || labctl.run(&["playground", "tasks", &id]);
    assert!(tasks().lines().any(|line| line.starts_with("verify_words") && line.contains("blocked")), "{}", tasks());

    fs::write(labctl.world.machine_home(&id, "shell-01").join("hello.txt"), "Hello!\n").unwrap();
    let _ = labctl.run(&["challenge", "wait", "write-a-file", "--timeout", "1m"]);
    assert_eq!(tasks().matches("completed").count(), 3, "{}", tasks());
    assert!(catalog(&["--status", "solved"]).contains("completed: 1"));
    let _ = labctl.run(&["challenge", "stop", "write-a-file"]);
    eventually("its play is gone", || play(&labctl, "write-a-file").is_none());
    assert!(labctl.said(&["challenge", "stop", "write-a-file"]).err.contains("nothing to stop"));

    // The author of this one is not the platform. labctl ends with success when nothing was consented to.
    let asked = labctl.said(&["challenge", "start", "keep-the-egg", "--no-open", "--no-ssh"]);
    assert!(asked.err.contains("THIRD-PARTY"), "{asked:?}");
    assert!(play(&labctl, "keep-the-egg").is_none());
    let consented = ["challenge", "start", "keep-the-egg", "--no-open", "--no-ssh", "--safety-disclaimer-consent"];
    let _ = labctl.run(&consented);
    let id = play(&labctl, "keep-the-egg").unwrap()["id"].as_str().unwrap().to_owned();
    fs::write(labctl.world.machine_home(&id, "shell-01").join("omelette"), "").unwrap();
    let waited = labctl.said(&["playground", "wait", &id]);
    assert!(waited.err.contains("tasks failed"), "{waited:?}");
}

#[test]
#[ignore = "needs the real labctl in PATH: scripts/test runs it"]
fn labctl_reads_a_tutorial_and_a_course_of_the_embedded_platform() {
    let labctl = Labctl::new(&[]);
    assert!(labctl.run(&["tutorial", "catalog"]).contains("two-machines"));
    let _ = labctl.run(&["tutorial", "start", "two-machines", "--no-open", "--no-ssh"]);
    assert_eq!(play(&labctl, "two-machines").unwrap()["learning"]["title"], "Two Machines at Once");
    let _ = labctl.run(&["tutorial", "complete", "two-machines"]);
    assert!(labctl.run(&["tutorial", "catalog", "--status", "completed"]).contains("two-machines"));
    let _ = labctl.run(&["tutorial", "stop", "two-machines"]);
    eventually("its play is gone", || play(&labctl, "two-machines").is_none());

    let lesson = |action: &str, lesson: &str| labctl.said(&["course", action, "shell-basics", lesson]);
    let start = ["course", "start", "shell-basics", "first-folder", "--no-open", "--no-ssh", "-q"];
    let id = labctl.run(&start).trim().to_owned();
    let ours = play(&labctl, "shell-basics/files/first-folder").unwrap();
    assert_eq!((ours["id"].as_str(), ours["learning"]["kind"].as_str()), (Some(id.as_str()), Some("lesson")));
    assert!(ours["learning"]["pageUrl"].as_str().unwrap().ends_with("/courses/shell-basics/files/first-folder"));
    assert!(lesson("start", "reading").err.contains("has no playground"));
    assert!(lesson("stop", "first-folder").status.success());
    assert!(play(&labctl, "shell-basics/files/first-folder").is_none(), "labctl waits for its end");
    assert!(lesson("stop", "first-folder").err.contains("not running"));
}

#[test]
#[ignore = "needs the real labctl in PATH: scripts/test runs it"]
fn either_client_ends_what_the_other_began() {
    let labctl = Labctl::new(&[]);
    let (world, name) = (&labctl.world, "write-a-file");
    let ours = |arguments: &[&str]| world.local(arguments).ok();
    let theirs = |action: &str| labctl.run(&["challenge", action, name]);
    let running = || labctl.run(&["challenge", "list", "-q"]);
    let id = || play(&labctl, name).unwrap()["id"].as_str().unwrap().to_owned();
    let solve = || {
        fs::write(world.machine_home(&id(), "shell-01").join("hello.txt"), "hello").unwrap();
    };

    // Ours begins, labctl finds the same attempt and ends it.
    let _ = ours(&["start", name, "--yes"]);
    assert_eq!(running().trim(), name);
    let begun = id();
    let _ = labctl.run(&["challenge", "start", name, "--no-open", "--no-ssh"]);
    assert_eq!(id(), begun);
    solve();
    assert_eq!(ours(&["wait", name, "--solved"]), "challenge write-a-file is solved\n");
    let _ = labctl.run(&["challenge", "wait", name, "--timeout", "1s"]);
    let _ = theirs("stop");
    eventually("its play is gone", || play(&labctl, name).is_none());

    // labctl begins, ours finds the same attempt and ends it.
    let _ = labctl.run(&["challenge", "start", name, "--no-open", "--no-ssh"]);
    let begun = id();
    assert_eq!(world.json(&["start", "https://localhost/challenges/write-a-file", "--json"])["id"], begun.as_str());
    let _ = ours(&["stop", name, "--yes"]);
    assert_eq!(running(), "");
    assert!(labctl.said(&["challenge", "stop", name]).err.contains("nothing to stop"));
    let tasks: Value = labctl.json(&["api", "/challenges/write-a-file"]);
    assert_eq!((tasks["attemptCount"].as_u64(), tasks["completionCount"].as_u64()), (Some(2), Some(1)));

    // The lists of content agree, filter by filter.
    for (kind, statuses) in [("challenge", ["todo", "solved"]), ("tutorial", ["todo", "completed"])] {
        for status in statuses {
            let catalog = labctl.run(&[kind, "catalog", "--status", status]);
            let plural = format!("--{kind}s");
            let ours = ours(&["catalog", &plural, "-q", "--status", status]);
            let theirs = catalog.lines().filter_map(|line| line.strip_prefix("- name: ")).collect::<Vec<_>>();
            let mut theirs: Vec<String> = theirs.into_iter().map(str::to_owned).collect();
            theirs.sort();
            assert_eq!(ours.lines().collect::<Vec<_>>(), theirs, "{kind} {status}");
        }
    }
}
