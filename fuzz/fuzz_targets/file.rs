// SPDX-License-Identifier: LGPL-2.1-or-later
//! Runs a script of operations on a file for reading and a file for writing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use savevm::channel::memory;
use savevm::file::MigFile;
use std::sync::Arc;

fuzz_target!(|data: &[u8]| {
    let (script, content) = data.split_at(data.len() / 2);
    let input = MigFile::new(Arc::new(memory::Reader::new(content.to_vec())), false);
    let output = MigFile::new(Arc::new(memory::Writer::new()), true);
    let mut bytes = vec![0; 70_000];
    for pair in script.chunks_exact(2) {
        let size = usize::from(pair[1]) << (pair[0] >> 5);
        match pair[0] & 15 {
            0 => output.put_byte(input.get_byte()),
            1 => output.put_be16(input.get_be16()),
            2 => output.put_be32(input.get_be32()),
            3 => output.put_be64(input.get_be64()),
            4 => {
                let count = input.get(&mut bytes[..size]);
                output.put(&bytes[..count]);
            }
            5 => {
                let count = input.peek_into(&mut bytes[..size], usize::from(pair[1]));
                assert!(count <= size);
            }
            6 => input.skip(size),
            7 => output.flush(),
            8 => drop(input.get_counted_string()),
            9 => output.reset_rate(),
            10 => assert!(output.reserve(size).is_none_or(|room| !room.is_null())),
            11 => drop(input.peek_byte(size)),
            _ => assert!(input.position() <= content.len() as u64),
        }
    }
    assert_eq!(output.total_transferred() as u64, output.position());
});
