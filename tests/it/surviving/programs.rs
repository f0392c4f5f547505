//! Programs with a patience of their own, forwards, several clients, and an update, through an outage.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use super::{
    cuts::{by_socks, comes_back, echo, reached},
    resumes,
};
use crate::support::{
    PROGRAM, copy_program,
    cut::{How, Kind},
    distant::{Distant, NOTICED, SOON, Talk, known_relays},
    eventually,
    forward::Forward,
    free_port, needs, noise, peer, peers,
};

/// As long as each of the imitated programs bears.
const OUTAGE: Duration = Duration::from_secs(10);

fn outage(distant: &Distant, time: Duration) {
    let networks = [&distant.tunnels, &distant.api];
    networks.iter().for_each(|network| network.goes_away());
    std::thread::sleep(time);
    networks.iter().for_each(|network| network.heals());
}

/// VS Code's window: a connection through `-D`, a word each second, and 20 s of patience.
struct Window(TcpStream);

impl Window {
    fn open(socks: u16, server: u16) -> Window {
        let stream = by_socks(socks, server);
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Window(stream)
    }

    fn keeps_alive(&mut self, for_: Duration) {
        let until = Instant::now() + for_;
        let mut n = 0_u64;
        while Instant::now() < until {
            n += 1;
            self.0.write_all(&n.to_be_bytes()).unwrap();
            let mut back = [0; 8];
            self.0.read_exact(&mut back).expect("the window does not reconnect");
            assert_eq!(u64::from_be_bytes(back), n);
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}

/// None of them sees a reconnection: VS Code (20 s), Zed (a master and a slave, 5 heartbeats of 5 s), JetBrains' sshj (5
/// keepalives of 5 s) and paramiko.
#[test]
fn editors_and_libraries_see_no_reconnection() {
    let distant = Distant::with_relay();
    let server = echo();
    let socks = free_port();
    let _code = distant.background(&["-N", "-T", "-D", &socks.to_string(), "-o", "ConnectTimeout=15", &distant.host]);
    let mut window = Window::open(socks, server);

    let control = format!("ControlPath={}", distant.world.path("c").display());
    let _zed = distant.background(&["-N", "-o", "ControlMaster=yes", "-o", &control, &distant.host]);
    eventually("the master is in", || distant.world.path("c").exists());
    let slave = distant.talk_with(&["-o", "ControlMaster=no", "-o", &control], "exec cat");

    let mut java = distant.world.program(needs("java"));
    java.arg("-XX:TieredStopAtLevel=1").arg("-cp").arg(peers("java").join("*")).arg(peer("java/Clients.java"));
    java.arg(distant.world.ssh_config()).args([&distant.host, "talk", "5"]);

    let user = distant.world.output(distant.world.program("id").arg("-un")).ok();
    let mut python = distant.world.program(peers("python").join("bin/python"));
    python.arg(peer("paramiko_talk.py")).arg(user.trim()).arg(distant.world.path(".ssh/iximiuz_labs_user"));
    python.args([PROGRAM, "connect", &distant.host]);

    let mut talks = [("Zed", slave), ("sshj", Talk::start(&mut java)), ("paramiko", Talk::start(&mut python))];
    for (_, talk) in &mut talks {
        talk.echoes(Duration::from_secs(40));
    }
    let opened = distant.tunnels.count(Kind::New);
    assert!(opened >= 4, "{opened} are held");
    std::thread::scope(|scope| {
        scope.spawn(|| window.keeps_alive(OUTAGE + Duration::from_secs(8)));
        for (name, talk) in &mut talks {
            scope.spawn(move || {
                let until = Instant::now() + OUTAGE + Duration::from_secs(8);
                while Instant::now() < until {
                    let took = talk.echoes(Duration::from_secs(25));
                    if took > Duration::from_secs(2) {
                        eprintln!("{name}: an answer after {took:?}");
                    }
                    std::thread::sleep(Duration::from_secs(1));
                }
            });
        }
        std::thread::sleep(Duration::from_secs(2));
        outage(&distant, OUTAGE);
    });
    assert!(resumes(&distant) >= 4);
    assert_eq!(distant.tunnels.count(Kind::New), opened, "nothing has connected again");
}

/// The machine's program sees one sender, and the forwards no new session.
#[test]
fn forwards_of_udp_and_of_the_machine_go_on() {
    let distant = Distant::with_relay();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = udp.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((n, from)) = udp.recv_from(&mut buffer) {
            let back = format!("{} {}", from.port(), String::from_utf8_lossy(&buffer[..n]));
            let _ = udp.send_to(back.as_bytes(), from);
        }
    });
    let (local, remote) = (echo(), free_port());
    let datagrams = format!("0:127.0.0.1:{port}/udp");
    let machines = format!("127.0.0.1:{remote}:127.0.0.1:{local}");
    let mut forward = Forward::run(&distant.world, &["port-forward", &distant.id, "-L", &datagrams, "-R", &machines]);
    assert!(forward.problems.is_empty(), "{:?}", forward.problems);
    let address = forward.listening.iter().find(|one| one["address"].as_str().is_some_and(|a| a.contains("127.0.0.1")));
    let address = address.unwrap()["address"].as_str().unwrap().to_owned();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut n = 0;
    // Datagrams may be lost, so some are sent.
    let mut asked = || {
        let mut answer = None;
        eventually("an answer", || {
            n += 1;
            client.send_to(format!("question {n}").as_bytes(), &address).unwrap();
            let mut buffer = [0; 2048];
            answer = client.recv(&mut buffer).ok().map(|n| String::from_utf8_lossy(&buffer[..n]).into_owned());
            answer.is_some()
        });
        answer.unwrap().split(' ').next().unwrap().to_owned()
    };
    let sender = asked();
    let mut open = reached(remote);
    comes_back(open.try_clone().unwrap(), &noise(100_000));
    let sessions = |distant: &Distant| distant.tunnels.count(Kind::New) + distant.tunnels.count(Kind::Direct);
    let before = sessions(&distant);
    for how in [Some(How::Reset), None] {
        match how {
            Some(how) => distant.tunnels.fail(how),
            None => outage(&distant, Duration::from_secs(5)),
        }
        // On the connection of before.
        open.set_read_timeout(Some(NOTICED)).unwrap();
        open.write_all(b"still").unwrap();
        let mut word = [0; 5];
        open.read_exact(&mut word).expect("the connection lives");
        assert_eq!(&word, b"still");
        assert_eq!(asked(), sender, "the machine's program sees the same sender");
        comes_back(reached(remote), &noise(100_000));
    }
    assert_eq!(sessions(&distant), before, "no session was begun again");
    let events: Vec<String> = std::iter::from_fn(|| forward.said.try_recv().ok()).collect();
    assert!(
        events.iter().all(|event| !event.contains("\"problem\"") && !event.contains("\"listening\"")),
        "{events:?}"
    );
    forward.signal("INT");
    assert_eq!(forward.child.wait().unwrap().code(), Some(130));
}

/// Two computers of one user find one relay, and neither disturbs the other.
#[test]
fn two_computers_share_a_relay() {
    let distant = Distant::with_relay();
    let other = distant.world.path("other");
    let proxy = format!(
        "ProxyCommand=env LABCTL_SSH_PROXY_HOME={} {PROGRAM} connect --user %r {}",
        other.display(),
        distant.host
    );
    let there = ["-o", &proxy, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-q"];
    let _long = distant.background(&[&there[..], &["-N", &distant.host]].concat());
    eventually("the other computer knows a relay", || known_relays(&other) > 0);
    // The one that placed it, and has found another, ends.
    eventually("it is the same one", || distant.relay_processes().len() == 1);
    let mut here = distant.echo();
    let mut there = distant.talk_with(&there, "exec cat");
    there.echoes(NOTICED);
    for how in [How::Reset, How::Fin, How::Stranded] {
        distant.tunnels.fail(how);
        std::thread::scope(|scope| {
            scope.spawn(|| here.echoes(NOTICED));
            scope.spawn(|| there.echoes(NOTICED));
        });
    }
    here.ends();
    there.echoes(SOON);
}

/// A file of a relay that this version cannot read is none.
#[test]
fn an_update_leaves_open_sessions_alone() {
    let distant = Distant::with_relay();
    let program = distant.world.path("program");
    copy_program(&program);
    let proxy = format!("ProxyCommand={} connect --user %r {}", program.display(), distant.host);
    let mut talk = distant.talk_with(&["-o", &proxy], "exec cat");
    talk.echoes(NOTICED);
    let newer = distant.world.path("newer");
    copy_program(&newer);
    fs::rename(newer, &program).unwrap();
    distant.tunnels.fail(How::Reset);
    talk.echoes(NOTICED);
    assert!(resumes(&distant) > 0);
    for file in fs::read_dir(distant.world.root().join("relays")).unwrap() {
        fs::write(file.unwrap().path(), r#"{"ver": 99, "relays": []}"#).unwrap();
    }
    assert_eq!(distant.ssh("echo in", b""), b"in\n");
    distant.tunnels.fail(How::Reset);
    talk.echoes(NOTICED);
    talk.ends();
}
