//! The bytes that were sent and may have to be sent again. Pure.
