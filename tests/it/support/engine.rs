//! Container engines of the tests' own: each has its own folder, no network of the computer, and no containers but the
//! tests'. One is started once for the whole test binary and ends with it, with everything that it made. Nothing is pulled
//! ([`images`]).
//!
//! Docker and podman have the same words. The others take Docker's options, as far as the tests need them.

mod containerd;
mod crio;
mod docker;
pub mod images;
mod podman;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    panic::Location,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{leave_terminal, not_run, say_not_run, write_program};

/// A busybox with a shell, root and an ordinary user, and `/app`.
pub const BUSYBOX: &str = "busybox";
/// `/app` alone, for user 65532, and `/data` to fetch.
pub const SCRATCH: &str = "scratch";

/// The port of `/app` on the container's own loopback.
pub const HTTP: u16 = 8080;
/// The socket of `/app`, which echoes.
pub const SOCKET: &str = "/dev/shm/app.sock";

/// Starts the engine, and ends it with all of its containers once standard input ends, which is when the tests end. It is
/// a script, because statics of Rust are not dropped.
const SUPERVISOR: &str = r#"#!/bin/sh
# supervisor FOLDER [ENGINE...]
folder=$1 engine=
shift
trap '' HUP INT TERM
[ $# = 0 ] || { "$@" >"$folder/log" 2>&1 </dev/null & engine=$!; }
cat >/dev/null
sh "$folder/end" >/dev/null 2>&1
[ -z "$engine" ] || { kill "$engine" 2>/dev/null; wait "$engine"; }
grep -o " $folder/[^ ]*" /proc/self/mounts | sort -r | xargs -r umount -l
exec rm -rf "$folder"
"#;

/// The engines that there can be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Docker,
    Podman,
    Containerd { pods: bool },
    Crio,
}

pub struct Engine {
    folder: PathBuf,
    kind: Kind,
    /// The engine ends when its standard input is closed.
    supervisor: Mutex<Child>,
}

/// A function that returns an engine, which is started at its first call, or says why there can be none.
macro_rules! engines {
    ($($(#[$about:meta])* $name:ident = $start:expr;)*) => { $(
        $(#[$about])*
        #[track_caller]
        pub fn $name() -> Option<&'static Engine> {
            static ENGINE: OnceLock<Engine> = OnceLock::new();
            can_run().then(|| ENGINE.get_or_init(|| $start))
        }
    )* };
}

impl Engine {
    engines! {
        /// Docker's engine.
        here = docker::start(false);
        /// The same, whose containers have a user namespace.
        remapped = docker::start(true);
        /// podman with runc.
        podman = podman::start(false);
        /// podman with crun.
        crun = podman::start(true);
        /// containerd, whose containers are named as nerdctl names them.
        containerd = containerd::start(false);
        /// containerd, whose containers are annotated as those of Kubernetes.
        cri = containerd::start(true);
        /// conmon and runc, as CRI-O starts them.
        crio = crio::start();
    }

    /// Starts the programs of an engine. `end` is the script that ends its containers.
    fn start(kind: Kind, folder: PathBuf, end: &str, engine: &[String]) -> Engine {
        leave_terminal();
        fs::write(folder.join("end"), end).unwrap();
        let supervisor = folder.join("supervisor");
        write_program(&supervisor, SUPERVISOR);
        let mut command = Command::new("setsid");
        command.args(["-w".as_ref(), supervisor.as_os_str(), folder.as_os_str()]).args(engine).env("PATH", PATH);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Engine { folder, kind, supervisor: Mutex::new(command.spawn().unwrap()) }
    }

    fn is_up(&self) -> bool {
        let ended = self.supervisor.lock().unwrap().try_wait().unwrap();
        assert!(ended.is_none(), "{}", fs::read_to_string(self.folder.join("log")).unwrap_or_default());
        true
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("s")
    }

    /// The words for `local serve --engine`.
    pub fn place(&self) -> PathBuf {
        match self.kind {
            Kind::Docker => self.socket(),
            Kind::Podman => self.folder.join("data"),
            Kind::Containerd { .. } | Kind::Crio => self.folder.clone(),
        }
    }

    /// Makes an image of a folder, by a client with Docker's words.
    pub fn import(&self, rootfs: &Path, image: images::Image) {
        docker::import(self, rootfs, image);
    }

    /// Prepares the engine's own client.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = match self.kind {
            Kind::Docker => docker::client(&self.folder),
            Kind::Podman => podman::client(&self.folder),
            Kind::Containerd { pods } => containerd::client(&self.folder, pods),
            Kind::Crio => crio::client(&self.folder),
        };
        command.args(args).env("HOME", &self.folder).stdin(Stdio::null());
        command
    }

    /// Runs a command of the engine's client that must succeed. Returns its output.
    #[track_caller]
    pub fn docker(&self, args: &[&str]) -> String {
        String::from_utf8(succeed(&mut self.command(args)).stdout).unwrap().trim_end().to_owned()
    }

    /// Starts a container with a name of its own, which begins with `name`. Options come first, as in `docker run`.
    #[track_caller]
    pub fn run(&'static self, name: &str, options: &[&str], image: &str, command: &[&str]) -> Container {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        self.run_as(&format!("{name}{}", COUNT.fetch_add(1, Ordering::Relaxed)), options, image, command)
    }

    /// The same with exactly this name.
    #[track_caller]
    pub fn run_as(&'static self, name: &str, options: &[&str], image: &str, command: &[&str]) -> Container {
        let mut container =
            Container { engine: self, name: name.to_owned(), id: new_id(), sandbox: None, files_before: Vec::new() };
        match self.kind {
            Kind::Docker | Kind::Podman => {
                let run = [&["run", "--detach", "--name", name], options, &[image], command].concat();
                container.id = self.docker(&run);
            }
            Kind::Containerd { pods } => containerd::run(&mut container, pods, options, image, command),
            Kind::Crio => crio::run(&mut container, options, image, command),
        }
        container.files_before = container.files();
        container
    }
}

/// A new folder with a short path, because that of a socket has a small limit. Mapped users have to get through.
fn new_folder() -> PathBuf {
    let folder = tempfile::Builder::new().prefix("lsd").tempdir_in("/tmp").unwrap().keep();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o711)).unwrap();
    folder
}

/// An id as engines make them.
fn new_id() -> String {
    let mut bytes = [0; 32];
    std::io::Read::read_exact(&mut fs::File::open("/dev/urandom").unwrap(), &mut bytes).unwrap();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// Returns true if an engine can be started. In CI, where everything is root, it says no never.
#[track_caller]
fn can_run() -> bool {
    if !cfg!(target_os = "linux") {
        not_run("containers are entered on Linux only");
        return false;
    }
    if !rustix::process::geteuid().is_root() {
        say_not_run(Location::caller(), "an engine of the tests' own needs root");
        return false;
    }
    true
}

#[track_caller]
fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

/// A container that is removed at the end of the test.
pub struct Container {
    engine: &'static Engine,
    pub name: String,
    pub id: String,
    /// The container of its pod, in which nothing runs.
    sandbox: Option<String>,
    /// The files of its own when it was new.
    files_before: Vec<String>,
}

impl Container {
    /// A figure of `docker inspect` or `podman inspect`.
    #[track_caller]
    pub fn inspect(&self, format: &str) -> String {
        self.engine.docker(&["inspect", "--format", format, &self.id])
    }

    pub fn is_dockers(&self) -> bool {
        self.engine.kind == Kind::Docker
    }

    /// The id of the container's first process, on this computer.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        match self.engine.kind {
            Kind::Docker | Kind::Podman => self.inspect("{{.State.Pid}}").parse().unwrap(),
            Kind::Containerd { .. } => containerd::pid(self),
            Kind::Crio => crio::pid(self),
        }
    }

    /// The changes of the container's files: those that docker itself sees, or that the kernel keeps apart.
    #[track_caller]
    pub fn diff(&self) -> String {
        if self.engine.kind == Kind::Docker {
            return self.engine.docker(&["diff", &self.id]);
        }
        let mut files = self.files();
        files.retain(|file| !self.files_before.contains(file));
        files.join("\n")
    }

    /// The files in the container's own layer, with their sizes and times. None for Docker, which is asked itself.
    fn files(&self) -> Vec<String> {
        fn below(folder: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let (path, about) = (entry.path(), entry.metadata().unwrap());
                if about.is_dir() {
                    below(&path, found);
                }
                let size = if about.is_dir() { 0 } else { about.len() };
                found.push(format!("{} {size} {}.{}", path.display(), about.ctime(), about.ctime_nsec()));
            }
        }
        let mut found = Vec::new();
        if self.engine.kind != Kind::Docker {
            let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", self.pid())).unwrap_or_default();
            let mut own = mounts.lines().filter(|line| line.split(' ').nth(4) == Some("/"));
            let layer = own.next_back().and_then(|line| line.split("upperdir=").nth(1)?.split(',').next());
            below(Path::new(layer.unwrap_or_else(|| panic!("no layer of {}: {mounts}", self.name))), &mut found);
        }
        found
    }

    /// Runs a command by `docker exec`, the judge of ours, or by its like.
    pub fn exec(&self, options: &[&str], command: &[&str]) -> Output {
        match self.engine.kind {
            Kind::Docker | Kind::Podman => {
                self.engine.command(&[&["exec"], options, &[&self.id], command].concat()).output().unwrap()
            }
            Kind::Containerd { .. } => containerd::exec(self, options, command),
            Kind::Crio => crio::exec(self, options, command),
        }
    }

    /// Has the engine kill the container.
    #[track_caller]
    pub fn kill(&self) {
        self.ask(&["kill"], "KILL");
    }

    /// Has the engine end the container.
    #[track_caller]
    pub fn stop(&self) {
        self.ask(&["stop"], "TERM");
    }

    #[track_caller]
    fn ask(&self, command: &[&str], signal: &str) {
        match self.engine.kind {
            Kind::Docker | Kind::Podman => drop(self.engine.docker(&[command, &[&self.id]].concat())),
            Kind::Containerd { .. } => drop(self.engine.docker(&["task", "kill", "--signal", signal, &self.id])),
            Kind::Crio => drop(self.engine.docker(&["kill", &self.id, signal])),
        }
    }

    #[track_caller]
    pub fn docker(&self, command: &str) -> String {
        self.engine.docker(&[command, &self.id])
    }

    /// The processes in the container, apart from those that it has of itself: each with its command line.
    pub fn visitors(&self) -> Vec<(u32, String)> {
        let first = self.pid();
        let space = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let Some(its) = space(first) else { return Vec::new() };
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            if pid == first || space(pid).as_ref() != Some(&its) {
                continue;
            }
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ").trim_end().to_owned();
            // The app's own children have its command line.
            if line != "/app serve" {
                found.push((pid, line));
            }
        }
        found
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        match self.engine.kind {
            Kind::Docker => drop(self.engine.command(&["rm", "--force", &self.id]).output()),
            Kind::Podman => drop(self.engine.command(&["rm", "--force", "--time", "0", &self.id]).output()),
            Kind::Containerd { .. } => containerd::remove(self),
            Kind::Crio => crio::remove(self),
        }
    }
}
