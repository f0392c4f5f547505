//! The way into a pod: its cluster says on which machine the container runs, and by which id. From there on the way is a
//! container's.
//!
//! A pod that was named itself is gone to at once the next time, by that id; the cluster is asked again when the machine
//! does not know it any more. What a Deployment's name means is asked each time.

use super::{
    Connection, Reached, Stop,
    carried::Carried,
    container::{self, MACHINE_USER, Wanted, Way},
    opening,
};
use crate::{
    cluster::find::{self as in_cluster, Place},
    connect::client::Client,
    door,
    error::{Error, Kind, Result},
    records::tunnels::Known,
    target::{PodName, Target},
    ui::notice::Progress,
};

/// Reaches the container that `name` means.
pub(super) async fn reach(
    connection: &mut Connection<'_>,
    client: &mut Client,
    name: &PodName,
) -> Result<Reached<Carried>, Stop> {
    let slot = connection.app.tunnel_slot(connection.labs, &connection.request.host, MACHINE_USER);
    // An error about the key is reported where the key is needed.
    let slot = slot.ok().flatten();
    let known = slot.as_ref().and_then(|slot| Some(slot).zip(slot.known()));
    if let Some((slot, Known { machine, inside: Some(id), .. })) = known {
        lead_into(connection, name, &machine, id)?;
        match super::reach(connection, client, opening::attempt).await {
            Err(Stop::Failed(error)) if connection.has_arrived.get() && is_elsewhere(&error) => {
                log::info!("the cluster is asked again: {}", error.message());
                slot.forget();
                connection.has_arrived.set(false);
                connection.is_heard.set(false);
            }
            done => return done,
        }
    }
    let (machine, Place { pod, id, .. }) = find_place(connection, client, name).await?;
    lead_into(connection, name, &machine, id.clone())?;
    let reached = super::reach(connection, client, opening::attempt).await?;
    if let Some(slot) = slot.filter(|_| in_cluster::as_label(&pod) == name.pod) {
        let destination = &reached.destination;
        let mut known = Known::new(&destination.play, &destination.machine, MACHINE_USER, None, &destination.session);
        known.inside = Some(id);
        slot.keep(&known);
    }
    Ok(reached)
}

/// True for what a machine says of a container that it has no more: another is in its place, perhaps elsewhere.
fn is_elsewhere(error: &Error) -> bool {
    matches!(error.kind(), Kind::NotFound | Kind::NotWoken | Kind::Ended)
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

/// Asks the cluster for the container, and for its machine.
async fn find_place(
    connection: &mut Connection<'_>,
    client: &mut Client,
    name: &PodName,
) -> Result<(String, Place), Stop> {
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
    Ok(connection.present(client, place).await??)
}
