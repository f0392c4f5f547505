//! The end of a session: the reason for it, and the record of it.

use std::{io, sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{Connection, Destination};
use crate::{
    error::{Error, Kind, Result},
    hold::reach,
    labs::{tunnel::PING_EVERY, vitals::Vitals},
    moment::{Moment, now},
    records::memory::{Memory, Session},
    target::Playground,
};

/// A tunnel that leads somewhere answers pings more often than this.
const PINGS_UNANSWERED: Duration = PING_EVERY.saturating_mul(2);
/// The time that the platform has to say why a connection ended.
const EXPLANATION: Duration = Duration::from_secs(2);

/// Asks the platform if the playground or its machine has gone away, and returns that as the reason for the end.
pub(super) async fn reason(connection: &Connection<'_>, destination: &Destination) -> Option<Error> {
    let Destination { play: id, machine, .. } = destination;
    let expires_at = connection.live.status().expires_at;
    match timeout(EXPLANATION, connection.labs.play(id)).await {
        Ok(Ok(play)) => reach::end(&play, machine, expires_at),
        Ok(Err(e)) if e.kind() == Kind::NotFound => Some(reach::destroyed(destination.shown(), expires_at)),
        Ok(Err(_)) | Err(_) => None,
    }
}

/// The reason with which a session was given up that should have survived. What the session itself has found does not
/// name the machine.
pub(super) fn given_up(connection: &Connection<'_>, destination: &Destination, error: &io::Error) -> Option<Error> {
    let (machine, shown) = (&destination.machine, destination.shown());
    let reason: &Error = error.get_ref()?.downcast_ref()?;
    if reach::is_destroyed(reason) {
        // We know of its end, where the session may not.
        let ended = reach::destroyed(shown, connection.live.status().expires_at);
        return Some(if reach::is_destroyed(&ended) { reason.clone() } else { ended });
    }
    if reason.kind() != Kind::Network || reason.message().contains("playground") {
        return Some(reason.clone());
    }
    let what = format!("the session on machine {machine} of playground {shown} ended: {}", reason.message());
    Some(Error::new(Kind::Network, what).with_hint(reason.hint().unwrap_or("connect again")))
}

/// The error for a connection that was lost, for no reason that the platform knows.
pub(super) fn lost(connection: &Connection<'_>, destination: &Destination, error: &io::Error) -> Error {
    if let Some(error) = given_up(connection, destination, error) {
        return error;
    }
    let (machine, shown) = (&destination.machine, destination.shown());
    Error::new(Kind::Network, format!("the connection to machine {machine} of playground {shown} was lost: {error}"))
        .with_hint("connect again")
}

/// The error for a session that the machine's side has ended without a word inside SSH.
pub(super) fn ended(destination: &Destination) -> Error {
    let (machine, shown) = (&destination.machine, destination.shown());
    let what = format!("machine {machine} of playground {shown}, or the tunnel to it, has ended the connection");
    Error::new(Kind::Network, what).with_hint("connect again")
}

/// A session that is open, and will end. Its end is recorded when this is dropped, because it often comes with a
/// signal, which drops a connection's future.
pub(super) struct Ending<'a> {
    connection: &'a Connection<'a>,
    destination: &'a Destination,
    vitals: Arc<Vitals>,
}

impl<'a> Ending<'a> {
    /// The ending of the session to `destination`, whose tunnel has these vitals.
    pub(super) fn of(connection: &'a Connection<'a>, destination: &'a Destination, vitals: Arc<Vitals>) -> Ending<'a> {
        Ending { connection, destination, vitals }
    }

    /// Returns true once the tunnel has ended.
    pub(super) fn tunnel_has_ended(&self) -> bool {
        self.vitals.has_ended()
    }

    /// Records that the session ended without the client's doing. If the playground has ended too, attempts in the
    /// rhythm of a reconnecting editor must not wake it; otherwise the record does no harm.
    pub(super) fn was_cut_off(&self) {
        // While the network is away, the tunnel's session is as good as before.
        if self.vitals.away_since().is_none() {
            self.connection.app.tunnels().doubt(&self.destination.play);
        }
        self.record(|memory, label| memory.note_cut_off(label));
    }

    /// Records the same of a session into a container that has ended: the playground may be about to end too, and the
    /// tunnel's session is as good as before.
    pub(super) fn was_left_by_its_container(&self) {
        self.record(|memory, label| memory.note_cut_off(label));
    }

    /// Takes a note under each label that the playground goes by: its id, and the name it was asked for.
    fn record(&self, note: impl Fn(&Memory, &str) -> Result<()>) {
        let Connection { memory, target, .. } = self.connection;
        let by_name = match &target.playground {
            Playground::Name(name) => Some(name.as_str()),
            Playground::Id(_) => None,
        };
        for label in [Some(self.destination.play.as_str()), by_name].into_iter().flatten() {
            if let Err(error) = note(memory, label) {
                log::warn!("{}", error.message());
            }
        }
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        // A client that gives up on a machine that does not answer leaves as if it had finished.
        if self.vitals.silent_for() > PINGS_UNANSWERED {
            self.was_cut_off();
        }
        let Connection { began, live, .. } = self.connection;
        let (ended, lasted) = (now(), u64::try_from(began.elapsed().as_millis()).unwrap_or(Moment::MAX));
        let session = Session { began: ended.saturating_sub(lasted), ended, due: live.status().expires_at };
        self.record(|memory, label| memory.session_ended(label, &self.destination.play, &session));
    }
}
