//! A machine's public host key in its wire and known_hosts forms: a type and a blob. Pure.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::STANDARD_NO_PAD};
use russh::keys::ssh_key;

/// The blob of a public host key (RFC 4253, 6.6), whose first string is its type.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HostKeyBlob {
    algorithm: String,
    blob: Vec<u8>,
}

impl HostKeyBlob {
    /// Parses the host key of a key exchange reply (`K_S`) or of a known_hosts line. For a certificate, returns the key
    /// inside, because ssh looks that up if it finds no authority for the certificate. Returns `None` if it is no host
    /// key.
    pub fn from_wire(blob: &[u8]) -> Option<HostKeyBlob> {
        let algorithm = type_of(blob)?;
        if algorithm.contains("-cert-v0") {
            let certificate = ssh_key::Certificate::from_bytes(blob).ok()?;
            return HostKeyBlob::of_key(certificate.public_key());
        }
        Some(HostKeyBlob { algorithm: algorithm.into(), blob: blob.into() })
    }

    /// Converts a parsed key. Returns `None` if it cannot be encoded.
    pub fn of_key(key: &ssh_key::public::KeyData) -> Option<HostKeyBlob> {
        let blob = ssh_key::PublicKey::new(key.clone(), "").to_bytes().ok()?;
        Some(HostKeyBlob { algorithm: type_of(&blob)?.into(), blob })
    }

    /// Parses the two middle fields of a known_hosts line. Returns `None` if they are damaged or contradict each other.
    pub fn from_fields(algorithm: &str, base64: &str) -> Option<HostKeyBlob> {
        let blob = STANDARD.decode(base64).ok()?;
        (type_of(&blob)? == algorithm).then(|| HostKeyBlob { algorithm: algorithm.into(), blob })
    }

    /// Returns the key's type as in known_hosts: `ssh-ed25519`, `ecdsa-sha2-nistp256`, `ssh-rsa`, ...
    pub fn algorithm(&self) -> &str {
        &self.algorithm
    }

    /// Reports whether a server that offers these algorithms, separated by commas, has a key of this type.
    pub fn is_among(&self, offered: &str) -> bool {
        let is_of_type = |name: &str| match name.strip_suffix("-cert-v01@openssh.com").unwrap_or(name) {
            "rsa-sha2-256" | "rsa-sha2-512" => self.algorithm == "ssh-rsa",
            name => self.algorithm == name,
        };
        offered.split(',').any(is_of_type)
    }

    /// Returns the key in its wire form.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// Returns the blob in base64, as in known_hosts.
    pub fn base64(&self) -> String {
        STANDARD.encode(&self.blob)
    }

    /// Returns `SHA256:...`, in the form of ssh and ssh-keygen.
    pub fn fingerprint(&self) -> String {
        let hash = ring::digest::digest(&ring::digest::SHA256, &self.blob);
        format!("SHA256:{}", STANDARD_NO_PAD.encode(hash))
    }
}

impl fmt::Debug for HostKeyBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm, self.fingerprint())
    }
}

/// Returns the first string of a key blob if it can be the name of an algorithm: at most 64 printable ASCII characters
/// and no comma (RFC 4251, 6). It is then safe in a line of known_hosts.
fn type_of(blob: &[u8]) -> Option<&str> {
    let (length, rest) = blob.split_first_chunk()?;
    let name = rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    let fits = (1..=64).contains(&name.len()) && name.iter().all(|b| b.is_ascii_graphic() && *b != b',');
    if fits { std::str::from_utf8(name).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::HostKeyBlob;

    /// A key from `ssh-keygen -t ed25519`. The fingerprint below is that of `ssh-keygen -l`.
    const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const FINGERPRINT: &str = "SHA256:T7SvZ2cslqpPj6nKzitCBHHlpVF3r3MvLwmFL0fk0IE";

    #[test]
    fn reads_what_ssh_writes() {
        let key = HostKeyBlob::from_fields("ssh-ed25519", KEY).unwrap();
        assert_eq!(key.fingerprint(), FINGERPRINT);
        assert_eq!(key.base64(), KEY);
        assert_eq!(HostKeyBlob::from_wire(key.blob()), Some(key));
        assert_eq!(HostKeyBlob::from_fields("ssh-rsa", KEY), None, "the type is the blob's own");
        assert_eq!(HostKeyBlob::from_fields("ssh-ed25519", &KEY[..10]), None);
    }

    proptest! {
        #[test]
        fn no_blob_makes_it_panic(blob in prop::collection::vec(any::<u8>(), 0..100), name in "[ -~]{0,70}") {
            let _ = HostKeyBlob::from_wire(&blob);
            let mut named = u32::try_from(name.len()).unwrap().to_be_bytes().to_vec();
            named.extend_from_slice(name.as_bytes());
            named.extend_from_slice(&blob);
            if let Some(key) = HostKeyBlob::from_wire(&named) {
                prop_assert!(!key.algorithm().contains(char::is_whitespace));
                prop_assert_eq!(HostKeyBlob::from_fields(key.algorithm(), &key.base64()), Some(key));
            }
        }
    }
}
