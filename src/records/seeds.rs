//! The seeds of the host keys of containers, one a playground.
//!
//! A container has no host key of its own, so this computer makes one: of a secret seed, the machine and the name by
//! which the container is called. The same name has the same key on every connection, also after its container has been
//! made anew, and a container that learns its own key learns no other. The private half goes to the container over the
//! connection to its machine and is on no disk there.
//!
//! A seed is one file, `<root>/seeds/<hash of the play>.seed`, 0600. It is made by the first connection to a container
//! of the playground, and goes with the playground.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use ring::hkdf;
use russh::keys::ssh_key::private::Ed25519Keypair;

use crate::{
    error::{Error, Kind, Result},
    files::{self, make_private_folder},
    records::relays::{bytes, hex},
    secrets,
    ssh::host_key::HostKeyBlob,
};

/// The length of a seed, and of the seed of a key that is derived of it.
const LENGTH: usize = 32;
/// The use of the seeds, by which another use would derive other keys.
const SALT: &[u8] = b"labctl-ssh-proxy: host keys of containers";

/// The host key of one container.
pub(crate) struct HostKey {
    /// The seed of the ed25519 key in hexadecimal digits. Secret.
    pub seed: String,
    /// The public half.
    pub public: HostKeyBlob,
}

/// The seeds on this computer.
#[derive(Clone, Debug)]
pub struct Seeds {
    folder: PathBuf,
}

/// The folder of the seeds below `root`.
pub fn folder(root: &Path) -> PathBuf {
    root.join("seeds")
}

/// Reports whether a file of the folder has a name that we give: a hash.
pub(super) fn is_own(name: &str) -> bool {
    let is_hash = |name: &str| name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    name.strip_suffix(".seed").is_some_and(is_hash)
}

impl Seeds {
    /// The seeds kept below `root`.
    pub fn below(root: &Path) -> Seeds {
        Seeds { folder: folder(root) }
    }

    /// The host key of the container that host names call `container`, on a machine of a playground.
    ///
    /// # Errors
    /// [`Kind::File`] when the playground's seed cannot be read, or cannot be kept: a key that differs next time would
    /// look like an attack.
    pub(crate) fn host_key(&self, play: &str, machine: &str, container: &str) -> Result<HostKey> {
        let derived = derive(&self.of(play)?, &format!("{machine}/{container}"));
        let public = Ed25519Keypair::from_seed(&derived).public;
        let public = HostKeyBlob::of_key(&public.into())
            .ok_or_else(|| Error::new(Kind::Internal, "no host key can be made for the container"))?;
        let seed = hex(&derived);
        secrets::keep(&seed);
        Ok(HostKey { seed, public })
    }

    /// Forgets the seed of a playground that no longer exists.
    pub fn forget(&self, play: &str) {
        // There is none if none of its containers was connected to.
        let _ = fs::remove_file(self.path(play));
    }

    fn path(&self, play: &str) -> PathBuf {
        let hash = ring::digest::digest(&ring::digest::SHA256, play.as_bytes());
        self.folder.join(hex(&hash.as_ref()[..16]) + ".seed")
    }

    /// The seed of a playground, which is made if there is none.
    fn of(&self, play: &str) -> Result<[u8; LENGTH]> {
        let path = self.path(play);
        if let Some(seed) = read(&path)? {
            return Ok(seed);
        }
        let new = self.make(&path).map_err(|e| Error::file("write", &path, &e))?;
        match new {
            Some(seed) => Ok(seed),
            // Another connection was faster.
            None => read(&path)?.ok_or_else(|| Error::file("read", &path, &io::ErrorKind::NotFound.into())),
        }
    }

    /// Makes a seed, unless the file is there by then.
    fn make(&self, path: &Path) -> io::Result<Option<[u8; LENGTH]>> {
        let random = ring::rand::generate(&ring::rand::SystemRandom::new())
            .map_err(|_| io::Error::other("the system gives no random numbers"))?;
        let seed: [u8; LENGTH] = random.expose();
        make_private_folder(&self.folder)?;
        let mut file = files::temporary(&self.folder)?;
        file.write_all(hex(&seed).as_bytes())?;
        // The line of known hosts that follows must not outlive it in a crash.
        file.as_file().sync_all()?;
        match file.persist_noclobber(path) {
            Ok(_) => Ok(Some(seed)),
            Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(e) => Err(e.error),
        }
    }
}

fn read(path: &Path) -> Result<Option<[u8; LENGTH]>> {
    let Some(text) = files::read(path).map_err(|e| Error::file("read", path, &e))? else { return Ok(None) };
    let seed = std::str::from_utf8(&text).ok().and_then(|text| bytes(text.trim()));
    seed.map(Some).ok_or_else(|| {
        let message = format!("{} does not hold the seed of a playground's host keys", path.display());
        Error::new(Kind::File, message).with_hint("delete it: the next connection to a container makes another")
    })
}

/// HKDF-SHA256 (RFC 5869).
fn derive(seed: &[u8; LENGTH], name: &str) -> [u8; LENGTH] {
    let mut derived = [0; LENGTH];
    let info = [name.as_bytes()];
    // The output is as long as one hash, which is never too long.
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(seed);
    if let Ok(okm) = extracted.expand(&info, hkdf::HKDF_SHA256) {
        let _ = okm.fill(&mut derived);
    }
    derived
}

#[cfg(test)]
mod tests {
    use super::{Seeds, derive};

    #[test]
    fn a_name_keeps_its_key_and_no_other_has_it() {
        let root = tempfile::tempdir().unwrap();
        let seeds = Seeds::below(root.path());
        let key = |play, machine, container| seeds.host_key(play, machine, container).unwrap();
        let web = key("p", "m", "web");
        assert_eq!((key("p", "m", "web").seed, key("p", "m", "web").public), (web.seed.clone(), web.public.clone()));
        for other in [key("p", "m", "db"), key("p", "n", "web"), key("q", "m", "web")] {
            assert!(other.seed != web.seed && other.public != web.public);
        }
        seeds.forget("p");
        assert_ne!(key("p", "m", "web").seed, web.seed);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&seeds.path("p")), mode(&seeds.folder)), (0o600, 0o700));
        }
    }

    #[test]
    fn a_damaged_seed_is_said_and_not_replaced() {
        let root = tempfile::tempdir().unwrap();
        let seeds = Seeds::below(root.path());
        seeds.host_key("p", "m", "web").unwrap();
        std::fs::write(seeds.path("p"), "half").unwrap();
        let error = seeds.host_key("p", "m", "web").err().unwrap();
        assert!(error.message().contains("does not hold"), "{error}");
        assert_eq!(std::fs::read(seeds.path("p")).unwrap(), b"half");
    }

    #[test]
    fn all_that_begin_at_once_have_the_same_seed() {
        let root = tempfile::tempdir().unwrap();
        let seeds = Seeds::below(root.path());
        let keys = std::thread::scope(|scope| {
            let begun = [(); 8].map(|()| scope.spawn(|| seeds.host_key("p", "m", "web").unwrap().seed));
            begun.map(|thread| thread.join().unwrap())
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
    }

    /// Calculated with Python's `hmac` by the two steps of RFC 5869.
    #[test]
    fn a_seed_is_derived_by_the_standard() {
        let expected = "ffb1474b14cf0eb2dc176098bd5bdfa11e9a0599545e7653e838f3be47a5cf1f";
        assert_eq!(crate::records::relays::hex(&derive(&[7; 32], "docker-01/web")), expected);
    }
}
