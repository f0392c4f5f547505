//! `machine console`: the serial console of a machine, a text for each boot. The platform has no stream of it, so
//! --follow reads it again and again.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    app::App,
    commands::machine::{
        Which,
        words::{Stop, Words, ended},
    },
    error::{Error, Kind, Result, printable},
    labs::{
        Labs, find,
        wire::{Play, State},
    },
    ui::{notice, out},
    wake::Patience,
};

/// Between two readings of a console that is followed.
const READ_EVERY: Duration = Duration::from_secs(3);
/// Between two looks if the machine still runs, and if it has booted again.
const LOOK_EVERY: Duration = Duration::from_secs(9);

/// Print the serial console of a machine: that of its newest boot.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    which: Which,
    /// Go on with what is written from now on, until the machine ends or Ctrl-C.
    #[arg(short, long)]
    follow: bool,
    /// List the boots that have a console, the oldest first.
    #[arg(long, conflicts_with_all = ["follow", "boot"])]
    list: bool,
    /// Print the console of this boot.
    #[arg(long, value_name = "NAME")]
    boot: Option<String>,
}

/// `machine console --list --json`.
#[derive(Serialize)]
struct Boots<'a> {
    playground: &'a str,
    machine: &'a str,
    boots: &'a [String],
}

/// `machine console --json`, and a line of it with --follow.
#[derive(Serialize)]
struct Piece<'a> {
    playground: &'a str,
    machine: &'a str,
    boot: &'a str,
    content: &'a str,
}

/// Prints a console, or the names of all.
///
/// # Errors
/// The platform's; [`Kind::NotFound`] when there is no such boot, or none yet.
pub(super) async fn run(app: &App, args: Args) -> Result<()> {
    let labs = app.labs().await?;
    let (play, machine) = args.which.find(&labs).await?;
    let boots = labs.consoles(&play.id, &machine).await?;
    if args.list {
        if args.which.json {
            return out::json(&Boots { playground: &play.id, machine: &machine, boots: &boots });
        }
        return out::lines(boots.iter().map(|name| printable(name)).collect());
    }
    let boot = match &args.boot {
        Some(name) if !boots.contains(name) => {
            let message = format!("machine {machine} of playground {} has no boot {}", play.shown(), printable(name));
            return Err(Error::new(Kind::NotFound, message).with_hint(match boots.is_empty() {
                true => "it has none yet".to_owned(),
                false => format!("use one of its boots: {}", boots.join(", ")),
            }));
        }
        Some(name) => Some(name.clone()),
        None => boots.last().cloned(),
    };
    let mut console = Console { labs: &labs, play, machine, json: args.which.json, words: Words::new()? };
    let Some(boot) = boot else {
        let message = format!("machine {} of playground {} has no console yet", console.machine, console.play.shown());
        return Err(Error::new(Kind::NotFound, message).with_hint("a machine has one from its first boot on"));
    };
    ended(match args.follow {
        true => console.follow(boot, args.boot.is_some()).await,
        false => console.print(&boot).await,
    })
}

/// The last lines of the newest boot's console; `None` if there is none.
///
/// # Errors
/// The platform's.
pub(in crate::commands) async fn tail(labs: &Labs, play: &str, machine: &str, lines: usize) -> Result<Option<String>> {
    let Some(boot) = labs.consoles(play, machine).await?.pop() else { return Ok(None) };
    let text = labs.console(play, machine, &boot).await?;
    let all: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    Ok(Some(all[all.len().saturating_sub(lines)..].join("\n")).filter(|tail| !tail.is_empty()))
}

struct Console<'a> {
    labs: &'a Labs,
    play: Play,
    machine: String,
    json: bool,
    words: Words,
}

impl Console<'_> {
    async fn print(&mut self, boot: &str) -> Result<(), Stop> {
        let text = self.labs.console(&self.play.id, &self.machine, boot).await?;
        self.say(boot, &text).await
    }

    /// Prints a boot's console as it grows, and those of the boots that follow unless `only` this one is wanted.
    async fn follow(&mut self, mut boot: String, only: bool) -> Result<(), Stop> {
        let mut known = String::new();
        let mut patience = Patience::new();
        let mut look = Instant::now() + LOOK_EVERY;
        let mut is_first = true;
        loop {
            let now = Instant::now();
            let looks = is_first || now >= look;
            if looks {
                look = now + LOOK_EVERY;
            }
            let pause = match self.read(&boot, looks).await {
                Ok((text, next)) => {
                    patience.restore();
                    let (new, has_gap) = news(&known, &text);
                    if has_gap {
                        notice::line(
                            "labctl-ssh-proxy: some lines of the console were lost: the platform has dropped them",
                        );
                    }
                    if !new.is_empty() {
                        self.say(&boot, new).await?;
                    }
                    known = text;
                    is_first = false;
                    match next {
                        Next::Same => READ_EVERY,
                        Next::Over => return Ok(()),
                        Next::Boot(_) if only => return Ok(()),
                        Next::Boot(next) => {
                            notice::line(&format!("labctl-ssh-proxy: machine {} has booted again", self.machine));
                            boot = next;
                            known.clear();
                            continue;
                        }
                    }
                }
                Err(error) => {
                    log::warn!("{}", error.message());
                    patience.pause_after(&error)?.max(READ_EVERY)
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                gone = self.words.unread() => return Err(gone),
            }
        }
    }

    /// Reads a boot's console, after a look at what comes behind it.
    async fn read(&self, boot: &str, looks: bool) -> Result<(String, Next)> {
        let (id, machine) = (&self.play.id, &self.machine);
        let mut next = Next::Same;
        if looks {
            // Before the text is read, so that the last words of a boot are in it.
            let play = find::by_id(self.labs, id).await?;
            let boots = self.labs.consoles(id, machine).await?;
            let behind = boots.iter().skip_while(|name| *name != boot).nth(1);
            if let Some(behind) = behind {
                next = Next::Boot(behind.clone());
            } else if is_over(&play, machine) {
                next = Next::Over;
            }
        }
        Ok((self.labs.console(id, machine, boot).await?, next))
    }

    async fn say(&mut self, boot: &str, content: &str) -> Result<(), Stop> {
        if self.json {
            let (playground, machine) = (&*self.play.id, &*self.machine);
            return self.words.json(&Piece { playground, machine, boot, content }).await;
        }
        self.words.say(content).await
    }
}

/// The next thing to follow.
enum Next {
    /// The same boot goes on.
    Same,
    /// A newer boot.
    Boot(String),
    /// The machine has ended.
    Over,
}

/// True for a machine that writes no more.
fn is_over(play: &Play, machine: &str) -> bool {
    let is_stopped = play.machine_status(machine).is_some_and(|status| status.state == State::Stopped);
    play.state() == Some(&State::Stopped) || find::is_gone(play) || is_stopped
}

/// The part of a text that is behind what was known of it. The platform may have dropped its beginning since; true if it
/// has dropped so much that something is missing.
fn news<'a>(known: &str, text: &'a str) -> (&'a str, bool) {
    let overlap = overlap(known.as_bytes(), text.as_bytes());
    (&text[overlap..], overlap == 0 && !known.is_empty() && !text.is_empty())
}

/// The length of the longest end of `known` that `text` begins with (Knuth, Morris and Pratt: linear in both).
fn overlap(known: &[u8], text: &[u8]) -> usize {
    if text.is_empty() || text.starts_with(known) {
        return text.len().min(known.len());
    }
    let mut borders = vec![0; text.len()];
    for i in 1..text.len() {
        borders[i] = longer(&borders, text, borders[i - 1], text[i]);
    }
    known.iter().fold(0, |length, byte| {
        let length = if length == text.len() { borders[length - 1] } else { length };
        longer(&borders, text, length, *byte)
    })
}

/// The length of the longest beginning of `text` that ends with `byte` behind a border of the one of that length.
fn longer(borders: &[usize], text: &[u8], mut length: usize, byte: u8) -> usize {
    while length > 0 && text[length] != byte {
        length = borders[length - 1];
    }
    length + usize::from(text[length] == byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::news;

    #[test]
    fn new_words_are_those_behind_the_known_ones() {
        assert_eq!(news("", "a\n"), ("a\n", false));
        assert_eq!(news("a\n", "a\n"), ("", false));
        assert_eq!(news("a\nb\n", "a\nb\nc\n"), ("c\n", false));
        assert_eq!(news("a\nb\n", "b\nc\n"), ("c\n", false), "the beginning was dropped");
        assert_eq!(news("a\nb\n", "x\ny\n"), ("x\ny\n", true), "all that was known was dropped");
        assert_eq!(news("a\n", ""), ("", false));
        assert_eq!(news("aab", "aab"), ("", false));
        assert_eq!(news("é", "éé"), ("é", false));
    }

    proptest! {
        #[test]
        fn what_is_kept_and_new_is_the_whole_text(known in "[ab\né]{0,12}", new in "[ab\né]{0,12}", dropped in 0_usize..12) {
            let whole = known.clone() + &new;
            let dropped = known.char_indices().map(|(i, _)| i).nth(dropped).unwrap_or(known.len());
            let text = &whole[dropped..];
            let (found, _) = news(&known, text);
            prop_assert!(text.ends_with(found));
            // In a text that repeats itself, more may look as if it were known.
            prop_assert!(found.len() <= new.len());
            prop_assert!(known.ends_with(&text[..text.len() - found.len()]));
        }
    }
}
