//! Containers that cannot be entered, each with a sentence and a hint, in bounded time, and with nothing left behind. Engines that
//! cannot be had here are stand-ins that speak its API on a socket.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};

use helper::wire::{self, CONTAINER_USER, Reply, Request, Tools, View};
use serde_json::{Value, json};

use super::Site;
use crate::support::{
    Said,
    engine::{BUSYBOX, Engine},
    eventually, write_program,
};

/// The answer of an engine to the path of a request: the bytes of the whole response. `None` never answers.
pub(super) type Answer = Box<dyn Fn(&str) -> Option<Vec<u8>> + Send>;

/// A machine with an engine that answers as a test has it.
pub(super) struct Odd {
    pub(super) site: Site,
    pub(super) answer: Arc<Mutex<Answer>>,
    folder: tempfile::TempDir,
}

impl Odd {
    /// None where containers cannot be entered at all.
    pub(super) fn new() -> Option<Odd> {
        Engine::here()?;
        let folder = tempfile::Builder::new().prefix("lse").tempdir_in("/tmp").unwrap();
        let socket = folder.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let answer: Arc<Mutex<Answer>> = Arc::new(Mutex::new(Box::new(|_| None)));
        let answers = Arc::clone(&answer);
        thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (mut request, mut byte) = (Vec::new(), [0]);
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                    request.push(byte[0]);
                }
                let request = String::from_utf8_lossy(&request).into_owned();
                let said = answers.lock().unwrap()(request.split(' ').nth(1).unwrap_or_default());
                match said {
                    // The other side need not read all of it.
                    Some(bytes) => drop(stream.write_all(&bytes)),
                    None => silent.push(stream),
                }
            }
        });
        Some(Odd { site: Site::with(&socket, "builtin", &[]), answer, folder })
    }

    /// The engine answers every request with these bytes. Returns what ssh says.
    #[track_caller]
    fn refuses(&self, bytes: Option<Vec<u8>>) -> String {
        *self.answer.lock().unwrap() = Box::new(move |_| bytes.clone());
        refused_at(&self.site)
    }

    /// The engine has these containers, each as `inspect` shows it. Returns what ssh says.
    #[track_caller]
    fn refuses_one_of(&self, containers: Vec<Value>) -> String {
        *self.answer.lock().unwrap() = Box::new(move |path| {
            let listed: Vec<Value> = containers
                .iter()
                .map(|one| {
                    let running = one["State"]["Status"].clone();
                    json!({"Id": one["Id"], "Names": [one["Name"]], "Image": one["Config"]["Image"],
                           "State": running, "Status": "Up 3 minutes"})
                })
                .collect();
            if path.contains("/containers/json") {
                return Some(response(&json!(listed)));
            }
            let one = containers.iter().find(|one| path.contains(one["Id"].as_str().unwrap()));
            Some(one.map_or_else(|| b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(), response))
        });
        refused_at(&self.site)
    }
}

pub(super) fn response(body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length:";
    format!("{head} {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A running container, as `inspect` shows it, with the process of the tests as its first.
fn container(name: &str, runtime: &str) -> Value {
    json!({
        "Id": "c0ffee".repeat(10) + "0000", "Name": format!("/{name}"),
        "State": {"Status": "running", "Running": true, "Pid": std::process::id(), "StartedAt": "2026-01-01T00:00:00Z"},
        "Config": {"Image": "image", "User": ""}, "HostConfig": {"Runtime": runtime},
    })
}

/// Connects to the container `web`. It has to fail. Returns what ssh says, the reason and the hint in one.
#[track_caller]
fn refused_at(site: &Site) -> String {
    let start = Instant::now();
    let said = site.ssh(&[&site.host("web"), "true"]).failed(255);
    // An engine has 5 s, and a busy computer some more.
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
    assert!(said.contains(super::MACHINE), "the machine is named: {said}");
    assert!(!said.contains('\x1b') && !said.contains("panicked"), "{said:?}");
    eventually("no process of ours is left", || site.visits().is_empty());
    said
}

#[test]
fn a_machine_without_an_engine_says_so() {
    if Engine::here().is_none() {
        return;
    }
    // A socket at which none listens any more, none at all, and a file that is no socket.
    let (site, folder) = Site::without_engine();
    let socket = folder.path().join("s");
    for make in [
        |_: &Path| {},
        |socket: &Path| fs::remove_file(socket).unwrap(),
        |socket: &Path| fs::write(socket, "").unwrap(),
    ] {
        make(&socket);
        let said = refused_at(&site);
        assert!(said.contains("engine") && said.contains(socket.to_str().unwrap()), "{said}");
    }
}

#[test]
fn an_engine_that_answers_oddly_or_never_is_said_soon() {
    let Some(odd) = Odd::new() else { return };
    let said = odd.refuses(None);
    assert!(said.contains("engine") && said.contains("answer"), "{said}");
    let answers: [(&str, Vec<u8>); 7] = [
        ("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        (
            "an error",
            b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 22\r\n\r\n{\"message\":\"no space\"}".to_vec(),
        ),
        ("no JSON", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<ht>".to_vec()),
        ("half an answer", b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n[{\"Id\":".to_vec()),
        ("a head without end", vec![b'a'; 1 << 20]),
        ("a length without end", b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n[".to_vec()),
        ("more than anything has", [&b"HTTP/1.1 200 OK\r\n\r\n["[..], &vec![b' '; 64 << 20]].concat()),
    ];
    for (name, bytes) in answers {
        let said = odd.refuses(Some(bytes));
        assert!(said.contains("engine") || said.contains("Docker"), "{name}: {said}");
    }
}

/// The way is taken once more, and the platform says what has become of it.
#[test]
fn a_tunnel_that_breaks_while_one_enters_is_no_fault_of_the_helper() {
    let Some(mut odd) = Odd::new() else { return };
    let host = odd.site.host("web");
    let mut client = odd.site.client("ssh", &[&host, "true"]);
    let client = client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the helper asks the engine", || odd.site.visits().iter().any(|line| line.contains("enter")));
    odd.site.world.kill_platform();
    odd.site.world.serve(&["--engine", odd.folder.path().join("s").to_str().unwrap()]);
    let said = Said::of(client.wait_with_output().unwrap()).failed(255);
    assert!(said.contains("is stopped"), "{said}");
}

#[test]
fn other_runtimes_are_refused_by_name() {
    let Some(odd) = Odd::new() else { return };
    // The last one is a name that a user gave: only what runs tells what it is.
    let runtimes = [("runsc", "gVisor"), ("kata-runtime", "Kata"), ("io.containerd.kata.v2", "Kata"), ("mine", "web")];
    for (runtime, word) in runtimes {
        let said = odd.refuses_one_of(vec![container("web", runtime)]);
        assert!(said.contains(word), "{runtime}: {said}");
    }
}

/// The engine names a process that is no container's: nothing is entered.
#[test]
fn a_process_that_is_no_containers_is_not_entered() {
    let Some(odd) = Odd::new() else { return };
    let mut other = container("web", "runc");
    for pid in [json!(std::process::id()), json!(0), json!(-1), json!(1), json!(4_194_305), json!("1"), Value::Null] {
        other["State"]["Pid"] = pid;
        let said = odd.refuses_one_of(vec![other.clone()]);
        assert!(said.contains("web") || said.contains("engine"), "{said}");
    }
}

/// Row (g): names, images and states are foreign text.
#[test]
fn escapes_of_an_engine_do_not_reach_the_terminal() {
    let Some(odd) = Odd::new() else { return };
    let evil = "\x1b[2J\x1b]0;owned\x07\u{202e}\n\r\u{9b}31m";
    let mut one = container(&format!("web{evil}"), "runc");
    one["Config"]["Image"] = json!(evil);
    one["State"]["Status"] = json!(format!("exited{evil}"));
    let mut two = one.clone();
    two["Id"] = json!("d00d".repeat(16));
    // Two whose names nearly fit are listed, and one that fits and does not run is said.
    let mut third = two.clone();
    third["Name"] = json!("/web");
    for containers in [vec![one, two.clone()], vec![third]] {
        let said = odd.refuses_one_of(containers);
        for c in ['\u{9b}', '\u{202e}', '\x07'] {
            assert!(!said.contains(c), "{said:?}");
        }
    }
}

#[test]
fn a_machine_that_has_no_helper_for_its_processor_is_said() {
    let Some(engine) = Engine::here() else { return };
    // The machine's own `uname` names another processor, and another system.
    for (name, expected) in [("Linux riscv64", "riscv64"), ("FreeBSD amd64", "FreeBSD")] {
        let folder = tempfile::tempdir().unwrap();
        write_program(&folder.path().join("uname"), &format!("#!/bin/sh\necho {name}\n"));
        let site = Site::new(engine, "builtin");
        // bash reads it before the command of an SSH connection.
        let home = site.machine_folder().join("home");
        fs::write(home.join(".bashrc"), format!("PATH={}:$PATH\n", folder.path().display())).unwrap();
        let said = refused_at(&site);
        assert!(said.contains(expected), "{said}");
    }
}

/// A file system that is unmounted at the end of the test.
struct Mounted(PathBuf);

impl Mounted {
    fn new(at: &Path, options: &str) -> Mounted {
        fs::create_dir_all(at).unwrap();
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).status().unwrap();
        assert!(status.success());
        Mounted(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_machine_that_cannot_keep_the_helper_says_why() {
    let Some(engine) = Engine::here() else { return };
    let container = engine.run("kept", &["--network", "none"], BUSYBOX, &[]);
    for (options, expected) in [("size=64k", "full"), ("ro", "read-only"), ("noexec", "noexec")] {
        let site = Site::new(engine, "builtin");
        let folder = site.machine_folder().join("helper");
        let mounted = Mounted::new(&folder, options);
        let said = site.ssh(&[&site.host(&container.name), "true"]).failed(255);
        assert!(said.contains(expected), "{options}: {said}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "{options}: a part of the helper is left");
        drop(mounted);
        // With room for it, the next one works.
        site.ssh(&[&site.host(&container.name), "true"]).ok();
    }
}

/// A helper that was damaged or exchanged on the machine is not run. It is put there again.
#[test]
fn a_helper_with_another_hash_is_not_run() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let container = engine.run("exchanged", &["--network", "none"], BUSYBOX, &[]);
    let host = site.host(&container.name);
    site.ssh(&[&host, "true"]).ok();
    let helper = || site.helpers().remove(0);
    let program = fs::read(helper()).unwrap();
    write_program(&helper(), "#!/bin/sh\ntouch \"$0.was-run\"\n");
    assert_eq!(site.ssh(&[&host, "echo in"]).ok(), "in\n");
    assert!(fs::read(helper()).unwrap() == program);
    assert_eq!(site.helpers().len(), 1, "{:?}", site.helpers());
    let mode =
        |path: &Path| std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions()) & 0o7777;
    assert_eq!((mode(helper().parent().unwrap()), mode(&helper())), (0o700, 0o700));
}

/// A container that is removed while connections come: each comes in or ends with words.
#[test]
fn a_container_that_goes_while_one_connects_is_said() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    site.ssh(&[&site.host(&engine.run("first", &["--network", "none"], BUSYBOX, &[]).name), "true"]).ok();
    for wait in [0, 100, 250, 400, 600, 900] {
        let container = engine.run("going", &["--network", "none"], BUSYBOX, &[]);
        let host = site.host(&container.name);
        let said = thread::scope(|scope| {
            let running = scope.spawn(|| site.ssh(&[&host, "exec sleep 1000"]));
            thread::sleep(std::time::Duration::from_millis(wait));
            container.docker("kill");
            running.join().unwrap()
        });
        assert!(said.failed(255).contains(&container.name), "after {wait} ms");
        eventually("no process of ours is left", || site.visits().is_empty());
    }
}

/// The socket of a machine's engine in a container: the engine's numbers of processes mean others there.
#[test]
fn an_engine_of_another_namespace_is_said() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let container = engine.run("elsewhere", &["--network", "none"], BUSYBOX, &[]);
    site.ssh(&[&site.host(&container.name), "true"]).ok();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc"]).arg(&site.helpers()[0]).arg("enter");
    command.env("DOCKER_HOST", format!("unix://{}", engine.socket().display()));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let request = Request {
        view: View::default(),
        container: container.name.clone(),
        user: CONTAINER_USER.to_owned(),
        host_key: "11".repeat(32),
        tools: Tools::default(),
    };
    child.stdin.take().unwrap().write_all(&wire::frame(&request).unwrap()).unwrap();
    let Reply::Refused(refusal) = wire::read(child.stdout.as_mut().unwrap()).unwrap() else { panic!("entered") };
    child.wait().unwrap();
    assert!(refusal.message.ends_with("cannot be looked at from this session"), "{refusal:?}");
}
