//! One forwarded connection: copies bytes both ways, and decides when the connection is over.
//!
//! A tunnel has no half-close: closing it ends both directions. When the near program has finished sending, we
//! therefore cannot pass its end of file on to the machine without cutting off the answer. We go on passing the answer
//! on until the machine ends the connection or the near program is gone. If the system cannot tell whether the program
//! is gone, we stop when nothing has arrived for [`QUIET`]. A protocol whose far side answers only after the end of the
//! input needs a stream with half-close: SSH (`--over-ssh`), where each direction ends by itself.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    os::Peer,
    pipe::{Broken, copy},
};

use super::board::Connection;

/// Maximum silence of the far side after the near one has finished sending. It applies only if the system cannot tell
/// whether the near program still exists.
const QUIET: Duration = Duration::from_secs(30);
/// Interval between two checks whether the near program still exists.
const LOOK: Duration = Duration::from_millis(250);
/// Time limit for the far side to read the rest before the connection is closed.
const DRAIN: Duration = Duration::from_secs(10);

/// The far side's ability to end its two directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// Each direction ends by itself (SSH).
    Separately,
    /// The end of one direction is the end of both (a tunnel).
    Together,
}

/// The near side: a program's socket.
pub(crate) trait Near: AsyncRead + AsyncWrite + Unpin {
    /// Returns the program at the other end, to check whether it still exists.
    fn peer(&self) -> Peer;
}

impl Near for TcpStream {
    fn peer(&self) -> Peer {
        Peer::of_tcp(self.peer_addr().ok().zip(self.local_addr().ok()))
    }
}

#[cfg(unix)]
impl Near for tokio::net::UnixStream {
    fn peer(&self) -> Peer {
        Peer::of_unix(self)
    }
}

/// Carries bytes between `near` and `far` until both have ended.
///
/// # Errors
/// Fails when the connection to the machine broke. A near program that has left is no error.
pub(crate) async fn carry<N, F>(near: N, far: F, ends: Ends, meter: &Connection) -> io::Result<()>
where
    N: Near,
    F: AsyncRead + AsyncWrite + Unpin,
{
    let peer = near.peer();
    let (mut near_rx, mut near_tx) = tokio::io::split(near);
    let (mut far_rx, mut far_tx) = tokio::io::split(far);
    let ended = {
        let up = async {
            let copied = copy(&mut near_rx, &mut far_tx, |n| meter.sent(n)).await;
            if ends == Ends::Separately && matches!(copied, Ok(())) {
                return far_tx.shutdown().await.map_err(Broken::Write);
            }
            copied
        };
        let down = async {
            let copied = copy(&mut far_rx, &mut near_tx, |n| meter.received(n)).await;
            // Passes the end of file on. The near program may already be gone.
            let _ = near_tx.shutdown().await;
            copied
        };
        tokio::pin!(up, down);
        tokio::select! {
            ended = &mut down => match (ended, ends) {
                (Err(Broken::Read(e)), _) => Err(e),
                // The near program no longer reads. With a tunnel, nothing else can be done for it.
                (Ok(()) | Err(Broken::Write(_)), Ends::Together) => Ok(()),
                (Err(Broken::Write(_)), Ends::Separately) => Ok(()),
                (Ok(()), Ends::Separately) => lost(up.await),
            },
            ended = &mut up => match (ended, ends) {
                // The near connection was reset, or the far side takes no more data. Its last words may still arrive.
                (Err(Broken::Read(_)), _) => Ok(()),
                (Err(Broken::Write(e)), _) => timeout(LOOK, down).await.map_or(Err(e), lost),
                (Ok(()), _) => tokio::select! {
                    ended = down => lost(ended),
                    () = gone(&peer, || meter.so_far()) => Ok(()),
                },
            },
        }
    };
    drop((near_rx, near_tx));
    // Read the rest before closing: a socket closed with unread input sends a reset, which discards data still in
    // transit.
    let drained = async {
        far_tx.shutdown().await?;
        let mut rest = [0; 4096];
        while far_rx.read(&mut rest).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    let _ = timeout(DRAIN, drained).await;
    ended
}

/// Waits until the near program is gone or, if the system cannot tell, the far side has been silent for [`QUIET`].
async fn gone(peer: &Peer, received: impl Fn() -> u64) {
    let mut before = received();
    let mut silent = Duration::ZERO;
    loop {
        match peer.has_gone() {
            Some(true) => return,
            Some(false) => {}
            None if silent >= QUIET => return,
            None => {
                let now = received();
                silent = if now == before { silent + LOOK } else { Duration::ZERO };
                before = now;
            }
        }
        sleep(LOOK).await;
    }
}

/// Ignores a write error, because a near program that has left is no failure.
fn lost(ended: Result<(), Broken>) -> io::Result<()> {
    match ended {
        Ok(()) | Err(Broken::Write(_)) => Ok(()),
        Err(Broken::Read(e)) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::{Ends, Near, QUIET, carry, sleep};
    use crate::{
        commands::forward::board::{Board, View, What},
        os::Peer,
    };

    /// A stand-in for a system that cannot tell whether the peer still exists.
    impl Near for DuplexStream {
        fn peer(&self) -> Peer {
            Peer::Tcp(None)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_program_that_has_finished_sending_hears_as_long_as_something_comes() {
        let board = Board::new(View::Quiet);
        let [machine, address, to] = ["m", "a", "t"].map(str::to_owned);
        let row = board.listening(What { kind: "local", protocol: "tcp", machine, address, to, ..What::default() });
        for ends in [Ends::Separately, Ends::Together] {
            let connection = board.open(&row, "");
            let ((mut program, near), (far, mut server)) = (duplex(64), duplex(64));
            let says = async {
                for _ in 0..10 {
                    sleep(QUIET / 2).await;
                    let _ = server.write_all(b"x").await;
                }
                let _ = server.shutdown().await;
            };
            let hears = async {
                program.shutdown().await.unwrap();
                let mut heard = String::new();
                program.read_to_string(&mut heard).await.unwrap();
                heard
            };
            let (carried, heard, ()) = tokio::join!(carry(near, far, ends, &connection), hears, says);
            assert_eq!(heard, "x".repeat(10), "{ends:?}");
            carried.unwrap();
        }
    }
}
