// SPDX-License-Identifier: LGPL-2.1-or-later
//! Loads RAM records into memory with guard pages around it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use savevm::savevm::load;
use savevm_fuzz::{Machine, reader};
use std::cell::LazyCell;

thread_local! {
    static MACHINE: LazyCell<Machine> = LazyCell::new(|| Machine::new(Default::default()));
}

/// The header, the configuration of the machine "none", and SECTION_START of "ram", version 4, as section 2.
const START: &[u8] = b"QEVM\0\0\0\x03\x07\0\0\0\x04none\x01\0\0\0\x02\x03ram\0\0\0\0\0\0\0\x04";

fuzz_target!(|data: &[u8]| {
    MACHINE.with(|machine| {
        machine.reset();
        let _ = load::stream(&machine.vm, &reader(&[START, data].concat()));
    });
});
