//! `catalog --challenges`, `--tutorials` and `--courses`: the learning content that can be started.

use clap::ArgGroup;

use crate::{
    app::App,
    error::{Result, printable},
    labs::{
        Labs, learning,
        wire::{Exercise, LearningKind},
    },
    records::names,
    ui::out,
};

/// The options of `catalog` about learning content.
#[derive(Debug, Default, clap::Args)]
#[command(group = ArgGroup::new("learning").conflicts_with_all(["name", "filter"]))]
#[command(group = ArgGroup::new("exercises"))]
pub(super) struct Wanted {
    /// List the challenges.
    #[arg(long, groups = ["learning", "exercises"])]
    challenges: bool,
    /// List the tutorials.
    #[arg(long, groups = ["learning", "exercises"])]
    tutorials: bool,
    /// List the courses' lessons that have a playground.
    #[arg(long, group = "learning")]
    courses: bool,
    /// Of challenges and tutorials, only those of this category, such as linux or kubernetes. Can be given several times.
    #[arg(long, requires = "exercises")]
    category: Vec<String>,
    /// Of challenges and tutorials, only those that are todo, attempted, solved (challenges) or completed (tutorials). Can
    /// be given several times.
    #[arg(long, requires = "exercises")]
    status: Vec<String>,
}

impl Wanted {
    /// Lists the content that is wanted. Returns false if it is none, but playgrounds.
    ///
    /// # Errors
    /// The platform's.
    pub(super) async fn list(&self, app: &App, labs: &Labs, json: bool, quiet: bool) -> Result<bool> {
        match self {
            Wanted { courses: true, .. } => courses(labs, json, quiet).await?,
            Wanted { challenges: true, .. } => self.exercises(app, labs, LearningKind::Challenge, json, quiet).await?,
            Wanted { tutorials: true, .. } => self.exercises(app, labs, LearningKind::Tutorial, json, quiet).await?,
            Wanted { .. } => return Ok(false),
        }
        Ok(true)
    }

    async fn exercises(&self, app: &App, labs: &Labs, kind: LearningKind, json: bool, quiet: bool) -> Result<()> {
        let mut all = labs.exercises(kind, &self.category, &self.status).await?;
        if self.category.is_empty() && self.status.is_empty() {
            names::remember_exercises(&app.folders, app.platform, kind, &all);
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        if json {
            return out::json(&all);
        }
        if quiet {
            return out::lines(all.iter().map(|one| printable(&one.name)).collect());
        }
        if all.is_empty() {
            return out::line("There are none.");
        }
        let row = |one: &Exercise| {
            let (name, title) = (printable(&one.name), printable(&one.title));
            vec![name, title, printable(&one.status), printable(&one.categories.join(", "))]
        };
        out::table(&["NAME", "TITLE", "STATUS", "CATEGORIES"], all.iter().map(row).collect())
    }
}

async fn courses(labs: &Labs, json: bool, quiet: bool) -> Result<()> {
    let mut all = labs.courses().await?;
    all.sort_by(|a, b| a.name.cmp(&b.name));
    if json {
        return out::json(&all);
    }
    let mut rows = Vec::new();
    for course in all {
        // The list may have the courses without their modules.
        let course = if course.modules.is_empty() { labs.course(&course.name).await? } else { course };
        let lessons = learning::lessons_of(&course).into_iter().filter(|lesson| !lesson.has_no_playground());
        rows.extend(lessons.map(|one| vec![printable(&one.name), printable(&one.title), printable(&course.title)]));
    }
    if quiet {
        return out::lines(rows.into_iter().map(|mut row| row.swap_remove(0)).collect());
    }
    if rows.is_empty() {
        return out::line("There are none.");
    }
    out::table(&["NAME", "TITLE", "COURSE"], rows)
}
