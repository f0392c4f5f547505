//! The ports that machines listen on, and what of them is exposed: ports, and web terminals ("shells").

use hyper::Method;

use crate::{
    error::Result,
    labs::{
        Call, Labs,
        retry::Repeat,
        wire::{ExposePort, ExposeShell, ExposedPort, ExposedShell, ScannedPort},
    },
};

impl Labs {
    /// Scans a play's machines, or one of them, for ports on which something listens. A port comes once for each
    /// address that it listens on.
    ///
    /// # Errors
    /// As every call; a play that does not run is refused.
    pub async fn scan_ports(&self, play: &str, machine: Option<&str>) -> Result<Vec<ScannedPort>> {
        let about = format!("the scan of playground {play}");
        let query = machine.map(|name| format!("?machine={}", encoded(name))).unwrap_or_default();
        let call = Call::new(Method::POST, format!("/plays/{play}/ports/scan{query}"), about);
        self.list(Call { repeat: Repeat::Read, ..call }).await
    }

    /// Lists a play's exposed ports.
    ///
    /// # Errors
    /// As every call.
    pub async fn ports(&self, play: &str) -> Result<Vec<ExposedPort>> {
        self.list(Call::get(format!("/plays/{play}/ports"), format!("the exposed ports of playground {play}"))).await
    }

    /// Exposes a port. Never repeated after an unknown outcome; see
    /// [`Error::may_have_happened`](crate::error::Error::may_have_happened).
    ///
    /// # Errors
    /// As every call.
    pub async fn expose_port(&self, play: &str, wish: &ExposePort) -> Result<ExposedPort> {
        let about = format!("port {} of playground {play}", wish.number);
        self.call(Call::post(format!("/plays/{play}/ports"), wish, about)?.once()).await
    }

    /// Ends the exposure of a port. Nothing else ever gets its id, so this may be repeated.
    ///
    /// # Errors
    /// As every call; [`Kind::NotFound`](crate::error::Kind::NotFound) when there is none of that id.
    pub async fn unexpose_port(&self, play: &str, id: &str) -> Result<()> {
        let path = format!("/plays/{play}/ports/{}", encoded(id));
        self.send(Call::new(Method::DELETE, path, format!("the exposed port of playground {play}"))).await.map(drop)
    }

    /// Lists a play's web terminals.
    ///
    /// # Errors
    /// As every call.
    pub async fn shells(&self, play: &str) -> Result<Vec<ExposedShell>> {
        self.list(Call::get(format!("/plays/{play}/shells"), format!("the web terminals of playground {play}"))).await
    }

    /// Makes a web terminal. Never repeated after an unknown outcome.
    ///
    /// # Errors
    /// As every call.
    pub async fn expose_shell(&self, play: &str, wish: &ExposeShell) -> Result<ExposedShell> {
        let about = format!("the web terminal of playground {play}");
        self.call(Call::post(format!("/plays/{play}/shells"), wish, about)?.once()).await
    }

    /// Ends a web terminal. It may be repeated, as [`Labs::unexpose_port`].
    ///
    /// # Errors
    /// As every call; [`Kind::NotFound`](crate::error::Kind::NotFound) when there is none of that id.
    pub async fn unexpose_shell(&self, play: &str, id: &str) -> Result<()> {
        let path = format!("/plays/{play}/shells/{}", encoded(id));
        self.send(Call::new(Method::DELETE, path, format!("the web terminal of playground {play}"))).await.map(drop)
    }
}

/// A part of a path or a query. Names and ids are plain, but the platform's word is not taken for it.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::encoded;

    #[test]
    fn names_stay_within_their_part_of_the_path() {
        assert_eq!(encoded("node-02"), "node-02");
        assert_eq!(encoded("a/b?c&d é"), "a%2Fb%3Fc%26d%20%C3%A9");
    }
}
