//! The session: bytes both ways until the end.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{
    Connection, Destination, Stop, away,
    carried::Carried,
    container,
    ending::{self, Ending, ended, lost},
    relay, upkeep,
};
use crate::{
    connect::client::Client,
    pipe::{self, End},
};

/// The time that the platform has to say why a connection ended when the client has left already: hardly any, because
/// the client may no longer show it.
const AFTERWORD: Duration = Duration::from_millis(80);
/// The time in which a client leaves that the machine has told of the end, inside SSH.
const FAREWELL: Duration = Duration::from_secs(1);

/// Carries bytes until the end, and returns the reason for the end where that is not the client's doing.
pub(super) async fn carry(
    connection: &Connection<'_>,
    client: &mut Client,
    carried: Carried,
    destination: &Destination,
) -> Result<(), Stop> {
    let (vitals, is_held, behind) = (carried.vitals(), carried.is_held(), carried.behind());
    let Destination { play, machine, .. } = destination;
    let user = connection.shown_user(destination);
    connection.live.update(|status| status.client = client.line().unwrap_or_default());
    connection.live.connected(vitals.clone(), is_held);
    match &behind {
        Some(behind) => {
            let name = behind.name();
            log::info!("connected to container {name} of machine {machine} of playground {play} as {user}");
        }
        None => log::info!("connected to machine {machine} of playground {play} as {user}"),
    }
    // It records the end when it is dropped, which a signal does, too.
    let ending = Ending::of(connection, destination, vitals.clone());
    let (input, output, gone) = client.streams();
    let (rx, tx) = tokio::io::split(carried);
    let end = tokio::select! {
        end = pipe::run(input, output, rx, tx, gone) => end,
        never = upkeep::look_after(connection, destination) => match never {},
        never = away::show(connection, destination, &vitals) => match never {},
        never = relay::end_orphans(connection, destination) => match never {},
        never = relay::place_behind(connection, destination, is_held) => match never {},
    };
    let end = match &behind {
        Some(behind) => behind.end(end),
        None => end,
    };
    log::info!("the connection has ended: {end:?}");
    if matches!(end, End::Input | End::Output) && !ending.tunnel_has_ended() {
        return Ok(());
    }
    if let End::Lost(error) = &end {
        ending.was_cut_off();
        // The platform has been asked by then.
        if let Some(reason) = ending::given_up(connection, destination, error) {
            relay::forget(connection, destination);
            return Err(reason.into());
        }
    }
    // A client that was told by the machine leaves at once.
    let left = async {
        client.gone().await;
        sleep(AFTERWORD).await;
    };
    let why = async {
        let inside = match &behind {
            Some(behind) => container::reason(destination, behind).await,
            None => None,
        };
        match inside {
            Some(reason) => {
                ending.was_left_by_its_container();
                Err(reason)
            }
            None => Ok(ending::reason(connection, destination).await),
        }
    };
    let reason = tokio::select! {
        reason = why => reason?,
        () = left => return Err(Stop::Left),
    };
    match (reason, end) {
        (Some(error), _) => {
            ending.was_cut_off();
            Err(error.into())
        }
        (None, End::Lost(error)) => Err(lost(connection, destination, &error).into()),
        // A client that was told by the machine has left by now, or is about to.
        (None, End::Remote) => match timeout(FAREWELL, client.gone()).await {
            Ok(()) => Err(Stop::Left),
            Err(_) => {
                ending.was_cut_off();
                Err(ended(destination).into())
            }
        },
        (None, End::Input | End::Output) => Ok(()),
    }
}
