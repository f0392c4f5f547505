//! Plays: what the account has running or stopped, and what can be done with one.

use hyper::Method;

use crate::{
    error::Result,
    labs::{
        Call, Labs,
        answer::{decode, genuine, one},
        http::Stream,
        wire::{Action, Conn, CreatePlay, Play, TaskDetails},
    },
};

impl Labs {
    /// Lists the recent plays: those that run, and for a while those that were destroyed.
    ///
    /// # Errors
    /// As every call: [`Kind::NotLoggedIn`], [`Kind::Network`], [`Kind::Answer`], or the platform's refusal.
    pub async fn plays(&self) -> Result<Vec<Play>> {
        self.list(Call::get("/plays", "the list of playgrounds"))
            .await
            .map(genuine)
            .map(|plays| self.titles.noted(plays))
    }

    /// Lists the plays that are kept: those that are stopped, and those that run and will be stopped at their end.
    ///
    /// # Errors
    /// As every call.
    pub async fn persistent_plays(&self) -> Result<Vec<Play>> {
        self.list(Call::get("/plays?persistent=true", "the list of playgrounds"))
            .await
            .map(genuine)
            .map(|plays| self.titles.noted(plays))
    }

    /// One play.
    ///
    /// # Errors
    /// As every call; [`Kind::NotFound`] when it does not exist or belongs to another account.
    pub async fn play(&self, id: &str) -> Result<Play> {
        let play = self.call(Call::get(format!("/plays/{id}"), format!("playground {id}"))).await?;
        one(play, Some(id)).map(|play| self.titles.note(play))
    }

    /// Starts a playground from the catalogue. Never repeated after an unknown outcome; see
    /// [`Error::may_have_happened`].
    ///
    /// # Errors
    /// As every call; the platform's words where it refuses (quota, plan, consent).
    pub async fn create_play(&self, request: &CreatePlay) -> Result<Play> {
        let call = Call::post("/plays", request, format!("starting {}", request.playground))?;
        one(self.call(call.once()).await?, None).map(|play| self.titles.note(play))
    }

    /// Performs an action on a play. Only some answers are a play; the others mean "done", and return `None`.
    ///
    /// # Errors
    /// As every call.
    pub async fn act(&self, id: &str, action: &Action) -> Result<Option<Play>> {
        let call = Call::post(format!("/plays/{id}/actions"), action, format!("playground {id}"))?;
        let call = if action.is_repeatable() { call } else { call.once() };
        let about = call.about.clone();
        let Some(reply) = self.send(call).await? else { return Ok(None) };
        Ok(decode::<Play>(&reply, &about).and_then(|play| one(play, Some(id))).ok())
    }

    /// Performs an action on a play, and returns the play as it is then.
    ///
    /// # Errors
    /// As every call.
    pub async fn act_and_look(&self, id: &str, action: &Action) -> Result<Play> {
        match self.act(id, action).await? {
            Some(play) => Ok(play),
            None => self.play(id).await,
        }
    }

    /// Lists a play's tasks. Only their author gets most of their details.
    ///
    /// # Errors
    /// As every call.
    pub async fn tasks(&self, id: &str) -> Result<Vec<TaskDetails>> {
        self.list(Call::get(format!("/plays/{id}/tasks"), format!("the tasks of playground {id}"))).await
    }

    /// Opens the stream of a play's live messages.
    ///
    /// # Errors
    /// As every call.
    pub async fn live(&self, play: &str) -> Result<Stream> {
        let about = format!("the messages of playground {play}");
        let conn: Conn = self.call(Call::new(Method::POST, format!("/plays/{play}/conns"), about)).await?;
        self.stream(&conn).await
    }
}
