//! The labels by which host names mean containers.
//!
//! A container's label is its name in lower case, with `-` for every character that a label cannot have. Its id works as
//! well, from the first 12 digits on: that is as many as `docker ps` shows. A label that fits several containers means
//! none of them.

use crate::{
    engine::{self, Listed},
    wire::Container,
};

/// Longest label of a host name.
const MAX_LABEL: usize = 63;

/// The number of digits of an id from which on it is a name.
const ID_DIGITS: usize = 12;

/// The name, without the slash that Docker puts in front. Names of links have a second slash.
pub(crate) fn name(container: &Listed) -> &str {
    let own =
        container.names.iter().map(|name| name.strip_prefix('/').unwrap_or(name)).find(|name| !name.contains('/'));
    own.filter(|name| !name.is_empty()).unwrap_or_else(|| short_id(&container.id))
}

/// The containers that a host name's label means.
pub(crate) fn meant<'a>(containers: &'a [Listed], label: &str) -> Vec<&'a Listed> {
    containers.iter().filter(|one| is_meant(one, label)).collect()
}

/// The container for people and for host names.
pub(crate) fn described(containers: &[Listed], container: &Listed) -> Container {
    Container {
        id: container.id.clone(),
        name: name(container).to_owned(),
        label: label(containers, container),
        image: container.image.clone(),
        state: container.state.clone(),
        status: container.status.clone(),
        engine: "docker".to_owned(),
        pod: None,
        ports: container.ports.iter().map(engine::Port::described).collect(),
    }
}

/// The shortest label that means this container and no other. Empty where its engine gives it neither name nor id.
fn label(containers: &[Listed], container: &Listed) -> String {
    let id = container.id.as_str();
    let by_name = of_name(name(container));
    let by_id = (ID_DIGITS..=id.len().min(MAX_LABEL)).filter_map(|digits| id.get(..digits)).map(str::to_owned);
    let mut candidates = by_name.into_iter().chain(by_id);
    candidates
        .find(|label| matches!(meant(containers, label)[..], [only] if std::ptr::eq(only, container)))
        .unwrap_or_default()
}

fn is_meant(container: &Listed, label: &str) -> bool {
    let by_id = label.len() >= ID_DIGITS && container.id.starts_with(label);
    by_id || of_name(name(container)).is_some_and(|of_name| of_name == label)
}

/// A name as a label, where it can be one.
fn of_name(name: &str) -> Option<String> {
    let fits = |one: char| one.is_ascii_lowercase() || one.is_ascii_digit() || matches!(one, '_' | '-');
    let label: String =
        name.chars().map(|one| one.to_ascii_lowercase()).map(|one| if fits(one) { one } else { '-' }).collect();
    (1..=MAX_LABEL).contains(&label.len()).then_some(label).filter(|label| !label.starts_with(['-', '_']))
}

fn short_id(id: &str) -> &str {
    id.get(..ID_DIGITS).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listed(id: &str, names: &[&str]) -> Listed {
        Listed { id: id.to_owned(), names: names.iter().map(|&name| name.to_owned()).collect(), ..Listed::default() }
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
    fn a_link_of_another_container_is_no_name() {
        assert_eq!(name(&listed(A, &["/other/db", "/web"])), "web");
        assert_eq!(name(&listed(A, &[])), "aaaaaaaaaaaa");
    }

    #[test]
    fn several_that_fit_are_told_apart_by_their_ids() {
        let all = [listed(A, &["/web.1"]), listed(B, &["/web-1"]), listed(C, &["/Web"])];
        assert_eq!(meant(&all, "web-1").len(), 2);
        assert_eq!(label(&all, &all[0]), "aaaaaaaaaaaa01");
        assert_eq!(label(&all, &all[1]), "aaaaaaaaaaaa04");
        assert_eq!(label(&all, &all[2]), "web");
        assert_eq!(meant(&all, "aaaaaaaaaaaa").len(), 2);
        assert!(meant(&all, "ccccccccccc").is_empty());
        assert_eq!(meant(&all, &C[..63])[0].id, C);
    }

    #[test]
    fn a_name_that_is_the_id_of_another_means_neither() {
        let all = [listed(A, &["/cccccccccccc"]), listed(C, &["/other"])];
        assert_eq!(meant(&all, "cccccccccccc").len(), 2);
        assert_eq!((label(&all, &all[0]), label(&all, &all[1])), (A[..12].to_owned(), "other".to_owned()));
    }

    proptest! {
        #[test]
        fn a_label_means_its_container(
            names in proptest::collection::vec("/?[a-zA-Z0-9._é-]{0,4}", 1..6),
            ids in proptest::collection::vec("[ab]{12}[01]{3}[a-f0-9]{49}", 6),
        ) {
            let all: Vec<Listed> = names.iter().zip(&ids).map(|(name, id)| listed(id, &[name])).collect();
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
            let all = [listed("", &[&name])];
            let _ = meant(&all, &label);
            let _ = described(&all, &all[0]);
        }
    }
}
