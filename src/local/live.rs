//! Streams of messages: a play's status and tasks as they change, and the journal of a machine.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::Serialize;
use tokio::{
    sync::{
        broadcast::error::{RecvError, TryRecvError},
        watch,
    },
    time::{Interval, interval, timeout},
};
use tokio_websockets::{Limits, Message, ServerBuilder, WebSocketStream};

use crate::labs::{
    http::Stream,
    wire::{self, JournalChunk, State, Status},
};

use super::world::{Change, Journal, Live};

/// The time between two pings of a client.
const PING_EVERY: Duration = Duration::from_secs(30);
/// The longest time that a slow client may take for one message.
const SEND_TIME: Duration = Duration::from_secs(10);
/// The longest message of a client. Clients have nothing to say here.
const MAX_PAYLOAD: usize = 4096;

/// The server's end of a stream.
struct Client {
    ws: WebSocketStream<Stream>,
    ping: Interval,
}

/// The client accepts no more messages.
struct Gone;

impl Client {
    async fn of(socket: Stream) -> Client {
        let ws = ServerBuilder::new().limits(Limits::default().max_payload_len(Some(MAX_PAYLOAD))).serve(socket);
        let mut ping = interval(PING_EVERY);
        ping.tick().await;
        Client { ws, ping }
    }

    async fn send(&mut self, message: Message) -> Result<(), Gone> {
        match timeout(SEND_TIME, self.ws.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }

    async fn tell(&mut self, value: &impl Serialize) -> Result<(), Gone> {
        self.send(Message::text(serde_json::to_string(value).map_err(|_| Gone)?)).await
    }

    /// Keeps the connection alive; returns when the client has left.
    async fn attend(&mut self) -> Gone {
        loop {
            tokio::select! {
                said = self.ws.next() => match said {
                    Some(Ok(message)) if !message.is_close() => {}
                    Some(Ok(_) | Err(_)) | None => return Gone,
                },
                _ = self.ping.tick() => if self.send(Message::ping("")).await.is_err() {
                    return Gone;
                },
            }
        }
    }

    async fn close(mut self) {
        let _ = timeout(Duration::from_secs(1), self.ws.close()).await;
    }
}

/// Sends a play's status and tasks: as they are, then each change, until the play is destroyed.
pub(super) async fn tell(socket: Stream, live: Live) {
    let mut client = Client::of(socket).await;
    // The end of the play and the end of the client both end the stream.
    let _ = tell_all(&mut client, live).await;
    client.close().await;
}

async fn tell_all(client: &mut Client, mut live: Live) -> Result<(), Gone> {
    let status = live.status.borrow_and_update().clone();
    client.tell(&wire::Message::Status { status }).await?;
    for (machine, task) in live.tasks {
        client.tell(&wire::Message::Task { machine, task }).await?;
    }
    while !is_over(&live.status) {
        let message = tokio::select! {
            more = live.status.changed() => {
                more.map_err(|_| Gone)?;
                wire::Message::Status { status: live.status.borrow_and_update().clone() }
            }
            change = live.changes.recv() => {
                // A client that is too slow would miss a change, so it has to connect again.
                let (machine, task): Change = change.map_err(|_| Gone)?;
                wire::Message::Task { machine, task }
            }
            gone = client.attend() => return Err(gone),
        };
        client.tell(&message).await?;
    }
    Ok(())
}

/// True once the play is destroyed and the client has been told so.
fn is_over(status: &watch::Receiver<Status>) -> bool {
    status.borrow().state_events.last().is_some_and(|event| event.state == State::Destroyed)
        && !status.has_changed().unwrap_or(false)
}

/// Streams a machine's journal until its play ends.
pub(super) async fn stream(socket: Stream, journal: Journal) {
    let mut client = Client::of(socket).await;
    let _ = stream_all(&mut client, journal).await;
    client.close().await;
}

async fn stream_all(client: &mut Client, mut journal: Journal) -> Result<(), Gone> {
    let is_last = |state: &State| matches!(state, State::Stopped | State::Destroyed | State::Failed);
    let mut text = journal.past;
    loop {
        // Read before the lines, because the last ones are written together with the last state.
        let over = journal.status.borrow_and_update().state_events.last().is_some_and(|event| is_last(&event.state));
        loop {
            match journal.lines.try_recv() {
                Ok(line) => text.push_str(&line),
                Err(TryRecvError::Lagged(count)) => text.push_str(&lost(count)),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        if !text.is_empty() {
            client.tell(&JournalChunk { stdout: std::mem::take(&mut text), ..JournalChunk::default() }).await?;
        }
        if over {
            return client.tell(&JournalChunk { eof: true, ..JournalChunk::default() }).await;
        }
        tokio::select! {
            more = journal.status.changed() => more.map_err(|_| Gone)?,
            line = journal.lines.recv() => match line {
                Ok(line) => text = line,
                Err(RecvError::Lagged(count)) => text = lost(count),
                Err(RecvError::Closed) => return Err(Gone),
            },
            gone = client.attend() => return Err(gone),
        }
    }
}

/// A line in place of lines that a slow client has missed.
fn lost(count: u64) -> String {
    format!("({count} lines were lost: this client is too slow)\n")
}
