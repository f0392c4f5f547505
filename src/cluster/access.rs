//! Whom the API of a cluster is, and who we are there, by the current context of a kubeconfig.

use std::{io, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{
    Uri,
    header::{AUTHORIZATION, HeaderName, HeaderValue},
};
use serde_json::Value;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    },
};

use super::kubeconfig::{self, Current, Server};
use crate::{
    error::{Error, Kind, Result},
    target::is_label,
};

/// The way to a cluster's API.
pub(crate) struct Access {
    /// Its address, as the machine sees it.
    pub(crate) server: Server,
    /// The path before each of the API's own, without a slash at the end.
    pub(crate) prefix: String,
    /// The namespace that is meant where none is named.
    pub(crate) namespace: String,
    /// Its TLS; `None` for plain HTTP.
    pub(crate) tls: Option<(TlsConnector, ServerName<'static>)>,
    /// The headers that say who we are. Secret.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

impl Access {
    /// The access that the current context of a kubeconfig gives.
    ///
    /// # Errors
    /// [`Kind::Refused`] for a kubeconfig with more than keys and addresses, [`Kind::Answer`] for one that gives none.
    /// `play` is the playground's title.
    pub(crate) fn by(text: &str, play: &str) -> Result<Access> {
        kubeconfig::check(text, play)?;
        let Current { cluster, user, namespace } = kubeconfig::current(text)?;
        let unusable = |why: &str| Error::new(Kind::Answer, format!("the kubeconfig of playground {play} {why}"));
        let (uri, server) = kubeconfig::address(&cluster)?;
        let tls = match uri.scheme_str() {
            Some("http") => None,
            _ => Some(tls(&cluster, &user, &server).map_err(|e| unusable(&format!("cannot be used: {e}")))?),
        };
        let headers = headers(&user).ok_or_else(|| unusable("has a token or a user that is no text for HTTP"))?;
        let prefix = uri.path().trim_end_matches('/').to_owned();
        let namespace = namespace.filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned());
        if !is_label(&namespace) {
            return Err(unusable("has a namespace that is no name"));
        }
        Ok(Access { server, prefix, namespace, tls, headers })
    }

    /// The address of one of the API's own paths.
    pub(crate) fn uri(&self, path: &str) -> Result<Uri> {
        let uri = format!("{}{path}", self.prefix).parse();
        uri.map_err(|e| Error::new(Kind::Internal, format!("`{path}` is no path of the API: {e}")))
    }
}

fn tls(cluster: &Value, user: &Value, server: &Server) -> Result<(TlsConnector, ServerName<'static>), String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let builder = if cluster["insecure-skip-tls-verify"].as_bool() == Some(true) {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)))
    } else {
        let mut trusted = RootCertStore::empty();
        let authority = pem(cluster, "certificate-authority-data")?.ok_or("it names no authority")?;
        for certificate in certificates(&authority)? {
            trusted.add(certificate).map_err(|e| format!("its authority: {e}"))?;
        }
        builder.with_root_certificates(trusted)
    };
    let config = match (pem(user, "client-certificate-data")?, pem(user, "client-key-data")?) {
        (Some(chain), Some(key)) => {
            let key = PrivateKeyDer::from_pem_slice(&key).map_err(|e| format!("the user's key: {e}"))?;
            builder
                .with_client_auth_cert(certificates(&chain)?, key)
                .map_err(|e| format!("the user's certificate: {e}"))?
        }
        _ => builder.with_no_client_auth(),
    };
    let name = cluster["tls-server-name"].as_str().filter(|name| !name.is_empty()).unwrap_or(&server.host).to_owned();
    let name = ServerName::try_from(name).map_err(|e| format!("the name of its server: {e}"))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

/// The PEM in a field, which is in base64 there.
fn pem(of: &Value, field: &str) -> Result<Option<Vec<u8>>, String> {
    let Some(text) = of[field].as_str().filter(|text| !text.is_empty()) else { return Ok(None) };
    let text: String = text.split_ascii_whitespace().collect();
    STANDARD.decode(text).map(Some).map_err(|e| format!("its {field}: {e}"))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    all.map_err(|e| format!("one of its certificates: {e}"))
}

/// The headers for a user's token or password, and for the one whom it acts as.
fn headers(user: &Value) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let mut headers = Vec::new();
    let text = |field: &str| user[field].as_str().filter(|text| !text.is_empty());
    let mut secret = |value: String| {
        let mut value = HeaderValue::try_from(value).ok()?;
        value.set_sensitive(true);
        headers.push((AUTHORIZATION, value));
        Some(())
    };
    if let Some(token) = text("token") {
        secret(format!("Bearer {}", token.trim()))?;
    } else if let Some(name) = text("username") {
        secret(format!("Basic {}", STANDARD.encode(format!("{name}:{}", text("password").unwrap_or_default()))))?;
    }
    let mut act = |header: String, value: &Value| {
        let header = HeaderName::try_from(header).ok()?;
        headers.push((header, HeaderValue::try_from(value.as_str()?).ok()?));
        Some(())
    };
    for (field, header) in
        [("as", "impersonate-user"), ("as-uid", "impersonate-uid"), ("as-groups", "impersonate-group")]
    {
        for value in several(&user[field]) {
            act(header.to_owned(), value)?;
        }
    }
    for (key, values) in user["as-user-extra"].as_object().into_iter().flatten() {
        for value in several(values) {
            act(format!("impersonate-extra-{key}"), value)?;
        }
    }
    Some(headers)
}

fn several(value: &Value) -> &[Value] {
    match value {
        Value::Null => &[],
        Value::Array(all) => all,
        one => std::slice::from_ref(one),
    }
}

/// The judge of a kubeconfig that says that its server's certificate is not to be judged.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The reason why a TLS connection was not made, in words.
pub(super) enum TlsFailed {
    /// The server's certificate is not one to be trusted.
    Untrusted(String),
    /// Another.
    Otherwise(String),
}

/// The reason in an error of the connector.
pub(super) fn tls_failed(error: &io::Error) -> TlsFailed {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(why)) => TlsFailed::Untrusted(why.to_string()),
        Some(inner) => TlsFailed::Otherwise(format!("TLS: {inner}")),
        None => TlsFailed::Otherwise(format!("TLS: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(cluster: &str, user: &str) -> Result<Access> {
        let text = format!(
            "clusters: [{{name: c, cluster: {{{cluster}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\n\
             contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\ncurrent-context: x\n"
        );
        Access::by(&text, "k3s")
    }

    #[test]
    fn a_user_is_a_token_a_password_or_a_certificate() {
        let shown = |access: Access| {
            let shown = |(name, value): &(HeaderName, HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
            access.headers.iter().map(shown).collect::<Vec<_>>()
        };
        let plain = "server: 'http://127.0.0.1:8080/k8s/'";
        assert_eq!(shown(access(plain, "token: abc").unwrap()), ["authorization: Bearer abc"]);
        assert_eq!(shown(access(plain, "username: a, password: b").unwrap()), ["authorization: Basic YTpi"]);
        let acting = "token: t, as: eve, as-groups: [a, b], as-user-extra: {reason: [x]}";
        assert_eq!(
            shown(access(plain, acting).unwrap())[1..],
            ["impersonate-user: eve", "impersonate-group: a", "impersonate-group: b", "impersonate-extra-reason: x"]
        );
        let there = access(plain, "").unwrap();
        assert_eq!(there.uri("/api/v1/pods").unwrap(), "/k8s/api/v1/pods");
        assert_eq!((there.server.port, &*there.namespace, there.headers.len()), (8080, "default", 0));
        assert!(format!("{:?}", access(plain, "token: abc").unwrap().headers).contains("Sensitive"));
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        let server = "server: 'https://127.0.0.1:6443'";
        for (cluster, user, why) in [
            (server.to_owned(), "", "it names no authority"),
            (format!("{server}, certificate-authority-data: '!'"), "", "certificate-authority-data"),
            (format!("{server}, insecure-skip-tls-verify: true"), "exec: {command: sh}", "runs a program"),
            (format!("{server}, insecure-skip-tls-verify: true, tls-server-name: 'a b'"), "", "the name of its server"),
            (format!("{server}, insecure-skip-tls-verify: true"), "token: \"a\\nb\"", "no text for HTTP"),
        ] {
            let error = access(&cluster, user).err().unwrap();
            assert!(error.message().contains(why) && error.message().contains("k3s"), "{error}");
        }
        assert!(access(&format!("{server}, insecure-skip-tls-verify: true"), "").is_ok());
    }
}
