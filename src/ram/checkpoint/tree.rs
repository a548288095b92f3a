// SPDX-License-Identifier: LGPL-2.1-or-later
//! The tree of checkpoints: which content of which unit of memory differs between two of them.
//!
//! The present state of memory is the root. Each checkpoint has a link to the next checkpoint on the way to the present, and a
//! difference: the content of the units in which it differs from that checkpoint. The checkpoint that the present state came from
//! is `current`; its difference is to the present memory. A rollback turns the links on the way to its target around, so that the
//! target becomes `current`. The contents in the differences on that way are exchanged with those of memory. No other memory
//! changes.
//!
//! A checkpoint that was freed stays as a fork while two or more others depend on it.

use std::collections::{BTreeMap, BTreeSet};

/// A unit of memory: index of its block, and number of the unit within the block.
pub type Place = (usize, usize);

/// Content of a unit. `None`: all bytes are zero.
pub type Content = Option<Box<[u8]>>;

/// Contents of some units.
pub type Difference = BTreeMap<Place, Content>;

/// Number of a checkpoint. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(u64);

struct Node {
    /// The next checkpoint on the way to the present; `None` for `current`.
    toward: Option<Id>,
    /// The checkpoints whose `toward` is this one.
    children: BTreeSet<Id>,
    /// Contents of this checkpoint that differ from `toward`, or from memory.
    difference: Difference,
    /// The checkpoint was not freed.
    held: bool,
}

/// All checkpoints of one RAM.
#[derive(Default)]
pub struct Tree {
    nodes: BTreeMap<Id, Node>,
    current: Option<Id>,
    last: u64,
}

impl Tree {
    /// Whether there is no checkpoint.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds a checkpoint of the present state, which becomes `current`.
    pub fn add(&mut self) -> Id {
        self.last += 1;
        let id = Id(self.last);
        let children = BTreeSet::from_iter(self.current);
        if let Some(before) = self.current.and_then(|before| self.nodes.get_mut(&before)) {
            before.toward = Some(id);
        }
        self.nodes.insert(id, Node { toward: None, children, difference: Difference::new(), held: true });
        self.current = Some(id);
        id
    }

    /// Keeps the content of a unit that is about to change for the first time since `current`. `content` is called if
    /// the content is not kept yet.
    pub fn keep(&mut self, place: Place, content: impl FnOnce() -> Content) {
        if let Some(current) = self.current.and_then(|current| self.nodes.get_mut(&current)) {
            current.difference.entry(place).or_insert_with(content);
        }
    }

    /// The content that a unit had at `current`, if it may have changed since.
    pub fn kept(&self, place: Place) -> Option<&Content> {
        self.nodes.get(&self.current?)?.difference.get(&place)
    }

    /// Whether this checkpoint is the only one.
    pub fn has_only(&self, id: Id) -> bool {
        self.nodes.len() == 1 && self.current == Some(id)
    }

    /// Forgets the content of a unit that was kept for the only checkpoint, which does not need it any more. Returns whether
    /// there was one.
    pub fn forget(&mut self, id: Id, place: Place) -> bool {
        self.has_only(id) && self.nodes.get_mut(&id).is_some_and(|node| node.difference.remove(&place).is_some())
    }

    /// Makes `target` current. Returns the contents that memory must get. `memory` reads the present content of a unit.
    /// `None` if there is no such checkpoint.
    pub fn go_to(&mut self, target: Id, memory: impl Fn(Place) -> Content) -> Option<Difference> {
        let mut way = Vec::new();
        let mut next = Some(target);
        while let Some(id) = next {
            way.push(id);
            next = self.nodes.get(&id)?.toward;
        }
        let start = *way.last()?;
        let mut wanted = std::mem::take(&mut self.nodes.get_mut(&start)?.difference);
        for pair in way.windows(2).rev() {
            let (far, near) = (pair[0], pair[1]);
            let mut difference = std::mem::take(&mut self.nodes.get_mut(&far)?.difference);
            for (place, content) in &mut difference {
                // A unit that is not in `wanted` has the content of `near` in memory.
                let before = wanted.insert(*place, content.take());
                *content = before.unwrap_or_else(|| memory(*place));
            }
            let node = self.nodes.get_mut(&near)?;
            (node.difference, node.toward) = (difference, Some(far));
            node.children.remove(&far);
            self.nodes.get_mut(&far)?.children.insert(near);
        }
        self.nodes.get_mut(&target)?.toward = None;
        self.current = Some(target);
        self.prune(start);
        Some(wanted)
    }

    /// Frees a checkpoint. The others stay as they are.
    pub fn free(&mut self, id: Id) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.held = false;
            self.prune(id);
        }
    }

    /// Removes a freed checkpoint, unless two or more others depend on it; then its neighbour, if that is free as well.
    fn prune(&mut self, id: Id) {
        let Some(node) = self.nodes.get(&id).filter(|node| !node.held && node.children.len() < 2) else { return };
        let toward = node.toward;
        let Some(node) = self.nodes.remove(&id) else { return };
        if let Some(next) = toward.and_then(|next| self.nodes.get_mut(&next)) {
            next.children.remove(&id);
            next.children.extend(&node.children);
        }
        let child = node.children.first().copied();
        if toward.is_none() {
            self.current = child;
        }
        match child.and_then(|child| self.nodes.get_mut(&child)) {
            Some(child) => {
                child.toward = toward;
                child.difference = join(node.difference, std::mem::take(&mut child.difference));
            }
            None => {
                if let Some(next) = toward {
                    self.prune(next);
                }
            }
        }
    }
}

/// Joins the differences of two links in a row. A unit that is in both has the content of the far end.
fn join(near: Difference, mut far: Difference) -> Difference {
    if near.len() > far.len() {
        let mut near = near;
        near.append(&mut far);
        return near;
    }
    for (place, content) in near {
        far.entry(place).or_insert(content);
    }
    far
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Write(usize, u8),
        Add,
        GoTo(usize),
        Free(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0usize..8, 0u8..4).prop_map(|(place, value)| Step::Write(place, value)),
            2 => Just(Step::Add),
            2 => any::<usize>().prop_map(Step::GoTo),
            1 => any::<usize>().prop_map(Step::Free),
        ]
    }

    fn content(value: u8) -> Content {
        (value != 0).then(|| vec![value].into())
    }

    fn value(content: &Content) -> u8 {
        content.as_ref().map_or(0, |bytes| bytes[0])
    }

    proptest! {
        #[test]
        fn every_checkpoint_keeps_its_state(steps in proptest::collection::vec(step(), 0..120)) {
            let (mut tree, mut memory) = (Tree::default(), [0u8; 8]);
            let mut held: Vec<(Id, [u8; 8])> = Vec::new();
            for step in steps {
                match step {
                    Step::Write(place, new) => {
                        tree.keep((0, place), || content(memory[place]));
                        memory[place] = new;
                    }
                    Step::Add => held.push((tree.add(), memory)),
                    Step::GoTo(at) if !held.is_empty() => {
                        let (id, state) = held[at % held.len()];
                        let wanted = tree.go_to(id, |(_, place)| content(memory[place])).unwrap();
                        wanted.iter().for_each(|((_, place), content)| memory[*place] = value(content));
                        prop_assert_eq!(memory, state);
                    }
                    Step::Free(at) if !held.is_empty() => {
                        let (id, _) = held.swap_remove(at % held.len());
                        tree.free(id);
                    }
                    Step::GoTo(_) | Step::Free(_) => {}
                }
                prop_assert_eq!(tree.is_empty(), held.is_empty());
                // Every fork that was freed has at least two checkpoints behind it.
                prop_assert!(tree.nodes.len() <= 2 * held.len());
            }
            for (id, state) in held {
                let wanted = tree.go_to(id, |(_, place)| content(memory[place])).unwrap();
                wanted.iter().for_each(|((_, place), content)| memory[*place] = value(content));
                prop_assert_eq!(memory, state);
            }
        }
    }

    #[test]
    fn freed_checkpoints_take_their_contents_along() {
        let mut tree = Tree::default();
        let first = tree.add();
        tree.keep((0, 1), || content(1));
        let second = tree.add();
        tree.keep((0, 2), || content(2));
        tree.free(second);
        let kept = &tree.nodes[&first].difference;
        assert_eq!(kept.keys().collect::<Vec<_>>(), [&(0, 1), &(0, 2)]);
        tree.free(first);
        assert!(tree.is_empty());
    }
}
