//! The ways into machines.

use std::{sync::Arc, time::Duration};

use hyper::StatusCode;
use tokio::time::timeout;

use crate::labs::wire::State;

use super::{
    super::{
        refusal::{Answer, Refusal, conflict, machine_conflict, no_machine, no_play},
        tunnels::Gate,
    },
    World,
};

impl World {
    /// The way into a machine, as soon as it is ready; an empty name means the first one.
    ///
    /// # Errors
    /// 404 when there is no such play or machine, 409 when it will not become ready by itself, 503 when it is not ready
    /// within `hold`.
    pub(crate) async fn gate(&self, id: &str, machine: &str, hold: Duration) -> Answer<Arc<Gate>> {
        let mut changed = self.watch(id)?;
        let wait = async {
            loop {
                changed.borrow_and_update();
                if let Some(gate) = self.gate_now(id, machine)? {
                    return Ok(gate);
                }
                changed.changed().await.map_err(|_| no_play(id))?;
            }
        };
        timeout(hold, wait).await.unwrap_or_else(|_| {
            let machine = if machine.is_empty() { "the first machine" } else { machine };
            let words = format!("{machine} of playground {id} is still booting: try again");
            Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, words))
        })
    }

    fn gate_now(&self, id: &str, machine: &str) -> Answer<Option<Arc<Gate>>> {
        let plays = self.locked();
        let play = plays.get(id).ok_or_else(|| no_play(id))?;
        let slot = play.machines.iter().find(|slot| slot.name == machine || machine.is_empty());
        let slot = slot.ok_or_else(|| no_machine(&play.record, machine))?;
        if let Some(gate) = &slot.gate {
            return Ok(Some(Arc::clone(gate)));
        }
        match play.record.state() {
            State::Stopping | State::Stopped | State::Failed => {
                return Err(conflict(&play.record, "restart it first"));
            }
            State::Destroying | State::Destroyed => return Err(conflict(&play.record, "start another one")),
            _ => {}
        }
        let state = play.record.status.machines.iter().find(|machine| machine.name == slot.name);
        match state.map(|machine| &machine.state) {
            Some(state @ (State::Stopping | State::Stopped)) => {
                Err(machine_conflict(&slot.name, state, "restart it first"))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// The machine whose tunnels a token opens, if it is still in the life for which the token was made, and the tunnel
    /// that the token belongs to.
    pub(crate) fn gate_of_token<'a>(&self, token: &'a str) -> Option<(Arc<Gate>, &'a str)> {
        self.find_gate(|gate| Some((Arc::clone(gate), gate.session_of_token(token)?)))
    }

    /// The token behind a login URL.
    pub(crate) fn token_of_login(&self, login: &str) -> Option<String> {
        self.find_gate(|gate| gate.token_of_login(login))
    }

    fn find_gate<T>(&self, look: impl Fn(&Arc<Gate>) -> Option<T>) -> Option<T> {
        let plays = self.locked();
        plays.values().flat_map(|play| &play.machines).filter_map(|slot| slot.gate.as_ref()).find_map(look)
    }
}
