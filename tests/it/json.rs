//! The output of `--json`, checked against the schema: each command's result, and each kind of failure.

use serde_json::Value;

use crate::support::{Said, World, schema};

/// Returns the failure that a command printed, which is the last line of its standard output.
#[track_caller]
fn failure(said: &Said) -> Value {
    assert!(!said.status.success(), "{said:?}");
    let line = said.out.lines().last().unwrap_or_else(|| panic!("nothing on standard output: {said:?}"));
    let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {said:?}"));
    schema::check("failure", &value);
    value["error"].clone()
}

#[test]
fn a_playgrounds_life_in_json() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("duo");
    let state = |args: &[&str]| {
        let play = world.json(args);
        schema::check("playground", &play);
        assert_eq!(play["id"], id, "{args:?}");
        play["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(state(&["rename", &id, "A box", "--json"]), "RUNNING");
    assert_eq!(state(&["extend", &id, "60", "--json"]), "RUNNING");
    assert_eq!(state(&["lifetime", &id, "9h", "--json"]), "RUNNING");
    assert_eq!(state(&["lifetime", &id, "--json"]), "RUNNING");
    assert_eq!(state(&["persist", &id, "--json"]), "RUNNING");
    assert_eq!(state(&["wait", &id, "--json"]), "RUNNING");
    for action in ["reboot", "stop", "restart"] {
        assert_eq!(state(&["machine", action, &id, "node-02", "--json"]), "RUNNING");
    }
    assert_eq!(state(&["stop", &id, "--json"]), "STOPPED");
    assert_eq!(state(&["restart", &id, "--json"]), "RUNNING");
    let command = world.json(&["open", "code", &id, "--print", "--json"]);
    schema::check("openCommand", &command);
    assert_eq!(command["command"][0], "code");
    let context = world.json(&["kube", &id, "--remove", "--json"]);
    schema::check("removedContext", &context);
    assert_eq!(context["file"], Value::Null);
    schema::check("removedForwards", &world.json(&["port-forward", &id, "--remove", "all", "--json"]));
    let erased = world.json(&["destroy", &id, "--yes", "--json"]);
    schema::check("erased", &erased);
    assert_eq!(erased["title"], "A box");
    let stopped = world.json(&["local", "stop", "--json"]);
    schema::check("localStop", &stopped);
    assert_eq!(stopped["stopped"], true);
    assert_eq!(world.json(&["local", "stop", "--json"])["stopped"], false);
    assert_eq!(serde_json::from_str::<Value>(&world.run(&["logout", "--json"]).ok()).unwrap()["loggedOut"], false);
}

#[test]
fn changes_of_the_users_files_in_json() {
    let world = World::with_platform(&[]);
    let asked = world.run(&["--local", "config-ssh", "--json"]);
    assert_eq!((failure(&asked)["kind"].as_str(), asked.code()), (Some("usage"), 2));
    assert!(!world.ssh_config().exists());
    for command in ["config-ssh", "config-zed"] {
        let run = |option| {
            let value = world.json(&[command, option, "--json"]);
            schema::check("configured", &value);
            value
        };
        let planned = run("--dry-run");
        assert!(
            planned["written"] == false && planned["files"][0]["diff"].as_str().unwrap().contains("+++"),
            "{planned}"
        );
        let done = run("--yes");
        assert_eq!((&done["written"], &done["files"]), (&true.into(), &planned["files"]), "{command}");
        let again = run("--yes");
        assert!(again["written"] == false && again["files"][0]["diff"] == "", "{again}");
    }
    let uninstall = |option| {
        let value = world.json(&["uninstall", option, "--json"]);
        schema::check("uninstalled", &value);
        value
    };
    let planned = uninstall("--dry-run");
    assert_eq!(planned["done"], false);
    let done = uninstall("--yes");
    assert_eq!((&done["done"], &done["items"]), (&true.into(), &planned["items"]));
    assert!(!world.ssh_config().exists());
}

#[test]
fn a_failure_is_a_line_of_json_with_the_name_of_its_kind() {
    let world = World::with_platform(&[]);
    let id = "0123456789abcdef01234567";
    let label = |args: &[&str]| args.join(" ");
    for (args, kind, code) in [
        (&["list", "--json"][..], "not-logged-in", 3),
        (&["login", "--stdin", "--json"], "usage", 2),
        (&["--local", "stop", id, "--json"], "not-found", 4),
        (&["--local", "tasks", id, "--json"], "not-found", 4),
        (&["--local", "containers", id, "--json"], "not-found", 4),
        (&["--local", "containers", id, "--watch", "--json"], "not-found", 4),
        (&["--local", "start", "nothing", "--json"], "not-found", 4),
        (&["--local", "open", "code", id, "--json"], "program", 14),
        (&["--local", "open", "vi", id, "--json"], "usage", 2),
        (&["--local", "port-forward", id, "-L", "80:80", "--json"], "not-found", 4),
        (&["--local", "kube", id, "--json"], "not-found", 4),
        (&["--local", "stop", "--json"], "usage", 2),
        (&["--local", "extend", id, "soon", "--json"], "usage", 2),
        (&["--json", "no-such-command"], "usage", 2),
        (&["local", "serve", "--init-task", "x", "--json"], "usage", 2),
    ] {
        let said = world.run(args);
        assert_eq!(said.code(), code, "{}: {said:?}", label(args));
        let error = failure(&said);
        assert_eq!(error["kind"], kind, "{}: {error}", label(args));
        let message = error["message"].as_str().unwrap();
        assert!(!message.contains('\n') && !message.starts_with("error"), "{}: {message}", label(args));
        // The same message for people is on standard error.
        assert!(said.err.starts_with("labctl-ssh-proxy: ") || said.err.starts_with("error: "), "{said:?}");
    }
    // The standard output of these commands belongs to another program or format.
    for args in [&["connect", "--json"][..], &["ssh", "--json"], &["completions", "--json"], &["man", "--json"]] {
        let said = world.run(args);
        assert!(said.code() == 2 && said.out.is_empty(), "{args:?}: {said:?}");
    }
}

#[test]
fn without_a_command_there_is_help_on_standard_output() {
    let world = World::empty();
    let help = world.run(&["-h"]).ok();
    for args in [&[][..], &["--local"]] {
        let said = world.run(args);
        assert!(said.err.is_empty(), "{said:?}");
        assert_eq!(said.ok(), help, "{args:?}");
    }
    assert!(world.run(&["local"]).ok().contains("serve"));
}
