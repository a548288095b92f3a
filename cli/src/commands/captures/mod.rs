// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm inspect` of the captures of a migration with several connections: one of a further connection, or a directory with
//! those of all connections, whose pages are accounted for. `print.rs` writes what was read.

mod print;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use savevm_stream::inspect::{
    Block, Budget, Multifd, MultifdPage, Page, Stream, Visitor, io_text, is_multifd, printable, read_multifd,
};

use crate::args::{Format, Inspect};
use crate::failure::{Context, Failure, Result, Status};
use crate::input::Input;
use crate::memory::{PageSet, size_of_page};
use crate::output::Output;
use crate::report;
use crate::words::shown;

/// First bytes of a main stream.
const STREAM: &[u8] = b"QEVM";
/// Most names of blocks that are accounted for: a damaged capture can have any number.
const BLOCKS_MAX: usize = 4096;

/// Returns the first bytes of a file, as far as it has them.
fn first_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut first = Vec::new();
    File::open(path)?.take(STREAM.len() as u64).read_to_end(&mut first)?;
    Ok(first)
}

/// Shows the captures that `args` names. `None` if it names something else.
pub fn run(args: &Inspect, out: &mut Output) -> Result<Option<Status>> {
    let path = &args.file;
    let is_directory = path.is_dir();
    // A pipe can't be looked at twice.
    let is_channel = path.is_file() && first_bytes(path).is_ok_and(|first| is_multifd(&first));
    if !is_directory && !is_channel {
        return Ok(None);
    }
    let is_shown = matches!(args.format, Format::Table | Format::Json);
    if !is_shown || args.plot.is_some() || args.hex || !args.device.is_empty() {
        let text = format!("{}: captures of multifd channels are shown as a table or as JSON only", shown(path));
        return Err(Failure::new(text));
    }
    let captures = if is_directory { Captures::of_directory(args)? } else { Captures::of_channel(args)? };
    match args.format {
        Format::Json => print::json(&captures, out)?,
        _ if is_directory => print::directory(&captures, out)?,
        _ => print::channel(&captures, out)?,
    }
    out.flush()?;
    Ok(Some(captures.report(path)))
}

/// The pages of a block in one capture.
#[derive(Clone, Copy, Default)]
struct Counts {
    normal: u64,
    zero: u64,
}

/// The capture of a further connection.
struct Channel {
    path: PathBuf,
    capture: Multifd,
    blocks: BTreeMap<String, Counts>,
}

/// The pages of one block in all captures.
struct Arrived {
    length: u64,
    page_size: u64,
    main: u64,
    further: u64,
    pages: PageSet,
}

impl Arrived {
    /// Number of pages of the block.
    fn all(&self) -> u64 {
        self.length.div_ceil(self.page_size.max(1))
    }

    fn missing(&self) -> u64 {
        self.all().saturating_sub(self.pages.count())
    }
}

/// The pages of all blocks.
struct Account {
    blocks: BTreeMap<String, Arrived>,
    budget: Budget,
}

/// What was read.
struct Captures {
    main: Option<(PathBuf, Stream)>,
    channels: Vec<Channel>,
    /// Files of the directory that can't be read, each of which may be a capture, with the reasons.
    unreadable: Vec<(PathBuf, String)>,
    /// Of a directory.
    account: Account,
}

fn too_many_blocks() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it has pages of more than {BLOCKS_MAX} blocks"))
}

impl Account {
    /// Returns the pages of a block. A new one has no length yet.
    fn block(&mut self, name: &str, page_size: u64) -> io::Result<&mut Arrived> {
        let name = printable(name).into_owned();
        if self.blocks.len() >= BLOCKS_MAX && !self.blocks.contains_key(&name) {
            return Err(too_many_blocks());
        }
        Ok(self.blocks.entry(name).or_insert_with(|| Arrived {
            length: 0,
            page_size,
            main: 0,
            further: 0,
            pages: PageSet::new(self.budget.clone()),
        }))
    }

    fn arrived(&mut self, name: &str, address: u64, page_size: u64, is_main: bool) -> io::Result<()> {
        let block = self.block(name, page_size)?;
        block.page_size = page_size;
        *(if is_main { &mut block.main } else { &mut block.further }) += 1;
        block.pages.set(address / page_size.max(1), true)
    }

    fn missing(&self) -> u64 {
        self.blocks.values().map(Arrived::missing).sum()
    }
}

impl Visitor for Account {
    const WANTS_PAGES: bool = true;
    const WANTS_STATES: bool = false;

    fn page(&mut self, block: &Block, address: u64, page: Page<'_>, _offset: u64) -> io::Result<()> {
        self.arrived(&block.name, address, size_of_page(page) as u64, true)
    }
}

impl Channel {
    /// Reads a capture. `seen` gets each page.
    fn read(path: &Path, mut seen: impl FnMut(MultifdPage<'_>) -> io::Result<()>) -> Result<Self> {
        let file = File::open(path).context(|| format!("cannot open {}", shown(path)))?;
        let mut blocks = BTreeMap::<String, Counts>::new();
        let capture = read_multifd(BufReader::new(file), |page| {
            if !blocks.contains_key(page.block) {
                if blocks.len() >= BLOCKS_MAX {
                    return Err(too_many_blocks());
                }
                blocks.insert(page.block.to_owned(), Counts::default());
            }
            if let Some(counts) = blocks.get_mut(page.block) {
                *(if page.is_zero { &mut counts.zero } else { &mut counts.normal }) += 1;
            }
            seen(page)
        });
        Ok(Self { path: path.to_owned(), capture: capture.context(|| shown(path))?, blocks })
    }
}

impl Captures {
    fn of_channel(args: &Inspect) -> Result<Self> {
        let account = Account { blocks: BTreeMap::new(), budget: Budget::new(args.reading.max_memory) };
        let channels = vec![Channel::read(&args.file, |_| Ok(()))?];
        Ok(Self { main: None, channels, unreadable: Vec::new(), account })
    }

    fn of_directory(args: &Inspect) -> Result<Self> {
        let path = &args.file;
        let (mut main, mut files, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
        let entries = fs::read_dir(path).context(|| format!("cannot read {}", shown(path)))?;
        for entry in entries {
            let file = entry.context(|| format!("cannot read {}", shown(path)))?.path();
            let is_file = fs::metadata(&file).map(|data| data.is_file());
            match is_file.and_then(|is_file| if is_file { first_bytes(&file) } else { Ok(Vec::new()) }) {
                Ok(first) if is_multifd(&first) => files.push(file),
                Ok(first) if first == STREAM => main.push(file),
                Ok(_) => report(&format!("{}: note: no capture of a connection", shown(&file))),
                Err(error) => {
                    report(&format!("cannot open {}: {}", shown(&file), io_text(&error)));
                    unreadable.push((file, io_text(&error)));
                }
            }
        }
        files.sort();
        unreadable.sort();
        let [main] = &main[..] else {
            let text = format!("{}: it has {} main connections, expected 1", shown(path), main.len());
            return Err(Failure::new(text));
        };
        let mut account = Account { blocks: BTreeMap::new(), budget: Budget::new(args.reading.max_memory) };
        let stream = Input::open(main, &args.reading)?.read(&mut account)?;
        let page_size = stream.ram.page_size_or_usual();
        for block in &stream.ram.blocks {
            account.block(&block.name, page_size)?.length = block.length;
        }
        let mut channels = Vec::new();
        for file in &files {
            channels.push(Channel::read(file, |page| account.arrived(page.block, page.address, page.size, false))?);
        }
        Ok(Self { main: Some((main.clone(), stream)), channels, unreadable, account })
    }

    /// Returns the numbers of the connections if some are missing or twice there.
    fn wrong_numbers(&self) -> Option<Vec<u8>> {
        let mut numbers: Vec<u8> = self.channels.iter().map(|channel| channel.capture.hello.id).collect();
        numbers.sort_unstable();
        let expected = 0..numbers.len();
        (self.main.is_some() && !expected.eq(numbers.iter().map(|number| usize::from(*number)))).then_some(numbers)
    }

    /// Reports damage. The status is that of a problem if there is some, or if pages are missing, and that of an error if a file
    /// can't be read.
    fn report(&self, path: &Path) -> Status {
        let mut status = match &self.main {
            Some((main, stream)) => super::inspect::report_damage(&shown(main), stream),
            None => Status::Success,
        };
        for Channel { path, capture, .. } in &self.channels {
            if let Some(damage) = &capture.damage {
                report(&format!("{}: {damage}", shown(path)));
                status = Status::Found;
            }
        }
        if let Some(numbers) = self.wrong_numbers() {
            let text = format!("the channels have the numbers {numbers:?}: some are missing or twice there");
            report(&format!("{}: {text}", shown(path)));
            status = Status::Found;
        }
        if self.account.missing() > 0 {
            status = Status::Found;
        }
        if !self.unreadable.is_empty() {
            status = Status::Error;
        }
        status
    }
}
