// SPDX-License-Identifier: LGPL-2.1-or-later
//! `savevm merge`: writes a full snapshot from an incremental one and its ancestors.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use savevm_stream::chain::{Flat, FlatForm, Part, ReadAt};

use crate::args::{Merge, SnapshotFormat};
use crate::failure::{Context, Failure, Result, Status};
use crate::input::chain;
use crate::words::{plural, shown, size};

/// A file that is removed unless it was renamed.
struct Temporary(Option<PathBuf>);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

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
    let what = || format!("cannot write {}", shown(&args.output));
    let name = args.output.file_name().ok_or_else(|| Failure::new(format!("{} is no file", shown(&args.output))))?;
    let directory = args.output.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let path = directory.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let mut file = File::options().write(true).create_new(true).open(&path).context(what)?;
    let mut temporary = Temporary(Some(path.clone()));
    let form = match args.format {
        SnapshotFormat::Stream => FlatForm::Stream,
        SnapshotFormat::Mapped => FlatForm::Mapped,
    };
    let length = write_sparse(chain.flatten(form), &mut file).context(what)?;
    file.sync_all().context(what)?;
    fs::rename(&path, &args.output).context(what)?;
    temporary.0 = None;
    // Some file systems cannot sync a directory.
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
    let files = plural(chain.paths().count() as u64, "file");
    writeln!(io::stdout(), "{}: {} from {files}", shown(&args.output), size(length))?;
    Ok(Status::Success)
}
