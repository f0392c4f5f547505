//! A forward whose listener on this side is open.

use std::{sync::Arc, time::Duration};

use tokio::{net::UdpSocket, task::JoinSet};

use super::{
    board::{Board, Row, What},
    entrance::Entrance,
    local::{self, Listeners, Local},
    remote::{Listener, Remote},
    spec::{Endpoint, Forward, Listen, Side},
    udp::{self, Relay, Udp},
    way::{Opens, Way},
};
use crate::{
    error::{Error, Kind, Result},
    records::forwards::is_machine_itself,
    target::host_port,
};

/// A forward whose listener on this side is open already, so that a port that is taken fails before anything is woken.
pub(super) enum Bound {
    Local(Endpoint, Listeners),
    Udp((String, u16), Vec<UdpSocket>),
    Remote(Listen, Endpoint),
}

impl Bound {
    /// The kind of session that its way needs.
    pub(super) fn opens(&self, over_ssh: bool) -> Opens {
        match self {
            Bound::Local(Endpoint::Port(..), _) if !over_ssh => Opens::Ports,
            Bound::Remote(Listen::Port(_, 1..), _) => Opens::Ports,
            Bound::Local(..) | Bound::Udp(..) | Bound::Remote(..) => Opens::Ssh,
        }
    }

    /// The port of `machine` itself to which it leads from this computer by TCP.
    pub(super) fn leads_to(&self, machine: &str) -> Option<u16> {
        match self {
            Bound::Local(Endpoint::Port(host, port), _) if is_machine_itself(host, machine) => Some(*port),
            Bound::Local(..) | Bound::Udp(..) | Bound::Remote(..) => None,
        }
    }

    /// Opens the listener on this side.
    ///
    /// # Errors
    /// Fails when it cannot be opened, and for UDP in the other direction.
    pub(super) async fn new(Forward { side, spec, .. }: &Forward, board: &Board) -> Result<Bound> {
        match (side, spec.udp, &spec.listen, &spec.to) {
            (Side::Remote, true, ..) => {
                Err(Error::new(Kind::Usage, format!("`{spec}`: a machine cannot listen for UDP"))
                    .with_hint("use -L to forward UDP"))
            }
            (Side::Remote, false, listen, to) => Ok(Bound::Remote(listen.clone(), to.clone())),
            (Side::Local, true, Listen::Port(bind, port), Endpoint::Port(host, to)) => {
                Ok(Bound::Udp((host.clone(), *to), udp::bind(bind, *port, board).await?))
            }
            (Side::Local, _, listen, to) => Ok(Bound::Local(to.clone(), Listeners::bind(listen, board).await?)),
        }
    }

    /// Opens the other side, and begins to carry.
    ///
    /// # Errors
    /// Fails when the machine does not listen, or cannot relay UDP.
    pub(super) async fn open(
        self,
        tasks: &mut JoinSet<Result<()>>,
        way: Arc<Way>,
        over_ssh: bool,
        idle: Duration,
        board: &Arc<Board>,
    ) -> Result<()> {
        let row = |kind, protocol, address: String, to: String| -> Arc<Row> {
            let (machine, container) = (way.machine().to_owned(), way.entrance().map(Entrance::label));
            board.listening(What { kind, protocol, machine, container, address, to })
        };
        let board = Arc::clone(board);
        match self {
            Bound::Local(to, listeners) => {
                let row = row("local", listeners.protocol(), listeners.address(), to.to_string());
                let local = Local { way, to, over_ssh, board, row };
                tasks.spawn(local.serve(listeners));
            }
            Bound::Udp((host, port), sockets) => {
                let relay = Relay::start(&way, &host, port).await?;
                let address = sockets.first().and_then(|s| s.local_addr().ok()).map(local::shown).unwrap_or_default();
                let row = row("local", "udp", address, host_port(&host, port));
                tasks.spawn(Udp { way, to: (host, port), idle, board, row }.serve(sockets, relay));
            }
            Bound::Remote(listen, to) => {
                let (listener, address) = Listener::open(&way, &listen).await?;
                let protocol = if matches!(listen, Listen::Socket(_)) { "unix" } else { "tcp" };
                let row = row("remote", protocol, address, to.to_string());
                tasks.spawn(Remote { way, listen, to, board, row }.serve(listener));
            }
        }
        Ok(())
    }
}
