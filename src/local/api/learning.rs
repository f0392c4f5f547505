//! `/challenges`, `/tutorials` and `/courses`.

use std::collections::BTreeMap;

use hyper::{Method, Request, body::Incoming};

use crate::labs::wire::{self, ChangeCourse, ChangeExercise, LearningKind, LessonPlayground};

use super::{
    super::{
        learning::{Belonging, COURSES, Course, EXERCISES, Exercise, Lesson, Module},
        refusal::{Answer, Refusal},
        reply::{Reply, ok, read, values},
        world::status,
    },
    Api,
};

impl Api {
    /// Answers a call about learning content.
    ///
    /// # Errors
    /// 404 when there is no such content or call, and those of an attempt's begin and end.
    pub(super) async fn learn(&self, segments: &[&str], query: &str, request: Request<Incoming>) -> Answer<Reply> {
        let (method, unknown) = (request.method().clone(), || Refusal::not_found("there is no such content here"));
        if let ["courses", rest @ ..] = segments {
            let find = |name: &str| Course::find(name).ok_or_else(unknown);
            return match (&method, rest) {
                (&Method::GET, []) => Ok(ok(&COURSES.iter().map(|one| self.course(one)).collect::<Vec<_>>())),
                (&Method::GET, [name]) => Ok(ok(&self.course(find(name)?))),
                (&Method::PATCH, [name, "learning"]) => {
                    let course = find(name)?;
                    self.change_course(course, read(request).await?).await?;
                    Ok(ok(&self.course(course)))
                }
                _ => Err(unknown()),
            };
        }
        let kind = match segments.first() {
            Some(&"challenges") => LearningKind::Challenge,
            _ => LearningKind::Tutorial,
        };
        let find = |name: &str| Exercise::find(kind, name).ok_or_else(unknown);
        match (&method, &segments[1..]) {
            (&Method::GET, []) => Ok(ok(&self.exercises(kind, query))),
            (&Method::GET, [name]) => Ok(ok(&self.exercise(find(name)?, true))),
            (&Method::PATCH, [name]) => {
                let one = find(name)?;
                self.change_exercise(one, read(request).await?).await?;
                Ok(ok(&self.exercise(one, true)))
            }
            _ => Err(unknown()),
        }
    }

    /// The challenges or tutorials that a query asks for.
    fn exercises(&self, kind: LearningKind, query: &str) -> Vec<wire::Exercise> {
        let (categories, statuses) = (values(query, "category"), values(query, "status"));
        let all = EXERCISES.iter().filter(|one| one.kind == kind).map(|one| self.exercise(one, false));
        let is_asked = |one: &wire::Exercise| {
            let in_category = one.categories.iter().any(|name| categories.contains(&name.as_str()));
            (categories.is_empty() || in_category) && (statuses.is_empty() || statuses.contains(&one.status.as_str()))
        };
        all.filter(is_asked).collect()
    }

    /// A challenge or a tutorial as the API shows it; alone, with its play.
    fn exercise(&self, one: &Exercise, alone: bool) -> wire::Exercise {
        let (world, of) = (&self.world, one.belonging());
        let progress = world.learning().progress(&of);
        let play = world.attempt(&of).filter(|_| alone);
        let tasks = play.iter().flat_map(|play| play.tasks.clone()).filter(|(_, task)| !task.init);
        wire::Exercise {
            name: one.name.into(),
            title: one.title.into(),
            description: one.description.into(),
            categories: one.categories.iter().map(|name| (*name).into()).collect(),
            authors: vec![one.author.shown()],
            page_url: format!("{}/{}", world.base(), one.path()),
            attempt_count: progress.attempts,
            completion_count: progress.completions,
            status: status(one.kind, progress.completions > 0, progress.attempts > 0).into(),
            completed_at: progress.completed_at,
            tasks: tasks.collect(),
            play,
            ..wire::Exercise::default()
        }
    }

    async fn change_exercise(&self, one: &Exercise, wish: ChangeExercise) -> Answer<()> {
        let of = one.belonging();
        match wish.started {
            Some(true) => {
                let needed = one.author.needs_consent();
                self.world.begin_attempt(&of, wish.safety_disclaimer_consent, needed).await?;
            }
            Some(false) => self.world.end_attempt(&of)?,
            None => {}
        }
        if wish.completed == Some(true) {
            match one.kind {
                LearningKind::Tutorial => self.world.learning().note_completed(&of),
                // Only its tasks complete a challenge.
                _ => return Err(Refusal::bad_request("only a tutorial is completed by its reader")),
            }
        }
        Ok(())
    }

    fn course(&self, one: &Course) -> wire::Course {
        let belonging = |module: &Module, lesson: &Lesson| Belonging::Lesson {
            course: one.name.into(),
            module: module.name.into(),
            lesson: lesson.name.into(),
        };
        let path = format!("/courses/{}", one.name);
        let lesson = |module: &Module, lesson: &Lesson| wire::Lesson {
            name: lesson.name.into(),
            title: lesson.title.into(),
            slug: lesson.slug.into(),
            path: format!("{path}/{}/{}", module.slug, lesson.slug),
            playground: lesson.playground.map(|name| LessonPlayground { name: name.into() }),
            ..wire::Lesson::default()
        };
        let module = |module: &Module| wire::Module {
            name: module.name.into(),
            title: module.title.into(),
            slug: module.slug.into(),
            path: format!("{path}/{}", module.slug),
            lessons: module.lessons.iter().map(|one| lesson(module, one)).collect(),
        };
        let mut learning = wire::Progress::default();
        for module in one.modules {
            for lesson in module.lessons {
                let Some(play) = self.world.attempt(&belonging(module, lesson)) else { continue };
                let of: &mut wire::ModuleProgress = learning.modules.entry(module.name.into()).or_default();
                of.started = true;
                of.lessons.insert(lesson.name.into(), wire::LessonProgress { started: true, play: play.id });
            }
        }
        wire::Course {
            name: one.name.into(),
            title: one.title.into(),
            page_url: format!("{}{path}", self.world.base()),
            authors: vec![one.author.shown()],
            modules: one.modules.iter().map(module).collect(),
            learning: Some(learning),
        }
    }

    async fn change_course(&self, course: &Course, wish: ChangeCourse) -> Answer<()> {
        let lessons: BTreeMap<String, wire::ModuleProgress> = wish.progress.modules;
        for (module, of) in lessons {
            for (lesson, wanted) in of.lessons {
                let of = Belonging::Lesson { course: course.name.into(), module: module.clone(), lesson };
                match wanted.started {
                    true => {
                        let (consent, needed) = (wish.safety_disclaimer_consent, course.author.needs_consent());
                        self.world.begin_attempt(&of, consent, needed).await?;
                    }
                    false => self.world.end_attempt(&of)?,
                }
            }
        }
        Ok(())
    }
}
