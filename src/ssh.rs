//! SSH: the readable part of the handshake, host keys, our identity, and clients.

pub(crate) mod client;
pub mod handshake;
pub mod host_key;
pub mod identification;
pub(crate) mod identity;
pub mod known_hosts;
pub(crate) mod learn;
pub(crate) mod options;
