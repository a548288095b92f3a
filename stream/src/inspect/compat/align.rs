// SPDX-License-Identifier: LGPL-2.1-or-later
//! Pairs the fields of two layouts.
//!
//! A stream has no field names: QEMU reads the bytes in the order of its own fields. Fields with the same name and in
//! the same order are pairs. Between two pairs lies a [`Gap`], whose two sides must be the same bytes.

use std::collections::HashMap;

/// A part of two layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stretch {
    /// The fields at these indexes have the same name.
    Same(usize, usize),
    /// Fields without a partner of the same name.
    Gap(Gap),
}

/// Fields without a partner of the same name, on one or both sides. A range includes its first index and excludes its
/// second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    /// Range of indexes in the stream's layout.
    pub have: (usize, usize),
    /// Range of indexes in the machine's layout.
    pub wanted: (usize, usize),
}

/// Aligns two lists of names. Time and memory grow with the lists' lengths times a logarithm, not with their product.
pub(super) fn align<'a>(have: impl Iterator<Item = &'a str>, wanted: impl Iterator<Item = &'a str>) -> Vec<Stretch> {
    let (mut wanted_len, mut places) = (0, HashMap::new());
    for (at, name) in wanted.enumerate() {
        places.entry(name).or_insert(at);
        wanted_len = at + 1;
    }
    let (mut have_len, mut common) = (0, Vec::new());
    for (at, name) in have.enumerate() {
        common.extend(places.remove(name).map(|other| (at, other)));
        have_len = at + 1;
    }
    let mut stretches = Vec::new();
    let (mut at, mut other) = (0, 0);
    for (same, partner) in longest_rising(&common).into_iter().chain([(have_len, wanted_len)]) {
        if same > at || partner > other {
            stretches.push(Stretch::Gap(Gap { have: (at, same), wanted: (other, partner) }));
        }
        if same < have_len || partner < wanted_len {
            stretches.push(Stretch::Same(same, partner));
        }
        (at, other) = (same + 1, partner + 1);
    }
    stretches
}

/// Returns the longest subsequence of the pairs, sorted by the first number, that also rises in the second.
fn longest_rising(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    // `ends[n]` is the pair that ends the best run of length n + 1. `before` links each pair to its predecessor in the
    // run.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(pairs.len());
    for (at, &(_, other)) in pairs.iter().enumerate() {
        let length = ends.partition_point(|&end| pairs[end].1 < other);
        before.push(length.checked_sub(1).map(|length| ends[length]));
        match ends.get_mut(length) {
            Some(end) => *end = at,
            None => ends.push(at),
        }
    }
    let mut run = Vec::with_capacity(ends.len());
    let mut next = ends.last().copied();
    while let Some(at) = next {
        run.push(pairs[at]);
        next = before[at];
    }
    run.reverse();
    run
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aligned(have: &str, wanted: &str) -> Vec<Stretch> {
        align(have.split_terminator(' '), wanted.split_terminator(' '))
    }

    fn gap(have: (usize, usize), wanted: (usize, usize)) -> Stretch {
        Stretch::Gap(Gap { have, wanted })
    }

    #[test]
    fn names_in_the_same_order_are_paired() {
        use Stretch::Same;
        assert_eq!(aligned("a b c", "a b c"), [Same(0, 0), Same(1, 1), Same(2, 2)]);
        assert_eq!(aligned("a x c", "a y z c"), [Same(0, 0), gap((1, 2), (1, 3)), Same(2, 3)]);
        assert_eq!(aligned("a b", "b"), [gap((0, 1), (0, 0)), Same(1, 0)]);
        assert_eq!(aligned("a", "a b"), [Same(0, 0), gap((1, 1), (1, 2))]);
        assert_eq!(aligned("", ""), []);
        assert_eq!(aligned("a b c", "c a b"), [gap((0, 0), (0, 1)), Same(0, 1), Same(1, 2), gap((2, 3), (3, 3))]);
    }

    #[test]
    fn a_hundred_thousand_fields_are_aligned() {
        let names: Vec<String> = (0..100_000).map(|at| at.to_string()).collect();
        let reversed = align(names.iter().map(String::as_str), names.iter().rev().map(String::as_str));
        assert!(reversed.len() <= 3);
    }
}
