// SPDX-License-Identifier: LGPL-2.1-or-later
//! Integers of the machine to big-endian bytes and back, which is the same operation, many at a time.

/// Copies `bytes` bytes of integers of `width` bytes each and turns each into the other byte order, where the machine's
/// is not big-endian.
///
/// # Safety
/// `from` must be readable and `into` writable for that many bytes, a multiple of `width`, and they must not overlap.
#[inline]
pub(super) unsafe fn copy(from: *const u8, into: *mut u8, bytes: usize, width: usize) {
    // SAFETY: as the caller promised.
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
        // SAFETY: as the caller promised; arrays of bytes have no alignment.
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
    fn each_width_at_odd_addresses() {
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
