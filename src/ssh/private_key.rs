//! Private keys, as ssh-keygen writes them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use russh::keys::{
    Error, PrivateKey, PublicKey, decode_secret_key,
    ssh_encoding::Decode,
    ssh_key::{
        private::{EcdsaKeypair, KeypairData},
        public::{EcdsaPublicKey, KeyData},
    },
};

/// Reads a key that is not encrypted, in any of the formats of OpenSSH.
///
/// # Errors
/// Fails for one that is encrypted (`Error::KeyIsEncrypted`), damaged or of an unknown kind.
pub(crate) fn read(text: &str) -> Result<PrivateKey, Error> {
    decode_secret_key(text, None).or_else(|e| short_p256(text).ok_or(e))
}

/// The P-256 key in OpenSSH's format whose number begins with a zero, which ssh-keygen leaves out (RFC 4251, 5: mpint).
/// One of 256 has such a number, and ssh-key 0.7 refuses it.
fn short_p256(text: &str) -> Option<PrivateKey> {
    let body = text.trim().strip_prefix("-----BEGIN OPENSSH PRIVATE KEY-----")?;
    let body = body.split_once("-----END ")?.0.split_ascii_whitespace().collect::<String>();
    let file = STANDARD.decode(body).ok()?;
    let string = |from: &mut &[u8]| Vec::decode(from).ok();
    // PROTOCOL.key of OpenSSH.
    let file = &mut file.strip_prefix(b"openssh-key-v1\0")?;
    let [cipher, _kdf, _options] = [string(file)?, string(file)?, string(file)?];
    if (&*cipher, u32::decode(file).ok()?) != (b"none", 1) {
        return None;
    }
    let KeyData::Ecdsa(EcdsaPublicKey::NistP256(public)) = *PublicKey::from_bytes(&string(file)?).ok()?.key_data()
    else {
        return None;
    };
    let private = string(file)?;
    let private = &mut &private[..];
    let [one, other] = [u32::decode(private).ok()?, u32::decode(private).ok()?];
    let [_algorithm, _curve, _point] = [string(private)?, string(private)?, string(private)?];
    let (number, comment) = (string(private)?, string(private)?);
    let mut padded = [0; 32];
    // A whole number is refused for another reason.
    if one != other || number.len() >= padded.len() {
        return None;
    }
    let start = padded.len() - number.len();
    padded[start..].copy_from_slice(&number);
    let data = KeypairData::Ecdsa(EcdsaKeypair::NistP256 { public, private: padded.into() });
    PrivateKey::new(data, comment).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By ssh-keygen of OpenSSH 9.2, for this test alone.
    const SHORT: &str = "-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAaAAAABNlY2RzYS
1zaGEyLW5pc3RwMjU2AAAACG5pc3RwMjU2AAAAQQRJ9PK8wmqctYuQT3nY18YPXXg7Mh7X
L+oARKdvetNK7eqW1MCsyCFxAn+uukFavU4BzI+47M7XbxK/ndh36rvhAAAAmK6lbV2upW
1dAAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEn08rzCapy1i5BP
edjXxg9deDsyHtcv6gBEp29600rt6pbUwKzIIXECf666QVq9TgHMj7jsztdvEr+d2Hfqu+
EAAAAfUugJpEZrxQwigJyK2w6+PKBJJMxqTStMirynQaHdOAAAAAAB
-----END OPENSSH PRIVATE KEY-----
";

    #[test]
    fn a_number_with_a_leading_zero_is_read() {
        let key = read(SHORT).unwrap();
        let said_by_ssh_keygen = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEn08rzCapy1\
             i5BPedjXxg9deDsyHtcv6gBEp29600rt6pbUwKzIIXECf666QVq9TgHMj7jsztdvEr+d2Hfqu+E=";
        assert_eq!(key.public_key().to_openssh().unwrap(), said_by_ssh_keygen);
        let signed = key.sign("n", russh::keys::HashAlg::Sha256, b"words").unwrap();
        key.public_key().verify("n", b"words", &signed).unwrap();
    }

    #[test]
    fn a_damaged_key_is_no_key() {
        let changed = |from: &str, to: &str| {
            assert!(SHORT.contains(from));
            read(&SHORT.replace(from, to)).is_err()
        };
        assert!(changed("EAAAAfUugJ", "EAAAAhUugJ"), "a number that is longer than what is there");
        assert!(changed("mK6lbV2upW", "mK6lbV3upW"), "a check that differs");
        assert!(read("").is_err());
    }
}
