// SPDX-License-Identifier: LGPL-2.1-or-later
//! Sending commands (QEMU 7.2, `migration/savevm.c`). Each is flushed at once: the destination acts on it.

use super::Vm;
use super::host::Flags;
use crate::error::{Error, Result};
use crate::file::MigFile;
use crate::vmstate::trace::trace_event;
use crate::wire::limits::IDSTR_MAX;
use crate::wire::{self, Command};

/// Version byte of POSTCOPY_RAM_DISCARD.
pub const DISCARD_VERSION: u8 = 0;
/// Most ranges in one POSTCOPY_RAM_DISCARD: what the 16-bit length of a command holds beside the longest name.
pub const DISCARD_RANGES_MAX: usize = (u16::MAX as usize - 3 - IDSTR_MAX) / 16;

fn send(vm: &Vm, file: &MigFile, command: Command, payload: &[u8]) {
    trace_event!(vm.host(), "savevm_command_send", "com=0x{:x} len={}", command as u16, payload.len());
    file.put_byte(wire::COMMAND);
    file.put_be16(command as u16);
    file.put_be16(payload.len() as u16);
    file.put(payload);
    file.flush();
}

/// A command without a payload.
pub fn plain(vm: &Vm, file: &MigFile, command: Command) {
    debug_assert_eq!(command.fixed_len(), Some(0));
    let event = match command {
        Command::OpenReturnPath => "savevm_send_open_return_path",
        Command::PostcopyListen => "savevm_send_postcopy_listen",
        Command::PostcopyRun => "savevm_send_postcopy_run",
        Command::PostcopyResume => "savevm_send_postcopy_resume",
        _ => "savevm_send_colo_enable",
    };
    trace_event!(vm.host(), event, "");
    send(vm, file, command, &[]);
}

/// PING: the destination answers with the same value.
pub fn ping(vm: &Vm, file: &MigFile, value: u32) {
    trace_event!(vm.host(), "savevm_send_ping", "0x{value:x}");
    send(vm, file, Command::Ping, &value.to_be_bytes());
}

/// PACKAGED, with the stream in it. It is not flushed behind the stream.
pub fn packaged(vm: &Vm, file: &MigFile, stream: &[u8]) -> Result<()> {
    let Ok(len) = u32::try_from(stream.len()) else {
        let text = format!("a packaged stream of {} bytes is longer than {} bytes", stream.len(), u32::MAX);
        return Err(vm.report(Error::new(libc::EPERM, text)));
    };
    trace_event!(vm.host(), "qemu_savevm_send_packaged", "");
    send(vm, file, Command::Packaged, &len.to_be_bytes());
    file.put(stream);
    Ok(())
}

/// POSTCOPY_ADVISE: with page sizes where RAM takes part.
pub fn postcopy_advise(vm: &Vm, file: &MigFile) {
    let host = vm.host();
    if !vm.flags().has(Flags::POSTCOPY_RAM) {
        return send(vm, file, Command::PostcopyAdvise, &[]);
    }
    trace_event!(host, "qemu_savevm_send_postcopy_advise", "");
    let mut payload = [0; 16];
    payload[..8].copy_from_slice(&host.ram_page_sizes().to_be_bytes());
    payload[8..].copy_from_slice(&(1u64 << host.target_page_bits()).to_be_bytes());
    send(vm, file, Command::PostcopyAdvise, &payload);
}

/// POSTCOPY_RAM_DISCARD: (start, length) ranges of a block, in bytes.
pub fn postcopy_ram_discard(vm: &Vm, file: &MigFile, block: &[u8], ranges: &[(u64, u64)]) -> Result<()> {
    if block.len() > IDSTR_MAX || ranges.len() > DISCARD_RANGES_MAX {
        let text = format!("{} ranges for a block name of {} bytes do not fit a command", ranges.len(), block.len());
        return Err(vm.report(Error::invalid(text)));
    }
    let name = String::from_utf8_lossy(block);
    // The "d" is QEMU's, here and where it arrives.
    trace_event!(vm.host(), "qemu_savevm_send_postcopy_ram_discard", "{name}: {}d", ranges.len());
    let mut payload = vec![DISCARD_VERSION, block.len() as u8];
    payload.extend_from_slice(block);
    payload.push(0);
    for (start, len) in ranges {
        payload.extend_from_slice(&start.to_be_bytes());
        payload.extend_from_slice(&len.to_be_bytes());
    }
    send(vm, file, Command::PostcopyRamDiscard, &payload);
    Ok(())
}

/// RECV_BITMAP: which pages of the block did you get?
pub fn recv_bitmap(vm: &Vm, file: &MigFile, block: &[u8]) -> Result<()> {
    if block.len() > IDSTR_MAX {
        return Err(vm.report(Error::invalid(format!("a block name of {} bytes is too long", block.len()))));
    }
    trace_event!(vm.host(), "savevm_send_recv_bitmap", "{}", String::from_utf8_lossy(block));
    let mut payload = vec![block.len() as u8];
    payload.extend_from_slice(block);
    send(vm, file, Command::RecvBitmap, &payload);
    Ok(())
}
