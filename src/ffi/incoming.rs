// SPDX-License-Identifier: LGPL-2.1-or-later
//! A host's own loading driver behind the library's trait.

use super::api::types::SaveVMIncomingOps;
use super::bytes;
use super::file::{as_c, file_ref};
use crate::error::{Error, Result};
use crate::file::MigFile;
use crate::savevm::host::{Incoming, PostcopyState};
use std::ffi::{CString, c_int, c_void};
use std::sync::Mutex;

/// A copied table and the hypervisor's pointer.
pub(super) struct CIncoming {
    ops: SaveVMIncomingOps,
    host: *mut c_void,
    /// Where the host keeps no state of its own.
    state: Mutex<PostcopyState>,
}

// SAFETY: the contract of SaveVMIncomingOps: called on whatever thread loads.
unsafe impl Send for CIncoming {}
// SAFETY: as above.
unsafe impl Sync for CIncoming {}

/// Calls a member; NULL and negative results are errors that name it.
macro_rules! ask {
    ($self:ident.$member:ident($($argument:expr),*)) => {
        match $self.ops.$member {
            // SAFETY: the contract of SaveVMIncomingOps.
            Some(function) => match unsafe { function($self.host, $($argument),*) } {
                ret if ret < 0 => Err(Error::from_callback(stringify!($member), ret)),
                _ => Ok(()),
            },
            None => {
                Err(Error::new(libc::ENOTSUP, concat!("this host does not offer ", stringify!($member))))
            }
        }
    };
}

fn block_name(block: &[u8]) -> Result<CString> {
    CString::new(block).map_err(|_| Error::invalid("a block name with a zero byte"))
}

impl CIncoming {
    /// # Safety
    /// The contract of `SaveVMHostOps.incoming`.
    pub(super) unsafe fn new(ops: *const SaveVMIncomingOps, host: *mut c_void) -> Option<Self> {
        // SAFETY: as the caller promised; all members are sizes and nullable functions.
        unsafe { bytes::sized_struct(ops) }.map(|ops| Self { ops, host, state: Mutex::default() })
    }
}

impl Incoming for CIncoming {
    fn open_return_path(&self, file: &MigFile) -> Result<()> {
        ask!(self.open_return_path(as_c(file)))
    }

    fn pong(&self, value: u32) -> Result<()> {
        ask!(self.pong(value))
    }

    fn postcopy_state(&self, new: Option<PostcopyState>) -> PostcopyState {
        match self.ops.postcopy_state {
            Some(exchange) => {
                // SAFETY: the contract of SaveVMIncomingOps.
                let before = unsafe { exchange(self.host, new.map_or(-1, |new| new as c_int)) };
                PostcopyState::from_number(before).unwrap_or_default()
            }
            None => {
                let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                let before = *state;
                *state = new.unwrap_or(before);
                before
            }
        }
    }

    fn postcopy_advise(&self, ram: Option<(u64, u64)>) -> Result<()> {
        ask!(self.postcopy_advise(ram.is_some()))
    }

    fn postcopy_prepare_discard(&self) -> Result<()> {
        ask!(self.postcopy_prepare_discard())
    }

    fn postcopy_discard(&self, block: &[u8], start: u64, len: u64) -> Result<()> {
        let block = block_name(block)?;
        ask!(self.postcopy_discard(block.as_ptr(), start, len))
    }

    fn postcopy_listen(&self) -> Result<()> {
        ask!(self.postcopy_listen())
    }

    fn postcopy_run(&self) -> Result<()> {
        ask!(self.postcopy_run())
    }

    fn postcopy_resume(&self) -> Result<()> {
        ask!(self.postcopy_resume())
    }

    fn recv_bitmap(&self, block: &[u8]) -> Result<()> {
        let block = block_name(block)?;
        ask!(self.recv_bitmap(block.as_ptr()))
    }

    fn enable_colo(&self) -> Result<()> {
        ask!(self.enable_colo())
    }

    fn further_error(&self) -> i32 {
        // SAFETY: the contract of SaveVMIncomingOps.
        self.ops.further_error.map_or(0, |function| unsafe { function(self.host) })
    }

    fn load_failed(&self, error: &Error) {
        if let Some(function) = self.ops.load_failed {
            // SAFETY: the contract of SaveVMIncomingOps.
            unsafe { function(self.host, error.code()) }
        }
    }

    fn recover(&self) -> Option<&MigFile> {
        // SAFETY: the contract of the member: NULL, or a file that stays open until the load is over.
        self.ops.recover.and_then(|function| unsafe { file_ref(function(self.host)) })
    }

    fn main_loop_done(&self) -> bool {
        // SAFETY: the contract of SaveVMIncomingOps.
        self.ops.main_loop_done.is_some_and(|function| unsafe { function(self.host) })
    }
}
