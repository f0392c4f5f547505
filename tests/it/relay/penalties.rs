//! The connections that reach a machine's sshd, by the log of a real one. Since OpenSSH 9.8 it penalizes a source that
//! connects without logging in (`PerSourcePenalties`), and all that comes through tunnels has the same source.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{World, eventually, needs, write_program};

/// A platform whose machines have one sshd each that listens, as a real machine's does: the program that the platform
/// starts for each connection passes it on to that one. Its log stands beside its configuration.
fn world_with(sshd: &Path) -> World {
    needs("socat");
    let mut world = World::empty();
    let folder = world.path("sbin");
    fs::create_dir_all(&folder).unwrap();
    let sshd = sshd.display();
    let program = format!(
        "#!/bin/sh\n\
         # sshd -i -f CONFIG -E LOG\n\
         folder=${{3%/*}}\n\
         exec 9>$folder/sshd.lock; flock 9\n\
         if [ ! -e $folder/sshd.port ]; then\n\
           port=$(python3 -c 'import socket; s = socket.create_server((\"127.0.0.1\", 0)); print(s.getsockname()[1])')\n\
           setsid {sshd} -D -f \"$3\" -o LogLevel=VERBOSE -o ListenAddress=127.0.0.1:$port -E $folder/whole.log \
             </dev/null >/dev/null 2>&1 9>&- &\n\
           echo $! > $folder/sshd.pid\n\
           until grep -q listening $folder/whole.log; do sleep 0.05; done\n\
           echo $port > $folder/sshd.port\n\
         fi\n\
         flock -u 9; exec 9>&-\n\
         exec socat - TCP:127.0.0.1:$(cat $folder/sshd.port)\n"
    );
    write_program(&folder.join("sshd"), &program.replace("grep -q listening", "grep -qs listening"));
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", folder.display());
    world.serve_with(&["--endpoint", "sshd"], &[("PATH", &path)]);
    world
}

/// The text of this file of each machine.
fn texts(plays: &Path, id: &str, name: &str) -> Vec<String> {
    let machines = fs::read_dir(plays.join(id)).into_iter().flatten().flatten();
    machines.filter_map(|machine| fs::read_to_string(machine.path().join(name)).ok()).collect()
}

fn log(world: &World, id: &str) -> String {
    texts(&world.root().join("local/plays"), id, "whole.log").concat()
}

/// The servers that listen for a playground's machines. The platform does not know them, so they are ended with this.
struct Listening(PathBuf, String);

impl Drop for Listening {
    fn drop(&mut self) {
        for pid in texts(&self.0, &self.1, "sshd.pid") {
            if let Some(pid) = pid.trim().parse().ok().and_then(Pid::from_raw) {
                // It may have ended.
                let _ = kill_process(pid, Signal::TERM);
            }
        }
    }
}

/// Starts a playground, visits it in several ways, and looks at what its sshd has seen.
fn no_connection_is_without_a_login(sshd: &Path) -> String {
    let mut world = world_with(sshd);
    let id = world.playground("shell");
    let _listening = Listening(world.root().join("local/plays"), id.clone());
    let host = format!("playground-{id}");
    let count = |words: &str| log(&world, &id).matches(words).count();
    let started = count("Connection from 127.0.0.1");
    // The host keys are learnt, and the relay is placed.
    assert!(started <= 2, "a start makes {started} connections: {}", log(&world, &id));
    for _ in 0..5 {
        let _ = world.ssh(&[&host, "true"]).ok();
    }
    let visited = count("Connection from 127.0.0.1");
    assert!(visited <= started + 6, "five visits: {}", log(&world, &id));
    // Long sessions. The first one places the relay, unless the start has done so.
    let known = || fs::read_dir(world.root().join("relays")).into_iter().flatten().count();
    let placings = if known() > 0 { 0 } else { 1 };
    for round in 0..3 {
        let mut long = world.ssh_program("ssh");
        let mut long = long.args(["-N", &host]).spawn().unwrap();
        eventually("a relay is known", || known() > 0);
        // The first one comes behind the placing. Killed before, it would be a connection without a login.
        eventually("the session is there", || count("Accepted publickey") == visited + placings + 1 + round);
        let _ = long.kill();
        let _ = long.wait();
    }
    // The last login may be under way.
    let (made, accepted) = (|| count("Connection from 127.0.0.1"), || count("Accepted publickey"));
    let since = Instant::now();
    while made() != accepted() {
        assert!(since.elapsed() < Duration::from_secs(20), "{} of {}: {}", accepted(), made(), log(&world, &id));
        thread::sleep(Duration::from_millis(50));
    }
    let all = log(&world, &id);
    let connections = count("Connection from 127.0.0.1");
    assert!(connections <= visited + 4, "a relay is one connection, and each session: {all}");
    let is_wrong = |line: &&str| {
        let no_login = ["kex_exchange_identification", "srclimit_penalise", "Not allowed", "Timeout before"];
        line.ends_with("[preauth]") && !line.starts_with("Postponed") || no_login.iter().any(|what| line.contains(what))
    };
    let wrong: Vec<&str> = all.lines().filter(is_wrong).collect();
    assert!(wrong.is_empty(), "{wrong:?}: {all}");
    all
}

#[test]
fn no_connection_to_sshd_is_without_a_login() {
    let _ = no_connection_is_without_a_login(&needs("sshd"));
}

/// Against an OpenSSH that has penalties, whose path is in `LABCTL_SSH_PROXY_SSHD`.
#[test]
#[ignore = "needs an OpenSSH of 9.8 or later"]
fn an_sshd_with_penalties_has_nothing_to_penalize() {
    let sshd = std::env::var_os("LABCTL_SSH_PROXY_SSHD").expect("the path of an sshd");
    let _ = no_connection_is_without_a_login(Path::new(&sshd));
}
