// SPDX-License-Identifier: LGPL-2.1-or-later
//! Pages over several connections from RAM to RAM, and packets with wrong contents.

use crate::channel::{Channel, fd::FdChannel};
use crate::error::{Error, Result};
use crate::file::MigFile;
use crate::ram::block::BlockInfo;
use crate::ram::tracker::Log;
use crate::ram::{Options, Ram};
use crate::savevm::connections::{Compression, Connections, Format, Settings};
use crate::savevm::save::{self, Completion, Disks};
use crate::savevm::{Vm, load};
use crate::sys::{IoVec, OwnMemory, SendBuffer, Span};
use crate::wire::multifd::{FLAG_SYNC, Head, Method, PACKET_PAGES_SIZE, Packet, head_len};
use proptest::prelude::*;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const PAGE: usize = 4096;
const PAGES: [usize; 2] = [700, 9];

/// One end of the connections of a test.
struct Ends {
    settings: Settings,
    channels: Vec<Arc<dyn Channel>>,
    error: Mutex<Option<Error>>,
    received: AtomicU64,
}

impl Connections for Ends {
    fn settings(&self) -> Settings {
        self.settings
    }
    fn channels(&self) -> Result<Vec<Arc<dyn Channel>>> {
        Ok(self.channels.clone())
    }
    fn failed(&self, error: Error) {
        self.error.lock().unwrap().get_or_insert(error);
    }
    fn unsettled(&self, error: Error) {
        self.failed(error);
    }
    fn settle(&self) -> Result<()> {
        Ok(())
    }
    fn unsettled_error(&self) -> Option<Error> {
        None
    }
    fn error(&self) -> Option<Error> {
        self.error.lock().unwrap().clone()
    }
    fn is_abandoned(&self) -> bool {
        false
    }
    fn received(&self, _: usize, bytes: u64) {
        self.received.fetch_add(bytes, Relaxed);
    }
    fn set_within(&self, _: usize, _: bool) {}
    fn set_late(&self, _: Option<usize>) {}
}

fn settings(count: u32, compression: Compression, format: Format) -> Settings {
    Settings { count, compression, level: 1, format, stall: Duration::from_secs(20) }
}

const FORMATS: [Format; 3] = [
    Format { zero_in_packets: false, flush_records: false },
    Format { zero_in_packets: false, flush_records: true },
    Format { zero_in_packets: true, flush_records: true },
];

fn pair() -> (Arc<dyn Channel>, Arc<dyn Channel>) {
    let (near, far) = UnixStream::pair().unwrap();
    let channel = |end: UnixStream, writable| -> Arc<dyn Channel> {
        let channel = FdChannel::new(end.into(), writable).unwrap();
        channel.set_stall_limit(Some(Duration::from_secs(20)));
        Arc::new(channel)
    };
    (channel(near, true), channel(far, false))
}

/// Two ends with `settings.count` connections.
fn ends(settings: Settings) -> (Arc<Ends>, Arc<Ends>) {
    let (near, far) = (0..settings.count).map(|_| pair()).unzip();
    let end = |channels| Arc::new(Ends { settings, channels, error: Mutex::default(), received: AtomicU64::new(0) });
    (end(near), end(far))
}

struct Machine {
    vm: Arc<Vm>,
    ram: Arc<Ram>,
    memories: Vec<OwnMemory>,
}

impl Machine {
    fn new(connections: &Arc<Ends>) -> Self {
        let vm = Arc::new(Vm::default());
        let ram = Ram::new(&vm, Options { log: Log::Marks, ..Options::default() }, None).unwrap();
        let memories: Vec<_> = PAGES.iter().map(|pages| OwnMemory::new(pages * PAGE).unwrap()).collect();
        for (name, memory) in ["a", "b"].iter().zip(&memories) {
            let (name, memory) = (name.as_bytes().to_vec(), memory.memory());
            let info = BlockInfo { name, memory, page_size: 0, guest_address: 0, shared: false, opaque: 0 };
            ram.add_block(info).unwrap();
        }
        vm.slot.set_connections(Some(Arc::clone(connections) as _));
        Self { vm, ram, memories }
    }

    fn content(&self, block: usize) -> Vec<u8> {
        let memory = self.memories[block].memory();
        let mut bytes = vec![0; memory.len()];
        memory.read(0, &mut bytes);
        bytes
    }

    fn write(&self, block: usize, offset: usize, bytes: &[u8]) {
        let memory = self.memories[block].memory();
        memory.write(offset, bytes);
        self.ram.set_dirty(memory.address() + offset, bytes.len());
    }
}

/// Half of it can be compressed.
fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..len)
        .map(|at| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if at / 64 % 2 == 0 { (state >> 56) as u8 } else { (at / 512) as u8 }
        })
        .collect()
}

/// Migrates memory that changes between the rounds.
fn migrate(settings: Settings, expected: Option<Compression>) -> (Machine, Machine, Result<()>) {
    let (near, far) = ends(settings);
    let far = match expected {
        None => far,
        Some(compression) => Arc::new(Ends {
            settings: Settings { compression, ..settings },
            channels: far.channels.clone(),
            error: Mutex::default(),
            received: AtomicU64::new(0),
        }),
    };
    let (source, target) = (Machine::new(&near), Machine::new(&far));
    target.memories[0].memory().fill(0, PAGES[0] * PAGE, 0xee);
    source.write(0, 3 * PAGE, &content(600 * PAGE, 1));
    source.write(1, 0, &content(9 * PAGE, 2));
    let (main, end) = pair();
    let vm = Arc::clone(&target.vm);
    let loading = thread::spawn(move || load::stream(&vm, &MigFile::new(end, false)).map(drop));
    let file = MigFile::new(main, true);
    save::header(&source.vm, &file);
    let _ = save::setup(&source.vm, &file);
    for round in 0..4 {
        for _ in 0..1000 {
            if save::iterate(&source.vm, &file, false).is_ok_and(|round| round != save::Round::Again) {
                break;
            }
        }
        source.write(0, (5 + round) * PAGE, &content(100 * PAGE, round as u64));
        source.write(0, 400 * PAGE, &[0; 7 * PAGE]);
    }
    let _ = save::complete_precopy(&source.vm, &file, Completion::All(Disks::Keep));
    file.put_byte(0);
    file.flush();
    save::cleanup(&source.vm);
    drop(file);
    let loaded = loading.join().unwrap();
    let error = far.error.lock().unwrap().clone().or(near.error.lock().unwrap().clone());
    (source, target, error.map_or(loaded, Err))
}

#[test]
fn memory_arrives_over_any_number_of_connections_in_every_format() {
    for format in FORMATS {
        for count in [2, 5] {
            let (source, target, result) = migrate(settings(count, Compression::None, format), None);
            result.unwrap();
            for block in 0..2 {
                assert!(source.content(block) == target.content(block), "block {block}, {format:?}");
            }
            let counters = |machine: &Machine| {
                (machine.ram.counters.normal.load(Relaxed), machine.ram.counters.zero.load(Relaxed))
            };
            assert_eq!(counters(&source), counters(&target));
            assert!(counters(&target).0 >= 609 && counters(&target).1 >= 98);
        }
    }
}

#[test]
fn switch_to_postcopy_follows_a_sync_of_all_connections() {
    const COUNT: usize = 2;
    for format in FORMATS {
        let (near, far) = ends(settings(COUNT as u32, Compression::None, format));
        let source = Machine::new(&near);
        source.write(0, 0, &content(10 * PAGE, 1));
        let sink = Arc::new(crate::channel::memory::Writer::new());
        let file = MigFile::new(Arc::clone(&sink) as _, true);
        save::setup(&source.vm, &file).unwrap();
        while save::iterate(&source.vm, &file, false).unwrap() == save::Round::Again {}
        file.flush();
        let before = sink.contents().len();
        source.write(0, 0, &content(10 * PAGE, 2));
        while save::iterate(&source.vm, &file, false).unwrap() == save::Round::Again {}
        save::postcopy_prepare(&source.vm, &file).unwrap();
        file.flush();
        // The PART section of QEMU 10.1: the record, if the format has it, and the end of the section.
        let record = if format.flush_records { &0x200_u64.to_be_bytes()[..] } else { &[] };
        let section = [b"\x02\0\0\0\0", record, &0x10_u64.to_be_bytes(), b"\x7e\0\0\0\0"].concat();
        let stream = sink.contents();
        assert!(stream.len() > before && stream.ends_with(&section), "{format:?}: {:?}", &stream[before..]);
        source.ram.sync_for_postcopy(&file).unwrap();
        save::cleanup(&source.vm);
        for channel in &far.channels {
            let (mut last, mut head) = (false, vec![0; head_len(12)]);
            while let Some(count @ 1..) = read_whole(&**channel, &mut head) {
                assert_eq!(count, head.len());
                let packet = Packet::decode(&head, 12).unwrap();
                last = packet.head.sync;
                read_whole(&**channel, &mut vec![0; packet.head.payload as usize]);
            }
            assert!(last, "{format:?}: the last packet has SYNC");
        }
    }
}

/// Fills `bytes`. `None` at an error.
fn read_whole(channel: &dyn Channel, bytes: &mut [u8]) -> Option<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match channel.read(Span::from_slice(&mut bytes[done..])).ok()? {
            0 => break,
            count => done += count,
        }
    }
    Some(done)
}

#[cfg(all(feature = "zlib", feature = "zstd"))]
#[test]
fn compressed_memory_arrives() {
    for compression in [Compression::Zlib, Compression::Zstd, Compression::Auto] {
        for format in FORMATS {
            let (source, target, result) = migrate(settings(3, compression, format), None);
            result.unwrap();
            for block in 0..2 {
                assert!(source.content(block) == target.content(block), "block {block}, {compression:?}, {format:?}");
            }
        }
    }
}

#[cfg(all(feature = "zlib", feature = "zstd"))]
#[test]
fn other_compression_is_an_error_that_says_what_to_set() {
    for (sends, expects) in [
        (Compression::Zstd, Compression::None),
        (Compression::None, Compression::Zlib),
        (Compression::Zlib, Compression::Zstd),
    ] {
        let error = migrate(settings(2, sends, FORMATS[2]), Some(expects)).2.unwrap_err();
        assert!(error.message().contains("set the same compression on both ends"), "{error}");
    }
    assert!(migrate(settings(2, Compression::Zlib, FORMATS[2]), Some(Compression::Auto)).2.is_ok());
}

/// A destination with one connection, to which a test writes packets.
struct Liar {
    target: Machine,
    connection: Arc<dyn Channel>,
    main: Arc<dyn Channel>,
    loading: Option<thread::JoinHandle<Result<()>>>,
    far: Arc<Ends>,
}

impl Liar {
    fn new(compression: Compression) -> Self {
        let mut settings = settings(1, compression, FORMATS[2]);
        settings.stall = Duration::from_millis(300);
        let (near, far) = ends(settings);
        far.channels[0].set_stall_limit(Some(settings.stall));
        let target = Machine::new(&far);
        let (main, end) = pair();
        let vm = Arc::clone(&target.vm);
        let ram = Arc::clone(&target.ram);
        let loading = thread::spawn(move || {
            let _vm = vm;
            ram.load_setup().unwrap();
            let result = ram.load(&MigFile::new(end, false));
            ram.load_cleanup();
            result
        });
        Self { target, connection: Arc::clone(&near.channels[0]), main, loading: Some(loading), far }
    }

    fn send(&self, channel: &dyn Channel, bytes: &[u8]) {
        let mut buffer = SendBuffer::default();
        buffer.bytes().extend_from_slice(bytes);
        let mut pieces: [IoVec; 1] = [buffer.piece(0, bytes.len())];
        let _ = channel.write_all(&mut pieces);
    }

    /// Sends packets, then the record that waits for them and the end of the section. Returns the error.
    fn lie(mut self, bytes: &[u8]) -> Error {
        self.send(&*self.connection, bytes);
        let records = [0x200_u64.to_be_bytes(), 0x10_u64.to_be_bytes()].concat();
        self.send(&*self.main, &records);
        let result = self.loading.take().unwrap().join().unwrap();
        // Nothing was written.
        assert!(self.target.content(0).iter().chain(&self.target.content(1)).all(|byte| *byte == 0));
        self.far.error.lock().unwrap().clone().or(result.err()).expect("an error")
    }
}

fn packet(head: Head, block: &str, offsets: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Packet::encode(&mut bytes, head, block.as_bytes(), offsets, 12);
    bytes
}

fn one_page(payload: u32) -> Head {
    Head { normal: 1, payload, ..Head::default() }
}

#[test]
fn wrong_packets_are_rejected_and_write_nothing() {
    let page = vec![7; PAGE];
    let end = (PAGES[0] * PAGE) as u64;
    let cases = [
        (packet(one_page(4096), "nope", &[0]), "block 'nope', which is not there"),
        (packet(one_page(4096), "a", &[end]), "outside of block 'a'"),
        (packet(one_page(4096), "a", &[u64::MAX - 4095]), "outside of block 'a'"),
        (packet(one_page(4096), "a", &[end - 100]), "not the start of a page"),
        (packet(Head { zero: 1, ..Head::default() }, "b", &[9 * 4096]), "outside of block 'b'"),
        (packet(one_page(4095), "a", &[0]), "a payload of 4095 bytes for 1 pages"),
        (b"QEVM and so on".repeat(100), "expected 0x11223344"),
    ];
    for (bytes, text) in cases {
        let error = Liar::new(Compression::None).lie(&[bytes, page.clone()].concat());
        assert!(error.message().contains(text), "{error}");
        assert!(error.message().contains("connection 1 of 1"), "{error}");
    }
}

#[test]
fn silent_and_cut_connections_end_the_load() {
    // No SYNC comes.
    let error = Liar::new(Compression::None).lie(&[]);
    assert!(error.message().contains("brought no pages within 300ms"), "{error}");
    // The packet stops.
    let error = Liar::new(Compression::None).lie(&packet(one_page(4096), "a", &[0])[..100]);
    assert_eq!((error.errno(), error.message().contains("reading a packet")), (libc::ETIMEDOUT, true), "{error}");
    let liar = Liar::new(Compression::None);
    liar.connection.close().unwrap();
    let error = liar.lie(&[]);
    assert!(error.message().contains("the source closed connection 1 of 1"), "{error}");
}

#[test]
fn pages_without_a_sync_are_an_error() {
    let liar = Liar::new(Compression::None);
    let sync = packet(Head { sync: true, ..Head::default() }, "", &[]);
    let zero = packet(Head { zero: 1, ..Head::default() }, "a", &[0]);
    assert_eq!(sync[11] as u32, FLAG_SYNC);
    let error = liar.lie_after(&sync, &zero);
    assert!(error.message().contains("did not wait for"), "{error}");
}

impl Liar {
    /// As `lie`, with packets behind the last SYNC.
    fn lie_after(mut self, bytes: &[u8], behind: &[u8]) -> Error {
        self.send(&*self.connection, bytes);
        self.send(&*self.main, &0x200_u64.to_be_bytes());
        let before = self.far.received.load(Relaxed);
        self.send(&*self.connection, behind);
        while self.far.received.load(Relaxed) < before.max(bytes.len() as u64) + behind.len() as u64 {
            thread::sleep(Duration::from_millis(5));
        }
        thread::sleep(Duration::from_millis(50));
        self.send(&*self.main, &0x10_u64.to_be_bytes());
        let result = self.loading.take().unwrap().join().unwrap();
        self.far.error.lock().unwrap().clone().or(result.err()).expect("an error")
    }
}

#[cfg(all(feature = "zlib", feature = "zstd"))]
#[test]
fn compressed_page_that_inflates_too_far_or_too_little_is_rejected() {
    for (method, compression) in [(Method::Zlib, Compression::Zlib), (Method::Zstd, Compression::Zstd)] {
        for (pages, claimed, text) in [(2, 1, "more than 4096 bytes"), (1, 2, "4096 bytes of content, expected 8192")] {
            let payload = compressed(method, &content(pages * PAGE, 9));
            let head = Head { method, normal: claimed, payload: payload.len() as u32, ..Head::default() };
            let offsets: Vec<u64> = (0..u64::from(claimed)).map(|page| page * 4096).collect();
            let error = Liar::new(compression).lie(&[packet(head, "a", &offsets), payload].concat());
            assert!(error.message().contains(text), "{method:?}: {error}");
        }
        let head = Head { method, normal: 1, payload: 100, ..Head::default() };
        let error = Liar::new(compression).lie(&[packet(head, "a", &[0]), vec![0x55; 100]].concat());
        assert!(error.message().contains("damaged"), "{method:?}: {error}");
    }
}

/// The payload of a packet with this content.
#[cfg(all(feature = "zlib", feature = "zstd"))]
fn compressed(method: Method, bytes: &[u8]) -> Vec<u8> {
    use super::compress::Encoder;
    use crate::ram::block::Block;
    let memory = OwnMemory::new(bytes.len()).unwrap();
    memory.memory().write(0, bytes);
    let info = BlockInfo {
        name: b"x".to_vec(),
        memory: memory.memory(),
        page_size: 0,
        guest_address: 0,
        shared: false,
        opaque: 0,
    };
    let block = Block::new(info, 12).unwrap();
    let compression = if method == Method::Zlib { Compression::Zlib } else { Compression::Zstd };
    let (mut encoder, mut pieces) = (Encoder::new(compression, 1).unwrap(), Vec::new());
    let pages: Vec<usize> = (0..bytes.len() / PAGE).collect();
    encoder.encode(&block, &pages, 12, &mut pieces).unwrap();
    let mut payload = Vec::new();
    pieces.iter().for_each(|piece| piece.append_to(&mut payload));
    payload
}

#[cfg(all(feature = "zlib", feature = "zstd"))]
#[test]
fn level_that_does_not_exist_is_rejected() {
    use super::compress::check;
    assert!(check(Compression::Zlib, 9).is_ok() && check(Compression::Zstd, 20).is_ok());
    assert!(check(Compression::Zlib, 10).unwrap_err().message().contains("1 to 9"));
    assert!(check(Compression::Zstd, 21).unwrap_err().message().contains("1 to 20"));
    assert_eq!(PACKET_PAGES_SIZE, 128 * PAGE);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_bytes_on_a_connection_end_the_load(bytes in proptest::collection::vec(any::<u8>(), 0..6000), keep: bool) {
        let mut bytes = bytes;
        if keep && bytes.len() >= 28 {
            bytes[..8].copy_from_slice(&[0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1]);
            bytes[8..24].fill(0);
        }
        let liar = Liar::new(Compression::Auto);
        liar.send(&*liar.connection, &bytes);
        let _ = liar.connection.close();
        let _ = liar.main.close();
        let mut liar = liar;
        // A SYNC, or nothing at all, is no error.
        let _ = liar.loading.take().unwrap().join().unwrap();
    }
}
