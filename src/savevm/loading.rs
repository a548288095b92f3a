// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a load remembers between sections.

use super::Vm;
use super::host::PostcopyState;
use super::registry::{Call, Ticket};
use crate::sync::{Mutex, MutexGuard, Rank};
use std::collections::{HashMap, VecDeque};

/// Who sends under which section id, and how far postcopy is.
pub struct Loading {
    sections: Mutex<Sections>,
    postcopy: Mutex<PostcopyState>,
}

/// Who sends under a section id, with the version of the state.
type Sender = (Ticket, i32);

/// Senders by section id. Ids count up, from 0 or from what devices that are gone have left, so most of them are places in
/// a list that moves on with them; a stream with other ids can't make that much longer than there are sections.
#[derive(Default)]
struct Sections {
    /// The id of the list's first place.
    first: u32,
    dense: VecDeque<Option<Sender>>,
    sparse: HashMap<u32, Sender>,
    /// How many ids there are.
    count: usize,
    /// The id of each device, by its place in the registry: one that starts once more has another id from then on, so that
    /// a stream can't make this longer than there are devices.
    of_device: Vec<Option<u32>>,
}

/// How far ids may be ahead of the number of sections, and before the first that comes: devices come by priority.
const AHEAD: u32 = 1024;

impl Sections {
    fn insert(&mut self, id: u32, sender: Sender) {
        let place = sender.0.place();
        if place >= self.of_device.len() {
            self.of_device.resize(place + 1, None);
        }
        if let Some(before) = self.of_device[place].replace(id) {
            // Unless it is another device's by now.
            if self.get(before).is_some_and(|sender| sender.0.place() == place) {
                self.forget(before);
            }
        }
        self.forget(id);
        self.count += 1;
        let most = 2 * self.count + AHEAD as usize;
        if self.at(id) >= most {
            self.move_on();
        }
        if self.dense.is_empty() {
            self.first = id.saturating_sub(AHEAD);
        }
        let at = self.at(id);
        if at >= self.dense.len() && at < most {
            self.dense.resize(at + 1, None);
        }
        match self.dense.get_mut(at) {
            Some(place) => *place = Some(sender),
            None => drop(self.sparse.insert(id, sender)),
        }
    }

    /// Gives up the places of ids before the first that anybody has.
    fn move_on(&mut self) {
        while let Some(None) = self.dense.front() {
            self.dense.pop_front();
            self.first = self.first.saturating_add(1);
        }
    }

    /// The place of an id in the list, which may not have it.
    fn at(&self, id: u32) -> usize {
        id.checked_sub(self.first).map_or(usize::MAX, |at| at as usize)
    }

    /// Forgets an id, if there is one.
    fn forget(&mut self, id: u32) {
        let at = self.at(id);
        let listed = self.dense.get_mut(at).and_then(Option::take);
        if listed.or_else(|| self.sparse.remove(&id)).is_some() {
            self.count -= 1;
        }
    }

    fn get(&self, id: u32) -> Option<&Sender> {
        self.dense.get(self.at(id)).and_then(Option::as_ref).or_else(|| self.sparse.get(&id))
    }
}

impl Default for Loading {
    fn default() -> Self {
        Self {
            sections: Mutex::new(Rank::LoadingSections, Sections::default()),
            postcopy: Mutex::new(Rank::LoadingPostcopy, PostcopyState::default()),
        }
    }
}

impl Loading {
    fn sections(&self) -> MutexGuard<'_, Sections> {
        self.sections.lock()
    }

    /// Another stream begins.
    pub(super) fn begin(&self) {
        *self.sections() = Sections::default();
    }

    /// A device sends under a section id from now on.
    pub(super) fn started(&self, id: u32, call: &Call<'_>, version: i32) {
        self.sections().insert(id, (call.ticket(), version));
    }

    /// Who sends under a section id, unless it was unregistered since.
    pub(super) fn find<'v>(&self, vm: &'v Vm, id: u32) -> Option<(Call<'v>, i32)> {
        let (ticket, version) = *self.sections().get(id)?;
        Some((vm.registry.find_again(ticket)?, version))
    }

    /// The postcopy state where the host keeps none of its own.
    pub fn postcopy_state(&self, new: Option<PostcopyState>) -> PostcopyState {
        let mut state = self.postcopy.lock();
        let before = *state;
        *state = new.unwrap_or(before);
        before
    }
}

#[cfg(test)]
mod tests {
    use super::super::registry::{INSTANCE_ID_ANY, Registration, Registry};
    use super::super::testing::Device;
    use super::*;

    #[test]
    fn section_ids_are_found_wherever_they_are_and_do_not_cost_memory() {
        let registry = Registry::default();
        for _ in 0..3010 {
            let device = Registration { instance_id: INSTANCE_ID_ANY, ..Device::default().registration() };
            registry.register(device, false, &mut Vec::new()).unwrap();
        }
        let tickets: Vec<_> = registry.walk().map(|call| call.ticket()).collect();
        let mut sections = Sections::default();
        let ids = [0, 1, 7, 1 << 20, u32::MAX, 7, 3000];
        for (version, id) in (0..).zip(ids) {
            assert!(id == 7 || sections.get(id).is_none());
            sections.insert(id, (tickets[version as usize], version));
            assert_eq!(sections.get(id).map(|sender| sender.1), Some(version));
        }
        assert!(sections.count == 6 && sections.dense.len() <= AHEAD as usize);
        // An id that was far ahead once is not any more, and is another device's.
        (10..3010).for_each(|id| sections.insert(id, (tickets[id as usize], -1)));
        sections.insert(3000, (tickets[9], 99));
        assert_eq!((sections.get(3000).unwrap().1, sections.get(u32::MAX).unwrap().1), (99, 4));
        sections.insert(3001, (tickets[9], 99));
        assert!(sections.get(3000).is_none(), "nobody has it any more");
        // Those of a machine that has had many devices, and the one with the highest priority among them.
        let mut sections = Sections::default();
        let mut insert = |id: u32| {
            sections.insert(id, (tickets[id as usize % 3000], id as i32));
            assert_eq!(sections.get(id).map(|sender| sender.1), Some(id as i32));
        };
        insert(1_000_500);
        (1_000_000..1_003_000).for_each(&mut insert);
        // All devices are replaced again and again.
        (1_003_000..1_030_000).for_each(insert);
        assert!(sections.sparse.is_empty() && sections.count == 3000 && sections.dense.len() <= 6000 + AHEAD as usize);
    }

    #[test]
    fn a_device_has_one_id_however_often_it_starts() {
        let registry = Registry::default();
        registry.register(Device::default().registration(), false, &mut Vec::new()).unwrap();
        let ticket = registry.find(b"device", 0).unwrap().ticket();
        let mut sections = Sections::default();
        for id in (0..5000).chain((0..5000).map(|number: u32| number.wrapping_mul(2_654_435_761))) {
            sections.insert(id, (ticket, 1));
            assert!(sections.count == 1 && sections.get(id).is_some());
        }
        assert!(sections.get(4999).is_none());
        assert!(
            sections.dense.len() <= AHEAD as usize + 2 && sections.sparse.len() <= 1 && sections.of_device.len() < 20
        );
    }
}
