// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm inspect` of the captures of a migration with several connections: one of a further connection, or a directory with
//! those of all connections, whose pages are accounted for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use savevm_stream::inspect::{Block, Budget, Multifd, Page, Stream, Visitor, is_multifd, printable, read_multifd};
use savevm_stream::wire::uuid_text;

use crate::args::{Format, Inspect};
use crate::failure::{Context, Failure, Result, Status};
use crate::input::Input;
use crate::memory::{PageSet, size_of_page};
use crate::output::{Output, Style};
use crate::report;
use crate::words::{grouped, plural, shown, size};

/// First bytes of a main stream.
const STREAM: &[u8] = b"QEVM";

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
    if args.format != Format::Table {
        return Err(Failure::new(format!("{}: captures of multifd channels are shown as a table only", shown(path))));
    }
    if is_directory { directory(args, out).map(Some) } else { channel(path, out).map(Some) }
}

fn read(path: &Path, page: impl FnMut(savevm_stream::inspect::MultifdPage<'_>) -> io::Result<()>) -> Result<Multifd> {
    let file = File::open(path).context(|| format!("cannot open {}", shown(path)))?;
    read_multifd(BufReader::new(file), page).context(|| shown(path))
}

/// Reports the damage of a capture.
fn damage(path: &Path, capture: &Multifd) -> Status {
    match &capture.damage {
        None => Status::Success,
        Some(damage) => {
            report(&format!("{}: {damage}", shown(path)));
            Status::Found
        }
    }
}

/// Shows one capture of a further connection.
fn channel(path: &Path, out: &mut Output) -> Result<Status> {
    let mut blocks = BTreeMap::<String, (u64, u64)>::new();
    let capture = read(path, |page| {
        let counts = blocks.entry(page.block.to_owned()).or_default();
        if page.is_zero {
            counts.1 += 1
        } else {
            counts.0 += 1
        }
        Ok(())
    })?;
    let title = out.paint(Style::Heading, shown(path));
    writeln!(out, "{title}: multifd channel {} of a migration", capture.hello.id)?;
    if capture.hello.uuid != [0; 16] {
        writeln!(out, "UUID {}", uuid_text(&capture.hello.uuid))?;
    }
    let method = capture.method.map_or("none", |method| method.name());
    writeln!(
        out,
        "{}, {}, page size {}, compression {method}",
        plural(capture.packets, "packet"),
        plural(capture.syncs, "sync"),
        capture.page_size
    )?;
    for (name, (normal, zero)) in &blocks {
        let name = out.paint(Style::Name, printable(name));
        writeln!(out, "{name}: {} with content, {} zero", plural(*normal, "page"), grouped(*zero))?;
    }
    writeln!(out, "total {}, {} of it pages", size(capture.bytes), size(capture.payload))?;
    out.flush()?;
    Ok(damage(path, &capture))
}

/// The pages of one block.
struct Arrived {
    length: u64,
    page_size: u64,
    main: u64,
    further: u64,
    pages: PageSet,
}

/// The pages of all blocks.
struct Account {
    blocks: BTreeMap<String, Arrived>,
    budget: Budget,
}

impl Account {
    /// Returns the pages of a block. A new one has no length yet.
    fn block(&mut self, name: &str, page_size: u64) -> &mut Arrived {
        self.blocks.entry(printable(name).into_owned()).or_insert_with(|| Arrived {
            length: 0,
            page_size,
            main: 0,
            further: 0,
            pages: PageSet::new(self.budget.clone()),
        })
    }

    fn arrived(&mut self, name: &str, address: u64, page_size: u64, is_main: bool) -> io::Result<()> {
        let block = self.block(name, page_size);
        block.page_size = page_size;
        *(if is_main { &mut block.main } else { &mut block.further }) += 1;
        block.pages.set(address / page_size.max(1), true)
    }
}

impl Visitor for Account {
    const WANTS_PAGES: bool = true;
    const WANTS_STATES: bool = false;

    fn page(&mut self, block: &Block, address: u64, page: Page<'_>, _offset: u64) -> io::Result<()> {
        self.arrived(&block.name, address, size_of_page(page) as u64, true)
    }
}

/// Shows the captures of a directory and accounts for all pages.
fn directory(args: &Inspect, out: &mut Output) -> Result<Status> {
    let path = &args.file;
    let (mut main, mut channels) = (Vec::new(), Vec::new());
    let entries = std::fs::read_dir(path).context(|| format!("cannot read {}", shown(path)))?;
    for entry in entries {
        let file = entry.context(|| format!("cannot read {}", shown(path)))?.path();
        match file.is_file().then(|| first_bytes(&file)) {
            Some(Ok(first)) if is_multifd(&first) => channels.push(file),
            Some(Ok(first)) if first == STREAM => main.push(file),
            _ => report(&format!("{}: note: no capture of a connection", shown(&file))),
        }
    }
    channels.sort();
    let [main] = &main[..] else {
        let text = format!("{}: it has {} main connections, expected 1", shown(path), main.len());
        return Err(Failure::new(text));
    };
    let budget = Budget::new(args.reading.max_memory);
    let mut account = Account { blocks: BTreeMap::new(), budget };
    let input = Input::open(main, &args.reading)?;
    let stream = input.read(&mut account)?;
    let page_size = stream.ram.page_size.map_or(4096, |(size, _)| size);
    for block in &stream.ram.blocks {
        account.block(&block.name, page_size).length = block.length;
    }
    let mut status = super::inspect::report_damage(&shown(main), &stream);
    write_main(main, &stream, out)?;
    let mut numbers = Vec::new();
    for file in &channels {
        let capture = read(file, |page| account.arrived(page.block, page.address, page.size, false))?;
        if matches!(damage(file, &capture), Status::Found) {
            status = Status::Found;
        }
        let name = out.paint(Style::Name, shown(file));
        let pages = plural(capture.normal + capture.zero, "page");
        writeln!(out, "{name}: multifd channel {}, {pages}, {}", capture.hello.id, size(capture.bytes))?;
        numbers.push(capture.hello.id);
    }
    numbers.sort_unstable();
    let expected: Vec<u8> = (0..numbers.len() as u8).collect();
    if numbers != expected {
        report(&format!("{}: the channels have the numbers {numbers:?}: some are missing or twice there", shown(path)));
        status = Status::Found;
    }
    if write_blocks(&account, out)? > 0 {
        status = Status::Found;
    }
    out.flush()?;
    Ok(status)
}

fn write_main(path: &Path, stream: &Stream, out: &mut Output) -> Result<()> {
    let name = out.paint(Style::Name, shown(path));
    let state = if stream.complete { "complete" } else { "incomplete" };
    Ok(writeln!(out, "{name}: main connection, {state}")?)
}

/// Writes the pages of each block. Returns the number of missing pages.
fn write_blocks(account: &Account, out: &mut Output) -> Result<u64> {
    let mut missing = 0;
    for (name, block) in &account.blocks {
        let all = block.length.div_ceil(block.page_size.max(1));
        let absent = all.saturating_sub(block.pages.count());
        missing += absent;
        let name = out.paint(Style::Name, name.clone());
        let absent = match absent {
            0 => "none missing".to_owned(),
            _ => out.paint(Style::Bad, format!("{} missing", grouped(absent))).to_string(),
        };
        writeln!(
            out,
            "block {name}: {}; sent on the main connection {}, on channels {}; {absent}",
            plural(all, "page"),
            grouped(block.main),
            grouped(block.further)
        )?;
    }
    Ok(missing)
}
