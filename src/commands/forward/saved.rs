//! Forwards that the platform stores with a playground: TCP, from a port to a port. The platform only stores them.
//!
//! The official client shares this list. It adds a record for every `port-forward`, and one for port 22 for every
//! `ssh-proxy`, `cp`, `kube-proxy` and `--ide`.

use crate::{
    error::{Error, Kind, Result},
    labs::{
        Labs,
        wire::{Play, PortForward, SavedForward},
    },
    ui::out,
};

use super::spec::{Bind, Endpoint, Forward, Listen, Side, Spec};

/// The port of records that the official client's own SSH connections leave behind. ssh needs no forward for it.
const SSH: u16 = 22;

/// The records of some forwards, for `--save`.
///
/// # Errors
/// As [`record`].
pub(crate) fn records(forwards: &[Forward], machine: &str) -> Result<Vec<PortForward>> {
    forwards.iter().map(|forward| record(forward, machine)).collect()
}

/// Converts a forward to the platform's record.
///
/// # Errors
/// [`Kind::Usage`] for UDP and Unix sockets, which the platform cannot store.
pub fn record(forward: &Forward, machine: &str) -> Result<PortForward> {
    let Forward { side, spec, .. } = forward;
    let (Listen::Port(bind, port), Endpoint::Port(host, to), false) = (&spec.listen, &spec.to, spec.udp) else {
        return Err(Error::new(Kind::Usage, format!("`{spec}` cannot be saved"))
            .with_hint("leave out --save: the platform saves only TCP forwards from a port to a port"));
    };
    let bind = match (bind, side) {
        (Bind::Unnamed, Side::Remote) => &Bind::All,
        (bind, _) => bind,
    };
    let bind = bind.address().to_owned();
    let machine = machine.to_owned();
    Ok(match side {
        Side::Local => PortForward {
            kind: "local".into(),
            machine,
            local_host: bind,
            local_port: *port,
            remote_host: host.clone(),
            remote_port: *to,
        },
        Side::Remote => PortForward {
            kind: "remote".into(),
            machine,
            remote_host: bind,
            remote_port: *port,
            local_host: host.clone(),
            local_port: *to,
        },
    })
}

/// Converts a record to a forward, with the official client's defaults. A kind other than `remote` means local. Missing
/// fields mean the first machine, this computer's loopback interface, all of the machine's addresses, and a free port.
///
/// # Errors
/// The reason why the record cannot be converted.
pub fn forward(saved: &SavedForward) -> Result<Forward, String> {
    let record = match saved {
        SavedForward::Known(record) => record,
        SavedForward::Odd(value) => return Err(format!("`{value}` is not a port forward that can be read")),
    };
    let here = (&record.local_host, record.local_port);
    let there = (&record.remote_host, record.remote_port);
    let (side, listen, to) = match record.kind.as_str() {
        "remote" => (Side::Remote, there, here),
        _ => (Side::Local, here, there),
    };
    let bind = match (listen.0.as_str(), side) {
        ("", _) | ("127.0.0.1" | "localhost", Side::Local) | ("0.0.0.0" | "*", Side::Remote) => Bind::Unnamed,
        ("127.0.0.1" | "localhost", Side::Remote) => Bind::Loopback,
        ("0.0.0.0" | "*", Side::Local) => Bind::All,
        (host, _) => Bind::Host(host.to_owned()),
    };
    if to.1 == 0 {
        return Err(format!("`{}` has no destination port", shown(record)));
    }
    let host = if to.0.is_empty() { "localhost" } else { to.0 };
    let spec = Spec { listen: Listen::Port(bind, listen.1), to: Endpoint::Port(host.to_owned(), to.1), udp: false };
    // Records come from the platform, so they pass the same checks as input from the command line.
    let spec = Spec::parse(side, &spec.to_string()).map_err(|e| e.message().to_owned())?;
    Ok(Forward { side, spec, machine: Some(record.machine.clone()).filter(|name| !name.is_empty()) })
}

/// Returns the saved forwards that `--restore` opens, without duplicates, and a message for each unusable record.
pub(crate) fn restorable(all: &[SavedForward]) -> (Vec<Forward>, Vec<String>) {
    let (mut found, mut odd) = (Vec::new(), Vec::new());
    for (index, saved) in all.iter().enumerate() {
        match forward(saved) {
            Ok(Forward { side: Side::Local, spec: Spec { to: Endpoint::Port(_, SSH), .. }, .. }) => {
                log::info!("skipping saved port forward {index}, which leads to port {SSH}");
            }
            Ok(forward) if found.contains(&forward) => {}
            Ok(forward) => found.push(forward),
            Err(why) => odd.push(format!("saved port forward {index} is skipped: {why}")),
        }
    }
    (found, odd)
}

fn shown(record: &PortForward) -> String {
    let PortForward { kind, machine, local_host, local_port, remote_host, remote_port } = record;
    format!("{kind} {local_host}:{local_port} {remote_host}:{remote_port} on {machine}")
}

/// Implements `--list`.
///
/// # Errors
/// The platform's.
pub(crate) async fn list(labs: &Labs, play: &Play, json: bool) -> Result<()> {
    let all = labs.port_forwards(&play.id).await?;
    if json {
        return out::json(&all.iter().enumerate().map(indexed).collect::<Vec<_>>());
    }
    let rows = all.iter().enumerate().map(|(i, saved)| {
        let (machine, spec) = match forward(saved) {
            Ok(Forward { side, spec, machine }) => (machine.unwrap_or_default(), format!("{} {spec}", side.option())),
            Err(why) => (String::new(), why),
        };
        vec![i.to_string(), machine, spec]
    });
    out::table(&["INDEX", "MACHINE", "FORWARD"], rows.collect())
}

/// A saved forward with its index, which `--remove` takes. A record that is no object is shown as it is.
fn indexed((index, saved): (usize, &SavedForward)) -> serde_json::Value {
    let mut value = serde_json::to_value(saved).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.insert("index".to_owned(), index.into());
    }
    value
}

/// Saves the records that the platform does not have yet. Returns what to tell the user, if there is anything to save.
///
/// # Errors
/// The platform's.
pub(crate) async fn save(labs: &Labs, play: &Play, records: &[PortForward]) -> Result<Option<String>> {
    if records.is_empty() {
        return Ok(None);
    }
    let is_in = |record: &PortForward, all: &[SavedForward]| all.contains(&SavedForward::Known(record.clone()));
    let known = labs.port_forwards(&play.id).await?;
    let new: Vec<_> = records.iter().filter(|record| !is_in(record, &known)).collect();
    for record in &new {
        match labs.save_port_forward(&play.id, record).await {
            // The answer was lost, so look in the list whether the record was saved.
            Err(error) if error.may_have_happened() => {
                if !is_in(record, &labs.port_forwards(&play.id).await?) {
                    return Err(error);
                }
            }
            done => done?,
        }
    }
    let known = if new.len() < records.len() { " Those it had already are not saved twice." } else { "" };
    Ok(Some(format!("Saved {} with the playground; --restore opens what is saved.{known}", counted(new.len()))))
}

fn counted(forwards: usize) -> String {
    if forwards == 1 { "1 port forward".to_owned() } else { format!("{forwards} port forwards") }
}

/// Implements `--remove`: removes the records with these indices, or all.
///
/// # Errors
/// [`Kind::NotFound`] when an index does not exist. Then no record is removed.
pub(crate) async fn remove(labs: &Labs, play: &Play, which: &[Which], json: bool) -> Result<()> {
    let count = labs.port_forwards(&play.id).await?.len();
    let mut indices: Vec<usize> = if which.contains(&Which::All) {
        (0..count).collect()
    } else {
        which.iter().filter_map(|which| if let Which::Index(i) = which { Some(*i) } else { None }).collect()
    };
    if let Some(index) = indices.iter().find(|index| **index >= count) {
        let message = format!("playground {} has no saved port forward {index}", play.shown());
        return Err(Error::new(Kind::NotFound, message).with_hint("use --list to see those it has"));
    }
    // From the last to the first, because records after a removed one move up.
    indices.sort_unstable_by(|a, b| b.cmp(a));
    indices.dedup();
    for (done, index) in indices.iter().enumerate() {
        match labs.forget_port_forward(&play.id, *index).await {
            // The answer was lost, so look at the length of the list whether the record was removed.
            Err(error) if error.may_have_happened() => {
                if labs.port_forwards(&play.id).await?.len() + done >= count {
                    return Err(error);
                }
            }
            done => done?,
        }
    }
    if json {
        indices.reverse();
        return out::json(&serde_json::json!({ "removed": indices }));
    }
    out::line(&format!("Removed {} of {count} saved port forwards.", indices.len()))
}

/// A selection of saved forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// All of them.
    All,
    /// The one with this number in `--list`.
    Index(usize),
}

impl std::str::FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Which, String> {
        match text {
            "all" => Ok(Which::All),
            _ => text.parse().map(Which::Index).map_err(|_| "write an index that --list shows, or all".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Side, forward, record, restorable};
    use crate::{
        commands::forward::spec::{Forward, Spec},
        labs::wire::SavedForward,
    };

    #[test]
    fn what_is_saved_is_restored() {
        for (side, text) in [
            (Side::Local, "8080:web:80"),
            (Side::Local, "*:0:[::1]:80"),
            (Side::Local, "8080"),
            (Side::Remote, "[fe80::1]:8080:localhost:80"),
            (Side::Remote, "8080:80"),
            (Side::Remote, "localhost:8080:80"),
        ] {
            let given = Forward { side, spec: Spec::parse(side, text).unwrap(), machine: Some("m".into()) };
            let saved = SavedForward::Known(record(&given, "m").unwrap());
            assert_eq!(forward(&saved).unwrap(), given, "{saved:?}");
        }
        let socket = Forward { side: Side::Local, spec: "80:/run/x".parse().unwrap(), machine: None };
        assert!(record(&socket, "m").unwrap_err().message().contains("cannot be saved"));
    }

    #[test]
    fn records_of_the_official_client_are_read_as_it_reads_them() {
        let all: Vec<SavedForward> = serde_json::from_str(
            r#"[{"kind":"local","machine":"m","localHost":"127.0.0.1","localPort":40123,"remotePort":22},
                {"kind":"","machine":"","remotePort":80}, {"kind":"","machine":"","remotePort":80},
                {"kind":"remote","machine":"m","remotePort":8080,"localPort":80},
                {"kind":"sideways","machine":"m","localPort":8081,"remoteHost":"web","remotePort":81},
                {"kind":"local","localPort":1}, {"kind":"local","localPort":70000,"remotePort":80}, 7,
                {"kind":"local","remoteHost":"a b","remotePort":80},
                {"kind":"local","remotePort":2222,"new":{"field":1}}]"#,
        )
        .unwrap();
        let (found, odd) = restorable(&all);
        let shown: Vec<String> =
            found.iter().map(|one| format!("{} {} {:?}", one.side.option(), one.spec, one.machine)).collect();
        assert_eq!(
            shown,
            [
                "-L 0:localhost:80 None",
                "-R 8080:localhost:80 Some(\"m\")",
                "-L 8081:web:81 Some(\"m\")",
                "-L 0:localhost:2222 None"
            ]
        );
        let indices: Vec<&str> = odd.iter().map(|line| line.split(' ').nth(3).unwrap()).collect();
        assert_eq!(indices, ["5", "6", "7", "8"], "{odd:?}");
    }
}
