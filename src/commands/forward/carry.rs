//! One forwarded connection: copies both ways, and decides when it is over.
//!
//! A tunnel has no half-close: to close it is to end both directions. So when the near program has finished sending, the
//! machine cannot be told without cutting its answer off. What it still says is passed on, until it ends the connection,
//! the near program has gone altogether, or nothing has come for [`QUIET`] where the system does not tell us that. A
//! protocol in which the far side answers only after the end of the input needs a stream that has one: SSH
//! (`--over-ssh`), where each direction ends by itself.

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

/// How long the far side may be silent after the near one has finished sending, where it cannot be seen whether the near
/// program is still there to hear it.
const QUIET: Duration = Duration::from_secs(30);
/// Between two looks at whether it is.
const LOOK: Duration = Duration::from_millis(250);
/// How long the far side may take to read what was sent before the connection is closed under it.
const DRAIN: Duration = Duration::from_secs(10);

/// The far side, by what it can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Each direction ends by itself.
    Separately,
    /// The end of one is the end of both.
    Together,
}

/// The near side: a program's socket.
pub trait Near: AsyncRead + AsyncWrite + Unpin {
    /// Tells whether the program at the other end has gone altogether.
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
/// When the way to the machine broke. That the near program has left is no error.
pub async fn carry<N, F>(near: N, far: F, ends: Ends, meter: &Connection) -> io::Result<()>
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
            // An end of file for the near program; it may be gone already.
            let _ = near_tx.shutdown().await;
            copied
        };
        tokio::pin!(up, down);
        tokio::select! {
            ended = &mut down => match (ended, ends) {
                (Err(Broken::Read(e)), _) => Err(e),
                // The near program reads no more; with a tunnel, nothing is left to be done for it.
                (Ok(()) | Err(Broken::Write(_)), Ends::Together) => Ok(()),
                (Err(Broken::Write(_)), Ends::Separately) => Ok(()),
                (Ok(()), Ends::Separately) => lost(up.await),
            },
            ended = &mut up => match (ended, ends) {
                // It was reset, or what it said cannot be delivered: the far side's last words may still come.
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
    // What was sent is to arrive: a socket that is closed with unread input resets, and loses what is on its way.
    let drained = async {
        far_tx.shutdown().await?;
        let mut rest = [0; 4096];
        while far_rx.read(&mut rest).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    let _ = timeout(DRAIN, drained).await;
    ended
}

/// Waits until the near program has gone, or cannot be seen and the far side has been silent for long.
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

/// An end on the near side is no failure.
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

    /// As where the system does not tell who has gone.
    impl Near for DuplexStream {
        fn peer(&self) -> Peer {
            Peer::Tcp(None)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_program_that_has_finished_sending_hears_as_long_as_something_comes() {
        let board = Board::new(View::Quiet);
        let [machine, address, to] = ["m", "a", "t"].map(str::to_owned);
        let row = board.listening(What { kind: "local", protocol: "tcp", machine, address, to });
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
