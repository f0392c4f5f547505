//! The playgrounds as they are known.

use std::{collections::HashMap, time::Duration};

use tokio::{sync::mpsc, task::JoinHandle, time::Instant};

use crate::{
    commands::playgrounds::choice::Choice,
    error::Error,
    labs::{
        Labs, find,
        messages::{Told, follow},
        wire::{Play, State},
    },
    platform::Platform,
};

/// More playgrounds than an account runs at once. Changes of others show with the next answer.
const MAX_FOLLOWED: usize = 50;

/// The playgrounds, kept current by answers of the platform and by its live messages.
pub(super) struct Model {
    /// The platform.
    pub(super) platform: Platform,
    /// Those that are shown.
    choice: Choice,
    plays: Vec<Play>,
    /// The beginning of the last question that was answered with them.
    asked: Option<Instant>,
    /// The failure of the last question.
    error: Option<Error>,
    followed: HashMap<String, Followed>,
    tell: mpsc::Sender<Told>,
}

/// The live messages of one play.
struct Followed {
    task: JoinHandle<()>,
    /// The arrival of the last one.
    heard: Option<Instant>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Model {
    /// A model that knows nothing yet. The news of its plays go to `tell`.
    pub(super) fn new(platform: Platform, choice: Choice, tell: mpsc::Sender<Told>) -> Model {
        Model { platform, choice, plays: Vec::new(), asked: None, error: None, followed: HashMap::new(), tell }
    }

    /// The line that replaces an empty list.
    pub(super) fn none(&self) -> String {
        self.platform.commands(self.choice.none())
    }

    /// The plays, as they were last known.
    pub(super) fn plays(&self) -> &[Play] {
        &self.plays
    }

    /// The failure of the last question to the platform.
    pub(super) fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// True before the first answer or failure.
    pub(super) fn is_empty(&self) -> bool {
        self.asked.is_none() && self.error.is_none()
    }

    /// Takes the answer to a question that began at `began`, and follows the plays that are up.
    pub(super) fn answered(&mut self, labs: Option<&Labs>, mut plays: Vec<Play>, began: Instant) {
        for play in &mut plays {
            // A message that came while the platform was answering is newer.
            let newer = self.followed.get(&play.id).is_some_and(|followed| followed.heard > Some(began));
            if let (true, Some(old)) = (newer, self.plays.iter().find(|old| old.id == play.id)) {
                (play.status, play.tasks) = (old.status.clone(), old.tasks.clone());
            }
        }
        self.plays = plays;
        self.asked = Some(began);
        self.error = None;
        let is_up = |play: &&Play| play.state() != Some(&State::Stopped) && !find::is_gone(play);
        let up: Vec<&Play> = self.plays.iter().filter(is_up).collect();
        self.followed.retain(|id, _| up.iter().any(|play| play.id == *id));
        if let Some(labs) = labs {
            for play in up.into_iter().take(MAX_FOLLOWED) {
                let task = || tokio::spawn(follow(labs.clone(), play.id.clone(), self.tell.clone()));
                let entry = self.followed.entry(play.id.clone());
                entry.or_insert_with(|| Followed { task: task(), heard: None });
            }
        }
    }

    /// Takes the failure of a question.
    pub(super) fn failed(&mut self, error: Error) {
        self.error = Some(error.on(self.platform));
    }

    /// Takes the news of a play.
    pub(super) fn heard(&mut self, told: Told) {
        let Some(followed) = self.followed.get_mut(&told.play) else { return };
        followed.heard = Some(Instant::now());
        match (told.news, self.plays.iter_mut().find(|play| play.id == told.play)) {
            (Some(news), Some(play)) => news.apply(play),
            (Some(_), None) => {}
            // The next answer begins anew.
            (None, _) => drop(self.followed.remove(&told.play)),
        }
    }

    /// The plays in the order of the list, with the time that is left now.
    pub(super) fn current(&self) -> Vec<Play> {
        let since = self.asked.map(|asked| asked.elapsed()).unwrap_or_default();
        let mut plays = self.plays.clone();
        for play in plays.iter_mut().filter(|play| !play.expires_in.is_zero()) {
            play.expires_in = play.expires_in.saturating_sub(since).max(Duration::from_secs(1));
        }
        self.choice.apply(&mut plays);
        plays
    }
}
