//! Manners of every command: no colour where none is wanted, nothing drawn without a screen, and no question that a
//! script would hang on. The commands are those of the command line itself, so that a new one is covered.

use std::process::{Command, Stdio};

use labctl_ssh_proxy::cli;

use crate::support::{
    PROGRAM, Said, World,
    labs::{Labs, PLAIN},
    needs,
};

const ESCAPE: char = '\x1b';

/// Returns the words of every command, with those of the commands that have commands of their own.
fn commands() -> Vec<Vec<String>> {
    fn below(command: &clap::Command, words: &[String], all: &mut Vec<Vec<String>>) {
        all.push(words.to_vec());
        for sub in command.get_subcommands() {
            below(sub, &[words, &[sub.get_name().to_owned()]].concat(), all);
        }
    }
    let mut all = Vec::new();
    let mut program = cli::command();
    program.build();
    below(&program, &[], &mut all);
    all.retain(|words| !words[..words.len().saturating_sub(1)].iter().any(|word| word == "help"));
    assert!(all.len() > 30, "{all:?}");
    all
}

/// Lines of every command that end by themselves: its help, one with a mistake, and one that works or names a playground
/// that does not exist.
fn lines() -> Vec<Vec<String>> {
    let mut program = cli::command();
    program.build();
    let mut lines = Vec::new();
    for words in commands() {
        let with = |more: &[&str]| words.iter().cloned().chain(more.iter().map(|word| (*word).to_owned())).collect();
        lines.push(with(&["--help"]));
        lines.push(with(&["--no-such-option"]));
        let found = words.iter().try_fold(&program, |command, word| command.find_subcommand(word)).unwrap();
        // These run until they are ended, or end the platform that the others need.
        let stays =
            matches!(&words.iter().map(String::as_str).collect::<Vec<_>>()[..], ["demo"] | ["local", "serve" | "stop"]);
        if !stays && !found.has_subcommands() {
            let needed = found.get_positionals().filter(|argument| argument.is_required_set()).count();
            lines.push(with(&vec!["nothing"; needed]));
        }
    }
    lines
}

/// Runs a line in a pseudo-terminal. Nothing is typed there.
fn in_terminal(world: &World, line: &[&str], variables: &[(&str, &str)]) -> Said {
    let words = line.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    needs("script");
    // A question would last for ever, and says so then.
    let mut script = world.program("timeout");
    script.args(["60", "script", "-qec", &format!("{PROGRAM} {words}"), "/dev/null"]).envs(variables.iter().copied());
    in_script(&mut script)
}

/// Runs a command whose terminal stays open until it ends, because the end of its input would be an answer.
fn in_script(command: &mut Command) -> Said {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let open = child.stdin.take();
    let said = Said::of(child.wait_with_output().unwrap());
    drop(open);
    said
}

fn both(said: &Said) -> String {
    format!("{}{}", said.out, said.err)
}

/// Returns true for text with a colour or another attribute of characters (SGR), as opposed to movements of the cursor.
fn is_painted(text: &str) -> bool {
    text.split(ESCAPE).skip(1).any(|rest| {
        let rest = rest.strip_prefix('[').unwrap_or(rest).trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        rest.starts_with('m')
    })
}

#[test]
fn nothing_is_painted_where_no_colour_is_wanted() {
    let world = World::with_platform(&[]);
    let local: &[&str] = &["--local", "--no-input"];
    for line in lines() {
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        let run = |before: &[&str], variables: &[(&str, &str)]| {
            both(&in_terminal(&world, &[local, before, &line].concat(), variables))
        };
        let unwanted = run(&[], &[("TERM", "xterm"), ("NO_COLOR", "1")]);
        assert!(!is_painted(&unwanted) && !unwanted.contains("[y/N]"), "{line:?}: {unwanted:?}");
        let dumb = run(&[], &[("TERM", "dumb"), ("CI", "true")]);
        assert!(!dumb.contains(ESCAPE), "{line:?}: {dumb:?}");
        let words = [local, &line].concat();
        let piped = both(&world.output(world.command(&words).envs([("TERM", "xterm"), ("CI", "true")])));
        assert!(!piped.contains(ESCAPE), "{line:?}: {piped:?}");
        if ["--help", "--no-such-option"].contains(line.last().unwrap()) && !line.contains(&"ssh") {
            let forbidden =
                world.command(&[&["--color", "never"], local, &line].concat()).env("CLICOLOR_FORCE", "1").output();
            assert!(!is_painted(&both(&Said::of(forbidden.unwrap()))), "{line:?}");
            let wanted = [&["--color=always"], local, &line].concat();
            let painted = both(&world.run(&wanted));
            assert!(is_painted(&painted) && !painted.contains("\x1b[?"), "{line:?}: {painted:?}");
        }
    }
}

#[test]
fn colour_follows_the_option_then_the_environment_then_the_terminal() {
    let world = World::empty();
    let help = ["stop", "--help"];
    let error = ["stop"];
    let lost = ["--home", "/dev/null/x", "whoami"];
    for line in [&help[..], &error, &lost] {
        let seen = |variables: &[(&str, &str)]| is_painted(&both(&in_terminal(&world, line, variables)));
        assert!(seen(&[("TERM", "xterm")]), "{line:?}");
        assert!(seen(&[("TERM", "xterm"), ("NO_COLOR", "")]), "an empty NO_COLOR counts as none");
        assert!(!seen(&[("TERM", "xterm"), ("NO_COLOR", "0")]) && !seen(&[("TERM", "dumb")]) && !seen(&[]), "{line:?}");
        let piped = |variables: &[(&str, &str)], before: &[&str]| {
            let words = [before, line].concat();
            is_painted(&both(&world.output(world.command(&words).envs(variables.iter().copied()))))
        };
        assert!(!piped(&[], &[]) && !piped(&[("CLICOLOR_FORCE", "0")], &[]), "{line:?}");
        assert!(piped(&[("CLICOLOR_FORCE", "1")], &[]) && piped(&[("NO_COLOR", "1")], &["--color", "always"]));
    }
    let wrong = world.run(&["--color", "loud", "list"]).failed(2);
    assert!(wrong.contains("auto, always, never"), "{wrong}");
}

#[test]
fn the_colour_of_another_programs_words_is_its_own() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let said = world.local(&["ssh", &id, "echo", "--color", "never"]).ok();
    assert_eq!(said, "--color never\n");
    assert_eq!(world.local(&["ssh", "--color=never", &id, "--", "echo", "--color=loud"]).ok(), "--color=loud\n");
    assert_eq!(world.local(&["kube", &id, "--", "echo", "--no-input"]).code(), 4, "there is no Kubernetes in it");
}

#[test]
fn no_command_asks_when_it_may_not_or_cannot() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let stranger = World::empty();
    let labs = Labs::start(&stranger, PLAIN);
    // The command, its exit code, and the words of the hint.
    let rows: [(&World, &[&str], i32, &str); 8] = [
        (&world, &["--local", "destroy", &id], 2, "add --yes"),
        (&world, &["--local", "config-ssh", "--remove"], 2, "add --yes, or --dry-run"),
        (&world, &["--local", "expose", &id, "8080", "--public"], 2, "add --yes"),
        (&world, &["--local", "uninstall"], 2, "add --yes, or --dry-run"),
        (&stranger, &["start", "by-mallory"], 6, "add --consent"),
        (&stranger, &["ssh", "playground-by-mallory"], 6, "add --consent"),
        (&stranger, &["login"], 2, "--from-env, or with --stdin"),
        (&stranger, &["login", "--stdin"], 2, "standard input"),
    ];
    for (world, line, code, hint) in rows {
        // A browser is no question, so that a login without a terminal waits for it.
        if line != ["login"] {
            let said = world.run(line).failed(code);
            assert!(said.contains(hint) && !said.contains("[y/N]"), "{line:?}: {said}");
        }
        for (option, variables) in [(&["--no-input"][..], &[][..]), (&[], &[("LABCTL_SSH_PROXY_NO_INPUT", "1")])] {
            let said = in_terminal(world, &[option, line].concat(), &[variables, &[("TERM", "xterm")]].concat());
            let text = both(&said);
            let hint = if hint == "standard input" { "--from-env" } else { hint };
            assert!(said.code() == code && text.contains(hint) && !text.contains("[y/N]"), "{line:?}: {said:?}");
        }
    }
    assert!(!labs.seen().iter().any(|seen| seen.line.starts_with("POST")), "nothing was asked for");
    // Without the option, a person in a terminal is asked.
    let asked = world
        .program("timeout")
        .args(["5", "script", "-qec"])
        .arg(format!("{PROGRAM} --local destroy {id}"))
        .arg("/dev/null")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&asked.stdout).contains("[y/N]"), "{asked:?}");
}

#[test]
fn a_connection_asks_nothing_in_batch_mode() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    world.local(&["stop", &id]).ok();
    let host = format!("playground-{id}");
    let config = world.ssh_config();
    let ssh = |options: &str, variables: &[(&str, &str)]| {
        let mut script = world.program(needs("script"));
        let line = format!("ssh -F {} {options} {host} true", config.display());
        in_script(script.args(["-qec", &line, "/dev/null"]).envs(variables.iter().copied()))
    };
    for (options, variables) in
        [("-oBatchMode=yes", &[][..]), ("-o 'BatchMode yes'", &[]), ("", &[("LABCTL_SSH_PROXY_NO_INPUT", "1")])]
    {
        let said = ssh(options, variables);
        let text = both(&said);
        assert!(said.code() == 255 && text.contains("was stopped on purpose"), "{said:?}");
        assert!(!text.contains("[y/N]"), "{said:?}");
    }
    assert_eq!(world.state(&id), "STOPPED");
}
