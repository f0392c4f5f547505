//! The calls of the API, a method each, by their subject.

mod account;
mod exposure;
mod learning;
mod machines;
mod playgrounds;
mod plays;
mod ports;
mod tunnels;
