// SPDX-License-Identifier: LGPL-2.1-or-later
//! Incremental snapshots: all devices, and the pages that changed since a parent. A chain begins with a full snapshot.
//!
//! RAM is write-protected while the guest runs. The guest is stopped while its devices are saved to memory and the pages are
//! protected that it wrote to meanwhile. Then it runs while RAM is written to the file. `chain` has the format.

use super::chain_files::{DiskFile, check_unchanged, describe};
use super::checkpoint::check_live;
use super::stopped::{LIMIT, start, stop, within};
use crate::chain;
use crate::channel::{Cancel, Sink, Uri, memory};
use crate::error::{Error, Phase, Result, Side};
use crate::file::MigFile;
use crate::savevm::Vm;
use crate::savevm::checkpoint::{CheckpointRam, FrozenRam, PreparedRam, SavedSnapshot};
use crate::savevm::host::{Flags, without_big_lock};
use crate::savevm::save::{self, Disks};
use crate::savevm::unwind::finally;
use crate::wire;
use crate::wire::chain::{Identity, Link, SECTION, SECTION_ID, VERSION};
use crate::wire::limits::NAME_MAX;
use crate::wire::section::{DeviceHead, encode_footer, encode_tag};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// What a snapshot is relative to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parent {
    /// Nothing: a full snapshot that begins a chain.
    None,
    /// This file.
    File(PathBuf),
}

/// Saves a snapshot, from which on changes are logged. Stops the guest for a short time, and starts it again if it ran.
pub fn save(vm: &Arc<Vm>, to: &Uri, parent: &Parent) -> Result<()> {
    let Uri::File { path, offset: 0 } = to else {
        return Err(Error::invalid("a snapshot of a chain is a regular file: use file:PATH"));
    };
    vm.check_migratable()?;
    if vm.flags().has(Flags::NO_FOOTERS) {
        return Err(Error::new(libc::ENOTSUP, "a snapshot of a chain needs sections with footers"));
    }
    let _guard = vm.acquire_slot("a snapshot")?;
    vm.ownership.check("a snapshot")?;
    vm.slot.check_blockers("a snapshot")?;
    vm.prepare_global_state()?;
    vm.begin_global_state();
    let ram = vm.slot.checkpoint_ram().ok_or_else(|| {
        let text = "the library does not know which memory changes: add the guest's memory with savevm_ram_new()";
        Error::new(libc::ENOTSUP, text)
    })?;
    let before = known_parent(&*ram, parent)?;
    if let Some(before) = &before {
        check_unchanged(before)?;
        check_target(path, before)?;
    }
    let saved = save_to(vm, &*ram, to, before.as_ref());
    saved.map_err(|err| err.at_side(Side::Source).in_phase(Phase::Snapshot))
}

/// The snapshot since which changes are logged, if it is the parent.
fn known_parent(ram: &dyn CheckpointRam, parent: &Parent) -> Result<Option<SavedSnapshot>> {
    let Parent::File(path) = parent else { return Ok(None) };
    let shown = path.display();
    let real = std::fs::canonicalize(path).map_err(|err| Error::io(format_args!("the parent {shown}"), &err))?;
    match ram.parent() {
        Some(known) if known.path == real => Ok(Some(known)),
        Some(known) => Err(Error::new(
            libc::ESTALE,
            format!("changes are known since {}, not since {shown}", known.path.display()),
        )),
        None => {
            let text = format!("it is not known what changed since {shown}: save a full snapshot with an empty parent");
            Err(Error::new(libc::ESTALE, text))
        }
    }
}

/// Fails if the target is a part of the chain, which would lose it.
fn check_target(path: &Path, parent: &SavedSnapshot) -> Result<()> {
    let Ok(real) = std::fs::canonicalize(path) else { return Ok(()) };
    if real == parent.path || parent.ancestors.contains(&real) {
        return Err(Error::invalid(format!("{} is an ancestor of the new snapshot, which needs it", path.display())));
    }
    Ok(())
}

fn save_to(vm: &Arc<Vm>, ram: &dyn CheckpointRam, to: &Uri, parent: Option<&SavedSnapshot>) -> Result<()> {
    let Uri::File { path, .. } = to else { return Err(Error::invalid("it is no file")) };
    let link = parent.map(|parent| link_to(path, parent)).transpose()?;
    let sink = Sink::open(to, Some(LIMIT), &Cancel::new()?)?;
    let file = MigFile::new(Arc::clone(sink.channel()), true);
    let host = vm.host();
    let prepared = without_big_lock(&*host, || ram.prepare())?;
    let (frozen, devices) = freeze(vm, &*prepared, parent.is_some())?;
    drop(prepared);
    // The guest runs.
    without_big_lock(&*host, || {
        vm.on_thread(|| {
            let saved = write(vm, &file, link.as_ref(), &*frozen, &devices);
            let identity = sink.finish_file(saved.and(file.close()), |file| seal(file, link.is_some()))?;
            let ancestors = parent.iter().flat_map(|parent| parent.ancestors.iter().chain([&parent.path]));
            frozen.saved(describe(path, identity, ancestors.cloned().collect())?);
            Ok(())
        })
    })
}

/// Stops the guest for as long as its devices are saved and its memory is protected.
fn freeze(vm: &Arc<Vm>, ram: &dyn PreparedRam, changed: bool) -> Result<(Box<dyn FrozenRam>, Vec<u8>)> {
    let began = Instant::now();
    let frozen = within(vm, |host| {
        check_live(vm, true)?;
        let ran = stop(host)?;
        vm.global_state.store(ran || !host.knows_run_state());
        let keep = || {
            let writer = Arc::new(memory::Writer::new());
            let file = MigFile::new(writer.clone(), true);
            host.cpu_synchronize_states();
            save::complete_precopy_non_iterable(vm, &file, false, Disks::Keep).map_err(|err| file.explain(err))?;
            file.close()?;
            vm.check_not_poisoned()?;
            Ok((ram.freeze(changed)?, writer.take()))
        };
        let (frozen, started) = finally(keep, || if ran { start(host) } else { Ok(()) });
        started.and(frozen)
    });
    log::info!("the guest was stopped for {:?} for a snapshot", began.elapsed());
    frozen
}

fn write(vm: &Vm, file: &MigFile, link: Option<&Link<Vec<u8>>>, frozen: &dyn FrozenRam, devices: &[u8]) -> Result<()> {
    save::header(vm, file);
    if let Some(link) = link {
        let mut out = file;
        encode_tag(&mut out, wire::SECTION_FULL, SECTION_ID);
        DeviceHead { name: SECTION, instance: 0, version: VERSION }.encode(&mut out);
        link.encode(&mut out);
        encode_footer(&mut out, SECTION_ID);
    }
    frozen.send(file)?;
    file.put(devices);
    file.flush();
    file.check()
}

/// Appends the trailer to an incremental snapshot. Returns the identity of the whole file.
fn seal(file: &File, is_incremental: bool) -> Result<Identity> {
    let failed = |err| Error::io("reading the new snapshot", &err);
    let data = DiskFile(file.try_clone().map_err(failed)?);
    if !is_incremental {
        return chain::identify(&data).map_err(failed);
    }
    let (trailer, identity) = chain::seal(&data).map_err(failed)?;
    let end = identity.length - trailer.len() as u64;
    file.write_all_at(&trailer, end).map_err(|err| Error::io("writing the trailer of the new snapshot", &err))?;
    Ok(identity)
}

/// The link from a new file at `path` to its parent.
fn link_to(path: &Path, parent: &SavedSnapshot) -> Result<Link<Vec<u8>>> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = std::fs::canonicalize(directory)
        .map_err(|err| Error::io(format_args!("the directory of {}", path.display()), &err))?;
    let name = relative(&directory, &parent.path);
    let text = name.to_str().filter(|name| name.len() <= NAME_MAX).ok_or_else(|| {
        let text =
            format!("the path '{}' of the parent is not UTF-8 or is longer than {NAME_MAX} bytes", name.display());
        Error::new(libc::ENAMETOOLONG, text)
    })?;
    Ok(Link { parent: parent.identity, name: text.as_bytes().to_vec() })
}

/// The way from a directory to a file. Both paths are absolute and have no links.
fn relative(directory: &Path, file: &Path) -> PathBuf {
    let (from, to): (Vec<_>, Vec<_>) = (directory.components().collect(), file.components().collect());
    let common = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
    let up = from[common..].iter().map(|_| Component::ParentDir);
    up.chain(to[common..].iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parents_are_relative_to_the_child() {
        for (directory, file, name) in [
            ("/a/b", "/a/b/base", "base"),
            ("/a/b", "/a/c/base", "../c/base"),
            ("/a/b", "/a/b/c/base", "c/base"),
            ("/", "/base", "base"),
            ("/a/b", "/x", "../../x"),
        ] {
            assert_eq!(relative(Path::new(directory), Path::new(file)), Path::new(name));
        }
    }
}
