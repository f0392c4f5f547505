//! The way to one machine: dialling, and the platform's word on why the machine cannot be reached.
//!
//! A resume never wakes anything. The platform is asked only where the tunnel's host has answered and refused, or where
//! the relay's port has been dead for several attempts, and at most once in [`ASKED_EVERY`]. A network that fails says
//! nothing about the machine: then there is nothing to do but to attempt again.
//!
//! Each attempt has a connection of its own. The pool of the API's client may hold one that died while the computer
//! slept, and such a connection swallows a request without a word.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{Reach, Ticket, Verdict};
use crate::{
    error::{Error, Kind, Result},
    labs::{
        Labs, TunnelSession,
        http::Stream,
        tunnel::Tunnel,
        wire::{Play, State},
    },
    moment::{Moment, now},
    os::{self, NetworkEvents},
    records::tickets::{self, Kept, Tickets},
    wake::{self, Visitor},
};

/// Between two questions to the platform.
const ASKED_EVERY: Duration = Duration::from_secs(10);
/// The number of attempts in a row at which the port of a relay that has ended is dead, and the time that they take at
/// least. A network that fails in the middle of an attempt looks the same.
const DEAD: u32 = 6;
/// The attempt after which the platform is asked: it knows of a machine that was restarted.
const DOUBTFUL: u32 = 3;
const DEAD_FOR: Duration = Duration::from_secs(6);
/// The words for a playground that is gone before its end.
const DESTROYED: &str = "was destroyed";
/// Patience with a new session for the tunnel.
const RENEWAL: Duration = Duration::from_secs(60);
/// A playground that was destroyed so shortly before its end was erased at it: clocks and answers take their time.
const AT_ITS_END: Duration = Duration::from_secs(5);

/// A machine and a user of it, and the key by which the platform lets that user in.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The id of the play.
    pub play: String,
    /// The machine.
    pub machine: String,
    /// The user.
    pub user: String,
    /// The public key, as a line of authorized_keys.
    pub key: String,
}

/// The way to one machine.
pub struct Route {
    labs: Labs,
    to: Destination,
    tickets: Tickets,
    events: NetworkEvents,
    state: Mutex<Known>,
}

/// The things that a way has learnt.
struct Known {
    session: TunnelSession,
    /// The address to which the last connection led.
    towards: Option<SocketAddr>,
    /// The beginning of the session.
    began: Moment,
    /// The time since which the machine is up, in the platform's words, as long as the session's relay runs.
    up_since: Option<String>,
    expires_at: Option<Moment>,
    asked: Option<Instant>,
    /// The number of attempts in a row at which the relay's port was dead, and the time of the first.
    dead: Option<(u32, Instant)>,
    ticket: Option<Kept>,
}

impl Route {
    /// The way to a machine that is reached by this session of its tunnel. `up_since` is its present boot, in the
    /// platform's words, where it is known.
    pub fn new(
        labs: &Labs,
        to: Destination,
        session: TunnelSession,
        up_since: Option<String>,
        tickets: Tickets,
    ) -> Route {
        let known = Known {
            session,
            began: now(),
            towards: None,
            up_since,
            expires_at: None,
            asked: None,
            dead: None,
            ticket: None,
        };
        let events = NetworkEvents::watch();
        Route { labs: labs.dialling_anew(), to, tickets, events, state: Mutex::new(known) }
    }

    /// Takes a connection that was dialled in another way, and returns it as this way's own.
    pub fn adopt(&self, stream: Stream) -> Tunnel<Stream> {
        self.known().towards = stream.remote();
        Tunnel::unwatched(stream)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the relay's port was dead. Returns the number of attempts in a row at which it was, and their time.
    fn note_dead(&self) -> (u32, Duration) {
        let known = &mut *self.known();
        let (times, since) = known.dead.get_or_insert((0, Instant::now()));
        *times += 1;
        (*times, since.elapsed())
    }

    /// Returns true if the platform may be asked now, and notes that it is.
    fn asks(&self) -> bool {
        let known = &mut *self.known();
        let may = known.asked.is_none_or(|asked| asked.elapsed() >= ASKED_EVERY);
        if may {
            known.asked = Some(Instant::now());
        }
        may
    }

    /// Asks the platform for the play. An error means that the session is over; `None` that there was no answer.
    async fn ask(&self) -> Result<Option<Play>> {
        let play = match self.labs.play(&self.to.play).await {
            Ok(play) => play,
            Err(error) if error.kind() == Kind::NotFound => {
                let expires_at = self.known().expires_at;
                return Err(destroyed(&self.to.play, expires_at));
            }
            Err(error) if error.kind() == Kind::NotLoggedIn => {
                return Err(error.context(self.ended(&self.to.play)));
            }
            Err(error) => {
                log::info!("the platform does not say why the machine cannot be reached: {}", error.message());
                return Ok(None);
            }
        };
        let known = &mut *self.known();
        known.expires_at = expiry(&play).or(known.expires_at);
        match end(&play, &self.to.machine, known.expires_at) {
            Some(error) => Err(error),
            None => Ok(Some(play)),
        }
    }

    /// Returns the error for a machine that is another boot than the session's.
    fn restarted(&self, play: &Play) -> Option<Error> {
        let machine = &self.to.machine;
        let is_rebooting = play.machine_status(machine).is_some_and(|status| status.state == State::Rebooting);
        let (began, before) = {
            let known = self.known();
            (known.began, known.up_since.clone())
        };
        // If the boot of the session's beginning is not known, the clocks tell.
        let is_another = play.up_since(machine).is_some_and(|up_since| match before {
            Some(before) => before != up_since,
            None => moment_of(up_since).is_some_and(|up_since| self.labs.by_our_clock(up_since) > began),
        });
        (is_rebooting || is_another).then(|| {
            let words =
                format!("machine {machine} of playground {} was restarted: its sessions are gone", play.shown());
            Error::new(Kind::Network, words).with_hint("connect again")
        })
    }

    /// Gets another session for the tunnel of a machine that is up. It is no wake: a machine that is down refuses.
    async fn renew(&self) -> Verdict {
        let Destination { play, machine, user, key } = &self.to;
        let visitor = Visitor { machine, user, key };
        let deadline = Instant::now() + RENEWAL;
        match wake::request_tunnel(&self.labs, play, visitor, deadline, |_| {}).await {
            Ok(session) => {
                log::info!("the tunnel has a new session");
                self.known().session = session;
            }
            Err(error) => log::info!("there is no new session for the tunnel yet: {}", error.message()),
        }
        Verdict::Again
    }

    fn ended(&self, shown: &str) -> String {
        format!("the session on machine {} of playground {shown} ended", self.to.machine)
    }
}

impl Reach for Route {
    type Connection = Tunnel<Stream>;

    async fn dial(&self, port: u16) -> Result<Tunnel<Stream>> {
        let session = self.known().session.clone();
        let stream = self.labs.open(&session, &format!("127.0.0.1:{port}")).await?;
        Ok(self.adopt(stream))
    }

    async fn verdict(&self, failed: Option<&Error>) -> Verdict {
        let is_dead = failed.is_none();
        // Certificates included: the network of a hotel may answer in the platform's place until one has logged in.
        if failed.is_some_and(|error| error.kind() == Kind::Network) {
            self.known().dead = None;
            return Verdict::Again;
        }
        let mut is_gone = false;
        if is_dead {
            let (times, took) = self.note_dead();
            is_gone = times >= DEAD && took >= DEAD_FOR;
            if !is_gone && times != DOUBTFUL {
                return Verdict::Again;
            }
        } else {
            self.known().dead = None;
        }
        if !self.asks() {
            return Verdict::Again;
        }
        let play = match self.ask().await {
            Ok(Some(play)) => play,
            Ok(None) => return Verdict::Again,
            Err(error) => return Verdict::Over(error),
        };
        if let Some(error) = self.restarted(&play) {
            return Verdict::Over(error);
        }
        if is_gone {
            let words = format!("{}: the program that kept it there has ended", self.ended(&play.shown()));
            return Verdict::Over(Error::new(Kind::Network, words).with_hint("connect again"));
        }
        let is_refused = failed.is_some_and(|error| !error.may_pass());
        if is_refused && wake::is_up(&play, &self.to.machine) { self.renew().await } else { Verdict::Again }
    }

    fn resumed(&self) {
        self.known().dead = None;
    }

    fn accepted(connection: &Tunnel<Stream>) -> u64 {
        connection.accepted()
    }

    fn local_address(&self) -> Option<IpAddr> {
        match self.known().towards {
            Some(towards) => os::local_address(towards),
            // The embedded platform's socket is always there.
            None => Some(Ipv4Addr::LOCALHOST.into()),
        }
    }

    async fn event(&self) {
        self.events.next().await;
    }

    fn begun(&self, ticket: &Ticket) {
        let Destination { play, machine, .. } = &self.to;
        let ticket = tickets::Ticket::new(play, machine, &ticket.id, &ticket.key, ticket.resume_port);
        match self.tickets.keep(&ticket) {
            Ok(kept) => self.known().ticket = Some(kept),
            Err(error) => log::warn!("cannot keep the session's ticket: {}", error.message()),
        }
    }

    fn over(&self) {
        if let Some(ticket) = self.known().ticket.take() {
            ticket.discard();
        }
    }
}

/// The reason for the end of every session on a machine, if its playground or the machine itself has gone away.
/// `expires_at` is the playground's end as it was known before.
pub fn end(play: &Play, machine: &str, expires_at: Option<Moment>) -> Option<Error> {
    let shown = play.shown();
    let why = match play.state() {
        Some(State::Stopping | State::Stopped) => format!("playground {shown} was stopped"),
        Some(State::Destroying | State::Destroyed) => return Some(destroyed(&shown, expires_at)),
        Some(State::Failed) => format!("playground {shown} has failed"),
        _ => match play.machine_status(machine).map(|status| &status.state) {
            Some(State::Stopping | State::Stopped) => format!("machine {machine} of playground {shown} was stopped"),
            _ => return None,
        },
    };
    Some(Error::new(Kind::Ended, why))
}

/// The error for a playground that is gone: destroyed, or erased at its end.
pub fn destroyed(shown: &str, expires_at: Option<Moment>) -> Error {
    let left = |at: Moment| Duration::from_millis(at.saturating_sub(now()));
    if expires_at.is_none_or(|at| left(at) > AT_ITS_END) {
        return Error::new(Kind::Ended, format!("playground {shown} {DESTROYED}"));
    }
    Error::new(Kind::Ended, format!("playground {shown} was erased because its time was up")).with_hint(
        "keep the next one with `labctl-ssh-proxy persist`, or give it more time with `labctl-ssh-proxy extend`",
    )
}

/// Reports whether it is the error for a playground that is gone before its end, as far as that was known.
pub fn is_destroyed(error: &Error) -> bool {
    error.kind() == Kind::Ended && error.message().ends_with(DESTROYED)
}

/// A moment in the platform's words.
fn moment_of(words: &str) -> Option<Moment> {
    Moment::try_from(words.parse::<jiff::Timestamp>().ok()?.as_millisecond()).ok()
}

/// A play's end.
pub fn expiry(play: &Play) -> Option<Moment> {
    let left = u64::try_from(play.expires_in.as_millis()).ok().filter(|left| *left > 0)?;
    Some(now().saturating_add(left))
}
