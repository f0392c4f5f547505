//! Every possible error and its report: one line, a hint if one helps, and an exit code.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use expect_test::{ExpectFile, expect_file};
use labctl_ssh_proxy::error::Kind;

use crate::support::{
    PROGRAM, Said, World,
    labs::{ID, Labs, PLAIN, play, user},
    not_run,
    transcript::masked,
};

/// A transcript of errors: for each action, the text on standard error and in the protocol.
struct Errors<'a> {
    world: &'a World,
    text: String,
}

impl<'a> Errors<'a> {
    fn new(world: &'a World) -> Errors<'a> {
        Errors { world, text: String::new() }
    }

    fn note(&mut self, what: &str, said: &Said) {
        let err = masked(self.world, &said.err);
        assert!(!err.contains("panicked") && !err.contains("token-of") && !err.contains('\x1b'), "{what}: {err}");
        // The message to the client inside the protocol, if there is one.
        let told = said.out.strip_prefix("SSH-2.0-labctl-ssh-proxy\r\n");
        let sentence = said.err.lines().next().unwrap_or_default().trim_start_matches("labctl-ssh-proxy: ");
        assert!(told.map_or(said.out.is_empty(), |told| told.contains(sentence)), "{what}: {said:?}");
        assert!(!said.status.success(), "{what}: {said:?}");
        // One sentence, and at most one hint.
        assert!(err.lines().count() <= 2 && err.starts_with("labctl-ssh-proxy: "), "{what}: {err}");
        assert!(err.lines().skip(1).all(|line| line.starts_with("hint: ")), "{what}: {err}");
        self.text += &format!("# {what}: {}\n{err}\n", said.code());
    }

    fn run(&mut self, what: &str, args: &[&str]) {
        let said = self.world.held(&mut self.world.command(args));
        self.note(what, &said);
    }

    fn is(self, expected: ExpectFile) {
        expected.assert_eq(&self.text);
    }
}

#[test]
fn names_that_lead_nowhere() {
    let world = World::with_platform(&[]);
    let mut transcript = Errors::new(&world);
    let shell = world.json(&["start", "shell", "--title", "twin", "--json"]);
    let id = shell["id"].as_str().unwrap();
    let other = world.json(&["start", "shell", "--title", "twin", "--json"]);
    for host in [
        "example.com",
        "playground-",
        "playground-UPPER",
        "playground-x..y",
        "playground-a b",
        "playground--x",
        "playground-shell.",
        "playground-0123456789abcdef01234567",
        "playground-nothing-of-that-name",
        "playground-\x1b[31m",
    ] {
        transcript.run(&format!("connect {}", host.escape_debug()), &["--local", "connect", host]);
    }
    let of = |text: String| text.replace(id, "ONE").replace(other["id"].as_str().unwrap(), "OTHER");
    for (what, args) in [
        ("another machine", vec!["connect".to_owned(), format!("playground-{id}.node-09")]),
        ("another user", vec!["connect".into(), "--user".into(), "mallory".into(), format!("playground-{id}")]),
        ("a hostile user", vec!["connect".into(), "--user".into(), "-oX;y".into(), format!("playground-{id}")]),
        ("a name of two", vec!["connect".into(), "playground-shell".into()]),
        ("a title of two", vec!["stop".into(), "twin".into()]),
        ("a title of none", vec!["stop".into(), "no such title".into()]),
        ("a start of nothing", vec!["start".into(), "nothing".into()]),
        ("a login", vec!["login".into()]),
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        transcript.run(what, &[&["--local"], &args[..]].concat());
    }
    transcript.text = of(transcript.text);
    // The order of the two is random, and the user's name depends on the computer.
    transcript.text = transcript
        .text
        .replace("playground-OTHER (twin), playground-ONE (twin)", "playground-ONE (twin), playground-OTHER (twin)")
        .replace(&format!("its users: {}", user()), "its users: USER");
    transcript.is(expect_file!["../golden/errors/names"]);
}

/// Commands about machines and playgrounds do not take a container for them: it would be more than what was named.
#[test]
fn a_container_where_a_machine_or_a_playground_is_meant() {
    let mut world = World::with_platform(&[]);
    let play = world.playground("shell");
    let host = &format!("playground-{play}.machine.web");
    let mut transcript = Errors::new(&world);
    for words in [
        "start HOST",
        "stop HOST",
        "restart HOST",
        "extend HOST 1h",
        "lifetime HOST",
        "persist HOST",
        "rename HOST web",
        "destroy HOST --yes",
        "wait HOST",
        "tasks HOST",
        "machine reboot HOST",
        "machine stop HOST",
        "machine restart HOST",
        "machine console HOST",
        "machine journal HOST",
        "containers HOST",
        "ports HOST",
        "expose HOST 8080",
        "unexpose HOST 8080",
        "port-forward HOST -L 8080:localhost:80",
        "port-forward HOST --list",
        "kube HOST",
        "kube HOST --remove",
    ] {
        let arguments: Vec<&str> = words.split(' ').map(|word| if word == "HOST" { host } else { word }).collect();
        transcript.run(words, &[&["--local"], &arguments[..]].concat());
    }
    transcript.text = transcript.text.replace(&play, "ID");
    transcript.is(expect_file!["../golden/errors/containers"]);
    assert_eq!(world.json(&["list", "--json"])[0]["state"], "RUNNING");
}

#[test]
fn a_platform_that_says_no_or_nothing_or_nonsense() {
    let world = World::empty();
    let mut transcript = Errors::new(&world);
    transcript.run("no account", &["list"]);
    transcript.run("no account, a connection", &["connect", &format!("playground-{ID}")]);
    let labs = Labs::start(&world, PLAIN);
    labs.log_in(&world, "session_id: session-of-ada\naccess_token: expired\n");
    transcript.run("expired credentials", &["list"]);
    labs.log_in(&world, "session_id: session-of-ada\naccess_token: \"a\\nb\"\n");
    transcript.run("credentials that no header carries", &["list"]);
    labs.log_in(&world, "session_id: session-of-ada\naccess_token: token-of-ada\n");
    for (status, body) in [
        (200, "<!DOCTYPE html><html><body>Welcome to the hotel's network</body></html>"),
        (200, "[{\"id\": \"0123456789ab"),
        (200, "{\"plays\": []}"),
        (200, ""),
        (500, "<html>oops</html>"),
        (502, "bad gateway"),
        (403, "{\"message\": \"Free tier: one \\u001b[31mplayground at a time\"}"),
        (429, "slow down"),
        (503, ""),
    ] {
        labs.truth();
        labs.instead("GET /api/plays", status, body);
        transcript.run(&format!("{status} {body:?}"), &["list"]);
    }
    labs.truth();
    for (status, body) in
        [(403, "your plan has no SSH"), (404, ""), (409, "{\"error\": \"too many tunnels\"}"), (200, "{}")]
    {
        labs.truth();
        labs.instead("POST /api/plays/0123456789abcdef01234567/tunnels", status, body);
        transcript.run(&format!("a tunnel, {status} {body:?}"), &["connect", &format!("playground-{ID}")]);
    }
    labs.truth();
    labs.instead("GET /welcome", 200, "no cookie, but one of the way here");
    labs.instead("GET /login", 200, "no cookie at all");
    // It is attempted for a minute, or up to the limit in the settings.
    world.settings("wake_limit: 1\n");
    transcript.run("a login without a token", &["connect", &format!("playground-{ID}")]);
    world.settings("");
    labs.truth();
    for (n, state) in [(7, "DESTROYED"), (8, "FAILED")] {
        let id = format!("{n:024}");
        labs.add(play(&id, "gone", "docker", state));
        transcript.run(state, &["connect", &format!("playground-{id}")]);
    }
    transcript.run("a stranger's playground", &["start", "by-mallory"]);
    transcript.run("a stranger's playground, a connection", &["connect", "playground-by-mallory"]);
    drop(labs);
    let account = world.path(".iximiuz/labctl/config.yaml");
    let credentials = "session_id: s\naccess_token: t\n";
    fs::write(&account, format!("api_base_url: http://127.0.0.1:1/api\n{credentials}")).unwrap();
    transcript.run("nobody listens", &["list"]);
    fs::write(&account, format!("api_base_url: http://no-such-host.invalid/api\n{credentials}")).unwrap();
    transcript.run("no such host", &["list"]);
    fs::write(&account, format!("api_base_url: nonsense\n{credentials}")).unwrap();
    transcript.run("no address", &["list"]);
    transcript.is(expect_file!["../golden/errors/platform"]);
}

/// Returns every file below a folder with its contents, except logs and locks.
fn snapshot(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if kind.is_dir() {
                if !path.ends_with("logs") && !path.ends_with("log") {
                    folders.push(path);
                }
            } else if kind.is_file() && !path.extension().is_some_and(|e| e == "lock" || e == "log") {
                all.push((path.clone(), fs::read(&path).unwrap()));
            }
        }
    }
    all.sort();
    all
}

/// A damaged state file is reported and not overwritten, because its contents are unknown.
#[test]
fn damaged_files() {
    let mut world = World::with_platform(&[]);
    let play = world.playground("shell");
    let host = format!("playground-{play}");
    let root = world.root();
    let memory = root.join(format!("memory.local/{play}.json"));
    let settings = world.path(".config/labctl-ssh-proxy/settings.yaml");
    world.settings("");
    let account = world.path(".iximiuz/labctl/config.yaml");
    fs::create_dir_all(account.parent().unwrap()).unwrap();
    fs::write(&account, "").unwrap();
    let mut transcript = String::new();
    for (file, damage, commands) in [
        (&settings, &b"wake: [\n"[..], &[&["--local", "list"][..], &["--local", "connect", &host]][..]),
        (&settings, b"wakeup: never\n", &[&["--local", "list"]]),
        (&settings, b"wake: \xff\n", &[&["--local", "list"]]),
        (&account, b"access_token: [\n", &[&["list"]]),
        (&root.join("hosts.json"), b"{", &[&["--local", "config-ssh", "--yes"]]),
        (&root.join("known_hosts.local"), b"@@@\xff garbage\n", &[&["--local", "list", "--frobnicate"]]),
    ] {
        let good = fs::read(file).unwrap();
        fs::write(file, damage).unwrap();
        for args in commands {
            if args.contains(&"--frobnicate") {
                // ssh skips lines that it cannot read, and so do we. Ours are added below them.
                assert_eq!(world.ssh(&[&host, "echo in"]).ok(), "in\n");
                assert!(fs::read(file).unwrap().starts_with(damage));
                continue;
            }
            let said = world.held(&mut world.command(args));
            assert_eq!(fs::read(file).unwrap(), damage, "{args:?}");
            let mut one = Errors::new(&world);
            let name = file.file_name().unwrap().to_string_lossy().replace(&play, "ID");
            one.note(&format!("{name}: {}", args.join(" ").replace(&play, "ID")), &said);
            transcript += &one.text.replace(&play, "ID");
        }
        fs::write(file, good).unwrap();
    }
    // The user's wish is carried out, with a warning. The record is left as it is.
    let good = fs::read(&memory).unwrap();
    fs::write(&memory, "{\"stopped").unwrap();
    for command in ["stop", "start"] {
        let said = world.local(&[command, &host]);
        assert!(
            said.err.contains(&format!("{play}.json is damaged; going on without this record\nhint: ")),
            "{said:?}"
        );
        let _ = said.ok();
        assert_eq!(fs::read(&memory).unwrap(), b"{\"stopped");
    }
    fs::write(&memory, good).unwrap();
    // A command that only updates the entries succeeds, with a warning.
    fs::write(root.join("hosts.json"), "{").unwrap();
    let said = world.local(&["list"]);
    assert!(said.err.contains("hosts.json"), "{said:?}");
    let _ = said.ok();
    // The platform does not start with a damaged record, and names it.
    world.stop_platform();
    fs::write(root.join(format!("local/plays/{play}/play.json")), "{").unwrap();
    let mut one = Errors::new(&world);
    one.run("play.json: list", &["--local", "list"]);
    transcript += &one.text.replace(&play, "ID");
    expect_file!["../golden/errors/damaged"].assert_eq(&transcript);
}

/// The file size limit is 0, so that writes fail as on a full disk.
#[test]
fn a_full_disk() {
    let mut world = World::with_platform(&[]);
    let play = world.playground("shell");
    let host = format!("playground-{play}");
    fs::write(world.ssh_config(), fs::read_to_string(world.ssh_config()).unwrap() + "Host mine\n").unwrap();
    // As before the first contact: files that a connection would write do not exist yet.
    fs::write(world.root().join("known_hosts.local"), "").unwrap();
    let mut transcript = Errors::new(&world);
    let before = snapshot(world.home());
    for args in [&["--local", "config-ssh", "--inline", "--yes"][..], &["login", "--stdin"]] {
        let mut command = world.program("sh");
        command.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh", PROGRAM]).args(args);
        let said = world.output(&mut command);
        transcript.note(&args.join(" ").replace(&play, "ID"), &said);
    }
    transcript.text = transcript.text.replace(&play, "ID");
    // A connection fails if it cannot record the host key.
    let ssh = format!("trap '' XFSZ; ulimit -f 0; exec ssh -F {} {host} true", world.ssh_config().display());
    let said = world.output(world.program("sh").args(["-c", &ssh]));
    assert!(said.err.contains("labctl-ssh-proxy: cannot write "), "{said:?}");
    assert_eq!(said.code(), 255);
    assert!(snapshot(world.home()) == before, "nothing lost, nothing half-written");
    // Standard output on a full disk; a reader that has gone is none.
    if !Path::new("/dev/full").exists() {
        not_run("this system has no /dev/full");
    } else {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let said = world.command(&["--local", "list"]).stdout(full).output().unwrap();
        assert_eq!(said.status.code(), Some(i32::from(Kind::File.exit_code())));
        let list = format!("{} --local list | true", PROGRAM);
        let said = world.output(world.program("bash").args(["-o", "pipefail", "-c", &list]));
        assert_eq!((said.code(), said.err.as_str()), (0, ""));
    }
    transcript.is(expect_file!["../golden/errors/full-disk"]);
}

#[test]
fn folders_that_cannot_be_used() {
    let world = World::empty();
    let mut transcript = Errors::new(&world);
    fs::create_dir_all(world.root().parent().unwrap()).unwrap();
    fs::write(world.root(), "a file").unwrap();
    transcript.run("a file in the folder's place", &["--local", "list"]);
    fs::remove_file(world.root()).unwrap();
    let mut command = world.command(&["list"]);
    command.env_remove("HOME").env("HOME", "");
    let _ = world.output(&mut command);
    fs::create_dir_all(world.path(".config/labctl-ssh-proxy/settings.yaml")).unwrap();
    transcript.run("a folder in the settings' place", &["list"]);
    assert_eq!(fs::metadata(world.root()).ok().map(|found| found.permissions().mode() & 0o077), None);
    transcript.is(expect_file!["../golden/errors/folders"]);
}

/// The exit codes in the documentation's table and in the program are the same.
#[test]
fn exit_codes_are_documented() {
    let page = include_str!("../../docs/exit-codes.md");
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let rows = page.lines().skip_while(|line| !line.starts_with("| code |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|')).map(cells);
    let documented: Vec<_> = rows.map(|row| (row[1].parse().unwrap(), row[2].clone(), row[3].clone())).collect();
    let of = |kind: &Kind| (kind.exit_code(), kind.name().to_owned(), kind.meaning().to_owned());
    let mut codes: Vec<(u8, String, String)> =
        Kind::ALL.iter().map(of).chain([(0, String::new(), "done".to_owned())]).collect();
    codes.sort_unstable();
    assert_eq!(documented, codes);
}
