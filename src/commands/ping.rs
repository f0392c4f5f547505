//! `ping`: the time to a machine that runs and back, and to the platform's API and back, so that a user sees which of the
//! two is slow. A pong of the machine is its SSH server's answer to `keepalive@openssh.com`, the request by which ssh itself
//! looks for life (OpenSSH's PROTOCOL, section 2.8 in its list of extensions); a WebSocket's pong would come from the
//! platform's edge.

use std::time::Duration;

use clap_complete::ArgValueCandidates;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    app::App,
    commands::{
        args::{One, duration},
        candidates,
        forward::find_play,
        machine::words::{Stop, Words, ended},
        running::Running,
    },
    door::{Door, login},
    error::{Error, Kind, Result},
    labs::{Labs, find},
    os::ended_by_signal,
    ssh::client::SshClient,
    target::Target,
    ui::{
        notice::Progress,
        out::{Details, millis},
        spinner::Spinner,
    },
    wake::check_running,
};

/// The shortest interval: what ping(8) allows users.
const SHORTEST: Duration = Duration::from_millis(200);

/// Measure the round-trip time to a running machine, until Ctrl-C or N times.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It starts nothing: the machine must be running. Each line has two round trips: one of a request to the \
                  platform's API, and one through the tunnel to the machine's SSH server."
)]
pub(crate) struct Args {
    #[command(flatten)]
    one: One,
    /// The machine; the default one without it.
    #[arg(short, long, add = ArgValueCandidates::new(candidates::machines))]
    machine: Option<String>,
    /// Stop after N pings.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// The time between pings, such as 0.5 or 500ms; a plain number is in seconds.
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = pause)]
    interval: Duration,
}

fn pause(text: &str) -> Result<Duration, String> {
    // As ping(8) takes it.
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let pause = seconds.map_or_else(|| duration(text), Ok)?;
    if pause < SHORTEST { Err("200ms is the shortest interval".to_owned()) } else { Ok(pause) }
}

/// A line of `ping --json`.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line<'a> {
    /// The machine has answered.
    #[serde(rename_all = "camelCase")]
    Pong { seq: u32, machine_ms: f64, platform_ms: Option<f64> },
    /// It has not.
    #[serde(rename_all = "camelCase")]
    Lost { seq: u32, platform_ms: Option<f64>, error: Details<'a> },
    /// The end.
    #[serde(rename_all = "camelCase")]
    Summary {
        host: &'a str,
        machine: &'a str,
        through: &'a str,
        sent: u32,
        received: u32,
        machine_ms: Option<Spread>,
        platform_ms: Option<Spread>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Spread {
    min: f64,
    avg: f64,
    max: f64,
}

/// Measures, and prints what was measured. Returns the exit code: 128 plus the signal's number after a signal.
///
/// # Errors
/// [`Kind::NotWoken`] when the playground or the machine is stopped; [`Kind::Network`] when the machine has never
/// answered; those of the way there.
pub(crate) async fn run(app: &App, args: Args) -> Result<u8> {
    let labs = app.labs().await?;
    let Args { one, machine, count, interval: pause } = args;
    let (play, machine) = find_play(&labs, &one.playground, machine.as_deref()).await?;
    check_running(&play)?;
    let machine = find::machine(&play, machine.as_deref())?;
    let host = Target::of_play(&play.id, Some(&machine.name)).to_string();
    let door = Door::as_ssh(app, &labs, &host).await?;
    let mut running = Running::new(app, &labs, &door, &play, &machine.name);
    // Connections of people have left a session for this user.
    running.login = login(&play, &machine.name, machine.default_user());
    let spinner = Spinner::new();
    if spinner.is_seen() {
        spinner.waiting(&format!("connecting to {} of {}", machine.name, play.shown()));
    }
    let connected = tokio::select! {
        connected = running.client(true, &spinner) => connected?,
        never = spinner.repeat() => match never {},
        signal = ended_by_signal() => return Ok(128 + signal),
    };
    drop(spinner);
    let mut pinging = Pinging {
        labs: &labs.clone().without_repetition(),
        running: &running,
        client: Some(connected),
        shown: play.shown(),
        through: labs.way(),
        host,
        json: one.json,
        machine_took: Vec::new(),
        platform_took: Vec::new(),
        sent: 0,
        words: Words::new()?,
    };
    let (stopped, code) = tokio::select! {
        stopped = pinging.ping(count, pause) => (stopped, 0),
        signal = ended_by_signal() => (Ok(()), 128 + signal),
    };
    if matches!(stopped, Err(Stop::Unread)) {
        return Ok(code);
    }
    ended(pinging.summary().await)?;
    if let Some(client) = pinging.client.take() {
        client.close().await;
    }
    ended(stopped)?;
    if code == 0 && pinging.machine_took.is_empty() {
        let message = format!("machine {} of playground {} did not answer", machine.name, pinging.shown);
        return Err(Error::new(Kind::Network, message).with_hint(format!("run `labctl-ssh-proxy doctor {}`", play.id)));
    }
    Ok(code)
}

/// The state of a measurement.
struct Pinging<'a> {
    labs: &'a Labs,
    running: &'a Running<'a>,
    /// `None` after a connection was lost.
    client: Option<SshClient>,
    /// The playground in the words of people.
    shown: String,
    /// The way to the platform.
    through: String,
    host: String,
    json: bool,
    machine_took: Vec<Duration>,
    platform_took: Vec<Duration>,
    sent: u32,
    words: Words,
}

impl Pinging<'_> {
    async fn ping(&mut self, count: Option<u32>, pause: Duration) -> Result<(), Stop> {
        if !self.json {
            let (machine, shown, through) = (self.running.machine(), &self.shown, &self.through);
            self.words.say(&format!("PING machine {machine} of playground {shown} through {through}\n")).await?;
        }
        let mut tick = interval(pause);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while count.is_none_or(|count| self.sent < count) {
            tokio::select! {
                _ = tick.tick() => {}
                gone = self.words.unread() => return Err(gone),
            }
            let platform = self.platform().await;
            let answered = self.machine().await;
            // One that Ctrl-C has cut short is not lost.
            self.sent += 1;
            self.platform_took.extend(platform);
            self.print(platform, &answered).await?;
            match answered {
                Ok(took) => self.machine_took.push(took),
                Err(error) if error.may_pass() => {}
                // Another attempt would meet the same.
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The time of a request to the platform; `None` if it does not answer.
    async fn platform(&self) -> Option<Duration> {
        let began = Instant::now();
        self.labs.play(&self.running.login.play).await.ok().map(|_| began.elapsed())
    }

    /// The time to the machine and back. A connection that was lost is made again first.
    async fn machine(&mut self) -> Result<Duration> {
        let client = match self.client.take() {
            Some(client) => client,
            None => self.running.client(false, &()).await?,
        };
        let began = Instant::now();
        client.ping().await?;
        let took = began.elapsed();
        self.client = Some(client);
        Ok(took)
    }

    async fn print(&mut self, platform: Option<Duration>, answered: &Result<Duration>) -> Result<(), Stop> {
        let seq = self.sent;
        if self.json {
            let platform_ms = platform.map(in_ms);
            let line = match answered {
                Ok(took) => Line::Pong { seq, machine_ms: in_ms(*took), platform_ms },
                Err(error) => Line::Lost { seq, platform_ms, error: error.into() },
            };
            return self.words.json(&line).await;
        }
        let platform = platform.map_or_else(|| "no answer".to_owned(), millis);
        let machine = self.running.machine();
        let line = match answered {
            Ok(took) => format!("pong {seq} from {machine}: platform {platform}, machine {}\n", millis(*took)),
            Err(error) => format!("no pong {seq} from {machine}: platform {platform}; {}\n", error.message()),
        };
        self.words.say(&line).await
    }

    async fn summary(&mut self) -> Result<(), Stop> {
        let received = u32::try_from(self.machine_took.len()).unwrap_or(u32::MAX);
        let (machine_ms, platform_ms) = (spread(&self.machine_took), spread(&self.platform_took));
        let (sent, machine) = (self.sent, self.running.machine());
        if self.json {
            let (host, through) = (&*self.host, &*self.through);
            let line = Line::Summary { host, machine, through, sent, received, machine_ms, platform_ms };
            return self.words.json(&line).await;
        }
        let mut text = format!("--- machine {machine} of playground {} ---\n", self.shown);
        text += &format!("{sent} sent, {received} received, {}% loss\n", loss(sent, received));
        for (what, spread) in [("platform", platform_ms), ("machine", machine_ms)] {
            if let Some(Spread { min, avg, max }) = spread {
                text += &format!("{what} min/avg/max = {min:.1}/{avg:.1}/{max:.1} ms\n");
            }
        }
        self.words.say(&text).await
    }
}

/// The part that was lost, in per cent, rounded up: a loss is never 0 %.
fn loss(sent: u32, received: u32) -> u64 {
    (100 * u64::from(sent.saturating_sub(received))).div_ceil(u64::from(sent.max(1)))
}

fn in_ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn spread(all: &[Duration]) -> Option<Spread> {
    let (min, max) = (all.iter().min()?, all.iter().max()?);
    let avg = all.iter().sum::<Duration>() / u32::try_from(all.len()).ok()?;
    Some(Spread { min: in_ms(*min), avg: in_ms(avg), max: in_ms(*max) })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Spread, loss, pause, spread};

    #[test]
    fn the_figures_of_the_end_are_those_of_all() {
        let all = [40, 41, 45].map(Duration::from_millis);
        assert_eq!(spread(&all), Some(Spread { min: 40.0, avg: 42.0, max: 45.0 }));
        assert_eq!((spread(&[]), loss(3, 1), loss(300, 299), loss(4, 4), loss(0, 0)), (None, 67, 1, 0, 0));
        for half in ["0.5", "0.5s", "500ms"] {
            assert_eq!(pause(half), Ok(Duration::from_millis(500)));
        }
        assert!(["10ms", "0", "-1", "nan", "1e30", "soon"].iter().all(|text| pause(text).is_err()));
    }
}
