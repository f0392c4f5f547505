//! `listen`: a loopback address for programs that know no ProxyCommand. The judges are OpenSSH, curl as a web page's browser,
//! systemd's own check of units and Python's reader of property lists. A real service manager is no part of the tests.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{
    Ending, PATIENCE, World, copy_program, eventually, free_port, needs, not_run, schema, write_program,
};

/// A running `listen --json`.
struct Listener {
    process: Ending,
    lines: mpsc::Receiver<String>,
    address: String,
    name: String,
}

impl Listener {
    fn start(world: &World, args: &[&str]) -> Listener {
        Listener::run(world.command(&["--local", "listen"]).args(args).arg("--json"))
    }

    fn run(command: &mut Command) -> Listener {
        let mut process = Ending(command.stdout(Stdio::piped()).spawn().unwrap());
        let stdout = std::io::BufReader::new(process.0.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            std::io::BufRead::lines(stdout).map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let mut listener = Listener { process, lines, address: String::new(), name: String::new() };
        let first = listener.event("listening");
        listener.address = first["address"].as_str().unwrap().to_owned();
        listener.name = first["name"].as_str().unwrap().to_owned();
        listener
    }

    /// Waits for the next event of this name.
    #[track_caller]
    fn event(&self, name: &str) -> Value {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap();
            let line: Value = serde_json::from_str(&line).unwrap();
            schema::check("listenLine", &line);
            if line["event"] == name {
                return line;
            }
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn end(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.process.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.process.0.wait().unwrap().code()
    }
}

/// The options that ssh has for a host, without those that say how it is reached.
fn options(world: &World, host: &str) -> (Vec<String>, Vec<String>) {
    let text = world.ssh(&["-G", host]).ok();
    let way = ["host ", "hostname ", "port ", "hostkeyalias ", "proxycommand "];
    text.lines().map(str::to_owned).partition(|line| way.iter().any(|option| line.starts_with(option)))
}

#[test]
fn a_listener_leads_where_its_host_does() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("duo");
    let host = format!("playground-{id}");
    let before = world.entries();
    let mut listener = Listener::start(&world, &[&id]);
    let name = format!("{host}-listen");
    assert_eq!(listener.name, name);
    let (way, same) = options(&world, &name);
    let (_, of_host) = options(&world, &host);
    assert_eq!(same, of_host);
    let port = listener.address.strip_prefix("127.0.0.1:").unwrap().to_owned();
    let expected =
        [format!("host {name}"), "hostname 127.0.0.1".into(), format!("port {port}"), format!("hostkeyalias {host}")];
    assert!(expected.iter().all(|line| way.contains(line)) && way.len() == 4, "{way:?}");

    let bytes = crate::support::noise(2 << 20);
    let echoed = world.feed(world.ssh_program("ssh").args([&name, "cat; exit 7"]), &bytes);
    assert!(echoed.status.code() == Some(7) && echoed.stdout == bytes, "{:?}", echoed.status);
    assert_eq!(listener.event("open")["connection"], 1);
    listener.event("close");

    // A machine has a name of one label, and the two do not share a listener.
    let machine = Listener::start(&world, &[&format!("root@{host}.node-02")]);
    assert_eq!(machine.name, format!("{host}-node-02-listen"));
    assert_eq!(
        world.ssh(&[&machine.name, "whoami; hostname"]).ok(),
        world.ssh(&["-l", "root", &format!("{host}.node-02"), "whoami; hostname"]).ok()
    );
    let twice = world.local(&["listen", &id]).failed(2);
    assert!(twice.contains("another process listens for ") && twice.contains(&name), "{twice}");
    let taken = world.local(&["listen", &format!("{host}.node-01"), "--port", &port]).failed(10);
    assert!(taken.contains("cannot listen on"), "{taken}");

    // No list of machines has it.
    for list in [&["config-zed", "--dry-run"][..], &["list", "--json"]] {
        let said = world.local(list).ok();
        assert!(!said.contains("-listen"), "{said}");
    }
    let candidates = crate::completions::bash(&world, "labctl-ssh-proxy --local ssh playground-");
    assert!(candidates.contains(&host) && !candidates.iter().any(|one| one.ends_with("-listen")), "{candidates:?}");

    // Its connections end with it, and the entry goes. The port stays for the next time.
    let mut session = world.ssh_program("ssh");
    let mut session = Ending(session.args([&name, "sleep 600"]).stdin(Stdio::piped()).spawn().unwrap());
    listener.event("open");
    eventually("it is connected", || world.local(&["list", "--json"]).ok().contains("\"connected\""));
    assert_eq!(listener.end(), Some(143));
    session.0.wait().unwrap();
    drop(machine);
    assert!(!world.entries().contains(&format!("Host {name}")));
    assert_eq!(Listener::start(&world, &[&id]).address, format!("127.0.0.1:{port}"));
    world.local(&["list"]).ok();
    world.local(&["config-ssh", "--yes"]).ok();
    assert_eq!(world.entries(), before);
    let program = crate::support::PROGRAM;
    let said = world.ssh(&["-o", &format!("ProxyCommand={program} --local connect {name}"), &host, "true"]).failed(255);
    assert!(said.contains(&format!("connect to {host}")), "{said}");

    // A name that two hosts would have is given to one.
    let record = world.root().join(format!("listeners/{host}-node-01.json"));
    fs::write(&record, json!({"host": format!("{host}-node-01"), "user": "root", "title": "", "port": 1, "service": null, "local": true}).to_string()).unwrap();
    let said = world.local(&["listen", &format!("{host}.node-01")]).failed(2);
    assert!(said.contains(&format!("is that of the listener for {host}-node-01")), "{said}");
    // It ends with its playground, and not when its record cannot be read.
    let mut last = Listener::start(&world, &[&id]);
    let record = world.root().join(format!("listeners/{host}.json"));
    let text = fs::read(&record).unwrap();
    fs::write(&record, "{").unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert!(last.process.0.try_wait().unwrap().is_none());
    fs::write(&record, text).unwrap();
    world.local(&["destroy", &id, "--yes"]).ok();
    assert_eq!(last.process.0.wait().unwrap().code(), Some(0));
}

/// All that a web page can have a browser send begins with a line of HTTP, also with a method that looks like SSH, which a
/// page may choose for an address that its own name has come to mean.
#[test]
fn a_web_page_and_a_silent_program_wake_nothing() {
    let mut world = World::with_platform(&[]);
    world.settings("log_level: debug\n");
    let id = world.playground("shell");
    world.stop_elsewhere(&id);
    let restarts = world.restarts(&id);
    let listener = Listener::start(&world, &[&id]);
    let posts = world.logged("POST");
    let url = format!("http://rebound.example:{}/", listener.address.rsplit(':').next().unwrap());
    let resolve = format!("rebound.example:{}:127.0.0.1", listener.address.rsplit(':').next().unwrap());
    for page in [
        &[][..],
        &["-d", "SSH-2.0-x"],
        &["-X", "SSH-2.0-OpenSSH_9.2"],
        &["-H", "Upgrade: websocket", "-H", "Connection: Upgrade", "-H", "Sec-WebSocket-Version: 13"],
        &["--http2-prior-knowledge"],
        &["--http0.9", "-X", "SSH-2.0-x"],
    ] {
        let mut curl = world.program(needs("curl"));
        let said = curl.args(["-sS", "-m", "60", "--resolve", &resolve]).args(page).arg(&url).output().unwrap();
        assert!(!said.status.success() && said.stdout.is_empty(), "{page:?}: {said:?}");
        assert_eq!(listener.event("refused")["reason"], "it does not speak SSH", "{page:?}");
    }
    // One that says nothing takes no place, and those that are half through a line are many.
    let mut silent: Vec<TcpStream> = (0..64).map(|_| listener.connect()).collect();
    silent.iter_mut().skip(32).for_each(|stream| stream.write_all(b"SSH-2.0-").unwrap());
    eventually("no further one is let in", || {
        let mut one = listener.connect();
        let mut byte = [0];
        one.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        matches!(one.read(&mut byte), Ok(0))
    });
    assert_eq!((world.state(&id).as_str(), world.restarts(&id), world.logged("POST")), ("STOPPED", restarts, posts));
    assert!(world.processes("connect --user").is_empty());
    drop(silent);
    // SSH does wake it, with more silent ones there than there are places.
    let _silent: Vec<TcpStream> = (0..20).map(|_| listener.connect()).collect();
    assert_eq!(world.ssh(&[&listener.name, "echo in"]).ok(), "in\n");
    assert_eq!(world.restarts(&id), restarts + 1);
}

#[test]
fn its_connections_are_judged_as_any_and_told_within_ssh() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let listener = Listener::start(&world, &[&id]);
    let name = &listener.name;
    // An end under a session is no wish to go on, though its client comes back by itself.
    let mut session = world.ssh_program("ssh");
    let mut session = Ending(
        session.args([name, "echo in; sleep 600"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap(),
    );
    session.0.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
    world.stop_elsewhere(&id);
    session.0.wait().unwrap();
    for _ in 0..3 {
        let said = world.ssh(&[name, "true"]).failed(255);
        assert!(said.contains("Received disconnect") && said.contains("has ended while a session was open"), "{said}");
    }
    world.local(&["start", &id]).ok();
    world.ssh(&[name, "true"]).ok();
    world.local(&["stop", &id]).ok();
    let said = world.ssh(&[name, "true"]).failed(255);
    assert!(said.contains("was stopped on purpose"), "{said}");
    while !listener.event("says")["text"].as_str().unwrap().contains("was stopped on purpose") {}
    world.local(&["start", &id]).ok();
    // Sixteen at once. The first words are the program's own, so that each has a connection.
    let busy: Vec<TcpStream> = (0..16)
        .map(|_| {
            let mut stream = listener.connect();
            stream.write_all(b"SSH-2.0-busy\r\n").unwrap();
            stream
        })
        .collect();
    busy.iter().for_each(|mut stream| stream.read_exact(&mut [0; 8]).unwrap());
    let said = world.ssh(&[name, "true"]).failed(255);
    assert!(said.contains("16 connections are open already"), "{said}");
    drop(busy);
    eventually("there is room again", || world.ssh(&[name, "true"]).status.success());
    eventually("each connection has ended with its client", || world.processes("connect --user").is_empty());
}

#[test]
fn programs_of_other_users_are_refused() {
    if !rustix::process::geteuid().is_root() {
        return not_run("only root can run a program as another user");
    }
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let listener = Listener::start(&world, &[&id]);
    let port = listener.address.rsplit(':').next().unwrap();
    // The second leaves at once: of a socket that no program holds, the system says that it is root's.
    for rest in ["s.recv(1)", "os._exit(0)"] {
        let script = format!(
            "import os, socket\ns = socket.create_connection((\"127.0.0.1\", {port}))\ns.sendall(b\"SSH-2.0-x\\r\\n\")\n{rest}"
        );
        let mut python = world.program(needs("setpriv"));
        python.args(["--reuid=65534", "--regid=65534", "--clear-groups", "python3", "-c", &script]);
        python.current_dir("/").output().unwrap();
        let reason = listener.event("refused")["reason"].as_str().unwrap().to_owned();
        assert!(["it is a program of another user", "it has left"].contains(&&*reason), "{reason}");
    }
    assert!(world.processes("connect --user").is_empty());
}

/// A stand-in for a service manager, which writes down its arguments and fails where a file says so.
fn manager(world: &World, name: &str) -> std::path::PathBuf {
    let folder = world.path("managers");
    fs::create_dir_all(&folder).unwrap();
    let text = "#!/bin/sh\necho \"$*\" >> \"$0.log\"\n[ ! -e \"$0.broken\" ] || { echo 'Failed to connect to bus' >&2; exit 1; }\n";
    write_program(&folder.join(name), text);
    for program in ["ssh", "sh"] {
        let _ = std::os::unix::fs::symlink(needs(program), folder.join(program));
    }
    folder
}

fn calls(manager: &Path) -> String {
    let log = manager.with_extension("log");
    let calls = fs::read_to_string(&log).unwrap_or_default();
    let _ = fs::remove_file(log);
    calls
}

#[test]
fn systemd_keeps_a_listener() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let host = format!("playground-{id}");
    let managers = manager(&world, "systemctl");
    let systemctl = managers.join("systemctl");
    let program = world.path("a 50%h $HOME ü/labctl-ssh-proxy");
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    copy_program(&program);
    let run = |args: &[&str]| {
        let mut command = world.program(&program);
        command.env("PATH", &managers).env("IXIMIUZ_SESSION_ID", "the-session").arg("--local").args(args);
        world.output(&mut command)
    };
    let unit = format!("labctl-ssh-proxy-{host}-listen.service");
    let file = world.path(".config/systemd/user").join(&unit);

    fs::write(managers.join("systemctl.broken"), "").unwrap();
    let said = run(&["listen", &id, "--install"]).failed(14);
    assert!(said.contains("`systemctl --user daemon-reload` failed: Failed to connect to bus"), "{said}");
    assert!(!file.exists() && run(&["listen", &id, "--uninstall"]).failed(4).contains("no service listens"));
    fs::remove_file(managers.join("systemctl.broken")).unwrap();
    calls(&systemctl);

    let port = free_port().to_string();
    let line: Value =
        serde_json::from_str(&run(&["listen", &id, "--install", "--port", &port, "--json"]).ok()).unwrap();
    schema::check("listenLine", &line);
    assert_eq!((&line["installed"], &line["file"]), (&true.into(), &file.to_str().unwrap().into()));
    let begun = format!("--user daemon-reload\n--user enable {unit}\n--user restart {unit}\n");
    assert_eq!(calls(&systemctl), begun);
    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.contains("the-session") && text.contains("\nKillMode=process\nRestart=on-failure\n"), "{text}");
    let verify = |file: &Path| {
        let mut analyze = world.program(needs("systemd-analyze"));
        analyze.env("XDG_RUNTIME_DIR", world.home()).args(["--user", "verify"]).arg(file).output().unwrap()
    };
    let verified = verify(&file);
    assert!(verified.status.success() && verified.stderr.is_empty(), "{text}{verified:?}");
    // systemd's check does find a program that is misspelt.
    let wrong = world.path("wrong.service");
    fs::write(&wrong, text.replacen("%%h", "%h", 1)).unwrap();
    let verified = verify(&wrong);
    assert!(!verified.status.success() || !verified.stderr.is_empty(), "{verified:?}");
    // Again, it keeps its port, and its program finds the new file.
    run(&["listen", &id, "--install"]).ok();
    assert_eq!((calls(&systemctl), fs::read_to_string(&file).unwrap()), (begun, text.clone()));
    assert!(options(&world, &format!("{host}-listen")).0.contains(&format!("port {port}")));

    // A manager that fails, or a port that is taken, leaves what there was.
    fs::write(managers.join("systemctl.broken"), "").unwrap();
    run(&["listen", &id, "--install"]).failed(14);
    fs::remove_file(managers.join("systemctl.broken")).unwrap();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().port().to_string();
    assert!(run(&["listen", &id, "--install", "--port", &taken]).failed(10).contains("leave out --port"));
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    assert!(run(&["uninstall", "--dry-run"]).ok().contains("the service that listens for"));
    calls(&systemctl);

    // The service as systemd would run it. A connection outlives it, as with KillMode=process.
    let words = text.lines().find_map(|line| line.strip_prefix("ExecStart=:")).unwrap();
    let words: Vec<&str> = words.split('"').skip(3).step_by(2).collect();
    let start = || Listener::run(world.program(&program).args(&words).arg("--json"));
    let mut service = start();
    assert_eq!(service.address, format!("127.0.0.1:{port}"));
    let mut session = world.ssh_program("ssh");
    let session = session.args([&*service.name, "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut session = Ending(session.spawn().unwrap());
    let mut echoed = |word: &[u8; 4]| {
        session.0.stdin.as_mut().unwrap().write_all(word).unwrap();
        let mut back = [0; 4];
        session.0.stdout.as_mut().unwrap().read_exact(&mut back).unwrap();
        back == *word
    };
    assert!(echoed(b"here"));
    assert_eq!(service.end(), Some(143));
    let mut service = start();
    assert!(echoed(b"also"));
    service.end();

    let said = run(&["listen", &id, "--uninstall"]).ok();
    assert!(said.contains("no longer listens") && !file.exists(), "{said}");
    assert_eq!(calls(&systemctl), format!("--user disable --now {unit}\n--user daemon-reload\n"));
    run(&["listen", &host, "--install"]).ok();
    fs::write(managers.join("systemctl.broken"), "").unwrap();
    let said = run(&["listen", &id, "--uninstall"]).failed(14);
    assert!(said.contains("is removed, but its service may run until you log out") && !file.exists(), "{said}");
    fs::remove_file(managers.join("systemctl.broken")).unwrap();
    run(&["listen", &host, "--install"]).ok();
    fs::write(&file, "").unwrap();
    let list = run(&["uninstall", "--dry-run"]).ok();
    assert!(list.contains(&format!("the service that listens for {host}: {}", file.display())), "{list}");
    calls(&systemctl);
    let said = world.local(&["destroy", &id, "--yes"]);
    assert!(
        said.err.contains(&format!("which is gone; end it with `labctl-ssh-proxy --local listen {host} --uninstall`")),
        "{said:?}"
    );
    run(&["uninstall", "--yes"]).ok();
    assert!(!file.exists() && !world.root().join("listeners").exists());
    assert_eq!(calls(&systemctl), format!("--user disable --now {unit}\n--user daemon-reload\n"));
    let file = file.with_file_name("labctl-ssh-proxy-playground-shell-listen.service");
    fs::write(&file, "mine").unwrap();
    let said = run(&["listen", "playground-shell", "--install"]).failed(13);
    assert!(said.contains("not on record as this program's"), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
}

#[test]
fn launchd_keeps_a_listener() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let host = format!("playground-{id}");
    let managers = manager(&world, "launchctl");
    let program = world.path("a <b> & \"c\" 'd'/labctl-ssh-proxy");
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    copy_program(&program);
    let run = |args: &[&str]| world.output(world.program(&program).env("PATH", &managers).arg("--local").args(args));
    let port = free_port().to_string();
    run(&["listen", &id, "--install", "--port", &port]).ok();
    let label = format!("labctl-ssh-proxy-{host}-listen");
    let file = world.path("Library/LaunchAgents").join(format!("{label}.plist"));
    let domain = format!("gui/{}", rustix::process::geteuid().as_raw());
    let launchctl = managers.join("launchctl");
    assert_eq!(calls(&launchctl), format!("bootout {domain}/{label}\nbootstrap {domain} {}\n", file.display()));
    let script = "import json, plistlib, sys; print(json.dumps(plistlib.load(open(sys.argv[1], 'rb'))))";
    let read = world.output(world.program(needs("python3")).args(["-c", script]).arg(&file)).ok();
    let expected = json!({
        "Label": label,
        "ProgramArguments": [program, "--home", world.root(), "--no-input", "--local", "listen", host, "--port", port],
        "EnvironmentVariables": {"LABCTL_SSH_PROXY_SETTINGS": world.path(".config/labctl-ssh-proxy/settings.yaml")},
        "RunAtLoad": true,
        "KeepAlive": {"SuccessfulExit": false},
        "ThrottleInterval": 10,
        "AbandonProcessGroup": true,
    });
    assert_eq!(serde_json::from_str::<Value>(&read).unwrap(), expected);
    run(&["listen", &host, "--uninstall"]).ok();
    assert_eq!((calls(&launchctl), file.exists()), (format!("bootout {domain}/{label}\n"), false));
    fs::remove_file(&launchctl).unwrap();
    let said = run(&["listen", &id, "--install"]).failed(14);
    assert!(said.contains("cannot find systemctl or launchctl"), "{said}");
}
