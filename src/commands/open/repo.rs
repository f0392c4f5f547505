//! Repositories to clone, in the form of `open --repo`. Pure.

use std::str::FromStr;

/// A repository to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repo {
    /// The URL to clone from.
    pub url: String,
    /// The destination: absolute, or relative to the home folder.
    pub folder: String,
}

impl FromStr for Repo {
    type Err = String;

    /// Parses `URL[:DIR]`. URLs contain colons themselves: those before the path in `scheme://host:port/path`, and the
    /// first one in `user@host:path`.
    fn from_str(text: &str) -> Result<Repo, String> {
        let path = match text.split_once("://") {
            Some((scheme, rest)) => match rest.find('/') {
                Some(slash) => scheme.len() + 3 + slash,
                None => return Err(format!("`{text}` does not name a repository")),
            },
            None => match (text.find(':'), text.find('/')) {
                (Some(colon), slash) if slash.is_none_or(|slash| colon < slash) => colon + 1,
                _ => 0,
            },
        };
        let (url, folder) = match text[path..].rfind(':') {
            Some(colon) => (&text[..path + colon], &text[path + colon + 1..]),
            None => (text, ""),
        };
        let name = url.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or_default();
        let name = name.strip_suffix(".git").unwrap_or(name);
        let folder = if folder.is_empty() { name } else { folder };
        if url.is_empty() || folder.is_empty() || url.starts_with('-') {
            return Err(format!("`{text}` does not name a repository"));
        }
        if text.chars().any(char::is_control) {
            return Err("a repository's address cannot have control characters".into());
        }
        Ok(Repo { url: url.into(), folder: folder.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::Repo;

    #[test]
    fn repositories_are_read_as_git_reads_them() {
        for (text, url, folder) in [
            ("https://github.com/a/b.git", "https://github.com/a/b.git", "b"),
            ("https://github.com/a/b:src/b", "https://github.com/a/b", "src/b"),
            ("https://host:8080/a/b.git:x", "https://host:8080/a/b.git", "x"),
            ("ssh://git@host:22/a/b", "ssh://git@host:22/a/b", "b"),
            ("git@github.com:a/b.git", "git@github.com:a/b.git", "b"),
            ("git@github.com:b", "git@github.com:b", "b"),
            ("git@github.com:a/b.git:/srv/b", "git@github.com:a/b.git", "/srv/b"),
            ("/srv/git/b.git", "/srv/git/b.git", "b"),
            ("/srv/git/b.git:c", "/srv/git/b.git", "c"),
            ("git://127.0.0.1:9418/b", "git://127.0.0.1:9418/b", "b"),
        ] {
            assert_eq!(text.parse(), Ok(Repo { url: url.into(), folder: folder.into() }), "{text}");
        }
        for bad in ["", "https://github.com", "-x/y", "--upload-pack=x", "a\nb"] {
            assert!(bad.parse::<Repo>().is_err(), "{bad:?}");
        }
    }
}
