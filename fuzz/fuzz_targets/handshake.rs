//! The unencrypted part of an SSH connection, from both sides, in pieces of any size: identification lines and packets.
//!
//! The input is a sequence of pieces. A byte precedes each piece: its highest bit selects the side, and the other bits
//! are the length. The input is also parsed as an ssh command line, to find its `ConnectTimeout`.
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
        // The result does not depend on how the bytes were cut into pieces.
        assert_eq!(whole.client_identification(), single.client_identification());
        assert_eq!(whole.server_identification(), single.server_identification());
        assert_eq!(whole.host_key(), single.host_key());
        assert_eq!((whole.client_newkeys(), whole.is_over()), (single.client_newkeys(), single.is_over()));
    }
    let _ = to_remember(&server);
    let text = String::from_utf8_lossy(bytes);
    let _ = connect_timeout(&text.split('\0').map(str::to_owned).collect::<Vec<_>>());
});
