//! From any state of a play and its machine to a tunnel session, or to a final error that names the state and the way
//! out.
//!
//! Only "not yet" is retried. A restart is requested once for all who wait for it, in whatever process: under a lock
//! the state is read again, the intent is recorded, the request is sent, and the answer is recorded ([`restart`]). A
//! process that comes later finds the record and waits. The wake goes on at the platform when no process waits any
//! more, so that a later attempt joins it.

mod live_play;
mod lock;
mod patience;
pub(crate) mod preparation;
mod request;
mod restart;
mod stage;
mod starting;

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

pub(crate) use lock::LOCK_RETRY;
pub(crate) use patience::Patience;
pub(crate) use preparation::check_running;
use request::BOOTING;
pub use request::{Visitor, request_tunnel};
pub(crate) use restart::TAKES_EFFECT;
pub(crate) use stage::machine_is_stopped;
pub use stage::{down_since, is_down, is_up};

use crate::{
    error::{Error, Kind, Result},
    labs::{
        Labs, TunnelSession,
        wire::{CreatePlay, Play},
    },
    moment::{Moment, now},
    records::memory::Memory,
    ui::notice::Progress,
    wake::{
        live_play::LivePlay,
        restart::Restart,
        stage::{Part, Stage, gone, stage, stopped},
        starting::Starting,
    },
};

/// The wake of one play, for one caller.
pub struct Wake<'a, P> {
    /// The platform.
    pub labs: &'a Labs,
    /// The records of requests.
    pub memory: &'a Memory,
    /// Told what is being waited for.
    pub progress: &'a P,
    /// Permission to wake a stopped playground. It covers the stop that was found; a later stop is deliberate and needs
    /// its own permission.
    pub allowed: bool,
    /// The moment of that permission.
    pub decided: Moment,
    /// The end of the caller's patience.
    pub deadline: Instant,
}

/// The line of progress while a machine of `play` is on its way; an empty name is the default one's.
pub fn waiting_for(play: &str, machine: &str, doing: &str) -> String {
    let machine = if machine.is_empty() { String::new() } else { format!("machine {machine} of ") };
    format!("waiting for {machine}{play}: {doing}")
}

/// The reason why the platform says "not yet", in words.
fn reason(error: &Error, delay: Duration) -> String {
    match error.is_rate_limit() {
        true => format!("the platform limits tunnels; the next attempt is in {} s", delay.as_secs_f64().ceil()),
        false => BOOTING.to_owned(),
    }
}

impl<'a, P: Progress> Wake<'a, P> {
    /// A wake that the user has asked for just now, and waits for this long.
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

    /// The same, if a tunnel was requested before, with this answer.
    ///
    /// # Errors
    /// As [`Wake::tunnel`].
    pub async fn tunnel_after(
        &self,
        mut answer: Option<Result<TunnelSession>>,
        play: Play,
        visitor: Visitor<'_>,
    ) -> Result<TunnelSession> {
        let machine = visitor.machine;
        // A request that was sent before the play was found may have been refused for a state that has passed since,
        // as when another process restarts the play. Such a refusal is asked for once more, and no lasting failure is.
        let mut is_early = answer.is_some();
        let mut live = LivePlay::new(self.labs, play);
        let mut patience = Patience::new();
        let mut allowed = self.allowed;
        // The last failure, if it kept us from the platform itself.
        let mut last = None;
        loop {
            self.until_up(&mut live, machine, std::mem::take(&mut allowed)).await?;
            let answered = match answer.take() {
                Some(answer) => Ok(answer),
                None => timeout_at(self.deadline, self.ask(&live, visitor, last.as_ref())).await,
            };
            let error = match answered {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(error)) => error,
                Err(_) => return Err(last.unwrap_or_else(|| self.too_late(&live, machine))),
            };
            let was_early = std::mem::take(&mut is_early) && !error.is_lasting();
            if !error.may_pass() {
                // The refusal may only say in other words that the playground has ended meanwhile.
                live.refresh().await?;
                if is_up(&live.play, machine) && !was_early {
                    return Err(error);
                }
                continue;
            }
            let delay = patience.pause_after(&error)?;
            match error.kind() {
                Kind::NotYet => self.say(&live, machine, &reason(&error, delay)),
                _ => self.say_trouble(&live, machine, &error),
            }
            // Live messages tell when a machine is ready, but not when a rate limit ends.
            let paused = match error.is_rate_limit() {
                true => timeout_at(self.deadline, sleep(delay)).await.map_err(|_| self.too_late(&live, machine)),
                false => self.pause(&mut live, delay, machine).await,
            };
            paused.map_err(|late| match error.kind() {
                Kind::NotYet => late.because(&error),
                _ => error.clone(),
            })?;
            last = (error.kind() != Kind::NotYet).then_some(error);
        }
    }

    /// Restarts a stopped play, and returns it as it is then: on its way.
    ///
    /// # Errors
    /// As [`Wake::tunnel`].
    pub async fn wake_play(&self, play: Play) -> Result<Play> {
        let Some(first) = play.machines.first().map(|machine| machine.name.clone()) else { return Ok(play) };
        self.wake_machine(play, &first).await
    }

    /// Restarts a machine that is stopped, itself or with its play, and returns the play as it is then: on its way.
    ///
    /// # Errors
    /// As [`Wake::tunnel`].
    pub async fn wake_machine(&self, play: Play, machine: &str) -> Result<Play> {
        let mut live = LivePlay::new(self.labs, play);
        self.until_up(&mut live, machine, self.allowed).await?;
        Ok(live.play)
    }

    /// Starts a playground from the catalogue, once for all who want one of that name. The caller has obtained the
    /// user's consent.
    ///
    /// # Errors
    /// The platform's refusal, and that of [`find::by_target`](crate::labs::find::by_target) when several fit by now.
    pub async fn start_once(&self, request: &CreatePlay) -> Result<Play> {
        self.starting(request).once().await
    }

    /// Starts a new playground, even if there are others of that name. The caller has obtained the user's consent.
    ///
    /// # Errors
    /// The platform's refusal.
    pub async fn start_new(&self, request: &CreatePlay) -> Result<Play> {
        self.starting(request).another().await
    }

    fn starting<'b>(&'b self, request: &'b CreatePlay) -> Starting<'b, P> {
        let (labs, memory, progress, deadline) = (self.labs, self.memory, self.progress, self.deadline);
        Starting { labs, memory, progress, deadline, name: &request.playground, request }
    }

    /// Brings the play and the machine to a stage at which the tunnel can be requested.
    async fn until_up(&self, live: &mut LivePlay<'_>, machine: &str, allowed: bool) -> Result<()> {
        let mut patience = Patience::new();
        // The failure of the last look.
        let mut blind: Option<Error> = None;
        loop {
            let now = stage(&live.play, Part::Machine(machine));
            let delay = match &now {
                Stage::Up => return Ok(()),
                Stage::Gone(state) => return Err(gone(&live.play, state)),
                Stage::Stopped(part) if !allowed => return Err(stopped(&live.play, *part)),
                Stage::Stopped(part) => {
                    self.say(live, machine, "restarting");
                    match self.restart(&live.play, *part).request_once().await {
                        Ok(play) => {
                            live.play = play;
                            if stage(&live.play, Part::Machine(machine)) != now {
                                continue;
                            }
                            patience.pause()
                        }
                        Err(error) => {
                            let delay = patience.pause_after(&error)?;
                            self.say_trouble(live, machine, &error);
                            delay
                        }
                    }
                }
                Stage::Passing(state) => {
                    match &blind {
                        Some(error) => self.say_trouble(live, machine, error),
                        None => self.say(live, machine, &state.as_str().to_lowercase()),
                    }
                    patience.pause()
                }
            };
            self.pause(live, delay, machine).await?;
            blind = match live.refresh().await {
                Ok(()) => {
                    patience.restore();
                    None
                }
                Err(error) => {
                    patience.note(&error)?;
                    Some(error)
                }
            };
        }
    }

    fn restart<'b>(&'b self, play: &'b Play, part: Part<'b>) -> Restart<'b> {
        Restart { labs: self.labs, memory: self.memory, decided: self.decided, play, part }
    }

    /// Requests a session, and says so when that takes long. After the failure `last` of the route to the platform,
    /// that is all that is known.
    async fn ask(&self, live: &LivePlay<'_>, visitor: Visitor<'_>, last: Option<&Error>) -> Result<TunnelSession> {
        let say = |doing: &str| match last {
            Some(error) if doing == BOOTING => self.say_trouble(live, visitor.machine, error),
            Some(_) | None => self.say(live, visitor.machine, doing),
        };
        request_tunnel(self.labs, &live.id, visitor, self.deadline, say).await
    }

    /// Waits `delay`, or less when a live message tells of a change. Fails at the deadline.
    async fn pause(&self, live: &mut LivePlay<'_>, delay: Duration, machine: &str) -> Result<()> {
        let seen = |play: &Play| {
            let is_ready = play.machine_status(machine).is_some_and(|status| status.is_ready());
            (stage(play, Part::Machine(machine)), is_ready)
        };
        let before = seen(&live.play);
        let changed = async {
            while seen(&live.play) == before {
                live.change().await;
            }
        };
        let waited = async {
            tokio::select! {
                () = sleep(delay) => {}
                () = changed => {}
            }
        };
        timeout_at(self.deadline, waited).await.map_err(|_| self.too_late(live, machine))
    }

    fn too_late(&self, live: &LivePlay<'_>, machine: &str) -> Error {
        let shown = live.play.shown();
        Error::new(Kind::NotYet, format!("machine {machine} of playground {shown} was not ready in time")).with_hint(
            "connect again, because it is still being woken; to wait longer, raise `wake_limit` in the settings",
        )
    }

    fn say_trouble(&self, live: &LivePlay<'_>, machine: &str, error: &Error) {
        self.progress.trouble(&waiting_for(&live.play.shown(), machine, error.message()));
    }

    fn say(&self, live: &LivePlay<'_>, machine: &str, doing: &str) {
        self.progress.waiting(&waiting_for(&live.play.shown(), machine, doing));
    }
}
