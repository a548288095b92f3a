// SPDX-License-Identifier: LGPL-2.1-or-later
//! Everything that the registry knows about one name. Most names have one device and are a short list; a name of many
//! devices gets a map for every question.

use super::index::Key;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

/// How long the list may grow before there are maps.
const FEW: usize = 8;

/// A device under a name: its idstr, or its older name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Mention {
    pub key: Key,
    pub instance: u32,
    /// The second instance that streams may give. QEMU compares 32-bit patterns, so a device without an alias (-1)
    /// answers to instance 0xffffffff.
    pub alias: u32,
    pub is_compat: bool,
    pub opaque: usize,
}

#[derive(Default)]
pub(super) struct Named {
    few: Vec<Mention>,
    many: Option<Box<Many>>,
}

/// The maps; every question has its own.
#[derive(Default)]
struct Many {
    by_instance: HashMap<u32, BTreeSet<Key>>,
    by_opaque: HashMap<usize, BTreeSet<Key>>,
    /// How many devices have an instance id.
    instances: BTreeMap<u32, u32>,
    compat_instances: BTreeMap<i32, u32>,
}

fn take<N: Hash + Eq>(index: &mut HashMap<N, BTreeSet<Key>>, name: N, key: Key) {
    if let Some(keys) = index.get_mut(&name) {
        keys.remove(&key);
        if keys.is_empty() {
            index.remove(&name);
        }
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

impl Many {
    fn add(&mut self, new: Mention) {
        self.by_instance.entry(new.instance).or_default().insert(new.key);
        self.by_instance.entry(new.alias).or_default().insert(new.key);
        if new.is_compat {
            *self.compat_instances.entry(new.instance as i32).or_default() += 1;
        } else {
            self.by_opaque.entry(new.opaque).or_default().insert(new.key);
            *self.instances.entry(new.instance).or_default() += 1;
        }
    }

    fn take(&mut self, old: Mention) {
        take(&mut self.by_instance, old.instance, old.key);
        take(&mut self.by_instance, old.alias, old.key);
        if old.is_compat {
            count_down(&mut self.compat_instances, old.instance as i32);
        } else {
            take(&mut self.by_opaque, old.opaque, old.key);
            count_down(&mut self.instances, old.instance);
        }
    }
}

impl Named {
    pub(super) fn add(&mut self, new: Mention) {
        if let Some(many) = &mut self.many {
            return many.add(new);
        }
        self.few.reserve_exact(1);
        self.few.push(new);
        if self.few.len() > FEW {
            let mut many = Box::<Many>::default();
            std::mem::take(&mut self.few).into_iter().for_each(|one| many.add(one));
            self.many = Some(many);
        }
    }

    /// Whether nothing is left afterwards.
    pub(super) fn take(&mut self, old: Mention) -> bool {
        match &mut self.many {
            Some(many) => {
                many.take(old);
                many.by_instance.is_empty()
            }
            None => {
                self.few.retain(|one| *one != old);
                self.few.is_empty()
            }
        }
    }

    /// The first device, in order, that a stream means by that instance.
    pub(super) fn find(&self, instance: u32) -> Option<Key> {
        match &self.many {
            Some(many) => many.by_instance.get(&instance)?.first().copied(),
            None => {
                let meant = self.few.iter().filter(|one| one.instance == instance || one.alias == instance);
                meant.map(|one| one.key).min()
            }
        }
    }

    pub(super) fn of_opaque(&self, opaque: usize) -> Vec<Key> {
        match &self.many {
            Some(many) => many.by_opaque.get(&opaque).into_iter().flatten().copied().collect(),
            None => {
                let owned = self.few.iter().filter(|one| !one.is_compat && one.opaque == opaque);
                owned.map(|one| one.key).collect()
            }
        }
    }

    pub(super) fn has_instance(&self, instance: u32) -> bool {
        match &self.many {
            Some(many) => many.instances.contains_key(&instance),
            None => self.few.iter().any(|one| !one.is_compat && one.instance == instance),
        }
    }

    pub(super) fn last_instance(&self) -> Option<u32> {
        match &self.many {
            Some(many) => many.instances.last_key_value().map(|(last, _)| *last),
            None => self.few.iter().filter(|one| !one.is_compat).map(|one| one.instance).max(),
        }
    }

    pub(super) fn last_compat_instance(&self) -> Option<i32> {
        match &self.many {
            Some(many) => many.compat_instances.last_key_value().map(|(last, _)| *last),
            None => self.few.iter().filter(|one| one.is_compat).map(|one| one.instance as i32).max(),
        }
    }
}
