//! The refusal: the last words to a client that gets no connection.

use std::time::Duration;

use tokio::{io::AsyncWriteExt, time::timeout};

use crate::{
    connect::{client::Client, early::Passed},
    error::{Error, Kind},
    ssh::handshake,
    ui::notice,
};

/// The time for the client to hear why it is turned away. One that has heard it leaves at once.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// The time for a client to answer our identification with its key exchange; a Java one's first takes its time.
const FIRST_PACKET: Duration = Duration::from_secs(3);

/// Says why a client is turned away: on standard error, and inside the protocol as far as that is possible once the
/// client has had those words of the server. Returns the error as one that was told.
pub(super) async fn refuse(client: &mut Client, error: Error, passed: Passed) -> Error {
    log::error!("{error}");
    // First, because a client that hears of it ends us at once.
    notice::line(&error.to_string());
    tell(client, &error, passed).await;
    error.told()
}

/// Tells the client inside the protocol, where its standard error is hidden.
async fn tell(client: &mut Client, error: &Error, passed: Passed) {
    let text = match error.hint() {
        Some(hint) => format!("{} ({hint})", error.message()),
        None => error.message().to_owned(),
    };
    match (passed, error.kind()) {
        (Passed::Nothing, _) => {
            let output = client.output();
            if output.write_all(handshake::IDENTIFICATION).await.is_err() || output.flush().await.is_err() {
                return;
            }
            // sshj loses the reason when it comes before its own first packet is out: its writer finds the end first.
            client.first_packet(FIRST_PACKET).await;
        }
        // The server's side of the key exchange stands between two packets, and the client has not begun to encrypt.
        (Passed::Line, _) | (Passed::Bytes, Kind::HostKey) => {}
        (Passed::Bytes, _) => return,
    }
    let packet = handshake::disconnect_packet(handshake::BY_APPLICATION, &text);
    let output = client.output();
    if output.write_all(&packet).await.is_ok() && output.flush().await.is_ok() {
        // A client that cannot send its own first words reports a broken pipe instead of what it was told.
        let _ = timeout(LAST_WORDS, client.drain()).await;
    }
}
