//! The user's own options that hold for our hosts, too, and do harm there. Pure, but for the question whether a file can
//! be read.

use std::path::Path;

use russh::{
    Preferred,
    keys::{PublicKey, ssh_key::public::KeyData},
};

use super::client::value;
use crate::{files, platform::Platform, ssh_config::entries::Entry};

/// Host keys of machines. Those of the embedded platform have only the first two types.
const HOST_KEYS: [&str; 4] = ["ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256"];
/// Key exchanges that OpenSSH has offered for many years.
const KEX: [&str; 9] = [
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group14-sha256",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group18-sha512",
    "diffie-hellman-group-exchange-sha256",
];
const CIPHERS: [&str; 6] = [
    "chacha20-poly1305@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
];
const MACS: [&str; 6] = [
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
    "umac-128-etm@openssh.com",
    "umac-128@openssh.com",
];

/// Returns a warning for each option in `options`, an answer of `ssh -G` for a playground's host name, that keeps ssh or
/// an editor from working there. `key` is the public half of the identity. `spared` are the patterns of [`spared`].
pub(crate) fn in_the_way(options: &str, platform: Platform, key: Option<&PublicKey>, spared: &str) -> Vec<String> {
    let set = |name, harmless: &[&str]| value(options, name).filter(|value| !harmless.contains(value));
    let without = |name, needed: &[&str]| value(options, name).filter(|list| !has_any(list, needed));
    let unreadable = |name| set(name, &["none"]).filter(|path| !matches!(files::read(Path::new(path)), Ok(Some(_))));
    let no = ["no", "false"];
    let embedded = platform == Platform::Local;
    let russh = Preferred::DEFAULT;
    let names = |ours: Vec<&str>, all: &'static [&'static str]| -> Vec<String> {
        let has = |name: &&&str| !embedded || ours.contains(*name);
        all.iter().filter(has).map(|name| (*name).to_owned()).collect()
    };
    let kex = names(russh.kex.iter().map(AsRef::as_ref).collect(), &KEX);
    let ciphers = names(russh.cipher.iter().map(AsRef::as_ref).collect(), &CIPHERS);
    let macs = names(russh.mac.iter().map(AsRef::as_ref).collect(), &MACS);
    let any = |list: &[String], name| without(name, &list.iter().map(String::as_str).collect::<Vec<_>>());
    let host_keys = if embedded { &HOST_KEYS[..2] } else { &HOST_KEYS[..] };
    let own = key.map(signatures).unwrap_or_default();
    let accepted = || without("pubkeyacceptedalgorithms", &own).or_else(|| without("pubkeyacceptedkeytypes", &own));
    let too_short = key.and_then(rsa_bits).and_then(|bits| {
        value(options, "requiredrsasize").filter(|least| least.parse().is_ok_and(|least: usize| bits < least))
    });
    [
        (set("proxyusefdpass", &no), "ProxyUseFdpass", "connections to playgrounds will fail"),
        (set("hostkeyalias", &[]), "HostKeyAlias", "host keys of playgrounds will not be found"),
        (set("port", &["22"]), "Port", "host keys of playgrounds will not be found"),
        (set("knownhostscommand", &["none"]), "KnownHostsCommand", "it also decides on the host keys of playgrounds"),
        (set("remotecommand", &["none"]), "RemoteCommand", "editors cannot connect"),
        (set("controlmaster", &no), "ControlMaster", "a connection that outlives its playground blocks new ones"),
        (
            set("controlpath", &["none"]).filter(|path| is_too_long(path, options)),
            "ControlPath",
            "it is too long for a socket, and ssh ends before it connects",
        ),
        (
            set("canonicalizehostname", &["false", "no", "yes", "true"]),
            "CanonicalizeHostname",
            "the name service may change the names of playgrounds",
        ),
        (
            value(options, "pubkeyauthentication").filter(|value| no.contains(value)),
            "PubkeyAuthentication",
            "playgrounds let in nobody without a key",
        ),
        (
            without("preferredauthentications", &["publickey"]),
            "PreferredAuthentications",
            "playgrounds let in nobody without `publickey`",
        ),
        (
            accepted().filter(|_| !own.is_empty()),
            "PubkeyAcceptedAlgorithms",
            "the key for playgrounds is not among them",
        ),
        (too_short, "RequiredRSASize", "the key for playgrounds is shorter"),
        (without("hostkeyalgorithms", host_keys), "HostKeyAlgorithms", "playgrounds have no such host key"),
        (any(&kex, "kexalgorithms"), "KexAlgorithms", "playgrounds do not offer these"),
        (any(&ciphers, "ciphers"), "Ciphers", "playgrounds do not offer these"),
        (any(&macs, "macs"), "MACs", "playgrounds do not offer these"),
        (unreadable("revokedhostkeys"), "RevokedHostKeys", "ssh cannot read that file, and then trusts no host key"),
        (set("sessiontype", &["default"]), "SessionType", "no shell and no command runs in playgrounds"),
        (set("stdinnull", &no), "StdinNull", "nothing can be typed or sent to playgrounds, and editors cannot connect"),
        (
            set("forkafterauthentication", &no),
            "ForkAfterAuthentication",
            "ssh leaves the terminal once it is connected, and editors cannot connect",
        ),
        (
            set("requesttty", &["auto", "no", "false"]),
            "RequestTTY",
            "a terminal changes the bytes of commands, and editors cannot connect",
        ),
        (set("tunnel", &no), "Tunnel", "ssh asks playgrounds for a network device"),
        (
            value(options, "exitonforwardfailure")
                .filter(|value| !no.contains(value))
                .filter(|_| FORWARDS.iter().any(|name| value(options, name).is_some())),
            "ExitOnForwardFailure",
            "the forwards of one connection keep the next one from opening",
        ),
    ]
    .into_iter()
    .filter_map(|(value, name, harm)| {
        Some(format!("your `{name} {}` also applies to playgrounds: {harm}; put it below `Host * {spared}`", value?))
    })
    .collect()
}

/// Returns the patterns that keep a block of the user's from all names of playgrounds: no pattern of ours matches an
/// alias.
pub(crate) fn spared(entries: &[Entry]) -> String {
    let labels = entries.iter().filter_map(|entry| entry.alias.as_deref()).filter(|alias| !alias.contains('.'));
    let has_machines = |label: &str| {
        let of_label = |alias: &str| alias.strip_prefix(label).is_some_and(|rest| rest.starts_with('.'));
        entries.iter().filter_map(|entry| entry.alias.as_deref()).any(of_label)
    };
    let mut patterns = "!playground-*".to_owned();
    for label in labels {
        patterns += &format!(" !{label}");
        if has_machines(label) {
            patterns += &format!(" !{label}.*");
        }
    }
    patterns
}

/// Reports whether a ControlPath has no room in a socket's address, which holds 108 bytes with the one that ends it.
fn is_too_long(path: &str, options: &str) -> bool {
    // A master listens under a name of 17 bytes more first.
    let is_master = value(options, "controlmaster").is_some_and(|value| !["no", "false"].contains(&value));
    let mut long = path.to_owned() + if is_master { ".0123456789abcdef" } else { "" };
    for (token, name) in [("%h", "hostname"), ("%n", "hostname"), ("%p", "port"), ("%r", "user")] {
        long = long.replace(token, value(options, name).unwrap_or_default());
    }
    // The hash of all of them.
    long.replace("%C", &"0".repeat(40)).len() >= 108
}

const FORWARDS: [&str; 3] = ["localforward", "remoteforward", "dynamicforward"];

/// Reports whether a comma-separated list has one of `names`. An answer of `ssh -G` has no patterns.
fn has_any(list: &str, names: &[&str]) -> bool {
    list.split(',').any(|name| names.contains(&name))
}

/// Returns the signature algorithms of a key, as in PubkeyAcceptedAlgorithms.
fn signatures(key: &PublicKey) -> Vec<&'static str> {
    match key.algorithm().as_str() {
        "ssh-ed25519" => vec!["ssh-ed25519"],
        "ssh-rsa" | "rsa-sha2-256" | "rsa-sha2-512" => vec!["rsa-sha2-512", "rsa-sha2-256"],
        "ecdsa-sha2-nistp256" => vec!["ecdsa-sha2-nistp256"],
        "ecdsa-sha2-nistp384" => vec!["ecdsa-sha2-nistp384"],
        "ecdsa-sha2-nistp521" => vec!["ecdsa-sha2-nistp521"],
        "sk-ssh-ed25519@openssh.com" => vec!["sk-ssh-ed25519@openssh.com"],
        "sk-ecdsa-sha2-nistp256@openssh.com" => vec!["sk-ecdsa-sha2-nistp256@openssh.com"],
        _ => Vec::new(),
    }
}

/// Returns the size of an RSA key.
fn rsa_bits(key: &PublicKey) -> Option<usize> {
    let KeyData::Rsa(key) = key.key_data() else { return None };
    let bytes = key.n().as_positive_bytes()?;
    Some(bytes.len() * 8 - usize::try_from(bytes.first()?.leading_zeros()).ok()?)
}

#[cfg(all(test, unix))]
mod tests {
    use std::path::Path;

    use super::in_the_way;
    use crate::{platform::Platform, ssh::identity, ssh_config::client::Ssh};

    async fn warned(file: &Path, text: &str) -> Vec<String> {
        std::fs::write(file, format!("Host *\n {text}\n")).unwrap();
        let options = Ssh::system().options(file, "playground-x").await.unwrap();
        let key = identity::load_or_make(&file.with_file_name("key")).unwrap().public;
        let name = |warning: String| warning.split(['`', ' ']).nth(2).unwrap().to_owned();
        in_the_way(&options, Platform::Local, Some(&key), "!playground-*").into_iter().map(name).collect()
    }

    /// ssh itself says which options are in force.
    #[tokio::test]
    async fn each_option_that_does_harm_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        for text in [
            "PubkeyAuthentication no",
            "PreferredAuthentications password",
            "PubkeyAcceptedAlgorithms ssh-rsa",
            "HostKeyAlgorithms ssh-rsa",
            "HostKeyAlgorithms rsa-sha2-512",
            "KexAlgorithms diffie-hellman-group1-sha1",
            "Ciphers aes128-cbc",
            "MACs hmac-md5",
            "RevokedHostKeys /missing",
            "SessionType none",
            "StdinNull yes",
            "RequestTTY force",
            "RequestTTY yes",
            "RemoteCommand id",
            "ForkAfterAuthentication yes",
            "Tunnel yes",
            "ControlMaster auto",
            "ProxyUseFdpass yes",
            "HostKeyAlias x",
            "Port 2222",
            "CanonicalizeHostname always",
            &format!("ControlPath /{}-%r@%h:%p", "x".repeat(92)),
            &format!("ControlPath /{}-%C", "x".repeat(66)),
            "ExitOnForwardFailure yes\n LocalForward 18080 localhost:80",
        ] {
            assert_eq!(warned(&file, text).await, [text.split(' ').next().unwrap()], "{text}");
        }
        for harmless in [
            "PubkeyAuthentication yes",
            "PreferredAuthentications gssapi-with-mic,publickey",
            "HostKeyAlgorithms ^ssh-rsa",
            "KexAlgorithms curve25519-sha256",
            "Ciphers aes256-ctr",
            "MACs hmac-sha2-256",
            "RevokedHostKeys none",
            "RequestTTY auto",
            "ControlMaster no",
            "ControlPath ~/.ssh/sockets/%C",
            "Port 22",
            "LocalForward 18080 localhost:80",
            "RequiredRSASize 4096",
            "Compression yes",
        ] {
            assert!(warned(&file, harmless).await.is_empty(), "{harmless}");
        }
    }
}
