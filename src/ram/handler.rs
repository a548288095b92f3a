// SPDX-License-Identifier: LGPL-2.1-or-later
//! The handler of the device "ram" in the registry.

use super::block::Block;
use super::{Ram, block, wire};
use crate::error::{Error, Result};
use crate::file::MigFile;
use crate::savevm::handler::{Callback, Handler, Pending};
use crate::savevm::host::Flags;
use crate::vmstate::Recorder;
use crate::wire::preflight::RamBlock;
use std::sync::Arc;

/// The handler.
pub(super) struct RamHandler(pub Arc<Ram>);

/// Latches an error on the file, reports it, and returns the code of the result.
fn code(ram: &Ram, file: &MigFile, result: Result<()>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            let error = error.at_offset(file.position());
            let code = error.code();
            match ram.vm.upgrade() {
                Some(vm) => drop(vm.report_on(file, error)),
                None => file.set_error_detail(error),
            }
            code
        }
    }
}

impl RamHandler {
    fn flag(&self, flag: Flags) -> bool {
        self.0.vm.upgrade().is_some_and(|vm| vm.flags().has(flag))
    }

    fn complete(&self, file: &MigFile) -> i32 {
        let in_postcopy = self.flag(Flags::IN_POSTCOPY);
        code(&self.0, file, self.0.save_complete(file, in_postcopy))
    }
}

impl Handler for RamHandler {
    fn has(&self, callback: Callback) -> bool {
        match callback {
            Callback::SaveState => false,
            Callback::SavePostcopyPrepare => self.0.sends_over_connections(),
            _ => true,
        }
    }

    fn is_active(&self) -> bool {
        true
    }

    fn is_active_iterate(&self) -> bool {
        true
    }

    fn has_postcopy(&self) -> bool {
        self.flag(Flags::POSTCOPY_RAM)
    }

    fn ram_fits(&self, name: &str, length: u64) -> Option<bool> {
        Some(block::find(&self.0.blocks(), name.as_bytes()).is_some_and(|(_, block)| block.len() == length))
    }

    fn maps_ram(&self) -> bool {
        true
    }
    fn ram_blocks(&self) -> Option<(Vec<RamBlock>, bool)> {
        let ram = &self.0;
        let block = |block: &Arc<Block>| RamBlock {
            name: block.info.name.clone(),
            length: block.len(),
            page_size: block.info.page_size as u64,
            address: block.info.guest_address,
            ignored: ram.is_ignored(block),
        };
        Some((ram.blocks().iter().map(block).collect(), ram.options().ignore_shared))
    }

    fn save_setup(&self, file: &MigFile) -> i32 {
        let postcopy = self.flag(Flags::POSTCOPY_RAM);
        code(&self.0, file, self.0.save_setup(file, postcopy))
    }

    fn save_live_iterate(&self, file: &MigFile) -> i32 {
        let mut done = false;
        let result = self.0.save_iterate(file).map(|all| done = all);
        match code(&self.0, file, result) {
            0 => i32::from(done),
            code => code,
        }
    }

    fn save_live_pending(&self, file: &MigFile, threshold: u64, mut pending: Pending) -> Pending {
        let in_postcopy = self.flag(Flags::IN_POSTCOPY);
        let left = match self.0.save_pending(threshold, in_postcopy) {
            Ok(left) => left,
            Err(error) => {
                code(&self.0, file, Err(error));
                self.0.dirty_bytes()
            }
        };
        if self.has_postcopy() {
            pending.compatible = pending.compatible.saturating_add(left);
        } else {
            pending.precopy_only = pending.precopy_only.saturating_add(left);
        }
        pending
    }

    fn save_postcopy_prepare(&self, file: &MigFile) -> Result<()> {
        self.0.save_postcopy_prepare(file)
    }

    fn save_live_complete_precopy(&self, file: &MigFile) -> i32 {
        self.complete(file)
    }

    fn save_live_complete_postcopy(&self, file: &MigFile) -> i32 {
        self.complete(file)
    }

    fn save_cleanup(&self) {
        self.0.save_cleanup();
    }

    fn load_setup(&self, file: &MigFile) -> i32 {
        code(&self.0, file, self.0.load_setup())
    }

    fn load_ended(&self) -> Result<()> {
        self.0.load_ended()
    }

    fn load_cleanup(&self) -> i32 {
        self.0.load_cleanup();
        0
    }

    fn resume_prepare(&self, _migration: usize) -> i32 {
        self.0.resume_prepare();
        0
    }

    fn save(&self, _file: &MigFile, _recorder: Option<&Recorder>) -> Result<()> {
        Err(Error::new(libc::ENOTSUP, "RAM is not saved in one piece"))
    }

    fn load(&self, file: &MigFile, version: i32) -> Result<()> {
        if version != wire::VERSION {
            let text = format!("the \"ram\" section has version {version}, expected {}", wire::VERSION);
            return Err(Error::invalid(text));
        }
        self.0.load(file)
    }
}
