// SPDX-License-Identifier: LGPL-2.1-or-later
//! Loads commands, also in packages, with a driver that accepts all of them. The target builds the framing, so that the
//! input decides the payloads and the order.
#![no_main]

use libfuzzer_sys::fuzz_target;
use savevm::error::Result;
use savevm::file::MigFile;
use savevm::savevm::host::Flags;
use savevm::savevm::incoming::{Incoming, PostcopyState};
use savevm::savevm::{Vm, load};
use savevm_fuzz::reader;
use std::sync::{Arc, Mutex};

/// Accepts every command, and checks the order of what the engine asks for.
#[derive(Default)]
struct Everything(Mutex<(PostcopyState, bool)>);

impl Incoming for Everything {
    fn open_return_path(&self, _file: &MigFile) -> Result<()> {
        Ok(())
    }
    fn pong(&self, _value: u32) -> Result<()> {
        Ok(())
    }
    fn postcopy_state(&self, new: Option<PostcopyState>) -> PostcopyState {
        let (state, _) = &mut *self.0.lock().unwrap();
        let before = *state;
        *state = new.unwrap_or(before);
        before
    }
    fn postcopy_advise(&self, ram: Option<(u64, u64)>) -> Result<()> {
        assert!(ram.is_some());
        Ok(())
    }
    fn postcopy_prepare_discard(&self) -> Result<()> {
        self.0.lock().unwrap().0 = PostcopyState::Discard;
        Ok(())
    }
    fn postcopy_discard(&self, block: &[u8], _start: u64, _len: u64) -> Result<()> {
        assert!(!block.is_empty() && block.len() < 256);
        assert_eq!(self.0.lock().unwrap().0, PostcopyState::Discard);
        Ok(())
    }
    fn postcopy_listen(&self) -> Result<()> {
        Ok(())
    }
    fn postcopy_run(&self) -> Result<()> {
        assert!(!std::mem::replace(&mut self.0.lock().unwrap().1, true), "started twice");
        Ok(())
    }
    fn postcopy_resume(&self) -> Result<()> {
        Ok(())
    }
    fn recv_bitmap(&self, block: &[u8]) -> Result<()> {
        assert!(!block.is_empty() && block.len() < 256);
        Ok(())
    }
    fn enable_colo(&self) -> Result<()> {
        Ok(())
    }
}

const COMMAND: u8 = 8;
const PACKAGED: u16 = 7;

/// Builds a stream. Of every three bytes the first selects the command, the second its length, and the third what is wrong
/// with it.
fn frames(data: &[u8], depth: u32) -> Vec<u8> {
    let (mut stream, mut rest) = (Vec::new(), data);
    while let [number, len, odd, payload @ ..] = rest {
        let (body, left) = payload.split_at(usize::from(*len).min(payload.len()));
        rest = left;
        if odd & 0x0f == 0x0f {
            stream.extend_from_slice(body);
            continue;
        }
        let number = u16::from(number % 14);
        stream.push(COMMAND);
        stream.extend(number.to_be_bytes());
        if number == PACKAGED && odd & 0x10 == 0 && depth < 6 {
            let package = frames(body, depth + 1);
            stream.extend(4u16.to_be_bytes());
            stream.extend((package.len() as u32).to_be_bytes());
            stream.extend(package);
        } else {
            let stretch = u16::from(odd & 0x20 != 0);
            stream.extend((body.len() as u16 + stretch).to_be_bytes());
            stream.extend_from_slice(body);
        }
    }
    stream.push(0);
    stream
}

fuzz_target!(|data: &[u8]| {
    let vm = Vm::default();
    vm.set_flags(Flags::POSTCOPY_RAM, true);
    vm.set_incoming(Some(Arc::<Everything>::default()));
    let _ = load::sections(&vm, &reader(&frames(data, 0)));
});
