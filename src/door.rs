//! SSH of our own to a machine that runs: a connection of an earlier command may have left a session, and only without
//! one a tunnel is requested.

use std::time::Duration;

use futures_util::future::join_all;

use crate::{
    app::App,
    cluster::{
        api::Api,
        find::{self as in_cluster, Place},
    },
    error::{Error, Kind, Result, printable},
    inside,
    labs::{Labs, TunnelSession, find, tunnel, wire::Play},
    moment::ago,
    records::tunnels::{Known, Slot},
    ssh::{
        client::{Login, SshClient},
        credentials::{Credentials, KeyOptions},
        identity::{self, Identity},
    },
    ssh_config::client::Ssh,
    target::{PodName, Target},
    wake,
};

/// The age up to which a session that leads nowhere is not the reason for that.
const YOUNG: Duration = Duration::from_secs(5 * 60);

/// The user who may look into the containers of a machine.
pub(crate) const ROOT: &str = "root";

/// The login of a user at a machine.
pub(crate) fn login(play: &Play, machine: &str, user: &str) -> Login {
    Login {
        alias: Target::of_play(&play.id, Some(machine)).to_string(),
        play: play.id.clone(),
        shown: play.shown(),
        machine: machine.to_owned(),
        user: user.to_owned(),
    }
}

/// Asks the cluster whose kubeconfig lies on the machine that `ssh` is logged in to, as root, for the container that `name`
/// means. Returns the machine, too, that is its node.
///
/// # Errors
/// As [`Api::open`] and [`in_cluster::container`]; [`Kind::NotFound`] when no machine has the container.
pub(crate) async fn place_of(app: &App, labs: &Labs, ssh: SshClient, name: &PodName) -> Result<(String, Place)> {
    let play = find::by_id(labs, &ssh.login().play).await?;
    let user = find::machine(&play, Some(&ssh.login().machine))?.default_user();
    let api = Api::open(ssh, user).await?;
    let place = in_cluster::container(&api, name).await;
    api.into_ssh().close().await;
    let place = place?;
    Ok((machine_of(app, labs, &play, &place).await?, place))
}

/// The machine that a pod's container runs on: the one that is called as its node, or else the one that has it.
///
/// # Errors
/// [`Kind::NotFound`] when none has it.
async fn machine_of(app: &App, labs: &Labs, play: &Play, place: &Place) -> Result<String> {
    if play.machines.iter().any(|machine| machine.name == place.node) {
        return Ok(place.node.clone());
    }
    let up = play.machines.iter().filter(|one| !play.has_no_ssh(&one.name) && !wake::is_down(play, &one.name));
    let door = &match Door::unasked(app, labs).await {
        Ok(door) => door,
        Err(_) => Door::as_ssh(app, labs, &Target::of_play(&play.id, None).to_string()).await?,
    };
    let asked = up.map(async |one| {
        let client = door.open(&login(play, &one.name, ROOT), None).await?;
        let listing = inside::list_if_any(&client).await;
        client.close().await;
        // A machine without an engine has no containers.
        let all = listing?.map(|listing| listing.containers).unwrap_or_default();
        Ok::<_, Error>(all.iter().any(|container| container.id == place.id).then(|| one.name.clone()))
    });
    let mut unable = None;
    for answer in join_all(asked).await {
        match answer {
            Ok(Some(machine)) => return Ok(machine),
            Ok(None) => {}
            Err(error) => unable = Some(error),
        }
    }
    // One that could not be asked may have it.
    Err(unable.unwrap_or_else(|| {
        let (pod, node, shown) = (printable(&place.pod), printable(&place.node), play.shown());
        let message = format!("pod {pod} of playground {shown} is on node {node}, and no machine has its container");
        Error::new(Kind::NotFound, message)
            .with_hint("a node that is itself a container, as kind's are, cannot be entered")
    }))
}

/// The keys and the means with which machines are logged in to.
pub(crate) struct Door<'a> {
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
    pub(crate) async fn unasked(app: &'a App, labs: &Labs) -> Result<Door<'a>> {
        let missing = || Error::new(Kind::File, "there is no key that logs in without a question");
        let identity = identity::load(&app.identity_path()?)?.ok_or_else(missing)?;
        let credentials = Credentials::without_asking(&identity).await.ok_or_else(missing)?;
        Ok(Door { app, labs: labs.clone(), identity, credentials })
    }

    /// A door that is opened with the keys that ssh has for the host `alias`. A passphrase is asked for now.
    ///
    /// # Errors
    /// [`Kind::File`] without a key.
    pub(crate) async fn as_ssh(app: &'a App, labs: &Labs, alias: &str) -> Result<Door<'a>> {
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
    pub(crate) fn key(&self) -> Result<String> {
        self.identity.authorized_key()
    }

    /// Logs in over a session that is kept, or else over a new one. `called` is another host name of the machine, under
    /// which a connection may have left its session.
    ///
    /// # Errors
    /// Those of the way there.
    pub(crate) async fn open(&self, login: &Login, called: Option<&str>) -> Result<SshClient> {
        let request = async || {
            let offer = self.labs.start_tunnel(&login.play, &login.machine, &login.user, &self.key()?).await?;
            self.labs.log_into_tunnel(&offer).await
        };
        self.open_by(&self.labs, login, called, request).await
    }

    /// As [`Door::open`], with `labs` as the way and a request of the caller's for a new session.
    pub(crate) async fn open_by(
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
