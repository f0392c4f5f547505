//! The bytes of the client, from the moment that it wrote them until the relay has passed them on. Pure.
//!
//! They are copied once, into the frames in which they travel: a frame that was sent is kept as it is, because it may
//! have to be sent again. What waits to be sent joins the last frame while that has room.
//!
//! Two numbers of the relay's are kept apart. What it has *received* need not be sent again. What it has *consumed* is
//! out of its window, and only that makes room for more.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::frames::{HEADER, Violation, data_header};

/// The bytes that may have to be sent, once or again.
pub(super) struct Replay {
    /// Frames of data that were sent, with their headers: from `start` on.
    sent: VecDeque<Bytes>,
    /// Frames that have to be sent next, after a resume.
    again: VecDeque<Bytes>,
    /// The frame that is being filled, with room for its header. It is empty, or has data.
    filling: BytesMut,
    /// The offset of the first byte in `sent`.
    start: u64,
    /// The offset after the last byte in `sent`.
    next: u64,
    /// The offset after the last byte that was written.
    end: u64,
    /// The offset up to which bytes have been sent at any time.
    furthest: u64,
    consumed: u64,
    window: u64,
    /// Most bytes of data in a frame.
    max_data: usize,
}

impl Replay {
    /// Nothing has been written. The relay takes `window` bytes before it has passed them on.
    pub(super) fn new(window: u32, max_data: usize) -> Replay {
        Replay {
            sent: VecDeque::new(),
            again: VecDeque::new(),
            filling: BytesMut::new(),
            start: 0,
            next: 0,
            end: 0,
            furthest: 0,
            consumed: 0,
            window: window.into(),
            max_data,
        }
    }

    /// Takes as much of `data` as there is room for: nothing if the window is full.
    pub(super) fn write(&mut self, data: &[u8]) -> usize {
        let room = usize::try_from(self.window - (self.end - self.consumed)).unwrap_or(usize::MAX);
        let taken = data.len().min(room);
        let mut rest = &data[..taken];
        while !rest.is_empty() {
            if self.filling.len() == HEADER + self.max_data {
                let full = self.filled();
                self.again.push_back(full);
            }
            if self.filling.is_empty() {
                self.filling.reserve(HEADER + rest.len().min(self.max_data));
                self.filling.put_bytes(0, HEADER);
            }
            let (now, later) = rest.split_at(rest.len().min(HEADER + self.max_data - self.filling.len()));
            self.filling.put_slice(now);
            rest = later;
        }
        self.end += taken as u64;
        taken
    }

    /// The frame that was being filled, with its header.
    fn filled(&mut self) -> Bytes {
        let length = self.filling.len() - HEADER;
        self.filling[..HEADER].copy_from_slice(&data_header(length));
        self.filling.split().freeze()
    }

    /// The next frame to be sent on this connection.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        let frame = match self.again.pop_front() {
            Some(frame) => frame,
            None if self.filling.is_empty() => return None,
            None => self.filled(),
        };
        self.next += (frame.len() - HEADER) as u64;
        self.furthest = self.furthest.max(self.next);
        self.sent.push_back(frame.clone());
        Some(frame)
    }

    /// Notes that the relay has passed on this number of bytes. Returns false if that is old news.
    ///
    /// # Errors
    /// Fails when they were not sent.
    pub(super) fn consumed(&mut self, consumed: u64) -> Result<bool, Violation> {
        if consumed > self.furthest {
            return Err(Violation("it consumed what was not sent"));
        }
        if consumed <= self.consumed {
            return Ok(false);
        }
        self.consumed = consumed;
        while let Some(frame) = self.sent.front() {
            let after = self.start + (frame.len() - HEADER) as u64;
            if after > self.consumed {
                break;
            }
            self.start = after;
            self.sent.pop_front();
        }
        Ok(true)
    }

    /// Goes back to the offset that a relay has received, on a new connection.
    ///
    /// # Errors
    /// Fails when it has received less than before, or what was not sent.
    pub(super) fn go_back(&mut self, received: u64) -> Result<(), Violation> {
        if received > self.furthest || received < self.consumed || received < self.start {
            return Err(Violation("it received what cannot be"));
        }
        let frames = std::mem::take(&mut self.sent).into_iter().chain(std::mem::take(&mut self.again));
        let mut passed = received - self.start;
        // In full frames: many small ones may wait.
        let mut joined = BytesMut::new();
        for frame in frames {
            let mut data = frame.slice(HEADER..);
            let known = usize::try_from(passed).unwrap_or(usize::MAX).min(data.len());
            passed -= known as u64;
            data.advance(known);
            while !data.is_empty() {
                if joined.is_empty() {
                    joined.reserve(HEADER + data.len().min(self.max_data));
                    joined.put_bytes(0, HEADER);
                }
                let piece = data.split_to(data.len().min(HEADER + self.max_data - joined.len()));
                joined.put_slice(&piece);
                if joined.len() == HEADER + self.max_data {
                    self.again.push_back(framed(std::mem::take(&mut joined)));
                }
            }
        }
        if !joined.is_empty() {
            self.again.push_back(framed(joined));
        }
        // A relay may have received bytes of the frame that is still being filled only if it lies: they were not sent.
        debug_assert_eq!(passed, 0);
        (self.start, self.next) = (received, received);
        Ok(())
    }

    /// The number of bytes that were written.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// True if the relay has passed on everything that was sent.
    pub(super) fn is_answered(&self) -> bool {
        self.consumed >= self.furthest
    }

    /// True if everything that was written was sent on this connection.
    pub(super) fn is_sent(&self) -> bool {
        self.again.is_empty() && self.filling.is_empty()
    }
}

fn framed(mut frame: BytesMut) -> Bytes {
    let length = frame.len() - HEADER;
    frame[..HEADER].copy_from_slice(&data_header(length));
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::Replay;
    use crate::hold::frames::{Decoder, Frame};

    /// A relay that reads what a connection brings, and loses the rest when it breaks.
    #[derive(Default)]
    struct Relay {
        received: Vec<u8>,
        consumed: u64,
        decoder: Decoder,
        input: BytesMut,
    }

    impl Relay {
        fn read(&mut self, bytes: &[u8]) {
            self.input.extend_from_slice(bytes);
            while let Some(frame) = self.decoder.next(&mut self.input).unwrap() {
                let Frame::Data(data) = frame else { panic!("{frame:?}") };
                self.received.extend_from_slice(&data);
            }
        }

        fn loses_the_connection(&mut self) {
            (self.decoder, self.input) = (Decoder::default(), BytesMut::new());
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(usize),
        Send,
        Consume(u64),
        /// The connection breaks after that many bytes of the frame that is being sent.
        Break(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (1usize..3000).prop_map(Step::Write),
            Just(Step::Send),
            (0u64..4000).prop_map(Step::Consume),
            (0usize..1500).prop_map(Step::Break),
        ];
        prop::collection::vec(step, 1..120)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn the_relay_gets_every_byte_once_whatever_breaks(steps in steps(), max_data in 1usize..1200) {
            let mut replay = Replay::new(10_000, max_data);
            let mut relay = Relay::default();
            let mut written = Vec::new();
            for step in steps {
                match step {
                    Step::Write(n) => {
                        let data: Vec<u8> = (0..n).map(|i| ((written.len() + i) * 7 % 251) as u8).collect();
                        let taken = replay.write(&data);
                        written.extend_from_slice(&data[..taken]);
                        prop_assert!(written.len() as u64 - relay.consumed <= 10_000);
                        let is_full = written.len() as u64 - relay.consumed == 10_000;
                        prop_assert!(taken == n || is_full);
                    }
                    Step::Send => {
                        if let Some(frame) = replay.next() {
                            prop_assert!(frame.len() <= 4 + max_data);
                            relay.read(&frame);
                        }
                    }
                    Step::Consume(n) => {
                        relay.consumed = (relay.consumed + n).min(relay.received.len() as u64);
                        replay.consumed(relay.consumed).unwrap();
                    }
                    Step::Break(n) => {
                        if let Some(frame) = replay.next() {
                            relay.read(&frame[..n.min(frame.len())]);
                        }
                        relay.loses_the_connection();
                        replay.go_back(relay.received.len() as u64).unwrap();
                    }
                }
            }
            while let Some(frame) = replay.next() {
                relay.read(&frame);
            }
            prop_assert!(replay.is_sent());
            prop_assert!(relay.received == written);
            prop_assert_eq!(replay.end(), written.len() as u64);
            replay.consumed(written.len() as u64).unwrap();
            prop_assert!(replay.sent.is_empty());
        }
    }

    #[test]
    fn a_relay_that_lies_about_offsets_is_refused() {
        let mut replay = Replay::new(100, 10);
        assert_eq!(replay.write(&[1; 30]), 30);
        assert!(replay.consumed(1).is_err(), "nothing was sent");
        replay.next().unwrap();
        replay.consumed(10).unwrap();
        assert!(replay.consumed(11).is_err());
        assert!(replay.consumed(u64::MAX).is_err());
        assert!(replay.go_back(9).is_err(), "it has consumed more");
        assert!(replay.go_back(11).is_err());
        assert!(replay.go_back(1 << 63).is_err());
        replay.go_back(10).unwrap();
        replay.consumed(3).unwrap();
        assert_eq!(replay.write(&[1; 1000]), 80, "old news make no room");
    }
}
