//! A play that is kept current while it is waited for.

use crate::{
    error::Result,
    labs::{Labs, find, messages::Messages, wire::Play},
};

/// A play, kept current by the platform's live messages if it sends any.
pub(super) struct LivePlay<'a> {
    labs: &'a Labs,
    /// The play's id.
    pub(super) id: String,
    /// The play as it is known.
    pub(super) play: Play,
    messages: Messages,
}

impl<'a> LivePlay<'a> {
    /// The play, as it is known now.
    pub(super) fn new(labs: &'a Labs, play: Play) -> LivePlay<'a> {
        let (id, messages) = (play.id.clone(), Messages::of(labs, &play.id));
        LivePlay { labs, id, play, messages }
    }

    /// Asks the platform for the play.
    ///
    /// # Errors
    /// As [`find::by_id`].
    pub(super) async fn refresh(&mut self) -> Result<()> {
        self.play = find::by_id(self.labs, &self.id).await?;
        Ok(())
    }

    /// Waits for a live message; for ever if there are none.
    pub(super) async fn change(&mut self) {
        self.messages.news().await.apply(&mut self.play);
    }
}
