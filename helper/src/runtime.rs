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
    engine::Engine,
    resolve::Running,
    stat::Stat,
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
        let Stat { parent, started, .. } = Stat::of(&read(&folder, "stat")?).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Process { folder, pid, parent, started })
    }

    /// Returns true as long as the process exists.
    pub(crate) fn lives(&self) -> bool {
        read(&self.folder, "stat").is_ok_and(|line| Stat::of(&line).is_some_and(|stat| stat.started == self.started))
    }
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
    pub(crate) fn of(engine: &Engine, running: &Running) -> Result<Runtime, Refusal> {
        Runtime::found(Path::new("/proc"), running).map_err(|refusal| match engine.is_elsewhere() {
            true => other_namespace(&text::line(&running.container.name)),
            false => refusal,
        })
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
            let runtime = match text::line(&running.details.host_config.runtime).as_str() {
                "" | "runc" | "io.containerd.runc.v2" => String::new(),
                other => format!(", and its runtime `{other}`"),
            };
            let shim_name = text::line(&shim_name);
            return Err(Refusal::new(
                RefusalKind::Impossible,
                format!("container {name} is not run by containerd: its parent process is `{shim_name}`{runtime}"),
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
    let hint = format!("a shell in it: `labctl-ssh-proxy ssh {{machine}} -t docker exec -it {container} sh`");
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
        let hint = format!("a shell in it: `labctl-ssh-proxy ssh {{machine}} -t docker exec -it {container} sh`");
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

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
    };

    use serde_json::json;

    use super::*;
    use crate::{
        engine::{HostConfig, Inspected, State},
        wire::Container,
    };

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// A machine as files: `/proc` with a container's first process (100) and its shim (50), a bundle, runc and its state.
    struct Machine {
        folder: tempfile::TempDir,
        running: Running,
    }

    impl Machine {
        fn new() -> Machine {
            let folder = tempfile::tempdir().unwrap();
            let machine = Machine {
                folder,
                running: Running {
                    container: Container { id: ID.to_owned(), name: "web".to_owned(), ..Container::default() },
                    details: Inspected {
                        id: ID.to_owned(),
                        state: State { pid: 100 },
                        host_config: HostConfig { runtime: "runc".to_owned(), ..HostConfig::default() },
                    },
                },
            };
            machine.write("proc/100/stat", &stat(100, "a (strange) name)", 50, 777));
            machine.write("proc/50/stat", &stat(50, "containerd-shim", 1, 700));
            machine.write("proc/50/environ", "A=1\0PATH=/nowhere\0B=2\0");
            machine.write(
                "proc/50/limits",
                "Limit  Soft Limit  Hard Limit  Units\nMax open files  1024  unlimited  files\n",
            );
            machine.write("proc/50/status", "Name:\tx\nUmask:\t0027\n");
            machine.link("proc/50/exe", "/usr/bin/containerd-shim-runc-v2");
            machine.link("proc/50/cwd", machine.path(&format!("task/moby/{ID}")));
            machine.link("proc/50/ns/user", fs::read_link("/proc/self/ns/user").unwrap());
            machine.write("bin/runc", "");
            fs::set_permissions(machine.path("bin/runc"), fs::Permissions::from_mode(0o755)).unwrap();
            let options = json!({ "binary_name": machine.path("bin/runc"), "root": machine.path("state") });
            machine.in_bundle("options.json", &options.to_string());
            machine.in_bundle("init.pid", "100");
            machine.in_bundle("config.json", r#"{"process":{"user":{"uid":5},"cwd":"/x","new":[1]},"root":null}"#);
            machine.write(
                &format!("state/moby/{ID}/state.json"),
                r#"{"init_process_pid":100,"init_process_start":777,"id":"x"}"#,
            );
            machine
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn write(&self, name: &str, contents: &str) {
            fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
            fs::write(self.path(name), contents).unwrap();
        }

        fn in_bundle(&self, name: &str, contents: &str) {
            self.write(&format!("task/moby/{ID}/{name}"), contents);
        }

        fn link(&self, name: &str, to: impl AsRef<Path>) {
            let _ = fs::remove_file(self.path(name));
            fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
            symlink(to, self.path(name)).unwrap();
        }

        fn find(&self) -> Result<Runtime, Refusal> {
            Runtime::found(&self.path("proc"), &self.running)
        }

        #[track_caller]
        fn is_refused(&self, kind: RefusalKind, words: &str) {
            let refusal = self.find().err().unwrap();
            assert!(refusal.kind == kind && refusal.message.contains(words), "{refusal:?}");
            assert!(refusal.message.contains("container web") && refusal.hint.is_some(), "{refusal:?}");
        }
    }

    fn stat(pid: i32, name: &str, parent: i32, started: u64) -> String {
        format!("{pid} ({name}) S {parent} {pid} {pid} 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 {started} 100 200")
    }

    #[test]
    fn a_container_of_docker_is_found_by_its_shim() {
        let machine = Machine::new();
        let runtime = machine.find().unwrap();
        assert_eq!(runtime.program, machine.path("bin/runc"));
        assert_eq!(runtime.root, machine.path("state/moby"));
        assert_eq!(runtime.path, "/nowhere");
        assert!(!runtime.by_systemd && runtime.init.lives());
        assert_eq!(runtime.process["new"], json!([1]));
        let [(resource, limit)] = runtime.limits[..] else { panic!("{} limits", runtime.limits.len()) };
        assert!(matches!(resource, Resource::Nofile) && limit == Rlimit { current: Some(1024), maximum: None });
        assert_eq!(runtime.umask, Some(Mode::from_raw_mode(0o027)));

        machine.write("proc/100/stat", &stat(100, "another", 50, 778));
        assert!(!runtime.init.lives());
    }

    #[test]
    fn a_shim_of_several_containers_has_the_bundle_beside_its_own() {
        let machine = Machine::new();
        fs::create_dir(machine.path("task/moby/another")).unwrap();
        machine.link("proc/50/cwd", machine.path("task/moby/another"));
        assert_eq!(machine.find().unwrap().root, machine.path("state/moby"));
    }

    #[test]
    fn an_upgraded_engine_and_a_systemd_one_are_no_others() {
        let machine = Machine::new();
        machine.link("proc/50/exe", "/usr/bin/containerd-shim-runc-v2 (deleted)");
        let options = json!({
            "binary_name": machine.path("bin/runc"), "root": machine.path("state"), "systemd_cgroup": true, "io_uid": 0
        });
        machine.in_bundle("options.json", &options.to_string());
        assert!(machine.find().unwrap().by_systemd);
    }

    #[test]
    fn a_container_in_a_kernel_of_its_own_is_refused_by_name() {
        for (runtime, words) in [
            ("runsc", "gVisor (`runsc`)"),
            ("io.containerd.runsc.v1", "gVisor"),
            ("kata-runtime", "Kata Containers"),
            ("io.containerd.kata.v2", "Kata Containers"),
            ("sysbox-runc", "Sysbox"),
            ("crun", "a runtime other than runc"),
            ("io.containerd.wasmtime.v1", "a runtime other than runc"),
        ] {
            let mut machine = Machine::new();
            machine.running.details.host_config.runtime = runtime.to_owned();
            machine.is_refused(RefusalKind::Impossible, words);
        }
        // The name of a runtime is the user's choice, the programs are not.
        let machine = Machine::new();
        machine.link("proc/50/exe", "/opt/kata/bin/containerd-shim-kata-v2");
        machine.is_refused(RefusalKind::Impossible, "Kata Containers");
        for binary in ["/usr/local/bin/runsc", "/usr/bin/crun"] {
            machine.link("proc/50/exe", "/usr/bin/containerd-shim-runc-v2");
            machine.in_bundle("options.json", &json!({ "binary_name": binary }).to_string());
            machine.is_refused(RefusalKind::Impossible, &format!("is run by `{binary}`"));
        }
    }

    #[test]
    fn podmans_and_rootless_containers_are_refused() {
        let machine = Machine::new();
        machine.link("proc/50/exe", "/usr/bin/conmon");
        machine.is_refused(RefusalKind::Impossible, "its parent process is `conmon`");
        let mut machine = Machine::new();
        machine.running.details.host_config.runtime = "odd".to_owned();
        machine.link("proc/50/exe", "/usr/bin/init");
        machine.is_refused(RefusalKind::Impossible, "its parent process is `init`, and its runtime `odd`");
        let machine = Machine::new();
        machine.link("proc/50/ns/user", "user:[4026532999]");
        machine.is_refused(RefusalKind::Impossible, "belongs to a rootless engine");
    }

    #[test]
    fn a_process_that_is_another_one_by_now_is_not_entered() {
        let gone = |change: &dyn Fn(&Machine)| {
            let machine = Machine::new();
            change(&machine);
            machine.is_refused(RefusalKind::NotRunning, "has ended just now");
        };
        gone(&|machine| fs::remove_dir_all(machine.path("proc/100")).unwrap());
        gone(&|machine| fs::remove_dir_all(machine.path("proc/50")).unwrap());
        gone(&|machine| machine.in_bundle("init.pid", "101"));
        gone(&|machine| machine.write("proc/100/stat", &stat(100, "another", 50, 778)));
        gone(&|machine| machine.write("proc/100/stat", ""));
        let state = r#"{"init_process_pid":99,"init_process_start":777}"#;
        gone(&|machine| machine.write(&format!("state/moby/{ID}/state.json"), state));
    }

    #[test]
    fn what_is_missing_is_named() {
        let machine = Machine::new();
        fs::remove_file(machine.path("bin/runc")).unwrap();
        machine.is_refused(RefusalKind::Program, "is missing on this machine");
        for (file, words) in [("config.json", "`config.json`"), ("init.pid", "`init.pid`")] {
            let machine = Machine::new();
            fs::remove_file(machine.path(&format!("task/moby/{ID}/{file}"))).unwrap();
            machine.is_refused(RefusalKind::Impossible, words);
        }
        let machine = Machine::new();
        fs::remove_dir_all(machine.path("state")).unwrap();
        machine.is_refused(RefusalKind::Impossible, "runc's state");
        machine.in_bundle("options.json", "{");
        machine.is_refused(RefusalKind::Impossible, "`options.json`");
    }

    #[test]
    fn the_kernels_own_tables_are_read() {
        let limits = limits_in(&fs::read("/proc/self/limits").unwrap());
        assert_eq!(limits.len(), 16);
        for (resource, limit) in limits {
            assert_eq!(rustix::process::getrlimit(resource), limit);
        }
        assert!(umask_in(&fs::read("/proc/self/status").unwrap()).is_some());
        let own = Process::find(Path::new("/proc"), rustix::process::getpid().as_raw_nonzero().get()).unwrap();
        assert!(own.lives() && own.parent == rustix::process::getppid().unwrap().as_raw_nonzero().get());
    }
}
