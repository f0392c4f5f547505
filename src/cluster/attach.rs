//! The streams of a container that runs: a WebSocket whose messages begin with the number of their channel.
//!
//! Version 5 of the protocol can also say that a channel has ended, which is how a program there gets the end of its
//! input. An API before Kubernetes 1.30 speaks version 4.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::{Sink, SinkExt, StreamExt, stream::SplitSink};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_websockets::{ClientBuilder, Limits, Message, WebSocketStream};

use super::api::{Api, Failure, query_text};
use crate::{
    error::{Error, Kind, Result, printable},
    ui::stdio::Writer,
};

/// Those that are spoken, the best first.
const PROTOCOLS: &str = "v5.channel.k8s.io, v4.channel.k8s.io";
/// Bytes of input in a message.
const PIECE: usize = 32 * 1024;
/// Largest message accepted. A node sends what it has read at once, 32 KiB.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;

const INPUT: u8 = 0;
const OUTPUT: u8 = 1;
const ERRORS: u8 = 2;
/// The API's word about the end.
const STATUS: u8 = 3;
const SIZE: u8 = 4;
/// The end of the channel that is named next, since version 5.
const CLOSE: u8 = 255;

/// The rows and columns of a terminal.
pub(crate) type Size = (u16, u16);

/// A container with its streams.
pub(crate) struct Attached {
    ws: WebSocketStream<TokioIo<Upgraded>>,
    /// True where the end of the input can be told.
    ends_input: bool,
}

/// The end of a container's streams.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// They are over.
    Over,
    /// Standard output has no reader any more.
    Unread,
}

/// A status, as the API ends the streams with.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    status: String,
    message: String,
}

/// Attaches to a container. `terminal` is true for one with a terminal.
///
/// # Errors
/// As [`Api::get`].
pub(crate) async fn attach(
    api: &Api,
    namespace: &str,
    pod: &str,
    container: &str,
    terminal: bool,
) -> Result<Attached, Failure> {
    // With a terminal, there is no other stream for errors.
    let path = format!(
        "/api/v1/namespaces/{namespace}/pods/{pod}/attach?container={}&stdin=true&stdout=true&stderr={}&tty={terminal}",
        query_text(container),
        !terminal
    );
    let (stream, protocol) = api.websocket(&path, PROTOCOLS).await?;
    let limits = Limits::default().max_payload_len(Some(MAX_MESSAGE));
    let ws = ClientBuilder::new().limits(limits).take_over(TokioIo::new(stream));
    Ok(Attached { ws, ends_input: protocol.starts_with("v5.") })
}

impl Attached {
    /// True where the end of the input can be told to the container.
    pub(crate) fn ends_input(&self) -> bool {
        self.ends_input
    }

    /// Carries the streams until the container ends them. `size` is asked for the terminal's size, again and again. Returns
    /// the number of bytes that came, too.
    ///
    /// # Errors
    /// The API's word when it ends them with a failure; [`Kind::Network`] when the connection is lost.
    pub(crate) async fn carry(
        self,
        input: impl AsyncRead + Unpin,
        output: &mut Writer,
        errors: impl AsyncWrite + Unpin,
        size: impl AsyncFnMut() -> Size,
    ) -> (u64, Result<Ended>) {
        let (sink, stream) = self.ws.split();
        let mut count = 0;
        let up = async {
            // A container that takes no input any more may still have output.
            let _ = up(sink, input, size, self.ends_input).await;
            std::future::pending::<Infallible>().await
        };
        // Both ways at once: a container whose output is not taken takes no input.
        let ended = tokio::select! {
            never = up => match never {},
            ended = down(stream, output, errors, &mut count) => ended,
        };
        (count, ended)
    }
}

/// The way to the container, which goes on after the end of the input: the terminal may still change.
async fn up(
    mut sink: SplitSink<WebSocketStream<TokioIo<Upgraded>>, Message>,
    mut input: impl AsyncRead + Unpin,
    mut size: impl AsyncFnMut() -> Size,
    ends_input: bool,
) -> Result<Infallible> {
    let mut piece = vec![0; PIECE];
    let mut has_ended = false;
    loop {
        tokio::select! {
            read = input.read(&mut piece), if !has_ended => match read {
                Ok(n @ 1..) => send(&mut sink, INPUT, &piece[..n]).await?,
                // An input that cannot be read any more has ended, too.
                Ok(0) | Err(_) => {
                    has_ended = true;
                    if ends_input {
                        send(&mut sink, CLOSE, &[INPUT]).await?;
                    }
                }
            },
            (rows, columns) = size() => {
                let text = format!("{{\"Width\":{columns},\"Height\":{rows}}}");
                send(&mut sink, SIZE, text.as_bytes()).await?;
            }
        }
    }
}

async fn send<E: std::fmt::Display>(
    sink: &mut (impl Sink<Message, Error = E> + Unpin),
    channel: u8,
    bytes: &[u8],
) -> Result<()> {
    let message = Bytes::from([&[channel][..], bytes].concat());
    sink.send(Message::binary(message)).await.map_err(|e| lost(&e))
}

/// The way from it.
async fn down(
    mut stream: impl StreamExt<Item = Result<Message, tokio_websockets::Error>> + Unpin,
    output: &mut Writer,
    mut errors: impl AsyncWrite + Unpin,
    count: &mut u64,
) -> Result<Ended> {
    // Output may come after the word about the end.
    let mut said = None;
    loop {
        let next = tokio::select! {
            next = stream.next() => next,
            () = output.gone() => return Ok(Ended::Unread),
        };
        let message = match next {
            Some(Ok(message)) if !message.is_close() => message,
            Some(Err(e)) if said.is_none() => return Err(lost(&e)),
            _ => return said.unwrap_or(Ok(Ended::Over)),
        };
        let payload: &[u8] = message.as_payload();
        let Some((channel, bytes)) = payload.split_first().filter(|_| message.is_binary() || message.is_text()) else {
            continue;
        };
        // A server begins each channel with an empty message.
        match *channel {
            OUTPUT if !bytes.is_empty() => {
                *count += bytes.len() as u64;
                let written = async {
                    output.write_all(bytes).await?;
                    output.flush().await
                };
                match written.await {
                    Ok(()) => {}
                    Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => return Ok(Ended::Unread),
                    Err(e) => return Err(Error::new(Kind::File, format!("cannot write to standard output: {e}"))),
                }
            }
            ERRORS if !bytes.is_empty() => {
                *count += bytes.len() as u64;
                // Without a standard error, the exit code must do.
                let _ = errors.write_all(bytes).await;
                let _ = errors.flush().await;
            }
            STATUS if !bytes.is_empty() => {
                let Status { status, message } = serde_json::from_slice(bytes).unwrap_or_else(|_| Status {
                    status: String::new(),
                    message: String::from_utf8_lossy(bytes).into(),
                });
                let message = format!("the Kubernetes API ended the container's streams: {}", printable(&message));
                said = Some(match &*status {
                    "Success" => Ok(Ended::Over),
                    _ => Err(Error::new(Kind::Network, message)),
                });
            }
            _ => {}
        }
    }
}

fn lost(error: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::Network, format!("the connection to the container was lost: {error}"))
}
