//! Commands that lead into a container by its name alone: `ssh --in`, `open --in`, `port-forward --in` and `debug`.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    process::{Command, Stdio},
    thread,
};

use super::Site;
use crate::support::{
    Said, World,
    engine::{BUSYBOX, Container, Engine, HTTP, SCRATCH, SOCKET},
    eventually,
    forward::Forward,
    needs,
    terminal::OnTerminal,
    write_program,
};

const NONE: [&str; 2] = ["--network", "none"];

/// The folder of an ssh that reads no configuration of the user who runs the tests. `debug` leaves no room for `-F`.
pub(super) fn plain_ssh(world: &World) -> String {
    let bin = world.home().join("bin");
    fs::create_dir_all(&bin).unwrap();
    write_program(&bin.join("ssh"), "#!/bin/sh\nexec /usr/bin/ssh -F none \"$@\"\n");
    format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", bin.display())
}

impl Site {
    /// Runs a command of ours that becomes ssh.
    pub(super) fn local(&self, args: &[&str]) -> Said {
        let path = plain_ssh(&self.world);
        self.world.output(self.world.command(&["--local"]).args(args).env("PATH", path))
    }

    fn debug(&self, container: &str, args: &[&str]) -> Said {
        self.local(&[&["debug", &self.playground(), container], args].concat())
    }
}

/// The first twelve digits of its id, which are its host name inside.
fn short(container: &Container) -> &str {
    &container.id[..12]
}

#[test]
fn ssh_finds_a_container_by_its_name_its_label_or_its_id() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let plain = engine.run("within", &NONE, BUSYBOX, &[]);
    let odd = engine.run_as("Within.1", &NONE, BUSYBOX, &[]);
    let playground = site.playground();
    let inside = |name: &str, host: &str| site.local(&["ssh", "--in", name, host, "hostname"]);
    for (name, container) in [
        (&*plain.name, &plain),
        (short(&plain), &plain),
        (&plain.id, &plain),
        ("Within.1", &odd),
        ("within-1", &odd),
        (short(&odd), &odd),
    ] {
        assert_eq!(inside(name, &playground).ok().trim(), short(container), "{name}");
        assert_eq!(inside(name, &site.machine()).ok().trim(), short(container), "{name}");
    }
    assert_eq!(site.local(&["ssh", "--in", &plain.name, &playground, "exit", "7"]).code(), 7);
    let user = format!("one@{playground}");
    assert_eq!(site.local(&["ssh", "--in", &plain.name, &user, "id", "-un"]).ok(), "one\n");
    // The title of the playground, and what ssh says for itself.
    site.world.local(&["rename", &site.play, "My box"]).ok();
    assert_eq!(inside("Within.1", "My box").ok().trim(), short(&odd));
    let said = inside("Wthin.1", "My box").failed(4);
    // The list is as long as one reads, and other tests have containers at the same time.
    let list = format!("hint: did you mean `Within.1`? use one of: {}.", site.machine());
    assert!(said.contains("playground My box has no container `Wthin.1`") && said.contains(&list), "{said}");
    let said = site.local(&["ssh", "--in", "Within.1", &site.host("within-1"), "true"]).failed(2);
    assert!(said.contains("is a container itself") && said.contains("leave out `.within-1`"), "{said}");
    // A container that does not run is not started.
    odd.docker("kill");
    let said = inside("Within.1", "My box").failed(7);
    let start = format!("ssh {} docker start Within.1`", site.machine());
    assert!(said.contains("is not running (exited: Exited (137)") && said.contains(&start), "{said}");
    assert_eq!(odd.inspect("{{.State.Status}}"), "exited");
    site.leaves_nothing(&plain);
}

/// The machines of the embedded platform are this computer, so a container is on each of them.
#[test]
fn a_name_on_two_machines_is_ambiguous_until_one_of_them_stops() {
    let Some(engine) = Engine::here() else { return };
    let mut site = Site::new(engine, "builtin");
    let container = engine.run("twice", &NONE, BUSYBOX, &[]);
    let duo = format!("playground-{}", site.world.playground("duo"));
    let said = site.local(&["ssh", "--in", &container.name, &duo, "true"]).failed(5);
    for machine in ["node-01", "node-02"] {
        let host = format!("{duo}.{machine}.{}", container.name);
        assert!(said.contains(&host), "{said}");
        let there = format!("{duo}.{machine}");
        assert_eq!(site.local(&["ssh", "--in", &container.name, &there, "hostname"]).ok().trim(), short(&container));
    }
    // One that is stopped is not asked, and not started.
    site.world.local(&["machine", "stop", &duo, "node-02"]).ok();
    let found = site.local(&["ssh", "--in", &container.name, &duo, "hostname"]);
    assert_eq!(found.ok().trim(), short(&container));
    let said = site.local(&["ssh", "--in", "no-such", &duo, "true"]).failed(4);
    let hint = "machine node-02 is not running, and was not asked";
    assert!(said.contains("has no container `no-such`") && said.contains(hint), "{said}");
    site.leaves_nothing(&container);
}

#[test]
fn open_names_the_container() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let container = engine.run_as("Open.1", &NONE, BUSYBOX, &[]);
    let path = plain_ssh(&site.world);
    let bin = site.world.home().join("bin");
    write_program(&bin.join("code"), "#!/bin/sh\nexec >\"$(dirname \"$0\")/said\"; printf '%s ' \"$@\"\n");
    let open = |more: &[&str]| {
        let mut command =
            site.world.command(&["--local", "open", "code", &site.playground(), "/var", "--in", "Open.1"]);
        site.world.output(command.args(more).env("PATH", &path))
    };
    let host = site.host("open-1");
    let link = format!("--folder-uri vscode-remote://ssh-remote+{host}/var");
    assert_eq!(open(&["--print"]).ok(), format!("code {link}\n"));
    let said: serde_json::Value = serde_json::from_str(&open(&["--json"]).ok()).unwrap();
    assert_eq!((&said["host"], &said["container"]), (&host.clone().into(), &"open-1".into()));
    assert_eq!(fs::read_to_string(bin.join("said")).unwrap().trim(), link);
    site.leaves_nothing(&container);
}

#[test]
fn debug_keeps_the_exit_code_the_words_and_the_bytes() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let app = "/app";
    for (image, tools) in [(BUSYBOX, "auto"), (SCRATCH, "none"), (SCRATCH, "always")] {
        let container = engine.run("debug", &NONE, image, &[]);
        let debug = |args: &[&str]| site.debug(&container.name, &[&["--tools", tools], args].concat());
        let words = ["--", app, "say", "a b", "", "it's", "\"$HOME\"", "*", "a\nb", "-x", "é\\n"];
        let judge = container.exec(&[], &words[1..]);
        assert!(judge.status.success(), "{judge:?}");
        assert_eq!(debug(&words).ok().as_bytes(), judge.stdout, "{image}");
        assert_eq!(debug(&["--", app, "exit", "42"]).code(), 42);
        assert_eq!(debug(&["--", "/no/such"]).code(), 127);
        // Standard input is passed on as it is, and so is the output.
        let noise = crate::support::noise(1 << 20);
        let mut command = site.world.command(&["--local", "debug", &site.playground(), &container.name]);
        command.args(["--tools", tools, "--", app, "cat"]).env("PATH", plain_ssh(&site.world)).stdin(Stdio::piped());
        let said = site.world.feed(&mut command, &noise);
        assert!(said.stdout == noise, "{image}: {} bytes", said.stdout.len());
        site.leaves_nothing(&container);
    }
}

/// The tools do what the container has no program for, and the files are the container's.
#[test]
fn debug_brings_the_programs_that_a_container_lacks() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    for (name, image, options) in [
        ("lacking", SCRATCH, &NONE[..]),
        ("readonly", SCRATCH, &["--network", "none", "--read-only", "--cap-drop", "all"]),
        ("lacking", BUSYBOX, &NONE),
    ] {
        let container = engine.run(name, options, image, &[]);
        let listed = site.debug(&container.name, &["--", "sh", "-c", "ls -d /data; id -u; exit 9"]);
        let user = if image == SCRATCH { "65532" } else { "0" };
        assert_eq!((listed.out, listed.status.code()), (format!("/data\n{user}\n"), Some(9)), "{name}");
        let mut command = site.world.command(&["--local", "debug", &site.playground(), &container.name]);
        let said = site.world.feed(command.env("PATH", plain_ssh(&site.world)), b"echo $((6*7)); exit 3\n");
        assert_eq!((&*said.stdout, said.status.code()), (&b"42\n"[..], Some(3)), "{said:?}");
        site.leaves_nothing(&container);
    }
    // No other connection of the user's is taken, because it would have other tools.
    let container = engine.run("lacking", &NONE, SCRATCH, &[]);
    let said = site.debug(&container.name, &["--tools", "none", "--", "ls"]);
    assert_eq!(said.code(), 127, "{said:?}");
}

#[test]
fn debug_has_the_user_and_the_terminal_that_are_asked_for() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let container = engine.run_as("Debug.1", &NONE, BUSYBOX, &[]);
    let id = ["--", "id", "-u"];
    for (user, number) in [("one", "1000\n"), ("root", "0\n"), ("4000", "4000\n")] {
        assert_eq!(site.debug("Debug.1", &[&["--user", user], &id[..]].concat()).ok(), number);
    }
    assert_eq!(
        site.local(&["debug", &format!("one@{}", site.playground()), "Debug.1", "--", "id", "-u"]).ok(),
        "1000\n"
    );
    let said = site.local(&["debug", &format!("one@{}", site.playground()), "Debug.1", "--user", "root"]).failed(2);
    assert!(said.contains("two users are named"), "{said}");
    assert!(site.debug("Debug.1", &["--tools", "./x"]).failed(2).contains("a folder of the machine begins with /"));
    // Without a terminal it reads a script.
    let mut command = site.world.command(&["--local", "debug", &site.playground(), "Debug.1"]);
    let said = site.world.feed(command.env("PATH", plain_ssh(&site.world)), b"hostname\ntty\nexit 3\n");
    assert_eq!(String::from_utf8_lossy(&said.stdout), format!("{}\nnot a tty\n", short(&container)));
    assert_eq!(said.status.code(), Some(3));
    // With one it has one, for a command as well.
    let path = format!("PATH={}", plain_ssh(&site.world));
    for (rest, typed) in [(&["--", "sh", "-c", "tty; read x; exit $x"][..], "5\n"), (&[], "tty; exit 5\n")] {
        let playground = site.playground();
        let line = [&["debug", &playground, "Debug.1"], rest].concat();
        let command = pty_process::blocking::Command::new("env")
            .arg(&path)
            .args([crate::support::PROGRAM, "--local"])
            .args(&line)
            .env("HOME", site.world.home())
            .env("TERM", "vt220");
        let mut on_terminal = OnTerminal::start(command, 24, 80);
        on_terminal.type_in(typed);
        on_terminal.expect("/dev/");
        assert_eq!(on_terminal.code(), Some(5), "{rest:?}");
    }
    site.leaves_nothing(&container);
}

/// The bytes that curl gets from a port of this computer.
pub(super) fn curl(port: u16, path: &str) -> std::process::Output {
    let url = format!("http://127.0.0.1:{port}{path}");
    Command::new(needs("curl")).args(["-sS", "--max-time", "60", &url]).output().unwrap()
}

/// A server here that answers every connection with `here`, once it has heard a line.
fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"here");
        }
    });
    port
}

#[test]
fn ports_of_a_container_without_a_network_are_forwarded_both_ways_over_its_restart() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let container = engine.run_as("Forward.1", &NONE, SCRATCH, &[]);
    let (here, socket) = (server(), site.world.path("l.sock"));
    let there = "/dev/shm/r.sock";
    let specs = [
        ("-L", format!("0:localhost:{HTTP}")),
        ("-L", format!("{}:{SOCKET}", socket.display())),
        ("-R", format!("0:localhost:{here}")),
        ("-R", format!("9090:localhost:{here}")),
        ("-R", format!("{there}:localhost:{here}")),
    ];
    let playground = site.playground();
    let mut line = vec![playground.as_str(), "--in", "Forward.1"];
    line.extend(specs.iter().flat_map(|(side, spec)| [*side, spec]));
    let forward = Forward::start(&site.world, &line);
    for event in &forward.listening {
        assert_eq!((&event["machine"], &event["container"]), (&super::MACHINE.into(), &"forward-1".into()), "{event}");
    }
    let remote = forward.listening[2]["address"].as_str().unwrap().rsplit_once(':').unwrap().1.to_owned();
    let works = |remote: &str| {
        let got = curl(forward.address(0).port(), "/data");
        let judge = container.exec(&[], &["/app", "get", &HTTP.to_string(), "GET /data HTTP/1.0\r\n\r\n"]);
        assert!(got.status.success() && judge.stdout.ends_with(&got.stdout), "{got:?}");
        let mut unix = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        unix.write_all(b"echo").unwrap();
        unix.shutdown(std::net::Shutdown::Write).unwrap();
        let mut said = String::new();
        unix.read_to_string(&mut said).unwrap();
        assert_eq!(said, "echo");
        for [word, port] in [["get", remote], ["get", "9090"], ["unix", there]] {
            assert_eq!(container.exec(&[], &["/app", word, port, "x\n"]).stdout, b"here", "{word} {port}");
        }
    };
    works(&remote);
    // One server in the container serves them all.
    let ours = |(_, line): &(u32, String)| line.contains("serve");
    assert_eq!(container.visitors().iter().filter(|one| ours(one)).count(), 1, "{:?}", container.visitors());
    // A connection that comes while it restarts waits for it.
    container.docker("restart");
    let got = curl(forward.address(0).port(), "/data");
    assert!(got.status.success(), "{got:?}");
    eventually("it listens again", || container.exec(&[], &["/app", "get", "9090", "x\n"]).stdout == b"here");
    assert_eq!(forward.end("INT"), 130);
    site.leaves_nothing(&container);
}

#[test]
fn a_container_that_has_ended_is_said_and_one_of_its_name_is_taken_instead() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let container = engine.run_as("again", &NONE, SCRATCH, &[]);
    let mut forward = Forward::start(&site.world, &[&site.playground(), "--in", "again", "-L", &format!("0:{HTTP}")]);
    let port = forward.address(0).port();
    assert!(curl(port, "/data").status.success());
    container.docker("kill");
    let problem = forward.until(&site.world, "problem")["message"].to_string();
    assert!(problem.contains("container again of machine shell-01") && problem.contains("Exited (137)"), "{problem}");
    assert!(!curl(port, "/data").status.success());
    let problem = forward.until(&site.world, "problem")["message"].to_string();
    assert!(problem.contains("has exited with code 137") && problem.contains("docker start again"), "{problem}");
    drop(container);
    let container = engine.run_as("again", &NONE, SCRATCH, &[]);
    assert!(curl(port, "/data").status.success());
    drop(forward);
    site.leaves_nothing(&container);
}

/// A program that reads nothing holds nothing up.
#[test]
fn a_download_that_rests_holds_up_no_other() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let zeros = ["-c", "while :; do nc -l -p 7070 </dev/zero; done"];
    let container = engine.run("rests", &["--network", "none", "--entrypoint", "/bin/sh"], BUSYBOX, &zeros);
    let name = &container.name;
    // In the container, port 7070 sends zeros without end.
    let forward = Forward::start(&site.world, &[&site.playground(), "--in", name, "-L", "0:7070", "-L", "0:8080"]);
    let mut resting = std::net::TcpStream::connect(forward.address(0)).unwrap();
    resting.read_exact(&mut [0; 1024]).unwrap();
    let (sender, _) = container.visitors().into_iter().find(|(_, line)| line.contains("7070")).unwrap();
    let sent = || {
        let io = fs::read_to_string(format!("/proc/{sender}/io")).unwrap();
        io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse::<u64>().unwrap()
    };
    eventually("more is sent than is kept here, and then nothing", || {
        let before = sent();
        thread::sleep(std::time::Duration::from_secs(1));
        before > 16 << 20 && sent() == before
    });
    let _app = container.exec(&["--detach"], &["/app", "serve"]);
    eventually("another connection is served", || curl(forward.address(1).port(), "/data").status.success());
    resting.read_exact(&mut [0; 1 << 20]).unwrap();
    drop(resting);
    assert_eq!(forward.end("INT"), 130);
}

#[test]
fn what_only_machines_have_is_refused_with_the_reason() {
    let site = Site::without_engine().0;
    let playground = site.playground();
    for (more, why) in [
        (&["-L", "0:80", "--save"][..], "the platform saves those of machines only"),
        (&["--restore"], "the platform saves those of machines only"),
        (&["--list"], "the platform saves those of machines only"),
        (&["--auto"], "the platform scans machines only"),
        (&["-L", "5353:53/udp"], "carries connections only"),
        (&["-R", "*:80:80"], "only programs of the container itself reach the port"),
        (&[], "there is nothing to forward"),
    ] {
        let said = site.world.local(&[&["port-forward", &playground, "--in", "web"], more].concat()).failed(2);
        assert!(said.contains(why), "{more:?}: {said}");
    }
    let said = site.world.local(&["port-forward", &site.host("web"), "-L", "0:80"]).failed(2);
    assert!(said.contains(&format!("port-forward {} --in web -L 8080:80", site.machine())), "{said}");
}
