// SPDX-License-Identifier: LGPL-2.1-or-later
//! Passes shared memory to another process of this host: the descriptors of all shared blocks, over a Unix socket. The
//! migration follows on the same connection.
//!
//! ```text
//! head  = "SVMLIVE1", be32 number of records
//! block = be64 length, be64 guest address, u8 length of the name, 255 bytes name; with one descriptor
//! ```

use super::{Ram, block};
use crate::channel::{Cancel, Channel, Listener, Uri, connect};
use crate::error::{Error, Result, exact_size};
use crate::wire::limits::NAME_MAX;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const MAGIC: &[u8; 8] = b"SVMLIVE1";
const HEAD: usize = 12;
const RECORD: usize = 8 + 8 + 1 + NAME_MAX;
/// Most blocks that are accepted.
const BLOCKS_MAX: u32 = 1024;
/// Limit for the connection, and for one wait for the peer.
const LIMIT: Duration = Duration::from_secs(30);

/// A block that arrived.
pub struct PassedBlock {
    /// Its name.
    pub name: Vec<u8>,
    /// Its length in bytes. The file is at least as long.
    pub length: u64,
    /// Guest-physical address.
    pub guest_address: u64,
    /// The file of its memory.
    pub descriptor: OwnedFd,
}

fn failed(what: &str) -> impl Fn(io::Error) -> Error + '_ {
    move |err| match err.kind() {
        io::ErrorKind::Unsupported => Error::invalid(format!("{what}: a live update needs a Unix socket (unix:PATH)")),
        _ => Error::io(what, &err),
    }
}

impl Ram {
    /// Sets the descriptor of a shared block, which the host owns and keeps open while the block exists.
    pub fn set_descriptor(&self, name: &[u8], descriptor: RawFd) -> Result<()> {
        let blocks = self.blocks();
        let Some((_, block)) = block::find(&blocks, name) else {
            return Err(Error::new(libc::ENOENT, format!("no block '{}'", String::from_utf8_lossy(name))));
        };
        if !block.info.shared {
            return Err(Error::invalid(format!("block '{}' is not shared memory", block.name())));
        }
        block.descriptor.store(descriptor, Relaxed);
        Ok(())
    }

    /// Connects to the new process and passes all shared blocks. Returns the connection.
    pub fn pass_memory(&self, to: &Uri) -> Result<Arc<dyn Channel>> {
        let what = "passing memory to the new process";
        let blocks = self.blocks();
        let shared: Vec<_> = blocks.iter().filter(|block| block.info.shared).collect();
        let mut records = Vec::new();
        for block in &shared {
            let number = block.descriptor.load(Relaxed);
            let text = || format!("block '{}' has no descriptor (savevm_ram_set_descriptor())", block.name());
            if number < 0 {
                return Err(Error::invalid(text()));
            }
            // A copy, so that the number cannot get another meaning meanwhile.
            let copy = crate::sys::duplicate_fd(number).map_err(|err| Error::io(text(), &err))?;
            let mut record = Vec::with_capacity(RECORD);
            record.extend(block.len().to_be_bytes());
            record.extend(block.info.guest_address.to_be_bytes());
            record.push(block.info.name.len() as u8);
            record.extend(&block.info.name);
            record.resize(RECORD, 0);
            records.push((record, copy));
        }
        let channel = connect(to, Some(LIMIT), &Cancel::new()?)?;
        channel.set_stall_limit(Some(LIMIT));
        let mut head = MAGIC.to_vec();
        head.extend((records.len() as u32).to_be_bytes());
        channel.send_descriptors(&head, &[]).map_err(failed(what))?;
        for (record, descriptor) in &records {
            channel.send_descriptors(record, &[descriptor.as_fd()]).map_err(failed(what))?;
        }
        Ok(channel)
    }
}

/// Waits for the old process. Returns the connection and the memory that it passes.
pub fn accept_memory(from: &Uri) -> Result<(Arc<dyn Channel>, Vec<PassedBlock>)> {
    let what = "receiving memory from the old process";
    let channel = Listener::bind(from)?.accept(None, &Cancel::new()?)?;
    channel.set_stall_limit(Some(LIMIT));
    let mut head = [0; HEAD];
    channel.receive_descriptors(&mut head).map_err(failed(what))?;
    if !head.starts_with(MAGIC) {
        let found = head.escape_ascii();
        return Err(Error::invalid(format!("{what}: expected '{}', got '{found}'", MAGIC.escape_ascii())));
    }
    let count = u32::from_be_bytes([head[8], head[9], head[10], head[11]]);
    if count > BLOCKS_MAX {
        return Err(Error::invalid(format!("{what}: {count} blocks, expected at most {BLOCKS_MAX}")));
    }
    let blocks = (0..count).map(|_| receive_block(&*channel, what)).collect::<Result<_>>()?;
    Ok((channel, blocks))
}

fn receive_block(channel: &dyn Channel, what: &str) -> Result<PassedBlock> {
    let mut record = [0; RECORD];
    let mut descriptors = channel.receive_descriptors(&mut record).map_err(failed(what))?;
    let number = |at: usize| record[at..at + 8].iter().fold(0u64, |all, byte| all << 8 | u64::from(*byte));
    let (length, guest_address) = (number(0), number(8));
    let name = record[17..17 + usize::from(record[16])].to_vec();
    let shown = String::from_utf8_lossy(&name).into_owned();
    let (Some(descriptor), true) = (descriptors.pop(), descriptors.is_empty()) else {
        return Err(Error::invalid(format!("{what}: block '{shown}' did not come with one descriptor")));
    };
    // A mapping beyond the end of its file could not be read.
    let file = File::from(descriptor);
    let found = file.metadata().map_err(failed(what))?;
    if found.len() < length {
        let (has, wanted) = (exact_size(found.len()), exact_size(length));
        return Err(Error::invalid(format!("{what}: the file of block '{shown}' has {has}, expected {wanted}")));
    }
    Ok(PassedBlock { name, length, guest_address, descriptor: file.into() })
}
