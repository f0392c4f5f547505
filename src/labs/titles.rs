//! The names of the playgrounds that the platform has told of, for sentences about them: a person who typed a title does
//! not know the id. Logs keep the ids.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use crate::{labs::wire::Play, platform::is_id};

/// The word before an id in a sentence.
const BEFORE: &str = "playground ";
const ID: usize = 24;

/// The names by which playgrounds are shown, by their ids.
#[derive(Debug, Default)]
pub(super) struct Titles(RwLock<HashMap<String, String>>);

impl Titles {
    /// Remembers the names of `plays`, and returns them.
    pub(super) fn noted(&self, plays: Vec<Play>) -> Vec<Play> {
        let mut titles = self.0.write().unwrap_or_else(PoisonError::into_inner);
        titles.extend(plays.iter().map(|play| (play.id.clone(), play.shown())));
        drop(titles);
        plays
    }

    /// Remembers the name of a play, and returns it.
    pub(super) fn note(&self, play: Play) -> Play {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(play.id.clone(), play.shown());
        play
    }

    /// Returns the subject of a sentence, such as "the tasks of playground ID", with the playground's name.
    pub(super) fn named(&self, about: &str) -> String {
        let named = || {
            let (before, rest) = about.rsplit_once(BEFORE)?;
            let id = rest.get(..ID).filter(|id| is_id(id))?;
            let title = self.0.read().unwrap_or_else(PoisonError::into_inner).get(id)?.clone();
            Some(format!("{before}{BEFORE}{title}{}", &rest[ID..]))
        };
        named().unwrap_or_else(|| about.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::Titles;
    use crate::labs::wire::Play;

    #[test]
    fn a_playground_is_called_by_its_name_once_it_is_known() {
        let (id, titles) = ("0123456789abcdef01234567", Titles::default());
        let about = format!("the tunnel to machine m of playground {id}");
        assert_eq!(titles.named(&about), about);
        titles.note(Play { id: id.into(), title: "Try compose".into(), ..Play::default() });
        assert_eq!(titles.named(&about), "the tunnel to machine m of playground Try compose");
        for other in ["the catalogue", "playground ", "playground 0123é456789abcdef012345", "starting playground x"] {
            assert_eq!(titles.named(other), other);
        }
    }
}
