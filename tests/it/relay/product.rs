//! A relay through the whole program: machines that can have none are reached as before and are not asked again at once
//! (row 16), and none outlives its machine.

use std::fs;

use serde_json::Value;

use crate::support::{distant::Distant, eventually};

#[test]
fn a_machine_that_can_have_no_relay_is_reached_directly() {
    let distant = Distant::new(&[]);
    let home = distant.world.machine_home(&distant.id, "shell-01");
    let relays = distant.world.root().join("relays");
    let record = || -> Value {
        let path = fs::read_dir(&relays).ok().and_then(|mut files| files.next()?.ok()).map(|file| file.path());
        path.and_then(|path| serde_json::from_slice(&fs::read(path).ok()?).ok()).unwrap_or_default()
    };
    let sessions = || distant.statuses().iter().filter(|status| status["phase"] == "connected").count();
    for (name, text, words) in [
        (".bashrc", "PATH=/nonexistent\n", "it has no python3 that runs"),
        (".bashrc", "exit 0\n", "its login shell does not run our command"),
        (".cache", "", "cannot write"),
    ] {
        fs::write(home.join(name), text).unwrap();
        let first = distant.background(&["-N", &distant.host]);
        eventually(words, || record()["refused"].as_str().is_some_and(|why| why.contains(words)));
        eventually("the session is there", || sessions() == 1);
        let before = record();
        let second = distant.background(&["-N", &distant.host]);
        eventually("another session is there", || sessions() == 2);
        assert!(distant.statuses().iter().all(|status| status["held"] != true), "{words}");
        assert_eq!(record(), before, "it is not asked again: {words}");
        drop((first, second));
        eventually("the sessions have ended", || sessions() == 0);
        fs::remove_file(home.join(name)).unwrap();
        fs::remove_dir_all(&relays).unwrap();
    }
    // A shell that prints is no hindrance.
    fs::write(home.join(".bashrc"), "echo Welcome; echo noise >&2\n").unwrap();
    let _session = distant.background(&["-N", &distant.host]);
    eventually("the relay runs", || record()["relay"].is_object());
    eventually("the session is held", || distant.statuses().iter().any(|status| status["held"] == true));
}

#[test]
fn no_relay_outlives_its_machine() {
    let mut distant = Distant::with_relay();
    let session = distant.background(&["-N", &distant.host]);
    eventually("the session is held", || distant.statuses().iter().any(|status| status["held"] == true));
    assert_eq!(distant.relay_processes().len(), 1);
    let _ = distant.world.run(&["restart", &distant.id]).ok();
    assert_eq!(distant.relay_processes(), [0; 0], "a restart ends it");
    let kept = fs::read_dir(distant.world.root().join("relays")).unwrap().count();
    assert_eq!(kept, 0, "and forgets it");
    drop(session);
    distant.place();
    distant.world.kill_platform();
    assert_eq!(distant.relay_processes().len(), 1);
    let _ = distant.world.run(&["local", "stop"]).ok();
    eventually("what a killed platform has left is ended", || distant.relay_processes().is_empty());
}
