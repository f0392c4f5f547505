//! `doctor`: finds problems, suggests remedies, repairs our own files, and writes reports without secrets.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Stdio};

use serde_json::Value;

use crate::support::{
    Ending, PROGRAM, Said, World, copy_program,
    distant::Distant,
    engine::{BUSYBOX, Engine, SCRATCH},
    eventually,
    labs::{ID, Labs, PLAIN},
    schema,
};

fn doctor(world: &World, args: &[&str]) -> (Value, Said) {
    let said = world.local(&[&["doctor", "--json"], args].concat());
    let value: Value = serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {said:?}"));
    schema::check("doctor", &value);
    (value, said)
}

/// Returns the check with that name, or whose name begins with it.
#[track_caller]
fn check<'a>(value: &'a Value, name: &str) -> &'a Value {
    let checks = value["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["name"].as_str().unwrap().starts_with(name));
    found.unwrap_or_else(|| panic!("no check {name} in {value:#}"))
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_whole_chain_is_well() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let (value, said) = doctor(&world, &[]);
    assert_eq!(said.code(), 0, "{value:#}");
    for name in [
        "this program",
        "ssh",
        "program in entries",
        "ssh configuration",
        "permissions",
        "identity",
        "login",
        "platform",
        "tunnel",
        "host key",
        "ssh to a machine",
        "round trip",
        "throughput",
    ] {
        assert_eq!(check(&value, name)["verdict"], "ok", "{name}: {value:#}");
    }
    assert!(check(&value, "throughput")["found"].as_str().unwrap().contains("MiB/s"));
    let keys = fs::read(world.root().join("known_hosts.local")).unwrap();
    // No playground is woken, and no key is learnt.
    world.local(&["stop", &id]).ok();
    let (value, said) = doctor(&world, &[]);
    assert_eq!((said.code(), &check(&value, "tunnel")["verdict"]), (0, &"skipped".into()));
    assert_eq!(world.json(&["list", "--json"])[0]["state"], "STOPPED");
    assert_eq!(fs::read(world.root().join("known_hosts.local")).unwrap(), keys);
    assert!(world.processes(" connect ").is_empty());
}

#[test]
fn an_ssh_in_the_background_is_not_left_over() {
    let mut world = World::with_platform(&[]);
    let host = format!("playground-{}", world.playground("shell"));
    let mut ssh = world.ssh_program("ssh");
    assert!(ssh.args(["-f", "-N", &host]).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let (value, _) = doctor(&world, &["--fix"]);
    assert_eq!(check(&value, "processes")["verdict"], "ok", "{value:#}");
    assert!(!world.processes(" connect ").is_empty());
    for pid in world.processes("ssh") {
        let _ = world.program("kill").arg(pid.to_string()).status();
    }
}

#[test]
fn what_is_wrong_with_the_configuration_is_said_and_mended() {
    let mut world = World::with_platform(&[]);
    world.playground("shell");
    // The Include was removed, and our folder opened to others.
    let before = fs::read(world.ssh_config()).unwrap();
    fs::write(world.ssh_config(), "Host other\n").unwrap();
    mode(&world.root(), 0o755);
    let (value, said) = doctor(&world, &[]);
    assert_eq!(said.code(), 1);
    let config = check(&value, "ssh configuration");
    assert_eq!(config["verdict"], "failed");
    assert!(config["found"].as_str().unwrap().contains("does not use this program's entry"), "{config}");
    assert!(config["remedy"].as_str().unwrap().contains("`labctl-ssh-proxy --local config-ssh`"));
    assert!(check(&value, "permissions")["remedy"].as_str().unwrap().contains("chmod 700"));
    let (value, said) = doctor(&world, &["--fix"]);
    assert_eq!(said.code(), 0, "{value:#}");
    assert_eq!(value["fixed"].as_array().unwrap().len(), 2, "{value:#}");
    assert!(
        fs::read_to_string(world.ssh_config())
            .unwrap()
            .starts_with(std::str::from_utf8(&before).unwrap().lines().next().unwrap())
    );

    // The user's own options before ours. Only the user may move them.
    let own =
        format!("Host *\n  ProxyCommand none\n  ConnectTimeout 5\n{}", fs::read_to_string(world.ssh_config()).unwrap());
    fs::write(world.ssh_config(), &own).unwrap();
    let (value, said) = doctor(&world, &[]);
    assert_eq!((said.code(), &check(&value, "ssh configuration")["verdict"]), (1, &"failed".into()));
    let own = own.replace("  ProxyCommand none\n", "");
    fs::write(world.ssh_config(), &own).unwrap();
    let (value, said) = doctor(&world, &[]);
    let config = check(&value, "ssh configuration");
    assert_eq!((said.code(), &config["verdict"]), (0, &"warning".into()));
    assert!(config["found"].as_str().unwrap().contains("connecttimeout 5"), "{config}");

    // A line that ssh itself refuses.
    fs::write(world.ssh_config(), "Nonsense yes\n").unwrap();
    let (value, _) = doctor(&world, &[]);
    assert!(
        check(&value, "ssh configuration")["found"].as_str().unwrap().to_lowercase().contains("nonsense"),
        "{value:#}"
    );
}

#[test]
fn a_program_that_has_moved_is_found() {
    let mut world = World::with_platform(&[]);
    let gone = world.home().join("old-program");
    copy_program(&gone);
    world.json(&["start", "shell", "--json"]);
    world.output(world.program(&gone).args(["--local", "config-ssh", "--yes"])).ok();
    let (value, _) = doctor(&world, &[]);
    assert_eq!(check(&value, "program in entries")["verdict"], "warning", "{value:#}");
    fs::remove_file(&gone).unwrap();
    let (value, said) = doctor(&world, &[]);
    assert_eq!((said.code(), &check(&value, "program in entries")["verdict"]), (1, &"failed".into()));
    let (value, said) = doctor(&world, &["--fix"]);
    assert_eq!(said.code(), 0, "{value:#}");
    assert!(fs::read_to_string(world.root().join("ssh_config")).unwrap().contains(PROGRAM));
    world.configure();
}

#[test]
fn damaged_records_and_left_over_processes_go() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let record = world.root().join(format!("memory.local/{id}.json"));
    fs::write(&record, "{").unwrap();
    let (value, said) = doctor(&world, &[]);
    assert_eq!((said.code(), &check(&value, "memory")["verdict"]), (1, &"failed".into()));
    fs::remove_file(&record).unwrap();
    // A stopped proxy (SIGSTOP), which does not notice the end of its ssh.
    let mut ssh = world
        .ssh_program("ssh")
        .args([&format!("playground-{id}"), "echo up; sleep 60"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(ssh.stdout.as_mut().unwrap(), &mut [0; 3]).unwrap();
    let proxy = world.processes(" connect --user")[0].to_string();
    assert!(world.program("kill").args(["-STOP", &proxy]).status().unwrap().success());
    ssh.kill().unwrap();
    ssh.wait().unwrap();
    fs::write(&record, "{").unwrap();
    let (value, _) = doctor(&world, &[]);
    let found = check(&value, "processes");
    assert!(found["remedy"].as_str().unwrap().contains(&proxy), "{value:#}");
    let (value, said) = doctor(&world, &["--fix"]);
    assert_eq!(said.code(), 0, "{value:#}");
    // The file may exist again, because the proxy writes a valid one at its end.
    assert_ne!(fs::read_to_string(&record).ok().as_deref(), Some("{"));
    eventually("it was ended", || world.processes(" connect --user").is_empty());
    eventually("nothing is left over", || check(&doctor(&world, &[]).0, "processes")["verdict"] == "ok");
}

/// A number in the name of a status file is no proof: the proxy may run in another container, or have ended, and its
/// number may be another program's.
#[test]
fn a_process_that_is_none_of_ours_is_never_ended() {
    let world = World::with_platform(&[]);
    // Like a proxy whose client has gone: its standard input is a pipe without another end.
    let mut sleep = world.program("sleep");
    let mut sleep = Ending(sleep.arg("60").stdin(Stdio::piped()).spawn().unwrap());
    drop(sleep.0.stdin.take());
    let folder = world.root().join("live");
    fs::create_dir_all(&folder).unwrap();
    let status = folder.join(format!("{}-1.json", sleep.0.id()));
    let fields = r#""phase":"connected","since":1,"host":"playground-shell","playground":"","machine":"","user":"","client":"","sent":0,"received":0,"roundTripMs":null,"expiresAt":null,"message":"""#;
    fs::write(&status, format!(r#"{{"pid":{},{fields}}}"#, sleep.0.id())).unwrap();
    let lock = fs::File::create(folder.join(format!("{}-1.json.lock", sleep.0.id()))).unwrap();
    lock.lock().unwrap();
    let (value, _) = doctor(&world, &["--fix"]);
    assert_eq!(value["fixed"].as_array().map(Vec::len), Some(0), "{value:#}");
    assert_eq!(check(&value, "processes")["verdict"], "ok", "{value:#}");
    assert!(sleep.0.try_wait().unwrap().is_none(), "another program was ended");
}

#[test]
fn a_failing_chain_is_told_where_it_breaks() {
    let world = World::empty();
    // Not logged in.
    let said = world.run(&["doctor", "--json"]);
    let value: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(said.code(), 1);
    assert_eq!(check(&value, "login")["verdict"], "failed");
    assert!(check(&value, "login")["remedy"].as_str().unwrap().contains("login"));
    assert_eq!(check(&value, "ssh configuration")["verdict"], "warning");
    assert!(!world.home().join(".ssh/iximiuz_labs_user").exists(), "a look makes no key");
    // Another machine's key.
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let known = world.root().join("known_hosts.local");
    let text = fs::read_to_string(&known).unwrap();
    let other = world.json(&["start", "duo", "--json"])["id"].as_str().unwrap().to_owned();
    let all = fs::read_to_string(&known).unwrap();
    let key = |text: &str, id: &str| {
        let line = text.lines().find(|line| line.contains(id) && line.contains("ssh-ed25519")).unwrap();
        line.split(' ').nth(2).unwrap().to_owned()
    };
    let swapped = text.replace(&key(&all, &id), &key(&all, &other));
    fs::write(&known, swapped).unwrap();
    let (value, said) = doctor(&world, &[&format!("playground-{id}")]);
    assert_eq!((said.code(), &check(&value, "host key")["verdict"]), (1, &"failed".into()), "{value:#}");
}

#[test]
fn a_machine_that_is_stopped_is_named_with_the_command_that_starts_it() {
    let world = World::with_platform(&[]);
    let id = world.json(&["start", "duo", "--json"])["id"].as_str().unwrap().to_owned();
    world.local(&["machine", "stop", &id, "node-02"]).ok();
    let node = format!("playground-{id}.node-02");
    let tunnel = |host: &str| {
        let (value, said) = doctor(&world, &[host]);
        let tunnel = check(&value, "tunnel");
        assert_eq!((said.code(), &tunnel["verdict"]), (0, &"skipped".into()), "{value:#}");
        ["found", "remedy"].map(|part| tunnel[part].as_str().unwrap().to_owned())
    };
    let [found, remedy] = tunnel(&node);
    assert!(found.starts_with("machine node-02 of playground duo-") && found.contains(" is stopped; "), "{found}");
    assert!(remedy.contains(&format!("--local machine restart {id} node-02`")), "{remedy}");
    world.local(&["stop", &id]).ok();
    let [found, remedy] = tunnel(&node);
    assert!(found.starts_with("playground duo-") && remedy.contains(&format!("start {id}`")), "{found}: {remedy}");
}

/// The console of a machine may say why its SSH server does not answer.
#[test]
fn a_machine_that_does_not_answer_is_shown_with_its_last_words() {
    let world = World::with_platform(&["--boot-delay", "1h"]);
    let id = world.json(&["start", "shell", "--no-wait", "--json"])["id"].as_str().unwrap().to_owned();
    world.until(&id, "RUNNING");
    let (value, _) = doctor(&world, &[&id]);
    let tunnel = check(&value, "tunnel");
    assert!(
        tunnel["verdict"] == "warning" && tunnel["found"].as_str().unwrap().contains("does not answer yet"),
        "{value:#}"
    );
    let console = check(&value, "console")["found"].as_str().unwrap();
    let (first, last) = console.split_once('\n').unwrap();
    assert!(first == "the last lines of machine shell-01:" && last.ends_with(" starting"), "{console}");
    // The platform says that it is ready, and leads nowhere.
    let world = World::empty();
    let labs = Labs::start(&world, PLAIN);
    let text: String = (1..=12).map(|n| format!("line {n}\r\n")).collect();
    let answer = serde_json::json!({ "consoles": ["first", "second"], "content": text + "\x1b[2Jpanic" }).to_string();
    labs.instead(&format!("POST /api/plays/{ID}/actions"), 200, &answer);
    labs.instead(&format!("POST /api/plays/{ID}/tunnels"), 500, "no such luck");
    let value: Value = serde_json::from_str(&world.run(&["doctor", ID, "--json"]).out).unwrap();
    assert_eq!(check(&value, "tunnel")["verdict"], "failed");
    let console = check(&value, "console")["found"].as_str().unwrap();
    assert!(
        console.lines().count() == 11 && console.contains("line 4\n") && console.ends_with("[2Jpanic"),
        "{console:?}"
    );
    assert!(!console.contains("line 3\n") && world.run(&["doctor", ID]).out.contains("[2Jpanic"), "{console:?}");
}

#[test]
fn the_report_tells_everything_but_secrets() {
    let mut world = World::with_platform(&[]);
    world.settings("proxy: http://me:PASSWORD@127.0.0.1:9\n");
    world.playground("shell");
    let folder = world.home().join(".iximiuz/labctl");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config.yaml"), "session_id: SESSION\naccess_token: TOKEN\n").unwrap();
    let file = world.home().join("report.txt");
    let said = world.local(&["doctor", "--report", file.to_str().unwrap()]);
    assert!(said.out.contains("report.txt"), "{said:?}");
    let text = fs::read_to_string(&file).unwrap();
    for secret in ["PASSWORD", "SESSION", "TOKEN", "PRIVATE KEY"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    for part in
        ["== examination", "== ssh -G", "proxycommand", "== known hosts", "OpenSSH", "http://[removed]@127.0.0.1:9"]
    {
        assert!(text.contains(part), "{part} not in {text}");
    }
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

/// The relay is looked for on the machine, where its process can be compared, and nothing is placed by looking.
#[test]
fn a_machine_s_relay_is_found_or_its_absence_explained() {
    let distant = Distant::new(&[]);
    let world = &distant.world;
    let sessions = || {
        let value = world.json(&["doctor", "--json", &distant.host]);
        schema::check("doctor", &value);
        let found = check(&value, "sessions").clone();
        (found["verdict"].as_str().unwrap().to_owned(), found["found"].as_str().unwrap().to_owned())
    };
    // The start has placed one, and a restart ends it.
    assert_eq!(distant.relay_processes().len(), 1);
    world.settings("resume: never\n");
    world.run(&["restart", &distant.id]).ok();
    world.settings("");
    let (verdict, found) = sessions();
    assert!(verdict == "ok" && found.contains("the next long one starts it"), "{found}");
    assert!(distant.relay_processes().is_empty(), "a check places nothing");
    distant.place();
    let (verdict, found) = sessions();
    let process = distant.relay_processes()[0];
    assert!(verdict == "ok" && found.ends_with(&format!("its process {process}")), "{found}");
    world.settings("resume: never\n");
    assert_eq!(sessions(), ("skipped".into(), "end with their connection, because `resume` is `never`".into()));
}

/// A machine is only looked at; a container is checked as a connection goes, which puts the helper there.
#[test]
fn what_lies_on_a_machine_for_its_containers_is_said_and_removed() {
    let Some(engine) = Engine::here() else { return };
    let web = engine.run("doctorweb", &["--user", "65532"], SCRATCH, &[]);
    let tools = engine.run("doctortools", &[], BUSYBOX, &[]);
    let mut world = World::with_platform(&["--engine", engine.socket().to_str().unwrap()]);
    let machine = format!("playground-{}.shell-01", world.playground("shell"));
    let found = |value: &Value, name: &str| {
        let check = value["checks"].as_array().unwrap().iter().find(|check| check["name"] == name);
        let check = check.unwrap_or_else(|| panic!("no check {name} in {value:#}"));
        (check["verdict"].as_str().unwrap().to_owned(), check["found"].as_str().unwrap().to_owned())
    };
    let ok = "ok".to_owned();
    let (value, _) = doctor(&world, &[&machine]);
    let (verdict, said) = found(&value, "helper");
    assert!(verdict == ok && said.starts_with("none on shell-01; the first connection"), "{value:#}");
    let version = engine.docker(&["version", "--format", "{{.Server.Version}}"]);
    let (verdict, said) = found(&value, "containers");
    let words = ["without the helper", &format!("Docker Engine {version}, runc version "), "Linux "];
    assert!(verdict == ok && words.iter().all(|word| said.contains(word)), "{value:#}");

    for container in [&web, &tools] {
        let host = format!("{machine}.{}", container.name);
        let (value, said) = doctor(&world, &[&host]);
        assert_eq!(said.code(), 0, "{value:#}");
        assert!(found(&value, "container").1.starts_with(&format!("{} (", container.name)), "{value:#}");
        for name in ["containers", "container", "server in it", "ssh to a container"] {
            assert_eq!(found(&value, name).0, ok, "{name}: {value:#}");
        }
        assert_eq!(container.diff(), "");
    }
    let (value, said) = doctor(&world, &[&format!("{machine}.nowhere")]);
    assert_eq!((said.code(), found(&value, "container").0), (1, "failed".to_owned()), "{value:#}");
    assert!(found(&value, "container").1.contains("nowhere"), "{value:#}");

    let (value, _) = doctor(&world, &[&machine]);
    let (verdict, said) = found(&value, "helper");
    assert!(verdict == ok && said.contains("/helper-") && said.contains("this version's"), "{value:#}");
    assert!(said.contains("/tools-") && said.contains("tools for containers"), "{value:#}");
    let said = found(&value, "containers").1;
    assert!(said.contains(" running, ") && !said.contains("without the helper"), "{value:#}");
    let path = Path::new(found(&value, "helper").1.split_once(": ").unwrap().1.split_once(" (").unwrap().0).to_owned();
    assert!(path.starts_with(world.root()) && path.is_file(), "{}", path.display());
    let said = world.local(&["doctor", &machine]).ok();
    assert!(!said.contains("doctor --fix` repairs"), "nothing is to be repaired: {said}");
    let (value, _) = doctor(&world, &[&machine, "--fix"]);
    assert!(value["fixed"].to_string().contains("the helpers are removed from machine shell-01"), "{value:#}");
    assert!(found(&value, "helper").1.starts_with("none on shell-01") && !path.exists(), "{value:#}");
}
