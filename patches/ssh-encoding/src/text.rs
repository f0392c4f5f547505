//! Strings of any bytes as text, and back.
//!
//! A byte that is no part of valid UTF-8 becomes a character of its own, one of the last 128 of Unicode, which are for
//! private use. So that each text means one sequence of bytes, those characters become bytes themselves.

use alloc::{borrow::Cow, string::String, vec::Vec};

/// The character for byte 0.
const BASE: u32 = 0x10_ff00;

fn is_escape(c: char) -> bool {
    c >= '\u{10ff80}'
}

/// The text of a string.
#[must_use]
pub fn from_bytes(bytes: Vec<u8>) -> String {
    let bytes = match String::from_utf8(bytes) {
        Ok(text) if !text.contains(is_escape) => return text,
        Ok(text) => text.into_bytes(),
        Err(e) => e.into_bytes(),
    };
    let mut text = String::new();
    let escape = |text: &mut String, byte: u8| text.extend(char::from_u32(BASE | u32::from(byte)));
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_escape(c) {
                c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| escape(&mut text, byte));
            } else {
                text.push(c);
            }
        }
        chunk.invalid().iter().for_each(|byte| escape(&mut text, *byte));
    }
    text
}

/// The bytes that [`from_bytes`] made a text of.
#[must_use]
pub fn to_bytes(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(is_escape) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::new();
    for c in text.chars() {
        if is_escape(c) {
            // The last byte of the number is the byte.
            bytes.push(u32::from(c).to_be_bytes()[3]);
        } else {
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    Cow::Owned(bytes)
}
