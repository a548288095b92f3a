// SPDX-License-Identifier: LGPL-2.1-or-later
//! Inspects arbitrary bytes and writes the whole report.
#![no_main]

use libfuzzer_sys::fuzz_target;
use savevm_stream::inspect;

fuzz_target!(|data: &[u8]| {
    let _ = inspect::to_json(data, inspect::Options::default());
});
