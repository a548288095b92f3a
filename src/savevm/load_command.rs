// SPDX-License-Identifier: LGPL-2.1-or-later
//! Commands in an incoming stream (QEMU 7.2, `migration/savevm.c`). They are read and checked here, against the state
//! of postcopy too. The driver or the host executes them.

use super::Vm;
use super::fault::FaultPoint;
use super::host::Flags;
use super::incoming::{Incoming, PostcopyState};
use super::profile::Profile;
use super::switchover;
use crate::error::{Error, Result, size};
use crate::file::MigFile;
use crate::vmstate::trace::trace_event;
use crate::wire::command::{self, Advise, Command, CommandHead, Discard, Range};
use crate::wire::limits::Limits;

/// The handler of commands for a context without one: it knows the state of postcopy only.
struct NoHandler<'a>(&'a Vm);

impl Incoming for NoHandler<'_> {
    fn postcopy_state(&self, new: Option<PostcopyState>) -> PostcopyState {
        self.0.load_state().postcopy_state(new)
    }
}

/// What a command leaves to the load loop.
pub(super) enum Outcome {
    /// Nothing.
    Done,
    /// Another reader continues with the rest of the stream: all nested loops end.
    HandedOver,
    /// The content of a package, which is to be loaded.
    Package(Vec<u8>),
}

/// Reads one command and executes it. `depth` counts the packages around it.
pub(super) fn process(vm: &Vm, mut file: &MigFile, depth: u32) -> Result<Outcome> {
    vm.fault_point(FaultPoint::Engine);
    let offset = file.position();
    let CommandHead { number, len } = CommandHead::decode(&mut file)?;
    file.check()?;
    let Some(command) = Command::from_wire(number) else {
        return Err(Error::invalid(format!("MIG_CMD 0x{number:x} unknown (len 0x{len:x})")).at_offset(offset));
    };
    if command == Command::SwitchoverStart && !vm.profile().has(Profile::SWITCHOVER_START) {
        if len == 0 && vm.load_state().is_mapped() {
            // A file with fixed places of pages comes from QEMU 9.0 or later. QEMU 10.0 announces the last sections by
            // this command.
            return Ok(Outcome::Done);
        }
        let text = format!(
            "MIG_CMD 0x{number:x} ({}) unknown: it is of QEMU 10.0 and newer, and this machine has the semantics of an older \
             version. Set the layout of 10.0 or newer here (savevm_set_abi), or stop the source from sending the command: in \
             QEMU by a machine type from before 10.0, in another hypervisor by SAVEVM_FLAG_NO_SWITCHOVER_START. The command is",
            command.name()
        );
        return Err(Error::invalid(text).at_offset(offset));
    }
    trace_event!(vm.host(), "loadvm_process_command", "com={} len={len}", command.name());
    if let Some(expected) = command.fixed_len().filter(|expected| *expected != len) {
        let text = format!("{} received with bad length - expecting {expected}, got {len}", command.name());
        return Err(Error::new(libc::ERANGE, text).at_offset(offset));
    }
    let driver = vm.incoming();
    let none = NoHandler(vm);
    let incoming: &dyn Incoming = driver.as_deref().unwrap_or(&none);
    let context = |err: Error| err.at_offset(offset).in_path(command.name());
    match command {
        Command::Packaged => return packaged(vm, file, depth, &vm.limits()).map_err(context),
        Command::PostcopyRun => return run(vm, incoming).map_err(context),
        Command::OpenReturnPath => switchover::return_path_opened(vm, incoming, file),
        Command::Ping => command::decode_ping(&mut file).and_then(|value| ping(vm, incoming, value)),
        Command::PostcopyAdvise => advise(vm, incoming, file, len),
        Command::PostcopyListen => listen(vm, incoming),
        Command::PostcopyRamDiscard => discard(vm, incoming, file, len),
        Command::PostcopyResume => resume(vm, incoming),
        Command::RecvBitmap => recv_bitmap(vm, incoming, file, len),
        Command::EnableColo => incoming.enable_colo(),
        // The driver reads a preflight itself, before the first section.
        Command::Preflight => Err(Error::invalid("a preflight is possible at the beginning of a stream only")),
        Command::SwitchoverStart => switchover::start(vm),
    }
    .map_err(context)?;
    Ok(Outcome::Done)
}

fn wrong_state(command: Command, state: PostcopyState) -> Error {
    let text = format!("CMD_{} in wrong postcopy state ({})", command.name(), state as i32);
    Error::new(libc::EPERM, text)
}

fn ping(vm: &Vm, incoming: &dyn Incoming, value: u32) -> Result<()> {
    trace_event!(vm.host(), "loadvm_process_command_ping", "0x{value:x}");
    incoming.pong(value)
}

fn resume(vm: &Vm, incoming: &dyn Incoming) -> Result<()> {
    incoming.postcopy_resume()?;
    trace_event!(vm.host(), "loadvm_postcopy_handle_resume", "");
    Ok(())
}

/// Reads a package: an embedded stream of sections, which is received whole before it is loaded.
fn packaged(vm: &Vm, mut file: &MigFile, depth: u32, limits: &Limits) -> Result<Outcome> {
    let len = command::decode_packaged(&mut file)?;
    trace_event!(vm.host(), "loadvm_handle_cmd_packaged", "{len}");
    if len > limits.packaged {
        let text = format!(
            "Unreasonably large packaged state: {}, expected at most {}",
            size(len.into()),
            size(limits.packaged.into())
        );
        return Err(Error::new(libc::EPERM, text));
    }
    if depth >= limits.packaged_depth {
        return Err(Error::invalid(format!("packages nest deeper than {}", limits.packaged_depth)));
    }
    let stream = file.get_vec(len as usize).map_err(no_memory)?;
    if stream.len() < len as usize {
        let text = format!("the package of {} is cut off after {}", size(len.into()), size(stream.len() as u64));
        return Err(Error::new(libc::EAGAIN, text));
    }
    trace_event!(vm.host(), "loadvm_handle_cmd_packaged_received", "{len}");
    Ok(Outcome::Package(stream))
}

fn no_memory(len: usize) -> Error {
    Error::new(libc::ENOMEM, format!("no memory for more than {} of a package", size(len as u64)))
}

fn advise(vm: &Vm, incoming: &dyn Incoming, mut file: &MigFile, len: u16) -> Result<()> {
    let before = incoming.postcopy_state(Some(PostcopyState::Advise));
    trace_event!(vm.host(), "loadvm_postcopy_handle_advise", "");
    if before != PostcopyState::None {
        return Err(wrong_state(Command::PostcopyAdvise, before));
    }
    let ram_here = vm.flags().has(Flags::POSTCOPY_RAM);
    let ram = match (len, ram_here) {
        (0, false) => None,
        (Advise::LEN, true) => Some(Advise::decode(&mut file)?),
        (0, true) => return Err(Error::invalid("RAM postcopy is enabled but have 0 byte advise")),
        (Advise::LEN, false) => return Err(Error::invalid("RAM postcopy is disabled but have 16 byte advise")),
        _ => return Err(Error::invalid(format!("CMD_POSTCOPY_ADVISE invalid length ({len})"))),
    };
    if let Some(advise) = ram {
        check_page_sizes(vm, advise)?;
    }
    incoming.postcopy_advise(ram.map(|advise| (advise.page_sizes, advise.target_page)))
}

fn check_page_sizes(vm: &Vm, Advise { page_sizes, target_page }: Advise) -> Result<()> {
    let host = vm.host();
    let (local_sizes, local_page) = (host.ram_page_sizes(), 1u64 << host.target_page_bits());
    if page_sizes != local_sizes {
        let text = format!("Postcopy needs matching RAM page sizes (s={page_sizes:x} d={local_sizes:x})");
        return Err(Error::new(libc::EPERM, text));
    }
    if target_page != local_page {
        let text = format!("Postcopy needs matching target page sizes (s={target_page} d={local_page})");
        return Err(Error::new(libc::EPERM, text));
    }
    Ok(())
}

fn listen(vm: &Vm, incoming: &dyn Incoming) -> Result<()> {
    trace_event!(vm.host(), "loadvm_postcopy_handle_listen", "enter");
    let before = incoming.postcopy_state(Some(PostcopyState::Listening));
    match before {
        PostcopyState::Discard => {}
        PostcopyState::Advise if vm.flags().has(Flags::POSTCOPY_RAM) => incoming.postcopy_prepare_discard()?,
        PostcopyState::Advise => {}
        _ => return Err(wrong_state(Command::PostcopyListen, before)),
    }
    incoming.postcopy_listen()?;
    trace_event!(vm.host(), "loadvm_postcopy_handle_listen", "return");
    Ok(())
}

fn run(vm: &Vm, incoming: &dyn Incoming) -> Result<Outcome> {
    trace_event!(vm.host(), "loadvm_postcopy_handle_run", "");
    let before = incoming.postcopy_state(None);
    if before != PostcopyState::Listening {
        return Err(wrong_state(Command::PostcopyRun, before));
    }
    incoming.postcopy_state(Some(PostcopyState::Running));
    incoming.postcopy_run()?;
    Ok(Outcome::HandedOver)
}

fn discard(vm: &Vm, incoming: &dyn Incoming, mut file: &MigFile, len: u16) -> Result<()> {
    trace_event!(vm.host(), "loadvm_postcopy_ram_handle_discard", "");
    match incoming.postcopy_state(None) {
        PostcopyState::Advise => {
            incoming.postcopy_prepare_discard()?;
        }
        PostcopyState::Discard => {}
        state => return Err(wrong_state(Command::PostcopyRamDiscard, state)),
    }
    let malformed = |what: String| Error::new(libc::EPERM, format!("CMD_POSTCOPY_RAM_DISCARD {what}"));
    if len < Discard::LEN_MIN {
        return Err(malformed(format!("invalid length ({len})")));
    }
    let no_name = || malformed("Failed to read RAMBlock ID".into());
    let Discard { version, block, end } = Discard::decode(&mut file).map_err(|_| no_name())?;
    if version != Discard::VERSION {
        return Err(malformed(format!("invalid version ({version})")));
    }
    if block.is_empty() {
        return Err(no_name());
    }
    if end != 0 {
        return Err(malformed(format!("missing nil ({end})")));
    }
    let ranges = Discard::ranges(len.into(), block.len());
    let ranges = ranges.ok_or_else(|| malformed(format!("invalid length ({len})")))?;
    let name = String::from_utf8_lossy(&block);
    trace_event!(vm.host(), "loadvm_postcopy_ram_handle_discard_header", "{name}: {}d", ranges * 16);
    for _ in 0..ranges {
        let range = Range::decode(&mut file)?;
        file.check()?;
        incoming.postcopy_discard(&block, range.start, range.len)?;
    }
    trace_event!(vm.host(), "loadvm_postcopy_ram_handle_discard_end", "");
    Ok(())
}

fn recv_bitmap(vm: &Vm, incoming: &dyn Incoming, mut file: &MigFile, len: u16) -> Result<()> {
    let block = command::decode_recv_bitmap(&mut file).ok().filter(|name| !name.is_empty());
    let block = block.ok_or_else(|| Error::invalid("failed to read block name"))?;
    if usize::from(len) != block.len() + 1 {
        return Err(Error::invalid(format!("invalid payload length ({len})")));
    }
    incoming.recv_bitmap(&block)?;
    trace_event!(vm.host(), "loadvm_handle_recv_bitmap", "{}", String::from_utf8_lossy(&block));
    Ok(())
}
