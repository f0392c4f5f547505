//! The effects of commands, beyond their output: on the embedded platform, and on a stand-in for the real one where an
//! account is needed.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    process::Stdio,
};

use serde_json::{Value, json};

use crate::support::{
    PROGRAM, Said, World, eventually,
    labs::{ID, Labs, PLAIN, SESSION, TOKEN, user},
    schema, write_program,
};

/// Returns the playground with this id in a list.
fn of<'a>(list: &'a Value, id: &str) -> &'a Value {
    list.as_array().unwrap().iter().find(|play| play["id"] == id).unwrap_or_else(|| panic!("no {id} in {list}"))
}

#[test]
fn a_playgrounds_life() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("duo");
    let (host, title) = (format!("playground-{id}"), "A box of Ada's");
    let state =
        |world: &World| of(&world.json(&["list", "--all", "--json"]), &id)["state"].as_str().unwrap().to_owned();
    schema::check("list", &world.json(&["list", "--json"]));

    assert!(world.local(&["rename", &id, title]).ok().contains(title));
    assert_eq!(of(&world.json(&["list", "--json"]), &id)["title"], title);
    assert!(world.entries().contains(&format!("# Playground: {title}\n")), "{}", world.entries());
    // By title, id and host name. To the minute, because a second may pass between two answers.
    let extended = world.local(&["extend", title, "120"]).ok();
    assert!(["9h59m", "10h"].iter().any(|left| extended.contains(&format!("runs for {left} more"))), "{extended}");
    assert!(extended.contains("then it is erased") && extended.contains(&format!("persist {id}")), "{extended}");
    assert!(world.local(&["persist", &host]).ok().contains("will be kept"));
    assert_eq!(of(&world.json(&["list", "--json"]), &id)["persistent"], true);

    assert_eq!(world.ssh(&[&format!("{host}.node-02"), "echo kept >file; echo in"]).ok(), "in\n");
    // A command for whole playgrounds refuses the name of one machine.
    for command in ["stop", "destroy", "restart"] {
        let said = world.local(&[command, &format!("{host}.node-02")]).failed(2);
        assert!(said.contains("leave out `.node-02`"), "{said}");
    }
    assert!(world.local(&["stop", title]).ok().contains("is stopped"));
    assert_eq!(state(&world), "STOPPED");
    // It stays stopped, because it was stopped on purpose.
    let refused = world.held(&mut world.command(&["--local", "connect", &host])).failed(7);
    assert!(refused.contains(&format!("labctl-ssh-proxy --local start {id}")), "{refused}");
    assert!(world.local(&["start", &id]).ok().contains(": ssh a-box-of-ada-s"));
    assert_eq!(world.ssh(&[&format!("{host}.node-02"), "cat file"]).ok(), "kept\n");
    assert!(world.local(&["restart", &id]).ok().contains("is running"));
    assert_eq!(state(&world), "RUNNING");

    let known = fs::read_to_string(world.root().join("known_hosts.local")).unwrap();
    assert!(known.contains(&host));
    assert!(world.local(&["destroy", &host, "--yes"]).ok().contains("is erased"));
    let known = fs::read_to_string(world.root().join("known_hosts.local")).unwrap();
    assert!(!known.contains(&id) && !world.entries().contains(&id), "{known}");
    let gone = world.held(&mut world.command(&["--local", "connect", &host]));
    assert!([4, 8].contains(&gone.code()), "{gone:?}");
    assert!(world.json(&["list", "--json"]).as_array().unwrap().is_empty());
}

#[test]
fn starts_by_name_and_what_is_in_the_catalogue() {
    let world = World::with_platform(&[]);
    let catalog = world.json(&["catalog", "--json"]);
    schema::check("catalog", &catalog);
    let names: Vec<&str> = catalog.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["alpine", "broken", "choices", "duo", "shell", "verified"]);
    // `start NAME` always creates a new one. `start playground-NAME` uses the existing one, as a connection does.
    let start = |name: &str| world.json(&["start", name, "--no-wait", "--json"])["id"].as_str().unwrap().to_owned();
    let first = start("shell");
    assert_eq!(start("playground-shell"), first);
    assert_ne!(start("shell"), first);
    let refused = world.local(&["start", "playground-shell"]).failed(5);
    assert!(refused.contains(&first), "{refused}");
    // ssh accepts these names as well, and logs in as the machine's user.
    let mut world = world;
    world.configure();
    let entries = world.entries();
    let duo = entries.split("Host playground-duo\n").nth(1).unwrap();
    assert!(duo.starts_with(&format!("  HostName playground-duo\n  User {}\n", user())), "{duo}");
    assert_eq!(world.ssh(&["playground-duo", "whoami"]).ok().trim(), user());
}

/// Whoever typed a title does not know the id.
#[test]
fn what_the_platform_refuses_is_said_of_the_title() {
    let world = World::with_platform(&[]);
    world.local(&["start", "shell", "--title", "Try compose", "--no-wait"]).ok();
    let refused = world.local(&["extend", "try compose", "90000"]).failed(6);
    assert!(refused.contains("playground Try compose: the platform says: "), "{refused}");
}

/// A plan is checked with ssh when it is made. An edit asks twice more, just before and just after: an Include of the
/// user's may match a file that the plan could only imagine.
#[test]
fn config_ssh_asks_ssh_once() {
    let mut world = World::with_platform(&[]);
    world.playground("shell");
    let (folder, calls) = (world.path("bin"), world.path("calls"));
    fs::create_dir(&folder).unwrap();
    let ssh = format!("#!/bin/sh\necho >> {}\nexec /usr/bin/ssh \"$@\"\n", calls.display());
    write_program(&folder.join("ssh"), &ssh);
    let asked = |args: &[&str]| {
        let _ = fs::remove_file(&calls);
        let mut command = world.command(&["--local", "config-ssh"]);
        command.args(args).env("PATH", format!("{}:/usr/bin:/bin", folder.display()));
        world.output(&mut command).ok();
        fs::read_to_string(&calls).unwrap_or_default().lines().count()
    };
    let shown = asked(&["--inline", "--dry-run"]);
    assert_eq!((shown, asked(&["--inline", "--yes"])), (8, 10));
    assert_eq!((asked(&["--remove", "--dry-run"]), asked(&["--remove", "--yes"])), (2, 2));
}

#[test]
fn the_embedded_platform_itself() {
    let mut world = World::empty();
    assert!(world.run(&["local", "status"]).ok().contains("is not running"));
    assert_eq!(world.run(&["local", "status", "--json"]).ok(), "null\n");
    assert!(world.run(&["local", "stop"]).ok().contains("was not running"));
    world.serve(&[]);
    let status: Value = serde_json::from_str(&world.run(&["local", "status", "--json"]).ok()).unwrap();
    schema::check("localStatus", &status);
    assert!(world.run(&["local", "serve"]).failed(6).contains("already"), "one per folder");
    assert!(world.run(&["local", "stop"]).ok().contains("is stopped"));
    assert!(!world.root().join("local/socket").exists());
    // It prints the chosen port.
    let mut world = World::empty();
    world.serve(&["--listen", "127.0.0.1:0"]);
    let address = world.json(&["local", "status", "--json"])["listen"].as_str().unwrap().to_owned();
    eventually("it tells where it listens", || {
        fs::read_to_string(world.path("platform.log")).unwrap().contains(&format!("It also listens on {address}"))
    });
    world.stop_platform();
    // A relative folder means the same to a platform that runs in another working directory.
    let _ = world.local(&["--home", "here", "list"]).ok();
    assert!(world.path("here/local/plays").is_dir());
    world.run(&["--home", "here", "local", "stop"]).ok();
}

#[test]
fn the_machines_find_the_chosen_engine_also_after_an_autostart() {
    for endpoint in ["builtin", "sshd"] {
        let mut world = World::empty();
        let socket = world.path("docker.sock");
        let socket = socket.to_str().unwrap().to_owned();
        assert!(world.run(&["local", "serve", "--engine", &socket]).failed(4).contains("there is no engine's socket"));
        assert!(
            world.run(&["local", "serve", "--engine", "tcp://127.0.0.1:2375"]).failed(2).contains("no Unix socket")
        );
        let _engine = UnixListener::bind(&socket).unwrap();
        world.serve(&["--endpoint", endpoint, "--engine", &socket]);
        assert!(world.run(&["local", "status"]).ok().contains(&socket));
        let host = format!("playground-{}", world.playground("shell"));
        let said = || world.ssh(&[&host, "echo $DOCKER_HOST"]).ok();
        assert_eq!(said(), format!("unix://{socket}\n"), "{endpoint}");
        if endpoint == "builtin" {
            // The next one is started by a command, without options.
            world.run(&["local", "stop"]).ok();
            world.local(&["restart", "shell"]).ok();
            assert_eq!(world.json(&["local", "status", "--json"])["engine"], *socket);
            assert_eq!(said(), format!("unix://{socket}\n"));
        }
    }
}

#[test]
fn the_demonstration_leaves_nothing_behind() {
    let world = World::empty();
    let temporary = world.path("tmp");
    fs::create_dir(&temporary).unwrap();
    let mut demo = world.command(&["demo", "--", "echo in; exit 5"]);
    demo.env("TMPDIR", &temporary);
    let said = world.output(&mut demo);
    assert_eq!((said.code(), said.out.as_str()), (5, "in\n"), "{said:?}");
    // The whole command, as it was run; and what comes next.
    let is_run = |line: &str| line.starts_with("$ ssh -F /") && line.ends_with(" 'echo in; exit 5'");
    assert!(said.err.lines().any(is_run) && said.err.contains("\n  labctl-ssh-proxy login"), "{said:?}");
    let mut demo = world.program("script");
    demo.args(["-qec", &format!("{PROGRAM} demo"), "/dev/null"]).env("TMPDIR", &temporary);
    let said = String::from_utf8(world.feed(&mut demo, b"exit\n").stdout).unwrap();
    assert!(said.contains("You are inside playground shell-") && said.contains("exit "), "{said}");
    assert!(said.contains("[inside the playground] "), "the prompt says where one is: {said}");
    // Commands have the path of the temporary folder, which is long in a test.
    let ours = said.lines().filter(|line| !line.starts_with("$ ssh") && !line.starts_with("  scp"));
    assert!(ours.map(str::trim_end).all(|line| line.chars().count() <= 80), "{said}");
    // The printed commands, as another terminal would run them, leave nothing either.
    let other = world.path("other");
    let script =
        "cd ../../../../..; ssh -F config \"$(sed -n 's/^Host //p' ssh_config | head -n 1)\" echo from outside\n";
    fs::write(&other, script).unwrap();
    let outside = format!("env -i HOME={} PATH=\"$PATH\" sh {}", world.home().display(), other.display());
    let said = world.output(world.command(&["demo", "--", &outside]).env("TMPDIR", &temporary));
    assert_eq!((said.code(), said.out.as_str()), (0, "from outside\n"), "{said:?}");
    fs::remove_file(other).unwrap();
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
    let left: Vec<_> = fs::read_dir(world.home()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["tmp"]);
    eventually("no process is left", || world.processes("labctl").is_empty());
}

#[test]
fn logging_in_and_out() {
    let world = World::empty();
    let labs = Labs::start(&world, PLAIN);
    let account = world.path(".iximiuz/labctl/config.yaml");
    let text = || fs::read_to_string(&account).unwrap();
    // Other lines of the file are kept.
    labs.log_in(&world, "someday: [1, two]\nsession_id: ''\naccess_token: ''\n");
    let _ = world.run(&["whoami"]).failed(3);
    let login = |input: &str| world.feed(&mut world.command(&["login", "--stdin"]), input.as_bytes());
    let refused = login("wrong\ncredentials\n");
    assert_eq!(refused.status.code(), Some(3));
    assert!(!text().contains("wrong"), "credentials that are not accepted are not kept");
    assert!(login(&format!("{SESSION}\n{TOKEN}\n")).status.success());
    for kept in ["someday", "two", "plays_dir: /nowhere", SESSION, TOKEN] {
        assert!(text().contains(kept), "no {kept} in {}", text());
    }
    assert_eq!(fs::metadata(&account).unwrap().permissions().mode() & 0o777, 0o600);
    let me: Value = serde_json::from_str(&world.run(&["whoami", "--json"]).ok()).unwrap();
    schema::check("whoami", &me);
    assert_eq!(me["githubProfileId"], "ada");

    assert!(world.run(&["logout"]).ok().contains("Logged out"));
    assert!(labs.seen().iter().any(|seen| seen.line == format!("DELETE /api/sessions/{SESSION}")));
    assert!(!text().contains(TOKEN) && text().contains("someday"));
    let _ = world.run(&["list"]).failed(3);

    // Credentials in the environment need no login.
    let mut list = world.command(&["list", "--json"]);
    list.env("IXIMIUZ_SESSION_ID", SESSION).env("IXIMIUZ_ACCESS_TOKEN", TOKEN);
    assert!(world.output(&mut list).ok().contains(ID));
    // A logout with them does not touch those in the file.
    assert!(login(&format!("{SESSION}\n{TOKEN}\n")).status.success());
    let mut logout = world.command(&["logout"]);
    logout.env("IXIMIUZ_SESSION_ID", "another").env("IXIMIUZ_ACCESS_TOKEN", "of-the-environment");
    assert!(world.output(&mut logout).ok().contains("Logged out"));
    assert!(labs.seen().iter().any(|seen| seen.line == "DELETE /api/sessions/another"));
    assert!(text().contains(TOKEN));
}

#[test]
fn a_login_in_the_browser() {
    let world = World::empty();
    let labs = Labs::start(&world, PLAIN);
    labs.log_in(&world, "");
    // The browser that the webbrowser crate would start.
    let opened = world.path("opened");
    let browser = world.path("browser");
    write_program(&browser, &format!("#!/bin/sh\necho \"$1\" >{}\n", opened.display()));
    let mut login = world.command(&["login"]);
    let mut login = login.env("BROWSER", &browser).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let printed = BufReader::new(login.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(printed.into_iter().any(|line| line.trim() == format!("https://labs.test/confirm/{SESSION}")));
    let out = login.wait_with_output().unwrap();
    assert!(out.status.success(), "{out:?}");
    assert!(String::from_utf8_lossy(&out.stdout).contains("Logged in as ada"));
    let polls = labs.seen().into_iter().filter(|seen| seen.line == format!("GET /api/sessions/{SESSION}")).count();
    assert_eq!(polls, 2);
    let _ = world.run(&["list"]).ok();
}

#[test]
fn a_strangers_playground_takes_consent() {
    let world = World::empty();
    let labs = Labs::start(&world, PLAIN);
    let posts = || labs.seen().into_iter().filter(|seen| seen.line == "POST /api/plays").collect::<Vec<_>>();
    let _ = world.run(&["start", "by-mallory", "--no-wait"]).failed(6);
    let _ = world.held(&mut world.command(&["connect", "playground-by-mallory"])).failed(6);
    assert!(posts().is_empty(), "nothing was started");
    let _ = world.run(&["start", "by-mallory", "--no-wait", "--consent"]).ok();
    assert_eq!(posts().pop().unwrap().body["safetyDisclaimerConsent"], true);
    let _ = world.run(&["start", "docker", "--no-wait"]).ok();
    // Same as the official client does for the platform's own playgrounds.
    assert_eq!(posts().pop().unwrap().body["safetyDisclaimerConsent"], true);
}

#[test]
fn a_terminal_is_asked_and_a_no_is_a_no() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let destroy = format!("destroy {id}");
    // A no is no failure, so that no error is printed. Nor is a Ctrl-C, which ends the question's line.
    let (code, said) = world.asked(&destroy, "n\n");
    assert!(code == Some(15) && said.ends_with("\nNothing was erased.\n"), "{said}");
    let (code, said) = world.asked(&destroy, "\x03");
    assert!(code == Some(130) && said.ends_with("[y/N] ^C\nNothing was erased.\n"), "{said:?}");
    let (code, said) = world.asked(&destroy, "\x04");
    assert!(code == Some(15) && said.contains("\nNothing was erased.\n"), "{said:?}");
    let (code, said) = world.asked("config-ssh --remove", "no\n");
    assert!(code == Some(15) && said.ends_with("\nNothing was written.\n"), "{said}");
    let (code, said) = world.asked("uninstall", "\n");
    assert!(code == Some(15) && said.ends_with("\nNothing was removed.\n"), "{said}");
    assert_eq!(of(&world.json(&["list", "--json"]), &id)["state"], "RUNNING");
    let (code, said) = world.asked(&destroy, "y\n");
    assert!(code == Some(0) && said.contains("is erased"), "{said}");
}

#[test]
fn a_mistyped_name_is_recognised() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("duo");
    world.local(&["rename", &id, "My Box"]).ok();
    for (command, code, hint) in [
        (&["start", "dou"][..], 4, "did you mean `duo`? run `labctl-ssh-proxy --local catalog`"),
        (&["ssh", "playground-sehll"], 4, "did you mean `shell`? run `labctl-ssh-proxy --local catalog`"),
        (&["stop", "my bx"], 4, "did you mean `My Box`? run `labctl-ssh-proxy --local list`"),
        (&["open", "vscode", "duo"], 2, "did you mean `code`?"),
    ] {
        let said = world.local(command).failed(code);
        assert!(said.contains(&format!("hint: {hint}")), "{said}");
    }
    // Upper and lower case do not matter, as long as one playground is meant.
    let said = world.local(&["persist", "my box"]).ok();
    assert!(said.starts_with("My Box will be kept"), "{said}");
    let other = world.json(&["start", "shell", "--title", "my box", "--json"])["id"].as_str().unwrap().to_owned();
    assert!(
        world.json(&["stop", "my box", "--json"])["id"] == other
            && world.json(&["stop", "My Box", "--json"])["id"] == id
    );
    let said = world.local(&["start", "MY BOX"]).failed(5);
    assert!(said.contains("hint: choose one of: playground-"), "{said}");
}

#[test]
fn the_command_that_start_prints_connects() {
    let mut world = World::with_platform(&[]);
    let said = world.local(&["start", "shell", "--title", "Fresh"]);
    let hint = "run `labctl-ssh-proxy --local config-ssh` once";
    assert!(
        said.out.starts_with("Fresh is running: labctl-ssh-proxy --local ssh ") && said.err.contains(hint),
        "{said:?}"
    );
    let words: Vec<&str> = said.out.trim().rsplit(": labctl-ssh-proxy ").next().unwrap().split(' ').collect();
    assert_eq!(world.run(&[&words[..], &["echo", "in"]].concat()).ok(), "in\n");
    world.configure();
    let said = world.local(&["start", "Fresh"]);
    assert!(said.out == "Fresh is running: ssh fresh\n" && said.err.is_empty(), "{said:?}");
}

#[test]
fn a_wait_that_is_interrupted_says_what_goes_on() {
    let world = World::with_platform(&["--boot-delay", "30s"]);
    let interrupted = |command: &[&str], until: &str| {
        let child = world.command(&["--local"]).args(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        let mut said = String::new();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        while !said.contains(until) {
            assert!(stderr.read_line(&mut said).unwrap() > 0, "{said}");
        }
        eventually("the playground has its name", || world.json(&["list", "--json"])[0]["alias"] == "fresh");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        stderr.read_to_string(&mut said).unwrap();
        (child.wait().unwrap().code(), said)
    };
    let (code, said) = interrupted(&["start", "shell", "--title", "Fresh"], "starting playground shell");
    let id = world.json(&["list", "--json"])[0]["id"].as_str().unwrap().to_owned();
    let ends =
        format!("`labctl-ssh-proxy --local stop {id}` stops it, `labctl-ssh-proxy --local destroy {id}` erases it");
    let goes_on = |ssh: &str| format!("Fresh goes on starting, and uses its time: `{ssh}` connects, {ends}\n");
    assert!(code == Some(130) && said.ends_with(&goes_on("labctl-ssh-proxy --local ssh fresh")), "{said}");
    world.local(&["config-ssh", "--yes"]).ok();
    for command in [&["ssh", "Fresh"][..], &["restart", "Fresh"], &["port-forward", "Fresh", "-L", "0:localhost:1"]] {
        if command[0] == "port-forward" {
            world.local(&["stop", "Fresh"]).ok();
        }
        let (code, said) = interrupted(command, "labctl-ssh-proxy: ");
        assert!(code == Some(130) && said.ends_with(&goes_on("ssh fresh")), "{command:?}: {said}");
    }
}

#[test]
fn nothing_is_erased_or_written_without_a_yes() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let commands: [&[&str]; 4] = [&["destroy", &id], &["config-ssh", "--remove"], &["config-zed"], &["uninstall"]];
    for command in commands {
        // Words on standard input are no answer, because they may be another program's.
        for input in ["", "n\n", "y\n"] {
            let said = Said::of(world.feed(world.command(&["--local"]).args(command), input.as_bytes()));
            assert!(said.failed(2).contains("hint: add --yes"), "{command:?}");
        }
        let json = world.local(&[command, &["--json"]].concat());
        assert!(json.failed(2).contains("hint: add --yes"), "{command:?}");
    }
    assert_eq!(of(&world.json(&["list", "--json"]), &id)["state"], "RUNNING");
    assert!(world.ssh(&[&format!("playground-{id}"), "true"]).status.success());
}

#[test]
fn the_time_of_a_stopped_playground_is_not_changed() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    world.local(&["rename", &id, "Fresh"]).ok();
    let minutes = || of(&world.json(&["list", "--json"]), &id)["expiresIn"].as_u64().unwrap() / 60;
    let before = minutes();
    world.local(&["stop", &id]).ok();
    let refused = world.local(&["extend", "Fresh", "60"]).failed(7);
    assert!(refused.contains("playground Fresh is stopped, so its time does not run"), "{refused}");
    assert!(refused.contains(&format!("`labctl-ssh-proxy --local start {id}`, then run")), "{refused}");
    world.local(&["start", &id]).ok();
    assert!(minutes().abs_diff(before) <= 1, "{before} {}", minutes());
    let said = world.local(&["extend", "Fresh", "60"]).ok();
    assert!(minutes().abs_diff(before + 60) <= 1, "{said}");
}

#[test]
fn the_whole_time_is_shown_and_set_and_a_near_end_is_asked_about() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    world.local(&["rename", &id, "Fresh"]).ok();
    let listed = || of(&world.json(&["list", "--json"]), &id).clone();
    let erased = format!("then it is erased; keep it with `labctl-ssh-proxy --local persist {id}`\n");
    let shown = world.local(&["lifetime", "Fresh"]).ok();
    assert!(shown.starts_with("8h in all, ") && shown.ends_with(&format!("left; {erased}")), "{shown}");
    let set = world.local(&["lifetime", "Fresh", "1h30m"]).ok();
    assert!(set.starts_with("Fresh has 1h30m in all, 1h29m left; "), "{set}");
    let json = world.json(&["lifetime", "Fresh", "120", "--json"]);
    assert_eq!((&json["lifetime"], json["expiresIn"].as_u64().unwrap() / 60), (&json!(7200), 119), "{json}");
    assert_eq!(world.json(&["lifetime", "Fresh", "--json"])["lifetime"], 7200);

    // A lifetime that would end it soon needs a yes; nothing is asked for before that.
    for time in ["1", "4m"] {
        let refused = world.local(&["lifetime", "Fresh", time]).failed(2);
        assert!(refused.contains("add --yes"), "{refused}");
        assert_eq!(listed()["lifetime"], 7200);
    }
    world.local(&["lifetime", "Fresh", "4m", "--yes"]).ok();
    assert_eq!(listed()["lifetime"], 240);
    // It is no shortening, so it needs none.
    world.local(&["lifetime", "Fresh", "5m"]).ok();
    assert_eq!(listed()["lifetime"], 300);
    let wrong = world.local(&["lifetime", "Fresh", "tomorrow"]).failed(2);
    assert!(wrong.contains("`tomorrow` is no time") && wrong.contains("until 18:00"), "{wrong}");
    let too_much = world.local(&["lifetime", "Fresh", "90000"]).failed(6);
    assert!(too_much.contains("at most 10080 minutes"), "{too_much}");

    world.local(&["persist", "Fresh"]).ok();
    world.local(&["stop", "Fresh"]).ok();
    let stopped = world.local(&["lifetime", "Fresh"]).ok();
    assert_eq!(stopped, "5m in all, and it does not run, because the playground is stopped\n");
    let refused = world.local(&["lifetime", "Fresh", "until", "18:00"]).failed(7);
    assert!(refused.contains(&format!("then run `labctl-ssh-proxy --local lifetime {id} until 18:00`")), "{refused}");
}

/// The judge of the local time is date(1), in zones with other offsets from UTC, one of them not of whole hours.
#[test]
fn a_time_of_day_is_the_next_one_on_the_clock_of_this_computer() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let left = || of(&world.json(&["list", "--json"]), &id)["expiresIn"].as_i64().unwrap();
    let in_zone = |zone: &str, args: &[&str]| world.output(world.command(args).env("TZ", zone)).ok();
    for (zone, hours) in [("Asia/Kolkata", 9), ("America/New_York", 23), ("UTC", 12), ("CET-1CEST,M3.5.0,M10.5.0/3", 3)]
    {
        let then = format!("+%H:%M --date=now+{hours}hours");
        let date = world.output(world.program("date").env("TZ", zone).args(then.split(' '))).ok();
        let until = format!("until {}", date.trim());
        let _ = in_zone(zone, &["--local", "lifetime", &id, &until]);
        // The clock shows whole minutes, and so is the time that the platform takes.
        let due = hours * 3600;
        assert!((due - 90..=due + 60).contains(&left()), "{zone} {until}: {} s", left());
        let before = left();
        let said = in_zone(zone, &["--local", "extend", &id, "until", date.trim()]);
        assert!(said.contains("runs for") && left() <= before, "it runs until then already: {said}");
    }
    let _ = in_zone("UTC0", &["--local", "extend", &id, "60"]);
    let ends = left();
    let date = world.output(world.program("date").env("TZ", "UTC").args(["+%H:%M", "--date=now+2hours"])).ok();
    let _ = in_zone("UTC", &["--local", "extend", &id, "until", date.trim()]);
    assert!(left() >= ends - 30, "it is never shortened: {ends} {}", left());
}

#[test]
fn a_list_is_filtered_and_shortened_to_ids() {
    let world = World::with_platform(&[]);
    let start = |args: &[&str]| {
        let play = world.json(&[&["start"], args, &["--no-wait", "--json"]].concat());
        play["id"].as_str().unwrap().to_owned()
    };
    let (duo, shell) = (start(&["duo"]), start(&["shell"]));
    let list = |args: &[&str]| world.local(&[&["list"], args].concat());
    assert_eq!(list(&["-q", "-f", "playground=duo"]).ok(), format!("{duo}\n"));
    let all = list(&["--quiet"]).ok();
    assert!(all.lines().count() == 2 && all.contains(&duo) && all.contains(&shell), "{all}");
    let json = world.json(&["list", "--json", "--filter", "Playground=shell"]);
    assert_eq!((json.as_array().unwrap().len(), &json[0]["id"]), (1, &json!(shell)));
    let table = list(&["-f", "playground=duo"]).ok();
    assert!(table.contains(&duo) && !table.contains(&shell), "{table}");
    world.local(&["destroy", &duo, "--yes"]).ok();
    assert_eq!(list(&["-qf", "playground=duo"]).ok(), "");
    assert_eq!(list(&["-aqf", "playground=duo"]).ok(), format!("{duo}\n"));
    let none = list(&["-f", "challenge=none"]);
    assert!(none.out.is_empty() && none.err.contains("No playground fits the filter."), "{none:?}");
    for wrong in [&["-f", "lesson=x"][..], &["-f", "x"], &["-q", "--json"], &["-q", "--watch"]] {
        list(wrong).failed(2);
    }
    // A watch has the same choice.
    let mut watch = world.command(&["--local", "list", "--watch", "--json", "-f", "playground=duo"]);
    let mut watch = crate::support::Ending(watch.stdout(std::process::Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(watch.0.stdout.take().unwrap()), &mut line).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["playgrounds"], json!([]));
}

#[test]
fn the_region_of_new_playgrounds_is_shown_and_chosen() {
    let world = World::with_platform(&[]);
    let region = |args: &[&str]| world.local(&[&["region"], args].concat());
    let none = region(&[]);
    assert!(none.out.is_empty() && none.err.contains("region eu"), "{none:?}");
    assert_eq!(world.json(&["region", "--json"]), json!({ "region": null }));
    for name in ["ap", "eu"] {
        assert_eq!(region(&[name]).ok(), format!("{name}\n"));
        let shown = world.json(&["region", "--json"]);
        crate::support::schema::check("region", &shown);
        assert_eq!(shown["region"], name);
        assert_eq!(world.json(&["whoami", "--json"])["preferredRegion"], name);
    }
    let wrong = region(&["moon"]).failed(2);
    assert!(wrong.contains("possible values: eu, ap"), "{wrong}");
}

/// Starts a fake embedded platform that answers only the check whether it is there. At the next request it is gone: it
/// has accepted the connection, or not.
fn ends_between(world: &World, takes: bool) -> std::thread::JoinHandle<()> {
    let folder = world.root().join("local");
    fs::create_dir_all(&folder).unwrap();
    for folder in [world.path(".iximiuz"), world.root(), folder.clone()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
    }
    let socket = folder.join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        let status = r#"{"pid":1,"since":"","version":"","socket":"","listen":null,"plays":0,"connections":1}"#;
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
            // This connection only checks whether a process listens.
            if line.is_empty() {
                continue;
            }
            if line.contains("/local/status") {
                if !takes {
                    fs::remove_file(&socket).unwrap();
                }
                let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", status.len());
                stream.write_all((head + status).as_bytes()).unwrap();
                if !takes {
                    return;
                }
                continue;
            }
            let _ = fs::remove_file(&socket);
            return;
        }
    })
}

#[test]
fn a_platform_that_ends_just_before_it_is_asked_is_started_again() {
    for takes in [false, true] {
        let world = World::empty();
        let ending = ends_between(&world, takes);
        let said = world.local(&["list", "--json"]);
        assert_eq!((said.code(), said.out.trim()), (0, "[]"), "{takes}: {said:?}");
        ending.join().unwrap();
        world.run(&["local", "stop"]).ok();
        // The same for a connection.
        let ending = ends_between(&world, takes);
        let mut connect = world.command(&["--local", "connect", "playground-0123456789abcdef01234567"]);
        let refused = world.held(&mut connect).failed(4);
        assert!(refused.contains("playground 0123456789abcdef01234567"), "{takes}: {refused}");
        ending.join().unwrap();
    }
}
