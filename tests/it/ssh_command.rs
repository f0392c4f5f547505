//! `ssh`: wakes the machine, then becomes the system's ssh.

use std::{fs, process::Stdio};

use crate::support::{PROGRAM, Said, World, eventually, needs, write_program};

fn id_of(world: &World, name: &str) -> String {
    world.json(&["start", name, "--json"])["id"].as_str().unwrap().to_owned()
}

/// Runs our `ssh`. The system's ssh must not read the configuration of the user who runs the tests.
fn ssh(world: &World, host: &str, rest: &[&str]) -> Said {
    world.local(&[&["ssh", host, "-F", "none"], rest].concat())
}

#[test]
fn it_works_without_config_ssh_and_passes_on_what_ssh_says() {
    let world = World::with_platform(&[]);
    let id = id_of(&world, "duo");
    let host = format!("playground-{id}");
    assert_eq!(ssh(&world, &host, &["--", "echo", "there"]).ok(), "there\n");
    // Without `--`, as in ssh. A command that begins with a hyphen needs it.
    assert_eq!(ssh(&world, &host, &["echo", "there"]).ok(), "there\n");
    assert!(!ssh(&world, &host, &["--", "-x"]).status.success());
    let said = ssh(&world, &host, &["--", "echo out; echo err >&2; exit 7"]);
    assert_eq!((said.code(), said.out.as_str(), said.err.as_str()), (7, "out\n", "err\n"));
    assert_eq!(ssh(&world, &format!("{host}.node-02"), &["--", "true"]).code(), 0);
    let out = world.feed(world.command(&["--local", "ssh", &host, "-F", "none", "cat"]).stderr(Stdio::null()), b"in");
    assert_eq!(out.stdout, b"in");
    assert!(!world.root().join("hosts.json").exists(), "nothing was written into the ssh configuration");

    // By title, and by id.
    world.local(&["rename", &id, "My box"]).ok();
    assert_eq!(ssh(&world, "My box", &["echo", "titled"]).ok(), "titled\n");
    assert_eq!(ssh(&world, &id, &["echo", "id"]).ok(), "id\n");
    assert!(ssh(&world, &format!("nobody@{host}"), &["true"]).failed(4).contains("no user nobody"));
    assert!(
        ssh(&world, "playground-0123456789abcdef01234567", &["true"]).failed(4).contains("it may have been destroyed")
    );
}

#[test]
fn options_of_sshs_own_reach_it() {
    let world = World::with_platform(&[]);
    let host = format!("playground-{}", id_of(&world, "shell"));
    let socket = world.home().join("forward");
    // A forward back to the machine itself, and a remote command that reports when it is open.
    let forward = format!("{}:{}", socket.display(), world.home().join("target").display());
    let mut child = world
        .command(&["--local", "ssh", &host, "-F", "none", "-L", &forward, "-N"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the forward is there", || socket.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    // -G connects to nothing, and prints the options in force.
    let shown = ssh(&world, &host, &["-G"]).ok();
    let value =
        |name: &str| shown.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    assert_eq!(value("hostname "), host);
    assert_eq!(value("stricthostkeychecking "), "true");
    assert!(value("proxycommand ").ends_with(&format!("--local connect --user %r {host}")), "{shown}");
    assert_eq!(value("user "), "root");
    assert_eq!(
        ssh(&world, &host, &["-l", "other", "-G"]).ok().lines().find(|line| line.starts_with("user ")).unwrap(),
        "user other"
    );
}

#[test]
fn a_stopped_playground_is_woken_even_if_it_was_stopped_on_purpose() {
    let world = World::with_platform(&["--boot-delay", "2s"]);
    let id = id_of(&world, "shell");
    let host = format!("playground-{id}");
    world.local(&["stop", &id]).ok();
    let said = ssh(&world, &host, &["echo", "awake"]);
    assert!(said.err.contains("waiting for machine shell-01"), "{said:?}");
    assert_eq!(said.ok(), "awake\n");
    // A name of the catalogue: the existing play, or else a new one.
    assert_eq!(ssh(&world, "playground-shell", &["echo", "same"]).ok(), "same\n");
    assert_eq!(ssh(&world, "playground-duo", &["echo", "new"]).ok(), "new\n");
    assert_eq!(world.json(&["list", "--json"]).as_array().unwrap().len(), 2);
}

#[test]
fn on_a_terminal_it_shows_the_states_and_then_the_shell() {
    let world = World::with_platform(&["--boot-delay", "3s"]);
    let id = id_of(&world, "shell");
    world.local(&["stop", &id]).ok();
    let socket = world.home().join("tmux");
    let tmux = |args: &[&str]| {
        let out =
            world.program(needs("tmux")).arg("-S").arg(&socket).args(["-f", "/dev/null"]).args(args).output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let command = format!("{} --local ssh playground-{id} -F none; echo ended $?; cat", PROGRAM);
    tmux(&["new-session", "-d", "-s", "x", "-x", "140", "-y", "20", &command]);
    let screen = || tmux(&["capture-pane", "-p", "-t", "x"]);
    eventually("the progress is shown", || screen().contains("running, shell-01 booting"));
    eventually("it is gone when there is a shell", || {
        let screen = screen();
        !screen.contains("booting") && !screen.trim().is_empty()
    });
    tmux(&["send-keys", "-t", "x", "exit 5", "Enter"]);
    eventually("the shell's status is the command's", || screen().contains("ended 5"));
    tmux(&["kill-server"]);
}

#[test]
fn a_missing_ssh_is_named_before_anything_is_woken() {
    let world = World::with_platform(&[]);
    let id = id_of(&world, "shell");
    world.local(&["stop", &id]).ok();
    let said = world.output(world.command(&["--local", "ssh", &id]).env("PATH", world.home()));
    assert!(said.failed(14).contains("openssh-client"));
    assert_eq!(world.json(&["list", "--json"])[0]["state"], "STOPPED");
}

#[test]
fn start_can_end_in_ssh() {
    let world = World::with_platform(&[]);
    // A fake ssh that prints its arguments.
    let bin = world.home().join("bin");
    fs::create_dir(&bin).unwrap();
    let script = bin.join("ssh");
    write_program(&script, "#!/bin/sh\necho called for $#\nexit 9\n");
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let said = world.output(world.command(&["--local", "start", "shell", "--ssh"]).env("PATH", path));
    assert_eq!(said.code(), 9, "{said:?}");
    assert!(said.out.contains("is running") && said.out.contains("called for"), "{said:?}");
    assert_eq!(world.local(&["start", "shell", "--ssh", "--json"]).code(), 2);
}
