//! The tunnel and the first exchange on it: with the kept session of an earlier connection, or with a new one.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::{Connection, Destination, Stop, arrival, carried::Carried, container, early, ending::lost, relay};
use crate::{
    connect::{
        client::Client,
        early::Passed,
        greet::{Greeted, KeyCheck, greet},
        patience::Patience,
    },
    error::{Error, Kind, Result},
    hold::Session,
    labs::find::{self, Found},
    pipe::End,
    records::{
        live::Phase,
        tunnels::{Known, Slot},
    },
    ssh::known_hosts::Whose,
    target::Playground,
    ui::notice::Progress,
    wake,
};

/// A tunnel that leads somewhere has brought the server's first line by then, unless the way is long.
const SILENCE_BEFORE_ASKING: Duration = Duration::from_secs(1);
/// The time for which, after that, a kept session is given the benefit of the doubt.
const SILENCE_WITHOUT_DOUBT: Duration = Duration::from_secs(3);

/// The reason why an attempt has not opened a tunnel.
pub(super) enum NotOpened {
    /// The tunnel leads nowhere. Another may be attempted: the client's words are kept, and it has heard nothing of a
    /// server.
    NoUse(Error),
    /// The connection is over.
    Over(Stop),
}

impl From<Stop> for NotOpened {
    fn from(stop: Stop) -> Self {
        NotOpened::Over(stop)
    }
}

impl From<Error> for NotOpened {
    fn from(error: Error) -> Self {
        NotOpened::Over(error.into())
    }
}

/// That which opens something over a session with a machine.
pub(super) trait Attempt<T>:
    AsyncFn(&Connection<'_>, &mut Client, &Destination, Session) -> Result<T, NotOpened>
{
}

impl<T, F: AsyncFn(&Connection<'_>, &mut Client, &Destination, Session) -> Result<T, NotOpened>> Attempt<T> for F {}

/// Passes the first exchange on, with the machine or the server in its container.
pub(super) async fn attempt(
    connection: &Connection<'_>,
    client: &mut Client,
    destination: &Destination,
    mut session: Session,
) -> Result<Carried, NotOpened> {
    if let Some(wanted) = &connection.container {
        let entered = container::attempt(connection, client, destination, wanted, session).await?;
        return Ok(Carried::Container(Box::new(entered)));
    }
    let known_hosts = connection.app.known_hosts();
    let Destination { play, machine, .. } = destination;
    let whose = Whose { alias: &connection.request.host, play, machine, shown: destination.shown() };
    let check = KeyCheck::new(&known_hosts, whose);
    let greeted = greet(client, &mut session, check, connection.early).await?;
    if session.is_held() && matches!(greeted, Greeted::Unanswered(_) | Greeted::Over(End::Lost(_) | End::Remote)) {
        // Another program may have its port by now.
        relay::forget(connection, destination);
    }
    match greeted {
        Greeted::Through(line) => {
            remember_line(connection, destination, line);
            Ok(Carried::Machine(session))
        }
        Greeted::AnotherLine(line) => Err(another_line(connection, destination, line).into()),
        Greeted::Over(End::Lost(error)) => Err(lost(connection, destination, &error).into()),
        Greeted::Over(End::Remote | End::Input | End::Output) => Err(Stop::Left.into()),
        Greeted::Unanswered(problem) => Err(NotOpened::NoUse(problem)),
    }
}

/// Dials with the kept session of an earlier connection, without asking the platform first. Returns `None` when there
/// is none or its tunnel leads nowhere; the client's words are then still kept, and it has heard nothing of a server.
pub(super) async fn open_at_once<T>(
    connection: &Connection<'_>,
    client: &mut Client,
    attempt: &impl Attempt<T>,
) -> Result<Option<(Slot, T, Destination)>, Stop> {
    let Some((slot, destination)) = kept_session(connection)? else { return Ok(None) };
    connection.live.update(|status| {
        status.phase = Phase::Opening;
        status.playground.clone_from(&destination.play);
        status.machine.clone_from(&destination.machine);
        connection.shown_user(&destination).clone_into(&mut status.user);
    });
    early::plan(connection, &destination.play, &destination.machine)?;
    connection.unlock(client).await?;
    relay::place_ahead(connection, client, &destination).await?;
    let open = async {
        let session = connection.present(client, dial_if_meant(connection, &destination)).await?;
        attempt(connection, client, &destination, session.map_err(NotOpened::NoUse)?).await
    };
    let opened = tokio::select! {
        biased;
        opened = open => opened,
        problem = silence(connection, &destination) => Err(NotOpened::NoUse(problem)),
    };
    match opened {
        Ok(tunnel) => Ok(Some((slot, tunnel, destination))),
        Err(NotOpened::NoUse(problem)) => {
            log::info!("cannot use the tunnel session of an earlier connection: {}", problem.message());
            // Without a network, the session may still be valid.
            if problem.kind() != Kind::Network {
                slot.forget();
            }
            Ok(None)
        }
        Err(NotOpened::Over(stop)) => {
            // A container's refusal says that the session is good.
            if matches!(stop, Stop::Failed(_)) && !connection.has_arrived.get() {
                slot.forget();
            }
            Err(stop)
        }
    }
}

/// The kept session for this connection and the machine it leads to, unless its playground was stopped on purpose.
fn kept_session(connection: &Connection<'_>) -> Result<Option<(Slot, Destination)>> {
    // An error about the key is reported where the key is needed.
    let Ok(Some(slot)) = slot(connection) else { return Ok(None) };
    let Some(known) = slot.known() else { return Ok(None) };
    // A record that cannot be read may say so. Then the platform is asked first, and a playground that runs needs no
    // record.
    if connection.memory.read(&known.play).map_or(true, |record| record.stopped.is_some()) {
        return Ok(None);
    }
    let session = known.session();
    let Known { play, machine, user, about, .. } = known;
    Ok(Some((slot, Destination { play, machine, user, session, about, up_since: None })))
}

/// Dials, and asks at the same time if the target still means that playground.
async fn dial_if_meant(connection: &Connection<'_>, destination: &Destination) -> Result<Session> {
    let (dialled, is_meant) =
        tokio::join!(relay::dial(connection, destination), is_still_meant(connection, &destination.play));
    let tunnel = dialled?;
    if !is_meant {
        return Err(Error::new(Kind::NotFound, "the name no longer stands for that playground alone"));
    }
    Ok(tunnel)
}

/// Returns true if the target still means that playground and no other: a name may have come to mean more. It is taken
/// to be so where the platform does not answer.
async fn is_still_meant(connection: &Connection<'_>, play: &str) -> bool {
    if matches!(connection.target.playground, Playground::Id(_)) {
        return true;
    }
    match find::by_target(connection.labs, &connection.target).await {
        Ok(Found::Play(found)) => found.id == play,
        Ok(Found::Startable(_)) => false,
        Err(e) => e.kind() != Kind::Ambiguous,
    }
}

/// Ends when the tunnel of a kept session has been silent for too long. The platform is asked meanwhile, because a
/// tunnel does not tell that its machine is stopped.
async fn silence(connection: &Connection<'_>, destination: &Destination) -> Error {
    sleep(SILENCE_BEFORE_ASKING).await;
    let patient = Instant::now() + SILENCE_WITHOUT_DOUBT;
    let down = match connection.labs.play(&destination.play).await {
        Ok(play) => wake::is_down(&play, &destination.machine) || find::is_gone(&play),
        Err(e) => e.kind() == Kind::NotFound,
    };
    if !down {
        sleep_until(patient).await;
    }
    if connection.early.passed() == Passed::Bytes || connection.is_heard.get() {
        return std::future::pending().await;
    }
    Error::new(Kind::NotYet, if down { "the machine is not up" } else { "there is no answer through the tunnel" })
}

/// Opens the tunnel and passes the first exchange on, again and again until the machine's SSH server answers.
pub(super) async fn open<T>(
    connection: &Connection<'_>,
    client: &mut Client,
    mut destination: Destination,
    attempt: &impl Attempt<T>,
) -> Result<(T, Destination), Stop> {
    connection.live.update(|status| status.phase = Phase::Opening);
    relay::place_ahead(connection, client, &destination).await?;
    let mut patience = Patience::until(connection.deadline(), Instant::now());
    loop {
        let opened = match connection.present(client, relay::dial(connection, &destination)).await? {
            Ok(session) => attempt(connection, client, &destination, session).await,
            Err(problem) => Err(NotOpened::NoUse(problem)),
        };
        let problem = match opened {
            Ok(opened) => return Ok((opened, destination)),
            Err(NotOpened::NoUse(problem)) => problem,
            Err(NotOpened::Over(stop)) => return Err(stop),
        };
        let Some(next) = patience.next_attempt(&problem, Instant::now()) else { return Err(problem.into()) };
        let machine = &destination.machine;
        connection.waiting(&format!("waiting for the SSH server of machine {machine}: {}", problem.message()));
        let another = async {
            sleep_until(next).await;
            another_session(connection, &destination, &patience, &problem).await
        };
        match connection.present(client, another).await? {
            Ok(None) => {}
            Ok(Some(arrived)) => {
                destination = arrived;
                patience.begin_session(Instant::now());
            }
            Err(answer) => patience.go_on_after(answer, problem, Instant::now())?,
        }
    }
}

/// Gets another session for the machine, waking it if need be. Returns `None` when the present one is to be dialled
/// again.
async fn another_session(
    connection: &Connection<'_>,
    destination: &Destination,
    patience: &Patience,
    problem: &Error,
) -> Result<Option<Destination>> {
    let play = find::by_id(connection.labs, &destination.play).await?;
    if patience.keeps_session(problem, Instant::now()) && wake::is_up(&play, &destination.machine) {
        return Ok(None);
    }
    arrival::arrive(connection, Found::Play(Box::new(play)), false, None).await.map(Some)
}

/// Keeps the session for the next connection.
pub(super) fn keep(connection: &Connection<'_>, destination: &Destination) -> Result<()> {
    let name = match &connection.target.playground {
        Playground::Name(name) => Some(name.as_str()),
        Playground::Id(_) => None,
    };
    if let Some(slot) = slot(connection)? {
        let Destination { play, machine, user, session, about, .. } = destination;
        let mut known = Known::new(play, machine, user, name, session);
        known.about.clone_from(about);
        slot.keep(&known);
    }
    Ok(())
}

/// The place where the session of such a connection is kept.
fn slot(connection: &Connection<'_>) -> Result<Option<Slot>> {
    let user = connection.machine_user()?.unwrap_or_default();
    let host = match connection.container.as_ref().filter(|wanted| wanted.is_cluster()) {
        // No host name is like that, so it is no machine's.
        Some(_) => &format!("{}/cluster", connection.machine_host),
        None => &connection.machine_host,
    };
    connection.app.tunnel_slot(connection.labs, host, user)
}

/// Remembers the machine's identification line, or that it has none to remember. Only later connections need it.
fn remember_line(connection: &Connection<'_>, destination: &Destination, line: Option<String>) {
    let Destination { play, machine, .. } = destination;
    if let Err(error) = connection.memory.machine(play, machine, |machine| machine.identification = line) {
        log::warn!("{}", error.message());
    }
}

/// Remembers that the machine's line is not the one that the client was sent, and returns the error that says so.
fn another_line(connection: &Connection<'_>, destination: &Destination, line: Option<String>) -> Error {
    remember_line(connection, destination, line);
    let (machine, shown) = (&destination.machine, destination.shown());
    let message = format!("machine {machine} of playground {shown} has changed its SSH version");
    Error::new(Kind::NotYet, message).with_hint("connect again")
}
