//! The frames of the relay's protocol, version 1. Pure.
//!
//! A frame is a type (1 byte), a length (3 bytes, big-endian) and a payload. The connection is a stream of bytes: where
//! a message of the WebSocket ends means nothing, and a [`Frame::Data`] is handed out in the pieces that come, because
//! a frame that breaks off is worth the bytes that came. Frames of unknown types are skipped.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::printable;

/// Bytes before the payload of a frame.
pub const HEADER: usize = 4;
/// Longest payload: with its header it is one message of the WebSocket.
pub const MAX_PAYLOAD: usize = 64 * 1024 - HEADER;
/// Longest payload of a known frame that is no data. Those have at most some 210 bytes, so there is room to grow.
const MAX_CONTROL: usize = 1024;
/// Longest text of an END.
const MAX_WORDS: usize = 200;

const DATA: u8 = 0;
const ACK: u8 = 1;
const PING: u8 = 2;
const PONG: u8 = 3;
const END: u8 = 4;
const BYE: u8 = 5;
const WELCOME: u8 = 6;

/// A frame, or a piece of one with data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The next bytes of the session.
    Data(Bytes),
    /// The number of bytes that the other side has passed on so far: it frees room in its window.
    Ack(u64),
    /// Asks for a sign of life.
    Ping(u32),
    /// Answers the ping of this number. It also says what an ACK says.
    Pong(u32, u64),
    /// The relay's last frame.
    End {
        /// 0 when the SSH server has ended the stream. Otherwise the relay has ended the session.
        reason: u8,
        /// The number of bytes that the relay has sent in the whole session.
        total: u64,
        /// A few words for people, where the reason is not 0.
        words: String,
    },
    /// The client leaves. It has sent this number of bytes in the whole session.
    Bye(u64),
    /// The relay's proof that it knows the key.
    Welcome([u8; 16]),
}

/// A breach of the protocol. Its text completes the sentence "the relay violates its protocol: ...".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation(pub &'static str);

impl Frame {
    /// Appends the frame to `out`.
    pub fn put(&self, out: &mut BytesMut) {
        match self {
            Frame::Data(data) => {
                out.put_slice(&data_header(data.len()));
                out.put_slice(data);
            }
            Frame::Ack(consumed) => {
                put_header(out, ACK, 8);
                out.put_u64(*consumed);
            }
            Frame::Ping(n) => {
                put_header(out, PING, 4);
                out.put_u32(*n);
            }
            Frame::Pong(n, consumed) => {
                put_header(out, PONG, 12);
                out.put_u32(*n);
                out.put_u64(*consumed);
            }
            Frame::End { reason, total, words } => {
                let words = &words.as_bytes()[..words.len().min(MAX_WORDS)];
                put_header(out, END, 9 + words.len());
                out.put_u8(*reason);
                out.put_u64(*total);
                out.put_slice(words);
            }
            Frame::Bye(total) => {
                put_header(out, BYE, 8);
                out.put_u64(*total);
            }
            Frame::Welcome(tag) => {
                put_header(out, WELCOME, 16);
                out.put_slice(tag);
            }
        }
    }
}

/// The header of a frame with `length` bytes of data.
pub fn data_header(length: usize) -> [u8; HEADER] {
    header(DATA, length)
}

fn header(kind: u8, length: usize) -> [u8; HEADER] {
    debug_assert!(length <= MAX_PAYLOAD);
    let [.., a, b, c] = length.to_be_bytes();
    [kind, a, b, c]
}

fn put_header(out: &mut BytesMut, kind: u8, length: usize) {
    out.put_slice(&header(kind, length));
}

/// The reader of frames that come in pieces.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Bytes of the present frame's payload that are yet to come, and their use.
    rest: usize,
    skips: bool,
}

impl Decoder {
    /// Takes the next frame, or piece of data, out of `input`; `None` when more bytes have to come first.
    ///
    /// # Errors
    /// Fails when a frame is longer than it may be, or shorter than its type needs. The stream is of no use then.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, Violation> {
        loop {
            if self.rest > 0 {
                let n = self.rest.min(input.len());
                if n == 0 {
                    return Ok(None);
                }
                self.rest -= n;
                let piece = input.split_to(n);
                if !self.skips {
                    return Ok(Some(Frame::Data(piece.freeze())));
                }
            }
            let Some((&[kind, a, b, c], payload)) = input.split_first_chunk() else { return Ok(None) };
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            if length > MAX_PAYLOAD {
                return Err(Violation("a frame is too long"));
            }
            if kind == DATA || kind > WELCOME {
                input.advance(HEADER);
                (self.rest, self.skips) = (length, kind != DATA);
                continue;
            }
            if length > MAX_CONTROL {
                return Err(Violation("a control frame is too long"));
            }
            if payload.len() < length {
                return Ok(None);
            }
            input.advance(HEADER);
            return control(kind, input.split_to(length)).map(Some);
        }
    }
}

fn control(kind: u8, mut payload: BytesMut) -> Result<Frame, Violation> {
    let least = match kind {
        ACK | BYE => 8,
        PING => 4,
        PONG => 12,
        END => 9,
        _ => 16,
    };
    if payload.len() < least {
        return Err(Violation("a control frame is too short"));
    }
    Ok(match kind {
        ACK => Frame::Ack(payload.get_u64()),
        PING => Frame::Ping(payload.get_u32()),
        PONG => Frame::Pong(payload.get_u32(), payload.get_u64()),
        END => {
            let (reason, total) = (payload.get_u8(), payload.get_u64());
            let words = String::from_utf8_lossy(&payload[..payload.len().min(MAX_WORDS)]);
            Frame::End { reason, total, words: printable(&words) }
        }
        BYE => Frame::Bye(payload.get_u64()),
        _ => {
            let mut tag = [0; 16];
            payload.copy_to_slice(&mut tag);
            Frame::Welcome(tag)
        }
    })
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, Bytes, BytesMut};
    use proptest::prelude::*;

    use super::{Decoder, Frame, MAX_PAYLOAD, Violation, put_header};

    fn frames() -> impl Strategy<Value = Vec<Frame>> {
        let frame = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200).prop_map(|data| Frame::Data(data.into())),
            (any::<u8>(), 60_000..=MAX_PAYLOAD).prop_map(|(byte, n)| Frame::Data(vec![byte; n].into())),
            any::<u64>().prop_map(Frame::Ack),
            any::<u32>().prop_map(Frame::Ping),
            (any::<u32>(), any::<u64>()).prop_map(|(n, consumed)| Frame::Pong(n, consumed)),
            (any::<u8>(), any::<u64>(), "([a-z] ?[a-z]){0,60}").prop_map(|(reason, total, words)| Frame::End {
                reason,
                total,
                words
            }),
            any::<u64>().prop_map(Frame::Bye),
            any::<[u8; 16]>().prop_map(Frame::Welcome),
        ];
        prop::collection::vec(frame, 0..20)
    }

    /// All frames that come of `bytes` in pieces, with neighbouring pieces of data joined.
    fn decoded(bytes: &[u8], mut pieces: impl Iterator<Item = usize>) -> Result<Vec<Frame>, Violation> {
        let (mut decoder, mut input, mut all) = (Decoder::default(), BytesMut::new(), Vec::new());
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(pieces.next().unwrap_or(rest.len()).clamp(1, rest.len()));
            input.put_slice(piece);
            rest = after;
            while let Some(frame) = decoder.next(&mut input)? {
                match (all.last_mut(), &frame) {
                    (Some(Frame::Data(before)), Frame::Data(more)) => {
                        *before = [before.as_ref(), more.as_ref()].concat().into();
                    }
                    _ => all.push(frame),
                }
            }
        }
        Ok(all)
    }

    fn joined(frames: Vec<Frame>) -> Vec<Frame> {
        let mut all: Vec<Frame> = Vec::new();
        for frame in frames {
            match (all.last_mut(), frame) {
                (_, Frame::Data(none)) if none.is_empty() => {}
                (Some(Frame::Data(before)), Frame::Data(more)) => {
                    *before = [before.as_ref(), more.as_ref()].concat().into();
                }
                (_, frame) => all.push(frame),
            }
        }
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_put_comes_out_however_it_is_cut(
            frames in frames(),
            pieces in prop::collection::vec(1usize..3000, 0..300),
            unknown in 7u8..,
        ) {
            let mut bytes = BytesMut::new();
            for frame in &frames {
                put_header(&mut bytes, unknown, 3);
                bytes.put_slice(b"new");
                frame.put(&mut bytes);
            }
            prop_assert_eq!(decoded(&bytes, pieces.into_iter()).unwrap(), joined(frames));
        }

        #[test]
        fn any_bytes_end_in_frames_or_a_violation(
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
            pieces in prop::collection::vec(1usize..20, 0..300),
        ) {
            let whole = decoded(&bytes, std::iter::empty());
            prop_assert_eq!(decoded(&bytes, pieces.into_iter()), whole);
        }
    }

    #[test]
    fn data_that_breaks_off_is_worth_what_came() {
        let mut bytes = BytesMut::new();
        Frame::Data(Bytes::from_static(b"0123456789")).put(&mut bytes);
        assert_eq!(decoded(&bytes[..7], std::iter::empty()), Ok(vec![Frame::Data(Bytes::from_static(b"012"))]));
        assert_eq!(decoded(&bytes[..3], std::iter::empty()), Ok(vec![]));
    }

    #[test]
    fn lengths_are_bounded_and_words_are_clean() {
        assert!(decoded(&[0, 1, 0, 0], std::iter::empty()).is_err());
        assert!(decoded(&[9, 255, 255, 255], std::iter::empty()).is_err());
        assert!(decoded(&[1, 0, 5, 0], std::iter::empty()).is_err());
        assert!(decoded(&[1, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0], std::iter::empty()).is_err());
        let mut bytes = BytesMut::new();
        Frame::End { reason: 1, total: 5, words: format!("\x1b]0;gone\x07{}", "é".repeat(300)) }.put(&mut bytes);
        let frames = decoded(&bytes, std::iter::empty()).unwrap();
        let [Frame::End { words, .. }] = &frames[..] else { panic!("{frames:?}") };
        assert!(words.starts_with("]0;goneé") && words.len() <= 200, "{words}");
    }
}
