//! A playground that is kept while it is used. The judge is the platform: what it says of the end.

use std::{
    io::{BufRead, BufReader, Write},
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{Ending, World, eventually, schema, within};

/// A platform with so many playgrounds that end 9 minutes after their start, which is within the 12 minutes in which more
/// time is asked for.
fn world(settings: &str, playgrounds: usize) -> (World, Vec<String>) {
    let mut world = World::with_platform(&[]);
    let ids: Vec<String> = (0..playgrounds).map(|_| world.playground("shell")).collect();
    for id in &ids {
        world.local(&["lifetime", id, "9m", "--yes"]).ok();
    }
    world.settings(settings);
    (world, ids)
}

/// The play in the list.
fn listed(world: &World, id: &str) -> Value {
    let list = world.json(&["list", "--json"]);
    schema::check("list", &list);
    list.as_array().unwrap().iter().find(|play| play["id"] == id).unwrap().clone()
}

fn minutes_left(world: &World, id: &str) -> u64 {
    listed(world, id)["expiresIn"].as_u64().unwrap() / 60
}

/// Checks that its end was not moved.
#[track_caller]
fn ends_as_before(world: &World, id: &str) {
    let play = listed(world, id);
    assert!(play["expiresIn"].as_u64().unwrap() <= 9 * 60 && play.get("kept").is_none(), "{play}");
}

/// Checks that its end was moved by one step.
#[track_caller]
fn was_extended_once(world: &World, id: &str) {
    let play = listed(world, id);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let (end, first) = (now + play["expiresIn"].as_u64().unwrap() * 1000, play["kept"]["firstEnd"].as_u64().unwrap());
    assert!(play["kept"]["steps"] == 1 && (end - first).abs_diff(30 * 60_000) < 2 * 60_000, "{play}");
}

/// A session that moves so many bytes, and then none but those that keep it alive.
fn session(world: &World, id: &str, bytes: usize) -> Ending {
    let mut ssh = world.ssh_program("ssh");
    ssh.args(["-o", "ServerAliveInterval=1", &format!("playground-{id}"), "cat > /dev/null"]);
    let mut ssh = Ending(ssh.stdin(Stdio::piped()).spawn().unwrap());
    ssh.0.stdin.as_mut().unwrap().write_all(&vec![7; bytes]).unwrap();
    ssh
}

/// Waits until a process that uses the playground has said so in the log.
fn said(world: &World, id: &str, words: &str) {
    within(Duration::from_secs(60), words, &mut || world.local(&["logs", id]).ok().contains(words));
}

/// The bytes that the only connection to the playground has moved.
fn moved(world: &World, id: &str) -> f64 {
    let connection = listed(world, id)["connections"][0].clone();
    ["sent", "received"].map(|name| connection[name].as_f64().unwrap()).iter().sum()
}

#[test]
fn use_extends_and_idleness_does_not() {
    let (world, ids) = world("keep: while-connected\nkeep_limit: 3000\nlog_level: debug\n", 3);
    let [used, idle, off] = &ids[..] else { unreachable!() };
    for id in [used, off] {
        world.local(&["keep", "off", id]).ok();
    }
    // Three that use it, of which one asks.
    let _sessions =
        [session(&world, used, 100 << 10), session(&world, used, 200 << 10), session(&world, off, 100 << 10)];
    let _idle = session(&world, idle, 1000);
    eventually("both know the end", || {
        let connections = listed(&world, used)["connections"].clone();
        connections.as_array().unwrap().iter().filter(|one| one["expiresAt"].is_u64()).count() == 2
    });
    world.local(&["keep", "on", used]).ok();
    eventually("more time is asked for", || minutes_left(&world, used) > 30);
    was_extended_once(&world, used);
    let table = world.local(&["list"]).ok();
    assert_eq!(table.matches("m kept").count(), 1, "{table}");
    said(&world, used, " by now");
    said(&world, off, "and is used, but gets no more time");
    said(&world, idle, "this is no use of it");
    ends_as_before(&world, idle);
    ends_as_before(&world, off);
    assert_eq!(world.local(&["logs", used]).ok().matches(" is used, so it runs until ").count(), 1);

    // The last word for one playground counts, and to shorten its time is one.
    world.local(&["keep", "on", off]).ok();
    eventually("a word for one playground is heeded", || minutes_left(&world, off) > 30);
    let shortened = world.local(&["lifetime", used, "9m", "--yes"]).ok();
    let hint = format!("`labctl-ssh-proxy --local keep on {used}` turns that on again");
    assert!(shortened.contains(&hint), "{shortened}");
    let refusals = || world.local(&["logs", used]).ok().matches("and is used, but gets no more time").count();
    let before = refusals();
    let _session = session(&world, used, 100 << 10);
    within(Duration::from_secs(60), "it is no longer kept", &mut || refusals() > before);
    ends_as_before(&world, used);

    // All night, a keepalive of ssh each 15 s, and one of an editor each 5 s, stay below what counts as use in 15 minutes.
    let (before, began) = (moved(&world, idle), Instant::now());
    within(Duration::from_secs(60), "keepalives pass", &mut || moved(&world, idle) > before);
    let each_second = (moved(&world, idle) - before) / began.elapsed().as_secs_f64().max(5.0);
    assert!(each_second * 900.0 * (1.0 / 15.0 + 1.0 / 5.0) < 65536.0 / 2.0, "{each_second}");
}

/// A step that cannot be counted against the limit is not asked for.
#[test]
fn nothing_is_extended_without_a_record() {
    let (world, ids) = world("keep: while-connected\n", 1);
    let host = format!("playground-{}", ids[0]);
    let mut ssh = world.ssh_program("ssh");
    let connect = format!("sh -c 'ulimit -f 0; exec {} --local -v connect {host}'", crate::support::PROGRAM);
    ssh.args(["-o", &format!("ProxyCommand={connect}"), &host, "cat > /dev/null"]);
    let mut ssh = Ending(ssh.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    ssh.0.stdin.as_mut().unwrap().write_all(&[7; 100 << 10]).unwrap();
    let lines = BufReader::new(ssh.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let words = format!("the time of playground {} was not extended: ", ids[0]);
    assert!({ lines }.any(|line| line.contains(&words)));
    ends_as_before(&world, &ids[0]);
}

#[test]
fn a_command_counts_as_use_for_as_long_as_it_runs() {
    let (world, ids) = world("log_level: debug\n", 2);
    let [kept, other] = &ids[..] else { unreachable!() };
    let run = |id: &str, keep: &[&str]| {
        let mut command = world.command(&[&["--local", "ssh"], keep, &[id, "--", "sleep 600"]].concat());
        Ending(command.env("PATH", "/usr/bin:/bin").stdin(Stdio::piped()).spawn().unwrap())
    };
    let (_kept, _other) = (run(kept, &["--keep"]), run(other, &[]));
    within(Duration::from_secs(60), "more time is asked for", &mut || minutes_left(&world, kept) > 10);
    said(&world, other, "this is no use of it");
    was_extended_once(&world, kept);
    ends_as_before(&world, other);
}

#[test]
fn a_forward_that_moves_data_is_use() {
    let (world, ids) = world("playgrounds: {shell: {keep: while-connected}}\n", 1);
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let mut forward =
        world.command(&["--local", "port-forward", &ids[0], "-L", &format!("0:127.0.0.1:{port}"), "--json"]);
    let mut forward = Ending(forward.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(forward.0.stdout.take().unwrap()));
    let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    let mut client = std::net::TcpStream::connect(first["address"].as_str().unwrap()).unwrap();
    let (mut far, _) = server.accept().unwrap();
    std::thread::spawn(move || std::io::copy(&mut far, &mut std::io::sink()));
    client.write_all(&[7; 100 << 10]).unwrap();
    within(Duration::from_secs(90), "more time is asked for", &mut || minutes_left(&world, &ids[0]) > 30);
}
