//! SSH of our own to a machine that runs: a connection of an earlier command may have left a session, and only without
//! one a tunnel is requested.

use std::time::Duration;

use crate::{
    app::App,
    error::{Error, Kind, Result},
    labs::{Labs, TunnelSession, tunnel, wire::Play},
    moment::ago,
    records::tunnels::{Known, Slot},
    ssh::{
        client::{Login, SshClient},
        credentials::{Credentials, KeyOptions},
        identity::{self, Identity},
    },
    ssh_config::client::Ssh,
    target::Target,
};

/// The age up to which a session that leads nowhere is not the reason for that.
const YOUNG: Duration = Duration::from_secs(5 * 60);

/// The user who may look into the containers of a machine.
pub(super) const ROOT: &str = "root";

/// The login of a user at a machine.
pub(super) fn login(play: &Play, machine: &str, user: &str) -> Login {
    Login {
        alias: Target::of_play(&play.id, Some(machine)).to_string(),
        play: play.id.clone(),
        shown: play.shown(),
        machine: machine.to_owned(),
        user: user.to_owned(),
    }
}

/// The keys and the means with which machines are logged in to.
pub(super) struct Door<'a> {
    app: &'a App,
    labs: Labs,
    identity: Identity,
    credentials: Credentials,
}

impl<'a> Door<'a> {
    /// A door that is opened without a question to the user.
    ///
    /// # Errors
    /// [`Kind::File`] without a key that logs in unasked.
    pub(super) async fn unasked(app: &'a App, labs: &Labs) -> Result<Door<'a>> {
        let missing = || Error::new(Kind::File, "there is no key that logs in without a question");
        let identity = identity::load(&app.identity_path()?)?.ok_or_else(missing)?;
        let credentials = Credentials::without_asking(&identity).await.ok_or_else(missing)?;
        Ok(Door { app, labs: labs.clone(), identity, credentials })
    }

    /// A door that is opened with the keys that ssh has for the host `alias`. A passphrase is asked for now.
    ///
    /// # Errors
    /// [`Kind::File`] without a key.
    pub(super) async fn as_ssh(app: &'a App, labs: &Labs, alias: &str) -> Result<Door<'a>> {
        let identity = app.identity()?;
        let options = Ssh::system().key_options(alias, &app.folders.home).await;
        let options = options.unwrap_or_else(|_| KeyOptions::of_environment());
        let credentials = Credentials::find(&identity, &options).await?;
        Ok(Door { app, labs: labs.clone(), identity, credentials })
    }

    /// The public half of the key that the platform is to give to a machine.
    ///
    /// # Errors
    /// Fails when it cannot be written as a line.
    pub(super) fn key(&self) -> Result<String> {
        self.identity.authorized_key()
    }

    /// Logs in over a session that is kept, or else over a new one. `called` is another host name of the machine, under
    /// which a connection may have left its session.
    ///
    /// # Errors
    /// Those of the way there.
    pub(super) async fn open(&self, login: &Login, called: Option<&str>) -> Result<SshClient> {
        let request = async || {
            let offer = self.labs.start_tunnel(&login.play, &login.machine, &login.user, &self.key()?).await?;
            self.labs.log_into_tunnel(&offer).await
        };
        self.open_by(&self.labs, login, called, request).await
    }

    /// As [`Door::open`], with `labs` as the way and a request of the caller's for a new session.
    pub(super) async fn open_by(
        &self,
        labs: &Labs,
        login: &Login,
        called: Option<&str>,
        request: impl AsyncFnOnce() -> Result<TunnelSession>,
    ) -> Result<SshClient> {
        let over = async |session: &TunnelSession| {
            let stream = labs.dial(session, tunnel::SSH).await?;
            Ok::<_, Error>(SshClient::connect(stream, &self.app.known_hosts(), login, &self.credentials).await)
        };
        let slots = self.slots(login, called)?;
        for slot in &slots {
            let known = slot.known().filter(|known| known.play == login.play && known.machine == login.machine);
            let Some(known) = known else { continue };
            match over(&known.session()).await {
                Ok(Ok(client)) => return Ok(client),
                // Without a network, it is as good as before, and a new one would lead to the same host.
                Err(error) if error.kind() == Kind::Network && ago(known.since) < YOUNG => return Err(error),
                Err(error) if error.kind() == Kind::Network => log::info!("{}", error.message()),
                Ok(Err(error)) | Err(error) => {
                    log::info!("a new tunnel session is needed: {}", error.message());
                    // It may have expired, or the machine may have been reset.
                    slot.forget();
                }
            }
        }
        let session = request().await?;
        let client = over(&session).await;
        let is_good = match &client {
            Ok(client) => client.is_ok(),
            Err(error) => error.kind() == Kind::Network,
        };
        if let Some(slot) = slots.first().filter(|_| is_good) {
            slot.keep(&Known::new(&login.play, &login.machine, &login.user, None, &session));
        }
        client?
    }

    /// The places of the sessions of connections to the machine, by the name with which it was called.
    fn slots(&self, login: &Login, called: Option<&str>) -> Result<Vec<Slot>> {
        let mut slots = Vec::new();
        for machine in [Some(login.machine.as_str()), None] {
            let host = Target::of_play(&login.play, machine).to_string();
            slots.extend(self.app.tunnel_slot(&self.labs, &host, &login.user)?);
        }
        if let Some(called) = called {
            slots.extend(self.app.tunnel_slot(&self.labs, called, &login.user)?);
        }
        Ok(slots)
    }
}
