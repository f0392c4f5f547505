//! A stop that lasts: the connections that wake a playground, and the refusal of all others.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::support::{PROGRAM, Said, World, at_best, eventually, needs};

/// The default of the setting `reconnect_pause`.
const PAUSE: Duration = Duration::from_secs(120);

/// Connects like an editor: without a terminal to ask on.
fn unattended(world: &World, host: &str) -> Said {
    let mut command = world.program("setsid");
    command.args(["-w", "ssh", "-F"]).arg(world.ssh_config()).args([host, "true"]);
    world.output(&mut command)
}

fn session(world: &World, host: &str) -> Child {
    let mut command = world.program("setsid");
    command.args(["-w", "ssh", "-F"]).arg(world.ssh_config()).args([host, "echo in; sleep 1000"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("it is connected", || {
        let plays = world.json(&["list", "--json"]);
        plays.as_array().unwrap().iter().any(|play| {
            play["connections"].as_array().unwrap().iter().any(|one| one["host"] == host && one["phase"] == "connected")
        })
    });
    child
}

#[test]
fn what_was_stopped_on_purpose_stays_stopped() {
    let mut world = World::with_platform(&[]);
    world.settings("log_level: debug\n");
    let id = world.playground("shell");
    let host = format!("playground-{id}");
    world.ssh(&[&host, "true"]).ok();
    world.local(&["stop", &id]).ok();
    let restarts = world.restarts(&id);
    let acted = world.logged("POST");
    let mut fastest = Duration::MAX;
    for _ in 0..30 {
        let begun = Instant::now();
        let said = unattended(&world, &host).failed(255);
        fastest = fastest.min(begun.elapsed());
        assert!(said.contains("was stopped on purpose"), "{said}");
        assert!(said.contains(&format!("labctl-ssh-proxy --local start {id}")), "{said}");
        assert!(said.contains("Received disconnect from"), "inside the protocol too: {said}");
    }
    assert!(fastest < Duration::from_secs(1), "{fastest:?}");
    assert_eq!((world.state(&id).as_str(), world.restarts(&id)), ("STOPPED", restarts));
    assert_eq!(world.logged("POST"), acted, "a refusal makes no call that wakes");

    let wake = format!("ProxyCommand={PROGRAM} --local connect --wake always {host}");
    world.ssh(&["-o", &wake, &host, "true"]).ok();
    assert_eq!(world.restarts(&id), restarts + 1);
    let wake = format!("ProxyCommand={PROGRAM} --local connect --wake never {host}");
    world.ssh(&["-o", &wake, &host, "true"]).ok();

    // It still counts as stopped on purpose, until `start` clears that.
    world.stop_elsewhere(&id);
    let _ = unattended(&world, &host).failed(255);
    world.local(&["start", &id]).ok();
    world.stop_elsewhere(&id);
    let said = world.ssh(&["-o", &wake, &host, "true"]).failed(255);
    assert!(said.contains("policy is `never`"), "{said}");
    unattended(&world, &host).ok();
}

#[test]
fn a_machine_that_was_stopped_on_purpose_stays_stopped() {
    let mut world = World::with_platform(&[]);
    world.settings("log_level: debug\n");
    let id = world.playground("duo");
    let [first, second] = ["node-01", "node-02"].map(|name| format!("playground-{id}.{name}"));
    let machine = |name: &str| {
        let play = world.api(&format!("/plays/{id}"));
        let machines = play["status"]["machines"].as_array().unwrap().clone();
        machines.iter().find(|machine| machine["name"] == name).unwrap()["state"].as_str().unwrap().to_owned()
    };
    for host in [&first, &second] {
        world.ssh(&[host, "true"]).ok();
    }
    let said = world.local(&["machine", "stop", &id, "node-02"]).ok();
    assert_eq!(said, format!("machine node-02 of duo-{} is stopped\n", &id[..4]));
    assert_eq!((machine("node-01").as_str(), machine("node-02").as_str()), ("RUNNING", "STOPPED"));
    let acted = world.logged("POST");
    for _ in 0..3 {
        let said = unattended(&world, &second).failed(255);
        assert!(
            said.contains(&format!("machine node-02 of playground duo-{} was stopped on purpose", &id[..4])),
            "{said}"
        );
        assert!(said.contains(&format!("labctl-ssh-proxy --local machine restart {id} node-02")), "{said}");
    }
    let connected = world.held(&mut world.command(&["--local", "connect", &second]));
    assert_eq!(connected.code(), 7, "{connected:?}");
    assert_eq!((machine("node-02").as_str(), world.logged("POST")), ("STOPPED", acted), "nothing was asked for");
    unattended(&world, &first).ok();

    // A visit to the other machine says nothing about this one, and one to this machine wants it.
    let visit = |host: &str| world.local(&["ssh", host, "true"]).ok();
    visit(&first);
    let _ = unattended(&world, &second).failed(255);
    visit(&second);
    assert_eq!(machine("node-02"), "RUNNING");

    // So does a restart of the machine. A second stop of it changes nothing.
    for _ in 0..2 {
        world.local(&["machine", "stop", &second]).ok();
    }
    let _ = unattended(&world, &second).failed(255);
    world.local(&["machine", "restart", &id, "node-02"]).ok();
    assert_eq!(world.remembered(&id)["machines"]["node-02"]["stopped"], json!(null));
    let act = json!({"action": "machine.stop", "machine": "node-02"});
    let stop_elsewhere = || {
        world.call("POST", &format!("/plays/{id}/actions"), &act);
        eventually("it is stopped", || machine("node-02") == "STOPPED");
    };
    stop_elsewhere();
    unattended(&world, &second).ok();

    // As does a restart of its playground.
    world.local(&["machine", "stop", &id, "node-02"]).ok();
    world.local(&["restart", &id]).ok();
    stop_elsewhere();
    unattended(&world, &second).ok();

    // A playground that has ended by itself comes back for its other machine, and so does this one.
    world.local(&["machine", "stop", &id, "node-02"]).ok();
    world.stop_elsewhere(&id);
    let said = unattended(&world, &second).failed(255);
    assert!(said.contains(&format!("labctl-ssh-proxy --local start {id}")), "{said}");
    assert_eq!(world.state(&id), "STOPPED");
    unattended(&world, &first).ok();
    unattended(&world, &second).ok();
    assert_eq!(world.remembered(&id)["machines"]["node-02"]["stopped"], json!(null));
}

#[test]
fn a_machine_reboots_and_restarts_with_words_for_each_obstacle() {
    let mut world = World::with_platform(&["--boot-delay", "300ms"]);
    let id = world.playground("duo");
    let shown = format!("duo-{}", &id[..4]);
    let ready = |name: &str| {
        let status = world.api(&format!("/plays/{id}"))["status"].clone();
        let machines = status["machines"].as_array().unwrap().clone();
        let found = machines.into_iter().find(|machine| machine["name"] == name).unwrap();
        assert_eq!(
            (&found["state"], &found["conditions"][0]["status"]),
            (&json!("RUNNING"), &json!("True")),
            "{found}"
        );
        found["conditions"][0]["lastTransitionAt"].as_str().unwrap().to_owned()
    };
    let mut last = ready("node-01");
    for (action, words) in [("reboot", "has rebooted"), ("restart", "is running")] {
        let said = world.local(&["machine", action, &id, "node-01"]).ok();
        assert_eq!(said, format!("machine node-01 of {shown} {words}\n"));
        let now = ready("node-01");
        assert_ne!(now, last, "{action} is over when the machine is ready again");
        last = now;
    }
    world.local(&["machine", "stop", &id, "node-01"]).ok();
    let stopped = world.local(&["machine", "reboot", &id, "node-01"]).failed(7);
    assert!(stopped.contains(&format!("machine restart {id} node-01")), "{stopped}");
    let which = world.local(&["machine", "reboot", &id]).failed(2);
    assert!(which.contains("has 2 machines") && which.contains("name one of them: node-01, node-02"), "{which}");
    let two = world.local(&["machine", "stop", &format!("playground-{id}.node-01"), "node-02"]).failed(2);
    assert!(two.contains("node-02 is another one"), "{two}");
    let none = world.local(&["machine", "stop", &id, "node-03"]).failed(4);
    assert!(none.contains("node-01, node-02"), "{none}");
    world.local(&["stop", &id]).ok();
    for action in ["reboot", "restart"] {
        let said = world.local(&["machine", action, &id, "node-01"]).failed(7);
        assert!(
            said.contains(&format!("playground {shown} is stopped")) && said.contains(&format!("start {id}")),
            "{said}"
        );
    }
    world.local(&["machine", "stop", &id, "node-01"]).ok();
    let shell = world.json(&["start", "shell", "--json"])["id"].as_str().unwrap().to_owned();
    world.local(&["machine", "reboot", &shell]).ok();
}

#[test]
fn each_playground_may_have_its_own_policy() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let host = format!("playground-{id}");
    world.stop_elsewhere(&id);
    world.settings(&format!("playgrounds:\n  shell: {{wake: never}}\n  {}: {{wake: never}}\n", "0".repeat(24)));
    let said = unattended(&world, &host).failed(255);
    assert!(said.contains("policy is `never`"), "{said}");
    world.settings(&format!("wake: never\nplaygrounds:\n  \"{id}\": {{wake: unless-stopped}}\n"));
    unattended(&world, &host).ok();
    world.local(&["stop", &id]).ok();
    world.settings("wake: never\nplaygrounds:\n  shell: {wake: always}\n");
    unattended(&world, &host).ok();
    world.settings("wake: always\n");
    world.elsewhere(&id, "destroy");
    world.until(&id, "DESTROYED");
    unattended(&world, "playground-shell").ok();
    // The client is also told about a damaged settings file.
    world.settings("wake: perhaps\n");
    let said = unattended(&world, &host).failed(255);
    assert!(said.contains("Received disconnect from") && said.contains("settings.yaml"), "{said}");
}

#[test]
fn a_person_in_a_terminal_is_asked() {
    needs("tmux");
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let host = format!("playground-{id}");
    world.ssh(&[&host, "true"]).ok();
    world.local(&["stop", &id]).ok();
    let restarts = world.restarts(&id);
    let socket = world.home().join("tmux");
    let tmux = |args: &[&str]| {
        let mut command = world.program("tmux");
        command.arg("-S").arg(&socket).args(["-f", "/dev/null"]).args(args);
        world.output(&mut command).ok()
    };
    let ssh = format!("ssh -F {} {host} 'echo it is; echo done'; echo 'sta''tus='$?", world.ssh_config().display());
    tmux(&["new-session", "-d", "-x", "150", "-y", "50", "sh"]);
    let screen = || tmux(&["capture-pane", "-p", "-J"]);
    let asks = |answer: &str, then: &str| {
        tmux(&["send-keys", "clear", "Enter"]);
        eventually("the screen is clear", || !screen().contains("status="));
        // A `y` typed before the question does not count as the answer.
        tmux(&["send-keys", "-l", &format!("{ssh}\ny\n")]);
        eventually("it asks", || screen().contains("Start it again? [y/N]"));
        assert!(screen().contains("was stopped on purpose"));
        sleep(Duration::from_millis(300));
        assert!(!screen().contains("status="), "{}", screen());
        tmux(&["send-keys", answer, "Enter"]);
        let found = |screen: &str| screen.contains(then) && screen.contains("status=");
        eventually("it goes on", || found(&screen()));
    };
    asks("n", "status=255");
    assert_eq!((world.state(&id).as_str(), world.restarts(&id)), ("STOPPED", restarts));
    asks("y", "done");
    assert_eq!(world.restarts(&id), restarts + 1);
    assert_eq!(world.remembered(&id)["stopped"], json!(null), "a yes is a deliberate act");
    tmux(&["kill-server"]);
}

/// Checks that attempts with shorter pauses never wake the playground, and that the first one after a full pause does.
fn only_a_pause_helps(world: &World, label: &str, host: &str, is_down: impl Fn() -> bool) {
    for _ in 0..3 {
        let said = unattended(world, host).failed(255);
        assert!(said.contains("has ended while a session was open"), "{said}");
        world.let_pass(label, PAUSE * 2 / 3);
    }
    let said = unattended(world, host).failed(255);
    assert!(said.contains("has ended while a session was open"), "{said}");
    assert!(is_down());
    world.let_pass(label, PAUSE);
    unattended(world, host).ok();
}

#[test]
fn what_expired_under_a_session_is_left_to_a_person() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let host = format!("playground-{id}");
    world.elsewhere(&id, "make_persistent");
    let session = session(&world, &host);
    world.elsewhere(&id, "set_max_play_time");
    assert!(!session.wait_with_output().unwrap().status.success());
    world.until(&id, "STOPPED");
    // Extend its time, or it would expire again at once.
    let minutes = json!({"action": "set_max_play_time", "maxPlayTimeMinutes": 60});
    world.call("POST", &format!("/plays/{id}/actions"), &minutes);
    only_a_pause_helps(&world, &id, &host, || world.state(&id) == "STOPPED");
    assert_eq!(world.restarts(&id), 1);
    // Without an open session, it is woken at once.
    world.stop_elsewhere(&id);
    unattended(&world, &host).ok();
}

#[test]
fn a_session_that_has_not_noticed_its_end_counts() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let host = format!("playground-{id}");
    let mut session = session(&world, &host);
    let mut proxies = world.processes(&host);
    proxies.retain(|pid| {
        std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path.ends_with("labctl-ssh-proxy"))
    });
    assert_eq!(proxies.len(), 1);
    for pid in &proxies {
        assert!(Command::new("kill").args(["-STOP", &pid.to_string()]).status().unwrap().success());
    }
    world.stop_elsewhere(&id);
    let said = unattended(&world, &host).failed(255);
    assert!(said.contains("has ended while a session was open"), "{said}");
    for pid in &proxies {
        assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
    }
    session.wait().unwrap();
    only_a_pause_helps(&world, &id, &host, || world.state(&id) == "STOPPED");
    assert_eq!(world.restarts(&id), 1);
}

#[test]
fn what_was_destroyed_under_a_session_is_not_started_anew() {
    destroyed_under_a_session(|world, id| world.elsewhere(id, "destroy"));
    destroyed_under_a_session(|world, id| drop(world.local(&["destroy", "--yes", id]).ok()));
}

fn destroyed_under_a_session(destroy: fn(&World, &str)) {
    let mut world = World::with_platform(&[]);
    world.configure();
    let session = session(&world, "playground-shell");
    let id = world.json(&["list", "--json"])[0]["id"].as_str().unwrap().to_owned();
    destroy(&world, &id);
    assert!(!session.wait_with_output().unwrap().status.success());
    only_a_pause_helps(&world, "shell", "playground-shell", || world.plays() == 0);
    assert_eq!(world.plays(), 1);
}

/// A stop waits for another client's restart whose answer is slow, so that the restart does not undo the stop.
#[test]
fn a_stop_waits_for_a_wake_that_is_on_its_way() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    world.stop_elsewhere(&id);
    world.local(&["start", &id]).ok();
    let lock = std::fs::File::open(world.root().join(format!("memory.local/{id}.wake.lock"))).unwrap();
    lock.lock().unwrap();
    let mut stop = world.command(&["--local", "stop", &id]).stderr(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(stop.stderr.take().unwrap()).lines().next().unwrap().unwrap();
    assert!(said.contains("waiting for another connection that is waking playground"), "{said}");
    assert_eq!(world.state(&id), "RUNNING", "what becomes of the wake is not known yet");
    drop(lock);
    assert!(stop.wait().unwrap().success());
    assert_eq!(world.state(&id), "STOPPED");
}

#[test]
fn a_client_that_polls_wakes_only_after_a_deliberate_act() {
    let world = World::with_platform(&[]);
    let id = world.json(&["start", "shell", "--json"])["id"].as_str().unwrap().to_owned();
    let host = format!("playground-{id}");
    let poll = |late| {
        let mut command = world.command(&["--local", "connect", &host]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        sleep(late);
        std::io::Write::write_all(&mut stdin, b"SSH-2.0-SSHJ_0.38.0\r\n").unwrap();
        // The client stays until it is told to end.
        child.wait_with_output().unwrap()
    };
    // The start counted as a deliberate act.
    at_best(Duration::from_secs(2), "it leaves", || {
        world.stop_elsewhere(&id);
        let mut command = world.command(&["--local", "connect", &host]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"SSH-2.0-SSHJ_0.38.0\r\n").unwrap();
        world.until(&id, "RUNNING");
        let left = Instant::now();
        drop(child.stdin.take());
        child.wait().unwrap();
        left.elapsed()
    });
    world.stop_elsewhere(&id);
    world.let_pass(&id, Duration::from_secs(11 * 60));
    // A JVM on a busy computer polls late.
    for late in [0, 0, 1000] {
        let output = poll(Duration::from_millis(late));
        assert_eq!(output.status.code(), Some(7));
        assert!(output.stdout.starts_with(b"SSH-2.0-"));
        assert!(String::from_utf8_lossy(&output.stdout).contains("keeps connecting by itself"));
    }
    assert_eq!(world.state(&id), "STOPPED");
}
