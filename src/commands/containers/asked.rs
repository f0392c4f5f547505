//! A machine that is asked about its containers.

use helper::wire::Container;

use super::Answer;
use crate::{commands::running::Running, error::Result, inside, target::Target, ui::notice::Progress};

impl Running<'_> {
    /// The answer with its names.
    pub(super) fn answer(&self, found: Result<Vec<Container>>) -> Answer {
        Answer {
            machine: self.login.machine.clone(),
            host: Target::of_play(&self.login.play, Some(&self.login.machine)),
            found: found.map_err(|error| error.on(self.app.platform)),
        }
    }

    /// Lists the containers.
    ///
    /// # Errors
    /// As [`Running::client`] and [`inside::list`].
    pub(super) async fn list(&self, progress: &impl Progress) -> Result<Vec<Container>> {
        let client = self.client(true, progress).await?;
        let listing = inside::list(&client).await;
        client.close().await;
        Ok(listing?.containers)
    }
}
