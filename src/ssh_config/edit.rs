//! Edits of the user's own ssh configuration. They are pure functions over bytes, because such files hold comments in
//! any encoding: text that is not ours comes out as it went in, line endings, missing final newline and all.
//!
//! Ours is either two lines, a comment and an `Include`, or a block between two marker lines. It goes to the very top,
//! because an Include below a `Host` line counts only for that host, and because the first value wins. Older or
//! repeated forms of it are taken out first, wherever they are. The marker lines must never change, because older ones
//! could not be taken out then.

use crate::error::{Error, Kind, Result};

/// The line above our `Include`.
pub const INCLUDE: &str = "# --- labctl-ssh-proxy: the next line is managed by `labctl-ssh-proxy config-ssh` ---";
/// The first line of our block.
pub const BEGIN: &str = "# --- BEGIN labctl-ssh-proxy ---";
/// The last line of our block.
pub const END: &str = "# --- END labctl-ssh-proxy ---";

/// `text` with one Include of ours at its top. `argument` is the included file as the line names it; `ours` are the
/// forms in which the user may have written it, without quotes.
///
/// # Errors
/// Fails when our markers in `text` do not pair up, or it begins with a byte order mark, except on Windows.
pub fn insert_include(text: &[u8], argument: &str, ours: &[String]) -> Result<Vec<u8>> {
    insert(text, &format!("{INCLUDE}\nInclude {argument}\n"), ours)
}

/// `text` with one block at its top that holds `entries`. It ends with a bare `Host *`, so that the user's options for
/// all hosts, which stand at the top of many files, stay for all hosts.
///
/// # Errors
/// As [`insert_include`].
pub fn insert_block(text: &[u8], entries: &str, ours: &[String]) -> Result<Vec<u8>> {
    insert(text, &format!("{BEGIN}\n{entries}\nHost *\n{END}\n"), ours)
}

/// The byte order mark that a text may begin with, and the rest.
fn mark(text: &[u8]) -> (&[u8], &[u8]) {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    text.split_at(if text.starts_with(MARK) { MARK.len() } else { 0 })
}

fn insert(text: &[u8], block: &str, ours: &[String]) -> Result<Vec<u8>> {
    let (mark, text) = mark(text);
    // Microsoft's OpenSSH skips it, and Windows' editors and shells like to write it.
    if !mark.is_empty() && cfg!(not(windows)) {
        return Err(Error::new(Kind::File, "it begins with a byte order mark, which ssh takes for an option")
            .with_hint("save it as UTF-8 without a byte order mark"));
    }
    let rest = remove(text, ours)?;
    let crlf = rest.split_inclusive(|&b| b == b'\n').next().is_some_and(|line| line.ends_with(b"\r\n"));
    let block = if crlf { block.replace('\n', "\r\n") } else { block.to_owned() };
    Ok([mark, block.as_bytes(), &rest].concat())
}

/// `text` without anything of ours.
///
/// # Errors
/// Fails when our markers do not pair up, so that our lines cannot be told from the user's.
pub fn remove(text: &[u8], ours: &[String]) -> Result<Vec<u8>> {
    let refuse = |number: usize, why: &str| {
        Err(Error::new(Kind::File, format!("line {}: {why}", number + 1)).with_hint(format!(
            "remove the lines of labctl-ssh-proxy by hand, from `{BEGIN}` to `{END}`, and try again"
        )))
    };
    let (mark, text) = mark(text);
    let mut rest = Vec::with_capacity(text.len());
    rest.extend_from_slice(mark);
    let mut begun = None;
    let mut announced = false;
    for (number, line) in text.split_inclusive(|&b| b == b'\n').enumerate() {
        let words = line.trim_ascii();
        let was_announced = std::mem::replace(&mut announced, begun.is_none() && words == INCLUDE.as_bytes());
        if words == BEGIN.as_bytes() {
            if begun.replace(number).is_some() {
                return refuse(number, "a block of labctl-ssh-proxy begins inside another one");
            }
        } else if words == END.as_bytes() {
            if begun.take().is_none() {
                return refuse(number, "a block of labctl-ssh-proxy ends but does not begin");
            }
        } else if begun.is_none() && !announced && !is_our_include(words, was_announced, ours) {
            rest.extend_from_slice(line);
        }
    }
    match begun {
        Some(number) => refuse(number, "a block of labctl-ssh-proxy begins but does not end"),
        None => Ok(rest),
    }
}

/// Reports whether there is a block of ours in `text`.
pub fn has_block(text: &[u8]) -> bool {
    mark(text).1.split(|&b| b == b'\n').any(|line| line.trim_ascii() == BEGIN.as_bytes())
}

/// Reports whether `text` is free of our markers.
pub fn is_untouched(text: &[u8]) -> bool {
    let is_ours = |line: &[u8]| [BEGIN, END, INCLUDE].iter().any(|ours| ours.as_bytes() == line.trim_ascii());
    !mark(text).1.split(|&b| b == b'\n').any(is_ours)
}

/// Reports whether a line includes our file. A line below our comment does so by any path, because the path may have
/// been another one then.
fn is_our_include(line: &[u8], announced: bool, ours: &[String]) -> bool {
    let Some((keyword, argument)) = directive(line) else { return false };
    let Ok(argument) = std::str::from_utf8(argument) else { return false };
    let argument = argument.strip_prefix('"').and_then(|a| a.strip_suffix('"')).unwrap_or(argument);
    keyword.eq_ignore_ascii_case(b"include")
        && (ours.iter().any(|path| path == argument) || announced && argument.ends_with("/ssh_config"))
}

/// The keyword and the rest of a line, `Key value` or `Key=value`.
pub(super) fn directive(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = line.iter().position(|b| b.is_ascii_whitespace() || *b == b'=')?;
    let (keyword, rest) = line.split_at(end);
    let rest = rest.trim_ascii_start();
    Some((keyword, rest.strip_prefix(b"=").unwrap_or(rest).trim_ascii()))
}

/// The user's own `Host` patterns for our names, with their line numbers. Our entries stand above them and win.
pub fn own_entries(text: &[u8]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in mark(text).1.split(|&b| b == b'\n').enumerate() {
        let Some((keyword, patterns)) = directive(line.trim_ascii()) else { continue };
        if keyword.eq_ignore_ascii_case(b"host") {
            let patterns = String::from_utf8_lossy(patterns).into_owned();
            let ours = |p: &str| p.trim_matches('"').to_ascii_lowercase().starts_with(crate::target::PREFIX);
            found.extend(patterns.split_whitespace().filter(|p| ours(p)).map(|p| (number + 1, p.to_owned())));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;
    use proptest::prelude::*;

    use super::{BEGIN, END, INCLUDE, has_block, insert_block, insert_include, own_entries, remove};

    const PATH: &str = "/home/ada/.iximiuz/labctl-ssh-proxy/ssh_config";

    fn ours() -> Vec<String> {
        vec![PATH.into(), "~/.iximiuz/labctl-ssh-proxy/ssh_config".into()]
    }

    fn include(text: &[u8]) -> Vec<u8> {
        insert_include(text, PATH, &ours()).unwrap()
    }

    fn block(text: &[u8]) -> Vec<u8> {
        insert_block(text, "Host playground-x\n  User root\n", &ours()).unwrap()
    }

    fn taken_out(text: &[u8]) -> Vec<u8> {
        remove(text, &ours()).unwrap()
    }

    /// A user's file with about everything in it.
    const RICH: &str = "# mine\n\nForwardAgent no\nUser=\"ada l\"\n\nHost  work *.work  # office\n\tHostName 10.0.0.1\n\
                        Match host \"a,b\" exec \"test -e /x\"\n  Port 2222\nInclude conf.d/*\n\nHost *\n  Compression yes";

    #[test]
    fn what_the_two_forms_look_like() {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        expect_file!["../../tests/golden/ssh_config/include"].assert_eq(&text(include(RICH.as_bytes())));
        expect_file!["../../tests/golden/ssh_config/inline"].assert_eq(&text(block(RICH.as_bytes())));
    }

    #[test]
    fn removal_restores_every_byte() {
        for text in [
            "",
            "\n",
            " \t\n\n ",
            "Host a",
            "Host a\n",
            "Host a\r\n  User b\r\n",
            "Host a\r\n  User b",
            "Host a\n  User b\r\n",
            "\r\n",
            "# \u{e9} 'single' \"double\n",
            RICH,
        ] {
            for edit in [include, block] {
                let edited = edit(text.as_bytes());
                assert_eq!(taken_out(&edited), text.as_bytes(), "{text:?}");
                assert_eq!(edit(&edited), edited, "a second edit changes nothing: {text:?}");
                assert!(edited.ends_with(text.as_bytes()));
            }
            assert_eq!(block(&include(text.as_bytes())), block(text.as_bytes()), "{text:?}");
            assert_eq!(include(&block(text.as_bytes())), include(text.as_bytes()), "{text:?}");
        }
        assert_eq!(taken_out(b"Host \xe9\xff\n"), b"Host \xe9\xff\n");
    }

    #[test]
    fn line_endings_are_the_users() {
        for edit in [include, block] {
            let edited = String::from_utf8(edit(b"Host a\r\n  User b\r\n")).unwrap();
            assert_eq!(edited.matches('\n').count(), edited.matches("\r\n").count());
            assert!(!String::from_utf8(edit(b"Host a\n")).unwrap().contains('\r'));
        }
    }

    #[test]
    fn wherever_ours_was_it_moves_to_the_top_once() {
        let old = format!("{BEGIN}\nHost playground-old\n{END}\n");
        for text in [
            format!("{old}Host a\nHost b\n"),
            format!("Host a\n{old}Host b\n"),
            format!("Host a\nHost b\n{old}"),
            format!("{old}Host a\n{old}Host b\n"),
            format!("Host a\nHost b\n{}", old.trim_end()),
            format!("Host a\n  {BEGIN}\r\n{END}  \nHost b\n"),
            format!("{INCLUDE}\nInclude {PATH}\nHost a\nHost b\n"),
            format!("Host a\n{INCLUDE}\nInclude /somewhere/else/ssh_config\nHost b\n"),
            format!("Host a\nHost b\n{INCLUDE}\n"),
            format!("Host a\n  include \"{PATH}\"\nHost b\n"),
            "Host a\nInclude = ~/.iximiuz/labctl-ssh-proxy/ssh_config\nHost b\n".into(),
        ] {
            for edit in [include, block] {
                assert_eq!(edit(text.as_bytes()), edit(b"Host a\nHost b\n"), "{text}");
            }
            assert_eq!(taken_out(text.as_bytes()), b"Host a\nHost b\n", "{text}");
        }
        for theirs in ["Include other/ssh_config\n", "Include a/ssh_config b\n", "#Include x\n", "IncludeX y\n"] {
            assert_eq!(taken_out(theirs.as_bytes()), theirs.as_bytes());
        }
        let theirs = format!("Include {PATH} /and/another\n");
        assert_eq!(taken_out(theirs.as_bytes()), theirs.as_bytes());
        assert_eq!(taken_out(format!("{INCLUDE}\nInclude conf.d/*\n").as_bytes()), b"Include conf.d/*\n");
    }

    #[test]
    fn markers_that_do_not_pair_up_are_refused() {
        for (text, line) in [
            (format!("Host a\n{BEGIN}\n"), "line 2: a block of labctl-ssh-proxy begins but does not end"),
            (format!("{END}\nHost a\n"), "line 1: a block of labctl-ssh-proxy ends but"),
            (format!("{END}\n{BEGIN}\n"), "line 1"),
            (format!("{BEGIN}\n{BEGIN}\n{END}\n{END}\n"), "line 2: a block of labctl-ssh-proxy begins inside"),
            (format!("{BEGIN}\n{END}\n{BEGIN}"), "line 3"),
        ] {
            let error = remove(text.as_bytes(), &[]).unwrap_err();
            assert!(error.message().contains(line), "{error}");
            assert!(insert_block(text.as_bytes(), "", &[]).is_err());
            assert!(insert_include(text.as_bytes(), "x", &[]).is_err());
        }
        #[cfg(not(windows))]
        assert!(insert_block(b"\xef\xbb\xbfHost a\n", "", &[]).unwrap_err().message().contains("byte order mark"));
    }

    #[cfg(windows)]
    #[test]
    fn a_byte_order_mark_stays_in_front() {
        let text = b"\xef\xbb\xbfHost a\r\n  User b\r\n";
        for edit in [include, block] {
            let edited = edit(text);
            assert!(edited.starts_with(b"\xef\xbb\xbf# ---") && edited.ends_with(&text[3..]), "{edited:?}");
            assert_eq!(edit(&edited), edited);
            assert_eq!(taken_out(&edited), text);
            assert!(!super::is_untouched(&edited));
        }
        assert!(has_block(&block(text)) && own_entries(b"\xef\xbb\xbfHost playground-x\n").len() == 1);
    }

    #[test]
    fn finds_the_users_own_entries_for_our_names() {
        let text = b"Host a playground-x\n host=Playground-*\n# Host playground-c\nHostName playground-d\nHost !playground-e\n";
        assert_eq!(own_entries(text), [(1, "playground-x".into()), (2, "Playground-*".into())]);
        assert!(has_block(&block(b"")) && !has_block(&include(b"")));
    }

    /// Text made of pieces that could confuse the editor, and of arbitrary ones.
    fn pieces(with_ours: bool) -> impl Strategy<Value = Vec<u8>> {
        let plain = prop_oneof![
            3 => prop::collection::vec(any::<u8>(), 0..20),
            2 => prop::sample::select(vec![
                "\n", "\r\n", "\r", "Host *", "  User x", "# ---", "Include ", "BEGIN labctl-ssh-proxy", "\"", "\t",
            ]).prop_map(|s| s.as_bytes().to_vec()),
        ];
        let ours = prop::sample::select(vec![
            format!("{BEGIN}\n"),
            format!("{END}\n"),
            format!("{INCLUDE}\n"),
            format!("Include {PATH}\n"),
        ])
        .prop_map(String::into_bytes);
        let piece = if with_ours { prop_oneof![3 => plain, 1 => ours].boxed() } else { plain.boxed() };
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn edits_never_touch_what_is_not_ours(text in pieces(false)) {
            prop_assume!(!text.starts_with(b"\xef\xbb\xbf"));
            prop_assert_eq!(&taken_out(&text), &text);
            for edit in [include, block] {
                let edited = edit(&text);
                prop_assert!(edited.ends_with(&text));
                prop_assert_eq!(&taken_out(&edited), &text);
                prop_assert_eq!(&edit(&edited), &edited);
            }
        }

        #[test]
        fn whatever_is_there_edits_settle_at_once(text in pieces(true)) {
            let Ok(rest) = remove(&text, &ours()) else {
                prop_assert!(insert_block(&text, "", &ours()).is_err());
                return Ok(());
            };
            // Pieces that come apart form a new line only where there was none before.
            prop_assert!(rest.len() <= text.len());
            if let Ok(edited) = insert_include(&text, PATH, &ours()) {
                prop_assert_eq!(insert_include(&edited, PATH, &ours()).unwrap(), edited.clone());
                prop_assert_eq!(remove(&edited, &ours()).unwrap(), rest);
            }
        }
    }
}
