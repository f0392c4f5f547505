//! A playground of the embedded platform whose tunnels and whose API go through fault proxies ([`Cut`]), and the clients
//! that are connected to it.

#![allow(clippy::print_stderr, reason = "for the reader of a failure")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Ending, World, cut::Cut, eventually, within};

/// Time limit for a session to go on after a cut that is not silent. It takes some milliseconds, and the rest is for a
/// busy computer.
pub const SOON: Duration = Duration::from_secs(8);
/// Time limit for a session to go on after a silent loss: 10 s until it is noticed.
pub const NOTICED: Duration = Duration::from_secs(20);

pub struct Distant {
    pub world: World,
    /// Before the tunnels, which are on another host than the API.
    pub tunnels: Cut,
    pub api: Cut,
    pub id: String,
    pub host: String,
}

impl Distant {
    /// A playground with a real sshd, and an account that reaches it from afar.
    pub fn new(options: &[&str]) -> Distant {
        let (tunnels, api) = (Cut::start(), Cut::start());
        let mut world = World::empty();
        let own = ["--endpoint", "sshd", "--listen", "127.0.0.1:0", "--public-url", &tunnels.url()];
        world.serve(&[&own[..], options].concat());
        let status = world.json(&["local", "status", "--json"]);
        let platform = status["listen"].as_str().unwrap();
        tunnels.leads_to(platform);
        api.leads_to(platform);
        let credentials = fs::read(world.root().join("local/credentials.json")).unwrap();
        let credentials: Value = serde_json::from_slice(&credentials).unwrap();
        let account = world.path(".iximiuz/labctl/config.yaml");
        fs::create_dir_all(account.parent().unwrap()).unwrap();
        let (session, token) = (&credentials[0]["id"], &credentials[0]["accessToken"]);
        let base = api.url();
        fs::write(account, format!("base_url: {base}\nsession_id: {session}\naccess_token: {token}\n")).unwrap();
        let id = world.json(&["start", "shell", "--json"])["id"].as_str().unwrap().to_owned();
        let _ = world.run(&["config-ssh", "--yes"]).ok();
        let host = format!("playground-{id}");
        Distant { world, tunnels, api, id, host }
    }

    /// A playground on whose machine a relay runs and is known.
    pub fn with_relay() -> Distant {
        let distant = Distant::new(&[]);
        distant.place();
        distant
    }

    /// Keeps a long session open until a relay is known.
    pub fn place(&self) {
        place(&self.world, &self.host);
    }

    /// The tickets of sessions.
    pub fn tickets(&self) -> Vec<PathBuf> {
        names(&self.world.root().join("held"), ".json")
    }

    /// Starts ssh without input and output.
    pub fn background(&self, args: &[&str]) -> Ending {
        let mut ssh = self.world.ssh_program("ssh");
        Ending(ssh.args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Starts ssh with this command on the machine.
    pub fn talk(&self, command: &str) -> Talk {
        self.talk_with(&[], command)
    }

    pub fn talk_with(&self, options: &[&str], command: &str) -> Talk {
        let mut ssh = self.world.ssh_program("ssh");
        Talk::start(ssh.args(options).args([&self.host, command]))
    }

    /// A session that repeats each line, and is held.
    pub fn echo(&self) -> Talk {
        let mut talk = self.talk("echo $$; exec cat");
        talk.machine_pid = talk.line(NOTICED).trim().parse().unwrap();
        eventually("the session is held", || self.status(&talk)["held"] == true);
        talk
    }

    /// Runs one of ssh's programs in the playground's world, and expects that it succeeds. Returns its output.
    #[track_caller]
    pub fn done(&self, command: &mut Command, input: &[u8]) -> Vec<u8> {
        let output = self.world.feed(command, input);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && !errors.contains("orrupted MAC"),
            "{command:?}: {}: {errors}",
            output.status
        );
        output.stdout
    }

    /// Runs a command on the machine with this input, and expects that it succeeds. Returns its output.
    #[track_caller]
    pub fn ssh(&self, command: &str, input: &[u8]) -> Vec<u8> {
        self.done(self.world.ssh_program("ssh").args([&self.host, command]), input)
    }

    /// The statuses of the proxies, as `list --json` shows them.
    pub fn statuses(&self) -> Vec<Value> {
        statuses(&self.world)
    }

    /// The status of the proxy of a session; null when there is none.
    pub fn status(&self, talk: &Talk) -> Value {
        let proxy = self.proxy(talk.ssh.id());
        self.statuses()
            .into_iter()
            .find(|status| Some(status["pid"].as_u64().unwrap() as u32) == proxy)
            .unwrap_or_default()
    }

    /// The proxy of an ssh.
    pub fn proxy(&self, ssh: u32) -> Option<u32> {
        let stat = |pid: u32| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = |pid: u32| stat(pid).rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        self.world.processes(" connect ").into_iter().find(|pid| parent(*pid) == Some(ssh))
    }

    /// The relays on the machine, which is this computer.
    pub fn relay_processes(&self) -> Vec<u32> {
        let home = format!("HOME={}", self.world.home().display());
        let is_ours = |pid: &u32| {
            let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            let environment = read("environ");
            String::from_utf8_lossy(&read("cmdline")).contains("labctl-ssh-proxy relay")
                && environment.split(|byte| *byte == 0).any(|one| one.starts_with(home.as_bytes()))
        };
        let all = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        all.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).filter(is_ours).collect()
    }
}

/// For the reader of a failure: the logs of the proxies, and what the network has seen.
impl Drop for Distant {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in names(&self.world.root().join("logs"), ".log") {
                eprintln!("{}:\n{}", log.display(), fs::read_to_string(&log).unwrap_or_default());
            }
            self.tunnels.seen().iter().for_each(|one| eprintln!("{one:?}"));
        }
    }
}

fn statuses(world: &World) -> Vec<Value> {
    let read = |path: &PathBuf| serde_json::from_slice(&fs::read(path).ok()?).ok();
    names(&world.root().join("live"), ".json").iter().filter_map(read).collect()
}

/// Keeps a long session open until it has placed a relay and is in. A session that is killed may have the relay
/// forgotten, so that it takes another one.
pub fn place(world: &World, host: &str) {
    let is_in = world.path("is-in");
    let command = format!("LocalCommand=touch {}", is_in.display());
    eventually("a relay is known and no session is open", || {
        let mut ssh = world.ssh_program("ssh");
        ssh.args(["-N", "-o", "PermitLocalCommand=yes", "-o", &command, host]);
        let long = Ending(ssh.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        eventually("a relay is known", || known_relays(&world.root()) > 0);
        eventually("the session that placed it is in", || is_in.exists());
        drop(long);
        fs::remove_file(&is_in).unwrap();
        eventually("it has ended", || statuses(world).is_empty());
        known_relays(&world.root()) > 0
    });
}

/// The number of relays that are known in a folder of ours. Fails with the reason if a machine has refused one.
#[track_caller]
pub fn known_relays(root: &Path) -> usize {
    let read = |path: &PathBuf| serde_json::from_slice::<Value>(&fs::read(path).ok()?).ok();
    let records: Vec<Value> = names(&root.join("relays"), ".json").iter().filter_map(read).collect();
    records.iter().for_each(|record| assert!(record["refused"].is_null(), "{record}"));
    records.iter().filter(|record| record["relay"].is_object()).count()
}

/// Runs a test for each of these at the same time, because most of them wait most of the time.
pub fn at_once<T: Send>(all: impl IntoIterator<Item = T>, test: impl Fn(T) + Sync) {
    std::thread::scope(|scope| {
        for one in all {
            let test = &test;
            scope.spawn(move || test(one));
        }
    });
}

/// The files in a folder whose names end so.
fn names(folder: &Path, end: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    paths.filter(|path| path.to_string_lossy().ends_with(end)).collect()
}

pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

pub fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// An ssh that one talks with.
pub struct Talk {
    pub ssh: Child,
    pub input: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    errors: mpsc::Receiver<String>,
    /// The machine's process of [`Distant::echo`].
    pub machine_pid: u32,
    said: usize,
}

impl Talk {
    pub fn start(command: &mut Command) -> Talk {
        let mut ssh = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (ssh.stdout.take().unwrap(), ssh.stderr.take().unwrap());
        let (lines, errors) = (lines(out), lines(err));
        Talk { input: ssh.stdin.take(), ssh, lines, errors, machine_pid: 0, said: 0 }
    }

    pub fn say(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// The next line of the output.
    #[track_caller]
    pub fn line(&mut self, limit: Duration) -> String {
        match self.lines.recv_timeout(limit) {
            Ok(line) => line,
            Err(_) => {
                panic!("no line within {limit:?}; ssh has said: {:?}", self.errors.try_iter().collect::<Vec<_>>())
            }
        }
    }

    /// Says a line of its own, and waits until it comes back. Returns the time that it took.
    #[track_caller]
    pub fn echoes(&mut self, limit: Duration) -> Duration {
        self.said += 1;
        let line = format!("line {} of process {}", self.said, self.ssh.id());
        let began = Instant::now();
        self.say(&line);
        assert_eq!(self.line(limit), line);
        began.elapsed()
    }

    /// Waits until ssh has ended. Returns its status, and the rest of its output and of its errors.
    #[track_caller]
    pub fn ended(&mut self, limit: Duration) -> (ExitStatus, Vec<String>, String) {
        within(limit, "ssh has ended", &mut || self.ssh.try_wait().unwrap().is_some());
        let errors: Vec<String> = self.errors.iter().collect();
        (self.ssh.wait().unwrap(), self.lines.iter().collect(), errors.join("\n"))
    }

    /// Ends the input, and expects an orderly end.
    #[track_caller]
    pub fn ends(mut self) {
        drop(self.input.take());
        let (status, rest, errors) = self.ended(NOTICED);
        assert!(status.success() && rest.is_empty() && errors.is_empty(), "{status} {rest:?} {errors}");
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _ = self.ssh.kill();
        let _ = self.ssh.wait();
    }
}

fn lines(from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        BufReader::new(from).lines().map_while(Result::ok).for_each(|line| drop(tell.send(line)));
    });
    told
}
