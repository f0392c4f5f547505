//! Changes of this computer's network, and its waking up.
//!
//! An event is only a reason to look: the system reports more than matters, a container's interfaces among them. The
//! look is [`local_address`], which costs two system calls and sends nothing.
//!
//! - Linux: a netlink socket that hears of links, addresses and routes, and a timer of the wall clock, which the kernel
//!   cancels when the clock jumps: it is set, or the computer resumes.
//! - macOS and the BSDs: a routing socket. Interfaces come up again after a sleep, so it tells of that, too.
//! - Elsewhere, and where such a socket is refused: a look each [`POLL`] at the addresses that the default routes give.
//!   A look that comes late means that the program did not run.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// Between two looks, where the system reports nothing. Half the goal for a network that came back unreported.
const POLL: Duration = Duration::from_secs(2);
/// A look that is later than this is one after a sleep.
const LATE: Duration = Duration::from_secs(5);

/// The address of this computer from which packets leave towards another, as the routes are now. `None` without a
/// route.
pub fn local_address(towards: SocketAddr) -> Option<IpAddr> {
    let any = if towards.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    // Connecting a datagram socket chooses the route, and sends nothing.
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(towards).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_unspecified())
}

/// The system's reports about its network and its sleep, from the moment at which this is made.
pub struct NetworkEvents {
    source: Source,
}

enum Source {
    #[cfg(unix)]
    Reported(Reports),
    Polled(Mutex<Poll>),
}

impl NetworkEvents {
    /// Begins to listen. Nothing that happens between two calls of [`NetworkEvents::next`] is missed.
    pub fn watch() -> NetworkEvents {
        #[cfg(unix)]
        match Reports::open() {
            Ok(reports) => return NetworkEvents { source: Source::Reported(reports) },
            Err(e) => log::info!("the system does not report changes of its network: {e}"),
        }
        NetworkEvents { source: Source::Polled(Mutex::new(Poll::begin())) }
    }

    /// Waits until the network may have changed or the computer may have woken up. It may be dropped at any time and
    /// called again; one call at a time gets each event.
    pub async fn next(&self) {
        match &self.source {
            #[cfg(unix)]
            Source::Reported(reports) => reports.next().await,
            Source::Polled(poll) => loop {
                let at = lock(poll).next;
                sleep_until(at).await;
                if lock(poll).look(Instant::now(), default_addresses()) {
                    return;
                }
            },
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The addresses that the default routes give, of both kinds.
type Addresses = [Option<IpAddr>; 2];

/// The source addresses towards addresses that belong to documents (RFC 5737, RFC 3849), which no network has of its
/// own.
fn default_addresses() -> Addresses {
    let far = [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];
    far.map(|address| local_address(SocketAddr::new(address, 9)))
}

/// The last look at a system that reports nothing.
struct Poll {
    seen: Addresses,
    next: Instant,
}

impl Poll {
    fn begin() -> Poll {
        Poll { seen: default_addresses(), next: Instant::now() + POLL }
    }

    /// Takes a look. True if something may have changed.
    fn look(&mut self, now: Instant, addresses: Addresses) -> bool {
        let is_late = now.saturating_duration_since(self.next) > LATE;
        let changed = std::mem::replace(&mut self.seen, addresses) != addresses;
        self.next = now + POLL;
        is_late || changed
    }
}

#[cfg(unix)]
use reports::Reports;

#[cfg(unix)]
mod reports {
    use std::{io, os::fd::OwnedFd, time::Duration};

    use tokio::net::unix::pipe::Receiver;

    use super::{Instant, Mutex, lock, sleep_until};

    /// Systems report one change as several. Dialling in the middle of them would meet half a network.
    pub(super) const DEBOUNCE: Duration = Duration::from_millis(250);

    /// One read's room; a message that is longer is cut, and only its coming matters.
    const ROOM: usize = 4096;
    /// Most messages that are read at once. A system that reports without an end is heard again after [`DEBOUNCE`].
    const MOST: usize = 1000;

    /// The descriptors that become readable with an event. They are no pipes, but are watched and read alike.
    pub(super) struct Reports {
        network: Receiver,
        clock: Option<Receiver>,
        /// The end of the pause after the first report that [`Reports::next`] has not returned for. It outlives a call
        /// that is dropped, so that a caller who is busy with other things gets its event, too.
        due: Mutex<Option<Instant>>,
    }

    impl Reports {
        pub(super) fn open() -> io::Result<Reports> {
            let network = Receiver::from_owned_fd_unchecked(network()?)?;
            let clock = clock()
                .and_then(Receiver::from_owned_fd_unchecked)
                .inspect_err(|e| log::info!("the clock's jumps are not reported: {e}"));
            Ok(Reports { network, clock: clock.ok(), due: Mutex::new(None) })
        }

        pub(super) async fn next(&self) {
            loop {
                let due = *lock(&self.due);
                if let Some(due) = due {
                    sleep_until(due).await;
                    [Some(&self.network), self.clock.as_ref()].into_iter().flatten().for_each(drain);
                    *lock(&self.due) = None;
                    return;
                }
                tokio::select! {
                    () = readable(Some(&self.network)) => {}
                    () = readable(self.clock.as_ref()) => {}
                }
                *lock(&self.due) = Some(Instant::now() + DEBOUNCE);
            }
        }
    }

    /// Waits until a descriptor is readable; without one, for ever.
    async fn readable(descriptor: Option<&Receiver>) {
        match descriptor {
            Some(descriptor) if descriptor.readable().await.is_ok() => {}
            // The runtime ends.
            Some(_) | None => std::future::pending().await,
        }
    }

    /// Reads what has come. An error is news like any other: messages that were lost, a clock that was set.
    fn drain(descriptor: &Receiver) {
        let mut room = [0; ROOM];
        for _ in 0..MOST {
            if descriptor.try_read(&mut room).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock) {
                return;
            }
        }
    }

    /// A socket that hears of links, addresses and routes.
    #[cfg(target_os = "linux")]
    fn network() -> io::Result<OwnedFd> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, socket_with};
        let groups = libc::RTMGRP_LINK
            | libc::RTMGRP_IPV4_IFADDR
            | libc::RTMGRP_IPV4_ROUTE
            | libc::RTMGRP_IPV6_IFADDR
            | libc::RTMGRP_IPV6_ROUTE;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // No protocol is NETLINK_ROUTE, whose number is 0.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, groups.unsigned_abs()))?;
        Ok(socket)
    }

    /// A timer of the wall clock that never ends and that a jump of this clock cancels.
    #[cfg(target_os = "linux")]
    fn clock() -> io::Result<OwnedFd> {
        use rustix::time::{
            Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
        };
        let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        // A year that every kernel's clock can hold: 2200.
        let never = Timespec { tv_sec: 7_258_118_400, tv_nsec: 0 };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: never };
        timerfd_settime(&timer, flags, &once)?;
        Ok(timer)
    }

    /// A socket that hears of interfaces, addresses and routes (route(4)).
    #[cfg(not(target_os = "linux"))]
    fn network() -> io::Result<OwnedFd> {
        let socket =
            socket2::Socket::new(socket2::Domain::from(libc::PF_ROUTE), socket2::Type::from(libc::SOCK_RAW), None)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    }

    #[cfg(not(target_os = "linux"))]
    fn clock() -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use tokio::time::Instant;

    use super::{Addresses, LATE, POLL, Poll, local_address};

    #[test]
    fn the_local_address_is_the_route_s() {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert_eq!(local_address((loopback, 9).into()), Some(loopback));
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_notices_addresses_that_change_and_time_that_is_missing() {
        let home: Addresses = [Some(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7))), None];
        let mut now = Instant::now();
        let mut poll = Poll { seen: home, next: now + POLL };
        let mut look = |later, addresses| {
            now += later;
            poll.look(now, addresses)
        };
        assert!(!look(POLL, home), "nothing has changed");
        assert!(look(POLL, [None, None]), "the route is gone");
        assert!(!look(POLL, [None, None]), "said once");
        assert!(look(POLL, home), "it is back");
        assert!(look(POLL + LATE + POLL, home), "the computer slept");
        assert!(!look(POLL, home));
    }

    /// In a network of its own, with the system's own tool: `unshare` runs the next test there.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_s_reports_are_heard() {
        let this = std::env::current_exe().unwrap();
        let test = "os::network::tests::events_in_a_network_of_its_own";
        let ran = std::process::Command::new("unshare")
            .args(["--map-root-user", "--net"])
            .arg(this)
            .args(["--exact", test, "--ignored", "--nocapture"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    #[ignore = "runs inside the test above, in a network that it may change"]
    async fn events_in_a_network_of_its_own() {
        use std::{process::Command, time::Duration};

        use tokio::time::timeout;

        use super::NetworkEvents;

        let limit = Duration::from_secs(20);
        let ip =
            |words: &str| assert!(Command::new("ip").args(words.split(' ')).status().unwrap().success(), "{words}");
        let far = "192.0.2.1:9".parse().unwrap();
        let events = NetworkEvents::watch();
        assert!(matches!(events.source, super::Source::Reported(_)));
        assert!(timeout(2 * super::reports::DEBOUNCE, events.next()).await.is_err(), "nothing has happened");
        assert_eq!(local_address(far), None, "a network with a route is not this test's own, and is left alone");

        ip("link set lo up");
        ip("addr add 198.51.100.7/24 dev lo");
        ip("route add default dev lo src 198.51.100.7");
        timeout(limit, events.next()).await.expect("a change is reported");
        assert_eq!(local_address(far), Some("198.51.100.7".parse().unwrap()));
        assert!(timeout(2 * super::reports::DEBOUNCE, events.next()).await.is_err(), "all its messages are one event");

        ip("route del default");
        // A caller who is called away again and again loses nothing.
        let busy = async { while timeout(Duration::from_millis(1), events.next()).await.is_err() {} };
        timeout(limit, busy).await.expect("an event survives the calls that were dropped");
        assert_eq!(local_address(far), None);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    #[ignore = "sets the clock, to the time that it shows: as root, by hand"]
    async fn a_clock_that_is_set_is_an_event() {
        use std::time::Duration;

        use rustix::time::{ClockId, clock_gettime, clock_settime};
        use tokio::time::timeout;

        let events = super::NetworkEvents::watch();
        assert!(timeout(Duration::from_secs(1), events.next()).await.is_err(), "nothing has happened");
        clock_settime(ClockId::Realtime, clock_gettime(ClockId::Realtime)).unwrap();
        timeout(Duration::from_secs(5), events.next()).await.expect("the clock was set");
        assert!(timeout(Duration::from_secs(1), events.next()).await.is_err(), "once");
    }
}
