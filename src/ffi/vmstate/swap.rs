// SPDX-License-Identifier: LGPL-2.1-or-later
//! Converts many integers between the machine's byte order and big-endian bytes. Both directions are the same
//! operation.

/// Copies `bytes` bytes of integers of `width` bytes each, and reverses the bytes of each if the machine is not
/// big-endian.
///
/// # Safety
/// `from` must be readable and `into` writable for that many bytes, a multiple of `width`, and they must not overlap.
#[inline]
pub(super) unsafe fn copy(from: *const u8, into: *mut u8, bytes: usize, width: usize) {
    // SAFETY: `from` is readable and `into` writable for `bytes` bytes, and they do not overlap (contract of `copy`).
    unsafe {
        match width {
            2 => swap::<2>(from, into, bytes),
            4 => swap::<4>(from, into, bytes),
            8 => swap::<8>(from, into, bytes),
            _ => std::ptr::copy_nonoverlapping(from, into, bytes),
        }
    }
}

/// # Safety
/// As `copy`.
#[inline]
unsafe fn swap<const N: usize>(from: *const u8, into: *mut u8, bytes: usize) {
    let (from, into) = (from.cast::<[u8; N]>(), into.cast::<[u8; N]>());
    for at in 0..bytes / N {
        // SAFETY: `from` is readable and `into` writable for `bytes` bytes (contract of `copy`); arrays of bytes have
        // no alignment.
        unsafe {
            let mut integer = from.add(at).read();
            if cfg!(target_endian = "little") {
                integer.reverse();
            }
            into.add(at).write(integer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::copy;

    #[test]
    fn copy_swaps_each_width_at_odd_addresses() {
        let bytes: Vec<u8> = (0..=64).collect();
        for width in [1, 2, 4, 8] {
            let mut out = [0; 65];
            // SAFETY: 64 bytes from 1 on are in both.
            unsafe { copy(bytes.as_ptr().add(1), out.as_mut_ptr().add(1), 64, width) };
            for at in 0..64 {
                let expected =
                    if cfg!(target_endian = "little") { at / width * width + width - 1 - at % width } else { at };
                assert_eq!(out[1 + at], bytes[1 + expected], "width {width}, byte {at}");
            }
        }
    }
}
