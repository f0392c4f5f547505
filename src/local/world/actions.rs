//! The actions of `POST /plays/{id}/actions`, and the states that allow them.

use std::sync::Arc;

use serde_json::Value;

use crate::labs::wire::{Action, State};

use super::{
    super::{
        record::Record,
        refusal::{Answer, Refusal, conflict, machine_conflict, no_machine},
    },
    World,
    turns::{Next, Power},
};

/// The longest time that a play may be asked to run: a week.
const MAX_PLAY_MINUTES: u64 = 7 * 24 * 60;
/// The longest title, in characters.
const MAX_TITLE: usize = 200;

impl World {
    /// Carries out a request of `POST /plays/{id}/actions`, or begins to.
    ///
    /// # Errors
    /// 404 when there is no such play or machine, 409 when its state does not allow it, 400 when a value is out of
    /// range.
    pub(crate) fn act(self: &Arc<Self>, id: &str, action: Action) -> Answer<Value> {
        match action {
            Action::MakePersistent => self.edit(id, |record| {
                record.persistent = true;
                Ok(())
            })?,
            Action::SetTitle { title } => self.set_title(id, title.trim())?,
            Action::SetMaxPlayTime { minutes } => {
                if minutes > MAX_PLAY_MINUTES {
                    let words = format!("a playground can run for at most {MAX_PLAY_MINUTES} minutes");
                    return Err(Refusal::bad_request(words));
                }
                self.edit(id, |record| {
                    record.max_play_minutes = minutes;
                    Ok(())
                })?;
            }
            Action::Stop => self.advance(id, |record| match record.state() {
                State::Stopping | State::Stopped => Err(conflict(record, "it is not running")),
                State::Destroying | State::Destroyed => Err(conflict(record, "it is being erased")),
                _ => Ok(Next::Stop),
            })?,
            Action::Restart => self.advance(id, |record| match record.state() {
                State::Stopped | State::Failed => Ok(Next::Start),
                State::Stopping => Err(conflict(record, "wait until it is stopped")),
                State::Destroying | State::Destroyed => Err(conflict(record, "it is being erased")),
                _ => Err(conflict(record, "only a stopped playground can be restarted")),
            })?,
            Action::Destroy => self.advance(id, |record| match record.state() {
                State::Destroying | State::Destroyed => Err(conflict(record, "it is being erased already")),
                _ => Ok(Next::Erase),
            })?,
            Action::StopMachine { machine } => self.advance(id, |record| match machine_state(record, &machine)? {
                State::Running | State::Rebooting => Ok(Next::Machine(machine, Power::Off)),
                state => Err(machine_conflict(&machine, state, "it is not running")),
            })?,
            Action::RestartMachine { machine } => {
                self.advance(id, |record| match machine_state(record, &machine)? {
                    State::Stopped => Ok(Next::Machine(machine, Power::On)),
                    state => Err(machine_conflict(&machine, state, "only a stopped machine can be restarted")),
                })?
            }
            Action::RebootMachine { machine } => self.advance(id, |record| match machine_state(record, &machine)? {
                State::Running => Ok(Next::Machine(machine, Power::Cycle)),
                state => Err(machine_conflict(&machine, state, "only a running machine can be rebooted")),
            })?,
            // They only read, and their answers are no plays: see `consoles`.
            Action::ListConsoles { .. } | Action::ReadConsole { .. } => {}
        }
        self.get(id)
    }

    fn set_title(&self, id: &str, title: &str) -> Answer<()> {
        if title.is_empty() || title.chars().count() > MAX_TITLE || title.contains(char::is_control) {
            let words = format!("a title has 1 to {MAX_TITLE} characters, none of them control characters");
            return Err(Refusal::bad_request(words));
        }
        self.edit(id, |record| {
            record.title = title.into();
            Ok(())
        })
    }
}

/// The state of a machine of a running play.
fn machine_state<'a>(record: &'a Record, name: &str) -> Answer<&'a State> {
    let machine = record.status.machines.iter().find(|machine| machine.name == name);
    let machine = machine.ok_or_else(|| no_machine(record, name))?;
    if *record.state() != State::Running {
        return Err(conflict(record, "it is not running"));
    }
    Ok(&machine.state)
}
