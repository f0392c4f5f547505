//! The placing of a relay on a machine, by an SSH connection of our own, and the record of its outcome.
//!
//! It asks the user nothing: a key that takes a passphrase is left alone, and so is a security key, which takes a touch,
//! unless the user wants every session to survive. A machine that can have no relay, and one that lets our key not in,
//! is not asked again for a while.

use crate::{
    error::{Error, Kind, Result},
    hold::{
        Relay,
        place::{Placed, place},
    },
    labs::{Labs, TunnelSession, tunnel},
    records::relays::{Relays, Whose},
    settings::ResumePolicy,
    ssh::{
        client::{Login, SshClient},
        credentials::{Credentials, KeyOptions},
        identity::Identity,
        known_hosts::KnownHosts,
    },
};

/// Returns true if sessions survive by this choice: `auto` leaves the playgrounds of lessons alone.
pub fn survives(policy: ResumePolicy, is_lesson: bool) -> bool {
    match policy {
        ResumePolicy::Always => true,
        ResumePolicy::Never => false,
        ResumePolicy::Auto => !is_lesson,
    }
}

/// All that placing a relay takes.
pub struct Placing {
    /// The platform.
    pub labs: Labs,
    /// The session of the machine's tunnel.
    pub session: TunnelSession,
    /// The login.
    pub login: Login,
    /// The key that the platform has put on the machine.
    pub identity: Identity,
    /// The known host keys.
    pub known_hosts: KnownHosts,
    /// The records of relays.
    pub relays: Relays,
    /// The choice of the sessions that survive.
    pub policy: ResumePolicy,
    /// The present boot of the machine, in the platform's words, where it is known.
    pub up_since: Option<String>,
}

impl Placing {
    fn whose(&self) -> Whose<'_> {
        Whose { play: &self.login.play, machine: &self.login.machine, user: &self.login.user }
    }

    /// Returns the relay that is known, or finds or starts it. Returns `None` where there can be none.
    pub async fn run(self) -> Option<Relay> {
        if let Some(known) = self.relays.known(self.whose()) {
            return Some(Relay::from(&known));
        }
        if self.relays.refused(self.whose()).is_some() {
            return None;
        }
        match self.client().await {
            Ok(client) => {
                let placed = self.by(&client).await;
                client.close().await;
                placed
            }
            // The machine may be about to come up, or the tunnel's session is an old one.
            Err(error) if error.may_pass() || error.status().is_some() => {
                log::info!("no relay can be placed now: {}", error.message());
                None
            }
            Err(error) => self.note(Err(error)),
        }
    }

    /// Finds or starts the relay by an SSH connection that is open.
    pub async fn by(&self, client: &SshClient) -> Option<Relay> {
        self.note(place(client).await)
    }

    async fn client(&self) -> Result<SshClient> {
        let credentials = match Credentials::without_asking(&self.identity).await {
            Some(credentials) => credentials,
            None if self.policy == ResumePolicy::Always && self.identity.is_on_security_key() => {
                Credentials::find(&self.identity, &KeyOptions::of_environment()).await?
            }
            None => return Err(Error::new(Kind::File, "its key cannot be used without a question")),
        };
        let tunnel = self.labs.dial(&self.session, tunnel::SSH).await?;
        SshClient::connect(tunnel, &self.known_hosts, &self.login, &credentials).await
    }

    fn note(&self, placed: Result<Placed>) -> Option<Relay> {
        let Login { machine, play, .. } = &self.login;
        match placed {
            Ok(Placed::Runs(relay)) => {
                log::info!("a relay keeps the sessions on machine {machine} of playground {play}");
                self.relays.keep(self.whose(), &relay.known(self.up_since.clone()));
                return Some(relay);
            }
            Ok(Placed::Refused(why)) => {
                log::info!("machine {machine} of playground {play} keeps no sessions: {why}");
                self.relays.note_refused(self.whose(), &why);
            }
            Err(error) => {
                log::info!("machine {machine} of playground {play} keeps no sessions: {}", error.message());
                self.relays.note_refused(self.whose(), error.message());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{ResumePolicy, survives};

    #[test]
    fn lessons_are_left_alone_unless_the_user_wants_it() {
        for (policy, lesson, other) in
            [(ResumePolicy::Auto, false, true), (ResumePolicy::Never, false, false), (ResumePolicy::Always, true, true)]
        {
            assert_eq!((survives(policy, true), survives(policy, false)), (lesson, other), "{policy:?}");
        }
    }
}
