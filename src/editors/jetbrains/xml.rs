//! Edits of `sshConfigs.xml`. A streaming reader finds the places; the text itself is spliced, so that everything that
//! is not ours comes out as the product wrote it.
//!
//! An entry of ours is known by its id, which follows from its host name. So a second run finds it again, even if the
//! product has added to it or moved it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::Range,
};

use quick_xml::{
    Reader, XmlVersion,
    events::{BytesStart, Event},
};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::{
    editors::settings_file::Format,
    error::{Error, Kind, Result},
    ssh_config::entries::Entry,
    target,
};

/// The namespace of our entries' ids (RFC 9562, 5.5): a random UUID that must never change.
const NAMESPACE: [u8; 16] =
    [0x5c, 0x1d, 0x0a, 0x7e, 0x93, 0xb2, 0x4f, 0x0e, 0xa8, 0x6b, 0x2f, 0x71, 0xd4, 0xc9, 0x3e, 0x58];

/// The elements on the way to an entry, from the outermost.
const PATH: [&str; 3] = ["application", "component", "configs"];
/// The name of the component.
const COMPONENT: &str = "SshConfigs";
/// The byte order mark with which some programs begin a UTF-8 file.
const MARK: char = '\u{feff}';
/// One entry.
const ENTRY: &str = "sshConfig";

/// The id of our entry for a host, a UUID of version 5.
pub fn id(host: &str) -> String {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[&NAMESPACE, host.as_bytes()].concat());
    let mut bytes: Vec<u8> = hash.as_ref()[..16].to_vec();
    bytes[6] = bytes[6] & 0x0f | 0x50;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// The form of our entries in that file.
#[derive(Debug, Default)]
pub struct SshConfigs {
    /// The names that we have given to hosts. Any other is the user's.
    pub names: BTreeMap<String, BTreeSet<String>>,
}

impl Format for SshConfigs {
    fn set(&self, text: &str, entries: &[Entry]) -> Result<String> {
        let scan = Scan::of(text)?;
        let wanted: HashMap<(&str, &str), &str> = entries
            .iter()
            .map(|e| ((e.host.as_str(), e.user.as_str()), e.alias.as_deref().unwrap_or_default()))
            .collect();
        let (ours, theirs): (Vec<&Found>, Vec<&Found>) = scan.entries.iter().partition(|found| found.is_ours());
        let (kept, gone): (Vec<&Found>, Vec<&Found>) = ours.into_iter().partition(|found| {
            let alias = wanted.get(&(found.host.as_str(), found.user.as_str()));
            alias.is_some_and(|alias| found.custom == *alias || self.is_named_by_its_user(found))
        });
        let there: HashSet<&str> = kept.iter().chain(&theirs).map(|found| found.host.as_str()).collect();
        let missing = entries.iter().filter(|entry| !there.contains(entry.host.as_str()));
        let new = missing.map(element).collect::<Result<Vec<String>>>()?;
        let spans: Vec<Range<usize>> = gone.iter().map(|found| found.span.clone()).collect();
        Ok(scan.edit(text, &spans, &new))
    }

    fn repeat(&self, text: &str, current: &str) -> Result<String> {
        let ours = Scan::of(current)?.entries.into_iter().filter(Found::is_ours);
        let ours: Vec<String> = ours.map(|found| current[found.span].to_owned()).collect();
        Ok(Scan::of(text)?.edit(text, &[], &ours))
    }
}

impl SshConfigs {
    /// True for a name that the user has given in the product.
    fn is_named_by_its_user(&self, found: &Found) -> bool {
        let is_ours = || self.names.get(&found.host).is_some_and(|names| names.contains(&found.custom));
        !found.custom.is_empty() && !is_ours()
    }
}

/// The hosts of our entries in `text`.
///
/// # Errors
/// [`Kind::File`] when the text is damaged.
pub fn hosts(text: &str) -> Result<Vec<String>> {
    Ok(Scan::of(text)?.entries.into_iter().filter(Found::is_ours).map(|found| found.host).collect())
}

/// One entry as the products write it: all options come from the ssh configuration.
fn element(entry: &Entry) -> Result<String> {
    // Both are of letters that mean nothing in XML.
    target::Target::parse(&entry.host)?;
    let Some(user) = target::user(Some(&entry.user))? else {
        return Err(Error::new(Kind::Internal, format!("the entry for {} has no user", entry.host)));
    };
    let (host, id) = (&entry.host, id(&entry.host));
    let Some(alias) = &entry.alias else {
        return Ok(format!(
            r#"<{ENTRY} authType="OPEN_SSH" host="{host}" id="{id}" port="22" nameFormat="DESCRIPTIVE" username="{user}" useOpenSSHConfig="true" />"#
        ));
    };
    // The host stays the same, because projects and recent connections are bound to it. The name is written twice, as
    // the products do: brevdev/brev-cli's makeJetbrainsConfigEntry has the same.
    entry.check()?;
    Ok(format!(
        r#"<{ENTRY} authType="OPEN_SSH" host="{host}" id="{id}" port="22" customName="{alias}" nameFormat="CUSTOM" username="{user}" useOpenSSHConfig="true"><option name="customName" value="{alias}" /></{ENTRY}>"#
    ))
}

/// An entry that is in the file.
#[derive(Debug)]
struct Found {
    span: Range<usize>,
    host: String,
    user: String,
    id: String,
    /// The name that the product shows, unless it makes one of host and user.
    custom: String,
}

impl Found {
    fn is_ours(&self) -> bool {
        self.id == id(&self.host)
    }
}

/// The place for new entries.
#[derive(Debug)]
enum Place {
    /// There is no element at all.
    Nowhere,
    /// Behind this byte, as the last children of an open element.
    Behind(usize),
    /// Into this element, which has no end tag.
    Empty(Range<usize>),
}

/// The places in a file.
#[derive(Debug)]
struct Scan {
    entries: Vec<Found>,
    place: Place,
    /// The number of elements of [`PATH`] that the file has.
    depth: usize,
    newline: &'static str,
}

/// An element that has begun.
struct Open {
    start: usize,
    /// The number of the element of [`PATH`], from 1; 0 for all others.
    level: usize,
    found: Option<Found>,
}

impl Scan {
    fn of(text: &str) -> Result<Scan> {
        let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
        let mut scan = Scan { entries: Vec::new(), place: Place::Nowhere, depth: 0, newline };
        if text.trim().is_empty() {
            return Ok(scan);
        }
        // The reader leaves a byte order mark out of its count.
        let mark = if text.starts_with(MARK) { MARK.len_utf8() } else { 0 };
        let position = |reader: &Reader<&[u8]>| mark + position(reader);
        let mut reader = Reader::from_str(text);
        reader.config_mut().check_comments = true;
        let mut open: Vec<Open> = Vec::new();
        let mut done = false;
        loop {
            let start = position(&reader);
            let event = reader.read_event().map_err(|e| damaged(position(&reader), &e.to_string()))?;
            let end = position(&reader);
            match event {
                Event::Start(tag) => {
                    let (level, found) = scan.begin(&tag, &open, start..end, done)?;
                    if level > scan.depth {
                        (scan.depth, scan.place) = (level, Place::Behind(end));
                    }
                    open.push(Open { start, level, found });
                }
                Event::Empty(tag) => {
                    let (level, found) = scan.begin(&tag, &open, start..end, done)?;
                    if level > scan.depth {
                        (scan.depth, scan.place) = (level, Place::Empty(start..end));
                    } else {
                        scan.finish(&open, end);
                    }
                    scan.entries.extend(found);
                    done |= open.is_empty();
                }
                Event::End(_) => {
                    let Some(last) = open.pop() else { return Err(damaged(start, "an end tag without a start tag")) };
                    scan.entries.extend(last.found.map(|found| Found { span: last.start..end, ..found }));
                    scan.finish(&open, end);
                    done |= open.is_empty();
                }
                Event::Text(_) if open.is_empty() && !text[start..end].trim_matches(is_margin).is_empty() => {
                    return Err(damaged(start, "text outside the root element"));
                }
                Event::CData(_) | Event::GeneralRef(_) if open.is_empty() => {
                    return Err(damaged(start, "text outside the root element"));
                }
                Event::Text(_) | Event::CData(_) | Event::GeneralRef(_) => {}
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
                Event::Eof if open.is_empty() && done => return Ok(scan),
                Event::Eof => return Err(damaged(end, "it ends unexpectedly")),
            }
        }
    }

    /// The meaning of a tag: its level, and its entry if it is one.
    fn begin(
        &self,
        tag: &BytesStart<'_>,
        open: &[Open],
        span: Range<usize>,
        done: bool,
    ) -> Result<(usize, Option<Found>)> {
        let (host, user, id, custom) = (String::new(), String::new(), String::new(), String::new());
        let mut found = Found { span: span.clone(), host, user, id, custom };
        let (mut name, mut format) = (String::new(), String::new());
        for attribute in tag.attributes() {
            let bad = |e: &dyn std::fmt::Display| damaged(span.start, &e.to_string());
            let attribute = attribute.map_err(|e| bad(&e))?;
            let value = attribute.normalized_value(XmlVersion::default()).map_err(|e| bad(&e))?.into_owned();
            match attribute.key.as_ref() {
                "host" => found.host = value,
                "username" => found.user = value,
                "id" => found.id = value,
                "name" => name = value,
                "customName" => found.custom = value,
                "nameFormat" => format = value,
                _other => {}
            }
        }
        if format != "CUSTOM" {
            found.custom.clear();
        }
        let parent = open.last().map_or(0, |parent| parent.level);
        if open.is_empty() {
            if done {
                return Err(damaged(span.start, "a second root element"));
            }
            if tag.name().as_ref() != PATH[0] {
                return Err(damaged(span.start, &format!("the root element is not `{}`", PATH[0])));
            }
        } else if parent == 0 {
            return Ok((0, None));
        }
        let is_next =
            PATH.get(parent).is_some_and(|next| tag.name().as_ref() == *next) && (parent != 1 || name == COMPONENT);
        let is_entry = parent == PATH.len() && tag.name().as_ref() == ENTRY;
        Ok((if is_next { parent + 1 } else { 0 }, is_entry.then_some(found)))
    }

    /// Notes the end of a child, because new entries go behind the last one.
    fn finish(&mut self, open: &[Open], end: usize) {
        let in_place = open.last().is_some_and(|parent| parent.level == self.depth && self.depth > 0);
        if let Place::Behind(at) = &mut self.place
            && in_place
        {
            *at = end;
        }
    }

    /// `text` without the ranges in `gone`, and with `new` behind the last entry.
    fn edit(&self, text: &str, gone: &[Range<usize>], new: &[String]) -> String {
        let mut splices: Vec<(Range<usize>, String)> =
            gone.iter().map(|span| (with_margin(text, span), String::new())).collect();
        if !new.is_empty() {
            splices.push(self.insertion(text, new));
        }
        // An insertion behind an entry that goes comes after its removal.
        splices.sort_by_key(|(span, _)| (span.start, span.end));
        let mut edited = String::with_capacity(text.len() + 200 * new.len());
        let mut at = 0;
        for (span, with) in splices {
            edited.push_str(&text[at..span.start]);
            edited.push_str(&with);
            at = span.end;
        }
        edited + &text[at..]
    }

    /// The insertion and its place, with the elements that lead there.
    fn insertion(&self, text: &str, new: &[String]) -> (Range<usize>, String) {
        let line = |level: usize, words: &str| format!("{}{}{words}", self.newline, "  ".repeat(level));
        let mut lines = String::new();
        for (level, name) in PATH.iter().enumerate().skip(self.depth) {
            let attribute = if level == 1 { format!(" name=\"{COMPONENT}\"") } else { String::new() };
            lines += &line(level, &format!("<{name}{attribute}>"));
        }
        for element in new {
            lines += &line(PATH.len(), element);
        }
        for (level, name) in PATH.iter().enumerate().skip(self.depth).rev() {
            lines += &line(level, &format!("</{name}>"));
        }
        match &self.place {
            Place::Nowhere => (0..text.len(), lines.trim_start().to_owned()),
            Place::Behind(at) => (*at..*at, lines),
            Place::Empty(span) => {
                let level = self.depth - 1;
                let tag = text[span.clone()].trim_end_matches("/>").trim_end();
                (span.clone(), format!("{tag}>{lines}{}", line(level, &format!("</{}>", PATH[level]))))
            }
        }
    }
}

/// An element with the space in front of it, which is what an insertion begins with.
fn with_margin(text: &str, span: &Range<usize>) -> Range<usize> {
    text[..span.start].trim_end_matches([' ', '\t', '\r', '\n']).len()..span.end
}

fn is_margin(c: char) -> bool {
    c.is_whitespace() || c == MARK
}

fn position(reader: &Reader<&[u8]>) -> usize {
    // It was a length in memory.
    usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX)
}

fn damaged(at: usize, why: &str) -> Error {
    Error::new(Kind::File, format!("the XML is damaged at byte {at}: {why}"))
        .with_hint("nothing was changed; repair the file, or delete it, and the product writes a new one")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use expect_test::expect_file;
    use proptest::prelude::*;

    use super::{SshConfigs, hosts, id};
    use crate::{editors::settings_file::Format, platform::Platform, ssh_config::entries::Entry};

    fn entry(host: &str, user: &str) -> Entry {
        Entry {
            host: host.into(),
            user: user.into(),
            platform: Platform::Labs,
            title: "a <title> & more".into(),
            alias: None,
            listener: None,
        }
    }

    fn two() -> Vec<Entry> {
        vec![entry("playground-0123456789abcdef01234567", "laborant"), entry("playground-shell", "root")]
    }

    /// As a product wrote it, with a person's own entries.
    const THEIRS: &str = r#"<application>
  <component name="SshConfigs">
    <configs>
      <sshConfig host="build.example" id="f72d6499-1376-47df-b274-94de782a7dd2" keyPath="$USER_HOME$/.ssh/a &amp; b" port="2225" customName="build" nameFormat="CUSTOM" username="ada">
        <option name="customName" value="build" />
      </sshConfig>
      <sshConfig authType="PASSWORD" host="old.example" id="1" port="22" username="root" />
    </configs>
  </component>
  <component name="Other"><configs /></component>
</application>"#;

    const SHAPES: [&str; 14] = [
        THEIRS,
        "<application>\n  <component name=\"SshConfigs\">\n    <configs>\n    </configs>\n  </component>\n</application>",
        "<application>\n  <component name=\"SshConfigs\">\n    <configs />\n  </component>\n</application>\n",
        "<application>\n  <component name=\"SshConfigs\" />\n</application>",
        "<application>\n  <component name=\"SshConfigs\">\n    <option name=\"x\" value=\"y\" />\n  </component>\n</application>",
        "<application />",
        "<application></application>",
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<application>\r\n  <component name=\"Z\">\r\n    <x/>\r\n  </component>\r\n</application>\r\n",
        "<application><component name=\"SshConfigs\"><configs></configs></component></application>",
        "<application><!-- é > --><component name='SshConfigs'><configs><!-- <sshConfig/> --></configs></component></application>",
        "<application><a><component name=\"SshConfigs\"><configs/></component></a></application>",
        "<application><component name=\"SshConfigs\"><configs x = '>' /></component></application>",
        "\u{feff}<application>\n  <component name=\"SshConfigs\">\n    <configs />\n  </component>\n</application>",
        "",
    ];

    #[test]
    fn what_it_looks_like() {
        let set = |text| SshConfigs::default().set(text, &two()).unwrap();
        expect_file!["../../../tests/golden/jetbrains/new.xml"].assert_eq(&set(""));
        expect_file!["../../../tests/golden/jetbrains/beside-theirs.xml"].assert_eq(&set(THEIRS));
        expect_file!["../../../tests/golden/jetbrains/empty-configs.xml"].assert_eq(&set(SHAPES[2]));
        // It keeps the file's line ends. The golden one has none that an editor or git would change.
        let windows = set(SHAPES[7]);
        assert_eq!(windows.matches('\n').count(), windows.matches("\r\n").count());
        let unix = windows.replace("\r\n", "\n");
        expect_file!["../../../tests/golden/jetbrains/other-component.xml"].assert_eq(&unix);
    }

    #[test]
    fn ids_never_change() {
        assert_eq!(id("playground-shell"), id("playground-shell"));
        expect_test::expect!["8d7556cd-0657-5bfc-a64a-4b74072721ea"].assert_eq(&id("playground-shell"));
    }

    #[test]
    fn a_second_run_changes_nothing_and_repeating_leads_back() {
        for text in SHAPES {
            let once = SshConfigs::default().set(text, &two()).unwrap();
            assert_eq!(hosts(&once).unwrap(), ["playground-0123456789abcdef01234567", "playground-shell"], "{text}");
            assert_eq!(SshConfigs::default().set(&once, &two()).unwrap(), once, "{text}");
            assert_eq!(SshConfigs::default().repeat(text, &once).unwrap(), once, "{text}");
            let none = SshConfigs::default().set(&once, &[]).unwrap();
            assert!(hosts(&none).unwrap().is_empty());
            assert_eq!(SshConfigs::default().set(&none, &[]).unwrap(), none);
            // In two steps as in one.
            let first = SshConfigs::default().set(text, &two()[..1]).unwrap();
            assert_eq!(SshConfigs::default().set(&first, &two()).unwrap(), once, "{text}");
        }
        for text in [THEIRS, SHAPES[1], SHAPES[8]] {
            let once = SshConfigs::default().set(text, &two()).unwrap();
            assert_eq!(SshConfigs::default().set(&once, &[]).unwrap(), text, "without any backup");
        }
    }

    #[test]
    fn what_a_product_adds_to_ours_stays_and_what_is_gone_goes() {
        let once = SshConfigs::default().set(THEIRS, &two()).unwrap();
        let added = once.replace("username=\"laborant\"", "connectionConfig=\"{}\" username=\"laborant\"");
        assert_eq!(SshConfigs::default().set(&added, &two()).unwrap(), added);
        let fewer = SshConfigs::default().set(&added, &two()[..1]).unwrap();
        assert!(fewer.contains("connectionConfig") && !fewer.contains("playground-shell"));
        let other_user = [entry("playground-shell", "ada")];
        let changed = SshConfigs::default().set(&once, &other_user).unwrap();
        assert_eq!(changed, SshConfigs::default().set(THEIRS, &other_user).unwrap());
    }

    /// The host stays, and a name that the user has given in the product does, too.
    #[test]
    fn an_alias_is_the_name_that_the_product_shows() {
        let called = |alias: &str| vec![Entry { alias: Some(alias.into()), ..two().remove(0) }];
        let names = BTreeMap::from([(two()[0].host.clone(), ["my-lab", "my-lab-2.node-01"].map(str::to_owned).into())]);
        let ours = SshConfigs { names };
        let plain = ours.set(THEIRS, &two()[..1]).unwrap();
        let named = ours.set(&plain, &called("my-lab")).unwrap();
        assert!(named.contains("customName=\"my-lab\" nameFormat=\"CUSTOM\" username=\"laborant\""), "{named}");
        assert_eq!(ours.set(&named, &called("my-lab")).unwrap(), named);
        assert_eq!(hosts(&named).unwrap(), hosts(&plain).unwrap());
        let renamed = ours.set(&named, &called("my-lab-2.node-01")).unwrap();
        assert!(renamed.contains("value=\"my-lab-2.node-01\"") && !renamed.contains("my-lab\""), "{renamed}");
        assert_eq!(ours.set(&renamed, &two()[..1]).unwrap(), plain);
        for name in ["My own", "prod"] {
            let by_hand = named.replace("my-lab", name);
            assert_eq!(ours.set(&by_hand, &called("my-lab")).unwrap(), by_hand);
            assert_eq!(ours.set(&by_hand, &two()[..1]).unwrap(), by_hand);
        }
        assert_eq!(ours.set(&named, &[]).unwrap(), THEIRS);
        assert!(SshConfigs::default().set("", &called("x\"/>")).is_err());
    }

    #[test]
    fn nothing_is_added_for_a_host_of_theirs() {
        let theirs = THEIRS.replace("old.example", "playground-shell");
        let set = SshConfigs::default().set(&theirs, &two()).unwrap();
        assert_eq!(set.matches("playground-shell").count(), 1);
        assert_eq!(SshConfigs::default().set(&set, &[]).unwrap(), theirs);
    }

    #[test]
    fn damaged_files_are_left_alone() {
        for text in [
            "<application>",
            "<application></applicatio>",
            "<application/><application/>",
            "<project version=\"4\"/>",
            "<application><component name=\"SshConfigs></application>",
            "<application a=\"1\" a=\"2\"/>",
            "<application>&#xffffffff;<x y=\"&nope;\"/></application>",
            "half a file",
            "<application/> and more",
            "<!-- only a comment -->",
            "{}",
        ] {
            let error = SshConfigs::default().set(text, &two()).unwrap_err();
            assert!(error.message().contains("the XML is damaged"), "{text}: {error}");
        }
        assert!(SshConfigs::default().set("", &[entry("playground-x\"/>", "root")]).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[<>/a-z\"=' &;\n]{0,60}") {
            let _ = SshConfigs::default().set(&text, &two());
        }

        #[test]
        fn a_cut_or_changed_file_is_refused_or_edited_reversibly(at in 0..THEIRS.len(), cut in 0..20_usize) {
            let end = (at + cut).min(THEIRS.len());
            let text = format!("{}{}", &THEIRS[..at], &THEIRS[end..]);
            if let Ok(once) = SshConfigs::default().set(&text, &two()) {
                prop_assert_eq!(SshConfigs::default().set(&once, &two()).unwrap(), once.clone());
                prop_assert_eq!(SshConfigs::default().repeat(&text, &once).unwrap(), once);
            }
        }
    }
}
