//! Sessions of killed proxies, which the machine would keep for hours: the next connection to that machine ends them.

use std::{convert::Infallible, future::pending, time::Duration};

use tokio::time::sleep;

use super::{Connection, Destination};
use crate::{
    error::{Error, Kind, Result},
    hold,
    labs::tunnel::Tunnel,
    records::tickets::{Ticket, Tickets},
};

/// A connection has begun by then, and what is no part of it may follow.
const LATER: Duration = Duration::from_secs(1);

/// Ends the orphans on the machine, once. Never returns.
pub(super) async fn end(connection: &Connection<'_>, destination: &Destination) -> Infallible {
    sleep(LATER).await;
    let Destination { play, machine, .. } = destination;
    for (ticket, kept) in Tickets::below(&connection.app.folders.root).orphans(play, machine) {
        match end_one(connection, destination, &ticket).await {
            Ok(()) => log::info!("ended the session that a killed connection had left on machine {machine}"),
            // The machine is reached, so its relay is gone, and with it the session.
            Err(error) => log::info!("a killed connection's session has ended by itself: {}", error.message()),
        }
        kept.discard();
    }
    pending().await
}

async fn end_one(connection: &Connection<'_>, destination: &Destination, ticket: &Ticket) -> Result<()> {
    let (id, key) = ticket.id_and_key().ok_or_else(|| Error::new(Kind::File, "the ticket cannot be read"))?;
    let resume_port = ticket.resume_port;
    let stream = connection.labs.open(&destination.session, &format!("127.0.0.1:{resume_port}")).await?;
    hold::end(Tunnel::unwatched(stream), &hold::Ticket { id, key, resume_port }).await
}
