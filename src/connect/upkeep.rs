//! The upkeep of a session that is open: its status file, and its playground's end, which is moved if that is to be kept
//! while it is used, and warned of otherwise.

use std::{
    convert::Infallible,
    io::{self, IsTerminal},
    time::Duration,
};

use tokio::time::{Instant, interval_at};

use super::{Connection, Destination, arrival::note_restart};
use crate::{
    hold::reach::expiry,
    keep::Keeper,
    labs::{find, wire::Play},
    moment::{Moment, now},
    os,
    records::live::{self, Phase},
};

/// By then a connection does what it goes on doing. Short ones need not pay for what helps long ones.
const SETTLED: Duration = Duration::from_secs(1);
/// Between two looks at the playground's end after a warning, because its time may have been extended.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// The time that a warning gives: enough to save one's work.
const EXPIRY_WARNING: Duration = Duration::from_secs(5 * 60);

/// Keeps the status file current, and warns before the playground's end. Never returns.
pub(super) async fn look_after(connection: &Connection<'_>, destination: &Destination) -> Infallible {
    let live = &connection.live;
    let began = Instant::now();
    let mut tick = interval_at(began + SETTLED, live::UPDATE);
    let (mut is_first, mut has_asked, mut warned) = (true, false, None);
    let Connection { app, labs, request, .. } = connection;
    let mut keeper = Keeper::new(app, labs, &destination.play, request.keep);
    loop {
        tick.tick().await;
        live.write();
        // With the session of an earlier connection the platform has not been asked yet. A short visit need not ask,
        // and while the machine is away only its session asks.
        let status = live.status();
        let asks = status.expires_at.is_none() && status.phase == Phase::Connected && !has_asked;
        let asks = asks && began.elapsed() >= live::UPDATE;
        if asks {
            has_asked = ask_once(connection, destination).await.is_some();
        }
        // Neither the start's code nor that of the question is needed again soon.
        if std::mem::take(&mut is_first) || asks {
            os::forget_code();
        }
        let status = live.status();
        let (moved, is_away) = (status.sent + status.received, status.phase == Phase::Away);
        if let Some(end) = keeper.look(status.expires_at, moved, is_away).await {
            live.update(|status| {
                status.expires_at = Some(end);
                status.message.clear();
            });
            warned = None;
        }
        let is_near = live.status().expires_at.is_some_and(|at| time_left(at) <= EXPIRY_WARNING);
        if is_near && warned.is_none_or(|at: Instant| at.elapsed() >= LOOK_AGAIN) {
            look_at_expiry(connection, destination, &mut warned).await;
        }
    }
}

/// Learns when the playground will end, and if its machine has been restarted. Returns `None` when the platform does
/// not answer.
async fn ask_once(connection: &Connection<'_>, destination: &Destination) -> Option<()> {
    let play = connection.labs.play(&destination.play).await.ok()?;
    connection.live.update(|status| status.expires_at = expiry(&play));
    note_restart(connection, &play, &destination.machine, false);
    Some(())
}

/// Asks for the playground's end, which may have been extended, and warns of it if it is still near and `warned`, the
/// time of the last look after a warning, is none.
async fn look_at_expiry(connection: &Connection<'_>, destination: &Destination, warned: &mut Option<Instant>) {
    let Ok(play) = connection.labs.play(&destination.play).await else { return };
    let expires_at = expiry(&play);
    connection.live.update(|status| status.expires_at = expires_at);
    match expires_at.map(time_left) {
        Some(left) if left < EXPIRY_WARNING => {
            if warned.replace(Instant::now()).is_none() {
                warn_of_expiry(connection, &play, left).await;
            }
        }
        Some(_) | None => {
            *warned = None;
            connection.live.update(|status| status.message.clear());
        }
    }
}

/// Warns that the playground has so much time left. At its end the platform erases one that is not persistent.
async fn warn_of_expiry(connection: &Connection<'_>, play: &Play, left: Duration) {
    let (title, id, seconds) = (play.shown(), &play.id, left.as_secs());
    let extend = format!("extend it with `labctl-ssh-proxy extend {id} MINUTES`");
    let text = match find::is_kept(connection.labs, play).await {
        Some(true) => format!("{title} will be stopped in {seconds} s, and kept; {extend}"),
        Some(false) | None => {
            format!("{title} will be erased in {seconds} s; keep it with `labctl-ssh-proxy persist {id}`, or {extend}")
        }
    };
    let text = connection.app.platform.commands(&text);
    connection.live.update(|status| status.message.clone_from(&text));
    if io::stderr().is_terminal() { connection.notices.say(&text) } else { log::warn!("{text}") }
}

/// The time until a moment; none for one that is over.
pub(super) fn time_left(until: Moment) -> Duration {
    Duration::from_millis(until.saturating_sub(now()))
}
