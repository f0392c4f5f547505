//! The relay of a connection's machine: used where it is known to run, and placed where a session is worth it.
//!
//! A session costs no round trip more over a relay that is known: its port speaks first, and what ssh says goes with
//! our own words. A relay that turns out to be dead costs three, once. Where none is known, a session that will last
//! waits [`WORTH_WAITING`] for one to be placed, once in a boot of the machine, and one that has lasted [`HAS_LASTED`]
//! gets one for its successors.

use std::{convert::Infallible, future::pending, time::Duration};

use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{Connection, Destination, NAMED_AT_ONCE, Stop, length};
use crate::{
    connect::client::{Client, ClientKind},
    error::{Kind, Result},
    hold::{
        Held, Options, Relay, Session, orphans,
        placing::{Placing, survives},
        reach::{self, Route},
    },
    labs::tunnel,
    os,
    records::{
        relays::{Known, Relays, Whose},
        tickets::Tickets,
    },
    settings::ResumePolicy,
    ssh::client::Login,
};

/// The time for which a session that will last waits for the machine's relay.
const WORTH_WAITING: Duration = Duration::from_millis(1500);
/// A connection has begun by then, and what is no part of it may follow.
const HAS_BEGUN: Duration = Duration::from_secs(1);
/// A session is a long one by then.
const HAS_LASTED: Duration = Duration::from_secs(10);

/// Connects to the machine's SSH server: over its relay where one is known, and else directly.
pub(super) async fn dial(connection: &Connection<'_>, destination: &Destination) -> Result<Session> {
    let Some(known) = known(connection, destination) else { return direct(connection, destination).await };
    let port = format!("127.0.0.1:{}", known.new_port);
    let problem = match connection.labs.open(&destination.session, &port).await {
        Ok(stream) => {
            let route = route(connection, destination, known.up_since.clone())?;
            let connected = route.adopt(stream);
            match Held::begin(connected, &Relay::from(&known), route, options(connection)).await {
                Ok(held) => return Ok(Session::Held(held)),
                Err(error) => error,
            }
        }
        // Nothing is known about the relay then.
        Err(error) if error.kind() == Kind::Network => return Err(error),
        Err(error) => error,
    };
    // If this fails as well, it is not the relay that is to blame.
    let session = direct(connection, destination).await?;
    log::info!("the relay that was known has ended: {}", problem.message());
    relays(connection).drop(whose(destination));
    Ok(session)
}

async fn direct(connection: &Connection<'_>, destination: &Destination) -> Result<Session> {
    let tunnel = connection.labs.dial(&destination.session, tunnel::SSH).await?;
    Ok(Session::Direct(Box::new(tunnel)))
}

/// Forgets the relay, because a session over it did not come about or could not be resumed.
pub(super) fn forget(connection: &Connection<'_>, destination: &Destination) {
    relays(connection).drop(whose(destination));
}

/// Waits a moment for a relay to be placed, if the session is one that will last. A placing that takes longer goes on
/// behind the session, for its successors.
pub(super) async fn place_ahead(
    connection: &Connection<'_>,
    client: &mut Client,
    destination: &Destination,
) -> Result<(), Stop> {
    if !wants_one(connection, destination) {
        return Ok(());
    }
    let kind = ClientKind::of(client.identification(NAMED_AT_ONCE).await.as_deref());
    if length::is_long(kind, os::ssh_arguments().as_deref())
        && let Some(placing) = begin_placing(connection, destination)
    {
        // A placing that fails leaves its reason in the log, and the session goes on without.
        let _ = connection.present(client, timeout(WORTH_WAITING, placing)).await?;
    }
    Ok(())
}

/// Places a relay behind a session that has lasted. Never returns.
pub(super) async fn place_behind(connection: &Connection<'_>, destination: &Destination, is_held: bool) -> Infallible {
    sleep(HAS_LASTED).await;
    if !is_held && wants_one(connection, destination) {
        begin_placing(connection, destination);
    }
    pending().await
}

/// Ends the sessions that killed connections have left on the machine, once this one has begun. Never returns.
pub(super) async fn end_orphans(connection: &Connection<'_>, destination: &Destination) -> Infallible {
    sleep(HAS_BEGUN).await;
    let Destination { play, machine, session, .. } = destination;
    let tickets = Tickets::below(&connection.app.folders.root);
    orphans::end(connection.labs, session, &tickets, play, machine).await;
    pending().await
}

/// Begins to place a relay, in a task of its own.
fn begin_placing(connection: &Connection<'_>, destination: &Destination) -> Option<JoinHandle<Option<Relay>>> {
    let Destination { play, machine, user, session, up_since, .. } = destination;
    // A key that cannot be used is reported where it is needed.
    let identity = connection.app.identity().ok()?;
    let placing = Placing {
        labs: connection.labs.clone(),
        session: session.clone(),
        login: Login {
            alias: connection.machine_host.clone(),
            play: play.clone(),
            shown: destination.shown().to_owned(),
            machine: machine.clone(),
            user: user.clone(),
        },
        identity,
        known_hosts: connection.app.known_hosts(),
        relays: relays(connection),
        policy: policy(connection, destination)?,
        up_since: up_since.clone(),
    };
    Some(tokio::spawn(placing.run()))
}

/// Returns true if the machine may have a relay, and none is known, and it has not refused one lately.
fn wants_one(connection: &Connection<'_>, destination: &Destination) -> bool {
    // A few questions to a cluster need none.
    let is_brief = connection.container.as_ref().is_some_and(super::container::Wanted::is_cluster);
    !is_brief
        && known(connection, destination).is_none()
        && policy(connection, destination).is_some()
        && relays(connection).refused(whose(destination)).is_none()
}

/// The relay that is known to run in the present boot, if this session is one that survives.
fn known(connection: &Connection<'_>, destination: &Destination) -> Option<Known> {
    policy(connection, destination)?;
    let known = relays(connection).known(whose(destination))?;
    let is_another_boot = known.up_since.as_ref().zip(destination.up_since.as_ref()).is_some_and(|(a, b)| a != b);
    (!is_another_boot).then_some(known)
}

/// The choice by which sessions on the machine survive; `None` where they do not.
fn policy(connection: &Connection<'_>, destination: &Destination) -> Option<ResumePolicy> {
    // A session that an older version has kept says nothing of its playground.
    let about = destination.about.as_ref()?;
    let policy = connection.app.resume_policy(&[&destination.play, &about.entry]);
    survives(policy, about.is_lesson).then_some(policy)
}

fn relays(connection: &Connection<'_>) -> Relays {
    Relays::below(&connection.app.folders.root)
}

fn whose(Destination { play, machine, user, .. }: &Destination) -> Whose<'_> {
    Whose { play, machine, user }
}

fn options(connection: &Connection<'_>) -> Options {
    Options { resume_for: connection.app.settings.resume_for() }
}

/// The way to the machine, for as long as a session lasts.
fn route(connection: &Connection<'_>, destination: &Destination, up_since: Option<String>) -> Result<Route> {
    let Destination { play, machine, user, session, .. } = destination;
    let key = connection.app.identity()?.authorized_key()?;
    let to = reach::Destination { play: play.clone(), machine: machine.clone(), user: user.clone(), key };
    let tickets = Tickets::below(&connection.app.folders.root);
    Ok(Route::new(connection.labs, to, session.clone(), up_since, tickets))
}
