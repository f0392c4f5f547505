//! `port-forward --auto`: real servers that come and go on the embedded platform, and a platform whose scans fail.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStdin, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{
    Ending, PROGRAM, World, eventually,
    forward::Forward,
    free_port,
    labs::{ID, Instead, Labs, PLAIN},
};

/// A Python program on the machine, which prints one line when it is ready, and reads lines.
struct Server {
    _process: Ending,
    input: ChildStdin,
    said: String,
}

impl Server {
    fn start(world: &World, id: &str, script: &str) -> Server {
        let mut ssh = world.ssh_program("ssh");
        ssh.arg(format!("playground-{id}")).arg(format!("exec python3 -c '{script}'"));
        let child = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut process = Ending(child);
        let child: &mut Child = &mut process.0;
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        Server { input: child.stdin.take().unwrap(), _process: process, said: said.trim().to_owned() }
    }

    /// An echo server for one connection after the other. Once a line is written to it, it listens no longer.
    fn echo(world: &World, id: &str) -> Server {
        Server::start(
            world,
            id,
            "import socket, threading, sys\n\
             s = socket.create_server((\"127.0.0.1\", 0))\n\
             def echo(c):\n  \
               while d := c.recv(4096): c.sendall(d)\n\
             def accept():\n  \
               while True: threading.Thread(target=echo, args=(s.accept()[0],), daemon=True).start()\n\
             threading.Thread(target=accept, daemon=True).start()\n\
             print(s.getsockname()[1], flush=True)\n\
             sys.stdin.readline(); s.shutdown(socket.SHUT_RDWR); s.close(); sys.stdin.readline()",
        )
    }

    fn port(&self) -> u16 {
        self.said.parse().unwrap_or_else(|e| panic!("{e}: {:?}", self.said))
    }

    fn stops_listening(&mut self) {
        self.input.write_all(b"\n").unwrap();
    }
}

/// The machine's port that a `listening` event leads to.
fn to(event: &Value) -> u16 {
    event["to"].as_str().unwrap().strip_prefix("localhost:").unwrap().parse().unwrap()
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

fn is_echoed(mut stream: &TcpStream, words: &str) -> bool {
    let mut back = vec![0; words.len()];
    stream.write_all(words.as_bytes()).is_ok() && stream.read_exact(&mut back).is_ok() && back == words.as_bytes()
}

fn address(event: &Value) -> SocketAddr {
    event["address"].as_str().unwrap().parse().unwrap()
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "the embedded platform scans on Linux only")]
fn a_server_that_comes_and_goes_is_forwarded_and_dropped() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    // A stopped playground is woken, as by any other forward.
    world.local(&["stop", &id]).ok();
    let mut forward = Forward::start(&world, &[&id, "--auto"]);
    assert!(forward.listening.is_empty(), "nothing listens yet: {:?}", forward.listening);
    let mut server = Server::echo(&world, &id);
    let event = forward.until(&world, "listening");
    assert_eq!((to(&event), event["kind"].as_str()), (server.port(), Some("local")));
    let here = address(&event);
    assert!(here.ip().is_loopback() && here.port() != server.port(), "the machine is this computer: {here}");
    let stream = connect(here);
    assert!(is_echoed(&stream, "hello"));
    let survey = world.json(&["ports", &id, "--json"]);
    assert_eq!(survey["ports"][0]["forwards"][0]["local"], event["address"], "{survey}");

    // The server listens no longer, but its connections go on.
    server.stops_listening();
    let closed = forward.until(&world, "closed");
    assert_eq!(closed["forward"], event["forward"]);
    eventually("no new connection is taken", || TcpStream::connect(here).is_err());
    assert!(is_echoed(&stream, "still there"));
    drop(stream);
    forward.until(&world, "close");

    // Another one is forwarded again, and the end of the playground is the end.
    let server = Server::echo(&world, &id);
    let event = forward.until(&world, "listening");
    assert_eq!((to(&event), event["forward"].as_u64()), (server.port(), Some(1)));
    assert!(is_echoed(&connect(address(&event)), "again"));
    world.elsewhere(&id, "destroy");
    let code = forward.child.wait().unwrap().code();
    assert!(matches!(code, Some(4 | 8)), "{code:?}");
    assert_eq!(std::fs::read_dir(world.root().join("forwards")).unwrap().count(), 0);
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "the embedded platform scans on Linux only")]
fn only_so_many_of_two_hundred_ports_are_forwarded() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let script = "import socket, sys\n\
                  all = [socket.create_server((\"127.0.0.1\", 0)) for _ in range(200)]\n\
                  print(*[s.getsockname()[1] for s in all], flush=True)\n\
                  sys.stdin.readline()";
    let server = Server::start(&world, &id, script);
    let ports: BTreeSet<u16> = server.said.split(' ').map(|port| port.parse().unwrap()).collect();
    assert_eq!(ports.len(), 200);
    let forward = Forward::start(&world, &[&id, "--auto"]);
    let led: BTreeSet<u16> = forward.listening.iter().map(to).collect();
    assert_eq!(led, ports.iter().copied().take(32).collect(), "the lowest ones");
    let [problem] = &forward.problems[..] else { panic!("{:?}", forward.problems) };
    assert!(problem.starts_with("at most 32 ports are forwarded at once"), "{problem}");
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "the embedded platform scans on Linux only")]
fn what_is_excluded_forwarded_already_or_our_own_is_left_alone() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let servers: Vec<Server> = (0..4).map(|_| Server::echo(&world, &id)).collect();
    let [excluded, typed, first, second] = [0, 1, 2, 3].map(|i| servers[i].port());
    // A forward that runs in a session of the machine is one of the machine's processes.
    let mut inside = world.ssh_program("ssh");
    let line = format!("exec {PROGRAM} --local --home {} port-forward {id} -L 0:localhost:9", world.root().display());
    let mut inside = Ending(inside.arg(format!("playground-{id}")).arg(line).stderr(Stdio::piped()).spawn().unwrap());
    let mut said = String::new();
    BufReader::new(inside.0.stderr.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains("forwards to localhost:9"), "{said}");
    // And one that runs beside it.
    let beside = Forward::start(&world, &[&id, "-L", &format!("0:localhost:{first}")]);
    let local = format!("0:localhost:{typed}");
    let exclude = format!("1-5,{excluded}");
    let forward = Forward::start(&world, &[&id, "--auto", "--exclude", &exclude, "-L", &local, "--restore"]);
    let led: Vec<u16> = forward.listening.iter().map(to).collect();
    let wanted = BTreeSet::from([first, second]);
    assert_eq!((led[0], led[1..].iter().copied().collect()), (typed, wanted), "{:?}", forward.listening);
    for event in &forward.listening {
        assert!(is_echoed(&connect(address(event)), "through"), "{event}");
    }
    drop(beside);
}

/// A platform, and a server on this computer, which is the machine behind its tunnels.
fn hosted() -> (World, Labs, u16) {
    let world = World::empty();
    let labs = Labs::start(&world, PLAIN);
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in server.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
        }
    });
    (world, labs, port)
}

fn scan() -> String {
    format!("POST /api/plays/{ID}/ports/scan")
}

#[test]
fn the_same_number_is_used_where_it_is_free() {
    let (world, labs, taken) = hosted();
    let free = free_port();
    labs.listens_on(&[22, 80, taken, taken, free]);
    let forward = Forward::run(&world, &["port-forward", ID, "--auto"]);
    let here = |port| forward.listening.iter().find(|event| to(event) == port).map(address).unwrap();
    assert_eq!(forward.listening.len(), 2, "{:?}", forward.listening);
    assert_eq!(here(free).port(), free);
    assert_ne!(here(taken).port(), taken);
    assert!(is_echoed(&connect(here(taken)), "through the tunnel"));
    let scans: Vec<String> =
        labs.seen().into_iter().map(|seen| seen.line).filter(|line| line.starts_with(&scan())).collect();
    assert_eq!(scans, [format!("{}?machine=docker-01", scan())]);
}

#[test]
fn many_ports_are_one_tunnel_and_a_scan_at_a_time() {
    let (world, labs, _) = hosted();
    labs.listens_on(&(20_000..20_200).collect::<Vec<_>>());
    let began = Instant::now();
    let mut forward = Forward::run(&world, &["port-forward", ID, "--auto", "--exclude", "20000-20099"]);
    assert_eq!((forward.listening.len(), to(&forward.listening[0])), (32, 20_100));
    // Until two scans in a row have missed them.
    labs.listens_on(&[]);
    for _ in 0..32 {
        forward.until(&world, "closed");
    }
    assert!(began.elapsed() >= Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!((labs.count(&scan()), labs.count(&format!("POST /api/plays/{ID}/tunnels"))), (3, 1));
}

#[test]
fn scans_wait_as_long_as_the_platform_says() {
    let (world, labs, port) = hosted();
    labs.listens_on(&[port]);
    let limited =
        Instead { headers: vec![("x-ratelimit-reset", "14".to_owned())], ..Instead::of(&scan(), 429, "slow") };
    labs.answer(limited.once());
    let began = Instant::now();
    let mut forward = Forward::run(&world, &["port-forward", ID, "--auto"]);
    let [problem] = &forward.problems[..] else { panic!("{:?}", forward.problems) };
    assert!(problem.contains("limits requests"), "{problem}");
    assert_eq!(to(&forward.until(&world, "listening")), port);
    assert!(began.elapsed() >= Duration::from_secs(14), "{:?}", began.elapsed());
    assert_eq!(labs.count(&scan()), 2);
}

#[test]
fn a_scan_that_fails_keeps_the_forwards_and_is_told_once() {
    let (world, labs, port) = hosted();
    labs.listens_on(&[port]);
    let mut forward = Forward::run(&world, &["port-forward", ID, "--auto"]);
    labs.instead(&scan(), 500, "out of order");
    let problem = forward.until(&world, "problem");
    assert!(problem["message"].as_str().unwrap().contains("out of order"), "{problem}");
    eventually("it has failed again", || labs.count(&scan()) == 3);
    assert!(is_echoed(&connect(forward.address(0)), "still there"));
    labs.truth();
    labs.listens_on(&[port, 1024]);
    let mut events = Vec::new();
    while events.last().is_none_or(|event: &Value| event["event"] != "listening") {
        events.push(forward.event(&world));
    }
    let wrong = |event: &&Value| ["problem", "closed"].iter().any(|kind| event["event"] == *kind);
    assert_eq!(events.iter().find(wrong), None, "it is told once");
}

#[test]
fn without_scans_there_is_nothing_to_follow() {
    let (world, labs, _) = hosted();
    labs.instead(&scan(), 501, "this platform does not scan");
    let said = world.run(&["port-forward", ID, "--auto"]).failed(6);
    assert!(said.contains("this platform does not scan"), "{said}");
    labs.instead(&scan(), 200, "[]");
    world.run(&["port-forward", ID, "--exclude", "3000"]).failed(2);
    for wrong in ["x", "2-1", "70000"] {
        world.run(&["port-forward", ID, "--auto", "--exclude", wrong]).failed(2);
    }
    let nothing = world.run(&["port-forward", ID]).failed(2);
    assert!(nothing.contains("--restore or --auto"), "{nothing}");
}
