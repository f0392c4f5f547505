//! The port forwards of each running `port-forward` and `kube`: a small file that exists as long as its process does.
//! `ports` shows them, and `port-forward --auto` leaves out what another one listens on.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{
    files::{self, write_private},
    settings::Folders,
};

use super::presence::{self, Presence};

/// A port forward that is open now.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OpenForward {
    /// The number of its process.
    pub pid: u32,
    /// The id of the playground.
    pub playground: String,
    /// The machine.
    pub machine: String,
    /// The label of the container on it to which the forward leads instead.
    #[serde(default)]
    pub container: Option<String>,
    /// The side that listens: `local` or `remote`.
    pub kind: String,
    /// The listener's protocol: `tcp`, `udp` or `unix`.
    pub protocol: String,
    /// The listener's address.
    pub address: String,
    /// The destination, as the other side sees it.
    pub to: String,
}

impl OpenForward {
    /// The port that it listens on, if its listener takes TCP connections.
    pub fn listens_on(&self) -> Option<u16> {
        if self.protocol == "tcp" { self.address.rsplit_once(':')?.1.parse().ok() } else { None }
    }

    /// The port of the machine itself to which it leads from this computer.
    pub fn leads_to(&self) -> Option<u16> {
        let (host, port) = self.to.rsplit_once(':').filter(|_| self.container.is_none())?;
        let is_it = self.kind == "local" && self.protocol != "udp" && is_machine_itself(host, &self.machine);
        is_it.then(|| port.parse().ok()).flatten()
    }
}

/// True for a host that is the machine itself, as that machine sees it.
pub fn is_machine_itself(host: &str, machine: &str) -> bool {
    matches!(host, "" | "localhost" | "127.0.0.1" | "0.0.0.0" | "[::1]" | "::1" | "[::]" | "::") || host == machine
}

/// The port forwards of this process.
pub struct Forwards {
    playground: String,
    open: Mutex<Vec<OpenForward>>,
    file: Option<Presence>,
}

/// The folder of the files.
pub fn folder(folders: &Folders) -> PathBuf {
    folders.root.join("forwards")
}

impl Forwards {
    /// Begins without any. A folder that cannot be written costs the record, not the forwards.
    pub fn begin(folders: &Folders, playground: &str) -> Forwards {
        let file = Presence::begin(&folder(folders))
            .inspect_err(|error| log::warn!("cannot keep a record of the port forwards: {}", error.message()))
            .ok();
        Forwards { playground: playground.to_owned(), open: Mutex::default(), file }
    }

    /// Notes one that is open now: its container, if it leads into one; its machine, kind, protocol, address and
    /// destination.
    pub fn opened(&self, container: Option<&str>, [machine, kind, protocol, address, to]: [&str; 5]) {
        let [machine, kind, protocol, address, to] = [machine, kind, protocol, address, to].map(str::to_owned);
        let (pid, playground, container) = (std::process::id(), self.playground.clone(), container.map(str::to_owned));
        self.change(|all| all.push(OpenForward { pid, playground, machine, container, kind, protocol, address, to }));
    }

    /// Notes the end of the one that listens at `address` of this computer.
    pub fn closed(&self, address: &str) {
        self.change(|all| all.retain(|one| one.kind != "local" || one.address != address));
    }

    fn change(&self, change: impl FnOnce(&mut Vec<OpenForward>)) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut open);
        let Some(file) = &self.file else { return };
        let written = serde_json::to_vec(&*open).map(|text| write_private(file.path(), &text));
        if let Ok(Err(error)) = written {
            log::warn!("{}", error.message());
        }
    }
}

/// The port forwards of all running processes. Files of killed ones are swept.
pub fn all(folders: &Folders) -> Vec<OpenForward> {
    let read = |path: PathBuf| serde_json::from_slice::<Vec<OpenForward>>(&files::read(&path).ok()??).ok();
    presence::all(&folder(folders)).into_iter().filter_map(read).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::{Forwards, all, folder};
    use crate::settings::Folders;

    #[test]
    fn a_record_is_there_as_long_as_its_forwards_are() {
        let root = tempfile::tempdir().unwrap();
        let folders = Folders { home: root.path().into(), root: root.path().into(), settings: root.path().join("s") };
        let forwards = Forwards::begin(&folders, "p");
        assert_eq!(all(&folders), []);
        forwards.opened(None, ["m", "local", "tcp", "127.0.0.1:8080", "localhost:80"]);
        forwards.opened(None, ["m", "local", "tcp", "[::1]:8081", "[::1]:81"]);
        forwards.opened(None, ["m", "remote", "tcp", "0.0.0.0:9000", "localhost:9000"]);
        forwards.opened(None, ["m", "local", "unix", "/run/s", "localhost:90"]);
        forwards.opened(None, ["m", "local", "udp", "127.0.0.1:53", "localhost:53"]);
        forwards.opened(None, ["m", "local", "tcp", "127.0.0.1:1", "db.example.org:5432"]);
        let leads = |found: &[super::OpenForward]| found.iter().map(|one| one.leads_to()).collect::<Vec<_>>();
        let listens = |found: &[super::OpenForward]| found.iter().map(|one| one.listens_on()).collect::<Vec<_>>();
        let found = all(&folders);
        assert_eq!(leads(&found), [Some(80), Some(81), None, Some(90), None, None]);
        assert_eq!(listens(&found), [Some(8080), Some(8081), Some(9000), None, None, Some(1)]);
        assert_eq!(found[0].pid, std::process::id());
        forwards.closed("127.0.0.1:8080");
        assert_eq!(all(&folders).len(), 5);
        // A process that is killed leaves nothing that counts.
        std::fs::write(folder(&folders).join("1-2.json"), serde_json::to_vec(&found).unwrap()).unwrap();
        assert_eq!(all(&folders).len(), 5);
        drop(forwards);
        assert_eq!(all(&folders), []);
        assert_eq!(std::fs::read_dir(folder(&folders)).unwrap().count(), 0);
    }
}
