// SPDX-License-Identifier: LGPL-2.1-or-later
//! Snapshots of a running guest (QEMU 7.2's background snapshot), full ones and incremental ones: all devices, and the pages that
//! changed since a parent. A chain begins with a full snapshot.
//!
//! RAM is write-protected while the guest runs. The guest is stopped while its devices are saved to memory and the pages are
//! protected that it wrote to meanwhile. Then it runs while RAM is written to the file. `chain` has the format.

use super::chain_files::{check_unchanged, describe};
use super::checkpoint::check_live;
use super::page_index::Pages;
use super::snapshot_options::{Parent, SnapshotOptions, with_plan};
use super::stopped::{LIMIT, begin, saving, start, stop, within};
use crate::chain;
use crate::channel::{PositionedFile, Sink, Uri, check_replaceable, memory};
use crate::error::{Error, Result};
use crate::file::MigFile;
use crate::savevm::Vm;
use crate::savevm::checkpoint::{CheckpointRam, FrozenRam, PreparedRam, SavedSnapshot, Scope};
use crate::savevm::host::{Flags, without_big_lock};
use crate::savevm::save::{self, Disks};
use crate::savevm::saving::SavingGuard;
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

/// What a save needs to know.
struct Plan<'a> {
    to: &'a Uri,
    options: &'a SnapshotOptions,
    /// The file, if the snapshot is part of a chain.
    path: Option<&'a Path>,
    /// The parent of an incremental snapshot.
    parent: Option<SavedSnapshot>,
}

impl<'a> Plan<'a> {
    /// The plan without the parent, which is not known yet.
    fn new(to: &'a Uri, options: &'a SnapshotOptions) -> Result<Self> {
        let path = match to {
            _ if options.parent.is_none() => None,
            Uri::File { path, offset: 0 } => Some(&**path),
            _ => return Err(Error::invalid("a snapshot of a chain is a regular file: use file:PATH")),
        };
        Ok(Self { to, options, path, parent: None })
    }

    fn scope(&self) -> Scope {
        match (&self.options.parent, &self.parent) {
            (None, _) => Scope::All,
            (Some(_), None) => Scope::Begin,
            (Some(_), Some(_)) => Scope::Changed,
        }
    }
}

/// Saves a snapshot while the guest runs. Stops the guest for a short time, and starts it again if it ran. In a chain, changes
/// are logged from the snapshot on.
pub fn save(vm: &Arc<Vm>, to: &Uri, options: &SnapshotOptions) -> Result<()> {
    let mut plan = Plan::new(to, options)?;
    vm.check_migratable()?;
    if options.parent.is_some() && vm.flags().has(Flags::NO_FOOTERS) {
        return Err(Error::new(libc::ENOTSUP, "a snapshot of a chain needs sections with footers"));
    }
    let _guard = begin(vm, "a snapshot")?;
    let ram = vm.slot.checkpoint_ram().ok_or_else(|| {
        let text = "the library does not know which memory changes: add the guest's memory with savevm_ram_new()";
        Error::new(libc::ENOTSUP, text)
    })?;
    if let (Some(parent), Some(path)) = (&options.parent, plan.path) {
        check_replaceable(path)?;
        let parent = known_parent(&*ram, parent)?;
        if let Some(parent) = &parent {
            check_unchanged(parent)?;
            check_target(path, parent)?;
        }
        plan.parent = parent;
    }
    saving(vm, |saving| save_to(vm, &*ram, &plan, saving))
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
            format!(
                "changes are known since {}, not since {shown}: name that as the parent, or begin a chain with an empty one",
                known.path.display()
            ),
        )),
        None => {
            let text = format!("it is not known what changed since {shown}: begin a chain with an empty parent");
            Err(Error::new(libc::ESTALE, text))
        }
    }
}

/// Fails if the target is a part of the chain, which would lose it.
fn check_target(path: &Path, parent: &SavedSnapshot) -> Result<()> {
    let Ok(real) = std::fs::canonicalize(path) else { return Ok(()) };
    if real == parent.path || parent.ancestors.contains(&real) {
        return Err(Error::invalid(format!(
            "{} is an ancestor of the new snapshot, which needs it: save to another file",
            path.display()
        )));
    }
    Ok(())
}

fn save_to(vm: &Arc<Vm>, ram: &dyn CheckpointRam, plan: &Plan<'_>, saving: &SavingGuard<'_>) -> Result<()> {
    let host = vm.host();
    let link = plan.path.zip(plan.parent.as_ref()).map(|(path, parent)| link_to(path, parent)).transpose()?;
    let sink = without_big_lock(&*host, || Sink::open(plan.to, Some(LIMIT), saving.cancel()))?;
    sink.channel().set_stall_limit(Some(LIMIT));
    // Ends a wait for the peer. A file has none.
    let _shut_down = saving.cancel().shuts_down(sink.channel());
    let file = MigFile::new(Arc::clone(sink.channel()), true);
    let prepared = without_big_lock(&*host, || ram.prepare())?;
    let (frozen, devices) = freeze(vm, &*prepared, plan.scope(), saving)?;
    drop(prepared);
    // The guest runs.
    without_big_lock(&*host, || {
        vm.on_thread(|| {
            let write = || write(vm, &file, link.as_ref(), &*frozen, &devices);
            let saved = with_plan(vm, plan.options.plan(Pages::default()), write);
            let saved = saved.and(file.close()).and_then(|()| vm.slot.saving.check());
            let Some(path) = plan.path else { return sink.finish(saved) };
            let described = sink.finish_file(saved, |file| {
                let described = seal(vm, file, plan.parent.as_ref())?;
                vm.slot.saving.check().map(|()| described)
            })?;
            let ancestors = plan.parent.iter().flat_map(|parent| parent.ancestors.iter().chain([&parent.path]));
            frozen.saved(describe(path, described, ancestors.cloned().collect())?);
            Ok(())
        })
    })
}

/// Stops the guest for as long as its devices are saved and its memory is protected.
fn freeze(
    vm: &Arc<Vm>,
    ram: &dyn PreparedRam,
    scope: Scope,
    saving: &SavingGuard<'_>,
) -> Result<(Box<dyn FrozenRam>, Vec<u8>)> {
    within(vm, |host| {
        check_live(vm, true)?;
        vm.slot.saving.check()?;
        let began = Instant::now();
        let ran = stop(host)?;
        vm.global_state.store(ran || !host.knows_run_state());
        let keep = || {
            let writer = Arc::new(memory::Writer::new());
            let file = MigFile::new(writer.clone(), true);
            host.cpu_synchronize_states();
            save::complete_precopy_non_iterable(vm, &file, false, Disks::Keep).map_err(|err| file.explain(err))?;
            file.close()?;
            vm.check_not_poisoned()?;
            Ok((ram.freeze(scope)?, writer.take()))
        };
        let (frozen, started) = finally(keep, || if ran { start(host) } else { Ok(()) });
        saving.set_stopped(began.elapsed());
        log::info!("the guest was stopped for {:?} for a snapshot", began.elapsed());
        started.and(frozen)
    })
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

/// Appends the list of pages to an incremental snapshot. Returns the identity of the whole file, and the pages of a full one.
fn seal(vm: &Vm, file: &File, parent: Option<&SavedSnapshot>) -> Result<(Identity, Option<Vec<u8>>)> {
    let failed = |err| Error::io("reading the new snapshot", &err);
    let data = PositionedFile::from_file(file.try_clone().map_err(failed)?, "the new snapshot".to_owned());
    let page_size = Some(1 << vm.host().target_page_bits());
    let Some(parent) = parent else { return chain::survey(&data, page_size).map_err(failed) };
    let pages = parent.pages.as_ref().map(|pages| &pages[..]);
    let (list, identity) = chain::seal(&data, pages, page_size).map_err(failed)?;
    let end = identity.length - list.len() as u64;
    file.write_all_at(&list, end).map_err(|err| Error::io("writing the list of pages of the new snapshot", &err))?;
    Ok((identity, None))
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
