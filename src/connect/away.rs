//! The signs of a machine that cannot be reached for a while: in the status file at once, and at a terminal if it lasts.

use std::{
    convert::Infallible,
    io::{self, IsTerminal},
    time::Duration,
};

use tokio::time::sleep;

use super::{Connection, Destination};
use crate::{labs::vitals::Vitals, moment::ago, ui::notice};

/// A terminal is told of an outage that lasts for so long. A shorter one is hardly seen, and most are.
const WORTH_A_LINE: Duration = Duration::from_secs(10);

/// Shows each outage of the session with these vitals, and its end. Never returns.
pub(super) async fn show(connection: &Connection<'_>, destination: &Destination, vitals: &Vitals) -> Infallible {
    let machine = &destination.machine;
    let tells = connection.app.settings.resume_notices != Some(false) && io::stderr().is_terminal();
    let say = |text: &str| {
        log::info!("{text}");
        if tells {
            // Not behind the prompt, or within the line that is being typed.
            notice::line(&format!("\r\nlabctl-ssh-proxy: {text}"));
        }
    };
    let mut told = None;
    loop {
        connection.live.write();
        match (vitals.away_since(), told) {
            (Some(since), None) => tokio::select! {
                () = vitals.changed() => {}
                () = sleep(WORTH_A_LINE) => {
                    let now = if connection.live.status().held { "resuming" } else { "waiting for the network" };
                    say(&format!("lost the connection to machine {machine}, {now}"));
                    told = Some(since);
                }
            },
            (None, Some(since)) => {
                say(&format!("resumed after {}", in_words(ago(since))));
                told = None;
            }
            _ => vitals.changed().await,
        }
    }
}

/// A time in words, as people say it.
fn in_words(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, in_words};

    #[test]
    fn times_are_said_as_people_say_them() {
        for (seconds, words) in [(12, "12 s"), (119, "119 s"), (120, "2 min"), (3599, "59 min"), (7260, "2 h 1 min")] {
            assert_eq!(in_words(Duration::from_secs(seconds)), words);
        }
    }
}
