//! Starts with choices, with a manifest and with port forwards, and playgrounds of one's own.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Stdio,
};

use serde_json::{Value, json};

use crate::support::{Ending, World, eventually, free_port, labs::Instead, schema, terminal::OnTerminal};

const DOCKER: &str = "Container runtime=docker";

/// A playground of one's own, made by another client. Returns its name.
fn own(world: &World, wish: Value) -> String {
    world.call("POST", "/playgrounds", &wish)["name"].as_str().unwrap().to_owned()
}

fn id_of(play: &Value) -> &str {
    play["id"].as_str().unwrap()
}

fn choices(world: &World, id: &str) -> Value {
    world.play(id)["initConditions"].clone()
}

#[test]
fn choices_are_checked_before_anything_is_started() {
    let world = World::with_platform(&[]);
    let play = world.json(&["start", "choices", "-i", "Team=blue", "--init-condition", DOCKER, "--json"]);
    schema::check("playground", &play);
    assert_eq!(choices(&world, id_of(&play)), json!({ "Container runtime": "docker", "Team": "blue" }));
    let runtime = world.machine_home(id_of(&play), "work-01").join("runtime");
    assert_eq!(fs::read_to_string(runtime).unwrap(), "docker\n");
    for (arguments, words) in [
        (&["choices"][..], "playground choices needs a value for `Team`\nhint: add -i Team=blue\n"),
        (&["choices", "-i", "Team="], "needs a value for `Team`"),
        (&["choices", "-i", "team=blue"], "has no choice `team`\nhint: did you mean `Team`?"),
        (&["choices", "-i", "Team=blue", "-i", "Container runtime=podman"], "there are containerd, docker, CRI-O"),
        (&["choices", "-i", "Team=Blue!"], "it must match ^[a-z][a-z0-9-]{1,19}$"),
        (&["choices", "--ask"], "leave out --ask, and name them: -i \"Container runtime=containerd\" -i Team=blue"),
        (&["choices", "-i", "Team"], "write KEY=VALUE"),
        (&["shell", "-i", "Team=blue"], "leave out -i: its start has no choices"),
        (&[id_of(&play), "-i", "Team=red"], "was started before, and its choices were made then"),
    ] {
        let said = world.local(&[&["start"], arguments].concat()).failed(2);
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    assert_eq!(world.plays(), 1, "nothing else was started");
    // By its host name, an existing one needs no choices any more.
    assert_eq!(world.json(&["start", "playground-choices", "--json"])["id"], play["id"]);
    // With choices, another one is meant.
    let another = world.json(&["start", "playground-choices", "-i", "Team=red", "--json"]);
    assert_ne!(another["id"], play["id"]);
    assert_eq!(choices(&world, id_of(&another)), json!({ "Container runtime": "containerd", "Team": "red" }));
}

#[test]
fn a_connection_starts_with_the_defaults_or_names_the_command_that_chooses() {
    let mut world = World::with_platform(&[]);
    world.configure();
    let said = world.ssh(&["playground-choices", "true"]);
    assert!(said.err.contains("playground choices needs a value for `Team`"), "{said:?}");
    assert!(said.err.contains("`labctl-ssh-proxy --local start choices -i Team=blue`"), "{said:?}");
    let said = world.local(&["ssh", "choices"]).failed(4);
    assert!(said.contains("choices"), "{said}");
    assert!(world.local(&["ssh", "playground-choices"]).failed(6).contains("start choices -i Team=blue"));
    assert_eq!(world.plays(), 0);
    let conditions = json!({ "values": [{ "key": "Size", "default": "small", "options": ["small", "large"] }] });
    let name = own(&world, json!({ "name": "sized", "base": "shell", "initConditions": conditions }));
    world.local(&["config-ssh", "--yes"]).ok();
    assert_eq!(world.ssh(&[&format!("playground-{name}"), "echo in"]).ok(), "in\n");
    let id = world.json(&["list", "--json"])[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(choices(&world, &id), json!({ "Size": "small" }));
}

#[test]
fn a_terminal_is_asked_for_choices() {
    let world = World::with_platform(&[]);
    let mut start = OnTerminal::of_ours(&world, &["start", "choices", "--ask"]);
    start.expect("   2  docker\r\n   3  CRI-O\r\nA number or a value [containerd]: ");
    start.type_in("3\n");
    start.expect("Team, such as blue: ");
    start.type_in("Blue!\n");
    start.expect("`Blue!` is no value of Team: it must match");
    start.expect("Team, such as blue: ");
    start.type_in("red\n");
    start.expect("(Enter for none): ");
    start.type_in("\n");
    start.expect("is running");
    assert_eq!(start.code(), Some(0));
    let id = world.json(&["list", "--json"])[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(choices(&world, &id), json!({ "Container runtime": "CRI-O", "Team": "red" }));

    // Without --ask, only what has no default.
    let mut start = OnTerminal::of_ours(&world, &["start", "choices", "-i", DOCKER]);
    start.expect("Team, such as blue: ");
    assert!(!start.seen.contains("Container"), "{}", start.seen);
    start.type_in("\x04");
    start.expect("Nothing was started.");
    assert_eq!(start.code(), Some(15));
    let mut start = OnTerminal::of_ours(&world, &["--no-input", "start", "choices"]);
    start.expect("add -i Team=blue");
    assert_eq!(start.code(), Some(2));
    assert_eq!(world.plays(), 1);
}

const MANIFEST: &str = "\
kind: playground
name: of-no-such-name
base: duo
playground:
  machines:
  - name: web
    kernel: old
    users:
    - {name: laborant, default: true, welcome: Hello}
  - name: judge
    noSSH: true
  tabs:
  - {kind: terminal, name: t, machine: web}
  networks:
  - {name: lan, subnet: 10.0.0.0/24}
  initTasks:
    hello: {init: true, machine: web, user: root, run: touch hello}
";

#[test]
fn a_manifest_brings_machines_and_tasks_along() {
    let world = World::with_platform(&[]);
    fs::write(world.path("m.yaml"), MANIFEST).unwrap();
    let start = |arguments: &[&str]| world.json(&[&["start", "--json"], arguments].concat());
    for (play, name) in [(start(&["shell", "-f", "m.yaml"]), "shell"), (start(&["--file", "m.yaml"]), "duo")] {
        assert_eq!(play["playground"]["name"], name);
        let machines: Vec<&Value> = play["machines"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
        assert_eq!(machines, ["web", "judge"]);
        assert_eq!((&play["machines"][1]["ssh"], &play["initTasks"]["done"]), (&json!(false), &json!(1)));
        assert!(world.machine_home(id_of(&play), "web").join("hello").exists());
        let user = play["machines"][0]["users"].as_array().unwrap().iter().find(|user| user["default"] == true);
        assert_eq!(user.unwrap()["name"], "laborant");
        assert_eq!(world.local(&["ssh", id_of(&play), "--", "ls hello"]).ok(), "hello\n");
        let shown = world.play(id_of(&play));
        assert_eq!(shown["playground"]["networks"][0]["subnet"], "10.0.0.0/24");
    }
    let piped =
        world.feed(world.command(&["--local"]).args(["start", "shell", "-f", "-", "--json"]), MANIFEST.as_bytes());
    assert_eq!(serde_json::from_slice::<Value>(&piped.stdout).unwrap()["machines"][0]["name"], "web");
    let plays = world.plays();
    for (text, code, words) in [
        (
            &MANIFEST.replace("  machines:\n  - name: web\n", "  machines:\n    name: web\n")[..],
            2,
            "m.yaml is not a playground's manifest: line 6, column 5",
        ),
        (&MANIFEST.replace("kind: playground", "kind: challenge"), 2, "its kind is `challenge`"),
        (&MANIFEST.replace("base: duo\n", ""), 4, "is called `of-no-such-name`"),
        (&MANIFEST.replace("name: judge", "name: web"), 6, "two machines are called web"),
    ] {
        fs::write(world.path("m.yaml"), text).unwrap();
        let said = world.local(&["start", "-f", "m.yaml"]).failed(code);
        assert!(said.contains(words), "{said}");
    }
    assert!(world.local(&["start", "-f", "none.yaml"]).failed(13).contains("none.yaml"));
    assert!(world.local(&["start"]).failed(2).contains("PLAYGROUND"));
    assert_eq!(world.plays(), plays, "nothing else was started");
}

#[test]
fn ones_own_are_listed_shown_started_and_completed() {
    let world = World::with_platform(&[]);
    assert!(world.local(&["catalog", "-f", "my-custom"]).ok().contains("no playgrounds of your own"));
    let name = own(&world, json!({ "name": "mine", "base": "duo", "title": "My Own" }));
    let table = world.local(&["catalog"]).ok();
    let row = table.lines().find(|line| line.starts_with(&name)).unwrap();
    assert!(row.contains("My Own") && row.contains("you"), "{row}");
    let names = |arguments: &[&str]| world.local(&[&["catalog", "--quiet"], arguments].concat()).ok();
    assert!(names(&[]).lines().any(|line| line == name) && names(&[]).lines().any(|line| line == "shell"));
    assert_eq!(names(&["--filter", "my-custom"]).trim(), name);
    assert!(!names(&["--filter", "base"]).contains(&name));
    assert_eq!(names(&["--filter", "community"]), "");
    let all = world.json(&["catalog", "--json"]);
    schema::check("catalog", &all);
    let one = world.json(&["catalog", "choices", "--json"]);
    schema::check("entry", &one);
    assert_eq!(one["initConditions"]["values"][0]["options"], json!(["containerd", "docker", "CRI-O"]));
    let shown = world.local(&["catalog", "choices"]).ok();
    for part in ["containerd, docker, CRI-O", "(needed)", "work-01", "start choices -i Team=blue"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(world.local(&["catalog", "choises"]).failed(4).contains("did you mean `choices`?"));
    assert!(
        world.local(&["start", "mine"]).failed(4).contains(&format!("did you mean `{name}`?")),
        "one's own may be meant, too"
    );

    // No question, and consent is sent: one is one's own author.
    let play = world.json(&["start", &name, "--json"]);
    assert_eq!(play["playground"]["owner"], "local");
    let record = world.root().join("local/plays").join(id_of(&play)).join("play.json");
    assert!(fs::read_to_string(record).unwrap().contains(r#""safetyDisclaimerConsent": true"#));
    assert_eq!(names(&["-f", "recent"]).trim(), name);
    let line = format!("labctl-ssh-proxy --local start {}", &name[..6]);
    assert_eq!(crate::completions::bash(&world, &line), [name.as_str()]);
    assert_eq!(crate::completions::bash(&world, "labctl-ssh-proxy --local catalog cho"), ["choices"]);
    let choices = ["containerd", "docker", "CRI-O"].map(|runtime| format!("Container runtime={runtime}"));
    assert_eq!(crate::completions::fish(&world, "labctl-ssh-proxy --local start choices -i Con"), choices);
    assert_eq!(crate::completions::bash(&world, "labctl-ssh-proxy --local start choices -i Te"), ["Team\\="]);
}

#[test]
fn saved_port_forwards_are_carried_after_a_start() {
    let world = World::with_platform(&[]);
    let said = world.local(&["start", "shell", "--with-port-forwards"]);
    assert!(said.err.contains("has no saved port forwards."), "{said:?}");
    let _ = said.ok();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = free_port;
    let (here, there) = (free(), server.local_addr().unwrap().port());
    let forward = json!({ "kind": "local", "machine": "shell-01", "localPort": here, "remotePort": there });
    let name = own(&world, json!({ "name": "web", "base": "shell", "portForwards": [forward] }));
    let carries = |arguments: &[&str]| {
        let mut command = world.command(&["--local"]);
        let child = command.args(arguments).arg("--with-port-forwards").stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = Ending(child.spawn().unwrap());
        eventually("a connection through the forward", || {
            let Ok(mut client) = TcpStream::connect(("127.0.0.1", here)) else { return false };
            let (mut far, _) = server.accept().unwrap();
            far.write_all(b"hello").unwrap();
            drop(far);
            let mut said = String::new();
            client.read_to_string(&mut said).unwrap();
            said == "hello"
        });
        let pid = rustix::process::Pid::from_child(&child.0);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        assert_eq!(child.0.wait().unwrap().code(), Some(130));
    };
    carries(&["start", &name]);
    let id = world.json(&["list", "--json"])[0]["id"].as_str().unwrap().to_owned();
    carries(&["restart", &id]);
    for more in ["--json", "--ssh", "--no-wait"] {
        assert!(
            world.local(&["start", "shell", "--with-port-forwards", more]).failed(2).contains("cannot be used with")
        );
    }
}

/// The platform may keep the choices for the long form of an entry, and one's own need no consent there either.
#[test]
fn a_hosted_platform_gets_the_choices_once() {
    let (world, labs) = crate::hosted::hosted();
    let conditions = json!({ "values": [{ "key": "K8s version", "default": "1.30", "options": ["1.30", "1.31"] },
                                        { "key": "Name", "nullable": true }] });
    let entry = |more: Value| {
        let mut entry = json!({ "id": "x", "owner": "u1", "name": "docker", "title": "D", "machines": null });
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry.to_string()
    };
    labs.instead("GET /api/playgrounds/docker", 200, &entry(json!({ "initConditions": null })));
    labs.instead("GET /api/playgrounds/docker?format=extended", 200, &entry(json!({ "initConditions": conditions })));
    let sent = || labs.seen().into_iter().rfind(|seen| seen.line == "POST /api/plays").unwrap().body;
    let start = ["start", "docker", "--no-wait"];
    let _ = world.run(&[&start[..], &["-i", "K8s version=1.31"]].concat()).ok();
    let expected = json!({ "playground": "docker", "safetyDisclaimerConsent": true,
                           "initConditions": { "K8s version": "1.31" } });
    assert_eq!(sent(), expected);
    let said = world.run(&[&start[..], &["-i", "K8s version=1.32"]].concat()).failed(2);
    assert!(said.contains("there are 1.30, 1.31"), "{said}");
    // Its answer is lost, and the choices are not sent twice.
    labs.forget_seen();
    labs.answer(Instead::of("POST /api/plays", 504, "").once().done());
    let _ = world.run(&start).ok();
    assert_eq!(labs.seen().iter().filter(|seen| seen.line == "POST /api/plays").count(), 1);
    assert_eq!(sent()["initConditions"], json!({ "K8s version": "1.30" }), "the default is sent");
    // The long form is refused, so the platform is the judge.
    labs.instead("GET /api/playgrounds/docker?format=extended", 403, "not yours to read");
    let _ = world.run(&[&start[..], &["-i", "Anything=goes"]].concat()).ok();
    assert_eq!(sent()["initConditions"], json!({ "Anything": "goes" }));
}
