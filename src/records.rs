//! What is kept between runs. Each record knows the names of its own files.

pub mod journal;
pub mod live;
pub mod memory;
pub mod names;
pub mod tunnels;
