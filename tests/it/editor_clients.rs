//! Clients with behaviour of their own, as in editors: JetBrains' sshj, Node's ssh2 with a standard error that is never
//! read, a master with slaves, SOCKS.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    process::{Child, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::support::{World, eventually, free_port, needs, noise, peer, peers};

/// Runs sshj as JetBrains' products use it. Returns one line for each connection.
pub fn sshj(world: &World, host: &str, connections: usize, limit: Duration, upload: &[&str]) -> Vec<String> {
    let mut java = world.program(needs("java"));
    java.arg("-XX:TieredStopAtLevel=1").arg("-cp").arg(peers("java").join("*")).arg(peer("java/Clients.java"));
    java.arg(world.ssh_config()).arg(host).arg(connections.to_string()).arg(limit.as_millis().to_string()).args(upload);
    world.output(&mut java).ok().lines().map(str::to_owned).collect()
}

fn state(world: &World, id: &str) -> String {
    let plays = world.json(&["list", "--all", "--json"]);
    let play = plays.as_array().unwrap().iter().find(|play| play["id"] == id).unwrap().clone();
    play["state"].as_str().unwrap().to_owned()
}

/// Writes our record of the user's actions on a playground.
fn remember(world: &World, id: &str, record: &Value) {
    fs::write(world.root().join(format!("memory.local/{id}.json")), record.to_string()).unwrap();
}

fn ms_ago(minutes: u128) -> Value {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    Value::from(u64::try_from(now - minutes * 60_000).unwrap())
}

/// sshj identifies itself as `SSH-2.0-SSHJ` and starts its key-exchange timer at the server's line. All its connections
/// succeed even if the wake takes longer than that. They wake a playground only within ten minutes of a deliberate act.
#[test]
fn sshj_polls_wake_nothing_and_a_deliberate_act_lets_all_connections_in() {
    let mut world = World::with_platform(&["--boot-delay", "12s"]);
    let id = world.playground("shell");
    let host = format!("playground-{id}");
    let limit = Duration::from_secs(8);
    world.local(&["stop", &id]).ok();
    let told = sshj(&world, &host, 2, limit, &[]);
    for line in &told {
        assert!(line.contains(&format!("playground shell-{} was stopped on purpose", &id[..4])), "{told:?}");
        assert!(line.contains(&format!("labctl-ssh-proxy --local start {id}")), "the dialog says what to do: {told:?}");
    }
    // The playground expired by itself, and the editor's start screen polls it.
    remember(&world, &id, &serde_json::json!({ "deliberate": ms_ago(11) }));
    let told = sshj(&world, &host, 2, limit, &[]);
    for line in &told {
        assert!(line.contains("keeps connecting by itself") && line.contains("start"), "{told:?}");
    }
    assert_eq!(state(&world, &id), "STOPPED");
    remember(&world, &id, &serde_json::json!({ "deliberate": ms_ago(1) }));
    let contents = noise(8 << 20);
    let (local, remote) = (world.home().join("upload"), world.home().join("uploaded"));
    fs::write(&local, &contents).unwrap();
    let files = [local.to_str().unwrap(), remote.to_str().unwrap()];
    assert_eq!(sshj(&world, &host, 4, limit, &files), ["in"; 4]);
    assert!(fs::read(&remote).unwrap() == contents, "8 MiB came through");
}

#[test]
fn an_unread_standard_error_hangs_no_wake() {
    let mut world = World::with_platform(&["--boot-delay", "2s"]);
    let id = world.playground("shell");
    world.local(&["stop", &id]).ok();
    remember(&world, &id, &serde_json::json!({}));
    let mut node = world.program(needs("node"));
    node.env("NODE_PATH", peers("node/node_modules")).arg(peer("ssh2_unread.cjs"));
    node.arg(world.ssh_config()).arg(format!("playground-{id}"));
    assert_eq!(world.output(&mut node).ok(), "in\n");
}

/// Starts ssh in a process group of its own, so that all of its processes can be ended.
fn background(world: &World, args: &[&str]) -> Child {
    let mut ssh = world.ssh_program("ssh");
    ssh.args(args).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().unwrap()
}

/// Zed: a master without a command, then a slave for each operation.
#[test]
fn a_master_with_slaves_uploads_and_runs_at_once() {
    let mut world = World::with_platform(&[]);
    let host = format!("playground-{}", world.playground("shell"));
    let control = world.home().join("c");
    let path = format!("ControlPath={}", control.display());
    let mut master =
        background(&world, &["-N", "-o", "ControlMaster=yes", "-o", "ControlPersist=no", "-o", &path, &host]);
    eventually("the master is in", || control.exists());
    let contents = noise(8 << 20);
    std::thread::scope(|scope| {
        for i in 0..4 {
            let (world, host, path, contents) = (&world, &host, &path, &contents);
            scope.spawn(move || {
                let mut slave = world.ssh_program("ssh");
                let answer = world.feed(slave.args(["-o", "ControlMaster=no", "-o", path, host, "cat"]), contents);
                assert!(answer.stdout == *contents, "slave {i}: {} bytes", answer.stdout.len());
            });
        }
        let local = world.home().join("upload");
        fs::write(&local, &contents).unwrap();
        let mut scp = world.ssh_program("scp");
        let to = format!("{host}:{}", world.home().join("uploaded").display());
        world.output(scp.args(["-q", "-o", &path]).arg(&local).arg(to)).ok();
    });
    assert!(fs::read(world.home().join("uploaded")).unwrap() == contents);
    world.ssh(&["-O", "exit", "-o", &path, &host]).ok();
    master.wait().unwrap();
    eventually("no proxy is left", || world.processes(" connect ").is_empty());
}

/// VS Code: one connection with `-D`, through which its window reaches the server in the playground.
#[test]
fn socks_through_the_tunnel_reaches_what_listens_in_the_playground() {
    let mut world = World::with_platform(&[]);
    let host = format!("playground-{}", world.playground("shell"));
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let contents = noise(1 << 20);
    let to = server.local_addr().unwrap().port();
    let free = free_port();
    let mut ssh = background(&world, &["-N", "-T", "-D", &free.to_string(), "-o", "ConnectTimeout=15", &host]);
    let mut found = None;
    eventually("ssh listens", || {
        found = TcpStream::connect(("127.0.0.1", free)).ok();
        found.is_some()
    });
    let mut socks = found.unwrap();
    // RFC 1928: no authentication; connect to an IPv4 address.
    socks.write_all(&[5, 1, 0]).unwrap();
    let mut answer = [0; 2];
    socks.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [5, 0]);
    let [high, low] = to.to_be_bytes();
    socks.write_all(&[5, 1, 0, 1, 127, 0, 0, 1, high, low]).unwrap();
    let mut answer = [0; 10];
    socks.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..2], [5, 0]);
    let (mut at_server, _) = server.accept().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| at_server.write_all(&contents).unwrap());
        let mut got = vec![0; contents.len()];
        socks.read_exact(&mut got).unwrap();
        assert!(got == contents);
    });
    ssh.kill().unwrap();
    ssh.wait().unwrap();
    eventually("no proxy is left", || world.processes(" connect ").is_empty());
}
