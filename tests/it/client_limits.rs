//! Every client's way to a host through one wake of twelve seconds, which some of them do not wait for. The table of
//! docs/clients/README.md says which, and is held to what happens here.

use std::{
    fs,
    io::Write,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    agents,
    editor_clients::sshj,
    support::{Said, World, eventually, free_port, needs, peer, peers},
};

const BOOT: Duration = Duration::from_secs(12);
const TABLE: &str = include_str!("../../docs/clients/README.md");

/// A client's connection: an error is what it has said.
type Connect = fn(&World, &str) -> Result<(), String>;

/// A row of the table.
struct Client {
    name: &'static str,
    /// The time after which it gives up, where nothing in its own command does that.
    limit: Option<Duration>,
    connect: Connect,
}

const fn client(name: &'static str, limit: Option<u64>, connect: Connect) -> Client {
    let limit = match limit {
        Some(seconds) => Some(Duration::from_secs(seconds)),
        None => None,
    };
    Client { name, limit, connect }
}

const CLIENTS: [Client; 14] = [
    client("ssh", None, |world, host| ssh(world, &[host, "echo in"])),
    client("scp", None, |world, host| {
        let copy = world.path(&format!("scp-{host}"));
        let said = finished(world.ssh_program("scp").args(["-q", &format!("{host}:/etc/hostname")]).arg(&copy));
        said.and_then(|_| fs::read(copy).map(drop).map_err(|e| e.to_string()))
    }),
    client("sftp", None, |world, host| finished(world.ssh_program("sftp").args(["-b", "/dev/null", host])).map(drop)),
    client("rsync", None, |world, host| {
        let shell = format!("ssh -F {}", world.ssh_config().display());
        let mut rsync = world.program(needs("rsync"));
        rsync.args(["-e", &shell, &format!("{host}:/etc/hostname")]).arg(world.path(&format!("rsync-{host}")));
        finished(&mut rsync).map(drop)
    }),
    client("git", None, |world, host| {
        let repository = world.path("repository");
        let mut git = world.program(needs("git"));
        git.env("GIT_SSH_COMMAND", format!("ssh -F {}", world.ssh_config().display()));
        let said = finished(git.args(["ls-remote", &format!("{host}:{}", repository.display())]))?;
        if said.contains("refs/heads/kept") { Ok(()) } else { Err(said) }
    }),
    // Its script comes on standard input, and is longer than a pipe holds at once.
    client("VS Code, Cursor", Some(17), |world, host| {
        let script = format!("{}\necho in\n", "# a line of the script that starts the server\n".repeat(2000));
        let port = free_port().to_string();
        let mut ssh = world.ssh_program("ssh");
        ssh.args(["-v", "-T", "-D", &port, "-o", "ConnectTimeout=15", host, "bash"]);
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = ssh.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let writer = thread::spawn(move || input.write_all(script.as_bytes()));
        let output = child.wait_with_output().unwrap();
        let _ = writer.join().unwrap();
        said_in(&output)
    }),
    client("VSCodium, Devin Desktop, Antigravity", Some(60), |world, host| {
        let mut node = world.program(needs("node"));
        node.env("NODE_PATH", peers("node/node_modules")).arg(peer("ssh2_unread.cjs"));
        said_in(&node.arg(world.ssh_config()).arg(host).output().unwrap())
    }),
    // A master that has no limit of its own, and a slave for each command.
    client("Zed", Some(17), |world, host| {
        let control = world.path(&format!("z{}", free_port()));
        let path = format!("ControlPath={}", control.display());
        let mut master = world.ssh_program("ssh");
        master.args(["-N", "-o", "ControlMaster=yes", "-o", "ControlPersist=no", "-o", &path, host]);
        let mut master = master.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the master is in", || control.exists() || master.try_wait().unwrap().is_some());
        let slave = ssh(world, &["-o", "ControlMaster=no", "-o", &path, host, "echo in"]);
        let _ = world.ssh(&["-O", "exit", "-o", &path, host]);
        master.wait().unwrap();
        slave
    }),
    client("JetBrains Gateway", None, |world, host| {
        let told = sshj(world, host, 2, Duration::from_secs(10), &[]);
        if told == ["in"; 2] { Ok(()) } else { Err(told.join("\n")) }
    }),
    client("JetBrains Toolbox", None, |world, host| ssh(world, &["-o", "ConnectTimeout=10", host, "echo in"])),
    client("Codex Desktop", None, |world, host| is_in(agents::codex(world, host, "echo in"))),
    client("Claude's desktop app", Some(20), |world, host| is_in(agents::claude(world, host, None))),
    client("cmux", None, |world, host| is_in(agents::cmux(world, host, "echo in"))),
    client("paramiko", None, |world, host| {
        let mut python = world.program(peers("python/bin/python3"));
        let user = world.program("id").arg("-un").output().unwrap().stdout;
        python.arg(peer("paramiko_connect.py")).arg(String::from_utf8(user).unwrap().trim());
        python.arg(world.path(".ssh/iximiuz_labs_user")).arg("echo in");
        python.args([crate::support::PROGRAM, "--local", "connect", host]);
        said_in(&python.output().unwrap())
    }),
];

fn ssh(world: &World, args: &[&str]) -> Result<(), String> {
    said_in(&world.ssh_program("ssh").args(args).output().unwrap())
}

fn is_in(said: Said) -> Result<(), String> {
    if said.out == "in\n" { Ok(()) } else { Err(said.err) }
}

fn said_in(output: &Output) -> Result<(), String> {
    match output.stdout == b"in\n" {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn finished(command: &mut Command) -> Result<String, String> {
    let output = command.output().unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// The attempts of one client until it was in.
struct Attempts {
    /// The time that the first one took.
    first: Duration,
    /// The words of those that failed.
    failures: Vec<String>,
}

fn attempts(world: &World, host: &str, client: &Client) -> Attempts {
    let began = Instant::now();
    let (mut failures, mut first) = (Vec::new(), None);
    loop {
        let said = (client.connect)(world, host);
        let first = *first.get_or_insert(began.elapsed());
        match said {
            Ok(()) => return Attempts { first, failures },
            Err(words) => failures.push(words),
        }
        assert!(failures.len() < 8, "{} is never let in: {failures:?}", client.name);
    }
}

#[test]
fn each_gets_in_as_the_table_says() {
    let mut world = World::with_platform(&[]);
    let visited = world.playground("shell");
    let fresh = world.playground("shell");
    world.ssh(&[&format!("playground-{visited}"), "true"]).ok();
    let git = |args: &[&str]| world.output(world.program(needs("git")).args(args)).ok();
    git(&["init", "-q", "-b", "kept", "repository"]);
    let author = ["-c", "user.name=ada", "-c", "user.email=ada@example.com"];
    git(&[&["-C", "repository"][..], &author, &["commit", "-q", "--allow-empty", "-m", "first"]].concat());
    world.stop_platform();
    world.serve(&["--boot-delay", &format!("{}s", BOOT.as_secs())]);

    let (world, hosts) = (&world, [visited, fresh].map(|id| format!("playground-{id}")));
    let all: Vec<(&Client, [Attempts; 2])> = thread::scope(|scope| {
        let on_both =
            |client: &'static Client| hosts.each_ref().map(|host| scope.spawn(move || attempts(world, host, client)));
        let running: Vec<_> = CLIENTS.iter().map(|client| (client, on_both(client))).collect();
        running.into_iter().map(|(client, both)| (client, both.map(|one| one.join().unwrap()))).collect()
    });
    // A busy computer is late for all alike, and one that is too late only shows that they get in.
    let late = all[0].1[0].first.saturating_sub(BOOT + Duration::from_secs(1));
    for (client, both) in &all {
        let cells = both.each_ref().map(|Attempts { first, failures }| {
            let is_in_time = client.limit.is_none_or(|limit| *first <= limit + late);
            if failures.is_empty() && is_in_time { "first attempt" } else { "a later attempt" }
        });
        let row = TABLE.lines().find(|line| line.starts_with(&format!("| {} |", client.name)));
        let row: Vec<&str> = row.unwrap_or_else(|| panic!("no row for {}", client.name)).split(" | ").collect();
        let times = both.each_ref().map(|one| one.first);
        let failures = both.each_ref().map(|one| &one.failures);
        let is_as_said = [row[2], row[3]] == cells || late > Duration::from_secs(2);
        assert!(is_as_said, "{}: {cells:?} after {times:?}, {late:?} late, {failures:?}", client.name);
    }
    // The failures say what to do. A computer that was too busy for that leaves ssh's own words.
    let failures: Vec<&String> = all.iter().flat_map(|(_, [_, fresh])| &fresh.failures).collect();
    assert!(
        failures.iter().any(|said| said.contains("this ssh waits only 10 s, and is still waiting for")),
        "{failures:?}"
    );
    assert!(failures.iter().any(|said| said.contains("connect again in a moment, or wait with")), "{failures:?}");
    assert!(
        failures.iter().all(|said| said.contains("is still waiting") || said.contains("timed out")),
        "{failures:?}"
    );
}
