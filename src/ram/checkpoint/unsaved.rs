// SPDX-License-Identifier: LGPL-2.1-or-later
//! Which units of frozen memory are still to be saved, and which of them are kept as copies because the guest wrote to them.

use super::tree::{Content, Id, Place, Tree};
use crate::ram::bitmap::Bitmap;
use std::collections::VecDeque;

/// Maximum size of the copies in bytes, or one unit if that is larger. If it is reached, writers wait.
const COPIES_MAX: usize = 64 << 20;

/// The units to save. The lock of the session guards it.
pub(super) struct Unsaved {
    /// The checkpoint that keeps the contents.
    pub id: Id,
    /// For each block: the units that are not saved yet.
    left: Vec<Bitmap>,
    /// The units of which there are copies, the oldest first. Some of them may be saved already.
    copied: VecDeque<Place>,
    /// Size of all copies in bytes.
    bytes: usize,
}

impl Unsaved {
    pub fn new(id: Id, units: &[Bitmap]) -> Self {
        let copy = |units: &Bitmap| {
            let copy = Bitmap::new(units.len());
            copy.unite(units);
            copy
        };
        Self { id, left: units.iter().map(copy).collect(), copied: VecDeque::new(), bytes: 0 }
    }

    fn is_left(&self, (at, unit): Place) -> bool {
        self.left[at].get(unit)
    }

    /// Whether a copy of a unit that is about to change is needed, and only to save it.
    fn needs_copy(&self, tree: &Tree, place: Place) -> bool {
        tree.has_only(self.id) && self.is_left(place) && tree.kept(place).is_none()
    }

    /// Whether a writer of this unit, which has `size` bytes, must wait until other copies are saved.
    pub fn is_full_for(&self, tree: &Tree, place: Place, size: usize) -> bool {
        self.bytes > 0 && self.bytes + size > COPIES_MAX && self.needs_copy(tree, place)
    }

    /// Keeps the content of a unit that is about to change, if it is not saved yet.
    pub fn keep(&mut self, tree: &mut Tree, place: Place, size: usize, content: impl FnOnce() -> Content) {
        if !tree.has_only(self.id) {
            // Older checkpoints need it as well.
            tree.keep(place, content);
        } else if self.needs_copy(tree, place) {
            tree.keep(place, content);
            self.copied.push_back(place);
            self.bytes += size;
        }
    }

    /// The next unit to save because there is a copy of it.
    pub fn next_copy(&mut self) -> Option<Place> {
        loop {
            let place = self.copied.pop_front()?;
            if self.is_left(place) {
                return Some(place);
            }
        }
    }

    /// A unit of `size` bytes was read to be saved.
    pub fn saved(&mut self, tree: &mut Tree, (at, unit): Place, size: usize) {
        self.left[at].clear(unit, 1);
        if tree.forget(self.id, (at, unit)) {
            self.bytes = self.bytes.saturating_sub(size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = COPIES_MAX / 2;

    fn frozen() -> (Tree, Unsaved) {
        let (mut tree, units) = (Tree::default(), Bitmap::new(8));
        units.set(0, 6);
        let id = tree.add();
        (tree, Unsaved::new(id, &[units]))
    }

    #[test]
    fn copies_are_made_only_of_units_that_are_not_saved_and_within_the_limit() {
        let (mut tree, mut unsaved) = frozen();
        let content = || Some(vec![7].into());
        for unit in [3, 7, 1, 3] {
            assert!(!unsaved.is_full_for(&tree, (0, unit), SIZE) || unit == 3, "{unit}");
            unsaved.keep(&mut tree, (0, unit), SIZE, content);
        }
        // A unit that is not part of the snapshot is not kept.
        assert!(tree.kept((0, 7)).is_none() && tree.kept((0, 3)).is_some());
        assert!(unsaved.is_full_for(&tree, (0, 2), SIZE) && !unsaved.is_full_for(&tree, (0, 3), SIZE));
        assert!(!unsaved.is_full_for(&tree, (0, 7), SIZE));
        unsaved.saved(&mut tree, (0, 1), SIZE);
        assert!(tree.kept((0, 1)).is_none() && !unsaved.is_full_for(&tree, (0, 2), SIZE));
        assert_eq!((unsaved.next_copy(), unsaved.next_copy()), (Some((0, 3)), None));
        // A unit that is saved may change without a copy.
        unsaved.keep(&mut tree, (0, 1), SIZE, content);
        assert!(tree.kept((0, 1)).is_none());
    }

    #[test]
    fn other_checkpoints_keep_their_contents() {
        let (mut tree, units) = (Tree::default(), Bitmap::new(2));
        let older = tree.add();
        units.set(0, 2);
        let id = tree.add();
        let mut unsaved = Unsaved::new(id, &[units]);
        unsaved.saved(&mut tree, (0, 0), SIZE);
        unsaved.keep(&mut tree, (0, 0), SIZE, || Some(vec![7].into()));
        unsaved.keep(&mut tree, (0, 1), SIZE, || Some(vec![8].into()));
        unsaved.saved(&mut tree, (0, 1), SIZE);
        tree.free(id);
        let back = tree.go_to(older, |_| None).unwrap();
        assert_eq!(back.len(), 2);
    }
}
