//! `uninstall`: removes everything that this program wrote, and keeps everything else byte for byte.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::support::{
    PROGRAM, World, copy_program,
    distant::Distant,
    eventually,
    fault::{Fake, Fault, PLAY, Phase},
    needs,
};

/// Returns every file below a folder, except sockets.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files(&path));
        } else if kind.is_file() {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

/// Creates a user's home as before the first use of this program.
fn home(world: &World) {
    fs::create_dir_all(world.home().join(".ssh")).unwrap();
    fs::write(world.ssh_config(), "Host other\n\tUser me\n").unwrap();
    fs::create_dir_all(world.home().join(".iximiuz/labctl")).unwrap();
    fs::write(world.home().join(".iximiuz/labctl/config.yaml"), "session_id: a\naccess_token: b\nother: c\n").unwrap();
    world.settings("wake: never\n");
}

/// A file that this program never wrote need not be one that can be read.
#[test]
fn an_odd_ssh_configuration_holds_nothing_up() {
    let world = World::empty();
    fs::create_dir_all(world.ssh_config()).unwrap();
    fs::create_dir_all(world.root()).unwrap();
    let names = world.root().join("names.json");
    fs::write(&names, "{}").unwrap();
    world.run(&["uninstall", "--yes"]).ok();
    assert!(!names.exists());
}

#[test]
fn what_is_not_ours_stays_though_it_lies_among_ours() {
    let mut world = World::empty();
    let keys = world.root().join("keys");
    world.settings(&format!("identity: {}\n", keys.join("id").display()));
    world.serve(&[]);
    world.playground("shell");
    // Some with a name like one of ours, since the folder may be one that the user has chosen.
    let mine = [
        "notes.txt",
        "names.txt",
        "known_hosts.mine",
        "hosts",
        "logs/mine.log",
        "live/show.json",
        "kube/config",
        "bin/x",
    ];
    for name in mine {
        let path = world.root().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "mine").unwrap();
    }
    fs::create_dir_all(&keys).unwrap();
    fs::write(keys.join("other"), "mine, too").unwrap();
    let before = files(&keys);
    // The program that came with the VS Code extension, and what is left of an update on Windows.
    let copies = ["bin/labctl-ssh-proxy", "bin/labctl-ssh-proxy.7.old"].map(|name| world.root().join(name));
    for copy in &copies {
        copy_program(copy);
    }
    world.output(world.program(&copies[0]).args(["--local", "uninstall", "--yes"])).ok();
    assert_eq!(copies.each_ref().map(|copy| copy.exists()), [true, false], "the running program stays");
    let said = world.local(&["uninstall", "--yes"]).ok();
    assert_eq!(copies.each_ref().map(|copy| copy.exists()), [false, false]);
    assert!(!said.contains("keys\n") && !said.contains("notes.txt"), "{said}");
    assert_eq!(files(&keys), before);
    assert_eq!(mine.iter().find(|name| !world.root().join(name).exists()), None);
    assert!(!world.root().join("hosts.json").exists());
}

#[test]
fn a_home_is_as_it_was_but_for_the_key() {
    let mut world = World::empty();
    home(&world);
    let before = files(world.home());
    world.serve(&[]);
    let id = world.playground("shell");
    world.ssh(&[&format!("playground-{id}"), "true"]).ok();
    let list = world.local(&["uninstall", "--dry-run"]).ok();
    for what in
        ["this program's lines in", "known_hosts.local", "hosts.json", "playgrounds and their files", "Will be kept"]
    {
        assert!(list.contains(what), "{what} not in {list}");
    }
    assert!(world.root().join("hosts.json").exists());
    // There is no terminal to ask on.
    assert!(world.local(&["uninstall"]).failed(2).contains("--yes"));

    world.local(&["uninstall", "--yes"]).ok();
    assert_eq!(fs::read_to_string(world.ssh_config()).unwrap(), "Host other\n\tUser me\n");
    let left: Vec<_> = fs::read_dir(world.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name.to_string_lossy().starts_with("local")), "{left:?}");
    // The playground still exists, and is running.
    assert_eq!(world.json(&["list", "--json"])[0]["state"], "RUNNING");

    let said = world.local(&["uninstall", "--yes", "--local-playgrounds"]).ok();
    assert!(!world.root().exists(), "{said}");
    eventually("the embedded platform has ended", || world.processes("local serve").is_empty());
    let mut after = files(world.home());
    after.retain(|path, _| !path.ends_with("platform.log"));
    for key in ["iximiuz_labs_user", "iximiuz_labs_user.pub"] {
        assert!(after.remove(&world.home().join(".ssh").join(key)).is_some(), "the key stays");
    }
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    assert_eq!(after, before);
    assert!(world.run(&["uninstall", "--yes"]).ok().contains("nothing to remove"));
}

#[test]
fn every_file_that_a_command_writes_is_known() {
    let platform = Fake::start(Phase::Find, Fault::Nothing);
    let mut world = World::empty();
    home(&world);
    let account = world.home().join(".iximiuz/labctl/config.yaml");
    let text = format!("api_base_url: {}/api\nsession_id: a\naccess_token: b\n", platform.base);
    fs::write(account, text).unwrap();
    world.serve(&[]);
    let play = world.playground("shell");
    let kubeconfig = world.root().join("local/plays").join(&play).join("shell-01/home/.kube/config");
    fs::create_dir_all(kubeconfig.parent().unwrap()).unwrap();
    let text = "clusters: [{name: a, cluster: {server: https://a}}]\ncontexts: [{name: a, context: {cluster: a}}]\n";
    fs::write(kubeconfig, text).unwrap();

    world.ssh(&[&format!("playground-{play}"), "true"]).ok();
    for args in [
        &["list"][..],
        &["catalog"],
        &["config-zed", "--yes"],
        &["kube", &play, "--merge", "--", "true"],
        &["restart", &play],
        &["stop", &play],
    ] {
        world.local(args).ok();
    }
    // The fake platform knows one playground, and answers less.
    world.run(&["list"]).ok();
    world.run(&["config-ssh", "--yes"]).ok();
    let host = format!("playground-{PLAY}");
    world.ssh_program("ssh").args(["-o", "BatchMode=yes", &host, "true"]).output().unwrap();

    let list = world.local(&["uninstall", "--dry-run"]).ok();
    let mut names = Vec::new();
    for entry in fs::read_dir(world.root()).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        // The embedded platform has a question of its own, and each backup has a line.
        if !["backups", "local", "local.lock"].contains(&name.as_str()) {
            assert!(list.contains(&format!("  {}\n", entry.path().display())), "{name} not in {list}");
            names.push(name);
        }
    }
    names.sort_unstable();
    let expected = [
        "hosts.json",
        "hosts.json.lock",
        "known_hosts",
        "known_hosts.local",
        "known_hosts.local.lock",
        "kube",
        "live",
        "logs",
        "memory.local",
        "names.json",
        "names.local.json",
        "ssh_config",
        "tunnels",
        "zed.json",
    ];
    for name in expected {
        assert!(names.iter().any(|found| found == name), "no {name} was written: {names:?}");
    }
}

#[test]
fn a_file_that_was_changed_keeps_its_backup() {
    let mut world = World::empty();
    home(&world);
    world.serve(&[]);
    world.playground("shell");
    let text = fs::read_to_string(world.ssh_config()).unwrap();
    fs::write(world.ssh_config(), format!("{text}Host mine\n")).unwrap();
    let said = world.local(&["uninstall", "--yes"]).ok();
    assert!(said.contains("has changed since"), "{said}");
    assert_eq!(fs::read_to_string(world.ssh_config()).unwrap(), "Host other\n\tUser me\nHost mine\n");
    let backups: Vec<_> = fs::read_dir(world.root().join("backups")).unwrap().map(Result::unwrap).collect();
    assert_eq!(backups.len(), 1);
    assert_eq!(fs::read_to_string(backups[0].path()).unwrap(), "Host other\n\tUser me\n");
}

#[test]
fn on_a_terminal_the_playgrounds_are_asked_about_on_their_own() {
    let mut world = World::empty();
    home(&world);
    world.serve(&[]);
    world.playground("shell");
    let socket = world.home().join("tmux");
    let tmux = |args: &[&str]| {
        let mut tmux = world.program(needs("tmux"));
        let out = tmux.arg("-S").arg(&socket).args(["-f", "/dev/null"]).args(args).output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let command = format!("trap : INT; {0} uninstall; echo left $?; {0} uninstall; echo ended $?; cat", PROGRAM);
    tmux(&["new-session", "-d", "-s", "x", "-x", "160", "-y", "40", &command]);
    let screen = || tmux(&["capture-pane", "-p", "-t", "x"]);
    eventually("it asks", || screen().contains("Remove all of this? [y/N]"));
    tmux(&["send-keys", "-t", "x", "C-c"]);
    eventually("a question can be left", || screen().contains("left 130"));
    eventually("it asks", || screen().matches("Remove all of this? [y/N]").count() == 2);
    assert!(world.root().join("hosts.json").exists());
    tmux(&["send-keys", "-t", "x", "y", "Enter"]);
    eventually("it asks again", || screen().contains("Also erase the embedded platform's playgrounds"));
    tmux(&["send-keys", "-t", "x", "n", "Enter"]);
    eventually("it is done", || screen().contains("ended 0"));
    tmux(&["kill-server"]);
    assert!(world.root().join("local").exists() && !world.root().join("hosts.json").exists());
}

/// A relay on a machine is out of reach of `uninstall`, which says so, with a command that ends it.
#[test]
fn what_lies_on_machines_is_said() {
    let distant = Distant::with_relay();
    assert_eq!(distant.relay_processes().len(), 1);
    let said = distant.world.run(&["uninstall", "--dry-run"]);
    let line = said.err.lines().find(|line| line.contains("a relay may run on machine shell-01")).unwrap();
    let command = line.split('`').nth(1).unwrap();
    let ran = command.replacen("labctl-ssh-proxy", "exec \"$0\"", 1);
    let ran = distant.world.program("sh").args(["-c", &ran, PROGRAM]).output().unwrap();
    assert!(ran.status.success(), "{command}: {}", String::from_utf8_lossy(&ran.stderr));
    eventually("the relay has ended", || distant.relay_processes().is_empty());
    assert!(!distant.world.home().join(".cache/labctl-ssh-proxy/relay-1.json").exists());
}
