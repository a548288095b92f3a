// SPDX-License-Identifier: LGPL-2.1-or-later
//! The devices in the order in which they are saved: a doubly linked list of numbered places.
//!
//! A place stays in the list while a walk is at it, even after its device is removed. A walk therefore never has to
//! search for its position.

use super::entry::{Entry, Key, Place};
use crate::savevm::priority;
use std::sync::Arc;

/// The place at which every walk begins, before all devices.
pub(super) const START: Place = 0;
/// The place behind all devices. Places up to this one hold no device: each precedes the devices of one priority, from
/// the highest priority to the lowest.
const END: Place = priority::MAX as Place + 1;

struct Slot {
    /// `None` at the start of a priority and after the device is removed.
    entry: Option<Arc<Entry>>,
    next: Place,
    before: Place,
    /// Number of walks that are at this place.
    walks: u32,
}

pub(super) struct Order {
    slots: Vec<Slot>,
    /// Head of the list of free places, linked by `next`; `END` if none is free.
    free: Place,
    len: usize,
}

impl Default for Order {
    fn default() -> Self {
        let slot = |at| Slot { entry: None, next: END.min(at + 1), before: Place::saturating_sub(at, 1), walks: 0 };
        Self { slots: (START..=END).map(slot).collect(), free: END, len: 0 }
    }
}

impl Order {
    pub fn len(&self) -> usize {
        self.len
    }

    #[cfg(test)]
    pub fn places(&self) -> usize {
        self.slots.len() - 1 - END as usize
    }

    fn slot(&self, at: Place) -> &Slot {
        &self.slots[at as usize]
    }

    fn slot_mut(&mut self, at: Place) -> &mut Slot {
        &mut self.slots[at as usize]
    }

    pub fn get(&self, at: Place) -> Option<&Arc<Entry>> {
        self.slots.get(at as usize)?.entry.as_ref()
    }

    /// Returns the place that the next `insert` must use.
    pub fn next_place(&self) -> Place {
        match self.free {
            END => Place::try_from(self.slots.len()).expect("no machine has memory for so many devices"),
            free => free,
        }
    }

    /// Inserts a device behind all others of its rank, at the place in its key, which is `next_place()`.
    pub fn insert(&mut self, entry: Arc<Entry>) {
        let Key { rank, place: at, .. } = entry.key;
        let next = START + rank + 1;
        let before = std::mem::replace(&mut self.slot_mut(next).before, at);
        self.slot_mut(before).next = at;
        let slot = Slot { entry: Some(entry), next, before, walks: 0 };
        if self.free == END {
            self.slots.push(slot);
        } else {
            self.free = std::mem::replace(self.slot_mut(at), slot).next;
        }
        self.len += 1;
    }

    /// Removes a device and returns it.
    pub fn remove(&mut self, at: Place) -> Option<Arc<Entry>> {
        let entry = self.slot_mut(at).entry.take()?;
        self.len -= 1;
        self.free_if_unused(at);
        Some(entry)
    }

    /// Unlinks and frees a place that has no device, unless a walk is at it.
    fn free_if_unused(&mut self, at: Place) {
        let Slot { ref entry, next, before, walks } = *self.slot(at);
        if at > END && entry.is_none() && walks == 0 {
            self.slot_mut(before).next = next;
            self.slot_mut(next).before = before;
            self.slot_mut(at).next = std::mem::replace(&mut self.free, at);
        }
    }

    /// Records that a walk is at a place.
    pub fn enter(&mut self, at: Place) {
        self.slot_mut(at).walks += 1;
    }

    /// Records that a walk left a place.
    pub fn leave(&mut self, at: Place) {
        self.slot_mut(at).walks -= 1;
        self.free_if_unused(at);
    }

    /// Moves a walk to the next device, or to the end. Returns its new place.
    pub fn step(&mut self, from: Place) -> Place {
        let mut at = self.slot(from).next;
        while at != END && self.slot(at).entry.is_none() {
            at = self.slot(at).next;
        }
        self.enter(at);
        self.leave(from);
        at
    }
}
