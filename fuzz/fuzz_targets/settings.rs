//! The settings file and the account file, both YAML.
#![no_main]

use labctl_ssh_proxy::{labs::account::Account, settings::Settings};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, bytes).unwrap();
    let _ = Settings::load(&path);
    if Account::load(&path).is_ok() && Account::save_credentials(&path, "id", "token").is_ok() {
        let account = Account::load(&path).unwrap();
        assert_eq!(account.credentials(), Some(("id", "token")));
    }
});
