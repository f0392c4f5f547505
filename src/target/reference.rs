//! The meaning of page addresses and paths of the platform's site, as people copy them from a browser. Pure.
//!
//! | text | means |
//! | --- | --- |
//! | `SITE/playgrounds/NAME`, `playgrounds/NAME` | an entry of the catalogue |
//! | `SITE/plays/ID`, and any page of a playground with an id in its path | a playground |
//! | `SITE/challenges/NAME`, `challenges/NAME` | a challenge |
//! | `SITE/tutorials/NAME`, `tutorials/NAME` | a tutorial |
//! | `SITE/courses/COURSE/MODULE/LESSON`, `COURSE/MODULE/LESSON` | a lesson |
//! | `SITE/courses/COURSE/LESSON`, `COURSE/LESSON` | a lesson of a course without modules |
//! | `NAME` | whatever has that name |
//!
//! SITE is the host of the platform's site, with or without `https://` before it. What follows the name in an address (a
//! query, a fragment, a deeper page) is no part of it.

use crate::{
    error::{Error, Kind, Result},
    platform::is_id,
    target::is_label,
};

/// Something on the platform's site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A name, of whatever kind.
    Name(String),
    /// An entry of the catalogue.
    Playground(String),
    /// A playground by its id.
    Play(String),
    /// A challenge.
    Challenge(String),
    /// A tutorial.
    Tutorial(String),
    /// A course, without one of its lessons.
    Course(String),
    /// A lesson of a course.
    Lesson {
        /// The course's name.
        course: String,
        /// The module's name or slug, if one is given.
        module: Option<String>,
        /// The lesson's name or slug.
        lesson: String,
    },
}

/// The hint for an address that leads to nothing that can be started.
const PAGES: &str = "use the address of a challenge, a tutorial, a lesson of a course or a playground";

impl Reference {
    /// Reads a name, a path or a page address. `sites` are the hosts of the platform's site. `None` for a text that is
    /// none of them, which may still be a title.
    ///
    /// # Errors
    /// [`Kind::Usage`] for an address of another site, and for a page of another kind.
    pub fn parse(text: &str, sites: &[&str]) -> Result<Option<Reference>> {
        let text = text.trim();
        let path = text.split(['?', '#']).next().unwrap_or_default();
        let (scheme, path) = match path.split_once("://") {
            Some((scheme, rest)) if ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => {
                (true, rest)
            }
            Some(_) => return Ok(None),
            None => (false, path),
        };
        let mut segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let host = segments.first().map(|host| without_port(host)).unwrap_or_default();
        let is_ours = sites.iter().any(|site| is_same(&without_port(site), &host));
        if scheme || (segments.len() > 1 && (is_ours || is_page(&segments[1..]))) {
            segments.drain(..segments.len().min(1));
            if !is_ours {
                let message = format!("`{}` is not a page of {}", shown(text), sites.join(" or "));
                return Err(Error::new(Kind::Usage, message).with_hint(PAGES));
            }
            let what = format!("`{}` is not a page of anything that can be started", shown(text));
            return of_page(&segments).map(Some).ok_or_else(|| Error::new(Kind::Usage, what).with_hint(PAGES));
        }
        Ok(of_path(&segments, text))
    }
}

/// The reference of a page's path.
fn of_page(segments: &[&str]) -> Option<Reference> {
    let owned = |name: &str| is_label(name).then(|| name.to_owned());
    match segments {
        ["challenges", name, ..] => owned(name).map(Reference::Challenge),
        ["tutorials", name, ..] => owned(name).map(Reference::Tutorial),
        ["courses", course] => owned(course).map(Reference::Course),
        ["courses", course, lesson] => lesson_of(course, None, lesson),
        ["courses", course, module, lesson, ..] => lesson_of(course, Some(module), lesson),
        ["playgrounds" | "plays", rest @ ..] => match rest.iter().find(|segment| is_id(segment)) {
            Some(id) => Some(Reference::Play((*id).to_owned())),
            None if segments[0] == "playgrounds" => owned(rest.first()?).map(Reference::Playground),
            None => None,
        },
        _ => None,
    }
}

fn lesson_of(course: &str, module: Option<&str>, lesson: &str) -> Option<Reference> {
    let fits = is_label(course) && module.is_none_or(is_label) && is_label(lesson);
    let (course, module, lesson) = (course.to_owned(), module.map(str::to_owned), lesson.to_owned());
    fits.then_some(Reference::Lesson { course, module, lesson })
}

/// The reference of a word or of a path without a site.
fn of_path(segments: &[&str], text: &str) -> Option<Reference> {
    if is_page(segments) {
        return of_page(segments);
    }
    // A path as people type it, and no title that happens to have slashes.
    if text != segments.join("/") {
        return None;
    }
    match segments {
        [name] => is_label(name).then(|| Reference::Name((*name).to_owned())),
        [course, lesson] => lesson_of(course, None, lesson),
        [course, module, lesson] => lesson_of(course, Some(module), lesson),
        _ => None,
    }
}

/// True for the path of a page of a known kind.
fn is_page(segments: &[&str]) -> bool {
    matches!(segments, ["challenges" | "tutorials" | "courses" | "playgrounds" | "plays", _, ..])
}

/// The host of an authority in lower case. A port stays unless it is its scheme's own.
fn without_port(authority: &str) -> String {
    let authority = authority.to_ascii_lowercase();
    [":443", ":80"].iter().find_map(|port| authority.strip_suffix(port)).unwrap_or(&authority).to_owned()
}

/// True for two names of the same site. The embedded platform may listen on any port of this computer.
fn is_same(site: &str, host: &str) -> bool {
    let is_here = |name: &str| {
        let name = name.rsplit_once(':').map_or(name, |(name, _)| name);
        matches!(name, "localhost" | "127.0.0.1" | "[::1]")
    };
    site == host || (is_here(site) && is_here(host))
}

/// An address as errors show it: without a user, a query or a fragment, which may be secrets.
fn shown(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) =
        text.split_once("://").map_or(("", text), |(_, rest)| (&text[..text.len() - rest.len()], rest));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    format!("{scheme}{}{path}", authority.rsplit('@').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Reference;
    use crate::error::Kind;

    const SITES: [&str; 2] = ["labs.iximiuz.com", "labs.example.org:8443"];
    const ID: &str = "0123456789abcdef01234567";

    fn read(text: &str) -> Option<Reference> {
        Reference::parse(text, &SITES).unwrap()
    }

    fn lesson(module: Option<&str>) -> Option<Reference> {
        Some(Reference::Lesson { course: "c".into(), module: module.map(Into::into), lesson: "l".into() })
    }

    #[test]
    fn addresses_are_read_as_browsers_show_them() {
        for before in [
            "https://labs.iximiuz.com/",
            "http://LABS.iximiuz.com:443//",
            "labs.iximiuz.com/",
            "labs.example.org:8443/",
            "",
        ] {
            for behind in ["", "/", "?utm=x&y=https://a/b", "#step-3", "/?x#y"] {
                let read = |path: &str| read(&format!("{before}{path}{behind}"));
                assert_eq!(read("challenges/x-1"), Some(Reference::Challenge("x-1".into())), "{before}{behind}");
                assert_eq!(read("tutorials/x"), Some(Reference::Tutorial("x".into())));
                assert_eq!(read("playgrounds/k3s"), Some(Reference::Playground("k3s".into())));
                assert_eq!(read(&format!("plays/{ID}")), Some(Reference::Play(ID.into())));
                assert_eq!(read(&format!("playgrounds/k3s/{ID}")), Some(Reference::Play(ID.into())));
                assert_eq!(read("courses/c/m/l"), lesson(Some("m")));
                assert_eq!(read("courses/c/l"), lesson(None));
                assert_eq!(read("courses/c"), Some(Reference::Course("c".into())));
            }
        }
        assert_eq!(
            read(" https://labs.iximiuz.com/challenges/x/solutions/2\n"),
            Some(Reference::Challenge("x".into()))
        );
        assert_eq!(read("https://labs.iximiuz.com/courses/c/m/l/more"), lesson(Some("m")));
    }

    #[test]
    fn paths_and_names_need_no_site() {
        assert_eq!(read("c/m/l"), lesson(Some("m")));
        assert_eq!(read("c/l"), lesson(None));
        assert_eq!(read("write-a-file"), Some(Reference::Name("write-a-file".into())));
        for title in
            ["", "My box", "a/b/c/d", "/c/l", "c//l", "A/b", "c/l/", "see ftp://x", "a/-b", "x://y", "what?", "c/l#x"]
        {
            assert_eq!(read(title), None, "{title}");
        }
    }

    #[test]
    fn other_sites_and_other_pages_are_refused() {
        for (text, what) in [
            (
                "https://example.com/challenges/x",
                "`https://example.com/challenges/x` is not a page of labs.iximiuz.com or",
            ),
            ("example.com/tutorials/x?token=1", "`example.com/tutorials/x` is not"),
            ("https://ada:secret@labs.iximiuz.com/challenges/x", "`https://labs.iximiuz.com/challenges/x` is not"),
            ("https://labs.iximiuz.com:8443/challenges/x", "is not a page of labs"),
            ("https://labs.iximiuz.com.example.com/challenges/x", "is not a page of labs"),
            ("https://labs.iximiuz.com/", "anything that can be started"),
            ("https://labs.iximiuz.com/roadmaps/docker", "anything that can be started"),
            ("https://labs.iximiuz.com/challenges", "anything that can be started"),
            ("https://labs.iximiuz.com/challenges/A%20b", "anything that can be started"),
            ("https://labs.iximiuz.com/plays/x", "anything that can be started"),
        ] {
            let error = Reference::parse(text, &SITES).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage);
            assert!(error.message().contains(what), "{text}: {error}");
        }
        let here = |text| Reference::parse(text, &["localhost"]);
        assert!(here("http://127.0.0.1:4000/challenges/x").is_ok() && here("https://localhost/challenges/x").is_ok());
        assert!(here("http://localhost.example.com/challenges/x").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".*", path in "(https?://)?(labs.iximiuz.com)?[/a-z?#:@.-]{0,30}") {
            let _ = (Reference::parse(&text, &SITES), Reference::parse(&path, &SITES));
        }

        #[test]
        fn a_name_is_found_again_in_its_address(name in "[a-z0-9][a-z0-9_-]{0,30}", end in "(/|\\?[a-z=&]*|#[a-z/]*)?") {
            let address = format!("https://labs.iximiuz.com/challenges/{name}{end}");
            prop_assert_eq!(read(&address), Some(Reference::Challenge(name)));
        }
    }
}
