//! The ports on which programs on machines listen.

use std::{net::SocketAddr, sync::Arc};

use futures_util::future::join_all;

use crate::labs::wire::{ScannedPort, State};

use super::{
    super::{
        machine::protocol,
        refusal::{Answer, Refusal, conflict, no_machine, no_play},
        tunnels::Gate,
    },
    World,
};

/// The largest number of ports that one scan examines; a machine with more is not waited for.
const MAX_PORTS: usize = 256;

impl World {
    /// The TCP ports on which programs on a play's machines, or on one of them, listen, each once for each address.
    ///
    /// # Errors
    /// 404 when there is no such play or machine, 409 when it does not run, 501 on systems that do not tell.
    pub(crate) async fn scan(&self, id: &str, machine: Option<&str>) -> Answer<Vec<ScannedPort>> {
        let gates = self.gates_to_scan(id, machine)?;
        let look = move || gates.iter().map(|gate| listening(gate)).collect::<Option<Vec<_>>>();
        let found = tokio::task::spawn_blocking(look).await.ok().flatten();
        let found =
            found.ok_or_else(|| Refusal::not_here("this system does not report which program listens on a port"))?;
        let ports = found.into_iter().flatten().take(MAX_PORTS).map(|(machine, address)| async move {
            ScannedPort { machine, number: address.port(), protocol: protocol(address).await.into() }
        });
        let mut ports = join_all(ports).await;
        ports.sort();
        Ok(ports)
    }

    fn gates_to_scan(&self, id: &str, machine: Option<&str>) -> Answer<Vec<Arc<Gate>>> {
        let plays = self.locked();
        let play = plays.get(id).ok_or_else(|| no_play(id))?;
        if let Some(name) = machine {
            play.record.machine(name).ok_or_else(|| no_machine(&play.record, name))?;
        }
        if *play.record.state() != State::Running {
            return Err(conflict(&play.record, "it is not running"));
        }
        let asked = play.machines.iter().filter(|slot| machine.is_none_or(|name| slot.name == name));
        Ok(asked.filter_map(|slot| slot.gate.clone()).collect())
    }
}

fn listening(gate: &Gate) -> Option<Vec<(String, SocketAddr)>> {
    let machine = gate.machine();
    Some(machine.listening()?.into_iter().map(|address| (machine.name().to_owned(), address)).collect())
}
