//! The parent of a container's first process, and what it knows.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::fs::CWD;
use serde::Deserialize;

use super::{ended, other_namespace, program, unreadable};
use crate::{
    conmon::{self, Conmon},
    process::{self, Process},
    scan, text,
    wire::{Container, Refusal, RefusalKind},
};

/// The folder of runc's state where a shim is told none.
const USUAL_STATE: &str = "/run/containerd/runc";

/// A process's eagerness to be killed for want of memory, in its folder.
const OOM_SCORE: &str = "oom_score_adj";
/// The same in an OCI configuration.
pub(super) const OOM_SCORE_KEY: &str = "oomScoreAdj";

/// That which a container's keeper knows of it.
pub(super) struct Keeper {
    /// The number of the first process.
    pub(super) pid: i32,
    /// The container's bundle.
    pub(super) bundle: OwnedFd,
    /// The runtime, as a path or a name.
    pub(super) runtime: PathBuf,
    /// The folder of its state, where the keeper names one.
    pub(super) root: Option<PathBuf>,
    /// The runtime puts processes into cgroups by systemd.
    pub(super) by_systemd: bool,
    /// The keeper's eagerness to be killed for want of memory, where its processes inherit that.
    pub(super) oom_score: Option<i32>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Options {
    binary_name: Option<String>,
    root: Option<String>,
    systemd_cgroup: Option<bool>,
}

impl Keeper {
    /// Asks the keeper of a container. `of_user` is the runtime's name as its user calls it.
    ///
    /// # Errors
    /// Fails when it is another process, or knows another container.
    pub(super) fn of(container: &Container, keeper: &Process, of_user: &str) -> Result<Keeper, Refusal> {
        let name = &text::line(&container.name);
        let program = keeper.program().map_err(|_| other_namespace(name))?;
        if program.starts_with(scan::SHIM) {
            program::not_isolated_further(container, program.trim_start_matches("containerd-shim-"))?;
            rooted(container, keeper)?;
            // Docker says itself which process is whose, and may have a root folder of its own.
            if container.engine != "docker" && !keeper.is_machines_own() {
                return Err(ended(name));
            }
            return Keeper::of_shim(name, keeper, &container.id);
        }
        if program == conmon::PROGRAM {
            rooted(container, keeper)?;
            // The number of a container's process may have become another's since it was found.
            if !keeper.is_machines_own() {
                return Err(ended(name));
            }
            return Keeper::of_conmon(name, keeper, &container.id);
        }
        let runtime = match text::line(of_user).as_str() {
            "" | "runc" | "io.containerd.runc.v2" => String::new(),
            other => format!(", and its runtime `{other}`"),
        };
        let program = text::line(&program);
        let message = format!(
            "container {name} is kept neither by containerd nor by conmon: its parent process is `{program}`{runtime}"
        );
        Err(Refusal::new(RefusalKind::Impossible, message)
            .with_hint("only containers of Docker, containerd, podman and CRI-O can be entered"))
    }

    fn of_shim(name: &str, shim: &Process, id: &str) -> Result<Keeper, Refusal> {
        let (bundle, namespace) = bundle(shim, id).map_err(|error| unreadable(name, "its bundle", &error))?;
        let pid = process::number(&bundle, "init.pid")
            .map_err(|error| unreadable(name, "`init.pid` of its bundle", &error))?;
        let options: Options = match process::json(&bundle, "options.json") {
            Ok(options) => options,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Options::default(),
            Err(error) => return Err(unreadable(name, "`options.json` of its bundle", &error)),
        };
        let root = options.root.filter(|root| !root.is_empty()).unwrap_or_else(|| USUAL_STATE.to_owned());
        let runtime = options.binary_name.filter(|binary| !binary.is_empty()).unwrap_or_else(|| "runc".to_owned());
        Ok(Keeper {
            pid,
            bundle,
            runtime: runtime.into(),
            root: Some(Path::new(&root).join(namespace)),
            by_systemd: options.systemd_cgroup == Some(true),
            oom_score: process::number(&shim.folder, OOM_SCORE).ok(),
        })
    }

    fn of_conmon(name: &str, keeper: &Process, id: &str) -> Result<Keeper, Refusal> {
        let conmon = Conmon::of(keeper).map(|conmon| conmon.filter(|conmon| conmon.id == id));
        let conmon = conmon
            .and_then(|conmon| conmon.ok_or_else(|| io::ErrorKind::InvalidData.into()))
            .map_err(|error| unreadable(name, "the command line of conmon", &error))?;
        let bundle = process::folder(CWD, &conmon.bundle).map_err(|error| unreadable(name, "its bundle", &error))?;
        let pid = process::number(CWD, &conmon.pid_file)
            .map_err(|error| unreadable(name, &format!("`{}`", conmon.pid_file.display()), &error))?;
        Ok(Keeper {
            pid,
            bundle,
            runtime: conmon.runtime,
            root: conmon.root,
            by_systemd: conmon.by_systemd,
            oom_score: None,
        })
    }
}

/// Refuses a keeper that belongs to a rootless engine.
fn rooted(container: &Container, keeper: &Process) -> Result<(), Refusal> {
    let owner = keeper.owner();
    if owner == rustix::process::geteuid().as_raw() && keeper.shares("user") {
        return Ok(());
    }
    let name = text::line(&container.name);
    let message = format!("container {name} belongs to a rootless engine (of uid {owner}), and cannot be entered");
    let hint =
        format!("a shell in it, as that engine's user: `{} exec -it {} sh`", container.client(), container.to_copy());
    Err(Refusal::new(RefusalKind::Impossible, message).with_hint(hint))
}

/// The bundle of the container, and the name of containerd's namespace.
fn bundle(shim: &Process, id: &str) -> io::Result<(OwnedFd, OsString)> {
    let mut link = shim.link("cwd")?;
    let mut folder = process::folder(&shim.folder, "cwd")?;
    if link.file_name() != Some(OsStr::new(id)) {
        folder = process::folder(&folder, Path::new("..").join(id))?;
        link.set_file_name(id);
    }
    let namespace = link.parent().and_then(Path::file_name).ok_or(io::ErrorKind::InvalidData)?;
    Ok((folder, namespace.to_owned()))
}
