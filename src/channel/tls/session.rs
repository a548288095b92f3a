// SPDX-License-Identifier: LGPL-2.1-or-later
//! A TLS session without its transport: received records come in as bytes, and records to be sent go out as bytes.
//!
//! It uses rustls' unbuffered interface. All received bytes that are not processed yet are in one buffer, because rustls
//! may refer to them until a message that spans several records is complete.

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use std::io;

/// Longest record on the wire: 16 KiB of data, with header, expansion and tag.
pub const RECORD_MAX: usize = FRAGMENT + 2048 + 5;
/// Data bytes of a record.
const FRAGMENT: usize = 16384;
/// Most bytes that encryption adds to a record.
const RECORD_OVERHEAD: usize = 64;
/// Most received bytes that wait to be processed. A handshake message may span several records.
const INCOMING_MAX: usize = 1 << 19;

/// Either end of a session.
pub enum Connection {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// What a session needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Another step.
    Again,
    /// More bytes of the peer; the handshake is in progress.
    Handshake,
    /// Nothing: the handshake is complete, and all received records are processed.
    Traffic,
    /// Nothing: both ends have ended the session.
    Closed,
}

/// What is to be sent once the handshake is complete.
enum Send<'a> {
    Nothing,
    Data(&'a [u8]),
    CloseNotify,
}

/// Records to be sent. The memory is initialised once and used again.
#[derive(Default)]
pub struct Outgoing {
    memory: Vec<u8>,
    filled: usize,
}

impl Outgoing {
    pub fn bytes(&self) -> &[u8] {
        &self.memory[..self.filled]
    }

    pub fn clear(&mut self) {
        self.filled = 0;
    }

    /// Appends what `put` writes into a slice of at least `room` bytes. If that is too small, `needed` finds in the error
    /// how many bytes are needed.
    fn append<E>(
        &mut self,
        room: usize,
        mut put: impl FnMut(&mut [u8]) -> Result<usize, E>,
        needed: impl Fn(&E) -> Option<usize>,
    ) -> Result<(), rustls::Error> {
        let mut room = room;
        loop {
            if self.memory.len() < self.filled + room {
                self.memory.resize(self.filled + room, 0);
            }
            match put(&mut self.memory[self.filled..]) {
                Ok(count) => {
                    self.filled += count;
                    return Ok(());
                }
                Err(err) => match needed(&err).filter(|needed| *needed > room) {
                    Some(needed) => room = needed,
                    None => return Err(rustls::Error::EncryptError),
                },
            }
        }
    }
}

fn encrypt_needs(err: &EncryptError) -> Option<usize> {
    match err {
        EncryptError::InsufficientSize(size) => Some(size.required_size),
        EncryptError::EncryptExhausted => None,
    }
}

fn encode_needs(err: &EncodeError) -> Option<usize> {
    match err {
        EncodeError::InsufficientSize(size) => Some(size.required_size),
        EncodeError::AlreadyEncoded => None,
    }
}

/// What a step of a session works with.
struct Step<'a> {
    outgoing: &'a mut Outgoing,
    /// Gets the data of the peer.
    plain: &'a mut dyn FnMut(&[u8]),
    send: Send<'a>,
    peer_closed: &'a mut bool,
}

impl Step<'_> {
    /// Handles one state. Returns the number of received bytes that are done with, and what comes next.
    fn handle<D>(&mut self, status: UnbufferedStatus<'_, '_, D>) -> (usize, Result<Progress, rustls::Error>) {
        let mut discard = status.discard;
        let next = match status.state {
            Err(err) => Err(err),
            Ok(ConnectionState::ReadTraffic(mut records)) => loop {
                match records.next_record() {
                    Some(Ok(record)) => {
                        discard += record.discard;
                        (self.plain)(record.payload);
                    }
                    Some(Err(err)) => break Err(err),
                    None => break Ok(Progress::Again),
                }
            },
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                let encoded = self.outgoing.append(RECORD_MAX, |room| data.encode(room), encode_needs);
                encoded.map(|()| Progress::Again)
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                // The bytes are in `outgoing`.
                data.done();
                Ok(Progress::Again)
            }
            Ok(ConnectionState::BlockedHandshake) => Ok(Progress::Handshake),
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                let sent = match std::mem::replace(&mut self.send, Send::Nothing) {
                    Send::Nothing => Ok(()),
                    Send::Data(data) => {
                        let room = data.len() + (data.len() / FRAGMENT + 1) * RECORD_OVERHEAD + RECORD_MAX;
                        self.outgoing.append(room, |room| traffic.encrypt(data, room), encrypt_needs)
                    }
                    Send::CloseNotify => {
                        self.outgoing.append(RECORD_MAX, |room| traffic.queue_close_notify(room), encrypt_needs)
                    }
                };
                sent.map(|()| Progress::Traffic)
            }
            Ok(ConnectionState::PeerClosed) => {
                *self.peer_closed = true;
                Ok(Progress::Again)
            }
            Ok(ConnectionState::Closed) => Ok(Progress::Closed),
            // Early data is not offered.
            Ok(_) => Err(rustls::Error::General("an unexpected state of the TLS session".into())),
        };
        (discard, next)
    }
}

/// See the module.
pub struct Session {
    connection: Connection,
    /// Received bytes that are not processed yet.
    incoming: Vec<u8>,
    peer_closed: bool,
}

impl Session {
    pub fn new(connection: Connection) -> Self {
        Self { connection, incoming: Vec::new(), peer_closed: false }
    }

    /// Adds received bytes.
    pub fn receive(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.incoming.len() + bytes.len() > INCOMING_MAX {
            return Err(io::Error::other("a TLS handshake message is too long"));
        }
        self.incoming.extend_from_slice(bytes);
        Ok(())
    }

    /// Returns whether a part of a record has arrived.
    pub fn is_inside_record(&self) -> bool {
        !self.incoming.is_empty()
    }

    /// Returns whether the peer has ended its direction with a close notification.
    pub fn is_peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Processes received bytes until more are needed. `plain` gets the data of the peer, and `outgoing` the records that
    /// must be sent, after an error the alert.
    pub fn process(
        &mut self,
        outgoing: &mut Outgoing,
        plain: &mut dyn FnMut(&[u8]),
    ) -> Result<Progress, rustls::Error> {
        let result = self.run(outgoing, plain, Send::Nothing);
        if result.is_err() {
            self.take_alert(outgoing);
        }
        result
    }

    /// Moves the alert of a failed session to `outgoing`. rustls must not see received bytes again after a failure.
    fn take_alert(&mut self, outgoing: &mut Outgoing) {
        let (plain, peer_closed) = (&mut |_: &[u8]| (), &mut self.peer_closed);
        let mut step = Step { outgoing, plain, send: Send::Nothing, peer_closed };
        loop {
            let (_, next) = match &mut self.connection {
                Connection::Client(client) if client.wants_write() => step.handle(client.process_tls_records(&mut [])),
                Connection::Server(server) if server.wants_write() => step.handle(server.process_tls_records(&mut [])),
                _ => return,
            };
            if next.is_err() {
                return;
            }
        }
    }

    /// Encrypts data. The handshake is complete.
    pub fn encrypt(
        &mut self,
        data: &[u8],
        outgoing: &mut Outgoing,
        plain: &mut dyn FnMut(&[u8]),
    ) -> Result<(), rustls::Error> {
        self.run(outgoing, plain, Send::Data(data)).map(drop)
    }

    /// Encrypts the notification that no more data follows.
    pub fn close(&mut self, outgoing: &mut Outgoing, plain: &mut dyn FnMut(&[u8])) -> Result<(), rustls::Error> {
        self.run(outgoing, plain, Send::CloseNotify).map(drop)
    }

    fn run(
        &mut self,
        outgoing: &mut Outgoing,
        plain: &mut dyn FnMut(&[u8]),
        send: Send<'_>,
    ) -> Result<Progress, rustls::Error> {
        let mut step = Step { outgoing, plain, send, peer_closed: &mut self.peer_closed };
        let mut done = 0;
        let result = loop {
            let incoming = &mut self.incoming[done..];
            let (discard, next) = match &mut self.connection {
                Connection::Client(client) => step.handle(client.process_tls_records(incoming)),
                Connection::Server(server) => step.handle(server.process_tls_records(incoming)),
            };
            done += discard;
            if next != Ok(Progress::Again) {
                break next;
            }
        };
        self.incoming.drain(..done);
        result
    }
}
