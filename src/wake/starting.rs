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
    target::{Playground, Target},
    ui::notice::Progress,
};

/// Between two looks for a playground whose start was requested, though the answer was lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A playground that was requested is in the platform's list by then, even if the process that requested it has died.
const LIST_LAG: Duration = Duration::from_secs(3);

/// A start.
pub(super) struct Starting<'a, P> {
    pub(super) labs: &'a Labs,
    pub(super) memory: &'a Memory,
    pub(super) progress: &'a P,
    pub(super) deadline: Instant,
    /// The name in the catalogue.
    pub(super) name: &'a str,
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
        self.say_starting();
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
        let pending = self.memory.read(self.name)?.wake.filter(|wake| ago(wake.at) < TAKES_EFFECT);
        if let Some(play) = self.find(pending.as_ref()).await? {
            return Ok(play);
        }
        self.say_starting();
        let request = WakeRequest { at: now(), upon: String::new(), sent: false, made: None };
        self.record(Some(request.clone()))?;
        let play = match self.create().await {
            Err(error) if !error.may_have_happened() => {
                self.record(None)?;
                return Err(error);
            }
            created => created?,
        };
        let made = Some(play.id.clone());
        self.record(Some(WakeRequest { sent: true, made, ..request }))?;
        Ok(play)
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
        let target = Target { playground: Playground::Name(self.name.into()), machine: None };
        loop {
            if let find::Found::Play(play) = find::by_target(self.labs, &target).await? {
                return Ok(Some(*play));
            }
            // The process that requested it may have died before the answer, and the list may not show the outcome yet.
            if pending.is_none_or(|wake| wake.sent || ago(wake.at) >= LIST_LAG) {
                break;
            }
            sleep(LIST_LAG / 10).await;
        }
        let Some(id) = pending.and_then(|wake| wake.made.as_deref()) else { return Ok(None) };
        // It was just started and is not in the list yet, or it was destroyed since.
        Ok(self.labs.play(id).await.ok().filter(|play| !find::is_gone(play)))
    }

    /// Starts a playground. If the answer is lost, the platform's list tells whether it was started, because another
    /// request could start a second.
    async fn create(&self) -> Result<Play> {
        let name = self.name;
        let before: Vec<String> = self.labs.plays().await?.into_iter().map(|play| play.id).collect();
        let request = CreatePlay { playground: name.into(), safety_disclaimer_consent: true };
        let error = match self.labs.create_play(&request).await {
            // An answer that cannot be read says no more than a lost one.
            Err(error) if error.may_have_happened() || error.kind() == Kind::Answer => error,
            done => return done,
        };
        log::warn!("{}: checking whether it was started", error.message());
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
        Err(error.lasting().with_hint("check `labctl-ssh-proxy list`, and start it again if it is not there"))
    }

    fn say_starting(&self) {
        self.progress.waiting(&format!("starting playground {}", self.name));
    }

    fn record(&self, request: Option<WakeRequest>) -> Result<()> {
        self.memory.change(self.name, |record| record.wake = request)
    }
}
