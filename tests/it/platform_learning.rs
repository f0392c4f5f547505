//! Challenges, tutorials and courses of the embedded platform: their attempts, and the tasks that check what one does.

use std::fs;

use labctl_ssh_proxy::{
    error::Kind,
    labs::wire::{Action, Course, Exercise, Play, State, TaskStatus},
};
use serde_json::{Value, json};

use crate::support::platform::{Platform, quick};

impl Platform {
    async fn patch<T: serde::de::DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, (u16, String)> {
        let reply = self.send("PATCH", path, &body.to_string()).await;
        match reply.status.is_success() {
            true => Ok(serde_json::from_slice(&reply.body).unwrap()),
            false => Err((reply.status.as_u16(), String::from_utf8_lossy(&reply.body).into_owned())),
        }
    }

    async fn begin(&self, path: &str) -> Play {
        self.patch::<Exercise>(path, &json!({ "started": true })).await.unwrap().play.unwrap()
    }

    fn home_of(&self, id: &str) -> std::path::PathBuf {
        self.folders.local().join("plays").join(id).join("shell-01/home")
    }
}

const CHALLENGE: &str = "/challenges/write-a-file";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_runs_until_it_succeeds_and_the_last_one_solves_the_challenge() {
    let mut platform = Platform::start(quick()).await;
    let play = platform.begin(CHALLENGE).await;
    assert_eq!(play.page_url, "http://localhost/challenges/write-a-file");
    let ready = platform.ready(&play.id).await;
    assert_eq!(ready.learning().unwrap().name, "write-a-file");
    let waits = |play: &Play| {
        let status = |name: &str| play.tasks[name].status;
        (status("verify_file"), status("verify_words")) == (TaskStatus::RUNNING, TaskStatus::BLOCKED)
    };
    let before = platform.until(&play.id, waits).await;
    assert!(!before.tasks["verify_file"].init);
    // A machine's end interrupts a check, and its next boot begins it again.
    platform.labs.act(&play.id, &Action::RebootMachine { machine: "shell-01".into() }).await.unwrap();
    platform.ready(&play.id).await;
    platform.until(&play.id, waits).await;

    let hello = platform.home_of(&play.id).join("hello.txt");
    fs::write(&hello, "a file\n").unwrap();
    let half = |play: &Play| play.tasks["verify_file"].status == TaskStatus::COMPLETED;
    platform.until(&play.id, |play| half(play) && play.tasks["verify_words"].status == TaskStatus::RUNNING).await;
    let one: Exercise = serde_json::from_slice(&platform.send("GET", CHALLENGE, "").await.body).unwrap();
    assert_eq!((one.status.as_str(), one.completed_at.as_str(), one.attempt_count), ("attempted", "", 1));
    fs::write(&hello, "Hello!\n").unwrap();
    platform.until(&play.id, |play| play.tasks.values().all(|task| task.status == TaskStatus::COMPLETED)).await;
    let one: Exercise = serde_json::from_slice(&platform.send("GET", CHALLENGE, "").await.body).unwrap();
    assert_eq!((one.status.as_str(), one.completion_count), ("solved", 1));
    assert!(one.completed_at.starts_with("20"), "{}", one.completed_at);

    // Its record, and the play that it names, outlive the process.
    platform.end().await;
    let again = Platform::start_in(&platform.folders, quick()).await;
    let one: Exercise = serde_json::from_slice(&again.send("GET", CHALLENGE, "").await.body).unwrap();
    assert_eq!((one.status.as_str(), one.attempt_count, one.completion_count), ("solved", 1, 1));
    assert_eq!(one.play.unwrap().id, play.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failcheck_fails_a_check_for_good() {
    let platform = Platform::start(quick()).await;
    let path = "/challenges/keep-the-egg";
    let refused = platform.patch::<Exercise>(path, &json!({ "started": true })).await.unwrap_err();
    assert!(refused.0 == 403 && refused.1.contains("consent"), "{refused:?}");
    assert!(platform.labs.plays().await.unwrap().is_empty());
    let consented = json!({ "started": true, "safetyDisclaimerConsent": true });
    let play = platform.patch::<Exercise>(path, &consented).await.unwrap().play.unwrap();
    platform.ready(&play.id).await;
    fs::write(platform.home_of(&play.id).join("omelette"), "").unwrap();
    platform.until(&play.id, |play| play.tasks["verify_nest"].status == TaskStatus::FAILED).await;
    fs::write(platform.home_of(&play.id).join("nest"), "").unwrap();
    let one: Exercise = serde_json::from_slice(&platform.send("GET", path, "").await.body).unwrap();
    assert_eq!(one.status, "attempted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_one_attempt_at_a_time_and_its_end_erases_its_playground() {
    let platform = Platform::start(quick()).await;
    let (one, two) = tokio::join!(platform.begin(CHALLENGE), platform.begin(CHALLENGE));
    assert_eq!(one.id, two.id);
    platform.ready(&one.id).await;
    let ended: Exercise = platform.patch(CHALLENGE, &json!({ "started": false })).await.unwrap();
    assert!(ended.play.is_none() && ended.attempt_count == 1);
    platform.state(&one.id, State::Destroyed).await;
    platform.patch::<Exercise>(CHALLENGE, &json!({ "started": false })).await.unwrap();
    assert_ne!(platform.begin(CHALLENGE).await.id, one.id);

    let refused = platform.patch::<Exercise>(CHALLENGE, &json!({ "completed": true })).await.unwrap_err();
    assert_eq!(refused.0, 400);
    let done: Exercise = platform.patch("/tutorials/two-machines", &json!({ "completed": true })).await.unwrap();
    assert_eq!(done.status, "completed");
    for path in ["/challenges/none", "/tutorials/write-a-file", "/courses/none", "/courses/shell-basics/x"] {
        assert_eq!(platform.send("GET", path, "").await.status, 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lesson_has_a_play_while_it_is_started() {
    let platform = Platform::start(quick()).await;
    let change = |lesson: &str, started: bool| json!({ "modules": { "module-1": { "lessons": { lesson: { "started": started } } } } });
    let path = "/courses/shell-basics/learning";
    let course: Course = platform.patch(path, &change("lesson-1", true)).await.unwrap();
    let id = course.play_of("module-1", "lesson-1").unwrap().to_owned();
    let play = platform.ready(&id).await;
    assert_eq!(play.lesson_path.as_deref(), Some("files/first-folder"));
    assert_eq!(play.learning().unwrap().name, "shell-basics/files/first-folder");
    for (lesson, status) in [("lesson-2", 404), ("none", 404)] {
        assert_eq!(platform.patch::<Course>(path, &change(lesson, true)).await.unwrap_err().0, status, "{lesson}");
    }
    let course: Course = platform.patch(path, &change("lesson-1", false)).await.unwrap();
    assert_eq!(course.play_of("module-1", "lesson-1"), None);
    platform.state(&id, State::Destroyed).await;
    let error = platform.labs.act(&id, &Action::Destroy).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
}
