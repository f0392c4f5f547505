//! Processes, as the kernel tells of them in `/proc/<pid>/stat`.

use std::fs;

use rustix::process::Pid;

/// A process, as far as it is needed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Its number.
    pub(crate) pid: Pid,
    /// False for a process that has ended, and waits to be collected.
    pub(crate) is_alive: bool,
    /// Its parent's number, 0 where that is in another namespace.
    pub(crate) parent: i32,
    /// The number of its group.
    pub(crate) group: i32,
    /// Its start, in clock ticks since the machine's.
    pub(crate) started: u64,
}

impl Stat {
    /// Reads a line. The program's name in it is its own choice: brackets, line ends, and bytes that are no text.
    pub(crate) fn of(line: &[u8]) -> Option<Stat> {
        let text = |bytes| std::str::from_utf8(bytes).ok();
        let end = line.iter().rposition(|&byte| byte == b')')?;
        let pid = Pid::from_raw(text(line.split(|&byte| byte == b' ').next()?)?.parse().ok()?)?;
        let mut rest = text(&line[end + 1..])?.split_ascii_whitespace();
        let is_alive = !matches!(rest.next()?, "Z" | "X");
        let (parent, group) = (rest.next()?.parse().ok()?, rest.next()?.parse().ok()?);
        Some(Stat { pid, is_alive, parent, group, started: rest.nth(16)?.parse().ok()? })
    }
}

/// All processes that this one sees.
pub(crate) fn all() -> Vec<Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter_map(|pid| Stat::of(&fs::read(format!("/proc/{pid}/stat")).ok()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processs_name_is_no_field() {
        let rest = "9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 100 200";
        let expected = |is_alive| Stat { pid: Pid::from_raw(12).unwrap(), is_alive, parent: 7, group: 9, started: 777 };
        assert_eq!(Stat::of(format!("12 (a) Z 1 (b\n) S 7 9 {rest}").as_bytes()), Some(expected(true)));
        assert_eq!(Stat::of(format!("12 (a) Z 7 9 {rest}").as_bytes()), Some(expected(false)));
        let bytes = [b"12 (\xff\xc3) S 7 9 ", rest.as_bytes()].concat();
        assert_eq!(Stat::of(&bytes), Some(expected(true)));
        for broken in ["", "12", "12 (a", "12 (a) S", "12 (a) S 1 1 1", "0 (a) S 1 1", "x (a) S 1 1"] {
            assert_eq!(Stat::of(broken.as_bytes()), None, "{broken}");
        }
        for broken in ["0 (a) S 7 9", "x (a) S 7 9", "12 (a) S x 9", "12 (a) S 7 x"] {
            assert_eq!(Stat::of(format!("{broken} {rest}").as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn this_process_is_one_of_all() {
        let own = rustix::process::getpid();
        let all = all();
        let own = all.iter().find(|one| one.pid == own).unwrap();
        assert!(own.is_alive && own.parent == rustix::process::getppid().unwrap().as_raw_nonzero().get());
    }
}
