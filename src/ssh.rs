//! SSH: the readable part of the handshake, host keys, our identity, and clients.

pub mod client;
pub mod handshake;
pub mod host_key;
pub mod identification;
pub mod identity;
pub mod known_hosts;
pub mod learn;
pub mod options;
