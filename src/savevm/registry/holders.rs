// SPDX-License-Identifier: LGPL-2.1-or-later
//! The devices that have one name, as their idstr or as their older name.
//!
//! Most names belong to one device. A short list is searched; a long one gets a map for each question.

use super::entry::{Entry, Key, Place};
use super::order::Order;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::slice;

/// Longest list without maps.
const FEW: usize = 8;

/// A device under one of its names: its idstr, or its older name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct NameRef {
    pub place: Place,
    pub is_compat: bool,
}

impl NameRef {
    /// Returns the device. An index removes its names before it removes the device from the order.
    fn entry(self, order: &Order) -> Option<&Entry> {
        order.get(self.place).map(|entry| &**entry)
    }
}

/// All devices that have one name. The list is boxed so that the enum is no larger than its first variant, the usual one.
#[allow(clippy::box_collection)]
pub(super) enum Holders {
    One(NameRef),
    Few(Box<Vec<NameRef>>),
    Many(Box<Maps>),
}

/// The devices of a long list, by what is asked for.
#[derive(Default)]
pub(super) struct Maps {
    by_instance: HashMap<u32, BTreeSet<Key>>,
    by_opaque: HashMap<usize, BTreeSet<Key>>,
    /// Number of devices with an instance id.
    instances: BTreeMap<u32, u32>,
    /// The same for the instance ids of an older name.
    compat_instances: BTreeMap<i32, u32>,
}

fn remove_key<N: Hash + Eq>(index: &mut HashMap<N, BTreeSet<Key>>, number: N, key: Key) {
    if let Some(keys) = index.get_mut(&number) {
        keys.remove(&key);
        if keys.is_empty() {
            index.remove(&number);
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

impl Maps {
    fn add(&mut self, new: NameRef, order: &Order) {
        let Some(entry) = new.entry(order) else { return };
        let (key, (_, instance)) = (entry.key, entry.name_and_instance(new.is_compat));
        self.by_instance.entry(instance).or_default().insert(key);
        self.by_instance.entry(entry.alias_id as u32).or_default().insert(key);
        if new.is_compat {
            *self.compat_instances.entry(instance as i32).or_default() += 1;
        } else {
            self.by_opaque.entry(entry.registrant.opaque).or_default().insert(key);
            *self.instances.entry(instance).or_default() += 1;
        }
    }

    fn remove(&mut self, old: NameRef, order: &Order) {
        let Some(entry) = old.entry(order) else { return };
        let (key, (_, instance)) = (entry.key, entry.name_and_instance(old.is_compat));
        remove_key(&mut self.by_instance, instance, key);
        remove_key(&mut self.by_instance, entry.alias_id as u32, key);
        if old.is_compat {
            count_down(&mut self.compat_instances, instance as i32);
        } else {
            remove_key(&mut self.by_opaque, entry.registrant.opaque, key);
            count_down(&mut self.instances, instance);
        }
    }
}

impl Holders {
    /// Adds a device.
    pub fn add(&mut self, new: NameRef, order: &Order) {
        match self {
            Self::One(one) => *self = Self::Few(Box::new(vec![*one, new])),
            Self::Few(few) => {
                few.push(new);
                if few.len() > FEW {
                    let mut maps = Box::<Maps>::default();
                    few.iter().for_each(|one| maps.add(*one, order));
                    *self = Self::Many(maps);
                }
            }
            Self::Many(maps) => maps.add(new, order),
        }
    }

    /// Removes a device. Returns whether none is left.
    pub fn remove(&mut self, old: NameRef, order: &Order) -> bool {
        match self {
            Self::One(one) => *one == old,
            Self::Few(few) => {
                few.retain(|one| *one != old);
                few.is_empty()
            }
            Self::Many(maps) => {
                maps.remove(old, order);
                maps.by_instance.is_empty()
            }
        }
    }

    /// Returns the list to search, or the maps of a long list.
    fn list(&self) -> Result<&[NameRef], &Maps> {
        match self {
            Self::One(one) => Ok(slice::from_ref(one)),
            Self::Few(few) => Ok(few),
            Self::Many(maps) => Err(maps),
        }
    }

    /// Returns the first device, in order, that a stream names by that instance id. QEMU compares 32-bit patterns, so a
    /// device without an alias (-1) matches instance 0xffffffff.
    pub fn find(&self, instance: u32, order: &Order) -> Option<Place> {
        let matches = |(entry, is_compat): &(&Entry, bool)| {
            entry.name_and_instance(*is_compat).1 == instance || entry.alias_id as u32 == instance
        };
        let first = match self.list() {
            Ok(list) => entries(list, order).filter(matches).map(|(entry, _)| entry.key).min(),
            Err(maps) => maps.by_instance.get(&instance)?.first().copied(),
        };
        first.map(|key| key.place)
    }

    /// Returns the devices with this idstr and opaque pointer.
    pub fn with_opaque(&self, opaque: usize, order: &Order) -> Vec<Place> {
        match self.list() {
            Ok(list) => idstrs(list, order)
                .filter(|entry| entry.registrant.opaque == opaque)
                .map(|entry| entry.key.place)
                .collect(),
            Err(maps) => maps.by_opaque.get(&opaque).into_iter().flatten().map(|key| key.place).collect(),
        }
    }

    /// Returns whether a device with this idstr has that instance id.
    pub fn has_instance(&self, instance: u32, order: &Order) -> bool {
        match self.list() {
            Ok(list) => idstrs(list, order).any(|entry| entry.instance_id == instance),
            Err(maps) => maps.instances.contains_key(&instance),
        }
    }

    /// Returns the highest instance id plus one.
    pub fn next_instance(&self, order: &Order) -> u32 {
        let last = match self.list() {
            Ok(list) => idstrs(list, order).map(|entry| entry.instance_id).max(),
            Err(maps) => maps.instances.last_key_value().map(|(last, _)| *last),
        };
        last.map_or(0, |last| last.wrapping_add(1))
    }

    /// Returns the same for the instance ids of an older name. Negative ids do not count.
    pub fn next_compat_instance(&self, order: &Order) -> i32 {
        let compat = |(entry, is_compat): (&Entry, bool)| is_compat.then(|| entry.name_and_instance(true).1 as i32);
        let last = match self.list() {
            Ok(list) => entries(list, order).filter_map(compat).max(),
            Err(maps) => maps.compat_instances.last_key_value().map(|(last, _)| *last),
        };
        last.map_or(0, |last| last.saturating_add(1).max(0))
    }
}

/// Returns the devices of a list, each with whether the name is its older one.
fn entries<'a>(list: &'a [NameRef], order: &'a Order) -> impl Iterator<Item = (&'a Entry, bool)> {
    list.iter().filter_map(|one| Some((one.entry(order)?, one.is_compat)))
}

/// Returns the devices of a list whose idstr the name is.
fn idstrs<'a>(list: &'a [NameRef], order: &'a Order) -> impl Iterator<Item = &'a Entry> {
    entries(list, order).filter(|(_, is_compat)| !is_compat).map(|(entry, _)| entry)
}
