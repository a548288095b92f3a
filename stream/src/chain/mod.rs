// SPDX-License-Identifier: LGPL-2.1-or-later
//! Chains of snapshots: an incremental snapshot has all devices and the pages that changed since its parent.
//!
//! [`Chain::open`] reads all files of a chain from the youngest to the oldest and checks that they belong together.
//! [`Chain::flatten`] returns a reader of one snapshot with all pages, as a full snapshot would have had it.
//! [`Chain::blocks`] says where the last copy of each page is. The caller opens the files ([`Files`]), since this crate makes
//! no system calls.
//!
//! Each file may have fixed places of pages (mapped-ram). In an incremental one the bitmap has the pages that changed; they may
//! be zero.
//!
//! The files may be hostile: reading ends, and within the [`Budget`].

mod flat;
mod hashing;
mod index;
mod plan;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::budget::Budget;
use crate::inspect::{Configuration, Options, SectionKind, Stream, Visitor, printable, read, read_slice};
pub use crate::wire::chain::{Content, Identity, Link};
use crate::wire::chain::{TRAILER_LEN, page_hash, trailer};
use crate::wire::mapped::CAPABILITY;
use crate::wire::uuid_text;
pub use flat::{Flat, FlatForm, Part};
use hashing::Hashing;
use index::{Blocks, Indexer};

/// Most files in a chain.
pub const FILES_MAX: usize = 256;
/// Bytes from the start of a file in which [`link`] finds the parent.
pub const START: usize = 16 << 10;

/// A file with random access.
pub trait ReadAt {
    /// Reads at an offset. Fewer bytes than the buffer has only at the end of the file.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
}

impl ReadAt for &[u8] {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let from = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let count = from.len().min(into.len());
        into[..count].copy_from_slice(&from[..count]);
        Ok(count)
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

/// Reads nothing but what the hash needs.
struct Hashed;

impl Visitor for Hashed {
    const WANTS_PAGES: bool = true;
    const WANTS_HOLES: bool = false;
    const WANTS_STATES: bool = false;
}

/// Reads a whole file, and hashes it. The file may be damaged.
fn hash<F: ReadAt>(file: &F) -> io::Result<Hashing<'_, F>> {
    let mut hashing = Hashing::new(file);
    // Damage is found when the file is opened in a chain.
    read(&mut hashing, Options::default(), &mut Hashed)?;
    hashing.drain()?;
    Ok(hashing)
}

/// Reads a whole file and returns the identity of its contents.
pub fn identify(file: &impl ReadAt) -> io::Result<Identity> {
    Ok(hash(file)?.identity(&[]))
}

/// Reads a whole file and returns its trailer, and the identity that it has once the trailer is appended.
pub fn seal(file: &impl ReadAt) -> io::Result<([u8; TRAILER_LEN], Identity)> {
    let hashing = hash(file)?;
    let trailer = trailer(hashing.identity(&[]).hash);
    let identity = hashing.identity(&trailer);
    Ok((trailer, identity))
}

/// One file of a chain.
struct Layer<F> {
    path: PathBuf,
    file: F,
    identity: Identity,
    link: Option<Link<String>>,
    configuration: Option<Configuration>,
    /// The pages that the file has, by block.
    blocks: Blocks,
    page_size: u64,
    /// Pages have fixed places in the file.
    mapped: bool,
}

/// A chain whose files belong together.
pub struct Chain<F> {
    /// From the youngest to the oldest.
    layers: Vec<Layer<F>>,
    /// The stream of the youngest file.
    stream: Stream,
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
            if layers.len() == FILES_MAX {
                return Err(format!("{}: the chain has more than {FILES_MAX} files", text(&path)));
            }
            let (file, number) = files.open(&path).map_err(|error| match layers.last() {
                Some(child) => {
                    format!(
                        "{}, the parent of {}, can't be opened: {error}; all files of a chain are needed, at their places",
                        text(&path),
                        text(&child.path)
                    )
                }
                None => format!("{} can't be opened: {error}", text(&path)),
            })?;
            if numbers.contains(&number) {
                return Err(format!("{}: the chain leads back to this file", text(&path)));
            }
            numbers.push(number);
            let (layer, stream) = Layer::read(path, file, budget)?;
            if let Some(child) = layers.last() {
                child.check_parent(&layer)?;
            }
            next = layer.link.as_ref().map(|link| layer.path.parent().unwrap_or(Path::new("")).join(&link.name));
            layers.push(layer);
            youngest.get_or_insert(stream);
        }
        let stream = youngest.ok_or("there is no file")?;
        let chain = Self { layers, stream };
        chain.check_machine()?;
        Ok(Arc::new(chain))
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

    /// Checks that all files are of one machine, and have all its pages together.
    fn check_machine(&self) -> Result<(), String> {
        let Some(youngest) = self.layers.first() else { return Ok(()) };
        if self.layers.len() > 1 {
            self.layers[1..].iter().try_for_each(|layer| youngest.check_same_machine(layer))?;
        }
        let shared = self.stream.configuration.as_ref().is_some_and(|machine| machine.has("x-ignore-shared"));
        if self.is_filled() {
            return Ok(());
        }
        for block in self.stream.ram.blocks.iter().filter(|block| block.length > 0) {
            let wanted = block.length.div_ceil(youngest.page_size);
            let found = self.pages(&block.name).len() as u64;
            if found != wanted && !shared {
                let name = printable(&block.name);
                return Err(format!(
                    "{}: the files of the chain have {found} of the {wanted} pages of block '{name}'",
                    text(&youngest.path)
                ));
            }
        }
        Ok(())
    }

    /// The last copy of each page of a block, in the order of their addresses.
    fn pages(&self, block: &str) -> Vec<(usize, index::Place)> {
        let mut all = Vec::new();
        for (at, layer) in self.layers.iter().enumerate().rev() {
            let pages = layer.blocks.get(block);
            all.extend(pages.iter().flat_map(|pages| pages.places.iter().map(|place| (at, *place))));
        }
        // Stable: of two copies of a page, the younger one is last.
        all.sort_by_key(|(_, place)| place.address);
        all.dedup_by(|next, kept| {
            let same = next.1.address == kept.1.address;
            if same {
                *kept = *next;
            }
            same
        });
        all
    }

    /// Whether a page that no file has is zero: the oldest file has fixed places, which leave zero pages out.
    fn is_filled(&self) -> bool {
        self.layers.last().is_some_and(|layer| layer.mapped)
    }

    /// The blocks of memory: name and length in bytes.
    pub fn blocks(&self) -> impl Iterator<Item = (&str, u64)> {
        self.stream.ram.blocks.iter().map(|block| (&*block.name, block.length))
    }

    /// Where the pages of a block are, in the order of their addresses. A page that is not in the list is zero.
    pub fn page_places(&self, block: &str) -> impl Iterator<Item = PagePlace> {
        let place = |(file, place): (usize, index::Place)| {
            let index::Place { address, offset, fill, hash } = place;
            PagePlace { address, content: fill.map_or(Content::At { file, offset, hash }, Content::Filled) }
        };
        self.pages(block).into_iter().map(place)
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

/// Where the last copy of a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PagePlace {
    /// Address within the block.
    pub address: u64,
    /// The content.
    pub content: Content,
}

impl<F: ReadAt> Layer<F> {
    fn read(path: PathBuf, file: F, budget: &mut Budget) -> Result<(Self, Stream), String> {
        let mut hashing = Hashing::new(&file);
        let mut indexer = Indexer::new(budget);
        let options = Options { budget: Budget::new(indexer.left() / 2), ..Options::default() };
        let stream = read(&mut hashing, options, &mut indexer).map_err(|error| format!("{}: {error}", text(&path)))?;
        let (identity, is_sealed) = (hashing.identity(&[]), hashing.has_trailer());
        let blocks = indexer.finish();
        let fail = |what: &str| Err(format!("{}: {what}", text(&path)));
        if let Some(damage) = &stream.damage {
            return fail(&damage.to_string());
        }
        if stream.parent.is_some() && !is_sealed {
            return fail("it is damaged or cut off: its bytes do not have the hash at its end");
        }
        if stream.ram.multifd {
            return fail("its pages were sent over other channels, so it can't be part of a chain");
        }
        if stream.items.iter().any(|item| item.depth > 0) {
            return fail("it is the stream of a postcopy, which can't be part of a chain");
        }
        let page_size = stream.ram.page_size_or_usual();
        let (link, configuration) = (stream.parent.clone(), stream.configuration.clone());
        let mapped = configuration.as_ref().is_some_and(|machine| machine.has(CAPABILITY));
        Ok((Self { path, file, identity, link, configuration, blocks, page_size, mapped }, stream))
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
