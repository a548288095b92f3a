// SPDX-License-Identifier: LGPL-2.1-or-later
//! Finds the last copies of pages in the runs of several files.

use std::borrow::Cow;

use crate::budget::{Budget, OverBudget};
use crate::wire::page_runs::Run;

/// Puts the runs of a younger list over those of an older one. Each list is in the order of addresses, without overlap.
fn overlay(older: &[Run], younger: &[Run], page_size: u64, out: &mut Vec<Run>) {
    let mut older = older.iter().copied();
    let mut current = older.next();
    for run in younger {
        while let Some(old) = current.filter(|old| old.address < run.address) {
            let before = old.before(run.address, page_size);
            out.push(old.first(before));
            if before < old.count {
                current = Some(old.skip(before, page_size));
                break;
            }
            current = older.next();
        }
        let end = run.end(page_size);
        while let Some(old) = current.filter(|old| old.address < end) {
            let covered = old.before(end, page_size);
            if covered < old.count {
                current = Some(old.skip(covered, page_size));
                break;
            }
            current = older.next();
        }
        out.push(*run);
    }
    out.extend(current);
    out.extend(older);
}

/// A stack of lists of runs, from the oldest to the youngest.
struct Stack<'a, 'b> {
    lists: Vec<Cow<'a, [Run]>>,
    page_size: u64,
    budget: &'b mut Budget,
}

impl Stack<'_, '_> {
    /// Replaces the two youngest lists by one.
    fn merge(&mut self) -> Result<(), OverBudget> {
        let (Some(younger), Some(older)) = (self.lists.pop(), self.lists.pop()) else { return Ok(()) };
        // Each younger run may divide an older one.
        let most = older.len() + 2 * younger.len();
        self.budget.take(most * size_of::<Run>())?;
        let mut merged = Vec::with_capacity(most);
        overlay(&older, &younger, self.page_size, &mut merged);
        for list in [older, younger] {
            if let Cow::Owned(list) = list {
                self.budget.give_back(list.capacity() * size_of::<Run>());
            }
        }
        self.lists.push(Cow::Owned(merged));
        Ok(())
    }
}

/// Joins lists of runs, from the oldest to the youngest. Of several copies of a page, the last one is kept. Returns runs in the
/// order of addresses, without overlap.
pub(super) fn last_copies<'a>(
    lists: impl Iterator<Item = &'a [Run]>,
    page_size: u64,
    budget: &mut Budget,
) -> Result<Vec<Run>, OverBudget> {
    let mut stack = Stack { lists: Vec::new(), page_size, budget };
    for list in lists.flat_map(|list| list.chunk_by(|one, next| one.end(page_size) <= next.address)) {
        stack.lists.push(Cow::Borrowed(list));
        // A list is merged with one that is not much longer, so each run is copied a logarithmic number of times.
        while let [.., older, younger] = &stack.lists[..]
            && older.len() < 2 * younger.len()
        {
            stack.merge()?;
        }
    }
    while stack.lists.len() > 1 {
        stack.merge()?;
    }
    match stack.lists.pop() {
        Some(Cow::Owned(runs)) => Ok(runs),
        Some(Cow::Borrowed(runs)) => {
            stack.budget.take(size_of_val(runs))?;
            Ok(runs.to_vec())
        }
        None => Ok(Vec::new()),
    }
}
