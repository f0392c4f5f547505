//! Init tasks of the embedded platform: real commands that run once, and that clients can wait for.

use std::{fs, path::PathBuf, time::Duration};

use futures_util::StreamExt;
use labctl_ssh_proxy::{
    error::Kind,
    labs::{
        Labs,
        net::Dialer,
        wire::{Action, CreatePlay, Message, Play, State, TaskDetails, TaskStatus},
    },
    local::{InitTask, serve::Options, start},
};
use tokio::io::AsyncReadExt;

use crate::support::platform::{Platform, folders, messages, quick};

/// A task that counts its runs, and runs until the test permits it to end.
const HELD: &str =
    "held=echo run >>runs; until [ -e go ]; do sleep 0.02; done; echo out; echo err >&2; test ! -e wrong";

fn with(tasks: &[&str]) -> Options {
    Options { init_tasks: tasks.iter().map(|task| task.parse::<InitTask>().unwrap()).collect(), ..quick() }
}

fn home(platform: &Platform, id: &str, machine: &str) -> PathBuf {
    platform.folders.local().join("plays").join(id).join(machine).join("home")
}

fn status(play: &Play, name: &str) -> TaskStatus {
    play.tasks[name].status
}

async fn details(platform: &Platform, id: &str) -> Vec<TaskDetails> {
    platform.labs.tasks(id).await.unwrap()
}

async fn detail(platform: &Platform, id: &str, name: &str) -> TaskDetails {
    details(platform, id).await.into_iter().find(|task| task.task.name == name).unwrap()
}

/// Waits until a task has written its first line.
async fn has_begun(platform: &Platform, id: &str, machine: &str, runs: usize) {
    let path = home(platform, id, machine).join("runs");
    while fs::read_to_string(&path).unwrap_or_default().lines().count() < runs {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_runs_once_on_its_machine_while_ssh_works() {
    let mut platform = Platform::start(with(&[HELD])).await;
    let made = platform.create("duo").await;
    let id = made.id.clone();
    assert_eq!(made.tasks.keys().collect::<Vec<_>>(), ["held", "inspect_01", "inspect_02"]);
    assert!(made.tasks.values().all(|task| task.init && !task.helper && task.status == TaskStatus::CREATED));

    platform.ready(&id).await;
    has_begun(&platform, &id, "node-01", 1).await;
    let play = platform.labs.play(&id).await.unwrap();
    assert_eq!(status(&play, "held"), TaskStatus::RUNNING);
    let session = platform.tunnel(&id, "node-01").await.unwrap();
    let mut greeting = [0; 8];
    platform.labs.dial(&session, ":22").await.unwrap().read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"SSH-2.0-");

    fs::write(home(&platform, &id, "node-01").join("go"), "").unwrap();
    let play = platform.until(&id, |play| play.init_progress() == Some((3, 3))).await;
    assert!(play.tasks["held"].version > made.tasks["held"].version);
    let held = detail(&platform, &id, "held").await;
    assert_eq!((held.machine.as_str(), held.exit_code, held.stdout.as_str()), ("node-01", Some(0), "out\n"));
    assert_eq!(held.stderr, "err\n");
    assert!(held.last_run_at.starts_with("20") && held.last_duration_ms.is_some());
    assert!(!held.user.is_empty() && !held.control_plane_only);
    let inspected = detail(&platform, &id, "inspect_02").await;
    assert_eq!((inspected.machine.as_str(), inspected.needs), ("node-02", vec!["inspect_01".to_owned()]));
    assert!(inspected.stdout.contains("node-02/home"), "it runs in its machine's home: {}", inspected.stdout);

    // Of one machine, of several, of one that does not exist.
    let of = async |query: &str| {
        let answer = platform.json("GET", &format!("/api/plays/{id}/tasks?{query}"), "").await;
        answer.as_array().unwrap().iter().map(|task| task["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of("machine=node-02").await, ["inspect_02"]);
    assert_eq!(of("machine=node-02&machine=node-01").await.len(), 3);
    assert_eq!(platform.status_of("GET", &format!("/api/plays/{id}/tasks?machine=node-03"), "").await, 404);

    // Neither a reboot nor a restart of the playground runs them again.
    platform.labs.act(&id, &Action::RebootMachine { machine: "node-01".into() }).await.unwrap();
    platform.ready(&id).await;
    platform.labs.act(&id, &Action::Stop).await.unwrap();
    platform.state(&id, State::Stopped).await;
    assert!(details(&platform, &id).await.iter().all(|task| task.control_plane_only));
    platform.labs.act(&id, &Action::Restart).await.unwrap();
    let play = platform.ready(&id).await;
    assert_eq!(play.init_progress(), Some((3, 3)));
    assert_eq!(fs::read_to_string(home(&platform, &id, "node-01").join("runs")).unwrap(), "run\n");
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_stays_and_what_needs_it_stays_blocked() {
    let mut platform = Platform::start(quick()).await;
    let id = platform.create("broken").await.id;
    let play = platform.until(&id, |play| status(play, "fetch").is_final()).await;
    let said = [status(&play, "inspect").word(), status(&play, "fetch").word(), status(&play, "unpack").word()];
    assert_eq!(said, ["completed", "failed", "blocked"]);
    let fetch = detail(&platform, &id, "fetch").await;
    assert_eq!(fetch.exit_code, Some(3));
    assert!(fetch.stderr.contains("always fails"), "{}", fetch.stderr);

    platform.labs.act(&id, &Action::Stop).await.unwrap();
    platform.state(&id, State::Stopped).await;
    platform.labs.act(&id, &Action::Restart).await.unwrap();
    let play = platform.ready(&id).await;
    assert_eq!([status(&play, "fetch").word(), status(&play, "unpack").word()], ["failed", "blocked"]);
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_task_runs_again_at_the_next_boot() {
    let (_home, folders) = folders();
    let mut platform = Platform::start_in(&folders, with(&[HELD])).await;
    let id = platform.create("shell").await.id;
    let stopped = async |platform: &Platform| {
        platform.labs.act(&id, &Action::Stop).await.unwrap();
        let play = platform.state(&id, State::Stopped).await;
        assert_eq!(status(&play, "held"), TaskStatus::CREATED);
        platform.labs.act(&id, &Action::Restart).await.unwrap();
    };
    has_begun(&platform, &id, "shell-01", 1).await;
    let version = platform.labs.play(&id).await.unwrap().tasks["held"].version;
    stopped(&platform).await;
    has_begun(&platform, &id, "shell-01", 2).await;
    platform.until(&id, |play| status(play, "inspect") == TaskStatus::COMPLETED).await;
    assert!(platform.labs.play(&id).await.unwrap().tasks["held"].version > version);
    platform.labs.act(&id, &Action::RebootMachine { machine: "shell-01".into() }).await.unwrap();
    has_begun(&platform, &id, "shell-01", 3).await;

    // The end of the platform ends them as well. A task belongs to its play, whatever options the next platform gets.
    platform.end().await;
    let mut platform = Platform::start_in(&folders, quick()).await;
    let play = platform.labs.play(&id).await.unwrap();
    assert_eq!(status(&play, "held"), TaskStatus::CREATED);
    assert_eq!(status(&play, "inspect"), TaskStatus::COMPLETED);
    platform.labs.act(&id, &Action::Restart).await.unwrap();
    has_begun(&platform, &id, "shell-01", 4).await;
    let home = home(&platform, &id, "shell-01");
    fs::write(home.join("wrong"), "").unwrap();
    fs::write(home.join("go"), "").unwrap();
    let play = platform.until(&id, |play| status(play, "held").is_final()).await;
    assert_eq!(status(&play, "held"), TaskStatus::FAILED);
    platform.end().await;
    let mut platform = Platform::start_in(&folders, quick()).await;
    let held = detail(&platform, &id, "held").await;
    assert_eq!((held.task.status, held.exit_code, held.stdout.as_str()), (TaskStatus::FAILED, Some(1), "out\n"));
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_messages_tell_the_tasks_and_their_changes() {
    let mut platform = Platform::start(with(&[HELD])).await;
    let id = platform.create("shell").await.id;
    has_begun(&platform, &id, "shell-01", 1).await;
    platform.until(&id, |play| status(play, "inspect") == TaskStatus::COMPLETED).await;
    let mut live = messages(platform.labs.live(&id).await.unwrap());
    assert!(matches!(live.next().await.unwrap(), Message::Status { .. }), "the status comes first");
    let mut next_task = async || loop {
        if let Message::Task { machine, task } = live.next().await.unwrap() {
            assert_eq!(machine, "shell-01");
            return task;
        }
    };
    let (first, second) = (next_task().await, next_task().await);
    assert_eq!((first.name.as_str(), first.status), ("inspect", TaskStatus::COMPLETED));
    assert_eq!((second.name.as_str(), second.status), ("held", TaskStatus::RUNNING));
    fs::write(home(&platform, &id, "shell-01").join("go"), "").unwrap();
    let third = next_task().await;
    assert_eq!((third.name.as_str(), third.status), ("held", TaskStatus::COMPLETED));
    assert!(third.version > second.version && third.init);
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_boot_tasks_are_what_the_platform_last_knew() {
    let mut platform = Platform::start(Options { boot_delay: Duration::from_secs(600), ..quick() }).await;
    let id = platform.create("shell").await.id;
    platform.state(&id, State::Running).await;
    let rows = platform.json("GET", &format!("/api/plays/{id}/tasks"), "").await;
    assert_eq!((&rows[0]["status"], &rows[0]["controlPlaneOnly"]), (&10.into(), &true.into()), "{rows}");
    assert_eq!(rows[0].get("exitCode"), None, "{rows}");
    platform.labs.act(&id, &Action::Destroy).await.unwrap();
    platform.state(&id, State::Destroyed).await;
    let error = platform.labs.tasks("ffffffffffffffffffffffff").await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_long_output_is_kept_and_a_daemon_holds_nothing_up() {
    let noisy = "noisy=yes | head -c 1000000; echo the end; sleep 1000 & echo left";
    let mut platform = Platform::start(with(&[noisy])).await;
    let id = platform.create("shell").await.id;
    platform.until(&id, |play| status(play, "noisy") == TaskStatus::COMPLETED).await;
    let noisy = detail(&platform, &id, "noisy").await;
    assert_eq!(noisy.stdout.len(), 64 * 1024);
    assert!(noisy.stdout.ends_with("the end\nleft\n"));
    // The daemon belongs to the machine, and ends with it.
    platform.end().await;
}

/// Runs the program in a world of its own.
async fn local(home: &tempfile::TempDir, arguments: &[&str]) -> (i32, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_labctl-ssh-proxy"));
    command.arg("local").args(arguments).env_clear().env("HOME", home.path());
    let output = command.env("LABCTL_SSH_PROXY_HOME", home.path().join("r")).output().await.unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_gives_tasks_limits_and_delays() {
    let (home, folders) = folders();
    for (tasks, words) in [
        (&["--init-task", "nonsense"][..], "NAME=COMMAND"),
        (&["--init-task", "inspect=true"], "already has a task called inspect"),
        (&["--init-task", "a=true", "--init-task", "a=false"], "two init tasks have the name a"),
    ] {
        let (code, said) = local(&home, &[&["serve"], tasks].concat()).await;
        assert!(code == 2 && said.contains(words), "{code}: {said}");
    }
    let options = ["--init-task", "wait=touch ran", "--tunnel-limit", "0", "--state-delay", "1ms"];
    let mut serving = tokio::process::Command::new(env!("CARGO_BIN_EXE_labctl-ssh-proxy"));
    serving.args(["local", "serve"]).args(options).env_clear().kill_on_drop(true).stderr(std::process::Stdio::null());
    let mut serving = serving.env("HOME", home.path()).env("LABCTL_SSH_PROXY_HOME", &folders.root).spawn().unwrap();
    while start::status(&folders).await.ok().flatten().is_none() {
        tokio::task::yield_now().await;
    }
    let labs = Labs::embedded(Dialer::socket(folders.socket()));
    let wish = CreatePlay { playground: "shell".into(), ..CreatePlay::default() };
    let id = labs.create_play(&wish).await.unwrap().id;
    while status(&labs.play(&id).await.unwrap(), "wait") != TaskStatus::COMPLETED {
        tokio::task::yield_now().await;
    }
    assert_eq!(labs.start_tunnel(&id, "", "", "").await.unwrap_err().kind(), Kind::NotYet);
    assert_eq!(local(&home, &["stop"]).await.0, 0);
    assert!(serving.wait().await.unwrap().success());
}
