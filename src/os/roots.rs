//! The authorities that this system trusts, where programs read them from files.

/// True where the variables `SSL_CERT_FILE` and `SSL_CERT_DIR` name authorities.
pub(crate) const FILES_COUNT: bool = cfg!(all(unix, not(target_vendor = "apple"), not(target_os = "android")));

/// Reads the authorities of this system: those of `SSL_CERT_FILE` and `SSL_CERT_DIR` where one is set. `None` where the
/// system itself judges certificates.
#[cfg(all(unix, not(target_vendor = "apple"), not(target_os = "android")))]
pub(crate) fn trusted_authorities() -> Option<tokio_rustls::rustls::RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        log::warn!("cannot read a trusted certificate: {error}");
    }
    let mut store = tokio_rustls::rustls::RootCertStore::empty();
    store.add_parsable_certificates(found.certs);
    Some(store)
}

/// See above.
#[cfg(not(all(unix, not(target_vendor = "apple"), not(target_os = "android"))))]
pub(crate) fn trusted_authorities() -> Option<tokio_rustls::rustls::RootCertStore> {
    None
}
