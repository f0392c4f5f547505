//! Agent programs as clients: Codex Desktop, Claude's desktop app, cmux, VS Code's Agents window. They connect again by
//! themselves, so a stop has to last against them, whatever their rhythm. Their wait for a machine that wakes is in
//! `client_limits`.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use crate::support::{Ending, Said, World, free_port, needs, peer, peers};

/// Codex Desktop's options: openai/codex issues 34448, 18819 and 26170.
const CODEX: [&str; 6] = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ExitOnForwardFailure=yes"];

/// Runs `command` as Codex Desktop does while it looks for its program on the host, with a forward.
pub fn codex(world: &World, host: &str, command: &str) -> Said {
    let forward = format!("{}:localhost:22", free_port());
    world.ssh(&[&CODEX[..], &["-L", &forward, host, command]].concat())
}

/// Runs `command` as cmux does: a master that stays (its `baseSSHArguments`, and manaflow-ai/cmux issue 10870). Here it
/// is ended.
pub fn cmux(world: &World, host: &str, command: &str) -> Said {
    let control = format!("ControlPath={}", world.path(&format!("c{}", free_port())).display());
    let shared = ["-o", "ControlMaster=auto", "-o", "ControlPersist=600", "-o", &control];
    let options = ["-o", "ConnectTimeout=6", "-o", "StrictHostKeyChecking=accept-new"];
    let said = world.ssh(&[&options[..], &shared, &[host, command]].concat());
    let _ = world.ssh(&["-O", "exit", "-o", &control, host]);
    said
}

/// Connects as Claude's desktop app does: ssh2, and its ProxyCommand through `sh` (anthropics/claude-code issue 40967).
/// It looks for host keys in `known_hosts` only (issue 78152), where the app's own file is ~/.ssh/known_hosts.
pub fn claude(world: &World, host: &str, known_hosts: Option<&str>) -> Said {
    ssh2(world, host, "sh", known_hosts)
}

/// Connects as VS Code's Agents window does: ssh2 by address and port (microsoft/vscode issue 313164).
fn agents_window(world: &World, host: &str) -> Said {
    ssh2(world, host, "none", None)
}

fn ssh2(world: &World, host: &str, shell: &str, known_hosts: Option<&str>) -> Said {
    let mut node = world.program(needs("node"));
    node.env("NODE_PATH", peers("node/node_modules")).arg(peer("ssh2_unread.cjs"));
    node.arg(world.ssh_config()).arg(host).arg(shell).args(known_hosts);
    world.output(&mut node)
}

/// The stream that Codex Desktop keeps to its server on the host.
fn codex_stream(world: &World, host: &str, forward: &[&str]) -> Child {
    let mut ssh = world.ssh_program("ssh");
    ssh.args(CODEX)
        .args(forward)
        .args(["-T", host, "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut stream = ssh.spawn().unwrap();
    stream.stdin.as_mut().unwrap().write_all(b"open\n").unwrap();
    let mut line = String::new();
    BufReader::new(stream.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "open\n");
    stream
}

/// Nothing is started again that was stopped under Codex' stream: by `stop`, in the browser, by `destroy`. Each attempt
/// comes after one more of these times.
#[test]
fn what_was_stopped_stays_so_against_every_rhythm() {
    const RHYTHM: [u64; 9] = [0, 1, 1, 30, 30, 5 * 60, 5 * 60, 30 * 60, 5 * 60];
    type End = fn(&World, &str);
    let mut world = World::with_platform(&[]);
    world.settings("log_level: debug\n");
    let [stopped, browser, _] = ["shell", "shell", "duo"].map(|name| world.playground(name));
    let ends: [(&str, &str, End); 3] = [
        (&stopped, "was stopped on purpose", |world, id| drop(world.local(&["stop", id]).ok())),
        (&browser, "has ended while a session was open", |world, id| world.stop_elsewhere(id)),
        ("duo", "has ended while a session was open", |world, name| {
            drop(world.local(&["destroy", "--yes", name]).ok())
        }),
    ];
    let world = &world;
    let streams = ends.map(|(label, ..)| codex_stream(world, &format!("playground-{label}"), &[]));
    for ((label, _, end), mut stream) in ends.into_iter().zip(streams) {
        end(world, label);
        assert!(!stream.wait().unwrap().success());
    }
    let (acted, plays) = (world.logged("POST"), world.plays());
    let attempts = |(label, words, _): (&str, &str, End)| {
        let host = format!("playground-{label}");
        for gap in RHYTHM {
            world.let_pass(label, Duration::from_secs(gap));
            let said = codex(world, &host, "true").failed(255);
            assert!(said.contains(words) && said.contains(&format!("--local start {label}")), "{gap}: {said}");
        }
        assert!(cmux(world, &host, "true").failed(255).contains(words));
        claude(world, &host, None).failed(1);
        world.let_pass(label, Duration::from_secs(30 * 60));
        claude(world, &host, None).failed(1);
    };
    thread::scope(|scope| ends.map(|end| scope.spawn(move || attempts(end))).map(|one| one.join().unwrap()));
    assert_eq!((world.logged("POST"), world.plays()), (acted, plays), "no attempt has asked for anything");
    assert_eq!([&stopped, &browser].map(|id| world.state(id)), ["STOPPED"; 2]);

    // The command that each refusal names is the way back in.
    for (label, ..) in ends {
        world.local(&["start", label]).ok();
        codex(world, &format!("playground-{label}"), "true").ok();
    }
}

/// Codex Desktop offers the concrete names of the file. Claude's desktop app follows no Include, and finds a machine's key
/// after one command.
#[test]
fn each_finds_its_host_in_the_file() {
    let mut world = World::with_platform(&[]);
    let id = world.json(&["start", "shell", "--title", "My lab", "--json"])["id"].as_str().unwrap().to_owned();
    world.configure();
    world.local(&["config-ssh", "--yes", "--inline"]).ok();
    let file = fs::read_to_string(world.ssh_config()).unwrap();
    let names = file.lines().filter_map(|line| line.strip_prefix("Host ")).flat_map(str::split_whitespace);
    let concrete: Vec<&str> = names.filter(|name| !name.contains(['*', '?', '!'])).collect();
    let host = format!("playground-{id}");
    for name in ["my-lab", &host] {
        assert!(concrete.contains(&name), "{concrete:?}");
        codex(&world, name, "true").ok();
    }
    let (server, port) = (TcpListener::bind("127.0.0.1:0").unwrap(), free_port());
    let forward = format!("{port}:127.0.0.1:{}", server.local_addr().unwrap().port());
    let mut stream = codex_stream(&world, "my-lab", &["-L", &forward]);
    TcpStream::connect(("127.0.0.1", port)).unwrap().write_all(b"forwarded").unwrap();
    let mut said = String::new();
    server.accept().unwrap().0.read_to_string(&mut said).unwrap();
    assert_eq!(said, "forwarded");
    drop(stream.stdin.take());
    assert!(stream.wait().unwrap().success());

    let known_hosts = world.path("known_hosts");
    let known_hosts = known_hosts.to_str().unwrap();
    fs::write(known_hosts, "").unwrap();
    assert!(claude(&world, &host, Some(known_hosts)).failed(1).contains("verification failed"));
    let here = format!("UserKnownHostsFile={known_hosts}");
    world.ssh(&["-o", &here, "-o", "StrictHostKeyChecking=accept-new", &host, "true"]).ok();
    assert_eq!(claude(&world, &host, Some(known_hosts)).ok(), "in\n");
}

#[test]
fn the_agents_window_reaches_a_listener() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let host = format!("playground-{id}");
    let without = agents_window(&world, &host).failed(1);
    assert!(without.contains("getaddrinfo") && without.contains(&host), "{without}");
    let mut listener = world.command(&["--local", "listen", &id, "--json"]);
    let mut listener = Ending(listener.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(listener.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains("listening"));
    assert_eq!(agents_window(&world, &format!("{host}-listen")).ok(), "in\n");
    // It tells no reason, but wakes nothing that was stopped.
    world.local(&["stop", &id]).ok();
    agents_window(&world, &format!("{host}-listen")).failed(1);
    assert_eq!(world.state(&id), "STOPPED");
}
