//! Standard input and output as one stream, without threads: a thread that waits in a read could not be ended.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    task::{Context, Poll},
};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    stdio::{stdin, stdout},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::unix::pipe,
};

/// Standard input and output.
pub(super) struct Stdio {
    input: pipe::Receiver,
    /// Nothing after the end of the output, which its reader sees.
    output: Option<pipe::Sender>,
}

/// Standard input's other end.
pub(super) struct Closed(pipe::Receiver);

impl Stdio {
    /// Opens the stream. Nothing else of this process may use the two from now on.
    ///
    /// # Errors
    /// Fails when one of them is no pipe, socket or terminal.
    pub(super) fn open() -> io::Result<Stdio> {
        let (input, output) = (own(stdin())?, own(stdout())?);
        // Runtimes and sshd give pipes, or sockets, which behave alike here.
        Ok(Stdio {
            input: pipe::Receiver::from_owned_fd_unchecked(input)?,
            output: Some(pipe::Sender::from_owned_fd_unchecked(output)?),
        })
    }

    /// The input's other end, to wait for its end even while nothing is read.
    ///
    /// # Errors
    /// Fails when there are no descriptors left.
    pub(super) fn closed(&self) -> io::Result<Closed> {
        Ok(Closed(pipe::Receiver::from_owned_fd_unchecked(self.input.as_fd().try_clone_to_owned()?)?))
    }
}

/// A descriptor of our own for the same file, on which no call waits.
fn own(end: impl AsFd) -> io::Result<OwnedFd> {
    let end = end.as_fd().try_clone_to_owned()?;
    fcntl_setfl(&end, fcntl_getfl(&end)? | OFlags::NONBLOCK)?;
    Ok(end)
}

impl Closed {
    /// Waits until the other end is closed, whatever is still unread.
    pub(super) async fn wait(&self) {
        loop {
            match self.0.ready(Interest::READABLE).await {
                Ok(ready) if ready.is_read_closed() => return,
                // There is something to read, which the other reader takes. This waits for the next event.
                Ok(_) => drop(self.0.try_io(|| Err::<(), _>(io::ErrorKind::WouldBlock.into()))),
                // An end that cannot be waited for is seen by its reader.
                Err(_) => std::future::pending().await,
            }
        }
    }
}

impl AsyncRead for Stdio {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().input).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stdio {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().output {
            Some(output) => Pin::new(output).poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().output = None;
        Poll::Ready(Ok(()))
    }
}
