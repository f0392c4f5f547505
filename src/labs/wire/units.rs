//! Forms in which the platform writes durations and texts.

use std::time::Duration;

use jiff::fmt::friendly::SpanParser;
use serde::{Deserialize, Deserializer};

/// `expiresIn`: milliseconds on the wire; what is negative is over.
pub(super) mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let whole = value.as_u64().or_else(|| value.as_f64().map(|number| number as u64));
        Ok(Duration::from_millis(whole.unwrap_or_default()))
    }
}

/// A string; anything else counts as none.
pub(super) fn text_or_nothing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::String(text) => text,
        _ => String::new(),
    })
}

/// Reads a Go duration: `8h0m0s`, `1.5h`, `90m`. `None` for anything else, negative ones included.
pub(super) fn go_duration(text: &str) -> Option<Duration> {
    SpanParser::new().parse_unsigned_duration(text).ok()
}

#[cfg(test)]
mod tests {
    use super::go_duration;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, seconds) in
            [("8h0m0s", 28800.0), ("90m", 5400.0), ("1.5h", 5400.0), ("1m30.5s", 90.5), ("500ms", 0.5), ("0s", 0.0)]
        {
            assert_eq!(go_duration(text).map(|time| time.as_secs_f64()), Some(seconds), "{text}");
        }
        for text in ["", "8", "-1h", "eight hours", "1d", "h", ".h", "1e400h", "99999999999999999999h", "1.1.1s"] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }
}
