//! Sessions that survive the network: a real ssh and a real sshd, with a network between them that fails on command.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "figures for who runs it with --nocapture")]

use std::time::Duration;

use crate::support::{
    cut::{Flow, How, Kind},
    distant::{Distant, NOTICED, SOON},
};

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
    assert_eq!(distant.relays(), 0);
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
