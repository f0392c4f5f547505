//! The live messages of a play: one stream a play. They only make us quicker: all that they tell can be asked for, too, so
//! their end is no error.

use std::future::pending;

use tokio::{sync::mpsc, task::JoinHandle};
use tokio_websockets::Message as Frame;

use crate::{
    error::Result,
    labs::{
        Labs,
        answer::drop_nulls,
        feed::Feed,
        http::Stream,
        tunnel::text,
        wire::{JournalChunk, Message, Play, Status, Task},
    },
};

/// Largest message accepted. A status is some KiB.
const MAX_MESSAGE: usize = 1024 * 1024;

/// A change of a play.
#[derive(Clone, Debug)]
pub enum News {
    /// Its whole new status.
    Status(Status),
    /// The progress of a task.
    Task(Task),
}

impl News {
    /// Applies the change to what is known of the play.
    pub fn apply(self, play: &mut Play) {
        match self {
            News::Status(status) => play.status = Some(status),
            News::Task(task) => play.note(task),
        }
    }
}

/// The live messages of one play.
pub struct Messages {
    labs: Labs,
    play: String,
    line: Line,
}

/// The state of the stream.
enum Line {
    /// Nothing has been asked for.
    Unopened,
    /// The request runs as a task of its own, because callers of [`Messages::next`] may be cancelled again and again.
    Opening(JoinHandle<Result<Stream>>),
    Open(Box<Feed>),
    /// There are no more messages, or there never were any.
    Over,
}

impl Messages {
    /// The messages of the play with the id `play`. The platform is asked for them with the first call of
    /// [`Messages::next`].
    pub fn of(labs: &Labs, play: &str) -> Messages {
        Messages { labs: labs.clone(), play: play.to_owned(), line: Line::Unopened }
    }

    /// The next news; `None` once there is no more. A call may be cancelled without a loss.
    pub async fn next(&mut self) -> Option<News> {
        loop {
            match &mut self.line {
                Line::Unopened => {
                    let (labs, play) = (self.labs.clone(), self.play.clone());
                    self.line = Line::Opening(tokio::spawn(async move { labs.live(&play).await }));
                }
                Line::Opening(request) => {
                    self.line = match request.await {
                        Ok(Ok(stream)) => Line::Open(Box::new(Feed::new(stream, MAX_MESSAGE))),
                        Ok(Err(error)) => {
                            log::debug!("no live messages of {}: {}", self.play, error.message());
                            Line::Over
                        }
                        Err(_) => Line::Over,
                    };
                }
                Line::Open(feed) => match feed.next().await {
                    Ok(frame) => {
                        if let Some(news) = news(&frame) {
                            return Some(news);
                        }
                    }
                    Err(end) => {
                        log::debug!("no more live messages of {}: {end:?}", self.play);
                        self.line = Line::Over;
                    }
                },
                Line::Over => return None,
            }
        }
    }

    /// The next news; waits for ever once there is no more, for callers that learn of changes in another way, too.
    pub async fn news(&mut self) -> News {
        match self.next().await {
            Some(news) => news,
            None => pending().await,
        }
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        if let Line::Opening(request) = &self.line {
            request.abort();
        }
    }
}

/// The news in a frame, if it has any.
fn news(frame: &Frame) -> Option<News> {
    match message(frame)? {
        Message::Status { status } => Some(News::Status(status)),
        Message::Task { task, .. } => Some(News::Task(task)),
        Message::Other => None,
    }
}

/// Decodes a live message; `None` for a frame that is not one.
pub fn message(frame: &Frame) -> Option<Message> {
    let mut value: serde_json::Value = serde_json::from_str(&text(frame)?).ok()?;
    drop_nulls(&mut value);
    serde_json::from_value(value).ok()
}

/// Decodes a message of a journal's stream; `None` for a frame that is not one.
pub(crate) fn journal_chunk(frame: &Frame) -> Option<JournalChunk> {
    let mut value: serde_json::Value = serde_json::from_slice(frame.as_payload()).ok()?;
    drop_nulls(&mut value);
    serde_json::from_value(value).ok()
}

/// News of one of several plays.
#[derive(Debug)]
pub struct Told {
    /// The id of the play.
    pub play: String,
    /// The news; `None` when no more will come.
    pub news: Option<News>,
}

/// Sends a play's news to a receiver that follows several plays.
pub async fn follow(labs: Labs, play: String, tell: mpsc::Sender<Told>) {
    let mut messages = Messages::of(&labs, &play);
    loop {
        let news = messages.next().await;
        let is_over = news.is_none();
        // A receiver that is gone needs no more news.
        if tell.send(Told { play: play.clone(), news }).await.is_err() || is_over {
            return;
        }
    }
}
