//! Sessions that survive the network: a real ssh and a real sshd, with a network between them that fails on command.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "figures for who runs it with --nocapture")]

use std::{
    fs,
    io::{Read, Write},
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::support::{
    Ending, checksum,
    cut::{EVERY, Flow, How, Kind},
    distant::{Distant, NOTICED, SOON, at_once, is_alive, send},
    eventually, noise, within,
};

mod cuts;
mod ends;
mod platform;
mod programs;
mod soak;

/// A network to try things on by hand: it fails at commands on standard input. `cargo test --test it -- --ignored
/// --nocapture surviving::a_network_that_fails_on_command`
#[test]
#[ignore = "for trials by hand"]
fn a_network_that_fails_on_command() {
    let distant = Distant::new(&[]);
    let config = distant.world.ssh_config();
    eprintln!("HOME={} ssh -F {} {}", distant.world.home().display(), config.display(), distant.host);
    eprintln!("commands: reset fin strand hole up down away heal drip N delay MS seen quit");
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let cut = &distant.tunnels;
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["reset"] => cut.fail(How::Reset),
            ["fin"] => cut.fail(How::Fin),
            ["strand"] => cut.fail(How::Stranded),
            ["hole"] => cut.flows(Flow::Hole, Flow::Hole),
            ["up"] => cut.flows(Flow::Hole, Flow::Open),
            ["down"] => cut.flows(Flow::Open, Flow::Hole),
            ["away"] => [&distant.api, cut].iter().for_each(|one| one.goes_away()),
            ["heal"] => [&distant.api, cut].iter().for_each(|one| one.heals()),
            ["drip", rate] => cut.flows(Flow::Rate(rate.parse().unwrap()), Flow::Rate(rate.parse().unwrap())),
            ["delay", ms] => cut.delays(Duration::from_millis(ms.parse().unwrap())),
            ["seen"] => cut.seen().iter().for_each(|one| eprintln!("{one:?}")),
            ["quit"] => return,
            _ => eprintln!("what?"),
        }
        eprintln!("{line}: done");
    }
}

/// Without a relay, a connection that is cut is over. It shows that the machinery of these tests cuts.
#[test]
fn a_direct_session_ends_with_its_connection() {
    let distant = Distant::new(&[]);
    distant.world.settings("resume: never\n");
    for how in [How::Reset, How::Fin] {
        let mut talk = distant.talk("exec cat");
        talk.echoes(NOTICED);
        distant.tunnels.fail(how);
        let (status, _, errors) = talk.ended(NOTICED);
        assert_eq!(status.code(), Some(255), "{how:?}: {errors}");
    }
    assert_eq!(distant.tunnels.count(Kind::Direct), 2);
    assert_eq!(distant.tunnels.count(Kind::New), 0);
    // A hole in which bytes are only late ends nothing.
    let mut talk = distant.talk("exec cat");
    talk.echoes(NOTICED);
    distant.tunnels.flows(Flow::Hole, Flow::Hole);
    talk.say("late");
    std::thread::sleep(Duration::from_secs(1));
    distant.tunnels.heals();
    assert_eq!(talk.line(SOON), "late");
    talk.ends();
}

/// A size of which a transfer at [`RATE`] takes a second or two.
const SOME: usize = 6 << 20;
const RATE: u32 = 4 << 20;

/// The number of times that the sessions of a world have gone on over a new connection.
fn resumes(distant: &Distant) -> usize {
    distant.tunnels.count(Kind::Resume)
}

/// Waits until a session has gone on over a new connection, and returns the time.
#[track_caller]
fn resumed_since(distant: &Distant, before: usize, limit: Duration) -> Duration {
    let began = Instant::now();
    within(limit, "the session has gone on over another connection", &mut || resumes(distant) > before);
    began.elapsed()
}

#[test]
fn an_idle_session_goes_on_after_a_loss_of_every_kind() {
    at_once(EVERY, |how| {
        let distant = Distant::with_relay();
        let mut talk = distant.echo();
        let others = |distant: &Distant| distant.tunnels.count(Kind::New) + distant.tunnels.count(Kind::Direct);
        let before = others(&distant);
        // With a key, which is answered.
        distant.tunnels.fail(how);
        let key = talk.echoes(NOTICED);
        // Without one.
        let count = resumes(&distant);
        distant.tunnels.fail(how);
        let idle = resumed_since(&distant, count, NOTICED);
        eprintln!("{how:?}: {key:?} after a key, {idle:?} idle");
        talk.echoes(SOON);
        assert!(is_alive(talk.machine_pid), "it is the same process on the machine");
        let status = distant.status(&talk);
        assert!(status["held"] == true && status["resumed"].as_u64() >= Some(1), "{status}");
        talk.ends();
        assert_eq!(others(&distant), before, "there was one session");
    });
}

#[test]
fn transfers_go_on_after_a_loss_of_every_kind() {
    transfers(SOME, RATE);
}

#[test]
#[ignore = "minutes: scripts/try-surviving runs it"]
fn transfers_of_64_mib_go_on_after_a_loss_of_every_kind() {
    transfers(64 << 20, 16 << 20);
}

/// Moves noise up, down, and both ways, and loses the connections once in the middle.
fn transfers(size: usize, rate: u32) {
    let data = noise(size);
    let sum = checksum(&data);
    at_once(EVERY, |how| {
        let distant = Distant::with_relay();
        fs::write(distant.world.path("big"), &data).unwrap();
        let read = format!("cat {}", distant.world.path("big").display());
        // So slowly that none is done before all have begun.
        distant.tunnels.flows(Flow::Rate(rate / 16), Flow::Rate(rate / 16));
        let began = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(distant.ssh("cksum", &data) == sum.as_bytes(), "up, {how:?}"));
            scope.spawn(|| assert!(distant.ssh(&read, b"") == data, "down, {how:?}"));
            scope.spawn(|| assert!(distant.ssh("cat", &data) == data, "both ways, {how:?}"));
            eventually("three sessions have moved something", || distant.tunnels.busy(100 << 10) == 3);
            distant.tunnels.fail(how);
            distant.tunnels.flows(Flow::Rate(rate), Flow::Rate(rate));
        });
        eprintln!("{how:?}: {:?}", began.elapsed());
        assert!(resumes(&distant) >= 3, "each of three went on over a new connection");
    });
}

/// A reader that takes a rest is no loss: the whole waits, and no connection is replaced. (Other programs have called a
/// full window an error.)
#[test]
fn a_stopped_reader_is_waited_for() {
    stopped_readers(Duration::from_secs(13));
}

#[test]
#[ignore = "minutes: scripts/try-surviving runs it"]
fn a_reader_that_is_stopped_for_a_minute_is_waited_for() {
    stopped_readers(Duration::from_secs(60));
}

fn stopped_readers(rest: Duration) {
    // More than the windows of the session, of OpenSSH, and of the kernels hold.
    let data = noise(24 << 20);
    let sum = checksum(&data);
    at_once([false, true], |is_cut| {
        let distant = Distant::with_relay();
        fs::write(distant.world.path("big"), &data).unwrap();
        let read = format!("cat {}", distant.world.path("big").display());
        let late = format!("sleep {}; cksum", rest.as_secs());
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(slowly_read(&distant, &read, b"", rest) == data, "down"));
            scope.spawn(|| assert!(distant.ssh(&late, &data) == sum.as_bytes(), "up"));
            scope.spawn(|| assert!(slowly_read(&distant, "cat", &data, rest) == data, "both ways"));
            if is_cut {
                std::thread::sleep(rest / 2);
                distant.tunnels.fail(How::Reset);
            }
        });
        assert_eq!(resumes(&distant), if is_cut { 3 } else { 0 }, "nothing else was taken for a loss");
    });
}

/// Runs a command on the machine, and reads its output only after a rest.
fn slowly_read(distant: &Distant, command: &str, input: &[u8], rest: Duration) -> Vec<u8> {
    let mut ssh = distant.world.ssh_program("ssh");
    ssh.args([&distant.host, command]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut ssh = Ending(ssh.spawn().unwrap());
    let (mut stdin, mut stdout) = (ssh.0.stdin.take().unwrap(), ssh.0.stdout.take().unwrap());
    let mut all = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        std::thread::sleep(rest);
        stdout.read_to_end(&mut all).unwrap();
    });
    assert!(ssh.0.wait().unwrap().success());
    all
}

#[test]
fn an_outage_is_survived_and_too_long_a_one_ends_with_words() {
    let distant = Distant::with_relay();
    distant.world.settings("resume_for: 9\n");
    let mut talk = distant.echo();
    let networks = [&distant.tunnels, &distant.api];
    for times in 0..2 {
        networks.iter().for_each(|network| network.goes_away());
        talk.say("said while away");
        eventually("it is seen that the machine is away", || distant.status(&talk)["phase"] == "away");
        std::thread::sleep(Duration::from_secs(3));
        networks.iter().for_each(|network| network.heals());
        let began = Instant::now();
        assert_eq!(talk.line(NOTICED), "said while away");
        eprintln!("back after {:?}", began.elapsed());
        eventually("it is seen that the machine is back", || distant.status(&talk)["phase"] == "connected");
        assert_eq!(distant.status(&talk)["resumed"], times + 1);
    }
    networks.iter().for_each(|network| network.goes_away());
    let (status, _, errors) = talk.ended(Duration::from_secs(60));
    assert_eq!(status.code(), Some(255), "{errors}");
    assert!(errors.contains("machine shell-01") && errors.contains("connect again"), "{errors}");
    assert!(!errors.contains("orrupted MAC") && !errors.contains("panicked"), "{errors}");
    networks.iter().for_each(|network| network.heals());
    assert_eq!(distant.world.json(&["list", "--json"])[0]["state"], "RUNNING");
}

#[test]
#[ignore = "many minutes: scripts/try-surviving runs it"]
fn outages_of_50_s_5_min_and_59_min_are_survived() {
    for seconds in [50, 300, 59 * 60] {
        let distant = Distant::with_relay();
        let mut talk = distant.echo();
        let networks = [&distant.tunnels, &distant.api];
        networks.iter().for_each(|network| network.goes_away());
        talk.say("said while away");
        std::thread::sleep(Duration::from_secs(seconds));
        networks.iter().for_each(|network| network.heals());
        let began = Instant::now();
        assert_eq!(talk.line(SOON), "said while away");
        eprintln!("{seconds} s away, back after {:?}", began.elapsed());
        talk.ends();
    }
}

/// A laptop that sleeps halts ssh and its proxy. Meanwhile the connection is lost, or not.
#[test]
fn a_session_goes_on_at_once_after_a_sleep() {
    sleeps(Duration::from_secs(8));
}

#[test]
#[ignore = "many minutes: scripts/try-surviving runs it"]
fn a_session_goes_on_at_once_after_a_long_sleep() {
    sleeps(Duration::from_secs(60));
    sleeps(Duration::from_secs(600));
}

fn sleeps(time: Duration) {
    at_once([None, Some(How::Reset), Some(How::Fin), Some(How::Stranded)], |lost| {
        let distant = Distant::with_relay();
        let mut talk = distant.echo();
        let asleep = [talk.ssh.id(), distant.proxy(talk.ssh.id()).unwrap()];
        asleep.iter().for_each(|pid| send(*pid, Signal::STOP));
        if let Some(how) = lost {
            distant.tunnels.fail(how);
        }
        talk.say("said asleep");
        std::thread::sleep(time);
        asleep.iter().for_each(|pid| send(*pid, Signal::CONT));
        let woke = Instant::now();
        assert_eq!(talk.line(SOON), "said asleep");
        eprintln!("{lost:?}: {:?} after {time:?} asleep", woke.elapsed());
        talk.ends();
    });
}
