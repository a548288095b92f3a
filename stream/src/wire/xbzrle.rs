// SPDX-License-Identifier: LGPL-2.1-or-later
//! XBZRLE: a page as its difference from the version that was sent before (QEMU 7.2, `docs/xbzrle.txt`,
//! `migration/xbzrle.c`).
//!
//! ```text
//! page = (unchanged-length changed-length changed-bytes)*
//! ```
//! A length is an LEB128 number of at most two bytes. Bytes after the last run are unchanged.

/// Page size in bytes from which two LEB128 bytes cannot hold every length. Pages must be smaller.
pub const PAGE_MAX: usize = 1 << 14;

fn put_length(out: &mut [u8], at: usize, value: usize) -> Option<usize> {
    if value < 0x80 {
        *out.get_mut(at)? = value as u8;
        return Some(at + 1);
    }
    let room = out.get_mut(at..at + 2)?;
    room.copy_from_slice(&[value as u8 | 0x80, (value >> 7) as u8]);
    Some(at + 2)
}

/// Returns the length of the common prefix of two slices of equal length.
fn common(old: &[u8], new: &[u8]) -> usize {
    let mut at = 0;
    for (old, new) in old.chunks_exact(8).zip(new.chunks_exact(8)) {
        let word = |bytes: &[u8]| bytes.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let difference = word(old) ^ word(new);
        if difference != 0 {
            return at + (difference.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    at + old[at..].iter().zip(&new[at..]).take_while(|(old, new)| old == new).count()
}

/// Writes the difference from `old` to `new` to `out` and returns its length: 0 if the pages are equal, `None` if the
/// difference does not fit into `out`.
///
/// # Panics
/// If the pages differ in length, or have `PAGE_MAX` bytes or more.
pub fn encode(old: &[u8], new: &[u8], out: &mut [u8]) -> Option<usize> {
    assert!(old.len() == new.len() && new.len() < PAGE_MAX);
    let (mut at, mut len) = (0, 0);
    loop {
        let same = common(&old[at..], &new[at..]);
        if at + same == new.len() {
            return Some(len);
        }
        let start = at + same;
        let changed = old[start..].iter().zip(&new[start..]).take_while(|(old, new)| old != new).count();
        len = put_length(out, len, same)?;
        len = put_length(out, len, changed)?;
        out.get_mut(len..len + changed)?.copy_from_slice(&new[start..start + changed]);
        len += changed;
        at = start + changed;
    }
}

fn get_length(bytes: &mut &[u8]) -> Option<usize> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    if first & 0x80 == 0 {
        return Some(usize::from(*first));
    }
    let (second, rest) = bytes.split_first()?;
    *bytes = rest;
    (second & 0x80 == 0).then(|| usize::from(first & 0x7f) | usize::from(*second) << 7)
}

/// Applies a difference to `page`. On an error a part of the page may have been changed; the error says what is wrong with
/// the difference.
pub fn decode(mut bytes: &[u8], page: &mut [u8]) -> Result<(), String> {
    let (total, mut at, mut first) = (page.len(), 0usize, true);
    while !bytes.is_empty() {
        let same = get_length(&mut bytes).ok_or("an unchanged length is cut off or too long")?;
        // Only the first run may begin with a change.
        if same == 0 && !first {
            return Err("an unchanged length is 0".to_owned());
        }
        first = false;
        at += same;
        let changed = get_length(&mut bytes).ok_or("a changed length is cut off or too long")?;
        if changed == 0 {
            return Err("a changed length is 0".to_owned());
        }
        if at + changed > total {
            return Err(format!("{changed} bytes at {at} overrun the page of {total}"));
        }
        let (now, later) = bytes
            .split_at_checked(changed)
            .ok_or_else(|| format!("{changed} changed bytes are announced, {} are there", bytes.len()))?;
        page[at..at + changed].copy_from_slice(now);
        at += changed;
        bytes = later;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Encodes byte by byte, as the format is defined.
    fn naive(old: &[u8], new: &[u8]) -> Vec<u8> {
        let leb =
            |value: usize| if value < 128 { vec![value as u8] } else { vec![value as u8 | 128, (value / 128) as u8] };
        let (mut out, mut at) = (Vec::new(), 0);
        while at < new.len() {
            let mut same = 0;
            while at + same < new.len() && old[at + same] == new[at + same] {
                same += 1;
            }
            at += same;
            let mut changed = Vec::new();
            while at < new.len() && old[at] != new[at] {
                changed.push(new[at]);
                at += 1;
            }
            if !changed.is_empty() {
                out.extend([leb(same), leb(changed.len()), changed].concat());
            }
        }
        out
    }

    #[test]
    fn encode_of_a_known_difference() {
        let (old, mut new) = ([0u8; 4096], [0u8; 4096]);
        new[0] = 1;
        new[300..303].copy_from_slice(&[7, 8, 9]);
        let mut out = [0; 4096];
        let len = encode(&old, &new, &mut out).unwrap();
        assert_eq!(out[..len], [0, 1, 1, 0xab, 2, 3, 7, 8, 9]);
        assert_eq!(encode(&new, &new, &mut out), Some(0));
        assert_eq!(encode(&old, &[1; 4096], &mut out), None);
        assert_eq!(encode(&old, &new, &mut out[..8]), None);
    }

    #[test]
    fn decode_rejects_malformed_differences() {
        for (bytes, words) in [
            (&[0x80u8][..], "unchanged length is cut off"),
            (&[0x80, 0x80, 1], "unchanged length is cut off or too long"),
            (&[5], "changed length is cut off"),
            (&[5, 0], "changed length is 0"),
            (&[1, 1, 9, 0, 1, 9], "unchanged length is 0"),
            (&[1, 4, 1, 2], "4 changed bytes are announced, 2"),
            (&[30, 3, 1, 2, 3], "overrun the page of 32"),
            (&[0xff, 0x7f, 1, 1], "overrun"),
        ] {
            let error = decode(bytes, &mut [0; 32]).unwrap_err();
            assert!(error.contains(words), "{bytes:?}: {error}");
        }
    }

    prop_compose! {
        fn pages()(len in 1usize..5000)(
            old in proptest::collection::vec(any::<u8>(), len),
            changes in proptest::collection::vec((0..len, 1usize..70, any::<u8>()), 0..30),
        ) -> (Vec<u8>, Vec<u8>) {
            let mut new = old.clone();
            for (at, count, value) in changes {
                let end = (at + count).min(new.len());
                new[at..end].fill(value);
            }
            (old, new)
        }
    }

    proptest! {
        #[test]
        fn encode_gives_the_defined_form_and_decode_reverses_it((old, new) in pages()) {
            let mut out = vec![0; old.len()];
            let expected = naive(&old, &new);
            match encode(&old, &new, &mut out) {
                None => prop_assert!(expected.len() > out.len()),
                Some(len) => {
                    prop_assert_eq!(&out[..len], &expected[..]);
                    let mut page = old.clone();
                    prop_assert_eq!(decode(&out[..len], &mut page), Ok(()));
                    prop_assert_eq!(page, new);
                }
            }
        }

        #[test]
        fn decode_of_random_bytes_causes_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), len in 1usize..300) {
            let mut page = vec![0; len];
            let _ = decode(&bytes, &mut page);
            prop_assert_eq!(page.len(), len);
        }
    }
}
