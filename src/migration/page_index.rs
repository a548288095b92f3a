// SPDX-License-Identifier: LGPL-2.1-or-later
//! Finds the pages of a stream in a regular file: by reading all of its records, or from an index file of the snapshot.
//!
//! An index is used only if its file was not changed since the index was made. All else in the stream is checked as without
//! an index; only the records of pages are left out.

use super::check::{Framing, check_source};
use super::file_source::FileSource;
use crate::channel::{PositionedFile, Uri, replace_file};
use crate::error::{Error, Result};
use crate::inspect::{Block, Budget, ItemKind, Options, PageIndexer, Stream, Visitor, read};
use crate::savevm::Vm;
use crate::savevm::chain_pages::ChainPages;
use crate::savevm::host::Level;
use crate::savevm::restore::{IndexFile, PageIndex};
use crate::sys::open_at_once;
use crate::wire::page_index::{self as wire, FileState};
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An index is never larger than its snapshot and this number of bytes.
const SURPLUS_MAX: u64 = 64 << 10;
/// How often the times of a file are looked at before its index is made.
const SETTLE_TRIES: u32 = 3;

/// The pages of a stream, and the file to write with them.
#[derive(Default)]
pub struct Pages {
    /// `None` if the pages have fixed places.
    pub index: Option<PageIndex>,
    /// `None` if there is such a file already, or none is wanted.
    pub file: Option<IndexFile>,
    /// The pages of a chain, which the stream does not have.
    pub chain: Option<Arc<ChainPages>>,
}

/// The ends of RAM's sections.
#[derive(Default)]
struct SectionEnds(Vec<u64>);

impl Visitor for SectionEnds {
    const WANTS_STATES: bool = false;

    fn memory_section(&mut self, end: u64) {
        self.0.push(end);
    }
}

/// Checks a stream, and finds its pages. Returns `None` if the stream can't be checked. `path` is the index.
pub fn find(vm: &Vm, file: &PositionedFile, base: u64, path: Option<&Path>) -> Result<Option<Pages>> {
    let path = path.filter(|path| may_be_index(vm, path));
    if let Some(path) = path {
        match from_index(vm, file, base, path) {
            Ok(Some(index)) => return Ok(Some(Pages { index: Some(index), ..Pages::default() })),
            Ok(None) => {}
            Err(error) => log::warn!("the index {} is not used: {}", path.display(), error.message()),
        }
    }
    let state = path.map(|_| settled(file)).transpose()?.flatten();
    let source = FileSource::new(file.again()?, base).map_err(|err| Error::io("checking it", &err))?;
    let mut indexer = PageIndexer::new(1 << vm.host().target_page_bits(), Budget::default());
    let Some(stream) = check_source(vm, source, base, &mut indexer)? else { return Ok(None) };
    let Some(found) = indexer.finish(&stream, base) else { return Ok(Some(Pages::default())) };
    if has_other_pages(&stream) {
        let text = "the stream does not have all of its pages: its source sent some over other connections";
        return Err(Error::new(libc::ENOTSUP, text));
    }
    let mut index = found.index;
    index.file = state_of(file)?;
    // A file that changes while it is read gets no index.
    let file = path.filter(|_| state == Some(index.file)).and_then(|path| {
        let bytes = index.encode();
        (bytes.len() as u64 <= most(index.file)).then(|| IndexFile { path: path.to_owned(), bytes })
    });
    Ok(Some(Pages { index: Some(index_of(index, found.section_ends)), file, chain: None }))
}

/// Checks a stream that will be loaded at once, and finds its pages if several threads can read them. Returns nothing if the
/// stream must be loaded in its order.
pub fn find_if_simple(vm: &Vm, file: &PositionedFile, base: u64) -> Result<Pages> {
    let source = FileSource::new(file.again()?, base).map_err(|err| Error::io("checking it", &err))?;
    if vm.slot.ram().is_none() {
        check_source(vm, source, base, &mut Framing)?;
        return Ok(Pages::default());
    }
    let mut indexer = PageIndexer::optional(1 << vm.host().target_page_bits(), Budget::default());
    let Some(stream) = check_source(vm, source, base, &mut indexer)? else { return Ok(Pages::default()) };
    if !is_simple(&stream) {
        return Ok(Pages::default());
    }
    let index = indexer.finish(&stream, base).map(|found| index_of(found.index, found.section_ends));
    Ok(Pages { index, ..Pages::default() })
}

/// Whether the order of a stream's sections and records does not matter for its pages, and whether RAM has nothing to check in
/// them but its blocks: no commands, no pages on other connections, and nothing else in the list of blocks.
fn is_simple(stream: &Stream) -> bool {
    let has_command = stream.items.iter().any(|item| matches!(item.kind, ItemKind::Command(_)));
    let is_plain = |block: &Block| block.address.is_none() && block.page_size.is_none();
    !has_command && !has_other_pages(stream) && stream.ram.blocks.iter().all(is_plain)
}

/// Whether some of the pages are not in the stream.
fn has_other_pages(stream: &Stream) -> bool {
    stream.ram.multifd || stream.ram.hooks > 0
}

fn state_of(file: &PositionedFile) -> Result<FileState> {
    file.metadata().map(|data| FileState::from(&data))
}

/// Waits until a further change of a file would show in its times. Returns its state, or `None` if it changes all the time, or if
/// the file system has another clock.
fn settled(file: &PositionedFile) -> Result<Option<FileState>> {
    for _ in 0..SETTLE_TRIES {
        let state = state_of(file)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as i64);
        if state.is_settled(now) {
            return Ok(Some(state));
        }
        thread::sleep(Duration::from_nanos(FileState::TICK as u64));
    }
    Ok(None)
}

/// Largest size of an index in bytes.
fn most(state: FileState) -> u64 {
    state.length.saturating_add(SURPLUS_MAX)
}

fn index_of(index: wire::PageIndex, section_ends: Vec<u64>) -> PageIndex {
    PageIndex { blocks: index.blocks.into_iter().map(Arc::new).collect(), section_ends }
}

/// Checks a stream without its pages, which are in the index. Returns `None` if there is no such file, or if it is the index
/// of another snapshot.
fn from_index(vm: &Vm, file: &PositionedFile, base: u64, path: &Path) -> Result<Option<PageIndex>> {
    let state = state_of(file)?;
    let Some(bytes) = read_index(path, most(state))? else { return Ok(None) };
    let index = wire::PageIndex::decode(&bytes).map_err(Error::invalid)?;
    let page_size = 1 << vm.host().target_page_bits();
    if (index.file, index.base, index.page_size) != (state, base, page_size) {
        log::info!("the index {} belongs to another snapshot, or the snapshot was changed", path.display());
        return Ok(None);
    }
    let source = FileSource::without(file.again()?, base, &index.records);
    let mut ends = SectionEnds::default();
    let source = source.map_err(|err| Error::io("checking it", &err))?;
    let Some(stream) = check_source(vm, source, base, &mut ends)? else { return Ok(None) };
    check_blocks(&index, &stream)?;
    Ok(Some(index_of(index, ends.0)))
}

/// The bytes of the index, or `None` if it does not exist.
fn read_index(path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
    let file = match open_at_once(path) {
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|err| Error::io("opening it", &err))?,
    };
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(|err| Error::io("reading it", &err))?;
    if bytes.len() as u64 > most {
        return Err(Error::invalid(format!("it has more than {most} bytes")));
    }
    Ok(Some(bytes))
}

/// Whether an index may be read from this file and written to it: it is an index, empty or missing. Otherwise this is reported,
/// and the file stays as it is: a wrong name must not cost another file.
fn may_be_index(vm: &Vm, path: &Path) -> bool {
    let checked = check_replaceable(path);
    if let Err(error) = &checked {
        let text = format!("the index {} is neither used nor written: {}", path.display(), error.message());
        vm.host().report(Level::Warning, &text);
    }
    checked.is_ok()
}

fn check_replaceable(path: &Path) -> Result<()> {
    let file = match open_at_once(path) {
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(|err| Error::io("opening it", &err))?,
    };
    let mut start = Vec::new();
    file.take(8).read_to_end(&mut start).map_err(|err| Error::io("reading it", &err))?;
    match start.is_empty() || wire::PageIndex::is_index(&start) {
        true => Ok(()),
        false => Err(Error::invalid("the file is not an index: remove it, or name another file")),
    }
}

/// Fails if the index has other blocks than the stream.
fn check_blocks(index: &wire::PageIndex, stream: &Stream) -> Result<()> {
    let blocks = stream.ram.blocks.iter().map(|block| (&*block.name, block.length));
    if index.blocks.iter().map(|block| (&*block.name, block.length)).eq(blocks) {
        return Ok(());
    }
    Err(Error::invalid("it has other blocks than the stream"))
}

/// Writes the index of a snapshot that was just saved. The snapshot is good without it, so a failure is a warning.
pub fn write_for(vm: &Vm, saved: &Uri, path: &Path) {
    if let Err(error) = index_saved(vm, saved, path) {
        let text = format!("{saved} was saved, but not its index {}: {}", path.display(), error.message());
        vm.host().report(Level::Warning, &text);
    }
}

fn index_saved(vm: &Vm, saved: &Uri, path: &Path) -> Result<()> {
    check_replaceable(path)?;
    let (file, base) = match saved {
        Uri::File { path, offset } => (PositionedFile::open(path), *offset),
        _ => return Err(Error::invalid("an index needs a regular file (file:PATH)")),
    };
    let failed = |err| Error::io(format_args!("reading {saved}"), &err);
    let file = file.map_err(failed)?;
    let unsettled = || Error::new(libc::EBUSY, "the file changes, or its file system has another clock");
    let state = settled(&file)?.ok_or_else(unsettled)?;
    let page_size = 1 << vm.host().target_page_bits();
    let mut indexer = PageIndexer::new(page_size, Budget::default());
    let options =
        Options { page_size: Some(page_size), footers: Some(true), sections_only: true, base, ..Options::default() };
    let source = FileSource::new(file.again()?, base).map_err(failed)?;
    let stream = read(source, options, &mut indexer).map_err(failed)?;
    if let Some(damage) = &stream.damage {
        return Err(Error::invalid(damage.to_string()));
    }
    let found = indexer.finish(&stream, base).ok_or_else(|| Error::invalid("its pages have fixed places"))?;
    if has_other_pages(&stream) {
        return Err(Error::invalid("it does not have all of its pages"));
    }
    if state_of(&file)? != state {
        return Err(unsettled());
    }
    replace_file(path, &wire::PageIndex { file: state, ..found.index }.encode())
}
