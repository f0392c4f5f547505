//! From any state of a play and its machine to a tunnel session, or to a final error that names the state and the way
//! out.
//!
//! Only "not yet" is retried. A restart is asked for once for all who wait for it, in whatever process: under a lock the
//! state is read again, the intent is recorded, the request is sent, and the answer is recorded. Who comes later finds
//! the record and waits. The wake goes on at the platform when everybody who waits has gone, so a retry joins it.

pub mod preparation;

use std::{future::Future, time::Duration};

use futures_util::StreamExt;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tokio_websockets::{ClientBuilder, Limits, WebSocketStream};

use crate::{
    error::{Error, Kind, Result},
    labs::{
        self, Labs, TunnelSession, find,
        http::Stream,
        tunnel::Pings,
        wire::{Action, CreatePlay, Message, Play, State},
    },
    moment::{Moment, ago, now},
    records::memory::{Memory, WakeRequest},
    target::{Playground, Target},
    ui::notice::Progress,
};

/// Between two tries, growing and with jitter: as the official client waits.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// The platform holds the request for a tunnel while the machine boots; one that runs has its tunnel sooner than this.
const NO_WAIT: Duration = Duration::from_secs(1);
/// The network may fail for this long while we wait, as when a laptop changes networks.
const NETWORK_PATIENCE: Duration = Duration::from_secs(30);
/// For how long the login of a tunnel is attempted, whatever goes wrong: as the official client does.
const LOGIN_PATIENCE: Duration = Duration::from_secs(60);
/// A request that the platform has answered shows in the state by then; if not, it is sent again.
const TAKES_EFFECT: Duration = Duration::from_secs(60);
/// A request whose answer was lost shows in the state by then, if it was carried out.
const OUTCOME_SHOWS: Duration = Duration::from_secs(10);
/// Between two looks at that.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A playground that was asked for is in the platform's list by then, even if whoever asked did not live to hear so.
const LIST_LAG: Duration = Duration::from_secs(3);
/// How often a lock that another process holds is tried.
pub(crate) const LOCK_RETRY: Duration = Duration::from_millis(50);

/// What a wake needs to know.
pub struct Wake<'a, P> {
    /// The platform.
    pub labs: &'a Labs,
    /// Where requests are recorded.
    pub memory: &'a Memory,
    /// Who is told what is being waited for.
    pub progress: &'a P,
    /// Permission to wake a stopped playground. It covers the stop that was found; a later stop is deliberate and needs
    /// its own permission.
    pub allowed: bool,
    /// When that was decided.
    pub decided: Moment,
    /// When to give up.
    pub deadline: Instant,
}

/// Who wants in.
#[derive(Clone, Copy, Debug)]
pub struct Visitor<'a> {
    /// The machine.
    pub machine: &'a str,
    /// The user on it.
    pub user: &'a str,
    /// The public key, as a line of authorized_keys.
    pub key: &'a str,
}

/// Where a machine is on its way.
#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// Its tunnel can be asked for; the platform holds the request while it boots.
    Up,
    /// It comes or goes by itself: wait.
    Passing(State),
    /// The play must be restarted.
    PlayStopped,
    /// The machine must be restarted.
    MachineStopped,
    /// Nothing helps.
    Gone(State),
}

fn stage(play: &Play, machine: &str) -> Stage {
    match play.state() {
        // An old play without a status, or a state that is newer than this program: the tunnel request will tell.
        None | Some(State::Other(_)) => Stage::Up,
        Some(state @ (State::Destroying | State::Destroyed | State::Failed)) => Stage::Gone(state.clone()),
        Some(State::Stopped) => Stage::PlayStopped,
        Some(State::Stopping) => Stage::Passing(State::Stopping),
        Some(
            State::Created | State::WarmingUp | State::WarmedUp | State::Starting | State::Running | State::Rebooting,
        ) => match play.machine_status(machine).map(|status| &status.state) {
            Some(State::Stopped) if play.state() == Some(&State::Running) => Stage::MachineStopped,
            Some(state @ (State::Stopping | State::Rebooting)) => Stage::Passing(state.clone()),
            _ => Stage::Up,
        },
    }
}

/// The line of progress while a machine of `play` is on its way; an empty name is the default one's.
pub fn waiting_for(play: &str, machine: &str, doing: &str) -> String {
    let machine = if machine.is_empty() { String::new() } else { format!("machine {machine} of ") };
    format!("waiting for {machine}{play}: {doing}")
}

/// The reason for a wait, in words.
fn reason(error: &Error, delay: Duration) -> String {
    match error.kind() {
        _ if error.is_rate_limit() => {
            format!("the platform limits tunnels, the next attempt is in {} s", delay.as_secs_f64().ceil())
        }
        Kind::NotYet => "booting".to_owned(),
        _ => error.message().to_owned(),
    }
}

/// Asks for a tunnel, and logs into it: with one request to the platform, since tunnels come out of a small pool. `say`
/// is told what is being waited for.
///
/// # Errors
/// As [`Labs::start_tunnel`]; the login's, marked as lasting, once its patience is over or `deadline` has come.
pub async fn request_tunnel(
    labs: &Labs,
    play: &str,
    Visitor { machine, user, key }: Visitor<'_>,
    deadline: Instant,
    say: impl Fn(&str),
) -> Result<TunnelSession> {
    let started = labs.start_tunnel(play, machine, user, key);
    tokio::pin!(started);
    let started = tokio::select! {
        started = &mut started => started?,
        () = sleep(NO_WAIT) => {
            say("booting");
            started.await?
        }
    };
    let (until, mut retry) = (deadline.min(Instant::now() + LOGIN_PATIENCE), Retry::new());
    loop {
        let error = match labs.log_into_tunnel(&started).await {
            Ok(session) => return Ok(session),
            Err(error) => error,
        };
        let next = Instant::now() + retry.next(&error).max(LOOK_EVERY);
        if error.is_lasting() || next > until {
            return Err(error.lasting());
        }
        say(&format!("logging into its tunnel: {}", error.message()));
        sleep_until(next).await;
    }
}

/// Whether a machine is down and stays so until somebody wakes it: it and its play are stopped, or about to be.
pub fn is_down(play: &Play, machine: &str) -> bool {
    match stage(play, machine) {
        Stage::PlayStopped | Stage::MachineStopped | Stage::Passing(State::Stopping) => true,
        Stage::Passing(_) | Stage::Up | Stage::Gone(_) => false,
    }
}

/// True for a machine whose tunnel can be asked for, as far as the platform tells.
pub fn is_up(play: &Play, machine: &str) -> bool {
    stage(play, machine) == Stage::Up
}

/// Since when a machine has been down, itself or with its play, by the platform's clock.
pub fn down_since(play: &Play, machine: &str) -> Option<Moment> {
    let events = play.status.as_ref().map(|status| status.state_events.as_slice()).unwrap_or_default();
    let is_end = |state: &State| {
        matches!(state, State::Stopping | State::Stopped | State::Destroying | State::Destroyed | State::Failed)
    };
    let end = events.iter().rev().take_while(|event| is_end(&event.state)).last();
    let at = match end {
        Some(event) => &event.at,
        None => &play.machine_status(machine)?.conditions.iter().find(|one| one.name == "Ready")?.last_transition_at,
    };
    Moment::try_from(at.parse::<jiff::Timestamp>().ok()?.as_millisecond()).ok()
}

impl<'a, P: Progress> Wake<'a, P> {
    /// The wake that somebody has asked for just now, and waits for this long.
    pub fn wanted(labs: &'a Labs, memory: &'a Memory, progress: &'a P, limit: Duration) -> Self {
        Wake { labs, memory, progress, allowed: true, decided: now(), deadline: Instant::now() + limit }
    }

    /// Brings the machine up and gets a session for its tunnel.
    ///
    /// # Errors
    /// [`Kind::NotWoken`] when it is stopped and waking is not allowed, [`Kind::Ended`] when it is gone,
    /// [`Kind::NotYet`] at the deadline, or the platform's refusal.
    pub async fn tunnel(&self, play: Play, visitor: Visitor<'_>) -> Result<TunnelSession> {
        self.tunnel_after(None, play, visitor).await
    }

    /// The same, where a tunnel was asked for already, with this answer.
    ///
    /// # Errors
    /// As [`Wake::tunnel`].
    pub async fn tunnel_after(
        &self,
        mut answer: Option<Result<TunnelSession>>,
        play: Play,
        visitor: Visitor<'_>,
    ) -> Result<TunnelSession> {
        let mut watch = LivePlay::new(self.labs, play);
        let mut retry = Retry::new();
        // What keeps us from the platform itself, if anything does.
        let mut last = None;
        let mut allowed = self.allowed;
        loop {
            self.until_up(&mut watch, visitor.machine, std::mem::take(&mut allowed)).await?;
            let answered = match answer.take() {
                Some(answer) => Ok(answer),
                None => timeout_at(self.deadline, self.ask(&watch, visitor)).await,
            };
            let error = match answered {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(e)) => e,
                Err(_) => return Err(last.unwrap_or_else(|| self.too_late(&watch, visitor.machine))),
            };
            if !error.may_pass() {
                // The refusal may only say in other words that the playground has ended meanwhile.
                watch.refresh().await?;
                if stage(&watch.play, visitor.machine) == Stage::Up {
                    return Err(error);
                }
                continue;
            }
            retry.note(&error)?;
            let delay = retry.next(&error);
            self.say(&watch, visitor.machine, &reason(&error, delay));
            // Live messages tell when a machine is ready, but not when a rate limit ends.
            let paused = match error.is_rate_limit() {
                true => {
                    timeout_at(self.deadline, sleep(delay)).await.map_err(|_| self.too_late(&watch, visitor.machine))
                }
                false => self.pause(&mut watch, delay, visitor.machine).await,
            };
            paused.map_err(|late| match error.kind() {
                Kind::NotYet => late.because(&error),
                _ => error.clone(),
            })?;
            last = (error.kind() != Kind::NotYet).then_some(error);
        }
    }

    /// Asks for a session, and says so when that takes long.
    async fn ask(&self, watch: &LivePlay<'_>, visitor: Visitor<'_>) -> Result<TunnelSession> {
        let say = |doing: &str| self.say(watch, visitor.machine, doing);
        request_tunnel(self.labs, &watch.id, visitor, self.deadline, say).await
    }

    /// Restarts a stopped play, and gives it as it is then: on its way.
    ///
    /// # Errors
    /// As [`Wake::tunnel`].
    pub async fn wake_play(&self, play: Play) -> Result<Play> {
        let Some(first) = play.machines.first().map(|machine| machine.name.clone()) else { return Ok(play) };
        let mut watch = LivePlay::new(self.labs, play);
        self.until_up(&mut watch, &first, self.allowed).await?;
        Ok(watch.play.clone())
    }

    /// Brings the play and the machine to a state in which the tunnel can be asked for.
    async fn until_up(&self, watch: &mut LivePlay<'_>, machine: &str, allowed: bool) -> Result<()> {
        let mut retry = Retry::new();
        loop {
            let now = stage(&watch.play, machine);
            let (whose, action) = match &now {
                Stage::Up => return Ok(()),
                Stage::Gone(state) => return Err(gone(&watch.play, state)),
                Stage::PlayStopped if !allowed => return Err(stopped(&watch.id, "")),
                Stage::MachineStopped if !allowed => return Err(stopped(&watch.id, machine)),
                Stage::PlayStopped => ("", Some(Action::Restart)),
                Stage::MachineStopped => (machine, Some(Action::RestartMachine { machine: machine.to_owned() })),
                Stage::Passing(_) => ("", None),
            };
            let mut delay = None;
            if let Some(action) = action {
                self.say(watch, machine, "restarting");
                match self.ask_once(&watch.play, whose, &action).await {
                    Ok(play) => watch.play = play,
                    Err(error) => {
                        retry.note(&error)?;
                        delay = Some(retry.next(&error));
                    }
                }
                if stage(&watch.play, machine) != now {
                    continue;
                }
            } else if let Stage::Passing(state) = now {
                self.say(watch, machine, &state.as_str().to_lowercase());
            }
            self.pause(watch, delay.unwrap_or_else(|| retry.delay()), machine).await?;
            match watch.refresh().await {
                Ok(()) => retry.worked(),
                Err(error) => retry.note(&error)?,
            }
        }
    }

    /// Waits `delay`, or less when a live message tells of a change, and gives up at the deadline.
    async fn pause(&self, watch: &mut LivePlay<'_>, delay: Duration, machine: &str) -> Result<()> {
        let before = stage(&watch.play, machine);
        let ready = watch.play.machine_status(machine).is_some_and(|status| status.is_ready());
        let changed = async {
            loop {
                watch.change().await;
                let is_ready = watch.play.machine_status(machine).is_some_and(|status| status.is_ready());
                if stage(&watch.play, machine) != before || is_ready != ready {
                    return;
                }
            }
        };
        let waited = async {
            tokio::select! {
                () = sleep(delay) => {}
                () = changed => {}
            }
        };
        timeout_at(self.deadline, waited).await.map_err(|_| self.too_late(watch, machine))
    }

    fn too_late(&self, watch: &LivePlay<'_>, machine: &str) -> Error {
        Error::new(Kind::NotYet, format!("machine {machine} of playground {} is not ready in time", watch.id))
            .with_hint("connect again: the wake goes on; `wake_limit` in the settings sets how long a connection waits")
    }

    fn say(&self, watch: &LivePlay<'_>, machine: &str, doing: &str) {
        self.progress.waiting(&waiting_for(&watch.play.shown(), machine, doing));
    }

    /// Asks for a restart, once for all who want it. Gives the play as it is known then.
    async fn ask_once(&self, play: &Play, machine: &str, action: &Action) -> Result<Play> {
        let label = if machine.is_empty() { play.id.clone() } else { format!("{}.{machine}", play.id) };
        let Some(_lock) = self.wake_lock(&label).await? else {
            return self.labs.play(&play.id).await;
        };
        let current = self.labs.play(&play.id).await?;
        if stage(&current, machine) != stage(play, machine) {
            return Ok(current);
        }
        if self.memory.read(&play.id)?.stopped.is_some_and(|at| at >= self.decided) {
            return Err(stopped(&play.id, ""));
        }
        let upon = state_stamp(&current, machine);
        let pending = self.memory.read(&label)?.wake.filter(|wake| wake.upon == upon);
        let takes = |wake: &WakeRequest| if wake.sent { TAKES_EFFECT } else { OUTCOME_SHOWS };
        if pending.is_some_and(|wake| ago(wake.at) < takes(&wake)) {
            return Ok(current);
        }
        let request = WakeRequest { at: now(), upon, sent: false, made: None };
        self.memory.change(&label, |record| record.wake = Some(request.clone()))?;
        let answer = match self.labs.act_and_look(&play.id, action).await {
            Ok(play) => play,
            Err(error) if error.kind() == Kind::Refused => {
                // Somebody elsewhere may have been faster.
                let current = self.labs.play(&play.id).await?;
                if stage(&current, machine) != stage(play, machine) {
                    return Ok(current);
                }
                self.memory.change(&label, |record| record.wake = None)?;
                return Err(error);
            }
            Err(error) => {
                if !error.may_have_happened() {
                    self.memory.change(&label, |record| record.wake = None)?;
                }
                return Err(error);
            }
        };
        self.memory.change(&label, |record| record.wake = Some(WakeRequest { sent: true, ..request }))?;
        Ok(answer)
    }

    /// Starts a playground from the catalogue, once for all who want one of that name. The caller has seen to the user's
    /// consent.
    ///
    /// # Errors
    /// The platform's refusal, and what [`find::by_target`] says when several fit by now.
    pub async fn start_once(&self, name: &str) -> Result<Play> {
        self.until_started(name, || self.start_under_lock(name)).await
    }

    /// Starts a new playground, whichever others of that name there are. The caller has seen to the user's consent.
    ///
    /// # Errors
    /// The platform's refusal.
    pub async fn start_new(&self, name: &str) -> Result<Play> {
        self.progress.waiting(&format!("starting playground {name}"));
        self.until_started(name, || self.create(name)).await
    }

    /// Attempts a start until it succeeds, fails for good, or the deadline comes.
    async fn until_started<F>(&self, name: &str, start: impl Fn() -> F) -> Result<Play>
    where
        F: Future<Output = Result<Play>>,
    {
        let mut retry = Retry::new();
        loop {
            let error = match start().await {
                Err(e) if e.may_pass() => e,
                done => return done,
            };
            retry.note(&error)?;
            let next = Instant::now() + retry.next(&error);
            if next > self.deadline {
                return Err(error);
            }
            self.progress.waiting(&format!("starting playground {name}: {}", error.message()));
            sleep_until(next).await;
        }
    }

    async fn start_under_lock(&self, name: &str) -> Result<Play> {
        let _lock = loop {
            match self.wake_lock(name).await? {
                Some(lock) => break lock,
                None if Instant::now() > self.deadline => {
                    return Err(Error::new(Kind::NotYet, format!("another process is starting playground {name}"))
                        .with_hint("connect again"));
                }
                None => self.progress.waiting(&format!("starting playground {name}")),
            }
        };
        let pending = self.memory.read(name)?.wake.filter(|wake| ago(wake.at) < TAKES_EFFECT);
        let target = Target { playground: Playground::Name(name.into()), machine: None };
        loop {
            if let find::Found::Play(play) = find::by_target(self.labs, &target).await? {
                return Ok(*play);
            }
            // Whoever asked may have died before the answer, and the list may not show yet what came of it.
            if pending.as_ref().is_none_or(|wake| wake.sent || ago(wake.at) >= LIST_LAG) {
                break;
            }
            sleep(LIST_LAG / 10).await;
        }
        if let Some(id) = pending.and_then(|wake| wake.made) {
            // Just started, and not in the list yet; or destroyed since.
            if let Ok(play) = self.labs.play(&id).await
                && !find::is_gone(&play)
            {
                return Ok(play);
            }
        }
        self.progress.waiting(&format!("starting playground {name}"));
        let request = WakeRequest { at: now(), upon: String::new(), sent: false, made: None };
        self.memory.change(name, |record| record.wake = Some(request.clone()))?;
        let play = match self.create(name).await {
            Err(error) if !error.may_have_happened() => {
                self.memory.change(name, |record| record.wake = None)?;
                return Err(error);
            }
            created => created?,
        };
        let made = Some(play.id.clone());
        self.memory.change(name, |record| record.wake = Some(WakeRequest { sent: true, made, ..request }))?;
        Ok(play)
    }

    /// Starts a playground. Where the answer is lost, the platform's list tells whether there is one: asking again could
    /// start a second.
    async fn create(&self, name: &str) -> Result<Play> {
        let before: Vec<String> = self.labs.plays().await?.into_iter().map(|play| play.id).collect();
        let request = CreatePlay { playground: name.into(), safety_disclaimer_consent: true };
        let error = match self.labs.create_play(&request).await {
            // An answer that cannot be read says no more than a lost one.
            Err(error) if error.may_have_happened() || error.kind() == Kind::Answer => error,
            done => return done,
        };
        log::warn!("{}: looking whether it was started", error.message());
        let until = Instant::now() + OUTCOME_SHOWS;
        while Instant::now() < until {
            sleep(LOOK_EVERY).await;
            let Ok(plays) = self.labs.plays().await else { continue };
            let is_new = |play: &Play| play.playground.name == name && !before.contains(&play.id);
            if let Some(play) = plays.into_iter().find(is_new) {
                return Ok(play);
            }
        }
        let error = error.context(format!("it is not known whether playground {name} was started"));
        Err(error.lasting().with_hint("`labctl-ssh-proxy list` shows whether it was; start it again if not"))
    }

    /// The lock, or `None` when another process held it a moment ago: it may have asked for what we want.
    async fn wake_lock(&self, label: &str) -> Result<Option<crate::files::Lock>> {
        let lock = self.memory.try_wake_lock(label)?;
        if lock.is_none() {
            sleep(LOCK_RETRY).await;
        }
        Ok(lock)
    }
}

/// Tells one stop of a play or a machine from the next.
fn state_stamp(play: &Play, machine: &str) -> String {
    let events = play.status.as_ref().map(|status| status.state_events.len()).unwrap_or_default();
    let since = play
        .machine_status(machine)
        .and_then(|status| status.conditions.first())
        .map(|condition| condition.last_transition_at.as_str())
        .unwrap_or_default();
    format!("{events} {} {since}", play.last_state_at)
}

fn stopped(id: &str, machine: &str) -> Error {
    let machine = if machine.is_empty() { String::new() } else { format!("machine {machine} of ") };
    Error::new(Kind::NotWoken, format!("{machine}playground {id} is stopped"))
        .with_hint(format!("start it with `labctl-ssh-proxy start {id}`"))
}

fn gone(play: &Play, state: &State) -> Error {
    let name = &play.playground.name;
    let what = match state {
        State::Failed => "has failed",
        _ => "was destroyed",
    };
    let error = Error::new(Kind::Ended, format!("playground {} {what}", play.id));
    if name.is_empty() {
        error.with_hint("start another with `labctl-ssh-proxy start NAME`")
    } else {
        error.with_hint(format!("start another with `labctl-ssh-proxy start {name}`"))
    }
}

/// The pauses between attempts, and the patience with a network that fails.
pub(crate) struct Retry {
    delay: Duration,
    network_failing_since: Option<Instant>,
}

impl Retry {
    pub(crate) fn new() -> Self {
        Retry { delay: RETRY_MIN, network_failing_since: None }
    }

    /// Gives a failure of the network back once it lasts too long; "not yet" never does.
    fn note(&mut self, error: &Error) -> Result<()> {
        if error.kind() == Kind::NotYet && error.may_pass() {
            self.network_failing_since = None;
            return Ok(());
        }
        let since = *self.network_failing_since.get_or_insert_with(Instant::now);
        if !error.may_pass() || since.elapsed() > NETWORK_PATIENCE {
            return Err(error.clone());
        }
        log::warn!("{}", error.message());
        Ok(())
    }

    /// Something went through: the network's next failure is another one.
    fn worked(&mut self) {
        self.network_failing_since = None;
    }

    pub(crate) fn next(&mut self, error: &Error) -> Duration {
        error.retry_after().unwrap_or_default().max(self.delay())
    }

    fn delay(&mut self) -> Duration {
        let delay = self.delay;
        self.delay = (self.delay * 3 / 2).min(RETRY_MAX);
        delay.mul_f64(0.75 + fastrand::f64() / 2.0)
    }
}

impl Drop for LivePlay<'_> {
    fn drop(&mut self) {
        if let Messages::Asked(answer) = &self.messages {
            answer.abort();
        }
    }
}

/// A play, kept current by the platform's live messages where they can be had.
struct LivePlay<'a> {
    labs: &'a Labs,
    id: String,
    play: Play,
    messages: Messages,
}

enum Messages {
    NotAsked,
    /// A task of its own, since whoever waits for a change is cancelled at every try.
    Asked(JoinHandle<Result<Stream>>),
    Open(Box<WebSocketStream<Stream>>, Pings),
    /// They cannot be had: asking is enough.
    None,
}

impl<'a> LivePlay<'a> {
    fn new(labs: &'a Labs, play: Play) -> Self {
        LivePlay { labs, id: play.id.clone(), play, messages: Messages::NotAsked }
    }

    async fn refresh(&mut self) -> Result<()> {
        self.play = find::by_id(self.labs, &self.id).await?;
        Ok(())
    }

    /// Waits for a live message about the status; for ever when there are none.
    async fn change(&mut self) {
        loop {
            match &mut self.messages {
                Messages::NotAsked => {
                    let (labs, id) = (self.labs.clone(), self.id.clone());
                    self.messages = Messages::Asked(tokio::spawn(async move { labs.live(&id).await }));
                }
                Messages::Asked(answer) => {
                    self.messages = match answer.await {
                        Ok(Ok(stream)) => {
                            let stream = ClientBuilder::new().limits(limits()).take_over(stream);
                            Messages::Open(Box::new(stream), Pings::new())
                        }
                        Ok(Err(error)) => {
                            log::debug!("no live messages: {}", error.message());
                            Messages::None
                        }
                        Err(_) => Messages::None,
                    };
                }
                Messages::Open(stream, pings) => match stream.next().await {
                    Some(Ok(message)) if !pings.end_with(&message) => {
                        if let Some(Message::Status { status }) = labs::message(&message) {
                            self.play.status = Some(status);
                            return;
                        }
                    }
                    Some(Ok(_) | Err(_)) | None => self.messages = Messages::None,
                },
                Messages::None => std::future::pending().await,
            }
        }
    }
}

/// A status is some KiB.
fn limits() -> Limits {
    Limits::default().max_payload_len(Some(1024 * 1024))
}

#[cfg(test)]
mod tests {
    use super::{Stage, stage};
    use crate::labs::wire::{MachineStatus, Play, State, StateEvent, Status};

    fn play(state: &str, machine: &str) -> Play {
        let event = StateEvent { state: state.to_owned().into(), error: false.into(), at: String::new() };
        let machine = MachineStatus { name: "m".into(), state: machine.to_owned().into(), conditions: vec![] };
        let status = Status { state_events: vec![event], machines: vec![machine], ..Default::default() };
        Play { status: Some(status), ..Default::default() }
    }

    #[test]
    fn every_state_leads_somewhere() {
        for (state, machine, expected) in [
            ("CREATED", "CREATED", Stage::Up),
            ("STARTING", "STARTING", Stage::Up),
            ("RUNNING", "RUNNING", Stage::Up),
            ("RUNNING", "NAPPING", Stage::Up),
            ("NAPPING", "RUNNING", Stage::Up),
            ("RUNNING", "STOPPED", Stage::MachineStopped),
            ("STARTING", "STOPPED", Stage::Up),
            ("RUNNING", "STOPPING", Stage::Passing(State::Stopping)),
            ("RUNNING", "REBOOTING", Stage::Passing(State::Rebooting)),
            ("STOPPING", "RUNNING", Stage::Passing(State::Stopping)),
            ("STOPPED", "STOPPED", Stage::PlayStopped),
            ("DESTROYING", "STOPPED", Stage::Gone(State::Destroying)),
            ("DESTROYED", "STOPPED", Stage::Gone(State::Destroyed)),
            ("FAILED", "STARTING", Stage::Gone(State::Failed)),
        ] {
            assert_eq!(stage(&play(state, machine), "m"), expected, "{state} {machine}");
        }
        assert_eq!(stage(&Play::default(), "m"), Stage::Up);
    }
}
