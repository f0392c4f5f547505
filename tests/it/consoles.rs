//! The words of machines: consoles and journals, in a pipe, in a terminal and as JSON; and the end of those that are
//! followed.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::support::{
    Ending, PROGRAM, World, eventually,
    labs::{ID, Labs, PLAIN},
    needs, schema,
};

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Follows a machine's words into a file.
fn following(world: &World, args: &[&str], to: &str) -> (Ending, impl Fn() -> String + use<>) {
    let path = world.path(to);
    let mut command = world.command(&["--local", "machine"]);
    command.args(args).stdout(fs::File::create(&path).unwrap()).stderr(fs::File::create(world.path("said")).unwrap());
    (Ending(command.spawn().unwrap()), move || fs::read_to_string(&path).unwrap())
}

#[test]
fn the_newest_boots_console_is_printed_and_the_others_by_name() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("duo");
    let console = |args: &[&str]| world.local(&[&["machine", "console", &id, "node-02"], args].concat());
    let first = console(&[]).ok();
    assert!(
        first.lines().next().unwrap().ends_with(" starting") && first.contains("its SSH server answers"),
        "{first}"
    );
    world.local(&["machine", "reboot", &id, "node-02"]).ok();
    let second = console(&[]).ok();
    assert!(second.contains("starting") && !second.contains("rebooting"), "{second}");
    assert!(console(&["--boot", "boot-1"]).ok().starts_with(&first), "the first boot's text goes on to its end");
    assert_eq!(console(&["--list"]).ok(), "boot-1\nboot-2\n");
    let unknown = console(&["--boot", "boot-9"]).failed(4);
    assert!(unknown.contains("has no boot boot-9") && unknown.contains("boot-1, boot-2"), "{unknown}");
    console(&["--list", "--follow"]).failed(2);

    let value: Value = serde_json::from_str(&console(&["--json"]).ok()).unwrap();
    schema::check("console", &value);
    assert_eq!((&value["boot"], &value["content"]), (&json!("boot-2"), &json!(second)));
    let value: Value = serde_json::from_str(&console(&["--list", "--json"]).ok()).unwrap();
    schema::check("consoles", &value);
    assert_eq!(value["boots"], json!(["boot-1", "boot-2"]));
    // The words of a machine last as long as the platform's process.
    world.stop_platform();
    world.serve(&[]);
    let none = world.local(&["machine", "console", &id, "node-02"]).failed(4);
    assert!(none.contains("has no console yet"), "{none}");
    assert_eq!(world.local(&["machine", "console", &id, "node-02", "--list"]).ok(), "");
}

#[test]
fn a_console_is_followed_through_reboots_until_the_machine_ends() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("duo");
    let (mut follower, seen) = following(&world, &["console", &id, "node-02", "-f"], "console");
    eventually("the first boot is shown", || seen().contains("its SSH server answers"));
    world.local(&["machine", "reboot", &id, "node-02"]).ok();
    crate::support::within(std::time::Duration::from_secs(40), "the second boot is shown", &mut || {
        seen().matches("its SSH server answers").count() == 2
    });
    assert!(fs::read_to_string(world.path("said")).unwrap().contains("machine node-02 has booted again"));
    world.local(&["machine", "stop", &id, "node-02"]).ok();
    assert!(follower.0.wait().unwrap().success(), "it ends with the machine");
    let seen = seen();
    let boots: Vec<String> = ["boot-1", "boot-2"]
        .iter()
        .map(|boot| world.local(&["machine", "console", &id, "node-02", "--boot", boot]).ok())
        .collect();
    assert_eq!(seen, boots.concat(), "each word once");
}

#[test]
fn a_journal_is_followed_to_the_end_of_its_playground_and_ends_by_itself_without_follow() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let past = world.local(&["machine", "journal", &id]).ok();
    assert!(past.contains("its SSH server answers"), "{past}");
    assert_eq!(
        world.local(&["machine", "journal", &id, "-n", "1"]).ok(),
        format!("{}\n", past.lines().last().unwrap())
    );
    let as_json = lines(&world.local(&["machine", "journal", &id, "--json"]).ok());
    as_json.iter().for_each(|line| schema::check("journalLine", line));
    assert_eq!(
        as_json.iter().map(|line| line["line"].as_str().unwrap()).collect::<Vec<_>>(),
        past.lines().collect::<Vec<_>>()
    );
    let unit = world.local(&["machine", "journal", &id, "-u", "ssh"]).failed(6);
    assert!(unit.contains("no systemd"), "{unit}");
    world.local(&["machine", "journal", &id, "-n", "0"]).failed(2);

    let (mut follower, seen) = following(&world, &["journal", &id, "--follow"], "journal");
    eventually("past lines", || seen().contains("its SSH server answers"));
    world.local(&["machine", "reboot", &id]).ok();
    eventually("the lines of a reboot", || seen().matches("its SSH server answers").count() == 2);
    let (mut cut_off, also) = following(&world, &["journal", &id, "--follow", "--json"], "lines");
    eventually("past lines", || also().contains("its SSH server answers"));
    world.local(&["stop", &id]).ok();
    for follower in [&mut follower, &mut cut_off] {
        assert!(follower.0.wait().unwrap().success(), "it ends with the playground");
    }
    assert!(seen().ends_with("stopped\n"), "{}", seen());
    assert!(lines(&also()).last().unwrap()["line"].as_str().unwrap().ends_with("stopped"));
}

#[test]
fn a_stream_that_is_cut_off_says_so_and_one_without_a_reader_ends() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let follow = |what: &str| -> (Child, BufReader<std::process::ChildStdout>) {
        let mut command = world.command(&["--local", "machine", what, &id, "-f"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        assert!(output.read_line(&mut String::new()).unwrap() > 0);
        (child, output)
    };
    for what in ["console", "journal"] {
        let (mut child, output) = follow(what);
        drop(output);
        assert!(child.wait().unwrap().success(), "{what} | head");
        let (mut child, output) = follow(what);
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(130), "{what}");
        drop(output);
    }
    let (child, _output) = follow("journal");
    world.kill_platform();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(10), "{said}");
    assert!(
        said.contains("the journal of machine shell-01 of playground shell-") && said.contains("was cut off"),
        "{said}"
    );
}

/// A machine may write anything to its console. Its bytes are for the reader of a pipe, and not for the terminal.
#[test]
fn a_console_does_not_drive_the_terminal() {
    let world = World::empty();
    let labs = Labs::start(&world, PLAIN);
    let hostile = "\x1b[32m[ OK ]\x1b[0m up\r\n\x1b]0;title\x07\x1b[2J\x1b[6n\x1b]52;c;ZXZpbA==\x07\u{9b}1;1Hbehind\n";
    let answer = json!({ "consoles": ["boot-1"], "content": hostile }).to_string();
    labs.instead(&format!("POST /api/plays/{ID}/actions"), 200, &answer);
    let line = ["machine", "console", ID];
    assert_eq!(world.run(&line).ok(), hostile);
    let in_terminal = |options: &str, term: &str| {
        let mut script = world.program(needs("script"));
        script.args(["-qec", &format!("{PROGRAM} {options} {}", line.join(" ")), "/dev/null"]).env("TERM", term);
        world.output(&mut script).ok()
    };
    assert_eq!(in_terminal("", "xterm"), "\x1b[32m[ OK ]\x1b[0m up\r\nbehind\r\n\x1b[0m");
    for (options, term) in [("--color never", "xterm"), ("", "dumb")] {
        assert_eq!(in_terminal(options, term), "[ OK ] up\r\nbehind\r\n", "{options} {term}");
    }
    let said = world.run(&["doctor", ID, "--json"]);
    assert!(!said.out.contains("\\u001b"), "{said:?}");
}
