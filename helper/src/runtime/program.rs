//! The runtime's program: runc, crun, or one that cannot be used.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use crate::{
    process::Process,
    text,
    wire::{Container, Refusal, RefusalKind},
};

/// Folders that are searched for the runtime besides those of the keeper's PATH.
pub(super) const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The programs that are runc, or that are runc with something around it.
const RUNC: [&str; 3] = ["runc", "docker-runc", "nvidia-container-runtime"];

/// A runtime whose way in is known.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Runc,
    Crun,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Runc => "runc",
            Kind::Crun => "crun",
        }
    }

    /// True for one whose state can name another process.
    pub(super) fn is_runc(self) -> bool {
        matches!(self, Kind::Runc)
    }

    /// The file of a container's state.
    pub(super) fn state_file(self) -> &'static str {
        match self {
            Kind::Runc => "state.json",
            Kind::Crun => "status",
        }
    }

    /// The folder of its state where nothing else is said. crun heeds a variable, for root, too.
    pub(super) fn usual_root(self, keeper: &Process) -> PathBuf {
        let run = keeper.variable("XDG_RUNTIME_DIR").filter(|_| matches!(self, Kind::Crun));
        Path::new(&run.unwrap_or_else(|| "/run".into())).join(self.name())
    }
}

/// Refuses the runtimes that keep a container in a kernel or machine of its own, where no descriptor can be handed in.
pub(super) fn not_isolated_further(container: &Container, runtime: &str) -> Result<(), Refusal> {
    let what = match runtime.to_ascii_lowercase() {
        it if it.contains("runsc") || it.contains("gvisor") => "gVisor",
        it if it.contains("kata") => "Kata Containers",
        it if it.contains("sysbox") => "Sysbox",
        it if it.contains("krun") || it.contains("crun-vm") => "a virtual machine",
        it if ["youki", "wasm", "spin", "slight", "shimv2"].iter().any(|other| it.contains(other)) => {
            "a runtime other than runc and crun"
        }
        _ => return Ok(()),
    };
    let name = text::line(&container.name);
    let message = format!("container {name} is run by {what} (`{}`), and cannot be entered", text::line(runtime));
    Err(Refusal::new(RefusalKind::Impossible, message).with_hint(shell_in(container)))
}

/// The kind of a runtime.
///
/// # Errors
/// Fails for one whose way in is not known.
pub(super) fn kind(container: &Container, runtime: &Path) -> Result<Kind, Refusal> {
    match &*runtime.file_name().map(OsStr::to_string_lossy).unwrap_or_default() {
        "crun" => Ok(Kind::Crun),
        name if RUNC.contains(&name) => Ok(Kind::Runc),
        _ => {
            let message = format!(
                "container {} is run by `{}`, and only runc's and crun's containers can be entered",
                text::line(&container.name),
                text::line(&runtime.to_string_lossy())
            );
            Err(Refusal::new(RefusalKind::Impossible, message).with_hint(shell_in(container)))
        }
    }
}

/// Finds the program of a runtime, as its keeper does.
pub(super) fn find(container: &str, runtime: &Path, path: &OsStr) -> Result<PathBuf, Refusal> {
    let places = std::env::split_paths(path).chain(std::env::split_paths(USUAL_PATH));
    let candidates: Vec<PathBuf> = match runtime {
        absolute if absolute.is_absolute() => vec![absolute.to_owned()],
        _ => places.map(|place| place.join(runtime)).filter(|place| place.is_absolute()).collect(),
    };
    let found =
        candidates.into_iter().find(|it| it.is_file() && rustix::fs::access(it, rustix::fs::Access::EXEC_OK).is_ok());
    found.ok_or_else(|| {
        let runtime = text::line(&runtime.to_string_lossy());
        Refusal::new(
            RefusalKind::Program,
            format!("the runtime of container {container} is missing on this machine: `{runtime}`"),
        )
        .with_hint(format!("install `{runtime}`, or the package of the engine, which has it"))
    })
}

/// The engine's own way in.
fn shell_in(container: &Container) -> String {
    let (client, name) = (container.client(), container.to_copy());
    format!("a shell in it: `labctl-ssh-proxy ssh {{machine}} -t {client} exec -it {name} sh`")
}
