//! One connection that keeps so many operations going, without a task or a timer for any of them.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use mq_core::clock::Clock;
use mq_core::wire::codes::response;
use mq_core::wire::command::Command;
use mq_core::wire::frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::requests::{QUEUES, Requests};
use crate::bench::load::{DONE, MEASURING};

/// What the connections of one loop share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) requests: Requests,
    /// Whether each message is a half message that is committed.
    pub(super) half: bool,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) phase: AtomicU8,
    /// Tells messages apart.
    pub(super) number: AtomicU64,
    /// How often the server was too busy for a request, which was sent again.
    pub(super) busy: AtomicU64,
    /// Operations that may still begin.
    pub(super) left: AtomicU64,
}

/// One operation under way.
#[derive(Debug, Default)]
struct Slot {
    began: Duration,
    unique: String,
    /// The answer to the half message, once it came.
    stored: Option<Command>,
}

/// Keeps `in_flight` operations going until the load is over or none is left. Returns how long everything took that ended
/// while it was measured, in microseconds.
///
/// # Errors
/// A broken connection, or an answer that is no success.
pub(super) async fn drive(
    address: SocketAddrV4,
    in_flight: usize,
    shared: Arc<Shared>,
) -> Result<Vec<u32>, String> {
    let broken = |error: std::io::Error| format!("the connection to {address} broke: {error}");
    let mut socket = TcpStream::connect(address).await.map_err(broken)?;
    socket.set_nodelay(true).map_err(broken)?;
    let mut load = Load {
        shared,
        slots: Vec::new(),
        open: 0,
        out: Vec::new(),
        latencies: Vec::new(),
    };
    load.slots.resize_with(in_flight, Slot::default);
    for index in 0..in_flight {
        load.begin(index);
    }
    let mut buffer = BytesMut::with_capacity(64 * 1024);
    while load.open > 0 {
        socket.write_all(&load.out).await.map_err(broken)?;
        load.out.clear();
        if socket.read_buf(&mut buffer).await.map_err(broken)? == 0 {
            return Err(format!("{address} closed a connection"));
        }
        while let Some(command) = frame::take(&mut buffer).map_err(|error| error.to_string())? {
            load.answered(command)?;
        }
    }
    Ok(load.latencies)
}

/// The operations of one connection.
struct Load {
    shared: Arc<Shared>,
    slots: Vec<Slot>,
    open: usize,
    out: Vec<u8>,
    latencies: Vec<u32>,
}

impl Load {
    fn begin(&mut self, index: usize) {
        let shared = &self.shared;
        let take = |left: u64| left.checked_sub(1);
        let order = Ordering::Relaxed;
        if shared.phase.load(order) == DONE || shared.left.fetch_update(order, order, take).is_err()
        {
            return;
        }
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let number = shared.number.fetch_add(1, order);
        let wall_ms = shared.requests.wall_ms;
        *slot = Slot {
            began: shared.clock.monotonic(),
            unique: format!("{wall_ms:016X}{number:016X}"),
            stored: None,
        };
        self.open += 1;
        self.ask(index);
    }

    /// Sends what the operation needs next.
    fn ask(&mut self, index: usize) {
        let Some(slot) = self.slots.get(index) else {
            return;
        };
        // The connection has far fewer slots than numbers.
        let opaque = i32::try_from(index).unwrap_or(i32::MAX);
        let commit = slot
            .stored
            .as_ref()
            .and_then(|stored| Requests::commit(stored, opaque, &slot.unique));
        let command = commit.unwrap_or_else(|| {
            let queue = self.shared.number.load(Ordering::Relaxed) % u64::from(QUEUES);
            let requests = &self.shared.requests;
            requests.send(opaque, queue as u32, &slot.unique, self.shared.half)
        });
        frame::put(&mut self.out, &command);
    }

    fn answered(&mut self, command: Command) -> Result<(), String> {
        let index = usize::try_from(command.opaque).unwrap_or(usize::MAX);
        let Some(slot) = self.slots.get_mut(index).filter(|_| command.is_response()) else {
            // A server may ask, too, and tell its clients things.
            return Ok(());
        };
        match command.code {
            response::SUCCESS => {}
            response::SYSTEM_BUSY => {
                self.shared.busy.fetch_add(1, Ordering::Relaxed);
                self.ask(index);
                return Ok(());
            }
            code => {
                return Err(format!(
                    "a request was refused with {code}: {}",
                    command.remark
                ));
            }
        }
        if self.shared.half && slot.stored.is_none() {
            slot.stored = Some(command);
            self.ask(index);
            return Ok(());
        }
        if self.shared.phase.load(Ordering::Relaxed) == MEASURING {
            let took = self.shared.clock.monotonic().saturating_sub(slot.began);
            let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
            self.latencies.push(took);
        }
        self.open -= 1;
        self.begin(index);
        Ok(())
    }
}

/// A server may show a message a while after it took it: so long a pull that found nothing waits before it is tried again,
const SHOWN_LATER: Duration = Duration::from_millis(10);
/// and so often, until something is found.
const MOST_TRIES: u32 = 1000;

/// Reads so many messages of all queues, one pull at a time for each queue. Returns how many bytes of records came.
///
/// # Errors
/// A broken connection, an answer that is no success, or queues that end before.
pub(super) async fn read_backlog(
    address: SocketAddrV4,
    requests: &Requests,
    starts: &[u64],
    count: u64,
) -> Result<u64, String> {
    let broken = |error: std::io::Error| format!("the connection to {address} broke: {error}");
    let mut socket = TcpStream::connect(address).await.map_err(broken)?;
    socket.set_nodelay(true).map_err(broken)?;
    let mut next = starts.to_vec();
    let mut ask: Vec<usize> = (0..next.len()).collect();
    let mut waiting = 0_usize;
    let mut ends = Vec::new();
    let (mut out, mut buffer) = (Vec::new(), BytesMut::with_capacity(256 * 1024));
    let (mut seen, mut bytes, mut tries) = (0, 0, 0);
    while seen < count {
        if ask.is_empty() && waiting == 0 {
            tries += 1;
            if tries > MOST_TRIES {
                return Err(format!("only {seen} of {count} messages could be read"));
            }
            tokio::time::sleep(SHOWN_LATER).await;
            ask.append(&mut ends);
        }
        for queue in ask.drain(..) {
            let (number, offset) = (queue as u32, next.get(queue).copied().unwrap_or(0));
            frame::put(&mut out, &requests.pull(queue as i32, number, offset));
            waiting += 1;
        }
        socket.write_all(&out).await.map_err(broken)?;
        out.clear();
        buffer.reserve(64 * 1024);
        if socket.read_buf(&mut buffer).await.map_err(broken)? == 0 {
            return Err(format!("{address} closed a connection"));
        }
        while let Some(answer) = frame::take(&mut buffer).map_err(|error| error.to_string())? {
            if !answer.is_response() {
                continue;
            }
            let queue = usize::try_from(answer.opaque).unwrap_or(0);
            waiting = waiting.saturating_sub(1);
            match answer.code {
                response::SUCCESS => {}
                response::PULL_NOT_FOUND => {
                    ends.push(queue);
                    continue;
                }
                code => return Err(format!("a pull was refused with {code}: {}", answer.remark)),
            }
            seen += messages(&answer.body);
            bytes += answer.body.len() as u64;
            let offset = answer.fields.get("nextBeginOffset");
            if let Some(next) = next.get_mut(queue) {
                *next = offset.and_then(|next| next.parse().ok()).unwrap_or(0);
            }
            ask.push(queue);
            tries = 0;
        }
    }
    Ok(bytes)
}

/// How many records stand in the body of a pull.
fn messages(mut body: &[u8]) -> u64 {
    let mut count = 0;
    while let Some((length, _)) = body.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        match body.get(length.max(4)..) {
            Some(rest) => body = rest,
            None => break,
        }
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_by_their_lengths() {
        let one = [0, 0, 0, 6, 1, 2];
        assert_eq!(messages(&one.repeat(3)), 3);
        assert_eq!(messages(&[0; 8]), 2, "a length of nothing does not hang");
        assert_eq!(messages(&[0, 0, 0, 9, 1]), 0);
    }
}
