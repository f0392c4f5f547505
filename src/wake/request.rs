//! The request for a tunnel, and the login to it.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::{
    error::{Error, Result},
    labs::{Labs, TunnelSession, retry::Pauses},
};

/// The platform holds the request for a tunnel while the machine boots. A machine that runs has its tunnel sooner.
const NO_WAIT: Duration = Duration::from_secs(1);
/// The wait that is told while the platform holds the request.
pub(super) const BOOTING: &str = "booting";
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
            say(BOOTING);
            offer.await?
        }
    };
    let (until, mut pauses) = (deadline.min(Instant::now() + LOGIN_PATIENCE), Pauses::new());
    let mut last: Option<Error> = None;
    loop {
        let error = match (timeout_at(deadline, labs.log_into_tunnel(&offer)).await, last) {
            (Ok(Ok(session)), _) => return Ok(session),
            (Ok(Err(error)), _) => error,
            // A login under way says nothing. The one before it tells the reason.
            (Err(_), Some(error)) => return Err(error.lasting()),
            // Nor is there any. The caller, who has set the deadline, has better words.
            (Err(_), None) => std::future::pending().await,
        };
        let next = Instant::now() + pauses.after(&error).max(LOGIN_PAUSE);
        if error.is_lasting() || next > until {
            return Err(error.lasting());
        }
        say(&format!("logging in to its tunnel: {}", error.message()));
        last = Some(error);
        sleep_until(next).await;
    }
}
