// SPDX-License-Identifier: LGPL-2.1-or-later
//! Describes the machine of a context: at the source what it would send, at the destination what it loads.

use crate::inspect::compat::settings;
use crate::migration::further;
use crate::migration::params::Params;
use crate::savevm::Vm;
use crate::savevm::handler::{Callback, Digests};
use crate::savevm::host::{Flags, with_big_lock};
use crate::savevm::profile::Profile;
use crate::savevm::registry::{Entry, Ticket};
use crate::savevm::{load, switchover};
use crate::wire::preflight::{Device, Machine, Manifest, Purpose, Setting};

/// A manifest, and the devices that it lists.
pub(super) struct Described {
    pub manifest: Manifest,
    tickets: Vec<Ticket>,
}

/// Which end a manifest describes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The source, with its purpose.
    Source(Purpose),
    Destination,
}

impl Described {
    /// Describes a context. Takes the big lock. Asks devices whether they are active and needed, and reads the counts in their
    /// memory.
    pub fn new(vm: &Vm, params: &Params, end: End) -> Self {
        let host = vm.host();
        let purpose = match end {
            End::Source(purpose) => purpose,
            End::Destination => Purpose::default(),
        };
        with_big_lock(&*host, || {
            let machine = (!vm.flags().has(Flags::NO_CONFIGURATION)).then(|| Machine {
                name: host.machine_name(),
                page_bits: u8::try_from(host.target_page_bits()).unwrap_or(u8::MAX).min(62),
                uuid: host.uuid().filter(|_| end == End::Destination || !vm.flags().has(Flags::NO_UUID)),
                capabilities: host.capabilities(),
            });
            let mut described =
                Self { manifest: Manifest { purpose, machine, ..Manifest::default() }, tickets: Vec::new() };
            let mut digests = Digests::default();
            let mut ram = None;
            for call in vm.registry.walk() {
                ram = ram.or_else(|| call.handler.ram_blocks());
                if end == End::Destination || is_saved(&call) {
                    described.manifest.devices.push(device(&call, end, &mut digests));
                    described.tickets.push(call.ticket());
                }
            }
            let ignore_shared = ram.as_ref().map(|(_, ignored)| u64::from(*ignored));
            described.manifest.ram = ram.map(|(blocks, _)| blocks);
            described.add_settings(vm, params, end, digests.depth(), ignore_shared);
            described
        })
    }

    fn add_settings(&mut self, vm: &Vm, params: &Params, end: End, depth: u32, ignore_shared: Option<u64>) {
        let nesting = match end {
            End::Source(_) => depth,
            End::Destination => vm.limits().nesting,
        };
        let connections = matches!(end, End::Source(_)).then(|| u64::from(further::announce(params)));
        let strict = (matches!(end, End::Source(_)) && params.strict).then_some(1);
        let start = match end {
            End::Source(_) => switchover::sends_start(vm),
            End::Destination => vm.profile().has(Profile::SWITCHOVER_START),
        };
        let all = [
            (settings::POSTCOPY, Some(params.postcopy.into())),
            (settings::NESTING, Some(nesting.into())),
            (settings::IGNORE_SHARED, ignore_shared),
            (settings::FOOTERS, Some((!vm.flags().has(Flags::NO_FOOTERS)).into())),
            (settings::CONNECTIONS, connections),
            (settings::STRICT, strict),
            (settings::SWITCHOVER_START, Some(start.into())),
            (settings::SWITCHOVER_ACK, Some(vm.flags().has(Flags::SWITCHOVER_ACK).into())),
        ];
        let setting = |(name, value): (&[u8], Option<u64>)| Some(Setting { name: name.to_vec(), value: value? });
        self.manifest.settings.extend(all.into_iter().filter_map(setting));
    }

    /// Returns the layout of the device at an index, if it is known and the device still registered. With the big lock.
    pub fn layout(&self, vm: &Vm, index: usize, saving: bool) -> Option<Vec<u8>> {
        let call = vm.registry.find_again(*self.tickets.get(index)?)?;
        call.handler.layout(saving)
    }
}

fn is_saved(entry: &Entry) -> bool {
    let handler = &entry.handler;
    handler.is_description() || handler.has(Callback::SaveState) || handler.has(Callback::SaveSetup)
}

fn device(entry: &Entry, end: End, digests: &mut Digests) -> Device {
    let handler = &entry.handler;
    let is_whole = handler.is_description() || handler.has(Callback::SaveState);
    let is_sent = match end {
        End::Destination => load::is_expected(entry),
        End::Source(_) if is_whole => handler.is_needed(),
        End::Source(_) => handler.is_active(),
    };
    let version = match end {
        // A device of a negative version loads nothing.
        End::Destination => entry.version_id.max(0),
        End::Source(_) => entry.version_id,
    };
    let compat = entry.compat.as_deref();
    Device {
        name: entry.idstr.to_vec(),
        instance: entry.instance_id,
        version: version as u32,
        oldest: handler.oldest_version().max(0) as u32,
        alias: entry.alias_id as u32,
        compat_name: compat.map(|compat| compat.idstr.to_vec()).unwrap_or_default(),
        compat_instance: compat.map_or(0, |compat| compat.instance_id as u32),
        is_sent,
        is_loaded: handler.is_description() || handler.has(Callback::LoadState),
        digest: handler.layout_digest(digests).unwrap_or(0),
    }
}
