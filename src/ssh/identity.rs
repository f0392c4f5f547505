//! The key pair for logging in to machines: they get the public half, and ssh uses the private one. The files belong to
//! the user and ssh, so existing ones are only read, never changed.

use std::{
    io,
    io::Write,
    path::{Path, PathBuf},
};

use russh::keys::ssh_key::{
    Algorithm, HashAlg, LineEnding, PrivateKey, PublicKey,
    private::{Ed25519Keypair, KeypairData},
};

use crate::{
    error::{Error, Kind, Result},
    files::{make_private_folder, read_text, sweep, temporary},
    ssh::private_key,
};

/// The comment of a pair that we make, so that its owner recognizes where it comes from.
const COMMENT: &str = "labctl-ssh-proxy";

/// A key pair, of which we hold the public half.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The file for IdentityFile: the private key, or the `.pub` file if an agent has the private half.
    pub path: PathBuf,
    /// The public half, which machines get.
    pub public: PublicKey,
}

impl Identity {
    /// Returns `SHA256:...`, in the form of ssh and ssh-keygen.
    pub fn fingerprint(&self) -> String {
        self.public.fingerprint(HashAlg::Sha256).to_string()
    }

    /// Returns true for a key whose signatures take a touch.
    pub fn is_on_security_key(&self) -> bool {
        matches!(self.public.algorithm(), Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256)
    }

    /// Returns the public key as a line of authorized_keys, with its line break. The official client sends the whole
    /// `.pub` file, so a machine may append this text as it is.
    ///
    /// # Errors
    /// [`Kind::File`] when the key cannot be written in this form.
    pub fn authorized_key(&self) -> Result<String> {
        let line = self.public.to_openssh().map_err(|e| unusable(&self.path, &e.to_string()))?;
        Ok(line + "\n")
    }
}

/// Loads the identity at `path`, a private key or a `.pub` file. If neither exists, makes an ed25519 pair. Of several
/// processes that find no key, one makes it and the others read it.
///
/// # Errors
/// [`Kind::File`] when the key cannot be read or made, or ssh would not use it.
pub(crate) fn load_or_make(path: &Path) -> Result<Identity> {
    if let Some(identity) = load(path)? {
        return Ok(identity);
    }
    if path.extension().is_some_and(|extension| extension == "pub") {
        return Err(Error::new(Kind::File, format!("there is no public key {}", path.display())).with_hint(
            "labctl's configuration names it as ssh_identity_file; name a key that exists, or one to create",
        ));
    }
    make(path)?;
    load(path)?
        .ok_or_else(|| Error::new(Kind::File, format!("{} disappeared as soon as it was created", path.display())))
}

/// Loads the identity at `path`. Returns `None` if there is none.
///
/// # Errors
/// As [`load_or_make`].
pub(crate) fn load(path: &Path) -> Result<Option<Identity>> {
    let beside = public_path(path);
    let Some(text) = read_text(path)? else {
        // As in ssh, a public key alone means that an agent has the private half.
        let public = read_text(&beside)?.map(|text| read_public(&beside, &text)).transpose()?;
        return Ok(public.map(|public| Identity { path: beside, public }));
    };
    if !text.trim_start().starts_with("-----BEGIN ") {
        return Ok(Some(Identity { path: path.into(), public: read_public(path, &text)? }));
    }
    if is_open_to_others(path).map_err(|e| Error::file("read", path, &e))? {
        return Err(unusable(path, "ssh refuses a private key that other users can read")
            .with_hint(format!("run `chmod 600 \"{}\"`", path.display())));
    }
    // OpenSSH's own format contains the public half unencrypted, which shows a .pub file of another key.
    let own = PrivateKey::from_openssh(&text).ok().map(|key| key.public_key().clone());
    let given = read_text(&beside)?.map(|text| read_public(&beside, &text)).transpose()?;
    let public = match (own, given) {
        (Some(own), Some(given)) if own.key_data() != given.key_data() => {
            return Err(unusable(path, &format!("{} is the public half of another key", beside.display()))
                .with_hint(write_public_half(path)));
        }
        (_, Some(given)) => given,
        (Some(own), None) => own,
        (None, None) => read_pem(path, &text)?,
    };
    Ok(Some(Identity { path: path.into(), public }))
}

/// Returns the public half of a private key in one of the older formats, which do not contain it separately.
fn read_pem(path: &Path, text: &str) -> Result<PublicKey> {
    if text.contains("ENCRYPTED") {
        return Err(unusable(
            path,
            "it is encrypted in a format that hides its public half, and there is no .pub file",
        )
        .with_hint(write_public_half(path)));
    }
    match private_key::read(text) {
        Ok(key) => Ok(key.public_key().clone()),
        Err(e) => Err(unusable(path, &e.to_string()).with_hint(write_public_half(path))),
    }
}

/// Parses the first line of a `.pub` file that is not a comment.
fn read_public(path: &Path, text: &str) -> Result<PublicKey> {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default();
    PublicKey::from_openssh(line).map_err(|e| unusable(path, &e.to_string()))
}

/// Makes a pair, unless another process has made one. The private key is put in place first, atomically, and only the
/// process that succeeds adds the public one. The result is therefore one pair, even if several processes race or one
/// is killed.
fn make(path: &Path) -> Result<()> {
    let failed = |e: io::Error| Error::file("create a key", path, &e);
    let internal = |e: &dyn std::fmt::Display| Error::new(Kind::Internal, format!("cannot create a key: {e}"));
    let seed = ring::rand::generate(&ring::rand::SystemRandom::new()).map_err(|e| internal(&e))?.expose();
    let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&seed));
    let private = PrivateKey::new(pair, COMMENT).map_err(|e| internal(&e))?;
    let text = private.to_openssh(LineEnding::LF).map_err(|e| internal(&e))?;
    let public = private.public_key().to_openssh().map_err(|e| internal(&e))? + "\n";
    let folder = path.parent().unwrap_or(Path::new("."));
    make_private_folder(folder).map_err(failed)?;
    match put(folder, path, text.as_bytes(), false) {
        Ok(()) => put(folder, &public_path(path), public.as_bytes(), true).map_err(failed),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(failed(e)),
    }
}

/// Puts a new file in place atomically. Fails if the file exists. The file is private from the start.
fn put(folder: &Path, path: &Path, contents: &[u8], for_all: bool) -> io::Result<()> {
    sweep(folder);
    let mut file = temporary(folder)?;
    file.write_all(contents)?;
    #[cfg(unix)]
    if for_all {
        file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    }
    #[cfg(not(unix))]
    let _ = for_all;
    file.as_file().sync_data()?;
    file.persist_noclobber(path).map_err(|e| e.error)?;
    Ok(())
}

/// Returns `<path>.pub`, the path where ssh looks for the public half.
pub(crate) fn public_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    PathBuf::from(name)
}

/// Returns true if ssh would refuse the private key because of its mode. ssh checks only files that its user owns.
#[cfg(unix)]
fn is_open_to_others(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let file = std::fs::metadata(path)?;
    Ok(file.uid() == rustix::process::getuid().as_raw() && file.mode() & 0o077 != 0)
}

/// Returns false: on Windows, ssh checks access lists and reports problems with them itself.
#[cfg(not(unix))]
fn is_open_to_others(_path: &Path) -> io::Result<bool> {
    Ok(false)
}

fn unusable(path: &Path, why: &str) -> Error {
    Error::new(Kind::File, format!("cannot use the key {}: {why}", path.display()))
}

fn write_public_half(path: &Path) -> String {
    format!("write its public half: ssh-keygen -y -f \"{0}\" > \"{0}.pub\"", path.display())
}

#[cfg(all(test, unix))]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt,
        path::Path,
        process::Command,
    };

    use super::load_or_make;
    use crate::error::Kind;

    fn keygen(arguments: &[&str], path: &Path) -> String {
        let out = Command::new("ssh-keygen").args(arguments).arg("-f").arg(path).output().unwrap();
        assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn makes_a_pair_that_ssh_keygen_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/user key");
        let made = load_or_make(&path).unwrap();
        assert_eq!(made.path, path);
        let public = folder.path().join("new/user key.pub");
        assert_eq!((mode(path.parent().unwrap()), mode(&path), mode(&public)), (0o700, 0o600, 0o644));
        let line = fs::read_to_string(&public).unwrap();
        assert_eq!(line, made.authorized_key().unwrap());
        assert!(line.starts_with("ssh-ed25519 ") && line.ends_with(" labctl-ssh-proxy\n"), "{line}");
        assert_eq!(keygen(&["-y"], &path), line, "the private half is that of the public one");
        assert!(keygen(&["-l"], &public).contains(&made.fingerprint()));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2, "no temporary and no lock is left");
        assert_eq!(load_or_make(&path).unwrap().fingerprint(), made.fingerprint());
    }

    #[test]
    fn many_at_once_end_with_one_pair() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let prints: Vec<String> = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..16).map(|_| scope.spawn(|| load_or_make(&path).unwrap().fingerprint())).collect();
            tries.into_iter().map(|made| made.join().unwrap()).collect()
        });
        assert!(prints.iter().all(|print| *print == prints[0]), "{prints:?}");
        assert!(keygen(&["-l"], &folder.path().join("key.pub")).contains(&prints[0]));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn reads_what_ssh_keygen_writes_with_and_without_the_public_file() {
        let folder = tempfile::tempdir().unwrap();
        for (name, arguments) in [
            ("ed25519", &["-t", "ed25519", "-N", ""][..]),
            ("rsa", &["-t", "rsa", "-b", "2048", "-N", ""]),
            ("ecdsa", &["-t", "ecdsa", "-b", "384", "-N", ""]),
            ("encrypted", &["-t", "ed25519", "-N", "passphrase"]),
            ("encrypted-rsa", &["-t", "rsa", "-b", "2048", "-N", "passphrase"]),
            ("pem-rsa", &["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", ""]),
            ("pem-ecdsa", &["-t", "ecdsa", "-m", "PEM", "-N", ""]),
            ("pkcs8-rsa", &["-t", "rsa", "-b", "2048", "-m", "PKCS8", "-N", ""]),
            ("pkcs8-ecdsa", &["-t", "ecdsa", "-b", "521", "-m", "PKCS8", "-N", ""]),
        ] {
            let path = folder.path().join(name);
            keygen(&[&["-q", "-C", "me@home"], arguments].concat(), &path);
            let shown = keygen(&["-l"], &path.with_extension("pub"));
            let with = load_or_make(&path).unwrap();
            assert!(shown.contains(&with.fingerprint()), "{name}");
            assert!(with.authorized_key().unwrap().ends_with(" me@home\n"), "{name}");
            fs::remove_file(path.with_extension("pub")).unwrap();
            let without = load_or_make(&path).unwrap();
            assert_eq!((&without.path, without.fingerprint()), (&path, with.fingerprint()), "{name}");
        }
    }

    #[test]
    fn a_public_half_that_is_hidden_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        for format in ["PEM", "PKCS8"] {
            let path = folder.path().join(format);
            keygen(&["-q", "-t", "rsa", "-b", "2048", "-m", format, "-N", "passphrase"], &path);
            assert_eq!(load_or_make(&path).unwrap().path, path);
            fs::remove_file(path.with_extension("pub")).unwrap();
            let error = load_or_make(&path).unwrap_err();
            assert_eq!(error.kind(), Kind::File);
            assert!(error.message().contains("encrypted"), "{error}");
            assert!(error.hint().unwrap().contains("ssh-keygen -y"), "{error}");
        }
    }

    #[test]
    fn a_public_file_alone_means_an_agent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        keygen(&["-q", "-t", "ed25519", "-N", ""], &path);
        fs::remove_file(&path).unwrap();
        let public = folder.path().join("key.pub");
        for named in [&public, &path] {
            assert_eq!(load_or_make(named).unwrap().path, public);
        }
        assert!(!path.exists());
    }

    #[test]
    fn what_ssh_would_refuse_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        keygen(&["-q", "-t", "ed25519", "-N", ""], &path);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let error = load_or_make(&path).unwrap_err();
        assert!(error.hint().unwrap().starts_with("run `chmod 600"), "{error}");
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        load_or_make(&path).unwrap();

        let other = folder.path().join("other");
        keygen(&["-q", "-t", "ed25519", "-N", ""], &other);
        fs::copy(other.with_extension("pub"), path.with_extension("pub")).unwrap();
        assert!(load_or_make(&path).unwrap_err().message().contains("another key"));

        for (name, contents) in
            [("empty", ""), ("text", "hello"), ("half", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl")]
        {
            let path = folder.path().join(name);
            fs::write(&path, contents).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            assert_eq!(load_or_make(&path).unwrap_err().kind(), Kind::File, "{name}");
            assert_eq!(fs::read_to_string(&path).unwrap(), contents, "never overwritten");
        }
        for absent in ["absent.pub", "text/below"] {
            assert_eq!(load_or_make(&folder.path().join(absent)).unwrap_err().kind(), Kind::File);
        }
    }
}
