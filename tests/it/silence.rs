//! Silence on a session without a relay: its connection is dead, or the network is away.

use std::time::{Duration, Instant};

use crate::support::{
    cut::{Flow, How, Kind},
    distant::{Distant, NOTICED, SOON},
    within,
};

/// Time limit for the judgement: 20 s of silence, 5 s without an answer, and the rest for a busy computer.
const JUDGED: Duration = Duration::from_secs(45);

fn direct() -> Distant {
    let distant = Distant::new(&[]);
    distant.world.settings("resume: never\n");
    distant
}

/// The tunnel's host takes other connections, and this one is silent: it is dead, and that is said.
#[test]
fn a_connection_that_is_dead_ends() {
    let distant = direct();
    let mut talk = distant.talk("exec cat");
    talk.echoes(NOTICED);
    let began = Instant::now();
    distant.tunnels.fail(How::Stranded);
    let (status, _, errors) = talk.ended(JUDGED);
    assert_eq!(status.code(), Some(255), "{errors}");
    // It is judged at the ping that is nearest to 20 s, or later on a busy computer.
    let (_, words) =
        errors.split_once("nothing has come through the tunnel for ").unwrap_or_else(|| panic!("{errors}"));
    let (silent, why) = words.split_once(" s, ").unwrap();
    assert!((17..=45).contains(&silent.parse::<u32>().unwrap()), "{errors}");
    assert!(why.starts_with("while its host answers"), "{errors}");
    assert!(errors.contains("connect again"), "{errors}");
    assert!(began.elapsed() > Duration::from_secs(15), "20 s of silence are not the end before they are over");
}

/// Neither this connection nor another one gets through: the network is away, which is shown, and the session goes on
/// when it is back.
#[test]
fn a_network_that_is_away_is_waited_for() {
    let distant = direct();
    let mut talk = distant.talk("exec cat");
    talk.echoes(NOTICED);
    assert_eq!(distant.status(&talk)["phase"], "connected");
    distant.tunnels.flows(Flow::Hole, Flow::Hole);
    distant.tunnels.refuses(true);
    within(JUDGED, "the network is found away", &mut || distant.status(&talk)["phase"] == "away");
    let status = distant.status(&talk);
    assert_eq!((&status["held"], &status["resumed"]), (&false.into(), &0.into()), "{status}");
    distant.tunnels.heals();
    // Keys that were typed meanwhile are not lost.
    talk.echoes(SOON);
    within(SOON, "it is seen to be back", &mut || distant.status(&talk)["phase"] == "connected");
    assert_eq!(distant.status(&talk)["resumed"], 1);
    assert_eq!(distant.tunnels.count(Kind::Direct), 1, "it is the same connection");
    talk.ends();
}
