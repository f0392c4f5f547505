//! Challenges, tutorials and courses.

use hyper::Method;

use crate::{
    error::{Error, Kind, Result},
    labs::{
        Call, Labs,
        wire::{ChangeCourse, ChangeExercise, Course, Exercise, LearningKind},
    },
};

impl Labs {
    /// Lists the challenges or the tutorials; only those of the given categories and statuses, if there are any.
    ///
    /// # Errors
    /// As every call.
    pub async fn exercises(
        &self,
        kind: LearningKind,
        categories: &[String],
        statuses: &[String],
    ) -> Result<Vec<Exercise>> {
        let plural = kind.plural();
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(categories.iter().map(|name| ("category", name)));
        query.extend_pairs(statuses.iter().map(|word| ("status", word)));
        let query = query.finish();
        let path = if query.is_empty() { format!("/{plural}") } else { format!("/{plural}?{query}") };
        self.list(Call::get(path, format!("the list of {plural}"))).await
    }

    /// One challenge or tutorial.
    ///
    /// # Errors
    /// As every call; [`Kind::NotFound`] when there is none of that name.
    pub async fn exercise(&self, kind: LearningKind, name: &str) -> Result<Exercise> {
        self.call(Call::get(format!("/{}/{name}", kind.plural()), format!("{kind} {name}"))).await
    }

    /// Begins or ends an attempt at a challenge or a tutorial. A begin is never repeated after an unknown outcome; see
    /// [`Error::may_have_happened`].
    ///
    /// # Errors
    /// As every call; the platform's words where it refuses (quota, plan, consent).
    pub async fn change_exercise(&self, kind: LearningKind, name: &str, change: &ChangeExercise) -> Result<Exercise> {
        let call = patch(format!("/{}/{name}", kind.plural()), change, format!("{kind} {name}"))?;
        self.call(if change.started == Some(true) { call.once() } else { call }).await
    }

    /// Lists the courses.
    ///
    /// # Errors
    /// As every call.
    pub async fn courses(&self) -> Result<Vec<Course>> {
        self.list(Call::get("/courses", "the list of courses")).await
    }

    /// One course.
    ///
    /// # Errors
    /// As every call; [`Kind::NotFound`] when there is none of that name.
    pub async fn course(&self, name: &str) -> Result<Course> {
        self.call(Call::get(format!("/courses/{name}"), format!("course {name}"))).await
    }

    /// Starts or ends lessons of a course. A start is never repeated after an unknown outcome.
    ///
    /// # Errors
    /// As every call; the platform's words where it refuses.
    pub async fn change_course(&self, name: &str, change: &ChangeCourse) -> Result<Course> {
        let call = patch(format!("/courses/{name}/learning"), change, format!("course {name}"))?;
        let mut lessons = change.progress.modules.values().flat_map(|module| module.lessons.values());
        self.call(if lessons.any(|lesson| lesson.started) { call.once() } else { call }).await
    }
}

fn patch(path: String, body: &impl serde::Serialize, about: String) -> Result<Call> {
    let body = serde_json::to_vec(body).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
    Ok(Call { body: Some(body.into()), ..Call::new(Method::PATCH, path, about) })
}
