//! The connection to a machine for as long as a forward lasts. All forwarded connections share one tunnel session. A
//! new session replaces it when it has expired or the machine was unavailable.
//!
//! Running `port-forward` is a deliberate act, so its start may wake the playground. A later connection comes from some
//! program, and is no reason to wake a playground that was stopped meanwhile.

use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, OnceCell},
    time::{Instant, sleep},
};

use crate::{
    app::App,
    error::{Error, Kind, Result},
    hold::{
        self, Held, Options, orphans,
        placing::{Placing, survives},
        reach::{Destination, Route},
    },
    labs::{
        Labs, TunnelSession, find,
        http::Stream,
        retry,
        tunnel::{self, Tunnel},
        wire::{Machine, Play},
    },
    moment::now,
    records::{
        memory::Memory,
        relays::{Known, Relays, Whose},
        tickets::Tickets,
    },
    settings::ResumePolicy,
    ssh::{
        client::{Login, SshClient},
        credentials::{Credentials, KeyOptions},
        identity::Identity,
        known_hosts::KnownHosts,
    },
    ssh_config::client::Ssh,
    target::Target,
    ui::notice::Progress,
    wake::{Visitor, Wake},
};

use super::{board::Board, entrance::Entrance};

/// Time limit for a connection that waits for a machine, for example during a reboot.
const PATIENCE: Duration = Duration::from_secs(60);
/// Age below which a session counts as new. If the platform is busy then, the session is not the reason.
const FRESH: Duration = Duration::from_secs(1);
/// Longest pause between two checks of a machine that is unavailable. The platform gets each request at most once in 10
/// s.
const AWAY: Duration = Duration::from_secs(10);

/// Minimum lifetime of a listener or relay that may be restarted without a pause.
const LASTING: Duration = Duration::from_secs(5);

/// The connection to one machine, with the session that all forwards share.
pub struct Way {
    labs: Labs,
    memory: Memory,
    play: String,
    login: Login,
    key: String,
    known_hosts: KnownHosts,
    identity: Identity,
    home: PathBuf,
    /// The private halves, once an SSH connection needs them.
    credentials: OnceCell<Credentials>,
    board: Arc<Board>,
    /// The container of the machine to which all forwards lead instead.
    entrance: Option<Entrance>,
    holding: Holding,
    /// Locked while a new session is requested, so that one request serves all connections.
    session: Mutex<Option<Kept>>,
}

/// The means of SSH connections that survive an outage, over a relay on the machine.
struct Holding {
    relays: Relays,
    tickets: Tickets,
    /// The choice by which they do; `None` where they do not.
    policy: Option<ResumePolicy>,
    options: Options,
    /// The number of sessions of killed processes that were ended on the machine, once it was looked for them.
    orphans: OnceCell<usize>,
}

/// A session that all connections share.
struct Kept {
    session: TunnelSession,
    since: Instant,
    opens: Opens,
}

/// The uses of a tunnel session. For ports alone we send no key, as the official client does, because a machine without
/// SSH may accept such a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Opens {
    /// Connections to ports.
    Ports,
    /// Connections to ports and to the SSH server. The machine gets our key.
    Ssh,
}

impl Way {
    /// Creates the connection to `machine` of `play` as the user `user`. Sends no request yet.
    ///
    /// # Errors
    /// Fails when there is no usable identity.
    pub fn new(app: &App, labs: &Labs, play: &Play, machine: &Machine, user: &str, board: &Arc<Board>) -> Result<Way> {
        let identity = app.identity()?;
        let policy = app.resume_policy(&[&play.id, &play.playground.name]);
        let holding = Holding {
            relays: Relays::below(&app.folders.root),
            tickets: Tickets::below(&app.folders.root),
            policy: survives(policy, play.belongs_to_a_lesson()).then_some(policy),
            options: Options { resume_for: app.settings.resume_for() },
            orphans: OnceCell::new(),
        };
        Ok(Way {
            labs: labs.clone(),
            memory: app.memory(),
            play: play.id.clone(),
            key: identity.authorized_key()?,
            login: Login {
                alias: Target::of_play(&play.id, Some(&machine.name)).to_string(),
                play: play.id.clone(),
                shown: play.shown(),
                machine: machine.name.clone(),
                user: user.to_owned(),
            },
            known_hosts: app.known_hosts(),
            identity,
            home: app.folders.home.clone(),
            credentials: OnceCell::new(),
            board: Arc::clone(board),
            entrance: None,
            holding,
            session: Mutex::default(),
        })
    }

    /// Leads all forwards into a container of the machine. Its user is root then.
    #[must_use]
    pub(crate) fn leading_into(self, entrance: Entrance) -> Way {
        Way { entrance: Some(entrance), ..self }
    }

    /// The entrance to the container, if the way leads into one.
    pub(crate) fn entrance(&self) -> Option<&Entrance> {
        self.entrance.as_ref()
    }

    /// The words for its end: the machine or the container.
    pub(crate) fn end(&self) -> String {
        match &self.entrance {
            Some(entrance) => entrance.subject(),
            None => format!("machine {}", self.machine()),
        }
    }

    /// Returns the machine's name.
    pub fn machine(&self) -> &str {
        &self.login.machine
    }

    /// Wakes the playground if it is stopped, and requests the first session.
    ///
    /// # Errors
    /// As [`Wake::tunnel`], and [`Kind::File`] when SSH is wanted and our key cannot be used.
    pub async fn begin(&self, opens: Opens, limit: Duration, progress: &impl Progress) -> Result<()> {
        if opens == Opens::Ssh {
            // A key that cannot be used is reported, and a passphrase asked for, before anything is woken.
            self.credentials().await?;
        }
        let mut kept = self.session.lock().await;
        let session = self.ask(opens, true, limit, progress).await?;
        *kept = Some(Kept { session, since: Instant::now(), opens });
        drop(kept);
        match &self.entrance {
            Some(entrance) => entrance.begin(self, progress).await,
            None => Ok(()),
        }
    }

    /// Connects to `target` (`HOST:PORT`), as the machine sees it.
    ///
    /// # Errors
    /// [`Kind::NotWoken`] when the playground was stopped, [`Kind::Ended`] and [`Kind::NotFound`] when it no longer
    /// exists, [`Kind::Network`] and similar kinds when the machine cannot be reached.
    pub async fn dial(&self, target: &str) -> Result<Tunnel<Stream>> {
        Ok(Tunnel::client(self.open(target, Opens::Ports).await?))
    }

    /// Makes the machine listen on `address`, and returns the control channel.
    ///
    /// # Errors
    /// The errors of [`Way::dial`], and [`Kind::Refused`] when the address cannot be bound.
    pub async fn listen(&self, address: &str) -> Result<Stream> {
        self.open(&format!("listen:{address}"), Opens::Ports).await
    }

    /// Opens an SSH connection to the machine, one that survives an outage where the machine allows it.
    ///
    /// # Errors
    /// As [`Way::dial`] and [`SshClient::connect`].
    pub async fn ssh(&self) -> Result<SshClient> {
        if let Some(client) = self.known_to_last().await {
            return Ok(client);
        }
        let tunnel = Tunnel::client(self.open(tunnel::SSH, Opens::Ssh).await?);
        let client = SshClient::connect(tunnel, &self.known_hosts, &self.login, self.credentials().await?).await?;
        if let Some(placing) = self.placing().await
            && placing.by(&client).await.is_some()
            && let Some(lasting) = self.known_to_last().await
        {
            client.close().await;
            return Ok(lasting);
        }
        Ok(client)
    }

    /// Opens an SSH connection that survives an outage, if the machine's relay is known and no question is to be asked:
    /// for what could do without.
    pub async fn lasting(&self) -> Option<SshClient> {
        if self.credentials.get().is_none() {
            Credentials::without_asking(&self.identity).await?;
        }
        self.known_to_last().await
    }

    /// Ends the sessions of killed processes on the machine, which may listen where this one is to. Returns true if
    /// there were any.
    pub async fn orphans_ended(&self) -> bool {
        let end = async || {
            let session = self.session(Opens::Ports, None, false).await?;
            let Login { play, machine, .. } = &self.login;
            Ok::<_, Error>(orphans::end(&self.labs, &session, &self.holding.tickets, play, machine).await)
        };
        self.holding.orphans.get_or_try_init(end).await.is_ok_and(|ended| *ended > 0)
    }

    /// Opens an SSH connection over the machine's relay, if one is known. A relay that does not answer is forgotten.
    async fn known_to_last(&self) -> Option<SshClient> {
        self.orphans_ended().await;
        self.holding.policy?;
        let known = self.holding.relays.known(self.whose())?;
        match self.over(&known).await {
            Ok(client) => Some(client),
            Err(error) => {
                log::info!("the relay that was known is of no use: {}", error.message());
                // Without a network, it may run.
                if error.kind() != Kind::Network {
                    self.holding.relays.drop(self.whose());
                }
                None
            }
        }
    }

    async fn over(&self, known: &Known) -> Result<SshClient> {
        let stream = self.open(&format!("127.0.0.1:{}", known.new_port), Opens::Ssh).await?;
        let session = self.session(Opens::Ssh, None, false).await?;
        let Login { play, machine, user, .. } = self.login.clone();
        let to = Destination { play, machine, user, key: self.key.clone() };
        let route = Route::new(&self.labs, to, session, known.up_since.clone(), self.holding.tickets.clone());
        let connected = route.adopt(stream);
        let held = Held::begin(connected, &hold::Relay::from(known), route, self.holding.options).await?;
        SshClient::connect(held, &self.known_hosts, &self.login, self.credentials().await?).await
    }

    /// Returns the means to place a relay, if the machine may have one and has not refused it lately.
    async fn placing(&self) -> Option<Placing> {
        let policy = self.holding.policy?;
        if self.holding.relays.refused(self.whose()).is_some() {
            return None;
        }
        Some(Placing {
            labs: self.labs.clone(),
            session: self.session(Opens::Ssh, None, false).await.ok()?,
            login: self.login.clone(),
            identity: self.identity.clone(),
            known_hosts: self.known_hosts.clone(),
            relays: self.holding.relays.clone(),
            policy,
            up_since: None,
        })
    }

    fn whose(&self) -> Whose<'_> {
        Whose { play: &self.login.play, machine: &self.login.machine, user: &self.login.user }
    }

    /// Returns the keys that ssh would use for this machine.
    async fn credentials(&self) -> Result<&Credentials> {
        let find = async || {
            let options = Ssh::system().key_options(&self.login.alias, &self.home).await.unwrap_or_else(|error| {
                log::warn!("the options of ssh for keys are not known: {}", error.message());
                KeyOptions::of_environment()
            });
            Credentials::find(&self.identity, &options).await
        };
        self.credentials.get_or_try_init(find).await
    }

    async fn open(&self, target: &str, opens: Opens) -> Result<Stream> {
        let session = self.session(opens, None, false).await?;
        match self.labs.open(&session, target).await {
            Ok(opened) => Ok(opened),
            // The target itself was refused (invalid, or its address is taken), so another session would not help.
            Err(error) if matches!(error.status(), Some(400 | 409)) => Err(error),
            // An expired session is refused with various statuses, so this may be one.
            Err(error) => {
                log::info!("a new tunnel session is needed: {}", error.message());
                let session = self.session(opens, Some(&session), error.may_pass()).await?;
                self.labs.open(&session, target).await.map_err(|error| match error.kind() {
                    // This refusal is about the tunnel's token, so it must not be reported as a missing login.
                    Kind::NotLoggedIn | Kind::NotFound => {
                        Error::new(Kind::Network, format!("machine {} refuses the tunnel", self.machine())).with_hint(
                            format!("run `labctl-ssh-proxy doctor {}` to check the whole connection", self.login.alias),
                        )
                    }
                    _ => error,
                })
            }
        }
    }

    /// Returns the shared session, or a new one if it is `stale`.
    async fn session(&self, opens: Opens, stale: Option<&TunnelSession>, busy: bool) -> Result<TunnelSession> {
        let mut kept = self.session.lock().await;
        if let Some(kept) = &*kept
            && kept.opens >= opens
            && (stale.is_none_or(|stale| *stale != kept.session) || busy && kept.since.elapsed() < FRESH)
        {
            return Ok(kept.session.clone());
        }
        let opens = kept.as_ref().map_or(opens, |kept| kept.opens.max(opens));
        let session = self.ask(opens, false, PATIENCE, &*self.board).await?;
        *kept = Some(Kept { session: session.clone(), since: Instant::now(), opens });
        Ok(session)
    }

    async fn ask(
        &self,
        opens: Opens,
        allowed: bool,
        limit: Duration,
        progress: &impl Progress,
    ) -> Result<TunnelSession> {
        let play = find::by_id(&self.labs, &self.play).await?;
        let (memory, deadline) = (&self.memory, Instant::now() + limit);
        let wake = Wake { labs: &self.labs, memory, progress, allowed, decided: now(), deadline };
        let (user, key) = match opens {
            Opens::Ports => ("", ""),
            Opens::Ssh => (self.login.user.as_str(), self.key.as_str()),
        };
        let visitor = Visitor { machine: self.machine(), user, key };
        wake.tunnel(play, visitor).await
    }

    /// Repeats `work` until it succeeds, for everything that must come back after the machine was unavailable.
    ///
    /// # Errors
    /// Fails when the playground no longer exists.
    pub async fn insist<T, F: Future<Output = Result<T>>>(&self, what: &str, work: impl Fn() -> F) -> Result<T> {
        let mut pauses = Pauses::default();
        loop {
            match work().await {
                Ok(done) => return Ok(done),
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => self.board.problem(&format!("{what}: {}", error.message())),
            }
            pauses.next().await;
        }
    }
}

/// The pauses before something is restarted that should last.
pub(crate) struct Pauses(retry::Pauses);

impl Default for Pauses {
    fn default() -> Self {
        Pauses(retry::Pauses::doubling(AWAY))
    }
}

impl Pauses {
    async fn next(&mut self) {
        sleep(self.0.next_pause()).await;
    }

    /// Pauses before the restart of something that ended, unless it has lasted for `LASTING` since `since`.
    pub(crate) async fn after(&mut self, since: Instant) {
        if since.elapsed() < LASTING {
            self.next().await;
        } else {
            *self = Pauses::default();
        }
    }
}

/// Returns true if no later attempt can succeed, because the playground no longer exists or its machine is another one.
/// After a refused login a later one may succeed, and the open connections need none.
pub(crate) fn is_final(error: &Error) -> bool {
    matches!(error.kind(), Kind::Ended | Kind::NotFound | Kind::HostKey)
}

#[cfg(test)]
mod tests {
    use super::{Duration, Instant, LASTING, Pauses};

    #[tokio::test(start_paused = true)]
    async fn what_does_not_last_is_begun_again_ever_later() {
        let (mut pauses, begun) = (Pauses::default(), Instant::now());
        for _ in 0..8 {
            pauses.after(Instant::now()).await;
        }
        assert!(begun.elapsed() > Duration::from_secs(30), "{:?}", begun.elapsed());
        let (long_ago, begun) = (Instant::now() - LASTING, Instant::now());
        pauses.after(long_ago).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        pauses.after(Instant::now()).await;
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }
}
