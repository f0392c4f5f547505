//! A stand-in for wsmux, the server at the other end of a tunnel, as measured in April 2026:
//!
//! - The path is `/tunnels/` and the target in base64. Messages are binary and have at most 1024 bytes.
//! - It writes to TCP inside the loop that reads the WebSocket, so its pongs stall with a slow target.
//! - It pings every 30 s.
//! - After a failed dial, it ends the TCP connection without a message.
//! - When the TCP side ends first, it sends nothing, and the WebSocket stays open.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, interval_at},
};
use tokio_websockets::{Message, ServerBuilder};

const MESSAGE: usize = 1024;
const PING_EVERY: Duration = Duration::from_secs(30);

/// Serves one upgraded connection until its client is gone.
pub async fn serve(socket: impl AsyncRead + AsyncWrite + Unpin, target: SocketAddr) {
    let Ok(tcp) = TcpStream::connect(target).await else { return };
    let (mut to_client, mut from_client) = ServerBuilder::new().serve(socket).split();
    let (mut from_tcp, mut to_tcp) = tcp.into_split();
    let send = async {
        let mut buffer = [0; MESSAGE];
        let mut ping = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        let mut ended = false;
        loop {
            let message = tokio::select! {
                read = from_tcp.read(&mut buffer), if !ended => match read {
                    Ok(n @ 1..) => Message::binary(buffer[..n].to_vec()),
                    Ok(0) | Err(_) => {
                        ended = true;
                        continue;
                    }
                },
                _ = ping.tick() => Message::ping(""),
            };
            if to_client.send(message).await.is_err() {
                return;
            }
        }
    };
    let receive = async {
        while let Some(Ok(message)) = from_client.next().await {
            if message.is_binary() && to_tcp.write_all(&message.into_payload()).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = send => {}
        () = receive => {}
    }
}

/// Runs a real sshd for each connection, as inetd would.
pub async fn sshd(listener: TcpListener, config: std::path::PathBuf) {
    while let Ok((stream, _)) = listener.accept().await {
        let socket = stream.into_std().unwrap();
        socket.set_nonblocking(false).unwrap();
        let socket = std::os::fd::OwnedFd::from(socket);
        let mut child = tokio::process::Command::new(super::needs("sshd"))
            .arg("-i")
            .arg("-f")
            .arg(&config)
            .arg("-E")
            .arg(config.with_extension("log"))
            .stdin(Stdio::from(socket.try_clone().unwrap()))
            .stdout(Stdio::from(socket))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        tokio::spawn(async move { child.wait().await });
    }
}
