//! The bytes of the machine that came and were not read yet. Pure.
//!
//! Until the relay has proven that it is ours, only the lines up to sshd's identification are given out, so that no
//! reader ever sees the host key of a program that has taken the relay's port.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// Longest opening that is given out before the relay is proven.
const MAX_OPENING: usize = 8 * 1024;
/// Shorter pieces are copied together: a piece keeps the whole buffer alive in which it came.
const SMALL: usize = 16 * 1024;
/// The size up to which they are.
const JOINED: usize = 64 * 1024;

/// The bytes that wait for the reader.
#[derive(Default)]
pub(super) struct Inbox {
    pieces: VecDeque<Bytes>,
    /// Small pieces; the last bytes of all.
    joined: BytesMut,
    /// Bytes that came after the relay was proven are behind these.
    is_open: bool,
    opening: BytesMut,
    /// Bytes of the opening that may be given out, once its end is known.
    allowed: Option<usize>,
}

impl Inbox {
    /// Takes what came.
    pub(super) fn push(&mut self, data: Bytes) {
        if !self.is_open {
            self.opening.extend_from_slice(&data);
            self.allowed = self.allowed.or_else(|| lines(&self.opening));
        } else if data.len() < SMALL {
            self.joined.extend_from_slice(&data);
            if self.joined.len() >= JOINED {
                self.pieces.push_back(self.joined.split().freeze());
            }
        } else {
            if !self.joined.is_empty() {
                self.pieces.push_back(self.joined.split().freeze());
            }
            self.pieces.push_back(data);
        }
    }

    /// The relay is proven: everything may be read. Returns false if that is old news.
    pub(super) fn open(&mut self) -> bool {
        let is_news = !std::mem::replace(&mut self.is_open, true);
        if is_news {
            self.joined = std::mem::take(&mut self.opening);
        }
        is_news
    }

    /// Hands over the next bytes, as many as have come and `buffer` takes; returns their number.
    pub(super) fn read(&mut self, buffer: &mut tokio::io::ReadBuf<'_>) -> usize {
        let before = buffer.remaining();
        if !self.is_open {
            let Some(allowed) = &mut self.allowed else { return 0 };
            let n = before.min(*allowed);
            buffer.put_slice(&self.opening.split_to(n));
            *allowed -= n;
            return n;
        }
        while buffer.remaining() > 0 {
            let Some(piece) = self.pieces.front_mut() else {
                let n = self.joined.len().min(buffer.remaining());
                buffer.put_slice(&self.joined[..n]);
                self.joined.advance(n);
                break;
            };
            let n = piece.len().min(buffer.remaining());
            buffer.put_slice(&piece[..n]);
            piece.advance(n);
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
        before - buffer.remaining()
    }
}

/// The length of the lines of `opening` up to the one that identifies an SSH server, once that has come.
fn lines(opening: &[u8]) -> Option<usize> {
    let mut end = 0;
    for line in opening[..opening.len().min(MAX_OPENING)].split_inclusive(|byte| *byte == b'\n') {
        end += line.len();
        if line.starts_with(b"SSH-") {
            return line.ends_with(b"\n").then_some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use tokio::io::ReadBuf;

    use super::Inbox;

    fn read(inbox: &mut Inbox, most: usize) -> Vec<u8> {
        let mut room = vec![0; most];
        let mut buffer = ReadBuf::new(&mut room);
        let n = inbox.read(&mut buffer);
        assert_eq!(n, buffer.filled().len());
        buffer.filled().to_vec()
    }

    #[test]
    fn before_the_proof_only_the_opening_lines_are_given_out() {
        let mut inbox = Inbox::default();
        for piece in [&b"be welcome\r\nSS"[..], b"H-2.0-Open", b"SSH_9\r\nsecret", b" and more"] {
            inbox.push(Bytes::copy_from_slice(piece));
        }
        let mut all = read(&mut inbox, 5);
        all.extend(read(&mut inbox, 100));
        assert_eq!(all, b"be welcome\r\nSSH-2.0-OpenSSH_9\r\n");
        inbox.push(Bytes::from_static(b"SSH-2.0-again\n"));
        inbox.open();
        inbox.open();
        inbox.push(Bytes::from_static(b"!"));
        assert_eq!(read(&mut inbox, 100), b"secret and moreSSH-2.0-again\n!");
    }

    #[test]
    fn an_opening_that_identifies_no_server_waits_for_the_proof() {
        let mut inbox = Inbox::default();
        for _ in 0..100 {
            inbox.push(Bytes::from(vec![b'x'; 1000]));
        }
        inbox.push(Bytes::from_static(b"\nSSH-2.0-late\n"));
        assert_eq!(read(&mut inbox, 100), b"");
        inbox.open();
        assert_eq!(read(&mut inbox, 200_000).len(), 100_014);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_pushed_is_read_in_order(steps in prop::collection::vec((0usize..40_000, 0usize..50_000), 1..40)) {
            let mut inbox = Inbox::default();
            inbox.open();
            let (mut pushed, mut got) = (Vec::new(), Vec::new());
            for (push, most) in steps {
                let piece: Vec<u8> = (0..push).map(|i| ((pushed.len() + i) * 11 % 251) as u8).collect();
                pushed.extend_from_slice(&piece);
                inbox.push(piece.into());
                got.extend(read(&mut inbox, most));
            }
            got.extend(read(&mut inbox, pushed.len() + 1));
            prop_assert!(got == pushed);
        }
    }
}
