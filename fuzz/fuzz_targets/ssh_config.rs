//! Edits of the user's ssh configuration: everything but our own entries stays byte for byte.
#![no_main]

use labctl_ssh_proxy::ssh_config::{edit, words};
use libfuzzer_sys::fuzz_target;

const PATH: &str = "/home/x/ssh_config";

fuzz_target!(|text: &[u8]| {
    let _ = (edit::own_entries(text), edit::has_block(text), edit::is_untouched(text));
    let ours = [PATH.to_owned()];
    let Ok(rest) = edit::remove(text, &ours) else { return };
    assert_eq!(edit::remove(&rest, &ours).ok().as_deref(), Some(&rest[..]));
    // A configuration without our entries is not changed.
    if edit::is_untouched(text) && !text.windows(PATH.len()).any(|part| part == PATH.as_bytes()) {
        assert_eq!(rest, text);
    }
    for inserted in [edit::insert_include(text, PATH, &ours), edit::insert_block(text, "Host x\n  Port 1", &ours)] {
        let Ok(inserted) = inserted else { continue };
        assert!(inserted.ends_with(&rest));
        assert_eq!(edit::remove(&inserted, &ours).unwrap(), rest);
    }
    // A ProxyCommand's words, as different programs split them.
    let text = String::from_utf8_lossy(text);
    let _ = (words::agreed(&text), words::create_process(&text), words::shell(&text), words::open_remote_ssh(&text));
});
