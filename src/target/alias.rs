//! Readable names of playgrounds, which stand beside `playground-<id>` in ssh's configuration: one label of a-z, 0-9 and
//! `-`. Pure. The check that such a name means no host of the user's is [`crate::ssh_config::taken`].

use crate::{platform::is_id, target::PREFIX};

/// The longest label (RFC 1035, 2.3.4).
const MAX: usize = 63;

/// The word that stands for no alias, on the command line and in the settings.
pub const NONE: &str = "none";

/// Returns the label that a title makes; `None` for one without a letter or a digit that a label can have, such as a
/// title of emoji only. The label may be one that [`check`] refuses.
pub fn label(title: &str) -> Option<String> {
    let mut label = String::new();
    for c in title.chars().flat_map(char::to_lowercase) {
        match c {
            'a'..='z' | '0'..='9' => label.push(c),
            // Accents that stand on their own, as macOS writes them.
            '\u{300}'..='\u{36f}' => {}
            c => match latin(c) {
                Some(letters) => label.push_str(letters),
                None if label.is_empty() || label.ends_with('-') => {}
                None => label.push('-'),
            },
        }
    }
    Some(cut(&label, MAX).to_owned()).filter(|label| !label.is_empty())
}

/// Returns the label that stands for the `n`th playground of this one.
pub fn numbered(label: &str, n: usize) -> String {
    match n {
        0 | 1 => label.to_owned(),
        n => {
            let number = format!("-{n}");
            cut(label, MAX - number.len()).to_owned() + &number
        }
    }
}

/// Checks a label, from a title or from the command line.
///
/// # Errors
/// The reason why it cannot be an alias, as the end of a sentence that begins with it.
pub fn check(label: &str) -> Result<(), &'static str> {
    let is_hexadecimal = |digits: &str| digits.bytes().all(|b| b.is_ascii_hexdigit());
    match label {
        "" => Err("is empty"),
        label if label.len() > MAX => Err("is longer than 63 characters"),
        label if !label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-')) => {
            Err("has a character other than a-z, 0-9 and -")
        }
        label if label.starts_with('-') || label.ends_with('-') => Err("begins or ends with a hyphen"),
        label if label.contains("--") => Err("has two hyphens in a row, as only encoded names have"),
        label if label.starts_with(PREFIX) => Err("begins like the host name of a playground"),
        label if is_id(label) => Err("looks like the id of a playground"),
        // Programs take a number for an address: 2130706433 and 0x7f000001 are 127.0.0.1 (inet_aton(3)).
        label if label.bytes().all(|b| b.is_ascii_digit()) || label.strip_prefix("0x").is_some_and(is_hexadecimal) => {
            Err("looks like an address")
        }
        // Numbered, it would begin so.
        "playground" => Err("is the beginning of every playground's host name"),
        "localhost" => Err("is this computer"),
        NONE => Err("stands for no alias"),
        _ => Ok(()),
    }
}

/// The beginning of a label that is at most `max` bytes long and ends with no hyphen.
fn cut(label: &str, max: usize) -> &str {
    label[..label.len().min(max)].trim_end_matches('-')
}

/// The letters of a-z that a letter of a Latin alphabet is written with where there are no others.
fn latin(c: char) -> Option<&'static str> {
    Some(match c {
        'à'..='å' | 'ā' | 'ă' | 'ą' => "a",
        'æ' => "ae",
        'ç' | 'ć' | 'č' => "c",
        'ď' | 'đ' | 'ð' => "d",
        'è'..='ë' | 'ē' | 'ė' | 'ę' | 'ě' => "e",
        'ğ' => "g",
        'ì'..='ï' | 'ī' | 'į' | 'ı' => "i",
        'ł' => "l",
        'ñ' | 'ń' | 'ň' => "n",
        'ò'..='ö' | 'ø' | 'ő' | 'ō' => "o",
        'œ' => "oe",
        'ř' => "r",
        'ś' | 'š' | 'ş' | 'ș' => "s",
        'ß' => "ss",
        'ť' | 'ţ' | 'ț' => "t",
        'þ' => "th",
        'ù'..='ü' | 'ū' | 'ů' | 'ű' => "u",
        'ý' | 'ÿ' => "y",
        'ź' | 'ż' | 'ž' => "z",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{check, label, numbered};
    use crate::target::is_label;

    #[test]
    fn titles_become_labels() {
        for (title, expected) in [
            ("My lab", Some("my-lab")),
            ("  --My  (second) lab!-- ", Some("my-second-lab")),
            ("Größe: Ærø, Łódź", Some("grosse-aero-lodz")),
            ("Cafe\u{301} №5", Some("cafe-5")),
            ("k8s / v1.30_x", Some("k8s-v1-30-x")),
            ("İstanbul", Some("istanbul")),
            ("🚀🎉", None),
            ("実験", None),
            ("-", None),
            ("", None),
        ] {
            assert_eq!(label(title).as_deref(), expected, "{title}");
        }
        let long = label(&"ab ".repeat(40)).unwrap();
        assert_eq!((long.len(), long.ends_with("ab")), (62, true));
        assert_eq!((numbered("my-lab", 1), numbered("my-lab", 2)), ("my-lab".into(), "my-lab-2".into()));
        assert_eq!(numbered(&long, 10).len(), 62);
    }

    #[test]
    fn labels_that_would_confuse_are_refused() {
        for label in ["my-lab", "a", "docker", "3scale", "0xyz", "playgrounds", "node-01"] {
            assert_eq!(check(label), Ok(()), "{label}");
        }
        let long = "a".repeat(64);
        for label in [
            "",
            "My-lab",
            "my_lab",
            "my.lab",
            "-my-lab",
            "my-lab-",
            "xn--lab",
            "playground",
            "playground-x",
            "0123456789abcdef01234567",
            "2130706433",
            "0x7f000001",
            "0x",
            "localhost",
            "none",
            "é",
            "a b",
            &long,
        ] {
            assert!(check(label).is_err(), "{label}");
        }
    }

    proptest! {
        #[test]
        fn every_title_makes_a_safe_label_or_none(title in ".{0,90}", n in 1..1000_usize) {
            if let Some(label) = label(&title) {
                prop_assert!(check(&label).is_err() || check(&numbered(&label, n)).is_ok(), "{}", label);
                for label in [&label, &numbered(&label, n)] {
                    prop_assert!(is_label(label) && !label.ends_with('-') && !label.contains("--"), "{}", label);
                }
            }
        }
    }
}
