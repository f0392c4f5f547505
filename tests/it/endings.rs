//! Ctrl-C, a lost terminal, a request to end, and a network that vanishes, in every command that may take long. The
//! exit code is the documented one and comes at once, and no process, listener or incomplete file is left.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{
    Ending, PROGRAM, World, at_best, eventually,
    labs::{Labs, PLAIN, SESSION},
    within, write_program,
};

const SIGNALS: [(Signal, i32); 3] = [(Signal::INT, 130), (Signal::HUP, 129), (Signal::TERM, 143)];
/// Time limit for an end. A busy computer takes its time to run anything at all.
const AT_ONCE: Duration = Duration::from_secs(2);

fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// Starts a process and ends it by the signal, and does so again if it was late.
#[track_caller]
fn ended(what: &str, signal: Signal, code: i32, mut start: impl FnMut() -> Child) {
    at_best(AT_ONCE, &format!("{what} has ended by {signal:?}"), || {
        let mut child = start();
        send(child.id(), signal);
        let began = Instant::now();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(code), "{what}, {signal:?}");
        began.elapsed()
    });
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().filter_map(Result::ok);
    let below = |path: PathBuf| if path.is_dir() && !path.is_symlink() { files(&path) } else { vec![path] };
    entries.flat_map(|entry| below(entry.path())).collect()
}

#[track_caller]
fn nothing_half_written(world: &World) {
    for file in files(world.home()) {
        let name = file.file_name().unwrap().to_string_lossy();
        assert!(!name.starts_with(".labctl-ssh-proxy-"), "{} is left", file.display());
        if name.ends_with(".json") {
            let text = fs::read_to_string(&file).unwrap();
            assert!(serde_json::from_str::<Value>(&text).is_ok(), "{}: {text}", file.display());
        }
    }
}

/// Returns our processes in this world, except the platform's.
fn ours(world: &World) -> Vec<String> {
    let line = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
    let all = world.processes("").into_iter().map(line);
    all.filter(|line| {
        (line.contains("labctl-ssh-proxy") || line.contains("playground-")) && !line.contains("local serve")
    })
    .collect()
}

/// Starts a command, and waits until its log contains these words.
#[track_caller]
fn come_to(world: &World, words: &str, command: &mut Command, name: &str) -> Child {
    let log = world.path(name);
    let _ = fs::remove_file(&log);
    let said = fs::File::create(world.path(&format!("{name}.said"))).unwrap();
    command.arg("-vv").arg("--log-file").arg(&log).stdout(said.try_clone().unwrap()).stderr(said);
    let child = command.spawn().unwrap();
    let path = world.path(&format!("{name}.said"));
    eventually(&format!("{name} has come to: {words}"), || {
        let text = fs::read_to_string(&log).unwrap_or_default() + &fs::read_to_string(&path).unwrap();
        text.contains(words)
    });
    child
}

#[test]
fn whoever_waits_for_a_machine_can_be_ended() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    world.stop_platform();
    world.serve(&["--boot-delay", "300s"]);
    let host = format!("playground-{id}");
    let editor = world.path("bin/code");
    fs::create_dir(world.path("bin")).unwrap();
    write_program(&editor, "#!/bin/sh\n");
    let path = format!("{}:/usr/bin:/bin", world.path("bin").display());
    let socket = format!("{}:localhost:1", world.path("forward.socket").display());
    let commands: [&[&str]; 8] = [
        &["start", &id],
        &["restart", &id],
        &["start", &id, "--ssh"],
        &["ssh", &host],
        &["open", "code", &host],
        &["port-forward", &id, "-L", "0:localhost:1", "-L", &socket],
        &["kube", &id, "--merge"],
        &["kube", &id],
    ];
    for (signal, code) in SIGNALS {
        for (i, arguments) in commands.iter().enumerate() {
            let name = format!("{i}.{code}.log");
            ended(&format!("{arguments:?}"), signal, code, || {
                let _ = fs::remove_file(world.path(&name));
                let mut command = world.command(&["--local"]);
                // Before the arguments, because everything after a host belongs to ssh.
                command.env("PATH", &path).args(["-vv", "--log-file"]).arg(world.path(&name)).args(*arguments);
                let said = fs::File::create(world.path(&format!("{name}.said"))).unwrap();
                let child = command.stdout(said.try_clone().unwrap()).stderr(said).spawn().unwrap();
                eventually(&format!("{arguments:?} waits"), || {
                    fs::read_to_string(world.path(&name)).unwrap_or_default().contains("POST for the tunnel to machine")
                });
                child
            });
            let said = fs::read_to_string(world.path(&format!("{name}.said"))).unwrap();
            assert!(!said.contains("panicked"), "{said}");
        }
    }
    eventually("no process is left", || ours(&world).is_empty());
    assert!(!world.path("forward.socket").exists(), "no listener is left");
    assert!(!world.path(".kube/config").exists());
    assert!(!world.root().join("kube").join(format!("{id}.yaml")).exists());
    nothing_half_written(&world);
    // The wake goes on after its clients have ended.
    assert_ne!(world.json(&["list", "--json"])[0]["state"], "STOPPED");
}

/// `nohup ssh ...` outlives its terminal.
#[test]
fn a_signal_that_is_ignored_from_the_start_stays_so() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let mut command = world.program("env");
    command.args(["--ignore-signal=HUP", PROGRAM, "--local", "connect", &format!("playground-{id}")]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut greeting = [0; 8];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut greeting).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & 1, 1, "HUP, the first signal, in {ignored}");
    send(child.id(), Signal::HUP);
    send(child.id(), Signal::TERM);
    within(AT_ONCE, "another signal ends it", &mut || child.try_wait().unwrap().is_some());
    // Any end is fine except by HUP, which came first.
    let status = child.wait().unwrap();
    assert!(status.code() != Some(129) && status.signal() != Some(1), "{status}");
}

#[test]
fn whoever_shows_or_serves_can_be_ended() {
    let world = World::with_platform(&[]);
    for (signal, code) in SIGNALS {
        for options in [&["--json"][..], &[]] {
            let name = format!("watch.{code}.{}", options.len());
            ended("list --watch", signal, code, || {
                let mut watch = world.command(&["--local", "list", "--watch"]);
                come_to(&world, "200 OK for the list", watch.args(options), &name)
            });
        }
        // For the platform, a request to end is a success.
        let own = World::empty();
        ended("local serve", signal, 0, || {
            let child = come_to(&own, "serving ", &mut own.command(&["local", "serve"]), "serve.log");
            let playground = own.local(&["start", "shell"]);
            assert!(playground.status.success(), "{playground:?}");
            child
        });
        assert!(!own.root().join("local/socket").exists());
        eventually("nothing of it is left", || own.processes("").is_empty());
        nothing_half_written(&own);
    }
    assert!(ours(&world).is_empty());
    nothing_half_written(&world);
}

#[test]
fn a_login_that_nobody_confirms_can_be_ended() {
    let world = World::empty();
    let labs = Labs::start(&world, PLAIN);
    labs.log_in(&world, "");
    let account = world.path(".iximiuz/labctl/config.yaml");
    let before = fs::read_to_string(&account).unwrap();
    for (signal, code) in SIGNALS {
        ended("login", signal, code, || {
            let mut login = world.command(&["login"]);
            let mut child = login.env("BROWSER", "true").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
            assert!(said.any(|line| line.trim() == format!("https://labs.test/confirm/{}", SESSION)));
            child
        });
        assert_eq!(fs::read_to_string(&account).unwrap(), before);
    }
    nothing_half_written(&world);
}

#[test]
fn a_demonstration_leaves_nothing_behind_whenever_it_is_ended() {
    let world = World::empty();
    let temporary = world.path("tmp");
    fs::create_dir(&temporary).unwrap();
    // During the setup, and in the middle of a session, where Ctrl-C is for the session.
    for (signal, code) in SIGNALS {
        for words in ["Starting a playground on this computer", "in the session"] {
            let mut demo = world.command(&["demo", "--", "echo in the session; sleep 300"]);
            let demo = demo.env("TMPDIR", &temporary).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = demo.spawn().unwrap();
            let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
            let both: [Box<dyn Read + Send>; 2] = [Box::new(out), Box::new(err)];
            let (tell, told) = std::sync::mpsc::channel();
            for stream in both {
                let tell = tell.clone();
                std::thread::spawn(move || {
                    BufReader::new(stream).lines().map_while(Result::ok).for_each(|line| drop(tell.send(line)));
                });
            }
            drop(tell);
            // The command itself is printed before it runs.
            assert!(told.iter().any(|line| line.contains(words) && !line.contains("sleep")), "{words}");
            if signal == Signal::INT && words == "in the session" {
                send(child.id(), signal);
                send(child.id(), Signal::TERM);
                assert_eq!(child.wait().unwrap().code(), Some(143));
            } else {
                // It has to end its platform first.
                send(child.id(), signal);
                assert_eq!(child.wait().unwrap().code(), Some(code), "{words}");
            }
            assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "{signal:?} {words}");
            eventually("no process is left", || world.processes("").is_empty());
        }
    }
}

/// The setup takes many steps. None of them starts anything that the end does not clean up.
#[test]
fn a_demonstration_that_is_ended_at_any_moment_leaves_nothing_behind() {
    let world = World::empty();
    let temporary = world.path("tmp");
    fs::create_dir(&temporary).unwrap();
    for moment in 0..16 {
        let mut demo = world.command(&["demo", "--", "true"]);
        demo.env("TMPDIR", &temporary).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = demo.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(25 * moment));
        send(child.id(), Signal::INT);
        child.wait().unwrap();
        assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "after {moment} times 25 ms");
    }
    eventually("no process is left", || world.processes("").is_empty());
}

/// A network that swallows everything: the platform's process is stopped (SIGSTOP), and its connections stay open.
struct Vanished(u32);

impl Vanished {
    fn of(world: &World) -> Vanished {
        let status: Value = serde_json::from_str(&world.run(&["local", "status", "--json"]).ok()).unwrap();
        let pid = u32::try_from(status["pid"].as_u64().unwrap()).unwrap();
        send(pid, Signal::STOP);
        Vanished(pid)
    }
}

impl Drop for Vanished {
    fn drop(&mut self) {
        send(self.0, Signal::CONT);
    }
}

/// Starts an echo server. Returns its port.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut copy = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut copy, &mut stream);
            });
        }
    });
    port
}

fn echoes(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut byte = [0];
    stream.write_all(b"x").is_ok() && stream.read_exact(&mut byte).is_ok() && byte == *b"x"
}

#[test]
fn a_network_that_vanishes_for_a_while_ends_nothing() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let kubeconfig = world.machine_home(&id, "shell-01").join(".kube/config");
    fs::create_dir_all(kubeconfig.parent().unwrap()).unwrap();
    let port = echo();
    fs::write(&kubeconfig, format!("clusters:\n- name: a\n  cluster: {{server: 'https://127.0.0.1:{port}'}}\n"))
        .unwrap();
    let start = |arguments: &[&str]| {
        let mut command = world.command(&["--local"]);
        let child = command.args(arguments).arg("--json").stdout(Stdio::piped()).spawn().unwrap();
        let mut child = Ending(child);
        let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map(|line| line.unwrap());
        let listening: Value = serde_json::from_str(&lines.find(|line| line.contains("listening")).unwrap()).unwrap();
        assert!(lines.any(|line| line.contains("\"ready\"")));
        std::thread::spawn(move || lines.for_each(drop));
        let address = listening["address"].as_str().unwrap().to_owned();
        assert!(echoes(&mut TcpStream::connect(&address).unwrap()));
        (child, address)
    };
    let spec = format!("0:127.0.0.1:{port}");
    let running = [start(&["port-forward", &id, "-L", &spec]), start(&["kube", &id])];
    let mut idle: Vec<TcpStream> = running.iter().map(|(_, address)| TcpStream::connect(address).unwrap()).collect();
    assert!(idle.iter_mut().all(echoes));
    let mut watch = world.command(&["--local", "list", "--watch"]);
    let watch = Ending(come_to(&world, "200 OK for the list", &mut watch, "watch.log"));

    let vanished = Vanished::of(&world);
    // Longer than a tunnel may be silent. Its host does not answer either, so it is the network that is away.
    std::thread::sleep(Duration::from_secs(25));
    drop(vanished);
    for (stream, (_, address)) in idle.iter_mut().zip(&running) {
        within(Duration::from_secs(40), "it works again", &mut || {
            TcpStream::connect(address).is_ok_and(|mut stream| echoes(&mut stream))
        });
        assert!(echoes(stream), "what was open goes on");
    }
    // During the outage, each command can be ended.
    let vanished = Vanished::of(&world);
    for ((mut child, _), (signal, code)) in running.into_iter().chain([(watch, String::new())]).zip(SIGNALS) {
        send(child.0.id(), signal);
        let began = Instant::now();
        assert_eq!(child.0.wait().unwrap().code(), Some(code));
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    }
    drop(vanished);
    assert!(!world.root().join("kube").join(format!("{id}.yaml")).exists());
    eventually("no process is left", || ours(&world).is_empty());
    nothing_half_written(&world);
}

#[test]
fn a_session_that_the_other_side_drops_ends_with_a_word() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    // One that ends as it should says nothing.
    let said = world.ssh(&[&format!("playground-{id}"), "exit 3"]);
    assert_eq!((said.code(), said.err.as_str()), (3, ""));
    let mut ssh = world.ssh_program("ssh");
    ssh.args([&format!("playground-{id}"), "echo up; cat"]).stdin(Stdio::piped());
    let (out, err) = (world.path("out"), world.path("err"));
    ssh.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
    let mut ssh = ssh.spawn().unwrap();
    eventually("the session is open", || fs::read_to_string(&out).unwrap() == "up\n");
    world.kill_platform();
    assert_eq!(ssh.wait().unwrap().code(), Some(255));
    let said = fs::read_to_string(&err).unwrap();
    assert!(said.contains("machine shell-01 of playground") && said.contains("has ended the connection"), "{said}");
}
