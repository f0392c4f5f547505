//! A playground that is kept while it is used: a while before its end, one of the processes that use it asks for half an
//! hour more, up to a limit. Off unless the user has chosen it, because a playground may cost money for as long as it
//! runs.
//!
//! `usage` knows if a connection is used; this file knows if that is a reason to ask, and asks.

mod usage;

use std::{convert::Infallible, time::Duration};

use jiff::tz::TimeZone;
use tokio::time::{Instant, interval};

use self::usage::{Usage, millis};
use crate::{
    app::App,
    error::Result,
    hold::reach::expiry,
    labs::{Labs, find, span::Span, wire::Play},
    moment::{Moment, now},
    records::memory::Keep,
    settings::KeepPolicy,
};

/// The time before its end at which a playground is extended: enough for ten attempts, and before anything warns of the end.
const BEFORE: Duration = Duration::from_secs(12 * 60);
/// The time that a step gives.
pub(crate) const STEP: Duration = Duration::from_secs(30 * 60);
/// Between two attempts.
const AGAIN: Duration = Duration::from_secs(60);
/// A step that is shorter would be none in whole minutes.
pub(crate) const LEAST: Duration = Duration::from_secs(60);
/// Between two looks of [`look_after`].
const LOOK_EVERY: Duration = Duration::from_secs(20);
/// Between two questions for the end, which a restart moves.
const LEARN_AGAIN: Duration = Duration::from_secs(10 * 60);
/// Ends that are so close are the same one: the platform counts minutes, and answers take their time.
const SAME: Duration = Duration::from_secs(2 * 60);

/// Keeps `play` while what is done with it has moved bytes, of which `moved` is the sum. Never returns.
pub(crate) async fn look_after(app: &App, labs: &Labs, play: &str, moved: impl Fn() -> u64) -> Infallible {
    let mut keeper = Keeper::new(app, labs, play, false);
    let mut tick = interval(LOOK_EVERY);
    let (mut end, mut asked) = (None, None);
    loop {
        tick.tick().await;
        let pause = if end.is_some() { LEARN_AGAIN } else { AGAIN };
        let is_due = asked.is_none_or(|at: Instant| at.elapsed() >= pause);
        // A playground that is not kept is not asked about.
        if is_due && keeper.record().is_ok_and(|keep| keeper.may_be_wanted(&keep)) {
            asked = Some(Instant::now());
            end = labs.play(play).await.ok().as_ref().and_then(expiry).or(end);
        }
        end = keeper.look(end, moved(), false).await.or(end);
    }
}

/// The part of one process in keeping its playground.
pub(crate) struct Keeper<'a> {
    app: &'a App,
    labs: &'a Labs,
    play: &'a str,
    /// The beginning of a command that counts as use for as long as it runs.
    command: Option<Moment>,
    usage: Usage,
    /// The settings' word for this playground, once the platform has told its name.
    policy: Option<KeepPolicy>,
    /// No attempt before that.
    next: Moment,
}

impl<'a> Keeper<'a> {
    /// The part of a connection to `play`, or of a forward. With `is_used` it counts as use for as long as it lasts.
    pub(crate) fn new(app: &'a App, labs: &'a Labs, play: &'a str, is_used: bool) -> Keeper<'a> {
        let command = is_used.then(now);
        Keeper { app, labs, play, command, usage: Usage::default(), policy: None, next: 0 }
    }

    /// Looks at the playground's `end` every few seconds, after `moved` bytes in all, and has it moved if it is near, and
    /// the playground is used: a session whose machine `is_away` is no use. Returns the end if it is another one now.
    pub(crate) async fn look(&mut self, end: Option<Moment>, moved: u64, is_away: bool) -> Option<Moment> {
        self.usage.note(now(), moved);
        let end = end?;
        if !is_near(end) || now() < self.next {
            return None;
        }
        let (play, lately) = (self.play, self.usage.lately());
        if is_away || (self.command.is_none() && lately <= usage::LEAST) {
            log::debug!(
                "playground {play} ends soon, and this is no use of it: {lately} bytes lately, away: {is_away}"
            );
            return None;
        }
        let found = self.extend(end).await.unwrap_or_else(|error| {
            log::warn!("the time of playground {} was not extended: {}", self.play, error.message());
            None
        });
        found.filter(|found| !is_same(*found, end))
    }

    /// Asks for a step, unless another process does. Returns the end if the platform has told it.
    async fn extend(&mut self, end: Moment) -> Result<Option<Moment>> {
        let before = self.record()?;
        if !self.may_be_wanted(&before) || is_same(before.stuck.unwrap_or_default(), end) {
            log::debug!("playground {} ends soon, and is used, but gets no more time", self.play);
            return Ok(None);
        }
        let memory = self.app.memory();
        let Some(_lock) = memory.try_keep_lock(self.play)? else { return Ok(None) };
        self.next = now().saturating_add(millis(AGAIN));
        let play = self.labs.play(self.play).await?;
        let Some(end) = expiry(&play) else { return Ok(None) };
        let keep = self.record()?;
        if !is_near(end) {
            log::debug!("playground {} runs until {} by now", self.play, clock(end));
            return Ok(Some(end));
        }
        let policy = *self.policy.insert(policy(self.app, &play));
        if !self.is_wanted(&keep, policy) || find::is_play_down(&play) {
            return Ok(Some(end));
        }
        let Some(wanted) = next(&keep, end, self.app.settings.keep_limit()) else {
            log::warn!("{} is not extended any more: `keep_limit` is reached", play.shown());
            memory.change(self.play, |record| record.keep.get_or_insert_default().stuck = Some(end))?;
            return Ok(Some(end));
        };
        // First, because a step that is not on record would count for nothing against the limit.
        memory.must_change(self.play, |record| {
            let keep = record.keep.get_or_insert_default();
            keep.first_end = first_end(keep, end);
            (keep.end, keep.wanted) = (end, Some(wanted));
        })?;
        let span = Span::of(self.labs, &play);
        let (play, is_granted) =
            span.set(self.labs, self.play, Duration::from_millis(wanted.saturating_sub(now()))).await?;
        let end_now = expiry(&play).unwrap_or(end);
        memory.change(self.play, |record| {
            let keep = record.keep.get_or_insert_default();
            note(keep, end, end_now);
            keep.stuck = (!is_granted).then_some(end_now);
        })?;
        memory.note_acted();
        match is_granted {
            true => log::info!("{} is used, so it runs until {} now", play.shown(), clock(end_now)),
            false => log::warn!("the platform lets {} run only until {}", play.shown(), clock(end_now)),
        }
        Ok(Some(end_now))
    }

    fn record(&self) -> Result<Keep> {
        self.app.memory().read(self.play).map(|record| record.keep.unwrap_or_default())
    }

    /// True if the user may want the playground to be kept. Only the platform's answer makes it certain.
    fn may_be_wanted(&self, keep: &Keep) -> bool {
        let settings = &self.app.settings;
        let own = settings.playgrounds.values().any(|own| own.keep == Some(KeepPolicy::WhileConnected));
        self.is_wanted(keep, self.policy.unwrap_or(if own { KeepPolicy::WhileConnected } else { settings.keep }))
    }

    /// True if the user wants the playground to be kept: by the last word for it alone, else by the settings.
    fn is_wanted(&self, keep: &Keep, policy: KeepPolicy) -> bool {
        match (keep.choice, self.command) {
            (Some((choice, at)), Some(began)) => choice || began > at,
            (None, Some(_)) => true,
            (Some((choice, _)), None) => choice,
            (None, None) => policy == KeepPolicy::WhileConnected,
        }
    }
}

fn policy(app: &App, play: &Play) -> KeepPolicy {
    app.keep_policy(&[&play.id, &play.playground.name])
}

/// True if `play` gets more time while it is used.
pub(crate) fn is_wanted(app: &App, play: &Play) -> bool {
    let choice = app.memory().read(&play.id).ok().and_then(|record| record.keep?.choice);
    choice.map_or_else(|| policy(app, play) == KeepPolicy::WhileConnected, |(choice, _)| choice)
}

/// The end that the playground would have without our steps.
fn first_end(keep: &Keep, end: Moment) -> Moment {
    if is_ours(keep, end) { keep.first_end } else { end }
}

/// True for an end that a step has given, its answer being lost or not.
fn is_ours(keep: &Keep, end: Moment) -> bool {
    is_same(keep.end, end) || keep.wanted.is_some_and(|wanted| is_same(wanted, end))
}

/// The end that the next step gives, or `None` where the limit lies at `end` already.
fn next(keep: &Keep, end: Moment, limit: Duration) -> Option<Moment> {
    let last = first_end(keep, end).saturating_add(millis(limit));
    let wanted = end.saturating_add(millis(STEP)).min(last);
    (wanted >= end.saturating_add(millis(LEAST))).then_some(wanted)
}

/// Notes that the platform has moved the end.
fn note(keep: &mut Keep, end: Moment, end_now: Moment) {
    let first_end = first_end(keep, end);
    let steps = if is_ours(keep, end) { keep.steps } else { 0 };
    let step = u32::from(end_now >= end.saturating_add(millis(LEAST / 2)));
    (keep.first_end, keep.end, keep.steps, keep.wanted) = (first_end, end_now, steps + step, None);
}

fn is_near(end: Moment) -> bool {
    end <= now().saturating_add(millis(BEFORE))
}

/// True if both are one end of one playground.
pub(crate) fn is_same(a: Moment, b: Moment) -> bool {
    a.abs_diff(b) <= millis(SAME)
}

/// A moment on the clock of this computer.
fn clock(moment: Moment) -> String {
    let moment = i64::try_from(moment).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    moment.map(|at| at.to_zoned_datetime(TimeZone::system()).strftime("%H:%M").to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{BEFORE, Keep, STEP, first_end, is_same, millis, next, note};
    use crate::moment::Moment;

    const MINUTE: Moment = 60_000;

    /// Uses a playground that ends at `end` all the time, from `from` on, until it has ended. The platform counts whole
    /// minutes, and is `late` with its answers. Returns its end.
    fn use_up(keep: &mut Keep, from: Moment, mut end: Moment, limit: Duration, late: Moment) -> Moment {
        let mut now = from;
        while now < end {
            if end - now <= millis(BEFORE) {
                let Some(wanted) = next(keep, end, limit) else { return end };
                assert!(wanted - end <= millis(STEP));
                let granted = now + (wanted - now).div_ceil(MINUTE) * MINUTE + late;
                note(keep, end, granted);
                end = granted;
            }
            now += MINUTE;
        }
        end
    }

    #[test]
    fn a_job_of_eight_hours_gets_the_four_that_the_limit_allows() {
        let (mut keep, first) = (Keep::default(), 1000 * MINUTE);
        let end = use_up(&mut keep, first - 60 * MINUTE, first, Duration::from_secs(4 * 3600), 0);
        assert_eq!((end, keep.first_end, keep.steps), (first + 240 * MINUTE, first, 8));
        // Its user gives it an hour more: that is an end of its own.
        let own = end + 60 * MINUTE;
        assert_eq!(first_end(&keep, own), own);
        let end = use_up(&mut keep, end, own, Duration::from_secs(3600), 0);
        assert_eq!((end, keep.first_end, keep.steps), (own + 60 * MINUTE, own, 2));
    }

    #[test]
    fn a_platform_that_grants_nothing_makes_no_step() {
        let mut keep = Keep::default();
        note(&mut keep, 1000 * MINUTE, 1000 * MINUTE + 5);
        assert_eq!((keep.steps, keep.first_end), (0, 1000 * MINUTE));
    }

    proptest! {
        #[test]
        fn the_limit_holds(limit in 0_u64..20_000, first in 1000_u64..2000, late in 0_u64..2000, left in 0_u64..60) {
            let (mut keep, first) = (Keep::default(), first * MINUTE);
            let end = use_up(&mut keep, first - left * MINUTE, first, Duration::from_secs(limit), late);
            let beyond = end - first;
            prop_assert!(beyond <= limit * 1000 + MINUTE + late, "{beyond}");
            prop_assert!(beyond + MINUTE >= limit * 1000 || left == 0, "{beyond}");
            prop_assert!(keep.steps == 0 || is_same(keep.end, end) && keep.first_end == first);
        }
    }
}
