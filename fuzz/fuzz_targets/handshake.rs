//! The readable part of an SSH connection, from both sides, in pieces of any size: identification lines and packets.
//!
//! The input is a row of pieces, each behind a byte: its highest bit is the side, the others are the length. As a text
//! it is also read as a command line of ssh's, which tells how long ssh waits.
#![no_main]

use labctl_ssh_proxy::{
    connect::early::connect_timeout,
    ssh::{handshake::Handshake, identification::to_remember},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (mut whole, mut single) = (Handshake::new(), Handshake::new());
    let mut server = Vec::new();
    let mut rest = bytes;
    while let Some((head, more)) = rest.split_first() {
        let (piece, behind) = more.split_at(usize::from(head & 0x7f).min(more.len()));
        rest = behind;
        if head & 0x80 == 0 {
            whole.client(piece);
            piece.chunks(1).for_each(|byte| single.client(byte));
        } else {
            whole.server(piece);
            piece.chunks(1).for_each(|byte| single.server(byte));
            server.extend_from_slice(piece);
        }
        // How the bytes were cut tells nothing.
        assert_eq!(whole.client_identification(), single.client_identification());
        assert_eq!(whole.server_identification(), single.server_identification());
        assert_eq!(whole.host_key(), single.host_key());
        assert_eq!((whole.client_newkeys(), whole.is_over()), (single.client_newkeys(), single.is_over()));
    }
    let _ = to_remember(&server);
    let text = String::from_utf8_lossy(bytes);
    let _ = connect_timeout(&text.split('\0').map(str::to_owned).collect::<Vec<_>>());
});
