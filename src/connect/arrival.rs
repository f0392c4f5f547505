//! From a host name to a machine that is up, and a tunnel session for it.

use std::{cell::RefCell, time::Duration};

use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Connection, Destination, early};
use crate::{
    connect::{
        client::ClientKind,
        container::Wanted,
        policy::{RECONNECTS_WITHIN, may_reconnect},
    },
    error::{Error, Kind, Result},
    hold::reach::expiry,
    labs::{
        TunnelSession, catalog,
        find::{self, Found},
        retry::Pauses,
        wire::{CreatePlay, Play},
    },
    moment::{ago, now},
    records::{live::Phase, tunnels::About},
    settings::{Settings, WakePolicy},
    target::Playground,
    ui::notice::Progress,
    wake::{self, Visitor, Wake},
};

/// Patience with a gateway that answers in the platform's place: as long as a request has for a network that fails.
const GATEWAY_PATIENCE: Duration = Duration::from_secs(10);

/// The answer to a request for a tunnel that was sent before its playground was found.
type Asked = Result<TunnelSession>;

/// Finds the target. Where all that a request for a tunnel needs is known, it is sent at the same time, because most
/// playgrounds that are connected to are running; the answer is waited for if this one is.
pub(super) async fn find_and_ask(connection: &Connection<'_>, caller: ClientKind) -> Result<(Found, Option<Asked>)> {
    let Connection { target, labs, .. } = connection;
    let find = find(connection);
    let user = connection.machine_user()?;
    let (Playground::Id(id), Some(user)) = (&target.playground, user) else { return Ok((find.await?, None)) };
    if !may_ask_ahead(connection, id, caller)? {
        return Ok((find.await?, None));
    }
    let key = connection.app.identity()?.authorized_key()?;
    let machine = target.machine.as_deref().unwrap_or_default();
    let visitor = Visitor { machine, user, key: &key };
    let shown = RefCell::new((format!("playground {id}"), machine.to_owned()));
    let say = |doing: &str| {
        let (play, machine) = &*shown.borrow();
        connection.waiting(&wake::waiting_for(play, machine, doing));
    };
    let deadline = connection.deadline();
    let ask = timeout_at(deadline, wake::request_tunnel(labs, id, visitor, deadline, say));
    tokio::pin!(find, ask);
    let mut asked = None;
    let found = tokio::select! {
        found = &mut find => found?,
        answer = &mut ask => {
            asked = Some(answer);
            find.await?
        }
    };
    let Found::Play(play) = &found else { return Ok((found, None)) };
    let meant = &connection.machine(play)?.name;
    shown.replace((play.shown(), meant.clone()));
    // The platform takes a request that names no machine for the first one's.
    let is_another = machine.is_empty() && play.machines.first().is_some_and(|first| first.name != *meant);
    if is_another || find::is_gone(play) || wake::is_down(play, meant) {
        return Ok((found, None));
    }
    let answer = match asked {
        Some(answer) => answer,
        None => {
            // The platform holds the request while the machine boots. It is not asked a second time.
            early::plan(connection, &play.id, meant)?;
            ask.await
        }
    };
    Ok((found, answer.ok()))
}

/// Finds the target. While the platform itself says "not yet", as under a rate limit, it is asked again; and for a
/// moment while a gateway answers in its place.
async fn find(connection: &Connection<'_>) -> Result<Found> {
    let deadline = connection.deadline();
    let gateways = deadline.min(Instant::now() + GATEWAY_PATIENCE);
    let mut pauses = Pauses::new();
    loop {
        match find::by_target(connection.labs, &connection.target).await {
            Err(e) if Instant::now() < if e.is_of_the_route() { gateways } else { deadline } && may_be_found(&e) => {
                connection.waiting(&format!("waiting for the platform: {}", e.message()));
                sleep_until((Instant::now() + pauses.after(&e)).min(deadline)).await;
            }
            found => return found,
        }
    }
}

/// Returns true if another look may find what this one did not. A network that fails was given its time by the request.
fn may_be_found(error: &Error) -> bool {
    error.kind() == Kind::NotYet || error.is_of_the_route()
}

/// Returns true if a tunnel may be asked for before the playground has been found: a person wants it, nothing says that
/// it is down, and it is certain that its policy allows a connection to wake it.
fn may_ask_ahead(connection: &Connection<'_>, id: &str, caller: ClientKind) -> Result<bool> {
    let Connection { app, request, target, memory, container, .. } = connection;
    // The machine that has a cluster's kubeconfig is not known yet, and it is often not the first.
    if container.as_ref().is_some_and(Wanted::is_cluster) {
        return Ok(false);
    }
    // A record that cannot be read may say anything.
    let Ok(record) = memory.read(id) else { return Ok(false) };
    // After the pause that tells a person's attempt from a program's, the end of a session says nothing any more.
    let has_ended_within =
        |pause| [record.cut_off, record.session_ended].into_iter().flatten().any(|at| ago(at) < pause);
    let has_just_ended = has_ended_within(app.settings.reconnect_pause());
    // The policy may be that of its catalogue name, which is not known yet.
    let may_refuse = |settings: &Settings| {
        settings.playgrounds.values().any(|one| one.wake == Some(WakePolicy::Never))
            || request.wake.unwrap_or_else(|| app.wake_policy(&[id])) == WakePolicy::Never
    };
    // The first machine's name is not known yet.
    let is_stopped = match &target.machine {
        Some(machine) => record.machine_stopped(machine).is_some(),
        None => record.machines.values().any(|machine| machine.stopped.is_some()),
    };
    // Other clients may poll. A client that polls gets no tunnel before it is known that it may have one.
    let is_a_person = caller == ClientKind::OpenSsh;
    let may = is_a_person && record.stopped.is_none() && !is_stopped && !has_just_ended && !may_refuse(&app.settings);
    // Last, because it may take other processes to find out. For a program, a session's end may count for ever.
    let is_over = record.cut_off.is_some() || has_ended_within(RECONNECTS_WITHIN);
    Ok(may && !(is_over && may_reconnect(caller)))
}

/// Starts or wakes the playground, and gets a tunnel session for the machine.
pub(super) async fn arrive(
    connection: &Connection<'_>,
    found: Found,
    allowed: bool,
    asked: Option<Asked>,
) -> Result<Destination> {
    let Connection { labs, .. } = connection;
    let wake = Wake {
        labs,
        memory: &connection.memory,
        progress: connection,
        allowed,
        decided: now(),
        deadline: connection.deadline(),
    };
    let mut play = match found {
        Found::Play(play) => *play,
        Found::Startable(name) => {
            let entry = catalog::needs_no_consent(labs, &name).await?;
            let init_conditions = catalog::defaults(&entry)?;
            wake.start_once(&CreatePlay { init_conditions, ..CreatePlay::of(&name) }).await?
        }
    };
    let machine = connection.machine(&play)?.clone();
    let user = find::user(&play, &machine, connection.machine_user()?)?.to_owned();
    connection.live.update(|status| {
        status.phase = Phase::Waking;
        status.playground.clone_from(&play.id);
        status.machine.clone_from(&machine.name);
        connection.container.as_ref().map_or(&*user, Wanted::user).clone_into(&mut status.user);
        status.expires_at = expiry(&play);
    });
    let key = connection.app.identity()?.authorized_key()?;
    let visitor = Visitor { machine: &machine.name, user: &user, key: &key };
    let session = wake.tunnel_after(asked, play.clone(), visitor).await?;
    if play.up_since(&machine.name).is_none()
        && let Ok(current) = labs.play(&play.id).await
    {
        play = current;
    }
    note_restart(connection, &play, &machine.name, allowed);
    let about =
        About { entry: play.playground.name.clone(), is_lesson: play.belongs_to_a_lesson(), shown: play.shown() };
    let up_since = play.up_since(&machine.name).map(str::to_owned);
    Ok(Destination { play: play.id, machine: machine.name, user, session, about: Some(about), up_since })
}

/// Says when the machine has been restarted since the last connection, unless this one woke it.
pub(super) fn note_restart(connection: &Connection<'_>, play: &Play, machine: &str, woken: bool) {
    let Some(up_since) = play.up_since(machine).map(str::to_owned) else { return };
    let memory = &connection.memory;
    let before = match memory.machine(&play.id, machine, |machine| machine.up_since = Some(up_since.clone())) {
        Ok(before) => before,
        Err(error) => return log::warn!("{}", error.message()),
    };
    if !woken && before.up_since.is_some_and(|before| before != up_since) {
        let shown = play.shown();
        connection
            .notices
            .say(&format!("machine {machine} of playground {shown} has been restarted since the last connection"));
    }
}
