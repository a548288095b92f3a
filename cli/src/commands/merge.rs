// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm merge`: writes a full snapshot from an incremental one and its ancestors.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use savevm_stream::chain::{Flat, FlatForm, Part, ReadAt};

use crate::args::{Merge, SnapshotFormat};
use crate::failure::{Failure, Result, Status};
use crate::input::chain;
use crate::replace::replace;
use crate::words::{plural, shown, size};

/// Returns the device and the inode of a file.
fn number(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// Writes a snapshot, whose holes become holes of the file. Returns its length.
fn write_sparse<F: ReadAt>(mut flat: Flat<F>, file: &mut File) -> io::Result<u64> {
    while let Some(part) = flat.next_part()? {
        match part {
            Part::Bytes(bytes) => file.write_all(bytes)?,
            Part::Hole(count) => {
                let end = file.stream_position()?.saturating_add(count);
                file.seek(SeekFrom::Start(end))?;
            }
        }
    }
    let length = file.stream_position()?;
    file.set_len(length)?;
    Ok(length)
}

/// Runs the command.
pub fn run(args: &Merge) -> Result<Status> {
    let chain = chain::open(&args.file, args.max_memory)?;
    let output = number(&args.output);
    if output.is_some() && chain.paths().any(|path| number(path) == output) {
        let text = format!("{} is a file of the chain, which other snapshots may need", shown(&args.output));
        return Err(Failure::new(text));
    }
    let form = match args.format {
        SnapshotFormat::Stream => FlatForm::Stream,
        SnapshotFormat::Mapped => FlatForm::Mapped,
    };
    let length = replace(&args.output, |file| write_sparse(chain.flatten(form), file))?;
    let files = plural(chain.paths().count() as u64, "file");
    writeln!(io::stdout(), "{}: {} from {files}", shown(&args.output), size(length))?;
    Ok(Status::Success)
}
