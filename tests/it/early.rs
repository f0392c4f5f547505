//! The remembered identification line, and errors inside the protocol: the view of clients that wait too briefly, or
//! hide standard error.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    containers::needs_helper,
    support::{
        PROGRAM, Said, World,
        engine::{BUSYBOX, Engine},
        eventually,
    },
};

/// Creates a world with a stopped playground that had one connection. Returns its id and host name as well.
fn visited(delay: &str, settings: &str) -> (World, String, String) {
    let mut world = World::with_platform(&["--boot-delay", delay]);
    world.settings(settings);
    let id = world.json(&["start", "shell", "--no-wait", "--json"])["id"].as_str().unwrap().to_owned();
    world.configure();
    let host = format!("playground-{id}");
    world.ssh(&[&host, "true"]).ok();
    world.stop_elsewhere(&id);
    (world, id, host)
}

fn ssh(world: &World, args: &[&str]) -> Child {
    let mut command = world.program("setsid");
    command.args(["-w", "ssh", "-F"]).arg(world.ssh_config()).args(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

const EARLY: &str = "sending the machine's last known identification line";

#[test]
fn a_short_limit_on_the_command_line_is_met() {
    let (world, id, host) = visited("12s", "");
    let forms: [&[&str]; 5] = [
        &["-o", "ConnectTimeout=5"],
        &["-oConnectTimeout=5"],
        &["-o", "ConnectTimeout 5"],
        &["-To", "connecttimeout=5s"],
        &["-o", "ConnectTimeout=6"],
    ];
    let all: Vec<_> = forms
        .iter()
        .map(|form| (form, ssh(&world, &[form, &[&host, "cat /proc/sys/kernel/ostype"][..]].concat())))
        .collect();
    // Through a shell, and with another program of OpenSSH's.
    let config = world.ssh_config();
    let mut sftp = world.program("sftp");
    sftp.arg("-F").arg(&config).args(["-oConnectTimeout=5", "-b", "/dev/null", &host]);
    let sftp = sftp.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    for (form, child) in all {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.stdout, b"Linux\n", "{form:?}: {output:?}");
    }
    let output = sftp.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!((world.restarts(&id), world.logged(EARLY)), (1, forms.len() + 1));
}

/// The server in a container is our own, so its line is known before the first connection.
#[test]
fn a_container_needs_no_line_that_was_remembered() {
    let Some(engine) = Engine::here() else { return };
    needs_helper();
    let container = engine.run("early", &["--network", "none"], BUSYBOX, &[]);
    let mut world = World::with_platform(&["--boot-delay", "8s", "--engine", engine.socket().to_str().unwrap()]);
    let id = world.json(&["start", "shell", "--no-wait", "--json"])["id"].as_str().unwrap().to_owned();
    world.configure();
    world.stop_elsewhere(&id);
    let host = format!("playground-{id}.shell-01.{}", container.name);
    let options = ["-o", "ConnectTimeout=5", "-o", "StrictHostKeyChecking=yes"];
    let all = [(); 4].map(|()| ssh(&world, &[&options[..], &[&host, "echo in"]].concat()));
    for child in all {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.stdout, b"in\n", "{output:?}");
    }
    assert_eq!((world.restarts(&id), world.logged(EARLY)), (1, 4));
    container.docker("pause");
    let refused = ssh(&world, &[&options[..], &[&host, "echo in"]].concat()).wait_with_output().unwrap();
    container.docker("unpause");
    let words = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(255) && words.contains("is paused"), "{refused:?}");
}

#[test]
fn a_setting_turns_it_off() {
    let (world, id, host) = visited("4s", "early_identification: false\n");
    let said = Said::of(ssh(&world, &["-oConnectTimeout=2", &host, "true"]).wait_with_output().unwrap()).failed(255);
    assert!(said.contains("timed out"), "{said}");
    // The wake goes on, and the next attempt succeeds.
    eventually("a try gets in", || ssh(&world, &["-oConnectTimeout=2", &host, "true"]).wait().unwrap().success());
    assert_eq!((world.restarts(&id), world.logged(EARLY)), (1, 0));
}

#[test]
fn a_line_that_has_changed_costs_one_try() {
    let (world, id, host) = visited("9s", "");
    let path = world.root().join(format!("memory.local/{id}.json"));
    let mut record = world.remembered(&id);
    let line = record["machines"]["shell-01"]["identification"].take();
    record["machines"]["shell-01"]["identification"] = json!("SSH-2.0-older_1");
    fs::write(path, record.to_string()).unwrap();
    let said = Said::of(ssh(&world, &["-oConnectTimeout=5", &host, "true"]).wait_with_output().unwrap()).failed(255);
    assert!(said.contains("Received disconnect from") && said.contains("changed its SSH version"), "{said}");
    assert!(said.contains("connect again"), "{said}");
    assert_eq!(world.remembered(&id)["machines"]["shell-01"]["identification"], line);
    world.stop_elsewhere(&id);
    let again = ssh(&world, &["-oConnectTimeout=5", &host, "true"]).wait_with_output().unwrap();
    assert!(again.status.success(), "{again:?}");
    assert_eq!(world.logged(EARLY), 2);
}

#[test]
fn an_error_after_the_line_reaches_the_client_too() {
    let (world, id, host) = visited("30s", "");
    let waiting = ssh(&world, &["-oConnectTimeout=2", &host, "true"]);
    eventually("it has the line", || world.logged(EARLY) == 1);
    world.elsewhere(&id, "destroy");
    let said = Said::of(waiting.wait_with_output().unwrap()).failed(255);
    assert!(
        said.contains("Received disconnect from") && said.contains(&format!("shell-{} was destroyed", &id[..4])),
        "{said}"
    );
}

/// Writes a ProxyCommand whose parent process looks like an ssh with a short limit.
fn hurried(world: &World, host: &str) -> PathBuf {
    let script = world.home().join("hurried");
    let text =
        format!("#!/bin/bash\nexec -a ssh bash -c '{PROGRAM} --local connect {host}; true' host -o ConnectTimeout=5\n");
    fs::write(&script, text).unwrap();
    script
}

fn peers() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/peers");
    assert!(folder.join("python").exists() && folder.join("node").exists(), "scripts/test installs the peers");
    folder
}

fn peer(world: &World, name: &str, proxy: &[&str]) -> Command {
    let scripts = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
    let mut command = if name == "ssh2" {
        let mut node = world.program("node");
        node.env("NODE_PATH", peers().join("node/node_modules"));
        node.arg(scripts.join("ssh2_connect.js"));
        node
    } else {
        let mut python = world.program(peers().join("python/bin/python3"));
        python.arg(scripts.join(format!("{name}_connect.py")));
        python
    };
    let user = world.program("id").arg("-un").output().unwrap().stdout;
    command.arg(String::from_utf8(user).unwrap().trim());
    command.arg(world.home().join(".ssh/iximiuz_labs_user")).arg("echo in").args(proxy);
    command
}

#[test]
fn other_clients_get_no_early_line() {
    let (world, id, host) = visited("12s", "");
    let proxy = hurried(&world, &host);
    let proxy = ["bash", proxy.to_str().unwrap()];
    let all: Vec<_> = ["asyncssh", "paramiko", "ssh2"]
        .map(|name| (name, peer(&world, name, &proxy).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()))
        .into();
    // For comparison, the first line and its time for a client that identifies itself as OpenSSH.
    let openssh = |line: &str| {
        let mut command = world.program(proxy[0]);
        command.arg(proxy[1]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let begun = Instant::now();
        let mut child = command.spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        (first, begun.elapsed())
    };
    let (first, after) = openssh("SSH-2.0-OpenSSH_9.2\r\n");
    assert!(first.starts_with("SSH-2.0-") && after < Duration::from_secs(5), "{first} {after:?}");
    for (name, child) in all {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.stdout, b"in\n", "{name}: {output:?}");
    }
    // The proxies of some clients end a little later than they do, and count as sessions until then.
    eventually("no session is left", || world.json(&["list", "--json"])[0]["connections"] == json!([]));
    world.stop_elsewhere(&id);
    let (_, after) = openssh("SSH-2.0-unknown\r\n");
    assert!(after > Duration::from_secs(11), "{after:?}");
    assert_eq!(world.logged(EARLY), 1);
}

#[test]
fn every_client_is_told_why() {
    let (world, id, host) = visited("0s", "");
    world.elsewhere(&id, "destroy");
    world.until(&id, "DESTROYED");
    let sentence = format!("playground shell-{} was destroyed", &id[..4]);
    for name in ["asyncssh", "ssh2"] {
        let mut peer = peer(&world, name, &[PROGRAM, "--local", "connect", &host]);
        let said = world.output(peer.stderr(Stdio::piped())).failed(1);
        // ssh2 does not show the text of a disconnect.
        assert!(said.contains(&sentence) || name == "ssh2", "{name}: {said}");
        assert!(said.contains("start another with") || name == "ssh2", "{name}: {said}");
    }
    let quiet = format!("ProxyCommand=sh -c 'exec {PROGRAM} --local connect {host} 2>&-'");
    let said = world.ssh(&["-o", &quiet, &host, "true"]).failed(255);
    assert!(said.contains(&format!("Received disconnect from UNKNOWN port 65535:11: {sentence}")), "{said}");
}
