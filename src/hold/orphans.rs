//! Sessions of killed processes, which a machine would keep for hours: the next one that comes to the machine ends them.

use super::{Ticket, held};
use crate::{
    error::{Error, Kind, Result},
    labs::{Labs, TunnelSession, tunnel::Tunnel},
    records::tickets::{self, Tickets},
};

/// Ends the orphans on a machine that `session` leads to. Returns the number of those that it has ended.
pub async fn end(labs: &Labs, session: &TunnelSession, tickets: &Tickets, play: &str, machine: &str) -> usize {
    let mut ended = 0;
    for (ticket, kept) in tickets.orphans(play, machine) {
        match end_one(labs, session, &ticket).await {
            Ok(()) => {
                log::info!("ended the session that a killed process had left on machine {machine}");
                ended += 1;
            }
            Err(error) if error.kind() == Kind::Network => {
                log::info!("the session that a killed process has left is out of reach: {}", error.message());
                continue;
            }
            // The machine is reached, so its relay is gone, and with it the session.
            Err(error) => log::info!("a killed process's session has ended by itself: {}", error.message()),
        }
        kept.discard();
    }
    ended
}

async fn end_one(labs: &Labs, session: &TunnelSession, ticket: &tickets::Ticket) -> Result<()> {
    let (id, key) = ticket.id_and_key().ok_or_else(|| Error::new(Kind::File, "its ticket cannot be read"))?;
    let resume_port = ticket.resume_port;
    let stream = labs.open(session, &format!("127.0.0.1:{resume_port}")).await?;
    held::end(Tunnel::unwatched(stream), &Ticket { id, key, resume_port }).await
}
