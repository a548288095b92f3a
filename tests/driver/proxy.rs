// SPDX-License-Identifier: LGPL-2.1-or-later
//! A proxy between the two ends of a migration, which cuts, stalls, delays or damages one connection.

use super::precopy::wait_until;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long a late record is kept.
const LATE: Duration = Duration::from_millis(100);
/// Offset of a further connection's number in its hello: behind the magic number, the version and the UUID.
const NUMBER: usize = 24;

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Cut,
    /// Nothing arrives any more. What is sent is taken.
    Stall,
    /// Nothing arrives any more, and nothing more is taken. Only for a connection with one direction.
    Block,
    Flip,
    Late,
}

/// Where it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before this byte, or (`Flip`) to it.
    Byte(usize),
    /// Before this record.
    Record(usize),
}

/// What a connection consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// Nothing that the proxy knows.
    Bytes,
    /// A hello, then heads of packets and payloads.
    Packets,
    /// TLS records.
    Tls,
}

#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub fate: Fate,
    /// Number of the connection, in the order of arrival: the main one is 0.
    pub connection: usize,
    /// From the destination to the source.
    pub back: bool,
    pub place: Place,
}

/// What became of the connection with the fault.
#[derive(Default)]
struct Met {
    /// Whether the fault happened: a connection that carries fewer bytes does not meet it.
    hit: AtomicBool,
    /// The number of the connection as both ends count the further ones, from 1 on. They arrive in any order.
    number: AtomicUsize,
}

/// Carries connections between the two ends, and one fault.
pub struct Proxy {
    path: PathBuf,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
    /// Records of each connection, to the destination.
    records: Arc<Vec<AtomicUsize>>,
    met: Arc<Met>,
}

impl Proxy {
    /// Listens at `path`, and connects to `to`: the main connection and `channels` further ones.
    pub fn start(path: PathBuf, to: &Path, channels: u32, fault: Option<Fault>, tls: bool) -> Self {
        let listener = UnixListener::bind(&path).unwrap();
        let threads = Arc::new(Mutex::new(Vec::new()));
        let records = Arc::new((0..=channels).map(|_| AtomicUsize::new(0)).collect::<Vec<_>>());
        let this = Self { path, threads, records, met: Arc::default() };
        let (to, threads) = (to.to_owned(), Arc::clone(&this.threads));
        let (records, met) = (Arc::clone(&this.records), Arc::clone(&this.met));
        // It ends with the last connection, or with the process.
        thread::spawn(move || {
            for (number, near) in listener.incoming().take(channels as usize + 1).enumerate() {
                let Ok(near) = near else { return };
                let Ok(far) = UnixStream::connect(&to) else { return };
                for back in [false, true] {
                    let fault = fault.filter(|fault| fault.connection == number && fault.back == back);
                    let framing = match (tls, number, back) {
                        (true, _, _) => Framing::Tls,
                        (false, 1.., false) => Framing::Packets,
                        _ => Framing::Bytes,
                    };
                    let (from, into) = if back { (&far, &near) } else { (&near, &far) };
                    let (from, into) = (from.try_clone().unwrap(), into.try_clone().unwrap());
                    let records = Arc::clone(&records);
                    let carrier = Carrier { from, into, fault, framing, done: 0, met: Arc::clone(&met) };
                    threads.lock().unwrap().push(thread::spawn(move || {
                        let count = carrier.run();
                        if !back {
                            records[number].store(count, SeqCst);
                        }
                    }));
                }
            }
        });
        this
    }

    /// Records of each connection, to the destination.
    pub fn records(&self) -> Vec<usize> {
        self.records.iter().map(|count| count.load(SeqCst)).collect()
    }

    /// Whether the fault has happened.
    pub fn is_hit(&self) -> bool {
        self.met.hit.load(SeqCst)
    }

    /// The number of the further connection with the fault, as both ends count them from 1 on. Only without TLS.
    pub fn number(&self) -> usize {
        self.met.number.load(SeqCst)
    }

    /// Waits until both ends have closed all connections.
    pub fn wait_closed(&self, what: &str) {
        let open = || self.threads.lock().unwrap().iter().filter(|thread| !thread.is_finished()).count();
        wait_until(|| open() == 0, || format!("{what}: {} directions of connections are open", open()));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// One direction of a connection.
struct Carrier {
    from: UnixStream,
    into: UnixStream,
    fault: Option<Fault>,
    framing: Framing,
    done: usize,
    met: Arc<Met>,
}

impl Carrier {
    /// Carries until an end closes. Returns the number of records.
    fn run(mut self) -> usize {
        let mut count = 0;
        while let Some(record) = self.record(count) {
            if !self.pass(record, count) {
                break;
            }
            count += 1;
        }
        let _ = self.from.shutdown(Shutdown::Both);
        let _ = self.into.shutdown(Shutdown::Both);
        count
    }

    /// The next record, or what is there of it at the end. `None` at the end.
    fn record(&mut self, count: usize) -> Option<Vec<u8>> {
        let head = match self.framing {
            Framing::Bytes => {
                let mut bytes = vec![0; 65536];
                let len = self.from.read(&mut bytes).ok()?;
                bytes.truncate(len);
                return Some(bytes).filter(|bytes| !bytes.is_empty());
            }
            Framing::Packets if count == 0 => 64,
            Framing::Packets => 1344,
            Framing::Tls => 5,
        };
        let mut record = self.exactly(head)?;
        let body = match self.framing {
            Framing::Tls if record.len() == head => usize::from(u16::from_be_bytes([record[3], record[4]])),
            Framing::Packets if count > 0 && record.len() == head => {
                // QEMU's packets with a SYNC may have the size of an earlier payload; the library's have none.
                u32::from_be_bytes(record[20..24].try_into().unwrap()) as usize
            }
            _ => 0,
        };
        record.extend(self.exactly(body)?);
        Some(record)
    }

    /// So many bytes, or fewer at the end. `None` if nothing arrives.
    fn exactly(&mut self, len: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len);
        (&mut self.from).take(len as u64).read_to_end(&mut bytes).ok()?;
        (len == 0 || !bytes.is_empty()).then_some(bytes)
    }

    /// Sends a record. Returns whether the connection goes on.
    fn pass(&mut self, mut record: Vec<u8>, count: usize) -> bool {
        let (start, end) = (self.done, self.done + record.len());
        self.done = end;
        if self.fault.is_some() && (start..end).contains(&NUMBER) {
            self.met.number.store(usize::from(record[NUMBER - start]) + 1, SeqCst);
        }
        let hit = self.fault.and_then(|fault| match fault.place {
            Place::Byte(at) => (start..end).contains(&at).then(|| (fault.fate, at - start)),
            Place::Record(number) => (number == count).then_some((fault.fate, 0)),
        });
        self.met.hit.fetch_or(hit.is_some(), SeqCst);
        match hit {
            None => {}
            Some((Fate::Flip, at)) => record[at] ^= 0x41,
            Some((Fate::Late, _)) => thread::sleep(LATE),
            Some((Fate::Cut, at)) => {
                let _ = self.into.write_all(&record[..at]);
                return false;
            }
            Some((Fate::Block, at)) => {
                let _ = self.into.write_all(&record[..at]);
                // Until the destination has closed the connection.
                let _ = self.into.read(&mut [0; 1]);
                return false;
            }
            Some((Fate::Stall, at)) => {
                let _ = self.into.write_all(&record[..at]);
                // Until both ends have closed the connection, or shut it down.
                let mut byte = [0; 4096];
                while matches!(self.from.read(&mut byte), Ok(1..)) {}
                return false;
            }
        }
        self.into.write_all(&record).is_ok()
    }
}
