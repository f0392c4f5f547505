//! The addresses that a machine's servers listen on. A scan does not tell them, so the machine's kernel is asked, over
//! SSH: as a courtesy, within some seconds.

use std::{net::SocketAddr, time::Duration};

use tokio::time::timeout;

use crate::{
    app::App,
    commands::unasked,
    door::login,
    error::Result,
    labs::{
        Labs,
        wire::{Machine, Play},
    },
    os,
    ssh::{client::SshClient, marked::Marked},
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
    let login = login(play, &machine.name, machine.default_user());
    unasked::on_machine(app, labs, &login, None, listening).await
}

async fn listening(client: &SshClient) -> Result<Vec<SocketAddr>> {
    let marked = Marked::new();
    let output = client.output(&marked.command(SCRIPT), MAX_OUTPUT).await?;
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
