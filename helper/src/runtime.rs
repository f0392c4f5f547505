//! The runtime that holds a container, found without a guess.
//!
//! The parent of a container's first process is what keeps it. It is one of two:
//!
//! - **A shim of containerd** (`keeper`) works in the container's bundle: the folder with the OCI configuration
//!   (`config.json`), the process number (`init.pid`) and the runtime's name and folder (`options.json`). A shim that has
//!   several containers works in the bundle of one, beside the others'.
//! - **conmon** of podman or CRI-O has bundle, process number and runtime on its command line.
//!
//! So no path of an installation is built in. Number and start time of the first process are compared with what keeper and
//! runtime noted.

mod keeper;
mod program;
mod tables;

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    process::{Resource, Rlimit},
};
use serde::Deserialize;
use serde_json::{Map, Value};

use self::keeper::Keeper;
use crate::{
    engine::Engine,
    process::{self, Process},
    resolve::Running,
    text,
    wire::{Refusal, RefusalKind},
};

/// A container's runtime, and what the container is to it.
pub(crate) struct Runtime {
    /// The program.
    pub(crate) program: PathBuf,
    /// It is runc, or one around it.
    pub(crate) is_runc: bool,
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
    /// Its eagerness to be killed for want of memory, likewise.
    pub(crate) oom_score: Option<i32>,
}

/// A runtime's notes on a container's first process: runc's words, and crun's.
#[derive(Deserialize)]
pub(crate) struct RuntimeState {
    /// Its number.
    #[serde(alias = "pid")]
    pub(crate) init_process_pid: i32,
    /// Its start, in clock ticks since the machine's.
    #[serde(alias = "process-start-time")]
    pub(crate) init_process_start: u64,
}

#[derive(Deserialize)]
struct Configuration {
    process: Map<String, Value>,
}

impl Runtime {
    /// The runtime of a container.
    ///
    /// # Errors
    /// Fails when it is none that this program can use, and when the container has ended meanwhile.
    pub(crate) fn of(engine: &Engine, running: &Running) -> Result<Runtime, Refusal> {
        Runtime::found(Path::new("/proc"), running).map_err(|refusal| {
            match running.container.client() == "docker" && engine.is_elsewhere() {
                true => other_namespace(&text::line(&running.container.name)),
                false => refusal,
            }
        })
    }

    fn found(proc: &Path, running: &Running) -> Result<Runtime, Refusal> {
        let container = &running.container;
        let name = &text::line(&container.name);
        let gone = |_| ended(name);
        let of_user = &running.details.host_config.runtime;
        program::not_isolated_further(container, of_user)?;

        let init = Process::find(proc, running.details.state.pid).map_err(gone)?;
        let keeper = Process::find(proc, init.parent).map_err(gone)?;
        let kept = Keeper::of(container, &keeper, of_user)?;
        if kept.pid != init.pid {
            return Err(gone(io::Error::other("another process")));
        }
        let configuration: Configuration = process::json(&kept.bundle, "config.json")
            .map_err(|error| unreadable(name, "`config.json` of its bundle", &error))?;

        let path = keeper.variable("PATH").unwrap_or_else(|| program::USUAL_PATH.into());
        let kind = program::kind(container, &kept.runtime)?;
        let program = program::find(name, &kept.runtime, &path)?;
        let root = kept.root.unwrap_or_else(|| kind.usual_root(&keeper));
        let state: RuntimeState =
            rustix::fs::open(root.join(&container.id), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                .map_err(io::Error::from)
                .and_then(|folder| process::json(&folder, kind.state_file()))
                .map_err(|error| unreadable(name, &format!("{}'s state in {}", kind.name(), root.display()), &error))?;
        if (state.init_process_pid, state.init_process_start) != (init.pid, init.started) {
            return Err(gone(io::Error::other("another process")));
        }
        Ok(Runtime {
            program,
            is_runc: kind.is_runc(),
            path,
            root,
            by_systemd: kept.by_systemd,
            // The runtime sets one that the configuration has.
            oom_score: kept.oom_score.filter(|_| !configuration.process.contains_key(keeper::OOM_SCORE_KEY)),
            process: configuration.process,
            init,
            limits: process::read(&keeper.folder, "limits").map(|it| tables::limits_in(&it)).unwrap_or_default(),
            umask: process::read(&keeper.folder, "status").ok().and_then(|it| tables::umask_in(&it)),
        })
    }
}

fn ended(container: &str) -> Refusal {
    Refusal::new(RefusalKind::NotRunning, format!("container {container} has ended just now"))
        .with_hint("connect again")
}

fn other_namespace(container: &str) -> Refusal {
    let message = format!("the process that runs container {container} cannot be looked at from this session");
    Refusal::new(RefusalKind::Impossible, message).with_hint("log in to the machine itself, as root")
}

fn unreadable(container: &str, what: &str, error: &io::Error) -> Refusal {
    let message = format!("{what} cannot be read for container {container}: {}", text::line(&error.to_string()));
    Refusal::new(RefusalKind::Impossible, message)
        .with_hint("only containers of containerd, podman and CRI-O, run by runc or crun, can be entered")
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
                    container: Container {
                        id: ID.to_owned(),
                        name: "web".to_owned(),
                        engine: "docker".to_owned(),
                        ..Container::default()
                    },
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
            let own = fs::read_to_string("/proc/self/status").unwrap();
            let capabilities = own.lines().find(|line| line.starts_with("CapEff:")).unwrap();
            machine.write("proc/50/status", &format!("Name:\tx\nUmask:\t0027\nUid:\t0\t0\t0\t0\n{capabilities}\n"));
            machine.link("proc/50/root", "/");
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
        machine.write("proc/50/oom_score_adj", "1000\n");
        let runtime = machine.find().unwrap();
        assert_eq!(runtime.oom_score, Some(1000));
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
            ("youki", "a runtime other than runc and crun"),
            ("krun", "a virtual machine"),
            ("io.containerd.wasmtime.v1", "a runtime other than runc and crun"),
        ] {
            let mut machine = Machine::new();
            machine.running.details.host_config.runtime = runtime.to_owned();
            machine.is_refused(RefusalKind::Impossible, words);
        }
        // The name of a runtime is the user's choice, the programs are not.
        let machine = Machine::new();
        machine.link("proc/50/exe", "/opt/kata/bin/containerd-shim-kata-v2");
        machine.is_refused(RefusalKind::Impossible, "Kata Containers");
        for binary in ["/usr/local/bin/runsc", "/usr/bin/odd"] {
            machine.link("proc/50/exe", "/usr/bin/containerd-shim-runc-v2");
            machine.in_bundle("options.json", &json!({ "binary_name": binary }).to_string());
            machine.is_refused(RefusalKind::Impossible, &format!("is run by `{binary}`"));
        }
    }

    #[test]
    fn containers_without_a_keeper_and_rootless_ones_are_refused() {
        let mut machine = Machine::new();
        machine.running.details.host_config.runtime = "odd".to_owned();
        machine.link("proc/50/exe", "/usr/bin/init");
        machine.is_refused(RefusalKind::Impossible, "its parent process is `init`, and its runtime `odd`");
        for program in ["/usr/bin/containerd-shim-runc-v2", "/usr/bin/conmon"] {
            let machine = Machine::new();
            machine.link("proc/50/exe", program);
            machine.link("proc/50/ns/user", "user:[4026532999]");
            machine.is_refused(RefusalKind::Impossible, "belongs to a rootless engine");
        }
    }

    /// Makes the machine's keeper conmon, with these words besides.
    fn with_conmon(machine: &Machine, id: &str, more: &str) {
        machine.link("proc/50/exe", "/usr/bin/conmon");
        let [bundle, pid_file, runc] =
            ["bundle", "pidfile", "bin/runc"].map(|name| machine.path(name).display().to_string());
        let line = format!("conmon -c {id} -n web -b {bundle} -p {pid_file} -r {runc}{more}");
        machine.write("proc/50/cmdline", &line.replace(' ', "\0"));
        machine.write("bundle/config.json", r#"{"process":{"cwd":"/y"}}"#);
        machine.write("pidfile", "100");
    }

    #[test]
    fn a_container_of_conmon_is_found_by_its_command_line() {
        let machine = Machine::new();
        let root = machine.path("state/moby").display().to_string();
        with_conmon(&machine, ID, &format!(" -s --runtime-arg --root={root}"));
        let runtime = machine.find().unwrap();
        assert_eq!((runtime.program, runtime.root), (machine.path("bin/runc"), machine.path("state/moby")));
        assert!(runtime.by_systemd && runtime.process["cwd"] == "/y");
        // Another one's, another process, and none.
        with_conmon(&machine, &"f".repeat(64), "");
        machine.is_refused(RefusalKind::Impossible, "the command line of conmon");
        with_conmon(&machine, ID, "");
        machine.is_refused(RefusalKind::Impossible, "runc's state in /run/runc");
        machine.write("pidfile", "101");
        machine.is_refused(RefusalKind::NotRunning, "has ended just now");
        fs::remove_file(machine.path("pidfile")).unwrap();
        machine.is_refused(RefusalKind::Impossible, "pidfile");
    }

    #[test]
    fn a_keeper_in_a_container_is_none() {
        for change in [
            |machine: &Machine| machine.link("proc/50/root", machine.path("bin")),
            |machine: &Machine| machine.write("proc/50/status", "Uid:\t0\t0\t0\t0\nCapEff:\t0000000000000000\n"),
            |machine: &Machine| machine.write("proc/50/status", "Uid:\t1000\t0\t0\t0\nCapEff:\tffffffffffffffff\n"),
            |machine: &Machine| machine.link("proc/50/ns/pid", "pid:[1]"),
        ] {
            let machine = Machine::new();
            with_conmon(&machine, ID, &format!(" --runtime-arg --root={}", machine.path("state/moby").display()));
            machine.find().unwrap();
            change(&machine);
            machine.is_refused(RefusalKind::NotRunning, "has ended just now");
            // Docker itself says which is its container, and may run in a root folder of its own.
            machine.link("proc/50/exe", "/usr/bin/containerd-shim-runc-v2");
            machine.find().unwrap();
        }
        let mut machine = Machine::new();
        machine.running.container.engine = "containerd".to_owned();
        machine.find().unwrap();
        machine.link("proc/50/root", machine.path("bin"));
        machine.is_refused(RefusalKind::NotRunning, "has ended just now");
    }

    #[test]
    fn a_container_of_crun_has_cruns_own_words() {
        let machine = Machine::new();
        fs::rename(machine.path("bin/runc"), machine.path("bin/crun")).unwrap();
        let options = json!({ "binary_name": machine.path("bin/crun"), "root": machine.path("state") });
        machine.in_bundle("options.json", &options.to_string());
        let status = format!("state/moby/{ID}/status");
        machine.write(&status, r#"{"pid":100,"process-start-time":777,"systemd-cgroup":true}"#);
        assert_eq!(machine.find().unwrap().program, machine.path("bin/crun"));
        machine.write(&status, r#"{"pid":100,"process-start-time":778}"#);
        machine.is_refused(RefusalKind::NotRunning, "has ended just now");
        // Its usual folder follows a variable.
        with_conmon(&machine, ID, "");
        let line = fs::read_to_string(machine.path("proc/50/cmdline")).unwrap();
        machine.write("proc/50/cmdline", &line.replace("bin/runc", "bin/crun"));
        machine.is_refused(RefusalKind::Impossible, "crun's state in /run/crun");
        let run = machine.path("run").display().to_string();
        machine.write("proc/50/environ", &format!("XDG_RUNTIME_DIR={run}"));
        machine.is_refused(RefusalKind::Impossible, &format!("crun's state in {run}/crun"));
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
        let limits = tables::limits_in(&fs::read("/proc/self/limits").unwrap());
        assert_eq!(limits.len(), 16);
        for (resource, limit) in limits {
            assert_eq!(rustix::process::getrlimit(resource), limit);
        }
        assert!(tables::umask_in(&fs::read("/proc/self/status").unwrap()).is_some());
        let own = Process::find(Path::new("/proc"), rustix::process::getpid().as_raw_nonzero().get()).unwrap();
        assert!(own.lives() && own.parent == rustix::process::getppid().unwrap().as_raw_nonzero().get());
    }
}
