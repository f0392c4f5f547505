//! Tunnels to machines.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hyper::{Uri, header};

use crate::{
    error::{Error, Kind, Result},
    labs::{
        Call, Labs, TUNNEL_ANSWER, TunnelSession, UPGRADE,
        address::given,
        http::{self, Stream, keep_address},
        retry::Repeat,
        tunnel::{self, Tunnel},
        wire::{StartTunnel, TunnelOffer},
    },
};

impl Labs {
    /// Requests a tunnel to a machine for a user, with that user's public key; both may be empty for mere forwards. The
    /// platform holds the request while the machine boots. Tunnels come out of a small pool per account, so one request
    /// serves as many connections as possible, and callers pause between requests.
    ///
    /// # Errors
    /// As every call; [`Kind::NotYet`] while the machine is not ready.
    pub async fn start_tunnel(&self, play: &str, machine: &str, user: &str, key: &str) -> Result<TunnelOffer> {
        let request = StartTunnel {
            machine: machine.into(),
            port: 0,
            access: "private".into(),
            generate_login_url: true,
            ssh_user: user.into(),
            ssh_pub_key: key.into(),
        };
        let about = match machine {
            "" => format!("the tunnel to playground {play}"),
            _ => format!("the tunnel to machine {machine} of playground {play}"),
        };
        let call = Call::post(format!("/plays/{play}/tunnels"), &request, about)?;
        self.call(Call { repeat: Repeat::Never, limit: TUNNEL_ANSWER, ..call }).await
    }

    /// Fetches a tunnel's token.
    ///
    /// # Errors
    /// As every call.
    pub async fn log_into_tunnel(&self, offer: &TunnelOffer) -> Result<TunnelSession> {
        keep_address(&offer.login_url);
        let token = self.http.cookie(given(&offer.login_url)?, tunnel::COOKIE, UPGRADE).await?;
        Ok(TunnelSession { url: offer.url.clone(), token })
    }

    /// Opens one connection to `target` (`HOST:PORT`; an empty host is the machine itself).
    ///
    /// # Errors
    /// [`Kind::Network`] when it cannot be reached, [`Kind::Refused`] and the like when the session is not valid.
    pub async fn dial(&self, session: &TunnelSession, target: &str) -> Result<Tunnel<Stream>> {
        Ok(Tunnel::client(self.open(session, target).await?))
    }

    /// Opens a WebSocket to any kind of target. Beside `HOST:PORT`, `listen:HOST:PORT` makes the machine listen, and
    /// the WebSocket reports each connection by a text message; `connect:CID` accepts one.
    ///
    /// # Errors
    /// As [`Labs::dial`]; [`Kind::Refused`] when an address cannot be bound.
    pub async fn open(&self, session: &TunnelSession, target: &str) -> Result<Stream> {
        let mut parts = given(&session.url)?.into_parts();
        // `/` is in base64's alphabet and would begin another segment of the path.
        let target = BASE64_STANDARD.encode(target).replace('/', "%2F");
        let below = parts.path_and_query.as_ref().map_or("", |path| path.path().trim_end_matches('/'));
        let path = format!("{below}/tunnels/{target}");
        parts.path_and_query = Some(path.parse().map_err(|_| Error::new(Kind::Internal, "no such tunnel path"))?);
        let uri = Uri::from_parts(parts).map_err(|_| Error::new(Kind::Answer, "the tunnel's address is not valid"))?;
        let cookie = http::secret(&format!("{}={}", tunnel::COOKIE, session.token))?;
        self.http.websocket(uri, &[(header::COOKIE, cookie)], UPGRADE).await
    }
}
