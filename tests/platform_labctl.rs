//! The platform's own client, labctl, on the embedded platform: every command that looks at more than plays and tunnels,
//! which `real_peers.rs` has.
#![cfg(all(unix, feature = "real-peers"))]

mod support;

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use support::{
    Ending, Said, World, eventually,
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
        // It makes the key that labctl sends, as a login of labctl's would.
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

    fn start(&self, arguments: &[&str]) -> String {
        self.run(&[&["playground", "start", "--quiet"], arguments].concat()).trim().to_owned()
    }
}

#[test]
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
    // Its start waits for the SSH servers of all machines, and `verifier` has none.
    let verified = labctl.start(&["verified", "--skip-wait-ready"]);
    let refused = labctl.said(&["ssh", &verified, "--machine", "verifier", "--", "true"]);
    assert!(refused.err.contains("Machine does not allow SSH access"), "{refused:?}");
}

#[test]
fn labctl_shows_times_and_ends() {
    let labctl = Labctl::new(&[]);
    let id = labctl.start(&["shell"]);
    assert!(labctl.run(&["playground", "list"]).contains("expires in 7 hours"));
    let lifetime = labctl.run(&["playground", "lifetime", &id]);
    assert!(lifetime.starts_with("8h0m0s (expires in ") && lifetime.contains("7h59m"), "{lifetime}");
    let _ = labctl.run(&["playground", "lifetime", &id, "3h"]);
    assert!(labctl.run(&["playground", "lifetime", &id]).starts_with("3h0m0s (expires in "));
    let _ = labctl.run(&["playground", "stop", &id]);
    // It looks for a title among the plays that are kept.
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
