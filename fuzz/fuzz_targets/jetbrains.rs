//! JetBrains' sshConfigs.xml: finding, adding and removing hosts.
#![no_main]

use labctl_ssh_proxy::{editors::{jetbrains::{xml::{SshConfigs, hosts}}, settings_file::Format}, platform::Platform, ssh_config::entries::Entry};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let ours = ["playground-0123456789abcdef01234567", "playground-shell"].map(|host| Entry {
        host: host.into(),
        user: "root".into(),
        platform: Platform::Labs,
        title: String::new(),
        alias: None,
        listener: None,
    });
    let _ = hosts(text);
    let format = SshConfigs::default();
    let Ok(emptied) = format.set(text, &[]) else { return };
    assert_eq!(hosts(&emptied).unwrap(), Vec::<String>::new());
    assert_eq!(format.set(&emptied, &[]).unwrap(), emptied);
    let _ = format.repeat(text, &emptied);
    // The first removal may keep the elements around our entries. Later removals restore every byte.
    let set = format.set(text, &ours).unwrap();
    assert_eq!(format.set(&set, &ours).unwrap(), set);
    let emptied = format.set(&set, &[]).unwrap();
    assert_eq!(hosts(&emptied).unwrap(), Vec::<String>::new());
    let again = format.set(&emptied, &ours).unwrap();
    assert_eq!(format.set(&again, &[]).unwrap(), emptied);
});
