//! Challenges, tutorials and courses, and the plays that belong to them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{account::Me, play::Play, task::Task, units::text_or_nothing};

/// A challenge or a tutorial: content with one playground.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Exercise {
    /// The name that starts it.
    pub name: String,
    /// Its title.
    pub title: String,
    /// Its purpose.
    pub description: String,
    /// The categories that list it.
    pub categories: Vec<String>,
    /// Its tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Its authors.
    pub authors: Vec<Author>,
    /// Its page on the site.
    pub page_url: String,
    /// The number of attempts by this account.
    pub attempt_count: u64,
    /// The number of attempts that succeeded.
    pub completion_count: u64,
    /// `todo`, `attempted`, `solved` (challenge) or `completed` (tutorial).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// The moment of its completion, RFC 3339; empty before.
    #[serde(deserialize_with = "text_or_nothing", skip_serializing_if = "String::is_empty")]
    pub completed_at: String,
    /// The play of the attempt that goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub play: Option<Play>,
    /// Its tasks by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tasks: BTreeMap<String, Task>,
}

/// An author of learning content.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Author {
    /// The account's id.
    pub user_id: String,
    /// The account's name.
    pub name: String,
    /// The name for people.
    pub display_name: String,
    /// True for the platform's own authors.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub official: bool,
}

/// A course.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Course {
    /// Its name.
    pub name: String,
    /// Its title.
    pub title: String,
    /// Its page on the site.
    pub page_url: String,
    /// Its authors.
    pub authors: Vec<Author>,
    /// Its modules.
    pub modules: Vec<Module>,
    /// The progress of this account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning: Option<Progress>,
}

/// A module of a course.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct Module {
    /// Its name in requests.
    pub name: String,
    /// Its title.
    pub title: String,
    /// Its name in page addresses.
    pub slug: String,
    /// Its path on the site.
    pub path: String,
    /// Its lessons.
    pub lessons: Vec<Lesson>,
}

/// A lesson of a module.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct Lesson {
    /// Its name in requests.
    pub name: String,
    /// Its title.
    pub title: String,
    /// Its name in page addresses.
    pub slug: String,
    /// Its path on the site.
    pub path: String,
    /// The catalogue entry of its playground, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub playground: Option<LessonPlayground>,
    /// Its tasks by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tasks: BTreeMap<String, Task>,
}

/// The catalogue entry of a lesson's playground.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct LessonPlayground {
    /// Its name.
    pub name: String,
}

/// The progress of a course, as answers have it and as `PATCH /courses/{name}/learning` changes it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct Progress {
    /// The modules by name.
    pub modules: BTreeMap<String, ModuleProgress>,
}

/// The progress of a module.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct ModuleProgress {
    /// The lessons by name.
    pub lessons: BTreeMap<String, LessonProgress>,
    /// True once a lesson has been started.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub started: bool,
}

/// The progress of a lesson.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct LessonProgress {
    /// True while it is being done.
    pub started: bool,
    /// The id of its play.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub play: String,
}

/// A change of a challenge or a tutorial.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ChangeExercise {
    /// Begins an attempt, or ends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<bool>,
    /// Marks a tutorial as completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed: Option<bool>,
    /// As in [`super::CreatePlay`].
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub safety_disclaimer_consent: bool,
}

/// `PATCH /courses/{name}/learning`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ChangeCourse {
    /// As in [`super::CreatePlay`].
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub safety_disclaimer_consent: bool,
    /// The lessons to start or to end.
    #[serde(flatten)]
    pub progress: Progress,
}

/// A name and a title, as a play tells them of the content that it belongs to.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct Named {
    /// The name.
    pub name: String,
    /// The title.
    pub title: String,
}

/// The kind of content that a play belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LearningKind {
    /// A challenge.
    Challenge,
    /// A tutorial.
    Tutorial,
    /// A lesson of a course.
    Lesson,
}

/// The content that a play belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Learning {
    /// Its kind.
    pub kind: LearningKind,
    /// The name that `start` takes; a lesson's is `COURSE/MODULE/LESSON`, or `COURSE/LESSON` in a course without modules.
    pub name: String,
    /// Its title.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Its page, where the play's own page is that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_url: Option<String>,
}

impl LearningKind {
    /// The first part of its pages' paths.
    pub fn plural(self) -> &'static str {
        match self {
            LearningKind::Challenge => "challenges",
            LearningKind::Tutorial => "tutorials",
            LearningKind::Lesson => "courses",
        }
    }
}

impl std::fmt::Display for LearningKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            LearningKind::Challenge => "challenge",
            LearningKind::Tutorial => "tutorial",
            LearningKind::Lesson => "lesson",
        })
    }
}

impl std::fmt::Display for Learning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, crate::error::printable(&self.name))
    }
}

impl Play {
    /// The challenge, tutorial or lesson that it belongs to; `None` for a playground of its own.
    pub fn learning(&self) -> Option<Learning> {
        let given = |name: &Option<String>, named: &Option<Named>| {
            let named = named.as_ref();
            let name =
                name.clone().or_else(|| named.map(|named| named.name.clone())).filter(|name| !name.is_empty())?;
            Some((name, named.map(|named| named.title.clone())))
        };
        let lesson = || {
            let path = self.lesson_path.as_deref().unwrap_or_default().trim_matches('/');
            let course = self.course_name.as_deref().unwrap_or_default();
            let path = path.strip_prefix("courses/").unwrap_or(path);
            let below = path.strip_prefix(course).map_or(path, |below| below.trim_start_matches('/'));
            let name = [course, below].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
            (!name.is_empty()).then(|| (name, self.lesson.as_ref().map(|lesson| lesson.title.clone())))
        };
        let (kind, (name, title)) = given(&self.challenge_name, &self.challenge)
            .map(|found| (LearningKind::Challenge, found))
            .or_else(|| given(&self.tutorial_name, &self.tutorial).map(|found| (LearningKind::Tutorial, found)))
            .or_else(|| lesson().map(|found| (LearningKind::Lesson, found)))?;
        let page = Some(&self.page_url).filter(|page| page.contains(&format!("/{}/", kind.plural())));
        Some(Learning { kind, name, title: title.filter(|title| !title.is_empty()), page_url: page.cloned() })
    }
}

/// True for content that starts only with the user's consent: a stranger is among its authors, or it names none. One by
/// this account itself needs none.
pub fn is_by_a_stranger(authors: &[Author], me: impl FnOnce() -> Option<Me>) -> bool {
    let official = !authors.is_empty() && authors.iter().all(|author| author.official);
    !official && me().is_none_or(|me| !authors.iter().any(|author| author.user_id == me.id))
}

impl Course {
    /// The lessons of the given name or slug, each with its module; only in that module, if one is given.
    pub fn lessons<'a>(&'a self, module: Option<&str>, lesson: &str) -> Vec<(&'a Module, &'a Lesson)> {
        let is = |name: &str, slug: &str, wanted: &str| name == wanted || slug == wanted;
        let modules = self.modules.iter().filter(|one| module.is_none_or(|wanted| is(&one.name, &one.slug, wanted)));
        modules
            .flat_map(|module| module.lessons.iter().map(move |one| (module, one)))
            .filter(|(_, one)| is(&one.name, &one.slug, lesson))
            .collect()
    }

    /// The id of a lesson's play.
    pub fn play_of(&self, module: &str, lesson: &str) -> Option<&str> {
        let lesson = self.learning.as_ref()?.modules.get(module)?.lessons.get(lesson)?;
        Some(lesson.play.as_str()).filter(|play| !play.is_empty())
    }

    /// The names of the module and of the lesson that this play belongs to.
    pub fn lesson_of(&self, play: &str) -> Option<(&str, &str)> {
        let modules = &self.learning.as_ref()?.modules;
        modules.iter().find_map(|(module, of)| {
            let lesson = of.lessons.iter().find(|(_, lesson)| !play.is_empty() && lesson.play == play)?.0;
            Some((module.as_str(), lesson.as_str()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Author, Course, Exercise, LearningKind, is_by_a_stranger};
    use crate::labs::wire::{Me, Play};

    fn learning(play: &str) -> Option<(LearningKind, String, Option<String>, bool)> {
        let play: Play = serde_json::from_str(play).unwrap();
        play.learning().map(|it| (it.kind, it.name, it.title, it.page_url.is_some()))
    }

    #[test]
    fn a_play_tells_the_content_that_it_belongs_to() {
        assert_eq!(learning(r#"{"challengeName":"","tutorialName":null,"courseName":"","lessonPath":""}"#), None);
        assert_eq!(
            learning(
                r#"{"challengeName":"c","challenge":{"name":"c","title":"T","x":1},"pageUrl":"https://a/challenges/c"}"#
            ),
            Some((LearningKind::Challenge, "c".into(), Some("T".into()), true))
        );
        assert_eq!(
            learning(r#"{"tutorial":{"name":"t"},"pageUrl":"https://a/plays/x"}"#),
            Some((LearningKind::Tutorial, "t".into(), None, false))
        );
        for path in ["m/l", "/courses/k/m/l", "k/m/l", "/m/l/"] {
            let play = format!(r#"{{"courseName":"k","lessonPath":"{path}","lesson":{{"title":"L"}}}}"#);
            assert_eq!(
                learning(&play),
                Some((LearningKind::Lesson, "k/m/l".into(), Some("L".into()), false)),
                "{path}"
            );
        }
        assert_eq!(learning(r#"{"courseName":"k"}"#).unwrap().1, "k");
    }

    #[test]
    fn a_lesson_is_found_by_its_name_and_by_its_slug() {
        let course: Course = serde_json::from_str(
            r#"{"modules":[{"name":"m1","slug":"one","lessons":[{"name":"l1","slug":"first"},{"name":"l2"}]},
                           {"name":"m2","slug":"two","lessons":[{"name":"l1","slug":"erst","playground":{"name":"x"}}]}],
                "learning":{"modules":{"m2":{"lessons":{"l1":{"started":true,"play":"p"},"l2":{}}}}}}"#,
        )
        .unwrap();
        let found = |module, lesson| -> Vec<(String, String)> {
            course.lessons(module, lesson).iter().map(|(m, l)| (m.name.clone(), l.name.clone())).collect()
        };
        let pair = |m: &str, l: &str| (m.to_owned(), l.to_owned());
        assert_eq!(found(Some("one"), "first"), [pair("m1", "l1")]);
        assert_eq!(found(Some("m2"), "l1"), [pair("m2", "l1")]);
        assert_eq!(found(None, "l1"), [pair("m1", "l1"), pair("m2", "l1")]);
        assert_eq!(found(Some("m1"), "erst"), []);
        assert_eq!(
            (course.play_of("m2", "l1"), course.play_of("m2", "l2"), course.play_of("x", "l1")),
            (Some("p"), None, None)
        );
        assert_eq!((course.lesson_of("p"), course.lesson_of("")), (Some(("m2", "l1")), None));
    }

    #[test]
    fn a_strangers_content_takes_consent_and_ones_own_does_not() {
        let author = |id: &str, official| Author { user_id: id.into(), official, ..Author::default() };
        let me = |id: &str| Some(Me { id: id.into(), ..Me::default() });
        let asked = |authors: &[Author]| is_by_a_stranger(authors, || me("me"));
        assert!(!is_by_a_stranger(&[author("a", true)], || panic!("the account need not be asked for")));
        assert!(asked(&[author("a", true), author("b", false)]) && asked(&[]));
        assert!(!asked(&[author("b", false), author("me", false)]));
        assert!(is_by_a_stranger(&[author("b", false)], || None));
    }

    #[test]
    fn an_exercise_is_read_leniently() {
        let one: Exercise =
            serde_json::from_str(r#"{"name":"c","completedAt":{"x":1},"status":"new word","more":[]}"#).unwrap();
        assert_eq!((one.name.as_str(), one.completed_at.as_str(), one.status.as_str()), ("c", "", "new word"));
    }
}
