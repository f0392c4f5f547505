//! Containers as ssh hosts: into real containers of an engine of the tests' own, through the built program, a machine of
//! the embedded platform and the real ssh. Docker's own client is the judge of what is in a container and of what is left
//! there.

mod commands;
mod confinement;
mod entering;
mod ephemeral;
mod hostile;
mod keys;
mod left;
mod listing;
mod logs;
mod matrix;
mod names;
mod naming;
mod pod_names;
mod pods;
mod refusals;
mod runtimes;
mod tools;
mod view;
mod wake;

use std::{
    fs,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use crate::support::{
    Said, World,
    engine::{BUSYBOX, Container, Engine, SCRATCH},
    eventually,
};

/// The machine of the playground `shell`.
pub const MACHINE: &str = "shell-01";

/// A running playground whose machine, which is this computer, has an engine.
pub struct Site {
    pub world: World,
    pub play: String,
}

impl Site {
    #[track_caller]
    pub fn new(engine: &Engine, endpoint: &str) -> Site {
        Site::with(&engine.place(), endpoint, &[])
    }

    /// A site without a choice, whose machine has what runs on this computer.
    #[track_caller]
    fn of_computer() -> Site {
        needs_helper();
        let mut world = World::empty();
        world.serve(&[]);
        let play = world.playground("shell");
        Site { world, play }
    }

    /// A site whose engine has this socket or folder, with these variables for the machine.
    #[track_caller]
    fn with(socket: &Path, endpoint: &str, variables: &[(&str, &str)]) -> Site {
        needs_helper();
        let mut world = World::empty();
        world.serve_with(&["--endpoint", endpoint, "--engine", socket.to_str().unwrap()], variables);
        let play = world.playground("shell");
        Site { world, play }
    }

    /// A site whose machine has no engine: none listens any more at the socket, which lies in this folder.
    #[track_caller]
    fn without_engine() -> (Site, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        drop(UnixListener::bind(&socket).unwrap());
        (Site::with(&socket, "builtin", &[]), folder)
    }

    /// The host name of the playground, which has one machine.
    pub fn playground(&self) -> String {
        format!("playground-{}", self.play)
    }

    /// The host name of the machine.
    fn machine(&self) -> String {
        format!("{}.{MACHINE}", self.playground())
    }

    /// The host name of a container. Names of the tests' containers are labels.
    fn host(&self, container: &str) -> String {
        format!("{}.{container}", self.machine())
    }

    /// The folder in which the machine lies.
    fn machine_folder(&self) -> PathBuf {
        self.world.root().join("local/plays").join(&self.play).join(MACHINE)
    }

    /// The helpers that lie on the machine. The tools for containers are in folders beside them.
    fn helpers(&self) -> Vec<PathBuf> {
        let all = fs::read_dir(self.machine_folder().join("helper")).unwrap().map(|entry| entry.unwrap().path());
        all.filter(|path| !path.is_dir()).collect()
    }

    pub fn ssh(&self, args: &[&str]) -> Said {
        self.world.output(&mut self.client("ssh", args))
    }

    /// Prepares one of ssh's programs. It asks about nothing and takes no host key that it has not known.
    fn client(&self, program: &str, args: &[&str]) -> Command {
        let mut command = self.world.ssh_program(program);
        command.args(STRICT).args(args);
        command
    }

    /// Runs a script of bash in a new folder, with `ssh`, `sftp` and `scp` as functions. Returns what it printed.
    fn script(&self, script: &str, variables: &[(&str, &str)]) -> String {
        let folder = tempfile::Builder::new().prefix("r").tempdir_in(self.world.home()).unwrap();
        let config = self.world.ssh_config();
        let strict = STRICT.join(" ");
        let function = |name| format!("{name}() {{ command {name} -F '{}' {strict} \"$@\"; }}\n", config.display());
        let functions = ["ssh", "scp", "sftp"].map(function).concat();
        let mut bash = self.world.program("bash");
        bash.args(["-c", &format!("exec 2>&1\n{functions}{HELP}{script}")]).current_dir(folder.path());
        let said = self.world.output(bash.envs(variables.iter().copied()));
        format!("{}{}", said.out, said.err)
    }

    /// The processes on the machine that belong to visits: ours, and the runtime's that we started. Those of the engine
    /// itself have another environment.
    fn visits(&self) -> Vec<String> {
        let home = self.machine_folder().display().to_string();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
            let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
            let about = String::from_utf8_lossy(&read("environ")).into_owned() + &line;
            if about.contains(&home) && ["helper", "runc", "crun", "serve "].iter().any(|one| line.contains(one)) {
                found.push(line);
            }
        }
        found
    }

    /// Checks that nothing is left of all visits: no process on either side, no change in the container's files.
    #[track_caller]
    fn leaves_nothing(&self, container: &Container) {
        eventually("no process of ours is left", || {
            let (inside, outside) = (container.visitors(), self.visits());
            inside.is_empty() && outside.is_empty()
        });
        assert_eq!(container.diff(), "", "files of {}", container.name);
    }
}

const STRICT: [&str; 6] = ["-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "ConnectTimeout=60"];

/// Nearly all that `--privileged` gives. The computer that runs the tests has no SYS_RESOURCE to give, if it is itself a
/// container or a sandbox.
const POWERFUL: [&str; 8] = [
    "--cap-add",
    "all",
    "--cap-drop",
    "SYS_RESOURCE",
    "--security-opt",
    "seccomp=unconfined",
    "--security-opt",
    "systempaths=unconfined",
];

/// Words of the rows' scripts.
const HELP: &str = r#"
# Waits until a command succeeds.
until_so() { for _ in $(seq 600); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; echo "never: $*"; }
# A connection with these options, which lasts until `bye`.
hold() { ssh -M -S c -fN -o ExitOnForwardFailure=yes "$@" "$HOST"; }
bye() { command ssh -F none -S c -O exit x 2>/dev/null; }
"#;

/// A name of a kind of container, its engine, and the options and the image that it is run with.
type Target = (&'static str, &'static Engine, Vec<&'static str>, &'static str);

/// The kinds of container that differ in what they permit, of Docker.
fn targets() -> Vec<Target> {
    let Some(engine) = Engine::here() else { return Vec::new() };
    let remapped = Engine::remapped().unwrap();
    let network = ["--network", "none"];
    // Nothing but the files that are sent lies there.
    let room = ["--shm-size", "512m"];
    let plain = [&network[..], &room].concat();
    let hard = ["--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges"];
    vec![
        ("root", engine, plain.clone(), BUSYBOX),
        ("scratch", engine, plain.clone(), SCRATCH),
        ("hardened", engine, [&plain[..], &hard].concat(), SCRATCH),
        ("userns", remapped, plain, SCRATCH),
    ]
}

/// The options of a user namespace where it is a matter of the container.
const MAPPED: [&str; 4] = ["--uidmap", "0:200000:65536", "--gidmap", "0:200000:65536"];

/// The engines that have no socket to ask, each with its name.
fn others() -> Vec<(&'static str, &'static Engine)> {
    let all = [("podman", Engine::podman()), ("containerd", Engine::containerd()), ("cri", Engine::cri())];
    all.into_iter().filter_map(|(name, engine)| Some((name, engine?))).collect()
}

/// The same kinds of container as Docker's, of another engine.
fn targets_of(engine: &'static Engine) -> Vec<Target> {
    let all = targets().into_iter();
    all.map(|(name, _, options, image)| {
        let mapped = if name == "userns" { &MAPPED[..] } else { &[] };
        (name, engine, [&options, mapped].concat(), image)
    })
    .collect()
}

/// The lines of `/proc/<pid>/status`, without the two signals that the C library keeps for itself: cargo starts programs
/// with them ignored, so the engine passes that on to the processes of `docker exec`.
fn without_library_signals(status: &str) -> String {
    const OF_THE_LIBRARY: u64 = 1 << 31 | 1 << 32;
    let line = |line: &str| match line.split_once("SigIgn:\t") {
        Some(("", mask)) => format!("SigIgn:\t{:016x}", u64::from_str_radix(mask, 16).unwrap() & !OF_THE_LIBRARY),
        _ => line.to_owned(),
    };
    status.lines().map(|one| line(one) + "\n").collect()
}

/// Fails if the helper's program is missing or older than its source: what would be tested is another one.
#[track_caller]
pub(crate) fn needs_helper() {
    let file = format!("labctl-ssh-proxy-helper-{}.gz", std::env::consts::ARCH);
    let helper = Path::new(crate::support::PROGRAM).with_file_name(file);
    let changed = |path: &Path| fs::metadata(path).and_then(|about| about.modified());
    let source = newest(&Path::new(env!("CARGO_MANIFEST_DIR")).join("helper/src"));
    let is_new = changed(&helper).is_ok_and(|built| built >= source);
    assert!(is_new, "{} is missing or old: run scripts/helper --debug", helper.display());
}

/// The time of the last change to any file below a folder.
fn newest(folder: &Path) -> SystemTime {
    let of = |path: PathBuf| if path.is_dir() { newest(&path) } else { path.metadata().unwrap().modified().unwrap() };
    fs::read_dir(folder).unwrap().map(|entry| of(entry.unwrap().path())).max().unwrap()
}
