// SPDX-License-Identifier: LGPL-2.1-or-later
//! Chains of snapshots: an incremental snapshot has all devices and the pages that changed since its parent.
//!
//! [`Chain::open`] reads all files of a chain from the youngest to the oldest and checks that they belong together.
//! [`Chain::open_by_lists`] does the same without reading their pages, for a reader that checks each page that it uses.
//! [`Chain::flatten`] returns a reader of one snapshot with all pages, as a full snapshot would have had it.
//! [`Chain::pages`] says where the last copies of all pages are. The caller opens the files ([`Files`]).
//!
//! Each file may have fixed places of pages (mapped-ram). In an incremental one the bitmap has the pages that changed; they may
//! be zero.
//!
//! The files may be hostile: reading ends, and within the [`Budget`].

mod flat;
mod hashing;
mod index;
mod list;
mod listed;
mod plan;
mod runs;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::budget::{Budget, OverBudget};
use crate::inspect::{Configuration, Options, SectionKind, Stream, Visitor, io_text, printable, read, read_slice};
use crate::wire::chain::page_hash;
pub use crate::wire::chain::{Content, Identity, Link};
use crate::wire::mapped::CAPABILITY;
pub use crate::wire::page_runs::{PagePlace, Pages, Run};
use crate::wire::uuid_text;
pub use flat::{Flat, FlatForm, Part};
use hashing::Hashing;
use index::{Blocks, Indexer};
use list::{Found, encode_pages};
use plan::{Shape, plan};

/// Most files in a chain.
pub const FILES_MAX: usize = 256;
/// Bytes from the start of a file in which [`link`] finds the parent.
pub const START: usize = 16 << 10;

/// A file with random access.
pub trait ReadAt {
    /// Reads at an offset. Fewer bytes than the buffer has only at the end of the file.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Returns the length of the file in bytes.
    fn length(&self) -> io::Result<u64>;
}

impl ReadAt for &[u8] {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let from = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let count = from.len().min(into.len());
        into[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

/// The bytes of a file before an offset.
struct Before<'a, F>(&'a F, u64);

impl<F: ReadAt> ReadAt for Before<'_, F> {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.1.saturating_sub(offset)).unwrap_or(usize::MAX).min(into.len());
        self.0.read_at(offset, &mut into[..most])
    }

    fn length(&self) -> io::Result<u64> {
        self.0.length().map(|length| length.min(self.1))
    }
}

/// Opens the files of a chain.
pub trait Files {
    /// An open file.
    type File: ReadAt;

    /// Opens a regular file. Returns the file with a number that no other file has.
    fn open(&mut self, path: &Path) -> io::Result<(Self::File, u128)>;
}

/// Reads the first bytes of a file, up to [`START`].
pub fn read_start(file: &impl ReadAt) -> io::Result<Vec<u8>> {
    let (mut start, mut count) = (vec![0; START], 0);
    while count < START {
        match file.read_at(count as u64, &mut start[count..])? {
            0 => break,
            more => count += more,
        }
    }
    start.truncate(count);
    Ok(start)
}

/// Returns the parent that a snapshot names, if it is incremental. `start` are its first bytes, up to [`START`].
pub fn link(start: &[u8]) -> Option<Link<String>> {
    let stream = read_slice(start, Options { footers: Some(true), ..Options::default() });
    stream.parent
}

/// Reads a whole file, and hashes it. The file may be damaged.
fn hash<'a, F: ReadAt>(
    file: &'a F,
    page_size: Option<u64>,
    visitor: &mut impl Visitor,
) -> io::Result<(Hashing<'a, F>, Stream)> {
    let mut hashing = Hashing::new(file);
    // Damage is found when the file is opened in a chain.
    let stream = read(&mut hashing, Options { page_size, ..Options::default() }, visitor)?;
    hashing.drain()?;
    Ok((hashing, stream))
}

/// Whether a file is a full snapshot.
fn is_full(path: &Path, file: &impl ReadAt) -> Result<bool, String> {
    let start = read_start(file).map_err(|error| format!("{}: {}", text(path), io_text(&error)))?;
    Ok(link(&start).is_none())
}

/// Reads a whole file and returns the identity of its contents.
pub fn identify(file: &impl ReadAt) -> io::Result<Identity> {
    survey(file, None).map(|(identity, _)| identity)
}

/// Reads a whole file. Returns the identity of its contents, and its encoded pages for the lists of its children ([`seal`]) if
/// it is a full snapshot. `page_size` is that of the machine in bytes, if known; a stream does not always show it.
pub fn survey(file: &impl ReadAt, page_size: Option<u64>) -> io::Result<(Identity, Option<Vec<u8>>)> {
    if link(&read_start(file)?).is_some()
        && let Some(found) = Found::read(file, &mut Budget::new(usize::MAX))?
    {
        return Ok((found.identity, None));
    }
    let mut budget = Budget::new(usize::MAX);
    let mut indexer = Indexer::new(&mut budget);
    let (hashing, stream) = hash(file, page_size, &mut indexer)?;
    let page_size = stream.ram.page_size_or_usual();
    // Pages that can't be part of a chain are found when the chain is opened.
    let (blocks, _) = indexer.finish(page_size);
    let pages = stream.parent.is_none().then(|| encode_pages(&blocks, is_mapped(&stream), page_size));
    Ok((hashing.identity(), pages))
}

/// Reads a whole incremental snapshot. Returns what must be appended to it, and the identity that it has then. `parent` are the
/// encoded pages of its parent, if that is a full snapshot. `page_size` as in [`survey`].
pub fn seal(file: &impl ReadAt, parent: Option<&[u8]>, page_size: Option<u64>) -> io::Result<(Vec<u8>, Identity)> {
    let mut budget = Budget::new(usize::MAX);
    let mut indexer = Indexer::new(&mut budget);
    let (hashing, stream) = hash(file, page_size, &mut indexer)?;
    let link = stream.parent.clone().ok_or_else(|| io::Error::other("the snapshot is not incremental"))?;
    let Identity { length, hash } = hashing.identity();
    let (mapped, page_size) = (is_mapped(&stream), stream.ram.page_size_or_usual());
    let head = plan(&Shape { stream: &stream, mapped, page_size, full: None }, FlatForm::WithoutPages)?;
    let pages = encode_pages(&indexer.finish(page_size).0, mapped, page_size);
    let list = list::encode(file, (hash, &link), head, &pages, parent)?;
    let (list, hash) = list::finish(list);
    let identity = Identity { length: length + list.len() as u64, hash };
    Ok((list, identity))
}

/// Whether pages have fixed places in a stream.
fn is_mapped(stream: &Stream) -> bool {
    stream.configuration.as_ref().is_some_and(|machine| machine.has(CAPABILITY))
}

/// Opens the next file of a chain, whose younger files are `layers`. `numbers` are those of their files.
fn next_file<F: ReadAt>(
    files: &mut impl Files<File = F>,
    path: &Path,
    layers: &[Layer<F>],
    numbers: &mut Vec<u128>,
) -> Result<F, String> {
    if layers.len() == FILES_MAX {
        return Err(format!("{}: the chain has more than {FILES_MAX} files", text(path)));
    }
    let (file, number) = files.open(path).map_err(|error| match layers.last() {
        Some(child) => {
            format!(
                "{}, the parent of {}, can't be opened: {}; all files of a chain are needed, at their places",
                text(path),
                text(&child.path),
                io_text(&error)
            )
        }
        None => format!("{} can't be opened: {}", text(path), io_text(&error)),
    })?;
    if numbers.contains(&number) {
        return Err(format!("{}: the chain leads back to this file", text(path)));
    }
    numbers.push(number);
    Ok(file)
}

/// The error of an incremental snapshot without a list of pages.
const NO_LIST: &str = "it is damaged or cut off: it has no list of pages with the right hash at its end";

/// One file of a chain.
struct Layer<F> {
    path: PathBuf,
    file: F,
    identity: Identity,
    link: Option<Link<String>>,
    configuration: Option<Configuration>,
    /// The pages that the file has, by block; nothing in a chain, which has the pages of all files together.
    blocks: Blocks,
    page_size: u64,
    /// Pages have fixed places in the file.
    mapped: bool,
    /// The encoded pages of the parent, if that is a full snapshot.
    parent_pages: Option<Vec<u8>>,
}

/// A chain whose files belong together.
pub struct Chain<F> {
    /// From the youngest to the oldest.
    layers: Vec<Layer<F>>,
    /// The stream of the youngest file.
    stream: Stream,
    /// The stream of the youngest file without pages, if the chain was opened by its lists. `stream` describes it then.
    head: Option<Vec<u8>>,
    /// The last copies of the pages of each block of the stream.
    pages: Vec<Arc<Pages>>,
}

fn text(path: &Path) -> String {
    format!("'{}'", printable(&path.to_string_lossy()))
}

impl<F: ReadAt> Chain<F> {
    /// Opens a snapshot and all its ancestors, and checks that they are whole, unchanged, and of the same machine.
    ///
    /// A full snapshot is a chain of one file. The error is a text that names the file.
    pub fn open(files: &mut impl Files<File = F>, path: &Path, budget: &mut Budget) -> Result<Arc<Self>, String> {
        let (mut layers, mut youngest, mut numbers) = (Vec::<Layer<F>>::new(), None, Vec::new());
        let mut next = Some(path.to_owned());
        while let Some(path) = next.take() {
            let file = next_file(files, &path, &layers, &mut numbers)?;
            let page_size = layers.last().map(|child| child.page_size);
            let (layer, stream) = Layer::read(path, file, page_size, budget)?;
            if let Some(child) = layers.last() {
                child.check_parent(&layer)?;
                child.check_parent_pages(&layer)?;
            }
            next = layer.parent_path();
            layers.push(layer);
            youngest.get_or_insert(stream);
        }
        let stream = youngest.ok_or("there is no file")?;
        Self::join(layers, stream, None, budget)
    }

    /// Makes a chain of files. Checks that they are of one machine, and have all its pages together.
    fn join(
        mut layers: Vec<Layer<F>>,
        stream: Stream,
        head: Option<Vec<u8>>,
        budget: &mut Budget,
    ) -> Result<Arc<Self>, String> {
        if let Some((youngest, others)) = layers.split_first() {
            others.iter().try_for_each(|layer| youngest.check_same_machine(layer))?;
        }
        for (file, layer) in layers.iter_mut().enumerate() {
            layer.blocks.set_file(file as u16);
        }
        let mut chain = Self { layers, stream, head, pages: Vec::new() };
        for block in &chain.stream.ram.blocks {
            chain.pages.push(Arc::new(chain.last_copies(&block.name, budget).map_err(|error| error.to_string())?));
        }
        chain.layers.iter_mut().for_each(|layer| layer.blocks = Blocks::default());
        chain.check_complete()?;
        Ok(Arc::new(chain))
    }

    /// The last copies of the pages of a block.
    fn last_copies(&self, block: &str, budget: &mut Budget) -> Result<Pages, OverBudget> {
        let (page_size, layers) = (self.page_size(), self.layers.iter().map(|layer| layer.blocks.get(block)));
        let runs = layers.clone().rev().flatten().map(|block| &block.runs[..]);
        let runs = runs::last_copies(runs, page_size, budget)?;
        let hashes = layers.map(|block| block.map_or_else(Default::default, |block| Arc::clone(&block.hashes)));
        Ok(Pages { page_size, runs, hashes: hashes.collect() })
    }

    fn shape(&self) -> Shape<'_> {
        let full = (self.layers.len() == 1).then(|| self.identity().length);
        let mapped = self.is_mapped() && self.head.is_none();
        Shape { stream: &self.stream, mapped, page_size: self.page_size(), full }
    }

    /// The paths of all files, from the youngest to the oldest.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.layers.iter().map(|layer| &*layer.path)
    }

    /// Whether the youngest file is incremental.
    pub fn is_incremental(&self) -> bool {
        self.layers.len() > 1
    }

    /// Whether pages have fixed places in the youngest file.
    pub fn is_mapped(&self) -> bool {
        self.layers.first().is_some_and(|layer| layer.mapped)
    }

    /// The identity of the youngest file.
    pub fn identity(&self) -> Identity {
        self.layers.first().map(|layer| layer.identity).unwrap_or_default()
    }

    /// Checks that the files have all pages of the machine together.
    fn check_complete(&self) -> Result<(), String> {
        let shared = self.stream.configuration.as_ref().is_some_and(|machine| machine.has("x-ignore-shared"));
        if self.is_filled() || shared {
            return Ok(());
        }
        for (block, pages) in self.stream.ram.blocks.iter().zip(&self.pages) {
            let wanted = block.length.div_ceil(self.page_size());
            let found = pages.count(wanted);
            if found != wanted {
                let (name, path) = (printable(&block.name), self.layers.first().map(|layer| text(&layer.path)));
                return Err(format!(
                    "{}: the files of the chain have {found} of the {wanted} pages of block '{name}'",
                    path.unwrap_or_default()
                ));
            }
        }
        Ok(())
    }

    /// Whether a page that no file has is zero: the oldest file has fixed places, which leave zero pages out.
    fn is_filled(&self) -> bool {
        self.layers.last().is_some_and(|layer| layer.mapped)
    }

    /// The blocks of memory: name and length in bytes.
    pub fn blocks(&self) -> impl Iterator<Item = (&str, u64)> {
        self.stream.ram.blocks.iter().map(|block| (&*block.name, block.length))
    }

    /// The last copies of the pages of each block, in the order of [`Chain::blocks`].
    pub fn pages(&self) -> impl Iterator<Item = &Arc<Pages>> {
        self.pages.iter()
    }

    /// The size of a page in bytes.
    pub fn page_size(&self) -> u64 {
        self.layers.first().map_or(0, |layer| layer.page_size)
    }

    /// The open files, from the youngest to the oldest. [`Content::At`] counts them so.
    pub fn files(&self) -> impl Iterator<Item = &F> {
        self.layers.iter().map(|layer| &layer.file)
    }

    /// Returns a reader of one snapshot with all devices of the youngest file, and all pages.
    pub fn flatten(self: &Arc<Self>, form: FlatForm) -> Flat<F> {
        Flat::new(Arc::clone(self), form)
    }
}

impl<F: ReadAt> Layer<F> {
    /// The path of the parent, if the file names one.
    fn parent_path(&self) -> Option<PathBuf> {
        let link = self.link.as_ref()?;
        Some(self.path.parent().unwrap_or(Path::new("")).join(&link.name))
    }

    /// Reads a whole file. `page_size` is that of its child; an incremental file has its own in its list.
    fn read(path: PathBuf, file: F, page_size: Option<u64>, budget: &mut Budget) -> Result<(Self, Stream), String> {
        let named = |error: io::Error| format!("{}: {}", text(&path), io_text(&error));
        let fail = |what: &str| Err(format!("{}: {what}", text(&path)));
        let found = match is_full(&path, &file)? {
            true => None,
            false => match Found::read(&file, budget).map_err(named)? {
                Some(found) => Some(found),
                None => return fail(NO_LIST),
            },
        };
        let parts = found.as_ref().map(Found::parts).transpose();
        let parts = parts.map_err(|error| format!("{}: {error}", text(&path)))?;
        let page_size = parts.as_ref().map(|parts| parts.page_size).or(page_size);
        let data = Before(&file, found.as_ref().map_or(u64::MAX, |found| found.end));
        let mut hashing = Hashing::new(&data);
        let mut indexer = Indexer::new(budget);
        let options = Options { budget: Budget::new(indexer.left() / 2), page_size, ..Options::default() };
        let stream = read(&mut hashing, options, &mut indexer).map_err(named)?;
        let mut identity = hashing.identity();
        let page_size = stream.ram.page_size_or_usual();
        let (blocks, usable) = indexer.finish(page_size);
        if let Some(damage) = &stream.damage {
            return fail(&damage.to_string());
        }
        if let Err(reason) = usable {
            return fail(reason);
        }
        if stream.parent.is_some() != found.is_some() {
            return fail("the section that names its parent is not the first one");
        }
        if stream.ram.multifd {
            return fail("its pages were sent over other channels, so it can't be part of a chain");
        }
        if stream.items.iter().any(|item| item.depth > 0) {
            return fail("it is the stream of a postcopy, which can't be part of a chain");
        }
        let (link, configuration) = (stream.parent.clone(), stream.configuration.clone());
        let mapped = is_mapped(&stream);
        let mut parent_pages = None;
        if let Some(((found, parts), link)) = found.as_ref().zip(parts).zip(link.as_ref()) {
            if parts.data != identity.hash {
                return fail("it is damaged or cut off: its bytes do not have the hash in the list at its end");
            }
            let head = plan(&Shape { stream: &stream, mapped, page_size, full: None }, FlatForm::WithoutPages);
            let pages = encode_pages(&blocks, mapped, page_size);
            let list = head.and_then(|head| list::encode(&file, (identity.hash, link), head, &pages, parts.parent));
            if !found.is(&list.map_err(named)?) {
                return fail("the list of pages at its end is not that of its pages");
            }
            parent_pages = parts.parent.map(<[u8]>::to_vec);
            identity = found.identity;
        }
        Ok((Self { path, file, identity, link, configuration, blocks, page_size, mapped, parent_pages }, stream))
    }

    /// Checks that the pages of a parent that is a full snapshot are those that the list of this file has.
    fn check_parent_pages(&self, parent: &Self) -> Result<(), String> {
        let Some(pages) = self.parent_pages.as_ref().filter(|_| parent.link.is_none()) else { return Ok(()) };
        if *pages == encode_pages(&parent.blocks, parent.mapped, parent.page_size) {
            return Ok(());
        }
        Err(format!("{}: its list has other pages than its parent {}", text(&self.path), text(&parent.path)))
    }

    /// Checks that a file is the parent that this one names.
    fn check_parent(&self, parent: &Self) -> Result<(), String> {
        let Some(link) = &self.link else { return Ok(()) };
        if link.parent == parent.identity {
            return Ok(());
        }
        Err(format!(
            "{} is not the parent of {}, or was changed since: it has {} bytes and the hash {}, expected {} bytes and {}; \
             put back the unchanged file, or use an older snapshot of the chain",
            text(&parent.path),
            text(&self.path),
            parent.identity.length,
            parent.identity,
            link.parent.length,
            link.parent
        ))
    }

    fn check_same_machine(&self, other: &Self) -> Result<(), String> {
        let differ = |what: &str, own: String, others: String| {
            Err(format!(
                "{} and {} are of different machines: {what} {own} and {others}",
                text(&self.path),
                text(&other.path)
            ))
        };
        let machine = |layer: &Self| {
            let configuration = layer.configuration.as_ref();
            configuration.map_or(String::new(), |configuration| printable(&configuration.machine).to_string())
        };
        if machine(self) != machine(other) {
            return differ("the machine types", machine(self), machine(other));
        }
        let uuid = |layer: &Self| layer.configuration.as_ref().and_then(|configuration| configuration.uuid);
        if let (Some(own), Some(others)) = (uuid(self), uuid(other))
            && own != others
        {
            return differ("the UUIDs", uuid_text(&own), uuid_text(&others));
        }
        if self.page_size != other.page_size {
            return differ("pages of", format!("{} bytes", self.page_size), format!("{} bytes", other.page_size));
        }
        let blocks = |layer: &Self| {
            let mut blocks: Vec<_> = layer.blocks.iter().map(|block| (block.name.clone(), block.length)).collect();
            blocks.sort();
            blocks
        };
        let (own, others) = (blocks(self), blocks(other));
        if own != others {
            let list = |blocks: &[(Arc<str>, u64)]| {
                let texts = blocks.iter().map(|(name, length)| format!("'{}' of {length} bytes", printable(name)));
                texts.collect::<Vec<_>>().join(", ")
            };
            return differ("the RAM blocks", list(&own), list(&others));
        }
        Ok(())
    }
}

/// Whether an item of the youngest stream is the section that names the parent.
fn is_link(section: &crate::inspect::Section) -> bool {
    section.kind == SectionKind::Full && *section.device.name == *crate::wire::chain::SECTION
}
