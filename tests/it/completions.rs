//! `completions` in real shells, and `man` in the real man.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crate::support::{PROGRAM, World, at_best, needs, not_run};

/// The folder of the program, for PATH: the scripts find it there.
fn bin() -> &'static str {
    Path::new(PROGRAM).parent().unwrap().to_str().unwrap()
}

/// Returns bash's completions for a line, with the real script.
pub fn bash(world: &World, line: &str) -> Vec<String> {
    let script = format!(
        "PATH={}:$PATH
         source <(labctl-ssh-proxy completions bash)
         COMP_WORDS=({line}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
         COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; COMP_TYPE=9
         _clap_complete_labctl_ssh_proxy labctl-ssh-proxy \"${{COMP_WORDS[COMP_CWORD]}}\" x
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        bin()
    );
    let said = world.output(world.program(needs("bash")).args(["-c", &script])).ok();
    said.lines().map(|line| line.trim().to_owned()).collect()
}

pub fn fish(world: &World, line: &str) -> Vec<String> {
    let script =
        format!("set -x PATH {} $PATH; labctl-ssh-proxy completions fish | source; complete -C '{line}'", bin());
    let said = world.output(world.program(needs("fish")).args(["--no-config", "-c", &script])).ok();
    said.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

/// Returns the completions that zsh's own functions would get, with the real script.
fn zsh(world: &World, line: &str) -> Vec<String> {
    let script = format!(
        "PATH={}:$PATH
         compdef() {{}}; _describe() {{ print -rl -- \"${{(@P)@[-1]}}\" }}
         source <(labctl-ssh-proxy completions zsh)
         words=({line} ''); CURRENT=$#words
         _clap_dynamic_completer_labctl_ssh_proxy",
        bin()
    );
    let said = world.output(world.program(needs("zsh")).args(["-f", "-c", &script])).ok();
    said.lines().map(|line| line.split(':').next().unwrap().to_owned()).filter(|word| !word.starts_with('-')).collect()
}

const SHELLS: [fn(&World, &str) -> Vec<String>; 3] = [bash, zsh, fish];

#[test]
fn the_line_tells_whose_names_are_meant() {
    let world = World::with_platform(&[]);
    let start = |name: &str| world.json(&["start", name, "--json"])["id"].as_str().unwrap().to_owned();
    let (duo, shell) = (start("duo"), start("shell"));
    // Another world, in a folder of our files that was moved.
    let moved = world.path("moved");
    let moved = moved.to_str().unwrap();
    let there = world.run(&["--home", moved, "--local", "start", "shell", "--json"]).ok();
    let there: serde_json::Value = serde_json::from_str(&there).unwrap();
    let there = format!("playground-{}", there["id"].as_str().unwrap());
    for (i, complete) in SHELLS.iter().enumerate() {
        for home in [format!("--home {moved}"), format!("--home={moved}"), "--home ~/moved".into()] {
            // zsh passes an empty word at the cursor.
            let line = format!("labctl-ssh-proxy {home} --local stop ");
            let line = if i == 1 { line } else { line + "playground-" };
            assert_eq!(complete(&world, &line), [there.as_str()], "{i}: {line}");
        }
        let line = |play: &str| format!("labctl-ssh-proxy --local kube {play} -m ");
        let of = |play: &str| -> Vec<String> {
            let line = if i == 0 { line(play) + "\"\"" } else { line(play) };
            complete(&world, &line).into_iter().filter(|word| !word.starts_with('-')).collect()
        };
        assert_eq!(of(&duo), ["node-01", "node-02"], "{i}");
        assert_eq!(of(&format!("playground-{shell}")), ["shell-01"], "{i}");
        assert_eq!(of("x"), ["node-01", "node-02", "shell-01"], "{i}");
    }
    world.run(&["--home", moved, "local", "stop"]).ok();
}

#[test]
fn shells_complete_what_there_is() {
    let world = World::with_platform(&[]);
    let id = world.json(&["start", "duo", "--json"])["id"].as_str().unwrap().to_owned();
    let host = format!("playground-{id}");
    world.local(&["catalog"]).ok();
    assert_eq!(bash(&world, "labctl-ssh-proxy --local stop playground-"), [host.as_str()]);
    let hosts = bash(&world, "labctl-ssh-proxy --local ssh playground-");
    for wanted in [&host, &format!("{host}.node-01"), &format!("{host}.node-02"), "playground-shell"] {
        assert!(hosts.iter().any(|host| host == wanted), "{wanted} not in {hosts:?}");
    }
    assert_eq!(
        fish(&world, &format!("labctl-ssh-proxy --local ssh {host}.node-0")),
        [format!("{host}.node-01"), format!("{host}.node-02")]
    );
    assert_eq!(fish(&world, "labctl-ssh-proxy --local start sh"), ["shell"]);
    assert_eq!(fish(&world, "labctl-ssh-proxy open rust"), ["rustrover"]);
    assert_eq!(fish(&world, "labctl-ssh-proxy --local port-forward x -m node-0"), ["node-01", "node-02"]);
    assert_eq!(fish(&world, "labctl-ssh-proxy --local list -f playground=du"), ["playground=duo"]);
    assert_eq!(fish(&world, "labctl-ssh-proxy --local region a"), ["ap"]);
    let machines = fish(&world, &format!("labctl-ssh-proxy --local machine reboot {id} node-0"));
    assert_eq!(machines, ["node-01", "node-02"]);
    world.local(&["expose", &id, "18080", "--machine", "node-02"]).ok();
    for complete in [bash, fish] {
        assert_eq!(complete(&world, &format!("labctl-ssh-proxy --local unexpose {id} 1")), ["18080"]);
    }
    assert!(bash(&world, "labctl-ssh-proxy conf").contains(&"config-ssh".to_owned()));
    // The machines of a name, and titles as far as they are begun.
    let of_name = ["playground-duo", "playground-duo.node-01", "playground-duo.node-02"];
    for complete in [bash, fish] {
        assert_eq!(complete(&world, "labctl-ssh-proxy --local ssh playground-duo"), of_name);
    }
    let hidden = fish(&world, "labctl-ssh-proxy --local ssh playground-verified");
    assert_eq!(hidden, ["playground-verified"], "a machine without SSH is left out");
    world.local(&["rename", &id, "It's two"]).ok();
    world.local(&["list"]).ok();
    for command in ["ssh", "stop", "kube"] {
        // The readable name, and the title that has made it; `ssh` takes a machine behind the name.
        let mut named = vec!["it-s-two", "it-s-two.node-01", "it-s-two.node-02", "It\\'s\\ two"];
        named.retain(|word| command == "ssh" || !word.contains('.'));
        assert_eq!(bash(&world, &format!("labctl-ssh-proxy --local {command} it")), named, "{command}");
        assert_eq!(fish(&world, &format!("labctl-ssh-proxy --local {command} It")), ["It's two"], "{command}");
    }
    // An erased playground is no longer offered.
    world.local(&["destroy", &id, "--yes"]).ok();
    assert_eq!(fish(&world, "labctl-ssh-proxy --local stop playground-"), Vec::<String>::new());
}

#[test]
fn the_copy_answers_without_the_platform_and_a_missing_one_is_asked_for() {
    let mut world = World::with_platform(&[]);
    let id = world.json(&["start", "shell", "--json"])["id"].as_str().unwrap().to_owned();
    let host = format!("playground-{id}");
    fs::remove_file(world.root().join("names.local.json")).unwrap();
    assert_eq!(fish(&world, "labctl-ssh-proxy --local stop playground-"), [host.as_str()], "asked for");
    assert_eq!(
        fish(&world, "labctl-ssh-proxy --local ssh playground-duo.node-01"),
        ["playground-duo.node-01"],
        "the catalogue is asked for, too"
    );
    world.stop_platform();
    at_best(Duration::from_secs(2), "it is remembered", || {
        let began = Instant::now();
        assert_eq!(fish(&world, "labctl-ssh-proxy --local stop playground-"), [host.as_str()], "remembered");
        began.elapsed()
    });
    assert!(world.processes("local serve").is_empty(), "nothing is started for a completion");
    // With no copy and no platform to ask, there is no error on the line.
    fs::remove_file(world.root().join("names.local.json")).unwrap();
    assert_eq!(fish(&world, "labctl-ssh-proxy --local stop playground-"), Vec::<String>::new());
    assert_eq!(fish(&world, "labctl-ssh-proxy stop playground-"), Vec::<String>::new());
    // A damaged copy counts as none.
    fs::write(world.root().join("names.local.json"), "{").unwrap();
    assert_eq!(fish(&world, "labctl-ssh-proxy --local stop playground-"), Vec::<String>::new());
}

#[test]
fn every_script_is_one_that_its_shell_reads() {
    let world = World::empty();
    for shell in ["bash", "zsh", "fish"] {
        let file = world.home().join("script");
        fs::write(&file, world.run(&["completions", shell]).ok()).unwrap();
        let said = world.output(world.program(needs(shell)).arg("-n").arg(&file));
        assert_eq!((said.code(), said.err.as_str()), (0, ""), "{shell}");
    }
    for shell in ["elvish", "powershell"] {
        assert!(world.run(&["completions", shell]).ok().contains("labctl-ssh-proxy"));
    }
    assert!(world.run(&["completions", "tcsh"]).failed(2).contains("zsh"));
}

/// The scripts as packages install them: each shell finds the file by the command's name, and loads it when Tab is
/// pressed for the first time.
#[test]
fn installed_scripts_are_loaded_by_the_shell_itself() {
    let world = World::with_platform(&[]);
    let install = |shell: &str, file: &str| {
        let path = world.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let script = world.run(&["completions", shell]).ok();
        assert!(!script.contains(bin()) && !script.contains("/debug"), "{script}");
        fs::write(path, script).unwrap();
    };
    install("bash", "share/bash-completion/completions/labctl-ssh-proxy");
    install("zsh", "share/zsh/vendor-completions/_labctl-ssh-proxy");
    install("fish", "share/fish/vendor_completions.d/labctl-ssh-proxy.fish");
    for shell in ["elvish", "powershell"] {
        assert!(!world.run(&["completions", shell]).ok().contains(bin()), "{shell}");
    }
    let share = world.path("share");
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", bin());
    let with = |shell: &str| {
        let mut command = world.program(needs(shell));
        command.env("PATH", &path).env("XDG_DATA_DIRS", &share).env("TERM", "dumb");
        command
    };

    let loader = Path::new("/usr/share/bash-completion/bash_completion");
    if loader.exists() {
        let script = format!(
            "source {}
             _completion_loader labctl-ssh-proxy; [ $? = 124 ] && complete -p labctl-ssh-proxy
             COMP_WORDS=(labctl-ssh-proxy start sh); COMP_CWORD=2; COMP_TYPE=9
             _clap_complete_labctl_ssh_proxy labctl-ssh-proxy sh start; echo \"${{COMPREPLY[@]}}\"",
            loader.display()
        );
        let said = world.output(with("bash").env("LABCTL_SSH_PROXY_LOCAL", "1").args(["--norc", "-c", &script]));
        assert!(said.out.contains("-F _clap_complete") && said.out.ends_with("shell\n"), "{said:?}");
    } else {
        not_run("bash-completion is not installed");
    }

    let said = world.output(
        with("fish").env("LABCTL_SSH_PROXY_LOCAL", "1").args(["-c", "complete -C 'labctl-ssh-proxy start sh'"]),
    );
    assert!(said.out.lines().any(|line| line.starts_with("shell")), "{said:?}");

    // zsh completes in its line editor only, so it gets a terminal, in which Tab is pressed.
    let script = format!(
        "zmodload zsh/zpty; zpty z PATH={path} LABCTL_SSH_PROXY_LOCAL=1 TERM=dumb zsh -f -i
         zpty -w z 'PS1=; fpath=({}/zsh/vendor-completions $fpath); autoload -Uz compinit; compinit -u -D; echo rea''dy'
         zpty -r z line '*ready*'
         zpty -n -w z $'labctl-ssh-proxy start she\t'
         zpty -r z line '*start shell*' && print -r -- \"$line\"",
        share.display()
    );
    let said = world.output(with("timeout").args(["60", "zsh", "-f", "-c", &script]));
    assert!(said.out.contains("start shell"), "{said:?}");
}

/// Renders a page with the real groff, which warns of every mistake.
fn rendered(world: &World, page: &[u8]) -> String {
    let out = world.feed(world.program(needs("groff")).args(["-man", "-Tascii", "-ww", "-P-cbou"]), page);
    assert_eq!(String::from_utf8_lossy(&out.stderr), "");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn the_manual_is_read_without_complaint() {
    let world = World::empty();
    let text = rendered(&world, world.run(&["man"]).ok().as_bytes());
    assert!(text.contains("EXIT STATUS") && text.contains("LABCTL-SSH-PROXY OPEN"), "{text}");
}

#[test]
fn zsh_completes_the_first_word_with_a_script_that_it_has_loaded_by_itself() {
    let world = World::empty();
    let folder = world.path("functions");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("_labctl-ssh-proxy"), world.run(&["completions", "zsh"]).ok()).unwrap();
    let script = format!(
        "PATH={}:$PATH; fpath=({} $fpath); compdef() {{}}; _describe() {{ print -rl -- \"${{(@P)@[-1]}}\" }}
         autoload -Uz _labctl-ssh-proxy; words=(labctl-ssh-proxy completions ''); CURRENT=3; _labctl-ssh-proxy",
        bin(),
        folder.display(),
    );
    let said = world.output(world.program(needs("zsh")).args(["-f", "-c", &script])).ok();
    assert!(said.lines().any(|line| line.starts_with("elvish")), "{said}");
}

#[test]
fn every_page_is_read_without_complaint_and_made_of_the_same_bytes() {
    let world = World::empty();
    let pages = |name: &str| {
        let folder = world.path(name);
        world.run(&["man", "--folder", folder.to_str().unwrap()]).ok();
        let read = |entry: std::io::Result<fs::DirEntry>| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())
        };
        fs::read_dir(folder).unwrap().map(read).collect::<BTreeMap<_, _>>()
    };
    let made = pages("man1");
    assert_eq!(made, pages("again/man1"));
    assert!(made.len() > 30 && made.contains_key("labctl-ssh-proxy-local-serve.1"), "{:?}", made.keys());
    for (name, page) in &made {
        let text = rendered(&world, page);
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "SEE ALSO"] {
            assert!(text.lines().any(|line| line == section), "{name} has no {section}: {text}");
        }
        assert!(!text.contains('`'), "{name}: {text}");
    }
    let main = rendered(&world, &made["labctl-ssh-proxy.1"]);
    for words in ["6 (refused)", "The platform said no", "wake_limit", "LABCTL_SSH_PROXY_HOME", "settings.yaml"] {
        assert!(main.contains(words), "{words} in {main}");
    }
}

#[test]
fn a_date_of_the_pages_is_asked_for() {
    let world = World::empty();
    let write = |date: &str| {
        let folder = world.path("man1");
        let args = ["man", "--folder", folder.to_str().unwrap()];
        world.output(world.command(&args).env("SOURCE_DATE_EPOCH", date))
    };
    write("1764374400").ok();
    let page = fs::read_to_string(world.path("man1/labctl-ssh-proxy.1")).unwrap();
    assert!(page.contains("2025-11-29"), "{page}");
    assert!(write("yesterday").failed(2).contains("SOURCE_DATE_EPOCH"));
}
