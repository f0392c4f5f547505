//! Commands that lead into a container by its name alone: `ssh --in`, `open --in`.

use std::{fs, process::Stdio};

use super::Site;
use crate::support::{
    Said, World,
    engine::{BUSYBOX, Container, Engine, SCRATCH},
    write_program,
};

const NONE: [&str; 2] = ["--network", "none"];

/// The folder of an ssh that reads no configuration of the user who runs the tests. `debug` leaves no room for `-F`.
fn plain_ssh(world: &World) -> String {
    let bin = world.home().join("bin");
    fs::create_dir_all(&bin).unwrap();
    write_program(&bin.join("ssh"), "#!/bin/sh\nexec /usr/bin/ssh -F none \"$@\"\n");
    format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", bin.display())
}

impl Site {
    /// Runs a command of ours that becomes ssh.
    fn local(&self, args: &[&str]) -> Said {
        let path = plain_ssh(&self.world);
        self.world.output(self.world.command(&["--local"]).args(args).env("PATH", path))
    }
}

/// The first twelve digits of its id, which are its host name inside.
fn short(container: &Container) -> &str {
    &container.id[..12]
}

#[test]
fn ssh_finds_a_container_by_its_name_its_label_or_its_id() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let plain = engine.run("within", &NONE, BUSYBOX, &[]);
    let odd = engine.run_as("Within.1", &NONE, BUSYBOX, &[]);
    let playground = site.playground();
    let inside = |name: &str, host: &str| site.local(&["ssh", "--in", name, host, "hostname"]);
    for (name, container) in [
        (&*plain.name, &plain),
        (short(&plain), &plain),
        (&plain.id, &plain),
        ("Within.1", &odd),
        ("within-1", &odd),
        (short(&odd), &odd),
    ] {
        assert_eq!(inside(name, &playground).ok().trim(), short(container), "{name}");
        assert_eq!(inside(name, &site.machine()).ok().trim(), short(container), "{name}");
    }
    assert_eq!(site.local(&["ssh", "--in", &plain.name, &playground, "exit", "7"]).code(), 7);
    let user = format!("one@{playground}");
    assert_eq!(site.local(&["ssh", "--in", &plain.name, &user, "id", "-un"]).ok(), "one\n");
    // The title of the playground, and what ssh says for itself.
    site.world.local(&["rename", &site.play, "My box"]).ok();
    assert_eq!(inside("Within.1", "My box").ok().trim(), short(&odd));
    let said = inside("Wthin.1", "My box").failed(4);
    let list = format!("{}.within-1", site.machine());
    assert!(said.contains("playground My box has no container `Wthin.1`") && said.contains(&list), "{said}");
    let said = site.local(&["ssh", "--in", "Within.1", &site.host("within-1"), "true"]).failed(2);
    assert!(said.contains("is a container itself") && said.contains("leave out `.within-1`"), "{said}");
    // A container that does not run is not started.
    odd.docker("kill");
    let said = inside("Within.1", "My box").failed(7);
    let start = format!("ssh {} docker start Within.1`", site.machine());
    assert!(said.contains("is not running (exited: Exited (137)") && said.contains(&start), "{said}");
    assert_eq!(odd.inspect("{{.State.Status}}"), "exited");
    site.leaves_nothing(&plain);
}

/// The machines of the embedded platform are this computer, so a container is on each of them.
#[test]
fn a_name_on_two_machines_is_ambiguous_until_one_of_them_stops() {
    let Some(engine) = Engine::here() else { return };
    let mut site = Site::new(engine, "builtin");
    let container = engine.run("twice", &NONE, BUSYBOX, &[]);
    let duo = format!("playground-{}", site.world.playground("duo"));
    let said = site.local(&["ssh", "--in", &container.name, &duo, "true"]).failed(5);
    for machine in ["node-01", "node-02"] {
        let host = format!("{duo}.{machine}.{}", container.name);
        assert!(said.contains(&host), "{said}");
        let there = format!("{duo}.{machine}");
        assert_eq!(site.local(&["ssh", "--in", &container.name, &there, "hostname"]).ok().trim(), short(&container));
    }
    // One that is stopped is not asked, and not started.
    site.world.local(&["machine", "stop", &duo, "node-02"]).ok();
    let found = site.local(&["ssh", "--in", &container.name, &duo, "hostname"]);
    assert_eq!(found.ok().trim(), short(&container));
    let said = site.local(&["ssh", "--in", "no-such", &duo, "true"]).failed(4);
    let hint = "machine node-02 is not running, and was not asked";
    assert!(said.contains("has no container `no-such`") && said.contains(hint), "{said}");
    site.leaves_nothing(&container);
}

#[test]
fn open_names_the_container() {
    let Some(engine) = Engine::here() else { return };
    let site = Site::new(engine, "builtin");
    let container = engine.run_as("Open.1", &NONE, BUSYBOX, &[]);
    let path = plain_ssh(&site.world);
    let bin = site.world.home().join("bin");
    write_program(&bin.join("code"), "#!/bin/sh\nexec >\"$(dirname \"$0\")/said\"; printf '%s ' \"$@\"\n");
    let open = |more: &[&str]| {
        let mut command =
            site.world.command(&["--local", "open", "code", &site.playground(), "/var", "--in", "Open.1"]);
        site.world.output(command.args(more).env("PATH", &path))
    };
    let host = site.host("open-1");
    let link = format!("--folder-uri vscode-remote://ssh-remote+{host}/var");
    assert_eq!(open(&["--print"]).ok(), format!("code {link}\n"));
    let said: serde_json::Value = serde_json::from_str(&open(&["--json"]).ok()).unwrap();
    assert_eq!((&said["host"], &said["container"]), (&host.clone().into(), &"open-1".into()));
    assert_eq!(fs::read_to_string(bin.join("said")).unwrap().trim(), link);
    site.leaves_nothing(&container);
}
