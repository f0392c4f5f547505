//! The checks of the login, the platform, and one running machine, which is reached by the system's ssh like any
//! client.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::{Check, Verdict, containers, sessions};
use crate::{
    app::App,
    commands::{
        machine::console,
        ssh,
        visit::{Destination, Visit, find_place},
    },
    error::{Error, Kind, Result, printable},
    labs::{Labs, find, tunnel, wire::State},
    os::beginning,
    platform::Platform,
    ssh::{
        known_hosts::{Verdict as Known, Whose},
        learn,
        marked::{self, Marked},
        options,
    },
    target::Target,
    ui::out::millis,
    wake,
};

/// Time limit for one step. A running machine answers within a second or two.
const PATIENCE: Duration = Duration::from_secs(30);
/// Number of bytes to fetch for the throughput check.
const SAMPLE: usize = 8 * 1024 * 1024;
/// Largest greeting of a login shell that is skipped.
const MAX_EARLY: usize = 64 * 1024;
/// Number of lines of a console.
const LAST_LINES: usize = 10;
/// The check that the platform leads to the machine's SSH server.
const TUNNEL: &str = "tunnel";
/// The check that the system's ssh gets in.
const BY_SSH: &str = "ssh to a machine";
/// Number of measured round trips.
const ROUNDS: usize = 9;

/// Makes all checks of this module, in the order in which a connection needs them. Stops at the first failure, because
/// later checks would only repeat it.
pub(super) async fn all(app: &App, host: Option<&str>, say: &impl Fn(&str)) -> Vec<Check> {
    let mut checks = Vec::new();
    let labs = match app.labs().await {
        Ok(labs) => labs,
        Err(error) => return vec![Check::failed("platform", &error)],
    };
    let began = Instant::now();
    match labs.me().await {
        Ok(_) if app.platform == Platform::Local => {
            checks.push(Check::ok("login", "the embedded platform needs no login"))
        }
        Ok(me) => {
            checks.push(Check::ok("login", format!("{} at {}", me.github_profile_id.unwrap_or(me.id), labs.base())))
        }
        Err(error) => {
            let name = if error.kind() == Kind::NotLoggedIn { "login" } else { "platform" };
            return vec![Check::failed(name, &error)];
        }
    }
    checks.push(Check::ok("platform", format!("{} answers in {}", labs.api(), millis(began.elapsed()))));
    // A container behind an alias, by its host name.
    let by_id = host.and_then(|host| {
        let (user, name) = host.rsplit_once('@').map_or(("", host), |(user, _)| host.split_at(user.len() + 1));
        let target = find::aliased(&labs, name).filter(|target| target.inside.is_some())?;
        Some(format!("{user}{target}"))
    });
    let host = by_id.as_deref().or(host);
    let (machine, wanted) = match host.map(containers::wanted).transpose().map(Option::flatten) {
        Ok(Some((machine, wanted))) => (Some(machine), Some(wanted)),
        Ok(None) => (None, None),
        Err(error) => return vec![Check::failed(TUNNEL, &error)],
    };
    let place = match a_machine(&labs, machine.as_deref().or(host)).await {
        Ok(Reach::Ready(place)) => *place,
        Ok(Reach::Silent(place)) => {
            let (play, machine) = (&place.play, &place.machine.name);
            let found = format!("machine {machine} of {} runs, but its SSH server does not answer yet", play.shown());
            let remedy = format!(
                "if it stays so, read `labctl-ssh-proxy machine console {0} {machine}`, or run `labctl-ssh-proxy machine \
                 reboot {0} {machine}`",
                play.id
            );
            checks.push(Check::new(TUNNEL, Verdict::Warning, found).remedy(remedy));
            checks.extend(last_words(&labs, &place).await);
            return checks;
        }
        Ok(Reach::Down(error)) => {
            let check = Check::skipped(TUNNEL, format!("{}; doctor wakes none", error.message()));
            checks.push(match error.hint() {
                Some(hint) => check.remedy(hint),
                None => check,
            });
            return checks;
        }
        Ok(Reach::Nothing) => {
            let check = Check::skipped(TUNNEL, "there is no running machine to check; doctor wakes none");
            checks.push(check.remedy("start a playground and run doctor again, or name a running one: doctor HOST"));
            return checks;
        }
        Err(error) => {
            checks.push(Check::failed(TUNNEL, &error));
            return checks;
        }
    };
    say(&format!("connecting to {}", place.host));
    match tunnel(app, &labs, &place).await {
        Ok(more) => checks.extend(more),
        Err(check) => {
            let is_silent = check.name == TUNNEL;
            checks.push(check);
            if is_silent {
                checks.extend(last_words(&labs, &place).await);
            }
            return checks;
        }
    }
    say(&format!("running ssh {}", place.host));
    checks.extend(by_ssh(app, &place).await);
    if checks.last().is_some_and(|last| last.name == BY_SSH && last.verdict == Verdict::Failed) {
        checks.extend(last_words(&labs, &place).await);
        return checks;
    }
    checks.extend(sessions::all(app, &place).await);
    // They take another login. A look at any machine that runs does without.
    if host.is_some() {
        checks.extend(containers::all(app, &labs, &place, wanted.as_ref(), say).await);
    }
    checks
}

/// Returns the machine of this host name.
pub(super) async fn named(labs: &Labs, host: &str) -> Result<Destination> {
    let visit = Visit { host: host.to_owned(), ..Visit::default() };
    let missing = || Error::new(Kind::NotFound, format!("there is no playground of the host name {host}"));
    find_place(labs, &visit).await?.ok_or_else(missing)
}

/// The last lines of the machine's console, which may say why its SSH server does not answer.
async fn last_words(labs: &Labs, place: &Destination) -> Option<Check> {
    let machine = &place.machine.name;
    let tail = within(console::tail(labs, &place.play.id, machine, LAST_LINES)).await.unwrap_or_else(|error| {
        log::info!("{}", error.message());
        None
    })?;
    let lines: Vec<String> = tail.lines().map(printable).collect();
    Some(Check::skipped("console", format!("the last lines of machine {machine}:\n{}", lines.join("\n"))))
}

/// The machine that can be checked.
enum Reach {
    /// It says that its SSH server answers.
    Ready(Box<Destination>),
    /// The named one runs, and does not say so.
    Silent(Box<Destination>),
    /// The named one is stopped, or its playground is.
    Down(Error),
    /// None runs.
    Nothing,
}

/// Returns the named machine, if it is running, or the first running one if `host` names none.
async fn a_machine(labs: &Labs, host: Option<&str>) -> Result<Reach> {
    let status = |place: &Destination| {
        let status = place.play.machine_status(&place.machine.name).cloned();
        status.filter(|status| status.state == State::Running && place.play.state() == Some(&State::Running))
    };
    let places = match host {
        Some(host) => vec![find_place(labs, &Visit { host: host.to_owned(), ..Visit::default() }).await?],
        None => {
            let mut places = Vec::new();
            for play in find::all(labs).await? {
                if let Some(machine) = play.machines.first().cloned() {
                    let host = Target::of_play(&play.id, None).to_string();
                    let user = machine.default_user().to_owned();
                    places.push(Some(Destination { host, play, machine, container: None, user }));
                }
            }
            places
        }
    };
    let (mut ready, others): (Vec<_>, Vec<_>) =
        places.into_iter().flatten().partition(|place| status(place).is_some_and(|status| status.is_ready()));
    if !ready.is_empty() {
        return Ok(Reach::Ready(ready.swap_remove(0).into()));
    }
    let named = others.into_iter().next().filter(|_| host.is_some());
    Ok(named.map_or(Reach::Nothing, |place| match status(&place) {
        Some(_) => Reach::Silent(place.into()),
        None => down(&place).map_or(Reach::Nothing, Reach::Down),
    }))
}

/// The error for a machine that is stopped, or whose playground is.
fn down(Destination { play, machine, .. }: &Destination) -> Option<Error> {
    let is_stopped = || wake::is_down(play, &machine.name).then(|| wake::machine_is_stopped(play, &machine.name));
    wake::check_running(play).err().or_else(is_stopped)
}

/// Opens a tunnel session and checks the host keys at its other end.
async fn tunnel(app: &App, labs: &Labs, place: &Destination) -> Result<Vec<Check>, Check> {
    let failed = |e: Error| Check::failed(TUNNEL, &e);
    let began = Instant::now();
    let identity = app.identity().map_err(|e| Check::failed("identity", &e))?;
    let key = identity.authorized_key().map_err(|e| Check::failed("identity", &e))?;
    let (play, machine) = (&place.play.id, &place.machine.name);
    let session = within(async {
        let started = labs.start_tunnel(play, machine, place.machine_user(), &key).await?;
        labs.log_into_tunnel(&started).await
    });
    let session = session.await.map_err(failed)?;
    let opened = millis(began.elapsed());
    let began = Instant::now();
    let aliases = [place.machine_host()];
    let user = place.machine_user();
    let shown = &place.play.shown();
    let owner = learn::Owner { play, shown, machine, aliases: &aliases, user, identity: &identity };
    let keys = within(learn::host_keys(owner, || labs.dial(&session, tunnel::SSH))).await.map_err(failed)?;
    let shaken = millis(began.elapsed());
    let mut checks = vec![Check::ok(
        TUNNEL,
        format!("to {machine} of {}: a session in {opened}, SSH in {shaken}", place.play.shown()),
    )];
    let known_hosts = app.known_hosts();
    let whose = Whose { alias: &aliases[0], play, machine, shown };
    let mut types = Vec::new();
    for key in &keys {
        match known_hosts.check(whose, key) {
            Ok(Known::Learnt) => {
                // This is only a check, so leave it to the next connection to learn the key.
                known_hosts.withdraw(whose, key).map_err(|e| Check::failed("host key", &e))?;
                types.push(format!("{} (new)", key.algorithm()));
            }
            Ok(_) => types.push(key.algorithm().to_owned()),
            Err(error) => return Err(Check::failed("host key", &error)),
        }
    }
    checks.push(Check::ok("host key", types.join(", ")));
    Ok(checks)
}

/// Checks the whole chain with ssh: round trips first, then throughput.
async fn by_ssh(app: &App, place: &Destination) -> Vec<Check> {
    let began = Instant::now();
    let (first, mut rounds) = match within(round_trips(app, place)).await {
        Ok(rounds) => (millis(began.elapsed()), rounds),
        Err(error) => return vec![Check::failed(BY_SSH, &error)],
    };
    rounds.sort_unstable();
    let median = rounds.get(rounds.len() / 2).copied().unwrap_or_default();
    let check = Check::ok(BY_SSH, format!("{} answers in {first}", place.host));
    let round = Check::ok("round trip", format!("{} (median of {})", millis(median), rounds.len()));
    let throughput = match within(sample(app, place)).await {
        Ok(time) => {
            #[expect(clippy::cast_precision_loss, reason = "a few MiB")]
            let speed = SAMPLE as f64 / (1024.0 * 1024.0) / time.as_secs_f64();
            let verdict = if speed < 0.2 { Verdict::Warning } else { Verdict::Ok };
            Check::new("throughput", verdict, format!("{speed:.1} MiB/s from the machine"))
        }
        Err(error) => Check::failed("throughput", &error),
    };
    vec![check, round, throughput]
}

/// Prepares an ssh that runs `command`, or that starts the subsystem of that name with `-s` as its `first` words.
fn client(app: &App, place: &Destination, first: &[&str], command: &str) -> Result<Command> {
    let mut ssh = Command::new(ssh::program()?);
    // ssh refuses `-s` behind an option of the same meaning.
    ssh.args(first)
        .args(options::FOR_OUTPUT)
        .arg("-oBatchMode=yes")
        .args(ssh::options(app, place, false)?)
        .args([&place.host, "--", command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    Ok(ssh)
}

/// A program on the machine, from the first byte of its output on.
pub(super) struct There {
    pub(super) child: Child,
    pub(super) input: ChildStdin,
    pub(super) output: ChildStdout,
}

impl There {
    /// Starts a program. The login shell's own output is skipped.
    pub(super) async fn start(app: &App, place: &Destination, program: &str) -> Result<There> {
        let marked = Marked::new();
        let mut child = client(app, place, &[], &marked.becoming(program))?.spawn().map_err(failed)?;
        let (Some(input), Some(mut output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::new(Kind::Internal, "ssh has no input and output"));
        };
        let mut early = Vec::new();
        while marked.after_start(&early).is_none() {
            match output.read_u8().await {
                Ok(byte) if early.len() < MAX_EARLY => early.push(byte),
                Ok(_) => {
                    let why = format!("the login shell of {} prints without end", place.host);
                    return Err(Error::new(Kind::Program, why).with_hint("check its startup files, such as ~/.bashrc"));
                }
                Err(_) => return Err(There { child, input, output }.ended(place).await),
            }
        }
        Ok(There { child, input, output })
    }

    /// Starts a subsystem, such as SFTP.
    pub(super) fn subsystem(app: &App, place: &Destination, name: &str) -> Result<There> {
        let mut child = client(app, place, &["-s"], name)?.spawn().map_err(failed)?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(input), Some(output)) => Ok(There { child, input, output }),
            _ => Err(Error::new(Kind::Internal, "ssh has no input and output")),
        }
    }

    /// Returns the reason why ssh has ended, with the user's options that may be the cause.
    pub(super) async fn ended(mut self, place: &Destination) -> Error {
        drop((self.input, self.output));
        let (said, ended) = tokio::join!(beginning(self.child.stderr.take()), self.child.wait());
        let words = printable(&said.lines().map(str::trim).collect::<Vec<_>>().join("; "));
        match ended {
            Ok(status) if status.code() == Some(255) => {
                let hint = remedy(&words).unwrap_or_else(|| {
                    format!("`ssh -v {} true` shows how far it comes; check your own options for this host", place.host)
                });
                Error::new(Kind::Program, format!("ssh ended with {status}: {words}")).with_hint(hint)
            }
            Ok(_) => marked::not_run(&place.host, &words),
            Err(e) => failed(e),
        }
    }
}

/// Returns the remedy for a failure that ssh reports in these words, if it is known.
fn remedy(words: &str) -> Option<String> {
    let shell = || std::env::var("SHELL").unwrap_or_else(|_| "your login shell".into());
    [
        (
            "banner line contains invalid characters",
            format!(
                "ssh starts this program with {}, whose startup files print something; let them print only in an \
                 interactive shell",
                shell()
            ),
        ),
        (
            "Not allowed at this time",
            "the machine's SSH server holds off all connections through the tunnel for some seconds, because several have \
             ended without a login; wait a minute"
                .into(),
        ),
        (
            "Unable to negotiate",
            "your ssh configuration or the system's allows only algorithms that the machine does not have; put such \
             options below `Host * !playground-*`"
                .into(),
        ),
        (
            "Permission denied",
            "check PubkeyAuthentication, PreferredAuthentications, PubkeyAcceptedAlgorithms and IdentitiesOnly in your \
             ssh configuration: put them below `Host * !playground-*`"
                .into(),
        ),
        (
            "revoked",
            "check RevokedHostKeys in your ssh configuration: the file must be readable, and must not have this key".into(),
        ),
    ]
    .into_iter()
    .find(|(part, _)| words.contains(part))
    .map(|(_, remedy)| remedy)
}

fn failed(e: std::io::Error) -> Error {
    Error::new(Kind::Program, format!("ssh: {e}"))
}

/// Measures round trips of one byte. The first one, which includes setting up the connection, is discarded.
async fn round_trips(app: &App, place: &Destination) -> Result<Vec<Duration>> {
    let mut there = There::start(app, place, "cat").await?;
    let mut times = Vec::new();
    for _ in 0..=ROUNDS {
        let began = Instant::now();
        if there.input.write_all(b".").await.is_err() || there.output.read_u8().await.is_err() {
            return Err(there.ended(place).await);
        }
        times.push(began.elapsed());
    }
    times.remove(0);
    Ok(times)
}

/// Measures the transfer time of a sample of bytes, without setting up the connection.
async fn sample(app: &App, place: &Destination) -> Result<Duration> {
    let There { child: _child, mut output, input: _input } =
        There::start(app, place, &format!("head -c {SAMPLE} /dev/zero")).await?;
    output.read_u8().await.map_err(failed)?;
    let began = Instant::now();
    let mut buffer = vec![0; 64 * 1024];
    let mut received = 1;
    while received < SAMPLE {
        match output.read(&mut buffer).await.map_err(failed)? {
            0 => {
                let why = format!("only {received} of {SAMPLE} bytes arrived");
                return Err(Error::new(Kind::Program, why)
                    .with_hint("the machine may be short of memory, or the connection was lost: run doctor again"));
            }
            n => received += n,
        }
    }
    Ok(began.elapsed().max(Duration::from_micros(1)))
}

pub(super) async fn within<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| Error::new(Kind::NotYet, format!("no answer within {} s", PATIENCE.as_secs()));
    timeout(PATIENCE, work).await.map_err(late)?
}
