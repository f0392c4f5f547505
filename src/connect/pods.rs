//! The way into a pod: its cluster says on which machine the container runs, and by which id. From there on the way is a
//! container's.
//!
//! A pod that was named itself is gone to at once the next time, by that id. The cluster is asked again when that leads
//! nowhere. What a Deployment's name means is asked each time.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    Connection, Destination, Reached, Stop,
    carried::Carried,
    client::Client,
    container::{self, MACHINE_USER, Wanted, Way},
    early::Passed,
    opening,
};
use crate::{
    cluster::find::{self as in_cluster, Place},
    door,
    error::{Error, Kind, Result},
    labs::TunnelSession,
    moment::ago,
    records::tunnels::{Known, Slot},
    target::{PodName, Target},
    ui::notice::Progress,
};

/// The time that a cluster may take after a wake, before what it says, or does not say, is final: its API answers long
/// after its machines do, and tells at first what was so before they stopped.
const STARTING: Duration = Duration::from_secs(3 * 60);
/// The pause before it is asked again.
const PAUSE: Duration = Duration::from_secs(2);

/// Reaches the container that `name` means.
pub(super) async fn reach(
    connection: &mut Connection<'_>,
    client: &mut Client,
    name: &PodName,
) -> Result<Reached<Carried>, Stop> {
    let slot = connection.app.tunnel_slot(connection.labs, &connection.request.host, MACHINE_USER);
    // An error about the key is reported where the key is needed.
    let slot = slot.ok().flatten();
    if let Some((slot, Known { machine, inside: Some(id), .. })) =
        slot.as_ref().and_then(|slot| Some(slot).zip(slot.known()))
    {
        lead_into(connection, name, &machine, id)?;
        // Nothing is woken for a place that may be another by now.
        match opening::open_at_once(connection, client, &opening::attempt).await {
            Ok(Some((kept, opened, destination))) => return Ok(Reached { kept: Some(kept), opened, destination }),
            Err(Stop::Failed(error)) if connection.early.passed() != Passed::Bytes => {
                log::info!("the cluster is asked again: {}", error.message());
            }
            Err(stop) => return Err(stop),
            Ok(None) => {}
        }
        slot.forget();
    }
    loop {
        let error = match by_the_cluster(connection, client, name, slot.as_ref()).await {
            Err(Stop::Failed(error)) if is_starting(connection, &error) => error,
            done => return done,
        };
        connection.waiting(&format!("waiting for pod {name}: {}", error.message()));
        connection.present(client, sleep(PAUSE)).await?;
    }
}

/// True for a failure that the start of a cluster may be the reason for.
fn is_starting(connection: &Connection<'_>, error: &Error) -> bool {
    let of_a_start = matches!(error.kind(), Kind::NotYet | Kind::NotFound | Kind::NotWoken | Kind::Ended);
    let has_time = Instant::now() + PAUSE < connection.deadline() && connection.early.passed() != Passed::Bytes;
    let woken = || connection.memory.read(&connection.live.status().playground).ok()?.wake;
    of_a_start && has_time && woken().is_some_and(|wake| ago(wake.at) < STARTING)
}

/// Asks the cluster, and reaches the container on the machine that it names.
async fn by_the_cluster(
    connection: &mut Connection<'_>,
    client: &mut Client,
    name: &PodName,
    slot: Option<&Slot>,
) -> Result<Reached<Carried>, Stop> {
    let (machine, Place { pod, id, .. }, asked) = find_place(connection, client, name).await?;
    lead_into(connection, name, &machine, id.clone())?;
    if asked.machine == machine {
        // The session that has led to its cluster leads to it, too.
        opening::keep(connection, &asked)?;
    }
    let reached = super::reach(connection, client, opening::attempt).await?;
    if let Some(slot) = slot.filter(|_| in_cluster::as_label(&pod) == name.pod) {
        let Destination { play, machine, .. } = &reached.destination;
        let mut known = Known::new(play, machine, MACHINE_USER, None, &TunnelSession::default());
        known.inside = Some(id);
        slot.keep(&known);
    }
    Ok(reached)
}

/// Makes the connection one into a container of a machine.
fn lead_into(connection: &mut Connection<'_>, name: &PodName, machine: &str, id: String) -> Result<()> {
    let before = connection.container.take();
    let wanted = Wanted::container(connection, id, Some(name.clone()))?.with_keys_of(before);
    let target = Target { machine: Some(machine.to_owned()), inside: None, ..connection.target.clone() };
    connection.machine_host = target.to_string();
    connection.target = target;
    connection.container = Some(wanted);
    Ok(())
}

/// Asks the cluster for the container, and for its machine. Also returns where it was asked.
async fn find_place(
    connection: &mut Connection<'_>,
    client: &mut Client,
    name: &PodName,
) -> Result<(String, Place, Destination), Stop> {
    connection.has_arrived.set(false);
    connection.is_heard.set(false);
    let before = connection.container.take();
    let wanted = Wanted::cluster(connection)?.with_keys_of(before);
    let target = Target { machine: None, inside: None, ..connection.target.clone() };
    connection.machine_host = target.to_string();
    connection.target = target;
    connection.container = Some(wanted);
    let Reached { opened: Way { ssh, .. }, destination, .. } =
        super::reach(connection, client, container::log_in).await?;
    connection.has_arrived.set(false);
    connection.is_heard.set(false);
    connection.waiting(&format!("looking for pod {name} in the cluster of {}", destination.shown()));
    let place = door::place_of(connection.app, connection.labs, ssh, name);
    let (machine, place) = connection.present(client, place).await??;
    Ok((machine, place, destination))
}
