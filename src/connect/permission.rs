//! Whether a connection may wake what it has found.

use std::time::Duration;

use tokio::time::timeout;

use super::{Connection, Stop};
use crate::{
    connect::{
        client::{Client, ClientKind},
        policy::{self, Question},
    },
    labs::{
        find::{self, Found},
        wire::State,
    },
    moment::Moment,
    records::live::{self, Phase},
    target::Target,
    wake,
};

/// A client says who it is at once, and a refusal takes less than a second.
const IDENTIFICATION_PATIENCE: Duration = Duration::from_millis(300);
/// The platform is asked about the playground before only as long as a refusal may take.
const HISTORY_PATIENCE: Duration = Duration::from_millis(500);
/// Nor is anything woken before by a client that may be a poller under load.
const POLLER_PATIENCE: Duration = Duration::from_secs(3);

impl Connection<'_> {
    /// Whether this connection may wake what it has found. A playground that runs needs no leave.
    pub(super) async fn may_wake(&self, client: &mut Client, found: &Found) -> Result<bool, Stop> {
        let mut machine = None;
        let labels: Vec<&str> = match found {
            Found::Play(play) => {
                let name = &find::machine(play, self.target.machine.as_deref())?.name;
                self.plan_early(&play.id, name)?;
                if !wake::is_down(play, name) {
                    // On a full disk, too, a machine that runs can be reached.
                    if let Err(error) = self.memory.note_runs(&play.id) {
                        log::warn!("{}", error.message());
                    }
                    return Ok(false);
                }
                machine = Some(name.as_str());
                vec![&play.id, &play.playground.name]
            }
            Found::Startable(name) => vec![name],
        };
        let policy = self.request.wake.unwrap_or_else(|| self.app.wake_policy(&labels));
        let pause = self.app.settings.reconnect_pause();
        let mut identification = client.identification(IDENTIFICATION_PATIENCE).await;
        if identification.is_none() && policy::depends_on_client(&self.memory, labels[0], policy, pause)? {
            identification = client.identification(POLLER_PATIENCE).await;
        }
        let down_since = async { Ok(timeout(HISTORY_PATIENCE, self.down_since(found, machine)).await.ok().flatten()) };
        let down_since = self.present(client, down_since).await?;
        let question = Question {
            memory: &self.memory,
            label: labels[0],
            in_session: self.in_session(found, machine),
            down_since,
            policy,
            client: ClientKind::of(identification.as_deref()),
            pause,
        };
        self.live.update(|status| status.client = identification.clone().unwrap_or_default());
        self.present(client, question.answer()).await?;
        Ok(true)
    }

    /// Whether another session to what was found, and now is down, has not noticed its end yet.
    fn in_session(&self, found: &Found, machine: Option<&str>) -> bool {
        live::all(&self.app.folders).iter().any(|other| {
            let same = match found {
                Found::Play(play) if play.state() == Some(&State::Running) => {
                    other.playground == play.id && Some(other.machine.as_str()) == machine
                }
                Found::Play(play) => other.playground == play.id,
                Found::Startable(_) => {
                    Target::parse(&other.host).is_ok_and(|target| target.playground == self.target.playground)
                }
            };
            same && other.phase == Phase::Connected && other.pid != std::process::id()
        })
    }

    /// Since when what was found has been down. Of a playground that is to be started by name it is the end of the one
    /// before.
    async fn down_since(&self, found: &Found, machine: Option<&str>) -> Option<Moment> {
        let since = match found {
            Found::Play(play) => wake::down_since(play, machine?),
            Found::Startable(name) => {
                let before = self.memory.read(name).ok()?.session?;
                wake::down_since(&self.labs.play(&before).await.ok()?, "")
            }
        };
        // It is compared with the ends of sessions, which are told by this computer's.
        since.map(|moment| self.labs.by_our_clock(moment))
    }
}
