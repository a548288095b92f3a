// SPDX-License-Identifier: LGPL-2.1-or-later
//! Sends commands (QEMU 7.2, `migration/savevm.c`). Each is flushed at once, because the destination acts on it.

use super::Vm;
use super::host::Flags;
use crate::error::{Error, Result, size};
use crate::file::MigFile;
use crate::vmstate::trace::trace_event;
use crate::wire::command::{self, Advise, Command, Discard, Range};
use crate::wire::limits::IDSTR_MAX;

fn send(vm: &Vm, mut file: &MigFile, command: Command, payload: &[u8]) {
    trace_event!(vm.host(), "savevm_command_send", "com=0x{:x} len={}", command as u16, payload.len());
    command::encode(&mut file, command, payload);
    file.flush();
}

/// Sends a command without a payload.
fn send_empty(vm: &Vm, file: &MigFile, command: Command, event: &'static str) {
    trace_event!(vm.host(), event, "");
    send(vm, file, command, &[]);
}

/// Sends OPEN_RETURN_PATH.
pub fn open_return_path(vm: &Vm, file: &MigFile) {
    send_empty(vm, file, Command::OpenReturnPath, "savevm_send_open_return_path");
}

/// Sends POSTCOPY_LISTEN.
pub fn postcopy_listen(vm: &Vm, file: &MigFile) {
    send_empty(vm, file, Command::PostcopyListen, "savevm_send_postcopy_listen");
}

/// Sends POSTCOPY_RUN.
pub fn postcopy_run(vm: &Vm, file: &MigFile) {
    send_empty(vm, file, Command::PostcopyRun, "savevm_send_postcopy_run");
}

/// Sends POSTCOPY_RESUME.
pub fn postcopy_resume(vm: &Vm, file: &MigFile) {
    send_empty(vm, file, Command::PostcopyResume, "savevm_send_postcopy_resume");
}

/// Sends SWITCHOVER_START.
pub fn switchover_start(vm: &Vm, file: &MigFile) {
    send_empty(vm, file, Command::SwitchoverStart, "savevm_send_switchover_start");
}

/// Sends ENABLE_COLO.
pub fn enable_colo(vm: &Vm, file: &MigFile) {
    send_empty(vm, file, Command::EnableColo, "savevm_send_colo_enable");
}

/// Sends PING. The destination answers with the same value.
pub fn ping(vm: &Vm, file: &MigFile, value: u32) {
    trace_event!(vm.host(), "savevm_send_ping", "0x{value:x}");
    send(vm, file, Command::Ping, &value.to_be_bytes());
}

/// Sends PACKAGED and the stream behind it, and flushes the file (QEMU 10.2; QEMU 7.2 leaves the flush to what follows).
pub fn packaged(vm: &Vm, file: &MigFile, stream: &[u8]) -> Result<()> {
    let Ok(len) = u32::try_from(stream.len()) else {
        let text =
            format!("a packaged stream of {} is longer than {}", size(stream.len() as u64), size(u32::MAX.into()));
        return Err(vm.report(Error::new(libc::EPERM, text)));
    };
    trace_event!(vm.host(), "qemu_savevm_send_packaged", "");
    send(vm, file, Command::Packaged, &len.to_be_bytes());
    file.put(stream);
    file.flush();
    Ok(())
}

/// Sends a request of a preflight.
pub fn preflight(vm: &Vm, file: &MigFile, request: &[u8]) -> Result<()> {
    let Ok(len) = u32::try_from(request.len()) else {
        let text = format!("a preflight of {} is longer than {}", size(request.len() as u64), size(u32::MAX.into()));
        return Err(Error::new(libc::EPERM, text));
    };
    command::encode(&mut { file }, Command::Preflight, &len.to_be_bytes());
    file.put(request);
    file.flush();
    trace_event!(vm.host(), "savevm_send_preflight", "{len}");
    Ok(())
}

/// Sends POSTCOPY_ADVISE, with page sizes if RAM takes part.
pub fn postcopy_advise(vm: &Vm, file: &MigFile) {
    let host = vm.host();
    if !vm.flags().has(Flags::POSTCOPY_RAM) {
        return send(vm, file, Command::PostcopyAdvise, &[]);
    }
    trace_event!(host, "qemu_savevm_send_postcopy_advise", "");
    let advise = Advise { page_sizes: host.ram_page_sizes(), target_page: 1 << host.target_page_bits() };
    send(vm, file, Command::PostcopyAdvise, &advise.encode());
}

/// Sends POSTCOPY_RAM_DISCARD with (start, length) ranges of a block, in bytes.
pub fn postcopy_ram_discard(vm: &Vm, file: &MigFile, block: &[u8], ranges: &[(u64, u64)]) -> Result<()> {
    if block.len() > IDSTR_MAX || ranges.len() > Discard::RANGES_MAX {
        let text = format!("{} ranges for a block name of {} bytes do not fit a command", ranges.len(), block.len());
        return Err(vm.report(Error::invalid(text)));
    }
    let name = String::from_utf8_lossy(block);
    // QEMU writes the "d", here and on the destination.
    trace_event!(vm.host(), "qemu_savevm_send_postcopy_ram_discard", "{name}: {}d", ranges.len());
    let ranges = ranges.iter().map(|&(start, len)| Range { start, len });
    send(vm, file, Command::PostcopyRamDiscard, &Discard::encode(block, ranges));
    Ok(())
}

/// Sends RECV_BITMAP, which asks for the received bitmap of a block.
pub fn recv_bitmap(vm: &Vm, file: &MigFile, block: &[u8]) -> Result<()> {
    if block.len() > IDSTR_MAX {
        return Err(vm.report(Error::invalid(format!("a block name of {} bytes is too long", block.len()))));
    }
    trace_event!(vm.host(), "savevm_send_recv_bitmap", "{}", String::from_utf8_lossy(block));
    send(vm, file, Command::RecvBitmap, &command::encode_recv_bitmap(block));
    Ok(())
}
