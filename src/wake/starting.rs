//! The start of a playground from the catalogue.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

use super::{
    lock::wake_lock,
    patience::Patience,
    restart::{OUTCOME_SHOWS, TAKES_EFFECT},
};
use crate::{
    error::{Error, Kind, Result},
    files::Lock,
    labs::{
        Labs, find,
        wire::{CreatePlay, Play},
    },
    moment::{ago, now},
    records::memory::{Memory, WakeRequest},
    target::Target,
    ui::notice::Progress,
};

/// Between two looks for a playground whose start was requested, though the answer was lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A start.
pub(super) struct Starting<'a, P> {
    pub(super) labs: &'a Labs,
    pub(super) memory: &'a Memory,
    pub(super) progress: &'a P,
    pub(super) deadline: Instant,
    /// The name in the catalogue.
    pub(super) name: &'a str,
    /// The request to the platform.
    pub(super) request: &'a CreatePlay,
}

impl<P: Progress> Starting<'_, P> {
    /// Starts the playground, once for all who want one of that name.
    ///
    /// # Errors
    /// The platform's refusal, and that of [`find::by_target`] when several fit by now.
    pub(super) async fn once(&self) -> Result<Play> {
        self.until_started(|| self.find_or_create()).await
    }

    /// Starts another playground, even if there are others of that name.
    ///
    /// # Errors
    /// The platform's refusal.
    pub(super) async fn another(&self) -> Result<Play> {
        self.until_started(|| self.create()).await
    }

    /// Attempts a start until it succeeds, fails for good, or the deadline comes.
    async fn until_started<F>(&self, start: impl Fn() -> F) -> Result<Play>
    where
        F: Future<Output = Result<Play>>,
    {
        let mut patience = Patience::new();
        loop {
            let error = match start().await {
                Err(error) if error.may_pass() => error,
                done => return done,
            };
            let next = Instant::now() + patience.pause_after(&error)?;
            if next > self.deadline {
                return Err(error);
            }
            self.progress.waiting(&format!("starting playground {}: {}", self.name, error.message()));
            sleep_until(next).await;
        }
    }

    /// Under the lock: returns the playground that another process has started, else starts one.
    async fn find_or_create(&self) -> Result<Play> {
        let _lock = self.lock().await?;
        // The start is permitted, so a record that cannot be read is no obstacle to it.
        let pending = self.memory.read(self.name).map(|record| record.wake).unwrap_or_else(|error| {
            log::warn!("{}", error.message());
            None
        });
        let pending = pending.filter(|wake| ago(wake.at) < TAKES_EFFECT);
        if let Some(play) = self.find(pending.as_ref()).await? {
            return Ok(play);
        }
        self.create().await
    }

    /// Starts a playground, and records the request: before it is sent, and with its outcome.
    async fn create(&self) -> Result<Play> {
        self.say_starting();
        let request = WakeRequest { at: now(), upon: String::new(), sent: false, lost: false, made: None };
        let created = self.request(|lost| self.record(Some(WakeRequest { lost, ..request.clone() }))).await;
        match &created {
            Ok(play) => self.record(Some(WakeRequest { sent: true, made: Some(play.id.clone()), ..request })),
            // It may be carried out yet.
            Err(error) if is_unknown(error) => {}
            Err(_) => self.record(None),
        }
        created
    }

    async fn lock(&self) -> Result<Lock> {
        loop {
            match wake_lock(self.memory, self.name).await? {
                Some(lock) => return Ok(lock),
                None if Instant::now() > self.deadline => {
                    return Err(Error::new(
                        Kind::NotYet,
                        format!("another process is starting playground {}", self.name),
                    )
                    .with_hint("connect again"));
                }
                None => self.say_starting(),
            }
        }
    }

    /// The playground of that name, if there is one: listed, or just started by another process.
    async fn find(&self, pending: Option<&WakeRequest>) -> Result<Option<Play>> {
        let target = Target::of_name(self.name);
        loop {
            if let find::Found::Play(play) = find::by_target(self.labs, &target).await? {
                return Ok(Some(*play));
            }
            let Some(wake) = pending.filter(|wake| !wake.sent) else { break };
            // The process that requested it has lost the answer, or has died before it, and the list may not show the
            // outcome yet.
            if ago(wake.at) >= if wake.lost { TAKES_EFFECT } else { OUTCOME_SHOWS } {
                break;
            }
            let next = Instant::now() + LOOK_EVERY;
            if next > self.deadline {
                return Err(self.unknown(&Error::new(Kind::NotYet, "the answer was lost")));
            }
            self.say_checking();
            sleep_until(next).await;
        }
        let Some(id) = pending.and_then(|wake| wake.made.as_deref()) else { return Ok(None) };
        // It was just started and is not in the list yet, or it was destroyed since.
        Ok(self.labs.play(id).await.ok().filter(|play| !find::is_gone(play)))
    }

    /// Requests a playground. If the answer is lost, the platform's list tells whether it was started, because another
    /// request could start a second. `note` is called before the request, and with true when its answer is lost.
    async fn request(&self, note: impl Fn(bool)) -> Result<Play> {
        let name = self.name;
        let before: Vec<String> = self.labs.plays().await?.into_iter().map(|play| play.id).collect();
        note(false);
        let error = match self.labs.create_play(self.request).await {
            Err(error) if is_unknown(&error) => error,
            done => return done,
        };
        note(true);
        log::warn!("{}: checking whether it was started", error.message());
        self.say_checking();
        let until = self.deadline.min(Instant::now() + TAKES_EFFECT);
        while Instant::now() < until {
            sleep(LOOK_EVERY).await;
            let Ok(plays) = self.labs.plays().await else { continue };
            let is_new = |play: &Play| play.playground.name == name && !before.contains(&play.id);
            if let Some(play) = plays.into_iter().find(is_new) {
                return Ok(play);
            }
        }
        Err(self.unknown(&error))
    }

    /// The error for a start whose outcome nothing tells.
    fn unknown(&self, error: &Error) -> Error {
        let error = error.clone().context(format!("it is not known whether playground {} was started", self.name));
        error.lasting().with_hint(
            "it may have been started: check `labctl-ssh-proxy list`, and start it again only if it is not there",
        )
    }

    fn say_starting(&self) {
        self.progress.waiting(&format!("starting playground {}", self.name));
    }

    fn say_checking(&self) {
        let name = self.name;
        self.progress
            .waiting(&format!("starting playground {name}: the answer was lost; checking whether it was started"));
    }

    fn record(&self, request: Option<WakeRequest>) {
        if let Err(error) = self.memory.change(self.name, |record| record.wake = request) {
            log::warn!("{}", error.message());
        }
    }
}

/// True for a request to start a playground that may have been carried out. An answer that cannot be read says no more
/// than a lost one.
fn is_unknown(error: &Error) -> bool {
    error.may_have_happened() || error.kind() == Kind::Answer
}
