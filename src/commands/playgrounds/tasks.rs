//! `tasks`: the progress of a playground's tasks.

use serde::Serialize;

use crate::{
    app::App,
    commands::args::One,
    error::{Error, Kind, Result, printable},
    labs::{find, wire::TaskDetails},
    ui::out,
};

/// List a playground's tasks and their status.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    one: One,
}

/// A task in `tasks --json`.
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

/// Prints the tasks of a playground, init tasks first.
///
/// # Errors
/// The platform's.
pub(crate) async fn run(app: &App, Args { one }: Args) -> Result<()> {
    let labs = app.labs().await?;
    let play = find::whole(&labs, &one.playground).await?;
    let mut all = labs.tasks(&play.id).await?;
    all.sort_by_key(|one| (!one.task.init, one.task.helper, one.task.name.clone()));
    if one.json {
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
    out::table(&["TASK", "MACHINE", "KIND", "STATUS", "LAST ERROR LINE"], rows.collect())
}
