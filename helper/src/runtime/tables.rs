//! The kernel's tables about a process.

use rustix::{
    fs::Mode,
    process::{Resource, Rlimit},
};

/// The limits in `/proc/<pid>/limits`.
pub(super) fn limits_in(table: &[u8]) -> Vec<(Resource, Rlimit)> {
    let table = String::from_utf8_lossy(table);
    let known = [
        ("Max cpu time", Resource::Cpu),
        ("Max file size", Resource::Fsize),
        ("Max data size", Resource::Data),
        ("Max stack size", Resource::Stack),
        ("Max core file size", Resource::Core),
        ("Max resident set", Resource::Rss),
        ("Max processes", Resource::Nproc),
        ("Max open files", Resource::Nofile),
        ("Max locked memory", Resource::Memlock),
        ("Max address space", Resource::As),
        ("Max file locks", Resource::Locks),
        ("Max pending signals", Resource::Sigpending),
        ("Max msgqueue size", Resource::Msgqueue),
        ("Max nice priority", Resource::Nice),
        ("Max realtime priority", Resource::Rtprio),
        ("Max realtime timeout", Resource::Rttime),
    ];
    let value = |word: &str| if word == "unlimited" { Some(None) } else { word.parse().ok().map(Some) };
    let limit = |(name, resource): &(&str, Resource)| {
        let mut words = table.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace();
        Some((*resource, Rlimit { current: value(words.next()?)?, maximum: value(words.next()?)? }))
    };
    known.iter().filter_map(limit).collect()
}

/// The mask in `/proc/<pid>/status`.
pub(super) fn umask_in(status: &[u8]) -> Option<Mode> {
    let status = String::from_utf8_lossy(status);
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(mask.trim(), 8).ok().map(Mode::from_raw_mode)
}
