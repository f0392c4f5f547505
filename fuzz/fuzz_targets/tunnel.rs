//! WebSocket frames as the tunnel reads them: any bytes, from a server and from a client, in pieces of any size. The
//! first byte of the input sets the size of the pieces.
#![no_main]

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use labctl_ssh_proxy::labs::{tunnel::{Socket, Tunnel}};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

struct Bytes<'a>(&'a [u8], usize);

impl Socket for Bytes<'_> {}

impl AsyncRead for Bytes<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let n = self.0.len().min(buf.remaining()).min(self.1);
        buf.put_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Bytes<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((piece, bytes)) = bytes.split_first() else { return };
    let piece = usize::from(*piece) + 1;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        for mut tunnel in [Tunnel::client(Bytes(bytes, piece)), Tunnel::server(Bytes(bytes, piece))] {
            let mut all = Vec::new();
            let _ = tunnel.read_to_end(&mut all).await;
            assert!(all.len() <= bytes.len());
        }
    });
});
