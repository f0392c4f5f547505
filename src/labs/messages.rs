//! The live messages of a play: one stream a play, kept alive by one rule.
//!
//! Messages may be far between, so a silent stream is pinged, and one that does not answer is dead, as after a laptop's
//! sleep. They only make us quicker: all that they tell can be asked for, too, so their end is no error.

use std::{future::pending, time::Duration};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_websockets::{ClientBuilder, Limits, Message as Frame, WebSocketStream};

use crate::{
    error::Result,
    labs::{
        Labs,
        answer::drop_nulls,
        http::Stream,
        tunnel::{Pings, text},
        wire::{Message, Play, Status, Task},
    },
};

/// The silence after which a stream is pinged, and after the ping the one that ends it.
const PING_EVERY: Duration = Duration::from_secs(20);
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
    Open(Box<Open>),
    /// There are no more messages, or there never were any.
    Over,
}

/// A stream that is open.
struct Open {
    frames: WebSocketStream<Stream>,
    pings: Pings,
    /// True from our ping until the next frame.
    pinged: bool,
    /// The end of our patience with its silence.
    silent_until: Instant,
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
                        Ok(Ok(stream)) => Line::Open(Box::new(Open::new(stream))),
                        Ok(Err(error)) => {
                            log::debug!("no live messages of {}: {}", self.play, error.message());
                            Line::Over
                        }
                        Err(_) => Line::Over,
                    };
                }
                Line::Open(open) => match open.next().await {
                    Some(news) => return Some(news),
                    None => self.line = Line::Over,
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

impl Open {
    fn new(stream: Stream) -> Open {
        let limits = Limits::default().max_payload_len(Some(MAX_MESSAGE));
        Open {
            frames: ClientBuilder::new().limits(limits).take_over(stream),
            pings: Pings::new(),
            pinged: false,
            silent_until: Instant::now() + PING_EVERY,
        }
    }

    /// The next news; `None` at the end of the stream.
    async fn next(&mut self) -> Option<News> {
        loop {
            match timeout_at(self.silent_until, self.frames.next()).await {
                Ok(Some(Ok(frame))) if !frame.is_close() && !self.pings.end_with(&frame) => {
                    self.wait_anew(false);
                    if let Some(news) = news(&frame) {
                        return Some(news);
                    }
                }
                Ok(Some(Ok(_) | Err(_)) | None) => return None,
                Err(_) if self.pinged => return None,
                Err(_) => {
                    self.wait_anew(true);
                    let sent = timeout_at(self.silent_until, self.frames.send(Frame::ping(""))).await;
                    if !matches!(sent, Ok(Ok(()))) {
                        return None;
                    }
                }
            }
        }
    }

    fn wait_anew(&mut self, pinged: bool) {
        self.pinged = pinged;
        self.silent_until = Instant::now() + PING_EVERY;
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

#[cfg(all(test, unix))]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use futures_util::StreamExt;
    use tokio::{
        net::UnixStream,
        time::{Instant, timeout},
    };
    use tokio_websockets::{ServerBuilder, WebSocketStream};

    use super::{Open, PING_EVERY};
    use crate::labs::{http::Stream, net::Conn};

    fn open() -> (Open, WebSocketStream<UnixStream>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Open::new(Stream::new(Bytes::new(), Conn::Unix(ours))), ServerBuilder::new().serve(theirs))
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_does_not_answer_ends_even_if_calls_are_cancelled() {
        let (mut open, _server) = open();
        let began = Instant::now();
        while timeout(Duration::from_secs(3), open.next()).await.is_err() {}
        assert!((2 * PING_EVERY..=2 * PING_EVERY + Duration::from_secs(3)).contains(&began.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_that_answers_goes_on() {
        let (mut open, mut server) = open();
        let answering = tokio::spawn(async move { while server.next().await.is_some() {} });
        assert!(timeout(10 * PING_EVERY, open.next()).await.is_err());
        answering.abort();
    }
}
