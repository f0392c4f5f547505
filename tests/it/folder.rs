//! A folder's playground, as `.labctl-ssh-proxy.yaml` names it: for the commands that reach it, asked about where it would
//! start, and never for those that stop, erase or expose.

use std::{fs, process::Command};

use crate::support::{Said, World, terminal::OnTerminal};

const NAME: &str = ".labctl-ssh-proxy.yaml";

#[test]
fn a_folder_names_the_playground_of_commands_that_reach_it() {
    let mut world = World::with_platform(&[]);
    let deep = world.path("code/src/deep");
    fs::create_dir_all(&deep).unwrap();
    let file = world.path("code").join(NAME);
    let within = |args: &[&str]| -> Said {
        let mut command: Command = world.command(&["--local"]);
        world.output(command.args(args).current_dir(&deep))
    };
    // Without a file, the error says both ways.
    for (command, words) in
        [("ssh", &["ssh"][..]), ("open code", &["open", "code"]), ("start", &["start"]), ("kube", &["kube"])]
    {
        let said = within(words).failed(2);
        assert!(said.contains(&format!("{command} PLAYGROUND")) && said.contains(NAME), "{said}");
    }
    fs::write(&file, "playground: shell\npath: my src\n").unwrap();
    // A cloned repository starts nothing unasked.
    for (words, hint) in [
        (&["ssh"][..], "ssh playground-shell"),
        (&["ssh", "--", "true"], "ssh playground-shell"),
        (&["open", "code"], "--yes, or name it: "),
        (&["start"], "--yes, or name it: "),
        (&["start", "--json"], "start playground-shell"),
    ] {
        let said = within(words).failed(2);
        assert!(said.contains("Start a new playground-shell") && said.contains(hint), "{words:?}: {said}");
        assert!(said.contains(&format!("{} says shell", file.display())), "{said}");
    }
    // These start no new one.
    for words in [&["kube", "--", "true"][..], &["port-forward", "-L", "0:80"]] {
        assert!(within(words).failed(4).contains("no playground"));
    }
    assert_eq!(world.plays(), 0);
    // Commands that stop, erase or expose do not read it.
    for words in [
        &["stop"][..],
        &["destroy", "--yes"],
        &["expose"],
        &["rename"],
        &["restart"],
        &["kube", "--remove"],
        &["port-forward", "-R", "0:80"],
        &["port-forward", "-L", "80", "--save"],
        &["port-forward", "--restore"],
        &["port-forward", "--remove", "all"],
    ] {
        let said = within(words).failed(2);
        assert!(said.contains("required") && !said.contains(NAME), "{words:?}: {said}");
    }
    // A person is asked; a no starts nothing, and a yes starts it.
    let answer = |words: &str, answer: &str| {
        let line = format!("cd '{}' && exec {} --local {words}", deep.display(), crate::support::PROGRAM);
        let mut command = pty_process::blocking::Command::new("/bin/sh");
        command = command.env_clear().env("HOME", world.home()).env("PATH", "/usr/bin:/bin").env("SHELL", "/bin/sh");
        let mut terminal = OnTerminal::start(command.args(["-c", &line]), 24, 200);
        terminal.expect("[y/N]");
        terminal.type_in(answer);
        terminal.code()
    };
    assert_eq!((answer("ssh -- true", "n\n"), world.plays()), (Some(15), 0));
    assert_eq!((answer("ssh -- true", "y\n"), world.plays()), (Some(0), 1));
    // One that runs needs no question.
    let said = within(&["ssh", "--", "echo", "in"]);
    assert!(said.err.contains("says shell"), "{said:?}");
    assert_eq!(said.ok(), "in\n");
    let id = world.json(&["list", "--json"])[0]["id"].as_str().unwrap().to_owned();
    world.configure();
    fs::create_dir_all(world.machine_home(&id, "shell-01").join("my src")).unwrap();
    let within = |args: &[&str]| world.output(world.command(&["--local"]).args(args).current_dir(&deep));
    let printed = within(&["open", "code", "--print"]).ok();
    assert!(printed.contains("playground-shell") && printed.contains("my%20src"), "{printed}");
    assert!(within(&["start"]).ok().contains("is running"));
    assert_eq!(world.plays(), 1);
    // By its id, stopped: asked again, and --yes answers.
    fs::write(&file, format!("playground: {id}\n")).unwrap();
    let _ = world.local(&["stop", &id]).ok();
    assert!(within(&["ssh"]).failed(2).contains("which is stopped"));
    assert_eq!(world.state(&id), "STOPPED");
    assert!(within(&["start", "--yes"]).ok().contains("is running"));
    // The title of one that runs is not the name of another that does not.
    world.local(&["rename", &id, "playground-alpine"]).ok();
    fs::write(&file, "playground: alpine\n").unwrap();
    assert!(within(&["start", "--no-wait"]).failed(2).contains("Start a new playground-alpine"));
    // The machine that is meant counts.
    world.json(&["start", "duo", "--json"]);
    fs::write(&file, "playground: duo\n").unwrap();
    world.local(&["machine", "stop", "playground-duo.node-02"]).ok();
    let said = within(&["port-forward", "-m", "node-02", "-L", "0:80"]).failed(2);
    assert!(said.contains("Start machine node-02 of duo-") && said.contains(", which is stopped"), "{said}");
    // A file that is refused is said, and the name on the command line counts.
    fs::write(&file, "playground: shell\nrun: rm\n").unwrap();
    let said = within(&["ssh"]).failed(13);
    assert!(said.contains("is not used: ") && said.contains("run"), "{said}");
    assert_eq!(within(&["ssh", &id, "echo", "by name"]).ok(), "by name\n");
}
