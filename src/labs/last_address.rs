//! The address at which a host was last reached, tried beside a new look-up of its name. After a sleep or a change of
//! the network, names are what fails first and comes back last.
//!
//! A session that is resumed tries the address first: it was right a moment ago, and a look-up is a round trip.
//!
//! Only a host that TLS has proven is remembered, and it has to prove itself again: on another network, a private
//! address is another computer. What is remembered ends with the process.

use std::{
    collections::HashMap,
    future::Future,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::Uri;
use tokio::time::{sleep, timeout};

use super::net::CONNECT_TIMEOUT;

/// A way that takes longer has the other one tried beside it: the pause of RFC 8305 (5) between two addresses.
const SLOW: Duration = Duration::from_millis(250);

/// Addresses by host and port.
#[derive(Clone, Default)]
pub(super) struct LastAddresses {
    known: Arc<Mutex<HashMap<String, SocketAddr>>>,
    /// The address is tried before the name.
    is_first: bool,
}

impl LastAddresses {
    /// The same addresses, tried before the names.
    pub(super) fn first(self) -> LastAddresses {
        LastAddresses { is_first: true, ..self }
    }

    /// Connects to the host of an address by its name, `by_name`, or where it was last: by which of them comes first.
    /// The second part of the result is true for the latter.
    ///
    /// # Errors
    /// The error of `by_name`, if both fail.
    pub(super) async fn connect<T>(
        &self,
        uri: &Uri,
        by_name: impl Future<Output = io::Result<T>>,
        by_address: impl AsyncFn(SocketAddr) -> io::Result<T>,
    ) -> io::Result<(T, bool)> {
        let Some(last) = key(uri).and_then(|key| self.all().get(&key).copied()) else {
            return Ok((by_name.await?, false));
        };
        let by_address = async {
            let connected = timeout(CONNECT_TIMEOUT, by_address(last)).await;
            connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        };
        if self.is_first {
            let raced = race(by_address, by_name).await;
            raced.map(|(connected, is_second)| (connected, !is_second)).map_err(|(_, failure)| failure)
        } else {
            race(by_name, by_address).await.map_err(|(failure, _)| failure)
        }
    }

    /// Remembers where a host was reached that has proven itself.
    pub(super) fn keep(&self, uri: &Uri, address: Option<SocketAddr>) {
        if let Some((key, address)) = key(uri).zip(address) {
            self.all().insert(key, address);
        }
    }

    /// Forgets where a host was.
    pub(super) fn forget(&self, uri: &Uri) {
        if let Some(key) = key(uri) {
            self.all().remove(&key);
        }
    }

    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<String, SocketAddr>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes one attempt and, where that is slow or fails, another one beside it. Returns the first success, and true if it
/// is the second attempt's; or both errors.
async fn race<T>(
    first: impl Future<Output = io::Result<T>>,
    second: impl Future<Output = io::Result<T>>,
) -> Result<(T, bool), (io::Error, io::Error)> {
    tokio::pin!(first, second);
    let soon = tokio::select! {
        biased;
        done = &mut first => Some(done),
        () = sleep(SLOW) => None,
    };
    let done = match soon {
        Some(done) => done,
        None => tokio::select! {
            done = &mut first => done,
            done = &mut second => return match done {
                Ok(connected) => Ok((connected, true)),
                Err(e) => first.await.map(|connected| (connected, false)).map_err(|failure| (failure, e)),
            },
        },
    };
    match done {
        Ok(connected) => Ok((connected, false)),
        Err(failure) => second.await.map(|connected| (connected, true)).map_err(|e| (failure, e)),
    }
}

fn key(uri: &Uri) -> Option<String> {
    Some(format!("{}:{}", uri.host()?, uri.port_u16().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use std::{io, net::SocketAddr, time::Duration};

    use hyper::Uri;
    use tokio::time::{Instant, sleep};

    use super::{LastAddresses, SLOW};

    const LAST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 443);

    /// Connects where the name takes so long (`None`: for ever) and then leads somewhere or not, and the address is
    /// live or not. Returns the word of the way that it took, and the time.
    async fn connect(
        is_first: bool,
        known: bool,
        name: (Option<u64>, bool),
        address: bool,
    ) -> (Result<&'static str, String>, Duration) {
        let uri = Uri::from_static("https://tunnels.example.org");
        let last = LastAddresses::default();
        last.keep(&uri, known.then_some(LAST));
        let last = if is_first { last.first() } else { last };
        let by_name = async {
            match name.0 {
                Some(ms) => sleep(Duration::from_millis(ms)).await,
                None => std::future::pending().await,
            }
            if name.1 { Ok("name") } else { Err(io::Error::other("no such name")) }
        };
        let by_address = async |at| {
            assert_eq!(at, LAST);
            if address { Ok("address") } else { Err(io::ErrorKind::ConnectionRefused.into()) }
        };
        let began = Instant::now();
        let connected = last.connect(&uri, by_name, by_address).await;
        if let Ok((way, by_memory)) = connected {
            assert_eq!(way == "address", by_memory);
        }
        (connected.map(|(way, _)| way).map_err(|e| e.to_string()), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_address_helps_where_the_name_does_not() {
        let ms = Duration::from_millis;
        let refused = || Err("no such name".to_owned());
        for (known, name, address, way, took) in [
            // A name that works is all that is needed, also one that has moved.
            (true, (Some(100), true), true, Ok("name"), ms(100)),
            (true, (Some(900), true), false, Ok("name"), ms(900)),
            (false, (Some(900), true), true, Ok("name"), ms(900)),
            // The name fails, at once or late, or never answers.
            (true, (Some(5), false), true, Ok("address"), ms(5)),
            (true, (Some(900), false), true, Ok("address"), SLOW),
            (true, (None, false), true, Ok("address"), SLOW),
            // Neither helps; the name's error is the one that says why.
            (true, (Some(5), false), false, refused(), ms(5)),
            (true, (Some(900), false), false, refused(), ms(900)),
            (false, (Some(5), false), true, refused(), ms(5)),
        ] {
            assert_eq!(connect(false, known, name, address).await, (way, took), "{known} {name:?} {address}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_is_resumed_tries_the_last_address_first() {
        let ms = Duration::from_millis;
        for (known, name, address, way, took) in [
            (true, (Some(100), true), true, Ok("address"), ms(0)),
            (true, (None, false), true, Ok("address"), ms(0)),
            // It has moved.
            (true, (Some(100), true), false, Ok("name"), ms(100)),
            (false, (Some(100), true), true, Ok("name"), ms(100)),
            (true, (Some(5), false), false, Err("no such name".to_owned()), ms(5)),
        ] {
            assert_eq!(connect(true, known, name, address).await, (way, took), "{known} {name:?} {address}");
        }
    }
}
