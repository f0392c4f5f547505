//! `ports`, `expose` and `unexpose`: with real servers on the embedded platform, and against a platform whose answers are
//! lost.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::support::{
    Ending, Said, World, eventually,
    labs::{CUT, ID, Instead, Labs, PLAIN},
    schema,
};

/// Starts an HTTP server on the machine `host`, at `address` there. Returns it with its port.
fn serve(world: &World, host: &str, address: &str) -> (Ending, u16) {
    let script = format!(
        "import http.server; s = http.server.HTTPServer((\"{address}\", 0), http.server.SimpleHTTPRequestHandler); \
         print(s.server_port, flush=True); s.serve_forever()"
    );
    let mut ssh = world.ssh_program("ssh");
    let mut child = ssh
        .args([host, &format!("exec python3 -c '{script}'")])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port = line.trim().parse().unwrap_or_else(|e| panic!("{e}: {line:?}"));
    (Ending(child), port)
}

fn survey(world: &World, args: &[&str]) -> Value {
    let found = world.json(&[&["ports", "--json"], args].concat());
    schema::check("ports", &found);
    found
}

/// The row of a port.
fn port(survey: &Value, number: u16) -> Option<Value> {
    survey["ports"].as_array().unwrap().iter().find(|port| port["number"] == number).cloned()
}

/// Runs a `port-forward` until it is ready.
fn forward(world: &World, args: &[&str]) -> (Ending, Vec<Value>, impl Sized + use<>) {
    let mut command = world.command(&["--local", "port-forward", "--json"]);
    let mut child = Ending(command.args(args).stdout(Stdio::piped()).spawn().unwrap());
    let mut events = Vec::new();
    // It ends when its reader is gone.
    let mut said = BufReader::new(child.0.stdout.take().unwrap()).lines();
    loop {
        let event: Value = serde_json::from_str(&said.next().expect("it goes on").unwrap()).unwrap();
        if event["event"] == "ready" {
            return (child, events, said);
        }
        events.push(event);
    }
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "the embedded platform scans on Linux only")]
fn one_list_has_what_listens_is_exposed_forwarded_and_saved() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("duo");
    let (second, host) = (format!("playground-{id}.node-02"), format!("playground-{id}.node-01"));
    let (one, number) = serve(&world, &host, "0.0.0.0");
    let (_two, other) = serve(&world, &second, "127.0.0.1");
    let found = survey(&world, &[&id]);
    assert_eq!((&found["playground"], &found["host"]), (&json!(id), &json!(format!("playground-{id}"))));
    assert_eq!((&found["problems"], &found["shells"]), (&json!([]), &json!([])));
    let row = port(&found, number).unwrap();
    assert_eq!(
        (&row["machine"], &row["listening"], &row["protocol"]),
        (&json!("node-01"), &json!(true), &json!("http"))
    );
    assert_eq!(port(&found, other).unwrap()["machine"], "node-02");
    let loopback = |row: Option<Value>| row.unwrap()["loopbackOnly"].clone();
    assert_eq!([number, other].map(|number| loopback(port(&found, number))), [json!(false), json!(true)]);
    // One machine, named in either way.
    for args in [&[&second[..]][..], &[&id, "--machine", "node-02"]] {
        let found = survey(&world, args);
        assert_eq!(found["ports"].as_array().unwrap().len(), 1, "{found}");
        assert!(port(&found, other).is_some());
    }

    let said = world.local(&["expose", &second, &other.to_string()]);
    assert!(said.err.contains("listens on the loopback interface only, which is enough on this computer"), "{said:?}");
    world.local(&["unexpose", &id, &other.to_string()]).ok();
    let exposed = world.json(&["expose", &host, &number.to_string(), "--json"]);
    schema::check("exposedPort", &exposed);
    let spec = format!("0:localhost:{number}");
    let (mut forwarding, events, _said) = forward(&world, &[&host, "-L", &spec, "--save"]);
    let row = port(&survey(&world, &[&id]), number).unwrap();
    assert_eq!(
        row["exposed"],
        json!([{ "id": exposed["id"], "url": exposed["url"], "access": "private", "tls": false }])
    );
    assert_eq!(row["forwards"], json!([{ "local": events[0]["address"], "pid": forwarding.0.id() }]));
    assert_eq!(row["saved"], json!([{ "index": 0, "local": "127.0.0.1:0" }]));

    // A process that is killed leaves nothing.
    forwarding.0.kill().unwrap();
    forwarding.0.wait().unwrap();
    assert_eq!(port(&survey(&world, &[&id]), number).unwrap()["forwards"], json!([]));
    drop(one);
    eventually("the server has gone", || port(&survey(&world, &[&id]), number).unwrap()["listening"] == false);
    // Of a stopped playground, the saved and the exposed ones are known.
    world.local(&["stop", &id]).ok();
    let found = survey(&world, &[&id]);
    let row = port(&found, number).unwrap();
    assert_eq!((&row["listening"], row["exposed"].as_array().unwrap().len()), (&json!(false), 1), "{found}");
    assert_eq!(found["problems"], json!([]));
}

#[test]
fn a_forward_that_ends_leaves_no_record() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("shell");
    let (mut forwarding, _, _said) = forward(&world, &[&id, "-L", "0:localhost:8080", "-R", "0:localhost:8081"]);
    let found = survey(&world, &[&id]);
    let numbers: Vec<&Value> = found["ports"].as_array().unwrap().iter().map(|port| &port["number"]).collect();
    assert_eq!(numbers, [&json!(8080)], "the other one leads from the machine to this computer");
    let pid = forwarding.0.id().to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
    assert_eq!(forwarding.0.wait().unwrap().code(), Some(143));
    assert_eq!(survey(&world, &[&id])["ports"], json!([]));
    assert_eq!(std::fs::read_dir(world.root().join("forwards")).unwrap().count(), 0);
    let nothing = world.local(&["ports", &id]).ok();
    assert!(nothing.starts_with("Nothing listens on "), "{nothing}");
}

#[test]
fn a_port_is_exposed_once_and_hidden_again() {
    let mut world = World::with_platform(&[]);
    let id = world.playground("duo");
    let count = || world.call("GET", &format!("/plays/{id}/ports"), &Value::Null).as_array().unwrap().len();
    let expose = |more: &[&str]| world.local(&[&["expose", &id], more].concat());
    let said = expose(&["8080", "--host-rewrite", "a.example.org"]);
    assert!(said.err.contains("nothing listens on port 8080 of machine node-01"), "{said:?}");
    let url = said.ok();
    assert!(url.contains("node-01 of duo") && url.ends_with("to you alone: http://localhost:8080\n"), "{url}");
    let again = expose(&["8080", "--host-rewrite", "a.example.org"]).ok();
    assert!(again.contains("already") && again.contains("http://localhost:8080"), "{again}");
    assert_eq!(count(), 1);
    // With other options it is refused, and the hint works when it is copied.
    let refused = expose(&["8080"]).failed(6);
    assert!(refused.contains("(private, with --host-rewrite a.example.org)"), "{refused}");
    assert_eq!(count(), 1);
    let hint = refused.split('`').nth(1).unwrap();
    let words: Vec<&str> = hint.split(' ').skip(1).collect();
    let removed = world.run(&words).ok();
    assert!(removed.starts_with("Port 8080 of machine node-01 of duo"), "{removed}");
    assert_eq!(count(), 0);
    let found = expose(&["8080", "--public", "--yes", "--tls", "--json"]).ok();
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(
        (&found["access"], &found["tls"], &found["machine"]),
        (&json!("public"), &json!(true), &json!("node-01"))
    );

    // The same number on two machines is ambiguous.
    let other = world.json(&["expose", &id, "8080", "--machine", "node-02", "--json"]);
    let ambiguous = world.local(&["unexpose", &id, "8080"]).failed(5);
    assert!(ambiguous.contains("port 8080 of machine node-02") && ambiguous.contains(other["id"].as_str().unwrap()));
    let removed = world.json(&["unexpose", &format!("playground-{id}.node-02"), "8080", "--json"]);
    schema::check("exposedPort", &removed);
    assert_eq!(removed["id"], other["id"]);
    world.local(&["unexpose", &id, found["url"].as_str().unwrap()]).ok();
    assert_eq!(count(), 0);
    world.local(&["unexpose", &id, "8080"]).failed(4);
    for wrong in ["0", "65536", "http"] {
        expose(&[wrong]).failed(2);
    }
    // A refusal in words.
    let shell = expose(&["--shell"]).failed(6);
    assert!(shell.contains("no web terminals: use ssh instead"), "{shell}");
}

/// A platform, and a scan that finds port 8080.
fn hosted() -> (World, Labs) {
    let world = World::empty();
    let labs = Labs::start(&world, PLAIN);
    labs.listens_on(&[8080]);
    (world, labs)
}

fn expose(world: &World, more: &[&str]) -> Said {
    world.run(&[&["expose", ID], more].concat())
}

#[test]
fn a_lost_answer_about_a_port_that_was_exposed_ends_in_one_port() {
    let (world, labs) = hosted();
    let post = format!("POST /api/plays/{ID}/ports");
    for (status, body) in [(504, ""), (502, "bad gateway"), (CUT, ""), (200, "<html>what is this"), (200, "{}")] {
        labs.answer(Instead { body_has: "8080", ..Instead::of(&post, status, body).once().done() });
        labs.forget_seen();
        let said = expose(&world, &["8080"]).ok();
        let url = labs.ports()[0]["url"].as_str().unwrap().to_owned();
        assert!(said.contains("you alone") && said.trim_end().ends_with(&url), "{status}: {said}");
        assert_eq!((labs.ports().len(), labs.count(&format!("{post} "))), (1, 0), "{status}");
        let posts = labs.seen().iter().filter(|seen| seen.line == post).count();
        assert_eq!(posts, 1, "{status}: it is never sent twice");
        world.run(&["unexpose", ID, "8080"]).ok();
    }
    // One that was there before is not taken for it.
    expose(&world, &["8080"]).ok();
    labs.answer(Instead { body_has: "9090", ..Instead::of(&post, 504, "").once() });
    let unknown = expose(&world, &["9090"]).failed(9);
    assert!(unknown.contains("it is not known whether port 9090 of Ada's box was exposed"), "{unknown}");
    assert!(unknown.contains(&format!("`labctl-ssh-proxy ports {ID}`")), "{unknown}");
    assert_eq!(labs.ports().len(), 1);
}

#[test]
fn a_port_that_another_client_has_exposed_meanwhile_is_that_port() {
    let (world, labs) = hosted();
    let post = format!("POST /api/plays/{ID}/ports");
    labs.answer(Instead { body_has: "8080", ..Instead::of(&post, 409, "exposed already").once().done() });
    assert!(expose(&world, &["8080"]).ok().contains("node.example.org"));
    assert_eq!(labs.ports().len(), 1);
    // A conflict about anything else is what the platform says.
    labs.answer(Instead { body_has: "9090", ..Instead::of(&post, 409, "too many ports").once() });
    let refused = expose(&world, &["9090"]).failed(6);
    assert!(refused.contains("too many ports"), "{refused}");
}

#[test]
fn a_lost_answer_about_a_port_that_was_hidden_is_a_success() {
    let (world, labs) = hosted();
    for status in [504, 502, CUT] {
        expose(&world, &["8080"]).ok();
        labs.answer(Instead::of(&format!("DELETE /api/plays/{ID}/ports"), status, "").once().done());
        world.run(&["unexpose", ID, "8080"]).ok();
        assert_eq!(labs.ports().len(), 0, "{status}");
    }
    expose(&world, &["8080"]).ok();
    labs.answer(Instead::of(&format!("DELETE /api/plays/{ID}/ports"), 502, "").once());
    world.run(&["unexpose", ID, "8080"]).failed(11);
    assert_eq!(labs.ports().len(), 1);
}

#[test]
fn a_web_terminal_is_made_once_for_each_user_and_never_public() {
    let (world, labs) = hosted();
    let shell = |more: &[&str]| expose(&world, &[&["--shell"], more].concat());
    let said = shell(&["--public"]).failed(2);
    assert!(said.contains("never public"), "{said}");
    let post = format!("POST /api/plays/{ID}/shells");
    labs.answer(Instead::of(&post, 504, "").once().done());
    let said = shell(&[]).ok();
    assert!(said.contains("on machine docker-01 of Ada's box") && said.contains("https://"), "{said}");
    assert!(shell(&[]).ok().contains("already there"));
    assert_eq!(labs.shells().len(), 1);
    let default = crate::support::labs::user();
    // The tests may be run by root.
    let other = if default == "root" { "laborant" } else { "root" };
    labs.edit(ID, |play| play["machines"][0]["users"].as_array_mut().unwrap().push(json!({ "name": "laborant" })));
    let made: Value = serde_json::from_str(&shell(&["--user", other, "--json"]).ok()).unwrap();
    schema::check("exposedShell", &made);
    assert!(labs.shells().iter().all(|shell| shell["access"] == "private"), "{:?}", labs.shells());
    assert_eq!((&made["user"], labs.shells().len()), (&json!(other), 2));
    let sent = labs.seen().into_iter().filter(|seen| seen.line == post).map(|seen| seen.body["user"].clone());
    assert_eq!(sent.collect::<Vec<_>>(), [json!(default), json!(other)]);
    let removed = world.run(&["unexpose", ID, made["url"].as_str().unwrap()]).ok();
    assert!(removed.starts_with(&format!("The web terminal of {other} on machine docker-01")), "{removed}");
    assert_eq!(labs.shells().len(), 1);
    shell(&["--user", "mallory"]).failed(4);
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "the embedded platform scans on Linux only")]
fn the_machine_says_where_its_servers_listen() {
    let (world, labs) = hosted();
    // Behind its tunnels, the machine is this computer, with a real sshd.
    let [local, open] = ["127.0.0.1:0", "0.0.0.0:0"].map(|address| std::net::TcpListener::bind(address).unwrap());
    let [local, open] = [local, open].map(|server| (server.local_addr().unwrap().port(), server));
    labs.listens_on(&[22, local.0, open.0]);
    let survey = || -> Value { serde_json::from_str(&world.run(&["ports", ID, "--json"]).ok()).unwrap() };
    let loopback = |found: &Value, number| port(found, number).unwrap()["loopbackOnly"].clone();
    let tunnels = format!("POST /api/plays/{ID}/tunnels");
    // Without a key that is there already, it is not known.
    assert_eq!((loopback(&survey(), local.0), labs.count(&tunnels)), (Value::Null, 0));
    world.run(&["config-ssh", "--yes"]).ok();
    labs.forget_seen();
    for _ in 0..2 {
        let found = survey();
        assert_eq!((loopback(&found, local.0), loopback(&found, open.0)), (json!(true), json!(false)), "{found}");
        assert_eq!(loopback(&found, 22), Value::Null);
    }
    let said = expose(&world, &[&local.0.to_string()]);
    assert!(said.err.contains("where the platform does not reach it: the server must listen on the machine's main"));
    assert!(expose(&world, &[&open.0.to_string()]).err.is_empty());
    assert_eq!(labs.count(&tunnels), 1, "one tunnel session serves them all");
    // A part that fails costs only itself.
    labs.edit(ID, |play| play["machines"][0]["noSSH"] = json!(true));
    assert_eq!(loopback(&survey(), local.0), Value::Null);
    assert!(survey()["problems"].as_array().unwrap().is_empty());
    assert_eq!(labs.count(&tunnels), 1);
}

#[test]
fn the_options_travel_as_the_official_client_sends_them() {
    let (world, labs) = hosted();
    let options = ["--public", "--yes", "--tls", "--host-rewrite", "a.example.org", "--path-rewrite", "/app"];
    let said = expose(&world, &[&["8080"], &options[..]].concat());
    assert!(said.err.is_empty(), "{said:?}");
    assert!(said.ok().contains("exposed to everyone: https://"));
    expose(&world, &["9090"]).ok();
    let bodies: Vec<Value> = labs
        .seen()
        .into_iter()
        .filter(|seen| seen.line.ends_with("/ports") && seen.line.starts_with("POST"))
        .map(|seen| seen.body)
        .collect();
    assert_eq!(
        bodies,
        [
            json!({ "machine": "docker-01", "number": 8080, "access": "public", "tls": true,
                "hostRewrite": "a.example.org", "pathRewrite": "/app" }),
            json!({ "machine": "docker-01", "number": 9090, "access": "private" }),
        ]
    );
    assert_eq!(labs.count(&format!("POST /api/plays/{ID}/tunnels")), 0, "no tunnel is needed");
}
