//! A machine that is asked about its containers, and the way to it: over a session that is kept, or else by a tunnel
//! that is requested as for a connection that may not wake.

use std::time::Duration;

use helper::wire::Container;
use tokio::time::Instant;

use super::Answer;
use crate::{
    app::App,
    commands::door::{Door, ROOT, login},
    error::Result,
    inside,
    labs::{Labs, find, wire::Play},
    moment::now,
    ssh::client::{Login, SshClient},
    target::Target,
    ui::notice::Progress,
    wake::{Visitor, Wake, is_down, machine_is_stopped},
};

/// Time limit for a machine that boots.
const PATIENCE: Duration = Duration::from_secs(60);

/// A machine that is asked.
pub(super) struct Asked<'a> {
    app: &'a App,
    labs: &'a Labs,
    door: &'a Door<'a>,
    /// Its playground, as it was when the command began.
    play: &'a Play,
    login: Login,
}

impl<'a> Asked<'a> {
    pub(super) fn new(app: &'a App, labs: &'a Labs, door: &'a Door<'a>, play: &'a Play, machine: &str) -> Asked<'a> {
        Asked { app, labs, door, play, login: login(play, machine, ROOT) }
    }

    pub(super) fn machine(&self) -> &str {
        &self.login.machine
    }

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
    /// As [`Asked::client`] and [`inside::list`].
    pub(super) async fn list(&self, progress: &impl Progress) -> Result<Vec<Container>> {
        let client = self.client(true, progress).await?;
        let listing = inside::list(&client).await;
        client.close().await;
        Ok(listing?.containers)
    }

    /// Logs in. At `first` the playground is taken as it was found, and later it is asked for where no session is kept.
    ///
    /// # Errors
    /// [`Kind::NotWoken`](crate::error::Kind::NotWoken) when the machine is stopped, and as [`Wake::tunnel`] and
    /// [`SshClient::connect`].
    pub(super) async fn client(&self, first: bool, progress: &impl Progress) -> Result<SshClient> {
        let machine = self.machine();
        if first && is_down(self.play, machine) {
            return Err(machine_is_stopped(self.play, machine));
        }
        // The connection before may have been lost with the network that it went through.
        let labs = if first { self.labs.clone() } else { self.labs.dialling_anew() };
        let request = async || {
            let play = if first { self.play.clone() } else { find::by_id(&labs, &self.play.id).await? };
            let (memory, deadline) = (&self.app.memory(), Instant::now() + PATIENCE);
            let wake = Wake { labs: &labs, memory, progress, allowed: false, decided: now(), deadline };
            wake.tunnel(play, Visitor { machine, user: ROOT, key: &self.door.key()? }).await
        };
        self.door.open_by(&labs, &self.login, None, request).await
    }
}
