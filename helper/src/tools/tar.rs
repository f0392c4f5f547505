//! The files of an archive that an engine makes of an image, which is foreign.
//!
//! Each path is walked from the folder on, part by part, and no link is followed. Devices, pipes and sockets are left
//! out, and so are owners and all permissions but those that an ordinary program has. A link to `/x` becomes one to
//! `x` in the same archive.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};

/// One record of an archive, which all its parts are filled up to.
const RECORD: usize = 512;

/// Longest path, and longest record about one. The kernel's own bound for a path is 4096.
const MAX_NAME: u64 = 64 * 1024;

/// Writes the files of an archive into a folder.
///
/// # Errors
/// Fails when the archive ends early or is none, when a path leads out, and when a file cannot be written.
pub(super) fn unpack(mut archive: impl Read, folder: &Path) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(folder, flags, Mode::empty())?;
    let mut about = About::default();
    loop {
        let mut header = [0; RECORD];
        archive.read_exact(&mut header)?;
        if header.iter().all(|byte| *byte == 0) {
            // Nothing follows, and the engine waits until it is read.
            io::copy(&mut archive, &mut io::sink())?;
            return Ok(());
        }
        if &header[257..262] != b"ustar" {
            return Err(wrong("it is no archive"));
        }
        let size = about.size.take().map_or_else(|| number(&header[124..136]), Ok)?;
        let mut contents = archive.by_ref().take(size);
        match header[156] {
            b'x' => about = About::of(&text(&mut contents)?),
            b'L' => about.path = Some(until_nul(&text(&mut contents)?).to_vec()),
            b'K' => about.link = Some(until_nul(&text(&mut contents)?).to_vec()),
            b'g' => {}
            kind => {
                let About { path, link, .. } = std::mem::take(&mut about);
                let path = path.unwrap_or_else(|| {
                    let (prefix, name) = (until_nul(&header[345..500]), until_nul(&header[..100]));
                    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
                });
                let link = link.unwrap_or_else(|| until_nul(&header[157..257]).to_vec());
                let mode = number(&header[100..108])?;
                put(&root, &path, kind, mode as u32, &link, &mut contents)?;
            }
        }
        io::copy(&mut contents, &mut io::sink())?;
        if contents.limit() > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let rest = (RECORD as u64 - size % RECORD as u64) % RECORD as u64;
        archive.read_exact(&mut [0; RECORD][..rest as usize])?;
    }
}

/// Makes one file, folder or link.
fn put(root: &OwnedFd, path: &[u8], kind: u8, mode: u32, link: &[u8], contents: &mut impl Read) -> io::Result<()> {
    let Some((parent, name, depth)) = parent(root, path)? else { return Ok(()) };
    // A second entry of a path replaces nothing.
    let replaced = |made: rustix::io::Result<()>| if made == Err(Errno::EXIST) { Ok(()) } else { made };
    match kind {
        b'0' | 0 => {
            let _ = rustix::fs::unlinkat(&parent, name, AtFlags::empty());
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(rustix::fs::openat(&parent, name, flags, Mode::RUSR | Mode::WUSR)?);
            io::copy(contents, &mut file)?;
            file.flush()?;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o755))?;
        }
        b'1' => {
            let Some((of, source, _)) = self::parent(root, link)? else { return Ok(()) };
            replaced(rustix::fs::linkat(of, source, &parent, name, AtFlags::empty()))?;
        }
        b'2' => {
            let within = link.strip_prefix(b"/").map(|rest| [&b"../".repeat(depth)[..], b"./", rest].concat());
            let target = within.unwrap_or_else(|| link.to_vec());
            replaced(rustix::fs::symlinkat(OsStr::from_bytes(&target), &parent, name))?;
        }
        b'5' => drop(folder(&parent, name)?),
        _ => {}
    }
    Ok(())
}

/// The folder of a path, its name there, and the number of folders above. None: the path is the root itself.
fn parent<'a>(root: &OwnedFd, path: &'a [u8]) -> io::Result<Option<(OwnedFd, &'a OsStr, usize)>> {
    let mut parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.contains(&&b".."[..]) {
        return Err(wrong("a path in it leads out"));
    }
    let Some(name) = parts.pop() else { return Ok(None) };
    let mut at = root.try_clone()?;
    for part in &parts {
        at = folder(&at, OsStr::from_bytes(part))?;
    }
    Ok(Some((at, OsStr::from_bytes(name), parts.len())))
}

/// A folder in another, which is made where it is missing. A link is none.
fn folder(parent: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    let open = || {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(parent, name, flags, Mode::empty())
    };
    match open() {
        Err(Errno::NOENT) => {
            rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(0o755), AtFlags::empty())?;
            Ok(open()?)
        }
        opened => Ok(opened?),
    }
}

/// The words of a record about the entry that follows it.
#[derive(Default)]
struct About {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl About {
    /// Reads lines of `<length> <key>=<value>\n`.
    fn of(mut text: &[u8]) -> About {
        let mut about = About::default();
        while let Some(space) = text.iter().position(|byte| *byte == b' ') {
            let length = std::str::from_utf8(&text[..space]).ok().and_then(|digits| digits.parse::<usize>().ok());
            let Some(line) = length.and_then(|length| text.get(space + 1..length)) else { break };
            if let Some(equals) = line.iter().position(|byte| *byte == b'=') {
                let value = line[equals + 1..].strip_suffix(b"\n").unwrap_or(&line[equals + 1..]);
                match &line[..equals] {
                    b"path" => about.path = Some(value.to_vec()),
                    b"linkpath" => about.link = Some(value.to_vec()),
                    b"size" => about.size = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()),
                    _ => {}
                }
            }
            text = &text[space + 1 + line.len()..];
        }
        about
    }
}

fn text(contents: &mut io::Take<impl Read>) -> io::Result<Vec<u8>> {
    if contents.limit() > MAX_NAME {
        return Err(wrong("a path in it is too long"));
    }
    let mut text = Vec::new();
    contents.read_to_end(&mut text)?;
    Ok(text)
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number in octal digits, or in binary where they do not suffice.
fn number(field: &[u8]) -> io::Result<u64> {
    if field[0] == 0x80 {
        return Ok(field[field.len() - 8..].iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
    }
    let digits = std::str::from_utf8(field).unwrap_or_default().trim_matches(['\0', ' ']);
    match digits {
        "" => Ok(0),
        digits => u64::from_str_radix(digits, 8).map_err(|_| wrong("a number in it is none")),
    }
}

fn wrong(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, symlink},
        process::Command,
    };

    use proptest::prelude::*;

    use super::*;

    fn archived(folder: &Path, options: &[&str]) -> Vec<u8> {
        let output = Command::new("tar").args(options).args(["-c", "-C"]).arg(folder).arg(".").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }

    /// tar is the judge, in each of its formats.
    #[test]
    fn an_archive_becomes_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("from");
        let long = "d/".repeat(60) + &"n".repeat(200);
        fs::create_dir_all(from.join(&long).parent().unwrap()).unwrap();
        fs::write(from.join(&long), "far").unwrap();
        fs::write(from.join("program"), vec![7; 100_000]).unwrap();
        fs::set_permissions(from.join("program"), std::os::unix::fs::PermissionsExt::from_mode(0o4777)).unwrap();
        fs::hard_link(from.join("program"), from.join("again")).unwrap();
        symlink("/program", from.join("d/absolute")).unwrap();
        symlink("program", from.join("relative")).unwrap();
        symlink(&long, from.join("long")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, from.join("pipe"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        for format in ["pax", "gnu"] {
            let to = folder.path().join(format);
            fs::create_dir(&to).unwrap();
            unpack(&archived(&from, &["--format", format])[..], &to).unwrap();
            assert_eq!(fs::read(to.join(&long)).unwrap(), b"far");
            assert_eq!(fs::read(to.join("long")).unwrap(), b"far");
            for name in ["program", "again", "d/absolute", "relative"] {
                assert_eq!(fs::read(to.join(name)).unwrap(), vec![7; 100_000], "{name}");
            }
            assert_eq!(fs::metadata(to.join("program")).unwrap().mode() & 0o7777, 0o755);
            assert_eq!(fs::metadata(to.join("again")).unwrap().nlink(), 2);
            assert!(!to.join("pipe").exists());
        }
    }

    #[test]
    fn nothing_is_written_outside() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        for made in [&from, &to] {
            fs::create_dir(made).unwrap();
        }
        let outside = folder.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(folder.path().join("evil"), "x").unwrap();
        let output = Command::new("tar").args(["-c", "-P", "-C"]).arg(&from).arg("../evil").output().unwrap();
        assert!(unpack(&output.stdout[..], &to).is_err());
        // A link, and then a file below it.
        symlink(&outside, from.join("link")).unwrap();
        let link = archived(&from, &[]);
        fs::remove_file(from.join("link")).unwrap();
        fs::create_dir(from.join("link")).unwrap();
        fs::write(from.join("link/file"), "x").unwrap();
        let file = archived(&from, &[]);
        symlink(&outside, to.join("link")).unwrap();
        assert!(unpack(&file[..], &to).is_err());
        fs::remove_file(to.join("link")).unwrap();
        unpack(&link[..], &to).unwrap();
        assert!(unpack(&file[..], &to).is_err());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert!(fs::read_dir(&to).unwrap().all(|entry| entry.unwrap().file_name() != "evil"));
    }

    proptest! {
        #[test]
        fn no_archive_makes_it_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..1200), kind in any::<u8>(), size in 0_u32..2000,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let mut header = [0; RECORD];
            let name = &bytes[..bytes.len().min(100)];
            header[..name.len()].copy_from_slice(name);
            header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
            header[156] = kind;
            header[257..262].copy_from_slice(b"ustar");
            let _ = unpack(&[&header[..], &bytes].concat()[..], folder.path());
            let _ = About::of(&bytes);
        }
    }
}
