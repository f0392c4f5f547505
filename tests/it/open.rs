//! `open` with fake editors that record their arguments.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::support::{PROGRAM, Said, World, eventually, free_port, needs, write_program};

struct Editors {
    world: World,
    bin: PathBuf,
}

impl Editors {
    fn new(options: &[&str], names: &[&str]) -> Editors {
        let world = World::with_platform(options);
        let bin = world.home().join("bin");
        fs::create_dir(&bin).unwrap();
        for name in names {
            // Writes one argument on each line, and puts the file in place atomically.
            script(
                &bin.join(name),
                &format!("printf '%s\\n' \"$0\" \"$@\" > {0}/.called && mv {0}/.called {0}/called", bin.display()),
            );
        }
        // ssh must not read the configuration of the user who runs the tests.
        script(&bin.join("ssh"), "exec /usr/bin/ssh -F none \"$@\"");
        Editors { world, bin }
    }

    fn run(&self, args: &[&str]) -> Said {
        let path = format!("{}:/usr/bin:/bin", self.bin.display());
        self.world.output(self.world.command(&["--local"]).args(args).env("PATH", path))
    }

    /// Returns the editor's arguments since the last time.
    fn called(&self) -> Vec<String> {
        let path = self.bin.join("called");
        let mut text = String::new();
        eventually("the editor was called", || {
            text = fs::read_to_string(&path).unwrap_or_default();
            !text.is_empty()
        });
        fs::remove_file(path).unwrap();
        let mut lines = text.lines();
        let program = Path::new(lines.next().unwrap()).file_name().unwrap().to_string_lossy().into_owned();
        std::iter::once(program).chain(lines.map(str::to_owned)).collect()
    }

    fn start(&self, name: &str) -> String {
        self.world.json(&["start", name, "--json"])["id"].as_str().unwrap().to_owned()
    }
}

fn script(path: &Path, body: &str) {
    write_program(path, &format!("#!/bin/sh\n{body}\n"));
}

/// Returns the machine's home, because the embedded platform's machines are folders on this computer.
fn home_of(editors: &Editors, id: &str) -> String {
    let host = format!("playground-{id}");
    editors.run(&["ssh", &host, "pwd"]).ok().trim().to_owned()
}

#[test]
fn each_editor_is_called_as_it_wants_to_be() {
    let names = ["code", "cursor", "zeditor", "gateway"];
    let editors = Editors::new(&[], &names);
    let id = editors.start("duo");
    let host = format!("playground-{id}");
    // The entries are written first, because the editors read them.
    let said = editors.run(&["open", "code", &host, "/srv/a b", "--yes"]);
    assert!(said.out.contains("VS Code opens"), "{said:?}");
    said.ok();
    assert_eq!(editors.called(), ["code", "--folder-uri", &format!("vscode-remote://ssh-remote+{host}/srv/a%20b")]);
    assert!(
        fs::read_to_string(editors.world.root().join("ssh_config")).unwrap().contains(&format!("Host {host}.node-02"))
    );

    editors.run(&["open", "cursor", &format!("{host}.node-02")]).ok();
    assert_eq!(editors.called(), ["cursor", "--new-window", "--remote", &format!("ssh-remote+{host}.node-02")]);

    let home = home_of(&editors, &id);
    editors.run(&["open", "zed", &host]).ok();
    assert_eq!(editors.called(), ["zeditor", &format!("ssh://root@{host}{home}/")]);
    editors.run(&["open", "zed", &host, "src/x"]).ok();
    assert_eq!(editors.called(), ["zeditor", &format!("ssh://root@{host}{home}/src/x")]);
    // An editor shows an empty window for a folder that is not there, or makes it up.
    for (folder, path) in
        [("src/it's", format!("{home}/src/it's")), ("/none", "/none".into()), ("~/x", format!("{home}/x"))]
    {
        let said = editors.run(&["open", "zed", &host, folder]);
        assert!(said.err.contains(&format!("{path} does not exist on {host}")), "{said:?}");
        let made = said.err.split('`').nth(1).unwrap().strip_prefix("labctl-ssh-proxy ").unwrap();
        if folder == "/none" {
            continue;
        }
        // The command that is named makes it.
        let made = format!("PATH={}:/usr/bin:/bin; {PROGRAM} {made}", editors.bin.display());
        editors.world.output(editors.world.program("sh").args(["-c", &made])).ok();
        assert!(Path::new(&path).is_dir(), "{made}");
        let said = editors.run(&["open", "zed", &host, folder]);
        assert!(!said.err.contains("does not exist"), "{said:?}");
    }
    assert!(!editors.run(&["open", "zed", &host, "/usr"]).err.contains("does not exist"));
    editors.run(&["open", "code", &host, "~/x"]).ok();
    assert_eq!(editors.called()[2], format!("vscode-remote://ssh-remote+{host}{home}/x"));

    editors.run(&["open", "pycharm", &host, "/srv"]).ok();
    let link = &editors.called()[1];
    assert!(
        link.starts_with("jetbrains-gateway://connect#projectPath=/srv&") && link.ends_with("&productCode=PY"),
        "{link}"
    );
    assert!(link.contains(&format!("&host={host}&port=22&user=root&")), "{link}");
}

#[test]
fn a_lessons_address_is_enough_and_begins_it_after_a_question() {
    let editors = Editors::new(&[], &["code"]);
    let address = "http://localhost/courses/shell-basics/files/first-folder?from=mail#task";
    let _ = editors.world.local(&["config-ssh", "--yes"]).ok();
    let said = editors.run(&["open", "code", address]).failed(2);
    assert!(said.contains("--yes"), "{said}");
    let said = editors.run(&["open", "code", address, "--print"]).failed(4);
    assert!(said.contains("start shell-basics/files/first-folder` begins one"), "{said}");
    assert_eq!(editors.world.json(&["list", "--json"]), serde_json::json!([]));
    editors.run(&["open", "code", address, "/srv", "--yes"]).ok();
    let play = &editors.world.json(&["list", "--json"])[0];
    assert_eq!(play["learning"]["name"], "shell-basics/files/first-folder");
    let host = play["host"].as_str().unwrap();
    assert_eq!(editors.called(), ["code", "--folder-uri", &format!("vscode-remote://ssh-remote+{host}/srv")]);
    // It goes on, so that nothing is asked.
    editors.run(&["open", "code", address]).ok();
    assert_eq!(editors.called(), ["code", "--new-window", "--remote", &format!("ssh-remote+{host}")]);
    editors.run(&["open", "code", "http://localhost/playgrounds/duo", "/srv"]).ok();
    assert_eq!(editors.called()[2], "vscode-remote://ssh-remote+playground-duo/srv");
    assert_eq!(editors.world.json(&["list", "--json"]).as_array().unwrap().len(), 2);
}

#[test]
fn what_is_missing_is_said_before_anything_is_woken() {
    let editors = Editors::new(&[], &[]);
    let id = editors.start("shell");
    editors.world.local(&["stop", &id]).ok();
    let said = editors.run(&["open", "codium", &id, "--yes"]).failed(14);
    assert!(said.contains("VSCodium is not installed") && said.contains("codium"), "{said}");
    let said = editors.run(&["open", "goland", &id, "--yes"]).failed(14);
    assert!(said.contains("JetBrains Gateway is not installed"), "{said}");
    assert!(editors.run(&["open", "emacs", &id]).failed(2).contains("rustrover"));
    // There is no terminal to ask on.
    script(&editors.bin.join("code"), "exit 0");
    assert!(editors.run(&["open", "code", &id]).failed(2).contains("--yes"));
    assert_eq!(editors.world.json(&["list", "--json"])[0]["state"], "STOPPED");
}

#[test]
fn print_prints_and_wakes_nothing() {
    let editors = Editors::new(&[], &[]);
    let id = editors.start("shell");
    editors.world.local(&["stop", &id]).ok();
    let host = format!("playground-{id}");
    let said = editors.run(&["open", "code", &id, "/srv/it's", "--print"]).ok();
    assert_eq!(said, format!("code --folder-uri vscode-remote://ssh-remote+{host}/srv/it%27s\n"));
    let said = editors.run(&["open", "gateway", &host, "/srv", "--print"]).ok();
    assert!(said.starts_with("gateway 'jetbrains-gateway://connect#"), "{said}");
    for args in [&["code", &host, "srv"][..], &["zed", &host], &["idea", "playground-duo"]] {
        let said = editors.run(&[&["open", "--print"], args].concat()).failed(7);
        assert!(said.contains("is not known") && said.contains("absolute"), "{said}");
    }
    // A repository is not cloned, but names the folder.
    let said = editors.run(&["open", "code", &host, "--print", "--repo", "https://x.example/a.git:/srv/a"]).ok();
    assert_eq!(said, format!("code --folder-uri vscode-remote://ssh-remote+{host}/srv/a\n"));
    // A playground that does not exist yet.
    let said = editors.run(&["open", "cursor", "playground-duo", "--print"]).ok();
    assert_eq!(said, "cursor --new-window --remote ssh-remote+playground-duo\n");
    let said = editors.run(&["open", "zed", "root@playground-duo.node-02", "/", "--print"]).ok();
    assert_eq!(said, "zed ssh://root@playground-duo.node-02/\n");
    assert_eq!(editors.world.json(&["list", "--json"])[0]["state"], "STOPPED");
    assert!(!editors.world.root().join("hosts.json").exists());
}

#[test]
fn print_prints_what_open_would_do() {
    let mut editors = Editors::new(&[], &["zeditor", "code", "gateway"]);
    let id = editors.start("shell");
    editors.world.configure();
    let host = format!("playground-{id}");
    for args in [
        &["zed", host.as_str()][..],
        &["zed", &host, "~/x y"],
        &["code", &host],
        &["code", &host, "src"],
        &["goland", &host],
    ] {
        let printed = editors.run(&[&["open", "--print"], args].concat()).ok();
        editors.run(&[&["open"], args].concat()).ok();
        let called = editors.called();
        assert!(printed.starts_with(&format!("{} ", called[0])), "by the name that it has here: {printed}");
        // As parsed by a shell.
        let said = editors.world.output(editors.world.program("sh").args(["-c", &format!("printf '%s\\n' {printed}")]));
        assert_eq!(said.ok().lines().collect::<Vec<_>>(), called);
    }
    // An editor outside PATH.
    let place = editors.world.home().join(".local/bin/zed");
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    script(&place, "exit 0");
    fs::remove_file(editors.bin.join("zeditor")).unwrap();
    let printed = editors.run(&["open", "--print", "zed", &host, "/srv"]).ok();
    assert!(printed.starts_with(&format!("{} ssh://", place.display())), "{printed}");
}

#[test]
fn it_is_woken_before_the_editor_starts_and_a_failing_editor_is_quoted() {
    let editors = Editors::new(&["--boot-delay", "1s"], &["code"]);
    let id = editors.start("shell");
    editors.world.local(&["stop", &id]).ok();
    // An editor that checks the state when it starts.
    let look = format!("HOME={} {} --local list --json >&2; exit 3", editors.world.home().display(), PROGRAM);
    script(&editors.bin.join("cursor"), &look);
    let said = editors.run(&["open", "cursor", &id, "--yes"]).failed(14);
    assert!(
        said.contains("Cursor did not start") && said.contains("RUNNING") && said.contains("\"ready\": true"),
        "{said}"
    );
    // An editor that does not end is left running.
    script(&editors.bin.join("windsurf"), "sleep 30");
    editors.run(&["open", "windsurf", &id]).ok();
    assert_eq!(editors.world.processes("sleep 30").len(), 1);
    for pid in editors.world.processes("sleep 30").into_iter().chain(editors.world.processes("windsurf")) {
        let _ = Command::new("kill").arg(pid.to_string()).status();
    }
    editors.run(&["start", "duo", "--open", "code"]).ok();
    assert_eq!(editors.called()[1], "--new-window");
}

/// git's own server for a folder of bare repositories.
struct Git {
    daemon: Child,
    base: String,
}

impl Git {
    fn serve(world: &World, names: &[&str]) -> Git {
        let folder = world.home().join("git");
        for name in names {
            let work = world.home().join(format!("work-{name}"));
            let run = |args: &[&str]| {
                let identity = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main"];
                assert!(world.program(needs("git")).args(identity).args(args).status().unwrap().success(), "{args:?}");
            };
            let at = work.to_str().unwrap();
            run(&["init", "-q", at]);
            fs::write(work.join("name"), name).unwrap();
            run(&["-C", at, "add", "."]);
            run(&["-C", at, "commit", "-qm", "one"]);
            run(&["clone", "-q", "--bare", at, folder.join(format!("{name}.git")).to_str().unwrap()]);
        }
        // The server cannot choose a port by itself.
        let port = free_port();
        let daemon = world
            .program("git")
            .args(["daemon", "--reuseaddr", "--export-all", "--listen=127.0.0.1", &format!("--port={port}")])
            .arg(format!("--base-path={}", folder.display()))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("git serves", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Git { daemon, base: format!("git://127.0.0.1:{port}") }
    }
}

impl Drop for Git {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.daemon.id().to_string()).status();
        let _ = self.daemon.wait();
    }
}

#[test]
fn repositories_are_cloned_first() {
    let editors = Editors::new(&[], &["code"]);
    let git = Git::serve(&editors.world, &["one", "two"]);
    let id = editors.start("shell");
    let host = format!("playground-{id}");
    let home = home_of(&editors, &id);
    let (one, two) = (format!("{}/one.git", git.base), format!("{}/two.git:src/it's two", git.base));
    editors.run(&["open", "code", &host, "--yes", "--repo", &one]).ok();
    assert_eq!(editors.called()[2], format!("vscode-remote://ssh-remote+{host}{home}/one"));
    assert_eq!(fs::read_to_string(format!("{home}/one/name")).unwrap(), "one");
    // Existing clones are not changed.
    fs::write(format!("{home}/one/name"), "changed").unwrap();
    editors.run(&["open", "code", &host, "--repo", &one, "--repo", &two]).ok();
    assert_eq!(editors.called()[1], "--new-window");
    assert_eq!(fs::read_to_string(format!("{home}/one/name")).unwrap(), "changed");
    assert_eq!(fs::read_to_string(format!("{home}/src/it's two/name")).unwrap(), "two");
    // A failed clone is reported, and the editor does not start.
    let none = format!("{}/none.git", git.base);
    let said = editors.run(&["open", "code", &host, "--repo", &none, "--repo", &one]).failed(14);
    assert!(said.contains(&format!("cannot clone {none}")) && said.contains("\nhint: check the address"), "{said}");
    assert!(!editors.bin.join("called").exists());
}

#[test]
fn the_agent_is_forwarded_only_when_asked_for() {
    let editors = Editors::new(&[], &["code"]);
    let id = editors.start("shell");
    // A fake git that records whether it has an agent.
    let home = home_of(&editors, &id);
    let told = editors.world.home().join("told");
    script(&editors.bin.join("ssh"), &format!("echo \"$@\" >> {}; exec /usr/bin/ssh -F none \"$@\"", told.display()));
    editors.run(&["open", "code", &id, "--yes", "--repo", "/nowhere/x.git"]).failed(14);
    let plain = fs::read_to_string(&told).unwrap();
    assert!(plain.contains(" -a playground-") && !plain.contains(" -A "), "{plain}");
    editors.run(&["open", "code", &id, "--forward-agent", "--repo", "/nowhere/x.git"]).failed(14);
    assert!(fs::read_to_string(&told).unwrap().contains(" -A playground-"));
    assert!(!Path::new(&home).join("x").exists());
}
