//! A machine that runs, and root's way there: over a session that is kept, or else by a tunnel that is requested as for a
//! connection that may not wake.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    app::App,
    door::{Door, ROOT, login},
    error::Result,
    labs::{Labs, find, wire::Play},
    moment::now,
    ssh::client::{Login, SshClient},
    ui::notice::Progress,
    wake::{Visitor, Wake, is_down, machine_is_stopped},
};

/// Time limit for a machine that boots.
const PATIENCE: Duration = Duration::from_secs(60);

/// A machine to which root goes, again and again.
pub(crate) struct Running<'a> {
    pub(crate) app: &'a App,
    labs: &'a Labs,
    door: &'a Door<'a>,
    /// Its playground, as it was when the command began.
    play: &'a Play,
    pub(crate) login: Login,
}

impl<'a> Running<'a> {
    /// The machine of that name.
    pub(crate) fn new(app: &'a App, labs: &'a Labs, door: &'a Door<'a>, play: &'a Play, machine: &str) -> Running<'a> {
        Running { app, labs, door, play, login: login(play, machine, ROOT) }
    }

    /// Its name.
    pub(crate) fn machine(&self) -> &str {
        &self.login.machine
    }

    /// Logs in. At `first` the playground is taken as it was found, and later it is asked for where no session is kept.
    ///
    /// # Errors
    /// [`Kind::NotWoken`](crate::error::Kind::NotWoken) when the machine is stopped, and as [`Wake::tunnel`] and
    /// [`SshClient::connect`].
    pub(crate) async fn client(&self, first: bool, progress: &impl Progress) -> Result<SshClient> {
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
