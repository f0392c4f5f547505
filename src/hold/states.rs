//! Trials of the carrier's conditions, against a relay of the tests' own, in a time that passes at once.

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};

use super::{
    Held, Options, Reach, Relay, Ticket, Verdict,
    frames::{Decoder, Frame},
    greeting::theirs,
    held::WINDOW,
};
use crate::error::{Error, Kind, Result};

const RELAY: Relay = Relay { new_port: 1001, resume_port: 1002, key: [9; 32] };
const SECOND: Duration = Duration::from_secs(1);

/// A network with a relay behind it, which has one session: with a server that sends back what it gets.
#[derive(Clone)]
struct World(Arc<Parts>);

struct Parts {
    session: Mutex<Session>,
    /// The number of connections so far; those up to the number in `dead` carry nothing any more.
    connections: AtomicUsize,
    dead: watch::Sender<usize>,
    /// The time that a byte takes to the relay.
    delay: watch::Sender<Duration>,
    dials: Mutex<Vec<Instant>>,
    /// The status of an answer to a resume.
    status: AtomicU8,
    verdict: Mutex<Option<Error>>,
    can_dial: watch::Sender<bool>,
    events: Notify,
    address: AtomicU8,
    over: AtomicUsize,
}

#[derive(Default)]
struct Session {
    secret: [u8; 32],
    resumes: u32,
    received: u64,
    acked: u64,
    /// Everything that the server has ever sent.
    sent: Vec<u8>,
    pings: u32,
    byes: u32,
}

impl Session {
    /// A window of bytes more than the client has read.
    fn consumed(&self) -> u64 {
        self.received.min(self.acked + u64::from(WINDOW))
    }
}

impl World {
    fn new() -> World {
        World(Arc::new(Parts {
            session: Mutex::default(),
            connections: AtomicUsize::new(0),
            dead: watch::channel(0).0,
            delay: watch::channel(Duration::ZERO).0,
            dials: Mutex::default(),
            status: AtomicU8::new(0),
            verdict: Mutex::default(),
            can_dial: watch::channel(true).0,
            events: Notify::new(),
            address: AtomicU8::new(1),
            over: AtomicUsize::new(0),
        }))
    }

    async fn begin(&self) -> Held {
        self.begin_for(Duration::from_secs(3600)).await
    }

    async fn begin_for(&self, resume_for: Duration) -> Held {
        let first = self.connect(RELAY.new_port);
        let mut held = Held::begin(first, &RELAY, self.clone(), Options { resume_for }).await.unwrap();
        held.write_all(b"SSH-2.0-echo\r\n").await.unwrap();
        held.read_exact(&mut [0; 14]).await.unwrap();
        echo(&mut held, b"begun").await;
        held
    }

    fn connect(&self, port: u16) -> DuplexStream {
        let (ours, theirs) = duplex(256 * 1024);
        let number = self.0.connections.fetch_add(1, Ordering::SeqCst) + 1;
        let world = self.clone();
        tokio::spawn(async move {
            let mut dead = world.0.dead.subscribe();
            let serve = world.serve(theirs, port);
            tokio::pin!(serve);
            tokio::select! {
                biased;
                _ = dead.wait_for(|dead| *dead >= number) => {}
                () = &mut serve => return,
            }
            // Nothing passes; the connection is there for ever.
            std::future::pending::<()>().await;
        });
        ours
    }

    async fn serve(&self, mut wire: DuplexStream, port: u16) {
        let mut at = 0;
        if port == RELAY.new_port {
            let hello = theirs::hello([1; 16], [2; 16], WINDOW);
            wire.write_all(&hello).await.unwrap();
            let mut words = [0; 42];
            wire.read_exact(&mut words).await.unwrap();
            let (welcome, secret) = theirs::begun(&RELAY.key, port, &hello, &words);
            self.0.session.lock().unwrap().secret = secret;
            let mut out = BytesMut::new();
            Frame::Welcome(welcome).put(&mut out);
            wire.write_all(&out).await.unwrap();
        } else {
            let mut words = [0; 66];
            if wire.read_exact(&mut words).await.is_err() {
                return;
            }
            let answer = {
                let mut session = self.0.session.lock().unwrap();
                let (attempt, received, answer) = theirs::resume(&session.secret, port, &words);
                session.resumes += 1;
                assert!(attempt >= session.resumes);
                at = usize::try_from(received).unwrap();
                match self.0.status.load(Ordering::SeqCst) {
                    0 => answer(&session.secret, 0, session.received),
                    status => answer(&RELAY.key, status, 0),
                }
            };
            wire.write_all(&answer).await.unwrap();
        }
        let (mut decoder, mut input, mut out) = (Decoder::default(), BytesMut::new(), BytesMut::new());
        loop {
            while let Some(frame) = decoder.next(&mut input).unwrap() {
                let mut session = self.0.session.lock().unwrap();
                match frame {
                    Frame::Data(data) => {
                        session.received += data.len() as u64;
                        session.sent.extend_from_slice(&data);
                        Frame::Ack(session.consumed()).put(&mut out);
                    }
                    Frame::Ping(n) => {
                        session.pings += 1;
                        Frame::Pong(n, session.consumed()).put(&mut out);
                    }
                    Frame::Ack(acked) => {
                        session.acked = acked;
                        Frame::Ack(session.consumed()).put(&mut out);
                    }
                    Frame::Bye(_) => {
                        session.byes += 1;
                        return;
                    }
                    other => panic!("{other:?}"),
                }
            }
            {
                let session = self.0.session.lock().unwrap();
                let room = usize::try_from(session.acked).unwrap() + WINDOW as usize;
                let until = session.sent.len().min(room).min(at + 60_000);
                Frame::Data(session.sent[at..until].to_vec().into()).put(&mut out);
                at = until;
            }
            let delay = *self.0.delay.borrow();
            if !delay.is_zero() {
                sleep(delay).await;
            }
            if wire.write_all(&out.split()).await.is_err() || !matches!(wire.read_buf(&mut input).await, Ok(1..)) {
                return;
            }
        }
    }

    /// All connections that there are fall silent.
    fn fall_silent(&self) {
        self.0.dead.send_replace(self.0.connections.load(Ordering::SeqCst));
    }

    fn resumes(&self) -> u32 {
        self.0.session.lock().unwrap().resumes
    }
}

impl Reach for World {
    type Connection = DuplexStream;

    async fn dial(&self, port: u16) -> Result<DuplexStream> {
        self.0.dials.lock().unwrap().push(Instant::now());
        if !*self.0.can_dial.borrow() {
            return Err(Error::new(Kind::Network, "no network"));
        }
        sleep(Duration::from_millis(150)).await;
        Ok(self.connect(port))
    }

    async fn verdict(&self, _failed: Option<&Error>) -> Verdict {
        self.0.verdict.lock().unwrap().clone().map_or(Verdict::Again, Verdict::Over)
    }

    fn accepted(_connection: &DuplexStream) -> u64 {
        0
    }

    fn local_address(&self) -> Option<IpAddr> {
        Some(Ipv4Addr::new(10, 0, 0, self.0.address.load(Ordering::SeqCst)).into())
    }

    fn event(&self) -> impl Future<Output = ()> + Send {
        self.0.events.notified()
    }

    fn begun(&self, ticket: &Ticket) {
        assert!(ticket.key == self.0.session.lock().unwrap().secret);
    }

    fn over(&self) {
        self.0.over.fetch_add(1, Ordering::SeqCst);
    }
}

/// Sends `words` and awaits their echo; returns the time that it took.
async fn echo(held: &mut Held, words: &[u8]) -> Duration {
    let began = Instant::now();
    held.write_all(words).await.unwrap();
    let mut back = vec![0; words.len()];
    held.read_exact(&mut back).await.unwrap();
    assert_eq!(back, words);
    began.elapsed()
}

fn inner(error: &std::io::Error) -> &Error {
    error.get_ref().and_then(|inner| inner.downcast_ref()).expect("an error of ours")
}

#[tokio::test(start_paused = true)]
async fn a_key_without_an_echo_takes_five_seconds_at_most() {
    let world = World::new();
    let mut held = world.begin().await;
    sleep(SECOND).await;
    world.fall_silent();
    let took = echo(&mut held, b"key").await;
    assert!((4 * SECOND..=5 * SECOND + SECOND / 20).contains(&took), "{took:?}");
    assert_eq!((world.resumes(), held.vitals().resumed()), (1, 1));
    assert_eq!(held.vitals().away_since(), None);
}

#[tokio::test(start_paused = true)]
async fn the_silence_of_a_quiet_session_is_noticed_within_ten_seconds() {
    let world = World::new();
    let mut held = world.begin().await;
    world.fall_silent();
    world.0.session.lock().unwrap().sent.extend_from_slice(b"news");
    let began = Instant::now();
    held.read_exact(&mut [0; 4]).await.unwrap();
    assert!(began.elapsed() <= 10 * SECOND + SECOND / 20, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_address_switches_at_once_if_the_old_one_is_silent() {
    let world = World::new();
    let mut held = world.begin().await;
    world.fall_silent();
    world.0.address.store(2, Ordering::SeqCst);
    world.0.events.notify_one();
    let took = echo(&mut held, b"key").await;
    assert!(took < SECOND / 4, "{took:?}");

    // An event without a change, and one with a change on a connection that lives, switch nothing.
    world.0.events.notify_one();
    echo(&mut held, b"key").await;
    world.0.address.store(3, Ordering::SeqCst);
    world.0.events.notify_one();
    sleep(20 * SECOND).await;
    echo(&mut held, b"key").await;
    assert_eq!(world.resumes(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_is_an_answer() {
    let world = World::new();
    let mut held = world.begin().await;
    world.0.delay.send_replace(4 * SECOND);
    for _ in 0..20 {
        echo(&mut held, b"key").await;
        sleep(7 * SECOND).await;
    }
    assert_eq!((world.resumes(), held.vitals().resumed()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_quiet_session_is_asked_now_and_then_and_nothing_else() {
    let world = World::new();
    let mut held = world.begin().await;
    let nothing = timeout(600 * SECOND, held.read_u8()).await;
    assert!(nothing.is_err());
    let pings = world.0.session.lock().unwrap().pings;
    assert!((100..=120).contains(&pings), "{pings}");
    assert_eq!(world.0.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_tried_with_pauses_and_ends_with_the_network() {
    let world = World::new();
    let mut held = world.begin().await;
    world.0.can_dial.send_replace(false);
    world.fall_silent();
    held.write_all(b"words").await.unwrap();
    sleep(1800 * SECOND).await;
    let dials = world.0.dials.lock().unwrap().clone();
    assert!((280..480).contains(&dials.len()), "{}", dials.len());
    assert!(dials.windows(2).all(|two| two[1] - two[0] <= 6_300 * SECOND / 1000));
    assert!(held.vitals().away_since().is_some());
    world.0.can_dial.send_replace(true);
    world.0.events.notify_one();
    let began = Instant::now();
    held.read_exact(&mut [0; 5]).await.unwrap();
    assert!(began.elapsed() < SECOND / 4, "{:?}", began.elapsed());
    assert_eq!((held.vitals().resumed(), held.vitals().away_since()), (1, None));
}

#[tokio::test(start_paused = true)]
async fn an_outage_without_an_event_costs_five_seconds_more() {
    let world = World::new();
    let mut held = world.begin().await;
    world.0.can_dial.send_replace(false);
    world.fall_silent();
    sleep(1000 * SECOND).await;
    world.0.can_dial.send_replace(true);
    assert!(echo(&mut held, b"key").await < 7 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn patience_ends() {
    let world = World::new();
    let mut held = world.begin_for(120 * SECOND).await;
    world.0.can_dial.send_replace(false);
    world.fall_silent();
    let began = Instant::now();
    let error = held.read_u8().await.unwrap_err();
    assert_eq!(inner(&error).message(), "the machine could not be reached for 2 min");
    assert_eq!(inner(&error).hint(), Some("connect again"));
    assert!((120..135).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    let error = held.write_all(b"?").await.unwrap_err();
    assert_eq!(inner(&error).kind(), Kind::Network);
    assert_eq!(world.0.over.load(Ordering::SeqCst), 0, "the ticket stays");
}

#[tokio::test(start_paused = true)]
async fn the_platforms_word_ends_it() {
    let world = World::new();
    let mut held = world.begin().await;
    world.0.can_dial.send_replace(false);
    *world.0.verdict.lock().unwrap() = Some(Error::new(Kind::Ended, "playground x was stopped"));
    world.fall_silent();
    let began = Instant::now();
    let error = held.read_u8().await.unwrap_err();
    assert_eq!(inner(&error).message(), "playground x was stopped");
    assert!(began.elapsed() <= 16 * SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_the_relay_does_not_know_is_over() {
    for (status, words, over) in
        [(1, "the relay there no longer knows it", 1), (2, "another process has taken the session over", 0)]
    {
        let world = World::new();
        let mut held = world.begin().await;
        world.0.status.store(status, Ordering::SeqCst);
        world.fall_silent();
        let error = held.read_u8().await.unwrap_err();
        assert_eq!(inner(&error).message(), words);
        assert_eq!(world.0.over.load(Ordering::SeqCst), over);
    }
}

#[tokio::test(start_paused = true)]
async fn a_program_that_was_halted_asks_at_once() {
    let world = World::new();
    let mut held = world.begin().await;
    // A short time: the connection has lived through it.
    tokio::time::advance(40 * SECOND).await;
    echo(&mut held, b"key").await;
    assert_eq!(world.resumes(), 0);
    // A long one, and it has not.
    world.fall_silent();
    tokio::time::advance(600 * SECOND).await;
    let took = echo(&mut held, b"key").await;
    assert!(took < SECOND, "{took:?}");
    assert_eq!(world.resumes(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_window_waits_and_loses_nothing() {
    let world = World::new();
    let mut held = world.begin().await;
    // The echo of it all cannot be read meanwhile, so that both windows fill.
    let words: Vec<u8> = (0..3 * WINDOW).map(|i| (i % 251) as u8).collect();
    let mut at = 0;
    while let Ok(written) = timeout(60 * SECOND, held.write(&words[at..])).await {
        at += written.unwrap();
        assert!(at < words.len());
    }
    assert!(at >= 2 * WINDOW as usize - 100, "{at}");
    assert_eq!((world.resumes(), world.0.connections.load(Ordering::SeqCst)), (0, 1));
    world.fall_silent();
    let (mut rx, mut tx) = tokio::io::split(held);
    let mut back = vec![0; words.len()];
    let (sent, read) = tokio::join!(tx.write_all(&words[at..]), rx.read_exact(&mut back));
    sent.unwrap();
    read.unwrap();
    assert!(back == words);
    assert_eq!(world.resumes(), 1);
}

#[tokio::test(start_paused = true)]
async fn shutting_down_says_goodbye_after_the_last_bytes() {
    let world = World::new();
    let mut held = world.begin().await;
    held.write_all(b"last words").await.unwrap();
    held.shutdown().await.unwrap();
    let mut last = Vec::new();
    held.read_to_end(&mut last).await.unwrap();
    {
        let session = world.0.session.lock().unwrap();
        assert!(session.sent.ends_with(b"last words"));
        assert_eq!(session.byes, 1);
    }
    assert_eq!(world.0.over.load(Ordering::SeqCst), 1);
    assert!(held.write_all(b"more").await.is_err());
}

/// A session at a relay that says `words` once it is proven, and reads all that it gets.
async fn hostile(words: Vec<u8>, is_proven: bool) -> Held {
    let world = World::new();
    let (ours, mut theirs) = duplex(1024 * 1024);
    let relay = world.clone();
    tokio::spawn(async move {
        let hello = theirs::hello([1; 16], [2; 16], WINDOW);
        theirs.write_all(&hello).await.unwrap();
        let mut answer = [0; 42];
        theirs.read_exact(&mut answer).await.unwrap();
        let (welcome, secret) = theirs::begun(&RELAY.key, RELAY.new_port, &hello, &answer);
        relay.0.session.lock().unwrap().secret = secret;
        let mut out = BytesMut::new();
        Frame::Data(b"SSH-2.0-x\r\nmore".to_vec().into()).put(&mut out);
        Frame::Welcome(if is_proven { welcome } else { [0; 16] }).put(&mut out);
        out.extend_from_slice(&words);
        let (mut rx, mut tx) = tokio::io::split(theirs);
        let mut sink = tokio::io::sink();
        let _ = tokio::join!(tx.write_all(&out), tokio::io::copy(&mut rx, &mut sink));
    });
    // It cannot be resumed either.
    world.0.can_dial.send_replace(false);
    Held::begin(ours, &RELAY, world, Options { resume_for: 60 * SECOND }).await.unwrap()
}

fn frames(frames: &[Frame]) -> Vec<u8> {
    let mut out = BytesMut::new();
    frames.iter().for_each(|frame| frame.put(&mut out));
    out.to_vec()
}

#[tokio::test(start_paused = true)]
async fn a_hostile_relay_ends_the_session_and_nothing_else() {
    let data = Frame::Data(vec![0; 60_000].into());
    let end = |reason, total, words: &str| Frame::End { reason, total, words: words.to_owned() };
    let bad = "violates its protocol";
    let cases = [
        (frames(&vec![data; 70]), bad),
        (frames(&[Frame::Ack(1)]), bad),
        (frames(&[Frame::Ack(1 << 63)]), bad),
        (frames(&[Frame::Pong(0, u64::MAX)]), bad),
        (frames(&[Frame::Bye(0)]), bad),
        (frames(&[end(0, 14, "")]), bad),
        (frames(&[end(0, u64::MAX, "")]), bad),
        (frames(&[end(1, 0, "\x1b[2Jno more\n\n")]), "[2Jno more"),
        (vec![0, 0xff, 0xff, 0xff], bad),
        (vec![1, 0, 0, 0], bad),
        (vec![2, 0xff, 0, 0], bad),
    ];
    for (words, sentence) in cases {
        let case = words[..words.len().min(40)].to_vec();
        let mut held = hostile(words, true).await;
        // A reader that is slow.
        sleep(SECOND).await;
        let mut all = Vec::new();
        let error = held.read_to_end(&mut all).await.unwrap_err();
        assert!(all.starts_with(b"SSH-2.0-x\r\nmore") && all.len() <= WINDOW as usize, "{case:?}");
        assert!(inner(&error).message().contains(sentence), "{case:?}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_impostor_shows_nothing_behind_the_first_lines() {
    let mut held = hostile(frames(&[Frame::Data(b"a host key".to_vec().into())]), false).await;
    held.write_all(b"SSH-2.0-client\r\n").await.unwrap();
    let mut all = Vec::new();
    let error = held.read_to_end(&mut all).await.unwrap_err();
    assert_eq!(all, b"SSH-2.0-x\r\n");
    assert!(inner(&error).message().contains("another program has taken the relay's port"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_flood_that_means_nothing_is_passed_over() {
    let mut words = frames(&vec![Frame::Ping(7); 50_000]);
    words.extend([9, 0, 0xff, 0xf0]);
    words.extend([0; 0xfff0]);
    words.extend(frames(&[Frame::Data(b"!".to_vec().into())]));
    let mut held = hostile(words, true).await;
    let mut all = [0; 16];
    held.read_exact(&mut all).await.unwrap();
    assert_eq!(&all, b"SSH-2.0-x\r\nmore!");
}
