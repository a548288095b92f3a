// SPDX-License-Identifier: LGPL-2.1-or-later
//! Writes the output of a command to a file that is replaced only by a complete one.
//!
//! What can't be replaced is written in place: standard output (`-`), pipes, devices, and files that are mount points.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use savevm_stream::inspect::io_text;
use savevm_stream::replace::{Access, Replacement, Target};

use crate::failure::{Context, Result};
use crate::output::is_stdout;
use crate::system::link_open_file;
use crate::words::shown;

/// A file that a command writes. It gets its name with `commit`, when it is complete and on the disk. Without that, a file of this
/// name stays as it was.
pub struct NewFile {
    path: PathBuf,
    new: Option<Replacement>,
    /// The file if it can't be replaced, from the first access on.
    in_place: Option<File>,
}

impl NewFile {
    /// Begins to write the file `path`. `access` is that of a file that did not exist before.
    pub fn begin(path: &Path, access: Access) -> io::Result<Self> {
        let new = match Target::begin(path, access, link_open_file)? {
            Target::New(new) => Some(new),
            Target::InPlace => None,
            Target::Fixed(error) => {
                let why = "its directory does not permit a new file that would replace it";
                return Err(io::Error::other(format!("{why}: {}", io_text(&error))));
            }
        };
        Ok(Self { path: path.to_owned(), new, in_place: None })
    }

    /// Returns the open file. It can be read if it is a regular one.
    pub fn file(&mut self) -> io::Result<&File> {
        if let Some(new) = &self.new {
            return Ok(new.file());
        }
        let file = match self.in_place.take() {
            Some(file) => file,
            None => {
                let is_regular = fs::metadata(&self.path).map_or(true, |data| data.is_file());
                File::options().read(is_regular).write(true).create(true).truncate(true).open(&self.path)?
            }
        };
        Ok(self.in_place.insert(file))
    }

    /// Ends the writing: the file is complete.
    pub fn commit(mut self) -> io::Result<()> {
        match &mut self.new {
            Some(new) => {
                let committed = new.commit();
                committed.map_err(|failed| io::Error::other(format!("{} it: {}", failed.doing, io_text(&failed.error))))
            }
            // Also a file without contents is created.
            None => self.file().map(drop),
        }
    }
}

/// Adds to an error which file can't be written. The end of a pipe's reader is no such error.
pub fn named(path: &Path, error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => error,
        _ => io::Error::other(format!("cannot write {}: {}", shown(path), io_text(&error))),
    }
}

/// Writes the file `path` with `write`, as [`NewFile`] does, or to standard output if the path is `-`. Returns what `write`
/// returned.
pub fn replace<T>(path: &Path, access: Access, write: impl FnOnce(&File) -> io::Result<T>) -> Result<T> {
    if is_stdout(path) {
        let what = || format!("cannot write {}", shown(path));
        let stdout = io::stdout().as_fd().try_clone_to_owned().context(what)?;
        return write(&File::from(stdout)).context(what);
    }
    let written = || {
        let mut new = NewFile::begin(path, access)?;
        let written = write(new.file()?)?;
        new.commit().map(|()| written)
    };
    Ok(written().map_err(|error| named(path, error))?)
}
