//! A WebSocket on which only the platform speaks, kept alive by one rule: messages may be far between, so a silent stream
//! is pinged, and one that does not answer is dead, as after a laptop's sleep.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::time::{Instant, timeout_at};
use tokio_websockets::{ClientBuilder, Limits, Message as Frame, WebSocketStream};

use crate::labs::{http::Stream, tunnel::Pings};

/// The silence after which a stream is pinged, and after the ping the one that ends it.
const PING_EVERY: Duration = Duration::from_secs(20);
/// The codes with which the platform closes a stream that is over: normal closure, and going away.
const ORDERLY: [u16; 2] = [1000, 1001];

/// The end of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The platform has said that it is over.
    Orderly,
    /// It ended without such a word, for this reason.
    CutOff(String),
}

/// A stream that is open.
pub(crate) struct Feed {
    frames: WebSocketStream<Stream>,
    pings: Pings,
    /// True from our ping until the next frame.
    pinged: bool,
    /// The end of our patience with its silence.
    silent_until: Instant,
}

impl Feed {
    /// The feed of a WebSocket with messages of at most that many bytes.
    pub(crate) fn new(stream: Stream, max_message: usize) -> Feed {
        let limits = Limits::default().max_payload_len(Some(max_message));
        Feed {
            frames: ClientBuilder::new().limits(limits).take_over(stream),
            pings: Pings::new(),
            pinged: false,
            silent_until: Instant::now() + PING_EVERY,
        }
    }

    /// The next frame. A call may be cancelled without a loss.
    ///
    /// # Errors
    /// The end of the stream.
    pub(crate) async fn next(&mut self) -> Result<Frame, End> {
        let cut_off = |why: &str| Err(End::CutOff(why.to_owned()));
        loop {
            match timeout_at(self.silent_until, self.frames.next()).await {
                Ok(Some(Ok(frame))) => {
                    if let Some((code, words)) = frame.as_close() {
                        return Err(closed(code.into(), words));
                    }
                    if self.pings.end_with(&frame) {
                        return cut_off("the platform sends nothing but pings");
                    }
                    self.wait_anew(false);
                    if frame.is_text() || frame.is_binary() {
                        return Ok(frame);
                    }
                }
                Ok(Some(Err(error))) => return Err(End::CutOff(error.to_string())),
                Ok(None) => return cut_off("the stream has ended"),
                Err(_) if self.pinged => return cut_off("the platform does not answer any more"),
                Err(_) => {
                    self.wait_anew(true);
                    let sent = timeout_at(self.silent_until, self.frames.send(Frame::ping(""))).await;
                    if !matches!(sent, Ok(Ok(()))) {
                        return cut_off("the platform does not answer any more");
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

fn closed(code: u16, words: &str) -> End {
    if ORDERLY.contains(&code) {
        return End::Orderly;
    }
    End::CutOff(format!("the platform closed the stream with {code} {words}").trim_end().to_owned())
}

#[cfg(all(test, unix))]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use futures_util::{SinkExt, StreamExt};
    use tokio::{
        net::UnixStream,
        time::{Instant, timeout},
    };
    use tokio_websockets::{CloseCode, Message, ServerBuilder, WebSocketStream};

    use super::{End, Feed, PING_EVERY};
    use crate::labs::{http::Stream, net::Conn};

    fn open() -> (Feed, WebSocketStream<UnixStream>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Feed::new(Stream::new(Bytes::new(), Conn::Unix(ours)), 1024), ServerBuilder::new().serve(theirs))
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_does_not_answer_ends_even_if_calls_are_cancelled() {
        let (mut feed, _server) = open();
        let began = Instant::now();
        while timeout(Duration::from_secs(3), feed.next()).await.is_err() {}
        assert!((2 * PING_EVERY..=2 * PING_EVERY + Duration::from_secs(3)).contains(&began.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_that_answers_goes_on() {
        let (mut feed, mut server) = open();
        let answering = tokio::spawn(async move { while server.next().await.is_some() {} });
        assert!(timeout(10 * PING_EVERY, feed.next()).await.is_err());
        answering.abort();
    }

    #[tokio::test]
    async fn an_end_is_orderly_only_if_the_platform_says_so() {
        for (close, is_orderly) in [
            (Some(CloseCode::NORMAL_CLOSURE), true),
            (Some(CloseCode::GOING_AWAY), true),
            (Some(CloseCode::INTERNAL_SERVER_ERROR), false),
            (None, false),
        ] {
            let (mut feed, mut server) = open();
            server.send(Message::text("{}")).await.unwrap();
            if let Some(code) = close {
                server.send(Message::close(Some(code), "why")).await.unwrap();
            }
            drop(server);
            assert!(feed.next().await.is_ok());
            let end = feed.next().await.unwrap_err();
            assert_eq!(end == End::Orderly, is_orderly, "{close:?}: {end:?}");
        }
    }
}
