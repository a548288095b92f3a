// SPDX-License-Identifier: LGPL-2.1-or-later
//! A further connection that lies: hellos, packets and payloads, read by `inspect` and loaded into memory with guard pages
//! around it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use savevm::channel::{Channel, memory};
use savevm::error::{Error, Result};
use savevm::file::MigFile;
use savevm::savevm::connections::{Compression, Connections, Format, Settings};
use savevm::savevm::load;
use savevm_fuzz::{Machine, reader};
use savevm_stream::inspect::read_multifd;
use savevm_stream::wire::multifd::HELLO_LEN;
use std::cell::LazyCell;
use std::sync::Arc;
use std::time::Duration;

thread_local! {
    static MACHINE: LazyCell<Machine> = LazyCell::new(|| Machine::new(Default::default()));
}

/// One connection with these bytes.
struct Bytes(Vec<u8>);

impl Connections for Bytes {
    fn settings(&self) -> Settings {
        let format = Format { zero_in_packets: true, flush_records: true };
        Settings { count: 1, compression: Compression::Auto, level: 1, format, stall: Duration::from_millis(200) }
    }
    fn channels(&self) -> Result<Vec<Arc<dyn Channel>>> {
        Ok(vec![Arc::new(memory::Reader::new(self.0.clone()))])
    }
    fn failed(&self, _error: Error) {}
    fn unsettled(&self, _error: Error) {}
    fn settle(&self) -> Result<()> {
        Ok(())
    }
    fn unsettled_error(&self) -> Option<Error> {
        None
    }
    fn error(&self) -> Option<Error> {
        None
    }
    fn is_abandoned(&self) -> bool {
        false
    }
    fn received(&self, _number: usize, _bytes: u64) {}
    fn set_within(&self, _number: usize, _within: bool) {}
    fn set_late(&self, _number: Option<usize>) {}
}

/// The header, SECTION_START of "ram", a MULTIFD_FLUSH and the end of the section.
const MAIN: &[u8] = b"QEVM\0\0\0\x03\x07\0\0\0\x04none\x01\0\0\0\x02\x03ram\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\x02\0\
                      \0\0\0\0\0\0\0\x10\x7e\0\0\0\x02\0";

fuzz_target!(|data: &[u8]| {
    let _ = read_multifd(data, |_| Ok(()));
    MACHINE.with(|machine| {
        machine.reset();
        // The hello is read before a connection belongs to a migration.
        let packets = data.get(HELLO_LEN..).unwrap_or_default().to_vec();
        machine.vm.slot.set_connections(Some(Arc::new(Bytes(packets))));
        let _ = load::stream(&machine.vm, &reader(MAIN) as &MigFile);
        machine.vm.slot.set_connections(None);
    });
});
