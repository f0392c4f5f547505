//! Containers of engines without a socket: podman with runc and with crun, containerd, Kubernetes' on containerd and on
//! CRI-O. Their own clients are the judges.

use std::fs;

use super::{POWERFUL, Site, others};
use crate::support::{
    engine::{BUSYBOX, Engine, SCRATCH},
    eventually,
};

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

/// A container of a pod is meant by its own name where that is the only one, and by its pod's in front of it.
#[test]
fn a_container_of_a_pod_has_its_pods_name_too() {
    let Some(engine) = Engine::cri() else { return };
    let site = Site::new(engine, "builtin");
    let one = engine.run("pods", &NONE, SCRATCH, &[]);
    let [name, id] = [&one.name, &one.id];
    for label in [name, &format!("pod-of-{name}-{name}"), &format!("shop-pod-of-{name}-{name}"), &id[..12]] {
        assert_eq!(site.ssh(&[&site.host(label), "/app", "say", "in"]).ok(), "[in]\n", "{label}");
    }
    // Its sandbox is no host, and the list has the label that means the container.
    let said = site.ssh(&[&site.host("pod-of"), "true"]).failed(255);
    assert!(
        said.contains("there is no container `pod-of`") && said.contains(&format!("{name} (of pod pod-of-{name})")),
        "{said}"
    );
    // Two pods with a container of one name.
    let again = engine.run_as(name, &["--annotation", "io.kubernetes.cri.sandbox-name=other"], SCRATCH, &[]);
    let said = site.ssh(&[&site.host(name), "true"]).failed(255);
    assert!(said.contains("fits 2 containers") && said.contains(&format!("other-{name}")), "{said}");
    assert_eq!(site.ssh(&[&site.host(&format!("other-{name}")), "/app", "say", "in"]).ok(), "[in]\n");
    site.leaves_nothing(&again);
}

/// A machine with several engines: a name of two is refused with the list, whichever engines they are of.
#[test]
fn a_name_of_two_engines_means_none_of_them() {
    let (Some(docker), Some(containerd)) = (Engine::here(), Engine::containerd()) else { return };
    let site = Site::new(docker, "builtin");
    let both = format!("export LABCTL_SSH_PROXY_BUNDLES={}\n", containerd.place().display());
    fs::write(site.machine_folder().join("home/.bashrc"), both).unwrap();
    let one = docker.run_as("two-engines", &NONE, SCRATCH, &[]);
    let two = containerd.run_as("two-engines", &NONE, SCRATCH, &[]);
    let said = site.ssh(&[&site.host("two-engines"), "true"]).failed(255);
    assert!(
        said.contains("fits 2 containers") && said.contains(&one.id[..12]) && said.contains(&two.id[..12]),
        "{said}"
    );
    for container in [&one, &two] {
        let said = site.ssh(&[&site.host(&container.id[..12]), "/app", "say", "in"]);
        assert_eq!(said.ok(), "[in]\n");
    }
    drop(two);
    assert_eq!(site.ssh(&[&site.host("two-engines"), "/app", "say", "in"]).ok(), "[in]\n");
}

/// A container that does not run is said with the client of its own engine, and is not started.
#[test]
fn what_does_not_run_is_said_with_its_engines_own_client() {
    let Some(podman) = Engine::podman() else { return };
    let site = Site::new(podman, "builtin");
    let container = podman.run("stopped", &NONE, BUSYBOX, &[]);
    let host = site.host(&container.name);
    podman.docker(&["pause", &container.id]);
    let said = site.ssh(&[&host, "true"]).failed(255);
    assert!(said.contains("is paused") && said.contains(&format!("podman unpause {}", container.name)), "{said}");
    podman.docker(&["unpause", &container.id]);
    site.ssh(&[&host, "true"]).ok();
    podman.docker(&["stop", "--time", "0", &container.id]);
    let said = site.ssh(&[&host, "true"]).failed(255);
    assert!(said.contains("is not running") && said.contains(&format!("podman start {}", container.name)), "{said}");
    assert_eq!(container.inspect("{{.State.Status}}"), "exited");
    podman.docker(&["start", &container.id]);
    assert_eq!(site.ssh(&[&host, "echo in"]).ok(), "in\n");

    let Some(containerd) = Engine::containerd() else { return };
    let site = Site::new(containerd, "builtin");
    let said = site.ssh(&[&site.host("nothing"), "true"]).failed(255);
    assert!(said.contains("there is no container `nothing`"), "{said}");
}

/// Without a choice, a machine has what runs on its computer, and what runs in a container cannot pose as an engine.
#[test]
fn a_container_cannot_pose_as_an_engine() {
    let (Some(docker), Some(podman)) = (Engine::here(), Engine::podman()) else { return };
    let site = Site::of_computer();
    let real = podman.run("real", &NONE, BUSYBOX, &[]);
    assert_eq!(site.ssh(&[&site.host(&real.name), "echo in"]).ok(), "in\n");

    // conmon and its container as programs of the poser's, with a bundle in its files. One has the capabilities of the
    // machine's root. The other goes to the machine's root folder, which it was given to read.
    let rooted = ["--volume", "/:/host:ro"];
    for (name, more, to) in [("posed", &POWERFUL[..], ""), ("rooted", &rooted, "chroot /host")] {
        let options = [&["--network", "none", "--pid", "host"], more].concat();
        let poser = docker.run("poser", &options, BUSYBOX, &["sleep", "100000"]);
        let root = format!("/proc/{}/root/tmp", poser.pid());
        let id = "fa4e".repeat(16);
        let words = format!(
            "cd /tmp; cp /app conmon; printf '{{\"annotations\":{{}},\"process\":{{}}}}' >config.json; : >runc
             {to} {root}/conmon serve -c {id} -n {name} -b {root} -p {root}/pid -r {root}/runc & sleep 1
             cat /proc/$!/task/$!/children >pid; wait"
        );
        let mut exec = docker.command(&["exec", &poser.id, "sh", "-c", &words]);
        let _running = crate::support::Ending(exec.spawn().unwrap());
        let pid = || fs::read_to_string(format!("{root}/pid")).unwrap_or_default();
        eventually("the processes are there", || pid().trim().parse::<u32>().is_ok());
        let said = site.ssh(&[&site.host(name), "true"]).failed(255);
        assert!(said.contains(&format!("there is no container `{name}`")), "{said}");
    }
}

/// The annotations of a container are foreign text.
#[test]
fn escapes_in_annotations_do_not_reach_the_terminal() {
    let Some(engine) = Engine::containerd() else { return };
    let site = Site::new(engine, "builtin");
    let evil = "evil\x1b[2J\x1b]0;owned\x07\u{202e}\u{9b}31m";
    let long = "x".repeat(100_000);
    let names = [evil, &long, "/../..", "-o ProxyCommand=x"];
    let all: Vec<_> = names.iter().map(|name| engine.run_as(name, &NONE, SCRATCH, &[])).collect();
    let said = site.ssh(&[&site.host("nothing-of-them"), "true"]).failed(255);
    assert!(said.contains("nothing-of-them") && said.contains(&all[1].id[..12]) && said.len() < 4000, "{said:?}");
    for character in ['\u{1b}', '\u{9b}', '\u{202e}', '\x07'] {
        assert!(!said.contains(character), "{said:?}");
    }
    for container in &all {
        assert_eq!(
            site.ssh(&[&site.host(&container.id[..12]), "/app", "say", "in"]).ok(),
            "[in]\n",
            "{}",
            container.name
        );
    }
}

/// `doctor` checks the way into a container of another engine, too.
#[test]
fn doctor_knows_other_engines() {
    let Some(engine) = Engine::podman() else { return };
    let site = Site::new(engine, "builtin");
    let container = engine.run("doctored", &NONE, BUSYBOX, &[]);
    for host in [site.host(&container.name), site.machine()] {
        let said = site.world.local(&["doctor", &host]);
        assert!(said.out.contains("podman") && !said.out.contains("no container engine"), "{said:?}");
        assert!(!said.out.contains("Docker Engine"), "{said:?}");
    }
}
