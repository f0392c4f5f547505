//! The session: bytes both ways, and what is to be said about its end.

use std::{
    convert::Infallible,
    io::{self, IsTerminal},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, interval_at, sleep, timeout};

use super::{Connection, Destination, Stop, arrival::expiry};
use crate::{
    connect::client::Client,
    error::{Error, Kind, Result},
    labs::{
        find,
        http::Stream,
        tunnel::{PING_EVERY, Tunnel, Vitals},
        wire::{Play, State},
    },
    moment::now,
    os,
    pipe::{self, End},
    records::{live, memory::Memory},
    target::Playground,
};

/// By then a connection does what it goes on doing. Short ones need not pay for what helps long ones.
const SETTLED: Duration = Duration::from_secs(1);
/// After a warning somebody may have given it longer.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Enough to save one's work.
const EXPIRY_WARNING: Duration = Duration::from_secs(5 * 60);
/// A playground that was destroyed so shortly before its end was erased at it: clocks and answers take their time.
const AT_ITS_END: Duration = Duration::from_secs(5);
/// A tunnel that leads somewhere answers pings more often than this.
const PINGS_UNANSWERED: Duration = PING_EVERY.saturating_mul(2);
/// How long the platform may take to say why a connection ended.
const EXPLANATION: Duration = Duration::from_secs(2);
/// The same when the client has left already, and nobody may be left to hear it.
const AFTERWORD: Duration = Duration::from_millis(80);

impl Connection<'_> {
    /// Carries bytes until the end, and says why it ended where that is not the client's doing.
    pub(super) async fn carry(
        &self,
        client: &mut Client,
        tunnel: Tunnel<Stream>,
        place: &Destination,
    ) -> Result<(), Stop> {
        let vitals = tunnel.vitals();
        self.live.update(|status| status.client = client.line().unwrap_or_default());
        self.live.connected(Arc::clone(&vitals));
        log::info!("connected to machine {} of playground {} as {}", place.machine, place.play, place.user);
        let session = Ending { connection: self, place, vitals };
        let (input, output, gone) = client.streams();
        let (rx, tx) = tokio::io::split(tunnel);
        let end = tokio::select! {
            end = pipe::run(input, output, rx, tx, gone) => end,
            never = self.look_after(place) => match never {},
        };
        log::info!("the connection is over: {end:?}");
        match end {
            End::Input | End::Output if !session.vitals.has_ended() => Ok(()),
            // A client that was told by the machine leaves at once.
            End::Input | End::Output | End::Remote | End::Lost(_) => {
                if matches!(end, End::Lost(_)) {
                    session.was_cut_off();
                }
                let left = async {
                    client.gone().await;
                    sleep(AFTERWORD).await;
                };
                let ended = tokio::select! {
                    ended = self.why_it_ended(place) => ended?,
                    () = left => return Err(Stop::Left),
                };
                match (ended, end) {
                    (Some(error), _) => {
                        session.was_cut_off();
                        Err(error.into())
                    }
                    (None, End::Lost(e)) => Err(lost(place, &e).into()),
                    (None, _) => Ok(()),
                }
            }
        }
    }

    /// Keeps the status file current, and warns before the playground's end. Never returns.
    async fn look_after(&self, place: &Destination) -> Infallible {
        let began = Instant::now();
        let mut tick = interval_at(began + SETTLED, live::UPDATE);
        let (mut fresh, mut asked, mut warned) = (true, false, None);
        loop {
            tick.tick().await;
            self.live.write();
            let mut expires_at = self.live.status().expires_at;
            // The session of an earlier connection: the platform has not been asked yet, and need not be for a short
            // visit.
            let asks = expires_at.is_none() && began.elapsed() >= live::UPDATE && !asked;
            if asks && let Ok(play) = self.labs.play(&place.play).await {
                asked = true;
                expires_at = expiry(&play);
                self.live.update(|status| status.expires_at = expires_at);
                self.note_restart(&play, &place.machine, false);
            }
            // Neither the start's code nor that of the question is needed again soon.
            if std::mem::take(&mut fresh) || asks {
                os::forget_code();
            }
            let is_near = expires_at.is_some_and(|at| at <= now().saturating_add(millis(EXPIRY_WARNING)));
            if !is_near || warned.is_some_and(|at: Instant| at.elapsed() < LOOK_AGAIN) {
                continue;
            }
            // It may have been extended since.
            let Ok(play) = self.labs.play(&place.play).await else { continue };
            let expires_at = expiry(&play);
            self.live.update(|status| status.expires_at = expires_at);
            match expires_at.map(|at| at.saturating_sub(now())) {
                Some(left) if left < millis(EXPIRY_WARNING) => {
                    if warned.replace(Instant::now()).is_none() {
                        self.warn_of_expiry(&play, left).await;
                    }
                }
                Some(_) | None => {
                    warned = None;
                    self.live.update(|status| status.message.clear());
                }
            }
        }
    }

    /// At its end the platform erases a playground that is not persistent.
    async fn warn_of_expiry(&self, play: &Play, left: u64) {
        let (title, id, seconds) = (play.shown(), &play.id, left / 1000);
        let extend = format!("`labctl-ssh-proxy extend {id} MINUTES` gives it longer");
        let text = match find::is_kept(self.labs, play).await {
            Some(true) => format!("{title} is stopped in {seconds} s, and kept; {extend}"),
            Some(false) | None => format!(
                "{title} is erased in {seconds} s unless it is kept: `labctl-ssh-proxy persist {id}` keeps it, {extend}"
            ),
        };
        let text = self.app.platform.commands(&text);
        self.live.update(|status| status.message.clone_from(&text));
        if std::io::stderr().is_terminal() { self.notices.say(&text) } else { log::warn!("{text}") }
    }

    /// Asks the platform whether the playground or its machine has gone away.
    async fn why_it_ended(&self, place: &Destination) -> Result<Option<Error>> {
        let id = &place.play;
        let play = match timeout(EXPLANATION, self.labs.play(id)).await {
            Ok(Ok(play)) => play,
            Ok(Err(e)) if e.kind() == Kind::NotFound => {
                return Ok(Some(self.destroyed(id)));
            }
            Ok(Err(_)) | Err(_) => return Ok(None),
        };
        let name = &place.machine;
        let why = match play.state() {
            Some(State::Stopping | State::Stopped) => format!("playground {id} was stopped"),
            Some(State::Destroying | State::Destroyed) => return Ok(Some(self.destroyed(id))),
            Some(State::Failed) => format!("playground {id} has failed"),
            _ => match play.machine_status(name).map(|status| &status.state) {
                Some(State::Stopping | State::Stopped) => format!("machine {name} of playground {id} was stopped"),
                Some(State::Rebooting) => {
                    log::info!("machine {name} reboots");
                    return Ok(None);
                }
                _ => return Ok(None),
            },
        };
        Ok(Some(Error::new(Kind::Ended, why)))
    }

    fn destroyed(&self, id: &str) -> Error {
        let had_time = self.live.status().expires_at.is_none_or(|at| at > now().saturating_add(millis(AT_ITS_END)));
        if had_time {
            return Error::new(Kind::Ended, format!("playground {id} was destroyed"));
        }
        Error::new(Kind::Ended, format!("playground {id} was erased, because its time was up"))
            .with_hint("`labctl-ssh-proxy persist` keeps the next one at its end, `extend` gives it longer")
    }
}

/// A session that is open.
struct Ending<'a> {
    connection: &'a Connection<'a>,
    place: &'a Destination,
    vitals: Arc<Vitals>,
}

impl Ending<'_> {
    /// It ended without the client's doing. If the playground has ended too, tries in the rhythm of a reconnecting
    /// editor must not wake it; if not, this harms nobody.
    fn was_cut_off(&self) {
        self.connection.app.tunnels().forget(&self.place.play);
        self.remember(|memory, label| memory.note_cut_off(label));
    }

    fn remember(&self, note: impl Fn(&Memory, &str) -> Result<()>) {
        let Connection { memory, target, .. } = self.connection;
        let by_name = match &target.playground {
            Playground::Name(name) => Some(name.as_str()),
            Playground::Id(_) => None,
        };
        for label in [Some(self.place.play.as_str()), by_name].into_iter().flatten() {
            if let Err(error) = note(memory, label) {
                log::warn!("{}", error.message());
            }
        }
    }
}

impl Drop for Ending<'_> {
    /// A client that gives up on a machine that does not answer leaves as if it had finished, often with a signal.
    fn drop(&mut self) {
        if self.vitals.silent_for() > PINGS_UNANSWERED {
            self.was_cut_off();
        }
        let ended = now();
        self.remember(|memory, label| memory.session_ended(label, &self.place.play, ended));
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn lost(place: &Destination, error: &io::Error) -> Error {
    let message = format!("the connection to machine {} of playground {} was lost", place.machine, place.play);
    Error::new(Kind::Network, format!("{message}: {error}")).with_hint("connect again")
}
