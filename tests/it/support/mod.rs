//! A world for one test: its own home, embedded platform and ssh configuration, apart from the user's.

pub mod api;
#[cfg(target_os = "linux")]
pub mod cluster;
pub mod cut;
pub mod distant;
pub mod engine;
pub mod fault;
pub mod forward;
pub mod labs;
pub mod machine;
pub mod platform;
pub mod schema;
pub mod terminal;
pub mod transcript;
pub mod tree;
pub mod wsmux;

use std::{
    ffi::OsStr,
    fs,
    io::{self, Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use serde_json::Value;

/// The built binary.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_labctl-ssh-proxy");

/// The output and the exit status of a command.
#[derive(Debug)]
#[must_use]
pub struct Said {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Said {
    pub fn of(output: Output) -> Said {
        Said {
            status: output.status,
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Checks that the command succeeded. Returns its standard output.
    pub fn ok(self) -> String {
        assert!(self.status.success(), "{self:?}");
        self.out
    }

    /// Checks that the command failed with this exit code. Returns its standard error.
    pub fn failed(self, code: i32) -> String {
        assert_eq!(self.code(), code, "{self:?}");
        self.err
    }
}

pub struct World {
    home: tempfile::TempDir,
    platform: Option<Child>,
    ready: bool,
}

impl World {
    /// Runs a command of the embedded platform on a terminal, and answers its question. Returns its exit code, and all
    /// that it said.
    pub fn asked(&self, command: &str, answer: &str) -> (Option<i32>, String) {
        let mut script = self.program("script");
        let command = format!("{PROGRAM} --local {command}");
        script.args(["-qec", &command, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = script.spawn().unwrap();
        let (mut stdin, mut out, mut said) = (child.stdin.take().unwrap(), child.stdout.take().unwrap(), String::new());
        // Only then, because a key that is pressed before belongs to no question.
        while !said.contains("[y/N]") {
            let mut byte = [0];
            out.read_exact(&mut byte).unwrap();
            said.push(byte[0].into());
        }
        stdin.write_all(answer.as_bytes()).unwrap();
        out.read_to_string(&mut said).unwrap();
        (child.wait().unwrap().code(), said.replace('\r', ""))
    }

    /// Creates a world with an empty home.
    pub fn empty() -> World {
        leave_terminal();
        // A short path, because the path of a socket has a small limit.
        let home = tempfile::Builder::new().prefix("lsp").tempdir_in("/tmp").unwrap();
        World { home, platform: None, ready: false }
    }

    /// Creates a world with an embedded platform that runs with these options.
    pub fn with_platform(options: &[&str]) -> World {
        let mut world = World::empty();
        world.serve(options);
        world
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home().join(name)
    }

    /// Returns the home folder on a machine of the embedded platform.
    pub fn machine_home(&self, play: &str, machine: &str) -> PathBuf {
        self.root().join("local/plays").join(play).join(machine).join("home")
    }

    pub fn root(&self) -> PathBuf {
        self.home().join(".iximiuz/labctl-ssh-proxy")
    }

    pub fn ssh_config(&self) -> PathBuf {
        self.home().join(".ssh/config")
    }

    pub fn settings(&self, text: &str) {
        let path = self.home().join(".config/labctl-ssh-proxy/settings.yaml");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Prepares a program to run in this world.
    pub fn program(&self, name: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(name);
        command
            .env_clear()
            .env("HOME", self.home())
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("SHELL", "/bin/sh")
            // In place of the real name service. A test that needs a name writes the file.
            .env("LABCTL_SSH_PROXY_HOSTS", self.home().join("hosts"))
            .current_dir(self.home())
            .stdin(Stdio::null());
        command
    }

    /// Prepares the program under test: the built one, or for figures an optimized one, which TESTED names.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.program(std::env::var_os("TESTED").unwrap_or_else(|| PROGRAM.into()));
        command.args(args);
        command
    }

    pub fn run(&self, args: &[&str]) -> Said {
        self.output(&mut self.command(args))
    }

    /// Runs the program under test on the embedded platform.
    pub fn local(&self, args: &[&str]) -> Said {
        self.output(self.command(&["--local"]).args(args))
    }

    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.local(args).ok()).unwrap()
    }

    pub fn serve(&mut self, options: &[&str]) {
        self.serve_with(options, &[]);
    }

    /// Starts the platform with these variables in its environment, too.
    pub fn serve_with(&mut self, options: &[&str], variables: &[(&str, &str)]) {
        assert!(self.platform.is_none());
        let log = fs::File::create(self.home().join("platform.log")).unwrap();
        let child = self
            .command(&["local", "serve"])
            .args(options)
            .envs(variables.iter().copied())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.platform = Some(child);
        let socket = self.root().join("local/socket");
        eventually("the platform listens", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    }

    /// Returns the answer of the embedded platform's API on its socket.
    pub fn api(&self, path: &str) -> Value {
        use std::io::Read;
        let mut socket = std::os::unix::net::UnixStream::connect(self.root().join("local/socket")).unwrap();
        write!(socket, "GET /api{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
        serde_json::from_str(body).unwrap()
    }

    /// Kills the platform with SIGKILL.
    pub fn kill_platform(&mut self) {
        if let Some(mut child) = self.platform.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn stop_platform(&mut self) {
        if let Some(mut child) = self.platform.take() {
            let _ = self.run(&["local", "stop"]);
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts a playground and writes the entries. Returns its id.
    pub fn playground(&mut self, name: &str) -> String {
        let play = self.json(&["start", name, "--json"]);
        self.configure();
        play["id"].as_str().unwrap().to_owned()
    }

    pub fn configure(&mut self) {
        self.local(&["config-ssh", "--yes"]).ok();
        self.ready = true;
    }

    /// Returns the text of the entries.
    pub fn entries(&self) -> String {
        fs::read_to_string(self.root().join("ssh_config")).unwrap()
    }

    /// Prepares one of ssh's programs with the configuration of this world.
    pub fn ssh_program(&self, name: &str) -> Command {
        let mut command = self.program(name);
        command.arg("-F").arg(self.ssh_config());
        command
    }

    pub fn ssh(&self, args: &[&str]) -> Said {
        self.output(self.ssh_program("ssh").args(args))
    }

    #[track_caller]
    pub fn output(&self, command: &mut Command) -> Said {
        let child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        Said::of(finish(child, command))
    }

    /// Runs a command whose input stays open until it ends, like a ProxyCommand whose client has sent its first bytes
    /// and waits.
    pub fn held(&self, command: &mut Command) -> Said {
        let mut child = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()));
        let mut input = child.stdin.take().unwrap();
        // An error means that the command has ended already.
        let _ = input.write_all(FIRST_WORDS);
        Said::of(finish(child, command))
    }

    /// Runs a command with `input` as its standard input.
    pub fn feed(&self, command: &mut Command, input: &[u8]) -> Output {
        let mut child = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()));
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // The command need not read all of it.
                let _ = stdin.write_all(input);
            });
            finish(child, command)
        })
    }

    /// Returns the running processes of this world, which are those with its home in their environment.
    pub fn processes(&self, containing: &str) -> Vec<u32> {
        let home = format!("HOME={}", self.home().display());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
            let environment = read("environ");
            let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
            if environment.split(|b| *b == 0).any(|variable| variable == home.as_bytes())
                && command.contains(containing)
            {
                found.push(pid);
            }
        }
        found
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop_platform();
        // A platform that a command has started on demand.
        let _ = self.run(&["local", "stop"]);
    }
}

/// The first bytes of an SSH client: its identification line, and the beginning of its first packet.
pub const FIRST_WORDS: &[u8] = b"SSH-2.0-OpenSSH_9.2\r\n\0\0\0\x0c\x0a";

/// Time limit for every wait. Nothing takes that long, even on a busy computer.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Starts a program, or fails with its name.
#[track_caller]
fn spawn(command: &mut Command) -> Child {
    command.spawn().unwrap_or_else(|e| panic!("{} cannot be run: {e}", command.get_program().display()))
}

/// Waits for a program, but not for ever: a test that hangs does not say where.
#[track_caller]
fn finish(child: Child, command: &Command) -> Output {
    let pid = rustix::process::Pid::from_child(&child);
    let (done, waiting) = std::sync::mpsc::channel::<()>();
    let (output, was_late) = std::thread::scope(|scope| {
        let watchdog = scope.spawn(move || {
            let late = waiting.recv_timeout(PATIENCE).is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Timeout);
            if late {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            late
        });
        let output = child.wait_with_output().unwrap();
        drop(done);
        (output, watchdog.join().unwrap())
    });
    assert!(!was_late, "this did not end within {PATIENCE:?}: {command:?}\n{output:?}");
    output
}

/// The kinds of SSH endpoint of a local machine.
pub const ENDPOINTS: [&str; 2] = ["builtin", "sshd"];

/// Runs a test on machines of both kinds at the same time. Each has its own world with a running playground `shell`.
pub fn on_both_endpoints(test: impl Fn(&World, &str, &str) + Sync) {
    std::thread::scope(|scope| {
        for endpoint in ENDPOINTS {
            let test = &test;
            scope.spawn(move || {
                let mut world = World::with_platform(&["--endpoint", endpoint]);
                let play = world.playground("shell");
                test(&world, &format!("playground-{play}"), endpoint);
            });
        }
    });
}

pub fn checksum(bytes: &[u8]) -> String {
    let output = World::empty().feed(&mut Command::new("cksum"), bytes);
    String::from_utf8(output.stdout).unwrap()
}

/// A process that is killed at the end of the test.
pub struct Ending(pub Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Parts the tests from the terminal of the person who runs them, because the program asks questions there. A test that
/// needs a terminal makes one. The first caller acts for the whole process.
pub fn leave_terminal() {
    static LEFT: std::sync::Once = std::sync::Once::new();
    LEFT.call_once(|| {
        let parent = rustix::process::getppid();
        // The leader of a process group cannot begin a session, so it joins its parent's group. `cargo test` leads a
        // group for us.
        if rustix::process::getpgrp() == rustix::process::getpid() {
            let group = rustix::process::getpgid(parent).ok();
            let _ = rustix::process::setpgid(None, group);
        }
        // In a session of its own, the terminal's Ctrl-C ends only the parent.
        if rustix::process::setsid().is_ok() {
            std::thread::spawn(move || {
                while rustix::process::getppid() == parent {
                    std::thread::sleep(Duration::from_millis(200));
                }
                std::process::exit(130);
            });
        }
    });
}

/// Waits until a condition becomes true. Fails with its name if it does not.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    within(PATIENCE, what, &mut is_so);
}

#[track_caller]
pub fn within(limit: Duration, what: &str, is_so: &mut dyn FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < limit, "it did not come to be within {limit:?} that {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Judges a time limit of the program's by the best of three attempts, because a busy computer may hold one up. Each of
/// them returns the time that it took.
#[track_caller]
pub fn at_best(limit: Duration, what: &str, mut attempt: impl FnMut() -> Duration) {
    let mut times = Vec::new();
    while times.len() < 3 && times.last().is_none_or(|time| *time >= limit) {
        times.push(attempt());
    }
    assert!(
        times.last().is_some_and(|time| *time < limit),
        "it did not come to be within {limit:?} that {what}: {times:?}"
    );
}

/// Returns a port that is free, for programs that cannot choose one themselves. It is below those that the system
/// chooses, so that it stays free until it is used, and above those of `forward_auto`.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Another run of the tests at the same time begins elsewhere.
    let first = 21_000 + u16::try_from(std::process::id() % 40).unwrap() * 250;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        let is_free =
            |host| TcpListener::bind((host, port)).map_or_else(|e| e.kind() != io::ErrorKind::AddrInUse, |_| true);
        if is_free("127.0.0.1") && is_free("::1") {
            return port;
        }
    }
}

/// Writes a program, with a child process. If this process opened the file for writing, a test that forks at that
/// moment would inherit the descriptor, and Linux would refuse to run the program. The new one takes the place of an old one,
/// because Linux does not let a program that runs be written.
pub fn write_program(path: &Path, text: &str) {
    let script = "printf %s \"$2\" > \"$1.new\" && chmod 755 \"$1.new\" && mv -f \"$1.new\" \"$1\"";
    let status = Command::new("sh").args(["-c", script, "sh"]).arg(path).arg(text).status().unwrap();
    assert!(status.success());
}

/// Copies the built binary, with a child process for the same reason as [`write_program`].
pub fn copy_program(to: &Path) {
    assert!(Command::new("cp").arg(PROGRAM).arg(to).status().unwrap().success());
}

/// Returns pseudo-random bytes, the same ones each time.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Returns the path of a program that the tests need. Fails with its name if it is missing.
pub fn needs(program: &str) -> PathBuf {
    which::which(program)
        .or_else(|_| which::which_in(program, Some("/usr/sbin:/sbin"), "/"))
        .unwrap_or_else(|_| panic!("{program} is missing: scripts/test installs it"))
}

/// Says that a test, or a part of one, cannot run on this machine. In CI that is a failure.
#[track_caller]
pub fn not_run(why: &str) {
    let here = std::panic::Location::caller();
    assert!(std::env::var_os("CI").is_none(), "NOT RUN, and this is CI: {why}");
    say_not_run(here, why);
}

/// Says the same of what a user's rights forbid, in CI, too.
pub fn say_not_run(here: &std::panic::Location<'_>, why: &str) {
    // The test harness keeps back what the printing macros write, and shows this.
    let _ = writeln!(std::io::stderr(), "NOT RUN: {}:{}: {why}", here.file(), here.line());
}

/// Where scripts/test puts other programs' libraries.
pub fn peers(below: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers").join(below);
    assert!(path.exists(), "{} is missing: scripts/test installs it", path.display());
    path
}

/// Returns a program of the tests that uses one of these libraries.
pub fn peer(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(name)
}
