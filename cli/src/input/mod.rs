// SPDX-License-Identifier: LGPL-2.1-or-later
//! Opens streams: in a file, a pipe, compressed, in a qcow2 image, or after libvirt's header.

mod ahead;
pub mod chain;
mod libvirt;
mod map;
mod packing;
mod peek;
mod spool;

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use savevm_stream::chain::FlatForm;
use savevm_stream::inspect::{
    Block, Budget, Container, Description, Form, Libvirt, Options, Page, ReadSource, Stream, Unwatched, Visitor,
    printable, qcow2, read, read_whole,
};

use crate::args::Reading;
use crate::failure::{Context, Failure, Result};
use crate::progress::Progress;
use crate::system::{prefetch, widen_pipe};
use crate::words::shown;
use map::Mapped;
use packing::{Outcome, Packing};
use peek::Peeked;

/// Fails if writing the file `output` would destroy the stream in `file`, or one of its ancestors.
pub fn check_output(file: &Path, output: &Path) -> Result<()> {
    let why = match chain::paths(file).position(|path| is_same(&path, output)) {
        None => return Ok(()),
        Some(0) => "it is the file that is read",
        Some(_) => "it is a file of the chain that is read, and the snapshot needs it",
    };
    Err(Failure::new(format!("cannot write {}: {why}", shown(output))))
}

/// Returns whether two paths are the same regular file.
fn is_same(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| {
        let file = fs::metadata(path).ok().filter(|file| file.is_file())?;
        Some((file.dev(), file.ino()))
    };
    place(one).is_some() && place(one) == place(other)
}

/// An open stream, which can be read once.
pub struct Input {
    /// The name for messages.
    pub name: String,
    bytes: Bytes,
    options: Options,
    found_in: FoundIn,
    max_temporary: u64,
}

enum Bytes {
    Mapped(Mapped),
    Piped(Box<dyn Read>),
}

/// What surrounds the stream. The end of compressed data is only known after reading.
#[derive(Default)]
struct FoundIn {
    libvirt: Option<Libvirt>,
    compression: Option<Outcome>,
}

impl FoundIn {
    fn container(&self) -> Container {
        let compression = self.compression.as_ref().map(|outcome| outcome.borrow().clone());
        Container { libvirt: self.libvirt, compression }
    }
}

impl Input {
    /// Opens the stream in `path`, or in standard input if `path` is `-`.
    pub fn open(path: &Path, reading: &Reading) -> Result<Self> {
        Self::open_snapshot(path, reading, reading.snapshot.as_deref())
    }

    /// As [`Input::open`], with another snapshot.
    pub fn open_snapshot(path: &Path, reading: &Reading, snapshot: Option<&str>) -> Result<Self> {
        let mut input = Self::find(path, reading, snapshot)?;
        if let Some(other) = &reading.describe_by {
            input.options.description = Some(foreign_description(other, reading)?);
        }
        Ok(input)
    }

    fn find(path: &Path, reading: &Reading, snapshot: Option<&str>) -> Result<Self> {
        if path.as_os_str() == "-" {
            let name = String::from(packing::STDIN);
            let file = io::stdin().as_fd().try_clone_to_owned().context(|| name.clone())?;
            return Self::from_file(name, file.into(), reading, snapshot);
        }
        let name = shown(path);
        let is_plain = reading.offset == 0 && path.is_file();
        if is_plain && chain::parent_of(path)?.is_some() {
            no_snapshot(&name, snapshot)?;
            let stream = chain::open(path, reading.max_memory)?.flatten(FlatForm::Stream);
            return Ok(Self::new(name, Bytes::Piped(Box::new(stream)), 0, FoundIn::default(), reading));
        }
        let file = File::open(path).context(|| format!("cannot open {name}"))?;
        Self::from_file(name, file, reading, snapshot)
    }

    fn from_file(name: String, mut file: File, reading: &Reading, snapshot: Option<&str>) -> Result<Self> {
        let kind = file.metadata().context(|| format!("cannot open {name}"))?;
        if kind.is_dir() {
            return Err(Failure::new(format!("{name} is a directory")));
        }
        // Another program may have read a part of standard input.
        if kind.is_file() && file.stream_position().is_ok_and(|position| position == 0) {
            let mapped = Mapped::new(file).context(|| format!("cannot map {name}"))?;
            return Self::from_mapped(name, mapped, reading, snapshot);
        }
        widen_pipe(file.as_fd());
        Self::from_pipe(name, Box::new(file), reading, snapshot)
    }

    fn new(name: String, bytes: Bytes, base: u64, found_in: FoundIn, reading: &Reading) -> Self {
        let options = Options { budget: Budget::new(reading.max_memory), base, ..Options::default() };
        Self { name, bytes, options, found_in, max_temporary: reading.max_temporary }
    }

    fn from_mapped(name: String, mapped: Mapped, reading: &Reading, snapshot: Option<&str>) -> Result<Self> {
        let mapped = mapped.starting_at(reading.offset);
        if qcow2::is_image(mapped.as_bytes()) {
            let state = snapshot_state(&name, mapped, snapshot, reading.max_memory)?;
            return Ok(Self::new(name, Bytes::Piped(state), 0, FoundIn::default(), reading));
        }
        no_snapshot(&name, snapshot)?;
        let libvirt = libvirt_header(&name, mapped.as_bytes())?;
        let header = libvirt.map_or(0, |header| header.length);
        if header > mapped.as_bytes().len() as u64 {
            return Err(Failure::new(format!("{name}: libvirt's header is cut off")));
        }
        let (mapped, base) = (mapped.starting_at(header), reading.offset.saturating_add(header));
        let packing = Packing::of(&name, mapped.as_bytes(), base)?;
        let (bytes, compression) = match packing {
            Packing::Plain => (Bytes::Mapped(mapped), None),
            packing => {
                let (mapped, zeroes) = mapped.without_zeroes();
                let (unpacked, outcome) = packing.unpack(Peeked::new(mapped, base), reading.max_memory);
                if let Some(outcome) = &outcome {
                    outcome.borrow_mut().trailing = zeroes;
                }
                (Bytes::Piped(unpacked), outcome)
            }
        };
        Ok(Self::new(name, bytes, base, FoundIn { libvirt, compression }, reading))
    }

    fn from_pipe(name: String, pipe: Box<dyn Read>, reading: &Reading, snapshot: Option<&str>) -> Result<Self> {
        no_snapshot(&name, snapshot)?;
        let mut pipe = Peeked::new(pipe, 0);
        pipe.skip(reading.offset).context(|| name.clone())?;
        let start = pipe.peek(libvirt::HEADER).context(|| name.clone())?;
        if qcow2::is_image(start) {
            return Err(Failure::new(format!("{name}: a qcow2 image must be a file, not a pipe")));
        }
        let libvirt = libvirt_header(&name, start)?;
        pipe.skip(libvirt.map_or(0, |header| header.length)).context(|| name.clone())?;
        let base = pipe.place().offset();
        let packing = Packing::of(&name, pipe.peek(packing::TELLING).context(|| name.clone())?, base)?;
        let (unpacked, compression) = packing.unpack(pipe, reading.max_memory);
        Ok(Self::new(name, Bytes::Piped(unpacked), base, FoundIn { libvirt, compression }, reading))
    }

    /// Returns the offset in its file at which the stream starts, or `None` if its bytes are not as such in a regular file.
    pub fn base(&self) -> Option<u64> {
        matches!(self.bytes, Bytes::Mapped(_)).then_some(self.options.base)
    }

    /// Sets the page size, which is inferred otherwise.
    pub fn with_page_size(mut self, page_size: u64) -> Self {
        self.options.page_size = Some(page_size);
        self
    }

    /// Reads the stream, with a progress bar.
    pub fn read<V: Visitor>(self, visitor: &mut V) -> Result<Stream> {
        let mut stream = match self.bytes {
            Bytes::Mapped(mapped) => read_mapped(&mapped, self.options, visitor),
            Bytes::Piped(pipe) => {
                let mut watched = Watched { visitor, progress: Progress::new(None), position: &AtomicU64::new(0) };
                read(ReadSource::new(pipe), self.options, &mut watched)
            }
        }
        .context(|| self.name)?;
        stream.container = self.found_in.container();
        Ok(stream)
    }

    /// Makes the stream's bytes available in memory or a file, for random access.
    pub fn settle(self) -> Result<Settled> {
        let Self { name, bytes, options, found_in, max_temporary } = self;
        let mapped = match bytes {
            Bytes::Mapped(mapped) => mapped,
            Bytes::Piped(pipe) => spool::spool(pipe, &options, max_temporary).context(|| name.clone())?,
        };
        Ok(Settled { name, mapped, options, container: found_in.container() })
    }
}

fn libvirt_header(name: &str, start: &[u8]) -> Result<Option<Libvirt>> {
    libvirt::header(start).map_err(|message| Failure::new(format!("{name}: {message}")))
}

/// A stream with random access.
pub struct Settled {
    /// The name for messages.
    pub name: String,
    mapped: Mapped,
    options: Options,
    container: Container,
}

impl Settled {
    /// Returns the bytes of the stream.
    pub fn bytes(&self) -> &[u8] {
        self.mapped.as_bytes()
    }

    /// Reads the stream, with a progress bar.
    pub fn read<V: Visitor>(&self, visitor: &mut V) -> Result<Stream> {
        let read = read_mapped(&self.mapped, self.options.clone(), visitor);
        let mut stream = read.context(|| self.name.clone())?;
        stream.container = self.container.clone();
        Ok(stream)
    }
}

/// Reads a mapped stream, with a progress bar.
fn read_mapped<V: Visitor>(mapped: &Mapped, mut options: Options, visitor: &mut V) -> io::Result<Stream> {
    let (bytes, position) = (mapped.as_bytes(), AtomicU64::new(0));
    options.prefetch = Some(prefetch);
    options.data_end = Some(mapped.data_end());
    options.holes = mapped.holes();
    let mut watched = Watched { visitor, progress: Progress::new(Some(bytes.len() as u64)), position: &position };
    ahead::with_read_ahead(mapped, &position, || read_whole(bytes, options, &mut watched))
}

/// Forwards calls to a visitor, updates the progress bar, and reports the offset.
struct Watched<'v, V> {
    visitor: &'v mut V,
    progress: Option<Progress>,
    position: &'v AtomicU64,
}

impl<V: Visitor> Visitor for Watched<'_, V> {
    const WANTS_PAGES: bool = V::WANTS_PAGES;
    const WANTS_PLACES: bool = V::WANTS_PLACES;
    const WANTS_STATES: bool = V::WANTS_STATES;

    fn progress(&mut self, offset: u64) {
        self.position.store(offset, Ordering::Relaxed);
        if let Some(progress) = &mut self.progress {
            progress.at(offset);
        }
        self.visitor.progress(offset);
    }

    fn block(&mut self, block: &Block) -> io::Result<()> {
        self.visitor.block(block)
    }

    fn page(&mut self, block: &Block, address: u64, page: Page<'_>, offset: u64) -> io::Result<()> {
        self.visitor.page(block, address, page, offset)
    }

    fn place(&mut self, block: &Block, address: u64, form: Form, offset: u64) -> io::Result<()> {
        self.visitor.place(block, address, form, offset)
    }

    fn memory_records(&mut self, records: Range<u64>) -> io::Result<()> {
        self.visitor.memory_records(records)
    }

    fn memory_section(&mut self, end: u64) {
        self.visitor.memory_section(end);
    }
}

fn no_snapshot(name: &str, snapshot: Option<&str>) -> Result<()> {
    match snapshot {
        Some(_) => Err(Failure::new(format!("{name} is no qcow2 image, so it has no snapshots"))),
        None => Ok(()),
    }
}

/// Returns the description of another stream of the same machine.
fn foreign_description(path: &Path, reading: &Reading) -> Result<Arc<Description>> {
    let own = Reading { snapshot: None, describe_by: None, offset: 0, ..reading.clone() };
    let stream = Input::open(path, &own)?.read(&mut Unwatched)?;
    stream.description.ok_or_else(|| Failure::new(format!("{} has no description", shown(path))))
}

/// Returns the state in an image: of the requested snapshot, or of the only one.
fn snapshot_state(name: &str, mapped: Mapped, wanted: Option<&str>, max_memory: usize) -> Result<Box<dyn Read>> {
    let fail = |message: String| Failure::new(format!("{name}: {message}"));
    let image = qcow2::Image::open(mapped.as_bytes()).map_err(fail)?;
    let with_state: Vec<_> = image.snapshots().iter().filter(|snapshot| snapshot.state_size > 0).collect();
    let list = || {
        with_state
            .iter()
            .map(|snapshot| format!("\n  {} {}", printable(&snapshot.id), printable(&snapshot.name)))
            .collect::<String>()
    };
    let found = match wanted {
        Some(wanted) => with_state.iter().find(|snapshot| snapshot.name == wanted || snapshot.id == wanted),
        None if with_state.len() == 1 => with_state.first(),
        None if with_state.is_empty() => None,
        None => return Err(fail(format!("name one of the snapshots with --snapshot:{}", list()))),
    };
    let Some(&snapshot) = found else {
        let what =
            wanted.map_or("no snapshot with a machine's state".into(), |wanted| format!("no snapshot '{wanted}'"));
        return Err(fail(if with_state.is_empty() { what } else { format!("{what}; there are:{}", list()) }));
    };
    let map = image.state_map(snapshot, &mut Budget::new(max_memory)).map_err(fail)?;
    Ok(Box::new(qcow2::StateReader::new(mapped, map)))
}
