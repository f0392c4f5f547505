//! Challenges, tutorials and lessons: from a name or a page address to the content, and to the play that belongs to it.

use crate::{
    error::{Error, Kind, Result, printable},
    labs::{
        Labs, find,
        wire::{
            self, Author, ChangeCourse, ChangeExercise, Course, Exercise, Learning, LearningKind, LessonProgress,
            Module, ModuleProgress, Play, Progress, is_by_a_stranger,
        },
    },
    target::{is_label, reference::Reference},
};

/// A challenge, a tutorial or a lesson at the platform.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    /// Its kind.
    pub kind: LearningKind,
    /// The name that `start` takes.
    pub name: String,
    /// Its title.
    pub title: String,
    /// Its page.
    pub page_url: String,
    /// Its authors.
    pub authors: Vec<Author>,
    /// The id of the play of the attempt that goes on.
    pub play: Option<String>,
    /// A lesson's place in its course.
    lesson: Option<Lesson>,
}

/// A lesson's place in its course.
#[derive(Clone, Debug)]
struct Lesson {
    course: String,
    module: String,
    lesson: String,
    has_playground: bool,
}

/// The name for people: `challenge write-a-file`.
impl std::fmt::Display for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, printable(&self.name))
    }
}

impl Content {
    fn of_exercise(kind: LearningKind, one: Exercise) -> Content {
        let Exercise { name, title, page_url, authors, play, .. } = one;
        let play = play.map(|play| play.id).filter(|id| crate::platform::is_id(id));
        Content { kind, name, title, page_url, authors, play, lesson: None }
    }

    fn of_lesson(course: &Course, module: &str, lesson: &str) -> Option<Content> {
        let (of, found) = course.lessons(Some(module), lesson).into_iter().next()?;
        let path = [&course.name, slug(&of.slug, &of.name), slug(&found.slug, &found.name)];
        let name = path.map(String::as_str).into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        Some(Content {
            kind: LearningKind::Lesson,
            page_url: page_of_lesson(course, &name, &found.path),
            name,
            title: found.title.clone(),
            authors: course.authors.clone(),
            play: course.play_of(&of.name, &found.name).filter(|id| crate::platform::is_id(id)).map(str::to_owned),
            lesson: Some(Lesson {
                course: course.name.clone(),
                module: of.name.clone(),
                lesson: found.name.clone(),
                has_playground: found.playground.is_some(),
            }),
        })
    }

    /// True for a lesson that is only to be read.
    pub(crate) fn has_no_playground(&self) -> bool {
        self.lesson.as_ref().is_some_and(|lesson| !lesson.has_playground)
    }

    /// True for content that starts only with the user's consent.
    ///
    /// # Errors
    /// The platform's.
    pub(crate) async fn needs_consent(&self, labs: &Labs) -> Result<bool> {
        if !is_by_a_stranger(&self.authors, || None) {
            return Ok(false);
        }
        let me = labs.me().await?;
        Ok(is_by_a_stranger(&self.authors, || Some(me)))
    }

    /// Its authors who are not the platform's, for people.
    pub(crate) fn strangers(&self) -> String {
        let name = |author: &Author| {
            let names = [&author.display_name, &author.name, &author.user_id];
            names.into_iter().map(|name| printable(name)).find(|name| !name.is_empty())
        };
        let names: Vec<String> = self.authors.iter().filter(|one| !one.official).filter_map(name).collect();
        if names.is_empty() { "an unknown author".to_owned() } else { names.join(", ") }
    }

    /// The content as it is now.
    ///
    /// # Errors
    /// The platform's.
    pub(crate) async fn again(&self, labs: &Labs) -> Result<Content> {
        match &self.lesson {
            None => labs.exercise(self.kind, &self.name).await.map(|one| Content::of_exercise(self.kind, one)),
            Some(lesson) => {
                let course = labs.course(&lesson.course).await?;
                Ok(Content::of_lesson(&course, &lesson.module, &lesson.lesson).unwrap_or_else(|| self.clone()))
            }
        }
    }

    /// Begins an attempt, or ends the one that goes on, with one request. The caller has obtained the user's consent.
    /// Returns the content as it is then.
    ///
    /// # Errors
    /// As [`Labs::change_exercise`] and [`Labs::change_course`].
    pub(crate) async fn change(&self, labs: &Labs, started: bool) -> Result<Content> {
        match &self.lesson {
            None => {
                let change = ChangeExercise {
                    started: Some(started),
                    safety_disclaimer_consent: started,
                    ..ChangeExercise::default()
                };
                let one = labs.change_exercise(self.kind, &self.name, &change).await?;
                Ok(Content::of_exercise(self.kind, one))
            }
            Some(Lesson { course, module, lesson, .. }) => {
                let progress = LessonProgress { started, ..LessonProgress::default() };
                let of = ModuleProgress { lessons: [(lesson.clone(), progress)].into(), ..ModuleProgress::default() };
                let progress = Progress { modules: [(module.clone(), of)].into() };
                let change = ChangeCourse { safety_disclaimer_consent: started, progress };
                let course = labs.change_course(course, &change).await?;
                Ok(Content::of_lesson(&course, module, lesson).unwrap_or_else(|| self.clone()))
            }
        }
    }
}

fn slug<'a>(slug: &'a String, name: &'a String) -> &'a String {
    if slug.is_empty() { name } else { slug }
}

/// A lesson's page: the course's, with the path that the platform tells.
fn page_of_lesson(course: &Course, name: &str, path: &str) -> String {
    let site = course.page_url.split_once("/courses/").map_or("", |(site, _)| site);
    match (site, path.starts_with("/courses/")) {
        ("", _) => String::new(),
        (site, true) => format!("{site}{path}"),
        (site, false) => format!("{site}/courses/{name}"),
    }
}

/// True for a play of the content that a reference means. A course alone means none of its lessons.
fn is_of(reference: &Reference, play: &Play) -> bool {
    let Some(Learning { kind, name, .. }) = play.learning() else { return false };
    let named = play.lesson.as_ref().map(|lesson| lesson.name.as_str());
    let mut path = name.split('/').rev();
    let is_lesson = |wanted: &str, last: Option<&str>| last == Some(wanted) || named == Some(wanted);
    match reference {
        Reference::Challenge(wanted) => kind == LearningKind::Challenge && name == *wanted,
        Reference::Tutorial(wanted) => kind == LearningKind::Tutorial && name == *wanted,
        Reference::Name(wanted) if kind == LearningKind::Lesson => is_lesson(wanted, path.next()),
        Reference::Name(wanted) => name == *wanted,
        Reference::Lesson { course, module, lesson } => {
            let (last, before) = (path.next(), path.next());
            kind == LearningKind::Lesson
                && play.course_name.as_deref() == Some(course)
                && is_lesson(lesson, last)
                && module.as_deref().is_none_or(|module| before == Some(module))
        }
        Reference::Playground(_) | Reference::Play(_) | Reference::Course(_) => false,
    }
}

/// The plays of the content that a reference means.
pub(crate) fn plays_of(reference: &Reference, plays: &[Play]) -> Vec<Play> {
    plays.iter().filter(|play| is_of(reference, play)).cloned().collect()
}

/// Finds the content that a reference means. A name means a challenge before a tutorial. `None` for a reference to
/// something else, and for a name that nothing has.
///
/// # Errors
/// [`Kind::NotFound`] for a lesson that its course does not have, [`Kind::Ambiguous`] for one of several modules,
/// [`Kind::Usage`] for a course alone, and the platform's.
pub(crate) async fn content(labs: &Labs, reference: &Reference) -> Result<Option<Content>> {
    let exercise = async |kind, name: &str| match labs.exercise(kind, name).await {
        Ok(one) => Ok(Some(Content::of_exercise(kind, one))),
        Err(e) if e.kind() == Kind::NotFound => Ok(None),
        Err(e) => Err(e),
    };
    match reference {
        Reference::Challenge(name) => exercise(LearningKind::Challenge, name).await,
        Reference::Tutorial(name) => exercise(LearningKind::Tutorial, name).await,
        Reference::Name(name) => {
            let both =
                tokio::try_join!(exercise(LearningKind::Challenge, name), exercise(LearningKind::Tutorial, name));
            both.map(|(challenge, tutorial)| challenge.or(tutorial))
        }
        Reference::Course(name) => match labs.course(name).await {
            Ok(course) => Err(Error::new(Kind::Usage, format!("{} is a course", printable(name)))
                .with_hint(format!("name one of its lessons: {}", lessons(&course, None)))),
            Err(e) if e.kind() == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        },
        Reference::Lesson { course, module, lesson } => match labs.course(course).await {
            Ok(course) => of_course(&course, module.as_deref(), lesson).map(Some),
            Err(e) if e.kind() == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        },
        Reference::Playground(_) | Reference::Play(_) => Ok(None),
    }
}

fn of_course(course: &Course, module: Option<&str>, lesson: &str) -> Result<Content> {
    let found = course.lessons(module, lesson);
    match &found[..] {
        [(of, one)] => Content::of_lesson(course, &of.name, &one.name)
            .ok_or_else(|| Error::new(Kind::Internal, "a lesson that was found is gone")),
        [] => {
            let message = format!("course {} has no lesson {}", printable(&course.name), printable(lesson));
            let hint = format!("it has these: {}", lessons(course, None));
            Err(Error::new(Kind::NotFound, message).with_hint(hint))
        }
        [..] => {
            let message = format!("course {} has several lessons {}", printable(&course.name), printable(lesson));
            Err(Error::new(Kind::Ambiguous, message)
                .with_hint(format!("choose one of: {}", lessons(course, Some(lesson)))))
        }
    }
}

/// All lessons of a course.
pub(crate) fn lessons_of(course: &Course) -> Vec<Content> {
    let of = |module: &Module| {
        let lesson = |one: &wire::Lesson| Content::of_lesson(course, &module.name, &one.name);
        module.lessons.iter().filter_map(lesson).collect::<Vec<_>>()
    };
    course.modules.iter().flat_map(of).collect()
}

/// The names of a course's lessons as `start` takes them; only those of the given name, if there is one.
fn lessons(course: &Course, only: Option<&str>) -> String {
    let is_meant = |content: &Content| match (only, &content.lesson) {
        (Some(only), Some(one)) => one.lesson == only || content.name.rsplit('/').next() == Some(only),
        _ => true,
    };
    let names = lessons_of(course).into_iter().filter(is_meant).map(|content| printable(&content.name));
    names.collect::<Vec<_>>().join(", ")
}

/// The content that a play belongs to, as the platform has it; `None` where it is gone or cannot be told.
///
/// # Errors
/// The platform's.
pub(crate) async fn of_play(labs: &Labs, play: &Play) -> Result<Option<Content>> {
    let Some(Learning { kind, name, .. }) = play.learning() else { return Ok(None) };
    let found = match kind {
        LearningKind::Challenge | LearningKind::Tutorial if !is_label(&name) => None,
        LearningKind::Challenge => content(labs, &Reference::Challenge(name)).await?,
        LearningKind::Tutorial => content(labs, &Reference::Tutorial(name)).await?,
        LearningKind::Lesson => {
            let Some(name) = play.course_name.as_deref().filter(|name| is_label(name)) else { return Ok(None) };
            let course = match labs.course(name).await {
                Err(e) if e.kind() == Kind::NotFound => return Ok(None),
                course => course?,
            };
            course.lesson_of(&play.id).and_then(|(module, lesson)| Content::of_lesson(&course, module, lesson))
        }
    };
    Ok(found)
}

/// The words about a reference that leads to no playground but to content, such as a challenge without an attempt.
/// `None` for one that leads nowhere. This costs requests, so it is called only where a command fails anyway.
pub(crate) async fn explained(labs: &Labs, reference: &Reference) -> Option<Error> {
    match content(labs, reference).await {
        Ok(Some(content)) => Some(not_running(&content)),
        Ok(None) => unknown(reference),
        // These are about the reference itself.
        Err(e) => matches!(e.kind(), Kind::Usage | Kind::Ambiguous | Kind::NotFound).then_some(e),
    }
}

/// The play of the content that a reference means, where the list of plays does not tell.
///
/// # Errors
/// As [`explained`], else `error`, if there is none.
pub(crate) async fn running(labs: &Labs, reference: &Reference, error: Error) -> Result<Play> {
    if matches!(reference, Reference::Lesson { .. })
        && let Ok(Some(Content { play: Some(id), .. })) = content(labs, reference).await
        && let Ok(play) = labs.play(&id).await
        && !find::is_gone(&play)
    {
        return Ok(play);
    }
    Err(explained(labs, reference).await.unwrap_or(error))
}

/// The error for a page or a path of content that does not exist. `None` for a mere name, which may be of something
/// else.
fn unknown(reference: &Reference) -> Option<Error> {
    let (kind, name, list) = match reference {
        Reference::Challenge(name) => ("challenge", name, "--challenges"),
        Reference::Tutorial(name) => ("tutorial", name, "--tutorials"),
        Reference::Course(name) | Reference::Lesson { course: name, .. } => ("course", name, "--courses"),
        Reference::Name(_) | Reference::Playground(_) | Reference::Play(_) => return None,
    };
    let error = Error::new(Kind::NotFound, format!("the platform has no {kind} {}", printable(name)));
    Some(error.with_hint(format!("run `labctl-ssh-proxy catalog {list}` to see what it has")))
}

fn not_running(content: &Content) -> Error {
    if content.has_no_playground() {
        return no_playground(content);
    }
    let running = match content.kind {
        LearningKind::Challenge => "no attempt at",
        LearningKind::Tutorial | LearningKind::Lesson => "no playground of",
    };
    // A name that the catalogue has, too, means that.
    let name = match content.kind {
        LearningKind::Lesson => content.name.clone(),
        kind => format!("{}/{}", kind.plural(), content.name),
    };
    Error::new(Kind::NotFound, format!("{running} {content} is running"))
        .with_hint(format!("`labctl-ssh-proxy start {}` begins one", printable(&name)))
}

/// The error for a lesson that is only to be read.
pub(crate) fn no_playground(content: &Content) -> Error {
    let error = Error::new(Kind::NotFound, format!("{content} has no playground: it is only to be read"));
    match printable(&content.page_url) {
        page if page.is_empty() => error,
        page => error.with_hint(format!("read it at {page}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Content, is_of};
    use crate::{
        labs::wire::{Course, Play},
        target::reference::Reference,
    };

    fn is(text: &str, play: &str) -> bool {
        let play: Play = serde_json::from_str(play).unwrap();
        is_of(&Reference::parse(text, &["labs.iximiuz.com"]).unwrap().unwrap(), &play)
    }

    #[test]
    fn a_reference_means_the_plays_of_its_content() {
        let challenge = r#"{"challengeName":"x"}"#;
        for yes in ["x", "challenges/x", "https://labs.iximiuz.com/challenges/x?a"] {
            assert!(is(yes, challenge), "{yes}");
        }
        for no in ["y", "tutorials/x", "playgrounds/x", "x/y", "courses/x"] {
            assert!(!is(no, challenge), "{no}");
        }
        // The platform's documentation does not tell if a path has slugs or names, nor if the course is in it.
        for lesson in [
            r#"{"courseName":"c","lessonPath":"m/l"}"#,
            r#"{"courseName":"c","lessonPath":"/courses/c/m/l"}"#,
            r#"{"courseName":"c","lessonPath":"m/010-l","lesson":{"name":"l"}}"#,
        ] {
            for yes in ["l", "c/l", "c/m/l", "courses/c/m/l"] {
                assert!(is(yes, lesson), "{yes}: {lesson}");
            }
            for no in ["c", "m", "c/n/l", "d/m/l", "challenges/l", "courses/c"] {
                assert!(!is(no, lesson), "{no}: {lesson}");
            }
        }
        assert!(!is("x", r#"{"title":"x","playground":{"name":"x"}}"#));
    }

    #[test]
    fn a_lesson_has_the_name_that_its_address_has() {
        let course = |path: &str| -> Course {
            serde_json::from_str(&format!(
                r#"{{"name":"c","pageUrl":"https://labs.example.org/courses/c",
                     "modules":[{{"name":"m1","slug":"m","lessons":[{{"name":"l1","slug":"l","path":"{path}"}}]}}]}}"#
            ))
            .unwrap()
        };
        for path in ["/courses/c/m/l", "m/l", ""] {
            let content = Content::of_lesson(&course(path), "m1", "l1").unwrap();
            assert_eq!((content.name.as_str(), content.has_no_playground()), ("c/m/l", true));
            assert_eq!(content.page_url, "https://labs.example.org/courses/c/m/l", "{path}");
        }
        let simple: Course =
            serde_json::from_str(r#"{"name":"c","modules":[{"name":"","lessons":[{"name":"l"}]}]}"#).unwrap();
        let content = Content::of_lesson(&simple, "", "l").unwrap();
        assert_eq!((content.name.as_str(), content.page_url.as_str()), ("c/l", ""));
    }
}
