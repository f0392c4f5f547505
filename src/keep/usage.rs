//! The use of a connection: the bytes that it has moved lately.

use std::{collections::VecDeque, time::Duration};

use crate::moment::Moment;

/// The time that counts.
pub(crate) const WINDOW: Duration = Duration::from_secs(15 * 60);
/// More than this within [`WINDOW`] is use. An idle editor moves less: VS Code's heartbeats of 5 s come to about 40 KiB
/// with SSH's own bytes, and `ServerAliveInterval 30` to 5 KiB.
pub(crate) const LEAST: u64 = 64 * 1024;
/// Marks are so far apart, so that there are few of them.
const APART: Duration = Duration::from_secs(30);

/// The bytes of one connection over time, by this computer's clock, which goes on while it sleeps.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    /// Moments, and the bytes that had moved by then. The first one is [`WINDOW`] old or older, if there is such.
    marks: VecDeque<(Moment, u64)>,
    last: u64,
}

impl Usage {
    /// Notes that `moved` bytes have moved since the connection began.
    pub(crate) fn note(&mut self, at: Moment, moved: u64) {
        // A clock that was set back makes all marks worthless.
        if self.marks.back().is_some_and(|(last, _)| *last > at) {
            self.marks.clear();
        }
        if self.marks.back().is_none_or(|(last, _)| at - last >= millis(APART)) {
            // The first mark stands for the connection's beginning, before which nothing had moved.
            let before = if self.marks.is_empty() { self.last } else { moved };
            self.marks.push_back((at, before));
        }
        self.last = moved;
        while self.marks.get(1).is_some_and(|(second, _)| at - second >= millis(WINDOW)) {
            self.marks.pop_front();
        }
    }

    /// The bytes that moved within [`WINDOW`].
    pub(crate) fn lately(&self) -> u64 {
        self.marks.front().map_or(0, |(_, moved)| self.last.saturating_sub(*moved))
    }
}

pub(super) fn millis(time: Duration) -> Moment {
    Moment::try_from(time.as_millis()).unwrap_or(Moment::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{LEAST, Usage, WINDOW, millis};

    const SECOND: u64 = 1000;
    const HOUR: u64 = 3600 * SECOND;

    /// The hours of a night in which the connection moves so much every 5 s, after it has begun with so much; and those
    /// in which it counts as used at their end.
    fn used(begun_with: u64, each: u64) -> Vec<u64> {
        let (mut usage, mut moved) = (Usage::default(), begun_with);
        let mut used = Vec::new();
        for step in 0..=12 * 3600 / 5 {
            let at = step * 5 * SECOND;
            usage.note(at, moved);
            moved += each;
            if at.is_multiple_of(HOUR) && usage.lately() > LEAST {
                used.push(at / HOUR);
            }
            assert!(usage.marks.len() < 40);
        }
        used
    }

    #[test]
    fn an_idle_editor_is_no_use() {
        // The editor sends its server at first; then heartbeats of 13 bytes with SSH's own, both ways, and keepalives.
        assert_eq!(used(80 << 20, 2 * 80 + 30), [0]);
        assert_eq!(used(0, 0), [0; 0]);
    }

    #[test]
    fn work_is_use() {
        assert_eq!(used(0, 1000), (1..=12).collect::<Vec<_>>());
    }

    #[test]
    fn what_was_moved_long_ago_does_not_count() {
        let mut usage = Usage::default();
        usage.note(0, 10 * LEAST);
        assert!(usage.lately() > LEAST);
        // The computer has slept.
        usage.note(millis(WINDOW) - 1, 10 * LEAST);
        assert!(usage.lately() > LEAST);
        usage.note(2 * millis(WINDOW), 10 * LEAST);
        assert!(usage.lately() <= LEAST);
        usage.note(2 * millis(WINDOW) + 1, 11 * LEAST + 1);
        assert!(usage.lately() > LEAST);
        // Its clock is set back: the marks say nothing any more.
        usage.note(5, 11 * LEAST + 1);
        assert!(usage.lately() <= LEAST);
    }

    proptest! {
        /// At most one mark's distance more than the window counts, and nothing that moved within it is missed.
        #[test]
        fn counts_what_moved_in_the_window(steps in prop::collection::vec((1_u64..120, 0_u64..100_000), 1..200)) {
            let (mut usage, mut at, mut moved) = (Usage::default(), 0, 0);
            let mut all = vec![(0, 0)];
            usage.note(0, 0);
            for (pause, bytes) in steps {
                at += pause * SECOND;
                moved += bytes;
                all.push((at, moved));
                usage.note(at, moved);
                let since = |before: u64| moved - all.iter().rev().find(|(then, _)| then + before <= at).map_or(0, |(_, by)| *by);
                let lately = usage.lately();
                prop_assert!(lately >= since(millis(WINDOW)).min(moved), "{lately} {}", since(millis(WINDOW)));
                prop_assert!(lately <= since(millis(WINDOW) + 150 * SECOND), "{lately}");
            }
        }
    }
}
