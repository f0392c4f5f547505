//! `port-forward --auto`: forwards the ports that a scan of the machine finds, as they appear, and closes the forwards
//! again as the ports go.
//!
//! All of these forwards share the way to the machine, so they need no tunnel request of their own. A forward that is
//! closed takes no new connection, and those that are open go on to their end.

pub(super) mod plan;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    app::App,
    error::{Error, Kind, Result},
    labs::{
        Labs, find,
        wire::{ScannedPort, State},
    },
    platform::Platform,
    records::{
        forwards::{self, OpenForward},
        relays::Relays,
    },
    settings::Folders,
};

use super::{
    board::{Board, Row, What},
    local::{Listeners, Local},
    spec::{Bind, Endpoint, Listen},
    way::{Way, is_final},
};
use plan::{Plan, Ports, listened_on, named, plan};

/// The shortest time from one scan to the next. A scan is work for the platform and for each server that it touches.
const EVERY: Duration = Duration::from_secs(10);

/// The forwards that follow the ports of one machine.
pub(super) struct Auto {
    labs: Labs,
    folders: Folders,
    play: String,
    way: Arc<Way>,
    over_ssh: bool,
    excluded: Ports,
    /// The ports of the machine that other forwards of this command lead to.
    fixed: BTreeSet<u16>,
    /// True if the machine is this computer, so that a port that is taken there is taken here.
    is_here: bool,
    board: Arc<Board>,
    open: BTreeMap<u16, Open>,
    tasks: JoinSet<Result<()>>,
    said: Said,
    has_scanned: bool,
}

/// A forward.
struct Open {
    row: Arc<Row>,
    /// The number of scans in a row that have missed its port.
    missed: u32,
    /// Dropped to close its listener.
    _stop: oneshot::Sender<()>,
}

/// The conditions that were reported, and last. Each is reported once.
#[derive(Default)]
struct Said {
    fails: bool,
    leaves_out: bool,
}

impl Auto {
    /// Makes ready to follow the ports of the machine at the end of `way`.
    pub(super) fn new(app: &App, labs: &Labs, play: &str, way: Arc<Way>, board: &Arc<Board>) -> Auto {
        Auto {
            // A failed scan is repeated at the time of the next.
            labs: labs.clone().without_repetition(),
            folders: app.folders.clone(),
            play: play.to_owned(),
            way,
            over_ssh: false,
            excluded: Ports::default(),
            fixed: BTreeSet::new(),
            is_here: app.platform == Platform::Local,
            board: Arc::clone(board),
            open: BTreeMap::new(),
            tasks: JoinSet::new(),
            said: Said::default(),
            has_scanned: false,
        }
    }

    /// Sets what is not to be forwarded: the ports that the user excludes, and those that other forwards lead to.
    pub(super) fn without(self, excluded: Ports, fixed: BTreeSet<u16>) -> Auto {
        Auto { excluded, fixed, ..self }
    }

    /// Sets how connections are carried.
    pub(super) fn over_ssh(self, over_ssh: bool) -> Auto {
        Auto { over_ssh, ..self }
    }

    /// Follows the ports until the playground no longer exists. The first scan is due at `next`.
    ///
    /// # Errors
    /// Fails when the playground no longer exists.
    pub(super) async fn run(mut self, mut next: Instant) -> Result<()> {
        loop {
            tokio::select! {
                () = sleep_until(next) => next = self.turn().await?,
                // A forward ends by itself only when the playground no longer exists.
                Some(ended) = self.tasks.join_next() => ended.map_err(|e| {
                    Error::new(Kind::Internal, format!("a port forward failed unexpectedly: {e}"))
                })??,
            }
        }
    }

    /// Scans once, and opens and closes what the scan asks for. Returns the time of the next scan.
    ///
    /// # Errors
    /// Fails when the playground no longer exists, or when its ports cannot be scanned at all.
    pub(super) async fn turn(&mut self) -> Result<Instant> {
        let next = Instant::now() + EVERY;
        let scanned = self.labs.scan_ports(&self.play, Some(self.way.machine())).await;
        let is_first = !std::mem::replace(&mut self.has_scanned, true);
        match scanned {
            Ok(found) => {
                if std::mem::take(&mut self.said.fails) {
                    self.board.note("Ports are looked for again.");
                }
                self.follow(&found).await;
                if is_first && self.open.is_empty() {
                    let machine = self.way.machine();
                    self.board.note(&format!(
                        "No port of machine {machine} is to be forwarded yet; it is looked at every {} s.",
                        EVERY.as_secs()
                    ));
                }
                Ok(next)
            }
            Err(error) => {
                self.judge(&error, is_first).await?;
                if !std::mem::replace(&mut self.said.fails, true) {
                    self.board.problem(&format!(
                        "ports are not looked for now, and those that are forwarded stay so: {}",
                        error.message()
                    ));
                }
                Ok(next.max(Instant::now() + error.retry_after().unwrap_or_default()))
            }
        }
    }

    /// Decides whether a scan that failed with `error` is the end.
    async fn judge(&self, error: &Error, is_first: bool) -> Result<()> {
        if error.may_pass() {
            return Ok(());
        }
        // It may have been refused because the playground does not run, which may pass, or is gone.
        let play = match find::by_id(&self.labs, &self.play).await {
            Ok(play) => play,
            Err(gone) if is_final(&gone) => return Err(gone),
            Err(_) => return Ok(()),
        };
        if find::is_gone(&play) {
            let end = if play.state() == Some(&State::Failed) { "has failed" } else { "was destroyed" };
            return Err(Error::new(Kind::Ended, format!("playground {} {end}", play.shown())));
        }
        let is_running = error.status() != Some(409) && !find::is_play_down(&play);
        if is_first && is_running {
            return Err(error.clone());
        }
        Ok(())
    }

    /// Opens and closes what a scan asks for.
    async fn follow(&mut self, found: &[ScannedPort]) {
        let machine = self.way.machine();
        let is_it = |port: &&ScannedPort| {
            (port.machine.is_empty() || port.machine == machine) && !port.protocol.eq_ignore_ascii_case("udp")
        };
        let scan: BTreeSet<u16> = found.iter().filter(is_it).map(|port| port.number).collect();
        let known = self.open.iter().map(|(port, open)| (*port, open.missed)).collect();
        let Plan { open, close, missed, left_out } = plan(&known, &scan, &self.ours(), &self.excluded);
        for port in close {
            if let Some(Open { row, .. }) = self.open.remove(&port) {
                self.board.closed(&row);
            }
        }
        for (port, missed) in missed {
            self.open.entry(port).and_modify(|open| open.missed = missed);
        }
        for port in open {
            match self.forward(port).await {
                Ok(open) => drop(self.open.insert(port, open)),
                Err(error) => {
                    self.board.problem(&format!("port {port} is not forwarded: {}", error.message()));
                }
            }
        }
        if left_out.is_empty() {
            self.said.leaves_out = false;
        } else if !std::mem::replace(&mut self.said.leaves_out, true) {
            self.board.problem(&format!(
                "at most {} ports are forwarded at once, so these are not: {}",
                plan::MOST,
                named(&left_out)
            ));
        }
    }

    /// The machine's ports that are not to be forwarded, because this program listens on them, in any process, or
    /// forwards them in another way.
    fn ours(&self) -> BTreeSet<u16> {
        let playground = &self.play;
        let of_this_process = self.board.listeners().into_iter().map(|what| {
            let What { kind, protocol, machine, container, address, to } = what;
            let (pid, playground) = (std::process::id(), playground.clone());
            let (kind, protocol) = (kind.into(), protocol.into());
            OpenForward { pid, playground, machine, container, kind, protocol, address, to }
        });
        // It knows its own ones even where it cannot record them.
        let all: Vec<OpenForward> = forwards::all(&self.folders).into_iter().chain(of_this_process).collect();
        let mut ours = listened_on(&all, playground, self.way.machine(), self.is_here);
        ours.extend(&self.fixed);
        // A relay listens for this program only.
        let relays = Relays::below(&self.folders.root);
        ours.extend(relays.ports(|play, machine| self.is_here || (play, machine) == (playground, self.way.machine())));
        ours
    }

    /// Forwards a port: from the same number of this computer if it is free, else from any free one.
    async fn forward(&mut self, port: u16) -> Result<Open> {
        // Our own listener would otherwise be what the machine connects to, where the machine is this computer and its
        // server listens on another address.
        let same = if self.is_here { 0 } else { port };
        let listen = |port| Listen::Port(Bind::Host(Ipv4Addr::LOCALHOST.to_string()), port);
        let listeners = match Listeners::bind(&listen(same), &self.board).await {
            Err(_) if same != 0 => Listeners::bind(&listen(0), &self.board).await?,
            bound => bound?,
        };
        let to = Endpoint::Port("localhost".to_owned(), port);
        let row = self.board.listening(What {
            kind: "local",
            protocol: listeners.protocol(),
            machine: self.way.machine().to_owned(),
            container: None,
            address: listeners.address(),
            to: to.to_string(),
        });
        let (stop, stopped) = oneshot::channel();
        let (way, board) = (Arc::clone(&self.way), Arc::clone(&self.board));
        let local = Local { way, to, over_ssh: self.over_ssh, board, row: Arc::clone(&row) };
        self.tasks.spawn(local.serve_until(listeners, async {
            // The sender is only ever dropped.
            let _ = stopped.await;
        }));
        Ok(Open { row, missed: 0, _stop: stop })
    }
}
