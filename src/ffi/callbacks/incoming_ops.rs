// SPDX-License-Identifier: LGPL-2.1-or-later
//! A host's own loading driver behind the library's trait.

use crate::error::{self, Error, Result};
use crate::ffi::exports::host_driver::{SaveVMIncomingOps, SaveVMPostcopyState};
use crate::ffi::marshal::c_file::{FileReference, as_c};
use crate::ffi::marshal::{c_error, structs};
use crate::file::MigFile;
use crate::savevm::incoming::{FileHandle, Incoming, PostcopyState};
use crate::sync::{Mutex, Rank, check_none_held};
use std::ffi::{CString, c_void};

/// A copied table and the hypervisor's pointer.
pub(in crate::ffi) struct CIncoming {
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
            Some(function) => {
                check_none_held(stringify!($member));
                // SAFETY: the contract of SaveVMIncomingOps.
                error::check(stringify!($member), unsafe { function($self.host, $($argument),*) })
            }
            None => {
                Err(Error::new(libc::ENOTSUP, concat!("this host does not offer ", stringify!($member))))
            }
        }
    };
}

/// As `ask`, for a member that may set an error.
macro_rules! ask_with_error {
    ($self:ident.$member:ident($($argument:expr),*)) => {{
        let call = |errp| ask!($self.$member($($argument,)* errp));
        let errno = |result: &Result<()>| result.as_ref().map_or_else(Error::errno, |()| 0);
        // SAFETY: the function left NULL, or an error that it transferred.
        let (result, error) = unsafe { c_error::collect(call, errno) };
        result.map_err(|failed| error.unwrap_or(failed))
    }};
}

fn block_name(block: &[u8]) -> Result<CString> {
    CString::new(block).map_err(|_| Error::invalid("a block name with a zero byte"))
}

impl CIncoming {
    /// # Safety
    /// The contract of `SaveVMHostOps.incoming`.
    pub(in crate::ffi) unsafe fn new(ops: *const SaveVMIncomingOps, host: *mut c_void) -> Result<Option<Self>> {
        // SAFETY: as the caller promised.
        let ops = unsafe { structs::sized_struct(ops) }?;
        let state = Mutex::new(Rank::HostPostcopyState, PostcopyState::default());
        Ok(ops.map(|ops| Self { ops, host, state }))
    }
}

/// A postcopy state as C sees it.
fn c_state(state: Option<PostcopyState>) -> SaveVMPostcopyState {
    match state {
        None => SaveVMPostcopyState::SAVEVM_POSTCOPY_STATE_QUERY,
        Some(PostcopyState::None) => SaveVMPostcopyState::SAVEVM_POSTCOPY_STATE_NONE,
        Some(PostcopyState::Advise) => SaveVMPostcopyState::SAVEVM_POSTCOPY_STATE_ADVISE,
        Some(PostcopyState::Discard) => SaveVMPostcopyState::SAVEVM_POSTCOPY_STATE_DISCARD,
        Some(PostcopyState::Listening) => SaveVMPostcopyState::SAVEVM_POSTCOPY_STATE_LISTENING,
        Some(PostcopyState::Running) => SaveVMPostcopyState::SAVEVM_POSTCOPY_STATE_RUNNING,
        Some(PostcopyState::End) => SaveVMPostcopyState::SAVEVM_POSTCOPY_STATE_END,
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
                let before = unsafe { exchange(self.host, c_state(new)) };
                let before = structs::c_enum(before).ok();
                before.and_then(|before| PostcopyState::from_number(before as i32)).unwrap_or_default()
            }
            None => {
                let mut state = self.state.lock();
                let before = *state;
                *state = new.unwrap_or(before);
                before
            }
        }
    }

    fn postcopy_advise(&self, ram: Option<(u64, u64)>) -> Result<()> {
        ask_with_error!(self.postcopy_advise(ram.is_some()))
    }

    fn postcopy_prepare_discard(&self) -> Result<()> {
        ask!(self.postcopy_prepare_discard())
    }

    fn postcopy_discard(&self, block: &[u8], start: u64, len: u64) -> Result<()> {
        let block = block_name(block)?;
        ask!(self.postcopy_discard(block.as_ptr(), start, len))
    }

    fn postcopy_listen(&self) -> Result<()> {
        ask_with_error!(self.postcopy_listen())
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
        ask_with_error!(self.enable_colo())
    }

    fn switchover_ack(&self) -> Result<()> {
        ask!(self.switchover_ack())
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

    fn recover(&self) -> Option<FileHandle> {
        // SAFETY: the contract of the member: NULL, or a file that is open.
        let file = self.ops.recover.and_then(|function| unsafe { FileReference::new(function(self.host)) });
        file.map(|file| Box::new(file) as FileHandle)
    }

    fn main_loop_done(&self) -> bool {
        // SAFETY: the contract of SaveVMIncomingOps.
        self.ops.main_loop_done.is_some_and(|function| unsafe { function(self.host) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::exports::context::{savevm_free, savevm_new, savevm_set_current};
    use crate::ffi::exports::file::savevm_file_from_buffer;
    use crate::ffi::exports::host::{SAVEVM_FLAG_POSTCOPY_RAM, SaveVMHostOps, SaveVMReportLevel};
    use crate::ffi::exports::phases::qemu_loadvm_state_main;
    use crate::ffi::exports::qemu_file::qemu_fclose;
    use crate::ffi::marshal::opaque::QEMUFile;
    use std::collections::VecDeque;
    use std::ffi::c_int;
    use std::mem::MaybeUninit;
    use std::sync::Mutex;

    /// A host that does as QEMU does when a postcopy breaks: closes the file, then has another one.
    type Files = Mutex<VecDeque<usize>>;

    unsafe extern "C" fn recover(host: *mut c_void) -> *mut QEMUFile {
        // SAFETY: the host that the test made.
        let files = unsafe { &*host.cast::<Files>() };
        let broken = files.lock().unwrap().pop_front().unwrap();
        // SAFETY: the library was given this one and does not free it.
        assert_eq!(unsafe { qemu_fclose(broken as *mut QEMUFile) }, -libc::EIO);
        let next = files.lock().unwrap().front().copied();
        next.unwrap_or(0) as *mut QEMUFile
    }

    unsafe extern "C" fn postcopy_runs(
        _host: *mut c_void,
        _state: SaveVMPostcopyState,
    ) -> MaybeUninit<SaveVMPostcopyState> {
        MaybeUninit::new(SaveVMPostcopyState::SAVEVM_POSTCOPY_STATE_RUNNING)
    }

    unsafe extern "C" fn flags(_host: *mut c_void) -> u32 {
        SAVEVM_FLAG_POSTCOPY_RAM
    }

    unsafe extern "C" fn quiet(_host: *mut c_void, _level: SaveVMReportLevel, _text: *const std::ffi::c_char) {}

    /// Loads the streams one after the other; how it ended, and how many files are left.
    fn load(streams: &[&[u8]]) -> (c_int, usize) {
        // SAFETY: all members are sizes, pointers and nullable functions; streams live as long as they are copied.
        unsafe {
            let files = streams.iter().map(|stream| savevm_file_from_buffer(stream.as_ptr().cast(), stream.len()));
            let files: Files = Mutex::new(files.map(|file| file as usize).collect());
            let incoming = SaveVMIncomingOps {
                size: size_of::<SaveVMIncomingOps>(),
                postcopy_state: Some(postcopy_runs),
                recover: Some(recover),
                ..std::mem::zeroed()
            };
            let ops = SaveVMHostOps {
                size: size_of::<SaveVMHostOps>(),
                stream_flags: Some(flags),
                report: Some(quiet),
                incoming: &raw const incoming,
                ..std::mem::zeroed()
            };
            let vm = savevm_new(&raw const ops, (&raw const files).cast_mut().cast());
            savevm_set_current(vm);
            let first = files.lock().unwrap()[0] as *mut QEMUFile;
            let ret = qemu_loadvm_state_main(first, std::ptr::null_mut());
            savevm_set_current(std::ptr::null_mut());
            savevm_free(vm);
            let left: Vec<_> = files.lock().unwrap().drain(..).collect();
            left.iter().for_each(|file| assert_eq!(qemu_fclose(*file as *mut QEMUFile), 0));
            (ret, left.len())
        }
    }

    #[test]
    fn a_host_may_free_the_broken_file_in_a_recovery() {
        let eof: &[u8] = &[0];
        assert_eq!(load(&[&[], eof]), (0, 1));
        assert_eq!(load(&[&[4], &[], &[8, 0], eof]), (0, 1));
        assert_eq!(load(&[&[], &[]]).1, 0);
    }
}
