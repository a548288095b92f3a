// SPDX-License-Identifier: LGPL-2.1-or-later
//! A channel that encrypts what is written to it and decrypts what is read from it, over another channel.
//!
//! One thread reads and one thread writes at the same time. Both use one session behind a mutex. The mutex is held while
//! bytes are encrypted or decrypted, and never while bytes are sent or waited for. So a thread that waits for the peer
//! does not stop the other one.
//!
//! The end of the connection without a notification of the peer (`close_notify`) is an ordinary end of the bytes, because
//! QEMU before 10.0 never sends that notification. The end mark of the stream shows whether the stream is complete.

use super::reason::Reasons;
use super::session::{Outgoing, Session};
use crate::channel::{Channel, aborted};
use crate::error::Described;
use crate::sync::{Condvar, Mutex, Rank};
use crate::sys::{IoVec, Span, advance, with_piece};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Most bytes that are encrypted, sent or received at once.
pub const CHUNK: usize = 1 << 17;
/// Longest wait until the peer takes an alert or the notification of the end.
const LAST_LIMIT: Duration = Duration::from_secs(1);

/// Data that was decrypted and not read yet.
#[derive(Default)]
struct Plain {
    bytes: Vec<u8>,
    /// Number of bytes that were read.
    taken: usize,
}

impl Plain {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    fn take(&mut self, count: usize) {
        self.taken += count;
        if self.taken == self.bytes.len() {
            self.bytes.clear();
            self.taken = 0;
        }
    }
}

/// Places for read data, filled in their order.
struct Places<'a> {
    spans: &'a [Span<'a>],
    /// Bytes in the first span that are filled.
    filled: usize,
    count: usize,
}

impl<'a> Places<'a> {
    fn new(spans: &'a [Span<'a>]) -> Self {
        Self { spans, filled: 0, count: 0 }
    }

    /// Stores as much as there is room for. Returns the number of bytes.
    fn store(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while let Some(first) = self.spans.first().filter(|_| !rest.is_empty()) {
            let place = first.skip(self.filled);
            let (now, later) = rest.split_at(place.len().min(rest.len()));
            place.store(now);
            rest = later;
            self.filled += now.len();
            if self.filled == first.len() {
                self.spans = &self.spans[1..];
                self.filled = 0;
            }
        }
        let stored = bytes.len() - rest.len();
        self.count += stored;
        stored
    }
}

struct State {
    session: Session,
    plain: Plain,
    /// Records that the reading thread produced, to be sent before any others.
    answers: Outgoing,
    /// A thread is sending records.
    sending: bool,
    /// A thread is receiving records.
    receiving: bool,
    /// No more may be sent.
    ended: bool,
    /// The session failed.
    failed: Option<String>,
}

/// See the module.
pub struct TlsChannel {
    inner: Arc<dyn Channel>,
    state: Mutex<State>,
    /// Notified when a thread ends to receive.
    received: Condvar,
    /// The buffers of the reading and of the writing thread, while they are not used.
    read_buffer: Mutex<Vec<u8>>,
    write_buffers: Mutex<(Vec<u8>, Outgoing)>,
    reasons: Reasons,
    received_any: AtomicBool,
}

fn failure(text: impl Into<String>) -> io::Error {
    io::Error::other(Described { errno: libc::EPROTO, text: text.into() })
}

impl TlsChannel {
    /// Returns a channel over `inner` for a session whose handshake is complete.
    pub fn new(inner: Arc<dyn Channel>, session: Session, early: Vec<u8>, reasons: Reasons) -> Self {
        let plain = Plain { bytes: early, taken: 0 };
        let answers = Outgoing::default();
        let state = State { session, plain, answers, sending: false, receiving: false, ended: false, failed: None };
        Self {
            inner,
            state: Mutex::new(Rank::TlsSession, state),
            received: Condvar::new(),
            read_buffer: Mutex::new(Rank::TlsBuffers, Vec::new()),
            write_buffers: Mutex::new(Rank::TlsBuffers, Default::default()),
            reasons,
            received_any: AtomicBool::new(false),
        }
    }

    /// Processes received bytes. Data goes to `places` as far as they have room.
    fn process(&self, received: &[u8], places: &mut Places<'_>) -> io::Result<()> {
        let mut state = self.state.lock();
        let State { session, plain, answers, .. } = &mut *state;
        session.receive(received)?;
        let result = session.process(answers, &mut |data| {
            let stored = if plain.rest().is_empty() { places.store(data) } else { 0 };
            plain.bytes.extend_from_slice(&data[stored..]);
        });
        let Err(err) = result else { return Ok(()) };
        let text = self.reasons.of(&err);
        state.failed = Some(text.clone());
        drop(state);
        self.send_last(false);
        Err(failure(text))
    }

    /// Sends the alert of a failed session or, with `notify`, the notification that no more data follows. Does nothing if
    /// another thread is sending.
    fn send_last(&self, notify: bool) {
        let mut outgoing = {
            let mut state = self.state.lock();
            if state.sending || state.ended {
                return;
            }
            state.ended = true;
            let State { session, plain, answers, .. } = &mut *state;
            if notify && session.close(answers, &mut |data| plain.bytes.extend_from_slice(data)).is_err() {
                return;
            }
            std::mem::take(answers)
        };
        if !outgoing.bytes().is_empty() {
            self.inner.set_stall_limit(Some(LAST_LIMIT));
            // The peer may be gone, which its end of the stream shows.
            let _ = send(&*self.inner, &mut outgoing);
        }
    }

    /// Waits until no other thread receives, at most for `limit`. Returns whether this thread may receive.
    fn begin_receiving(&self, limit: Duration) -> bool {
        let since = Instant::now();
        let mut state = self.state.lock();
        while state.receiving {
            let Some(left) = limit.checked_sub(since.elapsed()).filter(|_| state.failed.is_none()) else {
                return false;
            };
            state = self.received.wait_timeout(state, left);
        }
        state.receiving = true;
        true
    }

    fn end_receiving(&self) {
        self.state.lock().receiving = false;
        self.received.notify_all();
    }

    /// Returns the reason why the peer closed the connection, if it sent one: a write fails before the alert is read.
    fn reason_of_peer(&self) -> Option<io::Error> {
        if self.begin_receiving(LAST_LIMIT) {
            self.inner.set_stall_limit(Some(LAST_LIMIT));
            let mut buffer = vec![0; CHUNK];
            while let Ok(count) = self.inner.read(Span::from_slice(&mut buffer)) {
                let result = match count {
                    0 => self.ended().map(drop),
                    count => self.process(&buffer[..count], &mut Places::new(&[])),
                };
                if count == 0 || result.is_err() {
                    self.end_receiving();
                    return result.err();
                }
            }
            self.end_receiving();
        }
        self.state.lock().failed.clone().map(failure)
    }

    fn read_into(&self, spans: &[Span<'_>], buffer: &mut Vec<u8>) -> io::Result<usize> {
        let mut places = Places::new(spans);
        buffer.resize(CHUNK, 0);
        loop {
            {
                let mut state = self.state.lock();
                let stored = places.store(state.plain.rest());
                state.plain.take(stored);
                if places.count > 0 {
                    self.received_any.store(true, SeqCst);
                    return Ok(places.count);
                }
                if let Some(text) = &state.failed {
                    return Err(failure(text.clone()));
                }
                if state.session.is_peer_closed() {
                    return Ok(0);
                }
            }
            let count = match self.inner.read(Span::from_slice(buffer)) {
                Ok(0) => return self.ended(),
                Ok(count) => count,
                // As an end, but the peer has not read everything.
                Err(err) if err.kind() == io::ErrorKind::ConnectionReset => return self.ended().and(Err(err)),
                Err(err) => return Err(err),
            };
            let result = self.process(&buffer[..count], &mut places);
            // Data that came before a damaged record is returned first. The next read returns the error again.
            if places.count == 0 {
                result?;
            }
        }
    }

    /// The connection ended without a notification.
    fn ended(&self) -> io::Result<usize> {
        if self.state.lock().session.is_inside_record() {
            return Err(failure("the connection ended inside a TLS record"));
        }
        match self.received_any.load(SeqCst) {
            true => Ok(0),
            // GnuTLS checks certificates after the handshake and closes the connection without an alert.
            false => Err(failure(self.reasons.closed_after_handshake())),
        }
    }

    fn write_with(&self, pieces: &mut [IoVec], data: &mut Vec<u8>, outgoing: &mut Outgoing) -> io::Result<()> {
        let mut left = advance(pieces, 0);
        while !left.is_empty() {
            data.clear();
            while let Some(first) = left.first().filter(|_| data.len() < CHUNK) {
                let part = first.first(CHUNK - data.len());
                part.append_to(data);
                left = advance(left, part.len());
            }
            {
                let mut state = self.state.lock();
                let State { session, plain, answers, .. } = &mut *state;
                if !answers.bytes().is_empty() {
                    std::mem::swap(outgoing, answers);
                }
                let result = session.encrypt(data, outgoing, &mut |data| plain.bytes.extend_from_slice(data));
                result.map_err(|err| failure(self.reasons.of(&err)))?;
            }
            send(&*self.inner, outgoing)?;
        }
        Ok(())
    }
}

/// Sends records and removes them.
pub fn send(channel: &dyn Channel, outgoing: &mut Outgoing) -> io::Result<()> {
    let result = with_piece(outgoing.bytes(), |piece| channel.write_all(&mut [piece]));
    outgoing.clear();
    result
}

impl Channel for TlsChannel {
    fn read(&self, into: Span<'_>) -> io::Result<usize> {
        self.read_scattered(&[into])
    }

    fn read_scattered(&self, into: &[Span<'_>]) -> io::Result<usize> {
        let mut buffer = std::mem::take(&mut *self.read_buffer.lock());
        // Only a thread that looks for the reason of a failure can receive now, and not for long.
        let result = if self.begin_receiving(2 * LAST_LIMIT) {
            let result = self.read_into(into, &mut buffer);
            self.end_receiving();
            result
        } else {
            Err(self.state.lock().failed.clone().map_or_else(aborted, failure))
        };
        *self.read_buffer.lock() = buffer;
        result
    }

    fn write_all(&self, pieces: &mut [IoVec]) -> io::Result<()> {
        {
            let mut state = self.state.lock();
            if let Some(text) = &state.failed {
                return Err(failure(text.clone()));
            }
            if state.ended {
                return Err(aborted());
            }
            state.sending = true;
        }
        let (mut data, mut outgoing) = std::mem::take(&mut *self.write_buffers.lock());
        let result = self.write_with(pieces, &mut data, &mut outgoing);
        outgoing.clear();
        *self.write_buffers.lock() = (data, outgoing);
        let result = result.map_err(|err| match err.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => self.reason_of_peer().unwrap_or(err),
            _ => err,
        });
        let mut state = self.state.lock();
        state.sending = false;
        // After a part of a record nothing else can follow.
        state.ended |= result.is_err();
        result
    }

    fn shutdown(&self) -> io::Result<()> {
        self.state.lock().ended = true;
        self.inner.shutdown()
    }

    fn end_reads(&self) -> io::Result<()> {
        self.inner.end_reads()
    }

    fn close(&self) -> io::Result<()> {
        self.send_last(true);
        self.inner.close()
    }

    fn name(&self) -> Option<String> {
        self.inner.name()
    }

    fn peer_end(&self) -> Option<String> {
        self.inner.peer_end()
    }

    fn peer_has_closed(&self) -> bool {
        self.inner.peer_has_closed()
    }

    fn in_flight(&self) -> u64 {
        self.inner.in_flight()
    }

    fn is_duplex(&self) -> bool {
        true
    }

    fn has_peer(&self) -> bool {
        self.inner.has_peer()
    }

    fn written(&self) -> (u64, bool) {
        self.inner.written()
    }

    fn set_blocking(&self, blocking: bool) -> io::Result<()> {
        self.inner.set_blocking(blocking)
    }

    fn set_stall_limit(&self, limit: Option<Duration>) {
        self.inner.set_stall_limit(limit);
    }
}
