// SPDX-License-Identifier: LGPL-2.1-or-later
//! The hypervisor's dirty log behind the library's trait.

use crate::ffi::types::ram_tables::{SaveVMRamBlock, SaveVMRamOps};
use crate::ram::block::Block;
use crate::ram::tracker::HostLog;
use std::ffi::{CString, c_void};

/// The log of a hypervisor.
pub(in crate::ffi) struct CLog {
    pub ops: SaveVMRamOps,
    pub opaque: *mut c_void,
}

// SAFETY: the contract of savevm_ram_new(): the functions may be called from any thread.
unsafe impl Send for CLog {}
// SAFETY: as above.
unsafe impl Sync for CLog {}

impl HostLog for CLog {
    fn start(&self) -> i32 {
        // SAFETY: the contract of the table.
        self.ops.log_start.map_or(0, |start| unsafe { start(self.opaque) })
    }

    fn sync(&self, block: &Block, words: &mut [u64]) -> i32 {
        let Some(sync) = self.ops.log_sync else { return 0 };
        let name = CString::new(&*block.info.name).unwrap_or_default();
        let c_block = SaveVMRamBlock {
            size: size_of::<SaveVMRamBlock>(),
            name: name.as_ptr(),
            host: block.memory().address() as *mut c_void,
            length: block.len(),
            page_size: block.info.page_size as u64,
            guest_address: block.info.guest_address,
            shared: block.info.shared,
            opaque: block.info.opaque as *mut c_void,
        };
        // SAFETY: the contract of the table; the bitmap is writable for its length.
        unsafe { sync(self.opaque, &raw const c_block, words.as_mut_ptr(), words.len()) }
    }

    fn stop(&self) {
        if let Some(stop) = self.ops.log_stop {
            // SAFETY: the contract of the table.
            unsafe { stop(self.opaque) }
        }
    }
}
