//! The request for a tunnel, and the login to it.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    error::Result,
    labs::{Labs, TunnelSession, retry::Pauses},
};

/// The platform holds the request for a tunnel while the machine boots. A machine that runs has its tunnel sooner.
const NO_WAIT: Duration = Duration::from_secs(1);
/// The time for which the login of a tunnel is attempted, as the official client does, whatever its failures.
const LOGIN_PATIENCE: Duration = Duration::from_secs(60);
/// Shortest pause between two logins.
const LOGIN_PAUSE: Duration = Duration::from_secs(1);

/// The user who is to get in.
#[derive(Clone, Copy, Debug)]
pub struct Visitor<'a> {
    /// The machine.
    pub machine: &'a str,
    /// The user on it.
    pub user: &'a str,
    /// The public key, as a line of authorized_keys.
    pub key: &'a str,
}

/// Requests a tunnel, and logs into it: with one request to the platform, because tunnels come out of a small pool.
/// `say` is told what is being waited for.
///
/// # Errors
/// As [`Labs::start_tunnel`]; the login's, marked as lasting, once its patience is over or `deadline` has come.
pub async fn request_tunnel(
    labs: &Labs,
    play: &str,
    Visitor { machine, user, key }: Visitor<'_>,
    deadline: Instant,
    say: impl Fn(&str),
) -> Result<TunnelSession> {
    let offer = labs.start_tunnel(play, machine, user, key);
    tokio::pin!(offer);
    let offer = tokio::select! {
        offer = &mut offer => offer?,
        () = sleep(NO_WAIT) => {
            say("booting");
            offer.await?
        }
    };
    let (until, mut pauses) = (deadline.min(Instant::now() + LOGIN_PATIENCE), Pauses::new());
    loop {
        let error = match labs.log_into_tunnel(&offer).await {
            Ok(session) => return Ok(session),
            Err(error) => error,
        };
        let next = Instant::now() + pauses.after(&error).max(LOGIN_PAUSE);
        if error.is_lasting() || next > until {
            return Err(error.lasting());
        }
        say(&format!("logging in to its tunnel: {}", error.message()));
        sleep_until(next).await;
    }
}
