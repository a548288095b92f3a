// SPDX-License-Identifier: LGPL-2.1-or-later
//! The devices of an incoming stream by section id.

use super::registry::Ticket;
use std::collections::{HashMap, VecDeque};

/// The device that sends with a section id, and the version of its state.
pub(super) type Sender = (Ticket, i32);

/// Devices by section id.
///
/// A source counts its ids up, so most ids index a list that moves on with them. The list has at most `AHEAD` places
/// more than twice the number of sections; a stream with other ids fills the map instead.
#[derive(Default)]
pub(super) struct SectionIds {
    /// The id of the first place of the list.
    first: u32,
    dense: VecDeque<Option<Sender>>,
    sparse: HashMap<u32, Sender>,
    /// Number of ids.
    count: usize,
    /// The last id of each device, by its place in the registry. A device that starts again loses its earlier id, so a
    /// stream can't make the list and the map hold more ids than there are devices.
    of_device: Vec<Option<u32>>,
    /// Whether each device, by its place in the registry, is live, has started and has not ended.
    unfinished: Vec<bool>,
}

/// How far an id may be ahead of the number of sections and still be in the list. Also how many places the list keeps
/// before the first id that comes, since devices come by priority.
const AHEAD: u32 = 1024;

impl SectionIds {
    /// Records that a device sends with an id from now on.
    pub fn insert(&mut self, id: u32, sender: Sender) {
        let place = sender.0.place();
        if place >= self.of_device.len() {
            self.of_device.resize(place + 1, None);
            self.unfinished.resize(place + 1, false);
        }
        if let Some(before) = self.of_device[place].replace(id) {
            // The earlier id may have gone to another device meanwhile.
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

    /// Removes the unused places at the front of the list.
    fn move_on(&mut self) {
        while let Some(None) = self.dense.front() {
            self.dense.pop_front();
            self.first = self.first.saturating_add(1);
        }
    }

    /// Returns the index of an id in the list, which may be past its end.
    fn at(&self, id: u32) -> usize {
        id.checked_sub(self.first).map_or(usize::MAX, |at| at as usize)
    }

    /// Removes an id, if it is known.
    fn forget(&mut self, id: u32) {
        let at = self.at(id);
        let listed = self.dense.get_mut(at).and_then(Option::take);
        if listed.or_else(|| self.sparse.remove(&id)).is_some() {
            self.count -= 1;
        }
    }

    /// Returns whether a device has sent with some id.
    pub fn has_device(&self, device: Ticket) -> bool {
        let id = self.of_device.get(device.place()).copied().flatten();
        id.and_then(|id| self.get(id)).is_some_and(|sender| sender.0 == device)
    }

    /// Records that a live device has started, or has sent its last section.
    pub fn set_unfinished(&mut self, device: Ticket, unfinished: bool) {
        if let Some(state) = self.unfinished.get_mut(device.place()) {
            *state = unfinished;
        }
    }

    /// Returns whether a live device has started and not ended.
    pub fn is_unfinished(&self, device: Ticket) -> bool {
        self.unfinished.get(device.place()) == Some(&true) && self.has_device(device)
    }

    /// Returns the device that sends with an id.
    pub fn get(&self, id: u32) -> Option<&Sender> {
        self.dense.get(self.at(id)).and_then(Option::as_ref).or_else(|| self.sparse.get(&id))
    }
}

#[cfg(test)]
mod tests {
    use super::super::registry::{INSTANCE_ID_ANY, Registration, Registry, Rules};
    use super::super::testing::Device;
    use super::*;

    #[test]
    fn any_section_id_is_found_without_much_memory() {
        let registry = Registry::default();
        for _ in 0..3010 {
            let device = Registration { instance_id: INSTANCE_ID_ANY, ..Device::default().registration() };
            registry.register(device, Rules::default(), &mut Vec::new()).unwrap();
        }
        let tickets: Vec<_> = registry.walk().map(|call| call.ticket()).collect();
        let mut sections = SectionIds::default();
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
        assert!(sections.get(3000).is_none(), "its device has another id");
        // Those of a machine that has had many devices, and the one with the highest priority among them.
        let mut sections = SectionIds::default();
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
    fn device_that_starts_again_has_only_its_last_id() {
        let registry = Registry::default();
        registry.register(Device::default().registration(), Rules::default(), &mut Vec::new()).unwrap();
        let ticket = registry.find(b"device", 0).unwrap().ticket();
        let mut sections = SectionIds::default();
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
