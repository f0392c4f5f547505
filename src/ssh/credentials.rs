//! The keys with which our own client logs in, found as ssh finds them: those in the agent first, then those in files.
//!
//! A passphrase is asked for once, before anything is connected.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use russh::keys::{Certificate, PrivateKey, PublicKey, ssh_key::Algorithm};

use crate::{
    error::{Error, Kind, Result},
    files::read_text,
    ssh::{
        agent::{self, OwnAgent},
        identity::{self, Identity},
        private_key,
    },
};

/// Number of identities that are tried. A server accepts six attempts by default.
const MAX_IDENTITIES: usize = 4;

/// The user's options for keys, from the ssh configuration.
#[derive(Clone, Debug, Default)]
pub struct KeyOptions {
    /// The socket of the agent; `None` if there is none, or `IdentityAgent none` forbids it.
    pub agent: Option<PathBuf>,
    /// Files of further identities.
    pub identities: Vec<PathBuf>,
    /// Files of certificates.
    pub certificates: Vec<PathBuf>,
    /// True if the agent gets a key for which the user gave the passphrase.
    pub adds_keys: bool,
    /// The options that our client does not honour, such as PKCS11Provider.
    pub ignored: Vec<String>,
}

impl KeyOptions {
    /// Returns the options of a user without an ssh configuration.
    pub fn of_environment() -> KeyOptions {
        KeyOptions { agent: crate::os::ssh_agent(), ..KeyOptions::default() }
    }
}

/// The keys for a login.
pub struct Credentials {
    pub(crate) keys: Vec<LoginKey>,
    /// The options that are not honoured, for the error about a login that is refused.
    pub(crate) ignored: Vec<String>,
    /// The agent for a key whose passphrase the user gave.
    _agent: Option<OwnAgent>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.path)).finish()
    }
}

/// A key for a login.
pub(crate) struct LoginKey {
    /// The identity's file.
    pub path: PathBuf,
    pub public: PublicKey,
    /// Certificates for the key, which are tried first.
    pub certificates: Vec<Certificate>,
    pub signer: Signer,
}

/// The holder of the private half.
pub(crate) enum Signer {
    /// We have it.
    Here(Arc<PrivateKey>),
    /// The agent that listens on this socket.
    Agent(PathBuf),
}

/// The holder of an identity's private half, or the reason why there is none.
pub(crate) enum Holder {
    /// The agent that listens on this socket.
    Agent(PathBuf),
    /// The file, without a passphrase.
    File(Arc<PrivateKey>),
    /// The file, encrypted.
    Locked,
    /// A security key, without an agent that could use it.
    SecurityKey(String),
    /// Only the public half is here.
    Nobody(String),
}

/// The keys in the agent, or the reason why they are not known.
type Held = Result<Vec<PublicKey>, String>;

impl Holder {
    /// Looks for the private half of `identity`.
    ///
    /// # Errors
    /// [`Kind::File`] when its file cannot be used.
    pub(crate) async fn find(identity: &Identity, options: &KeyOptions) -> Result<Holder> {
        Holder::of(identity, options, &held(options).await)
    }

    fn of(identity: &Identity, options: &KeyOptions, held: &Held) -> Result<Holder> {
        if let Some(socket) = options.agent.as_ref().filter(|_| is_among(&identity.public, held)) {
            return Ok(Holder::Agent(socket.clone()));
        }
        let why = || held.as_ref().err().cloned().unwrap_or_else(|| "the agent does not have it".into());
        Ok(match private(&identity.path)? {
            Private::Usable(key) => Holder::File(key),
            Private::Encrypted => Holder::Locked,
            Private::OnSecurityKey => Holder::SecurityKey(why()),
            Private::Absent => Holder::Nobody(why()),
        })
    }
}

/// Asks the agent for its keys.
async fn held(options: &KeyOptions) -> Held {
    match &options.agent {
        Some(socket) => agent::keys(socket).await,
        None => Err("there is no agent: neither IdentityAgent nor SSH_AUTH_SOCK names one".into()),
    }
}

fn is_among(public: &PublicKey, held: &Held) -> bool {
    held.as_ref().is_ok_and(|keys| keys.iter().any(|key| key.key_data() == public.key_data()))
}

/// The contents of an identity's file.
enum Private {
    Usable(Arc<PrivateKey>),
    Encrypted,
    OnSecurityKey,
    /// Only the public half.
    Absent,
}

impl Credentials {
    /// Finds the private halves of `identity` and of the user's further identities.
    ///
    /// # Errors
    /// [`Kind::File`] when there is none for `identity`.
    pub async fn find(identity: &Identity, options: &KeyOptions) -> Result<Credentials> {
        let held = held(options).await;
        let mut found = Credentials { keys: Vec::new(), ignored: options.ignored.clone(), _agent: None };
        let is_held = |public: &PublicKey| is_among(public, &held);
        let path = &identity.path;
        let signer = match Holder::of(identity, options, &held)? {
            Holder::Agent(socket) => Signer::Agent(socket),
            Holder::File(key) => Signer::Here(key),
            Holder::Locked => found.unlock(path, options, held.is_ok()).await?,
            Holder::SecurityKey(why) => {
                let message =
                    format!("the key {} is on a security key, which only an agent can use here: {why}", path.display());
                return Err(Error::new(Kind::File, message)
                    .with_hint(format!("run `ssh-add {}`, and then this command again", path.display())));
            }
            Holder::Nobody(why) => return Err(no_private_half(path, &why)),
        };
        found.add(path, identity.public.clone(), signer, options);
        for path in &options.identities {
            let Ok(Some(Identity { path, public })) = identity::load(path) else { continue };
            let is_there = found.keys.iter().any(|key| key.public.key_data() == public.key_data());
            if is_there || found.keys.len() == MAX_IDENTITIES {
                continue;
            }
            // ssh would ask for a passphrase here as well. But the machine has our key, so this one is hardly needed.
            match private(&path) {
                _ if is_held(&public) => {
                    found.keys.extend(options.agent.clone().map(|socket| LoginKey {
                        certificates: certificates(&path, &public, options),
                        path,
                        public,
                        signer: Signer::Agent(socket),
                    }));
                }
                Ok(Private::Usable(key)) => found.add(&path, public, Signer::Here(key), options),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(found)
    }

    /// Returns the key of `identity` if it can sign without a question to the user; `None` if it cannot.
    pub(crate) async fn without_asking(identity: &Identity) -> Option<Credentials> {
        let path = &identity.path;
        let options = KeyOptions::of_environment();
        let signer = match private(path).ok()? {
            Private::Usable(key) => Signer::Here(key),
            // A signature by a security key takes a touch.
            _ if identity.is_on_security_key() => return None,
            _ => {
                let socket = options.agent.clone()?;
                let held = agent::keys(&socket).await.ok()?;
                held.iter().find(|key| key.key_data() == identity.public.key_data())?;
                Signer::Agent(socket)
            }
        };
        let mut found = Credentials { keys: Vec::new(), ignored: Vec::new(), _agent: None };
        found.add(path, identity.public.clone(), signer, &options);
        Some(found)
    }

    fn add(&mut self, path: &Path, public: PublicKey, signer: Signer, options: &KeyOptions) {
        let certificates = certificates(path, &public, options);
        self.keys.push(LoginKey { path: path.to_owned(), public, certificates, signer });
    }

    /// Asks for the passphrase of a key, and gives the key to an agent: the user's if AddKeysToAgent says so, otherwise
    /// one of our own.
    async fn unlock(&mut self, path: &Path, options: &KeyOptions, agent_answers: bool) -> Result<Signer> {
        let locked = |why: String| {
            let message = format!("the key {} is encrypted: {why}", path.display());
            Error::new(Kind::File, message).with_hint(format!(
                "run `ssh-add {}` with an agent, or run this command in a terminal or with SSH_ASKPASS, to give its \
                 passphrase",
                path.display()
            ))
        };
        if let Some(socket) = options.agent.as_ref().filter(|_| options.adds_keys && agent_answers) {
            agent::add(socket, path).await.map_err(locked)?;
            return Ok(Signer::Agent(socket.clone()));
        }
        let agent = OwnAgent::with(path).await.map_err(locked)?;
        let socket = agent.socket().to_owned();
        self._agent = Some(agent);
        Ok(Signer::Agent(socket))
    }
}

fn no_private_half(path: &Path, why: &str) -> Error {
    Error::new(Kind::File, format!("no agent has the private half of {}: {why}", path.display()))
        .with_hint(START_THE_AGENT)
}

/// The remedy for an identity of which only the public half is here.
pub(crate) const START_THE_AGENT: &str = "start the agent that has it, and name it by SSH_AUTH_SOCK or by IdentityAgent in the ssh configuration, or name the \
     file of a private key as `identity` in the settings";

/// Reads the private half in the identity's file.
fn private(path: &Path) -> Result<Private> {
    if path.extension().is_some_and(|extension| extension == "pub") {
        return Ok(Private::Absent);
    }
    let text = read_text(path)?.unwrap_or_default();
    if !text.trim_start().starts_with("-----BEGIN ") {
        return Ok(Private::Absent);
    }
    match private_key::read(&text) {
        Ok(key) if is_security_key(&key.algorithm()) => Ok(Private::OnSecurityKey),
        Ok(key) => Ok(Private::Usable(Arc::new(key))),
        Err(russh::keys::Error::KeyIsEncrypted) => Ok(Private::Encrypted),
        Err(e) => match PrivateKey::from_openssh(&text) {
            Ok(key) if is_security_key(&key.algorithm()) => Ok(Private::OnSecurityKey),
            Ok(key) if key.is_encrypted() => Ok(Private::Encrypted),
            Ok(_) | Err(_) => Err(Error::new(Kind::File, format!("cannot use the key {}: {e}", path.display()))),
        },
    }
}

fn is_security_key(algorithm: &Algorithm) -> bool {
    matches!(algorithm, Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256)
}

/// Returns the user's certificates for a key: those that the configuration names, and the one beside the key.
fn certificates(path: &Path, public: &PublicKey, options: &KeyOptions) -> Vec<Certificate> {
    let private = path.to_string_lossy();
    let beside = PathBuf::from(format!("{}-cert.pub", private.strip_suffix(".pub").unwrap_or(&private)));
    let files = options.certificates.iter().chain([&beside]);
    let read = |path: &PathBuf| Certificate::from_openssh(read_text(path).ok()??.trim()).ok();
    let mut found: Vec<Certificate> = Vec::new();
    for certificate in files.filter_map(read) {
        if certificate.public_key() == public.key_data() && !found.contains(&certificate) {
            found.push(certificate);
        }
    }
    found
}
