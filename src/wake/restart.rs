//! The restart of a stopped play or machine: requested once for all processes that want it.

use std::time::Duration;

use super::{
    lock::wake_lock,
    stage::{Part, stage, stopped},
};
use crate::{
    error::{Kind, Result},
    labs::{Labs, wire::Play},
    moment::{Moment, ago, now},
    records::memory::{Memory, Record, WakeRequest},
};

/// A request that the platform has answered shows in the state by then; if not, it is sent again.
pub(crate) const TAKES_EFFECT: Duration = Duration::from_secs(60);
/// A request whose answer was lost shows in the state by then, if it was carried out.
pub(super) const OUTCOME_SHOWS: Duration = Duration::from_secs(10);

/// A restart.
pub(super) struct Restart<'a> {
    pub(super) labs: &'a Labs,
    pub(super) memory: &'a Memory,
    /// The moment at which the restart was permitted.
    pub(super) decided: Moment,
    /// The play as it was found: stopped, or with a stopped machine.
    pub(super) play: &'a Play,
    /// The part of it that is stopped.
    pub(super) part: Part<'a>,
}

impl Restart<'_> {
    /// Requests the restart unless another process has, and returns the play as it is known then.
    ///
    /// # Errors
    /// [`Kind::NotWoken`] when the play or the machine was stopped on purpose since the restart was permitted, or the
    /// platform's.
    pub(super) async fn request_once(&self) -> Result<Play> {
        let id = &self.play.id;
        let Some(_lock) = wake_lock(self.memory, &self.label()).await? else { return self.labs.play(id).await };
        let current = self.labs.play(id).await?;
        if self.has_moved_on(&current) {
            return Ok(current);
        }
        if let Some(part) = self.stopped_since() {
            return Err(stopped(&current, part));
        }
        let upon = state_stamp(&current, self.part);
        if self.is_pending(&upon) {
            return Ok(current);
        }
        let request = WakeRequest { at: now(), upon, sent: false, lost: false, made: None };
        self.record(Some(request.clone()));
        let error = match self.labs.act_and_look(id, &self.part.restart()).await {
            Ok(play) => {
                self.record(Some(WakeRequest { sent: true, ..request }));
                return Ok(play);
            }
            Err(error) => error,
        };
        if error.kind() == Kind::Refused {
            // Another client may have been faster.
            let current = self.labs.play(id).await?;
            if self.has_moved_on(&current) {
                return Ok(current);
            }
        }
        if !error.may_have_happened() {
            self.record(None);
        }
        Err(error)
    }

    /// The name of the lock and the record.
    fn label(&self) -> String {
        match self.part {
            Part::Play => self.play.id.clone(),
            Part::Machine(machine) => format!("{}.{machine}", self.play.id),
        }
    }

    fn has_moved_on(&self, current: &Play) -> bool {
        stage(current, self.part) != stage(self.play, self.part)
    }

    /// The part that was stopped on purpose since the restart was permitted.
    fn stopped_since(&self) -> Option<Part<'_>> {
        let record = self.known(&self.play.id);
        let machine = match self.part {
            Part::Play => None,
            Part::Machine(machine) => record.machine_stopped(machine),
        };
        let found = [(Part::Play, record.stopped), (self.part, machine)];
        found.into_iter().find(|(_, at)| at.is_some_and(|at| at >= self.decided)).map(|(part, _)| part)
    }

    /// True if this stop's restart was requested, and may still take effect.
    fn is_pending(&self, upon: &str) -> bool {
        let recorded = self.known(&self.label()).wake.filter(|wake| wake.upon == upon);
        let takes = |wake: &WakeRequest| if wake.sent { TAKES_EFFECT } else { OUTCOME_SHOWS };
        recorded.is_some_and(|wake| ago(wake.at) < takes(&wake))
    }

    /// The record under `label`. The restart is permitted, so a record that cannot be read is no obstacle to it.
    fn known(&self, label: &str) -> Record {
        self.memory.read(label).unwrap_or_else(|error| {
            log::warn!("{}", error.message());
            Record::default()
        })
    }

    fn record(&self, request: Option<WakeRequest>) {
        let change = |record: &mut Record| {
            if self.part == Part::Play && request.as_ref().is_some_and(|request| request.sent) {
                record.all_machines_start();
            }
            record.wake = request;
        };
        if let Err(error) = self.memory.change(&self.label(), change) {
            log::warn!("{}", error.message());
        }
    }
}

/// A text that tells one stop of a play or a machine from the next.
fn state_stamp(play: &Play, part: Part<'_>) -> String {
    let events = play.status.as_ref().map(|status| status.state_events.len()).unwrap_or_default();
    let status = match part {
        Part::Play => None,
        Part::Machine(machine) => play.machine_status(machine),
    };
    let since = status
        .and_then(|status| status.conditions.first())
        .map(|condition| condition.last_transition_at.as_str())
        .unwrap_or_default();
    format!("{events} {} {since}", play.last_state_at)
}
