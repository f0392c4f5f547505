//! The check that a readable name means no host of the user's: an alias stands in ssh's configuration before the user's
//! own lines, so it would hide one.

use std::{
    collections::HashSet,
    env,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{net::lookup_host, time::timeout};

use super::{
    client::{Ssh, value},
    edit, spellings,
    state::State,
};
use crate::{
    files, os,
    settings::{Folders, HOSTS_VARIABLE},
    ssh::known_hosts::line::{fits, names_host},
};

/// The limit for the name service.
const PATIENCE: Duration = Duration::from_secs(2);
/// The deepest Include that ssh follows.
const DEPTH: usize = 16;

/// The result of a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No host has one of the names.
    Free,
    /// The same, but the name service does not tell: the reason, as the end of a sentence about it.
    Unknown(&'static str),
    /// A host has one of the names: the end of a sentence that begins with the name.
    Taken(String, String),
}

/// Looks for `names` in the user's ssh configuration, known hosts, the hosts file, and then the name service.
pub(crate) async fn search(folders: &Folders, names: &[String]) -> Verdict {
    let configuration = configuration(folders);
    let taken = |(name, why): (&String, String)| Verdict::Taken(name.clone(), why);
    if let Some(found) = names.iter().find_map(|name| Some((name, named_by(&configuration, name)?))) {
        return taken(found);
    }
    let replacement = env::var_os(HOSTS_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let hosts = replacement.clone().unwrap_or_else(os::hosts_file);
    let text = files::read_text(&hosts).ok().flatten().unwrap_or_default();
    if let Some(name) = names.iter().find(|name| is_in_hosts_file(&text, name)) {
        return taken((name, format!("stands in {}", hosts.display())));
    }
    // The user's configuration means none of the names, so one question serves them all.
    for path in known_hosts_files(folders, names.first().map_or("", |name| name)).await {
        let Ok(Some(contents)) = files::read(&path) else { continue };
        if let Some(name) = names.iter().find(|name| names_host(&contents, name)) {
            return taken((name, format!("stands in {}", path.display())));
        }
    }
    if replacement.is_some() {
        return Verdict::Free;
    }
    ask(names, async |name| {
        let answer = timeout(PATIENCE, lookup_host((name.as_str(), 0))).await.ok()?;
        Some(answer.map_or_else(|_| Vec::new(), |found| found.map(|address| address.ip()).collect()))
    })
    .await
}

/// Reads the user's ssh configuration once, and returns a function of a name: the pattern, other than `*`, by which the
/// configuration means it, and its file, as the end of a sentence.
pub(crate) fn in_configuration(folders: &Folders) -> impl Fn(&str) -> Option<String> {
    let configuration = configuration(folders);
    move |name| named_by(&configuration, name)
}

/// Asks the name service, which `addresses` stands for: `None` is no answer in time. A name that has the addresses of a
/// random one beside it has them because the service answers everything.
async fn ask(names: &[String], addresses: impl AsyncFn(String) -> Option<Vec<IpAddr>>) -> Verdict {
    let of_random = async |name: &str| {
        let domain = name.split_once('.').map_or_else(String::new, |(_, domain)| format!(".{domain}"));
        addresses(format!("x{:016x}{domain}", fastrand::u64(..))).await
    };
    let asked = async |name: &String| tokio::join!(addresses(name.clone()), of_random(name));
    let answers = join_all(names.iter().map(|name| asked(name))).await;
    let mut verdict = Verdict::Free;
    for (name, (found, random)) in names.iter().zip(answers) {
        let Some(found) = found else {
            verdict = Verdict::Unknown("did not answer in time");
            continue;
        };
        let random = random.unwrap_or_default();
        match found.first() {
            None => {}
            Some(address) if random.is_empty() || !found.iter().all(|one| random.contains(one)) => {
                return Verdict::Taken(name.clone(), format!("resolves to {}", shown(*address)));
            }
            Some(_) => verdict = Verdict::Unknown("answers for every name"),
        }
    }
    verdict
}

fn shown(address: IpAddr) -> String {
    match address {
        IpAddr::V4(Ipv4Addr::LOCALHOST) => "this computer".to_owned(),
        address => address.to_string(),
    }
}

/// Reports whether a hosts file (hosts(5)) has a name.
fn is_in_hosts_file(text: &str, name: &str) -> bool {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines.flat_map(|line| line.split_whitespace().skip(1)).any(|host| host.eq_ignore_ascii_case(name))
}

/// The known_hosts files of the user and of the system, and those that their configuration has for this host.
async fn known_hosts_files(folders: &Folders, name: &str) -> Vec<PathBuf> {
    let user = folders.home.join(".ssh");
    let system = os::ssh_folder();
    let mut all: Vec<PathBuf> = ["known_hosts", "known_hosts2"].iter().map(|file| user.join(file)).collect();
    all.extend(["ssh_known_hosts", "ssh_known_hosts2"].iter().map(|file| system.join(file)));
    let file = user.join("config");
    if file.exists()
        && let Ok(options) = Ssh::system().options(&file, name).await
    {
        let named = ["userknownhostsfile", "globalknownhostsfile"].into_iter().filter_map(|key| value(&options, key));
        let named = named.flat_map(str::split_whitespace);
        all.extend(
            named.map(|path| path.strip_prefix("~/").map_or_else(|| path.into(), |rest| folders.home.join(rest))),
        );
    }
    let ours = Vec::from(crate::platform::Platform::ALL.map(|platform| folders.known_hosts(platform)));
    let mut seen = HashSet::new();
    all.retain(|path| !ours.contains(path) && seen.insert(path.clone()));
    all
}

/// A Host line, or a Match line about hosts, of the user's.
struct Patterns {
    file: PathBuf,
    keyword: &'static str,
    patterns: Vec<String>,
}

/// The patterns of the user's and the system's ssh configuration, without ours.
fn configuration(folders: &Folders) -> Vec<Patterns> {
    let user = folders.home.join(".ssh");
    let system = os::ssh_folder();
    let mut reader = Reader { folders, ours: spellings(folders), seen: HashSet::new(), found: Vec::new() };
    reader.read(&user.join("config"), &user, DEPTH);
    let managed = State::load(folders).ok().flatten().map(|state| state.files).unwrap_or_default();
    for managed in managed {
        reader.read(&managed.file, &user, DEPTH);
    }
    reader.read(&system.join("ssh_config"), &system, DEPTH);
    reader.found
}

struct Reader<'a> {
    folders: &'a Folders,
    ours: Vec<String>,
    seen: HashSet<PathBuf>,
    found: Vec<Patterns>,
}

impl Reader<'_> {
    /// Reads a file and what it includes, which is relative to `base`. A file that cannot be read is none: ssh does not
    /// run with it.
    fn read(&mut self, file: &Path, base: &Path, depth: usize) {
        let own = self.folders.ssh_config();
        let same = |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
        if file == own || same(file, &own) || !self.seen.insert(file.to_owned()) {
            return;
        }
        let Ok(Some(bytes)) = files::read(file) else { return };
        let bytes = edit::remove(&bytes, &self.ours).unwrap_or(bytes);
        for line in String::from_utf8_lossy(&bytes).lines() {
            let Some((keyword, rest)) = edit::directive(line.trim().as_bytes()) else { continue };
            let (keyword, words) = (keyword.to_ascii_lowercase(), words(&String::from_utf8_lossy(rest)));
            let mut add = |keyword, patterns| self.found.push(Patterns { file: file.to_owned(), keyword, patterns });
            match &keyword[..] {
                b"host" => add("Host", words),
                b"match" => {
                    for pair in words.windows(2).filter(|pair| is_about_hosts(&pair[0])) {
                        add("Match host", pair[1].split(',').map(str::to_owned).collect());
                    }
                }
                b"include" if depth > 0 => {
                    let absolute = |word: &String| self.absolute(word, base);
                    let included: Vec<PathBuf> = words.iter().map(absolute).flat_map(|path| matching(&path)).collect();
                    for included in included {
                        self.read(&included, base, depth - 1);
                    }
                }
                _ => {}
            }
        }
    }

    fn absolute(&self, word: &str, base: &Path) -> PathBuf {
        word.strip_prefix("~/").map_or_else(|| base.join(word), |rest| self.folders.home.join(rest))
    }
}

fn is_about_hosts(criterion: &str) -> bool {
    ["host", "originalhost"].iter().any(|name| criterion.eq_ignore_ascii_case(name))
}

/// Returns the end of a sentence about a name that one of these patterns means.
fn named_by(configuration: &[Patterns], name: &str) -> Option<String> {
    configuration.iter().find_map(|Patterns { file, keyword, patterns }| {
        let denied = patterns.iter().filter_map(|pattern| pattern.strip_prefix('!')).any(|pattern| fits(pattern, name));
        let is_general = |pattern: &str| pattern.chars().all(|c| c == '*');
        let by = patterns.iter().find(|pattern| !is_general(pattern) && fits(pattern, name)).filter(|_| !denied)?;
        Some(format!("is a host in your ssh configuration (`{keyword} {by}` in {})", file.display()))
    })
}

/// The words of a line; double quotes hold one together, and `#` begins a comment.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() && !rest.starts_with('#') {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_at(rest.find([' ', '\t']).unwrap_or(rest.len())),
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    words
}

/// The files that a path with patterns means. A set of characters counts as any character, because a file too many does
/// no harm.
fn matching(path: &Path) -> Vec<PathBuf> {
    let mut all = vec![PathBuf::new()];
    for part in path.components() {
        let text = part.as_os_str().to_string_lossy();
        if !text.contains(['*', '?', '[']) {
            all.iter_mut().for_each(|path| path.push(part));
            continue;
        }
        let pattern = without_sets(&text);
        let names = |folder: &PathBuf| {
            let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
            let names = entries.filter(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                fits(&pattern, &name) && (!name.starts_with('.') || pattern.starts_with('.'))
            });
            names.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        all = all.iter().flat_map(names).collect();
    }
    all
}

fn without_sets(pattern: &str) -> String {
    let mut plain = String::new();
    let mut rest = pattern;
    while let Some((before, set)) = rest.split_once('[') {
        plain += before;
        // The first character of a set may be the bracket that ends it elsewhere.
        let end = set.char_indices().skip(1).find(|(_, c)| *c == ']').map(|(at, _)| at + 1);
        plain.push('?');
        rest = end.map_or("", |end| &set[end..]);
    }
    plain + rest
}

#[cfg(all(test, unix))]
mod tests {
    use std::{fs, net::IpAddr, process::Command};

    use super::{Verdict, ask, in_configuration, is_in_hosts_file};
    use crate::settings::Folders;

    fn folders() -> (tempfile::TempDir, Folders) {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join(".ssh/conf.d/deep")).unwrap();
        let root = home.path().join(".iximiuz/labctl-ssh-proxy");
        fs::create_dir_all(&root).unwrap();
        let folders = Folders { home: home.path().into(), settings: root.join("settings.yaml"), root };
        (home, folders)
    }

    /// OpenSSH is asked the same: it applies an option below the line exactly where a name is one of the user's.
    #[test]
    fn hosts_of_the_configuration_are_found_as_ssh_finds_them() {
        let (home, folders) = folders();
        let config = home.path().join(".ssh/config");
        let included = home.path().join(".ssh/conf.d/deep/one.conf");
        for (line, is_meant) in [
            ("Host my-lab", true),
            ("host=my-lab", true),
            ("Host \"my-lab\"", true),
            ("Host other MY-LAB # mine", false),
            ("Host other my-lab # mine", true),
            ("Host other # my-lab", false),
            ("Host my-*", true),
            ("Host ??-lab", true),
            ("Host my-* !my-lab", false),
            ("Host !my-lab *", false),
            ("Host my-lab.example my-labs my", false),
            ("Match originalhost my-lab user *", true),
            ("Match host other,my-l*", true),
            ("Host other\n# Host my-lab", false),
        ] {
            for file in [&config, &included] {
                let include = format!("Include {}/.ssh/conf.d/d[a-z]*/*.conf\n", home.path().display());
                fs::write(&config, if file == &config { "" } else { &include }).unwrap();
                fs::write(&included, "").unwrap();
                fs::write(file, format!("{line}\n  Port 2222\n")).unwrap();
                let ssh = Command::new("ssh").arg("-G").arg("-F").arg(&config).arg("my-lab").output().unwrap();
                let applies = String::from_utf8_lossy(&ssh.stdout).lines().any(|line| line == "port 2222");
                let found = in_configuration(&folders)("my-lab");
                // A pattern in capitals matches nothing in ssh, but a person means the host.
                assert_eq!(found.is_some(), is_meant || line.contains("MY-LAB"), "{line}: {found:?}");
                assert_eq!(applies, is_meant, "{line}");
            }
        }
        // Everybody has these, and they hide nothing.
        fs::write(&config, "Host *\n  Port 2222\nMatch all\n  Port 1\nMatch exec true host *\n  Port 1\n").unwrap();
        assert_eq!(in_configuration(&folders)("my-lab"), None);
        // Our own entries are none of the user's.
        fs::write(folders.ssh_config(), "Host playground-x my-lab\n").unwrap();
        fs::write(&config, format!("Include {}\nInclude loop\n", folders.ssh_config().display())).unwrap();
        fs::write(home.path().join(".ssh/loop"), "Include config loop\n").unwrap();
        assert_eq!(in_configuration(&folders)("my-lab"), None);
    }

    #[test]
    fn a_hosts_file_is_read() {
        let text = "127.0.0.1 localhost\n# 10.0.0.1 no\n10.0.0.2\tmy-lab.example My-Lab # x\n10.0.0.3 a#my-box\n";
        assert!(is_in_hosts_file(text, "my-lab") && is_in_hosts_file(text, "localhost"));
        assert!(!is_in_hosts_file(text, "no") && !is_in_hosts_file(text, "my-box") && !is_in_hosts_file(text, "x"));
    }

    #[tokio::test]
    async fn a_name_service_that_answers_everything_says_nothing() {
        let names = ["my-lab".to_owned(), "my-lab.dev".to_owned()];
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        assert_eq!(ask(&names, async |_| Some(Vec::new())).await, Verdict::Free);
        assert_eq!(ask(&names, async |_| None).await, Verdict::Unknown("did not answer in time"));
        assert_eq!(ask(&names, async |_| Some(vec![address(1)])).await, Verdict::Unknown("answers for every name"));
        let is_real = |name: &str| match name {
            "my-lab.dev" => vec![address(2)],
            _ => vec![address(1)],
        };
        let taken = ask(&names, async |name| Some(is_real(&name))).await;
        assert_eq!(taken, Verdict::Taken("my-lab.dev".into(), "resolves to 10.0.0.2".into()));
    }
}
