//! The playgrounds that `list` shows.

use std::str::FromStr;

use crate::labs::{find, wire::Play};

/// The choice of playgrounds: those that exist, or all; and only those that fit a filter.
#[derive(Clone, Debug, Default)]
pub(super) struct Choice {
    /// True to show those that have failed or were destroyed, too.
    pub(super) all: bool,
    pub(super) filter: Option<Filter>,
}

/// A filter by what a playground belongs to, as the official client has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    kind: Kind,
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Playground,
    Challenge,
    Tutorial,
    Course,
}

/// The words for them.
pub(crate) const KINDS: [&str; 4] = ["playground", "challenge", "tutorial", "course"];

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Filter, String> {
        let words = || format!("write KIND=NAME, with one of these kinds: {}", KINDS.join(", "));
        let (kind, name) = text.split_once('=').ok_or_else(words)?;
        let kind = match kind.to_lowercase().as_str() {
            "playground" => Kind::Playground,
            "challenge" => Kind::Challenge,
            "tutorial" => Kind::Tutorial,
            "course" => Kind::Course,
            _ => return Err(words()),
        };
        Ok(Filter { kind, name: name.to_owned() })
    }
}

impl Filter {
    fn fits(&self, play: &Play) -> bool {
        let name = match self.kind {
            Kind::Playground => Some(&play.playground.name),
            Kind::Challenge => play.challenge_name.as_ref(),
            Kind::Tutorial => play.tutorial_name.as_ref(),
            Kind::Course => play.course_name.as_ref(),
        };
        name.map_or("", |name| name) == self.name
    }
}

impl Choice {
    /// Removes the others, and sorts for printing: running ones first, then by age, the newest first.
    pub(super) fn apply(&self, plays: &mut Vec<Play>) {
        let is_chosen = |play: &Play| self.filter.as_ref().is_none_or(|filter| filter.fits(play));
        plays.retain(|play| (self.all || !find::is_gone(play)) && is_chosen(play));
        // The texts do not sort as the times do: `05.12Z` comes before `05.125Z`.
        let created = |play: &Play| play.created_at.parse::<jiff::Timestamp>().ok();
        plays.sort_by_cached_key(|play| (find::is_play_down(play), std::cmp::Reverse(created(play))));
    }

    /// The line that replaces an empty list.
    pub(super) fn none(&self) -> &'static str {
        match self.filter {
            Some(_) => "No playground fits the filter.",
            None => "No playgrounds. Run `labctl-ssh-proxy catalog` to see those that you can start.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Choice, Filter, KINDS};
    use crate::labs::wire::{Play, PlaygroundRef};

    #[test]
    fn the_newest_comes_first() {
        let play = |at: &str| Play { created_at: format!("2026-01-02T03:04:{at}"), ..Play::default() };
        let mut plays = ["05.12Z", "05.125Z", "05Z", "", "05.9+02:00"].map(play).to_vec();
        Choice { all: false, filter: None }.apply(&mut plays);
        let order: Vec<&str> = plays.iter().map(|play| &play.created_at[17..]).collect();
        assert_eq!(order, ["05.125Z", "05.12Z", "05Z", "05.9+02:00", ""]);
    }

    #[test]
    fn a_filter_is_read_and_fits_as_the_official_clients() {
        let plays = [
            Play {
                id: "1".into(),
                playground: PlaygroundRef { name: "k3s".into(), ..Default::default() },
                ..Play::default()
            },
            Play { id: "2".into(), challenge_name: Some("c".into()), ..Play::default() },
            Play { id: "3".into(), tutorial_name: Some("t=1".into()), ..Play::default() },
            Play { id: "4".into(), course_name: Some("k3s".into()), ..Play::default() },
        ];
        for (filter, ids) in [
            ("playground=k3s", "1"),
            ("Challenge=c", "2"),
            ("tutorial=t=1", "3"),
            ("course=k3s", "4"),
            ("course=K3S", ""),
            ("course=", "123"),
        ] {
            let mut chosen = plays.to_vec();
            Choice { all: false, filter: Some(filter.parse().unwrap()) }.apply(&mut chosen);
            assert_eq!(chosen.into_iter().map(|play| play.id).collect::<String>(), ids, "{filter}");
        }
        for wrong in ["", "k3s", "lesson=x", "=x"] {
            assert!(wrong.parse::<Filter>().unwrap_err().contains("KIND=NAME"), "{wrong}");
        }
        assert!(KINDS.iter().all(|kind| format!("{kind}=x").parse::<Filter>().is_ok()));
    }
}
