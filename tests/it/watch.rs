//! `list --watch`, and all --json output checked against its schema.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{PROGRAM, World, at_best, eventually, fault::closed_port, needs, schema};

/// A running watch and its lines.
struct Watch {
    child: Child,
    lines: Receiver<Value>,
}

impl Watch {
    fn start(world: &World, args: &[&str]) -> Watch {
        Watch::start_with(world, args, &[])
    }

    fn start_with(world: &World, args: &[&str], options: &[&str]) -> Watch {
        let mut child = world
            .command(args)
            .args(["list", "--watch", "--json"])
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (tell, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if tell.send(serde_json::from_str(&line).unwrap()).is_err() {
                    break;
                }
            }
        });
        Watch { child, lines }
    }

    /// Returns the next matching line. Skipped lines must match the schema as well.
    #[track_caller]
    fn until(&self, what: &str, limit: Duration, fits: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + limit;
        let mut last = Value::Null;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("{what} was not told within {limit:?}; the last line was {last}")
            };
            schema::check("watchLine", &line);
            if fits(&line) {
                return line;
            }
            last = line;
        }
    }

    fn kill(mut self, signal: &str) -> i32 {
        let pid = self.child.id().to_string();
        assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
        self.child.wait().unwrap().code().unwrap()
    }
}

fn first(line: &Value) -> &Value {
    &line["playgrounds"][0]
}

const SOON: Duration = Duration::from_secs(5);

/// Waits for the login of the world's session, which is no work of the watch's.
fn logged_in(world: &World) {
    eventually("it is connected", || world.json(&["list", "--json"])[0]["connections"][0]["phase"] == "connected");
}

#[test]
fn own_acts_are_told_at_once_and_the_rest_is_asked_for_rarely() {
    let mut world = World::with_platform(&["-v"]);
    let watch = Watch::start(&world, &["--local"]);
    let line = watch.until("the first line", SOON, |_| true);
    assert_eq!(line["playgrounds"], serde_json::json!([]));
    let began = Instant::now();

    let id = world.playground("shell");
    watch.until("ready", SOON, |line| first(line)["machines"][0]["ready"] == true && first(line)["state"] == "RUNNING");
    world.local(&["rename", &id, "hello"]).ok();
    let line = watch.until("the title", SOON, |line| first(line)["title"] == "hello");
    let before = first(&line)["expiresIn"].as_i64().unwrap();
    world.local(&["extend", &id, "30"]).ok();
    let line = watch.until("the extension", SOON, |line| first(line)["expiresIn"].as_i64() > Some(before + 1000));
    assert_eq!(first(&line)["title"], "hello");

    let mut ssh =
        world.ssh_program("ssh").args([&format!("playground-{id}"), "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    logged_in(&world);
    let line = watch.until("the connection", SOON, |line| {
        first(line)["connections"].as_array().is_some_and(|all| all.iter().any(|one| one["phase"] == "connected"))
    });
    assert_eq!(first(&line)["connections"][0]["machine"], "shell-01");
    drop(ssh.stdin.take());
    ssh.wait().unwrap();
    watch.until("its end", SOON, |line| first(line)["connections"] == serde_json::json!([]));

    world.local(&["stop", &id]).ok();
    watch.until("the stop", SOON, |line| first(line)["state"] == "STOPPED");
    world.local(&["destroy", &id, "--yes"]).ok();
    watch.until("the end", SOON, |line| line["playgrounds"] == serde_json::json!([]));

    // Two different calls, each at most once a second after an action here, and otherwise once in ten seconds.
    let asked = fs::read_to_string(world.home().join("platform.log")).unwrap();
    let asked = asked.lines().filter(|line| line.contains("GET /api/plays: 200")).count();
    assert!(asked > 0);
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    let others = 2 * 12;
    assert!(asked <= 2 * (seconds + 2) + others, "{asked} calls in {seconds} s");
    assert_eq!(watch.kill("-TERM"), 143);
}

#[test]
fn a_change_elsewhere_comes_by_live_message_or_within_ten_seconds() {
    // Long enough for the watch to see the boot, too.
    let mut world = World::with_platform(&["--boot-delay", "8s"]);
    let id = world.playground("shell");
    let watch = Watch::start(&world, &["--local"]);
    watch.until("it", SOON, |line| first(line)["state"] == "RUNNING");
    // An action by another client.
    let act = |action: &str| {
        let status = world
            .program(needs("curl"))
            .args(["-sSf", "--unix-socket"])
            .arg(world.root().join("local/socket"))
            .args(["-H", "content-type: application/json", "-d", action])
            .arg(format!("http://localhost/api/plays/{id}/actions"))
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
    };
    let limit = Duration::from_secs(90);
    at_best(Duration::from_secs(3), "a reboot is told", || {
        let began = Instant::now();
        act(r#"{"action":"machine.reboot","machine":"shell-01"}"#);
        watch.until("the reboot", limit, |line| first(line)["machines"][0]["ready"] == false);
        let told = began.elapsed();
        watch.until("ready again", Duration::from_secs(20), |line| first(line)["machines"][0]["ready"] == true);
        told
    });
    let mut attempts = 0;
    at_best(Duration::from_secs(12), "a title is told", || {
        let began = Instant::now();
        attempts += 1;
        act(&format!(r#"{{"action":"set_title","title":"elsewhere {attempts}"}}"#));
        watch.until("the title", limit, |line| first(line)["title"] == format!("elsewhere {attempts}"));
        began.elapsed()
    });

    // The platform is gone, then back.
    world.stop_platform();
    let line = watch.until("that it does not answer", Duration::from_secs(12), |line| line["type"] == "error");
    assert_eq!(line["kind"], "network");
    assert!(line["hint"].as_str().unwrap().contains("--local"));
    assert!(world.processes("local serve").is_empty(), "a watch does not start it again");
    world.local(&["list"]).ok();
    watch.until("it is back", Duration::from_secs(12), |line| line["type"] == "playgrounds");
    assert_eq!(watch.kill("-HUP"), 129);
}

#[test]
fn it_ends_with_its_reader_and_needs_no_input() {
    let world = World::with_platform(&[]);
    at_best(Duration::from_secs(1), "it has ended", || {
        let mut watch = world.command(&["--local", "list", "--watch", "--json"]);
        let mut child = watch.stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        drop(out);
        let gone = Instant::now();
        assert!(child.wait().unwrap().success());
        gone.elapsed()
    });

    // Standard input is closed, not only empty.
    let program = PROGRAM;
    let script = format!("{program} --local list --watch --json <&- | head -n 1");
    let said = world.output(world.program("sh").args(["-c", &script])).ok();
    schema::check("watchLine", &serde_json::from_str(&said).unwrap());
    eventually("all have left", || world.processes("--watch").is_empty());
}

#[test]
fn without_a_login_it_says_so_and_notices_one() {
    let world = World::empty();
    let watch = Watch::start(&world, &[]);
    let line = watch.until("the error", SOON, |_| true);
    assert_eq!((&line["type"], &line["kind"]), (&"error".into(), &"not-logged-in".into()));
    assert!(line["hint"].as_str().unwrap().contains("login"));
    // No process listens there.
    let address = format!("127.0.0.1:{}", closed_port());
    let folder = world.home().join(".iximiuz/labctl");
    fs::create_dir_all(&folder).unwrap();
    let account = format!("base_url: http://{address}\nsession_id: a\naccess_token: SECRET\n");
    fs::write(folder.join("config.yaml"), account).unwrap();
    let line = watch.until("another error", SOON, |line| line["kind"] != "not-logged-in");
    assert_eq!(line["kind"], "network");
    assert!(!line.to_string().contains("SECRET"));
}

#[test]
fn every_json_output_is_as_its_schema_says() {
    let mut world = World::empty();
    schema::check("localStatus", &serde_json::from_str(&world.run(&["local", "status", "--json"]).ok()).unwrap());
    world.serve(&[]);
    schema::check("playground", &world.json(&["start", "duo", "--json"]));
    let list = world.json(&["list", "--json"]);
    assert_eq!(list[0]["machines"].as_array().unwrap().len(), 2);
    schema::check("list", &list);
    assert!(list[0].get("stoppedOnPurpose").is_none(), "it runs");
    let id = list[0]["id"].as_str().unwrap();
    world.local(&["stop", id]).ok();
    let list = world.json(&["list", "--json"]);
    assert_eq!(list[0]["stoppedOnPurpose"], true);
    schema::check("list", &list);
    // The platform's computer was switched off, which the user did not ask for.
    world.local(&["start", id, "--no-wait"]).ok();
    world.stop_platform();
    world.serve(&[]);
    assert_eq!(world.json(&["list", "--json"])[0]["stoppedOnPurpose"], false);
    schema::check("catalog", &world.json(&["catalog", "--json"]));
    schema::check("whoami", &world.json(&["whoami", "--json"]));
    schema::check("localStatus", &world.json(&["local", "status", "--json"]));
}

#[test]
fn traffic_is_told_to_those_who_ask_for_figures() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let watch = Watch::start(&world, &["--local"]);
    let figures = Watch::start_with(&world, &["--local"], &["--figures"]);
    let mut ssh = world
        .ssh_program("ssh")
        .args([&format!("playground-{id}"), "while :; do echo more; sleep 0.2; done"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    logged_in(&world);
    let received = |line: &Value| first(line)["connections"][0]["received"].as_u64().unwrap_or_default();
    let connected = |line: &Value| first(line)["connections"][0]["phase"] == "connected";
    watch.until("the connection", SOON, connected);
    let begun = received(&figures.until("the connection", SOON, connected));
    // A proxy updates its figures every five seconds.
    figures.until("traffic", SOON * 3, |line| received(line) > begun);
    assert!(watch.lines.try_recv().is_err(), "traffic alone is no change for others");
    ssh.kill().unwrap();
    ssh.wait().unwrap();
}

#[test]
fn a_terminal_that_cannot_be_drawn_on_gets_lines() {
    let mut world = World::with_platform(&["--boot-delay", "2s"]);
    world.playground("shell");
    for terminal in ["TERM=dumb", "TERM=", "-u TERM", "TERM=xterm"] {
        for command in ["list --watch", "restart shell", "port-forward shell -L 0:localhost:22"] {
            let within = |seconds: u32| {
                let line = format!("env {terminal} timeout -s INT {seconds} {PROGRAM} --local {command}");
                let mut script = world.program("script");
                world.output(script.args(["-qec", &line, "/dev/null"])).out
            };
            let mut said = within(4);
            if !said.contains("shell") {
                // A busy computer starts it late.
                said = within(20);
            }
            let draws = terminal == "TERM=xterm";
            assert_eq!(said.contains('\x1b'), draws, "{terminal} {command}: {said:?}");
            assert!(said.contains("shell"), "{terminal} {command}: {said:?}");
        }
    }
}
