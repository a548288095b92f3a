// SPDX-License-Identifier: LGPL-2.1-or-later
//! Whole migrations with several connections, between two machines with the library's RAM.

use super::machine::Machine;
use super::precopy::{LONG, cancelled, quick, wait_until};
use super::progress::has_stall;
use super::proxy::{Fate, Fault, Place, Proxy};
use savevm::channel::Uri;
use savevm::migration::{
    Compression, Endpoint, Incoming, Info, Migration, MultifdFormat, Outgoing, Owner, Params, StallReason, Status,
};
use savevm::ram::block::BlockInfo;
use savevm::ram::tracker::Log;
use savevm::ram::{Options, Ram};
use savevm::sys::OwnMemory;
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

pub const PAGE: usize = 4096;
pub const PAGES: usize = 3000;
/// Connections of the migrations through a proxy, besides the main one.
const CHANNELS: u32 = 3;

/// The RAM of a machine.
pub struct Memory {
    pub ram: Arc<Ram>,
    memory: OwnMemory,
}

impl Memory {
    /// Replaces the machine's device "ram".
    pub fn new(machine: &Machine) -> Self {
        Self::named(machine, "pc.ram")
    }

    /// With a block of this name.
    pub fn named(machine: &Machine, name: &str) -> Self {
        machine.vm.unregister_name(None, b"ram", 1);
        machine.vm.slot.set_ram(None);
        let ram = Ram::new(&machine.vm, Options { log: Log::Marks, ..Options::default() }, None).unwrap();
        let memory = OwnMemory::new(PAGES * PAGE).unwrap();
        let (name, block) = (name.as_bytes().to_vec(), memory.memory());
        let info = BlockInfo { name, memory: block, page_size: 0, guest_address: 0, shared: false, opaque: 0 };
        ram.add_block(info).unwrap();
        Self { ram, memory }
    }

    pub fn fill(&self, seed: u64) {
        self.memory.memory().write(16 * PAGE, &random(seed));
    }

    pub fn write(&self, page: usize, byte: u8) {
        let memory = self.memory.memory();
        memory.write(page * PAGE + 7, &[byte]);
        self.ram.set_dirty(memory.address() + page * PAGE, PAGE);
    }

    pub fn set(&self, bytes: &[u8]) {
        self.memory.memory().write(0, bytes);
    }

    pub fn content(&self) -> Vec<u8> {
        let mut bytes = vec![0; PAGES * PAGE];
        self.memory.memory().read(0, &mut bytes);
        bytes
    }
}

/// Bytes of which half can be compressed, for half of a memory. They are made once, because that takes long.
fn random(seed: u64) -> Arc<Vec<u8>> {
    static MADE: Mutex<BTreeMap<u64, Arc<Vec<u8>>>> = Mutex::new(BTreeMap::new());
    let make = || {
        let mut state = seed | 1;
        let byte = |at: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if (at / 64).is_multiple_of(2) { (state >> 56) as u8 } else { (at / 512) as u8 }
        };
        Arc::new((0..PAGES / 2 * PAGE).map(byte).collect())
    };
    Arc::clone(MADE.lock().unwrap().entry(seed).or_insert_with(make))
}

pub fn socket_path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("savevm-multifd-{name}-{}", std::process::id()))
}

/// Parameters for so many connections.
pub fn several(channels: u32, compression: Compression) -> Params {
    Params { channels, compression, handshake_timeout: LONG, stall_timeout: Some(LONG), ..quick() }
}

pub fn uri(path: &Path) -> Endpoint {
    Endpoint::Uri(Uri::Unix(path.to_owned()))
}

/// Two machines with the library's RAM.
pub struct Pair {
    pub source: Machine,
    pub target: Machine,
    pub stage: Arc<super::machine::Stage>,
    pub near: Memory,
    pub far: Memory,
    pub path: PathBuf,
}

impl Pair {
    pub fn new(name: &str) -> Self {
        let (source, target, stage) = Machine::two();
        let (near, far) = (Memory::new(&source), Memory::new(&target));
        near.fill(1);
        far.fill(2);
        Self { source, target, stage, near, far, path: socket_path(name) }
    }

    pub fn run(&self, out: Params, into: Params, during: impl Fn(&Outgoing)) -> (Arc<Outgoing>, Arc<Incoming>) {
        let into = Incoming::start(&self.target.vm, uri(&self.path), into).unwrap();
        let out = Outgoing::start(&self.source.vm, uri(&self.path), out).unwrap();
        during(&out);
        (out, into)
    }
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn guest_moves_over_several_connections() {
    for (at, compression) in
        [Compression::None, Compression::Zlib, Compression::Zstd, Compression::Auto].into_iter().enumerate()
    {
        for channels in [2, 4] {
            let pair = Pair::new(&format!("several-{at}-{channels}"));
            let (out, into) = pair.run(several(channels, compression), several(channels, compression), |out| {
                for byte in 0..50 {
                    if out.info().status != Status::Active {
                        break;
                    }
                    pair.near.write(20 + usize::from(byte), byte);
                }
            });
            out.wait_within(LONG).expect("it ends").unwrap();
            into.wait_within(LONG).expect("it ends").unwrap();
            assert!(pair.near.content() == pair.far.content(), "{compression:?}, {channels}");
            assert!(pair.target.host.is_running() && !pair.source.host.is_running());
            assert!(out.info().transferred > 1 << 20 && into.info().transferred > 1 << 20);
            pair.stage.check("several connections");
        }
    }
}

#[test]
fn every_format_is_understood() {
    for format in [MultifdFormat::Qemu72, MultifdFormat::Qemu81, MultifdFormat::Qemu90] {
        for extensions in [true, false] {
            let pair = Pair::new(&format!("format-{format:?}-{extensions}"));
            let params = Params { multifd_format: format, extensions, ..several(3, Compression::None) };
            let (out, into) = pair.run(params.clone(), params, |_| ());
            out.wait_within(LONG).expect("it ends").unwrap();
            into.wait_within(LONG).expect("it ends").unwrap();
            assert!(pair.near.content() == pair.far.content(), "{format:?}");
        }
    }
}

/// Both ends fail with a text that has `part`, and the guest runs on at the source.
fn both_refuse(pair: &Pair, out: Params, into: Params, part: &str) {
    let (out, into) = pair.run(out, into, |_| ());
    let sent = out.wait_within(LONG).expect("it ends").unwrap_err();
    let loaded = into.wait_within(LONG).expect("it ends").unwrap_err();
    for error in [&sent, &loaded] {
        assert!(error.to_string().contains(part), "{:?}: source: {sent}; destination: {loaded}", pair.path);
    }
    assert!(pair.source.host.is_running() && !pair.target.host.is_running());
    assert_eq!(out.info().owner, Owner::Here);
    pair.stage.check("refused");
}

#[test]
fn different_settings_are_errors_on_both_ends() {
    let none = Compression::None;
    for (out, into) in [(4, 2), (2, 4), (1, 4), (4, 1), (0, 2)] {
        let pair = Pair::new(&format!("count-{out}-{into}"));
        both_refuse(&pair, several(out, none), several(into, none), "set the same number of channels on both ends");
    }
    let pair = Pair::new("methods");
    let part = "set the same compression on both ends";
    both_refuse(&pair, several(2, Compression::Zstd), several(2, none), part);
    let pair = Pair::new("methods-2");
    both_refuse(&pair, several(2, Compression::Zlib), several(2, Compression::Zstd), part);
}

#[test]
fn impossible_parameters_are_refused_at_once() {
    let (machine, _, _) = Machine::two();
    let refused = |to: &str, params: Params| {
        let to = Endpoint::Uri(to.parse().unwrap());
        Outgoing::start(&machine.vm, to, params).err().unwrap().to_string()
    };
    let text = refused("unix:/tmp/none", several(4, Compression::None));
    assert!(text.contains("savevm_ram_new"), "{text}");
    let _memory = Memory::new(&machine);
    let text = refused("file:/tmp/none", several(4, Compression::None));
    assert!(text.contains("unix:PATH or tcp:HOST:PORT"), "{text}");
    let text = refused("unix:/tmp/none", several(65, Compression::None));
    assert!(text.contains("at most 64"), "{text}");
    let text = refused("unix:/tmp/none", several(1, Compression::Zstd));
    assert!(text.contains("set channels to 2 or more"), "{text}");
    let text = refused("unix:/tmp/none", Params { compression_level: 10, ..several(2, Compression::Zlib) });
    assert!(text.contains("levels 1 to 9"), "{text}");
}

#[test]
fn connection_that_never_comes_is_an_error_that_says_what_to_set() {
    // A source that announces nothing makes one connection only.
    let pair = Pair::new("missing");
    let into = Params { handshake_timeout: Duration::from_secs(2), ..several(4, Compression::None) };
    let out = Params { extensions: false, ..several(1, Compression::None) };
    let (out, into) = pair.run(out, into, |_| ());
    let error = into.wait_within(LONG).expect("it ends").unwrap_err();
    assert!(error.to_string().contains("0 of 4 further connections arrived"), "{error}");
    assert!(out.wait_within(LONG).expect("it ends").is_err());
    assert!(pair.source.host.is_running() && !pair.target.host.is_running());
}

#[test]
fn strangers_do_not_disturb() {
    let pair = Pair::new("strangers-several");
    let params = several(3, Compression::None);
    let into = Incoming::start(&pair.target.vm, uri(&pair.path), params.clone()).unwrap();
    let strangers: Vec<_> = [&b""[..], b"GET / HTTP/1.0\r\n\r\n", b"\x11\x22\x33\x44\0\0\0\x02", b"QE"]
        .into_iter()
        .map(|bytes| {
            let mut stranger = UnixStream::connect(&pair.path).unwrap();
            stranger.write_all(bytes).unwrap();
            stranger
        })
        .collect();
    let out = Outgoing::start(&pair.source.vm, uri(&pair.path), params).unwrap();
    out.wait_within(LONG).expect("it ends").unwrap();
    into.wait_within(LONG).expect("it ends").unwrap();
    assert!(pair.near.content() == pair.far.content());
    drop(strangers);
}

#[test]
fn cancelled_migration_leaves_no_thread_and_no_descriptor() {
    let pair = Pair::new("cancel-several");
    let before = open_descriptors();
    for at in 0..4 {
        let params = Params { max_bandwidth: 1 << 18, ..several(4, Compression::None) };
        let (out, into) = pair.run(params.clone(), params, |_| thread::sleep(Duration::from_millis(60 * at)));
        if at % 2 == 0 {
            cancelled(&*out, out.cancel());
        } else {
            cancelled(&*into, into.cancel());
        }
        let _ = out.wait_within(LONG).expect("it ends");
        let _ = into.wait_within(LONG).expect("it ends");
        assert!(pair.source.host.is_running() && !pair.target.host.is_running());
        out.end();
        into.end();
    }
    let since = Instant::now();
    // Other tests of this process open descriptors as well.
    while open_descriptors() > before + 40 {
        assert!(since.elapsed() < LONG, "descriptors leak");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The guest has moved, and the source knows only that it may have.
pub fn assert_moved_unknown(pair: &Pair, out: &Outgoing, what: &str) {
    assert_eq!(out.info().owner, Owner::Unknown, "{what}");
    assert!(pair.target.host.is_running() && !pair.source.host.is_running(), "{what}");
}

/// Where a record begins or ends on a further connection with plain pages: hello, SYNC of setup, head, payload.
const PLACES: [usize; 8] = [0, 64, 64 + 12, 64 + 1344, 64 + 2 * 1344, 64 + 2 * 1344 + 4096, 500_000, 1_000_001];

/// One migration whose connection number `which` meets its fate.
fn broken(fate: Fate, which: usize, at: usize) {
    let pair = Pair::new(&format!("broken-{fate:?}-{which}-{at}"));
    let way = socket_path(&format!("way-{fate:?}-{which}-{at}"));
    let mut params = several(3, Compression::None);
    params.stall_timeout = Some(Duration::from_secs(2));
    params.handshake_timeout = Duration::from_secs(2);
    let into = Incoming::start(&pair.target.vm, uri(&pair.path), params.clone()).unwrap();
    let fault = Fault { fate, connection: which, back: false, place: Place::Byte(at) };
    let proxy = Proxy::start(way.clone(), &pair.path, CHANNELS, Some(fault), false);
    let out = Outgoing::start(&pair.source.vm, uri(&way), params).unwrap();
    let sent = out.wait_within(LONG).expect("it ends");
    let loaded = into.wait_within(LONG).expect("it ends");
    let what = format!("{fate:?} of connection {which} at {at}: {sent:?}, {loaded:?}");
    assert!(pair.stage.guests() <= 1, "{what}");
    match (&sent, &loaded) {
        (Ok(()), Ok(())) if !proxy.is_hit() => assert!(pair.near.content() == pair.far.content(), "{what}"),
        // A byte of a page, or a reserved one of a head, does not show.
        (Ok(()), Ok(())) => assert!(matches!(fate, Fate::Flip), "{what}"),
        (Err(_), Err(_)) => {
            assert_eq!(out.info().owner, Owner::Here, "{what}");
            assert!(pair.source.host.is_running(), "{what}");
        }
        // On a busy machine the verdict may come later than the short limit.
        (Err(_), Ok(())) => assert_moved_unknown(&pair, &out, &what),
        _ => panic!("{what}"),
    }
    pair.stage.check(&what);
}

#[test]
fn broken_connection_leaves_one_owner() {
    for fate in [Fate::Cut, Fate::Block, Fate::Flip] {
        // The main connection has its own tests; here it ends while the others have work.
        for (which, places) in [(0, &[0, 8, 64, 150][..]), (1, &PLACES), (3, &PLACES)] {
            thread::scope(|scope| {
                places.iter().for_each(|at| drop(scope.spawn(move || broken(fate, which, *at))));
            });
        }
    }
}

#[test]
fn damage_at_random_places_leaves_one_owner() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..4 {
        thread::scope(|scope| {
            for which in 1..4 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let at = (state % 1_500_000) as usize;
                let fate = if state & 0x100_0000 == 0 { Fate::Flip } else { Fate::Cut };
                scope.spawn(move || broken(fate, which, at));
            }
        });
    }
}

#[test]
fn destination_shows_how_much_has_arrived() {
    for channels in [1, 3] {
        let pair = Pair::new(&format!("percent-{channels}"));
        pair.near.set(&(0..PAGES * PAGE).map(|at| (at / 3 % 251) as u8 + 1).collect::<Vec<_>>());
        let params = Params { max_bandwidth: 100_000, ..several(channels, Compression::None) };
        let (out, into) = pair.run(params.clone(), params, |_| ());
        let mut last = 0;
        let looked = || format!("{:?}", into.info());
        wait_until(|| into.info().percent > 0, looked);
        out.set_params(&Params { max_bandwidth: 0, ..several(channels, Compression::None) }).unwrap();
        loop {
            let info = into.info();
            assert!(info.percent >= last, "{info:?}");
            assert_eq!(info.percent == 100, info.status == Status::Completed, "{info:?}");
            last = info.percent;
            if info.status.is_final() {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(last, 100);
        out.wait_within(LONG).expect("it ends").unwrap();
    }
}

/// Whether the reason of a stall begins with this text and names this connection of three.
fn names(info: &Info, text: &str, number: usize) -> bool {
    let places = info.stall.text.strip_prefix(text).and_then(|places| places.split_once(" of 3 for "));
    let list = places.and_then(|(list, _)| list.strip_prefix(" over connection"));
    list.is_some_and(|list| list.trim_start_matches('s').split(',').any(|one| one.trim() == number.to_string()))
}

#[test]
fn a_connection_that_stops_is_named_by_both_ends() {
    let pair = Pair::new("stalled");
    // More than the sockets on the way can hold.
    pair.near.set(&(0..PAGES * PAGE).map(|at| (at / 3 % 251) as u8 + 1).collect::<Vec<_>>());
    let way = socket_path("way-stalled");
    // The reports come long before the stall limit, also on a busy machine.
    let params = Params { stall_timeout: Some(10 * LONG), ..several(3, Compression::None) };
    let into = Incoming::start(&pair.target.vm, uri(&pair.path), params.clone()).unwrap();
    let fault = Fault { fate: Fate::Block, connection: 2, back: false, place: Place::Byte(500_000) };
    let proxy = Proxy::start(way.clone(), &pair.path, CHANNELS, Some(fault), false);
    let out = Outgoing::start(&pair.source.vm, uri(&way), params).unwrap();
    let (near, far) = (&pair.source, &pair.target);
    let state = || format!("{:?}, {:?}, {:?}, {:?}", out.error(), into.error(), out.info(), into.info());
    let has_met = || {
        assert!(!out.info().status.is_final() && !into.info().status.is_final(), "{}", state());
        proxy.is_hit()
    };
    wait_until(has_met, state);
    let number = proxy.number();
    // Others that wait for this one may be named first, and are named as well.
    let reading = "the destination has not read what was sent to it";
    wait_until(|| out.info().stall.reason == StallReason::PeerNotReading && names(&out.info(), reading, number), state);
    let sending = "the source has sent nothing";
    wait_until(
        || into.info().stall.reason == StallReason::PeerNotSending && names(&into.info(), sending, number),
        state,
    );
    assert!(has_stall(near, StallReason::PeerNotReading).is_some_and(|text| text.starts_with(reading)));
    assert!(has_stall(far, StallReason::PeerNotSending).is_some_and(|text| text.starts_with(sending)));
    cancelled(&*out, out.cancel());
    assert!(into.wait_within(LONG).expect("it ends").is_err());
    assert!(near.host.is_running() && !far.host.is_running());
}

#[test]
fn source_that_closes_ends_the_wait_for_a_connection() {
    let pair = Pair::new("abandoned");
    pair.near.set(&(0..PAGES * PAGE).map(|at| (at / 3 % 251) as u8 + 1).collect::<Vec<_>>());
    let way = socket_path("way-abandoned");
    // A SYNC follows each section, and sections end before everything is sent.
    let params = Params {
        stall_timeout: Some(10 * LONG),
        max_bandwidth: 2_000_000,
        multifd_format: MultifdFormat::Qemu72,
        ..several(3, Compression::None)
    };
    let into = Incoming::start(&pair.target.vm, uri(&pair.path), params.clone()).unwrap();
    let fault = Fault { fate: Fate::Block, connection: 2, back: false, place: Place::Byte(200_000) };
    let proxy = Proxy::start(way.clone(), &pair.path, CHANNELS, Some(fault), false);
    let out = Outgoing::start(&pair.source.vm, uri(&way), params).unwrap();
    let sending = StallReason::PeerNotSending;
    wait_until(|| has_stall(&pair.target, sending).is_some(), || format!("{:?}, {:?}", out.info(), into.info()));
    cancelled(&*out, out.cancel());
    let error = into.wait_within(LONG).expect("it ends").unwrap_err();
    let expected = "the source closed the main connection before all pages arrived over connection";
    let expected = format!("{expected} {} of 3", proxy.number());
    assert!(error.message().contains(&expected), "{expected}: {error}");
    assert!(pair.source.host.is_running() && !pair.target.host.is_running());
}

#[cfg(feature = "tls")]
#[test]
fn all_connections_use_tls() {
    use super::certificates::{Authority, Dir};
    use savevm::channel::TlsOptions;
    let dir = Dir::standard(&Authority::new("CA"));
    let tls = TlsOptions {
        dir: dir.path().into(),
        hostname: Some("localhost".into()),
        verify_peer: true,
        allowed_peers: None,
    };
    for compression in [Compression::None, Compression::Zstd] {
        let pair = Pair::new(&format!("tls-{compression:?}"));
        let params = Params { tls: Some(Arc::new(tls.clone())), ..several(3, compression) };
        let (out, into) = pair.run(params.clone(), params, |_| ());
        out.wait_within(LONG).expect("it ends").unwrap();
        into.wait_within(LONG).expect("it ends").unwrap();
        assert!(pair.near.content() == pair.far.content());
        pair.stage.check("several connections with TLS");
    }
}
