// SPDX-License-Identifier: LGPL-2.1-or-later
//! The order in which a guest touched its pages first, as a text file:
//!
//! ```text
//! savevm-working-set 1
//! 1f000 pc.ram
//! ```
//! Each line has an offset in hexadecimal and the name of a block. The file is only a hint. Wrong entries are ignored; they cost
//! time but change no result.

use crate::channel::replace_file;
use crate::error::Result;
use crate::ram::block::{self, Blocks};
use crate::sync::{Mutex, Rank};
use crate::sys::open_at_once;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// First line of the file.
const HEAD: &str = "savevm-working-set 1";
/// Most pages that are recorded and read.
const PAGES_MAX: usize = 1 << 20;
/// Longest line that is read, in bytes.
const LINE_MAX: u64 = 512;

/// A unit: index of its block, and offset.
pub(super) type Unit = (usize, usize);

/// The pages to read first, and the pages that are touched.
pub(super) struct WorkingSet {
    /// From the file of an earlier restore.
    first: Vec<Unit>,
    next: AtomicUsize,
    /// `None` if nothing is recorded.
    recorded: Option<Mutex<Vec<Unit>>>,
    path: Option<PathBuf>,
}

impl WorkingSet {
    /// Reads the file, or records if it does not exist.
    pub fn open(path: Option<&Path>, blocks: &Blocks) -> Self {
        let mut set = Self { first: Vec::new(), next: AtomicUsize::new(0), recorded: None, path: path.map(Into::into) };
        match path.map(|path| (path, open_at_once(path))) {
            None => {}
            Some((path, Ok(file))) => match read(BufReader::new(file), blocks) {
                Ok(units) => set.first = units,
                Err(err) => log::warn!("the working set {} is not used: {err}", path.display()),
            },
            Some((_, Err(err))) if err.kind() == ErrorKind::NotFound => {
                set.recorded = Some(Mutex::new(Rank::WorkingSet, Vec::new()));
            }
            Some((path, Err(err))) => log::warn!("the working set {} is not used: {err}", path.display()),
        }
        set
    }

    /// Whether touched pages are recorded.
    pub fn is_recording(&self) -> bool {
        self.recorded.is_some()
    }

    /// A guest touched a unit that was not in memory.
    pub fn touched(&self, unit: Unit) {
        if let Some(recorded) = &self.recorded {
            let mut recorded = recorded.lock();
            if recorded.len() < PAGES_MAX {
                recorded.push(unit);
            }
        }
    }

    /// The next units to read, at most `most`.
    pub fn take(&self, most: usize) -> &[Unit] {
        let start = self.next.fetch_add(most, Relaxed).min(self.first.len());
        &self.first[start..(start + most).min(self.first.len())]
    }

    /// Writes what was recorded, if anything. The file appears complete or not at all.
    pub fn store(&self, blocks: &Blocks) -> Result<()> {
        let (Some(recorded), Some(path)) = (&self.recorded, &self.path) else { return Ok(()) };
        let units = std::mem::take(&mut *recorded.lock());
        let mut text = format!("{HEAD}\n").into_bytes();
        for (at, offset) in units {
            let name = &blocks[at].info.name;
            if !name.contains(&b'\n') {
                text.extend(format!("{offset:x} ").bytes());
                text.extend(name);
                text.push(b'\n');
            }
        }
        replace_file(path, &text).map_err(|error| {
            let text = format!("the working set: {}", error.message());
            error.with_message(text)
        })
    }
}

fn read(mut from: impl BufRead, blocks: &Blocks) -> io::Result<Vec<Unit>> {
    let mut line = |into: &mut Vec<u8>| {
        into.clear();
        io::Read::take(&mut from, LINE_MAX).read_until(b'\n', into)?;
        if into.pop_if(|last| *last == b'\n').is_none() && into.len() as u64 == LINE_MAX {
            return Err(io::Error::new(ErrorKind::InvalidData, "a line is too long"));
        }
        Ok(())
    };
    let (mut text, mut units) = (Vec::new(), Vec::new());
    line(&mut text)?;
    if text != HEAD.as_bytes() {
        return Err(io::Error::new(ErrorKind::InvalidData, format!("its first line is not '{HEAD}'")));
    }
    while units.len() < PAGES_MAX {
        line(&mut text)?;
        if text.is_empty() {
            break;
        }
        units.extend(parse(&text, blocks));
    }
    Ok(units)
}

/// The unit of a line, if this machine has it.
fn parse(line: &[u8], blocks: &Blocks) -> Option<Unit> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    let (offset, name) = (&line[..space], &line[space + 1..]);
    let offset = usize::from_str_radix(std::str::from_utf8(offset).ok()?, 16).ok()?;
    let (at, block) = block::find(blocks, name)?;
    (offset < block.memory().len()).then(|| (at, offset - offset % block.unit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ram::block::{Block, BlockInfo};
    use crate::sys::OwnMemory;
    use std::fs;
    use std::sync::Arc;

    fn blocks(memory: &OwnMemory) -> Blocks {
        let info = |name: &[u8]| BlockInfo {
            name: name.to_vec(),
            memory: memory.memory(),
            page_size: 0,
            guest_address: 0,
            shared: false,
            opaque: 0,
        };
        Arc::new([b"a b".as_slice(), b"c"].map(|name| Arc::new(Block::new(info(name), 12).unwrap())).into())
    }

    #[test]
    fn recorded_order_is_read_back() {
        let memory = OwnMemory::new(16 << 12).unwrap();
        let blocks = blocks(&memory);
        let path = std::env::temp_dir().join(format!("savevm-working-set-{}", std::process::id()));
        let set = WorkingSet::open(Some(&path), &blocks);
        assert!(set.is_recording() && set.take(9).is_empty());
        let order = [(1, 0x5000), (0, 0xf000), (1, 0)];
        order.iter().for_each(|unit| set.touched(*unit));
        set.store(&blocks).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "savevm-working-set 1\n5000 c\nf000 a b\n0 c\n");
        let set = WorkingSet::open(Some(&path), &blocks);
        assert!(!set.is_recording());
        assert_eq!((set.take(2), set.take(2), set.take(2)), (&order[..2], &order[2..], &[][..]));
        fs::remove_file(&path).unwrap();
        assert!(!WorkingSet::open(None, &blocks).is_recording());
    }

    #[test]
    fn wrong_lines_are_ignored_and_a_wrong_file_is_refused() {
        let memory = OwnMemory::new(16 << 12).unwrap();
        let blocks = blocks(&memory);
        let text = format!("{HEAD}\n1234 c\n10000 c\nxyz c\n-1 c\n3000 d\n\n2000 c\n");
        assert_eq!(read(text.as_bytes(), &blocks).unwrap(), [(1, 0x1000)]);
        assert!(read(&b"something else\n"[..], &blocks).is_err());
        assert!(read(&b""[..], &blocks).is_err());
        let long = format!("{HEAD}\n{}\n", "0".repeat(2000));
        assert!(read(long.as_bytes(), &blocks).is_err());
        let cut = format!("{HEAD}\n5000 c");
        assert_eq!(read(cut.as_bytes(), &blocks).unwrap(), [(1, 0x5000)]);
    }
}
