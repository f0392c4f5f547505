//! Behaviour of the hosted platform that the embedded one lacks. A stand-in on the network answers as the official
//! clients show: in milliseconds, with nulls and empty bodies, rate limits, lost answers and machines without SSH. Each
//! test covers a former error of this program that its own platform did not reveal.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::{
    Ending, World, eventually,
    labs::{ID, Instead, Labs, PLAIN, enter, play, user},
    schema,
};

const PLAY: &str = "/api/plays/0123456789abcdef01234567";

pub fn hosted() -> (World, Labs) {
    let world = World::empty();
    let labs = Labs::start(&world, PLAIN);
    (world, labs)
}

fn line(method: &str, below: &str) -> String {
    format!("{method} {PLAY}{below}")
}

fn host() -> String {
    format!("playground-{ID}")
}

/// Adds a second machine to the play, in this state.
fn second_machine(labs: &Labs, name: &str, ready: bool) {
    labs.edit(ID, |play| {
        play["machines"].as_array_mut().unwrap().push(json!({ "name": name, "users": null, "resources": null }));
        play["status"]["machines"].as_array_mut().unwrap().push(json!({ "name": name, "state": "RUNNING",
            "conditions": if ready { json!([{ "name": "Ready", "status": "True" }]) } else { Value::Null } }));
    });
}

#[test]
fn an_odd_user_name_costs_only_its_own_entry() {
    let (world, labs) = hosted();
    second_machine(&labs, "odd", true);
    second_machine(&labs, "node-03", true);
    labs.edit(ID, |play| {
        let machine = play["machines"].as_array_mut().unwrap().iter_mut().find(|machine| machine["name"] == "odd");
        machine.unwrap()["users"] = json!([{ "name": "ada@corp.example", "default": true }]);
    });
    let said = world.run(&["config-ssh", "--yes"]);
    assert!(said.err.contains(&format!("{}.odd", host())) && said.err.contains("ada@corp.example"), "{said:?}");
    let _ = said.ok();
    let entries = world.entries();
    assert!(entries.contains(&format!("Host {}\n", host())) && entries.contains(".node-03\n"), "{entries}");
    assert!(!entries.contains("odd"), "{entries}");
    let said = world.run(&["list"]);
    assert!(!said.err.contains("not up to date"), "{said:?}");
    for args in [&["config-zed", "--yes"][..], &["config-jetbrains", "--yes", "--file", "sshConfigs.xml"]] {
        let said = world.run(args);
        assert!(!said.err.contains("is not a user name") || said.err.contains("left out"), "{said:?}");
    }
}

#[test]
fn one_playground_that_cannot_be_read_does_not_hide_the_others() {
    let (world, labs) = hosted();
    labs.edit(ID, |play| play["title"] = json!("seen"));
    labs.add(json!({ "id": "fedcba9876543210fedcba98", "title": 5 }));
    let said = world.run(&["list"]).ok();
    assert!(said.contains("seen"), "{said}");
}

#[test]
fn times_are_milliseconds() {
    let (world, labs) = hosted();
    labs.edit(ID, |play| play["expiresIn"] = json!((7 * 60 + 55) * 60_000 + 30_000));
    let list = world.run(&["list"]).ok();
    assert!(list.contains("7h55m"), "{list}");
    let json: Value = serde_json::from_str(&world.run(&["list", "--json"]).ok()).unwrap();
    assert_eq!(json[0]["expiresIn"], (7 * 60 + 55) * 60 + 30, "ours are seconds");
}

#[test]
fn an_extension_adds_to_the_whole_time_and_needs_no_clock() {
    let (world, labs) = hosted();
    let asked = || labs.seen().iter().rfind(|seen| seen.line.ends_with("/actions")).unwrap().body.clone();
    let said = world.run(&["extend", ID, "60"]).ok();
    assert_eq!(asked()["maxPlayTimeMinutes"], 540, "8 hours and one");
    assert!(said.contains("3h more"), "{said}");
    // Without a lifetime in the answer, compute it from the elapsed and the remaining time by the platform's clock.
    for odd in [Value::Null, json!("a while"), json!("0s"), json!(28_800_000)] {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let hour_ago = jiff::Timestamp::from_second(i64::try_from(now).unwrap() - 3600).unwrap().to_string();
        labs.edit(ID, |play| {
            play["maxPlayTime"] = odd.clone();
            play["expiresIn"] = json!(3_600_000);
            play["createdAt"] = json!(hour_ago);
            play["status"]["stateEvents"] = json!([{ "state": "RUNNING", "at": hour_ago }]);
        });
        let _ = world.run(&["extend", ID, "60"]);
        let minutes = asked()["maxPlayTimeMinutes"].as_u64().unwrap();
        assert!((180..=181).contains(&minutes), "{odd}: {minutes}");
    }
    // If the platform grants less, the command reports the granted time and fails.
    labs.edit(ID, |play| play["maxPlayTime"] = json!("8h0m0s"));
    labs.instead(&line("POST", "/actions"), 200, "{}");
    assert!(world.run(&["extend", ID, "60"]).failed(6).contains("run only"));
}

/// The platform carries it out, and a gateway answers 504 in its place: another request could reboot it twice.
#[test]
fn an_action_on_a_machine_whose_answer_is_lost_is_asked_for_once() {
    let (world, labs) = hosted();
    let machine = |state: &str, since: &str| {
        labs.edit(ID, |play| {
            let machine = &mut play["status"]["machines"][0];
            machine["state"] = json!(state);
            machine["conditions"][0]["status"] = json!(if state == "RUNNING" { "True" } else { "False" });
            machine["conditions"][0]["lastTransitionAt"] = json!(since);
        });
    };
    let actions = line("POST", "/actions");
    labs.instead(&actions, 504, "<html>504</html>");
    for (action, words) in [("reboot", "has rebooted"), ("stop", "is stopped")] {
        let before = labs.count(&actions);
        let mut command = world.command(&["machine", action, ID]);
        let command = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let child = command.spawn().unwrap();
        eventually("it is asked for", || labs.count(&actions) > before);
        match action {
            // The state in between passes unseen.
            "reboot" => machine("RUNNING", "2026-11-22T13:00:00Z"),
            _ => machine("STOPPED", "2026-11-22T14:00:00Z"),
        }
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains(words), "{output:?}");
        assert_eq!(labs.count(&actions), before + 1);
    }
    let record: Value =
        serde_json::from_slice(&std::fs::read(world.root().join(format!("memory/{ID}.json"))).unwrap()).unwrap();
    assert!(record["machines"]["docker-01"]["stopped"].is_u64(), "{record}");
    // A refusal is final, and so is a machine that another client has stopped meanwhile.
    machine("RUNNING", "2026-11-22T15:00:00Z");
    labs.instead(&actions, 409, "it is busy");
    let refused = world.run(&["machine", "reboot", ID]).failed(6);
    assert!(refused.contains("it is busy"), "{refused}");
    machine("STOPPING", "2026-11-22T15:00:00Z");
    let mut command = world.command(&["machine", "stop", ID]);
    let mut child = Ending(command.stdout(std::process::Stdio::null()).spawn().unwrap());
    let asked = labs.count(&actions);
    let looked = labs.count(&line("GET", ""));
    eventually("it looks", || labs.count(&line("GET", "")) > looked + 2);
    machine("STOPPED", "2026-11-22T16:00:00Z");
    assert!(child.0.wait().unwrap().success());
    assert_eq!(labs.count(&actions), asked, "it ends by itself");
}

#[test]
fn an_end_erases_what_nobody_keeps_and_the_warning_says_so() {
    for kept in [false, true] {
        let (world, labs) = hosted();
        labs.edit(ID, |play| play["expiresIn"] = json!(240_000));
        if !kept {
            labs.instead("GET /api/plays?persistent=true", 200, "[]");
        }
        let list: Value = serde_json::from_str(&world.run(&["list", "--json"]).ok()).unwrap();
        assert_eq!(list[0]["persistent"], kept);
        let _ = world.run(&["config-ssh", "--yes"]).ok();
        let _session = Ending(world.ssh_program("ssh").args([&host(), "sleep 100"]).spawn().unwrap());
        let mut message = String::new();
        eventually("the status warns", || {
            let list: Value = serde_json::from_str(&world.run(&["list", "--json"]).ok()).unwrap();
            message = list[0]["connections"][0]["message"].as_str().unwrap_or_default().to_owned();
            !message.is_empty()
        });
        assert!(message.starts_with("Ada's box"), "{message}");
        assert_eq!(message.contains("will be erased in"), !kept, "{message}");
        assert_eq!(message.contains(&format!("keep it with `labctl-ssh-proxy persist {ID}`")), !kept, "{message}");
        assert!(message.contains("extend"), "{message}");
    }
}

#[test]
fn a_machine_without_ssh_fails_nothing_and_has_no_entry() {
    for told_by_the_catalogue in [true, false] {
        let (world, labs) = hosted();
        second_machine(&labs, "verifier", false);
        if told_by_the_catalogue {
            let entry = json!({ "name": "docker", "machines": [
                { "name": "docker-01", "users": null }, { "name": "verifier", "noSSH": true }] });
            labs.instead("GET /api/playgrounds/docker", 200, &entry.to_string());
        }
        labs.answer(Instead {
            body_has: "\"machine\":\"verifier\"",
            ..Instead::of(&line("POST", "/tunnels"), 400, "Machine does not allow SSH access")
        });
        let _ = world.run(&["config-ssh", "--yes"]).ok();
        labs.forget_seen();
        let said = world.run(&["start", ID]).ok();
        assert!(said.contains("Ada's box is running"), "{said}");
        let asked = labs.count(&line("POST", "/tunnels"));
        assert_eq!(asked, if told_by_the_catalogue { 1 } else { 2 }, "one for the way in, one in doubt");
        let entries = world.entries();
        assert!(entries.contains(&format!("Host {}", host())) && !entries.contains("verifier"), "{entries}");
        let list: Value = serde_json::from_str(&world.run(&["list", "--json"]).ok()).unwrap();
        schema::check("list", &list);
        let ssh: Vec<_> = list[0]["machines"].as_array().unwrap().iter().map(|one| one["ssh"].clone()).collect();
        assert_eq!(ssh, [json!(true), json!(false)]);
        let said = world.held(&mut world.command(&["connect", &format!("{}.verifier", host())])).failed(6);
        assert!(said.contains("Machine does not allow SSH access"), "{said}");
    }
}

#[test]
fn tunnels_are_asked_for_sparingly() {
    let (world, labs) = hosted();
    let _ = world.run(&["config-ssh", "--yes"]).ok();
    // The first dials fail, although the tunnel exists.
    labs.refuse_dials(3);
    assert_eq!(world.ssh(&[&host(), "echo in"]).ok(), "in\n");
    assert_eq!(labs.count(&line("POST", "/tunnels")), 1);
    assert_eq!(labs.count("GET /tunnels/"), 4);
    // Starting five machines takes one tunnel session and a few handshakes, one after the other.
    for n in 2..=5 {
        second_machine(&labs, &format!("docker-0{n}"), true);
    }
    labs.forget_seen();
    std::fs::remove_file(world.root().join("known_hosts")).unwrap();
    let _ = world.run(&["start", ID]).ok();
    assert_eq!(labs.count(&line("POST", "/tunnels")), 1);
    let handshakes = labs.count("GET /tunnels/");
    assert!((1..=4).contains(&handshakes), "{handshakes}");
    labs.forget_seen();
    let _ = world.run(&["start", ID]).ok();
    assert_eq!(labs.count("GET /tunnels/"), 1, "its keys are known; one login asks for its relay");
}

#[test]
fn a_rate_limit_is_called_one() {
    let (world, labs) = hosted();
    let _ = world.run(&["config-ssh", "--yes"]).ok();
    let reset = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(3);
    labs.answer(Instead {
        headers: vec![("X-Ratelimit-Reset", reset.as_millis().to_string())],
        times: 2,
        ..Instead::of(&line("POST", "/tunnels"), 429, "slow down")
    });
    let said = world.ssh(&[&host(), "echo in"]);
    assert_eq!(said.out, "in\n", "{said:?}");
    assert!(said.err.contains("the platform limits tunnels; the next attempt is in"), "{said:?}");
    assert!(!said.err.contains("booting"), "{said:?}");
    let asked = labs.count(&line("POST", "/tunnels"));
    assert!(asked <= 3, "{asked} requests");
}

#[test]
fn a_login_that_fails_is_named_and_attempted_again() {
    let (world, labs) = hosted();
    let _ = world.run(&["config-ssh", "--yes"]).ok();
    labs.answer(Instead { times: 2, ..Instead::of("GET /login", 502, "bad gateway") });
    let said = world.ssh(&[&host(), "echo in"]);
    assert_eq!(said.out, "in\n", "{said:?}");
    assert!(said.err.contains("logging in to its tunnel: the tunnel's login: the platform answered 502"), "{said:?}");
    assert_eq!(labs.count(&line("POST", "/tunnels")), 1);
}

#[test]
fn a_tunnels_address_may_have_a_path() {
    let (world, labs) = hosted();
    labs.tunnels_below("/some/where");
    let _ = world.run(&["config-ssh", "--yes"]).ok();
    assert_eq!(world.ssh(&[&host(), "echo in"]).ok(), "in\n");
}

#[test]
fn saved_forwards_are_opened_as_far_as_they_can_be() {
    let (world, labs) = hosted();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // With IPv6, its address is taken as well.
    let _taken = std::net::TcpListener::bind(("::1", taken.local_addr().unwrap().port()));
    labs.save_forwards(json!([
        { "kind": "local", "machine": "docker-01", "localHost": "127.0.0.1", "localPort": 40111, "remotePort": 22 },
        { "kind": "", "machine": "", "remotePort": 80, "localPort": null },
        { "kind": "local", "machine": "gone-01", "remotePort": 81 },
        { "kind": "local", "machine": "docker-01", "localPort": taken.local_addr().unwrap().port(), "remotePort": 82 },
        { "kind": "local", "machine": "docker-01", "localPort": 123_456, "remotePort": 83 },
        "nonsense",
        { "kind": "remote", "machine": "docker-01", "remotePort": 8084, "localPort": 84 },
    ]));
    let listed = world.run(&["port-forward", ID, "--list"]).ok();
    assert!(listed.contains("-L 0:localhost:80") && listed.contains("nonsense"), "{listed}");
    let json: Value = serde_json::from_str(&world.run(&["port-forward", ID, "--list", "--json"]).ok()).unwrap();
    schema::check("savedForwards", &json);
    let mut restore = world.command(&["port-forward", ID, "--restore", "--json"]);
    restore.stdout(std::fs::File::create(world.path("events")).unwrap());
    let _restoring = Ending(restore.spawn().unwrap());
    let mut events = Vec::new();
    eventually("the forwards are ready", || {
        let text = std::fs::read_to_string(world.path("events")).unwrap();
        events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect();
        events.iter().any(|event| event["event"] == "ready")
    });
    let all = |kind: &str, field: &str| -> Vec<String> {
        let fits = events.iter().filter(|event| event["event"] == kind);
        fits.map(|event| event[field].as_str().unwrap().to_owned()).collect()
    };
    // The stand-in cannot listen, so this forward is left out as well.
    assert_eq!(all("listening", "to"), ["localhost:80"]);
    let problems = all("problem", "message");
    for part in
        ["gone-01", "cannot listen on 127.0.0.1:", "saved port forward 4", "saved port forward 5", "8084:localhost:84"]
    {
        assert!(problems.iter().any(|problem| problem.contains(part)), "{part}: {problems:?}");
    }
    assert!(problems.iter().all(|problem| problem.contains("is skipped")), "{problems:?}");
    // The official client sends no key for mere port forwards.
    let request = labs.seen().into_iter().rfind(|seen| seen.line == line("POST", "/tunnels")).unwrap().body;
    assert_eq!((&request["sshUser"], &request["sshPubKey"]), (&json!(""), &json!("")));
}

#[test]
fn a_control_plane_that_fails_for_a_moment_fails_no_command() {
    let (world, labs) = hosted();
    for (command, asks) in [
        (&["list"][..], "GET /api/plays"),
        (&["catalog"], "GET /api/playgrounds"),
        (&["whoami"], "GET /api/auth/me"),
        (&["stop", ID], &line("POST", "/actions")),
        (&["persist", ID], &line("POST", "/actions")),
        (&["port-forward", ID, "--list"], &line("GET", "/port-forwards")),
    ] {
        for status in [503, 504, 429] {
            labs.truth();
            labs.answer(Instead { times: 2, ..Instead::of(asks, status, "") });
            labs.edit(ID, |play| enter(play, "RUNNING"));
            let _ = world.run(command).ok();
        }
    }
    labs.truth();
    labs.instead("GET /api/playgrounds", 503, "");
    labs.forget_seen();
    let _ = world.run(&["catalog"]).failed(9);
    assert_eq!(labs.count("GET /api/playgrounds"), 5, "as often as the official client");
}

#[test]
fn nothing_is_started_twice_when_an_answer_is_lost() {
    let (world, labs) = hosted();
    // The answer is lost: an error of a gateway, or an empty answer.
    for status in [504, 502, 200] {
        labs.truth();
        labs.forget_seen();
        labs.answer(Instead::of("POST /api/plays", status, "").once().done());
        let said = world.run(&["start", "docker", "--no-wait"]).ok();
        assert!(said.contains("New is starting"), "{said}");
        assert_eq!(labs.count("POST /api/plays"), 1, "{status}");
    }
    // By its name, as a connection does.
    let (world, labs) = hosted();
    labs.edit(ID, |play| enter(play, "DESTROYED"));
    labs.answer(Instead::of("POST /api/plays", 504, "").once().done());
    let _ = world.run(&["config-ssh", "--yes"]).ok();
    assert_eq!(world.ssh(&["playground-docker", "echo in"]).ok(), "in\n");
    assert_eq!(labs.count("POST /api/plays "), 0);
    assert_eq!(labs.seen().iter().filter(|seen| seen.line == "POST /api/plays").count(), 1);
    // A request that was not carried out is not silently repeated either.
    labs.forget_seen();
    labs.answer(Instead::of("POST /api/plays", 504, "").once());
    world.settings("wake_limit: 5\n");
    let said = world.run(&["start", "by-mallory", "--consent", "--no-wait"]).failed(9);
    assert!(said.contains("it is not known whether playground by-mallory was started"), "{said}");
    assert!(said.contains("it may have been started"), "{said}");
    assert_eq!(labs.seen().iter().filter(|seen| seen.line == "POST /api/plays").count(), 1);
}

/// As while a gateway, or the server of the tunnels, is being replaced.
#[test]
fn a_gateway_that_answers_in_the_platforms_place_ends_no_wait() {
    for status in [500, 502, 520] {
        let (world, labs) = hosted();
        let _ = world.run(&["config-ssh", "--yes"]).ok();
        for (asks, times) in [
            (line("GET", ""), 2),
            (line("POST", "/tunnels"), 2),
            ("GET /tunnels/".into(), 3),
            ("GET /api/plays".into(), 2),
        ] {
            labs.truth();
            labs.forget_seen();
            labs.answer(Instead { times, ..Instead::of(&asks, status, "bad gateway") });
            assert_eq!(world.ssh(&[&host(), "echo in"]).ok(), "in\n", "{status} {asks}");
            let _ = std::fs::remove_dir_all(world.root().join("tunnels"));
        }
    }
}

/// A request that was sent ahead may be refused for a state that has passed since: another process restarts it.
#[test]
fn a_refusal_of_an_early_request_is_asked_for_once_more() {
    let (world, labs) = hosted();
    let _ = world.run(&["config-ssh", "--yes"]).ok();
    let _ = std::fs::remove_dir_all(world.root().join("tunnels"));
    labs.answer(Instead::of(&line("POST", "/tunnels"), 409, "the playground is not running").once());
    assert_eq!(world.ssh(&[&host(), "echo in"]).ok(), "in\n");
    // As before the first connection: after the end of a session nothing is asked ahead.
    eventually("no proxy is left", || world.processes(" connect ").is_empty());
    let _ = std::fs::remove_dir_all(world.root().join("tunnels"));
    let _ = std::fs::remove_dir_all(world.root().join("memory"));
    labs.forget_seen();
    labs.answer(Instead::of(&line("POST", "/tunnels"), 409, "the playground is not running"));
    let said = world.ssh(&[&host(), "true"]).failed(255);
    assert!(said.contains("is not running"), "{said}");
    assert_eq!(labs.count(&line("POST", "/tunnels")), 2);
}

/// The last answer to a login is the reason of the end, though another login is under way.
#[test]
fn a_login_under_way_at_the_end_of_all_waiting_keeps_its_reason() {
    let (world, labs) = hosted();
    world.settings("wake_limit: 4\n");
    labs.instead("GET /login", 403, "no tunnel for you");
    let said = world.held(&mut world.command(&["connect", &host()]));
    assert!(said.err.contains("no tunnel for you"), "{said:?}");
}

#[test]
fn a_logout_that_cannot_forget_the_login_ends_no_session() {
    let (world, labs) = hosted();
    let logout = |limit: &str| {
        let mut command = world.program("sh");
        world.output(command.args(["-c", &format!("{limit} exec {} logout", crate::support::PROGRAM)]))
    };
    let said = logout("ulimit -f 0;").failed(13);
    assert!(said.contains("config.yaml") && !said.contains("nothing was changed"), "{said}");
    assert_eq!(labs.count("DELETE /api/sessions"), 0);
    let _ = world.run(&["whoami"]).ok();
    let _ = logout("").ok();
    assert_eq!(labs.count("DELETE /api/sessions"), 1);
}

#[test]
fn a_restart_whose_answer_is_lost_is_looked_for() {
    let (world, labs) = hosted();
    labs.edit(ID, |play| enter(play, "STOPPED"));
    labs.answer(Instead::of(&line("POST", "/actions"), 504, "").once().done());
    let _ = world.run(&["start", ID]).ok();
    assert_eq!(labs.count(&line("POST", "/actions")), 1);
}

#[test]
fn a_forward_is_saved_and_forgotten_once() {
    let (world, labs) = hosted();
    labs.answer(Instead::of(&line("POST", "/port-forwards"), 504, "").once().done());
    let mut forward = world.command(&["port-forward", ID, "-L", "0:localhost:80", "--save", "--json"]);
    forward.stdout(std::fs::File::create(world.path("events")).unwrap());
    let forwarding = Ending(forward.spawn().unwrap());
    eventually("it is ready", || std::fs::read_to_string(world.path("events")).unwrap().contains("\"ready\""));
    drop(forwarding);
    assert_eq!(labs.forwards().len(), 1);
    labs.save_forwards(json!([{ "remotePort": 1 }, { "remotePort": 2 }, { "remotePort": 3 }]));
    labs.answer(Instead::of(&line("DELETE", "/port-forwards/1"), 504, "").once().done());
    let _ = world.run(&["port-forward", ID, "--remove", "1"]).ok();
    assert_eq!(labs.forwards(), [json!({ "remotePort": 1 }), json!({ "remotePort": 3 })], "and no other one");
}

#[test]
fn answers_to_actions_may_be_anything() {
    for body in ["{}", "", "null", "[]", "done", r#"{"id":"ffffffffffffffffffffffff"}"#] {
        let (world, labs) = hosted();
        for status in [200, 204] {
            labs.truth();
            labs.answer(Instead::of(&line("POST", "/actions"), status, if status == 204 { "" } else { body }).done());
            let _ = world.run(&["persist", ID]).ok();
            assert!(world.run(&["rename", ID, "Another"]).ok().contains("Another"), "{body}");
            assert!(world.run(&["extend", ID, "60"]).ok().contains("more"), "{body}");
            let _ = world.run(&["stop", ID]).ok();
            let _ = world.run(&["start", ID]).ok();
        }
        let _ = world.run(&["destroy", ID, "--yes"]).ok();
        assert!(labs.play(ID).is_none());
    }
}

#[test]
fn a_start_waits_for_the_tasks_that_prepare_it() {
    let (world, labs) = hosted();
    let tasks = |status: u64| {
        json!({ "install": { "name": "install", "init": true, "status": 40, "version": 3 },
            "cluster": { "name": "cluster", "init": true, "status": status },
            "solve": { "name": "solve", "init": false, "status": 20 }, "odd": null })
    };
    labs.edit(ID, |play| play["tasks"] = tasks(30));
    let mut start = world.command(&["start", ID]);
    let child = start.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let asked = || labs.count(&line("GET", ""));
    eventually("it waits", || asked() > 3);
    let mut out = Ending(child);
    assert!(out.0.try_wait().unwrap().is_none(), "it still waits");
    let said = world.run(&["start", ID, "--no-wait-init"]).ok();
    assert!(said.contains("is running"), "{said}");
    let said = world.run(&["wait", ID, "--init", "--timeout", "1s"]).failed(9);
    assert!(said.contains("1 of 2 init tasks done: cluster") && said.contains("Ada's box"), "{said}");
    labs.edit(ID, |play| play["tasks"] = tasks(40));
    eventually("the start ends", || out.0.try_wait().unwrap().is_some());
    assert!(out.0.wait().unwrap().success());
    // A failed task is reported and blocks nothing. For scripts it is a failure.
    labs.edit(ID, |play| play["tasks"] = tasks(35));
    let said = world.run(&["start", ID]);
    assert!(said.err.contains("labctl-ssh-proxy: task cluster of Ada's box failed; "), "{said:?}");
    assert!(said.ok().contains("is running"));
    assert!(world.run(&["wait", ID, "--init"]).failed(14).contains("cluster of Ada's box failed"));
    // A plain connection never waits for tasks.
    labs.edit(ID, |play| play["tasks"] = tasks(30));
    let _ = world.run(&["config-ssh", "--yes"]).ok();
    assert_eq!(world.ssh(&[&host(), "echo in"]).ok(), "in\n");
    let list: Value = serde_json::from_str(&world.run(&["list", "--json"]).ok()).unwrap();
    schema::check("list", &list);
    assert_eq!(list[0]["initTasks"], json!({ "done": 1, "total": 2 }));
    assert_eq!(list[0]["tasks"][0], json!({ "name": "cluster", "status": "running", "init": true, "helper": false }));
}

#[test]
fn tasks_are_shown_in_words() {
    let (world, labs) = hosted();
    labs.instead(
        &line("GET", "/tasks"),
        200,
        r#"[{"name":"b","status":35,"init":true,"machine":"docker-01","exitCode":3,"stderr":"no\nspace left\n","x":{}},
            {"name":"a","status":20,"needs":["b"],"helper":null,"exitCode":0}, null, {"name":"c","status":77}]"#,
    );
    let said = world.run(&["tasks", ID]).ok();
    let rows: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1], ["b", "docker-01", "init", "failed", "space", "left"]);
    assert_eq!((rows[2][0], rows[2][1], rows[3][1]), ("a", "blocked", "unknown"));
    let json: Value = serde_json::from_str(&world.run(&["tasks", ID, "--json"]).ok()).unwrap();
    schema::check("tasks", &json);
    assert_eq!((&json[0]["exitCode"], &json[1]["exitCode"]), (&json!(3), &Value::Null), "only of one that has ended");
}

#[test]
fn what_is_gone_is_gone_whichever_way_the_platform_says_it() {
    let (world, labs) = hosted();
    for status in [404, 410] {
        labs.truth();
        labs.instead(&line("GET", ""), status, "gone");
        let said = world.run(&["stop", ID]).failed(4);
        assert!(said.contains("no playground"), "{said}");
    }
}

#[test]
fn null_is_an_empty_list() {
    let (world, labs) = hosted();
    labs.instead("GET /api/plays", 200, "null");
    labs.instead("GET /api/playgrounds", 200, "null");
    assert_eq!(world.run(&["list", "--json"]).ok().trim(), "[]");
    assert_eq!(world.run(&["catalog", "--json"]).ok().trim(), "[]");
    labs.truth();
    labs.instead(&line("GET", "/port-forwards"), 200, "null");
    assert_eq!(world.run(&["port-forward", ID, "--list", "--json"]).ok().trim(), "[]");
    labs.add(json!(null));
    assert_eq!(
        serde_json::from_str::<Value>(&world.run(&["list", "--json"]).ok()).unwrap().as_array().unwrap().len(),
        1
    );
}

#[test]
fn each_credential_of_the_environment_counts_by_itself() {
    let (world, labs) = hosted();
    labs.log_in(&world, "session_id: session-of-ada\naccess_token: an-old-one\n");
    let _ = world.run(&["whoami"]).failed(3);
    let said = world.output(world.command(&["whoami"]).env("IXIMIUZ_ACCESS_TOKEN", "token-of-ada")).ok();
    assert!(said.starts_with("ada at "), "{said}");
    let _ = world.output(world.command(&["whoami"]).env("IXIMIUZ_SESSION_ID", "another")).failed(3);
}

#[test]
fn the_account_shows_its_plan() {
    let (world, labs) = hosted();
    for (access, words) in [
        (r#"{"until":"2027-01-31T00:00:00Z"}"#, ", premium until 2027-01-31"),
        (r#"{"lifetime":true,"until":null}"#, ", premium for life"),
        (r#"{"trial":true,"until":"2027-01-31T00:00:00Z","x":1}"#, ", premium trial until 2027-01-31"),
        ("{}", ", premium"),
        ("null", ""),
    ] {
        labs.instead(
            "GET /api/auth/me",
            200,
            &format!(r#"{{"id":"u1","githubProfileId":"ada","premiumAccess":{access}}}"#),
        );
        let said = world.run(&["whoami"]).ok();
        assert!(said.trim_end().ends_with(words) && (!words.is_empty() || !said.contains("premium")), "{said}");
        schema::check("whoami", &serde_json::from_str(&world.run(&["whoami", "--json"]).ok()).unwrap());
    }
}

#[test]
fn the_key_is_sent_as_the_official_client_sends_it() {
    let (world, labs) = hosted();
    let _ = world.run(&["config-ssh", "--yes"]).ok();
    assert_eq!(world.ssh(&[&host(), "echo in"]).ok(), "in\n");
    let request = labs.seen().into_iter().find(|seen| seen.line == line("POST", "/tunnels")).unwrap().body;
    let key = request["sshPubKey"].as_str().unwrap();
    assert_eq!(key, std::fs::read_to_string(world.path(".ssh/iximiuz_labs_user.pub")).unwrap());
    assert!(key.ends_with('\n') && request["sshUser"] == user().as_str(), "{request}");
}

#[test]
fn a_playground_without_a_title_goes_by_its_name() {
    let (world, labs) = hosted();
    let id = format!("{:024}", 7);
    labs.add({
        let mut untitled = play(&id, "", "docker", "RUNNING");
        untitled["title"] = Value::Null;
        untitled
    });
    assert!(world.run(&["start", &id]).ok().starts_with("docker is running: "));
}

/// Sends `word` through a connection, and returns what comes back.
fn echo(stream: &mut std::net::TcpStream, word: &str) -> std::io::Result<String> {
    use std::io::{Read, Write};
    stream.write_all(word.as_bytes())?;
    let mut back = vec![0; word.len()];
    stream.read_exact(&mut back)?;
    Ok(String::from_utf8(back).unwrap())
}

#[test]
fn a_login_that_ends_under_a_forward_ends_no_connection_and_a_later_one_is_used() {
    let (world, labs) = hosted();
    let echoing = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = echoing.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in echoing.incoming() {
            let stream = stream.unwrap();
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    let mut forward = world.command(&["port-forward", ID, "-L", &format!("127.0.0.1:0:localhost:{to}"), "--json"]);
    forward.stdout(std::fs::File::create(world.path("events")).unwrap());
    let _forwarding = Ending(forward.spawn().unwrap());
    let events = || -> Vec<Value> {
        let text = std::fs::read_to_string(world.path("events")).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let told = |kind: &str| events().into_iter().find(|event| event["event"] == kind);
    eventually("the forward is ready", || told("ready").is_some());
    let address = told("listening").unwrap()["address"].as_str().unwrap().to_owned();
    let connect = || {
        let stream = std::net::TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    };
    let mut open = connect();
    assert_eq!(echo(&mut open, "before").unwrap(), "before");
    labs.end_session("another-token-of-ada");
    assert!(echo(&mut connect(), "refused").is_err());
    eventually("the refusal is said", || {
        told("problem").is_some_and(|event| event["message"].as_str().unwrap().contains("does not accept your login"))
    });
    assert_eq!(echo(&mut open, "open").unwrap(), "open");
    labs.log_in(&world, "session_id: session-of-ada\naccess_token: another-token-of-ada\n");
    assert_eq!(echo(&mut connect(), "again").unwrap(), "again");
    assert_eq!(echo(&mut open, "after").unwrap(), "after");
}
