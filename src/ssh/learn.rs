//! Learns all of a machine's host keys. Some clients read known_hosts before they connect, and report a changed key when
//! they negotiate a type that is missing there.
//!
//! OpenSSH tells all of its keys to a client that has logged in, and proves that it has them. So one connection is
//! enough, and none ends without a login: an OpenSSH server holds off everybody after a few of those
//! (PerSourcePenalties), and all that comes through the tunnel has the same source.
//!
//! Other servers, and a key of ours that cannot sign without a question to the user, take a handshake for each type.
//! The handshakes run one after the other, because tunnels come from a small pool. The first type that the machine
//! lacks makes it list the types that it has, so a typical machine takes four handshakes.
//!
//! Each handshake verifies the key's signature. The machine's authenticity follows from the tunnel that `dial` opens.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use russh::{
    AlgorithmKind, Disconnect,
    client::{self, Session},
    keys::{
        PublicKey, PublicKeyOrCertificate,
        ssh_key::{Algorithm, EcdsaCurve, HashAlg},
    },
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    error::{Error, Kind, Result},
    ssh::{
        client::{Login, authenticate},
        credentials::Credentials,
        first_words::hear,
        host_key::HostKeyBlob,
        identity::Identity,
        known_hosts::{KnownHosts, Whose},
    },
};

/// Time limit for one connection, which takes a few round trips and one signature.
const LIMIT: Duration = Duration::from_secs(10);

/// The types of host keys that ssh clients negotiate, each with its signature algorithms, the most common first.
const TYPES: [&[Algorithm]; 5] = [
    &[Algorithm::Ed25519],
    &[Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }],
    &[
        Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
        Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
        Algorithm::Rsa { hash: None },
    ],
    &[Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 }],
    &[Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 }],
];

/// A machine, and the host names for its lines in known hosts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner<'a> {
    /// The id of its playground.
    pub play: &'a str,
    /// The playground in the words of people.
    pub shown: &'a str,
    /// The machine's name.
    pub machine: &'a str,
    /// The host names.
    pub aliases: &'a [String],
    /// The user who logs in.
    pub user: &'a str,
    /// The user's key pair.
    pub identity: &'a Identity,
}

/// Records the host keys of the machine that `dial` connects to, unless known hosts already has some. If this fails,
/// the first connection learns them.
///
/// # Errors
/// Fails when a key differs from the recorded one, or cannot be recorded.
pub(crate) async fn record<S, F, Fut>(known_hosts: &KnownHosts, owner: Owner<'_>, dial: F) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn() -> Fut,
    Fut: Future<Output = Result<S>>,
{
    let Owner { play, shown, machine, aliases, .. } = owner;
    let whose: Vec<Whose<'_>> = aliases.iter().map(|alias| Whose { alias, play, machine, shown }).collect();
    let is_known = |whose: &Whose<'_>| known_hosts.knows(*whose).is_ok_and(|algorithms| !algorithms.is_empty());
    if whose.iter().all(is_known) {
        return Ok(());
    }
    let keys = match host_keys(owner, dial).await {
        Ok(keys) => keys,
        Err(e) => {
            log::warn!("{}", e.message());
            return Ok(());
        }
    };
    for key in &keys {
        for one in &whose {
            known_hosts.confirm(*one, key)?;
        }
    }
    Ok(())
}

/// Returns the host keys of the machine that `dial` connects to, one of each type. `dial` opens a stream for each
/// connection.
///
/// # Errors
/// The first failure, if there is no key yet. After a key, a failure only ends the search.
pub(crate) async fn host_keys<S, F, Fut>(owner: Owner<'_>, dial: F) -> Result<Vec<HostKeyBlob>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn() -> Fut,
    Fut: Future<Output = Result<S>>,
{
    let cannot = |error: Error| error.context("cannot learn the machine's host keys");
    if let Some(credentials) = Credentials::without_asking(owner.identity).await {
        match tokio::time::timeout(LIMIT, announced(owner, &credentials, &dial)).await {
            Ok(Ok(keys)) if !keys.is_empty() => return Ok(keys),
            Ok(Ok(_)) => log::info!("the machine does not tell all of its host keys"),
            // More connections would be refused as well, and would prolong it.
            Ok(Err(error)) if error.kind() == Kind::NotYet => return Err(cannot(error)),
            Ok(Err(error)) => log::info!("the host keys are learnt without a login: {}", error.message()),
            Err(_elapsed) => return Err(cannot(silent(LIMIT))),
        }
    }
    host_keys_within(LIMIT, owner.machine, dial).await
}

/// Logs in, and returns the host keys that the machine tells and proves; none if it tells none.
async fn announced<S, F, Fut>(owner: Owner<'_>, credentials: &Credentials, dial: F) -> Result<Vec<HostKeyBlob>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn() -> Fut,
    Fut: Future<Output = Result<S>>,
{
    let config = client::Config { inactivity_timeout: Some(LIMIT), ..client::Config::default() };
    let told = Told::default();
    let stream = hear(dial().await?, owner.machine).await?;
    let mut handle = client::connect_stream(Arc::new(config), stream, told.clone()).await?;
    let login = Login {
        alias: owner.aliases.first().cloned().unwrap_or_default(),
        play: owner.play.to_owned(),
        shown: owner.play.to_owned(),
        machine: owner.machine.to_owned(),
        user: owner.user.to_owned(),
    };
    authenticate(&mut handle, &login, credentials).await?;
    // The keys come before the answer to whatever is asked after the login.
    handle.send_ping().await?;
    let keys = std::mem::take(&mut *told.0.lock().unwrap_or_else(PoisonError::into_inner));
    if !keys.is_empty() {
        handle.hostkeys_prove(keys.clone()).await?;
    }
    // If this does not arrive, the machine notices the end of the tunnel.
    let _ = handle.disconnect(Disconnect::ByApplication, "", "en").await;
    let mut found: Vec<HostKeyBlob> = Vec::new();
    for key in keys.iter().filter_map(|key| HostKeyBlob::of_key(key.key_data())) {
        if !found.iter().any(|other| other.algorithm() == key.algorithm()) {
            found.push(key);
        }
    }
    Ok(found)
}

/// The host keys that the machine has told after the login.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<PublicKey>>>);

impl client::Handler for Told {
    type Error = Error;

    async fn check_server_key(&mut self, _shown: &PublicKeyOrCertificate) -> Result<bool> {
        // It is among those that are told. Known hosts decides on all of them.
        Ok(true)
    }

    async fn openssh_ext_host_keys_announced(&mut self, keys: Vec<PublicKey>, _session: &mut Session) -> Result<()> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }
}

async fn host_keys_within<S, F, Fut>(limit: Duration, machine: &str, dial: F) -> Result<Vec<HostKeyBlob>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn() -> Fut,
    Fut: Future<Output = Result<S>>,
{
    let (mut keys, mut offered) = (Vec::new(), None::<Vec<String>>);
    for algorithms in TYPES {
        let has = |all: &Vec<String>| algorithms.iter().any(|one| all.iter().any(|name| name == one.as_str()));
        if offered.as_ref().is_some_and(|all| !has(all)) {
            continue;
        }
        match host_key(limit, machine, &dial, algorithms).await {
            Ok(Learnt::Key(key)) => keys.push(key),
            Ok(Learnt::Only(all)) => offered = Some(all),
            Err(error) if keys.is_empty() => return Err(error.context("cannot learn the machine's host keys")),
            Err(error) => {
                log::info!("not all host keys were learnt: {}", error.message());
                break;
            }
        }
    }
    Ok(keys)
}

fn silent(limit: Duration) -> Error {
    Error::new(Kind::Network, format!("the machine's SSH server did not answer within {} s", limit.as_secs_f32()))
}

/// The result of one handshake.
enum Learnt {
    Key(HostKeyBlob),
    /// The machine has no key of the requested type, but these algorithms.
    Only(Vec<String>),
}

/// Returns the machine's host key of one type.
async fn host_key<S, F, Fut>(
    limit: Duration,
    machine: &str,
    dial: F,
    algorithms: &'static [Algorithm],
) -> Result<Learnt>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn() -> Fut,
    Fut: Future<Output = Result<S>>,
{
    let shown = Shown::default();
    let handshake = async {
        let config = client::Config {
            preferred: russh::Preferred { key: Cow::Borrowed(algorithms), ..russh::Preferred::DEFAULT },
            // Ends russh's own task, which holds the stream and outlives this future.
            inactivity_timeout: Some(limit),
            ..client::Config::default()
        };
        let stream = hear(dial().await?, machine).await?;
        client::connect_stream(Arc::new(config), stream, shown.clone()).await.map(|_| ())
    };
    let ended = tokio::time::timeout(limit, handshake).await;
    // The handshake always ends with an error, because the key is never accepted.
    if let Some(key) = shown.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Ok(Learnt::Key(key));
    }
    match ended {
        Ok(Ok(())) => Err(Error::new(Kind::Network, "the machine presented no host key")),
        Ok(Err(Failure::NoSuchType(offered))) => Ok(Learnt::Only(offered)),
        Ok(Err(Failure::Other(error))) => Err(error),
        Err(_elapsed) => Err(silent(limit)),
    }
}

/// Stores the server's key and rejects it, which ends the connection.
#[derive(Clone, Default)]
struct Shown(Arc<Mutex<Option<HostKeyBlob>>>);

impl client::Handler for Shown {
    type Error = Failure;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Failure> {
        let key = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => HostKeyBlob::of_key(key.key_data()),
            // Never happens, because we do not offer certificates.
            PublicKeyOrCertificate::Certificate(certificate) => HostKeyBlob::of_key(certificate.public_key()),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = key;
        Ok(false)
    }
}

/// The reasons for a handshake to fail.
#[derive(Debug)]
enum Failure {
    /// The machine has no host key of this type, but has these types.
    NoSuchType(Vec<String>),
    Other(Error),
}

impl From<russh::Error> for Failure {
    fn from(error: russh::Error) -> Self {
        match error {
            russh::Error::NoCommonAlgo { kind: AlgorithmKind::Key, theirs, .. } => Failure::NoSuchType(theirs),
            other => Failure::Other(other.into()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Other(error)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::{
        fs,
        net::{Ipv4Addr, SocketAddr, TcpListener},
        path::Path,
        process::{Child, Command, Stdio},
        time::Duration,
    };

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::{LIMIT, Owner, host_keys, host_keys_within};
    use crate::{
        error::{Error, Kind, Result},
        ssh::identity,
    };

    /// An OpenSSH server with a process for each connection, as with inetd.
    struct Server {
        address: SocketAddr,
        folder: tempfile::TempDir,
    }

    impl Server {
        fn with_keys(types: &[(&str, &str)]) -> Server {
            let folder = tempfile::tempdir().unwrap();
            let authorized = format!("AuthorizedKeysFile={}", folder.path().join("authorized").display());
            let mut options: Vec<String> =
                ["-i", "-f", "/dev/null", "-oUsePAM=no", "-oStrictModes=no", "-o", &authorized]
                    .map(Into::into)
                    .to_vec();
            for (algorithm, bits) in types {
                let path = folder.path().join(format!("{algorithm}{bits}"));
                let out = Command::new("ssh-keygen")
                    .args(["-q", "-N", "", "-t", algorithm, "-b", bits, "-f"])
                    .arg(&path)
                    .output()
                    .unwrap();
                assert!(out.status.success());
                options.extend(["-h".into(), path.into_os_string().into_string().unwrap()]);
            }
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let address = listener.local_addr().unwrap();
            std::thread::spawn(move || {
                for stream in listener.incoming().map_while(std::result::Result::ok) {
                    let mut server = sshd(&options, &stream);
                    // The thread ends with the test process, and the server with its connection.
                    std::thread::spawn(move || server.wait());
                }
            });
            Server { address, folder }
        }

        fn dial(&self) -> impl Fn() -> std::pin::Pin<Box<dyn Future<Output = Result<TcpStream>> + Send>> + use<> {
            let address = self.address;
            move || Box::pin(connect(address))
        }
    }

    /// Starts sshd. As root it needs its folder, which the system's own sshd makes when it starts.
    fn sshd(options: &[String], stream: &std::net::TcpStream) -> Child {
        let _ = fs::create_dir("/run/sshd");
        let handle = || Stdio::from(std::os::fd::OwnedFd::from(stream.try_clone().unwrap()));
        let mut sshd = Command::new("/usr/sbin/sshd");
        sshd.args(options).stdin(handle()).stdout(handle()).stderr(Stdio::null()).spawn().unwrap()
    }

    async fn connect(address: SocketAddr) -> Result<TcpStream> {
        TcpStream::connect(address).await.map_err(|e| Error::new(Kind::Network, e.to_string()))
    }

    /// Returns the keys in `folder`, as in known_hosts.
    fn on_disk(folder: &Path) -> Vec<String> {
        let mut keys: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some())
            .map(|path| fs::read_to_string(path).unwrap().split(' ').take(2).collect::<Vec<_>>().join(" "))
            .collect();
        keys.sort();
        keys
    }

    #[tokio::test]
    async fn few_connections_one_after_the_other() {
        let server = Server::with_keys(&[("ed25519", "256"), ("ecdsa", "256"), ("rsa", "2048")]);
        let (dial, made) = (server.dial(), std::sync::atomic::AtomicUsize::new(0));
        let keys = host_keys_within(LIMIT, "m", || {
            made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            dial()
        })
        .await
        .unwrap();
        assert_eq!((keys.len(), made.into_inner()), (3, 4));
    }

    async fn learn(server: &Server) -> Vec<String> {
        let keys = host_keys_within(LIMIT, "m", server.dial()).await.unwrap();
        let mut keys: Vec<String> = keys.iter().map(|key| format!("{} {}", key.algorithm(), key.base64())).collect();
        keys.sort();
        keys
    }

    #[tokio::test]
    async fn learns_what_ssh_keyscan_finds() {
        let server = Server::with_keys(&[("ed25519", "256"), ("ecdsa", "256"), ("rsa", "2048")]);
        let out = Command::new("ssh-keyscan")
            .args(["-p", &server.address.port().to_string(), "-t", "ed25519,ecdsa,rsa", "127.0.0.1"])
            .output()
            .unwrap();
        let mut scanned: Vec<String> = String::from_utf8(out.stdout)
            .unwrap()
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_once(' ').unwrap().1.to_owned())
            .collect();
        scanned.sort();
        assert_eq!(scanned.len(), 3);
        assert_eq!(learn(&server).await, scanned);
        assert_eq!(scanned, on_disk(server.folder.path()));
    }

    #[tokio::test]
    async fn a_machine_need_not_have_every_type() {
        for types in [&[("ecdsa", "384")][..], &[("ecdsa", "521"), ("rsa", "3072")]] {
            let server = Server::with_keys(types);
            assert_eq!(learn(&server).await, on_disk(server.folder.path()));
        }
    }

    #[tokio::test]
    async fn no_way_to_the_machine_is_an_error() {
        let dial = || async { Err::<TcpStream, _>(Error::new(Kind::NotYet, "the machine is not ready")) };
        let error = host_keys_within(LIMIT, "m", dial).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotYet);
        assert!(error.message().contains("the machine is not ready"), "{error}");
    }

    #[tokio::test]
    async fn a_server_that_is_none_is_an_error() {
        for says in ["", "HTTP/1.1 400 Bad Request\r\n\r\n", "SSH-2.0-x\r\n\0\0\0\0\0\0\0\0\0"] {
            let error = host_keys_within(LIMIT, "m", || async {
                let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
                theirs.write_all(says.as_bytes()).await.unwrap();
                Ok(ours)
            })
            .await
            .unwrap_err();
            assert_eq!(error.kind(), Kind::Network, "{says}");
        }
    }

    #[tokio::test]
    async fn one_connection_with_a_login_tells_all_keys() {
        let server = Server::with_keys(&[("ed25519", "256"), ("ecdsa", "256"), ("rsa", "2048")]);
        let identity = identity::load_or_make(&server.folder.path().join("user-key")).unwrap();
        fs::write(server.folder.path().join("authorized"), identity.authorized_key().unwrap()).unwrap();
        let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
        let aliases = ["playground-x".to_owned()];
        let owner =
            Owner { play: "p", shown: "p", machine: "m", aliases: &aliases, user: user.trim(), identity: &identity };
        let (dial, made) = (server.dial(), std::sync::atomic::AtomicUsize::new(0));
        let keys = host_keys(owner, || {
            made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            dial()
        })
        .await
        .unwrap();
        let mut found: Vec<String> = keys.iter().map(|key| format!("{} {}", key.algorithm(), key.base64())).collect();
        found.sort();
        let mut expected = on_disk(server.folder.path());
        expected.retain(|key| !key.contains(&identity.public.to_openssh().unwrap()[..60]));
        assert_eq!((found, made.into_inner()), (expected, 1));
    }

    #[tokio::test]
    async fn a_server_that_holds_off_everybody_is_asked_once_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let identity = identity::load_or_make(&folder.path().join("key")).unwrap();
        let aliases = ["playground-x".to_owned()];
        let owner =
            Owner { play: "p", shown: "p", machine: "node-01", aliases: &aliases, user: "u", identity: &identity };
        let made = std::sync::atomic::AtomicUsize::new(0);
        let error = host_keys(owner, || async {
            made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
            theirs.write_all(b"Not allowed at this time\r\n").await.unwrap();
            Ok(ours)
        })
        .await
        .unwrap_err();
        assert!(error.message().contains("node-01 refuses the connection: Not allowed at this time"), "{error}");
        assert!(error.hint().unwrap().contains("wait a minute"), "{error}");
        assert_eq!(made.into_inner(), 1);
    }

    #[tokio::test]
    async fn a_silent_server_costs_the_limit_once() {
        let limit = Duration::from_millis(300);
        let (peers, mut held) = tokio::sync::mpsc::unbounded_channel();
        let error = host_keys_within(limit, "m", || {
            let peers = peers.clone();
            async move {
                let (ours, theirs) = tokio::io::duplex(64 * 1024);
                peers.send(theirs).unwrap();
                Ok(ours)
            }
        })
        .await
        .unwrap_err();
        assert!(error.message().contains("within 0.3 s"), "{error}");
        let mut said = Vec::new();
        held.recv().await.unwrap().read_to_end(&mut said).await.expect("the stream is closed");
        assert!(held.try_recv().is_err(), "it is not tried again");
    }
}
