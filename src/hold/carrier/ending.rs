//! The end of a session, for its user and at the relay.

use std::{future::poll_fn, io, task::Poll, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::Carrier;
use crate::{
    error::{Error, Kind},
    hold::{
        frames::Violation,
        held::{Phase, Reach},
        link::{Bye, News, Over},
    },
    pipe::LINGER,
};

/// The time in which a user that shuts the stream down, and stays, gets rid of what was written.
const SHUT_DOWN: Duration = Duration::from_secs(5);

/// The end of a session.
pub(super) enum End {
    /// The machine's SSH server has ended it.
    Said,
    /// Its user has left.
    Left,
    /// It cannot go on; true if the relay knows that.
    Failed(Error, bool),
}

impl<R: Reach> Carrier<R> {
    /// Ends the session for its user and, as far as it can be reached, at the relay.
    pub(super) async fn finish(mut self, end: End) {
        let told = match end {
            End::Said => {
                self.vitals.note_end();
                self.shared.lock().end(Phase::Ended);
                self.reach.over();
                self.say_bye(Bye::Now, false).await;
                false
            }
            End::Failed(error, told) => {
                log::info!("the session has ended: {error}");
                self.vitals.note_cut_off(true);
                self.vitals.note_end();
                self.shared.lock().end(Phase::Failed(error));
                self.say_bye(Bye::Now, false).await;
                told
            }
            End::Left => {
                let told = self.say_bye(Bye::Due, true).await;
                self.shared.lock().end(Phase::Ended);
                told
            }
        };
        if told {
            self.reach.over();
        }
        // Nothing waits for it any more.
        let leave = self.shared.lock().leave.take();
        drop(leave);
    }

    /// Says the last word over the connection that there is. With `waits`, what was written goes before it, and the
    /// result is true if the relay has heard it.
    async fn say_bye(&mut self, bye: Bye, waits: bool) -> bool {
        let Some(link) = &mut self.link else { return false };
        link.bye = bye;
        let began = Instant::now();
        let limit = sleep_until(began + SHUT_DOWN);
        tokio::pin!(limit);
        poll_fn(|cx| {
            let mut state = self.shared.lock();
            state.wakes(cx.waker());
            if !waits {
                let said = link.poll_farewell(cx, &mut state);
                if said.is_ready() {
                    return said.map(|()| false);
                }
            } else if let Poll::Ready(over) = link.poll(cx, &mut state, true, &mut News::default()) {
                // Its END, or the end of a connection that it has closed. A tunnel may not pass that on.
                let is_closed = matches!(&over, Over::Lost(e) if e.kind() == io::ErrorKind::UnexpectedEof);
                return Poll::Ready(matches!(over, Over::Ended(..)) || is_closed && link.has_said_bye());
            }
            // A user that is gone waits for nothing else.
            let until = Instant::now() + LINGER;
            if (!waits || state.leave.is_some()) && limit.deadline() > until {
                limit.as_mut().reset(until);
            }
            limit.as_mut().poll(cx).map(|()| false)
        })
        .await
    }
}

/// The error for a session that cannot go on.
pub(super) fn over(why: &str) -> Error {
    Error::new(Kind::Network, why).with_hint("connect again")
}

pub(super) fn broken(Violation(how): Violation) -> Error {
    over(&format!("the relay on the machine violates its protocol: {how}"))
}

pub(super) fn ended_by_relay(words: &str) -> Error {
    let words = if words.is_empty() { "it says no reason" } else { words };
    over(&format!("the relay on the machine has ended the session: {words}"))
}

pub(super) fn given_up(after: Duration) -> Error {
    let minutes = after.as_secs() / 60;
    let time = if minutes >= 2 { format!("{minutes} min") } else { format!("{} s", after.as_secs()) };
    over(&format!("the machine could not be reached for {time}"))
}
