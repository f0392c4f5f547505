//! The plays of challenges, tutorials and lessons.

use std::sync::Arc;

use crate::labs::wire::{self, Action, LearningKind, State, TaskStatus};

use super::{
    super::{
        learning::{Belonging, Learning},
        record::Record,
        refusal::{Answer, Refusal},
    },
    Wishes, World,
};

impl World {
    /// The account's progress.
    pub(crate) fn learning(&self) -> &Learning {
        &self.learning
    }

    /// The play of an attempt that goes on.
    pub(crate) fn attempt(&self, of: &Belonging) -> Option<wire::Play> {
        let plays = self.locked();
        let is_over = |record: &Record| matches!(record.state(), State::Destroying | State::Destroyed);
        let mut records = plays.values().map(|play| &play.record);
        let record = records.find(|record| record.belongs.as_ref() == Some(of) && !is_over(record))?;
        Some(self.play(record))
    }

    /// Begins an attempt, unless one goes on.
    ///
    /// # Errors
    /// 403 without consent where that is needed, 404 for a lesson without a playground, and those of `create`.
    pub(crate) async fn begin_attempt(self: &Arc<Self>, of: &Belonging, consent: bool, needed: bool) -> Answer<()> {
        let _one = self.learning.beginning.lock().await;
        if self.attempt(of).is_some() {
            return Ok(());
        }
        if needed && !consent {
            let words = "its author is not the platform: consent to the safety disclaimer first";
            return Err(Refusal::new(hyper::StatusCode::FORBIDDEN, words));
        }
        let plan = of.plan().ok_or_else(|| Refusal::not_found("it has no playground"))?;
        let playground = plan.playground.to_owned();
        self.create(Wishes { belongs: Some(of.clone()), ..Wishes::of(playground, consent) }).await?;
        self.learning.note_attempt(of);
        Ok(())
    }

    /// Ends the attempt that goes on, if there is one: its play is erased.
    ///
    /// # Errors
    /// Those of `act`.
    pub(crate) fn end_attempt(self: &Arc<Self>, of: &Belonging) -> Answer<()> {
        match self.attempt(of) {
            Some(play) => self.act(&play.id, Action::Destroy).map(drop),
            None => Ok(()),
        }
    }

    /// Notes that a challenge is solved, if this play's is by its last task.
    pub(super) fn note_if_solved(&self, record: &Record) {
        let solved = record.tasks.iter().all(|one| one.task.helper || one.task.status == TaskStatus::COMPLETED);
        if let Some(of @ Belonging::Challenge(_)) = record.belongs.as_ref().filter(|_| solved) {
            self.learning.note_completed(of);
        }
    }
}

/// The words of a status for lists.
pub(crate) fn status(kind: LearningKind, completed: bool, attempted: bool) -> &'static str {
    match (kind, completed, attempted) {
        (LearningKind::Challenge, true, _) => "solved",
        (_, true, _) => "completed",
        (_, false, true) => "attempted",
        (_, false, false) => "todo",
    }
}
