//! The catalogue.

use serde::{Deserialize, Serialize};

use super::play::Machine;

/// A catalogue entry.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct CatalogEntry {
    /// The platform's id of it.
    pub id: String,
    /// Its author; empty for the platform's own.
    pub owner: String,
    /// The name that starts it.
    pub name: String,
    /// The entry that it was derived from.
    pub base: String,
    /// Its title.
    pub title: String,
    /// Its purpose.
    pub description: String,
    /// The categories that list it.
    pub categories: Vec<String>,
    /// Its page on the site.
    pub page_url: String,
    /// True for an entry that every account sees.
    pub published: bool,
    /// Its machines.
    pub machines: Vec<Machine>,
    /// The choices of a start. `None` where the answer does not have them; `?format=extended` does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_conditions: Option<InitConditions>,
    /// The permissions of this account.
    pub user_access: UserAccess,
}

/// The choices that a start of an entry has.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct InitConditions {
    /// One for each.
    pub values: Vec<InitCondition>,
}

/// A choice of a start.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct InitCondition {
    /// Its name, which may have spaces.
    pub key: String,
    /// Its value if the start names none; empty for none.
    pub default: String,
    /// True if it may stay without a value.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub nullable: bool,
    /// The values there are; empty for free text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// An example of a value.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub placeholder: String,
    /// The pattern of a value that is free text, in the syntax of Go's regular expressions.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub validation_regex: String,
}

/// The fault of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Misfit<'a> {
    /// It has none, and needs one.
    Missing,
    /// It is none of these.
    NotAmong(&'a [String]),
    /// It does not match this pattern.
    Unlike(&'a str),
}

impl InitCondition {
    /// True if a start must name its value.
    pub(crate) fn is_needed(&self) -> bool {
        self.default.is_empty() && !self.nullable
    }

    /// Checks a value. A pattern that cannot be read here matches everything, so that the platform decides.
    pub(crate) fn check(&self, value: &str) -> Result<(), Misfit<'_>> {
        if value.is_empty() {
            return if self.nullable { Ok(()) } else { Err(Misfit::Missing) };
        }
        if !self.options.is_empty() {
            return match self.options.iter().any(|option| option == value) {
                true => Ok(()),
                false => Err(Misfit::NotAmong(&self.options)),
            };
        }
        match regex_lite::Regex::new(&self.validation_regex) {
            Ok(pattern) if !pattern.is_match(value) => Err(Misfit::Unlike(&self.validation_regex)),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// The permissions of an account for a catalogue entry.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct UserAccess {
    /// See it in lists.
    pub can_list: bool,
    /// Read it.
    pub can_read: bool,
    /// Start it.
    pub can_start: bool,
}

#[cfg(test)]
mod tests {
    use super::{InitCondition, Misfit};

    #[test]
    fn a_value_is_one_of_the_options_or_fits_the_pattern() {
        let options = InitCondition { options: vec!["a".into(), "b c".into()], ..InitCondition::default() };
        assert_eq!((options.check("b c"), options.check("c")), (Ok(()), Err(Misfit::NotAmong(&options.options))));
        assert_eq!(options.check(""), Err(Misfit::Missing));
        let free = |pattern: &str| InitCondition {
            validation_regex: pattern.into(),
            nullable: true,
            ..InitCondition::default()
        };
        assert_eq!(
            (free("").check("x"), free("^\\d+$").check(""), free("^\\d+$").check("42")),
            (Ok(()), Ok(()), Ok(()))
        );
        // As in Go, \d is a digit of ASCII, and a pattern matches a part.
        assert_eq!(free("^\\d$").check("\u{663}"), Err(Misfit::Unlike("^\\d$")));
        assert_eq!(free("b").check("abc"), Ok(()));
        for beyond in [r"^\pL+$", r"^(?=x)", "("] {
            assert_eq!(free(beyond).check("7"), Ok(()), "{beyond} is left to the platform");
        }
    }
}
