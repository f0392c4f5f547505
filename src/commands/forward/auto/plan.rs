//! The decision which ports are forwarded. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::RangeInclusive,
    str::FromStr,
};

use crate::records::forwards::OpenForward;

/// The largest number of ports that are forwarded at once.
pub(super) const MOST: usize = 32;
/// The lowest port that is forwarded. Those below are the system's own servers, sshd among them.
const LOWEST: u16 = 1024;
/// Scans in a row that must miss a port before its forward is closed, because a server that is restarted is back soon.
const MISSED: u32 = 2;
/// Ranges of ports in a sentence; the others are counted.
const NAMED: usize = 8;

/// Ports that are not to be forwarded: `PORT` and `FIRST-LAST`, separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ports(Vec<RangeInclusive<u16>>);

impl Ports {
    fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }

    /// All of several.
    pub(crate) fn all(several: &[Ports]) -> Ports {
        Ports(several.iter().flat_map(|ports| ports.0.clone()).collect())
    }

    /// Some ports as ranges.
    fn of(ports: &BTreeSet<u16>) -> Ports {
        let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
        for port in ports {
            match ranges.last_mut() {
                Some(last) if last.end().checked_add(1) == Some(*port) => *last = *last.start()..=*port,
                _ => ranges.push(*port..=*port),
            }
        }
        Ports(ranges)
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Ports, String> {
        let port = |text: &str| text.trim().parse::<u16>().ok();
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            port(first).zip(port(last)).filter(|(first, last)| first <= last).map(|(first, last)| first..=last)
        };
        let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
        ranges.map(Ports).ok_or_else(|| "write ports and ranges of ports, such as 3000,8000-8080".to_owned())
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(f, "{comma}{first}")?,
                (first, last) => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// Names some ports in a sentence, the first ones if they are many.
pub(super) fn named(ports: &BTreeSet<u16>) -> String {
    let Ports(mut ranges) = Ports::of(ports);
    let rest: usize = ranges.drain(NAMED.min(ranges.len())..).map(|range| range.count()).sum();
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    format!("{}{more}", Ports(ranges).to_string().replace(',', ", "))
}

/// The ports of a machine on which forwards of ours listen: there, or here if the machine is this computer.
pub(super) fn listened_on(all: &[OpenForward], playground: &str, machine: &str, is_here: bool) -> BTreeSet<u16> {
    let is_it =
        |one: &&OpenForward| is_here || one.kind != "local" && one.playground == playground && one.machine == machine;
    // A listener in a container is none of its machine's.
    let elsewhere = |one: &&OpenForward| one.kind != "local" && one.container.is_some();
    all.iter().filter(|one| is_it(one) && !elsewhere(one)).filter_map(OpenForward::listens_on).collect()
}

/// The changes that a scan asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// To be forwarded from now on.
    pub open: Vec<u16>,
    /// No longer to be forwarded.
    pub close: Vec<u16>,
    /// The number of scans in a row that have missed each port that stays forwarded.
    pub missed: BTreeMap<u16, u32>,
    /// Not forwarded, because enough others are.
    pub left_out: BTreeSet<u16>,
}

/// Decides what to do after a scan that found the ports `scan`. `known` are the ports that are forwarded, each with the
/// number of scans in a row that have missed it. `ours` are the ports that this program listens on, or forwards in
/// another way.
pub(super) fn plan(known: &BTreeMap<u16, u32>, scan: &BTreeSet<u16>, ours: &BTreeSet<u16>, excluded: &Ports) -> Plan {
    let wanted = |port: &u16| *port >= LOWEST && !ours.contains(port) && !excluded.contains(*port);
    let found: BTreeSet<u16> = scan.iter().copied().filter(wanted).collect();
    let mut plan = Plan::default();
    for (port, missed) in known {
        match if found.contains(port) { 0 } else { missed + 1 } {
            MISSED.. => plan.close.push(*port),
            missed => drop(plan.missed.insert(*port, missed)),
        }
    }
    for port in found.into_iter().filter(|port| !known.contains_key(port)) {
        if plan.missed.len() + plan.open.len() < MOST {
            plan.open.push(port);
        } else {
            plan.left_out.insert(port);
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::{collection::btree_set, prelude::*};

    use super::{LOWEST, MISSED, MOST, OpenForward, Plan, Ports, listened_on, named, plan};

    fn set(ports: impl IntoIterator<Item = u16>) -> BTreeSet<u16> {
        ports.into_iter().collect()
    }

    /// The state after some scans, and what each of them opened and closed.
    fn after(scans: &[BTreeSet<u16>], ours: &BTreeSet<u16>, excluded: &Ports) -> (BTreeMap<u16, u32>, Vec<Plan>) {
        let mut known = BTreeMap::new();
        let plans = scans.iter().map(|scan| {
            let plan = plan(&known, scan, ours, excluded);
            known = plan.missed.clone();
            known.extend(plan.open.iter().map(|port| (*port, 0)));
            plan
        });
        let plans = plans.collect();
        (known, plans)
    }

    #[test]
    fn a_port_is_opened_as_it_appears_and_closed_after_two_scans_without_it() {
        let scans = [set([3000]), set([3000, 4000]), set([4000]), set([3000, 4000]), set([]), set([]), set([3000])];
        let (_, plans) = after(&scans, &set([]), &Ports::default());
        let changes: Vec<_> = plans.iter().map(|plan| (plan.open.as_slice(), plan.close.as_slice())).collect();
        let none: &[u16] = &[];
        assert_eq!(
            changes,
            [
                (&[3000][..], none),
                (&[4000], none),
                (none, none),
                (none, none),
                (none, none),
                (none, &[3000, 4000]),
                (&[3000], none)
            ]
        );
    }

    #[test]
    fn what_is_ours_excluded_or_the_systems_stays_closed() {
        let scan = set([22, 80, 1023, 1024, 3000, 5000, 5001, 9000]);
        let excluded = "5000-5001,7".parse().unwrap();
        let (_, plans) = after(&[scan], &set([9000]), &excluded);
        assert_eq!(plans[0], Plan { open: vec![1024, 3000], ..Plan::default() });
        // A forward whose port has become ours, as on a platform whose machines share this computer, is closed.
        let now_ours = plan(&[(3000, 1)].into(), &set([3000]), &set([3000]), &excluded);
        assert_eq!(now_ours, Plan { close: vec![3000], ..Plan::default() });
    }

    #[test]
    fn there_are_never_too_many_and_those_that_are_there_stay() {
        let scan = set(40_000..40_200);
        let (known, plans) = after(&[set([50_000]), scan.clone(), scan.clone()], &set([]), &Ports::default());
        assert_eq!((known.len(), plans[1].open.len(), plans[1].left_out.len()), (MOST, MOST - 1, 200 - MOST + 1));
        assert_eq!(plans[2].close, [50_000]);
        assert_eq!(plans[2].open, [40_031], "a free place is taken at once");
        assert_eq!(named(&plans[2].left_out), "40032-40199");
        assert_eq!(named(&set((0..20).map(|i| 2 * i))), "0, 2, 4, 6, 8, 10, 12, 14 and 12 more");
    }

    #[test]
    fn our_own_listeners_count_where_they_are_the_machines() {
        let forward = |kind: &str, protocol: &str, playground: &str, machine: &str, port: u16| OpenForward {
            pid: 1,
            playground: playground.into(),
            machine: machine.into(),
            container: None,
            kind: kind.into(),
            protocol: protocol.into(),
            address: format!("127.0.0.1:{port}"),
            to: "localhost:3000".into(),
        };
        let all = [
            forward("local", "tcp", "p", "m", 1),
            forward("local", "tcp", "other", "m", 2),
            forward("local", "udp", "p", "m", 3),
            forward("remote", "tcp", "p", "m", 4),
            forward("remote", "tcp", "p", "other", 5),
            forward("remote", "tcp", "other", "m", 6),
        ];
        assert_eq!(listened_on(&all, "p", "m", true), set([1, 2, 4, 5, 6]));
        assert_eq!(listened_on(&all, "p", "m", false), set([4]), "a port here is another than the machine's");
    }

    #[test]
    fn ports_are_read_as_they_are_written() {
        for text in ["3000", "3000,5000-5010", "0-65535"] {
            assert_eq!(text.parse::<Ports>().unwrap().to_string(), text);
        }
        assert_eq!(" 1 , 2 - 3 ".parse::<Ports>().unwrap().to_string(), "1,2-3");
        for wrong in ["", ",", "a", "1-", "-1", "2-1", "65536", "1,,2", "1-2-3"] {
            assert!(wrong.parse::<Ports>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9a,\\- ]{0,12}") {
            if let Ok(ports) = text.parse::<Ports>() {
                prop_assert_eq!(ports.to_string().parse::<Ports>(), Ok(ports));
            }
        }

        #[test]
        fn ranges_have_the_same_ports(ports in btree_set(any::<u16>(), 1..50)) {
            let ranges: Ports = Ports::of(&ports).to_string().parse().unwrap();
            prop_assert_eq!((0..=u16::MAX).filter(|port| ranges.contains(*port)).collect::<BTreeSet<_>>(), ports);
        }

        #[test]
        fn whatever_scans_say_the_rules_hold(
            scans in proptest::collection::vec(btree_set(1000_u16..1100, 0..60), 1..12),
            ours in btree_set(1000_u16..1100, 0..5),
            excluded in btree_set(1000_u16..1100, 1..5),
        ) {
            let excluded = Ports::of(&excluded);
            let (known, plans) = after(&scans, &ours, &excluded);
            prop_assert!(known.len() <= MOST);
            let mut open = BTreeSet::new();
            for (i, (scan, plan)) in scans.iter().zip(&plans).enumerate() {
                let before: BTreeSet<u16> = open.clone();
                for port in &plan.close {
                    prop_assert!(open.remove(port), "only what is open is closed");
                    let recent = &scans[(i + 1).saturating_sub(MISSED as usize)..=i];
                    prop_assert!(recent.iter().all(|scan| !scan.contains(port)), "it was missed again and again");
                }
                for port in &plan.open {
                    prop_assert!(scan.contains(port) && *port >= LOWEST && !ours.contains(port));
                    prop_assert!(!excluded.contains(*port) && open.insert(*port) && !before.contains(port));
                }
                prop_assert!(open.len() <= MOST);
                prop_assert!(plan.left_out.is_empty() || open.len() == MOST, "nothing is left out without a need");
                prop_assert!(plan.left_out.is_disjoint(&open));
            }
            prop_assert_eq!(open, known.into_keys().collect::<BTreeSet<_>>());
        }
    }
}
