//! Arguments that several commands have.

use std::time::Duration;

use clap_complete::ArgValueCompleter;
use jiff::fmt::friendly::SpanParser;

use crate::commands::candidates;

// No doc comment: clap would make it the description of the commands that flatten this.
#[derive(Debug, clap::Args)]
pub(crate) struct One {
    /// The playground's id, host name, alias, title, catalogue name or page address.
    #[arg(add = ArgValueCompleter::new(candidates::playgrounds))]
    pub playground: String,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// A duration as people write it: `500ms`, `12s`, `25m`, `1h30m`. A number alone is one of seconds.
///
/// # Errors
/// For another unit, such as days.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map(Duration::from_secs).ok();
    let read = || SpanParser::new().parse_unsigned_duration(text).ok();
    seconds.or_else(read).ok_or_else(|| "write numbers and units, such as 12s, 25m or 1h30m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("12", 12.0),
            ("12s", 12.0),
            ("500ms", 0.5),
            ("10m", 600.0),
            ("1h30m", 5400.0),
            ("1h 30m", 5400.0),
            ("1.5h", 5400.0),
            ("2 hours", 7200.0),
            ("0s", 0.0),
        ] {
            assert_eq!(duration(text).map(|time| time.as_secs_f64()), Ok(seconds), "{text}");
        }
        for text in ["soon", "1d", "", "h", "-5m", "5m ago", "1.5", "99999999999999999999h", "1e3s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
