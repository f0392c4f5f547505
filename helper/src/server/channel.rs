//! A channel's two directions, in which a slow reader slows its sender down.
//!
//! russh 0.65 gives a client new window as soon as data arrives, not when it is used (its pull request 730 would change
//! that), and waits for a full channel with the whole connection: `ssh host cat <big` would lock up, and one stalled
//! forwarding would stall them all. So data goes into queues without a bound of their own, and the window is steered
//! through the one thing that russh asks about, the window to aim for. While a queue is long that is [`PROBE`], so that
//! a client that has used up its window may send just that much each round trip, as TCP probes a closed window, until
//! the queue is short again. A queue holds at most [`LONG_QUEUE`] and two windows.

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
    sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot, watch},
};

use super::locked;

/// The bytes that a client may send ahead on a channel: 100 ms at 20 MiB/s, which is also OpenSSH's window.
pub(super) const WINDOW: u32 = 2 * 1024 * 1024;

/// The window while a queue is long. russh gives out new window when less than half of it is left, which for 1 would be
/// never.
const PROBE: u32 = 2;

/// The bytes in a queue from which on its client is held back.
const LONG_QUEUE: usize = 1024 * 1024;

/// The time for which a probe is left unanswered while nothing changes, which keeps probing below 1 % of a processor.
/// It is short, because the whole connection waits with it.
const PROBE_PAUSE: Duration = Duration::from_millis(5);

/// The size of one read from a pipe or a socket: that of a Linux pipe.
const READ_SIZE: usize = 64 * 1024;

/// The time that a program may take for each read of a client's remaining data after the client has closed its channel.
const LAST_READ: Duration = Duration::from_secs(10);

/// The data type code of standard error (RFC 4254, 5.2).
pub(super) const STDERR: u32 = 1;

/// The client's input on a channel.
pub(super) enum Input {
    /// Bytes.
    Data(Bytes),
    /// The end of the bytes.
    Eof,
}

/// The amount of data that is queued for one channel.
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

/// The target of requests on a running session.
pub(super) struct Control {
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

/// The sending end of a channel's queue. It is dropped when the channel is closed, which a receiver that is busy with
/// earlier data hears at once.
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
pub(super) struct Channels {
    slots: Mutex<HashMap<ChannelId, Slot>>,
}

impl Channels {
    /// Notes that a channel that we asked for is open. Input is for it from now on, even before its other end is taken.
    pub(super) fn opened(&self, id: ChannelId) {
        locked(&self.slots).entry(id).or_insert_with(Slot::new);
    }

    /// Takes the inner end of a channel. russh's own queue, which would block, is dropped.
    pub(super) fn take(self: &Arc<Self>, channel: Channel<Msg>, handle: Handle) -> Wire {
        let id = channel.id();
        let mut slots = locked(&self.slots);
        let slot = slots.entry(id).or_insert_with(Slot::new);
        // A channel is taken once. A second taker finds it closed.
        let (receiver, closed) =
            slot.receiver.take().unwrap_or_else(|| (mpsc::unbounded_channel().1, watch::channel(()).1));
        let gauge = Arc::clone(&slot.gauge);
        let (_, out) = channel.split();
        Wire {
            id,
            out: Out { id, half: out, handle, closed: closed.clone() },
            input: InputQueue { receiver, closed, gauge },
            channels: Arc::clone(self),
            permit: None,
        }
    }

    /// Queues data from the client. Returns late for a probe whose answer has not changed.
    pub(super) async fn data(&self, id: ChannelId, data: &[u8]) {
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

    /// Notes that the client has no more data.
    pub(super) fn eof(&self, id: ChannelId) {
        if let Some(sender) = locked(&self.slots).get(&id).and_then(|slot| slot.sender.as_ref()) {
            let _ = sender.input.send(Input::Eof);
        }
    }

    /// Notes that the client has closed the channel.
    pub(super) fn close(&self, id: ChannelId) {
        let mut slots = locked(&self.slots);
        match slots.get_mut(&id) {
            Some(slot) if slot.receiver.is_some() => slot.sender = None,
            _ => drop(slots.remove(&id)),
        }
    }

    /// Notes that the connection is over.
    pub(super) fn close_all(&self) {
        locked(&self.slots).clear();
    }

    /// The window to aim for. There is one for the connection, so a long queue holds back its other channels, too, but
    /// only those that send megabytes, because each still has the rest of its window.
    pub(super) fn window(&self) -> u32 {
        if locked(&self.slots).values().any(|slot| slot.gauge.is_long()) { PROBE } else { WINDOW }
    }

    /// Notes that a session has started, which signals and window changes act on from now on.
    pub(super) fn control(&self, id: ChannelId, control: Control) {
        if let Some(slot) = locked(&self.slots).get_mut(&id) {
            slot.control = Some(control);
        }
    }

    /// Acts on a running session; `None` when there is none.
    pub(super) fn with_control<T>(&self, id: ChannelId, act: impl FnOnce(&Control) -> T) -> Option<T> {
        locked(&self.slots).get(&id)?.control.as_ref().map(act)
    }
}

/// The inner end of a channel.
pub(super) struct Wire {
    id: ChannelId,
    input: InputQueue,
    out: Out,
    channels: Arc<Channels>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        locked(&self.channels.slots).remove(&self.id);
    }
}

impl Wire {
    /// Holds what this channel counts for until its end.
    pub(super) fn holding(mut self, permit: OwnedSemaphorePermit) -> Wire {
        self.permit = Some(permit);
        self
    }

    /// Its number.
    pub(super) fn id(&self) -> ChannelId {
        self.id
    }

    /// Both directions.
    pub(super) fn split(&mut self) -> (&mut InputQueue, &Out) {
        (&mut self.input, &self.out)
    }

    /// Sends the end of the data, and closes the channel.
    pub(super) async fn close(self) {
        // An error means that the connection is gone, and the channel with it.
        let _ = self.out.handle.eof(self.id).await;
        let _ = self.out.handle.close(self.id).await;
    }

    /// Copies both ways between the channel and a socket, each way to its own end.
    pub(super) async fn pump(mut self, stream: impl AsyncRead + AsyncWrite) {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let (input, out) = self.split();
        let (sent_all, all_sent) = oneshot::channel();
        let up = async {
            input.write_to(&mut writer).await;
            // An end that has gone needs no shutdown.
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

/// The queue of the client's input on one channel.
pub(super) struct InputQueue {
    receiver: mpsc::UnboundedReceiver<Input>,
    closed: watch::Receiver<()>,
    gauge: Arc<Gauge>,
}

impl InputQueue {
    /// The next input; `None` when the channel is closed.
    pub(super) async fn next(&mut self) -> Option<Input> {
        let input = self.receiver.recv().await?;
        if let Input::Data(data) = &input {
            self.gauge.take(data.len());
        }
        Some(input)
    }

    /// A receiver that fails once the channel is closed.
    pub(super) fn closed(&self) -> watch::Receiver<()> {
        self.closed.clone()
    }

    /// Writes the input to `writer`, until its end or until `writer` takes no more. A program that does not read cannot
    /// hold up a client that has closed the channel.
    pub(super) async fn write_to(&mut self, writer: &mut (impl AsyncWrite + Unpin)) {
        while let Some(Input::Data(data)) = self.next().await {
            let abandoned = async {
                // Nothing is ever sent, so an error is the end of the channel.
                while self.closed.changed().await.is_ok() {}
                tokio::time::sleep(LAST_READ).await;
            };
            tokio::select! {
                written = writer.write_all(&data) => if written.is_err() { return },
                () = abandoned => return,
            }
        }
    }

    /// Drops the input until the channel is closed.
    pub(super) async fn until_closed(&mut self) {
        while self.next().await.is_some() {}
    }
}

/// Our output on one channel.
pub(super) struct Out {
    id: ChannelId,
    half: ChannelWriteHalf<Msg>,
    handle: Handle,
    closed: watch::Receiver<()>,
}

impl Out {
    /// The handle for messages other than data, which keep their order with it.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Sends data as the client's window allows; `false` when the channel is closed, or the connection gone.
    pub(super) async fn send(&self, data: Bytes) -> bool {
        self.unless_closed(self.half.data_bytes(data)).await
    }

    /// Sends text on standard error. A connection that is gone is noticed by what follows.
    pub(super) async fn send_error(&self, text: Bytes) {
        self.unless_closed(self.half.extended_data_bytes(STDERR, text)).await;
    }

    /// Waits for russh, which itself would wait for ever for the window of a channel that is closed.
    async fn unless_closed(&self, sending: impl Future<Output = Result<(), russh::Error>>) -> bool {
        let mut closed = self.closed.clone();
        tokio::select! {
            biased;
            sent = sending => sent.is_ok(),
            // Nothing is ever sent, so a result is the end of the channel.
            _ = closed.changed() => false,
        }
    }

    /// Copies from `reader` to its end. `extended` names another stream than standard output (RFC 4254, 5.2).
    pub(super) async fn copy_from(&self, reader: &mut (impl AsyncRead + Unpin), extended: Option<u32>) {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(READ_SIZE);
            // The end of a terminal is an error (EIO), so an error counts as an end.
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
