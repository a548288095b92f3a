// SPDX-License-Identifier: LGPL-2.1-or-later
//! The devices in order: a list through numbered places. A place stays in the list while a walk stands on it, whatever
//! becomes of its device, so that a walk never has to look for where it was.

use super::registry::{Entry, Key, PRIORITY_MAX};
use std::sync::Arc;

/// Number of a place; used again once it is free.
pub(super) type Place = u32;

/// Where every walk begins: before all devices.
pub(super) const START: Place = 0;
/// Behind all devices. Places up to here hold none: each stands before the devices of one priority, higher ones first.
const END: Place = PRIORITY_MAX as Place + 1;

struct Slot {
    /// `None` where a priority begins, and once the device is gone.
    entry: Option<Arc<Entry>>,
    next: Place,
    before: Place,
    /// How many walks stand here.
    walks: u32,
}

pub(super) struct Order {
    slots: Vec<Slot>,
    /// The first free place, which leads to the next; `END` behind the last.
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

    /// Where the next device will stand.
    pub fn next_place(&self) -> Place {
        match self.free {
            END => Place::try_from(self.slots.len()).expect("no machine has memory for so many devices"),
            free => free,
        }
    }

    /// Puts a device at the place that its key names, which is `next_place`, behind all others of its rank.
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

    pub fn remove(&mut self, at: Place) -> Option<Arc<Entry>> {
        let entry = self.slot_mut(at).entry.take()?;
        self.len -= 1;
        self.tidy(at);
        Some(entry)
    }

    /// Takes a place out of the list that has lost its device, unless a walk stands on it.
    fn tidy(&mut self, at: Place) {
        let Slot { ref entry, next, before, walks } = *self.slot(at);
        if at > END && entry.is_none() && walks == 0 {
            self.slot_mut(before).next = next;
            self.slot_mut(next).before = before;
            self.slot_mut(at).next = std::mem::replace(&mut self.free, at);
        }
    }

    /// A walk comes to a place.
    pub fn enter(&mut self, at: Place) {
        self.slot_mut(at).walks += 1;
    }

    /// A walk leaves a place.
    pub fn leave(&mut self, at: Place) {
        self.slot_mut(at).walks -= 1;
        self.tidy(at);
    }

    /// A walk goes on to the next device, or to the end.
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
