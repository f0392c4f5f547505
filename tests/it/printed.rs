//! The output of commands, word for word: help texts, tables, and progress without a terminal.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
};

use expect_test::expect_file;
use serde_json::json;

use crate::support::{
    World,
    labs::{ID, Labs, PLAIN, play},
    needs,
    transcript::Transcript,
};

#[test]
fn nothing_and_the_catalogue() {
    let world = World::with_platform(&[]);
    let mut transcript = Transcript::new(&world);
    for args in [&["list"][..], &["list", "--json"], &["catalog"], &["catalog", "--json"]] {
        transcript.run(&[&["--local"], args].concat());
    }
    transcript.is(expect_file!["../golden/printed/catalog"]);
}

#[test]
fn playgrounds_in_every_state() {
    let world = World::empty();
    let labs = Labs::start(&world, PLAIN);
    let states = ["STARTING", "WARMED_UP", "STOPPING", "STOPPED", "FAILED", "DESTROYED"];
    for (n, state) in states.into_iter().enumerate() {
        let id = format!("{:024x}", n + 1);
        labs.add(play(&id, &format!("One that is {}", state.to_lowercase()), "k3s", state));
        labs.edit(&id, |play| play["createdAt"] = json!(format!("2026-11-22T11:{:02}:00Z", 50 - n)));
    }
    labs.edit(ID, |play| {
        play["persistent"] = json!(true);
        play["expiresIn"] = json!(59_000);
        play["tasks"] = json!({ "install": { "name": "install", "init": true, "status": 40 },
            "solve": { "name": "solve", "init": false, "status": 20 } });
    });
    let mut transcript = Transcript::new(&world);
    for args in [&["list"][..], &["list", "--all"], &["list", "--json"]] {
        transcript.run(args);
    }
    transcript.is(expect_file!["../golden/printed/list"]);
}

#[test]
fn a_start() {
    let world = World::with_platform(&["--state-delay", "1ms"]);
    let mut transcript = Transcript::new(&world);
    for args in [
        &["start", "shell"][..],
        &["start", "shell", "--title", "Another one", "--json"],
        &["start", "Another one"],
        &["stop", "Another one"],
        &["start", "Another one"],
        // One of its init tasks fails.
        &["start", "broken"],
        &["start", "nothing"],
    ] {
        transcript.run(&[&["--local"], args].concat());
    }
    transcript.is(expect_file!["../golden/printed/start"]);
}

#[test]
fn a_doctor_who_is_content_and_one_who_is_not() {
    let mut world = World::with_platform(&[]);
    world.playground("shell");
    // A PATH without editors, regardless of the editors on this computer.
    let bin = world.path("bin");
    fs::create_dir(&bin).unwrap();
    for name in ["ssh", "ssh-keygen", "sh"] {
        symlink(needs(name), bin.join(name)).unwrap();
    }
    let mut transcript = Transcript::new(&world);
    let run = |transcript: &mut Transcript, args: &[&str]| {
        let said = world.output(world.command(args).env("PATH", &bin));
        transcript.note(args, &said);
    };
    run(&mut transcript, &["--local", "doctor"]);
    run(&mut transcript, &["--local", "doctor", "--json"]);
    // Without an account, and with a folder that others can read.
    fs::set_permissions(world.root(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_file(world.ssh_config()).unwrap();
    run(&mut transcript, &["doctor"]);
    transcript.is(expect_file!["../golden/printed/doctor"]);
}

#[test]
fn ports_that_listen_are_exposed_and_saved() {
    let world = World::empty();
    let labs = Labs::start(&world, PLAIN);
    labs.listens_on(&[22, 8080, 3000]);
    labs.save_forwards(json!([{ "kind": "local", "machine": "docker-01", "localPort": 8080, "remotePort": 8080 }]));
    let mut transcript = Transcript::new(&world);
    for args in [
        &["expose", ID, "8080"][..],
        &["expose", ID, "8080", "--json"],
        &["expose", ID, "8080", "--tls", "--public"],
        &["expose", ID, "9090", "--public", "--yes"],
        &["expose", ID, "--shell", "--user", "root"],
        &["expose", ID, "--shell", "--public"],
        &["expose", ID],
        &["ports", ID],
        &["ports", ID, "--json"],
        &["unexpose", ID, "9090"],
        &["unexpose", ID, "9090"],
        &["unexpose", ID, "shells-1"],
    ] {
        transcript.run(args);
    }
    // A part that fails costs its own column.
    labs.instead(&format!("POST /api/plays/{ID}/ports/scan"), 500, "out of order");
    labs.instead(&format!("GET /api/plays/{ID}/shells"), 403, "no web terminals for you");
    transcript.run(&["ports", ID]);
    labs.instead(&format!("GET /api/plays/{ID}/port"), 500, "out of order");
    transcript.run(&["ports", ID]);
    transcript.is(expect_file!["../golden/printed/ports"]);
}

/// Returns the commands that a help text lists.
fn commands(help: &str) -> Vec<&str> {
    let listed = help.split("\nOptions:").next().unwrap_or_default().lines();
    // Longer descriptions continue further to the right.
    let names = listed.filter_map(|line| line.strip_prefix("  ")?.split([' ', ',']).next());
    // Arguments are listed, too.
    names.filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase())).collect()
}

/// The help of the program and of every command that it lists, each below the one that lists it.
#[test]
fn the_help_of_every_command() {
    let world = World::empty();
    let mut transcript = Transcript::new(&world);
    // A command that is not listed, because only ssh runs it.
    let mut left = vec![vec!["connect".to_owned()], Vec::new()];
    let mut count = 0;
    while let Some(command) = left.pop() {
        let help = |option: &str| world.output(world.command(&[]).args(&command).arg(option).env("COLUMNS", "80"));
        let (short, long) = (help("-h"), help("--help"));
        let args: Vec<&str> = command.iter().map(String::as_str).collect();
        if short.out != long.out {
            transcript.note(&[&args[..], &["-h"]].concat(), &short);
        }
        transcript.note(&[&args[..], &["--help"]].concat(), &long);
        for name in commands(&long.out).into_iter().rev().filter(|name| *name != "help") {
            left.push([&command[..], &[name.to_owned()]].concat());
        }
        count += 1;
    }
    assert!(count > 20, "{count} commands");
    transcript.is(expect_file!["../golden/printed/help"]);
}
