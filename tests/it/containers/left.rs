//! The end of a session, of its client, of its container: nothing is left, and each side hears of it.

use std::{
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use super::{Site, others, targets};
use crate::support::{
    Ending, Said,
    engine::{BUSYBOX, Container, Engine, SCRATCH},
    eventually, noise, within,
};

/// Kills clients at random moments: before they are in, and after. One half are ssh, one half are our own program, behind
/// whose back ssh lives on for a moment.
fn kill_clients(engine: &'static Engine, count: usize, limit: Duration) {
    let site = Site::new(engine, "builtin");
    let container = engine.run("left", &["--network", "none", "--shm-size", "512m"], BUSYBOX, &[]);
    let host = site.host(&container.name);
    // A program that stays, one in the background, a terminal, and a transfer.
    let much = site.world.path("much");
    std::fs::write(&much, noise(16 << 20)).unwrap();
    let ways: [&[&str]; 4] =
        [&["sleep", "1000"], &["sleep 1000 & sleep 1000"], &["-tt", "sleep", "1000"], &["cat >/dev/null; sleep 1000"]];
    let random = noise(count * 2);
    // One connection before, so that the helper lies there.
    site.ssh(&[&host, "true"]).ok();
    let one = |n: usize| {
        let mut command = site.client("ssh", &[]);
        let (options, words) = ways[n % 4].split_at(usize::from(ways[n % 4][0] == "-tt"));
        command.args(options).arg(&host).args(words);
        let stdin = std::fs::File::open(&much).unwrap();
        let mut child: Child = command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        sleep(Duration::from_millis(u64::from(random[2 * n]) * 8));
        if n % 2 == 1 {
            for proxy in children(child.id()) {
                let _ = Command::new("kill").args(["-KILL", &proxy.to_string()]).stderr(Stdio::null()).status();
            }
        }
        let _ = child.kill();
        child.wait().unwrap();
        Instant::now()
    };
    let one = &one;
    let latest = std::thread::scope(|scope| {
        // As many at a time as a busy computer starts in the time that passes before they are killed.
        let groups: Vec<_> = (0..4)
            .map(|group| scope.spawn(move || (0..count).filter(|n| n % 4 == group).map(one).max().unwrap()))
            .collect();
        groups.into_iter().map(|group| group.join().unwrap()).max().unwrap()
    });
    within(limit, "nothing is left in the container or on the machine", &mut || {
        container.visitors().is_empty() && site.visits().is_empty()
    });
    let took = latest.elapsed();
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{count} clients killed: nothing left after {} ms", took.as_millis());
    site.leaves_nothing(&container);
    assert_eq!(site.ssh(&[&host, "echo still here"]).ok(), "still here\n");
}

fn children(pid: u32) -> Vec<u32> {
    let listed = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

#[test]
fn killed_clients_leave_nothing() {
    let Some(engine) = Engine::here() else { return };
    kill_clients(engine, 24, Duration::from_secs(60));
}

#[test]
fn killed_clients_leave_nothing_at_any_engine() {
    for (_, engine) in others() {
        kill_clients(engine, 8, Duration::from_secs(60));
    }
}

#[test]
#[ignore = "a named bound, on a computer without other work; scripts/try-containers runs it"]
fn two_hundred_killed_clients_leave_nothing_after_a_second() {
    let engine = Engine::here().expect("root");
    kill_clients(engine, 200, Duration::from_secs(1));
}

/// Ends a container in some way under a session. Returns what the client said, and the time it took.
fn end_container(endpoint: &str, end: impl Fn(&Container)) -> Vec<(String, Said, Duration)> {
    let mut all = Vec::new();
    let others = others().into_iter().map(|(name, engine)| (name, engine, vec!["--network", "none"], SCRATCH));
    for (name, engine, options, image) in targets().into_iter().chain(others) {
        let site = Site::new(engine, endpoint);
        let container = engine.run(name, &options, image, &[]);
        let mut client = site.client("ssh", &[&site.host(&container.name), "/app", "signalled"]);
        let mut child = client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut waiting = [0; 8];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut waiting).unwrap();
        end(&container);
        let start = Instant::now();
        let said = Said::of(child.wait_with_output().unwrap());
        all.push((container.name.clone(), said, start.elapsed()));
        eventually("no process of ours is left", || site.visits().is_empty());
    }
    all
}

#[test]
fn the_client_hears_that_its_container_was_killed() {
    for (name, said, took) in end_container("builtin", Container::kill) {
        assert_eq!(said.code(), 255, "{said:?}");
        // A busy engine does not say in time how it ended.
        assert!(said.err.contains(&name) && said.err.contains("has ended"), "{said:?}");
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "{name} killed: its client knows after {} ms", took.as_millis());
        // The bound is a second.
        assert!(took < Duration::from_secs(20), "{took:?}");
    }
}

#[test]
#[ignore = "a named bound, on a computer without other work; scripts/try-containers runs it"]
fn the_client_hears_it_within_a_second() {
    for endpoint in crate::support::ENDPOINTS {
        for (name, said, took) in end_container(endpoint, Container::kill) {
            assert!(took < Duration::from_secs(1), "{endpoint}: {name}: {took:?}: {said:?}");
            let is_dockers = !["podman", "containerd", "cri"].iter().any(|other| name.starts_with(other));
            assert!(!is_dockers || said.err.contains("137"), "{said:?}");
        }
    }
}

#[test]
fn the_client_hears_that_its_container_has_ended() {
    for (name, said, _) in end_container("builtin", Container::stop) {
        // As above: a busy engine does not say how.
        assert!(said.err.contains(&name) && said.err.contains("has ended"), "{said:?}");
    }
}

/// As under OpenSSH, but that what runs when the client goes is ended.
#[test]
fn what_runs_when_its_client_goes_is_ended_unless_it_is_meant_to_stay() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let container = engine.run("left", &["--network", "none"], BUSYBOX, &[]);
    let words = "(trap '' HUP; exec sleep 1001) & sleep 1002 & sleep 1003 & echo begun; exec /app sleep 1004";
    let mut client = site.client("ssh", &[&site.host(&container.name), words]);
    let mut client = Ending(client.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    std::io::Read::read_exact(client.0.stdout.as_mut().unwrap(), &mut [0; 6]).unwrap();
    let lines = || -> Vec<String> { container.visitors().into_iter().map(|(_, line)| line).collect() };
    eventually("all of them run", || ["1001", "1002", "1003", "1004"].iter().all(|n| lines().join(" ").contains(n)));
    drop(client);
    eventually("only what ignores the end has stayed", || lines() == ["sleep 1001"]);
    container.exec(&[], &["/app", "end-all"]);
    site.leaves_nothing(&container);
}

/// bash becomes the helper, and leaves it the processes that its startup file has put into the background.
#[test]
fn what_the_machines_shell_has_started_lives_on() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let container = engine.run("left", &["--network", "none"], BUSYBOX, &[]);
    let home = site.machine_folder().join("home");
    // The machine itself hangs up what a client that goes has left.
    let bashrc = "(trap '' HUP; exec sleep 1005) </dev/null >/dev/null 2>&1 &\necho $! >>~/started\n";
    std::fs::write(home.join(".bashrc"), bashrc).unwrap();
    assert_eq!(site.ssh(&[&site.host(&container.name), "exit 3"]).code(), 3);
    site.leaves_nothing(&container);
    let started = std::fs::read_to_string(home.join("started")).unwrap();
    let line = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    assert!(!started.is_empty());
    for pid in started.lines() {
        assert_eq!(line(pid).replace('\0', " "), "sleep 1005 ");
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
    }
}
