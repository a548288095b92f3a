// SPDX-License-Identifier: LGPL-2.1-or-later
//! The registry's index: entries in order, and one place per name for every way an entry is looked for by it.

use super::named::{Mention, Named};
use super::registry::{Entry, Owner};
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

/// Place in the order: priority (inverted, as higher goes first), then registration.
pub(super) type Key = (i32, u64);

#[derive(Default)]
pub(super) struct Index {
    order: BTreeMap<Key, Arc<Entry>>,
    names: HashMap<Arc<[u8]>, Named>,
    /// Descriptions alone: devices with a table are unregistered by name.
    by_owner: HashMap<Owner, Vec<Key>>,
    next_section_id: u32,
    next_sequence: u64,
}

impl Entry {
    /// What the index keeps under the entry's idstr.
    fn mention(&self) -> Mention {
        Mention {
            key: self.key,
            instance: self.instance_id,
            alias: self.alias_id as u32,
            is_compat: false,
            opaque: self.owner.opaque,
        }
    }

    /// What it keeps under the older name.
    fn compat_mention(&self) -> Option<(&Arc<[u8]>, Mention)> {
        let compat = self.compat.as_ref()?;
        Some((&compat.idstr, Mention { instance: compat.instance_id as u32, is_compat: true, ..self.mention() }))
    }
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// Section ids count up and are never used again.
    pub(super) fn take_section_id(&mut self) -> u32 {
        let id = self.next_section_id;
        self.next_section_id = id.wrapping_add(1);
        id
    }

    pub(super) fn take_sequence(&mut self) -> u64 {
        self.next_sequence += 1;
        self.next_sequence
    }

    /// The one copy of a name.
    pub(super) fn intern(&mut self, name: &[u8]) -> Arc<[u8]> {
        match self.names.get_key_value(name) {
            Some((known, _)) => Arc::clone(known),
            None => {
                let name: Arc<[u8]> = name.into();
                self.names.insert(Arc::clone(&name), Named::default());
                name
            }
        }
    }

    /// The highest instance of that name plus one, or 0.
    pub(super) fn new_instance(&self, idstr: &[u8]) -> u32 {
        self.names.get(idstr).and_then(Named::last_instance).map_or(0, |last| last.wrapping_add(1))
    }

    /// The same for instances of an older name; negative ones do not count.
    pub(super) fn new_compat_instance(&self, name: &[u8]) -> i32 {
        let last = self.names.get(name).and_then(Named::last_compat_instance);
        last.map_or(0, |last| last.saturating_add(1).max(0))
    }

    pub(super) fn has_instance(&self, idstr: &[u8], instance: u32) -> bool {
        self.names.get(idstr).is_some_and(|named| named.has_instance(instance))
    }

    pub(super) fn find(&self, idstr: &[u8], instance: u32) -> Option<Arc<Entry>> {
        let key = self.names.get(idstr)?.find(instance)?;
        self.order.get(&key).cloned()
    }

    /// The entry behind a place, or the first.
    pub(super) fn after(&self, last: Option<Key>) -> Option<Arc<Entry>> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.order.range((from, Bound::Unbounded)).next().map(|(_, entry)| Arc::clone(entry))
    }

    pub(super) fn named(&self, idstr: &[u8], opaque: usize) -> Vec<Key> {
        self.names.get(idstr).map(|named| named.of_opaque(opaque)).unwrap_or_default()
    }

    pub(super) fn owned(&self, owner: Owner) -> Vec<Key> {
        self.by_owner.get(&owner).cloned().unwrap_or_default()
    }

    pub(super) fn insert(&mut self, entry: Arc<Entry>) {
        let key = entry.key;
        self.names.entry(Arc::clone(&entry.idstr)).or_default().add(entry.mention());
        if let Some((name, mention)) = entry.compat_mention() {
            self.names.entry(Arc::clone(name)).or_default().add(mention);
        }
        if entry.owner.description != 0 {
            self.by_owner.entry(entry.owner).or_default().push(key);
        }
        self.order.insert(key, entry);
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Arc<Entry>> {
        let entry = self.order.remove(&key)?;
        self.forget(&entry.idstr, entry.mention());
        if let Some((name, mention)) = entry.compat_mention() {
            self.forget(name, mention);
        }
        if let Some(keys) = self.by_owner.get_mut(&entry.owner) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.by_owner.remove(&entry.owner);
            }
        }
        Some(entry)
    }

    fn forget(&mut self, name: &Arc<[u8]>, mention: Mention) {
        if self.names.get_mut(name).is_some_and(|named| named.take(mention)) {
            self.names.remove(name);
        }
    }
}
