// SPDX-License-Identifier: LGPL-2.1-or-later
//! The reader of streams for people: any bytes, to the end of its report.
#![no_main]

use libfuzzer_sys::fuzz_target;
use savevm::inspect;

fuzz_target!(|data: &[u8]| {
    let _ = inspect::to_json(data, inspect::Options::default());
});
