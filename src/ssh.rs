//! SSH: the readable part of the handshake, host keys, our identity, and clients.

pub(crate) mod agent;
pub(crate) mod client;
pub(crate) mod credentials;
pub(crate) mod first_words;
pub mod handshake;
pub mod host_key;
pub mod identification;
pub(crate) mod identity;
pub mod known_hosts;
pub(crate) mod learn;
pub(crate) mod marked;
pub(crate) mod options;
mod outbox;
pub(crate) mod private_key;
