//! The program at the other end of a connection to the listener: it has to be the user's own, and to speak SSH.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    os,
    ssh::{
        handshake,
        identification::{MAX_LENGTH, Read, Reader, Side},
    },
};

/// The beginning of an SSH client's first line (RFC 4253, section 4.2).
const BEGINNING: &[u8] = b"SSH-2.0-";
/// Patience with that line. Clients send it at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at a line that is not whole.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Time for a client to read its last words.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The reason to refuse a program that says something else.
const NOT_SSH: &str = "it does not speak SSH";

/// Checks that the program is this user's, or root's, which may do as it likes anyway.
///
/// # Errors
/// The reason to refuse it. Where the system does not tell its user, there is none.
pub(super) fn is_own(stream: &TcpStream) -> Result<(), &'static str> {
    const LEFT: &str = "it has left";
    let (Ok(peer), Ok(own)) = (stream.peer_addr(), stream.local_addr()) else { return Err(LEFT) };
    match os::user_of(peer, own) {
        None => Ok(()),
        // One of another user that leaves at once must not pass for root's.
        Some(None) => Err(LEFT),
        Some(user @ Some(_)) if user == Some(0) || user == os::own_user() => Ok(()),
        Some(Some(_)) => Err("it is a program of another user"),
    }
}

/// Waits until the program has spoken SSH. Its bytes stay in the socket, for the one who is to read them.
///
/// # Errors
/// The reason to refuse one that says something else, or nothing.
pub(super) async fn speaks_ssh(stream: &TcpStream) -> Result<(), &'static str> {
    let look = async {
        let mut bytes = [0; MAX_LENGTH];
        loop {
            let length = stream.peek(&mut bytes).await.map_err(|_| "it has left")?;
            match is_ssh(&bytes[..length]) {
                Some(true) => return Ok(()),
                None if 0 < length && length < MAX_LENGTH => sleep(LOOK_AGAIN).await,
                Some(false) | None => return Err(NOT_SSH),
            }
        }
    };
    timeout(PATIENCE, look).await.unwrap_or(Err("it has said nothing for 10 seconds"))
}

/// Tells whether a program that begins so speaks SSH; `None` while its first line is not whole.
///
/// The whole line counts: a web page may choose the method of its requests, `SSH-2.0-x` is a method by the grammar of
/// HTTP (RFC 9110, sections 5.6.2 and 9.1), and a name of the page's own that suddenly means this computer spares it the
/// question that browsers ask first (Fetch, section 4.8; "DNS rebinding"). But a browser ends the line with the version
/// of HTTP (RFC 9112, section 3), which ends no line of an SSH client.
fn is_ssh(bytes: &[u8]) -> Option<bool> {
    let begun = BEGINNING.len().min(bytes.len());
    if bytes[..begun] != BEGINNING[..begun] {
        return Some(false);
    }
    match Reader::of(Side::Client).read(&mut &bytes[..]) {
        Read::Incomplete => None,
        Read::NotSsh(_) => Some(false),
        Read::Line(line) => {
            let is_http = line.windows(6).any(|part| part.eq_ignore_ascii_case(b" HTTP/"));
            Some(!is_http && line.trim_ascii_end().iter().all(|byte| matches!(byte, b' '..=b'~')))
        }
    }
}

/// Tells the program inside SSH why it is turned away.
pub(super) async fn turn_away(mut stream: TcpStream, why: &str) {
    let words = async {
        stream.write_all(handshake::IDENTIFICATION).await?;
        stream.write_all(&handshake::disconnect_packet(handshake::BY_APPLICATION, why)).await?;
        stream.shutdown().await?;
        // A socket that is closed with unread input sends a reset, and the words are lost.
        let mut rest = [0; 4096];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    // One that has left hears nothing.
    let _ = timeout(LAST_WORDS, words).await;
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::{is_ssh, speaks_ssh};

    #[tokio::test(start_paused = true)]
    async fn a_program_has_ten_seconds() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let begun = tokio::time::Instant::now();
        assert_eq!(speaks_ssh(&stream).await, Err("it has said nothing for 10 seconds"));
        silent.writable().await.unwrap();
        silent.try_write(b"SSH-2.0-").unwrap();
        assert_eq!(speaks_ssh(&stream).await, Err("it has said nothing for 10 seconds"));
        assert_eq!(begun.elapsed().as_secs(), 20);
        drop(silent);
    }

    #[test]
    fn only_a_whole_line_of_an_ssh_client_counts() {
        for (bytes, expected) in [
            (&b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"[..], Some(true)),
            (b"SSH-2.0-ssh2js1.16.0\r\n\0\0\x05\xdc", Some(true)),
            (b"SSH-2.0-x\n", Some(true)),
            (b"", None),
            (b"SSH-", None),
            (b"SSH-2.0-OpenSSH_9.2", None),
            (b"SSH-2.0-x / HTTP/1.1\r\nHost: a\r\n", Some(false)),
            (b"SSH-2.0-x /a http/1.1\r\n", Some(false)),
            (b"SSH-1.5-x\r\n", Some(false)),
            (b"GET / HTTP/1.1\r\n", Some(false)),
            (b"POST / HTTP/1.1\r\n", Some(false)),
            (b"PRI * HTTP/2.0\r\n", Some(false)),
            (b"\x16\x03\x01", Some(false)),
            (b"\0\x01\0\x08", Some(false)),
            (b" SSH-2.0-x\r\n", Some(false)),
            (b"SSH-2.0-\x1b[2J\r\n", Some(false)),
            (b"ssh-2.0-x\r\n", Some(false)),
        ] {
            assert_eq!(is_ssh(bytes), expected, "{}", bytes.escape_ascii());
        }
    }
}
