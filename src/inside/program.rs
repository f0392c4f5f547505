//! The helper's program, packed: where it comes from on this computer.
//!
//! A release carries the one for x86_64 in itself, and the one for aarch64 in a file beside it. A build of cargo carries
//! none, and finds both in files that `scripts/helper` makes.
//!
//! Each is a gzip file whose header has the SHA-256 of the program as its comment. So neither of them needs a second
//! file, the program is not unpacked here, and the two cannot get out of step: a machine compares that hash with the
//! program before each use.

use std::{borrow::Cow, env, fs, io, path::Path};

use crate::error::{Error, Kind, Result};

/// The processors that a helper exists for, by the words of `uname -m`.
pub const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

/// The helper for x86_64, which `scripts/package` names when it builds a release.
#[cfg(feature = "embedded-helper")]
const EMBEDDED: Option<&[u8]> = Some(include_bytes!(env!("LABCTL_SSH_PROXY_HELPER")));
#[cfg(not(feature = "embedded-helper"))]
const EMBEDDED: Option<&[u8]> = None;

/// The processor of [`EMBEDDED`].
const EMBEDDED_ARCHITECTURE: &str = "x86_64";

/// The folder of a package's helpers, as seen from the folder of its program.
const PACKAGE_FOLDER: &str = "../lib/labctl-ssh-proxy";

/// Largest packed helper that is read. It has less than 1 MiB; one that is built without optimization has more.
const MAX_SIZE: u64 = 64 * 1024 * 1024;

/// Before the hash, in the comment of a gzip header.
const MARK: &[u8] = b"sha256:";

/// A helper as it is sent to a machine.
#[derive(Debug)]
pub struct Packed {
    /// The program, compressed by gzip.
    pub gzip: Cow<'static, [u8]>,
    /// The SHA-256 of the program itself, in hexadecimal digits.
    pub sha256: String,
}

impl Packed {
    fn new(gzip: Cow<'static, [u8]>) -> Option<Packed> {
        let sha256 = hash(&gzip)?.to_owned();
        Some(Packed { gzip, sha256 })
    }
}

/// Finds the helper for a machine whose processor is `architecture`, a word of `uname -m`.
///
/// # Errors
/// Fails when there is none for such a machine, or when this build lacks it.
pub fn packed(architecture: &str) -> Result<Packed> {
    if !ARCHITECTURES.contains(&architecture) {
        let message = format!("there is no helper for a machine of the kind {architecture:?}");
        return Err(Error::new(Kind::Program, message)
            .with_hint(format!("containers can be entered on machines of the kinds {}", ARCHITECTURES.join(" and "))));
    }
    if let Some(gzip) = EMBEDDED.filter(|_| architecture == EMBEDDED_ARCHITECTURE) {
        return Packed::new(Cow::Borrowed(gzip))
            .ok_or_else(|| Error::new(Kind::Internal, "the helper in this program has no hash"));
    }
    // A link in PATH leads to the folder that the program was installed in.
    let program = env::current_exe().and_then(fs::canonicalize);
    let program =
        program.map_err(|e| Error::new(Kind::Program, format!("cannot find this program's own file: {e}")))?;
    let folder = program.parent().unwrap_or(Path::new("/"));
    beside(folder, architecture)
}

/// Finds the helper in a file beside the program, which lies in `folder`.
fn beside(folder: &Path, architecture: &str) -> Result<Packed> {
    let name = format!("labctl-ssh-proxy-helper-{architecture}.gz");
    for path in [folder.join(&name), folder.join(PACKAGE_FOLDER).join(&name)] {
        let gzip = match fs::metadata(&path) {
            Ok(data) if data.is_file() && data.len() <= MAX_SIZE => fs::read(&path),
            Ok(_) => Err(io::Error::from(io::ErrorKind::InvalidData)),
            Err(e) => Err(e),
        };
        match gzip {
            Ok(gzip) => {
                return Packed::new(Cow::Owned(gzip)).ok_or_else(|| {
                    Error::new(Kind::File, format!("{} is not a helper", path.display()))
                        .with_hint("install labctl-ssh-proxy again; in its sources, run scripts/helper")
                });
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(e) => return Err(Error::file("read", &path, &e)),
        }
    }
    let message = format!("this build of labctl-ssh-proxy has no helper for {architecture}, and containers need it");
    Err(Error::new(Kind::Program, message).with_hint(format!(
        "install a release, or put its {name} into {}; in the sources, run scripts/helper {architecture}",
        folder.display()
    )))
}

/// The hash in the header of a packed helper; `None` for any other content.
fn hash(gzip: &[u8]) -> Option<&str> {
    // Identification, method, and the flag that says that a comment is all that the header has besides.
    let header = gzip.get(..10).filter(|header| header.starts_with(&[0x1f, 0x8b, 8, 0x10]))?;
    let comment = gzip[header.len()..].strip_prefix(MARK)?;
    let digits = comment.get(..64).filter(|_| comment.get(64) == Some(&0))?;
    let is_digit = |c: &u8| c.is_ascii_digit() || (b'a'..=b'f').contains(c);
    std::str::from_utf8(digits).ok().filter(|_| digits.iter().all(is_digit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::tempdir;

    use super::*;

    /// A header with a comment, and what stands behind it.
    fn gzip(comment: &str) -> Vec<u8> {
        let mut bytes = vec![0x1f, 0x8b, 8, 0x10, 0, 0, 0, 0, 2, 3];
        bytes.extend_from_slice(comment.as_bytes());
        bytes.extend_from_slice(b"\0deflated");
        bytes
    }

    #[test]
    fn the_hash_stands_in_the_header() {
        let sum = "0123456789abcdef".repeat(4);
        assert_eq!(hash(&gzip(&format!("sha256:{sum}"))), Some(sum.as_str()));
        for other in ["", "sha256:", &sum, &format!("sha256:{sum}0"), &format!("sha256:{}", sum.to_uppercase())] {
            assert_eq!(hash(&gzip(other)), None, "{other}");
        }
        assert_eq!(hash(b"\x1f\x8b\x08\x00\0\0\0\0\x02\x03"), None);
    }

    proptest! {
        #[test]
        fn a_name_of_a_file_is_all_that_a_hash_can_be(bytes: Vec<u8>, cut in 0_usize..90) {
            let mut damaged = gzip(&format!("sha256:{}", "ab".repeat(32)));
            damaged.truncate(cut);
            damaged.extend(bytes);
            if let Some(hash) = hash(&damaged) {
                prop_assert!(hash.len() == 64 && hash.bytes().all(|c| c.is_ascii_hexdigit()));
            }
        }
    }

    #[test]
    fn a_file_beside_the_program_is_the_helper() {
        let folder = tempdir().unwrap();
        let bin = folder.path().join("bin");
        fs::create_dir_all(folder.path().join("lib/labctl-ssh-proxy")).unwrap();
        fs::create_dir(&bin).unwrap();
        let missing = beside(&bin, "aarch64").unwrap_err();
        assert_eq!(missing.kind(), Kind::Program);
        assert!(missing.to_string().contains("no helper for aarch64"), "{missing}");

        let (one, other) = ("1".repeat(64), "2".repeat(64));
        let name = "labctl-ssh-proxy-helper-aarch64.gz";
        fs::write(folder.path().join("lib/labctl-ssh-proxy").join(name), gzip(&format!("sha256:{one}"))).unwrap();
        assert_eq!(beside(&bin, "aarch64").unwrap().sha256, one);
        fs::write(bin.join(name), gzip(&format!("sha256:{other}"))).unwrap();
        let packed = beside(&bin, "aarch64").unwrap();
        assert_eq!((packed.sha256, packed.gzip.last()), (other, Some(&b'd')));

        fs::write(bin.join(name), "no gzip").unwrap();
        assert_eq!(beside(&bin, "aarch64").unwrap_err().kind(), Kind::File);
        fs::remove_file(bin.join(name)).unwrap();
        fs::create_dir(bin.join(name)).unwrap();
        assert_eq!(beside(&bin, "aarch64").unwrap_err().kind(), Kind::File);
    }

    #[test]
    fn there_is_no_helper_for_other_processors() {
        let error = packed("riscv64").unwrap_err();
        assert_eq!(error.kind(), Kind::Program);
        assert!(error.to_string().contains("riscv64"), "{error}");
        assert!(packed("../../etc/passwd").is_err());
    }
}
