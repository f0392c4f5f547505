//! Many sessions for many minutes, on a network that fails at random.

use std::{
    env, fs,
    io::{Read, Write},
    process::Stdio,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::resumes;
use crate::support::{
    Ending, World,
    cut::{EVERY, Flow},
    distant::Distant,
    noise, within,
};

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// The end of a session.
enum Ended {
    /// Every byte has come back, so many of them.
    Whole(usize),
    /// It was cut before it began.
    Unbegun,
    /// It was cut, and was direct, because the network had failed as it began.
    Direct,
}

/// One ssh that sends noise in pieces, as fast as it comes back.
fn session(distant: &Distant, data: &[u8], stop: &AtomicBool) -> Ended {
    let mut ssh = distant.world.ssh_program("ssh");
    ssh.args(["-o", "BatchMode=yes", &distant.host, "echo in; exec cat"]);
    let mut ssh = Ending(ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let (mut input, mut output) = (ssh.0.stdin.take().unwrap(), ssh.0.stdout.take().unwrap());
    let mut errors = ssh.0.stderr.take().unwrap();
    let mut said = [0; 3];
    if output.read_exact(&mut said).is_err() {
        let mut text = String::new();
        errors.read_to_string(&mut text).unwrap();
        assert!(ssh.0.wait().unwrap().code() == Some(255) && !text.contains("panicked"), "{text}");
        return Ended::Unbegun;
    }
    assert_eq!(&said, b"in\n");
    let pid = distant.proxy(ssh.0.id()).map(u64::from);
    let is_held = || distant.statuses().iter().any(|one| one["pid"].as_u64() == pid && one["held"] == true);
    let mut held = is_held();
    let until = Instant::now() + Duration::from_secs(fastrand::u64(5..40));
    let mut total = 0;
    while Instant::now() < until && !stop.load(Ordering::Relaxed) {
        let at = fastrand::usize(0..data.len() / 2);
        let piece = &data[at..at + fastrand::usize(1..64 << 10)];
        let mut back = vec![0; piece.len()];
        let sent = std::thread::scope(|scope| {
            let sending = scope.spawn(|| input.write_all(piece));
            let read = output.read_exact(&mut back);
            sending.join().unwrap().and(read)
        });
        held |= !held && is_held();
        if let Err(error) = sent {
            if !held {
                return Ended::Direct;
            }
            let mut text = String::new();
            let _ = errors.read_to_string(&mut text);
            panic!("a session was lost after {total} bytes: {error}: {text}");
        }
        assert!(back == piece, "{} bytes differ after {total}", piece.len());
        total += piece.len();
        std::thread::sleep(Duration::from_millis(fastrand::u64(0..2000)));
    }
    drop(input);
    let (mut rest, mut text) = (Vec::new(), String::new());
    output.read_to_end(&mut rest).unwrap();
    errors.read_to_string(&mut text).unwrap();
    let status = ssh.0.wait().unwrap();
    if !held && !status.success() {
        return Ended::Direct;
    }
    assert!(status.success() && rest.is_empty(), "{status}, {} bytes too many: {text}", rest.len());
    Ended::Whole(total)
}

/// A fault, for a moment.
fn fault(distant: &Distant) -> String {
    let network = &distant.tunnels;
    match fastrand::u8(0..10) {
        0..6 => {
            let how = EVERY[fastrand::usize(0..EVERY.len())];
            network.fail(how);
            format!("{how:?}")
        }
        6 => {
            network.flows(Flow::Hole, Flow::Hole);
            std::thread::sleep(Duration::from_millis(fastrand::u64(100..6000)));
            network.heals();
            "hole".to_owned()
        }
        7 => {
            network.goes_away();
            std::thread::sleep(Duration::from_millis(fastrand::u64(100..10_000)));
            network.heals();
            "away".to_owned()
        }
        8 => {
            network.flows(Flow::Rate(200_000), Flow::Rate(200_000));
            std::thread::sleep(Duration::from_secs(4));
            network.heals();
            "drip".to_owned()
        }
        _ => {
            network.delays(Duration::from_millis(fastrand::u64(0..300)));
            "delay".to_owned()
        }
    }
}

fn descriptors(pids: &[u32]) -> usize {
    pids.iter().map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()).sum()
}

fn platform(world: &World) -> u32 {
    u32::try_from(world.json(&["local", "status", "--json"])["pid"].as_u64().unwrap()).unwrap()
}

#[test]
#[ignore = "minutes: scripts/soak --faults runs it"]
fn sessions_without_end_on_a_network_without_mercy() {
    let (minutes, sessions) = (number("SOAK_MINUTES", 10), number("SOAK_SESSIONS", 50));
    assert!(sessions <= 60, "a relay holds 64");
    let distant = Distant::with_relay();
    let data = noise(4 << 20);
    let mut watched = distant.relay_processes();
    assert_eq!(watched.len(), 1);
    watched.push(platform(&distant.world));
    let before = descriptors(&watched);
    let stop = AtomicBool::new(false);
    let [whole, bytes, unbegun, direct] = [const { AtomicUsize::new(0) }; 4];
    let faults = Mutex::new(std::collections::BTreeMap::<String, usize>::new());
    let end = Instant::now() + Duration::from_secs(60 * minutes);
    std::thread::scope(|scope| {
        struct Stops<'a>(&'a AtomicBool);
        impl Drop for Stops<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        for _ in 0..sessions {
            scope.spawn(|| {
                // One that is lost ends the whole.
                let lost = Stops(&stop);
                while !stop.load(Ordering::Relaxed) {
                    match session(&distant, &data, &stop) {
                        Ended::Whole(more) => {
                            bytes.fetch_add(more, Ordering::Relaxed);
                            whole.fetch_add(1, Ordering::Relaxed)
                        }
                        Ended::Unbegun => unbegun.fetch_add(1, Ordering::Relaxed),
                        Ended::Direct => direct.fetch_add(1, Ordering::Relaxed),
                    };
                }
                drop(lost);
            });
        }
        let _stops = Stops(&stop);
        while Instant::now() < end && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(fastrand::u64(200..5000)));
            *faults.lock().unwrap().entry(fault(&distant)).or_default() += 1;
        }
        distant.tunnels.heals();
        distant.tunnels.delays(Duration::ZERO);
    });
    eprintln!(
        "{sessions} sessions, {minutes} minutes: {} whole, 0 lost, {} not begun, {} direct ones cut; {} MiB compared; {} resumes; faults: {:?}",
        whole.load(Ordering::Relaxed),
        unbegun.load(Ordering::Relaxed),
        direct.load(Ordering::Relaxed),
        bytes.load(Ordering::Relaxed) >> 20,
        resumes(&distant),
        faults.lock().unwrap(),
    );
    assert!(whole.load(Ordering::Relaxed) >= sessions as usize && resumes(&distant) > 0);
    within(Duration::from_secs(30), "no proxy is left", &mut || distant.world.processes(" connect ").is_empty());
    within(Duration::from_secs(30), "descriptors are as many as before", &mut || descriptors(&watched) <= before + 2);
}
