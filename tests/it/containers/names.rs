//! The container that a host name means, with names and states as the real engine has them.

use super::Site;
use crate::support::{
    engine::{BUSYBOX, Engine},
    eventually,
};

const NONE: [&str; 2] = ["--network", "none"];

#[test]
fn a_name_becomes_a_label() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    // A name as the engine has it, and the label by which a host name means it.
    let names = [
        ("Names-Upper", "names-upper"),
        ("names.dotted.x", "names-dotted-x"),
        ("names_under", "names_under"),
        ("NAMES.Both_1", "names-both_1"),
        ("names--double", "names--double"),
        ("0names", "0names"),
        ("names-trailing.", "names-trailing-"),
    ];
    let containers: Vec<_> = names.iter().map(|(name, _)| engine.run_as(name, &NONE, BUSYBOX, &[])).collect();
    for (container, (name, label)) in containers.iter().zip(names) {
        let said = site.ssh(&[&site.host(label), "hostname"]).ok();
        assert_eq!(said.trim(), &container.id[..12], "{name}");
    }
    // The id's first twelve digits are a name, too.
    let id = &containers[0].id[..12];
    assert_eq!(site.ssh(&[&site.host(id), "hostname"]).ok().trim(), id);
    // A part of a name is none.
    let said = site.ssh(&[&site.host("names-upp"), "true"]).failed(255);
    assert!(said.contains("names-upp") && said.contains("names-upper"), "the list is shown: {said}");
}

#[test]
fn two_that_fit_are_listed() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let two: Vec<_> = ["fit.s", "fit-s", "Fit-S"].iter().map(|name| engine.run_as(name, &NONE, BUSYBOX, &[])).collect();
    let said = site.ssh(&[&site.host("fit-s"), "true"]).failed(255);
    for container in &two {
        assert!(said.contains(&container.name) && said.contains(&container.id[..12]), "{said}");
    }
    assert_eq!(site.ssh(&[&site.host(&two[1].id[..12]), "hostname"]).ok().trim(), &two[1].id[..12]);
}

/// A container that does not run is said, with the way to start it, and is not started.
#[test]
fn a_container_that_does_not_run_is_said_and_not_started() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let refused = |label: &str| site.ssh(&[&site.host(label), "true"]).failed(255);

    let exited = engine.run("exited", &NONE, BUSYBOX, &["exit", "42"]);
    eventually("it has exited", || exited.inspect("{{.State.Status}}") == "exited");
    let said = refused(&exited.name);
    let start = ["ssh", &site.machine(), "docker", "start", &exited.name];
    let hint = format!("labctl-ssh-proxy --local {}", start.join(" "));
    assert!(said.contains("exited") && said.contains("42") && said.contains(&hint), "{said}");
    assert_eq!(exited.inspect("{{.State.Status}}"), "exited");
    site.world.local(&start).ok();

    let paused = engine.run("paused", &NONE, BUSYBOX, &[]);
    paused.docker("pause");
    let said = refused(&paused.name);
    assert!(said.contains("paused") && said.contains(&format!("docker unpause {}", paused.name)), "{said}");
    paused.docker("unpause");
    assert_eq!(site.ssh(&[&site.host(&paused.name), "echo in"]).ok(), "in\n");

    let restarting = engine.run("restarting", &["--network", "none", "--restart", "always"], BUSYBOX, &["exit", "1"]);
    eventually("it restarts all the time", || restarting.inspect("{{.State.Status}}") == "restarting");
    let said = refused(&restarting.name);
    assert!(said.contains("restart") && said.contains(&restarting.name), "{said}");

    let created = engine.docker(&["create", "--name", "created0", "--network", "none", BUSYBOX]);
    let said = refused("created0");
    engine.docker(&["rm", &created]);
    assert!(said.contains("created0") && said.contains("start"), "{said}");
}

#[test]
fn users_are_those_inside() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let container = engine.run("users", &["--network", "none", "--workdir", "/var"], BUSYBOX, &[]);
    let host = site.host(&container.name);
    for (user, expected) in [
        ("container", "uid=0(root) gid=0(root) groups=0(root)\n/var\n"),
        ("root", "uid=0(root) gid=0(root) groups=0(root)\n/root\n"),
        ("one", "uid=1000(one) gid=1000(one) groups=1000(one),2000(many)\n/home/one\n"),
        ("1000", "uid=1000(one) gid=1000(one) groups=1000(one),2000(many)\n/home/one\n"),
        // It has no line in passwd.
        ("4000", "uid=4000 gid=0(root) groups=0(root)\n/\n"),
    ] {
        assert_eq!(site.ssh(&["-l", user, &host, "id; pwd"]).ok(), expected, "{user}");
    }
    let said = site.ssh(&["-l", "stranger", &host, "true"]).failed(255);
    assert!(said.contains("stranger") && said.contains(&container.name), "{said}");
    site.leaves_nothing(&container);
}
