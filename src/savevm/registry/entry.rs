// SPDX-License-Identifier: LGPL-2.1-or-later
//! One registered device and the keys by which it is found.

use super::name::Name;
use crate::error::Section;
use crate::savevm::handler::Handler;
use std::sync::atomic::{AtomicBool, AtomicUsize};

/// What a registration refuses instead of warning of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Names that must be cut, and duplicates.
    pub strict: bool,
    /// A name and instance by which a stream finds another device (QEMU 8.2).
    pub unique: bool,
}

/// Requests the next free instance id: -1.
pub const INSTANCE_ID_ANY: u32 = u32::MAX;

/// Number of a place in the order of the devices. A place is reused after its device is removed.
pub(super) type Place = u32;

/// An older name by which streams may name a device.
pub struct Compat {
    /// The name without the path.
    pub idstr: Name,
    /// Instance id under this name, counted apart from the ids under the idstr.
    pub instance_id: i32,
}

/// Position of an entry in the order. Keys compare as the entries are saved: lower first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// `priority::MAX` minus the priority, so that higher priorities come first.
    pub rank: u32,
    /// Number of the registration. It is never reused.
    pub sequence: u64,
    pub place: Place,
}

/// Identifies one registration. A ticket never finds another device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub(super) Key);

impl Ticket {
    /// Returns the place of the entry. The place is another entry's after this one is removed. Places are numbered
    /// below the highest number of devices that were registered at once, plus a few.
    pub(in crate::savevm) fn place(self) -> usize {
        self.0.place as usize
    }
}

/// The addresses by which a device is unregistered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Registrant {
    /// Address of the description, or 0 for a device with a handler table.
    pub description: usize,
    /// The device's own pointer.
    pub opaque: usize,
}

/// One registered device. Its handler is stored in the same allocation.
pub struct Entry<H: ?Sized = dyn Handler> {
    /// Name with the path, at most 255 bytes.
    pub idstr: Name,
    /// Instance id.
    pub instance_id: u32,
    /// A second instance id that streams may use, or -1.
    pub alias_id: i32,
    /// Version of the state that this program saves.
    pub version_id: i32,
    /// Section id of the device in streams that are written here.
    pub section_id: u32,
    /// Older name, or `None`.
    pub compat: Option<Box<Compat>>,
    /// Whether the device is live: it has a `save_setup` (QEMU's `is_ram`).
    pub is_live: bool,
    pub(super) registrant: Registrant,
    pub(super) key: Key,
    /// Set when the device is unregistered. No callback starts afterwards.
    pub(super) removed: AtomicBool,
    /// Number of callbacks that run now, on all threads.
    pub(super) calls: AtomicUsize,
    /// The callbacks.
    pub handler: H,
}

/// A device to register.
pub struct Registration<H> {
    /// Path of the object, without the slash.
    pub path: Option<Vec<u8>>,
    /// Name without the path.
    pub name: Vec<u8>,
    /// Instance id, or `INSTANCE_ID_ANY`.
    pub instance_id: u32,
    /// Alias id, or -1.
    pub alias_id: i32,
    /// Version of the state.
    pub version_id: i32,
    /// Whether the device is live.
    pub is_live: bool,
    /// The addresses by which it will be unregistered.
    pub registrant: Registrant,
    /// The callbacks.
    pub handler: H,
}

impl Entry {
    /// Returns the name as text.
    pub fn name(&self) -> String {
        String::from_utf8_lossy(&self.idstr).into_owned()
    }

    /// Returns the name of the description as traces print it: "(old)" for a device without one.
    pub fn description_name(&self) -> String {
        if !self.handler.is_description() {
            return "(old)".to_owned();
        }
        let name = self.compat.as_ref().map_or(&self.idstr, |compat| &compat.idstr);
        String::from_utf8_lossy(name).into_owned()
    }

    /// Returns the section of this device for the context of an error.
    pub fn section(&self, tag: u8, id: u32, version_want: Option<i32>) -> Section {
        Section {
            tag,
            id,
            idstr: self.name(),
            instance: self.instance_id,
            version_have: Some(self.version_id),
            version_want,
        }
    }

    /// Returns the idstr (or the older name if `is_compat`) and the instance id that belongs to it.
    pub(super) fn name_and_instance(&self, is_compat: bool) -> (&[u8], u32) {
        match &self.compat {
            Some(compat) if is_compat => (&compat.idstr, compat.instance_id as u32),
            _ => (&self.idstr, self.instance_id),
        }
    }

    /// Returns a number that no other live entry has.
    pub(super) fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}
