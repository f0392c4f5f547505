//! Challenges, tutorials and lessons: by their names and page addresses, and their attempts.

use std::{fs, process::Stdio};

use serde_json::{Value, json};

use crate::{
    completions,
    support::{
        PROGRAM, World, eventually,
        labs::{Instead, Labs, PLAIN, enter},
        schema,
    },
};

const LESSON: &str = "http://localhost/courses/shell-basics/files/first-folder";

/// The running plays by the names of their content; those without any have an empty one.
fn names(world: &World) -> Vec<String> {
    let all = world.json(&["list", "--json"]);
    let name = |play: &Value| play["learning"]["name"].as_str().unwrap_or_default().to_owned();
    let mut names: Vec<String> = all.as_array().unwrap().iter().map(name).collect();
    names.sort();
    names
}

fn attempts(world: &World, path: &str) -> u64 {
    world.api(path)["attemptCount"].as_u64().unwrap()
}

#[test]
fn an_attempt_begins_after_a_yes_and_is_used_again() {
    let world = World::with_platform(&[]);
    let (code, said) = world.asked("start write-a-file", "n\n");
    assert!(said.contains("Begin challenge write-a-file, \"Write a File\"? It counts as an attempt."), "{said}");
    assert!(code == Some(15) && said.ends_with("\nNothing was started.\n"), "{said}");
    let unasked = world.local(&["start", "write-a-file"]).failed(2);
    assert!(unasked.contains("cannot ask without a terminal: Begin challenge write-a-file, "), "{unasked}");
    assert!(unasked.contains("hint: add --yes"), "{unasked}");
    assert!(
        world.local(&["--no-input", "start", "http://localhost/challenges/write-a-file"]).failed(2).contains("--yes")
    );
    assert_eq!((names(&world), attempts(&world, "/challenges/write-a-file")), (vec![], 0));

    let (code, said) = world.asked("start http://localhost/challenges/write-a-file?from=mail", "y\n");
    assert!(code == Some(0) && said.contains("Write a File is running: "), "{said}");
    assert!(said.contains("Its page: http://localhost/challenges/write-a-file\n"), "{said}");
    let play = world.json(&["start", "write-a-file", "--json"]);
    schema::check("playground", &play);
    assert_eq!(
        play["learning"],
        json!({ "kind": "challenge", "name": "write-a-file", "title": "Write a File",
                "pageUrl": "http://localhost/challenges/write-a-file" })
    );
    for name in ["challenges/write-a-file", "Write a File", "playground-write-a-file"] {
        assert_eq!(world.json(&["start", name, "--json"])["id"], play["id"], "{name}");
    }
    assert_eq!(attempts(&world, "/challenges/write-a-file"), 1);
    let listed = world.local(&["list"]).ok();
    assert!(listed.contains("challenge write-a-file"), "{listed}");
}

#[test]
fn ssh_and_connect_reach_an_attempt_and_never_begin_one() {
    let mut world = World::with_platform(&[]);
    world.configure();
    for address in ["write-a-file", "challenges/write-a-file", "http://localhost/challenges/write-a-file#x", LESSON] {
        let said = world.local(&["ssh", address, "true"]).failed(4);
        let begins = said.contains("is running\n") && said.contains("labctl-ssh-proxy --local start ");
        assert!(begins, "{said}");
    }
    for command in ["stop", "tasks", "wait", "restart"] {
        let said = world.local(&[command, "two-machines"]).failed(4);
        assert!(said.contains("no playground of tutorial two-machines is running"), "{said}");
    }
    // The command that is named begins it.
    let said = world.held(&mut world.command(&["--local", "connect", "playground-write-a-file"])).failed(4);
    assert!(said.contains("no attempt at challenge write-a-file is running"), "{said}");
    assert_eq!(names(&world), [""; 0]);
    let _ = world.local(&["start", "challenges/write-a-file", "--yes"]).ok();
    let home = world.local(&["ssh", "playground-write-a-file", "pwd"]).ok();
    assert_eq!(world.local(&["ssh", "http://localhost/challenges/write-a-file", "pwd"]).ok(), home);
    let options = ["-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no"];
    let proxy = format!("ProxyCommand={PROGRAM} --local connect %n");
    let key = world.path(".ssh/iximiuz_labs_user");
    let mut ssh = world.program("ssh");
    ssh.args(["-F", "none", "-o", &proxy, "-i"]).arg(key).args(options).args(["-l", "root"]);
    let user = world.json(&["list", "--json"])[0]["machines"][0]["users"][0]["name"].as_str().unwrap().to_owned();
    ssh.args(["-l", &user, "playground-write-a-file", "pwd"]);
    assert_eq!(world.output(&mut ssh).ok(), home);
    assert_eq!(attempts(&world, "/challenges/write-a-file"), 1);
}

#[test]
fn the_catalogue_has_the_first_word() {
    let world = World::with_platform(&[]);
    let tutorial = world.json(&["start", "tutorials/shell", "--yes", "--json"]);
    // A name of the catalogue still means an entry, though a tutorial of that name is running.
    let said = world.local(&["ssh", "playground-shell", "pwd"]).ok();
    assert!(!said.contains(tutorial["id"].as_str().unwrap()), "{said}");
    assert_eq!(names(&world), ["", "shell"]);
    assert_eq!(world.json(&["start", "shell", "--json"])["learning"], Value::Null);
    assert_eq!(world.json(&["start", "http://localhost/playgrounds/shell", "--json"])["learning"], Value::Null);
    let id = tutorial["id"].as_str().unwrap();
    assert!(world.local(&["tasks", &format!("http://localhost/plays/{id}")]).ok().contains("inspect"));
    assert_eq!(world.json(&["start", "tutorials/shell", "--json"])["id"], id);
    let _ = world.local(&["stop", "http://localhost/tutorials/shell", "--yes"]).ok();
    assert_eq!(names(&world), [""; 3]);
}

#[test]
fn a_stop_ends_the_attempt_and_erases_its_playground() {
    let world = World::with_platform(&[]);
    for (end, name) in [("stop", "write-a-file"), ("destroy", LESSON), ("stop", "two-machines")] {
        let id = world.json(&["start", name, "--yes", "--json"])["id"].as_str().unwrap().to_owned();
        let (code, said) = world.asked(&format!("{end} {name}"), "n\n");
        assert!(said.contains("End ") && said.contains("and erase ") && said.contains("everything in it?"), "{said}");
        assert!(code == Some(15) && said.contains("Nothing was erased."), "{said}");
        assert!(world.local(&[end, name]).failed(2).contains("add --yes"));
        assert_eq!(names(&world).len(), 1);
        let erased = world.json(&[end, name, "--yes", "--json"]);
        schema::check("erased", &erased);
        assert_eq!(erased["id"], id.as_str());
        assert!(names(&world).is_empty() && !world.root().join("local/plays").join(&id).exists());
        let again = world.local(&[end, name, "--yes"]).failed(4);
        assert!(again.contains(" is running"), "{again}");
    }
    assert_eq!(attempts(&world, "/challenges/write-a-file"), 1);
}

#[test]
fn a_strangers_challenge_takes_consent_besides_the_yes() {
    let world = World::with_platform(&[]);
    let said = world.local(&["start", "keep-the-egg", "--yes"]).failed(6);
    assert!(said.contains("by A stranger, not by the platform") && said.contains("--consent"), "{said}");
    let (code, said) = world.asked("start keep-the-egg --yes", "n\n");
    assert!(code == Some(15) && said.contains("Do you trust this author?"), "{said}");
    assert!(names(&world).is_empty());
    let _ = world.local(&["start", "keep-the-egg", "--yes", "--consent"]).ok();
    assert_eq!(names(&world), ["keep-the-egg"]);
}

#[test]
fn references_that_lead_nowhere_say_why() {
    let world = World::with_platform(&[]);
    for (argument, code, words) in [
        ("https://example.org/challenges/write-a-file", 2, "is not a page of localhost or labs.iximiuz.com"),
        ("https://labs.iximiuz.com/roadmaps/docker", 2, "is not a page of anything that can be started"),
        ("http://localhost/courses/shell-basics", 2, "name one of its lessons: shell-basics/files/first-folder, "),
        ("shell-basics/files/reading", 4, "has no playground: it is only to be read"),
        ("shell-basics/none", 4, "course shell-basics has no lesson none"),
        (
            "no-course/x",
            4,
            "the platform has no course no-course\nhint: run `labctl-ssh-proxy --local catalog --courses`",
        ),
        ("challenges/none", 4, "the platform has no challenge none"),
        ("write-a-fil", 4, "nothing in the catalogue is called `write-a-fil`"),
    ] {
        let said = world.local(&["start", argument, "--yes"]).failed(code);
        assert!(said.contains(words), "{argument}: {said}");
        if code == 2 {
            assert!(world.local(&["ssh", argument, "true"]).failed(2).contains(words), "{argument}");
        }
    }
    assert!(names(&world).is_empty());
    // A lesson is found by its slug, its name, and without its module.
    let id = world.json(&["start", "shell-basics/lesson-1", "--yes", "--json"])["id"].clone();
    for name in ["shell-basics/first-folder", "shell-basics/module-1/lesson-1", "first-folder", "lesson-1", LESSON] {
        let tasks = world.json(&["tasks", name, "--json"]);
        assert_eq!(tasks[1]["name"], "verify_folder", "{name}: {tasks}");
    }
    assert_eq!(world.json(&["start", "courses/shell-basics/module-1/lesson-1", "--json"])["id"], id);
}

#[test]
fn a_solved_challenge_is_waited_for() {
    let world = World::with_platform(&[]);
    let play = world.json(&["start", "write-a-file", "--yes", "--json"]);
    let id = play["id"].as_str().unwrap();
    let said = world.local(&["wait", "write-a-file", "--solved", "--timeout", "1s"]).failed(9);
    assert!(said.contains("Write a File"), "{said}");
    let done = |play: &Value| play["tasks"].as_array().unwrap().iter().all(|task| task["status"] == "completed");
    assert!(!done(&world.json(&["list", "--json"])[0]));
    fs::write(world.machine_home(id, "shell-01").join("hello.txt"), "hello\n").unwrap();
    let said = world.local(&["wait", "challenges/write-a-file", "--solved"]).ok();
    assert_eq!(said, "challenge write-a-file is solved\n");
    assert!(world.api("/challenges/write-a-file")["completedAt"].is_string());
    assert!(done(&world.json(&["list", "--json"])[0]));
    let tasks = world.local(&["tasks", "write-a-file"]).ok();
    assert_eq!(tasks.matches("completed").count(), 3, "{tasks}");

    // One that is spoilt, one that is no challenge.
    let id = world.json(&["start", "keep-the-egg", "--yes", "--consent", "--json"])["id"].as_str().unwrap().to_owned();
    fs::write(world.machine_home(&id, "shell-01").join("omelette"), "").unwrap();
    let said = world.local(&["wait", "keep-the-egg", "--solved"]).failed(14);
    assert!(said.contains("task verify_nest of Keep the Egg failed"), "{said}");
    let id = world.json(&["start", "shell", "--json"])["id"].as_str().unwrap().to_owned();
    assert!(world.local(&["wait", &id, "--solved"]).failed(2).contains("belongs to no challenge"));
}

#[test]
fn a_lost_answer_is_looked_for_and_not_asked_for_again() {
    let world = World::empty();
    let labs = Labs::start(&world, PLAIN);
    let path = "/api/challenges/solve-it";
    labs.answer(Instead::of(&format!("PATCH {path}"), 504, "").once().done());
    let said = world.run(&["start", "solve-it", "--yes", "--no-wait"]).ok();
    assert!(said.starts_with("Solve It is starting"), "{said}");
    let patches = || labs.seen().into_iter().filter(|seen| seen.line.starts_with("PATCH")).collect::<Vec<_>>();
    assert_eq!(patches().len(), 1);
    assert_eq!(patches()[0].body, json!({ "started": true, "safetyDisclaimerConsent": true }));
    // The attempt that goes on is used again.
    let _ = world.run(&["start", "solve-it", "--no-wait"]).ok();
    assert_eq!(patches().len(), 1);

    // Its end may be asked for twice. Here the platform has only stopped the playground, which was to be erased.
    let all = world.run(&["list", "--json"]).ok();
    let all: Value = serde_json::from_str(&all).unwrap();
    let learns = |play: &&Value| play["learning"]["name"] == "solve-it";
    let id = all.as_array().unwrap().iter().find(learns).unwrap()["id"].as_str().unwrap();
    labs.answer(Instead::of(&format!("PATCH {path}"), 200, "{}").once());
    labs.answer(Instead::of(&format!("PATCH {path}"), 503, "").once());
    let mut stop = world.command(&["stop", "solve-it", "--yes"]);
    let stopping = stop.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("its end was asked for", || patches().len() == 3);
    labs.edit(id, |play| enter(play, "STOPPED"));
    assert!(stopping.wait_with_output().unwrap().status.success());
    assert_eq!(patches()[2].body, json!({ "started": false }));
    assert_eq!(labs.count(&format!("POST /api/plays/{id}/actions")), 1);
    assert!(labs.play(id).is_none());
}

#[test]
fn what_can_be_learnt_is_listed() {
    let world = World::with_platform(&[]);
    let names = |options: &[&str]| world.local(&[&["catalog", "-q"], options].concat()).ok();
    assert_eq!(names(&["--challenges"]), "keep-the-egg\nwrite-a-file\n");
    assert_eq!(names(&["--challenges", "--category", "security", "--category", "none"]), "keep-the-egg\n");
    assert_eq!(names(&["--challenges", "--status", "solved"]), "");
    assert_eq!(names(&["--tutorials"]), "shell\ntwo-machines\n");
    assert_eq!(names(&["--courses"]), "shell-basics/files/first-folder\n");
    schema::check("exercises", &world.json(&["catalog", "--challenges", "--json"]));
    schema::check("courses", &world.json(&["catalog", "--courses", "--json"]));
    let table = world.local(&["catalog", "--tutorials"]).ok();
    assert!(
        table.lines().nth(2).unwrap().starts_with("two-machines  Two Machines at Once  todo    linux, networking"),
        "{table}"
    );
    for wrong in [&["shell", "--challenges"][..], &["--challenges", "--tutorials"], &["--category", "linux"]] {
        let _ = world.local(&[&["catalog"], wrong].concat()).failed(2);
    }
    // A name that was listed is completed, and so is that of an attempt.
    let complete = |line: &str| completions::bash(&world, &format!("labctl-ssh-proxy --local {line}"));
    assert_eq!(complete("start write"), ["write-a-file"]);
    assert_eq!(complete("stop write"), [""]);
    let _ = world.local(&["start", "write-a-file", "--yes"]).ok();
    assert!(complete("stop write").contains(&"write-a-file".to_owned()));
}
