// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm extract`: writes guest memory as a sparse image.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use savevm_stream::inspect::{Block, Budget, Page, Stream, Visitor, guest_spans, printable};
use savevm_stream::replace::Access;

use super::inspect::report_damage;
use super::table::span_text;
use crate::args::Extract;
use crate::failure::{Failure, Result, Status};
use crate::input::{Input, check_output};
use crate::memory::{PageSet, apply_record, size_of_page};
use crate::output::is_stdout;
use crate::replace::{NewFile, named};
use crate::report;
use crate::words::{grouped, plural, shown, size};

/// Runs the command.
pub fn run(args: &Extract) -> Result<Status> {
    let input = Input::open(&args.file, &args.reading)?;
    let name = input.name.clone();
    if is_stdout(&args.output) || fs::metadata(&args.output).is_ok_and(|data| !data.is_file()) {
        let output = shown(&args.output);
        return Err(Failure::new(format!("cannot write {output}: the image is written at random, and must be a file")));
    }
    check_output(&args.file, &args.output)?;
    let mut image = Image::new(&args.ram, &args.output, Budget::new(args.reading.max_memory));
    let stream = input.read(&mut image)?;
    let mut status = report_damage(&name, &stream);
    let ram = printable(&args.ram);
    if image.file.is_none() {
        let blocks = stream.ram.blocks.iter().map(|block| format!("\n  {}", printable(&block.name)));
        return Err(Failure::new(format!("{name} has no RAM block '{ram}'; there are:{}", blocks.collect::<String>())));
    }
    image.flush()?;
    image.commit()?;
    println_quietly(&format!("{ram}: {}, {} with contents", size(image.length), plural(image.contents(), "byte")))?;
    for span in guest_spans(&stream).iter().filter(|span| *span.block == *args.ram) {
        println_quietly(&span_text(span))?;
    }
    let (missing, pages) = image.missing(&stream);
    if missing > 0 {
        let pages = plural(pages, "page");
        report(&format!("{ram}: {} of {pages} are not in the stream; they are zeros in the image", grouped(missing)));
        if let Some(why) = why_missing(&stream) {
            report(why);
        }
        status = status.max(Status::Found);
    }
    Ok(status)
}

/// Returns why pages may be missing, if the stream shows it.
fn why_missing(stream: &Stream) -> Option<&'static str> {
    if stream.ram.multifd {
        return Some("the source sent pages through multifd channels, which are other streams");
    }
    let shared = stream.configuration.as_ref().is_some_and(|configuration| configuration.has("x-ignore-shared"));
    shared.then_some("the source left shared memory out (x-ignore-shared)")
}

fn println_quietly(line: &str) -> Result<()> {
    Ok(io::Write::write_all(&mut io::stdout(), format!("{line}\n").as_bytes())?)
}

/// The image of one block. Zero pages become holes.
struct Image<'a> {
    wanted: &'a str,
    path: &'a Path,
    /// `None` until the block was found.
    file: Option<NewFile>,
    length: u64,
    /// No byte at or after this offset was written yet.
    untouched: u64,
    /// Adjacent pages that are written together.
    waiting: Vec<u8>,
    waiting_at: u64,
    page: Vec<u8>,
    /// The page size, known after the first page.
    page_size: u64,
    /// The pages in the stream, and the pages whose final contents are not zero.
    sent: PageSet,
    filled: PageSet,
}

/// Bytes that are written at once.
const BATCH: usize = 1 << 20;

impl<'a> Image<'a> {
    fn new(wanted: &'a str, path: &'a Path, budget: Budget) -> Self {
        Self {
            wanted,
            path,
            file: None,
            length: 0,
            untouched: 0,
            waiting: Vec::with_capacity(BATCH),
            waiting_at: 0,
            page: Vec::new(),
            page_size: 0,
            sent: PageSet::new(Budget::new(budget.left() / 2)),
            filled: PageSet::new(Budget::new(budget.left() / 2)),
        }
    }

    /// Returns the bytes of the pages that are not zero.
    fn contents(&self) -> u64 {
        self.filled.count() * self.page_size
    }

    /// Returns the number of missing pages and the number of all pages of the block.
    fn missing(&self, stream: &Stream) -> (u64, u64) {
        let known = stream.ram.page_size_or_usual();
        let pages = self.length.div_ceil(if self.page_size > 0 { self.page_size } else { known });
        (pages.saturating_sub(self.sent.count()), pages)
    }

    /// Stores that the stream has the page, and whether its contents are zero now.
    fn note(&mut self, address: u64, size: usize, zero: bool) -> io::Result<()> {
        if self.page_size == 0 {
            self.page_size = size.max(1) as u64;
        }
        let page = address / self.page_size;
        self.sent.set(page, true)?;
        self.filled.set(page, !zero)
    }

    /// Runs an operation on the file, which is created if needed. An error names the image.
    fn with_file<T>(&mut self, work: impl FnOnce(&mut Self, &File) -> io::Result<T>) -> io::Result<T> {
        let path = self.path;
        let new = match self.file.take() {
            Some(new) => Ok(new),
            None => NewFile::begin(path, Access::Owner),
        };
        let done = new.and_then(|mut new| {
            let done = new.file().and_then(|file| work(self, file));
            self.file = Some(new);
            done
        });
        done.map_err(|error| named(path, error))
    }

    /// Makes the file the image.
    fn commit(&mut self) -> io::Result<()> {
        self.file.take().map_or(Ok(()), NewFile::commit).map_err(|error| named(self.path, error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.with_file(|image, file| file.write_all_at(&image.waiting, image.waiting_at))?;
        self.waiting.clear();
        Ok(())
    }

    fn put(&mut self, address: u64, bytes: &[u8]) -> io::Result<()> {
        let zero = bytes.iter().all(|byte| *byte == 0);
        self.note(address, bytes.len(), zero)?;
        if zero && address >= self.untouched {
            return Ok(());
        }
        if address != self.waiting_at + self.waiting.len() as u64 || self.waiting.len() + bytes.len() > BATCH {
            self.flush()?;
            self.waiting_at = address;
        }
        self.waiting.extend_from_slice(bytes);
        self.untouched = self.untouched.max(address + bytes.len() as u64);
        Ok(())
    }

    /// Returns the current contents of the image at `address`.
    fn load(&mut self, address: u64, length: usize) -> io::Result<Vec<u8>> {
        self.flush()?;
        let mut page = std::mem::take(&mut self.page);
        page.clear();
        page.resize(length, 0);
        if address < self.untouched {
            self.with_file(|_, file| file.read_exact_at(&mut page, address))?;
        }
        Ok(page)
    }
}

impl Visitor for Image<'_> {
    const WANTS_PAGES: bool = true;

    fn block(&mut self, block: &Block) -> io::Result<()> {
        if *block.name == *self.wanted {
            self.length = block.length;
            self.with_file(|_, file| file.set_len(block.length))?;
        }
        Ok(())
    }

    fn page(&mut self, block: &Block, address: u64, page: Page<'_>, _offset: u64) -> io::Result<()> {
        if *block.name != *self.wanted {
            return Ok(());
        }
        if self.file.is_none() {
            // A stream may be recorded from after its list of blocks.
            self.with_file(|_, _| Ok(()))?;
        }
        if let Page::Plain(bytes) = page {
            return self.put(address, bytes);
        }
        if matches!(page, Page::Fill(0, _)) && address >= self.untouched {
            return self.note(address, size_of_page(page), true);
        }
        let mut buffer = self.load(address, size_of_page(page))?;
        apply_record(page, &mut buffer)?;
        self.put(address, &buffer)?;
        self.page = buffer;
        Ok(())
    }
}
