//! Arguments that several commands have.

use std::time::Duration;

use clap_complete::ArgValueCompleter;

use crate::commands::candidates;

// No doc comment: clap would make it the description of the commands that flatten this.
#[derive(Debug, clap::Args)]
pub(crate) struct One {
    /// The playground's id, host name, title or catalogue name.
    #[arg(add = ArgValueCompleter::new(candidates::playgrounds))]
    pub playground: String,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// A duration as people write it: `500ms`, `12s`, `10m`, `8h`.
///
/// # Errors
/// For another unit, or none.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| "write a number and ms, s, m or h, such as 12s".to_owned())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "" | "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        "h" => Ok(Duration::from_secs(number.saturating_mul(3600))),
        _ => Err(format!("`{unit}` is not a unit: write ms, s, m or h")),
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration("12s").unwrap().as_secs(), 12);
        assert_eq!(duration("500ms").unwrap().as_millis(), 500);
        assert_eq!(duration("10m").unwrap().as_secs(), 600);
        assert!(duration("soon").is_err() && duration("1d").is_err() && duration("").is_err());
    }
}
