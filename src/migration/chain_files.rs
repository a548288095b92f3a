// SPDX-License-Identifier: LGPL-2.1-or-later
//! The files of a chain of snapshots, on disk.

use crate::chain::{self, Chain, Files, ReadAt};
use crate::channel::PositionedFile;
use crate::error::{Error, Result};
use crate::inspect::Budget;
use crate::savevm::chain_pages::{ChainBlock, ChainPages};
use crate::savevm::checkpoint::SavedSnapshot;
use crate::sys::open_at_once;
use crate::wire::chain::Identity;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl ReadAt for PositionedFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.read_some(into, offset)
    }

    fn length(&self) -> io::Result<u64> {
        self.size().map_err(|err| io::Error::other(err.message().to_owned()))
    }
}

/// Opens files on disk.
pub struct DiskFiles;

impl Files for DiskFiles {
    type File = PositionedFile;

    fn open(&mut self, path: &Path) -> io::Result<(PositionedFile, u128)> {
        let file = open_at_once(path)?;
        let data = file.metadata()?;
        if !data.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let number = u128::from(data.dev()) << 64 | u128::from(data.ino());
        Ok((PositionedFile::from_file(file, path.display().to_string()), number))
    }
}

/// Opens the chain of a snapshot, if it is incremental. `lazily`: without reading its pages, which must be checked when they are
/// read.
pub fn open_incremental(path: &Path, lazily: bool) -> Result<Option<Arc<Chain<PositionedFile>>>> {
    let failed = |err: &io::Error| Error::io(format_args!("opening {}", path.display()), err);
    let (file, _) = DiskFiles.open(path).map_err(|err| failed(&err))?;
    let start = chain::read_start(&file).map_err(|err| failed(&err))?;
    if chain::link(&start).is_none() {
        return Ok(None);
    }
    let real = std::fs::canonicalize(path).map_err(|err| failed(&err))?;
    let (files, mut budget) = (&mut DiskFiles, Budget::default());
    let chain = match lazily {
        true => Chain::open_by_lists(files, &real, &mut budget),
        false => Chain::open(files, &real, &mut budget),
    };
    chain.map(Some).map_err(Error::invalid)
}

/// Where the pages of a chain are, for a lazy restore of a machine with pages of this size.
pub fn chain_pages(chain: &Chain<PositionedFile>, page_size: u64) -> Result<ChainPages> {
    if chain.page_size() != page_size {
        let text = format!("the snapshot has pages of {} bytes, and the machine of {page_size}", chain.page_size());
        return Err(Error::invalid(text));
    }
    let files = chain.files().map(PositionedFile::again);
    let blocks = chain.blocks().zip(chain.pages()).map(|((name, length), pages)| ChainBlock {
        name: name.to_owned(),
        count: length / page_size,
        pages: Arc::clone(pages),
    });
    Ok(ChainPages { blocks: blocks.collect(), files: files.collect::<Result<_>>()? })
}

/// What shows whether a file was changed.
fn state(data: &Metadata) -> (u64, u64, i128) {
    (data.dev(), data.ino(), i128::from(data.mtime()) * 1_000_000_000 + i128::from(data.mtime_nsec()))
}

/// Describes a snapshot that has this path now. `pages` are its encoded pages, if it is a full one.
pub fn describe(
    path: &Path,
    (identity, pages): (Identity, Option<Vec<u8>>),
    ancestors: Vec<PathBuf>,
) -> Result<SavedSnapshot> {
    let failed = |err| Error::io(format_args!("looking at {}", path.display()), &err);
    let path = std::fs::canonicalize(path).map_err(failed)?;
    let state = state(&std::fs::metadata(&path).map_err(failed)?);
    Ok(SavedSnapshot { path, identity, pages: pages.map(Arc::new), state, ancestors })
}

/// Describes the snapshot of a chain.
pub fn describe_chain(chain: &Chain<PositionedFile>) -> Result<SavedSnapshot> {
    let mut paths = chain.paths().map(Path::to_owned);
    let path = paths.next().unwrap_or_default();
    describe(&path, (chain.identity(), None), paths.collect())
}

/// Describes a full snapshot of a machine with pages of this size. The file is read.
pub fn describe_full(path: &Path, page_size: u64) -> Result<SavedSnapshot> {
    let failed = |err: io::Error| Error::io(format_args!("reading {}", path.display()), &err);
    let (file, _) = DiskFiles.open(path).map_err(failed)?;
    describe(path, chain::survey(&file, Some(page_size)).map_err(failed)?, Vec::new())
}

/// Fails if a snapshot is not the file any more that it was.
pub fn check_unchanged(snapshot: &SavedSnapshot) -> Result<()> {
    let path = snapshot.path.display();
    let data = std::fs::metadata(&snapshot.path).map_err(|err| Error::io(format_args!("the parent {path}"), &err))?;
    if state(&data) != snapshot.state || data.len() != snapshot.identity.length {
        let text =
            format!("the parent {path} was changed or replaced since it was saved or loaded; save a full snapshot");
        return Err(Error::new(libc::ESTALE, text));
    }
    Ok(())
}
