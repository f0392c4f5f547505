//! Clients that come and go: many at once, killed, hung up on, with broken pipes, in every phase of a connection; and
//! run by a user of their own, without an environment.

use std::{
    io::{Read, Write},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{World, at_best, copy_program, eventually, needs};

/// Time limit for a proxy to end. It takes less than 100 ms, and the rest is for a busy computer.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Returns the number of starts of this play. Each one leaves a STARTING event behind.
fn starts(world: &World, play: &str) -> usize {
    let play = world.api(&format!("/plays/{play}"));
    let events = play["status"]["stateEvents"].as_array().unwrap();
    events.iter().filter(|event| event["state"] == "STARTING").count()
}

/// Creates a world with a stopped playground that takes `delay` to boot. A connection wakes it, because it was not
/// stopped on purpose.
fn stopped(delay: &str) -> (World, String) {
    let mut world = World::with_platform(&[]);
    let play = world.playground("shell");
    world.stop_platform();
    world.serve(&["--boot-delay", delay]);
    assert_eq!(world.json(&["list", "--json"])[0]["state"], "STOPPED");
    (world, play)
}

#[test]
fn eight_sessions_at_once_wake_a_playground_once() {
    // A session that comes when the machine boots already says so after a second, if it boots that long.
    let (world, play) = stopped("10s");
    let before = starts(&world, &play);
    let host = format!("playground-{play}");
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (world, host) = (&world, &host);
            scope.spawn(move || {
                let said = world.ssh(&[host, &format!("echo shell {n}")]);
                assert!(said.err.contains("waiting for machine shell-01"), "{said:?}");
                assert_eq!(said.ok(), format!("shell {n}\n"));
            });
        }
    });
    assert_eq!(starts(&world, &play), before + 1);
}

#[test]
fn a_wake_goes_on_without_the_ssh_that_began_it() {
    let (world, play) = stopped("10s");
    let before = starts(&world, &play);
    let host = format!("playground-{play}");
    at_best(AT_ONCE, "no proxy is left", || {
        let mut ssh = world.ssh_program("ssh").args([&host, "true"]).stderr(Stdio::piped()).spawn().unwrap();
        ssh.stderr.take().unwrap().read_exact(&mut [0; 16]).unwrap();
        eventually("the wake is asked for", || starts(&world, &play) > before);
        ssh.kill().unwrap();
        let left = Instant::now();
        ssh.wait().unwrap();
        eventually("no proxy is left", || world.processes(" connect ").is_empty());
        left.elapsed()
    });
    assert_eq!(world.ssh(&[&host, "echo in"]).ok(), "in\n");
    assert_eq!(starts(&world, &play), before + 1);
}

/// The phase in which a client leaves.
#[derive(Clone, Copy, Debug)]
enum At {
    /// The platform has not answered yet.
    Finding,
    /// The machine boots.
    Waking,
    /// Bytes flow.
    Connected,
}

/// The manner in which a client leaves.
#[derive(Clone, Copy, Debug)]
enum Leaving {
    BySignal(Signal),
    EndOfInput,
    BrokenOutput,
}

/// Starts a platform that accepts connections and never answers.
fn silent_platform(world: &World) -> std::net::TcpListener {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let account = world.path(".iximiuz/labctl/config.yaml");
    std::fs::create_dir_all(account.parent().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let text = format!("api_base_url: http://{address}/api\nsession_id: s\naccess_token: t\n");
    std::fs::write(account, text).unwrap();
    listener
}

fn proxy(command: &mut Command) -> Child {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap();
    child
}

#[test]
fn a_client_that_leaves_takes_its_proxy_along_in_every_phase() {
    let finding = World::empty();
    let listener = silent_platform(&finding);
    let (mut world, play) = stopped("60s");
    let waking = format!("playground-{play}");
    world.settings("wake: always\n");
    let running = World::with_platform(&[]);
    let play = running.json(&["start", "shell", "--json"])["id"].as_str().unwrap().to_owned();
    let connected = format!("playground-{play}");
    for at in [At::Finding, At::Waking, At::Connected] {
        for how in [
            Leaving::BySignal(Signal::HUP),
            Leaving::BySignal(Signal::INT),
            Leaving::BySignal(Signal::TERM),
            Leaving::EndOfInput,
            Leaving::BrokenOutput,
        ] {
            at_best(AT_ONCE, &format!("the proxy has left, {at:?} {how:?}"), || {
                let mut child = match at {
                    At::Finding => {
                        let child = proxy(&mut finding.command(&["connect", &format!("playground-{:024x}", 1)]));
                        let (stream, _) = listener.accept().unwrap();
                        stream.peek(&mut [0]).unwrap();
                        child
                    }
                    At::Waking => {
                        let mut child = proxy(&mut world.command(&["--local", "connect", &waking]));
                        // Wait for its first message.
                        child.stderr.as_mut().unwrap().read_exact(&mut [0; 16]).unwrap();
                        child
                    }
                    At::Connected => {
                        let mut child = proxy(&mut running.command(&["--local", "connect", &connected]));
                        child.stdout.as_mut().unwrap().read_exact(&mut [0; 8]).unwrap();
                        child
                    }
                };
                let left = Instant::now();
                match how {
                    Leaving::BySignal(signal) => kill_process(Pid::from_child(&child), signal).unwrap(),
                    Leaving::EndOfInput => drop(child.stdin.take()),
                    Leaving::BrokenOutput => drop(child.stdout.take()),
                }
                child.wait().unwrap();
                left.elapsed()
            });
        }
    }
    world.stop_platform();
}

/// A user's line in /etc/passwd, with a home and a shell.
struct Person {
    uid: u32,
    shell: &'static str,
}

/// Prepares a script run by a user whose home, wherever programs look it up, is the world's. It runs in a mount
/// namespace with another /etc/passwd.
fn as_person(world: &World, person: &Person, script: &str) -> Command {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let others: String = passwd
        .lines()
        .filter(|line| line.split(':').nth(2) != Some(&person.uid.to_string()))
        .map(|line| format!("{line}\n"))
        .collect();
    let Person { uid, shell } = person;
    let line = format!("ada:x:{uid}:{uid}::{}:{shell}\n", world.home().display());
    std::fs::write(world.path("passwd"), others + &line).unwrap();
    std::fs::write(world.path("script"), script).unwrap();
    let become_them = if *uid == 0 { "" } else { "setpriv --reuid=$0 --regid=$0 --clear-groups --no-new-privs" };
    let enter =
        format!("mount --bind $1/passwd /etc/passwd && cd / && exec {become_them} env -i PATH=$PATH sh $1/script");
    let mut command = world.program("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("-r");
    }
    command.args(["-m", "sh", "-c", &enter, &uid.to_string()]).arg(world.home());
    command
}

/// The first use on a new computer: an empty environment, an empty home, ssh without `-F`.
#[test]
fn somebody_with_an_empty_home_and_no_environment() {
    needs("setpriv");
    let root = rustix::process::geteuid().is_root();
    for (uid, shell) in [(if root { 12345 } else { 0 }, "/bin/bash"), (0, "/usr/bin/fish")] {
        let world = World::empty();
        // Other users may have no access to the build folder.
        let program = world.path("labctl-ssh-proxy");
        copy_program(&program);
        let script = "
            set -e
            p=$(dirname $0)/labctl-ssh-proxy
            cd /
            id=$($p --local start duo --json | sed -n 's/^  \"id\": \"\\(.*\\)\",/\\1/p')
            $p --local config-ssh --yes >/dev/null
            host=playground-$id
            env -i /usr/bin/ssh $host 'pwd; whoami; exit 3' || echo status $?
            env -i /usr/bin/ssh $host.node-02 'basename $(dirname $PWD)'
            env -i /usr/bin/ssh playground-shell 'basename $(dirname $PWD)'
            echo bytes | env -i /usr/bin/ssh $host 'cat >file'
            env -i /usr/bin/scp -q $host:file $(dirname $0)
            $p --local stop $host
            $p local stop
            cat $(dirname $0)/file
        ";
        let mut command = as_person(&world, &Person { uid, shell }, script);
        if uid != 0 {
            let chown = format!("chown -R {uid}:{uid} {}", world.home().display());
            let _ = world.output(world.program("sh").args(["-c", &chown])).ok();
        }
        let said = world.output(&mut command);
        let text = format!("{}{}", said.out, said.err);
        assert!(said.status.success(), "{text}");
        assert!(text.contains("/node-01/home\nada\nstatus 3\nnode-02\nshell-01\n"), "{text}");
        assert!(said.out.ends_with("bytes\n") && !text.contains("warning"), "{text}");
    }
}

/// Editors pass no environment, so the entries must contain settings that came from variables.
#[test]
fn our_folder_may_be_moved() {
    let world = World::empty();
    let moved = world.path("moved");
    let with = |args: &[&str]| world.output(world.command(args).env("LABCTL_SSH_PROXY_HOME", &moved)).ok();
    let play: serde_json::Value = serde_json::from_str(&with(&["--local", "start", "shell", "--json"])).unwrap();
    with(&["--local", "config-ssh", "--yes"]);
    let host = format!("playground-{}", play["id"].as_str().unwrap());
    assert_eq!(world.ssh(&[&host, "echo in"]).ok(), "in\n");
    // The platform that a connection starts also uses that folder.
    with(&["local", "stop"]);
    assert_eq!(world.ssh(&[&host, "echo in"]).ok(), "in\n");
    assert!(!world.root().exists(), "nothing is where it was not wanted");
    with(&["local", "stop"]);
}

/// A socket's address holds some 100 bytes, and a folder for temporary files may be longer. sshd takes /tmp.
#[test]
fn the_agent_comes_along_whatever_the_folder_for_temporary_files() {
    let mut world = World::empty();
    let long = world.path(&"t".repeat(120));
    std::fs::create_dir(&long).unwrap();
    world.serve_with(&[], &[("TMPDIR", long.to_str().unwrap())]);
    let host = format!("playground-{}", world.playground("shell"));
    let mut ssh = world.program("ssh-agent");
    ssh.args(["ssh", "-A", "-F"]).arg(world.ssh_config()).args([&host, "test -S \"$SSH_AUTH_SOCK\" && echo there"]);
    assert_eq!(world.output(&mut ssh).ok(), "there\n");
}
