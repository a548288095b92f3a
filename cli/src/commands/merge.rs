// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm merge`: writes a full snapshot from an incremental one and its ancestors.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

use savevm_stream::chain::{Flat, FlatForm, Part, ReadAt};
use savevm_stream::replace::Access;

use crate::args::{Merge, SnapshotFormat};
use crate::failure::{Result, Status};
use crate::input::{chain, check_output};
use crate::output::is_stdout;
use crate::replace::replace;
use crate::words::{plural, shown, size};

/// Zeros that are written at once where a file can't have holes.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// Writes a snapshot, whose holes become holes of a regular file, otherwise zeros. Returns its length.
fn write_sparse<F: ReadAt>(mut flat: Flat<F>, mut file: &File) -> io::Result<u64> {
    let has_holes = file.metadata()?.is_file();
    let mut length = 0;
    while let Some(part) = flat.next_part()? {
        match part {
            Part::Bytes(bytes) => {
                file.write_all(bytes)?;
                length += bytes.len() as u64;
            }
            Part::Hole(count) if has_holes => {
                length = file.seek(SeekFrom::Start(length.saturating_add(count)))?;
            }
            Part::Hole(mut count) => {
                length = length.saturating_add(count);
                while count > 0 {
                    let step = count.min(ZEROS.len() as u64);
                    file.write_all(&ZEROS[..step as usize])?;
                    count -= step;
                }
            }
        }
    }
    if has_holes {
        file.set_len(length)?;
    }
    Ok(length)
}

/// Runs the command.
pub fn run(args: &Merge) -> Result<Status> {
    check_output(&args.file, &args.output)?;
    let chain = chain::open(&args.file, args.max_memory)?;
    let form = match args.format {
        SnapshotFormat::Stream => FlatForm::Stream,
        SnapshotFormat::Mapped => FlatForm::Mapped,
    };
    let length = replace(&args.output, Access::Owner, |file| write_sparse(chain.flatten(form), file))?;
    if !is_stdout(&args.output) {
        let files = plural(chain.paths().count() as u64, "file");
        writeln!(io::stdout(), "{}: {} from {files}", shown(&args.output), size(length))?;
    }
    Ok(Status::Success)
}
