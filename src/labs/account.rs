//! The account: addresses and credentials, in the file that the official client uses too, so that a login there is one
//! here. Keys of that file which are not ours are kept.

use std::{collections::BTreeMap, env, path::Path, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Kind, Result},
    files,
    labs::address::without_user,
};

pub(super) const BASE_URL: &str = "https://labs.iximiuz.com";
const SESSION_ID: &str = "IXIMIUZ_SESSION_ID";
const ACCESS_TOKEN: &str = "IXIMIUZ_ACCESS_TOKEN";

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The official client's configuration file, as far as it concerns us.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Account {
    #[serde(skip_serializing_if = "String::is_empty")]
    base_url: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_base_url: String,
    session_id: String,
    access_token: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    ssh_identity_file: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    ssh_dir: String,
    #[serde(flatten)]
    rest: BTreeMap<String, serde_json::Value>,
}

impl Account {
    /// Reads the file as it is; a missing one is an account without credentials.
    ///
    /// # Errors
    /// Fails when it cannot be read or is not YAML.
    fn read(path: &Path) -> Result<Account> {
        let text = files::read_text(path)?.unwrap_or_default();
        if text.trim().is_empty() {
            return Ok(Account::default());
        }
        // The parser's own message quotes the line it stumbles over, and that line may hold a token.
        serde_saphyr::from_str(&text).map_err(|_| {
            Error::new(Kind::File, format!("{} is not a valid labctl configuration file (YAML)", path.display()))
                .with_hint("repair it, or move it away and log in again")
        })
    }

    /// Reads the file, and lets `IXIMIUZ_SESSION_ID` and `IXIMIUZ_ACCESS_TOKEN` override it, each by itself.
    ///
    /// # Errors
    /// Fails when it cannot be read or is not YAML.
    pub fn load(path: &Path) -> Result<Account> {
        let mut account = Account::read(path)?;
        account.session_id = variable(SESSION_ID).unwrap_or(account.session_id);
        account.access_token = variable(ACCESS_TOKEN).unwrap_or(account.access_token);
        Ok(account)
    }

    /// Session id and access token of the environment, when both are set.
    pub fn from_environment() -> Option<(String, String)> {
        variable(SESSION_ID).zip(variable(ACCESS_TOKEN))
    }

    /// Writes the credentials into the file, under its lock, 0600, and keeps everything else in it.
    ///
    /// # Errors
    /// Fails when the file cannot be read or written.
    pub fn save_credentials(path: &Path, session_id: &str, access_token: &str) -> Result<()> {
        let _lock = files::Lock::acquire(path)?;
        Account::read(path)?.save(path, session_id, access_token)
    }

    /// Takes the credentials of this session out of the file, in the same way. Those of another session stay.
    ///
    /// # Errors
    /// Fails when the file cannot be read or written.
    pub fn forget_credentials(path: &Path, session_id: &str) -> Result<()> {
        let _lock = files::Lock::acquire(path)?;
        let account = Account::read(path)?;
        if account.session_id == session_id { account.save(path, "", "") } else { Ok(()) }
    }

    fn save(&self, path: &Path, session_id: &str, access_token: &str) -> Result<()> {
        let text = serde_saphyr::to_string(&self.with_credentials(session_id, access_token))
            .map_err(|e| Error::new(Kind::Internal, format!("cannot write the account: {e}")))?;
        // A link made by a dotfiles manager stays a link.
        let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        files::write_private(&target, text.as_bytes())
    }

    /// The same account with other credentials.
    #[must_use]
    pub fn with_credentials(&self, session_id: &str, access_token: &str) -> Account {
        Account { session_id: session_id.into(), access_token: access_token.into(), ..self.clone() }
    }

    /// Session id and access token, if there are any.
    pub fn credentials(&self) -> Option<(&str, &str)> {
        (!self.session_id.is_empty() && !self.access_token.is_empty())
            .then_some((self.session_id.as_str(), self.access_token.as_str()))
    }

    /// The site's address, without a final slash.
    pub fn base_url(&self) -> String {
        let base = match (self.base_url.trim_end_matches('/'), self.api_base_url.trim_end_matches('/')) {
            ("", "") => BASE_URL,
            ("", api) => api.strip_suffix("/api").unwrap_or(api),
            (base, _) => base,
        };
        without_user(base)
    }

    /// The API's address, without a final slash.
    pub fn api_base_url(&self) -> String {
        match self.api_base_url.trim_end_matches('/') {
            "" => format!("{}/api", self.base_url()),
            api => without_user(api),
        }
    }

    /// The private key (or the `.pub` of one in an agent) whose public half goes to machines.
    pub fn identity_file(&self, home: &Path) -> PathBuf {
        let named = |path: &str| match path.strip_prefix("~/") {
            Some(rest) => home.join(rest),
            None => home.join(path),
        };
        match (self.ssh_identity_file.as_str(), self.ssh_dir.as_str()) {
            ("", "") => home.join(".ssh/iximiuz_labs_user"),
            ("", folder) => named(folder).join("iximiuz_labs_user"),
            (file, _) => named(file),
        }
    }
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("api", &self.api_base_url()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Account;

    #[test]
    fn addresses_follow_from_each_other() {
        let read = |text: &str| serde_saphyr::from_str::<Account>(text).unwrap();
        let account = Account::default();
        assert_eq!(account.api_base_url(), "https://labs.iximiuz.com/api");
        let account = read("api_base_url: https://x.example/api/\n");
        assert_eq!(account.base_url(), "https://x.example");
        assert_eq!(account.api_base_url(), "https://x.example/api");
        let account = read("base_url: https://x.example/\n");
        assert_eq!(account.api_base_url(), "https://x.example/api");
    }

    #[test]
    fn the_identity_is_found_by_each_key() {
        let read = |text: &str| serde_saphyr::from_str::<Account>(text).unwrap().identity_file(Path::new("/h"));
        assert_eq!(read("session_id: a\n"), Path::new("/h/.ssh/iximiuz_labs_user"));
        assert_eq!(read("ssh_dir: /d\n"), Path::new("/d/iximiuz_labs_user"));
        assert_eq!(read("ssh_dir: /d\nssh_identity_file: ~/k\n"), Path::new("/h/k"));
    }

    #[test]
    fn a_login_keeps_what_is_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        let text = "plays_dir: /p\nsome_list: [1, two, {three: 3.5}]\nflag: true\nsession_id: old\nversion: '1.0'\n";
        std::fs::write(&path, text).unwrap();
        Account::save_credentials(&path, "new", "12345678901234567890").unwrap();
        let account = Account::load(&path).unwrap();
        assert_eq!(account.credentials(), Some(("new", "12345678901234567890")));
        assert_eq!(account.rest["some_list"], serde_json::json!([1, "two", {"three": 3.5}]));
        assert_eq!(account.rest["flag"], serde_json::json!(true));
        assert_eq!(account.rest["version"], serde_json::json!("1.0"));
        assert_eq!(account.rest["plays_dir"], serde_json::json!("/p"));
    }

    #[test]
    fn a_damaged_file_is_an_error_that_quotes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        std::fs::write(&path, "access_token: [SECRET\n").unwrap();
        let error = Account::load(&path).unwrap_err();
        assert!(!error.to_string().contains("SECRET"), "{error}");
        assert!(Account::save_credentials(&path, "a", "b").is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "access_token: [SECRET\n");
    }
}
