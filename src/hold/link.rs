//! One connection that carries a session: frames in, frames out.
//!
//! It always reads, because what it takes is bounded by our window. So no answer of ours to a ping waits for a slow
//! reader, and the relay never waits in a write. Frames that are no data overtake data that waits.

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::{
    frames::{Decoder, Frame, Violation},
    greeting::{Begun, Tag, equal},
    held::{State, WINDOW},
};

/// Room for what is read at once.
const CHUNK: usize = 64 * 1024;
/// Bytes that are read before the reader of the session gets its turn.
const TURN: usize = 64 * 1024;

/// The end of a connection, or of the session on it.
#[derive(Debug)]
pub(super) enum Over {
    /// The connection is lost.
    Lost(io::Error),
    /// The relay has said its last word: 0, or another reason with its words.
    Ended(u8, String),
    /// The relay does not keep to the protocol.
    Broken(Violation),
    /// The relay does not know the key.
    Impostor,
}

impl From<Violation> for Over {
    fn from(violation: Violation) -> Self {
        Over::Broken(violation)
    }
}

/// The news of one turn.
#[derive(Default)]
pub(super) struct News {
    /// Something came.
    pub(super) heard: bool,
    /// The relay has proven that it is ours.
    pub(super) welcome: bool,
    /// Something was sent that will be answered.
    pub(super) sent: bool,
    /// Bytes of the session that came.
    pub(super) data: usize,
    /// Some of it was acknowledged, and more has not been read yet.
    pub(super) unread: bool,
    /// The last ping that was answered.
    pub(super) pong: Option<u32>,
    /// Bytes that were sent were not passed on yet.
    pub(super) unanswered: bool,
}

/// A connection that carries the session.
pub(super) struct Link<C> {
    pub(super) connection: C,
    decoder: Decoder,
    input: BytesMut,
    /// The frame, or the greeting, that is being written.
    output: Bytes,
    /// Something was written and may still wait in the connection.
    unflushed: bool,
    /// Bytes that come again: they have come over an earlier connection.
    known: u64,
    /// The proof that is awaited.
    welcome: Option<Tag>,
    /// A ping that is to be answered.
    pinged: Option<u32>,
    /// A ping that is to be sent.
    pub(super) ping: Option<u32>,
    /// The relay has to be told how much was read: it may have missed it.
    tells: bool,
    pub(super) bye: Bye,
    /// It has brought the session forward.
    pub(super) is_useful: bool,
}

/// The client's last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bye {
    No,
    /// It comes after everything that was written.
    Due,
    /// It comes at once.
    Now,
    /// It is written, if perhaps not flushed.
    Said,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Link<C> {
    fn new(connection: C) -> Self {
        Link {
            connection,
            decoder: Decoder::default(),
            input: BytesMut::new(),
            output: Bytes::new(),
            unflushed: false,
            known: 0,
            welcome: None,
            pinged: None,
            ping: None,
            tells: false,
            bye: Bye::No,
            is_useful: false,
        }
    }

    /// The first connection of a session.
    pub(super) fn begun(connection: C, begun: Begun) -> Self {
        Link { output: begun.words.into(), welcome: Some(begun.welcome), ..Link::new(connection) }
    }

    /// A connection on which the relay sends again what came since our wish: `known` bytes.
    pub(super) fn resumed(connection: C, known: u64) -> Self {
        Link { known, tells: true, ..Link::new(connection) }
    }

    /// True once the last word has left this program.
    pub(super) fn has_said_bye(&self) -> bool {
        self.bye == Bye::Said && self.output.is_empty() && !self.unflushed
    }

    /// Moves what can be moved. `writes` is false while another connection is about to take over.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        state: &mut State,
        writes: bool,
        news: &mut News,
    ) -> Poll<Over> {
        let read = self.poll_read(cx, state, news);
        if writes && let Err(e) = self.poll_write(cx, state, news) {
            // The bytes that came before are of more worth: an END explains why writing fails.
            return Poll::Ready(match read {
                Poll::Ready(over) => over,
                Poll::Pending => Over::Lost(e),
            });
        }
        read
    }

    /// Writes the last word, and reads nothing more.
    pub(super) fn poll_farewell(&mut self, cx: &mut Context<'_>, state: &mut State) -> Poll<()> {
        match self.poll_write(cx, state, &mut News::default()) {
            Ok(()) if !self.has_said_bye() => Poll::Pending,
            Ok(()) | Err(_) => Poll::Ready(()),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, state: &mut State, news: &mut News) -> Poll<Over> {
        let mut taken = 0;
        loop {
            if self.input.capacity() - self.input.len() < CHUNK / 4 {
                self.input.reserve(CHUNK);
            }
            let read = match pin!(self.connection.read_buf(&mut self.input)).poll(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Over::Lost(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Ok(n)) => n,
                Poll::Ready(Err(e)) => return Poll::Ready(Over::Lost(e)),
                Poll::Pending => return Poll::Pending,
            };
            news.heard = true;
            loop {
                match self.decoder.next(&mut self.input) {
                    Ok(None) => break,
                    Ok(Some(frame)) => {
                        if let Err(over) = self.take(frame, state, news) {
                            return Poll::Ready(over);
                        }
                    }
                    Err(violation) => return Poll::Ready(violation.into()),
                }
            }
            taken += read;
            if taken >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    fn take(&mut self, frame: Frame, state: &mut State, news: &mut News) -> Result<(), Over> {
        match frame {
            Frame::Data(mut data) => {
                let known = usize::try_from(self.known).unwrap_or(usize::MAX).min(data.len());
                self.known -= known as u64;
                data.advance(known);
                if state.received + data.len() as u64 > state.consumed + u64::from(WINDOW) {
                    return Err(Violation("it sends more than there is room for").into());
                }
                state.received += data.len() as u64;
                self.is_useful |= !data.is_empty();
                news.data += data.len();
                state.inbox.push(data);
                state.wake_reader();
            }
            Frame::Ack(consumed) => self.make_room(consumed, state)?,
            Frame::Pong(n, consumed) => {
                news.pong = Some(n);
                self.make_room(consumed, state)?;
            }
            Frame::Ping(n) => self.pinged = Some(n),
            Frame::Welcome(tag) => {
                // A relay that has resumed the session is proven by that.
                if let Some(awaited) = self.welcome.take() {
                    if !equal(&awaited, &tag) {
                        return Err(Over::Impostor);
                    }
                    news.welcome = state.inbox.open();
                    state.wake_reader();
                }
            }
            Frame::End { reason, total, words } => {
                // Another number means that bytes are missing, which no resume brings back.
                if reason == 0 && (self.known > 0 || total != state.received) {
                    return Err(Violation("its last word does not fit what it has sent").into());
                }
                return Err(Over::Ended(reason, words));
            }
            Frame::Bye(_) => return Err(Violation("it speaks as a client").into()),
        }
        Ok(())
    }

    fn make_room(&mut self, consumed: u64, state: &mut State) -> Result<(), Violation> {
        if state.replay.consumed(consumed)? {
            self.is_useful = true;
            state.wake_writer();
        }
        Ok(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, state: &mut State, news: &mut News) -> io::Result<()> {
        loop {
            if self.output.is_empty() {
                self.output = match self.next(state, news) {
                    Some(frame) => frame,
                    None => break,
                };
            }
            match Pin::new(&mut self.connection).poll_write(cx, &self.output) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => self.output.advance(n),
                Poll::Ready(Err(e)) => return Err(e),
                Poll::Pending => return Ok(()),
            }
            self.unflushed = true;
        }
        if self.unflushed && Pin::new(&mut self.connection).poll_flush(cx)?.is_ready() {
            self.unflushed = false;
        }
        Ok(())
    }

    /// The next frame to write: what is no data first.
    fn next(&mut self, state: &mut State, news: &mut News) -> Option<Bytes> {
        if self.bye == Bye::Said {
            return None;
        }
        let mut frames = BytesMut::new();
        let pinged = self.pinged.take();
        if std::mem::take(&mut self.tells) || state.owes_an_ack() || pinged.is_some() {
            match pinged {
                Some(n) => Frame::Pong(n, state.consumed).put(&mut frames),
                None => Frame::Ack(state.consumed).put(&mut frames),
            }
            (state.acked, state.ack_is_late) = (state.consumed, false);
            news.unread |= state.received > state.acked;
        }
        if let Some(n) = self.ping.take() {
            Frame::Ping(n).put(&mut frames);
            news.sent = true;
        }
        if self.bye == Bye::Now || (self.bye == Bye::Due && state.replay.is_sent()) {
            Frame::Bye(state.replay.end()).put(&mut frames);
            self.bye = Bye::Said;
        }
        if frames.is_empty() {
            let frame = state.replay.next();
            news.sent |= frame.is_some();
            return frame;
        }
        Some(frames.freeze())
    }
}
