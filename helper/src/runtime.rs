//! The runtime that holds a container, found without a guess.
//!
//! The parent of a container's first process is its shim, and the shim works in the container's bundle: the folder with
//! the OCI configuration (`config.json`), the process number (`init.pid`) and the runtime's name and folder
//! (`options.json`). A shim that has several containers works in the bundle of one, beside the others'. So no path of an
//! installation is built in.
//!
//! Process numbers are used again. Each process is therefore held by a descriptor of its folder in `/proc`, which dies
//! with it, and the number and start time are compared with what shim and runtime noted.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::{
        fd::OwnedFd,
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags},
    process::{Resource, Rlimit},
};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    resolve::Running,
    text,
    wire::{Refusal, RefusalKind},
};

/// Longest file of a bundle. An OCI configuration has about 10 KiB.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// The folder of runc's state where a shim is told none.
const USUAL_STATE: &str = "/run/containerd/runc";

/// Folders that are searched for the runtime besides those of the shim's PATH.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The programs that are runc, or that are runc with something around it.
const RUNC: [&str; 3] = ["runc", "docker-runc", "nvidia-container-runtime"];

/// A container's runtime, and what the container is to it.
pub(crate) struct Runtime {
    /// The program.
    pub(crate) program: PathBuf,
    /// The PATH that the shim starts it with.
    pub(crate) path: OsString,
    /// The folder of its state for the shim's namespace.
    pub(crate) root: PathBuf,
    /// The runtime puts processes into cgroups by systemd.
    pub(crate) by_systemd: bool,
    /// The container's first process as configured: user, capabilities, limits, environment and all.
    pub(crate) process: Map<String, Value>,
    /// The container's first process.
    pub(crate) init: Process,
    /// The limits of the shim, which the processes that it starts inherit.
    pub(crate) limits: Vec<(Resource, Rlimit)>,
    /// The file mode mask of the shim, likewise.
    pub(crate) umask: Option<Mode>,
}

/// A process, by a descriptor that dies with it.
pub(crate) struct Process {
    /// Its folder in `/proc`.
    pub(crate) folder: OwnedFd,
    pid: i32,
    parent: i32,
    started: u64,
}

impl Process {
    fn find(proc: &Path, pid: i32) -> io::Result<Process> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(CWD, proc.join(pid.to_string()), flags, Mode::empty())?;
        let stat = read(&folder, "stat")?;
        let (parent, started) = parent_and_start(&stat).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Process { folder, pid, parent, started })
    }

    /// Returns true as long as the process exists.
    pub(crate) fn lives(&self) -> bool {
        read(&self.folder, "stat")
            .is_ok_and(|stat| parent_and_start(&stat).is_some_and(|(_, started)| started == self.started))
    }
}

/// The parent's number and the start time in clock ticks, out of `/proc/<pid>/stat`.
fn parent_and_start(stat: &[u8]) -> Option<(i32, u64)> {
    // The program's name stands in parentheses, and may have some of its own.
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let mut fields = std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some((parent, started))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Options {
    binary_name: Option<String>,
    root: Option<String>,
    systemd_cgroup: Option<bool>,
}

#[derive(Deserialize)]
struct Configuration {
    process: Map<String, Value>,
}

#[derive(Deserialize)]
struct RuntimeState {
    init_process_pid: i32,
    init_process_start: u64,
}

impl Runtime {
    /// The runtime of a container.
    ///
    /// # Errors
    /// Fails when it is none that this program can use, and when the container has ended meanwhile.
    pub(crate) fn of(running: &Running) -> Result<Runtime, Refusal> {
        Runtime::found(Path::new("/proc"), running)
    }

    fn found(proc: &Path, running: &Running) -> Result<Runtime, Refusal> {
        let name = text::line(&running.container.name);
        let gone = |_| {
            Refusal::new(RefusalKind::NotRunning, format!("container {name} has ended just now"))
                .with_hint("connect again")
        };
        not_isolated_further(&name, &running.details.host_config.runtime)?;

        let init = Process::find(proc, running.details.state.pid).map_err(gone)?;
        let shim = Process::find(proc, init.parent).map_err(gone)?;
        let shim_name = program_of(&shim).map_err(|_| other_namespace(&name))?;
        if !shim_name.starts_with("containerd-shim") {
            return Err(Refusal::new(
                RefusalKind::Impossible,
                format!(
                    "container {name} is not run by Docker's containerd: its parent process is `{}`",
                    text::line(&shim_name)
                ),
            )
            .with_hint("only containers of Docker Engine can be entered"));
        }
        not_isolated_further(&name, shim_name.trim_start_matches("containerd-shim-"))?;
        rooted(&name, &shim)?;

        let (bundle, namespace) =
            bundle(&shim, &running.container.id).map_err(|error| unreadable(&name, "its bundle", &error))?;
        let noted = read(&bundle, "init.pid").map_err(|error| unreadable(&name, "`init.pid` of its bundle", &error))?;
        if std::str::from_utf8(&noted).ok().and_then(|pid| pid.trim().parse().ok()) != Some(init.pid) {
            return Err(gone(io::Error::other("another process")));
        }
        let options: Options = match json(&bundle, "options.json") {
            Ok(options) => options,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Options::default(),
            Err(error) => return Err(unreadable(&name, "`options.json` of its bundle", &error)),
        };
        let configuration: Configuration =
            json(&bundle, "config.json").map_err(|error| unreadable(&name, "`config.json` of its bundle", &error))?;

        let binary = options.binary_name.filter(|binary| !binary.is_empty()).unwrap_or_else(|| "runc".to_owned());
        let path = environment(&shim, "PATH").filter(|path| !path.is_empty()).unwrap_or_else(|| USUAL_PATH.into());
        let program = program(&name, &binary, &path)?;

        let root = options.root.filter(|root| !root.is_empty()).unwrap_or_else(|| USUAL_STATE.to_owned());
        let root = Path::new(&root).join(namespace);
        let state: RuntimeState =
            rustix::fs::open(root.join(&running.container.id), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                .map_err(io::Error::from)
                .and_then(|folder| json(&folder, "state.json"))
                .map_err(|error| unreadable(&name, &format!("runc's state in {}", root.display()), &error))?;
        if (state.init_process_pid, state.init_process_start) != (init.pid, init.started) {
            return Err(gone(io::Error::other("another process")));
        }
        Ok(Runtime {
            program,
            path,
            root,
            by_systemd: options.systemd_cgroup == Some(true),
            process: configuration.process,
            init,
            limits: read(&shim.folder, "limits").map(|limits| limits_in(&limits)).unwrap_or_default(),
            umask: read(&shim.folder, "status").ok().and_then(|status| umask_in(&status)),
        })
    }
}

/// Refuses the runtimes that keep a container in a kernel or machine of its own, where no descriptor can be handed in.
fn not_isolated_further(container: &str, runtime: &str) -> Result<(), Refusal> {
    let what = match runtime.to_ascii_lowercase() {
        it if it.contains("runsc") || it.contains("gvisor") => "gVisor",
        it if it.contains("kata") => "Kata Containers",
        it if it.contains("sysbox") => "Sysbox",
        it if it.contains("crun") || it.contains("youki") => "a runtime other than runc",
        it if ["wasm", "spin", "slight", "shimv2"].iter().any(|other| it.contains(other)) => {
            "a runtime other than runc"
        }
        _ => return Ok(()),
    };
    let message = format!("container {container} is run by {what} (`{}`), and cannot be entered", text::line(runtime));
    let hint = format!("a shell in it: `ssh -t {{machine}} docker exec -it {container} sh`");
    Err(Refusal::new(RefusalKind::Impossible, message).with_hint(hint))
}

/// Refuses a shim that belongs to a rootless engine.
fn rooted(container: &str, shim: &Process) -> Result<(), Refusal> {
    let owner = rustix::fs::fstat(&shim.folder).map(|stat| stat.st_uid).unwrap_or_default();
    let own_namespace = rustix::fs::readlink("/proc/self/ns/user", Vec::new());
    let same_users = match (own_namespace, rustix::fs::readlinkat(&shim.folder, "ns/user", Vec::new())) {
        (Ok(ours), Ok(theirs)) => ours == theirs,
        _ => true,
    };
    if owner == rustix::process::geteuid().as_raw() && same_users {
        return Ok(());
    }
    let message = format!("container {container} belongs to a rootless engine (of uid {owner}), and cannot be entered");
    let hint = format!("a shell in it, as that engine's user: `docker exec -it {container} sh`");
    Err(Refusal::new(RefusalKind::Impossible, message).with_hint(hint))
}

/// The bundle of the container, and the name of containerd's namespace.
fn bundle(shim: &Process, id: &str) -> io::Result<(OwnedFd, OsString)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut link =
        PathBuf::from(OsString::from_vec(rustix::fs::readlinkat(&shim.folder, "cwd", Vec::new())?.into_bytes()));
    let mut folder = rustix::fs::openat(&shim.folder, "cwd", flags, Mode::empty())?;
    if link.file_name() != Some(OsStr::new(id)) {
        folder = rustix::fs::openat(&folder, Path::new("..").join(id), flags, Mode::empty())?;
        link.set_file_name(id);
    }
    let namespace = link.parent().and_then(Path::file_name).ok_or(io::ErrorKind::InvalidData)?;
    Ok((folder, namespace.to_owned()))
}

fn program(container: &str, binary: &str, path: &OsStr) -> Result<PathBuf, Refusal> {
    let name = Path::new(binary).file_name().map(OsStr::to_string_lossy).unwrap_or_default();
    if !RUNC.contains(&&*name) {
        let message = format!(
            "container {container} is run by `{}`, and only runc's containers can be entered",
            text::line(binary)
        );
        let hint = format!("a shell in it: `ssh -t {{machine}} docker exec -it {container} sh`");
        return Err(Refusal::new(RefusalKind::Impossible, message).with_hint(hint));
    }
    let places = std::env::split_paths(path).chain(std::env::split_paths(USUAL_PATH));
    let candidates: Vec<PathBuf> = match Path::new(binary) {
        absolute if absolute.is_absolute() => vec![absolute.to_owned()],
        _ => places.map(|place| place.join(binary)).filter(|place| place.is_absolute()).collect(),
    };
    let found =
        candidates.into_iter().find(|it| it.is_file() && rustix::fs::access(it, rustix::fs::Access::EXEC_OK).is_ok());
    found.ok_or_else(|| {
        Refusal::new(
            RefusalKind::Program,
            format!("the runtime of container {container} is missing on this machine: `{}`", text::line(binary)),
        )
        .with_hint("install runc, or Docker's package of containerd, which has it")
    })
}

fn program_of(process: &Process) -> io::Result<String> {
    let link = rustix::fs::readlinkat(&process.folder, "exe", Vec::new())?.into_bytes();
    let link = String::from_utf8_lossy(&link).into_owned();
    // The engine may have been upgraded since the shim was started.
    let link = link.strip_suffix(" (deleted)").unwrap_or(&link);
    Ok(link.rsplit('/').next().unwrap_or_default().to_owned())
}

fn environment(process: &Process, name: &str) -> Option<OsString> {
    let all = read(&process.folder, "environ").ok()?;
    let mut variables = all.split(|&byte| byte == 0);
    let value = variables.find_map(|one| one.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    Some(OsStr::from_bytes(value).to_owned())
}

/// Reads a file of our own kernel's or of the engine's: no container can put another in its place.
fn read(folder: &OwnedFd, name: &str) -> io::Result<Vec<u8>> {
    let file = rustix::fs::openat(folder, name, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::new();
    File::from(file).take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn json<T: for<'de> Deserialize<'de>>(folder: &OwnedFd, name: &str) -> io::Result<T> {
    Ok(serde_json::from_slice(&read(folder, name)?)?)
}

/// The limits in `/proc/<pid>/limits`.
fn limits_in(table: &[u8]) -> Vec<(Resource, Rlimit)> {
    let table = String::from_utf8_lossy(table);
    let known = [
        ("Max cpu time", Resource::Cpu),
        ("Max file size", Resource::Fsize),
        ("Max data size", Resource::Data),
        ("Max stack size", Resource::Stack),
        ("Max core file size", Resource::Core),
        ("Max resident set", Resource::Rss),
        ("Max processes", Resource::Nproc),
        ("Max open files", Resource::Nofile),
        ("Max locked memory", Resource::Memlock),
        ("Max address space", Resource::As),
        ("Max file locks", Resource::Locks),
        ("Max pending signals", Resource::Sigpending),
        ("Max msgqueue size", Resource::Msgqueue),
        ("Max nice priority", Resource::Nice),
        ("Max realtime priority", Resource::Rtprio),
        ("Max realtime timeout", Resource::Rttime),
    ];
    let value = |word: &str| if word == "unlimited" { Some(None) } else { word.parse().ok().map(Some) };
    let limit = |(name, resource): &(&str, Resource)| {
        let mut words = table.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace();
        Some((*resource, Rlimit { current: value(words.next()?)?, maximum: value(words.next()?)? }))
    };
    known.iter().filter_map(limit).collect()
}

/// The mask in `/proc/<pid>/status`.
fn umask_in(status: &[u8]) -> Option<Mode> {
    let status = String::from_utf8_lossy(status);
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(mask.trim(), 8).ok().map(Mode::from_raw_mode)
}

fn other_namespace(container: &str) -> Refusal {
    let message = format!("the process that runs container {container} cannot be looked at from this session");
    Refusal::new(RefusalKind::Impossible, message).with_hint("log in to the machine itself, as root")
}

fn unreadable(container: &str, what: &str, error: &io::Error) -> Refusal {
    let message = format!("{what} cannot be read for container {container}: {}", text::line(&error.to_string()));
    Refusal::new(RefusalKind::Impossible, message)
        .with_hint("only containers of Docker Engine, with containerd and runc, can be entered")
}
