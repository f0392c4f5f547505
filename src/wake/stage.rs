//! The stage of a play or a machine on its way: pure.

use crate::{
    error::{Error, Kind},
    labs::wire::{Action, Play, State},
    moment::Moment,
};

/// A play, or one of its machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    Play,
    Machine(&'a str),
}

impl Part<'_> {
    /// The action that restarts it.
    pub(super) fn restart(self) -> Action {
        match self {
            Part::Play => Action::Restart,
            Part::Machine(machine) => Action::RestartMachine { machine: machine.to_owned() },
        }
    }
}

/// The stage of a machine on its way.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stage<'a> {
    /// Its tunnel can be requested; the platform holds the request while it boots.
    Up,
    /// It comes or goes by itself: wait.
    Passing(State),
    /// It or its play must be restarted.
    Stopped(Part<'a>),
    /// Nothing helps.
    Gone(State),
}

/// The stage of a machine, or of the play itself.
pub(super) fn stage<'a>(play: &Play, part: Part<'a>) -> Stage<'a> {
    match play.state() {
        // An old play without a status, or a state that is newer than this program: the tunnel request will tell.
        None | Some(State::Other(_)) => Stage::Up,
        Some(state @ (State::Destroying | State::Destroyed | State::Failed)) => Stage::Gone(state.clone()),
        Some(State::Stopped) => Stage::Stopped(Part::Play),
        Some(State::Stopping) => Stage::Passing(State::Stopping),
        Some(
            State::Created | State::WarmingUp | State::WarmedUp | State::Starting | State::Running | State::Rebooting,
        ) => match part {
            Part::Play => Stage::Up,
            Part::Machine(machine) => match play.machine_status(machine).map(|status| &status.state) {
                Some(State::Stopped) if play.state() == Some(&State::Running) => Stage::Stopped(part),
                Some(state @ (State::Stopping | State::Rebooting)) => Stage::Passing(state.clone()),
                _ => Stage::Up,
            },
        },
    }
}

/// True for a machine that is down until it is woken: it or its play is stopped, or about to be.
pub fn is_down(play: &Play, machine: &str) -> bool {
    match stage(play, Part::Machine(machine)) {
        Stage::Stopped(_) | Stage::Passing(State::Stopping) => true,
        Stage::Passing(_) | Stage::Up | Stage::Gone(_) => false,
    }
}

/// True for a machine whose tunnel can be requested, as far as the platform tells.
pub fn is_up(play: &Play, machine: &str) -> bool {
    stage(play, Part::Machine(machine)) == Stage::Up
}

/// The moment since which a machine has been down, itself or with its play, by the platform's clock.
pub fn down_since(play: &Play, machine: &str) -> Option<Moment> {
    let events = play.status.as_ref().map(|status| status.state_events.as_slice()).unwrap_or_default();
    let is_end = |state: &State| {
        matches!(state, State::Stopping | State::Stopped | State::Destroying | State::Destroyed | State::Failed)
    };
    let end = events.iter().rev().take_while(|event| is_end(&event.state)).last();
    let at = match end {
        Some(event) => &event.at,
        None => &play.machine_status(machine)?.conditions.iter().find(|one| one.name == "Ready")?.last_transition_at,
    };
    Moment::try_from(at.parse::<jiff::Timestamp>().ok()?.as_millisecond()).ok()
}

/// The error for a machine that is stopped while its play runs.
pub(crate) fn machine_is_stopped(play: &Play, machine: &str) -> Error {
    stopped(play, Part::Machine(machine))
}

/// The error for a part that is stopped and must not be woken.
pub(super) fn stopped(play: &Play, part: Part<'_>) -> Error {
    let (shown, id) = (play.shown(), &play.id);
    let (what, command) = match part {
        Part::Play => (String::new(), format!("start {id}")),
        Part::Machine(machine) => (format!("machine {machine} of "), format!("machine restart {id} {machine}")),
    };
    Error::new(Kind::NotWoken, format!("{what}playground {shown} is stopped"))
        .with_hint(format!("start it with `labctl-ssh-proxy {command}`"))
}

/// The error for a play in a state without return.
pub(super) fn gone(play: &Play, state: &State) -> Error {
    let end = match state {
        State::Failed => "has failed",
        _ => "was destroyed",
    };
    let name = match play.playground.name.as_str() {
        "" => "NAME",
        name => name,
    };
    Error::new(Kind::Ended, format!("playground {} {end}", play.shown()))
        .with_hint(format!("start another with `labctl-ssh-proxy start {name}`"))
}

#[cfg(test)]
mod tests {
    use super::{Part, Stage, stage};
    use crate::labs::wire::{MachineStatus, Play, State, StateEvent, Status};

    fn play(state: &str, machine: &str) -> Play {
        let event = StateEvent { state: state.to_owned().into(), error: false.into(), at: String::new() };
        let machine = MachineStatus { name: "m".into(), state: machine.to_owned().into(), conditions: vec![] };
        let status = Status { state_events: vec![event], machines: vec![machine], ..Default::default() };
        Play { status: Some(status), ..Default::default() }
    }

    #[test]
    fn every_state_leads_somewhere() {
        let m = Part::Machine("m");
        for (state, machine, expected) in [
            ("CREATED", "CREATED", Stage::Up),
            ("STARTING", "STARTING", Stage::Up),
            ("RUNNING", "RUNNING", Stage::Up),
            ("RUNNING", "NAPPING", Stage::Up),
            ("NAPPING", "RUNNING", Stage::Up),
            ("RUNNING", "STOPPED", Stage::Stopped(m)),
            ("STARTING", "STOPPED", Stage::Up),
            ("RUNNING", "STOPPING", Stage::Passing(State::Stopping)),
            ("RUNNING", "REBOOTING", Stage::Passing(State::Rebooting)),
            ("STOPPING", "RUNNING", Stage::Passing(State::Stopping)),
            ("STOPPED", "STOPPED", Stage::Stopped(Part::Play)),
            ("DESTROYING", "STOPPED", Stage::Gone(State::Destroying)),
            ("DESTROYED", "STOPPED", Stage::Gone(State::Destroyed)),
            ("FAILED", "STARTING", Stage::Gone(State::Failed)),
        ] {
            assert_eq!(stage(&play(state, machine), m), expected, "{state} {machine}");
        }
        assert_eq!(stage(&Play::default(), m), Stage::Up);
        assert_eq!(stage(&play("RUNNING", "STOPPED"), Part::Play), Stage::Up);
    }
}
