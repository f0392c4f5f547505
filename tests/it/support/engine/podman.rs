//! podman with runc, in folders of its own. It has no process of its own: each container is kept by a conmon.

use std::{fs, path::Path, process::Command};

use super::{Engine, Kind, docker, images};
use crate::support::{needs, write_program};

/// Limits that a computer which is itself a container can set. CNI, journald and systemd may be missing.
const CONFIGURATION: &str = r#"
[containers]
default_ulimits = ["nofile=16384:16384", "nproc=32768:32768"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"#;

/// crun refuses a computer with both versions of cgroups. A container that it makes sees the second one only, and has no
/// cgroup of its own. All else is the computer's crun on the computer itself.
const CRUN: &str = r#"#!/bin/sh
case " $* " in
  *" create "*) exec unshare --mount sh -ec 'if [ -d /sys/fs/cgroup/unified ]; then
      mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup; fi; exec crun "$@"' sh "$@" ;;
esac
exec crun "$@"
"#;

pub(super) fn start(by_crun: bool) -> Engine {
    let folder = super::new_folder();
    needs("conmon");
    fs::write(folder.join("containers.conf"), CONFIGURATION).unwrap();
    let below = |name: &str| folder.join(name).display().to_string();
    let storage =
        format!("[storage]\ndriver = \"overlay\"\nrunroot = {:?}\ngraphroot = {:?}\n", below("run"), below("data"));
    fs::write(folder.join("storage.conf"), storage).unwrap();
    if by_crun {
        needs("crun");
        fs::create_dir(folder.join("bin")).unwrap();
        write_program(&folder.join("bin/crun"), CRUN);
    }
    let mut words = client(&folder);
    words.args(["rm", "--all", "--force", "--time", "0"]);
    let variables = words.get_envs().map(|(name, value)| format!("{}={} ", name.display(), value.unwrap().display()));
    let end = format!("{}{:?}", variables.collect::<String>(), words.get_program());
    let end = words.get_args().fold(end, |end, word| format!("{end} {word:?}"));
    let engine = Engine::start(Kind::Podman, folder, &end, &[]);
    images::make(&engine.folder.join("rootfs"), &mut |rootfs, image| docker::import(&engine, rootfs, image));
    engine
}

/// Prepares podman itself.
pub(super) fn client(folder: &Path) -> Command {
    let mut command = Command::new(needs("podman"));
    command.env("CONTAINERS_CONF", folder.join("containers.conf"));
    command.env("CONTAINERS_STORAGE_CONF", folder.join("storage.conf"));
    let crun = folder.join("bin/crun");
    command.arg("--runtime").arg(if crun.exists() { crun } else { needs("runc") });
    command.arg("--tmpdir").arg(folder.join("tmp"));
    command
}
