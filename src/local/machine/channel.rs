//! A channel's two directions, and how a slow reader slows its sender down.
//!
//! russh 0.65 gives a client new window as soon as data arrives, not when it is used (its pull request 730 would change
//! that), and waits for a full channel with the whole connection: `ssh host cat <big` would lock up, and one stalled
//! forwarding would stall them all. So data goes into queues without a bound of their own, and the window is steered
//! through the one thing that russh asks about, the window to aim for: while a queue is long that is [`PROBE`], so that a
//! client that has used up its window may send just that much each round trip, as TCP probes a closed window, until the
//! queue is short again. A queue holds at most [`LONG_QUEUE`] and two windows.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use russh::{
    Channel, ChannelId, ChannelWriteHalf,
    server::{Handle, Msg},
};
use rustix::process::Pid;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{Notify, mpsc, oneshot, watch},
};

use super::locked;

/// What a client may send ahead on a channel, in bytes: 100 ms at 20 MiB/s, and what OpenSSH takes.
pub const WINDOW: u32 = 2 * 1024 * 1024;

/// The window while a queue is long. russh gives out new window when less than half of it is left, so 1 would be never.
const PROBE: u32 = 2;

/// Bytes in a queue from which on its client is held back.
const LONG_QUEUE: usize = 1024 * 1024;

/// How long a probe is left unanswered while nothing changes, which keeps probing below 1 % of a processor. The whole
/// connection waits with it, so it is short.
const PROBE_PAUSE: Duration = Duration::from_millis(5);

/// Channels of one connection. A browser behind `-D` needs some dozens.
const MAX_CHANNELS: usize = 128;

/// One read from a pipe or a socket: what a Linux pipe holds.
const READ_SIZE: usize = 64 * 1024;

/// How long a program may take to read what a client has left behind that has closed its channel, a read at a time.
const LAST_READ: Duration = Duration::from_secs(10);

/// What the client sends on a channel.
pub enum Input {
    /// Bytes.
    Data(Bytes),
    /// There will be no more of them.
    Eof,
}

/// How much is queued for one channel.
#[derive(Default)]
struct Gauge {
    bytes: AtomicUsize,
    drained: Notify,
}

impl Gauge {
    fn is_long(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > LONG_QUEUE
    }

    fn take(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if before > LONG_QUEUE && before - bytes <= LONG_QUEUE {
            self.drained.notify_one();
        }
    }
}

/// What requests on a running session act on.
pub struct Control {
    /// The process group of the shell or command.
    pub group: Pid,
    /// Its terminal.
    pub terminal: Option<OwnedFd>,
}

struct Slot {
    /// `None` when the channel was closed before its other end was taken.
    sender: Option<Sender>,
    receiver: Option<(mpsc::UnboundedReceiver<Input>, watch::Receiver<()>)>,
    gauge: Arc<Gauge>,
    control: Option<Control>,
}

/// Dropped when the channel is closed, which a receiver that is busy with what came before hears at once.
struct Sender {
    input: mpsc::UnboundedSender<Input>,
    _open: watch::Sender<()>,
}

impl Slot {
    fn new() -> Slot {
        let (input, queue) = mpsc::unbounded_channel();
        let (_open, closed) = watch::channel(());
        let (sender, receiver) = (Some(Sender { input, _open }), Some((queue, closed)));
        Slot { sender, receiver, gauge: Arc::default(), control: None }
    }
}

/// The channels of one connection.
#[derive(Default)]
pub struct Channels {
    slots: Mutex<HashMap<ChannelId, Slot>>,
}

impl Channels {
    /// Whether another channel may be opened.
    pub fn has_room(&self) -> bool {
        locked(&self.slots).len() < MAX_CHANNELS
    }

    /// A channel that we asked for is open: what comes now is for it, whether or not its other end was taken yet.
    pub fn opened(&self, id: ChannelId) {
        locked(&self.slots).entry(id).or_insert_with(Slot::new);
    }

    /// Takes the inner end of a channel. russh's own queue, which would block, is dropped.
    pub fn take(self: &Arc<Self>, channel: Channel<Msg>, handle: Handle) -> Wire {
        let id = channel.id();
        let mut slots = locked(&self.slots);
        let slot = slots.entry(id).or_insert_with(Slot::new);
        // A channel is taken once; a second taker would find it closed.
        let (receiver, closed) =
            slot.receiver.take().unwrap_or_else(|| (mpsc::unbounded_channel().1, watch::channel(()).1));
        let gauge = Arc::clone(&slot.gauge);
        let (_, out) = channel.split();
        Wire {
            id,
            input: InputQueue { receiver, closed, gauge },
            out: Out { id, half: out, handle },
            channels: Arc::clone(self),
        }
    }

    /// Data has come. Returns late for a probe whose answer has not changed.
    pub async fn data(&self, id: ChannelId, data: &[u8]) {
        let gauge = {
            let slots = locked(&self.slots);
            let Some(slot) = slots.get(&id) else { return };
            let Some(sender) = &slot.sender else { return };
            slot.gauge.bytes.fetch_add(data.len(), Ordering::Relaxed);
            if sender.input.send(Input::Data(Bytes::copy_from_slice(data))).is_err() {
                return;
            }
            Arc::clone(&slot.gauge)
        };
        if data.len() <= PROBE as usize && gauge.is_long() {
            let _ = tokio::time::timeout(PROBE_PAUSE, gauge.drained.notified()).await;
        }
    }

    /// The client has no more data.
    pub fn eof(&self, id: ChannelId) {
        if let Some(sender) = locked(&self.slots).get(&id).and_then(|slot| slot.sender.as_ref()) {
            let _ = sender.input.send(Input::Eof);
        }
    }

    /// The client has closed the channel.
    pub fn close(&self, id: ChannelId) {
        let mut slots = locked(&self.slots);
        match slots.get_mut(&id) {
            Some(slot) if slot.receiver.is_some() => slot.sender = None,
            _ => drop(slots.remove(&id)),
        }
    }

    /// The connection is over.
    pub fn close_all(&self) {
        locked(&self.slots).clear();
    }

    /// The window to aim for. It is one for the connection, so a long queue holds back its other channels, too, but only
    /// those that send megabytes: each still has what is left of its window.
    pub fn window(&self) -> u32 {
        if locked(&self.slots).values().any(|slot| slot.gauge.is_long()) { PROBE } else { WINDOW }
    }

    /// A session has started: what signals and window changes act on.
    pub fn control(&self, id: ChannelId, control: Control) {
        if let Some(slot) = locked(&self.slots).get_mut(&id) {
            slot.control = Some(control);
        }
    }

    /// Does something to a running session.
    pub fn with_control(&self, id: ChannelId, act: impl FnOnce(&Control)) {
        if let Some(control) = locked(&self.slots).get(&id).and_then(|slot| slot.control.as_ref()) {
            act(control);
        }
    }
}

/// The inner end of a channel.
pub struct Wire {
    id: ChannelId,
    input: InputQueue,
    out: Out,
    channels: Arc<Channels>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        locked(&self.channels.slots).remove(&self.id);
    }
}

impl Wire {
    /// Its number.
    pub fn id(&self) -> ChannelId {
        self.id
    }

    /// Both directions.
    pub fn split(&mut self) -> (&mut InputQueue, &Out) {
        (&mut self.input, &self.out)
    }

    /// Says that nothing more comes, and closes the channel.
    pub async fn close(self) {
        // An error means that the connection is gone, which closes it as well.
        let _ = self.out.handle.eof(self.id).await;
        let _ = self.out.handle.close(self.id).await;
    }

    /// Copies both ways between the channel and a socket, each way to its own end.
    pub async fn pump(mut self, stream: impl AsyncRead + AsyncWrite) {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let (input, out) = self.split();
        let (sent_all, all_sent) = oneshot::channel();
        let up = async {
            input.write_to(&mut writer).await;
            // Whoever has gone does not mind.
            let _ = writer.shutdown().await;
            let _ = sent_all.send(());
            input.until_closed().await;
        };
        let down = async {
            out.copy_from(&mut reader, None).await;
            let _ = out.handle.eof(out.id).await;
        };
        tokio::select! {
            () = up => {}
            _ = async { tokio::join!(down, all_sent) } => {}
        }
        let _ = self.out.handle.close(self.id).await;
    }
}

/// What the client sends on one channel.
pub struct InputQueue {
    receiver: mpsc::UnboundedReceiver<Input>,
    closed: watch::Receiver<()>,
    gauge: Arc<Gauge>,
}

impl InputQueue {
    /// The next of it; `None` when the channel is closed.
    pub async fn next(&mut self) -> Option<Input> {
        let input = self.receiver.recv().await?;
        if let Input::Data(data) = &input {
            self.gauge.take(data.len());
        }
        Some(input)
    }

    /// Writes what comes to `writer`, until its end or until `writer` takes no more. A program that does not read holds
    /// nobody who has closed the channel.
    pub async fn write_to(&mut self, writer: &mut (impl AsyncWrite + Unpin)) {
        while let Some(Input::Data(data)) = self.next().await {
            let abandoned = async {
                // Nothing is ever sent: an error is the end of the channel.
                while self.closed.changed().await.is_ok() {}
                tokio::time::sleep(LAST_READ).await;
            };
            tokio::select! {
                written = writer.write_all(&data) => if written.is_err() { return },
                () = abandoned => return,
            }
        }
    }

    /// Throws away what comes until the channel is closed.
    pub async fn until_closed(&mut self) {
        while self.next().await.is_some() {}
    }
}

/// What we send on one channel.
pub struct Out {
    id: ChannelId,
    half: ChannelWriteHalf<Msg>,
    handle: Handle,
}

impl Out {
    /// For messages other than data. They keep their order with it.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Sends as much as the client's window lets through; `false` when the connection is gone.
    pub async fn send(&self, data: Bytes) -> bool {
        self.half.data_bytes(data).await.is_ok()
    }

    /// Copies from `reader` to its end. `extended` names another stream than standard output (RFC 4254, 5.2).
    pub async fn copy_from(&self, reader: &mut (impl AsyncRead + Unpin), extended: Option<u32>) {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(READ_SIZE);
            // The end of a terminal is an error (EIO), so an error is an end.
            if !matches!(reader.read_buf(&mut buffer).await, Ok(1..)) {
                return;
            }
            let data = buffer.split().freeze();
            let sent = match extended {
                None => self.half.data_bytes(data).await,
                Some(code) => self.half.extended_data_bytes(code, data).await,
            };
            if sent.is_err() {
                return;
            }
        }
    }
}
