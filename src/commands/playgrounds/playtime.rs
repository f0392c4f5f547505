//! The time of a playground: the ways to write it, and the request that sets it. `extend` and `lifetime` share both.

use std::time::Duration;

use jiff::{ZonedDateTime, civil};

use crate::{
    app::App,
    commands::{args::duration, playgrounds::listed::time_left},
    error::{Error, Kind, Result, printable},
    labs::{Labs, find, span::Span, wire::Play},
};

/// The largest number of minutes to ask for.
const MAX_MINUTES: u64 = 100_000;

/// The description of [`Time`] in the help of its argument.
pub(super) const HELP: &str = "minutes, a duration such as 1h30m, or `until` and a local time, such as `until 18:00`";

/// A time as users write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Time {
    /// A number of minutes.
    Minutes(u64),
    /// The next moment at which the clock of this computer shows that time.
    Until(civil::Time),
}

impl Time {
    /// Reads the words of a command line.
    ///
    /// # Errors
    /// [`Kind::Usage`] for anything but `90`, `1h30m` or `until 18:00`.
    pub(super) fn read(words: &[String]) -> Result<Time> {
        let text = words.join(" ");
        let read = match text.trim().strip_prefix("until ") {
            Some(clock) => clock_time(clock.trim()).map(Time::Until),
            None => minutes(&text).map(Time::Minutes),
        };
        read.ok_or_else(|| {
            let message = format!("`{}` is no time that can be asked for", printable(&text));
            Error::new(Kind::Usage, message).with_hint(format!(
                "write whole minutes from 1 to {MAX_MINUTES}, a duration such as 1h30m, or a time of day such as `until \
                 18:00`"
            ))
        })
    }

    /// The time from now on, for minutes that count from `since` before now.
    pub(super) fn remaining(self, since: Duration, now: &ZonedDateTime) -> Result<Duration> {
        match self {
            Time::Minutes(minutes) => Ok(Duration::from_secs(minutes * 60).saturating_sub(since)),
            Time::Until(clock) => next(now, clock)
                .and_then(|next| Duration::try_from(next.timestamp().duration_since(now.timestamp())).ok())
                .ok_or_else(|| Error::new(Kind::Usage, format!("the clock of this computer does not come to {clock}"))),
        }
    }
}

fn minutes(text: &str) -> Option<u64> {
    let in_units = || duration(text).ok().filter(|time| time.as_millis() % 60_000 == 0).map(|time| time.as_secs() / 60);
    text.parse().ok().or_else(in_units).filter(|minutes| (1..=MAX_MINUTES).contains(minutes))
}

/// Reads a time of day: `18:00` or `8:05`.
fn clock_time(text: &str) -> Option<civil::Time> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str, digits: std::ops::RangeInclusive<usize>| {
        let is_number = digits.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().ok()).flatten()
    };
    civil::Time::new(number(hour, 1..=2)?, number(minute, 2..=2)?, 0, 0).ok()
}

/// The next moment at which the clock of the zone shows that time. Where it skips that time, as at the beginning of
/// summer, the moment is as long after the one before; where it shows it twice, the next of both.
fn next(now: &ZonedDateTime, clock: civil::Time) -> Option<ZonedDateTime> {
    // A zone may skip a whole day.
    let days = std::iter::successors(Some(now.date()), |day| day.tomorrow().ok()).take(3);
    let moments = days.flat_map(|day| {
        let moment = || now.time_zone().to_ambiguous_zoned_datetime(day.to_datetime(clock));
        let is_twice = matches!(moment().offset(), jiff::tz::AmbiguousOffset::Fold { .. });
        let second = is_twice.then(|| moment().later().ok()).flatten();
        [moment().compatible().ok(), second]
    });
    moments.flatten().filter(|moment| moment > now).min()
}

/// Checks that a playground's time runs. `again` is the command that was given.
///
/// # Errors
/// [`Kind::NotWoken`] when it is stopped, because the platform would count from the next start.
pub(super) fn check_running(play: &Play, again: &str) -> Result<()> {
    if !find::is_play_down(play) {
        return crate::wake::check_running(play);
    }
    let message = format!("playground {} is stopped, so its time does not run; nothing was changed", play.shown());
    Err(Error::new(Kind::NotWoken, message)
        .with_hint(format!("start it with `labctl-ssh-proxy start {}`, then run `labctl-ssh-proxy {again}`", play.id)))
}

/// Sets a playground's time so that `left` is left of it, in whole minutes from its start.
///
/// # Errors
/// The platform's, and [`Kind::Refused`] when it grants less than was asked for, or takes less away.
pub(super) async fn set(app: &App, labs: &Labs, play: &Play, span: Span, left: Duration) -> Result<Play> {
    let (play, is_granted) = span.set(labs, &play.id, left).await?;
    app.memory().note_acted();
    if is_granted {
        return Ok(play);
    }
    let message = format!("the platform lets playground {} run only {} more", play.shown(), time_left(&play));
    let (message, hint) = match left < span.left {
        true => (message.replace(" only ", " "), "shorten it later, or end it with `labctl-ssh-proxy stop`"),
        false => (message, "check your plan, which may limit how long a playground runs"),
    };
    Err(Error::new(Kind::Refused, message).with_hint(hint))
}

/// The fate of the play when its time is up, as a sentence.
pub(super) async fn fate(app: &App, labs: &Labs, play: &Play) -> String {
    let text = match find::is_kept(labs, play).await {
        Some(true) => "it is stopped and kept".into(),
        Some(false) => format!("it is erased; keep it with `labctl-ssh-proxy persist {}`", play.id),
        None => format!("it is erased unless it is persistent (`labctl-ssh-proxy persist {}`)", play.id),
    };
    app.platform.commands(&text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::{Timestamp, ToSpan, ZonedDateTime, civil::time, tz::TimeZone};
    use proptest::prelude::*;

    use super::{MAX_MINUTES, Time, next};

    fn read(text: &str) -> Option<Time> {
        Time::read(&[text.to_owned()]).ok()
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, minutes) in
            [("90", Some(90)), ("1h30m", Some(90)), ("25m", Some(25)), ("0", None), ("90s", None), ("999999h", None)]
        {
            assert_eq!(read(text), minutes.map(Time::Minutes), "{text}");
        }
        for (text, clock) in [("until 18:00", time(18, 0, 0, 0)), ("until  8:05 ", time(8, 5, 0, 0))] {
            assert_eq!(read(text), Some(Time::Until(clock)), "{text}");
        }
        assert_eq!(Time::read(&["until".into(), "00:00".into()]).ok(), Some(Time::Until(time(0, 0, 0, 0))));
        for wrong in
            ["until", "until ", "18:00", "until 24:00", "until 18", "until 18:5", "until +1:00", "until 18:00:00"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

    fn at(zone: &str, moment: &str) -> ZonedDateTime {
        moment.parse::<Timestamp>().unwrap().to_zoned_datetime(TimeZone::posix(zone).unwrap())
    }

    #[test]
    fn the_next_moment_of_a_time_of_day() {
        for (now, clock, expected) in [
            ("2026-11-29T12:00:00Z", (18, 0), "2026-11-29T17:00:00Z"),
            ("2026-11-29T16:59:59Z", (18, 0), "2026-11-29T17:00:00Z"),
            // It is that time now, so the next one is tomorrow's.
            ("2026-11-29T17:00:00Z", (18, 0), "2026-11-30T17:00:00Z"),
            ("2026-11-29T22:30:00Z", (0, 15), "2026-11-29T23:15:00Z"),
            // Summer begins: the clock goes from 2:00 to 3:00, and 2:30 is half an hour after the skip.
            ("2026-03-29T00:30:00Z", (2, 30), "2026-03-29T01:30:00Z"),
            ("2026-03-28T17:00:00Z", (18, 0), "2026-03-29T16:00:00Z"),
            // It ends: the clock goes from 3:00 to 2:00, and shows 2:30 twice.
            ("2026-10-24T23:00:00Z", (2, 30), "2026-10-25T00:30:00Z"),
            ("2026-10-25T00:45:00Z", (2, 30), "2026-10-25T01:30:00Z"),
            ("2026-10-25T01:30:00Z", (2, 30), "2026-10-26T01:30:00Z"),
        ] {
            let found = next(&at(BERLIN, now), time(clock.0, clock.1, 0, 0)).unwrap();
            assert_eq!(found.timestamp().to_string(), expected, "{now} {clock:?}");
        }
        let now = at("EST5", "2026-11-29T12:00:30Z");
        let left = Time::Until(time(8, 0, 0, 0)).remaining(Duration::from_secs(999), &now).unwrap();
        assert_eq!(left, Duration::from_secs(3600 - 30));
        assert_eq!(Time::Minutes(2).remaining(Duration::from_secs(90), &now).unwrap(), Duration::from_secs(30));
        assert_eq!(Time::Minutes(2).remaining(Duration::from_secs(130), &now).unwrap(), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn a_time_that_was_read_is_in_its_bounds(text in "(until )?[0-9hm :]{0,9}") {
            match read(&text) {
                Some(Time::Minutes(minutes)) => prop_assert!((1..=MAX_MINUTES).contains(&minutes)),
                Some(Time::Until(clock)) => prop_assert!(text.contains(':') && clock.second() == 0),
                None => {}
            }
        }

        #[test]
        fn no_moment_before_the_next_one_shows_that_time(
            second in 1_700_000_000_i64..1_900_000_000,
            (hour, minute) in (0_i8..24, 0_i8..60),
            zone in prop::sample::select(vec![BERLIN, "EST5EDT,M3.2.0,M11.1.0", "UTC0", "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
                "<-03>3", "<+1345>-12:45"]),
        ) {
            let now = Timestamp::from_second(second).unwrap().to_zoned_datetime(TimeZone::posix(zone).unwrap());
            let clock = time(hour, minute, 0, 0);
            let found = next(&now, clock).unwrap();
            prop_assert!(found > now && found <= &now + 25.hours(), "{now} {found}");
            let shows = |moment: &ZonedDateTime| moment.hour() == hour && moment.minute() == minute;
            let mut step = now.round(jiff::ZonedDateTimeRound::new().smallest(jiff::Unit::Minute).mode(jiff::RoundMode::Ceil)).unwrap();
            while step < found {
                prop_assert!(!shows(&step) || step <= now, "{now}: {step} is before {found}");
                step = &step + 1.minute();
            }
            // If it does not show that time, the clock has skipped it on that day.
            let skipped = || found.time_zone().to_ambiguous_zoned_datetime(found.date().to_datetime(clock)).is_ambiguous();
            prop_assert!(shows(&found) || skipped(), "{now} {found}");
        }
    }
}
