// SPDX-License-Identifier: LGPL-2.1-or-later
//! The registry's index: entries in order, and one place per name for every way an entry is looked for by it.

use super::registry::{Entry, Owner};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

/// Place in the order: priority (inverted, as higher goes first), then registration.
pub(super) type Key = (i32, u64);

/// A set of keys that mostly has one.
enum Keys {
    One(Key),
    Many(BTreeSet<Key>),
}

impl Keys {
    fn add(&mut self, key: Key) {
        match self {
            Self::One(other) if *other == key => {}
            Self::One(other) => *self = Self::Many(BTreeSet::from([*other, key])),
            Self::Many(keys) => drop(keys.insert(key)),
        }
    }

    /// Whether it is empty afterwards.
    fn take(&mut self, key: Key) -> bool {
        match self {
            Self::One(other) => *other == key,
            Self::Many(keys) => {
                keys.remove(&key);
                keys.is_empty()
            }
        }
    }

    fn first(&self) -> Option<Key> {
        match self {
            Self::One(key) => Some(*key),
            Self::Many(keys) => keys.first().copied(),
        }
    }

    fn all(&self) -> Vec<Key> {
        match self {
            Self::One(key) => vec![*key],
            Self::Many(keys) => keys.iter().copied().collect(),
        }
    }
}

fn add<N: std::hash::Hash + Eq>(index: &mut HashMap<N, Keys>, name: N, key: Key) {
    index.entry(name).and_modify(|keys| keys.add(key)).or_insert(Keys::One(key));
}

fn take<N: std::hash::Hash + Eq>(index: &mut HashMap<N, Keys>, name: &N, key: Key) {
    if index.get_mut(name).is_some_and(|keys| keys.take(key)) {
        index.remove(name);
    }
}

fn count_down<N: Ord>(counts: &mut BTreeMap<N, u32>, number: N) {
    if let Some(count) = counts.get_mut(&number) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&number);
        }
    }
}

/// Everything about one name: as an idstr, and as the older name of others.
#[derive(Default)]
struct Named {
    /// By the instance id that a stream gives with the name.
    by_instance: HashMap<u32, Keys>,
    /// By the device's pointer.
    by_opaque: HashMap<usize, Keys>,
    /// How many entries have an instance id.
    instances: BTreeMap<u32, u32>,
    /// How many have an instance id behind this as their older name.
    compat_instances: BTreeMap<i32, u32>,
}

#[derive(Default)]
pub(super) struct Index {
    order: BTreeMap<Key, Arc<Entry>>,
    names: HashMap<Arc<[u8]>, Named>,
    /// Descriptions alone: devices with a table are unregistered by name.
    by_owner: HashMap<Owner, Keys>,
    next_section_id: u32,
    next_sequence: u64,
}

impl Entry {
    /// Instance ids by which a stream may mean the entry with its idstr. QEMU compares the 32-bit patterns, so an entry
    /// without an alias (-1) answers to instance 0xffffffff as well.
    fn stream_ids(&self) -> [u32; 2] {
        [self.instance_id, self.alias_id as u32]
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
        let last = self.names.get(idstr).and_then(|named| named.instances.last_key_value());
        last.map_or(0, |(last, _)| last.wrapping_add(1))
    }

    /// The same for instances of an older name; negative ones do not count.
    pub(super) fn new_compat_instance(&self, name: &[u8]) -> i32 {
        let last = self.names.get(name).and_then(|named| named.compat_instances.last_key_value());
        last.map_or(0, |(last, _)| last.saturating_add(1).max(0))
    }

    pub(super) fn has_instance(&self, idstr: &[u8], instance: u32) -> bool {
        self.names.get(idstr).is_some_and(|named| named.instances.contains_key(&instance))
    }

    pub(super) fn find(&self, idstr: &[u8], instance: u32) -> Option<Arc<Entry>> {
        let key = self.names.get(idstr)?.by_instance.get(&instance)?.first()?;
        self.order.get(&key).cloned()
    }

    /// The entry behind a place, or the first.
    pub(super) fn after(&self, last: Option<Key>) -> Option<Arc<Entry>> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.order.range((from, Bound::Unbounded)).next().map(|(_, entry)| Arc::clone(entry))
    }

    pub(super) fn named(&self, idstr: &[u8], opaque: usize) -> Vec<Key> {
        self.names.get(idstr).and_then(|named| named.by_opaque.get(&opaque)).map(Keys::all).unwrap_or_default()
    }

    pub(super) fn owned(&self, owner: Owner) -> Vec<Key> {
        self.by_owner.get(&owner).map(Keys::all).unwrap_or_default()
    }

    pub(super) fn insert(&mut self, entry: Arc<Entry>) {
        let key = entry.key;
        let named = self.names.entry(Arc::clone(&entry.idstr)).or_default();
        for id in entry.stream_ids() {
            add(&mut named.by_instance, id, key);
        }
        add(&mut named.by_opaque, entry.owner.opaque, key);
        *named.instances.entry(entry.instance_id).or_default() += 1;
        if let Some(compat) = &entry.compat {
            let named = self.names.entry(Arc::clone(&compat.idstr)).or_default();
            for id in [compat.instance_id as u32, entry.alias_id as u32] {
                add(&mut named.by_instance, id, key);
            }
            *named.compat_instances.entry(compat.instance_id).or_default() += 1;
        }
        if entry.owner.description != 0 {
            add(&mut self.by_owner, entry.owner, key);
        }
        self.order.insert(key, entry);
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Arc<Entry>> {
        let entry = self.order.remove(&key)?;
        if let Some(named) = self.names.get_mut(&entry.idstr) {
            for id in entry.stream_ids() {
                take(&mut named.by_instance, &id, key);
            }
            take(&mut named.by_opaque, &entry.owner.opaque, key);
            count_down(&mut named.instances, entry.instance_id);
        }
        if let Some(compat) = &entry.compat
            && let Some(named) = self.names.get_mut(&compat.idstr)
        {
            for id in [compat.instance_id as u32, entry.alias_id as u32] {
                take(&mut named.by_instance, &id, key);
            }
            count_down(&mut named.compat_instances, compat.instance_id);
        }
        if entry.owner.description != 0 {
            take(&mut self.by_owner, &entry.owner, key);
        }
        self.forget_unused(&entry.idstr);
        if let Some(compat) = &entry.compat {
            self.forget_unused(&compat.idstr);
        }
        Some(entry)
    }

    fn forget_unused(&mut self, name: &Arc<[u8]>) {
        if self.names.get(name).is_some_and(|named| named.by_instance.is_empty()) {
            self.names.remove(name);
        }
    }
}
