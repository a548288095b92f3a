// SPDX-License-Identifier: LGPL-2.1-or-later
//! Everything that the registry knows about one name. Most names have one device; a short list is searched, and a name
//! of many devices gets a map for every question.

use super::order::{Order, Place};
use super::registry::{Entry, Key};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::slice;

/// How long the list may grow before there are maps.
const FEW: usize = 8;

/// A device under a name: its idstr, or its older name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Mention {
    pub place: Place,
    pub is_compat: bool,
}

impl Mention {
    /// The device, which leaves the order after the name.
    fn entry(self, order: &Order) -> Option<&Entry> {
        order.get(self.place).map(|entry| &**entry)
    }

    fn name(self, order: &Order) -> &[u8] {
        self.entry(order).map_or(&[], |entry| entry.known_as(self.is_compat).0)
    }
}

/// What is known about a name of several devices.
pub(super) enum Shared {
    Few(Vec<Mention>),
    Many(Box<Many>),
}

/// What is known about a name, for questions.
pub(super) enum Named<'a> {
    Few(&'a [Mention], &'a Order),
    Many(&'a Many),
}

/// The maps; every question has its own.
#[derive(Default)]
pub(super) struct Many {
    name: Box<[u8]>,
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
    fn add(&mut self, new: Mention, order: &Order) {
        let Some(entry) = new.entry(order) else { return };
        let (key, (_, instance)) = (entry.key, entry.known_as(new.is_compat));
        self.by_instance.entry(instance).or_default().insert(key);
        self.by_instance.entry(entry.alias_id as u32).or_default().insert(key);
        if new.is_compat {
            *self.compat_instances.entry(instance as i32).or_default() += 1;
        } else {
            self.by_opaque.entry(entry.owner.opaque).or_default().insert(key);
            *self.instances.entry(instance).or_default() += 1;
        }
    }

    fn take(&mut self, old: Mention, order: &Order) {
        let Some(entry) = old.entry(order) else { return };
        let (key, (_, instance)) = (entry.key, entry.known_as(old.is_compat));
        take(&mut self.by_instance, instance, key);
        take(&mut self.by_instance, entry.alias_id as u32, key);
        if old.is_compat {
            count_down(&mut self.compat_instances, instance as i32);
        } else {
            take(&mut self.by_opaque, entry.owner.opaque, key);
            count_down(&mut self.instances, instance);
        }
    }
}

impl Default for Shared {
    /// Nobody.
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Shared {
    pub fn add(&mut self, new: Mention, order: &Order) {
        match self {
            Self::Few(few) => {
                few.push(new);
                if few.len() > FEW {
                    let mut many = Box::new(Many { name: new.name(order).into(), ..Many::default() });
                    few.iter().for_each(|one| many.add(*one, order));
                    *self = Self::Many(many);
                }
            }
            Self::Many(many) => many.add(new, order),
        }
    }

    /// Whether nothing is left afterwards.
    pub fn take(&mut self, old: Mention, order: &Order) -> bool {
        match self {
            Self::Few(few) => {
                few.retain(|one| *one != old);
                few.is_empty()
            }
            Self::Many(many) => {
                many.take(old, order);
                many.by_instance.is_empty()
            }
        }
    }

    pub fn named<'a>(&'a self, order: &'a Order) -> Named<'a> {
        match self {
            Self::Few(few) => Named::Few(few, order),
            Self::Many(many) => Named::Many(many),
        }
    }
}

impl<'a> Named<'a> {
    pub fn one(one: &'a Mention, order: &'a Order) -> Self {
        Self::Few(slice::from_ref(one), order)
    }

    /// The name itself.
    pub fn name(&self) -> &'a [u8] {
        match self {
            Self::Few(few, order) => few.first().map_or(&[], |one| one.name(order)),
            Self::Many(many) => &many.name,
        }
    }

    /// The first device, in order, that a stream means by that instance. QEMU compares 32-bit patterns, so a device
    /// without an alias (-1) answers to instance 0xffffffff.
    pub fn find(&self, instance: u32) -> Option<Place> {
        let means = |(entry, is_compat): &(&Entry, bool)| {
            entry.known_as(*is_compat).1 == instance || entry.alias_id as u32 == instance
        };
        let first = match self {
            Self::Few(few, order) => entries(few, order).filter(means).map(|(entry, _)| entry.key).min(),
            Self::Many(many) => many.by_instance.get(&instance)?.first().copied(),
        };
        first.map(|key| key.place)
    }

    /// The devices with this idstr and opaque pointer.
    pub fn of_opaque(&self, opaque: usize) -> Vec<Place> {
        let owned = |(entry, is_compat): &(&Entry, bool)| !is_compat && entry.owner.opaque == opaque;
        match self {
            Self::Few(few, order) => entries(few, order).filter(owned).map(|(entry, _)| entry.key.place).collect(),
            Self::Many(many) => many.by_opaque.get(&opaque).into_iter().flatten().map(|key| key.place).collect(),
        }
    }

    pub fn has_instance(&self, instance: u32) -> bool {
        match self {
            Self::Few(few, order) => idstrs(few, order).any(|entry| entry.instance_id == instance),
            Self::Many(many) => many.instances.contains_key(&instance),
        }
    }

    /// The highest instance plus one.
    pub fn next_instance(&self) -> u32 {
        let last = match self {
            Self::Few(few, order) => idstrs(few, order).map(|entry| entry.instance_id).max(),
            Self::Many(many) => many.instances.last_key_value().map(|(last, _)| *last),
        };
        last.map_or(0, |last| last.wrapping_add(1))
    }

    /// The same for instances of an older name; negative ones do not count.
    pub fn next_compat_instance(&self) -> i32 {
        let compat = |(entry, is_compat): (&Entry, bool)| is_compat.then(|| entry.known_as(true).1 as i32);
        let last = match self {
            Self::Few(few, order) => entries(few, order).filter_map(compat).max(),
            Self::Many(many) => many.compat_instances.last_key_value().map(|(last, _)| *last),
        };
        last.map_or(0, |last| last.saturating_add(1).max(0))
    }
}

/// The devices of a short list, and whether it is by their older name.
fn entries<'a>(few: &'a [Mention], order: &'a Order) -> impl Iterator<Item = (&'a Entry, bool)> {
    few.iter().filter_map(|one| Some((one.entry(order)?, one.is_compat)))
}

/// Those whose idstr it is.
fn idstrs<'a>(few: &'a [Mention], order: &'a Order) -> impl Iterator<Item = &'a Entry> {
    entries(few, order).filter(|(_, is_compat)| !is_compat).map(|(entry, _)| entry)
}
