//! The platform's JSON, and the state files in JSON.
#![no_main]

use std::{fs, sync::LazyLock};

use labctl_ssh_proxy::{commands::forward, labs::wire, local, platform::Platform, records::{live, memory, names::Names, tunnels}, settings::Folders, ssh_config};
use libfuzzer_sys::fuzz_target;

/// The folder of the state files.
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    fs::create_dir(folder.path().join("local")).unwrap();
    folder
});

fuzz_target!(|bytes: &[u8]| {
    if let Ok(plays) = serde_json::from_slice::<Vec<wire::Play>>(bytes) {
        for play in &plays {
            let _ = (play.state().map(ToString::to_string), play.belongs_to_a_lesson());
            let _ = (play.lifetime(), play.shown(), play.init_progress());
            for machine in &play.machines {
                let _ = (machine.default_user(), play.machine_status(&machine.name).map(|status| status.is_ready()));
            }
        }
        // Plays that were parsed survive a round trip through JSON unchanged.
        let text = serde_json::to_vec(&plays).unwrap();
        assert_eq!(serde_json::from_slice::<Vec<wire::Play>>(&text).unwrap(), plays);
    }
    let _ = serde_json::from_slice::<Vec<wire::CatalogEntry>>(bytes);
    let _ = serde_json::from_slice::<wire::TunnelOffer>(bytes);
    let _ = serde_json::from_slice::<wire::Message>(bytes);
    let _ = serde_json::from_slice::<wire::Login>(bytes);
    let _ = serde_json::from_slice::<wire::Action>(bytes);
    let _ = serde_json::from_slice::<memory::Record>(bytes);
    let _ = serde_json::from_slice::<tunnels::Known>(bytes);
    let _ = serde_json::from_slice::<live::Status>(bytes);
    let _ = serde_json::from_slice::<local::serve::Status>(bytes);
    let _ = serde_json::from_slice::<Vec<wire::TaskDetails>>(bytes);
    let _ = serde_json::from_slice::<wire::Me>(bytes);
    if let Ok(saved) = serde_json::from_slice::<wire::SavedForward>(bytes)
        && let Ok(forward) = forward::saved::forward(&saved)
    {
        let again = forward::saved::record(&forward, forward.machine.as_deref().unwrap_or_default()).unwrap();
        assert_eq!(forward::saved::forward(&wire::SavedForward::Known(again)).unwrap(), forward);
    }
    // Parsers that read only from a file. The length of the input selects one of them.
    let root = FOLDER.path().to_owned();
    let folders = Folders { home: root.clone(), settings: root.join("settings.yaml"), root: root.clone() };
    let write = |name: &str| fs::write(root.join(name), bytes).unwrap();
    match bytes.len() % 3 {
        0 => {
            write("hosts.json");
            let _ = ssh_config::managed_files(&folders);
        }
        1 => {
            write("names.json");
            let names = Names::load(&folders, Platform::Labs);
            names.plays.iter().flatten().for_each(|known| drop(known.hosts("")));
            names.catalog.iter().flatten().for_each(|entry| drop(entry.hosts("")));
        }
        _ => {
            write("local/credentials.json");
            let _ = local::credentials(&folders.local());
        }
    }
});
