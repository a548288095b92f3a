// SPDX-License-Identifier: LGPL-2.1-or-later
//! The hypervisor's RAM in postcopy behind the library's trait.

use crate::error::{Error, Result};
use crate::ffi::exports::postcopy::SaveVMPostcopyOps;
use crate::ffi::marshal::c_file::as_c;
use crate::ffi::marshal::{strings, structs};
use crate::file::MigFile;
use crate::savevm::slot::{PageSource, PostcopyRam};
use crate::sync::check_none_held;
use std::ffi::{CString, c_void};
use std::sync::Arc;

/// A copied table and the hypervisor's pointer.
pub(in crate::ffi) struct CPostcopy {
    ops: SaveVMPostcopyOps,
    host: *mut c_void,
}

// SAFETY: the contract of SaveVMPostcopyOps: called from the threads and under the locks that it names.
unsafe impl Send for CPostcopy {}
// SAFETY: as above.
unsafe impl Sync for CPostcopy {}

/// Calls a member; NULL is an error that names it, or `Ok` with `or_nothing`. Negative results are errors.
macro_rules! ask {
    ($self:ident.$member:ident($($argument:expr),*)) => {
        match $self.ops.$member {
            Some(function) => {
                check_none_held(stringify!($member));
                // SAFETY: the contract of SaveVMPostcopyOps.
                check(stringify!($member), unsafe { function($self.host, $($argument),*) } as isize).map(drop)
            }
            None => Err(missing(stringify!($member))),
        }
    };
    ($self:ident.$member:ident($($argument:expr),*) or nothing) => {
        match $self.ops.$member {
            Some(_) => ask!($self.$member($($argument),*)),
            None => Ok(()),
        }
    };
}

fn missing(member: &str) -> Error {
    Error::new(libc::ENOTSUP, format!("this host's RAM does not offer {member}"))
}

fn check(member: &str, ret: isize) -> Result<usize> {
    usize::try_from(ret).map_err(|_| Error::from_callback(member, i32::try_from(ret).unwrap_or(i32::MIN)))
}

fn block_name(block: &[u8]) -> Result<CString> {
    CString::new(block).map_err(|_| Error::invalid("a block name with a zero byte"))
}

impl CPostcopy {
    /// # Safety
    /// The contract of `SaveVMHostOps.postcopy`.
    pub(in crate::ffi) unsafe fn new(ops: *const SaveVMPostcopyOps, host: *mut c_void) -> Result<Option<Self>> {
        // SAFETY: as the caller promised.
        unsafe { structs::sized_struct(ops) }.map(|ops| ops.map(|ops| Self { ops, host }))
    }
}

impl PostcopyRam for CPostcopy {
    fn blocks(&self) -> Vec<Vec<u8>> {
        let mut names = Vec::new();
        // SAFETY: the contract of the member.
        let mut next = self.ops.blocks.map_or(std::ptr::null(), |blocks| unsafe { blocks(self.host) });
        // SAFETY: the contract of the member: NULL, or an array of strings that ends with NULL.
        while let Some(name) = unsafe { next.as_ref().and_then(|name| strings::name(*name)) } {
            names.push(name);
            next = next.wrapping_add(1);
        }
        names
    }

    fn send_discards(&self, file: &MigFile) -> Result<()> {
        ask!(self.send_discards(as_c(file)))
    }

    fn pages_requested(&self, block: Option<&[u8]>, start: u64, len: u32) -> Result<()> {
        let block = block.map(block_name).transpose()?;
        ask!(self.pages_requested(block.as_ref().map_or(std::ptr::null(), |block| block.as_ptr()), start, len))
    }

    fn received(&self, block: &[u8], bits: &[u8]) -> Result<()> {
        let block = block_name(block)?;
        ask!(self.received(block.as_ptr(), bits.as_ptr(), bits.len()))
    }

    fn advise(&self) -> Result<()> {
        ask!(self.advise() or nothing)
    }

    fn prepare_discard(&self) -> Result<()> {
        ask!(self.prepare_discard() or nothing)
    }

    fn discard(&self, block: &[u8], start: u64, len: u64) -> Result<()> {
        let block = block_name(block)?;
        ask!(self.discard(block.as_ptr(), start, len))
    }

    fn listen(&self, _source: Arc<dyn PageSource>, migration: usize) -> Result<()> {
        // The host requests pages through its handle.
        ask!(self.listen(migration as *mut _))
    }

    fn paused(&self) {
        if let Some(paused) = self.ops.paused {
            // SAFETY: the contract of SaveVMPostcopyOps.
            unsafe { paused(self.host) }
        }
    }

    fn resumed(&self) {
        if let Some(resumed) = self.ops.resumed {
            // SAFETY: the contract of SaveVMPostcopyOps.
            unsafe { resumed(self.host) }
        }
    }

    fn received_bits(&self, block: &[u8]) -> Result<Vec<u8>> {
        let block = block_name(block)?;
        let received_bits = self.ops.received_bits.ok_or_else(|| missing("received_bits"))?;
        let mut bits = std::ptr::null();
        // SAFETY: the contract of SaveVMPostcopyOps.
        let len = check("received_bits", unsafe { received_bits(self.host, block.as_ptr(), &raw mut bits) })?;
        if bits.is_null() || len == 0 {
            return Ok(Vec::new());
        }
        // SAFETY: the contract of the member: so many bytes, until the next call.
        Ok(unsafe { std::slice::from_raw_parts(bits, len) }.to_vec())
    }

    fn release(&self, stopped: bool) {
        // A guest that could not be stopped must not read memory that did not arrive: the host keeps its threads waiting.
        if stopped {
            self.end(false);
        }
    }

    fn end(&self, complete: bool) {
        if let Some(end) = self.ops.end {
            // SAFETY: the contract of SaveVMPostcopyOps.
            unsafe { end(self.host, complete) }
        }
    }
}
