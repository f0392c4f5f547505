//! TLS: whom it trusts, and what is wrong where it fails.
//!
//! A certificate is judged as curl and Go judge it. rustls differs from them in one case: it refuses a server's
//! certificate that may also sign others (`CA:TRUE`), as OpenSSL makes them unless told otherwise.

use std::{env, fmt, io, sync::Arc};

use rustls_platform_verifier::BuilderVerifierExt;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        self, AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, InvalidMessage, OtherError,
        RootCertStore, SignatureScheme,
        client::{
            WebPkiServerVerifier,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
            verify_server_cert_signed_by_trust_anchor, verify_server_name,
        },
        crypto::CryptoProvider,
        pki_types::{
            AlgorithmIdentifier, CertificateDer, InvalidSignature, ServerName, SignatureVerificationAlgorithm, UnixTime,
        },
        server::ParsedCertificate,
    },
};

use super::net::Fault;
use crate::os;

/// A connector that trusts what the system trusts. Reading its store takes time.
pub(super) fn connector() -> io::Result<TlsConnector> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let store = os::trusted_authorities();
    if store.as_ref().is_some_and(RootCertStore::is_empty) {
        let what = format!("TLS: {} has no certificate of an authority", trust_store());
        return Err(Fault::lasting(what, "correct SSL_CERT_FILE, or install the package ca-certificates").into());
    }
    let mut config = match store {
        Some(store) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Judge::new(Arc::new(store), provider)?))
        }
        None => builder
            .with_platform_verifier()
            .map_err(|e| Fault::lasting(format!("TLS: the system's trust store: {e}"), "repair it"))?,
    }
    .with_no_client_auth();
    // A WebSocket needs HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The words for the store of trusted certificates in use.
fn trust_store() -> String {
    let named = |variable: &str| {
        let value = env::var(variable).ok().filter(|value| os::FILES_COUNT && !value.is_empty())?;
        Some(format!("{variable} ({value})"))
    };
    match (named("SSL_CERT_FILE"), named("SSL_CERT_DIR")) {
        (Some(file), Some(folder)) => format!("the trust store of {file} and {folder}"),
        (Some(one), None) | (None, Some(one)) => format!("the trust store of {one}"),
        (None, None) => "the system's trust store".to_owned(),
    }
}

/// The end of a hint, where a variable can add to the store.
fn or_name_it() -> &'static str {
    if os::FILES_COUNT { ", or name its file in SSL_CERT_FILE" } else { "" }
}

/// The judge of servers' certificates where the system has a file of authorities and no judge.
#[derive(Debug)]
struct Judge {
    store: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    webpki: Arc<WebPkiServerVerifier>,
}

impl Judge {
    fn new(store: Arc<RootCertStore>, provider: Arc<CryptoProvider>) -> io::Result<Judge> {
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::clone(&store), Arc::clone(&provider))
            .build()
            .map_err(io::Error::other)?;
        Ok(Judge { store, provider, webpki })
    }

    /// Judges a certificate that may sign others as one that may not. Everything else about it counts, its signature
    /// included.
    fn judge_authority(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let refused = || rustls::Error::InvalidCertificate(CertificateError::BadEncoding);
        let plain = without_authority(leaf).ok_or_else(refused)?;
        let (original, altered) = (signed_part(leaf).ok_or_else(refused)?, signed_part(&plain).ok_or_else(refused)?);
        let algorithms: Vec<_> = self
            .provider
            .signature_verification_algorithms
            .all
            .iter()
            .map(|algorithm| AsSigned { algorithm: *algorithm, original, altered })
            .collect();
        let algorithms: Vec<_> =
            algorithms.iter().map(|algorithm| algorithm as &dyn SignatureVerificationAlgorithm).collect();
        let plain = CertificateDer::from(plain.as_slice());
        let parsed = ParsedCertificate::try_from(&plain)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.store, intermediates, now, &algorithms)?;
        verify_server_name(&parsed, name)?;
        Ok(ServerCertVerified::assertion())
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let judged = match self.webpki.verify_server_cert(leaf, intermediates, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(error)) if webpki_says(&error, "CaUsedAsEndEntity") => {
                self.judge_authority(leaf, intermediates, name, now)
            }
            judged => judged,
        };
        judged.map_err(|error| match error {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)
                if is_signed_by_itself(leaf) == Some(true) =>
            {
                let why = OtherError(Arc::new(SignedByItself));
                rustls::Error::InvalidCertificate(CertificateError::Other(why))
            }
            error => error,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// A certificate that names itself as its issuer, and is not in the trust store.
#[derive(Debug)]
struct SignedByItself;

impl fmt::Display for SignedByItself {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is signed by itself")
    }
}

impl std::error::Error for SignedByItself {}

/// A signature algorithm that verifies what was signed where it is asked about the altered form.
#[derive(Debug)]
struct AsSigned<'a> {
    algorithm: &'static dyn SignatureVerificationAlgorithm,
    original: &'a [u8],
    altered: &'a [u8],
}

impl SignatureVerificationAlgorithm for AsSigned<'_> {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let message = if message == self.altered { self.original } else { message };
        self.algorithm.verify_signature(key, message, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.signature_alg_id()
    }
}

/// True for this error of webpki, which rustls passes on under no name of its own.
fn webpki_says(error: &CertificateError, name: &str) -> bool {
    matches!(error, CertificateError::Other(other) if format!("{:?}", other.0) == name)
}

/// Splits the first DER element off: its tag, its contents, and its length with its header.
fn element(der: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (tag, first) = (*der.first()?, *der.get(1)?);
    let (header, length) = match first {
        0..=0x7f => (2, usize::from(first)),
        0x81..=0x83 => {
            let count = usize::from(first & 0x7f);
            let length = der.get(2..2 + count)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            (2 + count, length)
        }
        _ => return None,
    };
    Some((tag, der.get(header..header + length)?, header + length))
}

/// The part of a certificate that its signature covers.
fn signed_part(certificate: &[u8]) -> Option<&[u8]> {
    let (_, certificate, _) = element(certificate)?;
    let (_, _, length) = element(certificate)?;
    certificate.get(..length)
}

/// The elements of a certificate's signed part, as (tag, whole element).
fn fields(certificate: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let (_, mut rest, _) = element(signed_part(certificate)?)?;
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let (tag, _, length) = element(rest)?;
        fields.push((tag, &rest[..length]));
        rest = &rest[length..];
    }
    Some(fields)
}

/// True for a certificate whose issuer is its subject.
fn is_signed_by_itself(certificate: &[u8]) -> Option<bool> {
    /// The tag of the version, which the oldest certificates leave out.
    const VERSION: u8 = 0xa0;
    let fields = fields(certificate)?;
    let from = usize::from(fields.first()?.0 == VERSION);
    // Serial number, signature, issuer, validity, subject.
    Some(fields.get(from + 2)?.1 == fields.get(from + 4)?.1)
}

/// The certificate with `CA:FALSE` in place of `CA:TRUE`.
fn without_authority(certificate: &[u8]) -> Option<Vec<u8>> {
    /// The identifier of basicConstraints, 2.5.29.19.
    const BASIC_CONSTRAINTS: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x13];
    const TRUE: &[u8] = &[0x01, 0x01, 0xff];
    const EXTENSIONS: u8 = 0xa3;
    let (_, extensions) = fields(certificate)?.into_iter().find(|(tag, _)| *tag == EXTENSIONS)?;
    let (_, list, _) = element(extensions)?;
    let (_, mut list, _) = element(list)?;
    while !list.is_empty() {
        let (_, extension, length) = element(list)?;
        list = &list[length..];
        if let Some(value) = extension.strip_prefix(BASIC_CONSTRAINTS) {
            let value = value.strip_prefix(TRUE).unwrap_or(value);
            let (_, sequence, _) = element(value)?;
            let (_, constraints, _) = element(sequence)?;
            if !constraints.starts_with(TRUE) {
                return None;
            }
            let at = constraints.as_ptr().addr() - certificate.as_ptr().addr() + TRUE.len() - 1;
            let mut altered = certificate.to_vec();
            *altered.get_mut(at)? = 0;
            return Some(altered);
        }
    }
    None
}

/// The fault for a failed handshake with the server of that name.
pub(super) fn handshake_failed(error: io::Error, host: &str) -> io::Error {
    let what = |why: &str| format!("TLS: {why}");
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let (why, hint) = match inner {
        Some(rustls::Error::InvalidCertificate(error)) => certificate(error, host),
        Some(rustls::Error::NoCertificatesPresented) => ("it shows no certificate".to_owned(), check_address()),
        Some(rustls::Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        )) => (
            "it does not speak TLS".to_owned(),
            "check the address: one without TLS begins with http://; a proxy or login page may answer instead"
                .to_owned(),
        ),
        Some(rustls::Error::PeerIncompatible(_)) => old_version(),
        Some(rustls::Error::AlertReceived(alert)) => match alert {
            AlertDescription::ProtocolVersion => old_version(),
            AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => (
                "it refuses the handshake: it has no cipher or signature in common with this program".to_owned(),
                "it must permit the usual ones of TLS 1.2 or 1.3".to_owned(),
            ),
            AlertDescription::UnrecognisedName => (format!("it does not know the name {host}"), check_address()),
            AlertDescription::CertificateRequired | AlertDescription::BadCertificate => {
                ("it wants a certificate of the client, and this program has none".to_owned(), check_address())
            }
            other => (format!("it ended the handshake ({other:?})"), check_address()),
        },
        Some(other) => (other.to_string(), check_address()),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            let what = what("it ended the connection during the handshake");
            return Fault::passing(what, check_address()).into();
        }
        None => return io::Error::new(error.kind(), what(&error.to_string())),
    };
    Fault::lasting(what(&why), hint).into()
}

fn check_address() -> String {
    "check the address, and the proxy setting if there is one".to_owned()
}

fn old_version() -> (String, String) {
    let why = "it speaks only versions of TLS that are no longer secure (before 1.2)";
    (why.to_owned(), "it must permit TLS 1.2 or 1.3; if a proxy inspects TLS here, it is too old".to_owned())
}

/// The words for a certificate that is not accepted.
fn certificate(error: &CertificateError, host: &str) -> (String, String) {
    use CertificateError as E;
    let clock = |time: &UnixTime| format!("this computer's clock may be wrong: it says {}", moment(time));
    match error {
        E::ExpiredContext { time, not_after } => (
            format!("its certificate expired on {}", moment(not_after)),
            format!("{}; if it is right, the certificate must be renewed there", clock(time)),
        ),
        E::Expired => ("its certificate has expired".to_owned(), clock(&UnixTime::now())),
        E::NotValidYetContext { time, not_before } => {
            (format!("its certificate is not valid before {}", moment(not_before)), clock(time))
        }
        E::NotValidYet => ("its certificate is not valid yet".to_owned(), clock(&UnixTime::now())),
        E::NotValidForNameContext { presented, .. } if presented.is_empty() => (
            format!("its certificate does not name {host}: it names no host at all but perhaps a common name (CN)"),
            "a common name does not count any more: the certificate needs a subjectAltName".to_owned(),
        ),
        E::NotValidForNameContext { presented, .. } => (
            format!("its certificate is not for {host}, but for {}", names(presented)),
            format!("{}; a login page may answer instead", check_address()),
        ),
        E::NotValidForName => (format!("its certificate is not for {host}"), check_address()),
        E::UnknownIssuer => (
            format!("its certificate is not signed by an authority of {}", trust_store()),
            format!(
                "if a proxy inspects TLS here, add the certificate of its authority to the system's trust store{}",
                or_name_it()
            ),
        ),
        E::Other(other) if other.0.is::<SignedByItself>() => (
            format!("its certificate is signed by itself, and is not in {}", trust_store()),
            format!("if it is the right one, add it to the system's trust store{}", or_name_it()),
        ),
        _ if webpki_says(error, "UnsupportedCriticalExtension") => (
            "its certificate has a critical extension that this program does not know".to_owned(),
            "it needs a certificate without that extension".to_owned(),
        ),
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => (
            "its certificate is not one for servers (its extended key usage has no serverAuth)".to_owned(),
            "it needs a certificate for servers".to_owned(),
        ),
        E::Revoked => ("its certificate was revoked".to_owned(), "it needs another certificate".to_owned()),
        E::BadSignature => (
            format!(
                "its certificate is not signed by an authority of {}: one has the name, but another key",
                trust_store()
            ),
            "if a proxy inspects TLS here, its authority may have been renewed: add the new certificate".to_owned(),
        ),
        E::BadEncoding => ("its certificate cannot be read".to_owned(), check_address()),
        other => (format!("its certificate is not accepted: {other}"), check_address()),
    }
}

/// The first few names of a certificate.
fn names(presented: &[String]) -> String {
    const SHOWN: usize = 3;
    let plain =
        |name: &String| name.replace("DnsName(\"", "").replace("IpAddress(", "").replace("\")", "").replace(')', "");
    let shown: Vec<String> = presented.iter().take(SHOWN).map(plain).collect();
    let more = if presented.len() > SHOWN { " and others" } else { "" };
    format!("{}{more}", shown.join(", "))
}

fn moment(time: &UnixTime) -> String {
    let second = i64::try_from(time.as_secs()).ok().and_then(|second| jiff::Timestamp::from_second(second).ok());
    second.map_or_else(|| "a day far away".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M UTC").to_string())
}
