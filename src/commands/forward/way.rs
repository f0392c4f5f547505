//! The way into a machine for as long as a forward lasts: one tunnel session for all connections, and a new one when it
//! has run out or the machine has been away.
//!
//! To forward is a deliberate act, so the first start may wake the playground. What comes later is some program's
//! connection, and no reason to wake a playground that was stopped meanwhile.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

use crate::{
    app::App,
    error::{Error, Kind, Result},
    labs::{
        Labs, TunnelSession, find,
        http::Stream,
        tunnel::{self, Tunnel},
        wire::{Machine, Play},
    },
    moment::now,
    records::memory::Memory,
    ssh::client::{Login, SshClient},
    target::Target,
    ui::notice::Progress,
    wake::{Visitor, Wake},
};

use super::board::Board;

/// How long a connection waits for a machine that is on its way, a reboot for example.
const PATIENCE: Duration = Duration::from_secs(60);
/// A session that is younger than this was just asked for: that the platform is busy has another reason.
const FRESH: Duration = Duration::from_secs(1);
/// Between two looks at a machine that is away. The platform is asked for one thing at most once in 10 s.
const AWAY: Duration = Duration::from_secs(10);

/// What has lasted this long may be begun again at once.
const LASTING: Duration = Duration::from_secs(5);

/// See the module.
pub struct Way {
    labs: Labs,
    memory: Memory,
    play: String,
    login: Login,
    key: String,
    board: Arc<Board>,
    /// Held while a new one is asked for, so that one connection asks for all.
    session: Mutex<Option<Kept>>,
}

/// A session that connections share.
struct Kept {
    session: TunnelSession,
    since: Instant,
    opens: Opens,
}

/// The kinds of tunnel sessions. The official client sends no key for mere forwards, and a machine without SSH
/// may take those.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Opens {
    /// Connections to ports.
    Ports,
    /// The SSH server, too: the machine gets our key.
    Ssh,
}

impl Way {
    /// The way to `machine` of `play` as its user `user`. Nothing is asked of the platform yet.
    ///
    /// # Errors
    /// When there is no usable identity.
    pub fn new(app: &App, labs: &Labs, play: &Play, machine: &Machine, user: &str, board: &Arc<Board>) -> Result<Way> {
        let identity = app.identity()?;
        Ok(Way {
            labs: labs.clone(),
            memory: app.memory(),
            play: play.id.clone(),
            key: identity.authorized_key()?,
            login: Login {
                known_hosts: app.known_hosts(),
                alias: Target::of_play(&play.id, Some(&machine.name)).to_string(),
                play: play.id.clone(),
                machine: machine.name.clone(),
                user: user.to_owned(),
                identity,
            },
            board: Arc::clone(board),
            session: Mutex::default(),
        })
    }

    /// The machine's name.
    pub fn machine(&self) -> &str {
        &self.login.machine
    }

    /// Wakes the playground if it sleeps, and gets the first session.
    ///
    /// # Errors
    /// As [`Wake::tunnel`].
    pub async fn begin(&self, opens: Opens, limit: Duration, progress: &impl Progress) -> Result<()> {
        let mut kept = self.session.lock().await;
        let session = self.ask(opens, true, limit, progress).await?;
        *kept = Some(Kept { session, since: Instant::now(), opens });
        Ok(())
    }

    /// A connection to `target` (`HOST:PORT`), seen from the machine.
    ///
    /// # Errors
    /// [`Kind::NotWoken`] when the playground was stopped, [`Kind::Ended`] and [`Kind::NotFound`] when it is gone,
    /// [`Kind::Network`] and the like when there is no way to it now.
    pub async fn dial(&self, target: &str) -> Result<Tunnel<Stream>> {
        Ok(Tunnel::client(self.open(target, Opens::Ports).await?))
    }

    /// Has the machine listen on `address`; the answer is the control channel.
    ///
    /// # Errors
    /// As [`Way::dial`]; [`Kind::Refused`] when it cannot be bound there.
    pub async fn listen(&self, address: &str) -> Result<Stream> {
        self.open(&format!("listen:{address}"), Opens::Ports).await
    }

    /// An SSH connection to the machine.
    ///
    /// # Errors
    /// As [`Way::dial`] and [`SshClient::connect`].
    pub async fn ssh(&self) -> Result<SshClient> {
        let tunnel = Tunnel::client(self.open(tunnel::SSH, Opens::Ssh).await?);
        SshClient::connect(tunnel, &self.login).await
    }

    async fn open(&self, target: &str, opens: Opens) -> Result<Stream> {
        let session = self.session(opens, None, false).await?;
        match self.labs.open(&session, target).await {
            Ok(opened) => Ok(opened),
            // About the target (a bad one, an address that is taken), so that another session would not help.
            Err(error) if matches!(error.status(), Some(400 | 409)) => Err(error),
            // A session that has run out is refused in several ways.
            Err(error) => {
                log::info!("a new tunnel session is needed: {}", error.message());
                let session = self.session(opens, Some(&session), error.kind() == Kind::NotYet).await?;
                self.labs.open(&session, target).await.map_err(|error| match error.kind() {
                    // The tunnel's token is not the login.
                    Kind::NotLoggedIn | Kind::NotFound => {
                        Error::new(Kind::Network, format!("machine {} refuses the tunnel", self.machine())).with_hint(
                            format!("`labctl-ssh-proxy doctor {}` looks at the whole way there", self.login.alias),
                        )
                    }
                    _ => error,
                })
            }
        }
    }

    /// The session for all, or a new one instead of `stale`.
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

    /// Does `work` again and again until it succeeds: for what must come back by itself after the machine was away.
    ///
    /// # Errors
    /// When the playground is gone for good.
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

/// The pauses between tries. Each is twice as long as the one before, up to [`AWAY`].
pub struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Pauses(Duration::from_millis(500))
    }
}

impl Pauses {
    async fn next(&mut self) {
        let pause = self.0;
        self.0 = (pause * 2).min(AWAY);
        sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
    }

    /// Before what began at `since` and has ended is begun again: what has not lasted is no success.
    pub async fn after(&mut self, since: Instant) {
        if since.elapsed() < LASTING {
            self.next().await;
        } else {
            *self = Pauses::default();
        }
    }
}

/// Whether the playground itself is gone, or we are no longer let in: nothing that waits will see it again.
pub fn is_final(error: &Error) -> bool {
    matches!(error.kind(), Kind::Ended | Kind::NotFound | Kind::NotLoggedIn | Kind::HostKey)
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
