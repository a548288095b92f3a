// SPDX-License-Identifier: LGPL-2.1-or-later
//! The number and the size of a field's elements. Both may come from the stream.

use super::model::{Extent, Field, Kind, flags};

/// Why an extent is rejected.
pub(super) type Complaint = String;

impl Extent {
    /// Returns the extent of a field, as QEMU 7.2's `vmstate_n_elems` and `vmstate_size`, but without their overflows.
    ///
    /// Rejects negative counts and sizes, counts and sizes that do not fit an `int`, arrays that do not fit the address
    /// space, and counts beyond the end of an array in place whose length is in the table.
    #[inline]
    pub fn of<F: Field>(field: &F, kind: Kind) -> Result<Self, Complaint> {
        let bits = field.flags();
        if bits & (flags::VARRAY | flags::VBUFFER | flags::MULTIPLY_ELEMENTS) == 0 {
            let count = if bits & flags::ARRAY == 0 { 1 } else { field.num() };
            let (count, size) = (usize::try_from(count), field.size());
            // Each is less than half a word wide, so the product fits a word.
            if let (Ok(count), true) = (count, size >> (usize::BITS / 2 - 1) == 0 && usize::BITS >= 64) {
                return Ok(Self { count, size });
            }
        }
        Self::variable(field, kind, bits)
    }

    #[inline(never)]
    fn variable<F: Field>(field: &F, kind: Kind, bits: u32) -> Result<Self, Complaint> {
        let count = count(field, bits)?;
        let size = size(field, bits)?;
        if count > 1 && count.checked_mul(size).is_none_or(|bytes| isize::try_from(bytes).is_err()) {
            return Err(format!("{count} elements of {size} bytes do not fit the memory"));
        }
        let in_place = bits & flags::VARRAY != 0 && bits & flags::POINTER == 0;
        let known = kind.width() > 0 || matches!(kind, Kind::Struct | Kind::Buffer);
        if in_place && known && field.start() > 0 && count * size > field.start() {
            return Err(format!("{count} elements, but the array has {}", field.start() / size.max(1)));
        }
        Ok(Self { count, size })
    }

    /// Returns the bytes of all elements.
    pub fn bytes(self) -> usize {
        self.count.saturating_mul(self.size)
    }
}

fn count<F: Field>(field: &F, bits: u32) -> Result<usize, Complaint> {
    let mut count = if bits & flags::ARRAY != 0 {
        i64::from(field.num())
    } else if bits & flags::VARRAY != 0 {
        field.count_member().ok_or("the device has no memory for its count")?
    } else {
        1
    };
    if bits & flags::MULTIPLY_ELEMENTS != 0 {
        count = count.saturating_mul(i64::from(field.num()));
    }
    match i32::try_from(count) {
        Ok(count) if count >= 0 => Ok(count as usize),
        _ => Err(format!("{count} elements")),
    }
}

fn size<F: Field>(field: &F, bits: u32) -> Result<usize, Complaint> {
    let mut size = field.size() as u64 as i64;
    if bits & flags::VBUFFER != 0 {
        size = i64::from(field.size_member().ok_or("the device has no memory for its size")?);
        if bits & flags::MULTIPLY != 0 {
            size = size.checked_mul(field.size() as u64 as i64).unwrap_or(i64::MAX);
        }
    }
    match i32::try_from(size) {
        Ok(size) if size >= 0 => Ok(size as usize),
        _ => Err(format!("an element of {size} bytes")),
    }
}
