//! The ports that a machine's programs listen on, and the protocols that answer there. Machines share this computer's
//! network, so a socket is a machine's when one of its processes holds it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::rustls::{self, ClientConfig, ClientConnection, RootCertStore};

use super::Machine;

/// The longest time for a server's answer to one question. All servers are on this computer.
const ANSWER: Duration = Duration::from_millis(500);

impl Machine {
    /// The TCP addresses on which programs of the machine listen; `None` on systems that do not tell. This program is
    /// none of them: where the machine is this computer, a forward that is run in a session would be found as a server,
    /// and forwarded again.
    #[cfg(target_os = "linux")]
    pub fn listening(&self) -> Option<Vec<SocketAddr>> {
        let mut processes = self.host.processes.marked();
        processes.retain(|process| !linux::runs_this_program(*process));
        let own = linux::sockets_of(&processes);
        let table = |name: &str| std::fs::read_to_string(format!("/proc/self/net/{name}")).unwrap_or_default();
        let all = [table("tcp"), table("tcp6")];
        let listening = all.iter().flat_map(|table| crate::os::listening_sockets(table));
        Some(listening.filter(|(_, inode)| own.contains(inode)).map(|(address, _)| address).collect())
    }

    /// The TCP addresses on which programs of the machine listen; `None` on systems that do not tell.
    #[cfg(not(target_os = "linux"))]
    pub fn listening(&self) -> Option<Vec<SocketAddr>> {
        None
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{collections::HashSet, fs};

    use rustix::process::Pid;

    /// True for a process of this program's own file.
    pub(super) fn runs_this_program(process: Pid) -> bool {
        use std::os::unix::fs::MetadataExt;
        let file = |process: &str| {
            let found = fs::metadata(format!("/proc/{process}/exe")).ok()?;
            Some((found.dev(), found.ino()))
        };
        let of = file(&process.as_raw_nonzero().to_string());
        of.is_some() && of == file("self")
    }

    /// The inodes of the sockets that these processes hold.
    pub(super) fn sockets_of(processes: &[Pid]) -> HashSet<u64> {
        let mut inodes = HashSet::new();
        for pid in processes {
            // Processes that end meanwhile are gone.
            let Ok(open) = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())) else { continue };
            let links = open.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
            inodes
                .extend(links.filter_map(|link| {
                    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()
                }));
        }
        inodes
    }
}

/// The protocol that a listening socket speaks: `HTTPS` (TLS of any kind), `HTTP`, or plain `TCP`.
pub async fn protocol(address: SocketAddr) -> &'static str {
    // Servers that speak TLS answer plain HTTP in plain HTTP, to complain, so TLS has to be tried first.
    const ALERT: u8 = 0x15;
    const HANDSHAKE: u8 = 0x16;
    let said = match client_hello() {
        Some(hello) => answer(address, &hello).await,
        None => Vec::new(),
    };
    if matches!(said.first(), Some(&(ALERT | HANDSHAKE))) {
        return "HTTPS";
    }
    let is_http = |said: &[u8]| said.starts_with(b"HTTP/");
    if is_http(&said) || is_http(&answer(address, b"HEAD / HTTP/1.0\r\n\r\n").await) { "HTTP" } else { "TCP" }
}

/// The first bytes of a server's answer to a question; empty when it does not answer.
async fn answer(address: SocketAddr, question: &[u8]) -> Vec<u8> {
    let ask = async {
        let mut tcp = TcpStream::connect(reachable(address)).await?;
        tcp.write_all(question).await?;
        let mut said = vec![0; 16];
        let n = tcp.read(&mut said).await?;
        said.truncate(n);
        Ok::<_, std::io::Error>(said)
    };
    timeout(ANSWER, ask).await.ok().and_then(Result::ok).unwrap_or_default()
}

/// An address by which the socket is reached: loopback for one that listens on all addresses. On Linux, one that does
/// so for IPv6 takes IPv4, too.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    address
}

/// The first message of a TLS client.
fn client_hello() -> Option<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
    let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), "localhost".try_into().ok()?).ok()?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello).ok()?;
    Some(hello)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };
    use tokio_rustls::{TlsAcceptor, rustls};

    use super::protocol;

    fn acceptor() -> TlsAcceptor {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    /// A server that takes one connection at a time, as the simplest ones do.
    async fn server(answer: &'static [u8], tls: Option<TlsAcceptor>) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                match &tls {
                    Some(tls) => drop(tls.accept(tcp).await),
                    None => {
                        let mut question = Vec::new();
                        while !question.contains(&b'\n') && tcp.read_buf(&mut question).await.is_ok_and(|n| n > 0) {}
                        let _ = tcp.write_all(answer).await;
                    }
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn tells_protocols_apart() {
        assert_eq!(protocol(server(b"", Some(acceptor())).await).await, "HTTPS");
        assert_eq!(protocol(server(b"HTTP/1.1 400 Bad Request\r\n\r\n", None).await).await, "HTTP");
        assert_eq!(protocol(server(b"", None).await).await, "TCP");
        assert_eq!(protocol(server(b"SSH-2.0-x\r\n", None).await).await, "TCP");
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert_eq!(protocol(closed).await, "TCP");
    }
}
