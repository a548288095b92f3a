// SPDX-License-Identifier: LGPL-2.1-or-later
//! Snapshots (QEMU 7.2's `qemu_savevm_state` and `load_snapshot`): the guest is stopped, and handlers run inside the big
//! lock, except for setup, which runs outside in QEMU as well.

use super::chain_files::{chain_pages, describe_chain, describe_full, open_incremental};
use super::check::check;
use super::incremental;
use super::page_index::{self, Pages};
use super::snapshot_options::{SnapshotOptions, with_plan};
use super::stopped::{LIMIT, begin, saving, start, stop, within};
use crate::chain::FlatForm;
use crate::channel::{Begun, Cancel, Channel, Listener, ReaderChannel, Sink, Uri, fill};
use crate::error::{Error, Phase, Result, Side};
use crate::file::MigFile;
use crate::savevm::Vm;
use crate::savevm::checkpoint::SavedSnapshot;
use crate::savevm::host::{Flags, Host, Level, without_big_lock};
use crate::savevm::incoming::LoadEnd;
use crate::savevm::load;
use crate::savevm::owner::Owner;
use crate::savevm::profile::Profile;
use crate::savevm::save::{self, Completion, Disks, Round};
use crate::savevm::saving::SavingGuard;
use crate::savevm::switchover;
use crate::savevm::unwind::finally;
use std::sync::Arc;
use std::time::Instant;

/// Stops the guest, saves everything, and lets the guest run again if it ran, whether the save succeeded or not. A regular file
/// is replaced only by a whole one.
pub fn save(vm: &Arc<Vm>, to: &Uri, options: &SnapshotOptions) -> Result<()> {
    vm.check_migratable()?;
    options.check_save(vm, to)?;
    if options.parent.is_some() || options.background {
        incremental::save(vm, to, options)?;
    } else {
        save_stopped(vm, to, options)?;
    }
    if let Some(path) = &options.index {
        page_index::write_for(vm, to, path);
    }
    Ok(())
}

/// Saves while the guest is stopped.
fn save_stopped(vm: &Arc<Vm>, to: &Uri, options: &SnapshotOptions) -> Result<()> {
    let _guard = begin(vm, "a snapshot")?;
    saving(vm, |saving| save_into(vm, to, options, saving))
}

/// Opens the file, and saves while the guest is stopped.
fn save_into(vm: &Arc<Vm>, to: &Uri, options: &SnapshotOptions, saving: &SavingGuard<'_>) -> Result<()> {
    let sink = without_big_lock(&*vm.host(), || Sink::open(to, Some(LIMIT), saving.cancel()))?;
    sink.channel().set_stall_limit(Some(LIMIT));
    // Ends a wait for the peer. A file has none.
    let _shut_down = saving.cancel().shuts_down(sink.channel());
    let file = MigFile::new(Arc::clone(sink.channel()), true);
    let saved = within(vm, |host| {
        // Setup runs outside the lock, where the host could start the guest.
        vm.ownership.hold(true);
        let restart = |ran| {
            vm.ownership.hold(false);
            if ran { start(host) } else { Ok(()) }
        };
        save::prepare(vm).inspect_err(|_| vm.ownership.hold(false))?;
        let began = Instant::now();
        let ran = stop(host).inspect_err(|_| vm.ownership.hold(false))?;
        vm.global_state.store(ran || !host.knows_run_state());
        let save = || with_plan(vm, options.plan(Pages::default()), || save_whole(vm, &file));
        let (saved, started) = finally(save, || restart(ran));
        saving.set_stopped(began.elapsed());
        started.and(saved)
    });
    // The guest runs again while the file is synced.
    sink.finish(saved.and(file.close()).and_then(|()| vm.slot.saving.check()))
}

/// Saves all phases into a file of the caller, including cleanup. The guest is stopped, and the caller holds the lock.
pub fn save_to(vm: &Vm, file: &MigFile) -> Result<()> {
    let _guard = begin(vm, "a snapshot")?;
    vm.global_state.store(!vm.host().knows_run_state());
    // Setup runs outside the lock, where the host could start the guest.
    vm.ownership.hold(true);
    finally(|| save_whole(vm, file), || vm.ownership.hold(false)).0
}

fn save_whole(vm: &Vm, file: &MigFile) -> Result<()> {
    finally(|| save_all(vm, &*vm.host(), file), || save::cleanup(vm)).0
}

fn save_all(vm: &Vm, host: &dyn Host, file: &MigFile) -> Result<()> {
    let set_up = || {
        save::header(vm, file);
        save::setup(vm, file)
    };
    // Up to QEMU 8.1 setup runs outside of the lock.
    if vm.profile().has(Profile::SETUP_LOCKED) { set_up() } else { without_big_lock(host, set_up) }?;
    while file.error() == 0 {
        vm.check_not_poisoned()?;
        vm.slot.saving.check()?;
        match save::iterate(vm, file, false) {
            Ok(Round::Done(_)) => break,
            Ok(Round::Again) => {}
            Err(ret) => file.set_error_detail(file.cause("save_live_iterate", ret)),
        }
    }
    if file.error() == 0 {
        switchover::send_start(vm, file);
        save::complete_precopy(vm, file, Completion::All(Disks::Keep)).map_err(|error| file.explain(error))?;
    }
    file.flush();
    file.check()?;
    vm.check_not_poisoned()
}

/// Stops the guest, resets the machine and loads everything; then lets the guest run again if it ran. What can be read twice is
/// checked before, and refused while the guest runs. Of everything else, only the first bytes are. After a later failure it
/// stays stopped, since its devices hold a part of each of two states, and the context's owner is `Torn`. A run state in the
/// stream is ignored, as in QEMU 7.2.
///
/// A lazy load returns before all memory was read: see `savevm::restore`. A load replaces a lazy restore in progress.
pub fn load(vm: &Arc<Vm>, from: &Uri, options: &SnapshotOptions) -> Result<()> {
    let _guard = vm.acquire_slot_from_restore("a snapshot")?;
    vm.slot.set_returns_errors();
    vm.slot.check_no_checkpoints("loading a snapshot")?;
    vm.prepare_global_state()?;
    vm.begin_global_state();
    let source = options.check_load(vm).and_then(|()| Source::open(vm, from, options));
    let loaded = source.and_then(|Source { channel, pages, snapshot }| {
        within(vm, |host| {
            let ran = stop(host)?;
            vm.ownership.set(Owner::Torn, format!("loading {from} failed after it had reset the machine"));
            end_restore(vm);
            host.reset();
            let load = || {
                with_plan(vm, options.plan(pages), || load_all(vm, &channel))?;
                vm.check_not_poisoned()?;
                vm.slot.restore.arm()
            };
            load().inspect_err(|_| end_restore(vm))?;
            vm.ownership.set(Owner::Here, "");
            if let Some(snapshot) = snapshot {
                log_since(vm, snapshot);
            }
            if ran { start(host) } else { Ok(()) }
        })
    });
    loaded.map_err(|err| err.at_side(Side::Destination).in_phase(Phase::Snapshot))
}

/// Ends a lazy restore, whose guest is stopped and will not run again.
pub fn end_restore(vm: &Vm) {
    if let Some(ram) = vm.slot.ram().filter(|_| vm.slot.restore.is_active()) {
        ram.end_lazy();
    }
    vm.slot.restore.forget();
}

fn open(from: &Uri) -> Result<Arc<dyn Channel>> {
    let channel = Listener::bind(from)?.accept(Some(LIMIT), &Cancel::new()?)?;
    channel.set_stall_limit(Some(LIMIT));
    Ok(channel)
}

/// A snapshot to load. A regular file was checked.
struct Source {
    channel: Arc<dyn Channel>,
    /// The pages of a stream, if they were found, or those of a chain, which the channel does not have.
    pages: Pages,
    /// The snapshot, if it may be the parent of further ones.
    snapshot: Option<SavedSnapshot>,
}

impl Source {
    /// Opens a snapshot: an incremental one with its ancestors, as one stream.
    fn open(vm: &Vm, from: &Uri, options: &SnapshotOptions) -> Result<Self> {
        let path = match from {
            Uri::File { path, offset: 0 } if path.is_file() => Some(path),
            _ => None,
        };
        if let Some(chain) = path.map(|path| open_incremental(path, options.lazy)).transpose()?.flatten() {
            // The pages were checked when the chain was opened, or each of them is when it is read.
            check(vm, chain.flatten(FlatForm::WithoutPages))?;
            let (form, pages, snapshot) = if options.lazy {
                if vm.flags().has(Flags::NO_FOOTERS) {
                    return Err(no_footers());
                }
                let pages = chain_pages(&chain, 1 << vm.host().target_page_bits())?;
                (FlatForm::WithoutPages, Pages { chain: Some(Arc::new(pages)), ..Pages::default() }, None)
            } else {
                (FlatForm::Stream, Pages::default(), Some(describe_chain(&chain)?))
            };
            let channel = Arc::new(ReaderChannel::new(chain.flatten(form), from.to_string()));
            return Ok(Self { channel, pages, snapshot });
        }
        let (channel, pages) = check_first(vm, from, options)?;
        let parent = path.filter(|_| options.parent.is_some());
        let snapshot = parent.map(|path| describe_full(path, 1 << vm.host().target_page_bits())).transpose()?;
        Ok(Self { channel, pages, snapshot })
    }
}

/// The error of a lazy restore if the ends of sections are not known, so that nothing could be checked.
fn no_footers() -> Error {
    Error::new(libc::ENOTSUP, "a lazy restore needs sections with footers (SAVEVM_FLAG_NO_FOOTERS is set)")
}

/// Logs what changes since a snapshot that was loaded. The guest is complete, so a failure is a warning: the next snapshot
/// must be full.
fn log_since(vm: &Vm, snapshot: SavedSnapshot) {
    let path = snapshot.path.display().to_string();
    if let Some(Err(error)) = vm.slot.checkpoint_ram().map(|ram| ram.log_since(snapshot)) {
        vm.host().report(Level::Warning, &format!("changes since {path} are not logged: {error}"));
    }
}

/// Opens `from`, and checks it and finds the pages of a stream if it is a regular file.
fn check_first(vm: &Vm, from: &Uri, options: &SnapshotOptions) -> Result<(Arc<dyn Channel>, Pages)> {
    let failed = |err| Error::io("checking it", &err);
    let channel = without_big_lock(&*vm.host(), || open(from))?;
    if !matches!(from, Uri::File { path, .. } if path.is_file()) {
        return match options.lazy {
            true => Err(Error::invalid(format!("a lazy restore needs a regular file (file:PATH), and {from} is none"))),
            false => Ok((without_big_lock(&*vm.host(), || check_beginning(channel))?, Pages::default())),
        };
    }
    let Some(file) = channel.positioned().map_err(failed)? else { return Ok((channel, Pages::default())) };
    let base = file.tell()?;
    if !options.lazy {
        let pages = page_index::find_if_simple(vm, &file, base)?;
        return Ok((channel, pages));
    }
    let pages = page_index::find(vm, &file, base, options.index.as_deref())?.ok_or_else(no_footers)?;
    Ok((channel, pages))
}

/// Checks the first bytes of what can be read only once, and returns a channel that brings them again.
fn check_beginning(channel: Arc<dyn Channel>) -> Result<Arc<dyn Channel>> {
    let mut first = [0; 8];
    let count =
        fill(&*channel, &mut first, || Ok(())).map_err(|err| Error::channel("reading its first bytes", &err))?;
    load::check_beginning(&first[..count])?;
    Ok(Arc::new(Begun::new(first.to_vec(), channel)))
}

fn load_all(vm: &Vm, channel: &Arc<dyn Channel>) -> Result<()> {
    let file = MigFile::new(Arc::clone(channel), false);
    // A snapshot asks for nothing, whatever answers migrations here.
    let before = vm.incoming();
    vm.set_incoming(None);
    let (loaded, ()) = finally(|| load::stream(vm, &file), || vm.set_incoming(before));
    if matches!(&loaded, Err(error) if error.phase() == Some(Phase::LoadSetup)) {
        load::cleanup(vm);
    }
    match loaded? {
        LoadEnd::Finished => load::check_live_ended(vm),
        LoadEnd::HandedOver => Err(Error::invalid("this is the stream of a postcopy, not a snapshot")),
    }
}
