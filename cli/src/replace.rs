// SPDX-License-Identifier: LGPL-2.1-or-later
//! Writes the output of a command to a file that is replaced only by a complete one.
//!
//! What can't be replaced is written in place: standard output (`-`), pipes, devices, and files that are mount points.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use savevm_stream::replace::Target;

use crate::failure::{Context, Result};
use crate::output::is_stdout;
use crate::system::link_open_file;
use crate::words::shown;

/// Writes the file `path` with `write`. A regular file gets its name when it is complete and on the disk. Returns what `write`
/// returned.
pub fn replace<T>(path: &Path, write: impl FnOnce(&File) -> io::Result<T>) -> Result<T> {
    let what = || format!("cannot write {}", shown(path));
    if is_stdout(path) {
        let stdout = io::stdout().as_fd().try_clone_to_owned().context(what)?;
        return write(&File::from(stdout)).context(what);
    }
    match Target::begin(path, link_open_file).context(what)? {
        Target::New(mut new) => {
            let written = write(new.file()).context(what)?;
            let committed = new.commit();
            committed.or_else(|failed| Err(failed.error).context(|| format!("{}: {} it", what(), failed.doing)))?;
            Ok(written)
        }
        Target::InPlace => {
            let file = File::options().write(true).create(true).truncate(true).open(path).context(what)?;
            write(&file).context(what)
        }
        Target::Fixed(error) => {
            Err(error).context(|| format!("{}: its directory does not permit a new file that would replace it", what()))
        }
    }
}
