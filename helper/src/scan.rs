//! Containers that run without an engine's socket, found by the processes that keep them.
//!
//! A shim of containerd works in the bundle of its first container, whose parent folder has the name of containerd's
//! namespace, and has the bundles of the others beside it. conmon, of podman and of CRI-O, has its bundle on its command
//! line. So no path of an installation is built in, and what stands in the bundle's `config.json` names the container.
//!
//! **A container can imitate neither.** A process counts that is root's and has the process numbers, the users, the root
//! folder and the capabilities that this one has. So the containers of an engine that itself runs in a container do not
//! count.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{CWD, Dir, Mode, OFlags};
use serde::Deserialize;

use crate::{
    conmon::{self, Conmon},
    engine::{HostConfig, Inspected, State},
    process::{self, Process},
    scope::Scope,
    wire::{Container, Pod},
};

/// Namespaces of containerd in which Docker's engine has its own containers.
const OF_DOCKER: [&str; 2] = ["moby", "plugins.moby"];

/// The annotations of a container of Kubernetes: its name in its pod, the pod's name and namespace, the type and the image.
/// containerd's are these, and CRI-O's the others.
const OF_CRI: [&str; 5] = [
    "io.kubernetes.cri.container-name",
    "io.kubernetes.cri.sandbox-name",
    "io.kubernetes.cri.sandbox-namespace",
    "io.kubernetes.cri.container-type",
    "io.kubernetes.cri.image-name",
];
const OF_CRIO: [&str; 5] = [
    "io.kubernetes.container.name",
    "io.kubernetes.pod.name",
    "io.kubernetes.pod.namespace",
    "io.kubernetes.cri-o.ContainerType",
    "io.kubernetes.cri-o.ImageName",
];

/// Longest annotation that is heeded. Names of Kubernetes have 253 bytes at most.
const MAX_WORD: usize = 512;

/// Clock ticks in a second, as the kernel tells of them on x86-64 and aarch64.
const TICKS: u64 = 100;

/// The name of a shim's program, before that of its runtime.
pub(crate) const SHIM: &str = "containerd-shim";

/// A container that runs.
pub(crate) struct Kept {
    /// Its description, without a label.
    pub(crate) container: Container,
    /// Its process, and the runtime's name.
    pub(crate) details: Inspected,
}

/// The containers that run, and the bundles of podman's.
pub(crate) fn running(proc: &Path, scope: &Scope) -> (Vec<Kept>, Vec<PathBuf>) {
    let (mut kept, mut bundles, mut shims) = (Vec::new(), Vec::new(), Vec::new());
    let folders = if *scope == Scope::Nothing { None } else { fs::read_dir(proc).ok() };
    let numbers = folders.into_iter().flatten().flatten().filter_map(|one| one.file_name().to_str()?.parse().ok());
    for process in numbers.filter_map(|pid: i32| Process::find(proc, pid).ok()) {
        match process.program() {
            Ok(program) if program == conmon::PROGRAM && process.is_machines_own() => {
                let Ok(Some(conmon)) = Conmon::of(&process) else { continue };
                if scope.has(&conmon.bundle) {
                    kept.extend(of_conmon(proc, &process, &conmon));
                    bundles.push(conmon.bundle);
                }
            }
            Ok(program) if program.starts_with(SHIM) && process.is_machines_own() => {
                let Some(mut shim) = Shim::of(&process, &program, scope) else { continue };
                if shims.iter().any(|other: &Shim| other.folder_id == shim.folder_id) {
                    shim.bundles = None;
                }
                shims.push(shim);
            }
            _ => {}
        }
    }
    kept.extend(shims.iter().flat_map(|shim| shim.containers(proc, &shims)));
    (kept, bundles)
}

/// A shim of containerd.
struct Shim {
    pid: i32,
    /// The name of its runtime.
    runtime: String,
    /// The folder of all bundles of its namespace. None: another shim has it. Each that is open counts against a limit.
    bundles: Option<OwnedFd>,
    /// That folder's device and number.
    folder_id: (u64, u64),
}

impl Shim {
    fn of(process: &Process, program: &str, scope: &Scope) -> Option<Shim> {
        let bundle = process.link("cwd").ok()?;
        let namespace = bundle.parent()?.file_name()?;
        if OF_DOCKER.iter().any(|docker| namespace == OsStr::new(docker)) || !scope.has(&bundle) {
            return None;
        }
        let bundles = process::folder(&process.folder, "cwd").and_then(|bundle| process::folder(bundle, "..")).ok()?;
        let about = rustix::fs::fstat(&bundles).ok()?;
        let runtime = program.trim_start_matches(SHIM).trim_start_matches('-').to_owned();
        Some(Shim { pid: process.pid, runtime, bundles: Some(bundles), folder_id: (about.st_dev, about.st_ino) })
    }

    /// The containers of its namespace that run below one of these shims. None if another shim has told of them.
    fn containers(&self, proc: &Path, shims: &[Shim]) -> Vec<Kept> {
        let Some(bundles) = &self.bundles else { return Vec::new() };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let entries = rustix::fs::openat(bundles, ".", flags, Mode::empty()).and_then(Dir::new);
        let ids =
            entries.into_iter().flatten().flatten().filter_map(|one| Some(one.file_name().to_str().ok()?.to_owned()));
        let one = |id: String| {
            let bundle = process::folder(bundles, &id).ok()?;
            let init = Process::find(proc, process::number(&bundle, "init.pid").ok()?).ok()?;
            let is_of = |shim: &&Shim| shim.pid == init.parent && shim.folder_id == self.folder_id;
            let shim = shims.iter().find(is_of)?;
            let container = described(&bundle, &id, "containerd", &OF_CRI, "nerdctl/name")?;
            Some(Kept::new(proc, container, &init, &shim.runtime))
        };
        ids.filter(|id| !id.starts_with('.')).filter_map(one).collect()
    }
}

fn of_conmon(proc: &Path, process: &Process, conmon: &Conmon) -> Option<Kept> {
    let init = Process::find(proc, process::number(CWD, &conmon.pid_file).ok()?).ok()?;
    if init.parent != process.pid {
        return None;
    }
    let bundle = process::folder(CWD, &conmon.bundle).ok()?;
    let mut container = described(&bundle, &conmon.id, "podman", &OF_CRIO, "")?;
    if container.engine == "podman" && !conmon.name.is_empty() {
        container.name.clone_from(&conmon.name);
    }
    let runtime = conmon.runtime.file_name().unwrap_or_default().to_string_lossy();
    Some(Kept::new(proc, container, &init, &runtime))
}

#[derive(Deserialize)]
struct Bundle {
    #[serde(default)]
    annotations: Option<HashMap<String, String>>,
}

/// The container of a bundle, by the annotations that `of_pod` and `own_name` name. `None` for a pod's own container, in which nothing runs.
fn described(bundle: impl AsFd, id: &str, engine: &str, of_pod: &[&str; 5], own_name: &str) -> Option<Container> {
    let bundle: Bundle = process::json(bundle, "config.json").ok()?;
    let mut annotations = bundle.annotations.unwrap_or_default();
    // podman has some of CRI-O's annotations.
    let is_podmans = annotations.get("io.container.manager").is_some_and(|manager| manager == "libpod");
    let mut take = |name: &str| annotations.remove(name).filter(|value| (1..=MAX_WORD).contains(&value.len()));
    let [name, pod, namespace, kind, image] = of_pod.map(&mut take);
    let mut container = Container { id: id.to_owned(), engine: engine.to_owned(), ..Container::default() };
    if !is_podmans {
        if kind.is_some_and(|kind| kind == "sandbox") {
            return None;
        }
        container.pod = pod.map(|name| Pod { namespace: namespace.unwrap_or_default(), name });
        container.image = image.unwrap_or_default();
        if engine == "podman" && container.pod.is_some() {
            "cri-o".clone_into(&mut container.engine);
        }
    }
    let name = name.filter(|_| !is_podmans).or_else(|| take(own_name));
    container.name = name.unwrap_or_else(|| id.to_owned());
    Some(container)
}

impl Kept {
    fn new(proc: &Path, container: Container, init: &Process, runtime: &str) -> Kept {
        let host_config = HostConfig { runtime: runtime.to_owned(), ..HostConfig::default() };
        let details = Inspected { id: container.id.clone(), state: State { pid: init.pid }, host_config };
        let status = up(proc, init.started).map_or_else(|| "Up".to_owned(), |time| format!("Up {}", spelled(time)));
        Kept { container: Container { state: "running".to_owned(), status, ..container }, details }
    }
}

/// The time since a process's start.
fn up(proc: &Path, started: u64) -> Option<Duration> {
    let uptime = fs::read_to_string(proc.join("uptime")).ok()?;
    let uptime: f64 = uptime.split(' ').next()?.parse().ok()?;
    let now = Duration::try_from_secs_f64(uptime).ok()?;
    let start = Duration::from_secs(started / TICKS);
    Some(now.saturating_sub(start))
}

/// `3 minutes`, as engines say it.
fn spelled(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [("day", 24 * 60 * 60), ("hour", 60 * 60), ("minute", 60), ("second", 1)];
    let (unit, length) = units.into_iter().find(|(_, length)| seconds >= *length).unwrap_or(units[3]);
    let count = seconds / length;
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The name, the pod and the engine of a bundle with these annotations.
    fn read(engine: &str, of_pod: &[&str; 5], annotations: &serde_json::Value) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), json!({ "annotations": annotations }).to_string()).unwrap();
        let bundle = process::folder(CWD, folder.path()).unwrap();
        let Container { name, pod, engine, image, .. } = described(bundle, "the-id", engine, of_pod, "nerdctl/name")?;
        let pod = pod.map(|pod| format!(" of {}/{}", pod.namespace, pod.name)).unwrap_or_default();
        Some(format!("{engine} {name}{pod} {image}").trim_end().to_owned())
    }

    #[test]
    fn annotations_name_a_container() {
        let cri = |kind: &str| {
            json!({
                "io.kubernetes.cri.container-name": "app", "io.kubernetes.cri.sandbox-name": "web-0",
                "io.kubernetes.cri.sandbox-namespace": "shop", "io.kubernetes.cri.container-type": kind,
                "io.kubernetes.cri.image-name": "nginx",
            })
        };
        let containerd = |annotations: &serde_json::Value| read("containerd", &OF_CRI, annotations);
        assert_eq!(containerd(&cri("container")).unwrap(), "containerd app of shop/web-0 nginx");
        assert_eq!(containerd(&cri("sandbox")), None);
        assert_eq!(containerd(&json!({"nerdctl/name": "Web.1"})).unwrap(), "containerd Web.1");
        for none in [json!({}), json!(null), json!({"nerdctl/name": ""}), json!({"nerdctl/name": "x".repeat(513)})] {
            assert_eq!(containerd(&none).unwrap(), "containerd the-id");
        }
        let crio = |manager: &str, kind: &str| {
            json!({
                "io.container.manager": manager, "io.kubernetes.container.name": "app", "io.kubernetes.pod.name": "web-0",
                "io.kubernetes.pod.namespace": "shop", "io.kubernetes.cri-o.ContainerType": kind,
            })
        };
        let conmon = |annotations: &serde_json::Value| read("podman", &OF_CRIO, annotations);
        assert_eq!(conmon(&crio("cri-o", "container")).unwrap(), "cri-o app of shop/web-0");
        assert_eq!(conmon(&crio("cri-o", "sandbox")), None);
        // podman has pods of its own, whose annotations are these.
        assert_eq!(conmon(&crio("libpod", "sandbox")).unwrap(), "podman the-id");
    }

    #[test]
    fn a_time_is_spelled_as_engines_do() {
        for (seconds, words) in
            [(0, "0 seconds"), (1, "1 second"), (119, "1 minute"), (7200, "2 hours"), (200_000, "2 days")]
        {
            assert_eq!(spelled(Duration::from_secs(seconds)), words);
        }
    }
}
