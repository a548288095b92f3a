// SPDX-License-Identifier: LGPL-2.1-or-later
//! The registry's index: entries in order, and one place per name for every way an entry is looked for by it.

use super::named::{Mention, Named, Shared};
use super::order::{Order, Place};
use super::registry::{Entry, Owner};
use hashbrown::HashTable;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// What is known about a name: the one device that has it, or the number of a list.
#[derive(Clone, Copy)]
enum Known {
    One(Mention),
    Shared(u32),
}

/// A name in the table, which is small so that much of it stays in the cache. The hash is kept so that a name is looked
/// at only where it is the right one, and not at all when the table grows.
struct Bucket {
    hash: u32,
    known: Known,
}

impl Known {
    fn named<'a>(&'a self, order: &'a Order, shared: &'a [Shared]) -> Named<'a> {
        match self {
            Self::One(one) => Named::one(one, order),
            Self::Shared(at) => shared[*at as usize].named(order),
        }
    }
}

impl Bucket {
    fn is(&self, hash: u32, name: &[u8], order: &Order, shared: &[Shared]) -> bool {
        self.hash == hash && self.known.named(order, shared).name() == name
    }
}

const _: () = assert!(size_of::<Bucket>() == 12);

/// The table looks at the highest and the lowest bits.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

#[derive(Default)]
pub(super) struct Index {
    pub order: Order,
    names: HashTable<Bucket>,
    hasher: RandomState,
    shared: Vec<Shared>,
    /// Those of `shared` that nobody uses.
    unused: Vec<u32>,
    /// Descriptions alone: devices with a table are unregistered by name.
    by_owner: HashMap<Owner, Vec<Place>>,
    next_section_id: u32,
    next_sequence: u64,
}

impl Index {
    /// Section ids count up and are never used again.
    pub fn take_section_id(&mut self) -> u32 {
        let id = self.next_section_id;
        self.next_section_id = id.wrapping_add(1);
        id
    }

    pub fn take_sequence(&mut self) -> u64 {
        self.next_sequence += 1;
        self.next_sequence
    }

    /// What is known about a name.
    pub fn named(&self, name: &[u8]) -> Option<Named<'_>> {
        let hash = self.hasher.hash_one(name) as u32;
        let bucket = self.names.find(spread(hash), |bucket| bucket.is(hash, name, &self.order, &self.shared))?;
        Some(bucket.known.named(&self.order, &self.shared))
    }

    pub fn find(&self, idstr: &[u8], instance: u32) -> Option<&Arc<Entry>> {
        self.order.get(self.named(idstr)?.find(instance)?)
    }

    /// The devices with that idstr and opaque pointer.
    pub fn of_opaque(&self, idstr: &[u8], opaque: usize) -> Vec<Place> {
        self.named(idstr).map(|named| named.of_opaque(opaque)).unwrap_or_default()
    }

    /// The devices of that owner.
    pub fn owned(&self, owner: Owner) -> Vec<Place> {
        self.by_owner.get(&owner).cloned().unwrap_or_default()
    }

    /// Adds a device, whose key names the order's next place.
    pub fn insert(&mut self, entry: Arc<Entry>) {
        let place = entry.key.place;
        self.order.insert(Arc::clone(&entry));
        self.mention(&entry.idstr, Mention { place, is_compat: false });
        if let Some(compat) = &entry.compat {
            self.mention(&compat.idstr, Mention { place, is_compat: true });
        }
        if entry.owner.description != 0 {
            self.by_owner.entry(entry.owner).or_default().push(place);
        }
    }

    fn mention(&mut self, name: &[u8], new: Mention) {
        let Self { order, names, shared, unused, .. } = self;
        let hash = self.hasher.hash_one(name) as u32;
        let found = names.find_mut(spread(hash), |bucket| bucket.is(hash, name, order, shared));
        let Some(Bucket { known, .. }) = found else {
            let bucket = Bucket { hash, known: Known::One(new) };
            names.insert_unique(spread(hash), bucket, |bucket| spread(bucket.hash));
            return;
        };
        let at = match *known {
            Known::Shared(at) => at,
            Known::One(one) => {
                let at = unused.pop().unwrap_or_else(|| {
                    shared.push(Shared::default());
                    u32::try_from(shared.len() - 1).expect("there are fewer names than devices")
                });
                shared[at as usize].add(one, order);
                *known = Known::Shared(at);
                at
            }
        };
        shared[at as usize].add(new, order);
    }

    pub fn remove(&mut self, place: Place) -> Option<Arc<Entry>> {
        let entry = Arc::clone(self.order.get(place)?);
        self.forget(&entry.idstr, Mention { place, is_compat: false });
        if let Some(compat) = &entry.compat {
            self.forget(&compat.idstr, Mention { place, is_compat: true });
        }
        if entry.owner.description != 0 {
            self.disown(entry.owner, place);
        }
        self.order.remove(place)
    }

    fn disown(&mut self, owner: Owner, place: Place) {
        if let Some(places) = self.by_owner.get_mut(&owner) {
            places.retain(|other| *other != place);
            if places.is_empty() {
                self.by_owner.remove(&owner);
            }
        }
    }

    fn forget(&mut self, name: &[u8], old: Mention) {
        let Self { order, names, shared, .. } = self;
        let hash = self.hasher.hash_one(name) as u32;
        let found = names.find_entry(spread(hash), |bucket| bucket.is(hash, name, order, shared));
        let Ok(found) = found else { return };
        if let Known::Shared(at) = found.get().known {
            if !shared[at as usize].take(old, order) {
                return;
            }
            shared[at as usize] = Shared::default();
            self.unused.push(at);
        }
        found.remove();
    }
}
