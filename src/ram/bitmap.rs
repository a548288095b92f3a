// SPDX-License-Identifier: LGPL-2.1-or-later
//! A bitmap with one bit per page. Any thread may set and clear bits. Searches go word by word.

use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire};

const BITS: usize = 64;

/// One bit per page; all are clear at first.
pub struct Bitmap {
    words: Box<[AtomicU64]>,
    len: usize,
}

/// The bits `from..to` of a word, with `to` up to 64.
fn mask(from: usize, to: usize) -> u64 {
    (u64::MAX << from) & (u64::MAX >> (BITS - to))
}

impl Bitmap {
    /// `len` clear bits.
    pub fn new(len: usize) -> Self {
        Self { words: (0..len.div_ceil(BITS)).map(|_| AtomicU64::new(0)).collect(), len }
    }

    /// Number of bits.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Size in words.
    pub fn words(&self) -> usize {
        self.words.len()
    }

    /// Calls `change` for the part of each word that the range covers. Returns the sum of the results.
    fn each(&self, start: usize, count: usize, change: impl Fn(&AtomicU64, u64) -> u32) -> usize {
        let end = start.saturating_add(count).min(self.len);
        let (mut at, mut sum) = (start, 0);
        while at < end {
            let (word, from) = (at / BITS, at % BITS);
            let to = (end - word * BITS).min(BITS);
            sum += change(&self.words[word], mask(from, to)) as usize;
            at = word * BITS + to;
        }
        sum
    }

    /// Sets bits; bits beyond the end are ignored. Returns how many were clear.
    pub fn set(&self, start: usize, count: usize) -> usize {
        self.each(start, count, |word, mask| (mask & !word.fetch_or(mask, AcqRel)).count_ones())
    }

    /// Clears bits. Returns how many were set.
    pub fn clear(&self, start: usize, count: usize) -> usize {
        self.each(start, count, |word, mask| (mask & word.fetch_and(!mask, AcqRel)).count_ones())
    }

    /// Whether a bit is set.
    #[inline]
    pub fn get(&self, at: usize) -> bool {
        at < self.len && self.words[at / BITS].load(Acquire) >> (at % BITS) & 1 == 1
    }

    /// Number of set bits.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.load(Acquire).count_ones() as usize).sum()
    }

    /// Sets all bits that are set in `words`. Returns how many were clear.
    pub fn merge(&self, words: &[u64]) -> usize {
        let mut new = 0;
        for (at, (word, add)) in self.words.iter().zip(words).enumerate() {
            let add = add & mask(0, (self.len - at * BITS).min(BITS));
            if add != 0 {
                new += (add & !word.fetch_or(add, AcqRel)).count_ones() as usize;
            }
        }
        new
    }

    /// Sets all bits that are set in `other`, which has as many bits.
    pub fn unite(&self, other: &Self) {
        for (word, add) in self.words.iter().zip(&other.words) {
            word.fetch_or(add.load(Acquire), AcqRel);
        }
    }

    /// The first set bit of `from..to`, or `to`. With `flip` of all ones, the first clear bit. The bitmap ends before `to`
    /// at the latest.
    fn search(&self, from: usize, to: usize, flip: u64) -> usize {
        let to = to.min(self.len);
        if from >= to {
            return to;
        }
        let mut at = from / BITS;
        let mut word = (self.words[at].load(Acquire) ^ flip) & mask(from % BITS, BITS);
        while word == 0 {
            at += 1;
            if at * BITS >= to {
                return to;
            }
            word = self.words[at].load(Acquire) ^ flip;
        }
        (at * BITS + word.trailing_zeros() as usize).min(to)
    }

    /// The first run of set bits at or after `from`, as start and length. The length is at most `most`.
    pub fn run(&self, from: usize, most: usize) -> Option<(usize, usize)> {
        let start = self.search(from, self.len, 0);
        if start == self.len {
            return None;
        }
        // The bit at `start` was set; another thread may clear it.
        let end = self.search(start + 1, start.saturating_add(most), u64::MAX).max(start + 1);
        Some((start, end - start))
    }

    /// All runs of set bits, as start and length.
    pub fn runs(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let mut from = 0;
        std::iter::from_fn(move || {
            let (start, count) = self.run(from, usize::MAX)?;
            from = start + count;
            Some((start, count))
        })
    }

    /// The first run of clear bits in `from..to`, as start and length.
    pub fn clear_run(&self, from: usize, to: usize) -> Option<(usize, usize)> {
        let to = to.min(self.len);
        let start = self.search(from, to, u64::MAX);
        (start < to).then(|| (start, self.search(start, to, 0) - start))
    }

    /// Number of bits from `start` on that are all like the bit at `start`; at most `most`.
    pub fn alike(&self, start: usize, most: usize) -> usize {
        let flip = if self.get(start) { u64::MAX } else { 0 };
        self.search(start, start.saturating_add(most), flip).saturating_sub(start)
    }

    /// The first clear bit at or after `from`, or the number of bits.
    pub fn next_clear(&self, from: usize) -> usize {
        self.search(from, self.len, u64::MAX)
    }

    /// The bits in the form on the wire: little-endian, padded to whole 64-bit words.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.load(Acquire).to_le_bytes()).collect()
    }

    /// The bits in 64-bit words of this host's byte order.
    pub fn to_native_bytes(&self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.load(Acquire).to_ne_bytes()).collect()
    }

    /// Sets the bits that are clear in `bytes` and clears all others. Returns the number of set bits, or `None` if
    /// `bytes` is too short.
    pub fn set_inverted(&self, bytes: &[u8]) -> Option<usize> {
        if bytes.len() < self.len.div_ceil(8) {
            return None;
        }
        for (at, word) in self.words.iter().enumerate() {
            let mut raw = [0; 8];
            let part = bytes.get(at * 8..).unwrap_or_default();
            let part = &part[..part.len().min(8)];
            raw[..part.len()].copy_from_slice(part);
            word.store(
                !u64::from_le_bytes(raw) & mask(0, (self.len - at * BITS).min(BITS)),
                std::sync::atomic::Ordering::Release,
            );
        }
        Some(self.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn runs(bitmap: &Bitmap, most: usize) -> Vec<(usize, usize)> {
        let (mut from, mut found) = (0, Vec::new());
        while let Some((start, count)) = bitmap.run(from, most) {
            found.push((start, count));
            from = start + count;
        }
        found
    }

    #[test]
    fn ranges_are_set_and_cleared_across_words() {
        let bitmap = Bitmap::new(200);
        assert_eq!(bitmap.set(60, 80), 80);
        assert_eq!(bitmap.set(100, 1000), 60);
        assert_eq!(runs(&bitmap, 1000), [(60, 140)]);
        assert_eq!(bitmap.clear(64, 64), 64);
        assert_eq!(
            runs(&bitmap, 10),
            [(60, 4), (128, 10), (138, 10), (148, 10), (158, 10), (168, 10), (178, 10), (188, 10), (198, 2)]
        );
        assert_eq!((bitmap.next_clear(60), bitmap.next_clear(128)), (64, 200));
        assert_eq!(bitmap.set(usize::MAX, usize::MAX), 0);
    }

    #[test]
    fn united_bitmaps_have_the_bits_of_both() {
        let (one, two) = (Bitmap::new(130), Bitmap::new(130));
        one.set(3, 70);
        two.set(60, 20);
        two.set(129, 1);
        one.unite(&two);
        assert_eq!(one.runs().collect::<Vec<_>>(), [(3, 77), (129, 1)]);
        assert_eq!(two.runs().collect::<Vec<_>>(), [(60, 20), (129, 1)]);
    }

    #[test]
    fn the_form_on_the_wire_is_little_endian_and_checked() {
        let bitmap = Bitmap::new(70);
        bitmap.set(1, 1);
        bitmap.set(69, 1);
        assert_eq!(bitmap.to_bytes(), [2, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0]);
        let other = Bitmap::new(70);
        assert_eq!(other.set_inverted(&bitmap.to_bytes()), Some(68));
        assert!(!other.get(1) && !other.get(69) && other.get(0));
        assert_eq!(other.set_inverted(&[0; 8]), None);
        assert_eq!(other.set_inverted(&[0xff; 9]), Some(0));
    }

    proptest! {
        #[test]
        fn it_does_what_a_vector_of_bools_does(
            len in 1usize..300,
            steps in proptest::collection::vec((any::<bool>(), 0usize..300, 0usize..300), 0..20),
            most in 1usize..100,
        ) {
            let (bitmap, mut model) = (Bitmap::new(len), vec![false; len]);
            for (on, start, count) in steps {
                let changed = model.iter_mut().skip(start).take(count).filter(|bit| **bit != on);
                let changed = changed.map(|bit| *bit = on).count();
                prop_assert_eq!(if on { bitmap.set(start, count) } else { bitmap.clear(start, count) }, changed);
            }
            prop_assert_eq!(bitmap.count(), model.iter().filter(|bit| **bit).count());
            let mut seen = vec![false; len];
            for (start, count) in runs(&bitmap, most) {
                prop_assert!(count >= 1 && count <= most);
                seen[start..start + count].fill(true);
            }
            prop_assert_eq!(&seen, &model);
            let (mut at, mut clear) = (0, vec![true; len]);
            while let Some((start, count)) = bitmap.clear_run(at, (at + most).min(len)).or((at < len).then_some((at, 0))) {
                clear[start..start + count].fill(false);
                at = if count == 0 { (at + most).min(len) } else { start + count };
            }
            prop_assert_eq!(clear, model);
        }

        #[test]
        fn runs_are_those_of_a_vector_of_bools(bits in proptest::collection::vec(0..4u8, 1..400), start in 0..400usize, most in 1..400usize) {
            // Long runs are likely.
            let bits: Vec<bool> = bits.iter().scan(false, |state, step| { if *step == 0 { *state = !*state; } Some(*state) }).collect();
            let start = start % bits.len();
            let most = most.min(bits.len() - start);
            let bitmap = Bitmap::new(bits.len());
            bits.iter().enumerate().filter(|(_, bit)| **bit).for_each(|(at, _)| { bitmap.set(at, 1); });
            let expected = bits[start..start + most].iter().take_while(|bit| **bit == bits[start]).count();
            prop_assert_eq!((bitmap.get(start), bitmap.alike(start, most)), (bits[start], expected));
        }
    }
}
