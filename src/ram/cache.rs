// SPDX-License-Identifier: LGPL-2.1-or-later
//! The XBZRLE cache: copies of sent pages, as the destination has them.

/// One cache line, direct-mapped by the page's number over all blocks.
struct Slot {
    /// Number of the page plus one; 0 is empty.
    page: u64,
    /// Round of the last use.
    round: u64,
    content: Box<[u8]>,
}

/// The cache.
pub struct Cache {
    slots: Vec<Slot>,
    page_size: usize,
}

/// A page is not evicted for this many rounds after its last use (QEMU 7.2's `CACHED_PAGE_LIFETIME`).
const LIFETIME: u64 = 2;

impl Cache {
    /// A cache of at most `bytes`. `None` if no page fits. Memory is allocated when pages are inserted.
    pub fn new(bytes: u64, page_size: usize) -> Option<Self> {
        let count = usize::try_from(bytes / page_size as u64).ok().filter(|count| *count > 0)?;
        let count = 1usize << count.ilog2();
        let slots = (0..count).map(|_| Slot { page: 0, round: 0, content: Box::default() }).collect();
        Some(Self { slots, page_size })
    }

    fn slot(&mut self, page: u64) -> &mut Slot {
        let at = page as usize & (self.slots.len() - 1);
        &mut self.slots[at]
    }

    /// The cached content of a page, which the caller compares and updates.
    pub fn get(&mut self, page: u64, round: u64) -> Option<&mut [u8]> {
        let slot = self.slot(page);
        if slot.page != page + 1 {
            return None;
        }
        slot.round = round;
        Some(&mut slot.content)
    }

    /// Caches a page, unless its line holds a page that was used recently.
    pub fn insert(&mut self, page: u64, round: u64, content: &[u8]) {
        assert_eq!(content.len(), self.page_size);
        let slot = self.slot(page);
        if slot.page != 0 && slot.page != page + 1 && slot.round + LIFETIME > round {
            return;
        }
        (slot.page, slot.round) = (page + 1, round);
        if slot.content.is_empty() {
            slot.content = content.into();
        } else {
            slot.content.copy_from_slice(content);
        }
    }

    /// Removes a page, after it was sent in another encoding.
    pub fn forget(&mut self, page: u64) {
        let slot = self.slot(page);
        if slot.page == page + 1 {
            slot.page = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_drive_each_other_out_only_when_old() {
        assert!(Cache::new(4095, 4096).is_none());
        let mut cache = Cache::new(3 * 16, 16).unwrap();
        cache.insert(0, 1, &[1; 16]);
        cache.insert(2, 2, &[2; 16]);
        assert_eq!(cache.get(0, 1).unwrap(), [1; 16]);
        assert!(cache.get(2, 2).is_none());
        cache.insert(2, 3, &[2; 16]);
        assert!(cache.get(0, 3).is_none());
        assert_eq!(cache.get(2, 3).unwrap(), [2; 16]);
        cache.forget(0);
        cache.forget(2);
        assert!(cache.get(2, 4).is_none());
    }
}
