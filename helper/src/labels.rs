//! The labels by which host names mean containers.
//!
//! A container's label is its name in lower case, with `-` for every character that a label cannot have. That of a
//! container in a pod is meant with the pod's name in front as well, and with the namespace in front of that: `app`,
//! `web-0-app`, `shop-web-0-app`. Its id works as well, from the first 12 digits on: that is as many as `docker ps` shows.
//! A label that fits several containers means none of them, of whichever engines they are.

use crate::wire::Container;

/// Longest label of a host name.
const MAX_LABEL: usize = 63;

/// The number of digits of an id from which on it is a name.
const ID_DIGITS: usize = 12;

/// The number of digits of a whole id. One that has another number is a name that a person chose.
const WHOLE_ID: usize = 64;

/// The containers that a host name's label means.
pub(crate) fn meant<'a>(containers: &'a [Container], label: &str) -> Vec<&'a Container> {
    containers.iter().filter(|one| is_meant(one, &of(one), label)).collect()
}

/// Gives each container the shortest label that means it and no other. It stays empty where there is none.
pub(crate) fn give(containers: &mut [Container]) {
    // Each is compared with all others.
    let all: Vec<Vec<String>> = containers.iter().map(of).collect();
    let is_only =
        |label: &String| containers.iter().zip(&all).filter(|(one, of)| is_meant(one, of, label)).count() == 1;
    let label = |(one, of): (&Container, &Vec<String>)| {
        let most = if is_whole_id(&one.id) { MAX_LABEL } else { 0 };
        let by_id = (ID_DIGITS..=most).filter_map(|digits| one.id.get(..digits)).map(str::to_owned);
        of.iter().cloned().chain(by_id).find(is_only).unwrap_or_default()
    };
    let labels: Vec<String> = containers.iter().zip(&all).map(label).collect();
    for (container, label) in containers.iter_mut().zip(labels) {
        container.label = label;
    }
}

/// The names of a container as labels, where they can be some.
fn of(container: &Container) -> Vec<String> {
    names(container).filter_map(|name| of_name(&name)).collect()
}

fn is_meant(container: &Container, of: &[String], label: &str) -> bool {
    let by_id = label.len() >= ID_DIGITS && container.id.starts_with(label) && is_whole_id(&container.id);
    by_id || of.iter().any(|one| one == label)
}

/// The names of a container, from the shortest on.
fn names(container: &Container) -> impl Iterator<Item = String> {
    let name = &container.name;
    let in_pod = container.pod.as_ref().map(|pod| {
        let in_pod = format!("{}-{name}", pod.name);
        let in_namespace = format!("{}-{in_pod}", pod.namespace);
        [in_pod, in_namespace]
    });
    std::iter::once(name.clone()).chain(in_pod.into_iter().flatten())
}

fn is_whole_id(id: &str) -> bool {
    id.len() == WHOLE_ID && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// A name as a label, where it can be one.
fn of_name(name: &str) -> Option<String> {
    let fits = |one: char| one.is_ascii_lowercase() || one.is_ascii_digit() || matches!(one, '_' | '-');
    let label: String =
        name.chars().map(|one| one.to_ascii_lowercase()).map(|one| if fits(one) { one } else { '-' }).collect();
    (1..=MAX_LABEL).contains(&label.len()).then_some(label).filter(|label| !label.starts_with(['-', '_']))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Pod;

    fn label(all: &[Container], one: &Container) -> String {
        let at = all.iter().position(|other| std::ptr::eq(other, one)).unwrap();
        let mut all = all.to_vec();
        give(&mut all);
        all.swap_remove(at).label
    }

    fn listed(id: &str, name: &str) -> Container {
        Container { id: id.to_owned(), name: name.to_owned(), ..Container::default() }
    }

    fn in_pod(id: &str, namespace: &str, pod: &str, name: &str) -> Container {
        let pod = Pod { namespace: namespace.to_owned(), name: pod.to_owned() };
        Container { pod: Some(pod), engine: "containerd".to_owned(), ..listed(id, name) }
    }

    const A: &str = "aaaaaaaaaaaa0123aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "aaaaaaaaaaaa0456bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    const C: &str = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";

    #[test]
    fn a_name_becomes_a_label() {
        for (name, label) in [
            ("web", Some("web")),
            ("Web.1", Some("web-1")),
            ("proj_web-1", Some("proj_web-1")),
            ("a..b", Some("a--b")),
            ("é", None),
            ("_x", None),
            ("", None),
        ] {
            assert_eq!(of_name(name).as_deref(), label, "{name}");
        }
        assert_eq!(of_name(&"x".repeat(63)).map(|label| label.len()), Some(63));
        assert_eq!(of_name(&"x".repeat(64)), None);
    }

    #[test]
    fn several_that_fit_are_told_apart_by_their_ids() {
        let all = [listed(A, "web.1"), listed(B, "web-1"), listed(C, "Web")];
        assert_eq!(meant(&all, "web-1").len(), 2);
        assert_eq!(label(&all, &all[0]), "aaaaaaaaaaaa01");
        assert_eq!(label(&all, &all[1]), "aaaaaaaaaaaa04");
        assert_eq!(label(&all, &all[2]), "web");
        assert_eq!(meant(&all, "aaaaaaaaaaaa").len(), 2);
        assert!(meant(&all, "ccccccccccc").is_empty());
        assert_eq!(meant(&all, &C[..63])[0].id, C);
    }

    #[test]
    fn a_container_of_a_pod_is_meant_by_its_own_name_or_with_its_pods() {
        let mut all = [
            in_pod(A, "shop", "web-0", "app"),
            in_pod(B, "shop", "web-1", "app"),
            in_pod(C, "test", "web-1", "proxy"),
            listed("proxy-of-a-person", "web-1-proxy"),
        ];
        give(&mut all);
        assert_eq!(all.each_ref().map(|one| one.label.as_str()), ["web-0-app", "web-1-app", "proxy", ""]);
        for (label, count) in
            [("app", 2), ("shop-web-0-app", 1), ("web-1-proxy", 2), ("test-web-1-proxy", 1), ("0-app", 0)]
        {
            assert_eq!(meant(&all, label).len(), count, "{label}");
        }
    }

    #[test]
    fn an_id_that_a_person_chose_is_no_number() {
        let all = [listed("deadbeefdeadbeef", "one"), listed("database-primary", "two")];
        assert!(meant(&all, "deadbeefdead").is_empty() && meant(&all, "database-pri").is_empty());
    }

    #[test]
    fn a_name_that_is_the_id_of_another_means_neither() {
        let all = [listed(A, "cccccccccccc"), listed(C, "other")];
        assert_eq!(meant(&all, "cccccccccccc").len(), 2);
        assert_eq!((label(&all, &all[0]), label(&all, &all[1])), (A[..12].to_owned(), "other".to_owned()));
    }

    proptest! {
        #[test]
        fn a_label_means_its_container(
            names in proptest::collection::vec("[a-zA-Z0-9._é-]{0,4}", 1..6),
            pods in proptest::collection::vec(proptest::option::of(("[ab.]{1,2}", "[ab.-]{1,3}")), 6),
            ids in proptest::collection::vec("[ab]{12}[01]{3}[a-f0-9]{49}|[a-b.]{0,14}", 6),
        ) {
            let all: Vec<Container> = (0..names.len())
                .map(|n| match &pods[n] {
                    Some((namespace, pod)) => in_pod(&ids[n], namespace, pod, &names[n]),
                    None => listed(&ids[n], &names[n]),
                })
                .collect();
            for one in &all {
                let label = label(&all, one);
                let meant = meant(&all, &label);
                // Equal ids are not for engines to give, and leave no label.
                prop_assert!(label.is_empty() || (meant.len() == 1 && std::ptr::eq(meant[0], one)), "{:?}", all);
                let valid = label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
                prop_assert!(valid && label.len() <= MAX_LABEL && !label.starts_with(['-', '_']));
            }
        }

        #[test]
        fn no_name_makes_it_panic(name in ".*", label in ".*") {
            let mut all = [listed("", &name), in_pod(A, &label, &name, &name)];
            let _ = meant(&all, &label);
            give(&mut all);
        }
    }
}
