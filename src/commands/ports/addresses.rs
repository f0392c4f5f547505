//! The addresses that a machine's servers listen on. A scan does not tell them, so the machine's kernel is asked, over
//! SSH. That is a courtesy: it wakes nothing, asks the user nothing, waits for nothing, and costs a tunnel request only
//! if no earlier connection has left a session.

use std::{net::SocketAddr, time::Duration};

use tokio::time::timeout;

use crate::{
    app::App,
    error::{Error, Kind, Result},
    labs::{
        Labs, TunnelSession, tunnel,
        wire::{Machine, Play},
    },
    os,
    records::tunnels::{Known, Slot},
    ssh::{
        client::{Login, SshClient},
        credentials::Credentials,
        identity::{self, Identity},
        marked::Marked,
    },
    target::Target,
};

/// Time limit for all of it.
const LIMIT: Duration = Duration::from_secs(8);
/// Prints the listening sockets of the kernel's tables: the state is a field of its own.
const SCRIPT: &str = "cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep \" 0A \"";
/// More bytes than the listening sockets of a machine take.
const MAX_OUTPUT: usize = 1 << 20;

/// The addresses on which programs of `machine` listen; `None` if they are not known.
pub(super) async fn of(app: &App, labs: &Labs, play: &Play, machine: &Machine) -> Option<Vec<SocketAddr>> {
    let is_ready = play.machine_status(&machine.name).is_some_and(|status| status.is_ready());
    if !is_ready || play.has_no_ssh(&machine.name) {
        return None;
    }
    match timeout(LIMIT, ask(app, labs, play, machine)).await {
        Ok(Ok(addresses)) => Some(addresses).filter(|addresses| !addresses.is_empty()),
        Ok(Err(error)) => {
            log::info!("the addresses on machine {} are not known: {}", machine.name, error.message());
            None
        }
        Err(_elapsed) => {
            log::info!("the addresses on machine {} are not known: it did not answer in time", machine.name);
            None
        }
    }
}

/// True if a port has a server, and none of its addresses is reached from outside the machine; `None` if it has none.
pub(super) fn is_loopback_only(addresses: &[SocketAddr], port: u16) -> Option<bool> {
    let mut of_port = addresses.iter().filter(|address| address.port() == port).peekable();
    of_port.peek()?;
    Some(of_port.all(|address| address.ip().to_canonical().is_loopback()))
}

async fn ask(app: &App, labs: &Labs, play: &Play, machine: &Machine) -> Result<Vec<SocketAddr>> {
    let missing = || Error::new(Kind::File, "there is no key that logs in without a question");
    let identity = identity::load(&app.identity_path()?)?.ok_or_else(missing)?;
    let credentials = Credentials::without_asking(&identity).await.ok_or_else(missing)?;
    let login = Login {
        alias: Target::of_play(&play.id, Some(&machine.name)).to_string(),
        play: play.id.clone(),
        machine: machine.name.clone(),
        user: machine.default_user().to_owned(),
    };
    let slots = slots(app, labs, play, &login)?;
    for slot in &slots {
        let known = slot.known().filter(|known| known.play == login.play && known.machine == login.machine);
        let Some(known) = known else { continue };
        match listening(app, labs, &known.session(), &login, &credentials).await {
            // It may have expired, or the machine may have been reset.
            Err(error) => {
                log::info!("a new tunnel session is needed: {}", error.message());
                slot.forget();
            }
            found => return found,
        }
    }
    let session = request(labs, &login, &identity).await?;
    let found = listening(app, labs, &session, &login, &credentials).await?;
    if let Some(slot) = slots.first() {
        slot.keep(&Known::new(&login.play, &login.machine, &login.user, None, &session));
    }
    Ok(found)
}

/// The places of the sessions of connections to the machine, by the name with which it was called.
fn slots(app: &App, labs: &Labs, play: &Play, login: &Login) -> Result<Vec<Slot>> {
    let mut slots = Vec::new();
    for machine in [Some(login.machine.as_str()), None] {
        let host = Target::of_play(&play.id, machine).to_string();
        slots.extend(app.tunnel_slot(labs, &host, &login.user)?);
    }
    Ok(slots)
}

async fn request(labs: &Labs, login: &Login, identity: &Identity) -> Result<TunnelSession> {
    let offer = labs.start_tunnel(&login.play, &login.machine, &login.user, &identity.authorized_key()?).await?;
    labs.log_into_tunnel(&offer).await
}

async fn listening(
    app: &App,
    labs: &Labs,
    session: &TunnelSession,
    login: &Login,
    credentials: &Credentials,
) -> Result<Vec<SocketAddr>> {
    let stream = labs.dial(session, tunnel::SSH).await?;
    let client = SshClient::connect(stream, &app.known_hosts(), login, credentials).await?;
    let marked = Marked::new();
    let output = client.output(&marked.command(SCRIPT), MAX_OUTPUT).await;
    client.close().await;
    let output = output?;
    let found = marked.find(&output.stdout).map(|found| String::from_utf8_lossy(found.output).into_owned());
    let sockets = os::listening_sockets(&found.unwrap_or_default());
    Ok(sockets.into_iter().map(|(address, _)| address).collect())
}

#[cfg(test)]
mod tests {
    use super::is_loopback_only;

    #[test]
    fn one_address_that_is_reached_from_outside_is_enough() {
        let addresses = ["127.0.0.1:1", "[::1]:1", "127.0.0.1:2", "0.0.0.0:2", "[::ffff:127.0.0.1]:3", "[fe80::1]:4"];
        let addresses = addresses.map(|address| address.parse().unwrap());
        let only = [1, 2, 3, 4, 5].map(|port| is_loopback_only(&addresses, port));
        assert_eq!(only, [Some(true), Some(false), Some(true), Some(false), None]);
    }
}
