//! Calls of the embedded platform that the official client makes: lists, the catalogue, consoles and journals, ports,
//! preferences, and limits.

use std::{fs, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::StreamExt;
use labctl_ssh_proxy::{
    labs::{
        tunnel::text,
        wire::{Action, Play, State},
    },
    local::serve::Options,
};
use serde_json::Value;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

use crate::support::{
    free_port,
    platform::{Platform, folders, quick},
};

/// Time limit for every wait, much longer than anything takes.
const SOON: Duration = Duration::from_secs(10);

fn ids(plays: &[Play]) -> Vec<&str> {
    plays.iter().map(|play| play.id.as_str()).collect()
}

async fn stop(platform: &Platform, id: &str) {
    platform.labs.act(id, &Action::Stop).await.unwrap();
    platform.state(id, State::Stopped).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_play_whose_time_is_up_is_erased_unless_it_is_kept() {
    let (_home, folders) = folders();
    let mut platform = Platform::start_in(&folders, quick()).await;
    let (kept, erased, old) = (platform.create("shell").await.id, platform.create("shell").await.id, {
        let id = platform.create("shell").await.id;
        platform.ready(&id).await;
        stop(&platform, &id).await;
        id
    });
    // Stopped long after its end: nothing else happens to it.
    platform.labs.act(&old, &Action::SetMaxPlayTime { minutes: 0 }).await.unwrap();
    platform.end().await;
    // A record in the form of the previous version.
    let record = folders.local().join("plays").join(&old).join("play.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    assert_eq!(json.as_object_mut().unwrap().remove("erasedAtEnd"), Some(true.into()));
    fs::write(&record, json.to_string()).unwrap();

    let mut platform = Platform::start_in(&folders, quick()).await;
    assert_eq!(platform.labs.play(&old).await.unwrap().state(), Some(&State::Stopped));
    platform.labs.act(&kept, &Action::MakePersistent).await.unwrap();
    for id in [&kept, &erased] {
        platform.labs.act(id, &Action::Restart).await.unwrap();
        platform.ready(id).await;
        platform.labs.act(id, &Action::SetMaxPlayTime { minutes: 0 }).await.unwrap();
    }
    platform.labs.act(&old, &Action::Restart).await.unwrap();
    platform.state(&old, State::Stopped).await;
    platform.state(&kept, State::Stopped).await;
    platform.state(&erased, State::Destroyed).await;
    let there = |id: &str| folders.local().join("plays").join(id).exists();
    assert!(there(&kept) && there(&old) && !there(&erased));
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_plays_are_among_the_kept_ones_and_destroyed_ones_among_the_recent() {
    let mut platform = Platform::start(quick()).await;
    let (first, second) = (platform.create("shell").await.id, platform.create("shell").await.id);
    platform.ready(&first).await;
    platform.ready(&second).await;
    assert!(platform.labs.persistent_plays().await.unwrap().is_empty());
    stop(&platform, &first).await;
    platform.labs.act(&second, &Action::MakePersistent).await.unwrap();
    let kept = platform.labs.persistent_plays().await.unwrap();
    assert_eq!(kept.len(), 2, "{:?}", ids(&kept));
    assert!(kept.iter().all(|play| play.persistent.is_none()), "the platform does not tell it in a play");
    platform.labs.act(&second, &Action::Destroy).await.unwrap();
    platform.state(&second, State::Destroyed).await;
    assert_eq!(ids(&platform.labs.persistent_plays().await.unwrap()), [first.as_str()]);
    assert_eq!(platform.labs.plays().await.unwrap().len(), 2);
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalogue_has_official_playgrounds_and_ones_own_by_filter() {
    let mut platform = Platform::start(quick()).await;
    let names = async |query: &str| {
        let all = platform.json("GET", &format!("/api/playgrounds{query}"), "").await;
        all.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for query in ["", "?filter="] {
        assert_eq!(names(query).await, ["shell", "duo", "alpine", "broken", "verified", "choices"]);
    }
    assert_eq!(names("?filter=base").await.len(), 6);
    for filter in ["my-custom", "recent", "popular", "community"] {
        assert!(names(&format!("?filter={filter}")).await.is_empty(), "{filter}");
    }
    for playground in ["shell", "duo", "duo", "shell", "duo"] {
        let id = platform.create(playground).await.id;
        // So that no two begin in the same millisecond.
        platform.ready(&id).await;
    }
    assert_eq!(names("?filter=popular").await, ["duo", "shell"]);
    assert_eq!(names("?filter=recent").await, ["duo", "shell"]);
    assert_eq!(platform.status_of("GET", "/api/playgrounds?filter=mine", "").await, 400);
    let entry = platform.json("GET", "/api/playgrounds/verified?format=extended", "").await;
    assert_eq!(entry["machines"][0].get("noSSH"), None, "{entry}");
    assert_eq!(entry["machines"][1]["noSSH"], true);
    assert_eq!(entry["initTasks"]["inspect_verifier"]["machine"], "verifier");
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_without_ssh_runs_and_refuses_tunnels_for_it() {
    let mut platform = Platform::start(quick()).await;
    let id = platform.create("verified").await.id;
    let play = platform.until(&id, |play| play.init_progress() == Some((2, 2))).await;
    let verifier = play.machine_status("verifier").unwrap();
    assert_eq!((&verifier.state, verifier.is_ready()), (&State::Running, true));
    assert!(play.machine_status("work-01").unwrap().is_ready());
    assert!(play.has_no_ssh("verifier") && !play.has_no_ssh("work-01"));
    assert!(play.playground.machines[1].no_ssh, "the entry says so, too");
    let tunnels = format!("/api/plays/{id}/tunnels");
    let user = &play.machines[1].default_user().to_owned();
    for wish in
        [format!(r#"{{"machine":"verifier","sshUser":"{user}"}}"#), r#"{"machine":"verifier","sshPubKey":"k"}"#.into()]
    {
        let reply = platform.send("POST", &tunnels, &wish).await;
        assert_eq!((reply.status.as_u16(), reply.body.trim_ascii()), (400, &b"Machine does not allow SSH access"[..]));
    }
    // A tunnel for ports alone. No server answers on its port 22.
    let session = platform.tunnel(&id, "verifier").await.unwrap();
    let mut nothing = Vec::new();
    platform.labs.dial(&session, ":22").await.unwrap().read_to_end(&mut nothing).await.unwrap();
    assert!(nothing.is_empty());
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn choices_of_the_start_are_kept_or_refused() {
    let mut platform = Platform::start(quick()).await;
    for none in ["", r#","initConditions":{}"#, r#","initConditions":null"#] {
        let body = format!(r#"{{"playground":"shell","safetyDisclaimerConsent":true{none}}}"#);
        let play = platform.json("POST", "/api/plays", &body).await;
        assert_eq!(play["initConditions"], serde_json::json!({}), "{play}");
        let record = platform.folders.local().join("plays").join(play["id"].as_str().unwrap()).join("play.json");
        assert!(fs::read_to_string(record).unwrap().contains(r#""safetyDisclaimerConsent": true"#));
    }
    for wrong in [r#"{"Container runtime":"cri-o"}"#, r#"{"a":1}"#, "[1]"] {
        let body = format!(r#"{{"playground":"shell","initConditions":{wrong}}}"#);
        assert_eq!(platform.status_of("POST", "/api/plays", &body).await, 400, "{wrong}");
    }
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn choices_decide_which_init_tasks_exist() {
    let mut platform = Platform::start(quick()).await;
    let start = |choices: &str| {
        format!(r#"{{"playground":"choices","safetyDisclaimerConsent":true,"initConditions":{choices}}}"#)
    };
    let body = start(r#"{"Container runtime":"CRI-O","Team":"blue"}"#);
    let play = platform.json("POST", "/api/plays", &body).await;
    assert_eq!(play["initConditions"], serde_json::json!({ "Container runtime": "CRI-O", "Team": "blue" }));
    let tasks: Vec<&String> = play["tasks"].as_object().unwrap().keys().collect();
    assert_eq!(tasks, ["cri_o", "inspect", "welcome"]);
    let id = play["id"].as_str().unwrap();
    platform.until(id, |play| play.init_progress() == Some((3, 3))).await;
    let home = platform.folders.local().join("plays").join(id).join("work-01/home");
    assert_eq!(fs::read_to_string(home.join("runtime")).unwrap(), "cri-o\n");
    for (choices, words) in [
        ("{}", r#"needs a value for init condition "Team""#),
        (r#"{"Team":"Blue!"}"#, "it must match"),
        (r#"{"Team":"blue","Container runtime":"podman"}"#, "there are containerd, docker, CRI-O"),
        (r#"{"Team":"blue","container runtime":"docker"}"#, "did you mean `Container runtime`?"),
    ] {
        let reply = platform.send("POST", "/api/plays", &start(choices)).await;
        let said = String::from_utf8_lossy(&reply.body).into_owned();
        assert!(reply.status.as_u16() == 400 && said.contains(words), "{choices}: {said}");
    }
    let entry = platform.json("GET", "/api/playgrounds/choices", "").await;
    assert_eq!(entry["initConditions"]["values"][0]["options"][2], "CRI-O");
    assert_eq!(entry["initTasks"]["docker"]["conditions"][0]["value"], "docker");
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_playground_of_ones_own_is_made_started_changed_and_removed() {
    let mut platform = Platform::start(quick()).await;
    // As Go writes it, with null for what is empty.
    let wish = r#"{"name":"mine","base":"duo","title":"Mine","networks":null,"tabs":[{"kind":"terminal","name":"t"}],
        "machines":[{"name":"web-01","kernel":{"source":"k"},"drives":null},{"name":"judge","noSSH":true}],
        "initTasks":{"hello":{"name":"hello","init":true,"user":"root","run":"touch hello"}},
        "initConditions":{"values":[{"key":"Size","default":"small","options":["small","large"]}]},
        "portForwards":[{"kind":"local","machine":"web-01","localPort":8080,"remotePort":80}],
        "registryAuth":"","accessControl":{"canStart":["owner"]}}"#;
    let made = platform.json("POST", "/api/playgrounds", wish).await;
    let name = made["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("mine-") && name.len() == "mine-".len() + 8, "{name}");
    let me = platform.json("GET", "/api/auth/me", "").await;
    assert_eq!((&made["owner"], &made["base"]), (&me["id"], &serde_json::json!("duo")));
    let own = platform.json("GET", "/api/playgrounds?filter=my-custom", "").await;
    assert_eq!(own.as_array().unwrap().iter().map(|one| &one["name"]).collect::<Vec<_>>(), [&made["name"]]);
    assert_eq!(platform.json("GET", "/api/playgrounds", "").await.as_array().unwrap().len(), 6);
    let whole = platform.json("GET", &format!("/api/playgrounds/{name}?format=extended"), "").await;
    assert_eq!((&whole["machines"][0]["kernel"]["source"], &whole["tabs"][0]["name"]), (&"k".into(), &"t".into()));
    assert_eq!(whole["accessControl"]["canStart"][0], "owner");

    let play = platform.create(&name).await;
    assert_eq!((play.machines[0].name.as_str(), play.machines[1].no_ssh), ("web-01", true));
    assert_eq!((play.playground.owner.as_str(), play.playground.title.as_str()), ("local", "Mine"));
    platform.until(&play.id, |play| play.init_progress() == Some((1, 1))).await;
    let shown = platform.json("GET", &format!("/api/plays/{}", play.id), "").await;
    assert_eq!(
        (&shown["initConditions"]["Size"], &shown["playground"]["tabs"][0]["name"]),
        (&"small".into(), &"t".into())
    );
    let forwards = platform.json("GET", &format!("/api/plays/{}/port-forwards", play.id), "").await;
    assert_eq!(forwards[0]["remotePort"], 80, "the list has those of the manifest");

    let path = format!("/api/playgrounds/{name}");
    let changed = platform.json("PUT", &path, r#"{"title":"Other","machines":[{"name":"only"}]}"#).await;
    assert_eq!(
        (&changed["title"], &changed["base"], &changed["machines"][0]["name"]),
        (&"Other".into(), &"duo".into(), &"only".into())
    );
    for (method, path, body, status) in [
        ("PUT", "/api/playgrounds/shell", "{}", 403),
        ("DELETE", "/api/playgrounds/shell", "", 403),
        ("PUT", "/api/playgrounds/none-of-mine", "{}", 404),
        ("POST", "/api/playgrounds", r#"{"name":"x","base":"none"}"#, 400),
        ("POST", "/api/playgrounds", r#"{"name":"X x","base":"shell"}"#, 400),
        ("DELETE", &path, "", 204),
        ("DELETE", &path, "", 404),
        ("GET", &path, "", 404),
    ] {
        assert_eq!(platform.status_of(method, path, body).await, status, "{method} {path}");
    }
    let kept = platform.json("GET", &format!("/api/plays/{}", play.id), "").await;
    assert_eq!(kept["machines"][0]["name"], "web-01", "its play goes on");
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_brings_machines_and_tasks_along() {
    let mut platform = Platform::start(quick()).await;
    let body = r#"{"playground":"shell","safetyDisclaimerConsent":true,"tabs":[{"kind":"ide","name":"Code"}],
        "networks":[{"name":"lan","subnet":"10.0.0.0/24"}],
        "machines":[{"name":"a","backend":"cloud-hypervisor"},{"name":"b"}],
        "initTasks":{"t":{"name":"t","init":true,"machine":"b","user":"root","run":"touch made"}}}"#;
    let play = platform.json("POST", "/api/plays", body).await;
    let id = play["id"].as_str().unwrap();
    assert_eq!(
        (&play["machines"][1]["name"], &play["playground"]["networks"][0]["name"]),
        (&"b".into(), &"lan".into())
    );
    platform.until(id, |play| play.init_progress() == Some((1, 1))).await;
    assert!(platform.folders.local().join("plays").join(id).join("b/home/made").exists());
    for wrong in [
        r#"{"playground":"shell","machines":[{"name":"a"},{"name":"a"}]}"#,
        r#"{"playground":"shell","machines":[{"name":"../a"}]}"#,
        r#"{"playground":"shell","machines":{"name":"a"}}"#,
        r#"{"playground":"shell","initTasks":{"t":{"run":"true","machine":"nowhere"}}}"#,
    ] {
        assert_eq!(platform.status_of("POST", "/api/plays", wrong).await, 400, "{wrong}");
    }
    let files =
        r#"{"playground":"shell","machines":[{"name":"a","startupFiles":[{"path":"/etc/motd","content":""}]}]}"#;
    assert_eq!(platform.status_of("POST", "/api/plays", files).await, 501);
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_no_web_terminals() {
    let mut platform = Platform::start(quick()).await;
    let id = platform.create("shell").await.id;
    let shells = format!("/api/plays/{id}/shells");
    assert_eq!(platform.json("GET", &shells, "").await, serde_json::json!([]));
    assert_eq!(platform.status_of("POST", &shells, r#"{"machine":"shell-01","user":"root"}"#).await, 501);
    assert_eq!(platform.status_of("DELETE", &format!("{shells}/x"), "").await, 404);
    assert_eq!(platform.status_of("GET", "/api/plays/ffffffffffffffffffffffff/shells", "").await, 404);
    for (method, path) in [("POST", "/api/oauth/tokens"), ("POST", "/api/auth/signin-url"), ("GET", "/api/nonsense")] {
        assert_eq!(platform.status_of(method, path, "{}").await, 404, "{method} {path}");
    }
    platform.end().await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_finds_what_the_machines_programs_listen_on() {
    // One HTTP server and one silent server, on ports of their own, until the machine ends.
    let serve = r#"serve=exec python3 -c '
import http.server, socket, threading
web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
silent = socket.create_server(("::1", 0), family=socket.AF_INET6) if socket.has_ipv6 else socket.create_server(("127.0.0.1", 0))
open("ports.new", "w").write("%d %d" % (web.server_address[1], silent.getsockname()[1]))
import os; os.rename("ports.new", "ports")
web.serve_forever()'"#;
    let mut platform = Platform::start(Options { init_tasks: vec![serve.parse().unwrap()], ..quick() }).await;
    let id = platform.create("duo").await.id;
    let scan = format!("/api/plays/{id}/ports/scan");
    platform.ready(&id).await;
    let ports = platform.folders.local().join("plays").join(&id).join("node-01/home/ports");
    while !ports.exists() {
        tokio::task::yield_now().await;
    }
    // A socket of this computer that does not belong to the machine.
    let _stranger = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ports: Vec<u16> = fs::read_to_string(ports).unwrap().split(' ').map(|port| port.parse().unwrap()).collect();
    let mut expected = vec![(ports[0], "HTTP"), (ports[1], "TCP")];
    expected.sort();
    let found = platform.json("POST", &scan, "").await;
    let found: Vec<_> = found.as_array().unwrap().iter().collect();
    assert!(found.iter().all(|port| port["machine"] == "node-01"), "{found:?}");
    let found: Vec<_> = found
        .iter()
        .map(|port| (port["number"].as_u64().unwrap() as u16, port["protocol"].as_str().unwrap()))
        .collect();
    assert_eq!(found, expected);
    assert_eq!(platform.json("POST", &format!("{scan}?machine=node-02"), "").await, serde_json::json!([]));
    assert_eq!(platform.status_of("POST", &format!("{scan}?machine=other"), "").await, 404);
    stop(&platform, &id).await;
    assert_eq!(platform.status_of("POST", &scan, "").await, 409);
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_boot_has_a_console() {
    let mut platform = Platform::start(quick()).await;
    let id = platform.create("broken").await.id;
    platform.until(&id, |play| play.tasks["fetch"].status.is_final()).await;
    let act = async |body: Value| platform.json("POST", &format!("/api/plays/{id}/actions"), &body.to_string()).await;
    let list = || serde_json::json!({ "action": "machine.console.list", "machine": "broken-01" });
    let read = |console: &str| serde_json::json!({ "action": "machine.console.read", "machine": "broken-01", "console": console });
    assert_eq!(act(list()).await, serde_json::json!({ "consoles": ["boot-1"] }));
    platform.labs.act(&id, &Action::RebootMachine { machine: "broken-01".into() }).await.unwrap();
    platform.ready(&id).await;
    stop(&platform, &id).await;
    assert_eq!(act(list()).await["consoles"], serde_json::json!(["boot-1", "boot-2"]));
    let content = async |console| act(read(console)).await["content"].as_str().unwrap().to_owned();
    let (first, second) = (content("boot-1").await, content("boot-2").await);
    for words in
        ["Z starting\n", "Z ready", "init task inspect: completed", "fetch: failed with exit code 3", "rebooting"]
    {
        assert!(first.contains(words), "{words}: {first}");
    }
    assert!(
        second.ends_with("Z stopped\n") && second.contains("stopping") && !second.contains("init task"),
        "{second}"
    );
    let actions = format!("/api/plays/{id}/actions");
    assert_eq!(platform.status_of("POST", &actions, &read("boot-3").to_string()).await, 404);
    let other = r#"{"action":"machine.console.list","machine":"other"}"#;
    assert_eq!(platform.status_of("POST", &actions, other).await, 404);
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_follows_its_machine_to_the_end_of_the_play() {
    let mut platform = Platform::start(quick()).await;
    let id = platform.create("duo").await.id;
    platform.until(&id, |play| play.init_progress() == Some((2, 2))).await;
    let journals = format!("/api/plays/{id}/journals");
    let mut journal = platform.stream(&journals, r#"{"machine":"node-02","lines":1}"#).await;
    let mut text_of = async || {
        let message = timeout(SOON, journal.next()).await.unwrap()?.unwrap();
        text(&message).map(|text| serde_json::from_str::<Value>(&text).unwrap())
    };
    let past = text_of().await.unwrap();
    let past = past["stdout"].as_str().unwrap();
    assert!(past.ends_with('\n') && past.lines().count() == 1 && past.contains("inspect_02: completed"), "{past}");
    platform.labs.act(&id, &Action::RebootMachine { machine: "node-02".into() }).await.unwrap();
    platform.ready(&id).await;
    stop(&platform, &id).await;
    let mut said = String::new();
    loop {
        let chunk = text_of().await.expect("an end that is announced");
        said.push_str(chunk["stdout"].as_str().unwrap_or_default());
        if chunk["eof"] == true {
            break;
        }
    }
    for words in ["rebooting", "starting", "ready", "stopping", "stopped"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(text_of().await, None, "then it is closed");

    for wish in [r#"{"unit":"sshd"}"#, r#"{"since":"-1h"}"#, r#"{"until":"now"}"#, r#"{"cursor":"s=1"}"#] {
        assert_eq!(platform.status_of("POST", &journals, wish).await, 501, "{wish}");
    }
    assert_eq!(platform.status_of("POST", &journals, r#"{"machine":"other"}"#).await, 404);
    assert_eq!(platform.status_of("GET", &format!("/journals/guess/{id}/1/node-01"), "").await, 404);
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_account_chooses_a_region() {
    let (_home, folders) = folders();
    let mut platform = Platform::start_in(&folders, quick()).await;
    assert_eq!(platform.labs.me().await.unwrap().preferred_region, None);
    for (body, status) in [(r#"{"region":"moon"}"#, 400), (r#"{"region":null}"#, 400), ("{}", 400), ("", 400)] {
        assert_eq!(platform.status_of("PATCH", "/api/account/preferences", body).await, status, "{body}");
    }
    for region in ["eu", "ap"] {
        let me = platform.json("PATCH", "/api/account/preferences", &format!(r#"{{"region":"{region}"}}"#)).await;
        assert_eq!((&me["id"], &me["preferredRegion"]), (&"local".into(), &region.into()));
    }
    platform.end().await;
    let mut platform = Platform::start_in(&folders, quick()).await;
    assert_eq!(platform.labs.me().await.unwrap().preferred_region.as_deref(), Some("ap"));
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tunnels_come_out_of_a_pool() {
    let mut platform = Platform::start(Options { tunnel_limit: Some(1), ..quick() }).await;
    let id = platform.create("duo").await.id;
    platform.ready(&id).await;
    let ask = async || platform.send("POST", &format!("/api/plays/{id}/tunnels"), r#"{"machine":"node-02"}"#).await;
    let session = platform.tunnel(&id, "").await.unwrap();
    let (first, second) =
        (platform.labs.dial(&session, ":22").await.unwrap(), platform.labs.dial(&session, ":22").await.unwrap());
    let refused = ask().await;
    assert_eq!(refused.status, 429);
    let reset: i64 = refused.headers["x-ratelimit-reset"].to_str().unwrap().parse().unwrap();
    let ahead = reset - jiff::Timestamp::now().as_millisecond();
    assert!((0..10_000).contains(&ahead), "milliseconds since 1970, a few seconds ahead: {ahead}");
    drop(first);
    assert_eq!(ask().await.status, 429, "the other connection goes on");
    drop(second);
    timeout(SOON, async { while ask().await.status == 429 {} }).await.expect("its slot is freed");
    platform.end().await;

    let mut platform = Platform::start(Options { tunnel_limit: Some(0), ..quick() }).await;
    let id = platform.create("shell").await.id;
    let path = format!("/api/plays/{id}/tunnels");
    assert_eq!(platform.send("POST", &path, "{}").await.status, 429);
    assert_eq!(platform.send("POST", &path, r#"{"machine":"other"}"#).await.status, 404);
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn states_last_as_long_as_they_are_told() {
    let delay = Duration::from_millis(250);
    let mut platform = Platform::start(Options { state_delay: delay, ..quick() }).await;
    let started = Instant::now();
    let id = platform.create("shell").await.id;
    platform.state(&id, State::Starting).await;
    platform.ready(&id).await;
    assert!(started.elapsed() >= 4 * delay, "{:?}", started.elapsed());
    let started = Instant::now();
    platform.labs.act(&id, &Action::RebootMachine { machine: "shell-01".into() }).await.unwrap();
    platform.ready(&id).await;
    assert!(started.elapsed() >= delay, "{:?}", started.elapsed());
    for (action, end) in [(Action::Stop, State::Stopped), (Action::Destroy, State::Destroyed)] {
        let started = Instant::now();
        platform.labs.act(&id, &action).await.unwrap();
        platform.state(&id, end).await;
        assert!(started.elapsed() >= delay, "{action:?}: {:?}", started.elapsed());
    }
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_wait_end_with_their_control_channel() {
    let mut platform = Platform::start(quick()).await;
    let id = platform.create("shell").await.id;
    let session = platform.tunnel(&id, "").await.unwrap();
    let mut controls = Vec::new();
    for _ in 0..2 {
        let port = free_port();
        let target = BASE64_STANDARD.encode(format!("listen::{port}"));
        controls.push((platform.websocket(&session, &target).await, port));
    }
    let mut visitors = Vec::new();
    for (control, port) in &mut controls {
        visitors.push(TcpStream::connect(("127.0.0.1", *port)).await.unwrap());
        control.next().await.unwrap().unwrap();
    }
    let (_, mut other) = (controls.remove(0), visitors.pop().unwrap());
    let begun = Instant::now();
    let mut nothing = [0; 1];
    let ended = timeout(SOON, visitors[0].read(&mut nothing)).await.expect("closed before its patience is over");
    assert!(matches!(ended, Ok(0) | Err(_)) && begun.elapsed() < SOON);
    let still = timeout(Duration::from_millis(300), other.read(&mut nothing)).await;
    assert!(still.is_err(), "another channel's goes on waiting: {still:?}");
    platform.end().await;
}
