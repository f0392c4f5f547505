//! The ports of a playground, from four answers of the platform and our own records.

use serde::Serialize;

use crate::{
    app::App,
    commands::forward::{
        saved,
        spec::{Endpoint, Forward, Listen, Side, Spec},
    },
    error::{Error, Result},
    labs::{
        Labs, find,
        wire::{ExposedPort, ExposedShell, Play, SavedForward, ScannedPort},
    },
    records::{
        forwards::{self, OpenForward, is_machine_itself},
        relays::Relays,
    },
    target::{Target, host_port},
};

use super::addresses;

/// The subject of a problem.
pub(super) const LISTENING: &str = "listening";
pub(super) const EXPOSED: &str = "exposed";
pub(super) const SHELLS: &str = "shells";
pub(super) const SAVED: &str = "saved";

/// The output of `ports --json`.
#[derive(Debug, Serialize)]
pub(super) struct Survey {
    playground: String,
    host: String,
    pub ports: Vec<Port>,
    pub shells: Vec<Shell>,
    /// The parts that the platform does not tell.
    pub problems: Vec<Problem>,
}

/// A port that something listens on, or that something of ours or of the platform leads to.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Port {
    pub machine: String,
    pub number: u16,
    /// `None` if nothing listens, or that is not known.
    pub protocol: Option<Protocol>,
    pub listening: Listening,
    /// True if only the machine itself reaches it; `None` if that is not known.
    pub loopback_only: Option<bool>,
    pub exposed: Vec<Exposed>,
    pub forwards: Vec<Forwarded>,
    pub saved: Vec<Saved>,
}

impl Port {
    /// True if something listens that is no sshd, which serves all.
    fn is_a_server(&self) -> bool {
        const SSH: u16 = 22;
        self.listening == Listening(Some(true)) && self.number != SSH
    }
}

/// The protocol of a server, the most telling one last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Protocol {
    Tcp,
    Http,
    Https,
}

impl Protocol {
    fn of(word: &str) -> Protocol {
        match word.to_ascii_uppercase().as_str() {
            "HTTPS" => Protocol::Https,
            "HTTP" => Protocol::Http,
            _ => Protocol::Tcp,
        }
    }

    /// Its name for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Http => "http",
            Protocol::Https => "https",
        }
    }
}

/// True if something listens; `None` if that is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Listening(pub Option<bool>);

/// An address for browsers.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Exposed {
    pub id: String,
    pub url: String,
    pub access: String,
    pub tls: bool,
}

/// A forward of a running process.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Forwarded {
    pub local: String,
    pid: u32,
}

/// A saved forward.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Saved {
    index: usize,
    pub local: String,
}

/// A web terminal.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Shell {
    pub id: String,
    pub machine: String,
    pub user: String,
    pub access: String,
    pub url: String,
}

/// A part that the platform does not tell.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    pub part: &'static str,
    message: String,
    #[serde(skip)]
    error: Error,
}

impl Problem {
    /// The line about it.
    pub(super) fn sentence(&self) -> String {
        let what = match self.part {
            LISTENING => "what listens",
            EXPOSED => "what is exposed",
            SHELLS => "which web terminals there are",
            _ => "what is saved",
        };
        format!("{what} is not known: {}", self.message)
    }
}

impl From<ExposedPort> for Exposed {
    fn from(port: ExposedPort) -> Exposed {
        let access = port.access().to_owned();
        Exposed { id: port.id, url: port.url, access, tls: port.tls }
    }
}

impl From<ExposedShell> for Shell {
    fn from(shell: ExposedShell) -> Shell {
        let access = shell.access().to_owned();
        Shell { id: shell.id, machine: shell.machine, user: shell.user, access, url: shell.url }
    }
}

/// The answers of the platform, and our own records. A part that failed is `None`.
#[derive(Default)]
struct Answers {
    scan: Option<Vec<ScannedPort>>,
    exposed: Vec<ExposedPort>,
    saved: Vec<SavedForward>,
    open: Vec<OpenForward>,
}

impl Survey {
    /// Asks for all parts at once.
    ///
    /// # Errors
    /// The first failure, when there is no answer at all.
    pub(super) async fn make(app: &App, labs: &Labs, play: &Play, machine: Option<&str>) -> Result<Survey> {
        let id = play.id.as_str();
        let scan = async {
            // The platform refuses to scan what does not run.
            if find::is_play_down(play) { Ok(Vec::new()) } else { labs.scan_ports(id, machine).await }
        };
        let (scan, exposed, shells, saved) =
            tokio::join!(scan, labs.ports(id), labs.shells(id), labs.port_forwards(id));
        let mut problems = Vec::new();
        fn part<T>(part: &'static str, answer: Result<T>, problems: &mut Vec<Problem>) -> Option<T> {
            answer.map_err(|error| problems.push(Problem { part, message: error.message().to_owned(), error })).ok()
        }
        let mut scan = part(LISTENING, scan, &mut problems);
        // A relay listens for this program only.
        if let Some(scan) = &mut scan {
            let relays = Relays::below(&app.folders.root);
            scan.retain(|port| {
                !relays.ports(|play, machine| (play, machine) == (id, &port.machine)).contains(&port.number)
            });
        }
        let exposed = part(EXPOSED, exposed, &mut problems).unwrap_or_default();
        let shells = part(SHELLS, shells, &mut problems).unwrap_or_default();
        let saved = part(SAVED, saved, &mut problems).unwrap_or_default();
        if let [first, _, _, _] = &problems[..] {
            return Err(first.error.clone());
        }
        let open = forwards::all(&app.folders);
        let is_asked_for = |name: &str| machine.is_none_or(|machine| machine == name);
        let mut ports = join(play, Answers { scan, exposed, saved, open });
        ports.retain(|port| is_asked_for(&port.machine));
        // One machine after the other, because tunnels come from a small pool.
        for machine in &play.machines {
            let mut servers = ports.iter_mut().filter(|port| port.machine == machine.name && port.is_a_server());
            if let Some(first) = servers.next()
                && let Some(addresses) = addresses::of(app, labs, play, machine).await
            {
                for port in std::iter::once(first).chain(servers) {
                    port.loopback_only = addresses::is_loopback_only(&addresses, port.number);
                }
            }
        }
        Ok(Survey {
            playground: play.id.clone(),
            host: Target::of_play(&play.id, None).to_string(),
            ports,
            shells: shells.into_iter().filter(|shell| is_asked_for(&shell.machine)).map(Shell::from).collect(),
            problems,
        })
    }
}

/// Joins the answers by machine and port, in the order of the play's machines.
fn join(play: &Play, answers: Answers) -> Vec<Port> {
    let Answers { scan, exposed, saved, open } = answers;
    let first = play.machines.first().map_or("", |machine| machine.name.as_str());
    let listening = Listening(scan.is_some().then_some(false));
    let mut ports: Vec<Port> = Vec::new();
    let mut at = |machine: &str, number: u16| -> usize {
        let machine = if machine.is_empty() { first } else { machine };
        let known = ports.iter().position(|port| port.machine == machine && port.number == number);
        known.unwrap_or_else(|| {
            ports.push(Port { machine: machine.to_owned(), number, listening, ..Port::default() });
            ports.len() - 1
        })
    };
    let mut listens = Vec::new();
    for one in scan.unwrap_or_default() {
        listens.push((at(&one.machine, one.number), Protocol::of(&one.protocol)));
    }
    let exposed: Vec<_> = exposed.into_iter().map(|one| (at(&one.machine, one.number), Exposed::from(one))).collect();
    let mut forwards = Vec::new();
    for one in open.into_iter().filter(|one| one.playground == play.id) {
        if let Some(number) = one.leads_to() {
            forwards.push((at(&one.machine, number), Forwarded { local: one.address, pid: one.pid }));
        }
    }
    let saved: Vec<_> = saved
        .iter()
        .enumerate()
        .filter_map(|(index, one)| {
            let (machine, number, local) = led_to(one, first)?;
            Some((at(&machine, number), Saved { index, local }))
        })
        .collect();
    for (i, protocol) in listens {
        ports[i].listening = Listening(Some(true));
        // A port comes once for each of its addresses.
        ports[i].protocol = ports[i].protocol.max(Some(protocol));
    }
    exposed.into_iter().for_each(|(i, one)| ports[i].exposed.push(one));
    forwards.into_iter().for_each(|(i, one)| ports[i].forwards.push(one));
    saved.into_iter().for_each(|(i, one)| ports[i].saved.push(one));
    let place = |name: &str| play.machines.iter().position(|machine| machine.name == name);
    ports.sort_by_key(|port| (place(&port.machine).unwrap_or(usize::MAX), port.machine.clone(), port.number));
    ports
}

/// The port of a machine itself to which a saved forward leads from this computer: machine, port and local address.
fn led_to(saved: &SavedForward, first: &str) -> Option<(String, u16, String)> {
    let Forward {
        spec: Spec { listen: Listen::Port(bind, port), to: Endpoint::Port(host, number), .. }, machine, ..
    } = saved::forward(saved).ok().filter(|forward| forward.side == Side::Local)?
    else {
        return None;
    };
    let machine = machine.unwrap_or_else(|| first.to_owned());
    is_machine_itself(&host, &machine).then(|| (machine, number, host_port(bind.address(), port)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::{Answers, OpenForward, join};

    fn joined(answers: Answers) -> Value {
        let play = json!({ "id": "a", "machines": [{ "name": "one" }, { "name": "two" }] });
        serde_json::to_value(join(&from_value(play).unwrap(), answers)).unwrap()
    }

    #[test]
    fn each_port_of_each_machine_comes_once_with_all_that_leads_to_it() {
        let open = |kind: &str, to: &str, playground: &str| OpenForward {
            pid: 7,
            playground: playground.into(),
            machine: "two".into(),
            container: None,
            kind: kind.into(),
            protocol: "tcp".into(),
            address: "127.0.0.1:8080".into(),
            to: to.into(),
        };
        let found = joined(Answers {
            scan: Some(
                from_value(json!([
                    { "machine": "two", "number": 80, "protocol": "TCP" },
                    { "machine": "two", "number": 80, "protocol": "HTTP" },
                    { "machine": "two", "number": 22, "protocol": "SSH" },
                    { "machine": "", "number": 80, "protocol": "HTTPS" }
                ]))
                .unwrap(),
            ),
            exposed: from_value(json!([
                { "id": "x", "machine": "two", "number": 80, "url": "u", "tls": true },
                { "id": "y", "machine": "one", "number": 9, "access": "public" }
            ]))
            .unwrap(),
            saved: from_value(json!([
                { "kind": "remote", "machine": "two", "remotePort": 80, "localPort": 80 },
                { "kind": "", "remotePort": 80 },
                { "kind": "local", "machine": "two", "remoteHost": "db.example.org", "remotePort": 80 },
                7,
                { "kind": "local", "machine": "two", "localHost": "::1", "localPort": 81, "remotePort": 80 }
            ]))
            .unwrap(),
            open: vec![
                open("local", "localhost:80", "a"),
                open("remote", "localhost:80", "a"),
                open("local", "localhost:80", "b"),
                open("local", "db.example.org:80", "a"),
            ],
        });
        let rows: Vec<(&str, u64, bool)> = found
            .as_array()
            .unwrap()
            .iter()
            .map(|port| {
                let listening = port["listening"].as_bool().unwrap();
                (port["machine"].as_str().unwrap(), port["number"].as_u64().unwrap(), listening)
            })
            .collect();
        assert_eq!(rows, [("one", 9, false), ("one", 80, true), ("two", 22, true), ("two", 80, true)]);
        assert_eq!(
            found[3],
            json!({
                "machine": "two", "number": 80, "protocol": "http", "listening": true, "loopbackOnly": null,
                "exposed": [{ "id": "x", "url": "u", "access": "private", "tls": true }],
                "forwards": [{ "local": "127.0.0.1:8080", "pid": 7 }],
                "saved": [{ "index": 4, "local": "[::1]:81" }],
            })
        );
        assert_eq!(found[1]["saved"], json!([{ "index": 1, "local": "127.0.0.1:0" }]));
        assert_eq!((&found[2]["protocol"], &found[1]["protocol"]), (&json!("tcp"), &json!("https")));
    }

    #[test]
    fn without_a_scan_nothing_is_said_to_listen_or_not() {
        let exposed = from_value(json!([{ "id": "x", "machine": "one", "number": 80 }])).unwrap();
        let found = joined(Answers { exposed, ..Answers::default() });
        assert_eq!(found[0]["listening"], Value::Null);
        assert_eq!(joined(Answers::default()), json!([]));
    }
}
