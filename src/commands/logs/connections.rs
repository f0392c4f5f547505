//! The program's own log: the lines of all connections in the order of their time, or of those that concern one host.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    app::App,
    commands::machine::words::{Words, ended},
    error::{Error, Kind, Result},
    labs::find,
    platform::is_id,
    records::{journal, names::Names},
    settings::LogLevel,
    target::{Inside, PREFIX, Playground, Target, is_label},
    ui::notice,
};

/// The pause between two looks for new lines.
const PAUSE: Duration = Duration::from_millis(250);
/// The length of a line's time, with which it begins.
const TIME: usize = "2026-01-01T00:00:00.000Z".len();

/// Prints the log. The platform is asked only for a name that no connection was called by, and that is no title in the
/// last list.
///
/// # Errors
/// [`Kind::NotFound`] for a host that is unknown; that of the output.
pub(super) async fn print(
    app: &App,
    host: Option<&str>,
    machine: Option<&str>,
    follow: bool,
    tail: Option<u64>,
) -> Result<()> {
    let mut log = Log { meant: host.map(|host| Meant::of(app, host, machine)), connections: BTreeMap::new() };
    let mut lines = log.new_lines(&journal::all(&app.folders));
    if let Some(meant) = log.meant.as_mut().filter(|_| lines.is_empty())
        && meant.ids.is_empty()
    {
        meant.ask(app).await?;
        lines = log.new_lines(&journal::all(&app.folders));
    }
    explain(app, host, lines.is_empty());
    if let Some(tail) = tail {
        let tail = usize::try_from(tail).unwrap_or(usize::MAX);
        lines.drain(..lines.len().saturating_sub(tail));
    }
    let mut words = Words::new()?;
    let print = async {
        loop {
            for line in lines.drain(..) {
                words.bytes(&line.text).await?;
            }
            if !follow {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => lines = log.new_lines(&journal::all(&app.folders)),
                gone = words.unread() => return Err(gone),
            }
        }
    };
    ended(print.await)
}

/// Says where the log is, or why there is none.
fn explain(app: &App, host: Option<&str>, is_empty: bool) {
    let (folder, settings) = (journal::folder(&app.folders), app.folders.settings.display());
    let folder = folder.display();
    let say = |text: &str| notice::line(&format!("labctl-ssh-proxy: {text}"));
    match host {
        None if is_empty && app.settings.log_level == LogLevel::Off => say("there is no log"),
        None if is_empty => say(&format!("there is no log yet; each connection will write a file in {folder}")),
        Some(host) if is_empty => say(&format!("no connection to {host} is in the logs, which are in {folder}")),
        _ => say(&format!("the logs are in {folder}")),
    }
    if app.settings.log_level == LogLevel::Off {
        say(&format!("the setting `log_level` is off, so connections write no log; set it to info in {settings}"));
    }
}

/// The connections that are to be shown.
struct Meant {
    argument: String,
    /// Catalogue names, as host names have them.
    names: Vec<String>,
    ids: Vec<String>,
    machine: Option<String>,
    inside: Option<Inside>,
}

impl Meant {
    fn of(app: &App, argument: &str, machine: Option<&str>) -> Meant {
        let mut meant = Meant {
            argument: argument.to_owned(),
            names: Vec::new(),
            ids: Vec::new(),
            machine: machine.map(ToOwned::to_owned),
            inside: None,
        };
        // An alias, or one with a machine behind it.
        let (label, rest) = argument.split_at(argument.find('.').unwrap_or(argument.len()));
        let by_alias = |play: &str| Target::parse(&format!("{PREFIX}{play}{rest}")).ok();
        let aliased = app.aliases().play(label).and_then(by_alias);
        match Target::parse(argument).or_else(|error| aliased.ok_or(error)) {
            Ok(target) => {
                meant.machine = meant.machine.or(target.machine);
                meant.inside = target.inside;
                match target.playground {
                    Playground::Id(id) => meant.ids.push(id),
                    Playground::Name(name) => meant.names.push(name),
                }
            }
            Err(_) if is_id(argument) => meant.ids.push(argument.to_owned()),
            Err(_) => {
                let lower = argument.to_lowercase();
                let plays = Names::load(&app.folders, app.platform).plays.unwrap_or_default();
                let titled = plays.into_iter().filter(|known| known.title.to_lowercase() == lower);
                meant.ids.extend(titled.filter_map(|known| match Target::parse(&known.host).ok()?.playground {
                    Playground::Id(id) => Some(id),
                    Playground::Name(_) => None,
                }));
                meant.names.extend(is_label(argument).then(|| argument.to_owned()));
            }
        }
        meant
    }

    /// Asks the platform for the playground that is meant.
    async fn ask(&mut self, app: &App) -> Result<()> {
        let asked = async { find::existing(&app.labs().await?, &self.of_machine()).await };
        match asked.await {
            Ok(Some(play)) => self.ids.push(play.id),
            // A connection may have been called so, or may be yet.
            Ok(None) | Err(_) if !self.names.is_empty() => {}
            Ok(None) => {
                let message = format!("no playground has the id, host name, alias or title `{}`", self.argument);
                return Err(Error::new(Kind::NotFound, message).with_hint("`labctl-ssh-proxy logs` shows all"));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The argument without what is inside a machine, which the platform does not know.
    fn of_machine(&self) -> String {
        Target::parse(&self.argument).map_or_else(|_| self.argument.clone(), |target| target.of_machine().to_string())
    }

    /// True for a connection that was called by this host name.
    fn is_called(&self, host: &str) -> bool {
        let Ok(target) = Target::parse(host) else { return false };
        let is_play = match &target.playground {
            Playground::Id(id) => self.ids.contains(id),
            Playground::Name(name) => self.names.contains(name),
        };
        let is_machine = self.machine.is_none() || self.machine == target.machine;
        is_play && is_machine && (self.inside.is_none() || self.inside == target.inside)
    }

    /// True for a line that says that its connection leads there, whatever it was called by.
    fn is_in(&self, line: &[u8]) -> bool {
        let line = String::from_utf8_lossy(line);
        self.ids.iter().any(|id| {
            let machine = self.machine.as_ref().map(|machine| format!("machine {machine} of ")).unwrap_or_default();
            let inside = match &self.inside {
                Some(Inside::Container(label)) => format!("container {label} of "),
                // A pod's connection is called by the pod.
                Some(Inside::Pod(_)) => return false,
                None => String::new(),
            };
            line.contains(&format!("{inside}{machine}playground {id}"))
        })
    }
}

/// The logs, as far as they have been read.
struct Log {
    /// `None` for all.
    meant: Option<Meant>,
    connections: BTreeMap<PathBuf, Connection>,
}

/// One connection's log.
#[derive(Default)]
struct Connection {
    /// The bytes that were read.
    read: u64,
    /// The beginning of a line whose end has not come yet.
    rest: Vec<u8>,
    /// The time of the last line.
    time: Vec<u8>,
    /// Lines that are kept until it is clear that the connection is meant.
    kept: Vec<Line>,
    is_meant: bool,
}

/// A line with its end.
#[derive(Debug)]
struct Line {
    time: Vec<u8>,
    text: Vec<u8>,
}

impl Log {
    /// Reads on. Returns the new lines of the connections that are meant, in the order of their time.
    fn new_lines(&mut self, all: &[(PathBuf, String)]) -> Vec<Line> {
        let mut found = Vec::new();
        for (path, host) in all {
            let connection = self.connections.entry(path.clone()).or_default();
            connection.read_on(path);
            if let Some(meant) = self.meant.as_mut().filter(|meant| meant.is_called(host)) {
                // Others may have been called by the id of the same playground.
                for id in connection.kept.iter().filter_map(|line| play_in(&line.text)) {
                    if !meant.ids.contains(&id) {
                        meant.ids.push(id);
                    }
                }
                connection.is_meant = true;
            }
        }
        for (path, _) in all {
            let Some(connection) = self.connections.get_mut(path) else { continue };
            connection.is_meant = connection.is_meant
                || self.meant.as_ref().is_none_or(|meant| connection.kept.iter().any(|line| meant.is_in(&line.text)));
            if connection.is_meant {
                found.append(&mut connection.kept);
            }
        }
        // Older logs are removed as new ones come.
        self.connections.retain(|path, _| all.binary_search_by(|(one, _)| one.cmp(path)).is_ok());
        found.sort_by(|one, other| one.time.cmp(&other.time));
        found
    }
}

/// The id of the playground that a line says its connection leads to.
fn play_in(line: &[u8]) -> Option<String> {
    let line = String::from_utf8_lossy(line);
    let id = line.split("playground ").skip(1).find_map(|rest| rest.get(..24).filter(|id| is_id(id)));
    id.map(str::to_owned)
}

impl Connection {
    /// Reads what has been added. A log that cannot be read has nothing new.
    fn read_on(&mut self, path: &Path) {
        let Ok(found) = path.symlink_metadata() else { return };
        if !found.is_file() || found.len() == self.read {
            return;
        }
        if found.len() < self.read {
            *self = Connection { is_meant: self.is_meant, ..Connection::default() };
        }
        let mut bytes = std::mem::take(&mut self.rest);
        let read = File::open(path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.read))?;
            file.take(found.len() - self.read).read_to_end(&mut bytes)
        });
        self.read += read.unwrap_or_default() as u64;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.rest = bytes.split_off(whole);
        for text in bytes.split_inclusive(|byte| *byte == b'\n') {
            // A message of several lines has its time in the first.
            if let Some(time) = text.get(..TIME).filter(|time| time.starts_with(b"2") && time.ends_with(b"Z")) {
                self.time = time.to_vec();
            }
            self.kept.push(Line { time: self.time.clone(), text: text.to_vec() });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, io::Write, path::PathBuf};

    use super::{Inside, Log, Meant};

    const ID: &str = "0123456789abcdef01234567";

    fn meant(names: &[&str], ids: &[&str], machine: Option<&str>) -> Meant {
        let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
        let machine = machine.map(ToOwned::to_owned);
        Meant { argument: String::new(), names: owned(names), ids: owned(ids), machine, inside: None }
    }

    #[test]
    fn a_connection_is_told_by_its_name_and_by_its_words() {
        let by_id = meant(&[], &[ID], None);
        assert!(by_id.is_called(&format!("playground-{ID}")) && by_id.is_called(&format!("playground-{ID}.m.web")));
        assert!(!by_id.is_called("playground-docker") && !by_id.is_called("elsewhere"));
        let line = format!("connected to machine node-01 of playground {ID} as root\n");
        assert!(by_id.is_in(line.as_bytes()) && meant(&[], &[ID], Some("node-01")).is_in(line.as_bytes()));
        for other in [meant(&[], &[ID], Some("ode-01x")), meant(&[], &[ID], Some("node-0")), meant(&["k3s"], &[], None)]
        {
            assert!(!other.is_in(line.as_bytes()));
        }
        let web = Meant { inside: Some(Inside::Container("web".into())), ..meant(&["k3s"], &[ID], Some("m")) };
        assert!(web.is_called("playground-k3s.m.web") && !web.is_called("playground-k3s.m"));
        assert!(web.is_in(format!("connected to container web of machine m of playground {ID} as root").as_bytes()));
    }

    #[test]
    fn lines_come_once_whole_and_in_the_order_of_their_time() {
        let folder = tempfile::tempdir().unwrap();
        let all: Vec<(PathBuf, String)> =
            ["a", "b"].map(|name| (folder.path().join(name), format!("playground-{name}"))).into();
        let write = |at: usize, text: &str| {
            fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(&all[at].0)
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
        };
        let time = |second: u32| format!("2026-01-01T00:00:{second:02}.000Z");
        let mut log = Log { meant: Some(meant(&["a"], &[ID], None)), connections: BTreeMap::new() };
        let mut next = || {
            let lines = log.new_lines(&all).into_iter().map(|line| String::from_utf8(line.text).unwrap());
            lines
                .map(|line| line.split_once(' ').map_or(line.clone(), |(_, words)| words.to_owned()))
                .collect::<String>()
        };
        assert_eq!(next(), "");
        write(0, &format!("{} one\n{} thr", time(1), time(3)));
        write(1, &format!("{} two\nmore\n", time(2)));
        // The second one is not known to be meant.
        assert_eq!((next(), next()), ("one\n".into(), String::new()));
        write(0, "ee\n");
        write(1, &format!("{} playground {ID}\n", time(4)));
        assert_eq!(next(), format!("two\nmore\nthree\nplayground {ID}\n"));
        fs::write(&all[0].0, "").unwrap();
        assert_eq!(next(), "");
        write(0, &format!("{} anew\n", time(5)));
        assert_eq!(next(), "anew\n");
    }
}
