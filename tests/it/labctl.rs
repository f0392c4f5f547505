//! The platform's own client, labctl, as the judge: each of its commands about playgrounds runs on the embedded
//! platform, and prints the same values as ours for the same playground.

mod learning;
mod life;
mod ports;
mod start;

use std::{
    fs,
    io::Read,
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::support::{
    Ending, Said, World, eventually, free_port,
    labs::{acceptor, take_tls_off},
    needs,
};

/// labctl, logged into an embedded platform behind TLS.
struct Labctl {
    world: World,
    program: PathBuf,
    certificate: PathBuf,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Labctl {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Labctl {
    fn new(options: &[&str]) -> Labctl {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let front = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let base = format!("https://localhost:{}", front.local_addr().unwrap().port());
        let listen = ["--listen", "127.0.0.1:0", "--public-url", &base];
        let world = World::with_platform(&[&listen[..], options].concat());
        let platform = world.json(&["local", "status", "--json"])["listen"].as_str().unwrap().to_owned();
        let certificate = world.path("certificate.pem");
        runtime.spawn(take_tls_off(front, acceptor(&["localhost"], &certificate), platform));
        let credentials = fs::read(world.root().join("local/credentials.json")).unwrap();
        let credentials: serde_json::Value = serde_json::from_slice(&credentials).unwrap();
        let text = |name: &str| credentials[0][name].as_str().unwrap();
        let home = world.path(".iximiuz/labctl");
        fs::create_dir_all(&home).unwrap();
        let config = format!(
            "base_url: {base}\napi_base_url: {base}/api\nsession_id: {}\naccess_token: {}\nplays_dir: {}\n\
             ssh_identity_file: {}\n",
            text("id"),
            text("accessToken"),
            home.join("plays").display(),
            world.path(".ssh/iximiuz_labs_user").display()
        );
        fs::write(home.join("config.yaml"), config).unwrap();
        // Creates the key that labctl sends, as labctl's own login would.
        let _ = world.output(world.command(&["config-ssh", "--yes"]).env("SSL_CERT_FILE", &certificate)).ok();
        Labctl { world, program: needs("labctl"), certificate, runtime: Some(runtime) }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.world.program(&self.program);
        command.env("SSL_CERT_FILE", &self.certificate).args(arguments);
        command
    }

    fn said(&self, arguments: &[&str]) -> Said {
        self.world.output(&mut self.command(arguments))
    }

    fn run(&self, arguments: &[&str]) -> String {
        self.said(arguments).ok()
    }

    /// Checks that the command is refused, with these words.
    #[track_caller]
    fn refused(&self, arguments: &[&str], words: &str) {
        let said = self.said(arguments);
        assert!(!said.status.success() && said.err.contains(words), "{said:?}");
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.run(arguments)).unwrap()
    }

    /// Waits until less than the full 8 hours is left, because labctl rounds to the second and we truncate.
    fn is_no_longer_whole(&self) {
        eventually("a part of the time is over", || {
            self.world.json(&["list", "--json"])[0]["expiresIn"].as_i64().is_some_and(|left| left < 8 * 3600 - 1)
        });
    }

    fn start(&self, arguments: &[&str]) -> String {
        self.run(&[&["playground", "start", "--quiet"], arguments].concat()).trim().to_owned()
    }
}

#[test]
#[ignore = "needs the real labctl in PATH: scripts/test runs it"]
fn labctl_waits_for_init_tasks_and_lists_them() {
    let labctl = Labctl::new(&["--init-task", "cluster=touch cluster"]);
    let id = labctl.start(&["shell"]);
    assert!(labctl.world.machine_home(&id, "shell-01").join("cluster").exists(), "start waits for the tasks");
    let tasks = labctl.run(&["playground", "tasks", &id]);
    for name in ["inspect", "cluster"] {
        assert!(tasks.lines().any(|line| line.contains(name) && line.contains("completed")), "{tasks}");
    }
    for wait in [&["wait", &id][..], &["wait", "--init-only", &id]] {
        assert!(labctl.said(&[&["playground"], wait].concat()).status.success());
    }
    let broken = labctl.start(&["broken", "--skip-wait-init"]);
    let waited = labctl.said(&["playground", "wait", "--init-only", &broken]);
    assert!(waited.err.contains("tasks failed"), "{waited:?}");
    let tasks = labctl.run(&["playground", "tasks", &broken]);
    for (name, status) in [("inspect", "completed"), ("fetch", "failed"), ("unpack", "blocked")] {
        assert!(tasks.lines().any(|line| line.contains(name) && line.contains(status)), "{tasks}");
    }
    let verified = labctl.start(&["verified"]);
    let refused = labctl.said(&["ssh", &verified, "--machine", "verifier", "--", "true"]);
    assert!(refused.err.contains("Machine does not allow SSH access"), "{refused:?}");
}

#[test]
#[ignore = "needs the real labctl in PATH: scripts/test runs it"]
fn labctl_shows_times_and_ends() {
    let labctl = Labctl::new(&[]);
    let id = labctl.start(&["shell"]);
    labctl.is_no_longer_whole();
    assert!(labctl.run(&["playground", "list"]).contains("expires in 7 hours"));
    let lifetime = labctl.run(&["playground", "lifetime", &id]);
    assert!(lifetime.starts_with("8h0m0s (expires in ") && lifetime.contains("7h59m"), "{lifetime}");
    let _ = labctl.run(&["playground", "lifetime", &id, "3h"]);
    assert!(labctl.run(&["playground", "lifetime", &id]).starts_with("3h0m0s (expires in "));
    let _ = labctl.run(&["playground", "stop", &id]);
    // labctl looks for a title among the persistent plays.
    let title = format!("shell-{}", &id[..4]);
    let _ = labctl.run(&["playground", "restart", &title]);
    let _ = labctl.run(&["playground", "destroy", &id]);
    assert!(!labctl.run(&["playground", "list"]).contains(&id));
    assert!(labctl.run(&["playground", "list", "--all"]).contains("DESTROYED"));
    assert!(labctl.run(&["playground", "catalog", "--quiet"]).contains("alpine"));
    assert!(!labctl.run(&["playground", "catalog", "--quiet", "--filter", "popular"]).contains("alpine"));
    let _ = labctl.run(&["playground", "region", "ap"]);
    assert_eq!(labctl.run(&["playground", "region"]).trim(), "ap");
}

#[test]
#[ignore = "needs the real labctl in PATH: scripts/test runs it"]
fn labctl_reads_consoles_and_journals() {
    let labctl = Labctl::new(&[]);
    let id = labctl.start(&["shell"]);
    let console = labctl.run(&["playground", "machine", "console", &id, "shell-01"]);
    assert!(console.starts_with("===== boot-1 =====\n") && console.contains("inspect: completed"), "{console}");
    let mut reading = labctl.command(&["playground", "machine", "journal", &id, "shell-01", "--lines", "100"]);
    let log = labctl.world.path("journal");
    let reading = reading.stdout(fs::File::create(&log).unwrap()).stderr(Stdio::null()).spawn().unwrap();
    let mut reading = Ending(reading);
    let journal = || fs::read_to_string(&log).unwrap();
    eventually("past lines", || journal().contains("inspect: completed"));
    let _ = labctl.run(&["playground", "machine", "reboot", &id, "shell-01"]);
    eventually("lines to come", || journal().matches("ready").count() == 2);
    let _ = labctl.run(&["playground", "stop", &id]);
    assert!(reading.0.wait().unwrap().success(), "it ends with the playground");
    assert!(journal().ends_with("stopped\n"), "{}", journal());
    let refused = labctl.said(&["playground", "machine", "journal", &id, "shell-01", "--unit", "sshd"]);
    assert!(!refused.status.success() && refused.err.contains("no systemd"), "{refused:?}");
}

#[test]
#[ignore = "needs the real labctl in PATH: scripts/test runs it"]
fn labctl_exposes_and_scans() {
    let labctl = Labctl::new(&["--init-task", "web=exec python3 -u -m http.server --bind 127.0.0.1 0 >web"]);
    let id = labctl.start(&["shell", "--skip-wait-init"]);
    let _ = labctl.run(&["expose", "port", &id, "8080"]);
    let listed = labctl.run(&["expose", "list", &id]);
    let port = listed.lines().find(|line| line.contains("http://shell-01:8080")).unwrap();
    assert!(labctl.said(&["expose", "remove", &id, "unknown"]).err.contains("unknown"));
    let _ = labctl.run(&["expose", "remove", &id, port.split_whitespace().next().unwrap()]);
    assert!(!labctl.run(&["expose", "list", &id]).contains("8080"));
    assert!(labctl.said(&["expose", "shell", &id]).err.contains("no web terminals"));
    if cfg!(target_os = "linux") {
        let web = labctl.world.machine_home(&id, "shell-01").join("web");
        let serving = || fs::read_to_string(&web).unwrap_or_default();
        eventually("a server", || serving().contains("port "));
        let words = serving();
        let number = words.split("port ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        let scanned = labctl.run(&["expose", "scan", &id]);
        assert!(scanned.lines().any(|line| line.contains(&number) && line.ends_with("HTTP")), "{number}: {scanned}");
    }
}

/// Parses a Go duration of hours, minutes and seconds (`7h59m58s`) into seconds.
fn seconds(text: &str) -> i64 {
    let mut rest = text;
    let mut total = 0;
    for (unit, worth) in [('h', 3600), ('m', 60), ('s', 1)] {
        if let Some((number, behind)) = rest.split_once(unit) {
            total += number.parse::<i64>().unwrap() * worth;
            rest = behind;
        }
    }
    total
}

#[test]
#[ignore = "needs the real labctl in PATH: scripts/test runs it"]
fn labctl_prints_what_ours_prints() {
    let labctl = Labctl::new(&["--init-task", "cluster=sleep 100"]);
    let world = &labctl.world;
    let id = labctl.start(&["duo", "--title", "Ada's box", "--skip-wait-init"]);
    eventually("a task runs", || world.json(&["tasks", &id, "--json"])[0]["status"] == "running");
    let ours = || world.json(&["list", "--all", "--json"])[0].clone();
    let theirs = || labctl.json(&["playground", "list", "--all", "--output", "json"])[0].clone();

    // The remaining time, to the second, in labctl's three forms; and the lifetime.
    labctl.is_no_longer_whole();
    let left = ours()["expiresIn"].as_i64().unwrap();
    let is_left =
        |seconds: i64, what: &str| assert!((left - 20..=left + 1).contains(&seconds), "{what}: {seconds} of {left}");
    is_left(theirs()["expiresIn"].as_i64().unwrap() / 1000, "list");
    is_left(
        labctl.json(&["playground", "status", &id, "--output", "json"])["expiresIn"].as_i64().unwrap() / 1000,
        "status",
    );
    let lifetime = labctl.run(&["playground", "lifetime", &id]);
    is_left(seconds(lifetime.split("expires in ").nth(1).unwrap().trim_end().trim_end_matches(')')), "lifetime");
    let hours = left / 3600;
    let table = labctl.run(&["playground", "list"]);
    assert!(table.contains(&format!("RUNNING (expires in {hours} hours from now)")), "{table}");
    assert!(world.local(&["list"]).ok().contains(&format!("{hours}h")));
    // labctl shows our extension.
    let _ = world.local(&["extend", &id, "60"]).ok();
    assert!(labctl.run(&["playground", "lifetime", &id]).starts_with("9h0m0s (expires in 8h59m"));
    let _ = labctl.run(&["playground", "lifetime", &id, "3h"]);
    assert!(world.local(&["list"]).ok().contains("2h59m"));

    // Tasks, machines, title.
    let tasks: Value = labctl.json(&["playground", "tasks", &id, "--output", "json"]);
    let table = labctl.run(&["playground", "tasks", &id]);
    for task in world.json(&["tasks", &id, "--json"]).as_array().unwrap() {
        let name = task["name"].as_str().unwrap();
        let row: Vec<&str> = table.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().collect();
        let text = |member: &str| task[member].as_str().unwrap().to_owned();
        assert_eq!(
            row,
            [name, &text("machine"), &text("status"), &task["init"].to_string(), &task["helper"].to_string()]
        );
        assert_eq!(tasks[name]["machine"], task["machine"]);
    }
    let machines = labctl.run(&["playground", "machines", &id]);
    for machine in ours()["machines"].as_array().unwrap() {
        assert!(machines.contains(machine["name"].as_str().unwrap()), "{machines}");
    }
    assert_eq!(theirs()["title"], ours()["title"]);
    let status = labctl.run(&["playground", "status", &id, "--output", "yaml"]);
    assert!(status.contains("RUNNING") && status.contains("node-02"), "{status}");

    // Both clients wait for the same task.
    refused_in_time(&labctl, &["playground", "wait", "--init-only", "--timeout", "1s", &id]);
    let _ = world.local(&["wait", &id, "--init", "--timeout", "1s"]).failed(9);

    // States, no matter which of the two clients caused them.
    for (by, action, state) in [
        ("labctl", "stop", "STOPPED"),
        ("ours", "start", "RUNNING"),
        ("ours", "stop", "STOPPED"),
        ("labctl", "restart", "RUNNING"),
        ("labctl", "persist", "RUNNING"),
        ("labctl", "destroy", "DESTROYED"),
    ] {
        let _ = match (by, action) {
            ("labctl", _) => labctl.run(&["playground", action, &id]),
            (_, "start") => world.local(&["start", "--no-wait-init", &id]).ok(),
            (_, action) => world.local(&[action, &id]).ok(),
        };
        let events = theirs()["status"]["stateEvents"].clone();
        assert_eq!(events.as_array().unwrap().last().unwrap()["state"], state, "{action} by {by}");
        assert_eq!(ours()["state"], state, "{action} by {by}");
        if action == "persist" {
            assert_eq!(ours()["persistent"], true);
        }
    }
    assert!(!labctl.run(&["playground", "list", "--quiet"]).contains(&id));
    assert_eq!(world.json(&["list", "--json"]), serde_json::json!([]));
    labctl.refused(&["playground", "destroy", &id], "409");
}

fn refused_in_time(labctl: &Labctl, arguments: &[&str]) {
    let said = labctl.said(arguments);
    assert!(!said.status.success(), "{said:?}");
}

#[test]
#[ignore = "needs the real labctl in PATH: scripts/test runs it"]
fn labctl_starts_as_it_is_told_or_is_refused_in_words() {
    let labctl = Labctl::new(&[]);
    let start = |more: &[&str]| labctl.start(&[&["shell"], more].concat());
    for options in [
        &["--skip-wait-running", "--skip-wait-ready", "--skip-wait-init"][..],
        &["--as-free-tier-user"],
        &["--safety-disclaimer-consent"],
    ] {
        assert_eq!(start(options).len(), 24);
    }
    let playground = ["playground", "start", "shell"];
    labctl.refused(&[&playground[..], &["-i", "Container runtime=docker"]].concat(), "Container runtime");
    labctl.refused(&["playground", "start", "none-of-that-name"], "not found");
    for (filter, names) in [("my-custom", ""), ("recent", "shell"), ("popular", "shell"), ("community", "")] {
        assert_eq!(labctl.run(&["playground", "catalog", "--quiet", "--filter", filter]).trim(), names, "{filter}");
    }
    assert!(labctl.run(&["playground", "catalog", "--quiet", "--filter", "base"]).contains("duo"));
    assert!(labctl.run(&["playground", "manifest", "duo"]).contains("node-02"));
    assert!(labctl.run(&["auth", "whoami"]).contains("local"));
    assert!(labctl.run(&["api", "/plays"]).contains("shell-01"));
    let _ = labctl.run(&["challenge", "list"]);
}

#[test]
#[ignore = "needs the real labctl in PATH: scripts/test runs it"]
fn labctl_reaches_machines_and_forwards_ports() {
    let labctl = Labctl::new(&[]);
    let world = &labctl.world;
    let id = labctl.start(&["duo"]);
    let said = labctl.said(&["ssh", &id, "--machine", "node-02", "--", "echo in; exit 7"]);
    assert_eq!(said.out.trim(), "in", "{said:?}");
    labctl.refused(&["ssh", &id, "--machine", "node-09", "--", "true"], "node-09");
    labctl.refused(&["ssh", &id, "--user", "mallory", "--", "true"], "mallory");
    fs::write(world.path("up"), "up and down").unwrap();
    let _ = labctl.run(&["cp", "up", &format!("{id}:there")]);
    let _ = labctl.run(&["cp", &format!("{id}:there"), "down"]);
    assert_eq!(fs::read_to_string(world.path("down")).unwrap(), "up and down");
    for action in ["stop", "restart", "reboot"] {
        let _ = labctl.run(&["playground", "machine", action, &id, "node-02"]);
        let wanted = if action == "stop" { "STOPPED" } else { "RUNNING" };
        eventually(action, || {
            let machine = &world.json(&["list", "--json"])[0]["machines"][1];
            machine["state"] == wanted && (action == "stop" || machine["ready"] == true)
        });
    }

    // One port, in each form that both clients accept: labctl saves its forward, and ours reads it with the same
    // meaning.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in server.incoming().map_while(Result::ok) {
            let _ = std::io::Write::write_all(&mut stream, b"reached");
        }
    });
    let free = free_port;
    // Do not read to the end, because labctl keeps a connection open after the other side has ended.
    let reached = |port: u16| {
        let mut said = [0; 7];
        TcpStream::connect(("127.0.0.1", port)).is_ok_and(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            stream.read_exact(&mut said).is_ok() && &said == b"reached"
        })
    };
    let mut forms = Vec::new();
    for (side, form) in [
        ("-L", "PORT:TO"),
        ("-L", "PORT:localhost:TO"),
        ("-L", "127.0.0.1:PORT:TO"),
        ("-L", "127.0.0.1:PORT:127.0.0.1:TO"),
        ("-R", "PORT:TO"),
        ("-R", "PORT:localhost:TO"),
        ("-R", "127.0.0.1:PORT:TO"),
        ("-R", "127.0.0.1:PORT:127.0.0.1:TO"),
    ] {
        let port = free();
        let spec = form.replace("PORT", &port.to_string()).replace("TO", &to.to_string());
        for mut forward in [
            labctl.command(&["port-forward", &id, side, &spec]),
            world.command(&["--local", "port-forward", &id, side, &spec]),
        ] {
            let forward = Ending(forward.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
            eventually(&format!("{side} {spec} is forwarded"), || reached(port));
            drop(forward);
            eventually(&format!("{side} {spec} is free again"), || TcpListener::bind(("127.0.0.1", port)).is_ok());
        }
        forms.push((side, port));
    }
    let theirs = labctl.said(&["port-forward", &id, "--list"]).err;
    let ours = world.local(&["port-forward", &id, "--list"]).ok();
    for (side, port) in forms {
        assert!(theirs.contains(&port.to_string()), "{port}: {theirs}");
        assert!(ours.lines().any(|line| line.contains(side) && line.contains(&port.to_string())), "{port}: {ours}");
    }
    // `cp` has left records for port 22, which are not forwards of the user's.
    assert!(ours.contains(":22"), "{ours}");
    let mut restore = world.command(&["--local", "port-forward", &id, "--restore", "--json"]);
    let events = world.path("events");
    let _restoring = Ending(restore.stdout(fs::File::create(&events).unwrap()).spawn().unwrap());
    let said = || fs::read_to_string(&events).unwrap();
    eventually("all are restored", || said().contains("\"ready\""));
    assert!(!said().contains(":22\"") && said().matches("\"listening\"").count() >= 8, "{}", said());
    let _ = labctl.run(&["port-forward", &id, "--remove", "0"]);
}
