//! The challenges, the tutorial and the course of the embedded platform, and the account's progress in them, which lives
//! in a file of the platform's folder.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Kind, Result},
    files,
    labs::wire::{Author, LearningKind, Named, Play, Task, TaskDetails, TaskStatus},
};

use super::record;

/// A challenge or a tutorial.
pub(super) struct Exercise {
    pub kind: LearningKind,
    pub name: &'static str,
    pub title: &'static str,
    pub description: &'static str,
    pub categories: &'static [&'static str],
    pub author: &'static Writer,
    /// The catalogue entry of its playground.
    pub playground: &'static str,
    checks: &'static [Check],
}

/// An author of content.
pub(super) struct Writer {
    id: &'static str,
    name: &'static str,
    official: bool,
}

/// A regular task: it runs again and again until it succeeds or its playground is spoilt.
pub(super) struct Check {
    name: &'static str,
    needs: &'static [&'static str],
    run: &'static str,
    /// Fails the task for good when it fails; empty for none.
    failcheck: &'static str,
}

/// A course.
pub(super) struct Course {
    pub name: &'static str,
    pub title: &'static str,
    pub author: &'static Writer,
    pub modules: &'static [Module],
}

/// A module of a course.
pub(super) struct Module {
    pub name: &'static str,
    pub title: &'static str,
    pub slug: &'static str,
    pub lessons: &'static [Lesson],
}

/// A lesson of a module.
pub(super) struct Lesson {
    pub name: &'static str,
    pub title: &'static str,
    pub slug: &'static str,
    /// The catalogue entry of its playground, if it has one.
    pub playground: Option<&'static str>,
    checks: &'static [Check],
}

const PLATFORM: Writer = Writer { id: "platform", name: "The embedded platform", official: true };
const STRANGER: Writer = Writer { id: "stranger", name: "A stranger", official: false };

/// All challenges and tutorials.
pub(super) const EXERCISES: [Exercise; 4] = [
    Exercise {
        kind: LearningKind::Challenge,
        name: "write-a-file",
        title: "Write a File",
        description: "Write a greeting into hello.txt in the home folder. Two tasks look for it until it is there.",
        categories: &["linux"],
        author: &PLATFORM,
        playground: "shell",
        checks: &[
            Check { name: "verify_file", needs: &[], run: "test -s hello.txt", failcheck: "" },
            Check { name: "verify_words", needs: &["verify_file"], run: "grep -qi hello hello.txt", failcheck: "" },
        ],
    },
    Exercise {
        kind: LearningKind::Challenge,
        name: "keep-the-egg",
        title: "Keep the Egg",
        description: "Make a file called nest, and never one called omelette: that spoils the playground for good. The \
                      author is not the platform, so this challenge takes consent.",
        categories: &["linux", "security"],
        author: &STRANGER,
        playground: "shell",
        checks: &[Check { name: "verify_nest", needs: &[], run: "test -e nest", failcheck: "test ! -e omelette" }],
    },
    Exercise {
        kind: LearningKind::Tutorial,
        name: "two-machines",
        title: "Two Machines at Once",
        description: "A first look at a playground of two machines.",
        categories: &["linux", "networking"],
        author: &PLATFORM,
        playground: "duo",
        checks: &[],
    },
    // It shares its name with an entry of the catalogue, which clients have to tell apart.
    Exercise {
        kind: LearningKind::Tutorial,
        name: "shell",
        title: "What a Shell Is",
        description: "A first look at a shell.",
        categories: &["linux"],
        author: &PLATFORM,
        playground: "shell",
        checks: &[],
    },
];

/// All courses.
pub(super) const COURSES: [Course; 1] = [Course {
    name: "shell-basics",
    title: "Shell Basics",
    author: &PLATFORM,
    modules: &[Module {
        name: "module-1",
        title: "Files",
        slug: "files",
        lessons: &[
            Lesson {
                name: "lesson-1",
                title: "Your First Folder",
                slug: "first-folder",
                playground: Some("shell"),
                checks: &[Check { name: "verify_folder", needs: &[], run: "test -d first", failcheck: "" }],
            },
            Lesson { name: "lesson-2", title: "What to Read", slug: "reading", playground: None, checks: &[] },
        ],
    }],
}];

/// The content that a play belongs to, as the play's record keeps it.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Belonging {
    Challenge(String),
    Tutorial(String),
    Lesson { course: String, module: String, lesson: String },
}

/// The part of some content that a new play of it is made from.
pub(super) struct Plan {
    pub title: &'static str,
    pub playground: &'static str,
    checks: &'static [Check],
}

impl Exercise {
    /// The challenge or tutorial of that name.
    pub(super) fn find(kind: LearningKind, name: &str) -> Option<&'static Exercise> {
        EXERCISES.iter().find(|one| one.kind == kind && one.name == name)
    }

    /// The belonging of its plays.
    pub(super) fn belonging(&self) -> Belonging {
        match self.kind {
            LearningKind::Challenge => Belonging::Challenge(self.name.into()),
            LearningKind::Tutorial | LearningKind::Lesson => Belonging::Tutorial(self.name.into()),
        }
    }

    /// The path of its page.
    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.kind.plural(), self.name)
    }
}

impl Course {
    /// The course of that name.
    pub(super) fn find(name: &str) -> Option<&'static Course> {
        COURSES.iter().find(|course| course.name == name)
    }

    fn lesson(&self, module: &str, lesson: &str) -> Option<(&'static Module, &'static Lesson)> {
        let module = self.modules.iter().find(|one| one.name == module)?;
        Some((module, module.lessons.iter().find(|one| one.name == lesson)?))
    }
}

impl Writer {
    /// The author as the API shows them.
    pub(super) fn shown(&self) -> Author {
        let (id, name) = (self.id.to_owned(), self.name.to_owned());
        Author { user_id: id.clone(), name: id, display_name: name, official: self.official }
    }

    /// True for content that starts only with consent.
    pub(super) fn needs_consent(&self) -> bool {
        !self.official
    }
}

impl Belonging {
    /// The part that a new play of it is made from; `None` for a lesson without a playground, and for content that this
    /// version no longer has.
    pub(super) fn plan(&self) -> Option<Plan> {
        let exercise = |kind, name: &str| {
            let Exercise { title, playground, checks, .. } = Exercise::find(kind, name)?;
            Some(Plan { title, playground, checks })
        };
        match self {
            Belonging::Challenge(name) => exercise(LearningKind::Challenge, name),
            Belonging::Tutorial(name) => exercise(LearningKind::Tutorial, name),
            Belonging::Lesson { course, module, lesson } => {
                let Lesson { title, playground, checks, .. } = Course::find(course)?.lesson(module, lesson)?.1;
                Some(Plan { title, playground: (*playground)?, checks })
            }
        }
    }

    /// The path of its page on the site.
    fn path(&self) -> String {
        match self {
            Belonging::Challenge(name) => format!("challenges/{name}"),
            Belonging::Tutorial(name) => format!("tutorials/{name}"),
            Belonging::Lesson { course, module, lesson } => {
                let found = Course::find(course).and_then(|course| course.lesson(module, lesson));
                let (module, lesson) = found.map_or((&**module, &**lesson), |(module, one)| (module.slug, one.slug));
                format!("courses/{course}/{module}/{lesson}")
            }
        }
    }

    /// Tells in a play what it belongs to.
    pub(super) fn tell(&self, play: &mut Play, base: &str) {
        play.page_url = format!("{base}/{}", self.path());
        let named = |name: &str| {
            let title = self.plan().map_or(name, |plan| plan.title);
            Some(Named { name: name.into(), title: title.into() })
        };
        match self {
            Belonging::Challenge(name) => (play.challenge_name, play.challenge) = (Some(name.clone()), named(name)),
            Belonging::Tutorial(name) => (play.tutorial_name, play.tutorial) = (Some(name.clone()), named(name)),
            Belonging::Lesson { course, lesson, .. } => {
                let title = Course::find(course).map_or(&**course, |course| course.title).to_owned();
                play.course = Some(Named { name: course.clone(), title });
                play.course_name = Some(course.clone());
                let path = self.path();
                let below = path.trim_start_matches("courses/").trim_start_matches(course).trim_start_matches('/');
                play.lesson_path = Some(below.to_owned());
                play.lesson = named(lesson);
            }
        }
    }
}

impl Plan {
    /// The regular tasks of a new play, on that machine.
    pub(super) fn new_tasks(&self, machine: &str, user: &str) -> Vec<TaskDetails> {
        let task = |check: &Check| TaskDetails {
            task: Task { name: check.name.into(), status: TaskStatus::CREATED, version: 1, ..Task::default() },
            machine: machine.into(),
            needs: check.needs.iter().map(|need| (*need).into()).collect(),
            run: check.run.into(),
            failcheck: check.failcheck.into(),
            user: user.into(),
            ..TaskDetails::default()
        };
        self.checks.iter().map(task).collect()
    }
}

/// The progress in one challenge or tutorial.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Progress {
    pub attempts: u64,
    pub completions: u64,
    /// RFC 3339; empty before the first completion.
    pub completed_at: String,
}

/// The progress in everything, and its file.
pub(super) struct Learning {
    path: PathBuf,
    /// By the path of the content's page.
    progress: Mutex<BTreeMap<String, Progress>>,
    /// Held while an attempt begins, so that there is only one of each at a time.
    pub beginning: tokio::sync::Mutex<()>,
}

impl Learning {
    /// Reads the progress in `folder`.
    ///
    /// # Errors
    /// Fails when the file cannot be read or understood.
    pub(super) fn open(folder: &Path) -> Result<Learning> {
        let path = folder.join("learning.json");
        let progress = match files::read_text(&path)? {
            None => BTreeMap::new(),
            Some(text) => serde_json::from_str(&text).map_err(|e| {
                Error::new(Kind::File, format!("{} is damaged: {e}", path.display()))
                    .with_hint("delete it to start without progress in challenges and tutorials")
            })?,
        };
        Ok(Learning { path, progress: Mutex::new(progress), beginning: tokio::sync::Mutex::default() })
    }

    /// The progress in a challenge or a tutorial.
    pub(super) fn progress(&self, of: &Belonging) -> Progress {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.get(&of.path()).cloned().unwrap_or_default()
    }

    /// Counts an attempt.
    pub(super) fn note_attempt(&self, of: &Belonging) {
        self.change(of, |progress| progress.attempts += 1);
    }

    /// Notes that it has been completed.
    pub(super) fn note_completed(&self, of: &Belonging) {
        self.change(of, |progress| {
            progress.completions += 1;
            progress.completed_at = record::now();
        });
    }

    /// Changes the progress. A failure to keep it is only logged, because an attempt goes on without it.
    fn change(&self, of: &Belonging, change: impl FnOnce(&mut Progress)) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        change(progress.entry(of.path()).or_default());
        let written = serde_json::to_vec_pretty(&*progress)
            .map_err(|e| Error::new(Kind::Internal, format!("cannot write the progress: {e}")))
            .and_then(|text| files::write_private(&self.path, &text));
        if let Err(error) = written {
            log::warn!("{}", error.message());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::catalog, Belonging, COURSES, EXERCISES, Learning};

    #[test]
    fn every_playground_is_in_the_catalogue_and_no_task_is_twice() {
        let lessons = COURSES.iter().flat_map(|course| {
            let of = move |module: &'static super::Module| {
                module.lessons.iter().map(move |lesson| Belonging::Lesson {
                    course: course.name.into(),
                    module: module.name.into(),
                    lesson: lesson.name.into(),
                })
            };
            course.modules.iter().flat_map(of)
        });
        let plans: Vec<_> = EXERCISES.iter().map(|one| one.belonging()).chain(lessons).map(|one| one.plan()).collect();
        assert_eq!(plans.iter().flatten().count(), plans.len() - 1, "one lesson has no playground");
        for plan in plans.into_iter().flatten() {
            let entry = catalog::find(plan.playground).unwrap();
            let own = entry.blueprint().new_tasks(&Default::default(), &[]);
            for task in plan.new_tasks("m", "u") {
                assert!(own.iter().all(|other| other.task.name != task.task.name), "{}", task.task.name);
            }
        }
    }

    #[test]
    fn progress_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let of = EXERCISES[0].belonging();
        let learning = Learning::open(folder.path()).unwrap();
        learning.note_attempt(&of);
        learning.note_attempt(&of);
        learning.note_completed(&of);
        let back = Learning::open(folder.path()).unwrap().progress(&of);
        assert_eq!((back.attempts, back.completions, back.completed_at.is_empty()), (2, 1, false));
        assert_eq!(Learning::open(folder.path()).unwrap().progress(&EXERCISES[1].belonging()).attempts, 0);
        std::fs::write(folder.path().join("learning.json"), "{").unwrap();
        assert!(Learning::open(folder.path()).err().unwrap().message().contains("damaged"));
    }
}
