//! The program's own log, as `logs` prints it. `tail -F` is the judge, and ssh makes the connections.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{ChildStdout, Command, Stdio},
};

use crate::support::{Ending, World, eventually, needs};

fn files(world: &World) -> Vec<PathBuf> {
    let all = fs::read_dir(world.root().join("logs")).map(|all| all.map(|file| file.unwrap().path()).collect());
    let mut all: Vec<PathBuf> = all.unwrap_or_default();
    all.sort();
    all
}

fn read(path: &PathBuf) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn the_log_of_connections_is_printed_whole_or_of_one_host() {
    let mut world = World::with_platform(&[]);
    let said = world.local(&["logs"]);
    assert!(said.err.contains("there is no log yet") && said.err.contains("labctl-ssh-proxy/logs"), "{said:?}");
    assert_eq!(said.ok(), "");
    let one = world.json(&["start", "shell", "--title", "One of two", "--json"])["id"].as_str().unwrap().to_owned();
    let two = world.playground("duo");
    world.local(&["rename", &two, "Two of two"]).ok();
    for (host, level) in [(&one, "debug"), (&two, "info")] {
        world.settings(&format!("log_level: {level}\n"));
        world.ssh(&[&format!("playground-{host}"), "true"]).ok();
    }
    world.ssh(&[&format!("playground-{two}.node-02"), "true"]).ok();
    world.ssh(&["playground-shell", "true"]).ok();
    // Their lines begin with the time, and their names have only its seconds.
    let mut texts: Vec<String> = files(&world).iter().map(read).collect();
    texts.sort();
    let [of_one, of_two, of_machine, by_name] = &texts[..] else { panic!("{texts:?}") };
    let all = world.local(&["logs"]);
    assert!(all.err.contains("the logs are in "), "{all:?}");
    let all = all.ok();
    // Whole connections here, because each ended before the next began.
    assert_eq!(all, format!("{of_one}{of_two}{of_machine}{by_name}"));
    for line in all.lines() {
        assert!(line[30..].starts_with(" playground-") && line.contains("]: "), "{line}");
    }
    let last: Vec<&str> = all.lines().rev().take(3).collect();
    assert_eq!(world.local(&["logs", "--tail", "3"]).ok().lines().rev().collect::<Vec<_>>(), last);
    let (of_one, of_two) = (format!("{of_one}{by_name}"), format!("{of_two}{of_machine}"));
    let by_host = format!("playground-{two}");
    let rows: [(&[&str], &str); 11] = [
        (&[&one], &of_one),
        // No list has remembered it, so the platform is asked.
        (&["One of two"], &of_one),
        (&[&two], &of_two),
        (&[&by_host], &of_two),
        (&[&by_host, "-m", "node-02"], of_machine),
        (&[&format!("{by_host}.node-02")], of_machine),
        // The others were called by the id of the same playground.
        (&["playground-shell"], &of_one),
        (&["shell"], &of_one),
        (&["one-of-two"], &of_one),
        (&["two-of-two.node-02"], of_machine),
        (&["playground-nothing"], ""),
    ];
    for (words, expected) in rows {
        assert_eq!(world.local(&[&["logs"], words].concat()).ok(), expected, "{words:?}");
    }
    assert!(world.local(&["logs", "One of none"]).failed(4).contains("no playground has the id"));
    for (words, needed) in [
        (&["--previous"][..], "--pod"),
        (&[&one, "--timestamps"], "--pod"),
        (&["--pod", "web"], "PLAYGROUND"),
        (&["-m", "m"], "PLAYGROUND"),
    ] {
        assert!(world.local(&[&["logs"], words].concat()).failed(2).contains(needed), "{words:?}");
    }
    world.settings("log_level: off\n");
    let said = world.local(&["logs", &one]);
    assert!(said.err.contains("`log_level` is off") && said.err.contains("settings.yaml"), "{said:?}");
    assert_eq!(said.ok(), of_one);
}

/// Starts a program that follows.
fn follow(command: &mut Command) -> (Ending, BufReader<ChildStdout>) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (Ending(child), out)
}

#[test]
fn a_log_is_followed_as_tail_does_over_the_removal_of_older_ones() {
    let mut world = World::with_platform(&[]);
    let (one, other) = (world.playground("shell"), world.playground("duo"));
    let host = format!("playground-{one}");
    let (mut child, mut out) = follow(&mut world.command(&["--local", "logs", &host, "-f"]));
    let session = || {
        let mut ssh = world.ssh_program("ssh");
        Ending(ssh.args([&host, "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
    };
    let mut first = session();
    let mut seen = String::new();
    // The beginning of a connection comes while it goes on.
    while !seen.contains("connected to machine") {
        assert_ne!(out.read_line(&mut seen).unwrap(), 0, "{seen}");
    }
    let log = files(&world).remove(0);
    let mut tail = world.program(needs("tail"));
    let (mut judge, mut judged) = follow(tail.args(["-n", "+1", "-F"]).arg(&log));
    // As many older ones as there may be: each connection removes one, and the first that is removed is the oldest.
    for n in 0..40 {
        fs::write(log.with_file_name(format!("20200101T{n:06}-playground-x-1.log")), "2020-01-01 of old\n").unwrap();
    }
    world.ssh(&[&format!("playground-{other}"), "true"]).ok();
    let mut second = session();
    eventually("older ones have been removed", || files(&world).len() == 40);
    for session in [&mut first, &mut second] {
        drop(session.0.stdin.take());
        assert!(session.0.wait().unwrap().success());
    }
    // ssh does not wait for the end of its proxy, whose last words may be missing.
    eventually("the connections have ended", || world.processes(" connect ").is_empty());
    let of_host = |path: &PathBuf| path.display().to_string().contains(&host);
    let last = files(&world).into_iter().filter(of_host).max_by_key(read).unwrap();
    let expected = read(&log);
    let read_all = |out: &mut BufReader<ChildStdout>, seen: &mut String, length: usize| {
        while seen.len() < length {
            assert_ne!(out.read_line(seen).unwrap(), 0, "{seen}");
        }
    };
    read_all(&mut out, &mut seen, expected.len() + read(&last).len());
    let mut judge_seen = String::new();
    read_all(&mut judged, &mut judge_seen, expected.len());
    let of = |pid: &str| seen.split_inclusive('\n').filter(|line| line.contains(pid)).collect::<String>();
    let pid = |path: &PathBuf| format!("[{}]", path.file_stem().unwrap().to_str().unwrap().rsplit_once('-').unwrap().1);
    assert_eq!(of(&pid(&log)), judge_seen);
    assert_eq!(of(&pid(&last)), read(&last));
    assert!(!seen.contains(&other) && !seen.contains("of old"), "{seen}");
    let _ = judge.0.kill();
    // Ctrl-C is its usual end, as for the log of a pod; without a reader it ends by itself.
    let pid = rustix::process::Pid::from_child(&child.0);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(130));
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    let (mut child, out) = follow(&mut world.command(&["--local", "logs", "-f"]));
    drop(out);
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
}
