// SPDX-License-Identifier: LGPL-2.1-or-later
//! Internal snapshots: finds the machine state that `savevm` wrote to a qcow2 image.
//!
//! The state is written like disk contents after the end of the disk. Each snapshot has a table of its own that maps
//! disk offsets to offsets in the file (QEMU, `docs/interop/qcow2.txt`).

use std::io::{self, Read};
use std::ops::Range;

use super::budget::Budget;

const MAGIC: &[u8] = b"QFI\xfb";
/// The bits of a table entry that hold an offset in the file.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;

/// Returns whether a file that begins with `start` is a qcow2 image.
pub fn is_image(start: &[u8]) -> bool {
    start.starts_with(MAGIC)
}

/// A qcow2 image in memory.
#[derive(Debug)]
pub struct Image<'a> {
    file: &'a [u8],
    cluster_bits: u32,
    extended: bool,
    disk_size: u64,
    snapshots: Vec<Snapshot>,
}

/// One entry of the image's snapshot table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The snapshot's number, as a string.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Size of the machine's state in bytes; 0 if only the disk was saved.
    pub state_size: u64,
    /// Time of the snapshot, in seconds since 1970.
    pub seconds: u32,
    l1: Range<usize>,
    disk_size: u64,
}

/// The offset in the file of each cluster of a state, in order.
#[derive(Clone, Debug)]
pub struct StateMap {
    clusters: Vec<u64>,
    cluster_size: usize,
    size: u64,
}

/// Reads a state whose clusters are scattered over a file.
#[derive(Debug)]
pub struct StateReader<F> {
    file: F,
    map: StateMap,
    at: u64,
}

/// Reads numbers and texts from a part of the file.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or("the image is cut off")?;
        self.0 = rest;
        Ok(bytes)
    }

    fn number(&mut self, size: usize) -> Result<u64, String> {
        Ok(self.bytes(size)?.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn text(&mut self, size: usize) -> Result<String, String> {
        Ok(String::from_utf8_lossy(self.bytes(size)?).into_owned())
    }
}

/// Returns the part of the file from `offset` on.
fn from(file: &[u8], offset: u64) -> Result<Fields<'_>, String> {
    let at = usize::try_from(offset).ok();
    at.and_then(|at| file.get(at..)).map(Fields).ok_or_else(|| format!("an offset beyond the image: {offset:#x}"))
}

impl<'a> Image<'a> {
    /// Reads the header and the snapshot table.
    pub fn open(file: &'a [u8]) -> Result<Self, String> {
        let mut header = from(file, 4)?;
        let version = header.number(4)?;
        header.bytes(12)?;
        let cluster_bits = header.number(4)? as u32;
        let disk_size = header.number(8)?;
        let encryption = header.number(4)?;
        let snapshot_count = from(file, 60)?.number(4)?;
        let snapshots_offset = from(file, 64)?.number(8)?;
        let features = if version >= 3 { from(file, 72)?.number(8)? } else { 0 };
        if !(2..=3).contains(&version) || !(9..=21).contains(&cluster_bits) {
            return Err(format!("qcow2 of version {version} with 2^{cluster_bits} byte clusters"));
        }
        if encryption != 0 {
            return Err("the image is encrypted".into());
        }
        let (external, extended) = (features & 4 != 0, features & 16 != 0);
        if external {
            return Err("the image keeps its data in another file".into());
        }
        let mut table = from(file, snapshots_offset)?;
        let mut snapshots = Vec::new();
        for _ in 0..snapshot_count {
            snapshots.push(snapshot(file, &mut table, disk_size)?);
        }
        Ok(Self { file, cluster_bits, extended, disk_size, snapshots })
    }

    /// Returns the snapshots, in the order of the table.
    pub fn snapshots(&self) -> &[Snapshot] {
        &self.snapshots
    }

    /// Returns the disk's size in bytes.
    pub fn disk_size(&self) -> u64 {
        self.disk_size
    }

    /// Finds the clusters of a snapshot's state. Memory for the list is taken from the budget.
    pub fn state_map(&self, snapshot: &Snapshot, budget: &mut Budget) -> Result<StateMap, String> {
        let cluster_size = 1u64 << self.cluster_bits;
        // A state has no holes and is not compressed, so the file is at least as large.
        if snapshot.state_size > self.file.len() as u64 {
            return Err(format!("a state of {} bytes in a smaller file", snapshot.state_size));
        }
        let entry_bits = if self.extended { 4 } else { 3 };
        let l2_bits = self.cluster_bits - entry_bits;
        let first_l1 = snapshot.disk_size.div_ceil(1 << (self.cluster_bits + l2_bits));
        let mut clusters = Vec::new();
        for cluster in 0..snapshot.state_size.div_ceil(cluster_size) {
            let index = first_l1.saturating_add(cluster >> l2_bits);
            let l1 = &self.file[snapshot.l1.clone()];
            let at = usize::try_from(index).ok().and_then(|index| index.checked_mul(8));
            let entry = at.and_then(|at| l1.get(at..)?.first_chunk());
            let l2 = entry.map_or(0, |entry| u64::from_be_bytes(*entry)) & OFFSET;
            let within = (cluster & ((1 << l2_bits) - 1)) << entry_bits;
            let entry = if l2 == 0 { 0 } else { from(self.file, l2 + within)?.number(8)? };
            if entry & OFFSET == 0 || entry & (COMPRESSED | ZERO) != 0 {
                return Err(format!("cluster {cluster} of the state is not there"));
            }
            if clusters.len() == clusters.capacity() {
                let more = clusters.capacity().max(64);
                budget.take(more * size_of::<u64>()).map_err(|error| error.to_string())?;
                clusters.reserve_exact(more);
            }
            clusters.push(entry & OFFSET);
        }
        Ok(StateMap { clusters, cluster_size: cluster_size as usize, size: snapshot.state_size })
    }
}

/// Reads one entry of the snapshot table.
fn snapshot(file: &[u8], table: &mut Fields<'_>, disk_size: u64) -> Result<Snapshot, String> {
    let before = table.0.len();
    let l1_offset = table.number(8)?;
    let l1_size = table.number(4)?;
    let id_size = table.number(2)? as usize;
    let name_size = table.number(2)? as usize;
    let seconds = table.number(4)? as u32;
    table.bytes(4 + 8)?;
    let mut state_size = table.number(4)?;
    let extra_size = table.number(4)? as usize;
    let mut extra = Fields(table.bytes(extra_size)?);
    let mut disk_size = disk_size;
    if extra_size >= 8 {
        state_size = extra.number(8)?;
    }
    if extra_size >= 16 {
        disk_size = extra.number(8)?;
    }
    let (id, name) = (table.text(id_size)?, table.text(name_size)?);
    let taken = before - table.0.len();
    table.bytes((taken.next_multiple_of(8) - taken).min(table.0.len()))?;
    let start = file.len() - from(file, l1_offset)?.0.len();
    let end = start.saturating_add(l1_size as usize * 8).min(file.len());
    Ok(Snapshot { id, name, state_size, seconds, l1: start..end, disk_size })
}

impl<F: AsRef<[u8]>> StateReader<F> {
    /// Returns a reader of the state at `map` in `file`.
    pub fn new(file: F, map: StateMap) -> Self {
        Self { file, map, at: 0 }
    }
}

impl<F: AsRef<[u8]>> Read for StateReader<F> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.map.size - self.at;
        let cluster_size = self.map.cluster_size as u64;
        let Some(&cluster) = self.map.clusters.get((self.at / cluster_size) as usize) else { return Ok(0) };
        let within = self.at % cluster_size;
        let step = (out.len() as u64).min(left).min(cluster_size - within) as usize;
        let bytes = usize::try_from(cluster + within).ok().and_then(|at| self.file.as_ref().get(at..)?.get(..step));
        let Some(bytes) = bytes else {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the state lies beyond the end of the image"));
        };
        out[..step].copy_from_slice(bytes);
        self.at += step as u64;
        Ok(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns an image with clusters of 512 bytes, a disk that fits one table, and a snapshot of `state`.
    fn image(state: &[u8]) -> Vec<u8> {
        const CLUSTER: usize = 512;
        const SNAPSHOTS: usize = CLUSTER;
        const L1: usize = 2 * CLUSTER;
        const L2: usize = 3 * CLUSTER;
        const DATA: usize = 4 * CLUSTER;
        let mut file = vec![0; DATA + state.len().next_multiple_of(CLUSTER)];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, MAGIC);
        put(4, &3u32.to_be_bytes());
        put(20, &9u32.to_be_bytes());
        put(24, &((CLUSTER * CLUSTER / 8) as u64).to_be_bytes());
        put(60, &1u32.to_be_bytes());
        put(64, &(SNAPSHOTS as u64).to_be_bytes());
        put(SNAPSHOTS, &(L1 as u64).to_be_bytes());
        put(SNAPSHOTS + 8, &2u32.to_be_bytes());
        put(SNAPSHOTS + 12, &[0, 1, 0, 4]);
        put(SNAPSHOTS + 32, &(state.len() as u32).to_be_bytes());
        put(SNAPSHOTS + 40, b"1name");
        put(L1 + 8, &(L2 as u64).to_be_bytes());
        for cluster in 0..state.len().div_ceil(CLUSTER) {
            // The clusters are stored in reverse order.
            let last = state.len().div_ceil(CLUSTER) - 1;
            let at = DATA + (last - cluster) * CLUSTER;
            put(L2 + 8 * cluster, &(1u64 << 63 | at as u64).to_be_bytes());
            let part = &state[cluster * CLUSTER..state.len().min((cluster + 1) * CLUSTER)];
            put(at, part);
        }
        file
    }

    #[test]
    fn reader_joins_the_clusters_of_a_state() {
        let state: Vec<u8> = (0..1300u32).map(|at| (at * 7) as u8).collect();
        let file = image(&state);
        let opened = Image::open(&file).unwrap();
        let snapshot = &opened.snapshots()[0];
        assert_eq!((snapshot.id.as_str(), snapshot.name.as_str(), snapshot.state_size), ("1", "name", 1300));
        let mut read = Vec::new();
        StateReader::new(&file, opened.state_map(snapshot, &mut Budget::default()).unwrap())
            .read_to_end(&mut read)
            .unwrap();
        assert_eq!(read, state);
    }

    #[test]
    fn cut_or_flipped_image_causes_no_panic() {
        let file = image(&[5; 1300]);
        let attempt = |file: &[u8]| {
            let Ok(image) = Image::open(file) else { return };
            for snapshot in image.snapshots() {
                if let Ok(map) = image.state_map(snapshot, &mut Budget::default()) {
                    let read = io::copy(&mut StateReader::new(file, map), &mut io::sink());
                    assert!(read.unwrap_or(0) <= file.len() as u64);
                }
            }
        };
        for end in 0..file.len() {
            attempt(&file[..end]);
        }
        for bit in 0..8 * 4 * 512 {
            let mut flipped = file.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            attempt(&flipped);
        }
    }
}
