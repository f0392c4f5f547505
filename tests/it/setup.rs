//! Setup of a fresh machine: when it runs and when not, and what is said of it. `src/setup/trials.rs` has the machine's side.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    Said, World, eventually,
    labs::{Labs, PLAIN},
    schema, write_program,
};

/// Writes the dotfiles with this install script.
fn install(world: &World, script: &str) {
    fs::create_dir_all(world.path("dotfiles")).unwrap();
    fs::write(world.path("dotfiles/install.sh"), format!("#!/bin/sh\necho run >>~/runs\n{script}\n")).unwrap();
}

fn runs(home: &Path) -> usize {
    fs::read_to_string(home.join("runs")).map_or(0, |text| text.lines().count())
}

/// Checks that the command succeeded, and returns what it said of setups that are not as they should be.
fn said(said: Said) -> String {
    assert!(said.status.success(), "{said:?}");
    let lines = said.err.lines().filter(|line| line.contains("set up") || line.contains("setup"));
    lines.filter(|line| !line.contains("setting up") && !line.ends_with(" is set up")).collect::<Vec<_>>().join("\n")
}

#[test]
fn start_sets_up_each_machine_once_and_a_failure_blocks_nothing() {
    let mut world = World::with_platform(&[]);
    install(&world, "echo 'some output'");
    world.settings("setup: ~/dotfiles\n");
    let id = world.json(&["start", "duo", "--title", "Two", "--no-wait", "--json"])["id"].as_str().unwrap().to_owned();
    let homes = ["node-01", "node-02"].map(|machine| world.machine_home(&id, machine));
    world.configure();
    let host = format!("playground-{id}");
    let _ = world.ssh(&[&host, "true"]).ok();
    let _ = world.local(&["ssh", &host, "true"]).ok();
    let _ = world.local(&["wait", &id]).ok();
    let _ = world.local(&["restart", &id]).ok();
    assert_eq!([runs(&homes[0]), runs(&homes[1])], [0, 0], "only `start` and `open` set up");
    for _ in 0..2 {
        assert_eq!(said(world.local(&["start", &id])), "");
        assert_eq!([runs(&homes[0]), runs(&homes[1])], [1, 1]);
    }
    let log = world.root().join(format!("setup/{host}.node-02.log"));
    assert_eq!(fs::read_to_string(&log).unwrap(), "some output\n");
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(homes[1].join(".local/state/labctl-ssh-proxy/setup/1/log").exists());

    install(&world, "exit 7");
    let again = world.local(&["start", &id, "--setup", "--json"]);
    schema::check("playground", &serde_json::from_str(&again.out).unwrap());
    let text = said(again);
    for machine in ["node-01", "node-02"] {
        let sentence = format!(
            "labctl-ssh-proxy: the setup of machine {machine} of Two failed: install.sh ended with exit status 7; its output is \
             in {}, and `labctl-ssh-proxy --local start {id} --setup` repeats it",
            log.display().to_string().replace("node-02", machine)
        );
        assert!(text.lines().any(|line| line == sentence), "{text}\nlacks {sentence}");
    }
    assert_eq!(said(world.local(&["start", &id])), "", "it is said once");
    assert_eq!([runs(&homes[0]), runs(&homes[1])], [2, 2]);

    // More than may be sent, and a home, are refused before anything is sent.
    fs::File::create(world.path("dotfiles/large")).unwrap().set_len(100 * 1024 * 1024).unwrap();
    assert!(said(world.local(&["start", &id, "--setup"])).contains("which has 101 MiB; 100 MiB may be sent"));
    let report = world.local(&["doctor"]);
    assert!(report.out.contains("which has 101 MiB; 100 MiB may be sent"), "{report:?}");
    world.settings("setup: \"~/\"\n");
    assert!(said(world.local(&["start", &id, "--setup"])).contains("would send private files to machines"));
    world.settings("setup: ~/dotfiles\nplaygrounds: {duo: {setup: none}}\n");
    assert!(
        said(world.local(&["start", &id, "--setup"]))
            .contains("Two is not set up: the settings say `setup: none` for it")
    );
    assert_eq!([runs(&homes[0]), runs(&homes[1])], [2, 2]);
    fs::write(world.path("other"), "setup: ~/dotfiles\n").unwrap();
    world.settings("");
    let mut by_variable = world.command(&["--local", "start", &id, "--setup"]);
    let error = world.output(by_variable.env("LABCTL_SSH_PROXY_SETTINGS", world.path("other"))).failed(2);
    assert!(error.contains("only your own settings file can"), "{error}");
    let error = world.local(&["start", &id, "--setup"]).failed(2);
    assert!(error.contains("the settings name no setup\nhint: write `setup: ~/dotfiles` into"), "{error}");
}

#[test]
fn open_sets_up_from_a_repository() {
    let world = World::with_platform(&[]);
    let id = world.json(&["start", "shell", "--title", "One", "--json"])["id"].as_str().unwrap().to_owned();
    let home = world.machine_home(&id, "shell-01");
    world.settings("setup: https://127.0.0.1:1/me/dotfiles\n");
    let bin = world.path("bin");
    fs::create_dir(&bin).unwrap();
    write_program(&bin.join("code"), "#!/bin/sh\n");
    write_program(&bin.join("ssh"), "#!/bin/sh\nexec /usr/bin/ssh -F none \"$@\"\n");
    let open = || {
        let path = format!("{}:/usr/bin:/bin", bin.display());
        said(world.output(world.command(&["--local", "open", "code", &id, "--yes"]).env("PATH", path)))
    };
    assert!(open().contains("of One failed: git clone ended with exit status 128 (\"fatal: unable to access "));
    assert_eq!(open(), "", "a failure is not repeated");
    // In place of the host of the address: git on the machine clones for real.
    install(&world, "");
    let made = "git init -q && git add -A && git -c user.name=A -c user.email=a@example.org commit -qm one";
    assert!(world.program("sh").args(["-c", &format!("cd dotfiles && {made}")]).status().unwrap().success());
    let config =
        format!("[url \"{}\"]\n\tinsteadOf = https://127.0.0.1:1/me/dotfiles\n", world.path("dotfiles").display());
    fs::write(home.join(".gitconfig"), config).unwrap();
    assert_eq!(said(world.local(&["start", &id, "--setup"])), "");
    assert_eq!(runs(&home), 1);
    // A folder of as much as may be sent.
    world.settings("setup: ~/dotfiles\n");
    let size = 100 * 1024 * 1024 - 1024;
    fs::File::create(world.path("dotfiles/large")).unwrap().set_len(size).unwrap();
    assert_eq!(said(world.local(&["start", &id, "--setup"])), "");
    let large = home.join(".local/state/labctl-ssh-proxy/setup/source/large");
    assert_eq!((runs(&home), fs::metadata(large).unwrap().len()), (2, size));
}

#[test]
fn neither_a_lesson_nor_a_stranger_s_playground_is_set_up() {
    let world = World::with_platform(&[]);
    install(&world, "");
    world.settings("setup: ~/dotfiles\n");
    let play = world.json(&["start", "write-a-file", "--yes", "--json"]);
    let id = play["id"].as_str().unwrap();
    let text = said(world.local(&["start", id, "--setup"]));
    assert!(text.ends_with("is not set up: it belongs to a challenge, a tutorial or a lesson"), "{text}");
    let machine = play["machines"][0]["name"].as_str().unwrap();
    assert_eq!(runs(&world.machine_home(id, machine)), 0);

    let world = World::empty();
    let _labs = Labs::start(&world, PLAIN);
    install(&world, "");
    world.settings("setup: ~/dotfiles\n");
    assert_eq!(said(world.run(&["start", "by-mallory", "--consent"])), "");
    let play = format!("{:024x}", 2);
    let text = said(world.run(&["start", &play, "--setup"]));
    assert!(
        text.contains("its author is neither the platform nor you; `playgrounds: {by-mallory: {setup: ...}}`"),
        "{text}"
    );
    assert_eq!(runs(&world.path("machine")), 0);
    world.settings("playgrounds: {by-mallory: {setup: ~/dotfiles}}\n");
    assert_eq!(said(world.run(&["start", &play])), "");
    assert_eq!(runs(&world.path("machine")), 1, "under OpenSSH, too");
}

#[test]
fn a_signal_leaves_a_setup_that_goes_on() {
    let world = World::with_platform(&[]);
    install(&world, "while [ ! -e ~/go ]; do sleep 0.1; done; echo done >>~/runs");
    world.settings("setup: ~/dotfiles\n");
    let mut start = world
        .command(&["--local", "-v", "start", "shell", "--title", "Mine"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(start.stderr.take().unwrap()).lines().map(Result::unwrap);
    lines.find(|line| line.contains("the setup of machine shell-01 of Mine runs")).unwrap();
    kill_process(Pid::from_child(&start), Signal::INT).unwrap();
    let rest: Vec<String> = lines.collect();
    let sentence = "the setup of machine shell-01 of Mine goes on there, for up to 10 minutes; its output is in \
                    ~/.local/state/labctl-ssh-proxy/setup on the machine";
    assert!(rest.iter().any(|line| line == sentence), "{rest:?}");
    assert!(!rest.iter().any(|line| line.contains("goes on starting")), "{rest:?}");
    assert_eq!(start.wait().unwrap().code(), Some(130));
    let id = world.json(&["list", "--json"])[0]["id"].as_str().unwrap().to_owned();
    let home = world.machine_home(&id, "shell-01");
    fs::write(home.join("go"), "").unwrap();
    eventually("the setup has gone on", || runs(&home) == 2);
    let next = world.local(&["start", &id]);
    assert!(next.err.contains("labctl-ssh-proxy: machine shell-01 of Mine is set up\n"), "{next:?}");
    assert_eq!(runs(&home), 2);
    // A repetition that is left is told of, too.
    fs::remove_file(home.join("go")).unwrap();
    let mut repeat = world.command(&["--local", "-v", "start", &id, "--setup"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(repeat.stderr.take().unwrap()).lines().map(Result::unwrap);
    lines.find(|line| line.contains("the setup of machine shell-01 of Mine runs")).unwrap();
    kill_process(Pid::from_child(&repeat), Signal::INT).unwrap();
    repeat.wait().unwrap();
    fs::write(home.join("go"), "").unwrap();
    let next = world.local(&["start", &id]);
    assert!(next.err.contains("labctl-ssh-proxy: machine shell-01 of Mine is set up\n"), "{next:?}");
    assert_eq!(runs(&home), 4);
}
