//! Zed's settings, JSON with comments: adding and removing connections.
#![no_main]

use labctl_ssh_proxy::{editors::{settings_file::Format, zed::Connections}, platform::Platform, ssh_config::entries::Entry};
use libfuzzer_sys::fuzz_target;

const HOST: &str = "playground-shell";

fuzz_target!(|text: &str| {
    let entries = [Entry { host: HOST.into(), user: "root".into(), platform: Platform::Labs, title: String::new(), alias: None, listener: None }];
    let format = Connections { ours: vec![HOST.into()], ..Connections::default() };
    let Ok(emptied) = format.set(text, &[]) else { return };
    assert_eq!(format.set(&emptied, &[]).unwrap(), emptied);
    let Ok(set) = format.set(&emptied, &entries) else { return };
    assert!(set.contains(HOST));
    assert_eq!(format.set(&set, &entries).unwrap(), set);
    let _ = format.repeat(text, &set);
    // The first removal may keep the list and its line breaks. Later removals restore every byte.
    let emptied = format.set(&set, &[]).unwrap();
    let again = format.set(&emptied, &entries).unwrap();
    assert_eq!(format.set(&again, &[]).unwrap(), emptied);
});
