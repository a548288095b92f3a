// SPDX-License-Identifier: LGPL-2.1-or-later
//! Pages that were sent as what changed since they were sent before (QEMU, `docs/xbzrle.txt`).
//!
//! A page is runs in turn: so many bytes unchanged, so many new bytes and the bytes. Lengths have seven bits per byte,
//! the lowest first, in at most two bytes.

/// Brings `page` up to date. False if the runs make no sense; the page is then what they made of it.
pub fn apply(runs: &[u8], page: &mut [u8]) -> bool {
    let (mut rest, mut at) = (runs, 0);
    while !rest.is_empty() {
        let first = rest.len() == runs.len();
        let Some(unchanged) = length(&mut rest) else { return false };
        let Some(changed) = length(&mut rest) else { return false };
        if changed == 0 || unchanged == 0 && !first {
            return false;
        }
        at += unchanged;
        let (Some(target), Some((bytes, after))) = (page.get_mut(at..at + changed), rest.split_at_checked(changed))
        else {
            return false;
        };
        target.copy_from_slice(bytes);
        rest = after;
        at += changed;
    }
    true
}

fn length(rest: &mut &[u8]) -> Option<usize> {
    let (&low, after) = rest.split_first()?;
    *rest = after;
    if low & 0x80 == 0 {
        return Some(low.into());
    }
    let (&high, after) = rest.split_first()?;
    *rest = after;
    (high & 0x80 == 0).then(|| usize::from(low & 0x7f) | usize::from(high) << 7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_change_what_they_say() {
        let mut page = vec![1; 4096];
        assert!(apply(&[0, 2, 9, 8, 0x85, 0x02, 1, 7], &mut page));
        assert_eq!(page[..3], [9, 8, 1]);
        assert_eq!(page[2 + 0x105..][..2], [7, 1]);
        assert!(apply(&[], &mut page));
    }

    #[test]
    fn nonsense_is_refused() {
        let mut page = vec![0; 16];
        for runs in
            [&[1][..], &[0, 0], &[0, 17], &[0, 1, 5, 0, 1, 5], &[16, 1, 1], &[0x80], &[0x80, 0x80, 1, 1], &[0, 5, 1]]
        {
            assert!(!apply(runs, &mut page), "{runs:?}");
        }
    }
}
