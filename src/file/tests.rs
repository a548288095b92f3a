// SPDX-License-Identifier: LGPL-2.1-or-later
//! Files over memory, and over channels that misbehave.

use super::{BUFFER_SIZE, MigFile};
use crate::channel::{Channel, memory};
use crate::error::Error;
use crate::sys::{IoVec, Span};
use proptest::prelude::*;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

fn writer() -> (MigFile, Arc<memory::Writer>) {
    let sink = Arc::new(memory::Writer::new());
    (MigFile::new(sink.clone(), true), sink)
}

/// Gives bytes in steps of a few, and fails where told.
struct Trickle {
    bytes: Mutex<Vec<u8>>,
    step: usize,
}

impl Channel for Trickle {
    fn read(&self, into: Span<'_>) -> io::Result<usize> {
        let mut bytes = self.bytes.lock().unwrap();
        let count = self.step.min(bytes.len()).min(into.len());
        into.store(&bytes.drain(..count).collect::<Vec<_>>());
        Ok(count)
    }
    fn write_all(&self, _pieces: &mut [IoVec]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn shutdown(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn close(&self) -> io::Result<()> {
        Ok(())
    }
}

fn trickle(bytes: &[u8], step: usize) -> MigFile {
    MigFile::new(Arc::new(Trickle { bytes: Mutex::new(bytes.to_vec()), step }), false)
}

/// Takes a number of writes, then fails; counts closes.
#[derive(Default)]
struct Full {
    writes_left: AtomicUsize,
    closed: AtomicUsize,
}

impl Channel for Full {
    fn read(&self, _into: Span<'_>) -> io::Result<usize> {
        Ok(0)
    }
    fn write_all(&self, _pieces: &mut [IoVec]) -> io::Result<()> {
        match self.writes_left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => Ok(()),
            Err(_) => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
        }
    }
    fn shutdown(&self) -> io::Result<()> {
        Ok(())
    }
    fn close(&self) -> io::Result<()> {
        self.closed.fetch_add(1, SeqCst);
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Piece {
    Byte(u8),
    Be16(u16),
    Be32(u32),
    Be64(u64),
    Bytes(Vec<u8>),
    Async(Vec<u8>),
    Flush,
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let piece = prop_oneof![
        any::<u8>().prop_map(Piece::Byte),
        any::<u16>().prop_map(Piece::Be16),
        any::<u32>().prop_map(Piece::Be32),
        any::<u64>().prop_map(Piece::Be64),
        prop::collection::vec(any::<u8>(), 0..40_000).prop_map(Piece::Bytes),
        prop::collection::vec(any::<u8>(), 0..5000).prop_map(Piece::Async),
        Just(Piece::Flush),
    ];
    prop::collection::vec(piece, 0..150)
}

fn put(file: &MigFile, piece: &Piece) {
    match piece {
        Piece::Byte(value) => file.put_byte(*value),
        Piece::Be16(value) => file.put_be16(*value),
        Piece::Be32(value) => file.put_be32(*value),
        Piece::Be64(value) => file.put_be64(*value),
        Piece::Bytes(bytes) => file.put(bytes),
        Piece::Async(bytes) => file.put_async(piece_of(bytes), false),
        Piece::Flush => file.flush(),
    }
}

fn piece_of(bytes: &[u8]) -> IoVec {
    IoVec::from_static(bytes.to_vec().leak())
}

fn check_get(file: &MigFile, piece: &Piece) {
    match piece {
        Piece::Byte(value) => assert_eq!(file.get_byte(), *value),
        Piece::Be16(value) => assert_eq!(file.get_be16(), *value),
        Piece::Be32(value) => assert_eq!(file.get_be32(), *value),
        Piece::Be64(value) => assert_eq!(file.get_be64(), *value),
        Piece::Bytes(bytes) | Piece::Async(bytes) => {
            let mut got = vec![0; bytes.len()];
            assert_eq!(file.get(&mut got), bytes.len());
            assert!(got == *bytes);
        }
        Piece::Flush => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn bytes_that_are_put_are_read_back(pieces in pieces(), step in 1..5000usize) {
        let (file, sink) = writer();
        for piece in &pieces {
            put(&file, piece);
        }
        let position = file.position();
        prop_assert_eq!(file.total_transferred(), position as i64);
        prop_assert_eq!(file.rate_used(), position as i64);
        let bytes = sink.contents();
        prop_assert_eq!(bytes.len() as u64, position);
        let file = trickle(&bytes, step);
        for piece in &pieces {
            check_get(&file, piece);
        }
        prop_assert_eq!((file.error(), file.position()), (0, position));
        file.get_byte();
        prop_assert_eq!(file.error(), -libc::EIO);
    }
}

#[test]
fn read_past_the_end_returns_zeros_and_latches_the_offset() {
    let file = trickle(&[1, 2, 3], 8);
    assert_eq!(file.get_be32(), 0x0102_0300);
    assert_eq!((file.error(), file.get_be64()), (-libc::EIO, 0));
    assert_eq!(file.status().first_error().unwrap().offset(), Some(3));
}

#[test]
fn peek_moves_nothing_and_reaches_to_the_end_of_the_buffer() {
    let bytes: Vec<u8> = (0..BUFFER_SIZE + 10).map(|at| at as u8).collect();
    let file = trickle(&bytes, 100);
    assert_eq!(file.peek(4, 200), 4);
    assert_eq!(file.peek_byte(200), 200);
    assert_eq!(file.peek(BUFFER_SIZE, 0), BUFFER_SIZE);
    assert_eq!(file.peek(1, BUFFER_SIZE), 0);
    assert_eq!(file.position(), 0);
    file.skip(BUFFER_SIZE + 1);
    assert_eq!(file.position(), 0, "more than is there is not passed over");
    file.skip(5);
    assert_eq!((file.get_byte(), file.error()), (5, 0));
}

#[test]
fn first_error_stays_and_stops_puts() {
    let (file, sink) = writer();
    file.put_be32(1);
    file.set_error(-libc::ENOSPC);
    file.set_error_detail(Error::invalid("later"));
    file.put_be32(2);
    assert_eq!(file.error(), -libc::ENOSPC);
    assert_eq!(file.close().unwrap_err().code(), -libc::ENOSPC);
    assert_eq!(sink.contents(), [0, 0, 0, 1], "what was put before is written");
}

#[test]
fn failed_write_is_latched_and_returned_by_close() {
    let full = Arc::new(Full::default());
    let file = MigFile::new(full.clone(), true);
    file.put(&[1; 10]);
    let error = file.close().unwrap_err();
    assert_eq!((error.errno(), error.code(), full.closed.load(SeqCst)), (libc::ENOSPC, -libc::EIO, 1));
    assert!(error.message().contains("No space left"), "{error}");
}

#[test]
fn rate_limit_counts_puts_and_accounted_bytes_of_a_window() {
    let (file, _sink) = writer();
    file.status().set_rate_limit(10);
    file.put(&[0; 8]);
    assert!(!file.rate_limit_reached());
    file.status().account_rate(3);
    assert!(file.rate_limit_reached());
    file.reset_rate();
    assert!(!file.rate_limit_reached());
    file.put(&[0; 11]);
    assert!(file.rate_limit_reached());
    file.status().set_rate_limit(0);
    assert!(!file.rate_limit_reached(), "0 is no limit");
}

#[test]
fn shutdown_latches_an_error_before_the_channel_ends() {
    let file = MigFile::new(Arc::new(Full { writes_left: 9.into(), ..Full::default() }), true);
    file.shutdown().unwrap();
    assert!(file.rate_limit_reached());
    assert_eq!(file.error(), -libc::EIO);
    assert_eq!(trickle(&[1], 1).shutdown().unwrap_err().errno(), libc::ENOSYS);
}

#[test]
fn wrong_direction_is_an_error() {
    let file = trickle(&[1], 1);
    file.put_byte(1);
    assert_eq!(file.error(), -libc::EBADF);
    let (file, _sink) = writer();
    assert_eq!((file.get_byte(), file.error()), (0, -libc::EBADF));
}

#[test]
fn collected_bytes_move_to_another_file() {
    let (from, _) = writer();
    let (to, sink) = writer();
    from.put(&[1, 2, 3]);
    assert_eq!((to.put_buffered(&from), to.put_buffered(&from)), (3, 0));
    let room = from.reserve(4).expect("there is room");
    assert!(!room.is_null());
    assert!(from.reserve(BUFFER_SIZE).is_none());
    from.commit(4);
    assert_eq!(from.position(), 7);
    to.flush();
    assert_eq!(sink.contents(), [1, 2, 3]);
}

#[test]
fn dropped_input_is_read_from_the_channel_again_and_output_stays() {
    let file = trickle(b"abcdef", 3);
    assert_eq!(file.get_byte(), b'a');
    file.drop_input();
    assert_eq!((file.get_byte(), file.error()), (b'd', 0));
    let (file, sink) = writer();
    file.put(b"kept");
    file.drop_input();
    file.flush();
    assert_eq!(sink.contents(), b"kept");
}
