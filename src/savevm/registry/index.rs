// SPDX-License-Identifier: LGPL-2.1-or-later
//! The devices in order, with an index for each key by which they are looked up.

use super::entry::{Entry, Place, Registrant};
use super::holders::{Holders, NameRef};
use super::order::Order;
use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Index {
    pub order: Order,
    by_name: HashMap<Box<[u8]>, Holders>,
    /// Only devices with a description: those with a table are unregistered by name.
    by_registrant: HashMap<Registrant, Vec<Place>>,
    last_section_id: u32,
    last_sequence: u64,
}

impl Index {
    /// Returns the next section id. Ids count up from 0 and are not reused.
    pub fn next_section_id(&mut self) -> u32 {
        let id = self.last_section_id;
        self.last_section_id = id.wrapping_add(1);
        id
    }

    /// Returns the next number of a registration.
    pub fn next_sequence(&mut self) -> u64 {
        self.last_sequence += 1;
        self.last_sequence
    }

    /// Returns the devices that have a name.
    pub fn holders(&self, name: &[u8]) -> Option<&Holders> {
        self.by_name.get(name)
    }

    /// Returns the device that a stream names.
    pub fn find(&self, idstr: &[u8], instance: u32) -> Option<&Arc<Entry>> {
        self.order.get(self.holders(idstr)?.find(instance, &self.order)?)
    }

    /// Returns the devices with that idstr and opaque pointer.
    pub fn with_opaque(&self, idstr: &[u8], opaque: usize) -> Vec<Place> {
        self.holders(idstr).map(|holders| holders.with_opaque(opaque, &self.order)).unwrap_or_default()
    }

    /// Returns the devices that were registered with that description and pointer.
    pub fn registered_by(&self, registrant: Registrant) -> Vec<Place> {
        self.by_registrant.get(&registrant).cloned().unwrap_or_default()
    }

    /// Adds a device. The place in its key is the next place of the order.
    pub fn insert(&mut self, entry: Arc<Entry>) {
        let place = entry.key.place;
        self.order.insert(Arc::clone(&entry));
        self.add_name(&entry.idstr, NameRef { place, is_compat: false });
        if let Some(compat) = &entry.compat {
            self.add_name(&compat.idstr, NameRef { place, is_compat: true });
        }
        if entry.registrant.description != 0 {
            self.by_registrant.entry(entry.registrant).or_default().push(place);
        }
    }

    fn add_name(&mut self, name: &[u8], new: NameRef) {
        match self.by_name.entry(name.into()) {
            Occupied(known) => known.into_mut().add(new, &self.order),
            Vacant(free) => drop(free.insert(Holders::One(new))),
        }
    }

    /// Removes a device and returns it.
    pub fn remove(&mut self, place: Place) -> Option<Arc<Entry>> {
        let entry = Arc::clone(self.order.get(place)?);
        self.remove_name(&entry.idstr, NameRef { place, is_compat: false });
        if let Some(compat) = &entry.compat {
            self.remove_name(&compat.idstr, NameRef { place, is_compat: true });
        }
        if entry.registrant.description != 0 {
            self.remove_registrant(entry.registrant, place);
        }
        self.order.remove(place)
    }

    fn remove_name(&mut self, name: &[u8], old: NameRef) {
        // Most names have one holder, so removing the name first hashes it once.
        let Some((name, mut holders)) = self.by_name.remove_entry(name) else { return };
        if !holders.remove(old, &self.order) {
            self.by_name.insert(name, holders);
        }
    }

    fn remove_registrant(&mut self, registrant: Registrant, place: Place) {
        if let Some(places) = self.by_registrant.get_mut(&registrant) {
            places.retain(|other| *other != place);
            if places.is_empty() {
                self.by_registrant.remove(&registrant);
            }
        }
    }
}
