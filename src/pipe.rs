//! Copies both ways, and decides when it is over.
//!
//! **The remote owns the end.** When the remote closes, what it sent is written out, and that is the end, whether our
//! input is open or not. When our input ends, nothing more is sent, but what the remote still says is written out until
//! it closes or a short [`LINGER`] passes. An output that breaks means that the client has left: a success.
//!
//! The two copies are pinned and polled by one task. A `select!` over two copies would lose the tail of the answer, and
//! `copy_bidirectional` would hang when the remote closes while the input stays open.

use std::{future::Future, io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

/// The time for which the remote may still talk after our input has ended. ssh leaves at once after its last words, so
/// that later ones are not read.
pub const LINGER: Duration = Duration::from_millis(100);
/// The same after the remote has broken: a slow client may still read what it had said.
const LAST_WORDS: Duration = Duration::from_secs(20);
/// Read at once: as much as a pipe holds, and as one message of the tunnel carries.
const CHUNK: usize = 64 * 1024;

/// The reason why it is over.
#[derive(Debug)]
pub enum End {
    /// The remote closed the stream.
    Remote,
    /// The client's input ended.
    Input,
    /// The client's output broke: it has left.
    Output,
    /// The remote was lost.
    Lost(io::Error),
}

/// Copies `input` to the remote and the remote to `output` until one of the ends that [`End`] names. `gone` ends when
/// the client has left, which is noticed in no other way while the remote takes no more.
pub async fn run<I, O, R, W>(
    mut input: I,
    mut output: O,
    mut remote_rx: R,
    mut remote_tx: W,
    gone: impl Future<Output = ()>,
) -> End
where
    I: AsyncRead + Unpin,
    O: AsyncWrite + Unpin,
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let down = async {
        match copy(&mut remote_rx, &mut output, |_| {}).await {
            Ok(()) => End::Remote,
            Err(Broken::Read(e)) => End::Lost(e),
            Err(Broken::Write(_)) => End::Output,
        }
    };
    let up = async {
        match copy(&mut input, &mut remote_tx, |_| {}).await {
            // An input that breaks is one that ended: a reset by the program that feeds it.
            Ok(()) | Err(Broken::Read(_)) => Ok(()),
            Err(Broken::Write(e)) => Err(e),
        }
    };
    tokio::pin!(down, up, gone);
    tokio::select! {
        end = &mut down => end,
        // Its last words are on their way.
        () = &mut gone => {
            let _ = timeout(LINGER, up).await;
            End::Output
        }
        sent = &mut up => {
            // A remote that is lost ends its own direction, as soon as what it said before has been read.
            let rest = timeout(if sent.is_ok() { LINGER } else { LAST_WORDS }, down);
            let rest = tokio::select! {
                rest = rest => rest,
                () = gone, if sent.is_err() => Ok(End::Output),
            };
            match (rest, sent) {
                (Ok(End::Output), _) => End::Output,
                (Ok(End::Remote), Err(_)) => End::Remote,
                (_, Ok(())) => End::Input,
                (_, Err(lost)) => End::Lost(lost),
            }
        }
    }
}

/// The side of a copy that has failed.
pub(crate) enum Broken {
    Read(io::Error),
    Write(io::Error),
}

/// Copies until `from` ends, and tells `moved` of each step.
pub(crate) async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    moved: impl Fn(usize),
) -> Result<(), Broken> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = from.read(&mut buffer).await.map_err(Broken::Read)?;
        if n == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..n]).await.map_err(Broken::Write)?;
        to.flush().await.map_err(Broken::Write)?;
        moved(n);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, empty, sink, split};

    use super::{End, LINGER, run};

    #[tokio::test]
    async fn the_remotes_end_is_the_end_though_the_input_stays_open() {
        let (_stdin, input) = duplex(8);
        let (mut stdout, output) = duplex(8);
        let (mut server, remote) = duplex(8);
        let (rx, tx) = split(remote);
        let pipe = tokio::spawn(async move { run(input, output, rx, tx, pending()).await });
        let reader = tokio::spawn(async move {
            let mut all = String::new();
            stdout.read_to_string(&mut all).await.unwrap();
            all
        });
        server.write_all(b"the whole answer, longer than the pipe").await.unwrap();
        drop(server);
        assert!(matches!(pipe.await.unwrap(), End::Remote));
        assert_eq!(reader.await.unwrap(), "the whole answer, longer than the pipe");
    }

    #[tokio::test]
    async fn the_answer_that_comes_after_the_inputs_end_is_written_out() {
        let (mut server, remote) = duplex(8);
        let (rx, tx) = split(remote);
        let (mut stdout, output) = duplex(1024);
        let pipe = tokio::spawn(async move { run(&b"question"[..], output, rx, tx, pending()).await });
        let mut question = [0; 8];
        server.read_exact(&mut question).await.unwrap();
        server.write_all(b"answer").await.unwrap();
        drop(server);
        assert!(matches!(pipe.await.unwrap(), End::Input));
        let mut all = String::new();
        stdout.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "answer");
    }

    #[tokio::test(start_paused = true)]
    async fn a_remote_that_stays_is_left_after_a_linger() {
        let (_server, remote) = duplex(8);
        let (rx, tx) = split(remote);
        let start = tokio::time::Instant::now();
        assert!(matches!(run(empty(), sink(), rx, tx, pending()).await, End::Input));
        assert_eq!(start.elapsed(), LINGER);
    }

    #[tokio::test]
    async fn a_byte_goes_through_without_an_end_of_file() {
        let (mut stdin, input) = duplex(8);
        let (mut stdout, output) = duplex(8);
        let (mut server, remote) = duplex(8);
        let (rx, tx) = split(remote);
        let pipe = tokio::spawn(async move { run(input, output, rx, tx, pending()).await });
        stdin.write_all(b"?").await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), b'?');
        server.write_all(b"!").await.unwrap();
        assert_eq!(stdout.read_u8().await.unwrap(), b'!');
        drop(stdout);
        server.write_all(b"more").await.unwrap();
        assert!(matches!(pipe.await.unwrap(), End::Output), "a broken output is the client's leaving");
    }

    #[tokio::test]
    async fn megabytes_go_both_ways_at_once() {
        let data: Vec<u8> = (0..3_000_000u32).map(|i| (i % 253) as u8).collect();
        let (mut stdin, input) = duplex(100);
        let (mut stdout, output) = duplex(100);
        let (server, remote) = duplex(100);
        let (rx, tx) = split(remote);
        let pipe = tokio::spawn(async move { run(input, output, rx, tx, pending()).await });
        let echo = tokio::spawn(async move {
            let (mut rx, mut tx) = split(server);
            tokio::io::copy(&mut rx, &mut tx).await.unwrap();
        });
        let sent = data.clone();
        let feed = tokio::spawn(async move {
            stdin.write_all(&sent).await.unwrap();
            stdin
        });
        let mut back = vec![0; data.len()];
        stdout.read_exact(&mut back).await.unwrap();
        assert!(back == data);
        drop(feed.await.unwrap());
        assert!(matches!(pipe.await.unwrap(), End::Input));
        echo.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_is_noticed_though_the_remote_takes_nothing() {
        let (_server, remote) = duplex(8);
        let (rx, tx) = split(remote);
        let gone = tokio::time::sleep(std::time::Duration::from_secs(3));
        assert!(matches!(run(tokio::io::repeat(0), sink(), rx, tx, gone).await, End::Output));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_is_noticed_after_the_remote_has_broken() {
        let (_silent, rx) = duplex(8);
        let (broken, tx) = duplex(8);
        drop(broken);
        let began = tokio::time::Instant::now();
        let gone = tokio::time::sleep(std::time::Duration::from_secs(3));
        assert!(matches!(run(tokio::io::repeat(0), sink(), rx, tx, gone).await, End::Output));
        assert_eq!(began.elapsed().as_secs(), 3);
    }
}
