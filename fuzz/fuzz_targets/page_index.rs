// SPDX-License-Identifier: LGPL-2.1-or-later
//! Decodes the index of a stream's pages. The target makes the magic number and the hash, which an attacker can make as well. What
//! is accepted has its canonical form, and its pages are in their blocks and in the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use savevm_stream::wire::page_index::PageIndex;
use xxhash_rust::xxh3::xxh3_128;

fuzz_target!(|data: &[u8]| {
    let mut bytes = [b"SVMINDX1", data].concat();
    bytes.extend(xxh3_128(&bytes).to_be_bytes());
    let Ok(index) = PageIndex::decode(&bytes) else { return };
    assert_eq!(index.encode(), bytes);
    let stream = index.file.length - index.base;
    for block in &index.blocks {
        for run in &block.runs {
            let (page_size, last) = (u64::from(index.page_size), run.from(run.end() - 1, index.page_size.into()));
            assert!(last.page < block.length.div_ceil(page_size));
            if let Ok(offset) = last.place.get() {
                assert!(offset + page_size <= stream);
                assert!(index.records.iter().any(|range| range.start < offset && offset + page_size <= range.end));
            }
        }
    }
});
