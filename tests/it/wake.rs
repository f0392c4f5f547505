//! Wakes: all connections share one, it outlives them, and the platform is asked only once. Also its visible signs:
//! status files, standard error, the reasons for an end.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    os::unix::net::{UnixListener, UnixStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use labctl_ssh_proxy::{
    labs::{Labs, net::Dialer, wire::CreatePlay},
    moment::now,
    platform::Platform,
    records::memory::{Memory, WakeRequest},
    settings::Folders,
    ui::notice::Progress,
    wake::{Visitor, Wake},
};
use serde_json::json;

use crate::support::{World, at_best, eventually, noise};

/// Returns the proxies to a host, without the shells that are about to exec one.
fn proxies(world: &World, host: &str) -> Vec<u32> {
    let mut found = world.processes(host);
    found.retain(|pid| is_proxy(*pid));
    found
}

fn is_proxy(pid: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path.ends_with("labctl-ssh-proxy"))
}

fn kill(pid: u32, signal: &str) {
    // A process that is gone already counts as killed.
    let _ = Command::new("kill").args([signal, &pid.to_string()]).stderr(Stdio::null()).status().unwrap();
}

/// Starts ssh without a terminal, and captures its standard error.
fn ssh(world: &World, args: &[&str]) -> Child {
    let mut command = world.program("setsid");
    command.args(["-w", "ssh", "-F"]).arg(world.ssh_config()).args(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn fifty_proxies_half_of_them_killed_ask_for_one_restart() {
    // A busy computer takes longer to kill them all, so attempt it with two delays.
    let in_time = ["12s", "60s"].into_iter().any(half_of_fifty_are_killed_while_it_boots);
    assert!(in_time, "the machine was ready before all were killed that should be");
}

/// Returns false if the machine was ready before half of the proxies were killed.
fn half_of_fifty_are_killed_while_it_boots(boot_delay: &str) -> bool {
    let mut world = World::with_platform(&["--boot-delay", boot_delay]);
    let id = world.json(&["start", "shell", "--no-wait", "--json"])["id"].as_str().unwrap().to_owned();
    world.configure();
    let host = format!("playground-{id}");
    world.ssh(&[&host, "true"]).ok();
    world.stop_elsewhere(&id);
    let all: Vec<Child> = (0..50).map(|_| ssh(&world, &[&host, "echo in"])).collect();
    let mut killed = Vec::new();
    while killed.len() < 25 && !is_ready(&world, &id) {
        // Choose any proxy, new or old, so that they die in all phases.
        let mut proxies = proxies(&world, &host);
        proxies.retain(|pid| !killed.contains(pid));
        if let Some(pid) = proxies.get(noise(64)[killed.len()] as usize % proxies.len().max(1)) {
            kill(*pid, "-KILL");
            killed.push(*pid);
        }
        sleep(Duration::from_millis(u64::from(noise(100)[killed.len() + 30]) / 2));
    }
    let in_time = killed.len() == 25 && !is_ready(&world, &id);
    let ended: Vec<_> = all.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    if !in_time {
        return false;
    }
    let in_ = ended.iter().filter(|output| output.status.success() && output.stdout == b"in\n").count();
    let mut others: Vec<_> = ended
        .iter()
        .filter(|output| !output.status.success())
        .map(|output| String::from_utf8_lossy(&output.stderr))
        .collect();
    others.sort();
    others.dedup();
    assert_eq!(in_, 25, "the killed ones, and others: {others:#?}");
    assert_eq!(world.restarts(&id), 1);
    eventually("nothing is left of the killed ones", || world.json(&["list", "--json"])[0]["connections"] == json!([]));
    true
}

/// Returns true if the first machine runs again. Shortly after the restart request, the old state may still be
/// reported.
fn is_ready(world: &World, id: &str) -> bool {
    let play = world.play(id);
    let conditions = play["status"]["machines"][0]["conditions"].as_array().cloned().unwrap_or_default();
    world.state(id) == "RUNNING" && conditions.iter().any(|one| one["name"] == "Ready" && one["status"] == "True")
}

#[test]
fn starts_by_name_at_once_start_one_playground() {
    let mut world = World::with_platform(&["--boot-delay", "1s"]);
    world.configure();
    let all: Vec<Child> = (0..6).map(|_| ssh(&world, &["playground-shell", "echo in"])).collect();
    for child in all {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.stdout, b"in\n", "{output:?}");
    }
    assert_eq!(world.plays(), 1);
}

#[test]
fn a_stopped_machine_of_a_running_playground_is_restarted_once() {
    let mut world = World::with_platform(&["--boot-delay", "1s"]);
    world.settings("log_level: debug\n");
    let id = world.playground("duo");
    let machine = world.play(&id)["machines"][1]["name"].as_str().unwrap().to_owned();
    let host = format!("playground-{id}.{machine}");
    let body = json!({"action": "machine.stop", "machine": machine});
    world.call("POST", &format!("/plays/{id}/actions"), &body);
    let all: Vec<Child> = (0..5).map(|_| ssh(&world, &[&host, "echo in"])).collect();
    for child in all {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.stdout, b"in\n", "{output:?}");
    }
    assert_eq!(world.logged(&format!("POST for playground {id}")), 1);
    assert_eq!(world.restarts(&id), 0);
}

#[test]
fn a_stop_beats_the_connections_that_wait() {
    // Longer than everything before the stop takes. No connection waits for it.
    let mut world = World::with_platform(&["--boot-delay", "60s"]);
    let id = world.json(&["start", "shell", "--no-wait", "--json"])["id"].as_str().unwrap().to_owned();
    world.configure();
    world.stop_elsewhere(&id);
    let host = format!("playground-{id}");
    for by in ["tool", "elsewhere"] {
        if by == "elsewhere" {
            // Before the connection, which the stop by the tool would refuse.
            world.local(&["start", &id, "--no-wait"]).ok();
            eventually("the one before has left", || world.processes(" connect ").is_empty());
        }
        let waiting = ssh(&world, &["-o", "ConnectTimeout=0", &host, "true"]);
        if by == "tool" {
            eventually("it is being woken", || world.state(&id) == "RUNNING");
            world.local(&["stop", &id]).ok();
        } else {
            eventually("the connection waits", || {
                world.json(&["list", "--json"])[0]["connections"][0]["phase"] == "waking"
            });
            world.stop_elsewhere(&id);
        }
        let output = waiting.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("stopped"), "{by}: {said}");
        assert_eq!(world.state(&id), "STOPPED", "{by}");
    }
}

struct Silent;

impl Progress for Silent {
    fn waiting(&self, _what: &str) {}
}

/// Starts a platform whose list shows a new play only after a while, or never.
fn forgetful(listed_after: Option<Duration>) -> (tempfile::TempDir, Folders, Arc<AtomicUsize>) {
    platform(listed_after, "200 OK")
}

/// The same, with this answer to a start.
fn platform(listed_after: Option<Duration>, started: &'static str) -> (tempfile::TempDir, Folders, Arc<AtomicUsize>) {
    let home = tempfile::Builder::new().prefix("lsp").tempdir_in("/tmp").unwrap();
    let folders = Folders { home: home.path().into(), root: home.path().into(), settings: home.path().join("s") };
    fs::create_dir_all(folders.local()).unwrap();
    let listener = UnixListener::bind(folders.socket()).unwrap();
    let made = Arc::new(AtomicUsize::new(0));
    let (count, began) = (Arc::clone(&made), Instant::now());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let count = Arc::clone(&count);
            std::thread::spawn(move || {
                answer(stream.unwrap(), &count, listed_after.map(|after| began + after), started)
            });
        }
    });
    (home, folders, made)
}

fn answer(stream: UnixStream, made: &AtomicUsize, listed_from: Option<Instant>, started: &str) {
    let play = json!({"id": "1".repeat(24), "playground": {"name": "docker"}, "machines": [{"name": "m"}],
        "status": {"stateEvents": [{"state": "RUNNING"}]}});
    let mut input = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut request = String::new();
        if input.read_line(&mut request).unwrap_or(0) == 0 {
            return;
        }
        let (mut line, mut length) = (String::new(), 0);
        while input.read_line(&mut line).unwrap() > 2 {
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        input.read_exact(&mut vec![0; length]).unwrap();
        let mut status = "200 OK";
        let body = if request.starts_with("POST /api/plays ") {
            status = started;
            // Long enough for the others to be in the middle of their own requests.
            sleep(Duration::from_millis(200));
            made.fetch_add(1, Ordering::SeqCst);
            play.to_string()
        } else if request.starts_with("GET /api/plays/") {
            play.to_string()
        } else if listed_from.is_some_and(|from| Instant::now() > from) {
            json!([play]).to_string()
        } else {
            "[]".to_owned()
        };
        write!(&stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    }
}

async fn start(folders: Folders) -> String {
    let labs = Labs::embedded(Dialer::socket(folders.socket()));
    let memory = Memory::of(&folders, Platform::Local);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let wake = Wake { labs: &labs, memory: &memory, progress: &Silent, allowed: true, decided: now(), deadline };
    wake.start_once(&CreatePlay::of("docker")).await.unwrap().id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_lags_makes_no_second_playground() {
    let (_home, folders, made) = forgetful(None);
    let all: Vec<_> = (0..10).map(|_| tokio::spawn(start(folders.clone()))).collect();
    for one in all {
        assert_eq!(one.await.unwrap(), "1".repeat(24));
    }
    assert_eq!(made.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_a_killed_one_started_is_waited_for() {
    let (_home, folders, made) = forgetful(Some(Duration::from_secs(1)));
    let asked = WakeRequest { at: now(), upon: String::new(), sent: false, lost: false, made: None };
    Memory::of(&folders, Platform::Local).change("docker", |record| record.wake = Some(asked)).unwrap();
    assert_eq!(start(folders).await, "1".repeat(24));
    assert_eq!(made.load(Ordering::SeqCst), 0);
}

/// The answer was lost, as when a gateway gave up: the platform may carry the request out much later.
#[tokio::test]
async fn what_may_have_been_started_is_waited_for() {
    let (_home, folders, made) = forgetful(Some(Duration::from_secs(2)));
    let asked = WakeRequest { at: now() - 30_000, upon: String::new(), sent: false, lost: true, made: None };
    Memory::of(&folders, Platform::Local).change("docker", |record| record.wake = Some(asked)).unwrap();
    assert_eq!(start(folders).await, "1".repeat(24));
    assert_eq!(made.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_has_not_been_started_in_a_minute_is_started() {
    let (_home, folders, made) = forgetful(None);
    let asked = WakeRequest { at: now() - 58_000, upon: String::new(), sent: false, lost: true, made: None };
    Memory::of(&folders, Platform::Local).change("docker", |record| record.wake = Some(asked)).unwrap();
    start(folders).await;
    assert_eq!(made.load(Ordering::SeqCst), 1);
}

/// Starts by name, and by `start`, at a platform whose gateway answers 504 and which makes the playground later.
#[tokio::test]
async fn a_start_whose_answer_is_lost_is_looked_for() {
    for new in [false, true] {
        let (_home, folders, made) = platform(Some(Duration::from_secs(4)), "504 Gateway Timeout");
        let labs = Labs::embedded(Dialer::socket(folders.socket()));
        let memory = Memory::of(&folders, Platform::Local);
        let wake = Wake::wanted(&labs, &memory, &Silent, Duration::from_secs(60));
        let play = if new {
            wake.start_new(&CreatePlay::of("docker")).await
        } else {
            wake.start_once(&CreatePlay::of("docker")).await
        };
        assert_eq!((play.unwrap().id, made.load(Ordering::SeqCst)), ("1".repeat(24), 1), "new: {new}");
    }
}

/// Whoever repeats a start that may have been carried out would have two.
#[tokio::test]
async fn a_start_that_may_have_been_carried_out_says_so() {
    let (_home, folders, made) = platform(None, "504 Gateway Timeout");
    let labs = Labs::embedded(Dialer::socket(folders.socket()));
    let memory = Memory::of(&folders, Platform::Local);
    // The wait is never longer than the caller's patience.
    let wake = Wake::wanted(&labs, &memory, &Silent, Duration::from_secs(3));
    for wake in [
        wake.start_new(&CreatePlay::of("docker")).await,
        wake.start_once(&CreatePlay::of("docker")).await,
        wake.start_once(&CreatePlay::of("docker")).await,
    ] {
        let error = wake.unwrap_err();
        assert!(error.message().contains("it is not known whether playground docker was started"), "{error}");
        assert!(error.hint().unwrap().contains("it may have been started"), "{error}");
    }
    assert_eq!(made.load(Ordering::SeqCst), 1, "the others wait for what the first has left");
}

/// The lines about a wait, as they are told: an asterisk stands before trouble.
#[derive(Default)]
struct Told(std::cell::RefCell<Vec<String>>);

impl Progress for Told {
    fn waiting(&self, what: &str) {
        self.0.borrow_mut().push(what.to_owned());
    }

    fn trouble(&self, what: &str) {
        self.0.borrow_mut().push(format!("*{what}"));
    }
}

/// A machine that nothing is known of is not said to be booting.
#[tokio::test]
async fn a_route_that_fails_during_a_wake_is_told() {
    let home = tempfile::Builder::new().prefix("lsp").tempdir_in("/tmp").unwrap();
    let folders = Folders { home: home.path().into(), root: home.path().into(), settings: home.path().join("s") };
    fs::create_dir_all(folders.local()).unwrap();
    let listener = UnixListener::bind(folders.socket()).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map(Result::unwrap) {
            std::thread::spawn(move || {
                // Long enough for the wait to be told.
                sleep(Duration::from_millis(1300));
                let _ = write!(&stream, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                let _ = (&stream).read(&mut [0; 4096]);
            });
        }
    });
    let (labs, memory) = (Labs::embedded(Dialer::socket(folders.socket())), Memory::of(&folders, Platform::Local));
    let told = Told::default();
    let wake = Wake::wanted(&labs, &memory, &told, Duration::from_secs(6));
    let visitor = Visitor { machine: "m", user: "root", key: "" };
    let play = serde_json::from_value(json!({"id": "1".repeat(24), "machines": [{"name": "m"}],
        "status": {"stateEvents": [{"state": "RUNNING"}]}}));
    let error = wake.tunnel(play.unwrap(), visitor).await.unwrap_err();
    assert!(error.message().contains("502"), "{error}");
    let told = told.0.into_inner();
    let first = told.iter().position(|line| line.starts_with('*')).unwrap();
    assert!(first <= 1 && told[first..].iter().all(|line| line.starts_with('*') && line.contains("502")), "{told:?}");
}

#[tokio::test]
async fn what_a_killed_one_did_not_start_is_started() {
    let (_home, folders, made) = forgetful(None);
    let asked = WakeRequest { at: now(), upon: String::new(), sent: false, lost: false, made: None };
    Memory::of(&folders, Platform::Local).change("docker", |record| record.wake = Some(asked)).unwrap();
    start(folders).await;
    assert_eq!(made.load(Ordering::SeqCst), 1);
}

#[test]
fn an_orphan_is_gone_in_a_second_in_each_phase() {
    let mut world = World::with_platform(&["--boot-delay", "20s"]);
    let id = world.json(&["start", "shell", "--no-wait", "--json"])["id"].as_str().unwrap().to_owned();
    let host = format!("playground-{id}");
    // A platform that does not answer.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = world.home().join(".iximiuz/labctl/config.yaml");
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    fs::write(config, format!("base_url: {url}\nsession_id: a\naccess_token: b\n")).unwrap();
    let orphan = |options: &[&str], phase: &str| {
        at_best(Duration::from_secs(1), &format!("an orphan is gone, {phase}"), || {
            let mut command = world.command(options);
            command.args(["connect", &host]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            stdin.write_all(b"SSH-2.0-test\r\n").unwrap();
            let mut seen = || {
                let folder = fs::read_dir(world.root().join("live")).into_iter().flatten();
                let mut statuses = folder.filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok());
                statuses.any(|text| text.contains(&format!("\"phase\":\"{phase}\"")))
            };
            eventually(phase, &mut seen);
            let left = Instant::now();
            // The death of a client leaves only the ends of two pipes.
            drop((stdin, child.stdout.take()));
            child.wait().unwrap();
            let gone = left.elapsed();
            assert!(!seen(), "its status file is gone too");
            gone
        });
    };
    orphan(&[], "finding");
    orphan(&["--local"], "waking");
    eventually("the machine is ready", || {
        world.play(&id)["status"]["machines"][0]["conditions"][0]["status"] == "True"
    });
    // This client sends only its first line, so the key exchange never ends.
    orphan(&["--local"], "opening");
    world.configure();
    at_best(Duration::from_secs(1), "the connected one is gone", || {
        let mut session = ssh(&world, &[&host, "sleep 100"]);
        eventually("it is connected", || world.json(&["list", "--json"])[0]["connections"][0]["phase"] == "connected");
        let proxies = proxies(&world, &host);
        assert_eq!(proxies.len(), 1);
        let ssh_pid = world.processes(&format!("ssh -F {}", world.ssh_config().display()));
        let left = Instant::now();
        ssh_pid.into_iter().for_each(|pid| kill(pid, "-KILL"));
        eventually("it is gone", || proxies.iter().all(|pid| !is_proxy(*pid)));
        let gone = left.elapsed();
        session.wait().unwrap();
        gone
    });
}

#[test]
fn standard_error_may_be_closed_or_full() {
    let mut world = World::with_platform(&["--boot-delay", "2s"]);
    let id = world.playground("shell");
    let host = format!("playground-{id}");
    for redirection in ["2>&-", "2>&9"] {
        // A proxy ends a moment after its ssh. Stopping the playground earlier would interrupt an open session.
        eventually("no session is left", || world.processes(" connect ").is_empty());
        world.stop_elsewhere(&id);
        // File descriptor 9 is a full pipe without a reader.
        let script = format!(
            "mkfifo full; exec 8<>full 9>full; dd if=/dev/zero of=full bs=4096 count=99 oflag=nonblock 2>/dev/null; \
             exec setsid -w ssh -q -F {} {host} echo in {redirection}; rm full",
            world.ssh_config().display()
        );
        let said = world.output(world.program("bash").args(["-c", &script]).stdin(Stdio::null()));
        assert_eq!(said.ok(), "in\n", "{redirection}");
        let _ = fs::remove_file(world.home().join("full"));
    }
    assert_eq!(world.restarts(&id), 2);
}

#[test]
fn the_status_shows_a_wait_and_a_restart_is_told() {
    let mut world = World::with_platform(&["--boot-delay", "8s"]);
    let id = world.playground("shell");
    let host = format!("playground-{id}");
    world.ssh(&[&host, "true"]).ok();
    world.stop_elsewhere(&id);
    let waking = ssh(&world, &[&host, "true"]);
    eventually("the wait is listed", || {
        let connection = world.json(&["list", "--json"])[0]["connections"][0].clone();
        let waits = connection["message"].as_str().is_some_and(|message| message.contains("waiting for machine"));
        let is_openssh = connection["client"].as_str().is_some_and(|client| client.contains("OpenSSH"));
        connection["phase"] == "waking" && waits && is_openssh
    });
    let output = waking.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("waiting for machine"), "{said}");
    assert!(!said.contains("has been restarted"), "this connection woke it: {said}");
    assert_eq!(world.ssh(&[&host, "true"]).err, "");
    world.local(&["restart", &id]).ok();
    let after = world.ssh(&[&host, "true"]);
    assert!(after.err.contains("has been restarted since the last connection"), "{after:?}");
    assert_eq!(world.ssh(&[&host, "true"]).err, "");
}

#[test]
fn what_ended_a_session_is_said() {
    // With the built-in server, ssh would end the proxy before its own report.
    let mut world = World::with_platform(&["--endpoint", "sshd"]);
    let id = world.playground("shell");
    let host = format!("playground-{id}");
    world.elsewhere(&id, "make_persistent");
    for (action, why) in [("set_max_play_time", "was stopped"), ("stop", "was stopped"), ("destroy", "was destroyed")] {
        if world.state(&id) == "STOPPED" {
            let minutes = json!({"action": "set_max_play_time", "maxPlayTimeMinutes": 60});
            world.call("POST", &format!("/plays/{id}/actions"), &minutes);
            world.local(&["start", &id]).ok();
        }
        let session = ssh(&world, &[&host, "echo in; sleep 100"]);
        eventually("it is connected", || world.json(&["list", "--json"])[0]["connections"][0]["phase"] == "connected");
        world.elsewhere(&id, action);
        let output = session.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(&format!("playground shell-{} {why}", &id[..4])), "{action}: {said}");
        if action != "destroy" {
            world.until(&id, "STOPPED");
        }
    }
}

#[test]
fn an_end_that_is_near_is_told() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let host = format!("playground-{id}");
    let minutes = json!({"action": "set_max_play_time", "maxPlayTimeMinutes": 4});
    world.call("POST", &format!("/plays/{id}/actions"), &minutes);
    let session = ssh(&world, &[&host, "sleep 100"]);
    eventually("the status warns", || {
        let message = world.json(&["list", "--json"])[0]["connections"][0]["message"].clone();
        let says = |word: &str| message.as_str().is_some_and(|message| message.contains(word));
        says("will be erased in") && says("extend") && says(&format!("labctl-ssh-proxy --local persist {id}"))
    });
    assert_eq!(world.logged("will be erased in"), 1);
    world.elsewhere(&id, "stop");
    let said = session.wait_with_output().unwrap();
    assert!(!String::from_utf8_lossy(&said.stderr).contains("will be erased in"), "there is no terminal to say it on");
}
