//! known_hosts: lines that are not ours stay byte for byte, and what was learned is forgotten.
#![no_main]

use labctl_ssh_proxy::ssh::{host_key::HostKeyBlob, known_hosts::{KnownHosts, Verdict, Whose}};
use libfuzzer_sys::fuzz_target;

const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIE+o3uRHvmfJnP8V4yLRSfcJzMcBhOVmoLKnf7iBX6cN";
const WHOSE: Whose<'_> = Whose { alias: "playground-x", play: "0123456789abcdef01234567", machine: "m", shown: "" };

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = folder.path().join("known_hosts");
    std::fs::write(&path, bytes).unwrap();
    let known = KnownHosts::at(&path);
    let key = HostKeyBlob::from_fields("ssh-ed25519", KEY).unwrap();
    // Lines of other programs bind as well. Those that name more or other hosts than the playground stay with it gone.
    let before = known.knows(WHOSE).unwrap();
    // A key that was learned and then withdrawn is no longer binding.
    if before.is_empty()
        && known.check(WHOSE, &key).is_ok_and(|verdict| verdict == Verdict::Learnt)
    {
        known.withdraw(WHOSE, &key).unwrap();
        assert!(known.knows(WHOSE).unwrap().is_empty());
    }
    if known.confirm(WHOSE, &key).is_ok() {
        assert!(known.knows(WHOSE).unwrap().iter().any(|kind| kind == "ssh-ed25519"));
        known.forget_play(WHOSE.play).unwrap();
        assert!(known.knows(WHOSE).unwrap().iter().all(|kind| before.contains(kind)));
        let after = std::fs::read(&path).unwrap();
        let ours = format!("{} ssh-ed25519 {KEY} {}/{}", WHOSE.alias, WHOSE.play, WHOSE.machine);
        assert!(after.split(|b| *b == b'\n').all(|line| line != ours.as_bytes()));
        // A line that can name none of our plays must stay.
        let may_be_ours = |line: &[u8]| line.iter().any(|b| matches!(b, b'/' | b'|')) || line.windows(10).any(|w| w.eq_ignore_ascii_case(b"playground"));
        for line in bytes.split(|b| *b == b'\n').filter(|line| !may_be_ours(line)) {
            assert!(after.split(|b| *b == b'\n').any(|kept| kept == line));
        }
    }
});
