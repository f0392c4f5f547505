//! Requests to the API, over channels of an SSH connection to the machine that has its kubeconfig.

use std::{io, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header::{
        ACCEPT, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
    },
    upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Mutex,
    time::timeout,
};

use super::{
    access::{Access, TlsFailed, tls_failed},
    reading,
};
use crate::{
    error::{Error, Kind, Result, printable},
    labs::http::accept_key,
    ssh::client::SshClient,
    target::host_port,
};

/// Time limit for an answer. The API's own for a request is 60 s, which is for writes to many.
const ANSWER: Duration = Duration::from_secs(20);
/// Largest answer accepted. A page of 500 large pods has about 10 MiB.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// Longest line of a watch: an object of the store has at most 1.5 MiB.
const MAX_LINE: usize = 4 * 1024 * 1024;

/// Text for the value of a query.
pub(super) fn query_text(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// JSON, as most requests want it.
pub(crate) const JSON: &str = "application/json";
/// An object's metadata alone.
pub(crate) const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
/// The same of one object, as a watch has them.
pub(crate) const METADATA_OF_ONE: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// The API of a cluster.
pub(crate) struct Api {
    ssh: SshClient,
    access: Access,
    /// The connection of the last request.
    kept: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

/// The reason of the API for saying no, as far as a caller acts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is no such object.
    NotFound,
    /// The version that was asked for is too old (410).
    Gone,
    /// The role does not permit it (403).
    Forbidden,
    /// Something else.
    Otherwise,
}

/// A failure, with the reason where the API has answered.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The reason.
    pub(crate) refused: Option<Refused>,
    /// The error for people.
    pub(crate) error: Error,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { refused: None, error }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        failure.error
    }
}

/// The API's own words about a failure.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) message: String,
    pub(super) code: u16,
}

impl Api {
    /// Reads the kubeconfig over `ssh`, which is logged in as root. `user` is the machine's user.
    ///
    /// # Errors
    /// [`Kind::NotFound`] on a machine without one, as [`Access::by`], and those of the connection.
    pub(crate) async fn open(ssh: SshClient, user: &str) -> Result<Api> {
        let login = ssh.login();
        let text = match reading::read_as_root(&ssh, &login.machine, user).await? {
            Ok(text) => text,
            Err(why) => {
                let why = why.unwrap_or_else(|| "has no kubeconfig".to_owned());
                let message = format!("machine {} of playground {} {why}", login.machine, login.shown);
                return Err(Error::new(Kind::NotFound, message)
                    .with_hint("check that it is a Kubernetes playground and its cluster is ready"));
            }
        };
        let access = Access::by(&text, &login.shown)?;
        Ok(Api { ssh, access, kept: Mutex::default() })
    }

    /// The connection that it goes over.
    pub(crate) fn ssh(&self) -> &SshClient {
        &self.ssh
    }

    /// Ends the connection, and returns what it went over.
    pub(crate) fn into_ssh(self) -> SshClient {
        self.ssh
    }

    /// The namespace that is meant where none is named.
    pub(crate) fn namespace(&self) -> &str {
        &self.access.namespace
    }

    /// The API in a sentence.
    fn subject(&self) -> String {
        format!("the Kubernetes API of playground {}", self.ssh.login().shown)
    }

    /// Gets an object, or a list.
    ///
    /// # Errors
    /// The API's refusal, and [`Kind::Network`] without an answer.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str, accept: &'static str) -> Result<T, Failure> {
        let body = self.text(Method::GET, path, accept, None).await?;
        serde_json::from_slice(&body).map_err(|e| self.in_other_words(&e).into())
    }

    /// Sends a request, and returns the answer's text. `body` comes with its media type.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub(crate) async fn text(
        &self,
        method: Method,
        path: &str,
        accept: &'static str,
        body: Option<(&'static str, Bytes)>,
    ) -> Result<Bytes, Failure> {
        let answer = async {
            let mut kept = self.kept.lock().await;
            let mut sender = kept.take();
            // The server may have closed it meanwhile.
            if let Some(one) = &mut sender
                && one.ready().await.is_err()
            {
                sender = None;
            }
            let mut sender = match sender {
                Some(sender) => sender,
                None => self.connected().await?,
            };
            let response = self.sent(&mut sender, self.request(method, path, accept, body)?).await?;
            let status = response.status();
            let body = self.whole(response).await?;
            *kept = Some(sender);
            Ok::<_, Error>((status, body))
        };
        let (status, body) = timeout(ANSWER, answer).await.map_err(|_| self.silent())??;
        if status.is_success() { Ok(body) } else { Err(self.refused(status, &body)) }
    }

    /// Begins an answer that comes line by line.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub(crate) async fn lines(&self, path: &str, accept: &'static str) -> Result<Lines, Failure> {
        timeout(ANSWER, self.begun(path, accept)).await.map_err(|_| self.silent())?
    }

    /// As [`Api::lines`], without a limit of time: a node answers about a log only once there is a first line.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub(crate) async fn begun(&self, path: &str, accept: &'static str) -> Result<Lines, Failure> {
        let mut sender = self.connected().await?;
        let response = self.sent(&mut sender, self.request(Method::GET, path, accept, None)?).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(Lines { body: response.into_body(), before: BytesMut::new(), _sender: sender });
        }
        Err(self.refused(status, &self.whole(response).await?))
    }

    /// Reads an answer. Its pieces are not kept beside the whole, because a list may have many MiB.
    async fn whole(&self, response: Response<Incoming>) -> Result<Bytes> {
        let mut body = Limited::new(response.into_body(), MAX_ANSWER);
        let mut whole = Vec::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(|e| self.cut(&*e))?.into_data() {
                whole.extend_from_slice(&data);
            }
        }
        Ok(whole.into())
    }

    /// Opens a WebSocket with one of these protocols. Returns it, and the one that the server has chosen.
    ///
    /// # Errors
    /// As [`Api::get`]; [`Kind::Answer`] without a WebSocket.
    pub(super) async fn websocket(&self, path: &str, protocols: &'static str) -> Result<(Upgraded, String), Failure> {
        let opened = async {
            let mut sender = self.connected().await?;
            let mut request = self.request(Method::GET, path, "*/*", None)?;
            let key = STANDARD.encode(fastrand::u128(..).to_le_bytes());
            let accept = accept_key(key.as_bytes());
            for (name, value) in [
                (CONNECTION, "Upgrade"),
                (UPGRADE, "websocket"),
                (SEC_WEBSOCKET_VERSION, "13"),
                (SEC_WEBSOCKET_KEY, &key),
                (SEC_WEBSOCKET_PROTOCOL, protocols),
            ] {
                let value = HeaderValue::from_str(value).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
                request.headers_mut().insert(name, value);
            }
            let response = self.sent(&mut sender, request).await?;
            let status = response.status();
            let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
            if status != StatusCode::SWITCHING_PROTOCOLS {
                return Err(self.refused(status, &self.whole(response).await?));
            }
            if header(SEC_WEBSOCKET_ACCEPT) != accept {
                return Err(Error::new(Kind::Answer, format!("{} is no WebSocket server", self.subject())).into());
            }
            let protocol = header(SEC_WEBSOCKET_PROTOCOL).to_owned();
            let upgraded = hyper::upgrade::on(response).await.map_err(|e| self.lost(&e))?;
            Ok((upgraded, protocol))
        };
        timeout(ANSWER, opened).await.map_err(|_| self.silent())?
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        accept: &'static str,
        body: Option<(&'static str, Bytes)>,
    ) -> Result<Request<Full<Bytes>>> {
        let internal = |e: hyper::http::Error| Error::new(Kind::Internal, format!("no request can be made: {e}"));
        let mut request = Request::builder().method(method).uri(self.access.uri(path)?);
        let host = host_port(&self.access.server.host, self.access.server.port);
        request = request.header(HOST, host).header(ACCEPT, accept);
        request = request
            .header(USER_AGENT, HeaderValue::from_static(concat!("labctl-ssh-proxy/", env!("CARGO_PKG_VERSION"))));
        for (name, value) in &self.access.headers {
            request = request.header(name, value);
        }
        let text = match body {
            Some((media, text)) => {
                request = request.header(CONTENT_TYPE, media);
                text
            }
            None => Bytes::new(),
        };
        request.body(Full::new(text)).map_err(internal)
    }

    async fn sent(
        &self,
        sender: &mut SendRequest<Full<Bytes>>,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>> {
        sender.send_request(request).await.map_err(|e| self.lost(&e))
    }

    /// A new connection to the server.
    async fn connected(&self) -> Result<SendRequest<Full<Bytes>>> {
        let (host, port) = (&self.access.server.host, self.access.server.port);
        let stream = self.ssh.connect_tcp(host, port).await.map_err(|error| self.unreachable(error.message()))?;
        match &self.access.tls {
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await;
                self.speaking(stream.map_err(|e| self.unsafe_or_unreachable(&e))?).await
            }
            None => self.speaking(stream).await,
        }
    }

    async fn speaking<S>(&self, stream: S) -> Result<SendRequest<Full<Bytes>>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.lost(&e))?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                log::debug!("a connection to a Kubernetes API has ended: {error}");
            }
        });
        Ok(sender)
    }

    fn unreachable(&self, why: &str) -> Error {
        Error::new(Kind::NotYet, format!("{} cannot be reached: {}", self.subject(), printable(why)))
            .with_hint("wait until its cluster is ready, and try again")
    }

    fn unsafe_or_unreachable(&self, error: &io::Error) -> Error {
        match tls_failed(error) {
            TlsFailed::Untrusted(why) => {
                let message = format!("{} shows a certificate that is not accepted: {why}", self.subject());
                let hint = "look at its kubeconfig: it may be that of another cluster, or of an earlier one";
                Error::new(Kind::Network, message).lasting().with_hint(hint)
            }
            TlsFailed::Otherwise(why) => self.unreachable(&why),
        }
    }

    fn silent(&self) -> Error {
        let message = format!("{} did not answer within {} s", self.subject(), ANSWER.as_secs());
        Error::new(Kind::NotYet, message).with_hint("wait until its cluster is ready, and try again")
    }

    fn lost(&self, error: &(dyn std::error::Error + 'static)) -> Error {
        Error::new(Kind::Network, format!("the connection to {} was lost: {error}", self.subject()))
            .with_hint("try again")
    }

    fn cut(&self, error: &(dyn std::error::Error + 'static)) -> Error {
        if error.is::<LengthLimitError>() {
            let message = format!("{} sent more than {} MiB at once", self.subject(), MAX_ANSWER >> 20);
            return Error::new(Kind::Answer, message).with_hint("name a namespace");
        }
        self.lost(error)
    }

    /// The error for an answer that is not the API's.
    pub(super) fn in_other_words(&self, error: &serde_json::Error) -> Error {
        Error::new(Kind::Answer, format!("{} sent an answer that cannot be read: {error}", self.subject()))
            .with_hint("check that the server in the machine's kubeconfig is a Kubernetes API")
    }

    /// The error for a refusal, with the API's words.
    pub(super) fn refused(&self, status: StatusCode, body: &[u8]) -> Failure {
        let said: Status = serde_json::from_slice(body).unwrap_or_default();
        let words = if said.message.is_empty() { status.to_string() } else { printable(&said.message) };
        let message = format!("{}: {words}", self.subject());
        let (kind, refused, hint) = match status.as_u16() {
            401 => (Kind::Refused, Refused::Otherwise, "the kubeconfig there may be out of date"),
            403 => (Kind::Refused, Refused::Forbidden, "the user of the kubeconfig there needs that right"),
            404 => (Kind::NotFound, Refused::NotFound, "list what there is with `labctl-ssh-proxy pods`"),
            410 => (Kind::NotYet, Refused::Gone, "try again"),
            429 | 500 | 502..=504 => (Kind::NotYet, Refused::Otherwise, "wait a moment, and try again"),
            _ => (Kind::Refused, Refused::Otherwise, "the words are the API's own"),
        };
        Failure { refused: Some(refused), error: Error::new(kind, message).with_hint(hint) }
    }
}

/// An answer that comes line by line.
pub(crate) struct Lines {
    body: Incoming,
    before: BytesMut,
    /// A connection without its sender ends after the answer has begun.
    _sender: SendRequest<Full<Bytes>>,
}

impl Lines {
    /// The next line, without its end; `None` once the answer has ended. It may be asked for again after it was not waited
    /// for to the end.
    ///
    /// # Errors
    /// [`Kind::Network`] when the connection is lost, and for a line that is too long.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.before[searched..].iter().position(|&byte| byte == b'\n') {
                let mut line = self.before.split_to(searched + end + 1);
                line.truncate(line.len() - 1);
                return Ok(Some(line.freeze()));
            }
            searched = self.before.len();
            if searched > MAX_LINE {
                return Err(Error::new(Kind::Answer, "the Kubernetes API sends a line without an end"));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.before.extend_from_slice(data);
                    }
                }
                Some(Err(e)) => {
                    return Err(Error::new(Kind::Network, format!("the Kubernetes API was lost: {e}")));
                }
                None if self.before.is_empty() => return Ok(None),
                None => return Ok(Some(self.before.split().freeze())),
            }
        }
    }

    /// The next piece, as it comes; `None` once the answer has ended.
    ///
    /// # Errors
    /// [`Kind::Network`] when the connection is lost.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(e)) => return Err(Error::new(Kind::Network, format!("the Kubernetes API was lost: {e}"))),
                None => return Ok(None),
            }
        }
    }
}
