//! The report for others: all findings, with the files they are based on. Files with secrets are not read. As a second
//! safeguard, known secrets are removed from the finished text.

use std::{env, fs, path::Path};

use super::Check;
use crate::{
    app::App,
    files,
    labs::account::Account,
    records::{journal, live},
    ssh_config::{client::Ssh, state::State},
};

/// The environment variables that may name an HTTP proxy.
const PROXIES: [&str; 6] = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
/// Number of logs in the report, the newest ones.
const LOGS: usize = 5;
/// Number of bytes kept of each log, from its end.
const LOG_BYTES: usize = 64 * 1024;

/// Writes the report.
pub(super) async fn text(app: &App, checks: &[Check]) -> String {
    let folders = &app.folders;
    let mut text = String::from("A report by `labctl-ssh-proxy doctor --report`.\n");
    let mut part = |title: &str, body: &str| {
        text += &format!("\n== {title}\n{}\n", body.trim_end());
    };
    let version = env!("CARGO_PKG_VERSION");
    part("program", &format!("{version} on {} {}, platform {:?}", env::consts::OS, env::consts::ARCH, app.platform));
    part("examination", &serde_json::to_string_pretty(checks).unwrap_or_default());
    part("ssh", &Ssh::system().version().await.unwrap_or_else(|e| e.to_string()));
    part("settings", &read(&folders.settings));
    part("ssh configuration of labctl-ssh-proxy", &read(&folders.ssh_config()));
    part("record of entries", &read(&State::path(folders)));
    if let Ok(Some(state)) = State::load(folders)
        && let (Some(entry), Some(managed)) = (state.machines().next(), state.files.first())
    {
        let options = Ssh::system().options_in_force(Some(&managed.file), &entry.host).await;
        part(&format!("ssh -G {}", entry.host), &options.unwrap_or_else(|e| e.to_string()));
    }
    part("known hosts", &read(&folders.known_hosts(app.platform)));
    part("connections", &serde_json::to_string_pretty(&live::all(folders)).unwrap_or_default());
    let memory = app.memory();
    for label in memory.labels() {
        part(&format!("memory of {label}"), &read(&memory.path(&label)));
    }
    for name in PROXIES.into_iter().chain(["NO_PROXY", "no_proxy", "SSH_AUTH_SOCK", "SHELL"]) {
        if let Ok(value) = env::var(name) {
            part(&format!("environment {name}"), &value);
        }
    }
    let mut logs: Vec<_> = fs::read_dir(journal::folder(folders))
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    logs.sort_unstable();
    for log in logs.iter().rev().take(LOGS) {
        let body = read(log);
        let from = body.len().saturating_sub(LOG_BYTES);
        let from = (from..body.len()).find(|i| body.is_char_boundary(*i)).unwrap_or(body.len());
        part(&format!("log {}", log.display()), &body[from..]);
    }
    without_secrets(text, app)
}

fn read(path: &Path) -> String {
    match files::read_text(path) {
        Ok(text) => text.unwrap_or_else(|| format!("({} does not exist)", path.display())),
        Err(error) => format!("({})", error.message()),
    }
}

/// Removes the credentials, and the user and password in URLs, wherever they occur in the text.
fn without_secrets(mut text: String, app: &App) -> String {
    if let Ok(account) = Account::load(&app.folders.account())
        && let Some((id, token)) = account.credentials()
    {
        text = text.replace(token, "[removed]").replace(id, "[removed]");
    }
    // A proxy's address may have no scheme, so it is handled apart from URLs.
    let proxies = PROXIES.iter().filter_map(|name| env::var(name).ok()).chain(app.settings.proxy.clone());
    for proxy in proxies {
        let address = proxy.split_once("://").map_or(proxy.as_str(), |(_, address)| address);
        if let Some((user, _)) = address.rsplit_once('@') {
            text = text.replace(user, "[removed]");
        }
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out += before;
        let end =
            after.find(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'' | '?' | '#')).unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(sign) => {
                out += "[removed]";
                &after[sign..]
            }
            None => after,
        };
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::without_secrets;
    use crate::{
        app::App,
        platform::Platform,
        settings::{Folders, Settings},
    };

    #[test]
    fn credentials_and_passwords_are_taken_out() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().to_owned();
        let folders = Folders { home: root.clone(), settings: root.join("s"), root };
        let account = folders.account();
        std::fs::create_dir_all(account.parent().unwrap()).unwrap();
        std::fs::write(&account, "session_id: SESSION\naccess_token: TOKEN\n").unwrap();
        let settings = Settings { proxy: Some("ada:pass2@proxy:3128".into()), ..Settings::default() };
        let app = App { folders, settings, platform: Platform::Labs };
        assert_eq!(without_secrets("proxy: ada:pass2@proxy:3128".into(), &app), "proxy: [removed]@proxy:3128");
        let text = "a TOKEN b SESSION\nproxy: http://me:pass@proxy:3128/ \"https://x@y\" https://plain/a@b".to_owned();
        let expected =
            "a [removed] b [removed]\nproxy: http://[removed]@proxy:3128/ \"https://[removed]@y\" https://plain/a@b";
        assert_eq!(without_secrets(text, &app), expected);
    }
}
