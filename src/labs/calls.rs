//! The calls of the API, a method each, by their subject.

mod account;
mod playgrounds;
mod plays;
mod ports;
mod tunnels;
