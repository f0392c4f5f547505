//! Servers' certificates: those that curl accepts are accepted, and each fault has its own words.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer},
        sign::{CertifiedKey, SingleCertAndKey},
    },
};

use crate::support::{World, labs::take_tls_off, needs};

/// A certificate and its key.
struct Made {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
    der: CertificateDer<'static>,
}

fn params(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "localhost");
    change(&mut params);
    params
}

fn by_itself(params: CertificateParams) -> Made {
    let key = KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();
    Made { pem: made.pem(), der: made.der().clone(), params, key }
}

fn by(authority: &Made, params: CertificateParams) -> Made {
    let key = KeyPair::generate().unwrap();
    let made = params.signed_by(&key, &Issuer::from_params(&authority.params, &authority.key)).unwrap();
    Made { pem: made.pem(), der: made.der().clone(), params, key }
}

fn authority(name: &str) -> Made {
    by_itself(params(&[], |params| {
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }))
}

fn signs(params: &mut CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
}

/// An API behind TLS with that certificate, and the user's trust store.
struct Front {
    world: World,
    port: u16,
    store: PathBuf,
    _runtime: tokio::runtime::Runtime,
}

impl Front {
    fn new(shown: &Made, trusted: &str) -> Front {
        let api = TcpListener::bind("127.0.0.1:0").unwrap();
        let behind = api.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in api.incoming() {
                std::thread::spawn(move || {
                    use std::io::{Read, Write};
                    let mut stream = stream.unwrap();
                    let _ = stream.read(&mut [0; 8192]);
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n[]");
                });
            }
        });
        let key = PrivateKeyDer::try_from(shown.key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(
                vec![shown.der.clone()],
                rustls::crypto::ring::sign::any_supported_type(&key).unwrap(),
            ))));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let front = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = front.local_addr().unwrap().port();
        runtime.spawn(take_tls_off(front, TlsAcceptor::from(Arc::new(config)), behind));
        let world = World::empty();
        let store = world.path("store.pem");
        fs::write(&store, trusted).unwrap();
        let front = Front { world, port, store, _runtime: runtime };
        front.account("https", port);
        front
    }

    fn account(&self, scheme: &str, port: u16) {
        let account = self.world.path(".iximiuz/labctl/config.yaml");
        fs::create_dir_all(account.parent().unwrap()).unwrap();
        let text = format!(
            "api_base_url: {scheme}://localhost:{port}/api\nsession_id: a-session\naccess_token: a-token-of-one\n"
        );
        fs::write(account, text).unwrap();
    }

    /// Lists the playgrounds, and returns what it failed with.
    fn list(&self, store: &Path) -> Result<(), String> {
        let mut list = self.world.command(&["list"]);
        list.env("SSL_CERT_FILE", store).env_remove("SSL_CERT_DIR");
        let said = self.world.output(&mut list);
        if said.code() == 0 { Ok(()) } else { Err(said.failed(10)) }
    }

    /// True if curl accepts the certificate.
    fn by_curl(&self) -> bool {
        let mut curl = self.world.program(needs("curl"));
        curl.args(["-sS", "--noproxy", "*", "--cacert"]).arg(&self.store);
        curl.arg(format!("https://localhost:{}/api/plays", self.port));
        self.world.output(&mut curl).code() == 0
    }
}

#[test]
fn what_curl_accepts_is_accepted() {
    let root = authority("a root");
    let other = authority("another root");
    let past = |params: &mut CertificateParams| {
        signs(params);
        params.not_after = date_time_ymd(2021, 1, 1);
    };
    for (what, shown, trusted) in [
        ("made by openssl's defaults", by_itself(params(&["localhost"], signs)), None),
        ("not an authority", by_itself(params(&["localhost"], |_| {})), None),
        ("an authority below another", by(&root, params(&["localhost"], signs)), Some(&root)),
        ("plain", by(&root, params(&["localhost"], |_| {})), Some(&root)),
        (
            "an authority with a limit",
            by(&root, params(&["localhost"], |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)))),
            Some(&root),
        ),
        ("CA:FALSE", by(&root, params(&["localhost"], |params| params.is_ca = IsCa::ExplicitNoCa)), Some(&root)),
        ("an authority for another name", by_itself(params(&["other.test"], signs)), None),
        ("an authority of the past", by_itself(params(&["localhost"], past)), None),
        ("an authority of a stranger", by(&other, params(&["localhost"], signs)), Some(&root)),
        ("an authority by itself", by_itself(params(&["localhost"], signs)), Some(&root)),
    ] {
        let trusted = trusted.map_or_else(|| shown.pem.clone(), |trusted| trusted.pem.clone());
        let front = Front::new(&shown, &trusted);
        let ours = front.list(&front.store);
        assert_eq!(ours.is_ok(), front.by_curl(), "{what}: {ours:?}");
    }
    // A signature that is not the issuer's.
    let mut forged = by(&root, params(&["localhost"], signs));
    let mut der = forged.der.to_vec();
    *der.last_mut().unwrap() ^= 1;
    forged.der = der.into();
    let front = Front::new(&forged, &root.pem);
    assert!(front.list(&front.store).is_err() && !front.by_curl());
}

#[test]
fn each_fault_has_its_own_words() {
    let root = authority("a root");
    let critical = |params: &mut CertificateParams| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    };
    let for_clients = |params: &mut CertificateParams| {
        params.extended_key_usages.push(rcgen::ExtendedKeyUsagePurpose::ClientAuth);
    };
    let at = |from: i32, to: i32| {
        move |params: &mut CertificateParams| {
            params.not_before = date_time_ymd(from, 2, 3);
            params.not_after = date_time_ymd(to, 2, 3);
        }
    };
    for (shown, words) in [
        (
            by(&root, params(&["localhost"], at(2020, 2021))),
            ["expired on 2021-02-03 00:00 UTC", "this computer's clock"],
        ),
        (
            by(&root, params(&["localhost"], at(2080, 2090))),
            ["is not valid before 2080-02-03 00:00 UTC", "this computer's clock may be wrong"],
        ),
        (
            by(&root, params(&["other.test", "more.test"], |_| {})),
            ["is not for localhost, but for other.test, more.test", "check the address"],
        ),
        (by(&root, params(&[], |_| {})), ["it names no host at all", "subjectAltName"]),
        (
            by(&authority("a stranger"), params(&["localhost"], |_| {})),
            ["is not signed by an authority of", "SSL_CERT_FILE"],
        ),
        (by_itself(params(&["localhost"], |_| {})), ["is signed by itself", "SSL_CERT_FILE"]),
        (by_itself(params(&["localhost"], signs)), ["is signed by itself", "SSL_CERT_FILE"]),
        (by(&root, params(&["localhost"], critical)), ["a critical extension", "without that extension"]),
        (by(&root, params(&["localhost"], for_clients)), ["is not one for servers", "for servers"]),
    ] {
        let front = Front::new(&shown, &root.pem);
        let said = front.list(&front.store).unwrap_err();
        assert!(words.iter().all(|words| said.contains(words)), "{words:?}: {said}");
        // curl still takes the common name for a name, as Go and browsers no longer do.
        assert_eq!(front.by_curl(), words[1] == "subjectAltName", "{words:?}");
    }
    // No authority at all, and the protocols the wrong way round.
    let front = Front::new(&by(&root, params(&["localhost"], |_| {})), "");
    let said = front.list(&front.store).unwrap_err();
    assert!(said.contains("the trust store of SSL_CERT_FILE (") && said.contains("has no certificate"), "{said}");
    front.account("http", front.port);
    let said = front.list(&front.store).unwrap_err();
    assert!(said.contains("https://"), "{said}");
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    front.account("https", plain.local_addr().unwrap().port());
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for stream in plain.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 8192]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    fs::write(&front.store, &root.pem).unwrap();
    let said = front.list(&front.store).unwrap_err();
    assert!(said.contains("it does not speak TLS") && said.contains("http://"), "{said}");
}
