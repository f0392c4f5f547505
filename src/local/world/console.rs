//! The consoles of a machine: its words while it boots, prepares itself and ends, one text for each boot. They last as
//! long as the platform's process, and a journal follows them.

use std::collections::VecDeque;

use jiff::Timestamp;
use tokio::sync::{broadcast, watch};

use crate::labs::wire::{Consoles, Status};

use super::{
    super::{
        record::Record,
        refusal::{Answer, Refusal, no_machine, no_play},
    },
    Play, World,
};

/// The number of boots of one machine whose text is kept.
const MAX_BOOTS: usize = 8;
/// The longest text of one boot, in bytes. It is some dozens of lines; the oldest lines are dropped first.
const MAX_TEXT: usize = 16 * 1024;
/// The number of lines by which a slow reader of a journal may be behind.
const BEHIND: usize = 256;
/// The default number of past lines of a journal: journalctl's own.
const PAST_LINES: u64 = 10;

/// The consoles of one machine.
pub(super) struct Console {
    boots: VecDeque<Boot>,
    count: usize,
    lines: broadcast::Sender<String>,
}

struct Boot {
    name: String,
    text: String,
}

impl Default for Console {
    fn default() -> Self {
        Console { boots: VecDeque::new(), count: 0, lines: broadcast::Sender::new(BEHIND) }
    }
}

impl Console {
    /// Begins the text of another boot.
    pub(super) fn boot(&mut self) {
        self.count += 1;
        if self.boots.len() >= MAX_BOOTS {
            self.boots.pop_front();
        }
        self.boots.push_back(Boot { name: format!("boot-{}", self.count), text: String::new() });
        self.say("starting");
    }

    /// Adds a line to the text of the current boot. A machine that has not booted has none.
    pub(super) fn say(&mut self, words: &str) {
        let Some(boot) = self.boots.back_mut() else { return };
        let line = format!("{:.3} {}\n", Timestamp::now(), words.replace('\n', " "));
        boot.text.push_str(&line);
        while boot.text.len() > MAX_TEXT {
            let first = boot.text.find('\n').map_or(boot.text.len(), |end| end + 1);
            boot.text.drain(..first);
        }
        // This fails when no journal is being read.
        let _ = self.lines.send(line);
    }

    /// The last lines of all boots.
    fn past(&self, count: usize) -> String {
        let lines: Vec<&str> = self.boots.iter().flat_map(|boot| boot.text.split_inclusive('\n')).collect();
        lines[lines.len().saturating_sub(count)..].concat()
    }
}

/// A machine's journal as it is being read.
pub(crate) struct Journal {
    /// The lines so far.
    pub past: String,
    /// The lines from now on.
    pub lines: broadcast::Receiver<String>,
    /// The state of the play, whose end is the journal's.
    pub status: watch::Receiver<Status>,
}

impl Play {
    pub(super) fn say(&mut self, machine: &str, words: &str) {
        if let Some(slot) = self.slot(machine) {
            slot.console.say(words);
        }
    }

    pub(super) fn say_all(&mut self, words: &str) {
        for slot in &mut self.machines {
            slot.console.say(words);
        }
    }
}

impl World {
    /// The names of a machine's consoles, the oldest first.
    ///
    /// # Errors
    /// 404 when there is no such play or machine.
    pub(crate) fn consoles(&self, id: &str, machine: &str) -> Answer<Consoles> {
        self.look_at_console(id, machine, |_, console| {
            Ok(Consoles { consoles: console.boots.iter().map(|boot| boot.name.clone()).collect() })
        })
    }

    /// The text of one console.
    ///
    /// # Errors
    /// 404 when there is no such play, machine or console.
    pub(crate) fn console(&self, id: &str, machine: &str, name: &str) -> Answer<String> {
        self.look_at_console(id, machine, |_, console| {
            let boot = console.boots.iter().find(|boot| boot.name == name);
            let words = format!("machine {machine} has no console {name}");
            Ok(boot.ok_or_else(|| Refusal::not_found(words))?.text.clone())
        })
    }

    /// A machine's journal: that many past lines, the default number for 0, and those to come. An empty name means the
    /// first machine.
    ///
    /// # Errors
    /// 404 when there is no such play or machine.
    pub(crate) fn journal(&self, id: &str, machine: &str, lines: u64) -> Answer<Journal> {
        let lines = if lines == 0 { PAST_LINES } else { lines };
        self.look_at_console(id, machine, |play, console| {
            Ok(Journal {
                past: console.past(usize::try_from(lines).unwrap_or(usize::MAX)),
                lines: console.lines.subscribe(),
                status: play.status.subscribe(),
            })
        })
    }

    fn look_at_console<T>(
        &self,
        id: &str,
        machine: &str,
        look: impl FnOnce(&Play, &Console) -> Answer<T>,
    ) -> Answer<T> {
        let plays = self.locked();
        let play = plays.get(id).ok_or_else(|| no_play(id))?;
        let slot = play.machines.iter().find(|slot| slot.name == machine || machine.is_empty());
        let unknown = |record: &Record| no_machine(record, machine);
        look(play, &slot.ok_or_else(|| unknown(&play.record))?.console)
    }
}

#[cfg(test)]
mod tests {
    use super::{Console, MAX_BOOTS, MAX_TEXT};

    #[test]
    fn texts_and_their_number_are_bounded() {
        let mut console = Console::default();
        console.say("before the first boot");
        assert_eq!(console.past(10), "");
        for boot in 0..=MAX_BOOTS {
            console.boot();
            for line in 0..1000 {
                console.say(&format!("line {line}\nof boot {boot}"));
            }
        }
        assert_eq!(console.boots.len(), MAX_BOOTS);
        assert_eq!(console.boots[0].name, "boot-2");
        assert!(console.boots.iter().all(|boot| boot.text.len() <= MAX_TEXT && boot.text.ends_with('\n')));
        assert!(console.past(1).ends_with(" line 999 of boot 8\n"), "{}", console.past(1));
        assert_eq!(console.past(3).lines().count(), 3);
    }
}
