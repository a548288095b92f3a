// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reads the messages of a destination, as the source does.
#![no_main]

use libfuzzer_sys::fuzz_target;
use savevm::channel::memory;
use savevm::file::MigFile;
use savevm::migration::return_path::{get, get_bitmap};
use std::sync::Arc;

fuzz_target!(|data: &[u8]| {
    let file = MigFile::new(Arc::new(memory::Reader::new(data.to_vec())), false);
    while get(&file, true).is_ok() {}
    let file = MigFile::new(Arc::new(memory::Reader::new(data.to_vec())), false);
    let _ = get_bitmap(&file);
});
