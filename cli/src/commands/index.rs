// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm index`: writes where the pages of a snapshot are, so that a lazy restore starts at once.

use std::fs::{self, Metadata};
use std::io::Write;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use savevm_stream::inspect::{Budget, PageIndexer, Unwatched};
use savevm_stream::replace::Access;
use savevm_stream::wire::page_index::{FileState, PageIndex};

use super::inspect::report_damage;
use crate::args::Index;
use crate::failure::{Context, Failure, Result, Status};
use crate::input::{Input, check_output};
use crate::output::is_stdout;
use crate::replace::replace;
use crate::words::{plural, shown, size};

/// Runs the command.
pub fn run(args: &Index) -> Result<Status> {
    check_output(&args.file, &args.output)?;
    let look = || fs::metadata(&args.file).context(|| format!("cannot open {}", shown(&args.file)));
    let mut data = look()?;
    if !is_settled(&data) {
        thread::sleep(Duration::from_nanos(2 * FileState::TICK as u64));
        data = look()?;
    }
    let input = Input::open(&args.file, &args.reading)?;
    let name = input.name.clone();
    let Some(base) = input.base().filter(|_| data.is_file()) else {
        let why = "an index needs a full stream in a regular file, which is not compressed or in an image; \
                   `savevm merge` writes one from an incremental snapshot";
        return Err(Failure::new(format!("{name}: {why}")));
    };
    let stream = input.read(&mut Unwatched)?;
    let status = report_damage(&name, &stream);
    if status != Status::Success {
        return Ok(status);
    }
    let page_size = stream.ram.page_size_or_usual();
    let mut indexer = PageIndexer::new(page_size, Budget::new(args.reading.max_memory));
    let stream = Input::open(&args.file, &args.reading)?.with_page_size(page_size).read(&mut indexer)?;
    let Some(found) = indexer.finish(&stream, base) else {
        return Err(Failure::new(format!("{name}: its pages have fixed places, so it needs no index")));
    };
    let index = PageIndex { file: FileState::from(&data), ..found.index };
    if !is_settled(&data) || FileState::from(&look()?) != index.file {
        return Err(Failure::new(format!("{name}: the file changes, or its file system has another clock")));
    }
    let bytes = index.encode();
    replace(&args.output, Access::Owner, |mut file| file.write_all(&bytes))?;
    if is_stdout(&args.output) {
        return Ok(status);
    }
    let runs = index.blocks.iter().map(|block| block.runs.len() as u64).sum();
    let (length, runs) = (size(bytes.len() as u64), plural(runs, "run"));
    writeln!(std::io::stdout(), "{}: {length}, {runs} of pages", shown(&args.output))?;
    Ok(status)
}

/// Whether a further change of the file would show in its times.
fn is_settled(data: &Metadata) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as i64);
    FileState::from(data).is_settled(now)
}
