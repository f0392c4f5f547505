//! The permission of one connection to wake its target.

use std::time::Duration;

use tokio::time::timeout;

use super::{Connection, Stop, early};
use crate::{
    connect::{
        client::{Client, ClientKind},
        policy::{self, Question},
    },
    error::Result,
    labs::{
        find::{self, Found},
        wire::State,
    },
    moment::Moment,
    records::live::{self, Phase},
    settings::WakePolicy,
    target::Target,
    wake,
};

/// Patience with the client's identification: it comes at once, and a refusal takes less than a second.
const IDENTIFICATION_PATIENCE: Duration = Duration::from_millis(300);
/// Patience with the platform's answer about the playground before, short because a refusal may take no longer.
const HISTORY_PATIENCE: Duration = Duration::from_millis(500);
/// Patience with the identification of a client that may poll. It may be late under load, and nothing is woken without
/// it.
const POLLER_PATIENCE: Duration = Duration::from_secs(3);

/// Returns true if this connection may wake the target, and false if the target runs and needs no permission. Without
/// permission it fails.
pub(super) async fn may_wake(connection: &Connection<'_>, client: &mut Client, found: &Found) -> Result<bool, Stop> {
    let Connection { app, request, memory, .. } = connection;
    let machine = match found {
        Found::Play(play) => {
            let machine = &connection.machine(play)?.name;
            early::plan(connection, &play.id, machine)?;
            if !wake::is_down(play, machine) {
                // On a full disk, too, a machine that runs can be reached.
                if let Err(error) = memory.note_runs(&play.id, machine) {
                    log::warn!("{}", error.message());
                }
                return Ok(false);
            }
            Some(machine.as_str())
        }
        Found::Startable(_) => None,
    };
    let labels: Vec<&str> = match found {
        Found::Play(play) => vec![&play.id, &play.playground.name],
        Found::Startable(name) => vec![name],
    };
    let label = labels[0];
    let shown = match found {
        Found::Play(play) => play.shown(),
        Found::Startable(name) => name.clone(),
    };
    let policy = request.wake.unwrap_or_else(|| app.wake_policy(&labels));
    let pause = app.settings.reconnect_pause();
    let identification = identification(connection, client, label, machine, policy).await?;
    let down_since = timeout(HISTORY_PATIENCE, down_since(connection, found, machine));
    let down_since = connection.present(client, down_since).await?.ok().flatten();
    let kind = ClientKind::of(identification.as_deref());
    let question = Question {
        memory,
        label,
        shown: &shown,
        machine,
        runs: matches!(found, Found::Play(play) if !find::is_play_down(play)),
        in_session: in_session(connection, found, machine),
        down_since,
        policy,
        client: kind,
        reconnects: policy::may_reconnect(kind),
        pause,
    };
    connection.live.update(|status| status.client = identification.clone().unwrap_or_default());
    connection.present(client, question.answer()).await??;
    Ok(true)
}

/// The client's identification line, with more patience where the decision depends on it.
async fn identification(
    connection: &Connection<'_>,
    client: &mut Client,
    label: &str,
    machine: Option<&str>,
    policy: WakePolicy,
) -> Result<Option<String>> {
    let identification = client.identification(IDENTIFICATION_PATIENCE).await;
    let pause = connection.app.settings.reconnect_pause();
    if identification.is_none() && policy::depends_on_client(&connection.memory, label, machine, policy, pause)? {
        return Ok(client.identification(POLLER_PATIENCE).await);
    }
    Ok(identification)
}

/// Returns true if another process has a session to the target, which is down: that session has not noticed its end
/// yet.
fn in_session(connection: &Connection<'_>, found: &Found, machine: Option<&str>) -> bool {
    live::all(&connection.app.folders).iter().any(|other| {
        let same = match found {
            Found::Play(play) if play.state() == Some(&State::Running) => {
                other.playground == play.id && Some(other.machine.as_str()) == machine
            }
            Found::Play(play) => other.playground == play.id,
            Found::Startable(_) => {
                Target::parse(&other.host).is_ok_and(|target| target.playground == connection.target.playground)
            }
        };
        same && other.phase == Phase::Connected && other.pid != std::process::id()
    })
}

/// The time since which the target has been down. For a playground that is to be started by name it is the end of the
/// one before.
async fn down_since(connection: &Connection<'_>, found: &Found, machine: Option<&str>) -> Option<Moment> {
    let Connection { labs, memory, .. } = connection;
    let since = match found {
        Found::Play(play) => wake::down_since(play, machine?),
        Found::Startable(name) => {
            let before = memory.read(name).ok()?.session?;
            wake::down_since(&labs.play(&before).await.ok()?, "")
        }
    };
    // By the clock of this computer, because it is compared with the ends of sessions, which are recorded by that.
    since.map(|moment| labs.by_our_clock(moment))
}
