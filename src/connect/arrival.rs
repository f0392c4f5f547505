//! From a host name to a machine that is up, and a tunnel session for it.

use std::cell::RefCell;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Connection, Destination};
use crate::{
    connect::client::ClientKind,
    error::{Kind, Result},
    labs::{
        TunnelSession, catalog,
        find::{self, Found},
        wire::Play,
    },
    moment::{Moment, ago, now},
    records::live::Phase,
    settings::{Settings, WakePolicy},
    target::{self, Playground},
    ui::notice::Progress,
    wake::{self, Retry, Visitor, Wake},
};

/// The answer to a tunnel's request that went out before its playground was found.
type Asked = Result<TunnelSession>;

impl Connection<'_> {
    /// Finds what is meant; while the platform says "not yet" itself, as under a rate limit, it is asked again.
    async fn find(&self) -> Result<Found> {
        let mut retry = Retry::new();
        loop {
            match find::by_target(self.labs, self.target).await {
                Err(e) if e.kind() == Kind::NotYet && Instant::now() < self.deadline() => {
                    self.waiting(&format!("waiting for the platform: {}", e.message()));
                    sleep_until((Instant::now() + retry.next(&e)).min(self.deadline())).await;
                }
                found => return found,
            }
        }
    }

    /// Finds what is meant. Where all that a tunnel's request needs is known it goes out at the same time, since most
    /// playgrounds that somebody connects to are running; its answer is for one that is, and nobody waits for another's.
    pub(super) async fn find_and_ask(&self, caller: ClientKind) -> Result<(Found, Option<Asked>)> {
        let find = self.find();
        let (Playground::Id(id), Some(user)) = (&self.target.playground, target::user(self.request.user.as_deref())?)
        else {
            return Ok((find.await?, None));
        };
        // The policy may be that of its catalogue name, which is not known yet.
        let may_refuse = |settings: &Settings| {
            settings.playgrounds.values().any(|one| one.wake == Some(WakePolicy::Never))
                || self.request.wake.unwrap_or_else(|| self.app.wake_policy(&[id])) == WakePolicy::Never
        };
        let record = self.memory.read(id)?;
        // The end of a session says nothing any more after the pause that tells a person's try from an editor's.
        let pause = self.app.settings.reconnect_pause();
        let has_just_ended = [record.cut_off, record.session_ended].into_iter().flatten().any(|at| ago(at) < pause);
        if record.stopped.is_some() || has_just_ended || may_refuse(&self.app.settings) || caller != ClientKind::OpenSsh
        {
            return Ok((find.await?, None));
        }
        let key = self.app.identity()?.authorized_key()?;
        let machine = self.target.machine.as_deref().unwrap_or_default();
        let visitor = Visitor { machine, user, key: &key };
        let named = RefCell::new((format!("playground {id}"), machine.to_owned()));
        let say = |doing: &str| {
            let (play, machine) = &*named.borrow();
            self.waiting(&wake::waiting_for(play, machine, doing));
        };
        let tunnel = timeout_at(self.deadline(), wake::request_tunnel(self.labs, id, visitor, self.deadline(), say));
        tokio::pin!(find, tunnel);
        let mut asked = None;
        let found = tokio::select! {
            found = &mut find => found?,
            answer = &mut tunnel => {
                asked = Some(answer);
                find.await?
            }
        };
        let Found::Play(play) = &found else { return Ok((found, None)) };
        let meant = &find::machine(play, self.target.machine.as_deref())?.name;
        named.replace((play.shown(), meant.clone()));
        // The platform takes no name for the first machine's.
        let is_another = machine.is_empty() && play.machines.first().is_some_and(|first| first.name != *meant);
        if is_another || find::is_gone(play) || wake::is_down(play, meant) {
            return Ok((found, None));
        }
        let answer = match asked {
            Some(answer) => answer,
            None => {
                // The platform holds the request while the machine boots. It is not asked a second time.
                self.plan_early(&play.id, meant)?;
                tunnel.await
            }
        };
        Ok((found, answer.ok()))
    }

    /// Starts or wakes the playground, and gets a tunnel session for the machine.
    pub(super) async fn arrive(&self, found: Found, allowed: bool, asked: Option<Asked>) -> Result<Destination> {
        let wake = Wake {
            labs: self.labs,
            memory: &self.memory,
            progress: self,
            allowed,
            decided: now(),
            deadline: self.deadline(),
        };
        let mut play = match found {
            Found::Play(play) => *play,
            Found::Startable(name) => {
                catalog::needs_no_consent(self.labs, &name).await?;
                wake.start_once(&name).await?
            }
        };
        let machine = find::machine(&play, self.target.machine.as_deref())?.clone();
        let user = find::user(&play, &machine, target::user(self.request.user.as_deref())?)?.to_owned();
        self.live.update(|status| {
            status.phase = Phase::Waking;
            status.playground.clone_from(&play.id);
            status.machine.clone_from(&machine.name);
            status.user.clone_from(&user);
            status.expires_at = expiry(&play);
        });
        let key = self.app.identity()?.authorized_key()?;
        let visitor = Visitor { machine: &machine.name, user: &user, key: &key };
        let session = wake.tunnel_after(asked, play.clone(), visitor).await?;
        if up_since(&play, &machine.name).is_none()
            && let Ok(current) = self.labs.play(&play.id).await
        {
            play = current;
        }
        self.note_restart(&play, &machine.name, allowed);
        Ok(Destination { play: play.id, machine: machine.name, user, session })
    }

    /// Says when the machine has been restarted since the last connection, unless this one woke it.
    pub(super) fn note_restart(&self, play: &Play, machine: &str, woken: bool) {
        let Some(up_since) = up_since(play, machine) else { return };
        let before = match self.memory.machine(&play.id, machine, |machine| machine.up_since = Some(up_since.clone())) {
            Ok(before) => before,
            Err(error) => return log::warn!("{}", error.message()),
        };
        if !woken && before.up_since.is_some_and(|before| before != up_since) {
            let id = &play.id;
            self.notices
                .say(&format!("machine {machine} of playground {id} has been restarted since the last connection"));
        }
    }
}

/// Since when a machine has been up, in the platform's words.
fn up_since(play: &Play, machine: &str) -> Option<String> {
    let ready = play.machine_status(machine)?.conditions.iter().find(|condition| condition.name == "Ready")?;
    (ready.status == "True" && !ready.last_transition_at.is_empty()).then(|| ready.last_transition_at.clone())
}

/// A play's end, in ms since 1970.
pub(super) fn expiry(play: &Play) -> Option<Moment> {
    let left = u64::try_from(play.expires_in.as_millis()).ok().filter(|left| *left > 0)?;
    Some(now().saturating_add(left))
}
