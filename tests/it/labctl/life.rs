//! A playground's time, its machines and their words, with labctl as the judge.

use super::{Labctl, seconds};
use crate::support::{Ending, eventually};

#[test]
#[ignore = "needs the real labctl in PATH: scripts/test runs it"]
fn both_show_and_set_the_same_lifetime() {
    let labctl = Labctl::new(&[]);
    let world = &labctl.world;
    let id = labctl.start(&["shell"]);
    labctl.is_no_longer_whole();
    let theirs = || labctl.run(&["playground", "lifetime", &id]);
    let ours = || world.json(&["lifetime", &id, "--json"]);
    for (set_by_us, time, whole) in [
        (true, "3h", "3h0m0s"),
        (false, "90m", "1h30m0s"),
        (true, "1h30m", "1h30m0s"),
        (false, "2h30m", "2h30m0s"),
        (true, "100", "1h40m0s"),
    ] {
        let _ = match set_by_us {
            true => world.local(&["lifetime", &id, time]).ok(),
            false => labctl.run(&["playground", "lifetime", &id, time]),
        };
        let (theirs, ours) = (theirs(), ours());
        let (shown, left) = theirs.split_once(" (expires in ").unwrap();
        assert_eq!(shown, whole);
        assert_eq!(ours["lifetime"], seconds(whole), "{time}");
        let left = seconds(left.trim_end().trim_end_matches(')'));
        let difference = left - ours["expiresIn"].as_i64().unwrap();
        assert!((0..=20).contains(&difference), "{theirs} {ours}");
    }
    // labctl cuts a time to whole minutes. Ours refuses it, because it would set another time than was asked for.
    let _ = world.local(&["lifetime", &id, "90s", "--yes"]).failed(2);
    labctl.refused(&["playground", "lifetime", &id, "0m"], "at least 1 minute");
    let _ = world.local(&["lifetime", &id, "0", "--yes"]).failed(2);
}

#[test]
#[ignore = "needs the real labctl in PATH: scripts/test runs it"]
fn a_machine_of_one_clients_is_the_same_machine_of_the_other() {
    let labctl = Labctl::new(&[]);
    let world = &labctl.world;
    let id = labctl.start(&["duo"]);
    let machine = || {
        let play = labctl.json(&["api", &format!("/plays/{id}")]);
        let machines = play["status"]["machines"].as_array().unwrap().clone();
        machines.into_iter().find(|machine| machine["name"] == "node-02").unwrap()
    };
    let is = |state: &str| machine()["state"] == state;
    let is_ready = || is("RUNNING") && machine()["conditions"][0]["status"] == "True";
    let theirs = |action: &str| labctl.said(&["playground", "machine", action, &id, "node-02"]);
    let ours = |action: &str| world.local(&["machine", action, &id, "node-02"]);
    // labctl shows the effect of ours at once, because ours has waited for it.
    for action in ["reboot", "restart"] {
        let before = machine()["conditions"][0]["lastTransitionAt"].clone();
        let _ = ours(action).ok();
        assert!(is_ready() && machine()["conditions"][0]["lastTransitionAt"] != before, "{action}: {}", machine());
    }
    let _ = ours("stop").ok();
    assert!(is("STOPPED"));
    assert!(theirs("reboot").err.contains("409") && ours("reboot").code() == 7);
    assert!(theirs("stop").err.contains("409"));
    let _ = ours("stop").ok();
    let _ = theirs("restart").ok();
    eventually("it is ready", is_ready);
    let _ = theirs("reboot").ok();
    eventually("it is ready", is_ready);
    let _ = theirs("stop").ok();
    eventually("it is stopped", || is("STOPPED"));
    let _ = ours("restart").ok();
    assert!(is_ready());
    labctl.refused(&["playground", "machine", "reboot", &id, "node-03"], "not found");
    let _ = world.local(&["machine", "reboot", &id, "node-03"]).failed(4);
}

#[test]
#[ignore = "needs the real labctl in PATH: scripts/test runs it"]
fn both_print_the_same_consoles_and_journals() {
    let labctl = Labctl::new(&[]);
    let world = &labctl.world;
    let id = labctl.start(&["shell"]);
    let _ = labctl.run(&["playground", "machine", "reboot", &id, "shell-01"]);
    let ours = |args: &[&str]| world.local(&[&["machine"], args].concat()).ok();
    eventually("it has booted again", || ours(&["console", &id]).contains("its SSH server answers"));
    // labctl prints all of them, each below its name.
    let names = ours(&["console", &id, "--list"]);
    let all = names.lines().map(|boot| format!("===== {boot} =====\n{}", ours(&["console", &id, "--boot", boot])));
    let theirs = labctl.run(&["playground", "machine", "console", &id, "shell-01"]);
    assert_eq!(all.collect::<Vec<_>>().join("\n"), theirs);
    // Its journal has no end before the playground's, and ours is that of --follow.
    let follow = |mut command: std::process::Command, to: &str| {
        let file = std::fs::File::create(world.path(to)).unwrap();
        Ending(command.stdout(file).stderr(std::process::Stdio::null()).spawn().unwrap())
    };
    let mut theirs =
        follow(labctl.command(&["playground", "machine", "journal", &id, "shell-01", "--lines", "5"]), "theirs");
    let mut ours = follow(world.command(&["--local", "machine", "journal", &id, "-f", "-n", "5"]), "ours");
    let read = |name: &str| std::fs::read_to_string(world.path(name)).unwrap();
    for name in ["theirs", "ours"] {
        eventually("past lines", || read(name).lines().count() >= 5);
    }
    let _ = world.local(&["stop", &id]).ok();
    assert!(theirs.0.wait().unwrap().success() && ours.0.wait().unwrap().success());
    assert_eq!(read("ours"), read("theirs"));
}

#[test]
#[ignore = "needs the real labctl in PATH: scripts/test runs it"]
fn both_list_the_same_ids_and_choose_the_same_region() {
    let labctl = Labctl::new(&[]);
    let world = &labctl.world;
    let ids: Vec<String> = ["shell", "duo", "shell"].iter().map(|name| labctl.start(&[name])).collect();
    let _ = world.local(&["stop", &ids[1]]).ok();
    let _ = world.local(&["destroy", "--yes", &ids[2]]).ok();
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    for options in [
        &[][..],
        &["--all"],
        &["-a", "-f", "playground=shell"],
        &["--filter", "playground=duo"],
        &["-f", "challenge=none"],
        &["-f", "COURSE="],
    ] {
        let theirs = labctl.run(&[&["playground", "list", "--quiet"], options].concat());
        let ours = world.local(&[&["list", "--quiet"], options].concat()).ok();
        assert_eq!(sorted(ours), sorted(theirs), "{options:?}");
    }
    for wrong in ["shell", "lesson=x"] {
        assert!(!labctl.said(&["playground", "list", "-f", wrong]).status.success());
        let _ = world.local(&["list", "-f", wrong]).failed(2);
    }
    for (by_us, region) in [(true, "ap"), (false, "eu")] {
        let _ = match by_us {
            true => world.local(&["region", region]).ok(),
            false => labctl.run(&["playground", "region", region]),
        };
        assert_eq!(world.local(&["region"]).ok(), labctl.run(&["playground", "region"]));
        assert_eq!(world.local(&["region"]).ok(), format!("{region}\n"));
    }
    labctl.refused(&["playground", "region", "moon"], "eu");
}
