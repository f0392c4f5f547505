//! SSH to a running machine as a courtesy, for what is shown or offered: it wakes nothing, asks the user nothing, and
//! costs a tunnel request only if no earlier connection has left a session.

use crate::{
    app::App,
    error::{Error, Kind, Result},
    labs::{Labs, TunnelSession, tunnel},
    records::tunnels::{Known, Slot},
    ssh::{
        client::{Login, SshClient},
        credentials::Credentials,
        identity::{self, Identity},
    },
    target::Target,
};

/// Logs in to a machine that runs, and returns what `work` returns. `called` is another host name of the machine, under
/// which a connection may have left its session.
///
/// # Errors
/// [`Kind::File`] without a key that logs in unasked, those of `work`, and those of the way there.
pub(super) async fn on_machine<T>(
    app: &App,
    labs: &Labs,
    login: &Login,
    called: Option<&str>,
    work: impl AsyncFn(&SshClient) -> Result<T>,
) -> Result<T> {
    let missing = || Error::new(Kind::File, "there is no key that logs in without a question");
    let identity = identity::load(&app.identity_path()?)?.ok_or_else(missing)?;
    let credentials = Credentials::without_asking(&identity).await.ok_or_else(missing)?;
    with_keys(app, labs, login, called, (&identity, &credentials), work).await
}

/// The same with keys that are at hand.
///
/// # Errors
/// Those of `work`, and those of the way there.
pub(super) async fn with_keys<T>(
    app: &App,
    labs: &Labs,
    login: &Login,
    called: Option<&str>,
    (identity, credentials): (&Identity, &Credentials),
    work: impl AsyncFn(&SshClient) -> Result<T>,
) -> Result<T> {
    let over = async |session: &TunnelSession| {
        let stream = labs.dial(session, tunnel::SSH).await?;
        let client = SshClient::connect(stream, &app.known_hosts(), login, credentials).await?;
        let done = work(&client).await;
        client.close().await;
        // The work's own failure says nothing about the way.
        Ok::<_, Error>(done)
    };
    let slots = slots(app, labs, login, called)?;
    for slot in &slots {
        let known = slot.known().filter(|known| known.play == login.play && known.machine == login.machine);
        let Some(known) = known else { continue };
        match over(&known.session()).await {
            // It may have expired, or the machine may have been reset.
            Err(error) => {
                log::info!("a new tunnel session is needed: {}", error.message());
                slot.forget();
            }
            Ok(done) => return done,
        }
    }
    let session = request(labs, login, identity).await?;
    let done = over(&session).await?;
    if let Some(slot) = slots.first() {
        slot.keep(&Known::new(&login.play, &login.machine, &login.user, None, &session));
    }
    done
}

/// The places of the sessions of connections to the machine, by the name with which it was called.
fn slots(app: &App, labs: &Labs, login: &Login, called: Option<&str>) -> Result<Vec<Slot>> {
    let mut slots = Vec::new();
    for machine in [Some(login.machine.as_str()), None] {
        let host = Target::of_play(&login.play, machine).to_string();
        slots.extend(app.tunnel_slot(labs, &host, &login.user)?);
    }
    if let Some(called) = called {
        slots.extend(app.tunnel_slot(labs, called, &login.user)?);
    }
    Ok(slots)
}

async fn request(labs: &Labs, login: &Login, identity: &Identity) -> Result<TunnelSession> {
    let offer = labs.start_tunnel(&login.play, &login.machine, &login.user, &identity.authorized_key()?).await?;
    labs.log_into_tunnel(&offer).await
}
