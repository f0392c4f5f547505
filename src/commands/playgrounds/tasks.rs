//! `tasks` and `wait`: how far a playground's tasks are, and until they are done.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::whole;
use crate::{
    app::App,
    error::{Error, Kind, Result, printable},
    labs::wire::TaskDetails,
    ui::{out, spinner::Spinner},
    wake::preparation::{Preparation, Tasks, failure},
};

/// A task as `tasks --json` shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed<'a> {
    name: &'a str,
    machine: &'a str,
    status: &'static str,
    init: bool,
    helper: bool,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    needs: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    stdout: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    stderr: &'a str,
}

/// `tasks`: the tasks of a playground, those that prepare it first.
///
/// # Errors
/// The platform's.
pub async fn tasks(app: &App, argument: &str, json: bool) -> Result<()> {
    let labs = app.labs().await?;
    let play = whole(&labs, argument).await?;
    let mut all = labs.tasks(&play.id).await?;
    all.sort_by_key(|one| (!one.task.init, one.task.helper, one.task.name.clone()));
    if json {
        let listed = |one: &TaskDetails| -> Result<serde_json::Value> {
            let TaskDetails { task, machine, needs, exit_code, stdout, stderr, .. } = one;
            let (name, status, init, helper) = (&task.name, task.status.word(), task.init, task.helper);
            let exit_code = exit_code.filter(|_| task.status.is_final());
            let listed = Listed { name, machine, status, init, helper, needs, exit_code, stdout, stderr };
            serde_json::to_value(listed).map_err(|e| Error::new(Kind::Internal, e.to_string()))
        };
        return out::json(&all.iter().map(listed).collect::<Result<Vec<_>>>()?);
    }
    let rows = all.iter().map(|one| {
        let kind = match (one.task.init, one.task.helper) {
            (true, _) => "init",
            (false, true) => "helper",
            (false, false) => "",
        };
        let last = one.stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let word = one.task.status.word().to_owned();
        vec![printable(&one.task.name), printable(&one.machine), kind.to_owned(), word, printable(last)]
    });
    out::table(&["TASK", "MACHINE", "KIND", "STATUS", "LAST WORDS"], rows.collect())
}

/// `wait`: until the machines are ready and the tasks are done, or only those that prepare the playground.
///
/// # Errors
/// [`Kind::Program`] when a task has failed, [`Kind::NotYet`] after `limit`, [`Kind::NotWoken`] when the playground is
/// stopped; the platform's.
pub async fn wait(app: &App, argument: &str, init: bool, limit: Option<Duration>) -> Result<()> {
    let labs = app.labs().await?;
    let deadline = limit.map(|limit| Instant::now() + limit);
    let id = whole(&labs, argument).await?.id;
    let play = labs.play(&id).await?;
    let key = app.identity()?.authorized_key()?;
    let tasks = if init { Tasks::Init } else { Tasks::All };
    let (memory, progress) = (app.memory(), Spinner::new());
    let wait = Preparation { labs: &labs, memory: &memory, key: &key, progress: &progress, tasks, deadline };
    let play = wait.wait(play).await?;
    drop(progress);
    match failure(&play, tasks) {
        None => out::line(&format!("{} is ready", play.shown())),
        Some(words) => {
            Err(Error::new(Kind::Program, words).with_hint(format!("`labctl-ssh-proxy tasks {}` shows more", play.id)))
        }
    }
}
