// SPDX-License-Identifier: LGPL-2.1-or-later
//! The registered devices: entries in order of priority and registration, with an index for each key of a lookup
//! (replaces the list of QEMU 7.2's `migration/savevm.c`).
//!
//! Registration, lookup and removal take the same time for any number of devices. No lock is held while a callback
//! runs. Devices may be registered and unregistered meanwhile, also the one whose callback runs.
//!
//! - `entry.rs`: one device and its keys.
//! - `order.rs`: the order of saving, and the position of a walk.
//! - `name.rs`, `holders.rs`: a name, and the devices that have it.
//! - `index.rs`: order and names together.
//! - `naming.rs`: the name and instance id of a new device.
//! - `calls.rs`: which callbacks run now.

mod calls;
mod entry;
mod holders;
mod index;
mod name;
mod naming;
mod order;
#[cfg(test)]
mod tests;

use super::handler::Handler;
use super::priority;
use crate::error::{Error, Result};
use crate::sync::{Mutex, MutexGuard, Rank};
use calls::Calls;
use entry::{Key, Place};
use index::Index;
use name::Name;
use naming::{Identity, full_name, identify};
use order::START;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

pub use calls::Call;
pub use entry::{Compat, Entry, INSTANCE_ID_ANY, Registrant, Registration, Rules, Ticket};

/// The devices of one context.
pub struct Registry {
    index: Mutex<Index>,
    calls: Calls,
}

impl Default for Registry {
    fn default() -> Self {
        Self { index: Mutex::new(Rank::Registry, Index::default()), calls: Calls::default() }
    }
}

impl Registry {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock()
    }

    /// Adds a device. A cut name and a second (idstr, instance) are errors if `rules` say so. Otherwise they are added to
    /// `warnings`, and the device is registered as QEMU 7.2 does it.
    pub fn register<H>(&self, new: Registration<H>, rules: Rules, warnings: &mut Vec<String>) -> Result<()>
    where
        H: Handler + 'static,
    {
        let own = new.handler.priority();
        if !(0..=priority::MAX).contains(&own) {
            return Err(Error::invalid(format!("priority {own} is not between 0 and {}", priority::MAX)));
        }
        let mut index = self.index();
        let section_id = index.next_section_id();
        let Identity { idstr, instance_id, compat } = identify(&index, &new, rules, warnings)?;
        let key = Key {
            rank: (priority::MAX - own) as u32,
            sequence: index.next_sequence(),
            place: index.order.next_place(),
        };
        let entry = Entry {
            idstr: Name::from(&*idstr),
            instance_id,
            alias_id: new.alias_id,
            version_id: new.version_id,
            section_id,
            compat: compat.map(Box::new),
            is_live: new.is_live,
            registrant: new.registrant,
            key,
            removed: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            handler: new.handler,
        };
        index.insert(Arc::new(entry));
        Ok(())
    }

    /// Removes all devices with that name and opaque pointer. Their callbacks may still run: see `drain`.
    pub fn unregister_name(&self, path: Option<&[u8]>, name: &[u8], opaque: usize) -> Vec<Arc<Entry>> {
        let (idstr, _) = full_name(path, name);
        let mut index = self.index();
        let places = index.with_opaque(&idstr, opaque);
        places.into_iter().filter_map(|place| index.remove(place)).collect()
    }

    /// Removes all devices with that description and opaque pointer. Their callbacks may still run: see `drain`.
    pub fn unregister(&self, registrant: Registrant) -> Vec<Arc<Entry>> {
        let mut index = self.index();
        let places = index.registered_by(registrant);
        places.into_iter().filter_map(|place| index.remove(place)).collect()
    }

    /// Marks removed entries, so that no further callback starts. Returns whether another thread still runs one.
    pub fn is_busy(&self, removed: &[Arc<Entry>]) -> bool {
        self.calls.is_busy(removed)
    }

    /// Waits until no other thread runs a callback of the removed entries.
    pub fn drain(&self, removed: &[Arc<Entry>]) {
        self.calls.drain(removed);
    }

    /// Returns the number of devices.
    pub fn len(&self) -> usize {
        self.index().order.len()
    }

    /// Returns the number of places in the order, used or free.
    #[cfg(test)]
    fn places(&self) -> usize {
        self.index().order.places()
    }

    /// Returns whether there are no devices.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Enters the device that a stream names.
    pub fn find(&self, idstr: &[u8], instance: u32) -> Option<Call<'_>> {
        let entry = Arc::clone(self.index().find(idstr, instance)?);
        self.calls.enter(entry)
    }

    /// Enters a device that was found before, unless it was unregistered since.
    pub fn find_again(&self, Ticket(key): Ticket) -> Option<Call<'_>> {
        let entry = self.index().order.get(key.place).filter(|entry| entry.key == key).cloned()?;
        self.calls.enter(entry)
    }

    /// Walks over all devices in order. Devices that are added behind the position of the walk are visited; devices
    /// that are removed before it reaches them are not.
    pub fn walk(&self) -> Walk<'_> {
        self.index().order.enter(START);
        Walk { registry: self, at: START }
    }
}

/// See `Registry::walk`.
pub struct Walk<'a> {
    registry: &'a Registry,
    at: Place,
}

impl<'a> Iterator for Walk<'a> {
    type Item = Call<'a>;

    fn next(&mut self) -> Option<Call<'a>> {
        loop {
            let entry = {
                let order = &mut self.registry.index().order;
                self.at = order.step(self.at);
                Arc::clone(order.get(self.at)?)
            };
            if let Some(call) = self.registry.calls.enter(entry) {
                return Some(call);
            }
        }
    }
}

impl Drop for Walk<'_> {
    fn drop(&mut self) {
        self.registry.index().order.leave(self.at);
    }
}
