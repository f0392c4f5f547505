//! Attacks on the embedded platform: by another user of this computer, by a process that holds connections open, and by
//! a process that listens where the platform used to.

use std::{
    fs,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    process::Stdio,
    thread,
    time::Duration,
};

use crate::support::{PROGRAM, World, eventually, needs, not_run, within};

/// The user id of `nobody` on Debian and most other systems.
const NOBODY: &str = "65534";

fn port(world: &World) -> u16 {
    let status = world.json(&["local", "status", "--json"]);
    status["listen"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap()
}

fn ask(mut stream: impl Read + Write, host: &str) -> String {
    let mut answer = String::new();
    let head = format!("GET /api/plays HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.read_to_string(&mut answer));
    answer
}

/// Another user can neither connect nor read any file, even if the folders were opened to all by mistake.
#[test]
fn another_user_gets_nothing() {
    let mut world = World::with_platform(&[]);
    world.playground("shell");
    let socket = world.root().join("local/socket");
    if !rustix::process::geteuid().is_root() {
        // Without root, the modes are all that can be checked.
        assert_eq!(fs::metadata(world.root().join("local")).unwrap().permissions().mode() & 0o077, 0);
        return not_run("only root can become another user");
    }
    needs("setpriv");
    needs("nc");
    let as_nobody = |script: String| {
        let mut command = world.program("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "sh", "-c", &script]).current_dir("/");
        world.output(&mut command)
    };
    let knock = || {
        as_nobody(format!(
            "printf 'GET /api/plays HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' | nc -w 2 -U {}",
            socket.display()
        ))
    };
    assert!(knock().out.is_empty());
    assert!(ask(UnixStream::connect(&socket).unwrap(), "x").starts_with("HTTP/1.1 200"), "it answers its own user");
    // Open every folder on the way to all, and the socket as well. The kernel still reports the peer's user.
    let mut folder = Some(world.root().join("local"));
    while let Some(path) = folder.filter(|path| path.starts_with(world.home())) {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        folder = path.parent().map(Path::to_owned);
    }
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let said = knock();
    assert!(said.out.is_empty(), "{said:?}");
    let log = fs::read_to_string(world.home().join("platform.log")).unwrap();
    // Every file that matters is also protected by its own mode.
    let read = as_nobody(format!(
        "for f in $(find {} -type f 2>/dev/null); do head -c 1 $f >/dev/null 2>&1 && echo $f; done; true",
        world.root().display()
    ));
    assert_eq!(read.out, "", "files that another user can read; the platform's log: {log}");
}

/// Another process listens on the platform's old port. `--local` does not connect to it, even with credentials for it.
/// A client that is configured for the port does, because it knows the listener only by its address.
#[test]
fn local_commands_never_use_the_port() {
    let mut world = World::with_platform(&["--listen", "127.0.0.1:0"]);
    let port = port(&world);
    let pid = world.json(&["local", "status", "--json"])["pid"].as_i64().unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let squatter = loop {
        match TcpListener::bind(("127.0.0.1", port)) {
            Ok(listener) => break listener,
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    };
    squatter.set_nonblocking(true).unwrap();
    let account = world.home().join(".iximiuz/labctl/config.yaml");
    fs::create_dir_all(account.parent().unwrap()).unwrap();
    let text = format!("api_base_url: http://127.0.0.1:{port}/api\nsession_id: planted\naccess_token: planted\n");
    fs::write(&account, text).unwrap();
    let with_credentials = |args: &[&str]| {
        let mut command = world.command(args);
        command.env("IXIMIUZ_SESSION_ID", "planted").env("IXIMIUZ_ACCESS_TOKEN", "planted");
        command
    };
    for args in
        [&["list"][..], &["start", "shell", "--no-wait"], &["list", "--json"], &["whoami"], &["local", "status"]]
    {
        world.output(with_credentials(&["--local"]).args(args)).ok();
        let heard = squatter.accept().map(|(_, peer)| peer);
        assert!(heard.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock), "{args:?}: {heard:?}");
    }
    // Without --local, the client does connect, which shows that the trap works.
    let mut listing = with_credentials(&["list"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    within(Duration::from_secs(10), "a client that is configured for it comes", &mut || squatter.accept().is_ok());
    listing.kill().unwrap();
    listing.wait().unwrap();
    world.stop_platform();
}

/// Strangers who open as many connections to the port as they can do not lock the user out, and get no data.
#[test]
fn a_flood_by_the_port_does_not_keep_the_user_out() {
    let mut world = World::with_platform(&["--listen", "127.0.0.1:0"]);
    let port = port(&world);
    let mut held = Vec::new();
    for n in 0..600 {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { break };
        // Half a request each, which stays incomplete for a minute.
        let _ = stream.write_all(format!("GET /api/plays HTTP/1.1\r\nX-{n}: ").as_bytes());
        held.push(stream);
    }
    assert!(held.len() > 300, "only {} connections", held.len());
    assert_eq!(world.json(&["list", "--json"]), serde_json::json!([]));
    world.playground("shell");
    drop(held);
    eventually("strangers are answered again", || {
        TcpStream::connect(("127.0.0.1", port)).is_ok_and(|stream| ask(stream, "127.0.0.1").starts_with("HTTP/1.1 401"))
    });
    for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80"] {
        let answer = ask(TcpStream::connect(("127.0.0.1", port)).unwrap(), host);
        assert!(answer.starts_with("HTTP/1.1 403"), "{host}: {answer}");
    }
    world.stop_platform();
}

/// A user's own runaway script. Playgrounds, connections and bodies are bounded, and the platform recovers afterwards.
#[test]
fn what_is_without_end_is_bounded() {
    let mut world = World::with_platform(&[]);
    let socket = world.root().join("local/socket");
    let held: Vec<UnixStream> = (0..500).filter_map(|_| UnixStream::connect(&socket).ok()).collect();
    drop(held);
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(b"POST /api/plays HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n").unwrap();
    let chunk = vec![b' '; 1 << 20];
    while stream.write_all(&chunk).is_ok() {}
    // First all at once, then one by one.
    let answers: Vec<String> = std::thread::scope(|scope| {
        let ask = || {
            let mut stream = UnixStream::connect(&socket).unwrap();
            let body = r#"{"playground":"shell"}"#;
            let head = "POST /api/plays HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json";
            write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        let asking: Vec<_> = (0..150).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    let started = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 2")).count();
    let refused = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 403 ")).count();
    assert_eq!((started, refused), (64, 86), "{}", answers[0]);
    assert_eq!(world.local(&["start", "shell", "--no-wait"]).code(), 6);
    assert_eq!(world.json(&["list", "--json"]).as_array().unwrap().len(), started);
    let status =
        fs::read_to_string(format!("/proc/{}/status", world.json(&["local", "status", "--json"])["pid"])).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB");
    assert!(peak.parse::<u64>().unwrap() < 200_000, "{peak} KiB");
    world.stop_platform();
}

/// Everything below our folder is private to its owner, whatever the umask.
#[test]
fn everything_we_write_is_private() {
    let mut world = World::empty();
    let run = |args: &[&str]| {
        let mut command = world.program("sh");
        command.args(["-c", "umask 000; exec \"$@\"", "sh", PROGRAM]).args(args);
        assert!(command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success(), "{args:?}");
    };
    run(&["--local", "start", "shell"]);
    run(&["--local", "config-ssh", "--yes"]);
    run(&["--local", "list"]);
    let mut folders = vec![world.root(), world.home().join(".iximiuz")];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            // A machine's home is its user's, with the usual mode of homes.
            assert_eq!(metadata.permissions().mode() & 0o077, 0, "{} is open to others", path.display());
            seen += 1;
            if metadata.is_dir() && !path.join("play.json").exists() {
                folders.push(path);
            }
        }
    }
    assert!(seen > 10, "{seen}");
    assert_eq!(fs::metadata(world.home().join(".ssh/config")).unwrap().permissions().mode() & 0o022, 0);
    world.stop_platform();
}
