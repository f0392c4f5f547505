//! Containers of engines without a socket: podman with runc and with crun, containerd, Kubernetes' on containerd and on
//! CRI-O. Their own clients are the judges.

use super::{Site, others};
use crate::support::engine::{BUSYBOX, Engine, SCRATCH};

const NONE: [&str; 2] = ["--network", "none"];

/// Each engine's containers are ssh hosts, and nothing is left of a visit.
#[test]
fn containers_of_every_engine_are_hosts() {
    let mut all = others();
    all.extend(Engine::crun().map(|engine| ("crun", engine)));
    all.extend(Engine::crio().map(|engine| ("crio", engine)));
    for (name, engine) in all {
        let site = Site::new(engine, "builtin");
        let options: &[&str] = match name {
            "crio" => &[],
            "crun" => &["--network", "none", "--cgroups", "disabled"],
            _ => &NONE,
        };
        for image in [BUSYBOX, SCRATCH] {
            let container = engine.run(name, options, image, &[]);
            let host = site.host(&container.name);
            assert_eq!(site.ssh(&[&host, "/app", "say", "in"]).ok(), "[in]\n", "{name}");
            assert_eq!(site.ssh(&[&host, "/app", "exit", "7"]).code(), 7, "{name}");
            // Its own client sees the same mounts.
            let mounts = ["/app", "show", "/proc/self/mountinfo"];
            let theirs = String::from_utf8(container.exec(&[], &mounts).stdout).unwrap();
            assert!(
                theirs.contains(" / / ") && site.ssh(&[&[host.as_str()], &mounts[..]].concat()).ok() == theirs,
                "{name}"
            );
            site.leaves_nothing(&container);
        }
    }
}
