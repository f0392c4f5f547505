//! A relay through the whole program: machines that can have none are reached as before and are not asked again at once
//! (row 16), and none outlives its machine.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;

use super::client::frame;
use crate::support::{
    distant::{Distant, is_alive, send},
    eventually,
};

#[test]
fn a_machine_that_can_have_no_relay_is_reached_directly() {
    let distant = Distant::new(&[]);
    let home = distant.world.machine_home(&distant.id, "shell-01");
    let relays = distant.world.root().join("relays");
    let record = || -> Value {
        let path = fs::read_dir(&relays).ok().and_then(|mut files| files.next()?.ok()).map(|file| file.path());
        path.and_then(|path| serde_json::from_slice(&fs::read(path).ok()?).ok()).unwrap_or_default()
    };
    // The start has placed one.
    for pid in distant.relay_processes() {
        send(pid, Signal::TERM);
    }
    eventually("the relay has ended", || distant.relay_processes().is_empty());
    for kept in [&relays, &home.join(".cache")] {
        let _ = fs::remove_dir_all(kept);
    }
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
    let before = distant.relay_processes();
    assert_eq!(before.len(), 1);
    let _ = distant.world.run(&["restart", &distant.id]).ok();
    assert!(!before.iter().any(|pid| is_alive(*pid)), "a restart ends it");
    drop(session);
    distant.place();
    distant.world.kill_platform();
    assert_eq!(distant.relay_processes().len(), 1);
    let _ = distant.world.run(&["local", "stop"]).ok();
    eventually("what a killed platform has left is ended", || distant.relay_processes().is_empty());
}

/// Row 17: another user takes the port of a relay that was killed, and acts as a relay and a server.
#[test]
fn a_squatter_of_a_dead_relays_port_gains_nothing() {
    let distant = Distant::with_relay();
    let known_hosts = || fs::read_to_string(distant.world.root().join("known_hosts")).unwrap();
    let before = known_hosts();
    let folder = distant.world.root().join("relays");
    let path = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for pid in distant.relay_processes() {
        send(pid, Signal::KILL);
    }
    eventually("the relay is gone", || distant.relay_processes().is_empty());
    // The port itself is not free at once, because of connections that have ended.
    let squatter = TcpListener::bind("127.0.0.1:0").unwrap();
    record["relay"]["new"] = squatter.local_addr().unwrap().port().into();
    fs::write(path, record.to_string()).unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    thread::spawn(move || {
        for mut client in squatter.incoming().flatten() {
            let hello = [&b"LHR1\x01\x00\x00\x40"[..], &[1; 32], &0x0040_0000_u32.to_be_bytes()].concat();
            let _ = client.write_all(&[hello, frame(0, b"SSH-2.0-OpenSSH_9.9\r\n")].concat());
            let _ = client.set_read_timeout(Some(Duration::from_millis(500)));
            let mut said = Vec::new();
            let _ = client.read_to_end(&mut said);
            let _ = client.write_all(&[frame(6, &[2; 16]), frame(0, &[0; 600])].concat());
            let _ = client.read_to_end(&mut said);
            hears.lock().unwrap().push(said);
        }
    });
    // The first one may have begun with the impostor; it ends with a reason. The next one is let in.
    let mut ssh = distant.world.ssh_program("ssh");
    let first = distant.world.output(ssh.args([&distant.host, "echo in"]));
    assert!(first.out == "in\n" || first.code() == 255 && first.err.contains("relay"), "{first:?}");
    assert!(!first.err.contains("IDENTIFICATION"), "{first:?}");
    assert_eq!(distant.ssh("echo in", b""), b"in\n");
    assert_eq!(known_hosts(), before);
    // It has heard a hello and the words that any server hears, and no secret.
    let key = record["relay"]["key"].as_str().unwrap();
    let raw: Vec<u8> = (0..32).map(|i| u8::from_str_radix(&key[2 * i..2 * i + 2], 16).unwrap()).collect();
    for said in heard.lock().unwrap().iter() {
        assert!(!said.windows(32).any(|window| window == raw) && said.len() < 16 * 1024, "{} bytes", said.len());
    }
    assert_eq!(heard.lock().unwrap().len(), 1, "the dead relay is forgotten");
}
