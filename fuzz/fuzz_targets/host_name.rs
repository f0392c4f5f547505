//! Host names and port forward specifications: an accepted one prints as it was parsed.
#![no_main]

use labctl_ssh_proxy::{commands::forward::spec::Spec, target::{self, Target}};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(target) = Target::parse(text) {
        assert_eq!(target.to_string(), text);
        assert!(text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b)));
    }
    if let Ok(Some(user)) = target::user(Some(text)) {
        assert!(!user.contains(['\n', '/', ' ', '%', '\'', '"', '`', '$', ';']));
    }
    if let Ok(spec) = text.parse::<Spec>() {
        assert_eq!(spec.to_string().parse::<Spec>().ok(), Some(spec));
    }
});
