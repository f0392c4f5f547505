//! Forwards that the platform keeps with a playground: TCP, from a port to a port. It does nothing with them.

use crate::{
    error::{Error, Kind, Result},
    labs::{
        Labs,
        wire::{Play, PortForward},
    },
    out,
};

use super::{
    Forward, Side,
    spec::{Bind, Listen, Place, Spec},
};

/// What is saved of a forward.
///
/// # Errors
/// [`Kind::Usage`] for one that the platform has no words for: UDP, and Unix sockets.
pub fn record(forward: &Forward, machine: &str) -> Result<PortForward> {
    let Forward { side, spec, .. } = forward;
    let (Listen::Port(bind, port), Place::Port(host, to), false) = (&spec.listen, &spec.to, spec.udp) else {
        return Err(Error::new(Kind::Usage, format!("`{spec}` cannot be saved"))
            .hint("the platform keeps TCP forwards from a port to a port; leave out --save"));
    };
    let bind = match bind {
        Bind::Loopback => "127.0.0.1".to_owned(),
        Bind::All => "0.0.0.0".to_owned(),
        Bind::Host(host) => host.clone(),
    };
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

/// The forward that a record describes. What it leaves out is the machine or this computer itself, and the same port.
///
/// # Errors
/// [`Kind::Answer`] for a record that describes none.
pub fn forward(record: &PortForward) -> Result<Forward> {
    let refuse = || Error::new(Kind::Answer, format!("a saved forward cannot be understood: {}", shown(record)));
    let (side, listen, to) = match record.kind.as_str() {
        "local" => (Side::Local, (&record.local_host, record.local_port), (&record.remote_host, record.remote_port)),
        "remote" => (Side::Remote, (&record.remote_host, record.remote_port), (&record.local_host, record.local_port)),
        _ => return Err(refuse()),
    };
    let bind = match listen.0.as_str() {
        "" | "127.0.0.1" | "localhost" => Bind::Loopback,
        "0.0.0.0" | "*" => Bind::All,
        host => Bind::Host(host.to_owned()),
    };
    if to.1 == 0 {
        return Err(refuse());
    }
    let host = if to.0.is_empty() { "127.0.0.1" } else { to.0 };
    let spec = Spec { listen: Listen::Port(bind, listen.1), to: Place::Port(host.to_owned(), to.1), udp: false };
    // Goes through the same checks as one that was typed: it is the platform's word.
    let spec = spec.to_string().parse().map_err(|_| refuse())?;
    Ok(Forward { side, spec, machine: Some(record.machine.clone()) })
}

fn shown(record: &PortForward) -> String {
    let PortForward { kind, machine, local_host, local_port, remote_host, remote_port } = record;
    format!("{kind} {local_host}:{local_port} {remote_host}:{remote_port} on {machine}")
}

/// `--list`.
///
/// # Errors
/// The platform's.
pub async fn list(labs: &Labs, play: &Play, json: bool) -> Result<()> {
    let all = labs.port_forwards(&play.id).await?;
    if json {
        return out::json(&all);
    }
    let rows = all.iter().enumerate().map(|(i, record)| {
        let spec = match forward(record) {
            Ok(forward) => format!("{} {}", forward.side.option(), forward.spec),
            Err(_) => shown(record),
        };
        vec![i.to_string(), record.machine.clone(), spec]
    });
    out::table(&["INDEX", "MACHINE", "FORWARD"], rows.collect())
}

/// Saves those that are not saved yet.
///
/// # Errors
/// The platform's.
pub async fn save(labs: &Labs, play: &Play, records: &[PortForward]) -> Result<()> {
    let known = labs.port_forwards(&play.id).await?;
    for record in records.iter().filter(|record| !known.contains(record)) {
        labs.save_port_forward(&play.id, record).await?;
    }
    Ok(())
}

/// `--remove`: those of these indices, or all.
///
/// # Errors
/// [`Kind::NotFound`] when there is none of an index; then none is removed.
pub async fn remove(labs: &Labs, play: &Play, which: &[Which]) -> Result<()> {
    let count = labs.port_forwards(&play.id).await?.len();
    let mut indices: Vec<usize> = if which.contains(&Which::All) {
        (0..count).collect()
    } else {
        which.iter().filter_map(|which| if let Which::Index(i) = which { Some(*i) } else { None }).collect()
    };
    if let Some(index) = indices.iter().find(|index| **index >= count) {
        let message = format!("playground {} has no saved forward {index}", play.id);
        return Err(Error::new(Kind::NotFound, message).hint("--list shows those it has"));
    }
    // From behind, since those behind a removed one move up.
    indices.sort_unstable_by(|a, b| b.cmp(a));
    indices.dedup();
    for index in &indices {
        labs.forget_port_forward(&play.id, *index).await?;
    }
    out::line(&format!("{} of {count} saved forwards are removed.", indices.len()))
}

/// Which saved forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// The one that `--list` shows under this number.
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
    use super::{forward, record};
    use crate::forward::{Forward, Side};

    #[test]
    fn what_is_saved_is_restored() {
        for (side, text) in
            [(Side::Local, "8080:web:80"), (Side::Local, "*:0:[::1]:80"), (Side::Remote, "[fe80::1]:8080:localhost:80")]
        {
            let given = Forward { side, spec: text.parse().unwrap(), machine: Some("m".into()) };
            let saved = record(&given, "m").unwrap();
            assert_eq!(forward(&saved).unwrap(), given, "{saved:?}");
        }
        let socket = Forward { side: Side::Local, spec: "80:/run/x".parse().unwrap(), machine: None };
        assert!(record(&socket, "m").unwrap_err().message().contains("cannot be saved"));
    }
}
