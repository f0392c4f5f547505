//! `port-forward` with real servers, on the embedded platform.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::Stdio,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{
    Ending, World, eventually, fault::closed_port, forward::Forward, free_port, needs, noise, not_run, schema, within,
};

fn world() -> (World, String) {
    let world = World::with_platform(&[]);
    let play = world.json(&["start", "shell", "--json"]);
    let id = play["id"].as_str().unwrap().to_owned();
    (world, id)
}

/// Returns the number of running relays on this world's machines.
fn relays(world: &World, containing: &str) -> usize {
    let home = format!("HOME={}", world.home().display());
    let read = |entry: &fs::DirEntry, name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
    let all = fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        let environment = read(entry, "environ");
        environment.split(|b| *b == 0).any(|variable| variable.starts_with(home.as_bytes()))
            && String::from_utf8_lossy(&read(entry, "cmdline")).contains(containing)
    });
    all.count()
}

/// Starts a server with a thread for each connection. Returns its port.
fn serve(each: impl Fn(TcpStream) + Clone + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, each) = (stream.unwrap(), each.clone());
            thread::spawn(move || each(stream));
        }
    });
    port
}

/// An HTTP server that answers `/N` with N bytes, on persistent connections.
fn http(stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let mut size = None;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some(path) = line.strip_prefix("GET /") {
                size = path.split(' ').next().unwrap().parse::<usize>().ok();
            }
            if line == "\r\n" {
                break;
            }
        }
        let body = noise(size.unwrap());
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
        if stream.write_all(&body).is_err() {
            return;
        }
    }
}

fn get(stream: &mut (impl Read + Write), size: usize) {
    write!(stream, "GET /{size} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
    let mut answer = vec![0; head.len() + size];
    stream.read_exact(&mut answer).unwrap();
    assert!(answer[..head.len()] == *head.as_bytes() && answer[head.len()..] == noise(size));
}

#[test]
fn it_ends_with_whoever_reads_its_json() {
    let world = World::with_platform(&[]);
    let id = world.json(&["start", "shell", "--json"])["id"].as_str().unwrap().to_owned();
    // Node passes sockets to its children instead of pipes.
    let (socket, theirs) = UnixStream::pair().unwrap();
    let (pipe, other) = std::io::pipe().unwrap();
    let ends: [(Box<dyn Read>, Stdio); 2] =
        [(Box::new(socket), OwnedFd::from(theirs).into()), (Box::new(pipe), OwnedFd::from(other).into())];
    for (reader, output) in ends {
        let mut command = world.command(&["--local", "port-forward", &id, "-L", "0:localhost:1", "--json"]);
        let mut child = Ending(command.stdout(output).spawn().unwrap());
        drop(command);
        let mut reader = BufReader::new(reader);
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            assert!(reader.read_line(&mut line).unwrap() > 0, "it says that it is ready");
        }
        assert!(child.0.try_wait().unwrap().is_none());
        drop(reader);
        eventually("it ends", || child.0.try_wait().unwrap().is_some());
        assert!(child.0.wait().unwrap().success());
    }
}

#[test]
fn two_hundred_requests_at_once_get_their_own_answers() {
    let (world, id) = world();
    let port = serve(http);
    let mut forward = Forward::start(&world, &[&id, "-L", &format!("0:127.0.0.1:{port}")]);
    let address = forward.address(0);
    thread::scope(|scope| {
        for i in 0..200 {
            scope.spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
                for round in 0..3 {
                    get(&mut stream, 1000 * (i % 7) + i + round);
                }
            });
        }
    });
    eventually("all of them have ended for the forward, too", || {
        let said = forward.until(&world, "traffic");
        said["open"] == 0 && said["total"] == 200
    });
    assert_eq!(forward.end("INT"), 130);
}

#[test]
fn bulk_goes_both_ways_and_is_counted() {
    let (world, id) = world();
    let port = serve(|mut stream| {
        let mut copy = stream.try_clone().unwrap();
        let _ = std::io::copy(&mut copy, &mut stream);
    });
    let data = noise(30_000_000);
    let specs = [format!("0:127.0.0.1:{port}"), format!("{}:127.0.0.1:{port}", world.home().join("s").display())];
    let forward = Forward::start(&world, &[&id, "-L", &specs[0], "-L", &specs[1]]);
    let streams: [Box<dyn Fn() -> Box<dyn Two>>; 2] = [
        Box::new(|| Box::new(TcpStream::connect(forward.address(0)).unwrap())),
        Box::new(|| Box::new(UnixStream::connect(world.home().join("s")).unwrap())),
    ];
    for connect in streams {
        let mut stream = connect();
        let mut writer = stream.clone_boxed();
        let mut back = vec![0; data.len()];
        thread::scope(|scope| {
            scope.spawn(|| writer.write_all(&data).unwrap());
            stream.read_exact(&mut back).unwrap();
        });
        assert!(back == data);
    }
    assert_eq!(forward.end("TERM"), 143);
    assert!(!world.home().join("s").exists(), "the socket is removed");
}

trait Two: Read + Write + Send {
    fn clone_boxed(&self) -> Box<dyn Two>;
}

impl Two for TcpStream {
    fn clone_boxed(&self) -> Box<dyn Two> {
        Box::new(self.try_clone().unwrap())
    }
}

impl Two for UnixStream {
    fn clone_boxed(&self) -> Box<dyn Two> {
        Box::new(self.try_clone().unwrap())
    }
}

#[test]
fn redis_answers_its_own_clients() {
    let (world, id) = world();
    let (server, cli, benchmark) = (needs("redis-server"), needs("redis-cli"), needs("redis-benchmark"));
    let socket = world.home().join("redis");
    // A port that is free now.
    let port = free_port().to_string();
    let mut redis = world
        .program(server)
        .args(["--port", &port, "--save", "", "--unixsocket"])
        .arg(&socket)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("redis listens", || UnixStream::connect(&socket).is_ok());
    // The port, and the machine's Unix socket, which is reached over SSH.
    let to = [format!("0:127.0.0.1:{port}"), format!("0:{}", socket.display())];
    let forward = Forward::start(&world, &[&id, "-L", &to[0], "-L", &to[1]]);
    for i in 0..2 {
        let here = forward.address(i).port().to_string();
        let run = |args: &[&str]| world.output(world.program(&cli).args(["-p", &here]).args(args)).ok();
        assert_eq!(run(&["set", "key", "value"]).trim(), "OK");
        assert_eq!(run(&["get", "key"]).trim(), "value");
        let clients = if i == 0 { "50" } else { "5" };
        let said = world
            .output(world.program(&benchmark).args(["-p", &here, "-c", clients, "-n", "2000", "-t", "get,set", "-q"]));
        assert!(said.ok().contains("requests per second"));
    }
    // Clients that are gone must be gone at the server as well.
    eventually("the server is rid of them", || {
        let list = world.output(world.program(&cli).arg("-s").arg(&socket).args(["client", "list"])).ok();
        list.lines().filter(|line| !line.is_empty()).count() == 1
    });
    assert_eq!(forward.end("INT"), 130);
    let _ = redis.kill();
    let _ = redis.wait();
}

#[test]
fn a_client_that_has_finished_sending_gets_its_answer() {
    let (world, id) = world();
    // Answers one second after the first line, then ends.
    let early = serve(|mut stream| {
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
        thread::sleep(Duration::from_secs(1));
        stream.write_all(b"the answer").unwrap();
    });
    // Answers only after the end of its input.
    let late = serve(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(format!("{} bytes", all.len()).as_bytes()).unwrap();
    });
    let ask = |address: SocketAddr| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"question\n").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let forward = Forward::start(&world, &[&id, "-L", &format!("0:127.0.0.1:{early}")]);
    assert_eq!(ask(forward.address(0)), "the answer");
    drop(forward);
    let specs = [early, late].map(|port| format!("0:localhost:{port}"));
    let forward = Forward::start(&world, &[&id, "--over-ssh", "-L", &specs[0], "-L", &specs[1]]);
    assert_eq!(ask(forward.address(0)), "the answer");
    assert_eq!(ask(forward.address(1)), "9 bytes", "SSH has a half-close");
}

#[test]
fn a_client_that_has_gone_ends_its_connection_at_the_server() {
    let (world, id) = world();
    let (ended, heard) = mpsc::channel();
    let port = serve(move |mut stream| {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        ended.send(all).unwrap();
    });
    let forward = Forward::start(&world, &[&id, "-L", &format!("0:127.0.0.1:{port}")]);
    let data = noise(3_000_000);
    let mut stream = TcpStream::connect(forward.address(0)).unwrap();
    stream.write_all(&data).unwrap();
    drop(stream);
    let all = heard.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(all == data, "all that it had sent has arrived: {} of {}", all.len(), data.len());
}

/// The same with a server that never reads the client's data.
#[test]
fn a_client_that_has_gone_leaves_nothing_at_a_server_that_does_not_read() {
    let (world, id) = world();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let forward = Forward::start(&world, &[&id, "-L", &format!("0:127.0.0.1:{port}")]);
    let mut client = TcpStream::connect(forward.address(0)).unwrap();
    client.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let (server, _) = listener.accept().unwrap();
    while client.write(&[0; 1 << 16]).is_ok() {}
    drop(client);
    forward.end("KILL");
    // The platform's end of the connection to the server: closed, or in a state without an owning process.
    let peer = server.peer_addr().unwrap();
    let held = || {
        let end = format!(":{:04X} 0100007F:{port:04X} 01 ", peer.port());
        fs::read_to_string("/proc/net/tcp").unwrap().contains(&end)
    };
    assert!(held(), "the connection is there");
    eventually("the platform has closed it", || !held());
}

/// The machine sends endless data instead of the relay's answer. Memory and time stay bounded.
#[test]
fn a_machine_that_babbles_is_not_listened_to_for_ever() {
    let (world, id) = world();
    fs::write(world.machine_home(&id, "shell-01").join(".bashrc"), "exec yes >&2\n").unwrap();
    let mut command = world.command(&["--local", "port-forward", &id, "-L", "0:127.0.0.1:9/udp"]);
    command.stderr(Stdio::piped()).stdout(Stdio::null()).env("SHELL", "/bin/bash");
    let mut child = command.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let (mut peak, start) = (0, Instant::now());
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("it still runs; is the user's shell no bash?");
        }
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
        peak = line.trim().trim_end_matches(" kB").parse().unwrap_or(peak).max(peak);
        assert!(peak < 150_000, "{peak} KiB");
        thread::sleep(Duration::from_millis(50));
    }
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("the UDP relay") && said.contains("hint: "), "{said}");
}

#[test]
fn remote_forwards_lead_here() {
    let (world, id) = world();
    let port = serve(http);
    let (far, near) = (world.home().join("far"), world.home().join("near"));
    let listener = std::os::unix::net::UnixListener::bind(&near).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            stream.unwrap().write_all(b"near").unwrap();
        }
    });
    let free = free_port();
    let forward = Forward::start(
        &world,
        &[
            &id,
            "-R",
            &format!("{free}:127.0.0.1:{port}"),
            "-R",
            &format!("0:127.0.0.1:{port}"),
            "-R",
            &format!("{}:127.0.0.1:{port}", far.display()),
            "-R",
            &format!("localhost:0:{}", near.display()),
        ],
    );
    assert_eq!(forward.address(0).port(), free);
    for size in [10, 1_000_000] {
        get(&mut TcpStream::connect(forward.address(0)).unwrap(), size);
        get(&mut TcpStream::connect(forward.address(1)).unwrap(), size);
        get(&mut UnixStream::connect(&far).unwrap(), size);
    }
    let mut said = String::new();
    TcpStream::connect(forward.address(3)).unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "near");
    thread::scope(|scope| {
        for i in 0..50 {
            let address = forward.address(0);
            scope.spawn(move || get(&mut TcpStream::connect(address).unwrap(), i * 100));
        }
    });
    // A port that cannot be bound is reported at once.
    let said = world.local(&["port-forward", &id, "-R", &format!("{free}:127.0.0.1:{port}")]).failed(6);
    assert!(said.contains("cannot listen on"), "{said}");
    assert_eq!(forward.end("HUP"), 129);
    eventually("the machine no longer listens", || TcpStream::connect(("127.0.0.1", free)).is_err() && !far.exists());
}

#[test]
fn a_socket_that_sshd_has_left_behind_is_replaced_and_one_in_use_is_not() {
    let world = World::with_platform(&["--endpoint", "sshd"]);
    let id = world.json(&["start", "shell", "--json"])["id"].as_str().unwrap().to_owned();
    let far = world.home().join("far");
    let spec = format!("{}:127.0.0.1:{}", far.display(), serve(http));
    // The session of a killed one survives at the machine, and the next one ends it.
    let killed = Forward::start(&world, &[&id, "-R", &spec]);
    get(&mut UnixStream::connect(&far).unwrap(), 100);
    killed.end("KILL");
    assert!(UnixStream::connect(&far).is_ok(), "it is held");
    let next = Forward::start(&world, &[&id, "-R", &spec]);
    get(&mut UnixStream::connect(&far).unwrap(), 100);
    next.end("INT");
    eventually("nobody listens any more", || UnixStream::connect(&far).is_err());
    world.settings("resume: never\n");
    for signal in ["KILL", "INT"] {
        let forward = Forward::start(&world, &[&id, "-R", &spec]);
        get(&mut UnixStream::connect(&far).unwrap(), 100_000);
        assert!(world.local(&["port-forward", &id, "-R", &spec]).failed(6).contains("cannot listen on"));
        get(&mut UnixStream::connect(&far).unwrap(), 10);
        forward.end(signal);
        eventually("nobody listens any more", || UnixStream::connect(&far).is_err());
    }
    fs::remove_file(&far).unwrap();
    fs::write(&far, "a file").unwrap();
    assert!(world.local(&["port-forward", &id, "-R", &spec]).failed(6).contains("cannot listen on"));
    assert_eq!(fs::read_to_string(&far).unwrap(), "a file");
}

#[test]
fn what_cannot_be_set_up_is_said_at_once_and_wakes_nothing() {
    let (world, id) = world();
    world.local(&["stop", &id]).ok();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let said = world.local(&["port-forward", &id, "-L", &format!("127.0.0.1:{port}:x:1")]).failed(10);
    assert!(said.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{said}");
    let said = world.local(&["port-forward", &id, "-L", "shell-01:8080:localhost:80"]).failed(10);
    assert!(said.contains("-m names a machine"), "{said}");
    let long = format!("/tmp/{}", "x".repeat(103));
    for (option, spec) in [("-L", format!("{long}:x:1")), ("-L", format!("1:{long}")), ("-R", format!("{long}:x:1"))] {
        let said = world.local(&["port-forward", &id, option, &spec]).failed(2);
        assert!(said.contains("can have 107 bytes, and this one has 108"), "{said}");
        assert!(!said.contains("labctl-ssh-proxy: `"), "{said}");
    }
    let said = world.local(&["port-forward", &id, "-L", "8080:a:1", "-L", "localhost:8080:b:1"]).failed(2);
    assert!(said.contains("-L leads to two places: 8080:a:1 and localhost:8080:b:1"), "{said}");
    let said = world.local(&["port-forward", &id, "-R", "5353:x:53/udp"]).failed(2);
    assert!(said.contains("UDP"), "{said}");
    assert!(world.local(&["port-forward", &id]).failed(2).contains("nothing to forward"));
    assert!(world.local(&["port-forward", &id, "-R", "80"]).failed(2).contains("destination port is missing"));
    assert!(world.local(&["port-forward", &id, "-m", "x", "-L", "0:x:1"]).failed(4).contains("no machine x"));
    assert_eq!(world.json(&["list", "--json"])[0]["state"], "STOPPED");
}

#[test]
fn a_forward_survives_a_restart_and_does_not_undo_a_stop() {
    let (world, id) = world();
    world.local(&["stop", &id]).ok();
    let port = serve(http);
    let free = free_port();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let echo = udp.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((n, from)) = udp.recv_from(&mut buffer) {
            udp.send_to(&buffer[..n], from).unwrap();
        }
    });
    let mut forward = Forward::start(
        &world,
        &[
            &id,
            "-L",
            &format!("0:127.0.0.1:{port}"),
            "-R",
            &format!("{free}:127.0.0.1:{port}"),
            "-L",
            &format!("0:127.0.0.1:{echo}/udp"),
        ],
    );
    assert_eq!(world.json(&["list", "--json"])[0]["state"], "RUNNING", "to forward is a deliberate act");
    let address = forward.address(0);
    get(&mut TcpStream::connect(address).unwrap(), 100);

    world.local(&["stop", &id]).ok();
    let mut refused = TcpStream::connect(address).unwrap();
    refused.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(refused.read_to_end(&mut Vec::new()).unwrap_or(0), 0, "the connection is refused");
    loop {
        let problem = forward.until(&world, "problem");
        if problem["message"].as_str().unwrap().contains("a connection to") {
            assert!(problem["message"].as_str().unwrap().contains("is stopped"), "{problem}");
            break;
        }
    }
    assert_eq!(world.json(&["list", "--json"])[0]["state"], "STOPPED", "nobody has woken it");

    world.local(&["start", &id]).ok();
    get(&mut TcpStream::connect(address).unwrap(), 100);
    within(Duration::from_secs(40), "the machine listens again", &mut || {
        TcpStream::connect(("127.0.0.1", free)).is_ok_and(|mut stream| {
            get(&mut stream, 100);
            true
        })
    });
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    within(Duration::from_secs(40), "datagrams come through again", &mut || {
        client.send_to(b"?", forward.address(1)).unwrap();
        client.recv(&mut [0; 9]).is_ok()
    });

    world.local(&["destroy", &id, "--yes"]).ok();
    let _ = TcpStream::connect(address).map(|mut stream| stream.read(&mut [0]));
    within(Duration::from_secs(40), "it ends with the playground", &mut || forward.child.try_wait().unwrap().is_some());
    let code = forward.child.wait().unwrap().code().unwrap();
    assert!(code == 8 || code == 4, "{code}");
}

/// Starts a name server for one kind of question: the address of `a.b.c.d.test` is a.b.c.d. It answers in threads,
/// after a delay, so that the answers come in another order than the questions.
fn name_server() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((n, from)) = socket.recv_from(&mut buffer) {
            let (question, socket) = (buffer[..n].to_vec(), socket.try_clone().unwrap());
            thread::spawn(move || {
                let mut at = 12;
                let mut address = Vec::new();
                while question[at] != 0 {
                    let label = &question[at + 1..][..usize::from(question[at])];
                    address.extend(String::from_utf8_lossy(label).parse::<u8>());
                    at += label.len() + 1;
                }
                let end = at + 5;
                let mut answer = question[..end].to_vec();
                answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
                answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                answer.extend_from_slice(&address[..4]);
                thread::sleep(Duration::from_millis(u64::from(address[3] % 5) * 3));
                let _ = socket.send_to(&answer, from);
            });
        }
    });
    port
}

#[test]
fn a_thousand_dig_queries_get_their_own_answers() {
    let (world, id) = world();
    let dig = needs("dig");
    let port = name_server();
    let forward = Forward::start(&world, &[&id, "-L", &format!("0:127.0.0.1:{port}/udp")]);
    let here = forward.address(0).port();
    // 50 digs at the same time, with 20 questions each.
    thread::scope(|scope| {
        for worker in 0..50 {
            let (world, dig) = (&world, &dig);
            scope.spawn(move || {
                let names: Vec<String> = (0..20).map(|i| format!("10.{worker}.{i}.{}.test", i * 7 % 256)).collect();
                let mut command = world.program(dig);
                // Concurrent digs sometimes choose the same port and receive each other's answers, even without the
                // forward. An address of its own for each dig prevents that.
                let own = format!("127.1.0.{}", worker + 1);
                command.args(["-b", &own, "@127.0.0.1", "-p", &here.to_string(), "+short", "+tries=1", "+time=10"]);
                let said = world.output(command.args(&names)).ok();
                let expected: String =
                    names.iter().map(|name| format!("{}\n", name.trim_end_matches(".test"))).collect();
                assert_eq!(said, expected);
            });
        }
    });
    assert_eq!(forward.end("INT"), 130);
    eventually("the relay has ended", || relays(&world, "fromhex") == 0);
}

#[test]
fn datagrams_keep_their_boundaries_and_peers_are_forgotten() {
    let (world, id) = world();
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let mut forward = Forward::start(&world, &[&id, "-L", &format!("0:127.0.0.1:{port}/udp"), "--udp-idle", "5s"]);
    let here = forward.address(0);
    let clients: Vec<UdpSocket> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    for socket in clients.iter().chain([&server]) {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    }
    let mut buffer = vec![0; 70_000];
    let mut peers = Vec::new();
    // 60 KiB, and the maximum of UDP over IPv4.
    for (i, size) in [(0, 0), (1, 1), (2, 1472), (0, 60 * 1024), (1, 65_507)] {
        let data = noise(size);
        clients[i].send_to(&data, here).unwrap();
        let (n, from) = server.recv_from(&mut buffer).unwrap();
        assert!(buffer[..n] == data, "{n} of {size}");
        server.send_to(&data, from).unwrap();
        let n = clients[i].recv(&mut buffer).unwrap();
        assert!(buffer[..n] == data, "{n} of {size} back");
        peers.push((i, from));
    }
    assert_eq!((peers[0].1, peers[1].1), (peers[3].1, peers[4].1), "a peer keeps its socket");
    // Larger ones are refused at the sender, as without the forward.
    assert!(clients[0].send_to(&noise(65_508), here).is_err());
    // The server still remembers a peer, and answers it late and out of order.
    server.send_to(b"late", peers[2].1).unwrap();
    let n = clients[2].recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..n], b"late");
    for _ in 0..3 {
        forward.until(&world, "close");
    }
    clients[0].send_to(b"again", here).unwrap();
    assert_ne!(server.recv_from(&mut buffer).unwrap().1, peers[0].1, "an idle peer was forgotten");
}

#[test]
fn forwards_are_saved_listed_restored_and_removed() {
    let (world, id) = world();
    let port = serve(http);
    let free = free_port();
    let spec = format!("{free}:127.0.0.1:{port}");
    for _ in 0..2 {
        let forward = Forward::start(&world, &[&id, "-L", &spec, "-R", "0:localhost:80", "--save"]);
        assert_eq!(forward.end("INT"), 130);
    }
    let saved = world.json(&["port-forward", &id, "--list", "--json"]);
    schema::check("savedForwards", &saved);
    assert_eq!(saved.as_array().unwrap().len(), 2, "once each: {saved}");
    assert_eq!(saved[0]["kind"], "local");
    assert_eq!((&saved[0]["index"], &saved[1]["index"]), (&0.into(), &1.into()));
    assert_eq!(saved[0]["machine"], "shell-01");
    assert_eq!(saved[0]["remotePort"], port);
    let table = world.local(&["port-forward", &id, "--list"]).ok();
    assert!(table.contains(&format!("-L {spec}")) && table.contains("-R 0:localhost:80"), "{table}");
    let forward = Forward::start(&world, &[&id, "--restore"]);
    assert_eq!(forward.listening.len(), 2);
    get(&mut TcpStream::connect(("127.0.0.1", free)).unwrap(), 5);
    drop(forward);
    let said = world.local(&["port-forward", &id, "-L", "0:1.1.1.1:53/udp", "--save"]).failed(2);
    assert!(said.contains("cannot be saved"), "{said}");
    assert!(world.local(&["port-forward", &id, "--remove", "2"]).failed(4).contains("no saved port forward 2"));
    let removed = world.json(&["port-forward", &id, "--remove", "0", "--json"]);
    schema::check("removedForwards", &removed);
    assert_eq!(removed["removed"], serde_json::json!([0]));
    assert_eq!(world.json(&["port-forward", &id, "--list", "--json"])[0]["kind"], "remote");
    world.local(&["port-forward", &id, "--remove", "all"]).ok();
    assert!(world.local(&["port-forward", &id, "--restore"]).failed(4).contains("no saved port forwards"));
}

#[test]
fn the_same_forward_of_another_machine_is_another_one() {
    let world = World::with_platform(&[]);
    let id = world.json(&["start", "duo", "--json"])["id"].as_str().unwrap().to_owned();
    let args = [&id, "-L", "0:localhost:80"];
    Forward::start(&world, &[&args[..], &["--machine", "node-02", "--save"]].concat()).end("INT");
    let forward = Forward::start(&world, &[&args[..], &["--restore"]].concat());
    let machines: Vec<&Value> = forward.listening.iter().map(|event| &event["machine"]).collect();
    assert_eq!(machines, ["node-01", "node-02"]);
    forward.end("INT");
    let again = Forward::start(&world, &[&args[..], &["--machine", "node-02", "--restore"]].concat());
    assert_eq!(again.listening.len(), 1, "one is one");
}

#[test]
fn a_port_that_is_busy_on_one_loopback_address_is_forwarded_from_the_other() {
    let (world, id) = world();
    let port = serve(http);
    for (busy, free) in [("::1", "127.0.0.1"), ("127.0.0.1", "::1")] {
        let (_taken, number) = loop {
            let (Ok(taken), true) = (TcpListener::bind((busy, 0)), TcpListener::bind((free, 0)).is_ok()) else {
                return not_run("there is no IPv6 here");
            };
            let number = taken.local_addr().unwrap().port();
            // Another test may have the port there.
            if TcpListener::bind((free, number)).is_ok() {
                break (taken, number);
            }
        };
        // The same forward twice is one.
        let spec = format!("{number}:127.0.0.1:{port}");
        let forward = Forward::start(&world, &[&id, "-L", &spec, "-L", &spec, "-L", &format!("0:127.0.0.1:{port}")]);
        assert_eq!(forward.listening.len(), 2);
        get(&mut TcpStream::connect((free, number)).unwrap(), 5);
        get(&mut TcpStream::connect(forward.address(1)).unwrap(), 5);
        drop(forward);
        let datagrams = Forward::start(&world, &[&id, "-L", &format!("{number}:127.0.0.1:{port}/udp")]);
        assert_eq!(datagrams.listening.len(), 1);
    }
}

#[test]
fn an_end_that_is_not_orderly_is_said() {
    let (world, id) = world();
    let closed = closed_port();
    let spec = format!("0:localhost:{closed}");
    for (options, words) in [
        (vec![], format!("nothing answered on localhost:{closed} there")),
        (vec!["--over-ssh"], "nothing listens there".into()),
    ] {
        let mut forward = Forward::start(&world, &[&[id.as_str(), "-L", &spec], &options[..]].concat());
        let mut near = TcpStream::connect(forward.address(0)).unwrap();
        let _ = near.write_all(b"anyone?");
        assert_eq!(near.read_to_end(&mut Vec::new()).unwrap_or(0), 0);
        let problem = forward.until(&world, "problem")["message"].as_str().unwrap().to_owned();
        assert!(problem.contains(&words), "{problem}");
        let close = forward.until(&world, "close");
        assert!(close["error"].as_str().unwrap().contains(&words), "{close}");
    }
    // An orderly end is none, whatever was said.
    let port = serve(|mut stream| drop(stream.write_all(b"bye")));
    let mut forward = Forward::start(&world, &[&id, "-L", &format!("0:localhost:{port}")]);
    let mut all = String::new();
    TcpStream::connect(forward.address(0)).unwrap().read_to_string(&mut all).unwrap();
    assert_eq!(all, "bye");
    assert_eq!(forward.until(&world, "close").get("error"), None);
    drop(forward);
    // The platform vanishes in the middle.
    let port = serve(|mut stream| {
        stream.write_all(b"half of").unwrap();
        thread::sleep(Duration::from_secs(60));
    });
    for options in [vec![], vec!["--over-ssh"]] {
        let (mut world, id) = self::world();
        let spec = format!("0:localhost:{port}");
        let mut forward = Forward::start(&world, &[&[id.as_str(), "-L", &spec], &options[..]].concat());
        let mut near = TcpStream::connect(forward.address(0)).unwrap();
        near.read_exact(&mut [0; 7]).unwrap();
        world.kill_platform();
        let close = forward.until(&world, "close");
        assert!(close["error"].as_str().is_some_and(|error| error.contains("in the middle")), "{options:?}: {close}");
    }
}

#[test]
fn a_vanished_platform_ends_connections_and_not_the_command() {
    let (mut world, id) = world();
    let port = serve(http);
    let mut forward = Forward::start(&world, &[&id, "-L", &format!("0:127.0.0.1:{port}")]);
    let mut stream = TcpStream::connect(forward.address(0)).unwrap();
    get(&mut stream, 10);
    world.kill_platform();
    let start = Instant::now();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap_or(0), 0);
    assert!(start.elapsed() < Duration::from_secs(5), "the end is passed on");
    assert!(forward.child.try_wait().unwrap().is_none(), "it waits for better times");
    let start = Instant::now();
    assert_eq!(forward.end("INT"), 130);
    assert!(start.elapsed() < Duration::from_secs(2));
}
