//! Cuts at random moments in every kind of transfer, and at every byte of what the two sides say to each other.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use super::{SOME, resumes};
use crate::support::{
    cut::{BYE, Cut, DATA, END, Flow, How, Kind, Part, Trap, WELCOME, Way},
    distant::{Distant, NOTICED, SOON, Talk, known_relays},
    eventually, free_port,
    machine::PATIENCE,
    noise,
    terminal::OnTerminal,
    within,
};

/// Loses the connections at random moments while `work` runs, and on until that has happened `times` times. `work` is
/// told by the flag when that is.
fn under_cuts(distant: &Distant, times: usize, work: impl FnOnce(&AtomicBool) + Send) {
    let (done, enough) = (AtomicBool::new(false), AtomicBool::new(false));
    let before = resumes(distant);
    std::thread::scope(|scope| {
        let working = scope.spawn(|| {
            struct Done<'a>(&'a AtomicBool);
            impl Drop for Done<'_> {
                fn drop(&mut self) {
                    self.0.store(true, Ordering::Relaxed);
                }
            }
            let _done = Done(&done);
            work(&enough);
        });
        let mut cuts = 0;
        while !done.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(fastrand::u64(20..250)));
            // Another test cuts beginnings.
            if distant.tunnels.settled() > 0 {
                distant.tunnels.fail(if fastrand::bool() { How::Reset } else { How::Fin });
                cuts += 1;
            }
            enough.store(cuts >= times, Ordering::Relaxed);
        }
        working.join().unwrap();
        eprintln!("{cuts} cuts, {} resumed", resumes(distant) - before);
        assert!(cuts >= times && resumes(distant) > before + times / 2, "{cuts} cuts");
    });
}

/// Does `one` until there were enough cuts, but at least once.
fn until_enough(enough: &AtomicBool, mut one: impl FnMut(usize)) {
    let mut round = 0;
    while round == 0 || !enough.load(Ordering::Relaxed) {
        one(round);
        round += 1;
    }
}

#[test]
fn programs_of_every_kind_go_on_under_random_cuts() {
    programs(12);
}

#[test]
#[ignore = "minutes: scripts/try-surviving runs it"]
fn programs_of_every_kind_go_on_under_200_cuts() {
    programs(200);
}

fn programs(times: usize) {
    let kinds: [fn(&Distant, &AtomicBool); 6] = [cat, scp, rsync, sftp, forwards, on_a_terminal];
    std::thread::scope(|scope| {
        for kind in kinds {
            scope.spawn(move || {
                let distant = Distant::with_relay();
                distant.tunnels.flows(Flow::Rate(super::RATE), Flow::Rate(super::RATE));
                under_cuts(&distant, times, |enough| kind(&distant, enough));
            });
        }
    });
}

fn cat(distant: &Distant, enough: &AtomicBool) {
    let data = noise(SOME);
    until_enough(enough, |_| assert!(distant.ssh("cat", &data) == data));
}

fn scp(distant: &Distant, enough: &AtomicBool) {
    let data = noise(SOME);
    fs::write(distant.world.path("big"), &data).unwrap();
    let there = format!("{}:{}", distant.host, distant.world.path("there").display());
    until_enough(enough, |round| {
        // Over SFTP, and by the old protocol.
        let old = if round.is_multiple_of(2) { "-O" } else { "-s" };
        distant.done(distant.world.ssh_program("scp").args(["-q", old, "big", &there]), b"");
        assert!(fs::read(distant.world.path("there")).unwrap() == data);
        distant.done(distant.world.ssh_program("scp").args(["-q", old, &there, "back"]), b"");
        assert!(fs::read(distant.world.path("back")).unwrap() == data);
    });
}

fn rsync(distant: &Distant, enough: &AtomicBool) {
    let from = distant.world.path("tree");
    fs::create_dir(&from).unwrap();
    let data = noise(SOME);
    for (i, part) in data.chunks(100_000).enumerate() {
        fs::write(from.join(i.to_string()), part).unwrap();
    }
    let ssh = format!("ssh -F {}", distant.world.ssh_config().display());
    until_enough(enough, |round| {
        let to = distant.world.path(&format!("tree{round}"));
        let there = format!("{}:{}", distant.host, to.display());
        distant.done(distant.world.program("rsync").args(["-a", "-e", &ssh, "tree/", &there]), b"");
        for (i, part) in data.chunks(100_000).enumerate() {
            assert!(fs::read(to.join(i.to_string())).unwrap() == part);
        }
        fs::remove_dir_all(to).unwrap();
    });
}

fn sftp(distant: &Distant, enough: &AtomicBool) {
    let data = noise(SOME);
    fs::write(distant.world.path("big"), &data).unwrap();
    let there = distant.world.path("by-sftp").display().to_string();
    fs::write(distant.world.path("batch"), format!("put big {there}\nget {there} again\nrm {there}\n")).unwrap();
    until_enough(enough, |_| {
        distant.done(distant.world.ssh_program("sftp").args(["-q", "-b", "batch", &distant.host]), b"");
        assert!(fs::read(distant.world.path("again")).unwrap() == data);
    });
}

/// A server that returns what it gets.
pub(super) fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
        }
    });
    port
}

/// Connects to a port once it is there.
pub(super) fn reached(port: u16) -> TcpStream {
    let mut found = None;
    within(NOTICED, "the port is there", &mut || {
        found = TcpStream::connect(("127.0.0.1", port)).ok();
        found.is_some()
    });
    found.unwrap()
}

/// Connects to a port through a SOCKS proxy.
pub(super) fn by_socks(socks: u16, to: u16) -> TcpStream {
    let mut stream = reached(socks);
    let [high, low] = to.to_be_bytes();
    stream.write_all(&[5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, high, low]).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..4], [5, 0, 5, 0]);
    stream
}

/// Sends bytes through an echo, and compares what comes back.
pub(super) fn comes_back(mut stream: TcpStream, data: &[u8]) {
    std::thread::scope(|scope| {
        let mut writer = stream.try_clone().unwrap();
        scope.spawn(move || writer.write_all(data).unwrap());
        let mut back = vec![0; data.len()];
        stream.read_exact(&mut back).unwrap();
        assert!(back == data);
    });
}

fn forwards(distant: &Distant, enough: &AtomicBool) {
    let (echo, local, remote, socks) = (echo(), free_port(), free_port(), free_port());
    let ssh = distant.background(&[
        "-N",
        "-o",
        "ExitOnForwardFailure=yes",
        "-L",
        &format!("{local}:127.0.0.1:{echo}"),
        "-R",
        &format!("{remote}:127.0.0.1:{echo}"),
        "-D",
        &socks.to_string(),
        &distant.host,
    ]);
    let data = noise(SOME / 3);
    reached(remote);
    until_enough(enough, |_| {
        std::thread::scope(|scope| {
            scope.spawn(|| comes_back(reached(local), &data));
            scope.spawn(|| comes_back(reached(remote), &data));
            scope.spawn(|| comes_back(by_socks(socks, echo), &data));
        });
    });
    drop(ssh);
}

/// A shell on a terminal: every number that it prints comes, once and in order, and it reads what is typed.
fn on_a_terminal(distant: &Distant, enough: &AtomicBool) {
    let ssh = pty_process::blocking::Command::new("ssh")
        .env_clear()
        .env("HOME", distant.world.home())
        .env("PATH", "/usr/bin:/bin")
        .env("TERM", "vt220")
        .env("SHELL", "/bin/sh")
        .arg("-F")
        .arg(distant.world.ssh_config())
        .args(["-tt", &distant.host, "PS1= exec sh"]);
    let mut terminal = OnTerminal::start(ssh, 24, 80);
    terminal.type_in("stty -echo\nPS1=; echo be''gin\n");
    terminal.expect("begin\r\n");
    until_enough(enough, |round| {
        let numbers = round * 100_000..=round * 100_000 + 3000;
        terminal.type_in(&format!("seq {} {}; echo 'end' of {round}\n", numbers.start(), numbers.end()));
        let expected: String = numbers.map(|n| format!("{n}\r\n")).collect();
        let end = format!("end of {round}\r\n");
        while !terminal.seen.ends_with(&end) {
            let bytes = terminal.output.recv_timeout(PATIENCE).expect("the shell goes on");
            terminal.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
        assert_eq!(std::mem::take(&mut terminal.seen), expected + &end);
    });
    terminal.type_in("exit 7\n");
    assert_eq!(terminal.code(), Some(7));
}

/// The length of the longest part, and the parts in which a connection can be cut.
const NEW: [(Way, Part, usize); 5] = [
    (Way::Down, Part::Hello, 44),
    (Way::Up, Part::Hello, 42),
    (Way::Down, Part::Frame(WELCOME), 20),
    (Way::Down, Part::Frame(DATA), 46),
    (Way::Up, Part::Frame(DATA), 46),
];
const RESUME: [(Way, Part, usize); 2] = [(Way::Up, Part::Hello, 66), (Way::Down, Part::Hello, 30)];

fn manner(n: usize) -> How {
    if n.is_multiple_of(2) { How::Reset } else { How::Fin }
}

/// The bytes at which to cut: all, or each `step`th, the first and the last.
fn bytes(length: usize, step: usize) -> impl Iterator<Item = usize> {
    (0..length).filter(move |byte| byte % step == 0 || byte + 1 == length)
}

#[test]
fn a_beginning_that_is_cut_goes_on_or_ends_with_a_reason() {
    beginnings(9);
}

#[test]
#[ignore = "minutes: scripts/try-surviving runs it"]
fn a_beginning_that_is_cut_at_any_byte_goes_on_or_ends_with_a_reason() {
    beginnings(1);
}

fn beginnings(step: usize) {
    let distant = Distant::with_relay();
    let (mut on, mut over, mut placed) = (0, 0, 0);
    for (way, part, length) in NEW {
        for byte in bytes(length, step) {
            if known_relays(&distant.world.root()) == 0 {
                // It could not be told from one that has ended.
                distant.place();
                placed += 1;
            }
            let before = distant.tunnels.sprung();
            distant.tunnels.set(Trap { kind: Kind::New, way, part, byte, how: manner(byte), times: 1 });
            let said = distant.world.ssh(&[&distant.host, "echo in; exit 7"]);
            let case = format!("{way:?} {part:?} byte {byte}: {said:?}");
            assert_eq!(distant.tunnels.sprung(), before + 1, "{case}");
            match said.code() {
                7 => {
                    // It may have been begun again, and say so.
                    let notice = |line: &str| line.starts_with("labctl-ssh-proxy: waiting for the SSH server");
                    assert!(said.out == "in\n" && said.err.lines().all(notice), "{case}");
                    on += 1;
                }
                255 => {
                    // Before sshd has authenticated the client, so that nothing has been done.
                    assert!(
                        said.out.is_empty() && said.err.contains("machine") && said.err.contains("connect again"),
                        "{case}"
                    );
                    over += 1;
                }
                _ => panic!("{case}"),
            }
        }
    }
    eprintln!("{on} went on, {over} ended with a reason, {placed} relays were taken for dead");
    assert!(on > over, "most go on");
    assert_eq!(distant.ssh("echo in", b""), b"in\n");
}

#[test]
fn a_resume_that_is_cut_is_made_again() {
    resumed_again(8);
}

#[test]
#[ignore = "minutes: scripts/try-surviving runs it"]
fn a_resume_that_is_cut_at_any_byte_is_made_again() {
    resumed_again(1);
}

fn resumed_again(step: usize) {
    let distant = Distant::with_relay();
    let mut talk = distant.echo();
    for (way, part, length) in RESUME {
        for byte in bytes(length, step) {
            let before = distant.tunnels.sprung();
            distant.tunnels.set(Trap { kind: Kind::Resume, way, part, byte, how: manner(byte), times: 1 });
            distant.tunnels.fail(How::Reset);
            talk.echoes(NOTICED);
            assert_eq!(distant.tunnels.sprung(), before + 1, "{way:?} {byte}");
        }
    }
    talk.ends();
}

#[test]
fn a_resume_that_is_cut_again_and_again_is_made_at_last() {
    let distant = Distant::with_relay();
    let data = noise(SOME);
    distant.tunnels.flows(Flow::Rate(super::RATE), Flow::Rate(super::RATE));
    let mut talk = distant.echo();
    // Each cut while the bytes of the last one are still being sent again.
    for times in [50, 3] {
        for _ in 0..times {
            let (way, part, length) = RESUME[fastrand::usize(0..2)];
            let byte = fastrand::usize(0..length);
            distant.tunnels.set(Trap { kind: Kind::Resume, way, part, byte, how: manner(byte), times: 1 });
            if times == 3 {
                continue;
            }
            distant.tunnels.fail(How::Reset);
            talk.echoes(NOTICED);
        }
        if times == 3 {
            // Three in a row, in the middle of a transfer.
            std::thread::scope(|scope| {
                scope.spawn(|| assert!(distant.ssh("cat", &data) == data));
                eventually("bytes flow", || distant.tunnels.busy(1 << 20) > 0);
                distant.tunnels.fail(How::Reset);
            });
        }
    }
    talk.echoes(NOTICED);
    assert_eq!(distant.tunnels.disarm(), 0, "each trap caught a connection");
}

/// The first attempt is stuck in the network with all that it says, and comes to the relay only when a later one has
/// been taken: it is late, and changes nothing.
#[test]
fn an_attempt_that_arrives_late_changes_nothing() {
    let distant = Distant::with_relay();
    let mut talk = distant.echo();
    let passes =
        Trap { kind: Kind::Resume, way: Way::Up, part: Part::Hello, byte: 65, how: How::OneWay(Way::Up), times: 1 };
    distant.tunnels.set(passes);
    distant.tunnels.fail(How::Reset);
    talk.echoes(NOTICED);
    assert_eq!(distant.tunnels.sprung(), 1);
    let count = resumes(&distant);
    distant.tunnels.releases();
    for _ in 0..20 {
        talk.echoes(SOON);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(resumes(&distant), count, "the session stayed on its connection");
    talk.ends();
}

#[test]
fn an_end_that_is_cut_is_heard_all_the_same() {
    ends(5);
}

#[test]
#[ignore = "minutes: scripts/try-surviving runs it"]
fn an_end_that_is_cut_at_any_byte_is_heard_all_the_same() {
    ends(1);
}

/// sshd's last words, its exit status and the end of the stream, come over another connection.
fn ends(step: usize) {
    let distant = Distant::with_relay();
    let data = noise(100_000);
    fs::write(distant.world.path("last"), &data).unwrap();
    let command = format!("cat {}; exit 7", distant.world.path("last").display());
    let mut caught = 0;
    for (way, kind, length) in [(Way::Down, END, 14), (Way::Up, BYE, 12)] {
        for byte in bytes(length, step) {
            let before = distant.tunnels.sprung();
            distant.tunnels.set(Trap {
                kind: Kind::Other,
                way,
                part: Part::Frame(kind),
                byte,
                how: manner(byte),
                times: 1,
            });
            let mut ssh = distant.world.ssh_program("ssh");
            let output = distant.world.feed(ssh.args([&distant.host, &command]), b"");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!((output.status.code(), &*errors), (Some(7), ""), "{way:?} {kind} {byte}");
            assert!(output.stdout == data);
            within(SOON, "the proxy has left", &mut || distant.world.processes(" connect ").is_empty());
            // One of the two ends comes first, so each trap need not catch something.
            caught += distant.tunnels.sprung() - before;
            distant.tunnels.disarm();
        }
    }
    assert!(caught > 0, "an end was cut");
}

/// The front of the platform restarts below many sessions: each goes on, and none dials in a loop.
#[test]
fn a_front_that_restarts_is_come_back_to_without_a_stampede() {
    restarted_front(10);
}

#[test]
#[ignore = "minutes: scripts/try-surviving runs it"]
fn a_front_that_restarts_under_50_sessions_is_come_back_to_without_a_stampede() {
    restarted_front(50);
}

fn restarted_front(sessions: usize) {
    let distant = Distant::with_relay();
    let mut talks: Vec<Talk> = (0..sessions).map(|_| distant.echo()).collect();
    let before = distant.tunnels.seen().len();
    let down = Duration::from_secs(4);
    distant.tunnels.refuses(true);
    distant.tunnels.fail(How::Reset);
    std::thread::sleep(down);
    let meanwhile = distant.tunnels.seen().len() - before;
    distant.tunnels.refuses(false);
    let began = Instant::now();
    let slowest = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for talk in &mut talks {
            let slowest = &slowest;
            scope.spawn(move || {
                let took = talk.echoes(NOTICED).as_millis();
                slowest.fetch_max(usize::try_from(took).unwrap(), Ordering::Relaxed);
            });
        }
    });
    eprintln!("{sessions} sessions: {meanwhile} attempts in {down:?}, all back after {:?}", began.elapsed());
    // At once, and after pauses of 0.25, 0.5, 1, 2 s.
    assert!(meanwhile >= sessions && meanwhile <= 8 * sessions, "{meanwhile} attempts");
    talks.into_iter().for_each(Talk::ends);
}

/// Reads the frames of a session that begins and ends as it should, to show that the traps above see them.
#[test]
fn the_tests_read_what_the_two_sides_say() {
    let distant = Distant::with_relay();
    let tunnels: &Cut = &distant.tunnels;
    assert_eq!(distant.ssh("cat", &noise(100_000)), noise(100_000));
    let one = tunnels.seen().into_iter().rfind(|one| one.kind == Kind::New).unwrap();
    assert_eq!(one.down[&WELCOME], 1);
    assert!(one.up[&DATA] > 1 && one.down[&DATA] > 1, "{one:?}");
    assert!(one.down.get(&END) == Some(&1) || one.up.get(&BYE) == Some(&1), "it ends with a word: {one:?}");
    assert!(one.up.keys().chain(one.down.keys()).all(|kind| *kind <= 6), "nothing else is said: {one:?}");
}
