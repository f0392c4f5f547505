//! The tunnel and the first exchange on it: with the session of an earlier connection, or a new one.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::{Connection, Destination, Stop, session::lost};
use crate::{
    connect::{
        client::Client,
        early::Passed,
        greet::{Greeted, KeyCheck, greet},
    },
    error::{Error, Kind, Result},
    labs::{
        TunnelSession,
        find::{self, Found},
        http::Stream,
        tunnel::Tunnel,
    },
    pipe::End,
    records::{
        live::Phase,
        tunnels::{Known, Slot},
    },
    ssh::known_hosts::Whose,
    target::{self, Playground},
    ui::notice::Progress,
    wake,
};

/// The SSH endpoint of a machine, seen from inside it.
const SSH: &str = ":22";
/// Between two tries of a tunnel that leads nowhere yet.
const UNANSWERED_PAUSE: Duration = Duration::from_secs(1);
/// Patience with a tunnel that is out of reach.
const UNREACHABLE: Duration = Duration::from_secs(30);
/// Time for which one session is dialled while the machine does not answer in it, as the official client does: another
/// one comes out of a small pool.
const SAME_SESSION: Duration = Duration::from_secs(60);
/// A tunnel that leads somewhere has brought the server's first line by then, unless the way is long.
const SILENCE_BEFORE_ASKING: Duration = Duration::from_secs(1);
/// For how long after that a kept session is given the benefit of the doubt.
const SILENCE_WITHOUT_DOUBT: Duration = Duration::from_secs(3);

impl Connection<'_> {
    /// With a session of an earlier connection: dials without asking the platform first. `None` when there is none, or
    /// it leads nowhere; the client's words are then still kept, and it has heard nothing.
    pub(super) async fn open_at_once(
        &self,
        client: &mut Client,
    ) -> Result<Option<(Slot, Tunnel<Stream>, Destination)>, Stop> {
        // What is wrong with the key is said where it is needed.
        let Ok(Some(slot)) = self.slot() else { return Ok(None) };
        let Some(known) = slot.known() else { return Ok(None) };
        // A playground that was stopped on purpose is not even knocked at.
        if self.memory.read(&known.play)?.stopped.is_some() {
            return Ok(None);
        }
        self.live.update(|status| {
            status.phase = Phase::Opening;
            status.playground.clone_from(&known.play);
            status.machine.clone_from(&known.machine);
            status.user.clone_from(&known.user);
        });
        self.plan_early(&known.play, &known.machine)?;
        let session = known.session();
        let place = Destination { play: known.play, machine: known.machine, user: known.user, session };
        let known_hosts = self.app.known_hosts();
        let attempt = async {
            let dialled = async {
                let (dialled, meant) = tokio::join!(self.dial(&place.session), self.is_still_meant(&place.play));
                let another = || Error::new(Kind::NotFound, "the name does not mean that playground alone any more");
                Ok(dialled?.and_then(|tunnel| meant.then_some(tunnel).ok_or_else(another)))
            };
            let mut tunnel = match self.present(client, dialled).await? {
                Ok(tunnel) => tunnel,
                Err(e) => return Ok(Err(e)),
            };
            let whose = Whose { alias: &self.request.host, play: &place.play, machine: &place.machine };
            match greet(client, &mut tunnel, KeyCheck::new(&known_hosts, whose), self.early).await? {
                Greeted::Through(line) => {
                    self.remember_line(&place, line);
                    Ok(Ok(tunnel))
                }
                Greeted::AnotherLine(line) => Err(Stop::Failed(self.another_line(&place, line))),
                Greeted::Over(End::Lost(e)) => Err(Stop::Failed(lost(&place, &e))),
                Greeted::Over(End::Remote | End::Input | End::Output) => Err(Stop::Left),
                Greeted::Unanswered(why) => Ok(Err(why)),
            }
        };
        let opened = tokio::select! {
            biased;
            opened = attempt => opened,
            why = self.silence(&place) => Ok(Err(why)),
        };
        match opened {
            Ok(Ok(tunnel)) => Ok(Some((slot, tunnel, place))),
            Ok(Err(why)) => {
                log::info!("the session of an earlier connection is of no use: {}", why.message());
                // Where there is no network the session may be as good as ever.
                if why.kind() != Kind::Network {
                    slot.forget();
                }
                Ok(None)
            }
            Err(stop) => {
                if matches!(stop, Stop::Failed(_)) {
                    slot.forget();
                }
                Err(stop)
            }
        }
    }

    /// Whether what was asked for still means that playground and no other: a name may have come to mean more. Where the
    /// platform does not answer, it does.
    async fn is_still_meant(&self, play: &str) -> bool {
        if matches!(self.target.playground, Playground::Id(_)) {
            return true;
        }
        match find::by_target(self.labs, self.target).await {
            Ok(Found::Play(found)) => found.id == play,
            Ok(Found::Startable(_)) => false,
            Err(e) => e.kind() != Kind::Ambiguous,
        }
    }

    /// Ends when a tunnel of an earlier session stays so silent that the platform has to be asked. A tunnel does not
    /// tell that its machine is stopped.
    async fn silence(&self, place: &Destination) -> Error {
        sleep(SILENCE_BEFORE_ASKING).await;
        let patient = Instant::now() + SILENCE_WITHOUT_DOUBT;
        let down = match self.labs.play(&place.play).await {
            Ok(play) => wake::is_down(&play, &place.machine) || find::is_gone(&play),
            Err(e) => e.kind() == Kind::NotFound,
        };
        if !down {
            sleep_until(patient).await;
        }
        if self.early.passed() == Passed::Bytes {
            return std::future::pending().await;
        }
        Error::new(Kind::NotYet, if down { "the machine is not up" } else { "nobody answers in the tunnel" })
    }

    /// Where the session of such a connection is kept.
    fn slot(&self) -> Result<Option<Slot>> {
        let user = target::user(self.request.user.as_deref())?.unwrap_or_default();
        self.app.tunnel_slot(self.labs, &self.request.host, user)
    }

    /// Keeps the session for the next connection.
    pub(super) fn keep(&self, place: &Destination) -> Result<()> {
        let name = match &self.target.playground {
            Playground::Name(name) => Some(name.as_str()),
            Playground::Id(_) => None,
        };
        if let Some(slot) = self.slot()? {
            slot.keep(&Known::new(&place.play, &place.machine, &place.user, name, &place.session));
        }
        Ok(())
    }

    /// Opens the tunnel and passes the first exchange on, again and again until the machine's SSH server answers.
    pub(super) async fn open(
        &self,
        client: &mut Client,
        mut place: Destination,
    ) -> Result<(Tunnel<Stream>, Destination), Stop> {
        self.live.update(|status| status.phase = Phase::Opening);
        let known_hosts = self.app.known_hosts();
        let (mut failing_since, mut tried, mut hold) = (None, false, None);
        let mut asked = Instant::now();
        loop {
            let problem = match self.present(client, self.dial(&place.session)).await? {
                Ok(mut tunnel) => {
                    let whose = Whose { alias: &self.request.host, play: &place.play, machine: &place.machine };
                    match greet(client, &mut tunnel, KeyCheck::new(&known_hosts, whose), self.early).await? {
                        Greeted::Through(line) => {
                            self.remember_line(&place, line);
                            return Ok((tunnel, place));
                        }
                        Greeted::AnotherLine(line) => return Err(self.another_line(&place, line).into()),
                        Greeted::Over(End::Lost(e)) => return Err(lost(&place, &e).into()),
                        Greeted::Over(End::Remote | End::Input | End::Output) => return Err(Stop::Left),
                        Greeted::Unanswered(problem) => problem,
                    }
                }
                Err(problem) => problem,
            };
            let since = *failing_since.get_or_insert_with(Instant::now);
            let patience = match problem.kind() {
                Kind::NotYet => None,
                Kind::Network => Some(UNREACHABLE),
                // Another session may be accepted, or answered better.
                _ => Some(Duration::ZERO),
            };
            let tried_again = std::mem::replace(&mut tried, true);
            if tried_again && patience.is_some_and(|patience| since.elapsed() > patience)
                || Instant::now() > self.deadline()
            {
                return Err(problem.into());
            }
            let machine = &place.machine;
            self.waiting(&format!("waiting for the SSH server of machine {machine}: {}", problem.message()));
            let pause = problem.retry_after().max(hold).unwrap_or_default().max(UNANSWERED_PAUSE);
            let is_refused = patience == Some(Duration::ZERO);
            let again = async {
                sleep_until((Instant::now() + pause).min(self.deadline())).await;
                let play = find::by_id(self.labs, &place.play).await?;
                if !is_refused && asked.elapsed() < SAME_SESSION && wake::is_up(&play, &place.machine) {
                    return Ok(None);
                }
                self.arrive(Found::Play(Box::new(play)), false, None).await.map(Some)
            };
            hold = None;
            match self.present(client, again).await {
                Ok(None) => {}
                Ok(Some(found)) => (place, asked) = (found, Instant::now()),
                // There was a session before, so this is not what keeps us out.
                Err(Stop::Failed(e)) if e.kind() == Kind::NotYet && Instant::now() >= self.deadline() => {
                    return Err(problem.into());
                }
                // The platform is busy or away: the same session is tried again.
                Err(Stop::Failed(e)) if matches!(e.kind(), Kind::NotYet | Kind::Network) => hold = e.retry_after(),
                Err(stop) => return Err(stop),
            }
        }
    }

    /// Remembers the machine's identification line, or that it has none to remember. Only later connections need it.
    fn remember_line(&self, place: &Destination, line: Option<String>) {
        let remembered =
            self.memory.machine(&place.play, &place.machine, |machine| machine.identification = line).map(drop);
        if let Err(error) = remembered {
            log::warn!("{}", error.message());
        }
    }

    /// The machine's line is not the one that the client has: from now on it is.
    fn another_line(&self, place: &Destination, line: Option<String>) -> Error {
        self.remember_line(place, line);
        let message = format!("machine {} of playground {} has changed its SSH version", place.machine, place.play);
        Error::new(Kind::NotYet, message).with_hint("connect again")
    }

    /// A tunnel, or why there is none yet: the answer decides, not the client's patience.
    async fn dial(&self, session: &TunnelSession) -> Result<Result<Tunnel<Stream>>> {
        Ok(self.labs.dial(session, SSH).await)
    }
}
