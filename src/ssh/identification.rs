//! The identification line, the first line of each side of an SSH connection (RFC 4253, 4.2). Pure: bytes in, a line
//! out.
//!
//! A server may send lines of text before it. OpenSSH limits their length and number, and so does [`Reader`].

/// The longest identification line by the RFC, CR and LF included, in bytes.
pub(crate) const MAX_LENGTH: usize = 255;
/// CR and LF.
const LINE_END: usize = 2;
/// The longest line, of text or not, that OpenSSH accepts (its SSH_MAX_BANNER_LEN), in bytes.
const MAX_LINE: usize = 8192;
/// The number of text lines at which OpenSSH gives up (its SSH_MAX_PRE_BANNER_LINES).
const MAX_TEXT_LINES: usize = 1024;

/// A side of an SSH connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The client, whose first line is its identification.
    Client,
    /// The server, which may send lines of text before.
    Server,
}

/// Reads one side's first lines, in chunks of any size, up to its identification line.
#[derive(Debug)]
pub(crate) struct Reader {
    side: Side,
    /// The beginning of an incomplete line.
    held: Vec<u8>,
    text_lines: usize,
}

/// The outcome of reading one chunk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// All of the chunk was read, and the identification line is still incomplete.
    Incomplete,
    /// The identification line, without its line end.
    Line(Vec<u8>),
    /// This side does not speak SSH 2. Contains its last line, or as much of it as was read.
    NotSsh(Vec<u8>),
}

impl Reader {
    /// Creates a reader for the first lines of `side`.
    pub(crate) fn of(side: Side) -> Reader {
        Reader { side, held: Vec::new(), text_lines: 0 }
    }

    /// Reads from the beginning of `bytes`, up to the end of the identification line or all of them. [`Read::Line`] and
    /// [`Read::NotSsh`] are final.
    pub(crate) fn read(&mut self, bytes: &mut &[u8]) -> Read {
        loop {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let part = &bytes[..end.unwrap_or(bytes.len())];
            *bytes = &bytes[part.len() + end.map_or(0, |_| 1)..];
            self.held.extend_from_slice(&part[..part.len().min(MAX_LINE + 1)]);
            if self.held.len() > MAX_LINE {
                return Read::NotSsh(std::mem::take(&mut self.held));
            }
            if end.is_none() {
                return Read::Incomplete;
            }
            let mut line = std::mem::take(&mut self.held);
            line.pop_if(|last| *last == b'\r');
            if line.starts_with(b"SSH-2.0-") || line.starts_with(b"SSH-1.99-") {
                return Read::Line(line);
            }
            self.text_lines += 1;
            // `SSH-1.5-` is a different protocol.
            if self.side == Side::Client || line.starts_with(b"SSH-") || self.text_lines >= MAX_TEXT_LINES {
                return Read::NotSsh(line);
            }
        }
    }
}

/// Returns a server's identification line as text if a later connection may send it on the server's behalf: its length
/// and characters conform to the RFC.
pub fn to_remember(line: &[u8]) -> Option<String> {
    let fits = line.starts_with(b"SSH-2.0-")
        && line.len() <= MAX_LENGTH - LINE_END
        && line.iter().all(|byte| (b' '..=b'~').contains(byte));
    fits.then(|| String::from_utf8_lossy(line).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{MAX_LINE, MAX_TEXT_LINES, Read, Reader, Side, to_remember};

    /// Returns the outcome for `bytes` in one chunk, and the remaining bytes.
    fn read(side: Side, mut bytes: &[u8]) -> (Read, &[u8]) {
        let outcome = Reader::of(side).read(&mut bytes);
        (outcome, bytes)
    }

    fn line(line: &[u8]) -> Read {
        Read::Line(line.to_vec())
    }

    fn not_ssh(line: &[u8]) -> Read {
        Read::NotSsh(line.to_vec())
    }

    #[test]
    fn a_line_ends_with_lf_and_perhaps_cr() {
        for side in [Side::Client, Side::Server] {
            assert_eq!(read(side, b"SSH-2.0-x y\r\n\0\0"), (line(b"SSH-2.0-x y"), &b"\0\0"[..]));
            assert_eq!(read(side, b"SSH-1.99-x\n"), (line(b"SSH-1.99-x"), &b""[..]));
            assert_eq!(read(side, b"SSH-2.0-x\r"), (Read::Incomplete, &b""[..]));
            assert_eq!(read(side, b""), (Read::Incomplete, &b""[..]));
        }
    }

    #[test]
    fn only_a_server_may_send_text_before() {
        assert_eq!(read(Side::Server, b"hello\r\n\nSSH-2.0-x\r\nmore"), (line(b"SSH-2.0-x"), &b"more"[..]));
        assert_eq!(read(Side::Client, b"GET / HTTP/1.1\r\nrest"), (not_ssh(b"GET / HTTP/1.1"), &b"rest"[..]));
    }

    #[test]
    fn another_version_is_not_spoken() {
        for side in [Side::Client, Side::Server] {
            assert_eq!(read(side, b"SSH-1.5-x\n").0, not_ssh(b"SSH-1.5-x"));
        }
    }

    #[test]
    fn text_is_bounded_as_in_openssh() {
        let longest = vec![b'x'; MAX_LINE];
        assert_eq!(read(Side::Server, &longest).0, Read::Incomplete);
        assert_eq!(read(Side::Server, &[&longest[..], b"\nSSH-2.0-x\n"].concat()).0, line(b"SSH-2.0-x"));
        let endless = vec![b'x'; 3 * MAX_LINE];
        assert!(matches!(read(Side::Server, &endless).0, Read::NotSsh(held) if held.len() == MAX_LINE + 1));
        let texts = |count| ["x\n".repeat(count).as_bytes(), b"SSH-2.0-x\n"].concat();
        assert_eq!(read(Side::Server, &texts(MAX_TEXT_LINES - 1)).0, line(b"SSH-2.0-x"));
        assert_eq!(read(Side::Server, &texts(MAX_TEXT_LINES)).0, not_ssh(b"x"));
    }

    #[test]
    fn a_line_is_remembered_as_the_rfc_has_it() {
        assert_eq!(to_remember(b"SSH-2.0-b c").as_deref(), Some("SSH-2.0-b c"));
        let long = |length: usize| [&b"SSH-2.0-"[..], &vec![b'x'; length - 8]].concat();
        assert!(to_remember(&long(253)).is_some());
        for line in [&b"SSH-1.99-a"[..], b"SSH-2.0-a\x07", b"SSH-2.0-\xc3\xa4", b"hello", b"", &long(254)] {
            assert_eq!(to_remember(line), None, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn chunks_change_nothing(
            is_server: bool,
            texts in prop::collection::vec("(SSH-)?[a-z ]{0,20}\r?", 0..4),
            rest in prop::collection::vec(any::<u8>(), 0..40),
            size in 1usize..20,
        ) {
            let side = if is_server { Side::Server } else { Side::Client };
            let head: String = texts.iter().map(|text| format!("{text}\n")).collect();
            let bytes = [format!("{head}SSH-2.0-a_1 b\r\n").as_bytes(), &rest].concat();
            let (whole, after) = read(side, &bytes);
            let mut reader = Reader::of(side);
            let (mut cut, mut left) = (Read::Incomplete, Vec::new());
            for mut chunk in bytes.chunks(size) {
                if cut == Read::Incomplete {
                    cut = reader.read(&mut chunk);
                }
                left.extend_from_slice(chunk);
            }
            prop_assert_eq!(whole, cut);
            prop_assert_eq!(after, left);
        }

        #[test]
        fn no_bytes_make_it_panic_or_hold_much(
            is_server: bool,
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9000), 0..9),
        ) {
            let mut reader = Reader::of(if is_server { Side::Server } else { Side::Client });
            for chunk in chunks {
                let mut left = &chunk[..];
                while !left.is_empty() {
                    let _ = reader.read(&mut left);
                    prop_assert!(reader.held.len() <= MAX_LINE);
                }
            }
        }
    }
}
