//! The wire format of the relay's protocol, version 1. Pure.
