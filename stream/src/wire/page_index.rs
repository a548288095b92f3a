// SPDX-License-Identifier: LGPL-2.1-or-later
//! The index of a stream's pages. In a file beside the snapshot, it spares a lazy restore the reading of all page records.
//! It is the library's own.
//!
//! ```text
//! magic "SVMINDX1", page size(be32), offset of the stream in its file(be64)
//! state of the file: length(be64), inode(be64), last change of its bytes(be64), last change of anything(be64), in ns
//! number(be32) of ranges with records, each: offset in the stream(be64), length(be64)
//! number(be32) of blocks, each: name, length(be64), number(be64) of runs, each: first page(be64), count(be64), place(be64)
//! XXH3 (128 bits) of all bytes before
//! ```
//! A place is the byte that fills the pages of the run, or an offset in the stream with bit 63 set: the contents of the first
//! page. Each further page follows behind a header of 8 bytes. Pages in no run are zero.
//!
//! The hash detects damage. It does not protect from an attacker: a writer of the index determines the guest's memory, as
//! a writer of the snapshot does.

use super::io::{Cut, Input, Output};
use super::limits::NAME_MAX;
use std::collections::HashSet;
use std::fs::Metadata;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use xxhash_rust::xxh3::xxh3_128;

/// First bytes of an index.
const MAGIC: [u8; 8] = *b"SVMINDX1";
/// Bytes of the hash at the end.
const HASH: usize = 16;
/// Bytes of a run.
const RUN: usize = 24;
/// Bytes of a range.
const RANGE: usize = 16;
/// Bytes of the header between two pages of a run.
pub const HEADER: u64 = 8;

/// The content of a page: a byte that fills it, or an offset in the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place(u64);

impl Place {
    const AT: u64 = 1 << 63;
    /// A page of zeros.
    pub const ZERO: Self = Self(0);

    /// A page that is filled with a byte.
    pub fn filled(byte: u8) -> Self {
        Self(byte.into())
    }

    /// A page whose content is at an offset of the stream.
    pub fn at(offset: u64) -> Self {
        Self(offset | Self::AT)
    }

    /// The offset, or the byte.
    pub fn get(self) -> Result<u64, u8> {
        if self.0 & Self::AT != 0 { Ok(self.0 & !Self::AT) } else { Err(self.0 as u8) }
    }

    /// The place of the page that is `pages` behind this one in a run.
    pub fn ahead(self, pages: u64, page_size: u64) -> Self {
        self.get().map_or(self, |offset| Self::at(offset + pages * (page_size + HEADER)))
    }
}

/// Consecutive pages that follow each other in the stream, or that are filled with the same byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Number of the first page within its block.
    pub page: u64,
    /// Number of pages.
    pub count: u64,
    /// The place of the first page.
    pub place: Place,
}

impl Run {
    /// The number of the page behind the run.
    pub fn end(&self) -> u64 {
        self.page + self.count
    }

    /// The part of the run from a page of it on.
    pub fn from(&self, page: u64, page_size: u64) -> Self {
        let skipped = page - self.page;
        Self { page, count: self.count - skipped, place: self.place.ahead(skipped, page_size) }
    }
}

/// The last copy of each page of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockPages {
    /// Name of the block.
    pub name: String,
    /// Size of the block in bytes.
    pub length: u64,
    /// In ascending order. Pages in no run are zero.
    pub runs: Vec<Run>,
}

/// What shows whether a file was changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileState {
    /// Length in bytes.
    pub length: u64,
    /// Number of the inode.
    pub inode: u64,
    /// Last change of the bytes, in ns.
    pub modified: i64,
    /// Last change of the bytes, the name or the attributes, in ns. A program can't set it.
    pub changed: i64,
}

impl FileState {
    /// Longest time in ns for which a file system may give changes the same time: a tick of the kernel's clock.
    pub const TICK: i64 = 20_000_000;

    /// Whether a change at `now`, in ns, would give the file another time than it has. Only the index of such a file is of use.
    pub fn is_settled(&self, now: i64) -> bool {
        now.saturating_sub(self.changed) > Self::TICK
    }
}

impl From<&Metadata> for FileState {
    fn from(data: &Metadata) -> Self {
        let time = |seconds: i64, ns: i64| seconds.wrapping_mul(1_000_000_000).wrapping_add(ns);
        let (modified, changed) = (time(data.mtime(), data.mtime_nsec()), time(data.ctime(), data.ctime_nsec()));
        Self { length: data.len(), inode: data.ino(), modified, changed }
    }
}

/// The index of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageIndex {
    /// Size of a page in bytes.
    pub page_size: u32,
    /// Offset of the stream in its file.
    pub base: u64,
    /// The file that it belongs to.
    pub file: FileState,
    /// Ranges of the stream that have only records of pages, in ascending order.
    pub records: Vec<Range<u64>>,
    /// All blocks.
    pub blocks: Vec<BlockPages>,
}

/// Reads a number of entries of at least `size` bytes each. There can't be more than the input has bytes for.
fn get_count(input: &mut &[u8], number: u64, size: usize) -> Result<usize, String> {
    let most = input.len() / size;
    match usize::try_from(number).ok().filter(|number| *number <= most) {
        Some(number) => Ok(number),
        None => Err(format!("it has {number} entries where at most {most} fit")),
    }
}

impl PageIndex {
    /// Returns the bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let runs: usize = self.blocks.iter().map(|block| block.runs.len()).sum();
        let mut out = Vec::with_capacity(256 + RANGE * self.records.len() + RUN * runs);
        out.put_array(MAGIC);
        out.put_be32(self.page_size);
        let FileState { length, inode, modified, changed } = self.file;
        for number in [self.base, length, inode, modified as u64, changed as u64] {
            out.put_be64(number);
        }
        out.put_be32(self.records.len() as u32);
        for range in &self.records {
            out.put_be64(range.start);
            out.put_be64(range.end - range.start);
        }
        out.put_be32(self.blocks.len() as u32);
        for block in &self.blocks {
            out.put_name(block.name.as_bytes());
            out.put_be64(block.length);
            out.put_be64(block.runs.len() as u64);
            for run in &block.runs {
                out.put_be64(run.page);
                out.put_be64(run.count);
                out.put_be64(run.place.0);
            }
        }
        let hash = xxh3_128(&out);
        out.put_array(hash.to_be_bytes());
        out
    }

    /// Whether a file that begins with these bytes is an index, possibly a damaged one.
    pub fn is_index(start: &[u8]) -> bool {
        start.starts_with(&MAGIC)
    }

    /// Reads the bytes of a file. They may be hostile: what is returned has only pages within their blocks, and places within
    /// `records` and the file.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let Some((body, hash)) = bytes.split_last_chunk::<HASH>() else { return Err("it is cut off".into()) };
        if !body.starts_with(&MAGIC) {
            return Err(format!("it does not begin with '{}'", MAGIC.escape_ascii()));
        }
        if xxh3_128(body).to_be_bytes() != *hash {
            return Err("it is damaged or cut off: its bytes do not have the hash at its end".into());
        }
        let mut input = &body[MAGIC.len()..];
        let index = Self::decode_body(&mut input)?;
        if !input.is_empty() {
            return Err(format!("it has {} bytes too many", input.len()));
        }
        index.check()?;
        Ok(index)
    }

    fn decode_body(input: &mut &[u8]) -> Result<Self, String> {
        let cut = |Cut(what)| format!("it ends before {what}");
        let page_size = input.get_be32("the page size").map_err(cut)?;
        let mut number = |what| input.get_be64(what).map_err(cut);
        let base = number("the offset of the stream")?;
        let file = FileState {
            length: number("the length of the file")?,
            inode: number("the inode")?,
            modified: number("a time")? as i64,
            changed: number("a time")? as i64,
        };
        let count = input.get_be32("the number of ranges").map_err(cut)?;
        let mut records = Vec::with_capacity(get_count(input, count.into(), RANGE)?);
        for _ in 0..count {
            let start = input.get_be64("a range").map_err(cut)?;
            let length = input.get_be64("a range").map_err(cut)?;
            let end = start.checked_add(length).ok_or("a range of records does not end")?;
            records.push(start..end);
        }
        let count = input.get_be32("the number of blocks").map_err(cut)?;
        let mut blocks = Vec::with_capacity(get_count(input, count.into(), 1 + 8 + 8)?);
        for _ in 0..count {
            let name = input.get_name("the name of a block").map_err(cut)?;
            let name = std::str::from_utf8(name).map_err(|_| "the name of a block is not UTF-8")?.to_owned();
            let length = input.get_be64("the length of a block").map_err(cut)?;
            let count = input.get_be64("the number of runs").map_err(cut)?;
            let mut runs = Vec::with_capacity(get_count(input, count, RUN)?);
            for _ in 0..count {
                let page = input.get_be64("a run").map_err(cut)?;
                let count = input.get_be64("a run").map_err(cut)?;
                runs.push(Run { page, count, place: Place(input.get_be64("a run").map_err(cut)?) });
            }
            blocks.push(BlockPages { name, length, runs });
        }
        Ok(Self { page_size, base, file, records, blocks })
    }

    fn check(&self) -> Result<(), String> {
        let page_size = u64::from(self.page_size);
        if !page_size.is_power_of_two() {
            return Err(format!("{page_size} is not the size of a page"));
        }
        let stream = self.file.length.checked_sub(self.base).ok_or("the stream begins behind the end of its file")?;
        let mut end = 0;
        for range in &self.records {
            if range.start < end || range.is_empty() || range.end > stream || range.end >= Place::AT {
                return Err(format!("its records at 0x{:x} are not in order, or not in the file", range.start));
            }
            end = range.end;
        }
        let mut names = HashSet::new();
        for block in &self.blocks {
            if block.name.len() > NAME_MAX || !names.insert(&*block.name) {
                return Err("two blocks have the same name".into());
            }
            let mut from = 0;
            for run in &block.runs {
                let end = run.page.checked_add(run.count).filter(|end| *end <= block.length.div_ceil(page_size));
                let (Some(end), true) = (end, run.page >= from && run.count > 0) else {
                    return Err(format!("its pages from {} on are not in order, or not in the block", run.page));
                };
                from = end;
                self.check_place(run)?;
            }
        }
        Ok(())
    }

    fn check_place(&self, run: &Run) -> Result<(), String> {
        let Ok(offset) = run.place.get() else {
            return match run.place.0 {
                1..=0xff => Ok(()),
                other => Err(format!("{other} is not the content of a page")),
            };
        };
        let stride = u64::from(self.page_size) + HEADER;
        let range = &self.records.get(self.records.partition_point(|range| range.end <= offset));
        // A header precedes each page.
        let length = run.count.checked_mul(stride).and_then(|length| length.checked_sub(HEADER));
        let end = length.and_then(|length| offset.checked_add(length));
        let fits = range.zip(end).is_some_and(|(range, end)| range.start + HEADER <= offset && end <= range.end);
        if fits { Ok(()) } else { Err(format!("a page at 0x{offset:x} is not among the records")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn index() -> PageIndex {
        let run = |page, count, place| Run { page, count, place };
        let first = vec![run(0, 3, Place::at(108)), run(5, 2, Place::filled(7)), run(8, 1, Place::at(20008))];
        let block = |name: &str, length, runs| BlockPages { name: name.into(), length, runs };
        PageIndex {
            page_size: 4096,
            base: 10,
            file: FileState { length: 40000, inode: 12, modified: 1 << 60, changed: -5 },
            records: vec![100..100 + 3 * 4104, 20000..30000],
            blocks: vec![block("pc.ram", 9 * 4096, first), block("", 100, Vec::new())],
        }
    }

    #[test]
    fn file_is_settled_after_a_tick() {
        let state = FileState { changed: 1000, ..FileState::default() };
        assert!(
            !state.is_settled(0)
                && !state.is_settled(1000 + FileState::TICK)
                && state.is_settled(1001 + FileState::TICK)
        );
        assert!(!FileState { changed: i64::MAX, ..state }.is_settled(i64::MIN));
    }

    fn sealed(body: &[u8]) -> Vec<u8> {
        [body, &xxh3_128(body).to_be_bytes()].concat()
    }

    #[test]
    fn decoded_index_equals_the_encoded() {
        assert_eq!(PageIndex::decode(&index().encode()), Ok(index()));
        assert_eq!((Place::default().get(), Place::ZERO), (Err(0), Place::filled(0)));
        assert_eq!(
            (Place::filled(7).get(), Place::at(0).get(), Place::at(1 << 40).get()),
            (Err(7), Ok(0), Ok(1 << 40))
        );
        assert_eq!(Place::at(5).ahead(2, 4096), Place::at(5 + 2 * 4104));
        let part = Run { page: 3, count: 5, place: Place::at(8) }.from(5, 4096);
        assert_eq!(part, Run { page: 5, count: 3, place: Place::at(8 + 2 * 4104) });
    }

    #[test]
    fn pages_outside_of_their_block_or_of_the_records_are_refused() {
        let refused = |change: fn(&mut PageIndex), reason: &str| {
            let mut index = index();
            change(&mut index);
            let error = PageIndex::decode(&index.encode()).unwrap_err();
            assert!(error.contains(reason), "{error}");
        };
        refused(|index| index.page_size = 4095, "not the size of a page");
        refused(|index| index.base = 40001, "behind the end");
        refused(|index| index.records[1] = 12411..20000, "not in order");
        refused(|index| index.records[1].end = 39991, "not in the file");
        refused(|index| index.blocks[1].name = "pc.ram".into(), "same name");
        refused(|index| index.blocks[0].length -= 4096, "not in the block");
        refused(|index| index.blocks[0].runs[1].page = 2, "not in order");
        refused(|index| index.blocks[0].runs[1].count = u64::MAX, "not in the block");
        refused(|index| index.blocks[0].runs[1].place = Place::ZERO, "not the content");
        refused(|index| index.blocks[0].runs[1].place = Place(256), "not the content");
        refused(|index| index.blocks[0].runs[0].place = Place::at(107), "not among the records");
        refused(|index| index.blocks[0].runs[0].place = Place::at(109), "not among the records");
        refused(|index| index.blocks[0].runs[2].place = Place::at(u64::MAX), "not among the records");
        for (bytes, reason) in [(&b"short"[..], "cut off"), (&[0; 30], "does not begin")] {
            assert!(PageIndex::decode(bytes).unwrap_err().contains(reason));
        }
        let bytes = index().encode();
        let body = &bytes[..bytes.len() - HASH];
        assert!(PageIndex::decode(&sealed(&body[..body.len() - 1])).is_err());
        assert!(PageIndex::decode(&sealed(&[body, &[0]].concat())).unwrap_err().contains("too many"));
    }

    proptest! {
        #[test]
        fn damage_is_detected(at in any::<prop::sample::Index>(), bit in 0..8u32, end in any::<prop::sample::Index>()) {
            let good = index().encode();
            let mut bytes = good.clone();
            bytes[at.index(good.len())] ^= 1 << bit;
            prop_assert!(PageIndex::decode(&bytes).is_err());
            prop_assert!(PageIndex::decode(&good[..end.index(good.len())]).is_err());
        }

        /// Whoever makes an index can also make its hash.
        #[test]
        fn any_bytes_with_a_good_hash_are_refused_or_a_valid_index(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        ) {
            let mut bytes = index().encode();
            bytes.truncate(bytes.len() - HASH);
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let bytes = sealed(&bytes);
            if let Ok(index) = PageIndex::decode(&bytes) {
                prop_assert_eq!(index.check(), Ok(()));
                prop_assert_eq!(index.encode(), bytes);
            }
        }
    }
}
