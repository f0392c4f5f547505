//! Kubeconfigs: reading, redirecting, merging a context and removing it.
#![no_main]

use labctl_ssh_proxy::{cluster::kubeconfig as config, commands::kube::merge};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = config::servers(text);
    let is_harmless = config::check(text, "x").is_ok();
    if let Ok(edited) = config::redirect(text, |_| 6443) {
        assert_eq!(config::check(&edited, "x").is_ok(), is_harmless);
    }
    let _ = config::current(text);
    let current = config::Current {
        cluster: serde_json::json!({"server": "https://127.0.0.1:1"}),
        user: serde_json::json!({}),
        namespace: None,
    };
    if let Ok(added) = merge::add(text, "playground-x", &current, true) {
        let removed = merge::remove(&added, "playground-x").unwrap();
        assert!(!removed.contains("playground-x") || text.contains("playground-x"));
    }
});
